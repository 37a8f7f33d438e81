"""The batch rows that a recipe trains on: from its data if present, else from its limits.

With labels and media, sequences are planned as in training (`read_items`, the packer), and nothing
is decoded. The largest row that the limits allow needs no data: as many frames or crops as they
permit, and text up to `data.max_tokens`.

Without data, the typical row is one clip with all its frames (or one image with all its crops) and
one question. Without a tokenizer, the time of a frame counts as six tokens; without processor
files, pooling is as in the released models.

Limitations: validation data are not read; they need less than training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from molmo_tune.encoding.items import Item, vision_token_ids
from molmo_tune.encoding.pack_plan import measure_packs, plan_packs, sizes_of
from molmo_tune.encoding.processor import Processor
from molmo_tune.encoding.sources import item_sampler, limits_of, pack_limits_of, read_items
from molmo_tune.encoding.token_stream import conversation_stream
from molmo_tune.encoding.vision_tokens import VisionLayout
from molmo_tune.errors import UserError
from molmo_tune.model.loading import checkpoint_source, load_processor
from molmo_tune.model.molmo import MolmoConfig
from molmo_tune.planning.rows import Row, RowSample
from molmo_tune.recipe.sections import Recipe
from molmo_tune.templates.template import load_template

QUESTION_TOKENS = 512
"""Tokens of a question with its answer, without data."""

ALLOWED, LARGEST, TYPICAL = "largest allowed", "largest in the data", "typical"
_TIME_TOKENS, _MARK_TOKENS = 6, 2
_MIN_TEXT_TOKENS = 3  # of a sample: BOS and one token per conversation
_VIDEO_POOLING, _IMAGE_POOLING = 3, 2  # patches along a side, in the released processors
_PLANNED_PACKS = 60


@dataclass(frozen=True, slots=True)
class Workload:
    """The rows of a recipe.

    Args:
        rows: first the one that decides whether the run fits, last the typical one.
        source: what they come from.
        rows_per_epoch: None without data.
        samples_per_row: mean.
    """

    rows: tuple[Row, ...]
    source: str
    rows_per_epoch: float | None = None
    samples_per_row: float = 1.0


def count_rows(recipe: Recipe, config: MolmoConfig) -> Workload:
    """Return the rows that a recipe trains on.

    Args:
        recipe: with data and limits.
        config: native, of its base.

    Raises:
        UserError: a template cannot be read.
    """
    processor, reason = _processor(recipe)
    media = _MediaShape.of(recipe, config, processor)
    allowed = Row(ALLOWED, media.filling(recipe))
    if processor is not None:
        try:
            items, _ = read_items(recipe.data.train, recipe, processor)
        except UserError as error:
            reason = str(error)
        else:
            return _of_items(recipe, items, processor, allowed)
    typical = Row(TYPICAL, (media.sample(media.max_crops(recipe), QUESTION_TOKENS),))
    source = f"the recipe's limits for {media.name}; data not read ({reason})"
    return Workload((allowed, typical), source)


def _processor(recipe: Recipe) -> tuple[Processor | None, str]:
    """Load the base's processor, or say why not; without labels it is not downloaded."""
    is_folder = Path(checkpoint_source(recipe.model.name)).is_dir()
    missing = [source.path for source in recipe.data.train if not source.path.exists()]
    if missing and not is_folder:
        return None, f"{missing[0]} is missing"
    try:
        return load_processor(recipe.model.name), ""
    except UserError as error:
        return None, str(error)


