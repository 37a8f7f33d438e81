"""Time and memory of a training step, compared with what a user would write today, in one run.

    python -m tests.benchmarks.step --size 4B --steps 8
    python -m tests.benchmarks.step --size 8B --method qlora
    python -m tests.benchmarks.step --size tiny --tokens 2048 --crops 16   (on a CPU)

Models have real shapes and random weights (`molmo_tune.model.released_configs`). Both sides train
on the same random clips: ours packed to `--tokens` and `--crops`, the other in padded batches of as
many clips through the native class and the HF `Trainer` with PEFT: its own vision path, mask and
attention, and logits at every position. Both recompute activations layer by layer (otherwise
neither fits). One of our rows computes only the causal piece of `flash`: a wrong mask, to show the
price of exactness. Tokens exclude padding. Figures go to
``results/step-DATE-SIZE-METHOD-DEVICE.json``.

MFU = 2·(P + P_back)·tokens / (time · peak), with P the decoder weights that each token passes, and
P_back the same for the backward pass through activations (twice that for `full`, which also needs
gradients of the weights). It omits attention and the vision tower, so it is a lower bound. The peak
is measured in the same run, with an 8192³ bfloat16 product.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from molmo_tune.encoding.collation import collate
from molmo_tune.encoding.encoded import IGNORED_ID, EncodedSample
from molmo_tune.encoding.packing import Packer, Size, pack
from molmo_tune.model import attention_backends
from molmo_tune.model.adapters import add_adapter, bare_model, trainable_parameters
from molmo_tune.model.attention_backends import BACKENDS, use_backend
from molmo_tune.model.gradient_checkpointing import checkpoint_layers
from molmo_tune.model.loading import load_model
from molmo_tune.model.quantization import keep_trainable_kernels, num_weights, require_quantized
from molmo_tune.model.released_configs import random_model
from molmo_tune.training.molmo_module import MolmoModule
from molmo_tune.training.optimizers import OptimSettings, build_optimizer

RESULTS = Path(__file__).parent / "results"
BOS, PLAIN_IDS = 5, 500  # ordinary tokens of the smallest vocabulary


@dataclass(frozen=True)
class Figures:
    """One row of the table; memory is None without a GPU."""

    who: str
    seconds_per_step: float
    tokens_per_s: float
    samples_per_s: float
    mfu: float | None
    peak_gb: float | None


@dataclass(frozen=True)
class Frame:
    """A video frame of a model: patches, values per patch, tokens, patches per token."""

    patches: int
    numbers: int
    tokens: int
    pooled: int


def frame_of(model: Any) -> Frame:
    vision = model.config.vision_config
    side = vision.image_size[0] // vision.patch_size
    pool = 3 if side % 3 == 0 and side > 6 else 2
    return Frame(side**2, 3 * vision.patch_size**2, (side // pool) ** 2, pool**2)


def draw_clip(rng: np.random.Generator, model: Any, most_frames: int) -> EncodedSample:
    """A clip with a question and an answer: random pixels and words, real structure."""
    frame, config = frame_of(model), model.config
    num_frames = int(rng.integers(max(1, most_frames // 8), most_frames // 2 + 1))
    ids, is_vision = [BOS], [False]
    for _ in range(num_frames):
        time_ids = rng.integers(10, PLAIN_IDS, 4).tolist()
        ids += [*time_ids, config.frame_start_token_id]
        ids += [config.image_patch_id] * frame.tokens + [config.frame_end_token_id]
        is_vision += [False] * 4 + [True] * (frame.tokens + 2)
    words = rng.integers(10, PLAIN_IDS, 20 + int(rng.integers(30, 200)))
    ids += words.tolist()
    is_vision += [False] * len(words)
    length = len(ids)
    weights = np.zeros(length, np.float32)
    weights[length - len(words) + 19 : -1] = 1.0
    num_tokens = num_frames * frame.tokens
    pooling = np.arange(num_tokens * frame.pooled).reshape(num_tokens, frame.pooled)
    return EncodedSample(
        sample_id="",
        input_ids=np.array(ids),
        target_ids=np.array([*ids[1:], IGNORED_ID]),
        loss_weights=weights,
        position_ids=np.arange(length),
        branch_ids=np.zeros(length, np.int64),
        example_ids=np.zeros(length, np.int64),
        is_vision=np.array(is_vision),
        patches=rng.standard_normal((num_frames, frame.patches, frame.numbers), np.float32),
        pooling=pooling % (num_frames * frame.patches),
    )


def packs_of(clips: Sequence[EncodedSample], limits: Size, count: int) -> list[list[EncodedSample]]:
    """The clips of `count` packs, sampled repeatedly from the clips."""
    sizes = [Size(clip.num_tokens, len(clip.patches)) for clip in clips]
    packer = Packer(lambda place: sizes[place % len(sizes)], limits)
    return [[clips[n % len(clips)] for n in packer.next_pack()] for _ in range(count)]


def ours(model: Any, packs: list[list[EncodedSample]], device: str) -> Callable[[int], int]:
    """One optimizer step on pack n; returns its real tokens."""
    settings = OptimSettings(lr=1e-4, max_steps=100, part_lr={})
    module = MolmoModule(model.train(), settings)
    optimizer = build_optimizer(model, settings)

    def step(number: int) -> int:
        row = pack(packs[number])
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            sums = module.sums(collate([row], pad_id=0).to(device))
        (sums.total / sums.weight).backward()
        optimizer.step()
        optimizer.zero_grad()
        return row.num_tokens

    return step


def stock_batch(clips: Sequence[EncodedSample]) -> dict[str, torch.Tensor]:
    """The native class's inputs for padded rows of clips."""
    batch = collate(list(clips), pad_id=0)
    labels = torch.full_like(batch.input_ids, IGNORED_ID)
    trained = batch.loss_weights[:, :-1] > 0
    labels[:, 1:][trained] = batch.target_ids[:, :-1][trained]
    tokens = [len(clip.pooling) // len(clip.patches) for clip in clips]
    grids = [
        (len(c.patches), round(t**0.5), round(t**0.5)) for c, t in zip(clips, tokens, strict=True)
    ]
    return {
        "input_ids": batch.input_ids,
        "attention_mask": (batch.example_ids >= 0).long(),
        "mm_token_type_ids": batch.is_vision.long(),
        "pixel_values_videos": batch.patches,
        "video_token_pooling": batch.pooling,
        "video_grids": torch.tensor(grids),
        "labels": labels,
    }


@contextmanager
def plain_causal() -> Iterator[None]:
    """The flash backend without exactness, to measure what that costs."""
    exact = attention_backends.pieces
    attention_backends.pieces = lambda *who: exact(*who)[:1]
    try:
        yield
    finally:
        attention_backends.pieces = exact


def quantize_in_place(base: Any, dtype: torch.dtype) -> Any:
    """Quantize the decoder's linear layers to nf4 in place; `load_model` needs files."""
    import bitsandbytes

    for layer in base.model.language_model.layers:
        for name, linear in list(layer.named_modules()):
            if not isinstance(linear, torch.nn.Linear):
                continue
            small = bitsandbytes.nn.Linear4bit(
                linear.in_features, linear.out_features, bias=False, compute_dtype=dtype
            )
            small.weight = bitsandbytes.nn.Params4bit(
                linear.weight.data.cpu(), requires_grad=False, quant_type="nf4"
            )
            layer.set_submodule(name, small.to(linear.weight.device))
    base.is_loaded_in_4bit = True  # PEFT requires it
    require_quantized(base, "nf4", dtype)
    keep_trainable_kernels(base)
    return base


def theirs(model: Any, packs: list[list[EncodedSample]], steps: int, device: str) -> float:
    """Seconds of `steps` steps of the HF Trainer, a padded batch per pack; the first is free."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    times: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            _synchronize(device)
            times.append(time.perf_counter())

    arguments = TrainingArguments(
        output_dir="/tmp/molmo_tune_step_benchmark",
        max_steps=steps + 1,
        per_device_train_batch_size=1,
        learning_rate=1e-4,
        bf16=device == "cuda",
        use_cpu=device == "cpu",
        gradient_checkpointing=True,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    Trainer(
        model=model,
        args=arguments,
        train_dataset=packs[: steps + 1],
        data_collator=lambda rows: stock_batch(rows[0]),
        callbacks=[Clock()],
    ).train()
    return times[-1] - times[0]


def measure_ours(
    model: Any, packs: list[list[EncodedSample]], arguments: argparse.Namespace, who: str
) -> Figures:
    step = ours(model, packs, arguments.device)
    step(0)
    _reset_memory(arguments.device)
    started = time.perf_counter()
    tokens = sum(step(n) for n in range(1, arguments.steps + 1))
    _synchronize(arguments.device)
    seconds = time.perf_counter() - started
    return _figures(who, model, packs, seconds, tokens, arguments)


def measure_theirs(
    model: Any, packs: list[list[EncodedSample]], arguments: argparse.Namespace
) -> Figures:
    _reset_memory(arguments.device)
    seconds = theirs(model, packs, arguments.steps, arguments.device)
    tokens = sum(clip.num_tokens for one in packs[1 : arguments.steps + 1] for clip in one)
    return _figures("HF Trainer + PEFT", model, packs, seconds, tokens, arguments)


def _figures(
    who: str,
    model: Any,
    packs: list[list[EncodedSample]],
    seconds: float,
    tokens: int,
    arguments: argparse.Namespace,
) -> Figures:
    decoder = bare_model(model).model.language_model.layers
    weights = sum(
        num_weights(p) for p in decoder.parameters() if not p.requires_grad or p.dim() > 1
    )
    passes = 3 if arguments.method == "full" else 2
    flops = 2.0 * passes * weights * tokens
    mfu = flops / seconds / arguments.peak if arguments.peak else None
    clips = sum(len(one) for one in packs[1 : arguments.steps + 1])
    peak = torch.cuda.max_memory_allocated() / 1e9 if arguments.device == "cuda" else None
    return Figures(who, seconds / arguments.steps, tokens / seconds, clips / seconds, mfu, peak)


def fresh(arguments: argparse.Namespace) -> Any:
    """The frozen base with its adapters."""
    if arguments.size == "tiny":
        base = load_model("tiny")
    else:
        base = random_model(arguments.size, dtype=torch.bfloat16, device=arguments.device)
    method = arguments.method
    if method == "qlora":
        base, method = quantize_in_place(base, base.dtype), "lora"
    model = add_adapter(base, method=method, rank=32, alpha=64, dropout=0.0, targets=["language"])
    checkpoint_layers(base, ("language", "vision"))
    assert trainable_parameters(model)
    return model.to(arguments.device)


def matmul_peak(device: str) -> float | None:
    """Measured operations per second of a large bfloat16 product; None on a CPU."""
    if device == "cpu":
        return None
    a = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16)
    for _ in range(3):
        a @ a
    _synchronize(device)
    started = time.perf_counter()
    for _ in range(20):
        a @ a
    _synchronize(device)
    return 20 * 2 * 8192**3 / (time.perf_counter() - started)


def _synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _reset_memory(device: str) -> None:
    _synchronize(device)
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=["tiny", "4B", "8B", "O-7B"], default="tiny")
    parser.add_argument("--method", choices=["lora", "qlora", "dora", "full"], default="lora")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=list(BACKENDS))
    parser.add_argument("--tokens", type=int, default=16384)
    parser.add_argument("--crops", type=int, default=128)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--no-baseline", action="store_true")
    arguments = parser.parse_args()
    arguments.device = "cuda" if torch.cuda.is_available() else "cpu"
    arguments.peak = matmul_peak(arguments.device)
    model = fresh(arguments)
    rng = np.random.default_rng(7)
    base = bare_model(model)
    clips = [draw_clip(rng, base, arguments.crops) for _ in range(96)]
    packs = packs_of(clips, Size(arguments.tokens, arguments.crops), arguments.steps + 1)
    rows = []
    for backend in arguments.backends:
        use_backend(base, backend)
        rows.append(measure_ours(model, packs, arguments, f"ours, {backend}"))
        _show(rows[-1])
    if "flash" in arguments.backends:
        use_backend(base, "flash")
        with plain_causal():
            rows.append(measure_ours(model, packs, arguments, "ours, causal alone"))
        _show(rows[-1])
    if not arguments.no_baseline:
        del model, base
        model = fresh(arguments)
        rows.append(measure_theirs(model, packs, arguments))
        _show(rows[-1])
    _write(rows, arguments)


def _show(row: Figures) -> None:
    mfu = f"{row.mfu:.1%} MFU  " if row.mfu else ""
    peak = f"{row.peak_gb:.1f} GB" if row.peak_gb else ""
    print(
        f"{row.who:<20}{row.seconds_per_step:8.2f} s/step {row.tokens_per_s:10.0f} tokens/s "
        f"{row.samples_per_s:8.2f} clips/s  {mfu}{peak}",
        flush=True,
    )


def _write(rows: list[Figures], arguments: argparse.Namespace) -> None:
    on_gpu = arguments.device == "cuda"
    machine = torch.cuda.get_device_name() if on_gpu else platform.processor() or "CPU"
    date = datetime.now(UTC).strftime("%Y-%m-%d")
    report = {
        "date": date,
        "machine": machine,
        "torch": torch.__version__,
        "arguments": {k: v for k, v in vars(arguments).items() if k != "peak"},
        "matmul_peak_tflops": arguments.peak and arguments.peak / 1e12,
        "rows": [asdict(row) for row in rows],
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"step-{date}-{arguments.size}-{arguments.method}-{arguments.device}.json"
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(path)


if __name__ == "__main__":
    main()
