"""Exports that are killed: what is under the target's name afterwards, and who cleans up.

    python -m tests.killed_exports [MOMENTS] [SEED]

A forked child exports a run once in peace; this says how long it takes and what a whole export
holds. Then children are forked that export it again, each killed (SIGKILL) at a moment drawn from
that time and a little more. A target must be absent or hold the very files of the first export.
At the end one export in peace must find the place clean. Prints a line of JSON; exits 1 on the
first target that is half there.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from contextlib import redirect_stderr
from pathlib import Path

import torch

from molmo_tune.export.export import export_run
from molmo_tune.run_folder import RunFolder
from tests.export_runs import make_run


def contents(folder: Path) -> dict[str, str]:
    """Every file and a digest of its bytes."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def export_and_die(run: RunFolder, target: Path, after_s: float) -> None:
    """Export in a child that lives at most so long."""
    child = exporting(run, target)
    time.sleep(after_s)
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise RuntimeError("an export failed by itself")


def exporting(run: RunFolder, target: Path) -> int:
    """A child at work; its libraries may have one thread only, or it would wait for lost ones."""
    child = os.fork()
    if child == 0:
        try:
            torch.set_num_threads(1)  # makes anew what a fork broke, before several threads would
            with redirect_stderr(io.StringIO()):
                export_run(run, target)
        except BaseException:
            traceback.print_exc()
            os._exit(1)  # and leave the parent's folders alone
        os._exit(0)
    return child


def main(num_moments: int, seed: int) -> int:
    """See the module's text."""
    draw = random.Random(seed)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        run = make_run(Path(scratch) / "run", "tiny")
        export_run(run, Path(scratch) / "warm")
        started = time.perf_counter()
        os.waitpid(exporting(run, Path(scratch) / "whole"), 0)
        seconds = time.perf_counter() - started
        whole = contents(Path(scratch) / "whole")
        place = Path(scratch) / "place"
        target = place / "export"
        found = {"absent": 0, "whole": 0, "leftovers": 0, "seconds": round(seconds, 2)}
        for _ in range(num_moments):
            export_and_die(run, target, draw.uniform(0, 1.2 * seconds))
            left = [path for path in place.iterdir() if path != target] if place.is_dir() else []
            found["leftovers"] += bool(left)
            if len(left) > 1:
                print(f"more than one leftover: {left}")
                return 1
            if target.exists() and contents(target) != whole:
                print(f"half there: {contents(target).keys()}")
                return 1
            found["whole" if target.exists() else "absent"] += 1
            shutil.rmtree(target, ignore_errors=True)
        export_run(run, target)
        if contents(target) != whole or list(place.iterdir()) != [target]:
            print(f"not clean: {list(place.iterdir())}")
            return 1
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:]]
    sys.exit(main(*numbers, *(50, 1)[len(numbers) :]))
