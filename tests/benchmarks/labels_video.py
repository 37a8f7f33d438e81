"""How fast the rows of video labels are read: ``python tests/benchmarks/labels_video.py``.

Prints rows per second of MOTChallenge ground truth, 100,000 rows of 100 objects in 1,000 frames
(goal: 50,000 per second on one core), in CPU time, because shared machines have no steady clock.
The video's times are made up, so nothing is decoded.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parents[2]))

from molmo_tune.labels.formats.tracking.mot import read_mot
from molmo_tune.labels.media_source import MediaSource
from molmo_tune.labels.report import Tally
from molmo_tune.media.video import VideoInfo

NUM_FRAMES, NUM_OBJECTS, ROUNDS = 1000, 100, 3
VIDEO = VideoInfo(tuple(n / 30 for n in range(NUM_FRAMES)), NUM_FRAMES / 30, (1920, 1080))


def rows() -> str:
    return "".join(
        f"{frame},{id},{10 + id * 17 + frame % 9}.5,{20 + id * 9},40.25,90,1,1,0.8\n"
        for id in range(1, NUM_OBJECTS + 1)
        for frame in range(1, NUM_FRAMES + 1)
    )


def seconds(path: Path) -> float:
    start = time.process_time()
    (sample,) = read_mot(path, MediaSource(path), Tally())
    assert sum(len(track.observations) for track in sample.annotations) == NUM_FRAMES * NUM_OBJECTS
    return time.process_time() - start


def best_s() -> float:
    """CPU seconds of the best round."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gt.txt"
        path.write_text(rows())
        with patch("molmo_tune.labels.media_source.probe_video", lambda _: VIDEO):
            return min(seconds(path) for _ in range(ROUNDS))


def main() -> None:
    print(f"MOT: {NUM_FRAMES * NUM_OBJECTS / best_s():,.0f} rows/s of processor time")


if __name__ == "__main__":
    main()
