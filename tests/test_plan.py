"""On a CPU a forecast equals a real step, byte for byte.

Each setting is forecast on fake tensors and computed on real ones, under the same memory tracker,
whose peak is also compared with PyTorch's profiler. GPU behavior is tested rule by rule;
`tests/gpu/test_plan.py` compares forecasts with a GPU.
"""

from __future__ import annotations

import gc
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.profiler import profile

from molmo_tune.cli import main
from molmo_tune.encoding.datasets import TrainingSet
from molmo_tune.encoding.encoded import Batch
from molmo_tune.encoding.sources import limits_of, read_items
from molmo_tune.model.adapters import trainable_parameters
from molmo_tune.model.loading import TINY_FOLDER, load_processor
from molmo_tune.model.meta_model import config_without_weights, model_without_weights
from molmo_tune.model.quantization import quantized_layers, scales_of
from molmo_tune.planning.adjustments import adjustments
from molmo_tune.planning.concrete_tensors import ConcreteTensors
from molmo_tune.planning.forecast import definite, forecast, precision_plugin
from molmo_tune.planning.gpu_emulation import emulate_gpu, update_at_once
from molmo_tune.planning.gpus import CONTEXT_BYTES, fits, needed_bytes
from molmo_tune.planning.memory_tracker import BLOCK_BYTES, MemoryTracker
from molmo_tune.planning.rows import Row
from molmo_tune.planning.step import GRADIENTS, OPTIMIZER, TRAINED, StepCost, TrackedStep
from molmo_tune.planning.workload import ALLOWED, LARGEST, TYPICAL, count_rows
from molmo_tune.planning.workspace import workspace_bytes
from molmo_tune.recipe.loader import load_recipe
from molmo_tune.recipe.sections import Recipe
from molmo_tune.training.molmo_module import MolmoModule
from molmo_tune.training.optimizers import build_optimizer, optim_settings
from molmo_tune.training.prepare_model import build_model
from tests.tiers import slow_except

SAME = 1e-3
"""Largest relative difference of forecast and real peak; the tested versions show none."""
PROFILED = 1e-2
"""The same for tracker and profiler, which does not round storages up to blocks."""

SETTINGS: dict[str, tuple[str, ...]] = {
    "lora": (),
    "lora, checkpointed": ("trainer.gradient_checkpointing=true",),
    "qlora": ("model.quantize=nf4",),
    "qlora, checkpointed, bf16-mixed": (
        "model.quantize=nf4",
        "model.dtype=bfloat16",
        "trainer.gradient_checkpointing=true",
    ),
    "full": ("adapter.method=full",),
    "full, all parts": ("adapter.method=full", "adapter.targets=[language,connector,vision]"),
    "int8": ("model.quantize=int8",),
    "dora": ("adapter.method=dora",),
    "all parts": ("adapter.targets=[language,connector,vision]",),
    "bf16-true": ("trainer.precision=bf16-true",),
    "flash": ("model.attention=flash",),
    "8-bit optimizer": ("optim.name=adamw_8bit", "adapter.rank=32"),
    "one batch a step": ("trainer.accumulate_grad_batches=1",),
    "packing": ("data.packing=true", "data.max_crops_per_pack=12"),
}
PROFILED_SETTINGS = ("lora", "lora, checkpointed", "qlora", "full", "all parts", "flash")


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe for the tiny base, without data: rows of 400 tokens with 8 frames."""
    path = tmp_path_factory.mktemp("plan") / "recipe.yaml"
    path.write_text(
        """\
model: {name: tiny}
adapter: {rank: 4, alpha: 8, dropout: 0.1, targets: [language]}
data:
  train: [{format: cvat_video, path: not/there}]
  max_tokens: 400