def _of_items(
    recipe: Recipe, items: Sequence[Item], processor: Processor, allowed: Row
) -> Workload:
    limits = pack_limits_of(recipe)
    source = f"{len(items)} sequences of data.train"
    if limits is None:
        by_size = sorted(items, key=lambda item: (item.num_tokens, item.num_crops))
        largest, median = by_size[-1], by_size[len(by_size) // 2]
        rows = (
            Row(LARGEST, (_row_sample(largest, recipe, processor),)),
            allowed,
            Row(TYPICAL, (_row_sample(median, recipe, processor),)),
        )
        return Workload(rows, source, len(items))
    order = item_sampler(items, recipe)
    figures = measure_packs(sizes_of(items), limits, order)
    packer = plan_packs(sizes_of(items), limits, order)
    packs = [[items[order.item_at(p)] for p in packer.next_pack()] for _ in range(_PLANNED_PACKS)]
    median_pack = sorted(packs, key=lambda one: sum(i.num_tokens for i in one))[len(packs) // 2]
    typical = Row(TYPICAL, tuple(_row_sample(item, recipe, processor) for item in median_pack))
    source += ", packed; packs can reach the limits, so the largest allowed row decides"
    return Workload((allowed, typical), source, figures.packs_per_epoch, figures.samples_per_pack)


def _row_sample(item: Item, recipe: Recipe, processor: Processor) -> RowSample:
    ids = vision_token_ids(item, processor, limits_of(recipe))
    is_video = item.sampled is not None
    side = _pooling(processor, is_video)
    streams = [
        conversation_stream(processor.tokenizer, (), conversation.messages)
        for conversation in item.conversations
    ]
    return RowSample(
        num_crops=item.num_crops,
        num_patch_tokens=ids.count(VisionLayout.of(processor).patch),
        num_media_tokens=len(ids),
        branch_tokens=tuple(len(stream.input_ids) - 1 for stream in streams),
        trained_tokens=tuple(int(np.count_nonzero(stream.loss_weights)) for stream in streams),
        pooled=side**2,
        reaches=not is_video,
    )


def _pooling(processor: Processor | None, is_video: bool) -> int:
    """Return the patches that a token pools, along a side."""
    if processor is None:
        return _VIDEO_POOLING if is_video else _IMAGE_POOLING
    for_media = processor.video_processor if is_video else processor.image_processor
    return int(for_media.pooling_size[0])


@dataclass(frozen=True, slots=True)
class _MediaShape:
    """Tokens of a video's frame or an image's crop."""

    name: str
    is_video: bool
    pooling: int
    patch_tokens: int
    other_tokens: int

    @classmethod
    def of(cls, recipe: Recipe, config: MolmoConfig, processor: Processor | None) -> _MediaShape:
        """Return the shape of frames, or of crops if every template asks about images."""
        tasks = {load_template(source.template).task for source in recipe.data.train}
        is_video = tasks != {"image_pointing"}
        pooling = _pooling(processor, is_video)
        side = -(-int(config.vision_config.num_position_embeddings**0.5) // pooling)
        other = _MARK_TOKENS + (_TIME_TOKENS if is_video else side)
        return cls("videos" if is_video else "images", is_video, pooling, side**2, other)

    @property
    def tokens(self) -> int:
        """Tokens of a frame or crop."""
        return self.patch_tokens + self.other_tokens

    def max_crops(self, recipe: Recipe) -> int:
        """Return the frames of the longest clip, or crops of the largest image, in a row."""
        limit = recipe.video.max_frames if self.is_video else recipe.image.max_crops + 1
        return max(1, min(limit, (recipe.data.max_tokens - _MIN_TEXT_TOKENS) // self.tokens))

    def sample(self, num_crops: int, text_tokens: int) -> RowSample:
        """Return a clip or image with two conversations, half of their tokens trained."""
        first = max(1, text_tokens // 2)
        branches = (first, max(1, text_tokens - first))
        trained = tuple(max(1, num // 2) for num in branches)
        patch_tokens = num_crops * self.patch_tokens
        media_tokens = num_crops * self.tokens
        return RowSample(
            num_crops,
            patch_tokens,
            media_tokens,
            branches,
            trained,
            self.pooling**2,
            not self.is_video,
        )

    def filling(self, recipe: Recipe) -> tuple[RowSample, ...]:
        """Return samples that fill a row: one, or with packing as many as their crops permit."""
        one, limits = self.max_crops(recipe), pack_limits_of(recipe)
        if limits is None:
            return (self.sample(one, recipe.data.max_tokens - 1 - one * self.tokens),)
        crops = limits.num_crops
        while (
            crops > 1
            and crops * self.tokens + -(-crops // one) * _MIN_TEXT_TOKENS > limits.num_tokens
        ):
            crops -= 1
        parts = [min(one, crops - start) for start in range(0, crops, one)]
        text = limits.num_tokens - crops * self.tokens - len(parts)
        return tuple(self.sample(part, text // len(parts)) for part in parts)
