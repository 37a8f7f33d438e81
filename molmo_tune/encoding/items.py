"""The units of training and evaluation: which conversations go into which sequence.

An `Item` holds the media of one sample and the conversations that share them as a message tree. Its
length is known before anything is decoded, because the frame count and image sizes determine the
vision tokens. Conversations that do not fit into one sequence are spread over several items with
the same media; one that does not fit even alone is refused and reported. Vision tokens are never
truncated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from molmo_tune.choices import Sampling
from molmo_tune.encoding.processor import Processor
from molmo_tune.encoding.token_stream import conversation_stream
from molmo_tune.encoding.vision_tokens import VisionLayout, images_ids, video_ids
from molmo_tune.errors import UserError
from molmo_tune.labels.sample import Sample
from molmo_tune.media.clip import SampledTimes, sample_video
from molmo_tune.media.image import image_size
from molmo_tune.media.resized_frames import Reading
from molmo_tune.media.video import probe_video
from molmo_tune.templates.conversations import Conversation, Skipped
from molmo_tune.templates.questions import ask
from molmo_tune.templates.template import Template

ASKING_A_RATE = ("tracking", "single_point_tracking")
"""Tasks whose answers follow the template's rate, which the sampled frames must cover."""


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """Caps on the frames and crops of one sample, and how videos are read.

    The values come from the recipe's `video`, `image` and `data.frame_cache`.
    """

    max_frames: int
    max_fps: float
    max_crops: int
    sampling: Sampling = "uniform_last_frame"
    reading: Reading = field(default_factory=Reading)


@dataclass(frozen=True, slots=True)
class Item:
    """One sequence, not encoded yet.

    ``sampled`` is set for videos, ``sizes_wh`` for images; ``num_tokens`` and ``num_crops`` (crops
    of images, frames of videos) are exact; ``source`` is the number of the data source in
    its split, from 0, and ``loss_weight`` its factor on the loss.
    """

    sample: Sample
    template: Template
    conversations: tuple[Conversation, ...]
    sampled: SampledTimes | None
    sizes_wh: tuple[tuple[int, int], ...]
    num_tokens: int
    loss_weight: float = 1.0
    num_crops: int = 0
    source: int = 0


@dataclass(frozen=True, slots=True)
class Refused:
    """A conversation that cannot be trained, and why; ``bad_medium``: a file that does not open."""

    sample_id: str
    label: str
    reason: str
    bad_medium: str = ""


@dataclass(frozen=True, slots=True)
class ItemPlan:
    """Items of a data source, and everything that was skipped."""

    items: tuple[Item, ...]
    refused: tuple[Refused, ...]

    @property
    def num_conversations(self) -> int:
        """Number of questions over all items."""
        return sum(len(item.conversations) for item in self.items)


def plan_items(
    samples: Sequence[Sample],
    template: Template,
    processor: Processor,
    limits: MediaLimits,
    *,
    max_tokens: int,
    seed: int,
    loss_weight: float = 1.0,
    source: int = 0,
) -> ItemPlan:
    """Plan the sequences of a data source without decoding any media.

    Samples with media that are missing or do not open are refused.

    Raises:
        UserError: no sequence is left to train on.
    """
    items: list[Item] = []
    refused: list[Refused] = []
    for sample in samples:
        bad = _bad_medium(sample)
        if bad is not None:
            refused.append(bad)
            continue
        whole, skipped = _conversations(sample, template, limits, seed)
        refused += [Refused(sample.id, one.label, one.reason) for one in skipped]
        if not whole.conversations:
            continue
        whole = replace(whole, loss_weight=loss_weight, source=source)
        fitting, too_long = _split(whole, processor, limits, max_tokens)
        items += fitting
        refused += too_long
    if not items:
        reason = refused[0].reason if refused else f"no annotation serves task {template.task!r}"
        raise UserError(
            "data",
            f"none of {len(samples)} samples yields a question ({reason})",
            "annotations that fit the template's task",
        )
    return ItemPlan(tuple(items), tuple(refused))


def _bad_medium(sample: Sample) -> Refused | None:
    """Read the headers of a sample's media files; return the first one that does not open."""
    probe: Callable[[Path], object] = probe_video if sample.media.kind == "video" else image_size
    for path in sample.media.paths:
        try:
            probe(path)
        except UserError as error:
            return Refused(sample.id, "", str(error), bad_medium=str(path))
    return None


