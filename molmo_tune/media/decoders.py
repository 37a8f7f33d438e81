"""The three decoders that can be had, behind one function: frame numbers in, upright pictures out.

`pyav` is the default (`decoding`): it alone gives ffmpeg's own frames of every odd clip that
`tests/test_media_video.py` makes. `decord` and `torchcodec` are for comparison. All of them are
told *which* frames by our index of the file, and a decoder that counts other frames in a file than
its packets show is refused for that file rather than believed. With that, torchcodec gives the
right frames or none; decord, after a seek, gives others than asked for of some AVI, TS, MPEG, HEVC.

What it does not do: choose a decoder by itself, or fall back to another one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from molmo_tune.errors import UserError
from molmo_tune.media.decoding import Picture, decode_frames, does_not_decode
from molmo_tune.media.frame_index import FrameIndex, reason

Decoder = Literal["pyav", "decord", "torchcodec"]
Decode = Callable[[Path, FrameIndex, Sequence[int]], Iterator[Picture]]
_OTHER = "use the decoder pyav"
_AT_ONCE = 8  # frames asked for together, so that memory does not grow with their number


def decoder_of(name: Decoder) -> Decode:
    """The decoder of that name."""
    return {"pyav": decode_frames, "decord": _by_decord, "torchcodec": _by_torchcodec}[name]


def _by_decord(path: Path, index: FrameIndex, numbers: Sequence[int]) -> Iterator[Picture]:
    import decord

    decord.logging.set_level(decord.logging.QUIET)
    try:
        reader = decord.VideoReader(str(path), num_threads=1)
        _same_count(path, index, len(reader), "decord")
        for start in range(0, len(numbers), _AT_ONCE):
            part = list(numbers[start : start + _AT_ONCE])
            yield from zip(part, reader.get_batch(part).asnumpy(), strict=True)
    except (decord.DECORDError, RuntimeError, IndexError) as error:
        raise does_not_decode(path, index, numbers, reason(error), _OTHER) from error


def _by_torchcodec(path: Path, index: FrameIndex, numbers: Sequence[int]) -> Iterator[Picture]:
    try:
        from torchcodec import decoders as torchcodec
    except (ImportError, OSError, RuntimeError) as error:
        found = f"torchcodec cannot be used here ({reason(error)})"
        raise UserError("decoder", found, fix=f"install it, or {_OTHER}") from error
    try:
        reader = torchcodec.VideoDecoder(str(path), dimension_order="NHWC", num_ffmpeg_threads=1)
        _same_count(path, index, len(reader), "torchcodec")
        for start in range(0, len(numbers), _AT_ONCE):
            part = list(numbers[start : start + _AT_ONCE])
            yield from zip(part, reader.get_frames_at(part).data.numpy(), strict=True)
    except (RuntimeError, ValueError, IndexError) as error:
        raise does_not_decode(path, index, numbers, reason(error), _OTHER) from error


def _same_count(path: Path, index: FrameIndex, counted: int, name: str) -> None:
    if counted != len(index.starts):
        found = f"{name} counts {counted} frames"
        raise UserError(path, found, f"{len(index.starts)}, as are shown", _OTHER)
