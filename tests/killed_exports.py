"""Exports killed at random times must be complete or absent, and the next export cleans up.

    python -m tests.killed_exports [KILLS] [SEED]

One export in a forked child measures the time and the files of a complete export. Further children
repeat the export, each killed (SIGKILL) at a random time up to 1.2 times that long. The target must
be absent or have exactly the files of the first export. A final export must leave a clean folder.
Prints a line of JSON; exits with 1 at the first incomplete target.
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
    """Return the SHA-256 of every file, by relative path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def export_and_die(run: RunFolder, target: Path, after_s: float) -> None:
    """Export in a child that is killed after this time."""
    child = exporting(run, target)
    time.sleep(after_s)
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise RuntimeError("an export failed without being killed")


def exporting(run: RunFolder, target: Path) -> int:
    """Fork a child that exports; with one torch thread, as a fork does not copy the others."""
    child = os.fork()
    if child == 0:
        try:
            torch.set_num_threads(1)  # resets what the fork broke, before several threads would
            with redirect_stderr(io.StringIO()):
                export_run(run, target)
        except BaseException:
            traceback.print_exc()
            os._exit(1)  # and leave the parent's folders alone
        os._exit(0)
    return child


def main(num_kills: int, seed: int) -> int:
    """Kill exports and check what they leave behind."""
    rng = random.Random(seed)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        run = make_run(Path(scratch) / "run", "tiny")
        export_run(run, Path(scratch) / "warm")
        started = time.perf_counter()
        os.waitpid(exporting(run, Path(scratch) / "complete"), 0)
        seconds = time.perf_counter() - started
        complete = contents(Path(scratch) / "complete")
        place = Path(scratch) / "place"
        target = place / "export"
        found = {"absent": 0, "whole": 0, "leftovers": 0, "seconds": round(seconds, 2)}
        for _ in range(num_kills):
            export_and_die(run, target, rng.uniform(0, 1.2 * seconds))
            left = [path for path in place.iterdir() if path != target] if place.is_dir() else []
            found["leftovers"] += bool(left)
            if len(left) > 1:
                print(f"more than one leftover: {left}")
                return 1
            if target.exists() and contents(target) != complete:
                print(f"incomplete: {contents(target).keys()}")
                return 1
            found["whole" if target.exists() else "absent"] += 1
            shutil.rmtree(target, ignore_errors=True)
        export_run(run, target)
        if contents(target) != complete or list(place.iterdir()) != [target]:
            print(f"not clean: {list(place.iterdir())}")
            return 1
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:]]
    sys.exit(main(*numbers, *(50, 1)[len(numbers) :]))
