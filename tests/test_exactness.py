"""Packs and message trees train like separate samples: on both released layouts, every backend.

The fixtures have the released shapes of attention (grouped queries; post-norm, scaled and plain
rotary layers), so the results hold for 4B, 8B and O-7B. For each test, another breaks the rule and
must fail the comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from molmo_tune.encoding.collation import collate
from molmo_tune.encoding.encoded import EncodedSample
from molmo_tune.encoding.packing import pack
from molmo_tune.encoding.sample_encoder import encode_conversation, encode_tree
from molmo_tune.encoding.vision_inputs import VisionInputs, image_inputs, video_inputs
from molmo_tune.errors import UserError
from molmo_tune.model import attention_backends
from molmo_tune.model.adapters import bare_model, trainable_parameters
from molmo_tune.model.attention_backends import BACKENDS, Backend, resolve_backend, use_backend
from molmo_tune.model.attention_rule import allows, dense_mask, pieces, rectangles
from molmo_tune.model.forward import hidden_states
from molmo_tune.model.loading import load_model, load_processor
from molmo_tune.training.molmo_module import MolmoModule
from molmo_tune.training.optimizers import OptimSettings
from tests.drawn_lora import drawn_lora
from tests.tiers import slow_except

LOGITS, GRADIENTS = 3e-5, 1e-4
FIXTURES = ("molmo2-tiny-qwen", "molmo2-tiny-olmo")
ASKED = [["Koi?", "At 0.5 s."], ["Frog?", "There are none."], ["Newt?", "Top, left."]]
Rule = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], Any]


class Case:
    """A fixture with nonzero adapters in every component, and results of its separate samples."""

    def __init__(self, folder: str) -> None:
        self.model = drawn_lora(load_model(folder))
        processor = load_processor(folder)
        samples, branches = _samples(processor), _branches(processor)
        self.pack, self.tree = pack(samples), encode_tree(processor, "", ASKED, _video(processor))
        self.pack_logits = _logits(self.model, samples, "sdpa")
        self.tree_logits = _logits(self.model, branches, "sdpa")
        self.pack_gradients = _gradients(self.model, samples, "sdpa")
        self.tree_gradients = _gradients(self.model, [self.tree], "sdpa")


_made: dict[str, Case] = {}


@pytest.fixture(params=slow_except(FIXTURES, "molmo2-tiny-olmo"))
def case(request: pytest.FixtureRequest, shared: Path) -> Case:
    if request.param not in _made:
        _made[request.param] = Case(str(shared / "fixtures" / request.param))
    return _made[request.param]


def _frames(count: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 256, (count, 60, 80, 3), np.uint8)


def _video(processor: Any) -> VisionInputs:
    return video_inputs(processor, _frames(2), [0.0, 0.5])


def _samples(processor: Any) -> list[EncodedSample]:
    """Text, an image and a video."""
    image = image_inputs(processor, [_frames(1)[0]], max_crops=1)
    return [
        encode_conversation(processor, "text", ["Hello?", "Yes, hello."]),
        encode_conversation(processor, "image", ["Frog?", "None."], image),
        encode_conversation(processor, "video", ["Where?", "Left."], _video(processor)),
    ]


def _branches(processor: Any) -> list[EncodedSample]:
    """The questions of the tree as separate samples."""
    vision = _video(processor)
    return [encode_conversation(processor, "", asked, vision) for asked in ASKED]


@torch.no_grad()
def _logits(model: Any, rows: Sequence[EncodedSample], backend: Backend) -> torch.Tensor:
    """Logits at the trained positions of all rows, computed row by row."""
    bare = bare_model(model)
    use_backend(bare, backend)
    found = []
    for row in rows:
        hidden = hidden_states(bare, collate([row], pad_id=0))[0]
        found.append(bare.lm_head(hidden[torch.from_numpy(row.loss_weights > 0)]))
    return torch.cat(found)


def _gradients(
    model: Any, rows: Sequence[EncodedSample], backend: Backend
) -> dict[str, torch.Tensor]:
    use_backend(bare_model(model), backend)
    module = MolmoModule(model, OptimSettings(lr=1e-3, max_steps=1, part_lr={}))
    sums = [module.sums(collate([row], pad_id=0)) for row in rows]
    weight = torch.stack([one.weight for one in sums]).sum()
    (torch.stack([one.total for one in sums]).sum() / weight).backward()
    found = {name: p.grad for name, p in trainable_parameters(model) if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def _worst(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """Largest difference of a matrix's gradients, relative to their norm."""
    assert ours.keys() == theirs.keys()
    assert len(ours) > 0
    return max(float((ours[name] - theirs[name]).norm() / theirs[name].norm()) for name in ours)


