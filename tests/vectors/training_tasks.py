"""Tasks of ``training-vectors.json``: token streams with targets and weights, video tokens, packs.

They need the real tokenizer, one of the large fixtures (see ``tests/conftest.py``).

The records use the reference's numbers: a pack's example j adds 100000·j to its branch numbers, a
tree's prefix is 10000, and its branches count from 0. Their conversations are rendered turns; our
functions take the contents of these turns.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from molmo_tune.choices import Weighting
from molmo_tune.encoding.encoded import EncodedSample
from molmo_tune.encoding.packing import Size, knapsack, pack
from molmo_tune.encoding.sample_encoder import encode_prompt, encode_tree
from molmo_tune.encoding.token_stream import SpokenLine, subtitle_ids
from molmo_tune.encoding.vision_inputs import NO_VISION, VisionInputs
from molmo_tune.encoding.vision_tokens import VisionLayout, video_ids
from molmo_tune.model.loading import load_processor

Input = dict[str, Any]
TOLERANCE = 2e-6  # weights are recorded with six decimals
NEED_TOKENIZER = frozenset({"interleave", "video_tokens", "pack"})

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("MOLMO_TUNE_SHARED", ROOT.parent / "shared"))
WEIGHTINGS: dict[str | None, Weighting] = {
    None: "flat",
    "root_length": "root_length",
    "root_subsegments": "root_branches",
    "both": "root_both",
}
PREFIX_ID, EXAMPLE_STEP = 10000, 100000
TURN = re.compile(
    r"(?:<\|im_end\|>\n)?<\|im_start\|>user\n(.*)<\|im_end\|>\n<\|im_start\|>.*", re.S
)


@cache
def _processor() -> Any:
    return load_processor(str(SHARED / "fixtures" / "molmo2-tiny-qwen"))


def _inside(turns: Sequence[str]) -> list[str]:
    return [match[1] if (match := TURN.fullmatch(turn)) else turn for turn in turns]


def _tokens_only(*media: Sequence[int]) -> VisionInputs:
    ids = tuple(token for medium in media for token in medium)
    return VisionInputs(ids, NO_VISION.patches, NO_VISION.pooling)


def _subsegments(sample: EncodedSample) -> NDArray[np.int64]:
    ids = np.zeros_like(sample.branch_ids)
    for number in np.unique(sample.example_ids):
        own = sample.example_ids == number
        branches = sample.branch_ids[own]
        in_tree = np.where(branches == 0, PREFIX_ID, branches - 1)
        ids[own] = EXAMPLE_STEP * number + (in_tree if branches.any() else 0)
    return ids


def _written(sample: EncodedSample) -> Input:
    return {
        "input_tokens": sample.input_ids.tolist(),
        "target_tokens": sample.target_ids.tolist(),
        "loss_masks": sample.loss_weights.tolist(),
        "position_ids": sample.position_ids.tolist(),
    }


def interleave(given: Input) -> Input:
    vision = _tokens_only(*given["vision_tokens"])
    messages = given["messages"]
    is_tree = isinstance(messages[0], list)
    if not is_tree and len(messages) % 2 == 1:
        return _written(encode_prompt(_processor(), "", _inside(messages), vision))
    sample = encode_tree(
        _processor(),
        "",
        [_inside(branch) for branch in (messages if is_tree else [messages])],
        vision,
        weighting=WEIGHTINGS[given["weighting"]],
        weight=1.0 if given["example_weight"] is None else given["example_weight"],
    )
    if not sample.branch_ids.any():
        return _written(sample)
    return {**_written(sample), "subsegment_ids": _subsegments(sample).tolist()}


def _spoken(subtitle: Any) -> str | list[SpokenLine]:
    """Return a subtitle from JSON: text, or lines with start and end times."""
    if subtitle is None or isinstance(subtitle, str):
        return subtitle or ""
    if isinstance(subtitle, dict):  # the reference's keys are pairs of times
        return [
            SpokenLine(*map(float, re.findall(r"\d+(?:\.\d+)?", span)), text)
            for span, text in subtitle.items()
        ]
    return [_line(row) for row in subtitle]


def _line(row: Any) -> SpokenLine:
    if isinstance(row, dict):
        return SpokenLine(float(row["start"]), float(row["end"]), row["text"])
    span, text = (row[0], row[1]) if len(row) == 2 else (row[:2], row[2])
    return SpokenLine(float(span[0]), float(span[1]), text)


def _reach(mode: str) -> float | None:
    return float(mode.removeprefix("frame_")) if mode.startswith("frame_") else None


def video_tokens(given: Input) -> Input:
    tokenizer, times = _processor().tokenizer, given["timestamps"]
    switched = copy.copy(_processor())
    switched.use_frame_special_tokens = given["use_frame_special_tokens"]
    switched.per_frame_special_token = given["per_frame_special_token"]
    layout = VisionLayout.of(switched)
    ids = video_ids(layout, 9, 9, times, tokenizer)
    subtitle = _spoken(given["subtitle"])
    ids += subtitle_ids(tokenizer, subtitle, times, _reach(given["subtitle_mode"]))
    text = re.sub(
        r"(?:<im_patch>)+",
        lambda run: f"<im_patch>*{len(run[0]) // len('<im_patch>')}",
        tokenizer.decode(ids),
    )
    return {"text": text, "n_tokens": len(ids)}


def choose(given: Input) -> list[int]:
    sizes = [Size(*size) for size in zip(given["text"], given["images"], strict=True)]
    return knapsack(
        sizes,
        Size(given["max_text"], given["max_images"]),
        token_value=given["text_weight"],
        crop_value=given["image_weight"],
    )


# The one pack is described in words: a tree of two on an image of two crops, text, and one frame.
PATCH_START, PATCH_END, PATCH, COLUMN, LOW_RES = 151936, 151937, 151938, 151939, 151940
IMAGE = (LOW_RES, PATCH, PATCH, PATCH_END, PATCH_START, PATCH, COLUMN, PATCH_END)
FRAME = (PATCH_START, PATCH, PATCH_END)
IMAGE_POOLING = ((0, 1, 2, 3), (4, 5, 6, 7), (729, 730, 731, -1))
FRAME_POOLING = tuple(27 * row + column for row in range(3) for column in range(3))


def _crops(num: int) -> NDArray[np.float32]:
    return np.zeros((num, 729, 1), np.float32)


def pack_of_three(_given: str) -> Input:
    image = VisionInputs(IMAGE, _crops(2), np.array(IMAGE_POOLING))
    frame = VisionInputs(FRAME, _crops(1), np.array([FRAME_POOLING]))
    examples = [
        ([["Hi?", "Yes."], ["Ok?", "No."]], image),
        ([["A", "1"]], NO_VISION),
        ([["B", "2"]], frame),
    ]
    row = pack(
        [
            encode_tree(_processor(), "", branches, vision, weighting="root_both")
            for branches, vision in examples
        ]
    )
    return {
        **_written(row),
        "subsegment_ids": _subsegments(row).tolist(),
        "token_pooling": row.pooling.tolist(),
        "n_images": len(row.patches),
    }


TASKS: dict[str, Callable[[Any], Any]] = {
    "interleave": interleave,
    "video_tokens": video_tokens,
    "knapsack": choose,
    "pack": pack_of_three,
}
