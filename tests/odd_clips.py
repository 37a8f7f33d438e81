"""Odd clips as users have them, made with the ffmpeg command: one small file per oddity.

`ODD` maps each clip to the options that make it. `ffmpeg_frames` and `ffmpeg_times` return ffmpeg's
own frames and times, a reference that shares only libav with the package.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

HAS_FFMPEG = shutil.which("ffmpeg") is not None and shutil.which("ffprobe") is not None
_MOVING = "testsrc2=size={size}:rate={rate}:duration={seconds}"
_X264 = "-c:v libx264 -preset veryfast -g 12 -bf 2 -pix_fmt yuv420p -threads 1"

# name: (size, rate, seconds, options)
ODD: dict[str, tuple[str, str, float, str]] = {
    "bframes.mp4": ("160x120", "10", 3, _X264),
    "open_gop.mp4": ("160x120", "10", 3, f"{_X264} -x264-params open-gop=1:bframes=3"),
    "one_keyframe.mp4": ("160x120", "30", 3, f"{_X264} -g 999"),
    "interlaced.ts": ("160x120", "25", 2, f"{_X264} -flags +ilme+ildct -x264-params tff=1"),
    "mpeg4_packed.avi": ("160x120", "15", 2, "-c:v mpeg4 -bf 2 -g 10 -vtag DIVX"),
    "mpeg4.avi": ("160x120", "15", 2, "-c:v mpeg4 -g 10"),
    "h264.avi": ("160x120", "15", 2, f"{_X264} -bf 0"),
    "mjpeg.avi": ("160x120", "15", 2, "-c:v mjpeg"),
    "mpeg2.mpg": ("160x120", "25", 2, "-c:v mpeg2video -bf 2 -g 12"),
    "start_3s.ts": ("160x120", "10", 3, f"{_X264} -output_ts_offset 3"),
    "start_5s.mp4": ("160x120", "10", 3, f"{_X264} -output_ts_offset 5"),
    "ntsc.mp4": ("160x120", "30000/1001", 2, _X264),
    "vfr.mp4": ("160x120", "10", 4, f"-vf select=not(mod(n\\,3))+lt(n\\,9) -vsync vfr {_X264}"),
    "vp8_altref.webm": ("160x120", "10", 4, "-c:v libvpx -auto-alt-ref 1 -lag-in-frames 16 -g 20"),
    "vp9_odd_size.webm": ("160x120", "10", 3, "-vf scale=161:121 -c:v libvpx-vp9 -g 10 -b:v 200k"),
    "hevc_10bit.mp4": (
        "160x120",
        "10",
        3,
        "-c:v libx265 -preset ultrafast -x265-params log-level=none:keyint=10 -pix_fmt yuv420p10le",
    ),
    "hdr_pq.mp4": (
        "160x120",
        "10",
        2,
        "-c:v libx265 -preset ultrafast -pix_fmt yuv420p10le -color_primaries bt2020 "
        "-color_trc smpte2084 -colorspace bt2020nc "
        "-x265-params log-level=none:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc",
    ),
    "full_range.mp4": ("160x120", "10", 2, f"-vf scale=out_range=pc -color_range pc {_X264}"),
    "bt709.mp4": (
        "160x120",
        "10",
        2,
        f"{_X264} -vf scale=out_color_matrix=bt709",
    ),
    "yuv444.mp4": ("160x120", "10", 2, f"{_X264} -pix_fmt yuv444p"),
    "nonsquare.mp4": ("160x120", "10", 2, f"-vf setsar=16/11 {_X264}"),
    "one_frame.mp4": ("160x120", "10", 0.1, _X264),
    "live.mkv": ("160x120", "10", 3, f"{_X264} -live 1"),
    "animated.gif": ("160x120", "10", 2, ""),
    "long_audio.mp4": ("160x120", "10", 2, f"-f lavfi -i sine=d=6 {_X264} -c:a aac"),
}


def make_odd(name: str, folder: Path) -> Path:
    """Make one of `ODD`."""
    size, rate, seconds, options = ODD[name]
    source = _MOVING.format(size=size, rate=rate, seconds=seconds)
    path = folder / name
    run = ["ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", source, *options.split(), str(path)]
    subprocess.run(run, check=True)
    return path


def rotated(clip: Path, degrees: int) -> Path:
    """Copy a clip with rotation metadata (ffmpeg 6 renamed the option)."""
    path = clip.with_name(f"rotated{degrees}.mp4")
    start, copy = ["ffmpeg", "-v", "error", "-y"], ["-c", "copy", str(path)]
    new = [*start, "-display_rotation", str(degrees), "-i", str(clip), *copy]
    old = [*start, "-i", str(clip), "-metadata:s:v:0", f"rotate={degrees}", *copy]
    if subprocess.run(new, check=False, capture_output=True).returncode:
        subprocess.run(old, check=True)
    return path


def cut_by_edit_list(clip: Path) -> Path:
    """Copy a clip and hide its first frames with an edit list, as phones do."""
    path = clip.with_name("edit_list.mp4")
    run = ["ffmpeg", "-v", "error", "-y", "-ss", "0.7", "-i", str(clip), "-c", "copy", str(path)]
    subprocess.run(run, check=True)
    return path


def ffmpeg_frames(path: Path, size_wh: tuple[int, int]) -> NDArray[np.uint8]:
    """Return all frames ``(n, H, W, 3)`` that ffmpeg shows, upright."""
    run = ["ffmpeg", "-v", "quiet", "-i", str(path), "-vsync", "passthrough", "-map", "0:v:0"]
    raw = subprocess.run(
        [*run, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], capture_output=True, check=True
    ).stdout
    width, height = size_wh
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)


def ffmpeg_times(path: Path) -> list[float]:
    """Return the times in seconds of all frames that ffprobe decodes."""
    run = ["ffprobe", "-v", "quiet", "-select_streams", "v:0", "-show_entries"]
    output = subprocess.run(
        [*run, "frame=best_effort_timestamp_time", "-of", "json", str(path)],
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    return [float(f["best_effort_timestamp_time"]) for f in json.loads(output)["frames"]]
