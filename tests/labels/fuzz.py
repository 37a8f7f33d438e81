"""Random damage to label files: ``python -m tests.labels.fuzz --count 10000 [--format NAME …]``.

The golden cases of every format, and the real files of the shared samples where they are, are
damaged (`tests.labels.damage`) and read. Whatever comes in, reading must end in a `UserError` of
one line, or in samples with a report that adds up and that our own format reproduces; within five
seconds and half a gigabyte. Anything else is a defect; ``--only SEED`` repeats it.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

from PIL import Image

from molmo_tune.errors import UserError
from molmo_tune.labels.formats.table.table import TableLayout
from molmo_tune.labels.read import READERS, read_labels
from molmo_tune.labels.record import format_record, parse_record
from molmo_tune.media.video import VideoInfo, probe_video
from tests.conftest import SHARED
from tests.labels.cases import CASES
from tests.labels.damage import damage

LIMIT_S = 5.0
LIMIT_BYTES = 512 * 2**20
LARGEST_SAMPLE = 300_000
SIZE_WH = (20, 10)


class TooSlow(BaseException):
    """Not an Exception, so that no reader catches it."""


@dataclass(frozen=True)
class Target:
    """Label files on disk, those to damage, and how to read them."""

    format: str
    name: str
    path: Path
    files: tuple[Path, ...]
    media: Path | None
    options: Mapping[str, Any] = field(default_factory=dict)
    videos: Mapping[str, VideoInfo] = field(default_factory=dict)


def golden_targets(folder: Path) -> Iterator[Target]:
    """The golden cases."""
    for case in CASES.values():
        if case.needs:
            continue  # its files are a library's
        inputs = case.write(folder / case.format / case.name)
        names = [path.relative_to(case.folder) for path in sorted(case.folder.rglob("*"))]
        files = (inputs.folder / name for name in names)
        files = tuple(file for file in files if file.is_file())
        name = f"{case.format}/{case.name}"
        yield Target(case.format, name, inputs.path, files, inputs.media, inputs.options)


def arrow_targets(folder: Path) -> Iterator[Target]:
    """A table with lists of objects as Parquet and as Arrow, where pyarrow is installed."""
    if find_spec("pyarrow") is None:
        return
    pyarrow = import_module("pyarrow")
    objects = {"kind": ["cat", "dog"], "box": [[1.0, 1.0, 5.0, 5.0], [2.0, 3.0, 6.0, 8.0]]}
    table = pyarrow.Table.from_pylist([{"image": "a.png", "objects": objects}] * 3)
    layout = TableLayout("image", "objects.kind", ("objects.box",), "pixel")
    for suffix in ("parquet", "arrow"):
        place = folder / suffix
        place.mkdir()
        Image.new("RGB", SIZE_WH).save(place / "a.png")
        path = place / f"x.{suffix}"
        if suffix == "parquet":
            import_module("pyarrow.parquet").write_table(table, path)
        else:
            with path.open("wb") as file, pyarrow.ipc.new_stream(file, table.schema) as out:
                out.write_table(table)
        yield Target("table", f"golden {suffix}", path, (path,), place, {"layout": layout})


def real_targets(folder: Path) -> Iterator[Target]:
    """The real files that can be read, with stand-ins for missing media."""
    from tests.test_samples import MEDIA_SUFFIXES, READ, stand_in

    if not (SHARED / "samples").is_dir():
        return
    copy = shutil.copytree(SHARED / "samples", folder / "samples")
    for number, (name, expected) in enumerate(READ.items()):
        path, media, videos = copy / name, None, {}
        if isinstance(expected.media, str):
            media = copy / expected.media
        elif expected.media is not None:
            media = folder / f"media {number}"
            media.mkdir()
            videos = stand_in(expected.media, media)
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        are_images = expected.format in ("mask_folder", "mots_challenge")
        files = [f for f in files if are_images or f.suffix.lower() not in MEDIA_SUFFIXES]
        files = [f for f in files if f.is_file() and f.stat().st_size < LARGEST_SAMPLE]
        if files:
            yield Target(expected.format, name, path, tuple(files), media, expected.options, videos)


def break_once(target: Target, seed: int) -> bool:
    """Damage one file, read, restore it; return whether it could be read all the same.

    Raises:
        AssertionError: the report does not add up, the result is empty without an error, or our
            own format does not reproduce it.
        TooSlow: it took more than `LIMIT_S`.
        Exception: anything else that a reader raises is a defect.
    """
    rng = random.Random(f"{target.name}:{seed}")
    file = rng.choice(target.files)
    whole = file.read_bytes()
    videos = target.videos

    def probe(path: Path) -> VideoInfo:
        return videos[path.name] if path.name in videos else probe_video(path)

    try:
        file.write_bytes(damage(whole, rng))
        with patch("molmo_tune.labels.media_source.probe_video", probe):
            return _reads(target)
    finally:
        file.write_bytes(whole)


def _reads(target: Target) -> bool:
    try:
        with limits():
            samples, report = read_labels(
                target.format, target.path, target.media, **target.options
            )
    except UserError as error:
        if "\n" in str(error):
            raise AssertionError("a message of several lines") from error
        return False
    assert samples, "an empty result"
    for count in report.counts:
        assert count.read == count.kept + count.skipped + count.dropped, count
    assert sum(count.read for count in report.counts), "nothing read"
    for sample in samples:
        text = json.dumps(format_record(sample), allow_nan=False)
        assert parse_record(json.loads(text), "again") == sample, "our own format differs"
    return True


@contextmanager
def limits() -> Iterator[None]:
    """Stop what hangs or allocates much more memory."""

    def stop(*_: object) -> None:
        raise TooSlow(f"more than {LIMIT_S} s")

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    most = pages * resource.getpagesize() + LIMIT_BYTES
    handler = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
    resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.signal(signal.SIGALRM, handler)


def in_turn(targets: list[Target], count: int) -> Iterator[tuple[Target, int]]:
    """Targets and seeds: all formats equally often, and their files in turn."""
    groups: dict[str, list[Target]] = {}
    for target in targets:
        groups.setdefault(target.format, []).append(target)
    names = list(groups)
    for number in range(count):
        group = groups[names[number % len(names)]]
        turn = number // len(names)
        yield group[turn % len(group)], number


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--format", nargs="*", default=list(READERS))
    parser.add_argument("--only", type=int, help="repeat this seed and show its traceback")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        targets = [*golden_targets(folder), *arrow_targets(folder), *real_targets(folder)]
        targets = [v for v in targets if v.format in options.format and is_readable(v.format)]
        not_tried = sorted(set(options.format) - {target.format for target in targets})
        print(f"{len(targets)} inputs; not tried: {', '.join(not_tried) or 'none'}")
        return _run(targets, options.count, options.only)


def is_readable(format: str) -> bool:
    """Whether the library that a format needs is installed."""
    return find_spec("sleap_io" if format == "sleap" else "json") is not None


def _run(targets: list[Target], count: int, only: int | None) -> int:
    read, tried, failures = Counter[str](), Counter[str](), 0
    start, slowest = time.monotonic(), (0.0, 0, "")
    for target, seed in in_turn(targets, count):
        if only is not None and seed != only:
            continue
        tried[target.format] += 1
        before = time.monotonic()
        try:
            read[target.format] += break_once(target, seed)
        except (Exception, TooSlow) as error:
            failures += 1
            print(f"--only {seed}  {target.name}: {type(error).__name__}: {str(error)[:200]}")
            if only is not None:
                traceback.print_exc()
        slowest = max(slowest, (time.monotonic() - before, seed, target.name))
    for name, number in tried.items():
        print(f"{name}: {number} broken files, {read[name]} read all the same")
    seconds = time.monotonic() - start
    print(f"slowest: {slowest[0]:.2f} s, --only {slowest[1]}  {slowest[2]}")
    print(f"{tried.total()} files, {failures} defects, {seconds:.0f} s")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
