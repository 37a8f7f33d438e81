"""Runs for the tests of exports: a recipe and an adapter of drawn weights, nothing trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from molmo_tune.model.adapters import add_adapter, save_adapter
from molmo_tune.model.loading import load_model
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
    """A run folder; `trained` gives the adapter an effect of a few per cent of the weights."""
    run = RunFolder(folder)
    folder.mkdir(parents=True)
    options = f", quantize: {quantize}" if quantize else ""
    run.recipe.write_text(
        f"model: {{name: {base}{options}}}\n"
        f"adapter: {{method: {method}, rank: 4, alpha: 8, targets: [{', '.join(targets)}]}}\n"
        "data: {train: [{labels: jsonl, path: none.jsonl, media: none}]}\n"
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
    return run
