"""Torch datasets over items: they open the media, encode, and do nothing else.

They map a number (for packs, several numbers) to arrays, without state or randomness, so every
worker, epoch and resumed run gets the same sample for the same number. This includes media that
fail to open: in training, a single token without loss weight replaces such a sample, which changes
neither the loss nor the order, and its `Opening` gives the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch.utils.data import Dataset

from molmo_tune.choices import Weighting
from molmo_tune.encoding.encoded import IGNORED_ID, EncodedSample, Opening
from molmo_tune.encoding.items import Item, MediaLimits
from molmo_tune.encoding.media_inputs import FeatureNames, open_media, vision_of
from molmo_tune.encoding.packing import pack
from molmo_tune.encoding.processor import Processor
from molmo_tune.encoding.sample_encoder import encode_prompt, encode_tree
from molmo_tune.encoding.token_stream import bos_id
from molmo_tune.encoding.vision_inputs import NO_VISION
from molmo_tune.errors import UserError


class TrainingSet(Dataset[EncodedSample]):
    """Items with targets: every item is a message tree over its conversations.

    Args:
        items: the sequences of the dataset.
        processor: the checkpoint's processor.
        limits: caps on media, and how to read them.
        weighting: loss weighting of answers.
        cache_bytes: memory for encoded samples per loader process, so that a small dataset is
            decoded once rather than once per epoch.
        features: cache of vision features, for training with a frozen tower and connector.
        quarantine: replace samples with unreadable media; otherwise they raise an error.
    """

    def __init__(
        self,
        items: Sequence[Item],
        processor: Processor,
        limits: MediaLimits,
        weighting: Weighting = "flat",
        cache_bytes: int = 0,
        features: FeatureNames | None = None,
        quarantine: bool = False,
    ) -> None:
        self.items = tuple(items)
        self._processor = processor
        self._limits = limits
        self._weighting: Weighting = weighting
        self._cache: dict[int, EncodedSample] = {}
        self._free_bytes = cache_bytes
        self._features, self._quarantine = features, quarantine

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> EncodedSample:
        """Return the encoded item.

        Raises:
            UserError: a media file does not open or decode, and `quarantine` is off.
        """
        if index in self._cache:
            return _from_memory(self._cache[index])
        item = self.items[index]
        try:
            encoded = self._encode(item)
        except UserError as error:
            if not self._quarantine:
                raise
            return _placeholder(item, bos_id(self._processor.tokenizer), str(error))
        if encoded.patches.nbytes + encoded.features.nbytes <= self._free_bytes:
            self._free_bytes -= encoded.patches.nbytes + encoded.features.nbytes
            self._cache[index] = encoded
        return encoded

    def _encode(self, item: Item) -> EncodedSample:
        vision, opened = open_media(item, self._processor, self._limits, self._features)
        encoded = encode_tree(
            self._processor,
            item.sample.id,
            [conversation.messages for conversation in item.conversations],
            vision,
            weighting=self._weighting,
            weight=item.loss_weight,
        )
        openings = () if opened.opening is None else (opened.opening,)
        pieces = () if opened.piece is None else (opened.piece,)
        return replace(encoded, openings=openings, pieces=pieces, features=opened.features)


def _from_memory(sample: EncodedSample) -> EncodedSample:
    openings = (replace(one, origin="memory", unstored="") for one in sample.openings)
    return replace(sample, openings=tuple(openings))


def _placeholder(item: Item, token_id: int, fault: str) -> EncodedSample:
    """Return one token without loss weight, for a sample whose media do not open."""
    zero = np.zeros(1, np.int64)
    path = str(item.sample.media.paths[0])
    return EncodedSample(
        sample_id=item.sample.id,
        input_ids=zero + token_id,
        target_ids=zero + IGNORED_ID,
        loss_weights=np.zeros(1, np.float32),
        position_ids=zero,
        branch_ids=zero,
        example_ids=zero,
        is_vision=np.zeros(1, np.bool_),
        patches=NO_VISION.patches,
        pooling=NO_VISION.pooling,
        openings=(Opening(path, "nowhere", fault),),
    )


class PackedSet(Dataset[EncodedSample]):
    """Packs of samples; the caller gives the numbers of the samples to pack."""

    def __init__(self, samples: TrainingSet) -> None:
        self._samples = samples

    def __len__(self) -> int:
        """Number of samples, not rows; how many rows they fill depends on the plan."""
        return len(self._samples)

    def __getitem__(self, numbers: tuple[int, ...]) -> EncodedSample:
        return pack([self._samples[number] for number in numbers])


def encode_questions(item: Item, processor: Processor, limits: MediaLimits) -> list[EncodedSample]:
    """Return the prompts of an item's conversations for inference; media are opened once."""
    vision = vision_of(item, processor, limits)
    return [
        encode_prompt(processor, item.sample.id, [conversation.question], vision)
        for conversation in item.conversations
    ]
