"""GPU kernels compute the attention that the dense mask defines, forward and backward.

Run on an H200 (PyTorch 2.11, `benchmarks/results`). The kernels' error in bfloat16 against the
dense mask in float32 must be at most twice that of SDPA in bfloat16 under the same mask.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from molmo_tune.encoding.collation import collate
from molmo_tune.encoding.encoded import Batch
from molmo_tune.encoding.packing import pack
from molmo_tune.encoding.sample_encoder import encode_conversation, encode_tree
from molmo_tune.encoding.vision_inputs import image_inputs, video_inputs
from molmo_tune.model.adapters import add_adapter, bare_model, trainable_parameters
from molmo_tune.model.attention_backends import Backend, use_backend
from molmo_tune.model.attention_rule import dense_mask, pieces
from molmo_tune.model.flash_attention import flash_attention
from molmo_tune.model.forward import hidden_states
from molmo_tune.model.loading import load_model, load_processor
from molmo_tune.training.molmo_module import MolmoModule
from molmo_tune.training.optimizers import OptimSettings
from tests.drawn_lora import drawn_lora

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def packed_batch() -> Batch:
    """A message tree on a clip, text alone and an image in one row."""
    processor = load_processor("tiny")
    frames = np.random.default_rng(0).integers(0, 256, (3, 60, 80, 3), np.uint8)
    clip = video_inputs(processor, frames, [0.0, 0.5, 1.0])
    asked = [["Koi?", "At 0.5 s."], ["Frog?", "None."], ["Newt?", "Top, left."]]
    samples = [
        encode_tree(processor, "", asked, clip),
        encode_conversation(processor, "", ["Hello?", "Yes, hello."]),
        encode_conversation(
            processor, "", ["Where?", "Left."], image_inputs(processor, [frames[0]])
        ),
    ]
    return collate([pack(samples)], pad_id=0).to("cuda")


def random_qkv(length: int, dtype: torch.dtype) -> list[torch.Tensor]:
    """Queries of four heads, keys and values of two, 64 wide."""
    torch.manual_seed(0)
    shapes = ((1, 4, length, 64), (1, 2, length, 64), (1, 2, length, 64))
    return [torch.randn(shape, device="cuda", dtype=dtype, requires_grad=True) for shape in shapes]


def dense(qkv: list[torch.Tensor], batch: Batch) -> torch.Tensor:
    mask = dense_mask(batch.example_ids, batch.branch_ids, batch.is_vision)
    out = torch.nn.functional.scaled_dot_product_attention(
        *qkv, attn_mask=mask, scale=0.125, enable_gqa=True
    )
    return out.transpose(1, 2)


def test_flash_pieces_are_the_dense_attention() -> None:
    batch = packed_batch()
    length = batch.input_ids.shape[1]
    parts = pieces(batch.example_ids, batch.branch_ids, batch.is_vision)
    exact = random_qkv(length, torch.float32)
    wanted = dense(exact, batch)
    upstream = torch.randn_like(wanted)
    wanted.backward(upstream)
    errors = []
    for way in ("flash", "sdpa"):
        half = [x.detach().to(torch.bfloat16).requires_grad_() for x in exact]
        found = flash_attention(*half, parts, 0.125) if way == "flash" else dense(half, batch)
        found.backward(upstream.to(torch.bfloat16))
        pairs = [(found, wanted), *((h.grad, e.grad) for h, e in zip(half, exact, strict=True))]
        errors.append([float((a.float() - b).norm() / b.norm()) for a, b in pairs])
    for flash, sdpa in zip(*errors, strict=True):
        assert flash < 2 * sdpa + 1e-3, errors


def adapted() -> Any:
    return drawn_lora(load_model("tiny")).cuda()


@pytest.mark.parametrize("backend", ["flex", "flash"])
def test_backends_give_the_hidden_states_of_sdpa(backend: Backend) -> None:
    batch, model = packed_batch(), bare_model(adapted())
    states = {}
    with torch.no_grad():
        for name in ("sdpa", backend):
            use_backend(model, name)
            half = name == "flash"
            with torch.autocast("cuda", torch.bfloat16, enabled=half):
                states[name] = hidden_states(model, batch).float()
    difference = (states[backend] - states["sdpa"]).norm() / states["sdpa"].norm()
    assert float(difference) < (2e-2 if backend == "flash" else 1e-4)


@pytest.mark.parametrize("backend", ["sdpa", "flex", "flash"])
def test_a_step_reaches_every_adapter(backend: Backend) -> None:
    batch, model = packed_batch(), adapted()
    use_backend(bare_model(model), backend)
    module = MolmoModule(model.train(), OptimSettings(lr=1e-3, max_steps=1, part_lr={}))
    with torch.autocast("cuda", torch.bfloat16):
        sums = module.sums(batch)
    (sums.total / sums.weight).backward()
    for name, parameter in trainable_parameters(model):
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
        assert float(parameter.grad.abs().max()) > 0, name


@pytest.mark.parametrize("quantize", ["nf4", "int8"])
def test_qlora_steps_on_the_gpu(quantize: Any) -> None:
    base = load_model("tiny", dtype=torch.bfloat16, quantize=quantize)
    model = add_adapter(
        base, method="lora", rank=4, alpha=8, dropout=0.0, targets=["language"]
    ).cuda()
    module = MolmoModule(model.train(), OptimSettings(lr=1e-3, max_steps=1, part_lr={}))
    with torch.autocast("cuda", torch.bfloat16):
        sums = module.sums(packed_batch())
    (sums.total / sums.weight).backward()
    assert all(bool(p.grad.isfinite().all()) for _, p in trainable_parameters(model))
