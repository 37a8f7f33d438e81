"""One behavior for every way of training: {method × components × quantization × attention}.

Each trains two steps on a text, an image and a clip; only the targets have gradients; what is saved
loads again and gives the same logits; and what can be merged merges to the same logits.
"""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from rich.console import Console

from molmo_tune.encoding.collation import collate
from molmo_tune.encoding.encoded import Batch
from molmo_tune.encoding.sample_encoder import encode_conversation
from molmo_tune.encoding.vision_inputs import NO_VISION, image_inputs, video_inputs
from molmo_tune.errors import UserError
from molmo_tune.export.export import export_run
from molmo_tune.export.files.checkpoint import read_checkpoint
from molmo_tune.export.merge import write_layout
from molmo_tune.export.weight_updates import read_updates
from molmo_tune.model.adapters import (
    Method,
    Part,
    add_adapter,
    bare_model,
    keep_start,
    load_adapter,
    part_of,
    save_adapter,
    trainable_parameters,
)
from molmo_tune.model.attention_backends import BACKENDS, Backend, use_backend
from molmo_tune.model.forward import hidden_states
from molmo_tune.model.gradient_checkpointing import PARTS as PART_NAMES
from molmo_tune.model.gradient_checkpointing import checkpoint_layers
from molmo_tune.model.loading import TINY_FOLDER, load_model, load_processor
from molmo_tune.model.quantization import Quantize
from molmo_tune.recipe.loader import load_recipe
from molmo_tune.run_folder import RunFolder
from molmo_tune.training.gradient_clipping import clip_components
from molmo_tune.training.molmo_module import MolmoModule
from molmo_tune.training.optimizers import (
    OptimSettings,
    build_optimizer,
    parameter_groups,
)
from molmo_tune.training.run import train
from tests.killed_exports import contents
from tests.tiers import slow_except

PARTS: tuple[tuple[Part, ...], ...] = (
    ("language",),
    ("connector",),
    ("language", "connector", "vision"),
)
METHODS: tuple[tuple[Method, Quantize | None], ...] = (
    ("lora", None),
    ("lora", "nf4"),
    ("lora", "int8"),
    ("dora", None),
    ("dora", "nf4"),
    ("pissa", None),
    ("full", None),
)
SETTINGS = OptimSettings(lr=1e-2, max_steps=2, part_lr={}, schedule="constant")


@pytest.fixture(scope="module")
def batch() -> Batch:
    processor = load_processor("tiny")
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (3, 90, 120, 3), np.uint8)
    visions = (
        NO_VISION,
        image_inputs(processor, [frames[0]]),
        video_inputs(processor, frames, [0.0, 0.5, 1.0]),
    )
    messages = ["Point to the koi.", '<points coords="1 1 100 200">koi</points>']
    samples = [encode_conversation(processor, "", messages, vision) for vision in visions]
    return collate(samples, pad_id=0)


def adapted(method: Method, quantize: Quantize | None, targets: tuple[Part, ...]) -> Any:
    torch.manual_seed(0)
    base = load_model("tiny", quantize=quantize)
    return add_adapter(base, method=method, rank=4, alpha=8, dropout=0.0, targets=targets)


def train_two_steps(model: Any, batch: Batch, settings: OptimSettings = SETTINGS) -> None:
    module = MolmoModule(model.train(), settings)
    optimizer = build_optimizer(model, settings)
    for _ in range(2):
        sums = module.sums(batch)
        (sums.total / sums.weight).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


def logits(model: Any, batch: Batch) -> torch.Tensor:
    with torch.no_grad():
        bare = bare_model(model)
        rows: torch.Tensor = bare.lm_head(hidden_states(bare, batch))
    return rows[batch.example_ids >= 0]


@pytest.mark.parametrize("backend", slow_except(BACKENDS, "sdpa"))
@pytest.mark.parametrize("targets", slow_except(PARTS, PARTS[-1]), ids=" ".join)
@pytest.mark.parametrize(("method", "quantize"), METHODS)
def test_trains_only_its_targets_and_loads_again(
    method: Method,
    quantize: Quantize | None,
    targets: tuple[Part, ...],
    backend: Backend,
    batch: Batch,
    tmp_path: Path,
) -> None:
    model = adapted(method, quantize, targets)
    use_backend(bare_model(model), backend)
    assert {part_of(name) for name, _ in trainable_parameters(model)} == set(targets)
    keep_start(model, tmp_path)
    frozen = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    before = logits(model, batch)
    train_two_steps(model, batch)
    after = logits(model, batch)
    assert float((after - before).abs().max()) > 1e-3
    for name, parameter in model.named_parameters():
        assert name not in frozen or torch.equal(parameter, frozen[name])
    save_adapter(model, tmp_path)
    again = load_adapter(load_model("tiny", quantize=quantize), tmp_path)
    use_backend(
        bare_model(again), backend
    )  # int8 rounds activations: 1e-6 can cause a step of 1e-2
    assert float((logits(again, batch) - after).abs().max()) < 2e-4