def _conversations(
    sample: Sample, template: Template, limits: MediaLimits, seed: int
) -> tuple[Item, list[Skipped]]:
    """Return all conversations of a sample as one item of unknown length, and what is skipped."""
    item = item_to_ask(sample, template, limits)
    conversations, skipped = ask(sample, template, item.sampled, item.sizes_wh, seed)
    return replace(item, conversations=tuple(conversations)), skipped


def item_to_ask(sample: Sample, template: Template, limits: MediaLimits) -> Item:
    """Return what the model sees of a sample, without questions and of unknown length.

    Raises:
        UserError: a media file is missing or does not open.
    """
    sampled: SampledTimes | None = None
    sizes: tuple[tuple[int, int], ...] = ()
    if sample.media.kind == "video":
        sampled = sample_video(
            sample.media.paths[0],
            max_frames=limits.max_frames,
            max_fps=limits.max_fps,
            sampling=limits.sampling,
            base_fps=template.base_fps,
        )
    elif sample.media.kind == "image":
        sizes = tuple(image_size(path) for path in sample.media.paths)
    return Item(sample, template, (), sampled, sizes, 0)


def _split(
    item: Item, processor: Processor, limits: MediaLimits, max_tokens: int
) -> tuple[list[Item], list[Refused]]:
    """Fit an item's conversations into sequences of at most `max_tokens` (first fit)."""
    prefix = 1 + num_vision_tokens(item, processor, limits)
    num_crops = count_crops(item, processor, limits)
    bins: list[tuple[list[Conversation], int]] = []
    refused: list[Refused] = []
    for conversation in item.conversations:
        marker = special_token_in(conversation.messages, processor)
        if marker:
            reason = f"contains special token {marker!r}"
            refused.append(Refused(item.sample.id, conversation.label, reason))
            continue
        length = num_branch_tokens(conversation.messages, processor)
        if prefix + length > max_tokens:
            reason = f"{prefix + length} tokens exceed data.max_tokens = {max_tokens}"
            refused.append(Refused(item.sample.id, conversation.label, reason))
            continue
        place = next((k for k, (_, used) in enumerate(bins) if used + length <= max_tokens), None)
        if place is None:
            bins.append(([conversation], prefix + length))
        else:
            bins[place] = ([*bins[place][0], conversation], bins[place][1] + length)
    items = [
        replace(item, conversations=tuple(c), num_tokens=n, num_crops=num_crops) for c, n in bins
    ]
    return items, refused


def special_token_in(messages: Sequence[str], processor: Processor) -> str:
    """Return a special token found in the texts; it would be read as an image, a turn or an end."""
    special = processor.tokenizer.get_added_vocab()
    return next((t for t in special if any(t in message for message in messages)), "")


def num_branch_tokens(messages: Sequence[str], processor: Processor) -> int:
    """Return the number of tokens that a conversation adds to the sequence of its item."""
    return len(conversation_stream(processor.tokenizer, (), messages).input_ids) - 1


def num_vision_tokens(item: Item, processor: Processor, limits: MediaLimits) -> int:
    """Return the number of an item's vision tokens, with frame times; nothing is decoded."""
    return len(vision_token_ids(item, processor, limits))


def vision_token_ids(item: Item, processor: Processor, limits: MediaLimits) -> list[int]:
    """Return the vision tokens of an item, with frame times; nothing is decoded."""
    layout = VisionLayout.of(processor)
    if item.sampled is not None:
        video = processor.video_processor
        rows, cols = (
            -(-(video.size[side] // video.patch_size) // pool)
            for side, pool in zip(("height", "width"), video.pooling_size, strict=True)
        )
        return video_ids(layout, rows, cols, item.sampled.times_s, processor.tokenizer)
    if not item.sizes_wh:
        return []
    grids = [grid for grid, _ in _grids_and_crops(item, processor, limits)]
    return images_ids(layout, grids, processor.tokenizer)


def count_crops(item: Item, processor: Processor, limits: MediaLimits) -> int:
    """Return the number of crops of an item's images, with global views, or of its frames."""
    if item.sampled is not None:
        return len(item.sampled.times_s)
    return sum(num_crops for _, num_crops in _grids_and_crops(item, processor, limits))


def _grids_and_crops(
    item: Item, processor: Processor, limits: MediaLimits
) -> list[tuple[list[int], int]]:
    options = {"max_crops": limits.max_crops}
    return [
        processor.image_processor.get_image_grid_and_crops(height, width, options)
        for width, height in item.sizes_wh
    ]
