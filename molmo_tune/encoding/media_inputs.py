"""Model inputs of an item's media files, by the shortest way there is.

    cached features   tokens follow from sizes and times; no file is opened
    cached frames     cut into patches
    the file          decoded, resized frame by frame, and stored if there is a cache

An `Opening` records where the media came from, for the figures at the end of a run.

Limitations: computes no features (`molmo_tune.model.feature_cache` does, and stores them), and does
not handle media that do not open (`datasets` does).
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
    """A cache of vision features, and the key that separates one checkpoint's from another's.

    Args:
        place: location of the cache.
        fingerprint: digest of everything that turns patches into features.
    """

    place: CachePlace
    fingerprint: str


@dataclass(frozen=True, slots=True)
class OpenedMedia:
    """What was opened: for the figures of a run, and for the feature cache."""

    opening: Opening | None = None
    piece: VisionPiece | None = None
    features: NDArray[np.uint16] = field(default_factory=lambda: np.zeros((0, 0), np.uint16))


def vision_of(item: Item, processor: Processor, limits: MediaLimits) -> VisionInputs:
    """Return the model inputs of an item's media.

    Raises:
        UserError: a media file does not open or decode.
    """
    return open_media(item, processor, limits)[0]


def open_media(
    item: Item, processor: Processor, limits: MediaLimits, features: FeatureNames | None = None
) -> tuple[VisionInputs, OpenedMedia]:
    """Return the model inputs of an item's media, and how these were opened.

    With cached features, the inputs have neither patches nor pooling rows.

    Raises:
        UserError: a media file does not open or decode.
    """
    if not item.sample.media.paths:
        return NO_VISION, OpenedMedia()
    path = str(item.sample.media.paths[0])
    if features is None:
        vision, origin, unstored = _opened(item, processor, limits)
        return vision, OpenedMedia(Opening(path, origin, unstored=unstored))
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
    return vision, OpenedMedia(opening, piece, *(() if known is None else (known,)))


def resizing_of(processor: Processor) -> Resizing:
    """Return how the checkpoint resizes frames."""
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
    """Return the cache key: checkpoint, files, and the frames or crops taken from them."""
    paths = item.sample.media.paths
    if item.sampled is None:
        shown: tuple[object, ...] = (*map(media_identity, paths), ARITHMETIC, limits.max_crops)
    else:
        resizing, indices = resizing_of(processor), item.sampled.indices
        shown = frames_identity(paths[0], indices, resizing, limits.reading)
    return key_of("features", features.fingerprint, item.sample.media.kind, *shown)