video: {max_frames: 8}
output: {dir: runs/never}
""",
        encoding="utf-8",
    )
    return path


@pytest.fixture
def planned(recipe_file: Path) -> Callable[..., Recipe]:
    """The recipe with settings."""
    return lambda *settings: load_recipe(recipe_file, settings)


def largest_row(recipe: Recipe) -> Row:
    return count_rows(recipe, config_without_weights(recipe.model.name)).rows[0]


def real_module(recipe: Recipe) -> MolmoModule:
    torch.manual_seed(0)
    model = precision_plugin(recipe).convert_module(build_model(recipe))
    return MolmoModule(model, optim_settings(recipe), z_loss=recipe.loss.z_loss)


def real_batch(recipe: Recipe, module: MolmoModule) -> Batch:
    row, config = largest_row(recipe), module.bare_model.config
    return row.batch(config, 1, torch.zeros(row.patches_shape(config, 1)))


def tracked(recipe: Recipe) -> tuple[StepCost, MolmoModule, TrackedStep]:
    """Cost of a real step, its module and the step."""
    recipe = definite(recipe, "cpu")
    module = real_module(recipe)
    batch = real_batch(recipe, module)
    gc.collect()
    with MemoryTracker() as tracker:
        step = TrackedStep(
            module, tracker, precision_plugin(recipe), recipe.trainer.gradient_clip_val
        )
        step.prepare()
        return step.run(batch, recipe.trainer.accumulate_grad_batches), module, step


@pytest.mark.parametrize("name", slow_except(SETTINGS, "lora", "qlora", "full"))
def test_forecast_equals_a_real_step(name: str, planned: Callable[..., Recipe]) -> None:
    recipe = planned(*SETTINGS[name])
    found = forecast(recipe, device="cpu", only_largest=True).costs[0]
    real, _, _ = tracked(recipe)
    assert found.resting_bytes == real.resting_bytes
    assert found.peak_bytes == pytest.approx(real.peak_bytes, rel=SAME)
    assert found.num_flops == real.num_flops
    assert found.num_flops > 10**8


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["molmo2-tiny-qwen", "molmo2-tiny-olmo"])
def test_forecast_equals_a_real_step_in_released_layouts(
    layout: str, shared: Path, planned: Callable[..., Recipe]
) -> None:
    """Other norms and position scaling, and a vocabulary whose logits dominate."""
    name = f"model.name={shared / 'fixtures' / layout}"
    recipe = planned(name, "data.max_tokens=250", "video.max_frames=2")
    found = forecast(recipe, device="cpu", only_largest=True).costs[0]
    assert found == tracked(recipe)[0]


@pytest.mark.parametrize(
    "name", slow_except(["lora", "qlora", "full", "int8", "8-bit optimizer"], "lora")
)
def test_weights_gradients_and_states_match_the_tensors(
    name: str, planned: Callable[..., Recipe]
) -> None:
    """Counted from the tensors of a real model after a real step, without a tracker."""
    recipe = definite(planned(*SETTINGS[name]), "cpu")
    found = forecast(recipe, device="cpu", only_largest=True).costs[0]
    resting = found.resting_bytes
    module = real_module(recipe)
    optimizer = build_optimizer(module.model, module.optim_settings)
    module.training_step(real_batch(recipe, module), 0).backward()
    optimizer.step()
    trained = [parameter for _, parameter in trainable_parameters(module.model)]
    frozen = [p for p in module.model.parameters() if not p.requires_grad]
    frozen += [
        scale for _, layer in quantized_layers(module.model) for *_, scale in scales_of(layer)
    ]
    states = [
        value
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    ]
    assert resting[TRAINED] == in_blocks(trained)
    assert found.at_peak[GRADIENTS] == in_blocks([p.grad for p in trained if p.grad is not None])
    assert resting[OPTIMIZER] == in_blocks(states)
    assert sum(v for k, v in resting.items() if ", frozen, " in k) == in_blocks(frozen)


def in_blocks(tensors: list[torch.Tensor]) -> int:
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(-(-num_bytes // BLOCK_BYTES) * BLOCK_BYTES for num_bytes in storages.values())


@pytest.mark.parametrize("name", slow_except(PROFILED_SETTINGS, "full"))
def test_peak_matches_the_profiler(name: str, planned: Callable[..., Recipe]) -> None:
    """PyTorch's own record of allocations in two batches and an optimizer step, without modes."""
    recipe = definite(planned(*SETTINGS[name], "trainer.accumulate_grad_batches=2"), "cpu")
    found = forecast(recipe, device="cpu", only_largest=True).costs[0]
    module = real_module(recipe)
    batch, precision = real_batch(recipe, module), precision_plugin(recipe)
    optimizer = build_optimizer(module.model, module.optim_settings)

    def step() -> None:
        for number in range(2):
            with precision.forward_context():
                loss = module.training_step(batch, number)
            loss.backward()
            del loss
        optimizer.step()
        optimizer.zero_grad()

    step()  # the optimizer creates its states
    gc.collect()
    with profile(profile_memory=True) as record:
        step()
    resident = sum(found.resting_bytes.values()) + in_blocks(list(batch.tensors().values()))
    assert found.peak_bytes - resident == pytest.approx(highest(record), rel=PROFILED)


