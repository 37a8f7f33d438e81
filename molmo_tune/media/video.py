"""Video files: presentation times of all frames, and the pixels of chosen ones.

Times are the file's own timestamps, never ``index / fps``: variable rates and clips that do not
start at zero are common. Index 0 is the first frame *shown*, and times count from it. Frames are
upright (rotation metadata is applied) and RGB. Non-square pixels are not rescaled, because label
tools use stored pixels and the model resizes frames to a square anyway.

A folder of images is a video, too (`frame_folder`). A file is opened, used and closed inside one
call, so no decoder state crosses a fork.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from molmo_tune.choices import Decoder
from molmo_tune.errors import UserError
from molmo_tune.media.decode_timeout import iterate_in_thread
from molmo_tune.media.decoders import decoder_of
from molmo_tune.media.frame_folder import FrameFolder, folder_state, open_folder, read_folder
from molmo_tune.media.frame_index import FrameIndex, in_seconds, index_file

TIMEOUT_S = 120.0
"""Longest wait for the next frame of a file, in seconds."""

_CACHED_INDICES = 256  # files; the index of a long video takes a megabyte


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """Frame times, duration and size of a video.

    Args:
        starts_s: start of every frame in seconds from the first frame's, increasing.
        duration_s: end of the last frame.
        size_wh: upright width and height in pixels.
        pixel_aspect: width of a stored pixel divided by its height.
    """

    starts_s: tuple[float, ...]
    duration_s: float
    size_wh: tuple[int, int]
    pixel_aspect: float = 1.0

    @property
    def num_frames(self) -> int:
        """Number of frames shown."""
        return len(self.starts_s)


def probe_video(path: Path) -> VideoInfo:
    """Return frame times, duration and size of a video.

    Raises:
        UserError: the file is missing, not a video or cut short, or its first frame does not
            decode.
    """
    return _probe(path, *file_state(path))


def read_frames(
    path: Path,
    indices: Sequence[int],
    *,
    decoder: Decoder = "pyav",
    timeout_s: float = TIMEOUT_S,
) -> NDArray[np.uint8]:
    """Return the frames with these 0-based indices as upright RGB; repeats are allowed.

    Args:
        path: the video file or folder of frames.
        indices: in any order.
        decoder: name of the decoder.
        timeout_s: longest wait for the next frame, in seconds.

    Returns:
        Frames ``(n, H, W, 3)`` in the order of `indices`.

    Raises:
        UserError: see `stream_frames`.
    """
    frames = dict(stream_frames(path, indices, decoder=decoder, timeout_s=timeout_s))
    return np.stack([frames[index] for index in indices])


def stream_frames(
    path: Path,
    indices: Sequence[int],
    *,
    decoder: Decoder = "pyav",
    timeout_s: float = TIMEOUT_S,
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Yield the distinct frames among `indices`, increasing, each with its pixels ``(H, W, 3)``.

    Memory does not grow with their number: another thread decodes the next frames while the caller
    works on one.

    Raises:
        UserError: a frame does not decode, or none arrives within `timeout_s` seconds.
    """
    numbers = sorted(set(indices))
    state = file_state(path)
    if path.is_dir():
        return read_folder(_folder(path, *state), numbers)
    decode = decoder_of(decoder)
    return iterate_in_thread(decode(path, _index(path, *state), numbers), timeout_s, where=path)


def file_state(path: Path) -> tuple[int, int]:
    """Return two numbers that change with a video: modification time and size, or `folder_state`.

    Raises:
        UserError: there is no such file or folder.
    """
    try:
        if path.is_dir():
            return folder_state(path)
        if path.is_file():
            status = path.stat()
            return status.st_mtime_ns, status.st_size
    except OSError as error:
        raise UserError(path, f"cannot be read ({error.strerror})") from error
    raise UserError(path, "no such video file", fix="check the media path")


@lru_cache(maxsize=4096)
def _probe(path: Path, modified: int, size: int) -> VideoInfo:
    if path.is_dir():
        folder = _folder(path, modified, size)
        return VideoInfo(folder.starts_s, folder.duration_s, folder.size_wh)
    index = _index(path, modified, size)
    duration_s = round(float((index.end - int(index.starts[0])) * index.tick_s), 6)
    return VideoInfo(tuple(in_seconds(index)), duration_s, index.size_wh, index.pixel_aspect)


@lru_cache(maxsize=_CACHED_INDICES)
def _index(path: Path, _modified: int, _size: int) -> FrameIndex:
    return index_file(path)


@lru_cache(maxsize=_CACHED_INDICES)
def _folder(path: Path, _modified: int, _size: int) -> FrameFolder:
    return open_folder(path)