@pytest.mark.parametrize("method", ["lora", "pissa", "full"])
def test_a_failed_save_leaves_the_old_adapter(
    method: Method, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, folder = adapted(method, None, PARTS[-1]), tmp_path / "adapter"
    keep_start(model, folder)
    save_adapter(model, folder)
    before = contents(folder)

    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for _, parameter in trainable_parameters(model):
        parameter.data += 1
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(UserError, match=r"adapter: .*disk is full"):
            save_adapter(model, folder)
    assert contents(folder) == before
    save_adapter(model, folder)
    assert contents(folder).keys() == before.keys()
    assert contents(folder) != before
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("method", ["lora", "dora", "pissa", "full"])
def test_merged_checkpoint_has_the_same_logits(
    method: Method, batch: Batch, tmp_path: Path
) -> None:
    model = adapted(method, None, PARTS[-1])
    keep_start(model, tmp_path)
    train_two_steps(model, batch, OptimSettings(lr=1e-3, max_steps=2, part_lr={}))
    save_adapter(model, tmp_path)
    out = tmp_path / "merged"
    out.mkdir()
    for file in TINY_FOLDER.iterdir():
        if file.suffix != ".safetensors":
            (out / file.name).write_bytes(file.read_bytes())
    write_layout(read_checkpoint(TINY_FOLDER), read_updates(tmp_path), out, "hub", torch.float32)
    # In float32 the tiny base amplifies rounding on these noisy frames to 5e-4 of logits of 32.
    exact = replace(batch, patches=batch.patches.double())
    ours, merged = logits(model.double(), exact), logits(load_model(str(out)).double(), exact)
    assert float((merged - ours).abs().max() / ours.abs().max()) < 1e-5


@pytest.mark.parametrize(("quantize", "layer"), [("nf4", Linear4bit), ("int8", Linear8bitLt)])
def test_only_the_decoder_is_quantized(quantize: Quantize, layer: type) -> None:
    model = load_model("tiny", quantize=quantize)
    small = {name for name, module in model.named_modules() if isinstance(module, layer)}
    assert len(small) == 28
    assert all(".language_model.layers." in name for name in small)
    if quantize == "nf4":
        state = model.model.language_model.layers[0].mlp.up_proj.weight.quant_state
        assert (state.quant_type, state.nested) == ("nf4", True)


@pytest.mark.slow
def test_qlora_on_the_released_layout_learns_eight_samples(shared: Path, tmp_path: Path) -> None:
    folder = str(shared / "fixtures" / "molmo2-tiny-qwen")
    processor = load_processor(folder)
    asked = [
        ["Point to the koi.", f'<points coords="1 1 {k}00 200">koi</points>'] for k in range(1, 9)
    ]
    batch = collate([encode_conversation(processor, "", a) for a in asked], pad_id=0)
    base = load_model(folder, dtype=torch.float32, quantize="nf4")
    small = [module for module in base.modules() if isinstance(module, Linear4bit)]
    assert small
    assert all(module.compute_dtype == torch.float32 for module in small)
    assert all(module.weight.dtype == torch.uint8 for module in small)
    model = add_adapter(
        base, method="lora", rank=8, alpha=16, dropout=0.0, targets=["language", "connector"]
    )
    module = MolmoModule(model.train(), SETTINGS)
    optimizer = build_optimizer(model, SETTINGS)
    losses = []
    for _ in range(10):
        sums = module.sums(batch)
        losses.append(float((sums.cross_entropy / sums.weight).detach()))
        (sums.total / sums.weight).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < 0.8 * losses[0]  # the fixture's frozen head is random
    save_adapter(model.eval(), tmp_path)
    assert (tmp_path / "adapter_config.json").is_file()
    again = load_adapter(load_model(folder, quantize="nf4"), tmp_path)
    assert float((logits(again, batch) - logits(model, batch)).abs().max()) < 1e-5


def test_an_evaluation_leaves_4_bit_weights_trainable(batch: Batch) -> None:
    """On CPUs with bfloat16 instructions bitsandbytes repacks them, and gradients become wrong."""
    found = []
    for evaluate_first in (False, True):
        model = adapted("lora", "nf4", ("language",))
        if evaluate_first:
            logits(model.eval(), batch)
        module = MolmoModule(model.train(), SETTINGS)
        module.sums(batch).total.backward()
        found.append({n: p.grad for n, p in trainable_parameters(model)})
    assert all(torch.equal(grad, found[1][name]) for name, grad in found[0].items())


def test_lora_plus_gives_b_matrices_their_own_learning_rate() -> None:
    model = adapted("lora", None, ("language", "connector"))
    settings = OptimSettings(
        lr=1e-4,
        max_steps=1,
        part_lr={"connector": 1e-5},
        part_weight_decay={"connector": 0.1},
        lora_plus_ratio=16.0,
    )
    groups = parameter_groups(model, settings)
    found = {(g["name"], round(g["lr"], 9), g["weight_decay"]) for g in groups}
    assert found == {
        ("language", 1e-4, 0.0),
        ("language", 1.6e-3, 0.0),
        ("connector", 1e-5, 0.1),
        ("connector", 1.6e-4, 0.1),
    }


def test_an_8_bit_optimizer_trains(batch: Batch) -> None:
    model = adapted("lora", None, ("language",))
    before = logits(model, batch)
    train_two_steps(
        model, batch, OptimSettings(lr=1e-2, max_steps=2, part_lr={}, name="adamw_8bit")
    )
    assert float((logits(model, batch) - before).abs().max()) > 1e-3


def test_the_paged_optimizer_needs_a_gpu() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    settings = OptimSettings(lr=1e-2, max_steps=2, part_lr={}, name="paged_adamw_8bit")
    with pytest.raises(UserError, match="without a GPU"):
        build_optimizer(adapted("lora", None, ("language",)), settings)


@pytest.mark.parametrize("parts", [("language",), ("vision",), ("language", "vision")])
def test_checkpointing_per_component_changes_no_gradient(
    parts: tuple[str, ...], batch: Batch
) -> None:
    plain, saving = (adapted("lora", None, PARTS[-1]) for _ in range(2))
    checkpoint_layers(bare_model(saving), parts)
    on = {n for n, m in saving.named_modules() if getattr(m, "gradient_checkpointing", False)}
    assert on
    assert all(any(PART_NAMES[part] in name for part in parts) for name in on)
    gradients = []
    for model, offload in ((plain, False), (saving, True)):
        module = MolmoModule(model.train(), SETTINGS, offload_activations=offload)
        with module._activations():
            sums = module.sums(batch)
        (sums.total / sums.weight).backward()
        gradients.append({n: p.grad for n, p in trainable_parameters(model)})
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], atol=1e-7), name


