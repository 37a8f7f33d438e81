"""Token streams against the reference's records, trees and packs against separate samples."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from molmo_tune.encoding.bilinear import resize_bilinear
from molmo_tune.encoding.collation import collate
from molmo_tune.encoding.encoded import NO_PATCH
from molmo_tune.encoding.sample_encoder import encode_conversation, encode_prompt, encode_tree
from molmo_tune.encoding.token_stream import (
    SpokenLine,
    conversation_stream,
    prompt_ids,
    subtitle_ids,
    tree_stream,
)
from molmo_tune.encoding.vision_inputs import image_inputs, video_inputs
from molmo_tune.media.sampling import frame_on_screen, sample_times
from molmo_tune.model.attention_rule import dense_mask
from molmo_tune.model.forward import hidden_states
from molmo_tune.model.loading import load_model, load_processor

VECTORS = Path(__file__).parent / "data" / "vectors"
TRAINING = json.loads((VECTORS / "training-vectors.json").read_text())
SAMPLING = json.loads((VECTORS / "sampling-vectors.json").read_text())
INTERLEAVE = [record for record in TRAINING if record["task"] == "interleave"]
UNIFORM = [record for record in SAMPLING if record["task"] == "uniform_last_frame"]
WEIGHTING = {None: "flat", "both": "root_both"}


@pytest.fixture(scope="module")
def qwen(shared: Path) -> Any:
    return load_processor(str(shared / "fixtures" / "molmo2-tiny-qwen")).tokenizer


@pytest.fixture(scope="module")
def tiny() -> Any:
    return load_processor("tiny")


def _raw(messages: list[str]) -> list[str]:
    """The records hold rendered turns; our functions take what is inside them."""
    turn = re.compile(
        r"(?:<\|im_end\|>\n)?<\|im_start\|>user\n(.*)<\|im_end\|>\n<\|im_start\|>.*", re.S
    )
    return [m[1] if (m := turn.fullmatch(text)) else text for text in messages]


@pytest.mark.parametrize("record", INTERLEAVE, ids=lambda r: r["name"])
def test_streams_are_the_references(record: dict[str, Any], qwen: Any) -> None:
    given, expected = record["input"], record["output"]
    prefix = [token for medium in given["vision_tokens"] for token in medium]
    messages = given["messages"]
    if len(messages) == 1 and isinstance(messages[0], str):
        assert prompt_ids(qwen, prefix, _raw(messages)) == expected["input_tokens"]
        return
    options: dict[str, Any] = {
        "weighting": WEIGHTING[given["weighting"]],
        "weight": given["example_weight"] or 1.0,
    }
    if isinstance(messages[0], list):
        stream = tree_stream(qwen, prefix, [_raw(branch) for branch in messages], **options)
    else:
        stream = conversation_stream(qwen, prefix, _raw(messages), **options)
    assert stream.input_ids.tolist() == expected["input_tokens"]
    assert stream.target_ids.tolist() == expected["target_tokens"]
    assert np.allclose(stream.loss_weights, expected["loss_masks"], atol=1e-6)
    assert stream.position_ids.tolist() == expected["position_ids"]
    if "subsegment_ids" in expected:
        ours = np.where(stream.branch_ids == 0, 10000, stream.branch_ids - 1)
        assert ours.tolist() == expected["subsegment_ids"]


@pytest.mark.parametrize(
    "record", UNIFORM, ids=lambda r: "{total_frames}@{video_fps}".format(**r["input"])
)
def test_sampling_is_the_references(record: dict[str, Any]) -> None:
    given, expected = record["input"], record["output"]
    duration = given["total_frames"] / given["video_fps"]
    times = sample_times(duration, max_frames=given["num_frames"], max_fps=given["max_fps"])
    assert np.allclose(times, expected["ai2_times"], atol=1e-6)
    starts = [k / given["video_fps"] for k in range(given["total_frames"])]
    indices = [frame_on_screen(starts, time) for time in times]
    assert indices == expected["ai2_frame_indices_constant_fps"]


def _media(tiny: Any) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    image = image_inputs(tiny, [rng.integers(0, 256, (50, 70, 3), np.uint8)])
    video = video_inputs(tiny, rng.integers(0, 256, (3, 40, 60, 3), np.uint8), [0.0, 0.5, 1.0])
    return image, video


@torch.no_grad()
def _logits(model: Any, samples: list[Any]) -> list[torch.Tensor]:
    logits = model.lm_head(hidden_states(model, collate(samples, pad_id=0)))
    return [row[: sample.num_tokens] for row, sample in zip(logits, samples, strict=True)]


def test_padding_and_mixed_media_change_nothing(tiny: Any) -> None:
    """Text, an image and a video in one batch give the logits of three batches of one."""
    model = load_model("tiny")
    image, video = _media(tiny)
    samples = [
        encode_conversation(tiny, "text", ["Hello?", "Yes."]),
        encode_conversation(tiny, "image", ["Point to the frog.", "There are none."], image),
        encode_conversation(tiny, "video", ["Where?", "Left of the middle."], video),
    ]
    together = _logits(model, samples)
    for sample, ours in zip(samples, together, strict=True):
        assert torch.allclose(ours, _logits(model, [sample])[0], atol=3e-5)


def test_branches_of_a_tree_do_not_see_each_other(tiny: Any) -> None:
    model = load_model("tiny")
    _, video = _media(tiny)
    branches = [
        ["Where is the koi?", "At 0.5 s."],
        ["Frog?", "None."],
        ["Newt?", "At the top, left."],
    ]
    tree = encode_tree(tiny, "tree", branches, video)
    whole = _logits(model, [tree])[0]
    for number, branch in enumerate(branches, start=1):
        alone = encode_conversation(tiny, "", branch, video)
        own = torch.from_numpy((tree.branch_ids == 0) | (tree.branch_ids == number))
        assert torch.allclose(whole[own], _logits(model, [alone])[0], atol=3e-5)
        places = np.flatnonzero(tree.branch_ids == number)
        assert tree.target_ids[places].tolist() == alone.target_ids[-len(places) :].tolist()


def test_the_mask_rule_by_hand() -> None:
    """prefix v v, branch 1, branch 2, then another example v v and padding."""
    example = torch.tensor([[0, 0, 0, 0, 1, 1, -1]])
    branch = torch.tensor([[0, 0, 1, 2, 0, 0, 0]])
    vision = torch.tensor([[True, True, False, False, True, True, False]])
    allowed = dense_mask(example, branch, vision)[0, 0].int().tolist()
    assert allowed == [
        [1, 1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 0, 1, 0, 0, 0],
        [0, 0, 0, 0, 1, 1, 0],
        [0, 0, 0, 0, 1, 1, 0],
        [0, 0, 0, 0, 0, 0, 1],
    ]


def test_a_tree_without_media_restarts_at_zero(tiny: Any) -> None:
    """The reference's quirk: the branches of a tree without media begin at BOS's own position."""
    stream = tree_stream(tiny.tokenizer, (), [["A?", "1"], ["B?", "2"]])
    firsts = [np.flatnonzero(stream.branch_ids == branch)[0] for branch in (0, 1, 2)]
    assert stream.position_ids[firsts].tolist() == [0, 0, 0]


def test_subtitles_stand_behind_the_frames(tiny: Any) -> None:
    lines = [
        SpokenLine(0.0, 0.4, "far before"),
        SpokenLine(1.0, 1.96, "a second before"),
        SpokenLine(3.5, 4.0, "a second after"),
        SpokenLine(3.6, 9.0, "far after"),
    ]
    times = [2.0, 2.5]
    spoken = "subtitle\n1.0 - 2.0 a second before\n3.5 - 4.0 a second after\n"
    tokenizer = tiny.tokenizer
    assert tokenizer.decode(subtitle_ids(tokenizer, lines, times)) == spoken
    assert tokenizer.decode(subtitle_ids(tokenizer, lines, times, None)).count("\n") == 5
    assert tokenizer.decode(subtitle_ids(tokenizer, lines[:1], times)) == "subtitle\n"
    assert tokenizer.decode(subtitle_ids(tokenizer, "Hello.", times)) == "subtitle\nHello."
    assert subtitle_ids(tokenizer, "", times) == subtitle_ids(tokenizer, [], times) == []
    frames = np.zeros((2, 20, 20, 3), np.uint8)
    plain = encode_prompt(tiny, "", ["?"], video_inputs(tiny, frames, times))
    media = video_inputs(tiny, frames, times, subtitle=lines)
    subtitled = encode_prompt(tiny, "", ["?"], media)
    more = len(subtitle_ids(tokenizer, lines, times))
    start = 1 + len(media.token_ids) - more
    assert subtitled.is_vision.sum() == plain.is_vision.sum()
    assert tokenizer.decode(subtitled.input_ids[start : start + more].tolist()) == spoken


@pytest.mark.parametrize("size_hw", [(1, 1), (3, 90), (20, 500), (500, 20)])
def test_thin_images_are_planned_as_they_are_cut(tiny: Any, size_hw: tuple[int, int]) -> None:
    red = np.zeros((*size_hw, 3), np.uint8)
    red[..., 0] = 255
    inputs = image_inputs(tiny, [red])
    grid, num_crops = tiny.image_processor.get_image_grid_and_crops(*size_hw)
    assert num_crops == len(inputs.patches)
    assert len(inputs.pooling) == grid[0] * grid[1] + grid[2] * grid[3]
    assert num_crops > 2 or max(size_hw) < 500
    channels = inputs.patches.reshape(-1, 3)
    assert (channels == [1.0, -1.0, -1.0]).all()


def test_only_answers_are_trained(tiny: Any) -> None:
    _, video = _media(tiny)
    sample = encode_conversation(tiny, "", ["Where is it?", "Here."], video)
    trained = sample.target_ids[sample.loss_weights > 0].tolist()
    assert tiny.tokenizer.decode(trained) == "Here.<|im_end|>"
    assert trained[-1] == tiny.tokenizer.eos_token_id
    assert sample.input_ids[0] == tiny.tokenizer.eos_token_id  # BOS is the end token
    assert (
        sample.input_ids.tolist().count(tiny.tokenizer.convert_tokens_to_ids("<|im_start|>")) == 2
    )


def test_no_blank_before_the_assistant(tiny: Any) -> None:
    """Trap 14: the hub template renders a space there that training never had."""
    prompt = encode_prompt(tiny, "", ["Where?"])
    text = tiny.tokenizer.decode(prompt.input_ids.tolist())
    assert text == "<|im_end|><|im_start|>user\nWhere?<|im_end|>\n<|im_start|>assistant\n"


def test_pixels_are_checked(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = np.full((1, 20, 20, 3), 255, np.uint8)
    assert video_inputs(tiny, frames, [0.0]).patches.max() == pytest.approx(1.0)
    monkeypatch.setattr(tiny.video_processor, "do_rescale", False)
    with pytest.raises(ValueError, match="pixel values reach"):
        video_inputs(tiny, frames, [0.0])


def test_resizing_agrees_with_torch_up_to_ties() -> None:
    """The same picture as PyTorch's kernel but for values half way between two gray levels."""
    image = torch.randint(0, 256, (1, 3, 96, 128), generator=torch.Generator().manual_seed(0))
    ours = resize_bilinear(image.float(), 378, 378)
    theirs = torch.nn.functional.interpolate(image.float(), (378, 378), mode="bilinear")
    assert (ours - theirs).abs().max() < 1e-3
    assert ((ours.round() - theirs.round()).abs() > 0).float().mean() < 1e-3


def test_pooling_of_a_batch_counts_patches_over_all_rows(tiny: Any) -> None:
    image, video = _media(tiny)
    samples = [encode_prompt(tiny, "", ["?"], media) for media in (image, video)]
    batch = collate(samples, pad_id=0)
    patches_before = image.patches.shape[0] * image.patches.shape[1]
    tail = batch.pooling[len(image.pooling) :]
    assert torch.equal(
        tail[tail != NO_PATCH] - patches_before,
        torch.from_numpy(video.pooling[video.pooling != NO_PATCH]),
    )
    assert len(batch.patches) == len(image.patches) + len(video.patches)
