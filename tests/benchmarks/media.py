"""What reading a video costs: ``python tests/benchmarks/media.py``.

A clip of 60 s at 720p (H.264, B-frames, noise, made with the ffmpeg command) goes from file to
patches, decoded on one thread and resized on another. Compared in the same run with:

    floor     the ffmpeg command with one thread and no output: `all` frames, only the `referenced`
              ones, and `needed`: the referenced ones and those of the others that are sampled
              (interpolated by their number)
    stock     transformers' video loading (each backend that works here) and the stock
              `Molmo2VideoProcessor`, for the same frames
    cache     the same frames again from the frame cache
    memory    resident memory while 2,000 different clips are read
    decoders  which odd clips of the tests each decoder reads like ffmpeg (all frames, and some far
              apart), and its time for the frames of the long clip

Figures go to ``results/media.json`` with date and machine. Ours and the floor take turns, five
times, and the best of each counts: on a virtual machine the first use of memory is slow, which
would favor whatever is measured second. The kit's index of the file is read again each time.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import torch
from transformers.models.molmo2.video_processing_molmo2 import Molmo2VideoProcessor
from transformers.video_utils import VIDEO_DECODERS, load_video

from molmo_tune.choices import Decoder
from molmo_tune.encoding.media_inputs import resizing_of
from molmo_tune.encoding.resize import ExactVideoProcessor
from molmo_tune.encoding.vision_inputs import video_inputs
from molmo_tune.errors import UserError
from molmo_tune.media import video
from molmo_tune.media.array_cache import CachePlace
from molmo_tune.media.clip import SampledTimes, sample_video
from molmo_tune.media.resized_frames import Reading, read_resized_frames
from molmo_tune.media.video import probe_video, read_frames
from molmo_tune.model.loading import load_processor
from tests.odd_clips import ODD, ffmpeg_frames, make_odd

RESULTS = Path(__file__).parent / "results" / "media.json"
SWITCHED_ON = {"do_resize": True, "do_rescale": True, "do_normalize": True}
NORMAL = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, **SWITCHED_ON}
NUM_CLIPS = 2000
DECODERS: tuple[Decoder, ...] = ("pyav", "decord", "torchcodec")


def seconds_of(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def best_of(function: Callable[[], object], times: int) -> float:
    return min(seconds_of(function) for _ in range(times))


def make_clip(path: Path) -> None:
    source = "testsrc2=size=1280x720:rate=30:duration=60"
    x264 = ["-c:v", "libx264", "-preset", "medium", "-crf", "26", "-pix_fmt", "yuv420p"]
    run = ["ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", source]
    subprocess.run([*run, "-vf", "noise=alls=8:allf=t", *x264, str(path)], check=True)


def beside_floor(clip: Path, wanted: list[int], way: OurWay) -> tuple[float, dict[str, float]]:
    """Seconds of ours and of the ffmpeg command, in turns; see the module."""
    run = ["ffmpeg", "-v", "error", "-threads", "1"]
    ends = ["-i", str(clip), "-f", "null", "-"]
    only = [*run, "-skip_frame", "noref", *ends]
    ours, every, referenced = [], [], []
    for _ in range(5):
        forget_indices()
        ours.append(seconds_of(lambda: way.read(clip, Reading())))
        every.append(seconds_of(lambda: subprocess.run([*run, *ends], check=True)))
        referenced.append(seconds_of(lambda: subprocess.run(only, check=True)))
    free = unreferenced(clip)
    share = len(free & set(wanted)) / max(len(free), 1)
    needed = min(referenced) + share * (min(every) - min(referenced))
    floor = {"all_s": min(every), "referenced_s": min(referenced), "needed_s": needed}
    return min(ours), floor


def forget_indices() -> None:
    for remembered in vars(video).values():
        getattr(remembered, "cache_clear", lambda: None)()


def unreferenced(clip: Path) -> set[int]:
    """Numbers of the frames that ffmpeg skips with ``-skip_frame noref``."""
    ask = ["ffprobe", "-v", "error", "-show_entries", "frame=pts", "-of", "csv=p=0"]

    def shown(*options: str) -> list[str]:
        run = [*ask, *options, str(clip)]
        return subprocess.run(run, capture_output=True, text=True, check=True).stdout.split()

    every, referenced = shown(), set(shown("-skip_frame", "noref"))
    return {number for number, pts in enumerate(every) if pts not in referenced}


class OurWay:
    """From a file to patches."""

    def __init__(self) -> None:
        self.processor = load_processor("tiny")
        self.processor.video_processor = ExactVideoProcessor(**NORMAL)

    def sampled(self, clip: Path) -> SampledTimes:
        return sample_video(clip, max_frames=128, max_fps=2.0)

    def read(self, clip: Path, reading: Reading) -> Any:
        sampled = self.sampled(clip)
        small = read_resized_frames(clip, sampled.indices, resizing_of(self.processor), reading)
        return video_inputs(self.processor, small.frames, sampled.times_s)


def stock(clip: Path, indices: list[int]) -> dict[str, float | str]:
    """Seconds by backend, or why it does not work here."""
    processor = Molmo2VideoProcessor(**NORMAL)
    found: dict[str, float | str] = {}
    for backend in VIDEO_DECODERS:

        def read(backend: str = backend) -> None:
            frames, _ = load_video(
                str(clip), backend=backend, sample_indices_fn=lambda **_: np.array(indices)
            )
            pictures = torch.as_tensor(np.asarray(frames))
            clips = [pictures if pictures.shape[1] == 3 else pictures.permute(0, 3, 1, 2)]
            processor(videos=clips, do_sample_frames=False, return_tensors="pt")

        try:
            found[backend] = best_of(read, 2)
        except Exception as error:  # a backend can fail here in any way
            found[backend] = f"{type(error).__name__}: {str(error).splitlines()[0][:90]}"
    return found


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def memory(folder: Path, way: OurWay) -> dict[str, float]:
    """Resident megabytes after a number of different clips, with a cache that must evict."""
    content = make_odd("bframes.mp4", folder).read_bytes()
    reading = Reading(cache=CachePlace(folder / "small", 200_000_000))
    found = {}
    for number in range(1, NUM_CLIPS + 1):
        clip = folder / "many.mp4"
        clip.write_bytes(content)
        named = clip.rename(folder / f"clip{number}.mp4")
        way.read(named, reading)
        named.unlink()
        if number in (100, 500, 1000, 1500, NUM_CLIPS):
            found[str(number)] = round(resident_mb(), 1)
    return found


def decoders(folder: Path, clip: Path, indices: list[int]) -> dict[str, Any]:
    odd = [make_odd(name, folder) for name in ODD]
    theirs = {path: ffmpeg_frames(path, probe_video(path).size_wh) for path in odd}
    found: dict[str, Any] = {}
    for name in DECODERS:
        wrong, refused = [], []
        for path, pictures in theirs.items():
            last = len(pictures) - 1
            try:
                for some in (range(last + 1), [0, last // 3, last // 2, last]):
                    ours = read_frames(path, some, decoder=name).astype(np.int16)
                    if int(np.abs(ours - pictures[list(some)]).max()) > 2:
                        wrong.append(path.name)
                        break
            except UserError as error:
                if "cannot be used here" in str(error):
                    break
                refused.append(path.name)
        else:
            seconds = best_of(lambda name=name: list_of(clip, indices, name), 2)
            counts = {"right": len(odd) - len(wrong) - len(refused), "of": len(odd)}
            found[name] = {**counts, "wrong": wrong, "refused": refused, "long_clip_s": seconds}
            continue
        found[name] = "not installed here"
    return found


def list_of(clip: Path, indices: list[int], name: Decoder) -> None:
    """Read all frames one by one, without keeping them."""
    from molmo_tune.media.video import stream_frames

    for _ in stream_frames(clip, indices, decoder=name):
        pass


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip, way = folder / "long.mp4", OurWay()
        make_clip(clip)
        indices = list(way.sampled(clip).indices)
        plain, floors = beside_floor(clip, indices, way)
        cached = Reading(cache=CachePlace(folder / "cache", 1 << 30))
        first = best_of(lambda: way.read(clip, cached), 1)
        second = best_of(lambda: way.read(clip, cached), 5)
        stocks = stock(clip, indices)
        working = [seconds for seconds in stocks.values() if isinstance(seconds, float)]
        results = {
            "date": datetime.date.today().isoformat(),
            "machine": f"{os.cpu_count()} cores, {processor_name()}, load {os.getloadavg()[0]:.1f}",
            "frames": len(indices),
            "ours_s": plain,
            "floor": floors,
            "ours_by_floor_needed": plain / floors["needed_s"],
            "ours_by_floor_all": plain / floors["all_s"],
            "stock_s": stocks,
            "fastest_stock_by_ours": min(working) / plain if working else None,
            "cache": {"first_s": first, "second_s": second, "speed_up": plain / second},
            "decoders": decoders(folder, clip, indices),
            "resident_mb_after_clips": memory(folder, way),
        }
    text = json.dumps(rounded(results), indent=2)
    print(text)
    RESULTS.write_text(text + "\n", encoding="utf-8")


def processor_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return round(value, 3) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
