"""PyAV decoding of chosen frames: seek to key frames, decode as little as possible.

    sampled frames → runs: a run starts at the last key frame before its first frame, and continues
    until a later key frame precedes the next sampled frame
    in a run: packets up to the last sampled frame in *file* order, then the decoder is flushed
    unsampled frames that no other frame refers to are not decoded (H.264: half of a usual clip)

Decoded frames are matched by presentation time. If a sampled frame is missing (a key frame that was
not one, a decoder that needs more packets), the file is decoded again from its start. A frame that
is still missing is an error: no other frame replaces it, and frames with concealed errors are not
returned.

Limitations: it does not choose frames or enforce a timeout (`decode_timeout`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from molmo_tune.errors import UserError
from molmo_tune.media.decode_timeout import iterate_in_thread
from molmo_tune.media.frame_index import FIX, FrameIndex, reason, to_upright

NumberedFrame = tuple[int, NDArray[np.uint8]]
_SKIPS_UNREFERENCED = ("h264",)  # codecs that mark frames no other frame refers to
_NO_TIMEOUT_S = 1e6  # the caller enforces the timeout
_NO_CONCEALMENT = {"err_detect": "explode"}  # damage is an error, not a smear


def decode_frames(path: Path, index: FrameIndex, numbers: Sequence[int]) -> Iterator[NumberedFrame]:
    """Yield each frame number with its upright RGB frame ``(H, W, 3)``.

    Args:
        path: the video file.
        index: its frame index.
        numbers: frame numbers, distinct and increasing.

    Raises:
        UserError: a frame does not decode, or differs in size from the first.
    """
    import av

    missing = set(numbers)
    for runs in (_runs(index, numbers), None):
        why = "the decoder skipped it"
        try:
            decoded = _decode_all(path, index, missing.copy(), runs)
            for number, convert in iterate_in_thread(decoded, _NO_TIMEOUT_S, where=path):
                missing.discard(number)
                yield number, convert()
        except (av.FFmpegError, OSError, _SeekError) as error:
            why = reason(error)
        if not missing:
            return
    raise does_not_decode(path, index, sorted(missing), why)


def does_not_decode(
    path: Path, index: FrameIndex, numbers: Sequence[int], why: str, fix: str = FIX
) -> UserError:
    """Return the error for frames that do not decode."""
    first_s = float((int(index.starts[numbers[0]]) - int(index.starts[0])) * index.tick_s)
    frames = f"frame {numbers[0]} (at {first_s:.2f} s)"
    more = f" and {len(numbers) - 1} others" if len(numbers) > 1 else ""
    return UserError(f"{path}: {frames}{more}", f"does not decode ({why})", fix=fix)


def _runs(index: FrameIndex, numbers: Sequence[int]) -> list[list[int]]:
    """Divide sampled frames where a seek saves decoding."""
    runs: list[list[int]] = []
    reached = -1  # packets of the file that the current run decodes anyway
    for number in numbers:
        keyframe = _keyframe_before(index, number)
        position = 0 if keyframe is None else int(index.keyframe_order[keyframe])
        if runs and position <= reached + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
        reached = max(reached, int(index.order[number]))
    return runs


def _keyframe_before(index: FrameIndex, number: int) -> int | None:
    """Return the last key frame shown no later than a frame; None: decode from the start."""
    last = int(np.searchsorted(index.keyframes[:, 0], index.starts[number], side="right")) - 1
    return last if last >= 0 and index.keyframe_order[last] > 0 else None


def _decode_all(
    path: Path, index: FrameIndex, sampled: set[int], runs: list[list[int]] | None
) -> Iterator[tuple[int, Callable[[], NDArray[np.uint8]]]]:
    """Decode by runs, or without runs everything from the start.

    Frames are yielded as functions that convert to RGB: the caller converts one frame while the
    next is decoded.
    """
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        context.thread_count = 1  # loaders have a process per core already
        context.options = dict(_NO_CONCEALMENT)
        skips = runs is not None and context.name in _SKIPS_UNREFERENCED
        to_rgb = _rgb_graph(stream)
        for run in runs if runs is not None else [sorted(sampled)]:
            keyframe = _keyframe_before(index, run[0]) if runs is not None else None
            packets = _packets_from(container, stream, index, keyframe)
            for frame in _decode_run(packets, context, index, run, skips):
                number = int(np.searchsorted(index.starts, frame.pts))
                yield number, partial(_upright, path, index, to_rgb, frame)


def _packets_from(
    container: Any, stream: Any, index: FrameIndex, keyframe: int | None
) -> Iterator[Any]:
    """Yield packets from a key frame on, except those shown before it: they need earlier frames.

    Raises:
        _SeekError: the seek does not end exactly at the key frame.
    """
    if keyframe is None:
        yield from container.demux(stream)
        return
    pts, dts = index.keyframes[keyframe].tolist()
    for time in (pts, dts):  # containers differ in which one they look up
        container.seek(time, stream=stream)
        packets = container.demux(stream)
        first = next(packets)
        if first.pts == pts and first.is_keyframe:
            break
    else:
        raise _SeekError(f"a seek to {pts} ended at {first.pts}")
    yield first
    yield from (p for p in packets if p.pts is None or p.pts > pts)


class _SeekError(Exception):
    """A seek that did not end at the key frame of the index."""


def _decode_run(
    packets: Iterator[Any], context: Any, index: FrameIndex, run: list[int], skips: bool
) -> Iterator[Any]:
    """Yield the decoded frames of one run in presentation order."""
    sampled = {int(index.starts[number]) for number in run}
    last = int(index.starts[max(run, key=lambda number: int(index.order[number]))])
    for packet in packets:
        if skips:
            is_unsampled = packet.pts is not None and packet.pts not in sampled
            context.skip_frame = "NONREF" if is_unsampled else "DEFAULT"
        yield from (frame for frame in packet.decode() if frame.pts in sampled)
        if packet.pts == last and packet.size:
            yield from (frame for frame in context.decode(None) if frame.pts in sampled)
            return


def _rgb_graph(stream: Any) -> Any:
    """Return the filter graph whose output is bit-identical to ffmpeg's ``-pix_fmt rgb24``."""
    from av.filter import Graph

    graph = Graph()
    graph.threads = 1
    source = graph.add_buffer(template=stream)
    source.link_to(step := graph.add("format", "pix_fmts=rgb24"))
    step.link_to(graph.add("buffersink"))
    graph.configure()
    return graph


def _upright(path: Path, index: FrameIndex, to_rgb: Any, frame: Any) -> NDArray[np.uint8]:
    to_rgb.push(frame)
    upright = to_upright(to_rgb.pull().to_ndarray(), index.orientation)
    if upright.shape[1::-1] != index.size_wh:
        width, height = index.size_wh
        found = f"frames change from {width}x{height} to {upright.shape[1]}x{upright.shape[0]}"
        raise UserError(path, found, "one size", FIX)
    return upright
