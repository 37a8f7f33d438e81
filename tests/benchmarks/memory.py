"""Peak memory of two stages that grow in stock code: ``python -m tests.benchmarks.memory``.

Each case runs in its own process; its figure is the rise of peak resident memory over the memory
with the inputs ready (Linux: ``/proc/self/clear_refs``). Each is compared with the stock code:
transformers' vision path, which keeps every layer of every frame, and an LM head over all positions
(at shorter lengths: with 16,384 tokens it was killed on a machine with 24 GB). Models are narrow
and random: look at the growth, not the height. Figures go to ``results/memory.json``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results" / "memory.json"
FRAMES, LENGTHS, STOCK_LENGTHS = (32, 128, 256), (4096, 16384), (1024, 4096)
SUPERVISED, WIDTH, VOCABULARY = 256, 256, 151936


def vision(way: str, num_frames: int) -> float:
    """Peak megabytes of encoding frames of 27×27 patches without gradients."""
    from transformers import Molmo2Config, Molmo2ForConditionalGeneration

    from molmo_tune.model.released_configs import released_config
    from molmo_tune.model.vision_encoding import encode_vision

    config: Molmo2Config = released_config("4B")
    narrow = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4}
    config.vision_config.update(
        {**narrow, "num_key_value_heads": 4, "head_dim": 32, "num_hidden_layers": 8}
    )
    config.adapter_config.update(
        {**narrow, "num_key_value_heads": 4, "head_dim": 32, "text_hidden_size": WIDTH}
    )
    config.adapter_config.update({"vision_feature_layer": [-3, -6], "vit_hidden_size": 128})
    config.text_config.update({"hidden_size": WIDTH, "num_hidden_layers": 1, "vocab_size": 1000})
    model = Molmo2ForConditionalGeneration(config).requires_grad_(False).model
    patches = torch.randn(num_frames, 729, 588)
    pooling = torch.arange(num_frames * 729).reshape(-1, 9)
    grids = torch.tensor([[num_frames, 9, 9]])
    before = _resident_mb()
    with torch.no_grad():
        if way == "ours":
            encode_vision(model, patches, pooling)
        else:
            model.get_video_features(patches, pooling, grids)
    return _peak_mb() - before


def head(way: str, length: int) -> float:
    """Peak megabytes of loss and gradient, with as many supervised positions at any length."""
    from molmo_tune.model.loss import loss_sums

    hidden = torch.randn(1, length, WIDTH, requires_grad=True)
    weight = torch.randn(VOCABULARY, WIDTH)
    targets = torch.randint(0, VOCABULARY, (1, length))
    weights = torch.zeros(1, length)
    weights[:, -SUPERVISED:] = 1.0
    before = _resident_mb()
    if way == "ours":
        sums = loss_sums(hidden, weight, targets, weights, z_loss=1e-4)
        sums.total.backward()
    else:
        logits = torch.nn.functional.linear(hidden, weight)
        loss = torch.nn.functional.cross_entropy(logits[0], targets[0], reduction="none")
        (loss * weights[0]).sum().backward()
    return _peak_mb() - before


def _resident_mb() -> float:
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak_mb() -> float:
    return _status("VmHWM")


def _status(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith(key)).split()[1]) / 1000


def _measured(stage: str, way: str, size: int) -> float:
    command = [sys.executable, "-m", "tests.benchmarks.memory", stage, way, str(size)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    if len(sys.argv) > 1:
        stage, way, size = sys.argv[1:]
        print((vision if stage == "vision" else head)(way, int(size)))
        return
    found: dict[str, dict[str, float]] = {}
    for stage, way, unit, sizes in (
        ("vision", "ours", "frames", FRAMES),
        ("vision", "stock", "frames", FRAMES),
        ("head", "ours", "tokens", LENGTHS),
        ("head", "stock", "tokens", STOCK_LENGTHS),
    ):
        row = {f"{size} {unit}": round(_measured(stage, way, size)) for size in sizes}
        found[f"{stage}, {way}"] = row
        print(f"{stage:<8}{way:<8}", "  ".join(f"{k}: {v} MB" for k, v in row.items()), flush=True)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
