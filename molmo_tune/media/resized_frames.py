"""Frames of a video at the size the model sees, decoded once and then taken from a cache.

Each picture is made small as soon as it is decoded, so a clip never lies in memory at its own size.
With a cache the small frames are kept, one byte a gray level and each frame once, and come back
mapped into memory: the same bytes, so training does not know the difference.

What decides the bytes is in the name of an entry: the file (its full path, size and time of
change; of a folder of pictures those of all files), the decoder with its version, our reading of
files and the arithmetic of the resizing by version numbers, the size, and which frames were
sampled. So nothing is ever stale; a moved or touched file is merely decoded again.

What it does not do: choose frames (`clip`), resize (the caller says how), or hold images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from molmo_tune.media.array_cache import CachePlace, cache_at, key_of
from molmo_tune.media.decoders import Decoder
from molmo_tune.media.video import TIMEOUT_S, file_state, stream_frames

READING_VERSION = 1
"""Of our index and of the way decoders are used; to be raised when pictures change by it."""

_PACKAGES: dict[Decoder, str] = {"pyav": "av", "decord": "decord2", "torchcodec": "torchcodec"}


@dataclass(frozen=True, slots=True)
class Reading:
    """How videos are read: the decoder, how long it is waited for, where frames are kept."""

    decoder: Decoder = "pyav"
    timeout_s: float = TIMEOUT_S
    cache: CachePlace | None = None


@dataclass(frozen=True, slots=True)
class Resizing:
    """What makes a picture ``(H, W, 3)`` small; its name changes when its results do."""

    name: str
    resize: Callable[[NDArray[np.uint8], int, int], NDArray[np.uint8]]
    size_hw: tuple[int, int]


@dataclass(frozen=True, slots=True)
class ResizedFrames:
    """Frames ``(n, h, w, 3)`` in the order asked for; where they came from.

    ``unstored``: why the cache does not keep them, empty when it does or there is none.
    """

    frames: NDArray[np.uint8]
    is_from_cache: bool
    unstored: str = ""


def read_resized_frames(
    path: Path, indices: Sequence[int], resizing: Resizing, reading: Reading
) -> ResizedFrames:
    """The frames with these indices; repeats are allowed.

    Raises:
        UserError: see `molmo_tune.media.video.stream_frames`.
    """
    numbers = sorted(set(indices))
    places = np.searchsorted(numbers, indices)
    if reading.cache is None:
        return ResizedFrames(_in_order(_decoded(path, numbers, resizing, reading), places), False)
    store = cache_at(reading.cache)
    key = key_of("frames", *frames_identity(path, numbers, resizing, reading))
    kept = store.get(key)
    if kept is not None:
        return ResizedFrames(_in_order(kept, places), True)
    frames = _decoded(path, numbers, resizing, reading)
    return ResizedFrames(_in_order(frames, places), False, store.put(key, frames))


def frames_identity(
    path: Path, indices: Sequence[int], resizing: Resizing, reading: Reading
) -> tuple[object, ...]:
    """Everything that decides what `read_resized_frames` gives."""
    return (
        *media_identity(path),
        READING_VERSION,
        reading.decoder,
        _version_of(reading.decoder),
        resizing.name,
        *resizing.size_hw,
        *map(int, indices),
    )


def media_identity(path: Path) -> tuple[str, int, int]:
    """A file's full path and what changes when it does.

    Raises:
        UserError: there is no such file.
    """
    return (str(path.resolve()), *file_state(path))


def _decoded(
    path: Path, numbers: list[int], resizing: Resizing, reading: Reading
) -> NDArray[np.uint8]:
    places = {number: place for place, number in enumerate(numbers)}
    frames = np.empty((len(numbers), *resizing.size_hw, 3), np.uint8)
    stream = stream_frames(path, numbers, decoder=reading.decoder, timeout_s=reading.timeout_s)
    for number, picture in stream:
        frames[places[number]] = resizing.resize(picture, *resizing.size_hw)
    return frames


def _in_order(frames: NDArray[np.uint8], places: NDArray[np.int64]) -> NDArray[np.uint8]:
    is_in_order = np.array_equal(places, np.arange(len(frames)))
    return frames if is_in_order else frames[places]  # the latter copies


@cache
def _version_of(decoder: Decoder) -> str:
    try:
        return version(_PACKAGES[decoder])
    except PackageNotFoundError:
        return ""
