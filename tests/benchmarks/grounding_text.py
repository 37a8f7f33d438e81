"""How fast answers are parsed: ``python tests/benchmarks/grounding_text.py`` from the repository.

Prints seconds for 100,000 answers of 50 points (goal: under 10 on one core) and for strings of a
megabyte that make careless regular expressions backtrack (goal: under 1 each). A command and not a
timed test, because shared machines have no steady clock.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from molmo_tune.grounding import (
    format_video_points,
    parse_count,
    parse_multi_image_points,
    parse_points,
    parse_tracks,
)

MEGABYTE = 1_000_000
SIZE_WH = (1280, 720)
HOSTILE = {
    "opening tags": "<points",
    "opening tags and attributes": '<points coords="',
    "attributes without tags": ' coords="1 1 100 200">',
    "unclosed attributes": '<points coords="1 1 100 200 ',
    "digits": "1",
    "digits and blanks": "1 ",
    "dots": ".",
    "groups": "1 1 100 200;",
    "empty groups": "1 ;",
    "lines": "<points\n",
    "totals": "the total number of ",
    "blanks": "the total number of x" + " " * 5000,
}


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def hostile_texts() -> dict[str, str]:
    repeated = {name: part * (MEGABYTE // len(part)) for name, part in HOSTILE.items()}
    inside = {f"{n}, inside a tag": f'<points coords="{t}">x' for n, t in repeated.items()}
    cut = {f"{n}, in a cut tag": f'<points coords="{t}' for n, t in repeated.items()}
    return repeated | inside | cut


def points(text: str) -> None:
    parse_points(text, size_wh=SIZE_WH)


def points_tolerant(text: str) -> None:
    parse_points(text, size_wh=SIZE_WH, tolerant=True)


def tracks(text: str) -> None:
    parse_tracks(text, size_wh=SIZE_WH, video_fps=30)


def images(text: str) -> None:
    parse_multi_image_points(text, sizes_wh=[SIZE_WH])


def count(text: str) -> None:
    parse_count(text)


READERS = (points, points_tolerant, tracks, images, count)


def read_many(texts: list[str], repeats: int) -> None:
    """Parse and drop the results: keeping five million points would measure the allocator."""
    for _ in range(repeats):
        for text in texts:
            parse_points(text, size_wh=SIZE_WH)


def answers(num: int, num_points: int) -> list[str]:
    rng = random.Random(0)

    def answer() -> str:
        frames = [
            (second / 2, [(rng.uniform(0, 1280), rng.uniform(0, 720)) for _ in range(5)])
            for second in range(num_points // 5)
        ]
        return format_video_points(frames, size_wh=SIZE_WH, label="fish", mode="point_count")

    return [answer() for _ in range(num)]


def main() -> None:
    distinct = answers(1000, 50)
    start_cpu = time.process_time()
    took = seconds(lambda: read_many(distinct, repeats=100))
    cpu = time.process_time() - start_cpu
    print(f"100,000 answers of 50 points: {took:.2f} s ({cpu:.2f} s of processor time)")
    for reader in READERS:
        slowest, name = max(
            (seconds(partial(reader, text)), name) for name, text in hostile_texts().items()
        )
        print(f"slowest hostile megabyte, {reader.__name__}: {slowest:.2f} s ({name})")


if __name__ == "__main__":
    main()
