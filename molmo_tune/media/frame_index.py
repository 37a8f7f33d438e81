"""Frame index of a video file, read from its packets: presentation times and key frames.

Packets are read without decoding (milliseconds per minute of video); only the first frame shown is
decoded, for the true size and orientation. Times are the file's own presentation timestamps. Frames
hidden by an edit list are not counted. A file that ends before its header says, or that contains a
damaged packet, is refused here rather than during training.

Limitations: it does not decode other frames (`decoding`) or read audio.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from molmo_tune.errors import UserError

FIX = "re-encode it (ffmpeg -i IN -c:v libx264 OUT.mp4) or remove it"
_TRUNCATED_S = 0.5  # shorter gaps at the end are rounding of the header


@dataclass(frozen=True, slots=True)
class FrameIndex:
    """Frames of a file in presentation order, with times in ticks of the file's own clock.

    Args:
        starts: presentation times of the frames shown, increasing.
        end: end of the last frame.
        tick_s: seconds per tick.
        order: number of packets before each frame's own in the file.
        keyframes: ``(K, 2)`` presentation and decoding times of the key frames.
        keyframe_order: number of packets before each key frame's own in the file.
        orientation: see `to_upright`.
        size_wh: upright width and height in pixels.
        pixel_aspect: width of a pixel divided by its height; 1 if the file states none.
    """

    starts: NDArray[np.int64]
    end: int
    tick_s: Fraction
    order: NDArray[np.int64]
    keyframes: NDArray[np.int64]
    keyframe_order: NDArray[np.int64]
    orientation: tuple[int, int, int, int]
    size_wh: tuple[int, int]
    pixel_aspect: float


@dataclass(frozen=True, slots=True)
class _Packet:
    pts: int
    dts: int
    duration: int
    order: int
    is_key: bool
    is_shown: bool


def index_file(path: Path) -> FrameIndex:
    """Read the packets of a file's first video stream.

    Raises:
        UserError: the file is not a video, is cut short or damaged, or its first frame does not
            decode.
    """
    import av

    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise UserError(path, "has no video stream", "a video")
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            packets, first = _read(path, container, stream)
            _refuse_truncated(path, container, stream, packets)
            return _index(stream, packets, first)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise UserError(path, f"not a video that decodes ({reason(error)})", fix=FIX) from error


def to_upright(
    frame: NDArray[np.uint8], orientation: tuple[int, int, int, int]
) -> NDArray[np.uint8]:
    """Return a stored frame ``(H, W, 3)`` as it is shown.

    Args:
        frame: as decoded.
        orientation: signs of the file's 2×2 display matrix ``(a, b, c, d)``: the pixel at (x, y) is
            shown at (a·x + c·y, b·x + d·y).
    """
    a, b, c, d = orientation
    right, down = (a, d) if a else (c, b)
    upright = frame if a else frame.transpose(1, 0, 2)
    return upright[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1]


def orientation_of(frame: Any) -> tuple[int, int, int, int]:
    """Return the signs of a decoded frame's display matrix; (1, 0, 0, 1) without one."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return (1, 0, 0, 1)
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    is_upright = abs(a) >= abs(b)  # only quarter turns are undone
    sign = [int(np.sign(number)) for number in (a, b, c, d)]
    return (sign[0], 0, 0, sign[3]) if is_upright else (0, sign[1], sign[2], 0)


def reason(error: Exception) -> str:
    """Return a library's error message, shortened to one line."""
    text = next((part for part in str(error).splitlines() if part.strip()), type(error).__name__)
    return text.rsplit("] ", 1)[-1].split(": '", 1)[0].strip()[:160]


def _read(path: Path, container: Any, stream: Any) -> tuple[list[_Packet], Any]:
    """Return all packets in file order, and the first decoded frame."""
    packets: list[_Packet] = []
    first = None
    for packet in container.demux(stream):
        if first is None:
            first = next(iter(packet.decode()), None)
        if not packet.size or _is_hidden_vp8(stream, packet):
            continue
        packets.append(_packet(path, stream, packet, len(packets)))
    if first is None:
        raise UserError(path, "no frame decodes", fix=FIX)
    return packets, first


def _packet(path: Path, stream: Any, packet: Any, order: int) -> _Packet:
    pts = packet.pts if packet.pts is not None else packet.dts
    if pts is None:
        raise UserError(path, f"packet {order} has no timestamp", fix=FIX)
    if packet.is_corrupt:
        at_s = float(pts * stream.time_base)
        raise UserError(path, f"is cut short or damaged at {at_s:.1f} s", fix=FIX)
    dts = packet.dts if packet.dts is not None else pts
    return _Packet(pts, dts, packet.duration or 0, order, packet.is_keyframe, not packet.is_discard)


def _is_hidden_vp8(stream: Any, packet: Any) -> bool:
    """Whether this is a VP8 packet of a frame that others refer to but that is never shown."""
    return stream.codec_context.name in ("vp8", "libvpx") and not bytes(packet)[0] >> 4 & 1


def _refuse_truncated(path: Path, container: Any, stream: Any, packets: list[_Packet]) -> None:
    """Raise an error if the packets end before the durations that the file states."""
    stated_s = [float(stream.duration * stream.time_base)] if stream.duration else []
    stated_s += [container.duration / 1e6] if container.duration else []
    first, last = min(p.pts for p in packets), max(p.pts + p.duration for p in packets)
    present_s = float((last - first) * stream.time_base)
    if len(stated_s) == 2 and present_s < min(stated_s) - max(_TRUNCATED_S, 0.02 * min(stated_s)):
        found = f"is cut short: it has {present_s:.1f} of {min(stated_s):.1f} s"
        raise UserError(path, found, fix=FIX)


def _index(stream: Any, packets: list[_Packet], first: Any) -> FrameIndex:
    shown = sorted((p for p in packets if p.is_shown), key=lambda p: p.pts)
    keyframes = sorted((p for p in packets if p.is_key), key=lambda p: p.pts)
    starts = np.array([p.pts for p in shown], np.int64)
    orientation = orientation_of(first)
    size = (first.width, first.height) if orientation[0] else (first.height, first.width)
    aspect = stream.codec_context.sample_aspect_ratio or stream.sample_aspect_ratio
    return FrameIndex(
        starts=starts,
        end=int(starts[-1]) + (shown[-1].duration or _usual_gap(stream, starts)),
        tick_s=stream.time_base,
        order=np.array([p.order for p in shown], np.int64),
        keyframes=np.array([(p.pts, p.dts) for p in keyframes], np.int64).reshape(-1, 2),
        keyframe_order=np.array([p.order for p in keyframes], np.int64),
        orientation=orientation,
        size_wh=size,
        pixel_aspect=float(aspect) if aspect else 1.0,
    )


def _usual_gap(stream: Any, starts: NDArray[np.int64]) -> int:
    """Return the duration in ticks of a last frame that states none."""
    if len(starts) > 1:
        return int(np.median(np.diff(starts)))
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    ticks: int = round(1 / (rate * stream.time_base))
    return ticks


def in_seconds(index: FrameIndex) -> Iterator[float]:
    """Return the start of every frame in seconds from the first frame's start."""
    first = int(index.starts[0])
    return (round(float((int(pts) - first) * index.tick_s), 6) for pts in index.starts)
