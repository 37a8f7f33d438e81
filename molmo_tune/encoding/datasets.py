"""Torch datasets over items: open the media, encode, nothing else.

They are maps from a number (of packs: several numbers) to arrays, without state or randomness, so
any worker, epoch or resumed run that asks for the same gets the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.utils.data import Dataset

from molmo_tune.encoding.encoded import EncodedSample
from molmo_tune.encoding.items import Item, MediaLimits
from molmo_tune.encoding.loss_weights import Weighting
from molmo_tune.encoding.packing import pack
from molmo_tune.encoding.sample_encoder import encode_prompt, encode_tree
from molmo_tune.encoding.vision_inputs import NO_VISION, VisionInputs, image_inputs, video_inputs
from molmo_tune.media.clip import read_images, read_video


class TrainingSet(Dataset[EncodedSample]):
    """Items with targets: every item is a message tree over its conversations.

    Up to `cache_bytes` of encoded samples are kept in memory (per loader process), so that a small
    data set is decoded once and not once per pass.
    """

    def __init__(
        self,
        items: Sequence[Item],
        processor: Any,
        limits: MediaLimits,
        weighting: Weighting = "flat",
        cache_bytes: int = 0,
    ) -> None:
        self.items = tuple(items)
        self._processor = processor
        self._limits = limits
        self._weighting: Weighting = weighting
        self._cache: dict[int, EncodedSample] = {}
        self._free_bytes = cache_bytes

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> EncodedSample:
        if index in self._cache:
            return self._cache[index]
        encoded = self._encode(self.items[index])
        if encoded.patches.nbytes <= self._free_bytes:
            self._free_bytes -= encoded.patches.nbytes
            self._cache[index] = encoded
        return encoded

    def _encode(self, item: Item) -> EncodedSample:
        return encode_tree(
            self._processor,
            item.sample.id,
            [conversation.messages for conversation in item.conversations],
            vision_of(item, self._processor, self._limits),
            weighting=self._weighting,
            weight=item.weight,
        )


class PackedSet(Dataset[EncodedSample]):
    """Rows of several samples; which ones is asked for and was planned elsewhere."""

    def __init__(self, samples: TrainingSet) -> None:
        self._samples = samples

    def __len__(self) -> int:
        """Samples, not rows: how many rows they make depends on the plan."""
        return len(self._samples)

    def __getitem__(self, numbers: tuple[int, ...]) -> EncodedSample:
        return pack([self._samples[number] for number in numbers])


def encode_questions(item: Item, processor: Any, limits: MediaLimits) -> list[EncodedSample]:
    """The prompts of an item's conversations, media opened once: what inference reads."""
    vision = vision_of(item, processor, limits)
    return [
        encode_prompt(processor, item.sample.id, [conversation.question], vision)
        for conversation in item.conversations
    ]


def vision_of(item: Item, processor: Any, limits: MediaLimits) -> VisionInputs:
    """Open an item's media and make the model's inputs of them.

    Raises:
        UserError: a medium does not open or decode.
    """
    paths = item.sample.media.paths
    if item.sampled is not None:
        frames = read_video(paths[0], item.sampled)
        return video_inputs(processor, frames, item.sampled.times_s)
    if paths:
        return image_inputs(processor, read_images(paths), limits.max_crops)
    return NO_VISION
