"""An item's media files → what the model reads of them, by the shortest way there is.

    features of the cache   tokens are known from sizes and times; no file is opened
    frames of the cache     patches are cut from them
    the file                decoded, made small frame by frame, kept if there is a cache

Where the media came from is told in an `Opening`, for the figures at the end of a run.

What it does not do: compute features (`molmo_tune.model.feature_cache` does and keeps them), or
decide what happens to media that do not open (`datasets`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from molmo_tune.encoding.bilinear import ARITHMETIC, resize_frame
from molmo_tune.encoding.encoded import Opening, Origin, VisionPiece
from molmo_tune.encoding.items import Item, MediaLimits, vision_token_ids
from molmo_tune.encoding.processor import Processor
from molmo_tune.encoding.vision_inputs import NO_VISION, VisionInputs, image_inputs, video_inputs
from molmo_tune.encoding.vision_tokens import VisionLayout
from molmo_tune.media.array_cache import CachePlace, cache_at, key_of
from molmo_tune.media.clip import read_images
from molmo_tune.media.resized_frames import (
    Resizing,
    frames_identity,
    media_identity,
    read_resized_frames,
)


@dataclass(frozen=True, slots=True)
class FeatureNames:
    """A cache of vision features, and what tells one checkpoint's from another's.

    Args:
        place: of the store.
        fingerprint: of everything that turns patches into features.
    """

    place: CachePlace
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What was opened: for the figures, and for the cache of features."""

    opening: Opening | None = None
    piece: VisionPiece | None = None
    features: NDArray[np.uint16] = field(default_factory=lambda: np.zeros((0, 0), np.uint16))


def vision_of(item: Item, processor: Processor, limits: MediaLimits) -> VisionInputs:
    """Open an item's media and make the model's inputs of them.

    Raises:
        UserError: a medium does not open or decode.
    """
    return open_media(item, processor, limits)[0]


def open_media(
    item: Item, processor: Processor, limits: MediaLimits, features: FeatureNames | None = None
) -> tuple[VisionInputs, Seen]:
    """The same, and how it was done; with known features there are neither patches nor pooling.

    Raises:
        UserError: a medium does not open or decode.
    """
    if not item.sample.media.paths:
        return NO_VISION, Seen()
    path = str(item.sample.media.paths[0])
    if features is None:
        vision, origin, unstored = _opened(item, processor, limits)
        return vision, Seen(Opening(path, origin, unstored=unstored))
    key = _feature_key(item, processor, limits, features)
    known = cache_at(features.place).get(key)
    if known is not None:
        ids = vision_token_ids(item, processor, limits)
        vision = VisionInputs(tuple(ids), NO_VISION.patches, NO_VISION.pooling)
        origin, unstored = "feature_cache", ""
    else:
        vision, origin, unstored = _opened(item, processor, limits)
    num_tokens = vision.token_ids.count(VisionLayout.of(processor).patch)
    if known is not None and len(known) != num_tokens:
        raise ValueError(f"{len(known)} cached features, but {num_tokens} <im_patch> tokens")
    piece = VisionPiece(num_tokens, item.num_crops, key, known is not None)
    opening = Opening(path, origin, unstored=unstored)
    return vision, Seen(opening, piece, *(() if known is None else (known,)))


def resizing_of(processor: Processor) -> Resizing:
    """How the checkpoint makes frames small."""
    size = processor.video_processor.size
    return Resizing(ARITHMETIC, resize_frame, (size["height"], size["width"]))


def _opened(
    item: Item, processor: Processor, limits: MediaLimits
) -> tuple[VisionInputs, Origin, str]:
    paths = item.sample.media.paths
    if item.sampled is None:
        return image_inputs(processor, read_images(paths), limits.max_crops), "file", ""
    resizing = resizing_of(processor)
    small = read_resized_frames(paths[0], item.sampled.indices, resizing, limits.reading)
    vision = video_inputs(processor, small.frames, item.sampled.times_s)
    return vision, "frame_cache" if small.is_from_cache else "file", small.cache_error


def _feature_key(
    item: Item, processor: Processor, limits: MediaLimits, features: FeatureNames
) -> str:
    """Of everything that decides the features: checkpoint, files, and what is shown of them."""
    paths = item.sample.media.paths
    if item.sampled is None:
        shown: tuple[object, ...] = (*map(media_identity, paths), ARITHMETIC, limits.max_crops)
    else:
        resizing, indices = resizing_of(processor), item.sampled.indices
        shown = frames_identity(paths[0], indices, resizing, limits.reading)
    return key_of("features", features.fingerprint, item.sample.media.kind, *shown)
