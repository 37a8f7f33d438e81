"""The model card of an export: what it is, what it was trained on, how well it does."""

from __future__ import annotations

import json
from typing import Any

from molmo_tune.recipe.sections import Recipe
from molmo_tune.run_folder import RunFolder


def model_card(recipe: Recipe, run: RunFolder, export_report: dict[str, Any]) -> str:
    """Markdown with the front matter the hub reads; counts only, no paths of the user's machine."""
    report = json.loads(run.report.read_text(encoding="utf-8")) if run.report.is_file() else {}
    train = report.get("train", {})
    adapter = recipe.adapter
    lines = [
        "---",
        f"base_model: {_public(recipe.model.name)}",
        "license: apache-2.0",
        "library_name: transformers",
        "pipeline_tag: image-text-to-text",
        "tags: [molmo2, molmo-tune, lora]",
        "---",
        "",
        f"# {_public(recipe.model.name)}, fine-tuned with molmo-tune",
        "",
        f"LoRA (rank {adapter.rank}, alpha {adapter.alpha:g}) on {', '.join(adapter.targets)}, "
        "merged into the base.",
        "",
        f"- trained on {train.get('samples', '?')} samples with {train.get('questions', '?')} "
        f"questions, {report.get('steps', '?')} optimiser steps at rate {recipe.optim.lr:g}",
        f"- videos: up to {recipe.video.max_frames} frames at {recipe.video.max_fps:g} per second; "
        f"images: up to {recipe.image.max_crops} crops",
        f"- logits of this export differ from the run's by at most "
        f"{export_report['max_logit_diff']:.1e}",
        *_scores(run),
        "",
        "The licence of the training data and of the base model apply beside this one.",
        "",
    ]
    return "\n".join(lines)


def _public(name: str) -> str:
    """A hub id as it is; of a folder only its own name."""
    return name.rstrip("/").rsplit("/", 1)[-1] if name.startswith((".", "/", "~")) else name


def _scores(run: RunFolder) -> list[str]:
    lines = []
    for name in ("before", "after"):
        file = run.evaluation(name)
        if file.is_file():
            summary = json.loads(file.read_text(encoding="utf-8"))["summary"]
            lines.append(
                f"- {name}: F1 {summary['f1']:.3f} "
                f"[{summary['f1_low']:.3f}, {summary['f1_high']:.3f}] "
                f"on {summary['questions']} held-out questions"
            )
    return lines