def test_every_component_is_clipped_by_its_own_norm() -> None:
    model = adapted("lora", None, PARTS[-1])
    optimizer = build_optimizer(model, SETTINGS)
    for size, (_, parameter) in enumerate(trainable_parameters(model), start=1):
        parameter.grad = torch.full_like(parameter, float(size))
    clip_components(optimizer, 1.0)
    norms: dict[str, float] = {}
    for name, parameter in trainable_parameters(model):
        norms[part_of(name)] = norms.get(part_of(name), 0.0) + float(parameter.grad.square().sum())
    assert norms == pytest.approx({"language": 1.0, "connector": 1.0, "vision": 1.0}, rel=1e-4)


@pytest.mark.parametrize(
    "overrides",
    [
        ["model.quantize=nf4", "data.packing=true"],
        pytest.param(["model.quantize=int8"], marks=pytest.mark.slow),
        pytest.param(["adapter.method=dora"], marks=pytest.mark.slow),
        pytest.param(["adapter.method=pissa", "optim.lora_plus_ratio=4"], marks=pytest.mark.slow),
        pytest.param(
            ["adapter.method=full", "optim.lr=1e-4", "trainer.gradient_checkpointing=true"],
            marks=pytest.mark.slow,
        ),
    ],
    ids=lambda overrides: " ".join(overrides),
)
def test_a_run_of_every_kind_is_exported(overrides: list[str], pond_recipe: Path) -> None:
    recipe = load_recipe(pond_recipe, ["trainer.max_steps=5", *overrides])
    train(recipe, Console(quiet=True))
    run = RunFolder(recipe.output.dir)
    result = export_run(run, run.root.parent / "export", dtype="float32")
    assert result.tensors.merged
    assert result.verification.max_logit_diff < 1e-4