def highest(record: Any, least: int = 100) -> int:
    """Highest sum of allocated minus freed bytes."""
    events = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
    assert len(events) > least
    total = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        total += event.nbytes()
        peak = max(peak, total)
    return peak


def test_workspace_of_logsumexp_is_tracked() -> None:
    """A second table of all logits, which only the profiler sees."""
    logits = torch.randn(64, 50_000)
    with MemoryTracker() as tracker:
        tracker.assign("inputs", [logits])
        before = tracker.live.total()
        logits.logsumexp(-1)
    with profile(profile_memory=True) as record:
        logits.logsumexp(-1)
    assert tracker.peak_bytes - before == pytest.approx(highest(record, least=3), rel=PROFILED)


@pytest.mark.slow
def test_quantized_layers_have_the_same_flops(planned: Callable[..., Recipe]) -> None:
    small = [planned(*SETTINGS[name]) for name in ("lora", "qlora", "int8")]
    costs = [forecast(recipe, device="cpu", only_largest=True).costs[0] for recipe in small]
    assert len({cost.num_flops for cost in costs}) == 1


def test_workspace_of_4_bit_layers_is_their_unpacked_weights() -> None:
    import bitsandbytes  # noqa: F401  (defines the operator)

    product = torch.ops.bitsandbytes.gemm_4bit.default
    hidden, packed = torch.empty(5, 64).bfloat16(), torch.empty(32 * 64 // 2, 1, dtype=torch.uint8)
    assert workspace_bytes(product, (hidden, packed, [32, 64])) == 32 * 64 * 2


def test_workspace_of_flash_backward_is_float32() -> None:
    """By hand: 100 tokens, 8 heads of 72 (rounded to 96) over 2 of keys; 4 bytes, then 2 x 2."""
    q, k = torch.empty(100, 8, 72, dtype=torch.bfloat16), torch.empty(100, 2, 72).bfloat16()
    backward = torch.ops.aten._flash_attention_backward.default
    assert workspace_bytes(backward, (q, q, k, k)) == 100 * 8 * (96 * 4 + 72 * 2 * 2)
    assert workspace_bytes(backward, (q, q, q, q)) == 100 * 8 * 96 * 4


def test_a_second_row_on_the_same_model_starts_afresh(planned: Callable[..., Recipe]) -> None:
    recipe = definite(planned(), "cpu")
    first, module, step = tracked(recipe)
    with step._tracker:
        again = step.run(real_batch(recipe, module), recipe.trainer.accumulate_grad_batches)
    assert again == first


def peak(recipe: Recipe) -> int:
    return forecast(recipe, only_largest=True).peak_bytes


@pytest.mark.slow
def test_settings_move_the_peak_as_expected(planned: Callable[..., Recipe]) -> None:
    least = peak(planned())
    assert peak(planned("trainer.gradient_checkpointing=true")) < 0.6 * least
    assert peak(planned("trainer.offload_activations=true")) < 0.6 * least
    assert peak(planned("data.max_tokens=800")) > 1.5 * least
    assert peak(planned("trainer.batch_size=2")) > 1.5 * least
    assert peak(planned("model.attention=sdpa")) > least
    assert peak(planned("model.dtype=float32")) > 1.2 * least
    assert peak(planned("adapter.rank=64")) > 1.1 * least


@pytest.mark.slow
def test_more_frames_need_more_memory(planned: Callable[..., Recipe]) -> None:
    vision = ("adapter.targets=[vision]", "data.max_tokens=300")
    frames = [peak(planned(*vision, f"video.max_frames={n}")) for n in (4, 8, 16)]
    assert frames == sorted(set(frames))


@pytest.mark.slow
def test_several_devices_keep_gradients_twice(planned: Callable[..., Recipe]) -> None:
    one, two = (forecast(planned(f"trainer.devices={n}"), only_largest=True) for n in (1, 2))
    assert two.peak_bytes - one.peak_bytes == one.costs[0].resting_bytes[TRAINED]
    assert any("arithmetic" in remark for remark in two.remarks)


# GPU behavior


def fake_peak(compute: Callable[[], Any], *, offload: bool = False) -> int:
    """Peak bytes of a computation with GPU behavior."""
    fake_mode = FakeTensorMode()
    on_gpu = emulate_gpu(offload=offload)
    with fake_mode, ConcreteTensors(fake_mode), on_gpu, MemoryTracker() as tracker:
        compute()
        return tracker.peak_bytes


LENGTH, HEADS, WIDTH = 2048, 4, 64


def attended(mask: torch.Tensor | None = None) -> torch.Tensor:
    shape = (1, HEADS, LENGTH, WIDTH)
    q, k, v = (torch.empty(shape, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    F.scaled_dot_product_attention(q, k, v, attn_mask=mask).sum().backward()
    assert q.grad is not None
    return q.grad


def test_attention_stores_no_table_of_scores() -> None:
    table = HEADS * LENGTH**2 * 2
    plain = fake_peak(attended)
    assert plain < table / 3
    masked = fake_peak(lambda: attended(torch.ones(LENGTH, LENGTH, dtype=torch.bool)))
    as_numbers = 2 * LENGTH**2  # for all heads together
    assert plain + as_numbers < masked < plain + 2 * as_numbers


def test_dropout_saves_a_byte_per_element() -> None:
    size = 2**20
    kept = []

    def dropped() -> None:
        x = torch.empty(size, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(keep, keep):
            F.dropout(x, 0.5)

    def keep(saved: torch.Tensor) -> torch.Tensor:
        kept.append(saved.untyped_storage().nbytes())
        return saved

    fake_peak(dropped)
    assert kept == [size]


def test_norms_are_float32_under_autocast() -> None:
    with emulate_gpu(offload=False), torch.autocast("cpu", torch.bfloat16):
        x = torch.ones(2, 8, dtype=torch.bfloat16)
        assert F.layer_norm(x, (8,)).dtype == torch.float32
        assert torch.linalg.norm(x, dim=1).dtype == torch.float32
    assert F.layer_norm(x, (8,)).dtype == torch.bfloat16


def test_emulation_restores_the_library() -> None:
    def found() -> tuple[Any, ...]:
        return F.dropout, F.layer_norm, F.scaled_dot_product_attention, torch.linalg.norm

    def fail_inside() -> None:
        with emulate_gpu(offload=False):
            inside.extend(found())
            raise ZeroDivisionError

    before, inside = found(), []
    with pytest.raises(ZeroDivisionError):
        fail_inside()
    assert not set(before) & set(inside)
    assert found() == before


def test_offloading_removes_saved_activations() -> None:
    def chain() -> None:
        x = torch.empty(2**20, requires_grad=True)
        for _ in range(10):
            x = x.sin()
        x.sum().backward()

    kept, away = fake_peak(chain), fake_peak(chain, offload=True)
    assert kept > 10 * 2**22
    assert away < 7 * 2**22


def test_adamw_updates_all_weights_at_once(planned: Callable[..., Recipe]) -> None:
    parameters = [torch.nn.Parameter(torch.zeros(1000)) for _ in range(50)]
    peaks = []
    for at_once in (False, True):
        optimizer = torch.optim.AdamW(parameters, foreach=False)
        if at_once:
            update_at_once(optimizer)
        with MemoryTracker() as tracker:
            for _ in range(2):
                tracker.reset_peak()
                before = tracker.live.total()
                for parameter in parameters:
                    parameter.grad = torch.zeros_like(parameter)
                optimizer.step()
                optimizer.zero_grad()
            peaks.append(tracker.peak_bytes - before)
    assert peaks[1] > peaks[0] + 30 * 4000


# Batch rows


def test_rows_without_data_follow_the_limits(planned: Callable[..., Recipe]) -> None:
    recipe = planned()
    workload = count_rows(recipe, config_without_weights("tiny"))
    assert [row.name for row in workload.rows] == [ALLOWED, TYPICAL]
    assert workload.rows[0].num_tokens == recipe.data.max_tokens
    assert workload.rows[0].num_crops == recipe.video.max_frames
    assert "not/there" in workload.source


@pytest.mark.parametrize(("most_crops", "clips"), [(12, [8, 4]), (128, [8, 8, 7])])
def test_packs_reach_one_of_both_limits(
    most_crops: int, clips: list[int], planned: Callable[..., Recipe]
) -> None:
    """A frame of the tiny base is 9 patches, 2 marks and 6 for its time: 23 fit in 400 tokens."""
    recipe = planned("data.packing=true", f"data.max_crops_per_pack={most_crops}")
    row = count_rows(recipe, config_without_weights("tiny")).rows[0]
    assert [sample.num_crops for sample in row.samples] == clips
    assert recipe.data.max_tokens - len(clips) < row.num_tokens <= recipe.data.max_tokens


def test_images_count_by_crops(planned: Callable[..., Recipe]) -> None:
    recipe = planned("data.train.0.template=image_pointing", "image.max_crops=3")
    row = count_rows(recipe, config_without_weights("tiny")).rows[0]
    assert row.num_crops == 4
    assert row.samples[0].reaches


def test_rows_with_data_match_training(pond_recipe: Path) -> None:
    recipe = load_recipe(pond_recipe, ())
    processor = load_processor("tiny")
    items, _ = read_items(recipe.data.train, recipe, processor)
    workload = count_rows(recipe, config_without_weights("tiny"))
    assert [row.name for row in workload.rows] == [LARGEST, ALLOWED, TYPICAL]
    longest = max(items, key=lambda item: (item.num_tokens, item.num_crops))
    encoded = TrainingSet([longest], processor, limits_of(recipe))[0]
    batch = workload.rows[0].batch(config_without_weights("tiny"), 1, torch.zeros(0))
    assert batch.input_ids.shape == (1, encoded.num_tokens)
    assert batch.pooling.shape == encoded.pooling.shape
    assert (
        workload.rows[0].patches_shape(config_without_weights("tiny"), 1) == encoded.patches.shape
    )
    assert torch.equal(batch.loss_weights[0] > 0, torch.from_numpy(encoded.loss_weights > 0))
    assert torch.equal(batch.branch_ids[0], torch.from_numpy(encoded.branch_ids))
    assert workload.rows_per_epoch == len(items)


# Adjustments and GPUs


def test_adjustments_stop_when_it_fits_and_skip_what_does_not_help(
    planned: Callable[..., Recipe],
) -> None:
    """Peaks by setting, in gigabytes, instead of forecasts; 24 GB leave 21.2 after the margin."""
    costs = {"trainer.gradient_checkpointing=true": 40, "optim.name=adamw_8bit": 39.95}
    costs |= {"model.quantize=nf4": 30, "trainer.offload_activations=true": 21}
    costs |= {"adapter.rank=16": 10}  # would help, but is not needed any more

    def peak_of(recipe: Recipe) -> int:
        return round(1e9 * min(costs.get(setting, 60) for setting in asked))

    asked: list[str] = []

    def change(settings: tuple[str, ...]) -> Recipe:
        asked[:] = settings
        return planned("adapter.rank=32", *settings)

    found = list(
        adjustments(planned("adapter.rank=32"), 60 * 10**9, 24, change=change, peak_of=peak_of)
    )
    assert [one.settings[0] for one in found] == [
        "trainer.gradient_checkpointing=true",
        "model.quantize=nf4",
        "trainer.offload_activations=true",
    ]
    assert fits(found[-1].peak_bytes, 24)
    assert not fits(found[-2].peak_bytes, 24)


def test_conflicting_settings_are_not_adjustments(planned: Callable[..., Recipe]) -> None:
    """Full weights cannot be quantized: that is refused, and tried again after LoRA."""
    full = planned("adapter.method=full")
    tried: list[tuple[str, ...]] = []

    def change(settings: tuple[str, ...]) -> Recipe:
        tried.append(settings)
        return planned("adapter.method=full", *settings)

    falling = iter(range(10**12, 0, -(10**10)))
    found = adjustments(full, 2 * 10**12, 24, change=change, peak_of=lambda _: next(falling))
    names = [setting for one in found for setting in one.settings]
    quantized = [settings for settings in tried if settings[-1] == "model.quantize=nf4"]
    assert ["adapter.method=lora" in settings for settings in quantized] == [False, True]
    assert names.index("adapter.method=lora") < names.index("model.quantize=nf4")


def test_margin() -> None:
    assert needed_bytes(0) == CONTEXT_BYTES
    assert fits(212 * 10**8, 24)
    assert not fits(213 * 10**8, 24)


# The command


def test_command_prints_tables_and_writes_json(
    recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "plan.json"
    assert main(["plan", str(recipe_file), "--memory", "24", "--json", str(out)]) == 0
    printed = capsys.readouterr().out
    for words in ("with the margin", "RTX 4090", "assumptions", "Compared with one H200"):
        assert words in printed
    figures = json.loads(out.read_text(encoding="utf-8"))
    assert figures["fits"] is True
    assert figures["rows"][0]["peak_bytes"] == sum(figures["rows"][0]["at_peak_bytes"].values())
    assert figures["num_step_flops"] > 0


@pytest.mark.slow
def test_a_recipe_that_does_not_fit_gets_settings_and_exit_code_1(
    recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "plan.json"
    long = ["--set", "data.max_tokens=4000", "--set", "model.dtype=float32"]
    needed = ["plan", str(recipe_file), *long, "--json", str(out), "--memory"]
    assert main([*needed, "1.1"]) == 1
    printed = capsys.readouterr()
    assert "--set trainer.gradient_checkpointing=true" in printed.out
    assert "needs 1." in printed.err
    figures = json.loads(out.read_text(encoding="utf-8"))
    assert figures["fits"] is False
    remedy = figures["remedies"][0]
    alone = load_recipe(recipe_file, [*long[1::2], *remedy["set"]])
    assert remedy["peak_bytes"] == peak(alone)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (("adapter.rnak=3",), "rank"),
        (("model.name=./no/folder",), "not a folder"),
        (("trainer.strategy=fsdp",), "fsdp"),
        (("preference.from_run=runs/x", "adapter.dropout=0"), "pairs of answers"),
        (("adapter.method=dora", "model.quantize=nf4"), "dora"),
        (("data.train.0.template=nowhere",), "nowhere"),
    ],
)
def test_mistakes_are_one_line(
    settings: tuple[str, ...],
    words: str,
    recipe_file: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = [part for setting in settings for part in ("--set", setting)]
    assert main(["plan", str(recipe_file), *options]) == 1
    assert words in capsys.readouterr().err


@pytest.mark.slow
def test_an_unwritable_json_file_is_one_line(
    recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", str(recipe_file), "--json", str(tmp_path / "no" / "plan.json")]) == 1
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("memory", ["0", "-1", "much", "inf"])
def test_memory_must_be_a_number_of_gigabytes(memory: str, recipe_file: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["plan", str(recipe_file), "--memory", memory])
    assert ended.value.code == 2


@pytest.mark.slow
def test_a_config_file_is_enough(recipe_file: Path, tmp_path: Path) -> None:
    shutil.copy(TINY_FOLDER / "config.json", tmp_path)
    whole = forecast(load_recipe(recipe_file, ()), only_largest=True).costs[0]
    bare = load_recipe(recipe_file, [f"model.name={tmp_path}"])
    assert forecast(bare, only_largest=True).costs[0].resting_bytes == whole.resting_bytes


def test_released_models_have_the_documented_size() -> None:
    model = model_without_weights(config_without_weights("allenai/Molmo2-4B"), dtype=torch.bfloat16)
    assert sum(p.numel() for p in model.parameters()) == 4_850_869_200


def test_bitsandbytes_works_after_a_forecast(planned: Callable[..., Recipe]) -> None:
    """The process shares its table of 8-bit numbers, which must not stay on `meta`."""
    recipe = planned("model.quantize=nf4")
    model_without_weights(config_without_weights("tiny"), dtype=torch.float32, quantize="nf4")
    assert real_module(definite(recipe, "cpu")).bare_model is not None


@pytest.mark.slow
def test_planning_a_large_model_takes_little_memory(recipe_file: Path) -> None:
    settings = ["model.name=allenai/Molmo2-8B", "data.max_tokens=16384", "video.max_frames=128"]
    options = [part for setting in settings for part in ("--set", setting)]
    code = (
        "import os, sys; from molmo_tune.cli import main; code = main(sys.argv[1:]);"
        "status = open('/proc/self/status').read();"  # getrusage would give the parent's peak
        "print(code, sum(os.times()[:2]), status.split('VmHWM:')[1].split()[0])"
    )
    command = [sys.executable, "-c", code, "plan", str(recipe_file), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    exit_code, seconds, kilobytes = map(float, done.stdout.splitlines()[-1].split())
    assert exit_code == 0
    assert seconds < 60
    assert kilobytes < 3e6
