"""Broken label files: ``python -m tests.fuzz_labels --count 10000 [--format NAME …]``.

The golden inputs of every reader, and the real files of ``../shared/samples`` where they are there,
are damaged (`tests.label_damage`) and read. Whatever comes in, reading must end in a `UserError` of
one line, or in samples with an account that adds up and that our own file gives back; within five
seconds and half a gigabyte. Anything else is a defect. Prints what to repeat: ``--only SEED``.
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
from tests.label_damage import damaged
from tests.label_inputs import SIZE, TINY

LIMIT_S = 5.0
LIMIT_BYTES = 512 * 2**20
LARGEST_SAMPLE = 300_000
NEEDS = {"sleap": "sleap_io"}


class TooSlow(BaseException):
    """Not an Exception, so that no reader takes it for a fault of the file."""


@dataclass(frozen=True)
class Victim:
    """Label files on disk, which of them are damaged, and how they are read."""

    format: str
    name: str
    path: Path
    files: tuple[Path, ...]
    media: Path | None
    options: Mapping[str, Any] = field(default_factory=dict)
    videos: Mapping[str, VideoInfo] = field(default_factory=dict)


def golden_victims(folder: Path) -> Iterator[Victim]:
    """The tiny input of every format."""
    from tests.test_readers_video import CASES, make_video, put

    clip = make_video(folder / "clip.mp4")
    for name, tiny in TINY.items():
        path, media = tiny.write(folder / name)
        files = tuple(folder / name / file for file in tiny.files)
        yield Victim(name, f"golden {name}", path, files, media, tiny.options)
    for name, case in CASES.items():
        (folder / name).mkdir()
        shutil.copy(clip, folder / name / "clip.mp4")
        path = put(case, folder / name)
        files = tuple(folder / name / f for f in case.files if not f.endswith(".mkv"))
        yield Victim(name, f"golden {name}", path, files, folder / name)


def arrow_victims(folder: Path) -> Iterator[Victim]:
    """A table with lists of objects as Parquet and as Arrow, where pyarrow is there."""
    if find_spec("pyarrow") is None:
        return
    pyarrow = import_module("pyarrow")
    objects = {"kind": ["cat", "dog"], "box": [[1.0, 1.0, 5.0, 5.0], [2.0, 3.0, 6.0, 8.0]]}
    table = pyarrow.Table.from_pylist([{"image": "a.png", "objects": objects}] * 3)
    layout = TableLayout("image", "objects.kind", ("objects.box",), "pixel")
    for suffix in ("parquet", "arrow"):
        place = folder / suffix
        place.mkdir()
        Image.new("RGB", SIZE).save(place / "a.png")
        path = place / f"x.{suffix}"
        if suffix == "parquet":
            import_module("pyarrow.parquet").write_table(table, path)
        else:
            with path.open("wb") as file, pyarrow.ipc.new_stream(file, table.schema) as out:
                out.write_table(table)
        yield Victim("table", f"golden {suffix}", path, (path,), place, {"layout": layout})


def real_victims(folder: Path) -> Iterator[Victim]:
    """The real files that are read, with stand-ins for media that are not there."""
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
        are_pictures = expected.format in ("mask_folder", "mots_challenge")
        files = [f for f in files if are_pictures or f.suffix.lower() not in MEDIA_SUFFIXES]
        files = [f for f in files if f.is_file() and f.stat().st_size < LARGEST_SAMPLE]
        if files:
            yield Victim(expected.format, name, path, tuple(files), media, expected.options, videos)


def break_once(victim: Victim, seed: int) -> bool:
    """Damage one file, read, repair it. Whether it could be read nevertheless.

    Raises:
        AssertionError: the account does not add up, the result is empty without an error, or our
            own file does not give it back.
        TooSlow: it took more than `LIMIT_S`.
        Exception: whatever else a reader raises is its defect.
    """
    rng = random.Random(f"{victim.name}:{seed}")
    file = rng.choice(victim.files)
    whole = file.read_bytes()
    stands_in = victim.videos

    def probe(path: Path) -> VideoInfo:
        return stands_in[path.name] if path.name in stands_in else probe_video(path)

    try:
        file.write_bytes(damaged(whole, rng))
        with patch("molmo_tune.labels.media_source.probe_video", probe):
            return _reads(victim)
    finally:
        file.write_bytes(whole)


def _reads(victim: Victim) -> bool:
    try:
        with limits():
            samples, report = read_labels(
                victim.format, victim.path, victim.media, **victim.options
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
        assert parse_record(json.loads(text), "again") == sample, "our own file says another thing"
    return True


@contextmanager
def limits() -> Iterator[None]:
    """An end to what hangs or takes much more memory than is taken already."""

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


def in_turn(victims: list[Victim], count: int) -> Iterator[tuple[Victim, int]]:
    """So many breaks: every format as often as every other, and its files in turn."""
    groups: dict[str, list[Victim]] = {}
    for victim in victims:
        groups.setdefault(victim.format, []).append(victim)
    names = list(groups)
    for number in range(count):
        group = groups[names[number % len(names)]]
        turn = number // len(names)
        yield group[turn % len(group)], number


def main() -> int:
    """Fuzz the formats named, or all that can be read here."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--format", nargs="*", default=list(READERS))
    parser.add_argument("--only", type=int, help="repeat this seed and show its traceback")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        victims = [*golden_victims(folder), *arrow_victims(folder), *real_victims(folder)]
        victims = [v for v in victims if v.format in options.format and can_be_read(v.format)]
        untried = sorted(set(options.format) - {victim.format for victim in victims})
        print(f"{len(victims)} inputs; not tried: {', '.join(untried) or 'none'}")
        return _run(victims, options.count, options.only)


def can_be_read(format: str) -> bool:
    """Whether the library that a format needs is installed."""
    return find_spec(NEEDS.get(format, "json")) is not None


def _run(victims: list[Victim], count: int, only: int | None) -> int:
    read, tried, failures = Counter[str](), Counter[str](), 0
    start, slowest = time.monotonic(), (0.0, 0, "")
    for victim, seed in in_turn(victims, count):
        if only is not None and seed != only:
            continue
        tried[victim.format] += 1
        before = time.monotonic()
        try:
            read[victim.format] += break_once(victim, seed)
        except (Exception, TooSlow) as error:
            failures += 1
            print(f"--only {seed}  {victim.name}: {type(error).__name__}: {str(error)[:200]}")
            if only is not None:
                traceback.print_exc()
        slowest = max(slowest, (time.monotonic() - before, seed, victim.name))
    for name, number in tried.items():
        print(f"{name}: {number} broken files, {read[name]} read nevertheless")
    seconds = time.monotonic() - start
    print(f"slowest: {slowest[0]:.2f} s, --only {slowest[1]}  {slowest[2]}")
    print(f"{tried.total()} files, {failures} defects, {seconds:.0f} s")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
