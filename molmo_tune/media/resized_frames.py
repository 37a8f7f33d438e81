"""Video frames at the size the model sees, decoded once and then read from a cache.

Each frame is resized right after decoding, so memory never contains a clip at full size. The cache
stores resized frames as 8-bit RGB, each frame once, and returns them memory-mapped. They are
bit-identical to decoded ones, so training results do not depend on the cache.

An entry's name covers everything that determines its bytes: the file (absolute path, size and
modification time; for a folder of images, those of all files), the decoder and its version, version
numbers of our decoding and resizing code, the size, and the sampled frames. So no entry is ever
stale, and a moved or touched file is only decoded again.

Limitations: it does not choose frames (`clip`), resize (the caller passes a function) or cache
images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from molmo_tune.choices import Decoder
from molmo_tune.media.array_cache import CachePlace, cache_at, key_of
from molmo_tune.media.video import TIMEOUT_S, file_state, stream_frames

READING_VERSION = 1
"""Version of our index and decoding code; raise it when a change alters frames."""

_PACKAGES: dict[Decoder, str] = {"pyav": "av", "decord": "decord2", "torchcodec": "torchcodec"}


@dataclass(frozen=True, slots=True)
class Reading:
    """Settings of reading videos.

    Args:
        decoder: name of the decoder.
        timeout_s: longest wait for the next frame, in seconds.
        cache: where resized frames are stored; None for no cache.
    """

    decoder: Decoder = "pyav"
    timeout_s: float = TIMEOUT_S
    cache: CachePlace | None = None


@dataclass(frozen=True, slots=True)
class Resizing:
    """A resizing function.

    Args:
        name: changes whenever the results of `resize` change.
        resize: RGB frame ``(H, W, 3)``, height and width to the resized frame ``(h, w, 3)``.
        size_hw: height and width to resize to, in pixels.
    """

    name: str
    resize: Callable[[NDArray[np.uint8], int, int], NDArray[np.uint8]]
    size_hw: tuple[int, int]


@dataclass(frozen=True, slots=True)
class ResizedFrames:
    """Resized frames and their origin.

    Args:
        frames: RGB ``(n, h, w, 3)`` in the order of the requested indices.
        is_from_cache: whether the cache had them.
        cache_error: why the cache did not store them; empty if it did, or without a cache.
    """

    frames: NDArray[np.uint8]
    is_from_cache: bool
    cache_error: str = ""


def read_resized_frames(
    path: Path, indices: Sequence[int], resizing: Resizing, reading: Reading
) -> ResizedFrames:
    """Return the resized frames with these 0-based indices; repeats are allowed.

    Raises:
        UserError: see `molmo_tune.media.video.stream_frames`.
    """
    numbers = sorted(set(indices))
    places = np.searchsorted(numbers, indices)
    if reading.cache is None:
        return ResizedFrames(_in_order(_decoded(path, numbers, resizing, reading), places), False)
    array_cache = cache_at(reading.cache)
    key = key_of("frames", *frames_identity(path, numbers, resizing, reading))
    cached = array_cache.get(key)
    if cached is not None:
        return ResizedFrames(_in_order(cached, places), True)
    frames = _decoded(path, numbers, resizing, reading)
    return ResizedFrames(_in_order(frames, places), False, array_cache.put(key, frames))


def frames_identity(
    path: Path, indices: Sequence[int], resizing: Resizing, reading: Reading
) -> tuple[object, ...]:
    """Return everything that determines the result of `read_resized_frames`."""
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
    """Return a file's absolute path and its state, which changes with the file.

    Raises:
        UserError: there is no such file or folder.
    """
    return (str(path.resolve()), *file_state(path))


def _decoded(
    path: Path, numbers: list[int], resizing: Resizing, reading: Reading
) -> NDArray[np.uint8]:
    places = {number: place for place, number in enumerate(numbers)}
    frames = np.empty((len(numbers), *resizing.size_hw, 3), np.uint8)
    stream = stream_frames(path, numbers, decoder=reading.decoder, timeout_s=reading.timeout_s)
    for number, frame in stream:
        frames[places[number]] = resizing.resize(frame, *resizing.size_hw)
    return frames


def _in_order(frames: NDArray[np.uint8], places: NDArray[np.int64]) -> NDArray[np.uint8]:
    is_in_order = np.array_equal(places, np.arange(len(frames)))
    return frames if is_in_order else frames[places]  # indexing copies


@cache
def _version_of(decoder: Decoder) -> str:
    try:
        return version(_PACKAGES[decoder])
    except PackageNotFoundError:
        return ""
