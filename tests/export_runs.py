"""Helpers for the export tests: runs with random weights, sharded checkpoints, probe logits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from molmo_tune.atomic_files import write_json
from molmo_tune.encoding.collation import collate
from molmo_tune.export.verification.probes import make_probes
from molmo_tune.model.adapters import add_adapter, bare_model, save_adapter
from molmo_tune.model.fingerprint import base_identity
from molmo_tune.model.forward import hidden_states
from molmo_tune.model.loading import TINY_FOLDER, load_model, load_processor
from molmo_tune.run_folder import RunFolder
from tests.drawn_lora import draw


def make_run(
    folder: Path,
    base: str,
    *,
    method: Any = "lora",
    targets: tuple[Any, ...] = ("language",),
    quantize: Any = None,
    rslora: bool = False,
    trained: bool = True,
) -> RunFolder:
    """Write a run; if `trained`, its adapter changes the weights by a few percent."""
    run = RunFolder(folder)
    folder.mkdir(parents=True)
    options = f", quantize: {quantize}" if quantize else ""
    run.recipe.write_text(
        f"model: {{name: {base}{options}}}\n"
        f"adapter: {{method: {method}, rank: 4, alpha: 8, targets: [{', '.join(targets)}]}}\n"
        "video: {max_frames: 9, max_fps: 1.5}\nimage: {max_crops: 3}\n"
        "data: {train: [{format: jsonl, path: none.jsonl, media: none}]}\n"
        f"output: {{dir: {folder}}}\n",
        encoding="utf-8",
    )
    torch.manual_seed(0)
    model = add_adapter(
        load_model(base, quantize=quantize),
        method=method,
        rank=4,
        alpha=8,
        dropout=0.0,
        targets=targets,
        rslora=rslora,
    )
    save_adapter(draw(model) if trained else model, run.adapter)
    write_json(run.base, base_identity(model, load_processor(base)))
    return run


def probe_logits(
    model: Any, processor: Any, dtype: torch.dtype | None = torch.float64
) -> torch.Tensor:
    """Logits at every eighth token of all probes, by default in float64 for exact comparisons.

    The default float64 avoids rounding differences; None keeps the dtypes of the model.
    """
    model, found = bare_model(model), []
    model = model if dtype is None else model.to(dtype)
    for probe in make_probes(processor).values():
        batch = collate([probe], pad_id=0)
        batch = replace(batch, patches=batch.patches.to(dtype or torch.float32))
        with torch.no_grad():
            found.append(model.lm_head(hidden_states(model, batch)[0, ::8]))
    return torch.cat(found)


def shard(tensors: dict[str, torch.Tensor], folder: Path, count: int = 3) -> int:
    """Write a sharded checkpoint of the tiny model; return the number of shards."""
    folder.mkdir()
    for file in TINY_FOLDER.iterdir():
        if file.suffix != ".safetensors":
            (folder / file.name).write_bytes(file.read_bytes())
    names, weight_map = sorted(tensors), {}
    for number in range(count):
        shard_names = names[number::count]
        file_name = f"model-{number + 1:05d}-of-{count:05d}.safetensors"
        save_file(
            {n: tensors[n] for n in shard_names}, folder / file_name, metadata={"format": "pt"}
        )
        weight_map |= dict.fromkeys(shard_names, file_name)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return count
