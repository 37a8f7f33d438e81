"""Native loading, prompt, processor and forward pass, compared with Ai2's own logits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from molmo_tune.encoding.collation import collate
from molmo_tune.encoding.sample_encoder import encode_conversation, encode_prompt
from molmo_tune.encoding.vision_inputs import NO_VISION, VisionInputs, image_inputs, video_inputs
from molmo_tune.model import attention_backends
from molmo_tune.model.attention_backends import BACKENDS, Backend, use_backend
from molmo_tune.model.attention_rule import dense_mask
from molmo_tune.model.forward import hidden_states
from molmo_tune.model.loading import load_model, load_processor
from tests.tiers import slow_except

CASES = [
    f"{kind}_{case}"
    for kind in ("qwen", "olmo")
    for case in ("text", "image", "two_images", "video")
]
TOLERANCE = 3e-5


@pytest.fixture(scope="module")
def checkpoints(shared: Path) -> dict[str, tuple[Any, Any]]:
    names = ("molmo2-tiny-qwen", "molmo2-tiny-olmo")
    folders = {name: str(shared / "fixtures" / name) for name in names}
    return {name: (load_model(path), load_processor(path)) for name, path in folders.items()}


def _case(shared: Path, name: str) -> tuple[dict[str, Any], Any]:
    folder = shared / "fixtures" / "reference"
    return json.loads((folder / "cases.json").read_text())[name], np.load(folder / f"{name}.npz")


def _vision(shared: Path, case: dict[str, Any], processor: Any) -> VisionInputs:
    inputs = np.load(shared / "fixtures" / "reference" / "inputs.npz")
    if case["video"]:
        metadata = case["video_metadata"]
        times = [index / metadata["fps"] for index in metadata["frames_indices"]]
        return video_inputs(processor, inputs["video"], times)
    if case["images"]:
        return image_inputs(processor, [inputs[name] for name in case["images"]])
    return NO_VISION


def _messages(text: str) -> list[str]:
    question = text.split("<|im_start|>user\n")[1].split("<|im_end|>")[0]
    return [question, text.split("assistant\n")[1].removesuffix("<|im_end|>")]


@pytest.mark.parametrize("backend", slow_except(BACKENDS, "sdpa"))
@pytest.mark.parametrize("name", CASES)
def test_token_ids_and_logits(
    name: str, backend: Backend, shared: Path, checkpoints: dict[str, tuple[Any, Any]]
) -> None:
    case, reference = _case(shared, name)
    model, processor = checkpoints[case["checkpoint"]]
    use_backend(model, backend)
    messages = _messages(case["prompt_and_response"])
    vision = _vision(shared, case, processor)
    sample = encode_conversation(processor, name, messages, vision)
    ids = [*sample.input_ids, sample.target_ids[-1]]
    assert ids == reference["input_ids"].tolist()
    with torch.no_grad():
        hidden = hidden_states(model, collate([sample], pad_id=0))
        ours = model.lm_head(hidden)[0, -7:, :256].numpy()
    # The reference's last position follows the end token, which training has no input for.
    assert np.abs(ours - reference["logits_tail"][:-1]).max() < TOLERANCE
    trained = np.flatnonzero(sample.loss_weights)
    assert trained[0] + 1 == case["response_start"]
    assert len(trained) == len(reference["response_nll"])


def test_a_causal_mask_would_be_noticed(
    shared: Path, checkpoints: dict[str, tuple[Any, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    case, reference = _case(shared, "qwen_image")
    model, processor = checkpoints[case["checkpoint"]]
    messages = _messages(case["prompt_and_response"])
    sample = encode_conversation(processor, "", messages, _vision(shared, case, processor))

    def without_overlay(
        example_ids: torch.Tensor, branch_ids: torch.Tensor, is_vision: torch.Tensor
    ) -> torch.Tensor:
        return dense_mask(example_ids, branch_ids, torch.zeros_like(is_vision))

    use_backend(model, "sdpa")
    monkeypatch.setattr(attention_backends, "dense_mask", without_overlay)
    with torch.no_grad():
        hidden = hidden_states(model, collate([sample], pad_id=0))
        ours = model.lm_head(hidden)[0, -7:, :256].numpy()
    assert np.abs(ours - reference["logits_tail"][:-1]).max() > 1e-3


@pytest.mark.parametrize("name", CASES)
def test_training_and_inference_prompts_agree(
    name: str, shared: Path, checkpoints: dict[str, tuple[Any, Any]]
) -> None:
    case, _ = _case(shared, name)
    _, processor = checkpoints[case["checkpoint"]]
    messages = _messages(case["prompt_and_response"])
    vision = _vision(shared, case, processor)
    trained = encode_conversation(processor, name, messages, vision)
    prompt = encode_prompt(processor, name, messages[:1], vision)
    start = int(np.flatnonzero(trained.loss_weights)[0]) + 1
    assert prompt.input_ids.tolist() == trained.input_ids[:start].tolist()


@pytest.mark.parametrize("name", ["qwen_image", "qwen_two_images", "qwen_video"])
def test_tokens_match_the_native_processor(
    name: str, shared: Path, checkpoints: dict[str, tuple[Any, Any]]
) -> None:
    """The native processor gives the same ids for a single turn."""
    from transformers.video_utils import VideoMetadata

    case, _ = _case(shared, name)
    _, processor = checkpoints[case["checkpoint"]]
    inputs = np.load(shared / "fixtures" / "reference" / "inputs.npz")
    text = case["prompt_and_response"].split("assistant\n")[0] + "assistant\n"
    if case["video"]:
        metadata = VideoMetadata(**case["video_metadata"])
        media = {
            "videos": [inputs["video"]],
            "video_metadata": [metadata],
            "do_sample_frames": False,
        }
    else:
        media = {"images": [inputs[image] for image in case["images"]]}
    native = processor(text=text, return_tensors="pt", **media)
    vision = _vision(shared, case, processor)
    question = _messages(case["prompt_and_response"])[:1]
    ours = encode_prompt(processor, name, question, vision)
    assert ours.input_ids.tolist() == native["input_ids"][0].tolist()
    assert ours.is_vision.tolist() == native["mm_token_type_ids"][0].bool().tolist()
