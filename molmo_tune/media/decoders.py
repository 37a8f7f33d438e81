"""Three video decoders behind one function: frame numbers in, upright RGB frames out.

`pyav` is the default (`decoding`): it alone returns ffmpeg's own frames for every odd clip of
`tests/test_media_video.py`. `decord` and `torchcodec` are for comparison. All three receive frame
numbers of our index of the file (`frame_index`), and a file is refused when its decoder counts
other frames than the packets show. Under this check torchcodec returns the right frames or none;
decord returns wrong ones after a seek in some AVI, TS, MPEG and HEVC files.

Limitations: it does not choose a decoder or fall back to another one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from molmo_tune.choices import Decoder
from molmo_tune.errors import UserError
from molmo_tune.media.decoding import NumberedFrame, decode_frames, does_not_decode
from molmo_tune.media.frame_index import FrameIndex, reason

Decode = Callable[[Path, FrameIndex, Sequence[int]], Iterator[NumberedFrame]]
_USE_PYAV = "set video.decoder: pyav"
_BATCH_FRAMES = 8  # frames decoded per call, which bounds memory


def decoder_of(name: Decoder) -> Decode:
    """Return the decoder of that name."""
    return {"pyav": decode_frames, "decord": _by_decord, "torchcodec": _by_torchcodec}[name]


def _by_decord(path: Path, index: FrameIndex, numbers: Sequence[int]) -> Iterator[NumberedFrame]:
    import decord

    decord.logging.set_level(decord.logging.QUIET)
    try:
        reader = decord.VideoReader(str(path), num_threads=1)
        _check_count(path, index, len(reader), "decord")
        for start in range(0, len(numbers), _BATCH_FRAMES):
            batch = list(numbers[start : start + _BATCH_FRAMES])
            yield from zip(batch, reader.get_batch(batch).asnumpy(), strict=True)
    except (decord.DECORDError, RuntimeError, IndexError) as error:
        raise does_not_decode(path, index, numbers, reason(error), _USE_PYAV) from error


def _by_torchcodec(
    path: Path, index: FrameIndex, numbers: Sequence[int]
) -> Iterator[NumberedFrame]:
    try:
        from torchcodec import decoders as torchcodec
    except (ImportError, OSError, RuntimeError) as error:
        found = f"torchcodec does not load ({reason(error)})"
        raise UserError("video.decoder", found, fix=f"install it, or {_USE_PYAV}") from error
    try:
        reader = torchcodec.VideoDecoder(str(path), dimension_order="NHWC", num_ffmpeg_threads=1)
        _check_count(path, index, len(reader), "torchcodec")
        for start in range(0, len(numbers), _BATCH_FRAMES):
            batch = list(numbers[start : start + _BATCH_FRAMES])
            yield from zip(batch, reader.get_frames_at(batch).data.numpy(), strict=True)
    except (RuntimeError, ValueError, IndexError) as error:
        raise does_not_decode(path, index, numbers, reason(error), _USE_PYAV) from error


def _check_count(path: Path, index: FrameIndex, counted: int, name: str) -> None:
    if counted != len(index.starts):
        found = f"{name} counts {counted} frames"
        raise UserError(path, found, f"{len(index.starts)} (the frames shown)", _USE_PYAV)