def _break(monkeypatch: pytest.MonkeyPatch, change: Callable[..., tuple[Any, Any, Any]]) -> None:
    """Give every backend's form of the rule wrong ids."""
    rules = (dense_mask, rectangles, allows, pieces)
    for name, rule in zip(("dense_mask", "rectangles", "allows", "pieces"), rules, strict=True):

        def broken(examples: Any, branches: Any, vision: Any, rule: Rule = rule) -> Any:
            return rule(*change(examples, branches, vision))

        monkeypatch.setattr(attention_backends, name, broken)


def _no_overlay(examples: Any, branches: Any, vision: Any) -> tuple[Any, Any, Any]:
    return examples, branches, torch.zeros_like(vision)


def _no_walls(examples: Any, branches: Any, vision: Any) -> tuple[Any, Any, Any]:
    return examples.clamp(max=0), torch.zeros_like(branches), vision


def _off(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max())


@pytest.mark.parametrize(
    ("asked", "device", "dtype", "capability", "given"),
    [
        ("auto", "cpu", torch.float32, (8, 0), "sdpa"),
        ("auto", "cuda", torch.float32, (9, 0), "sdpa"),
        ("auto", "cuda", torch.bfloat16, (9, 0), "flash"),
        ("auto", "cuda", torch.float16, (7, 5), "sdpa"),  # a T4, as on Colab
        ("flex", "cuda", torch.float16, (7, 5), "flex"),
        ("flash", "cpu", torch.float32, (8, 0), "flash"),
    ],
)
def test_auto_backend(
    asked: Any, device: str, dtype: torch.dtype, capability: tuple[int, int], given: str
) -> None:
    found = resolve_backend(asked, device=device, dtype=dtype, capability=capability)
    assert found == given


@pytest.mark.parametrize(
    ("dtype", "capability", "words"),
    [(torch.float32, (9, 0), "flash with float32"), (torch.float16, (7, 5), "capability 7.5")],
)
def test_flash_without_kernels_is_an_error(
    dtype: torch.dtype, capability: tuple[int, int], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        resolve_backend("flash", device="cuda", dtype=dtype, capability=capability)


@pytest.mark.parametrize("backend", BACKENDS)
def test_packs_and_trees_have_the_logits_of_separate_samples(case: Case, backend: Backend) -> None:
    assert _off(_logits(case.model, [case.pack], backend), case.pack_logits) < LOGITS
    assert _off(_logits(case.model, [case.tree], backend), case.tree_logits) < LOGITS


@pytest.mark.parametrize("broken", [_no_overlay, _no_walls])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_wrong_rule_fails_the_comparison(
    case: Case, backend: Backend, broken: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _break(monkeypatch, broken)
    assert _off(_logits(case.model, [case.pack], backend), case.pack_logits) > 100 * LOGITS
    assert _off(_logits(case.model, [case.tree], backend), case.tree_logits) > 100 * LOGITS


@pytest.mark.parametrize("backend", BACKENDS)
def test_packs_have_the_gradients_of_separate_samples(case: Case, backend: Backend) -> None:
    assert _worst(_gradients(case.model, [case.pack], backend), case.pack_gradients) < GRADIENTS


@pytest.mark.parametrize("backend", BACKENDS)
def test_trees_have_the_gradients_of_the_dense_mask(case: Case, backend: Backend) -> None:
    """By rule a branch has other loss weights than a conversation, so backends are compared."""
    assert _worst(_gradients(case.model, [case.tree], backend), case.tree_gradients) < GRADIENTS


def test_gradients_across_examples_fail_the_comparison(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    _break(monkeypatch, _no_walls)
    worst = _worst(_gradients(case.model, [case.pack], "sdpa"), case.pack_gradients)
    assert worst > 100 * GRADIENTS
