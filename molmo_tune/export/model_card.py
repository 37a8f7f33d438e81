"""The model card of an export: what it is, how it was made, how well it does, how to use it.

Numbers come from the run's own files; what they do not hold is not in the card. Counts only: no
path, no file name and no label of the user's is written, because a card is published.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from molmo_tune.recipe.sections import Recipe
from molmo_tune.run_folder import RunFolder

_USE = {
    "adapter": """\
from peft import PeftModel
from transformers import AutoModelForImageTextToText

base = AutoModelForImageTextToText.from_pretrained("{base}", dtype="auto")
model = PeftModel.from_pretrained(base, "PATH")""",
    "vllm-adapter": """\
# Beside the unchanged base, in vLLM's own environment:
#   vllm serve {base} --trust-remote-code --enable-lora --lora-modules mine=PATH \\
#       --max-lora-rank {rank}{overrides}
# The processor is the base's: set its caps on frames and crops as under "Training".""",
    "ai2": """\
# model.pt is the state of Ai2's trainer; put the config.yaml of the base's own state beside it.""",
}
_ADAPTERS = ("adapter", "vllm-adapter")
_USE_WHOLE = """\
from transformers import AutoModelForImageTextToText, AutoProcessor

model = AutoModelForImageTextToText.from_pretrained("PATH", dtype="auto")  # transformers >= 5.20
processor = AutoProcessor.from_pretrained("PATH")"""
_SERVE = """

# In vLLM's own environment:
#   vllm serve PATH --trust-remote-code"""
_METHODS = {
    "lora": "LoRA",
    "dora": "DoRA",
    "pissa": "PiSSA",
    "full": "all weights of the parts below",
}


def model_card(recipe: Recipe, run: RunFolder, export: dict[str, Any], base: Path) -> str:
    """Markdown with the front matter the hub reads.

    Args:
        recipe: of the run.
        run: its folder.
        export: the export's report.
        base: the base's folder, whose own card may name a license.
    """
    name, layout = public_name(recipe.model.name), export["layout"]
    license = _license(base)
    tags = ["molmo2", "molmo-tune", recipe.adapter.method]
    tags += [export["quantized"]["kind"]] if "quantized" in export else []
    lines = [
        "---",
        *([f"base_model: {name}"] if "/" in name else []),
        *([f"license: {license}"] if license else []),
        f"library_name: {'peft' if layout in _ADAPTERS else 'transformers'}",
        "pipeline_tag: image-text-to-text",
        f"tags: [{', '.join(tags)}]",
        "---",
        "",
        f"# {name}, fine-tuned with molmo-tune",
        "",
        "## Use",
        "",
        "```python",
        _use(layout, name, export.get("vllm", {})),
        "```",
        "",
        "## Training",
        "",
        *_training(recipe, run, layout),
        *_scores(run),
        "",
        "## What was proven",
        "",
        *_proof(export),
        "",
        "## Licenses",
        "",
        f"- base, {name}: " + (license or "its card in the base's folder names none; look it up"),
        "- training data: not part of this folder; its licenses are for the publisher to state",
        "- code: molmo-tune is Apache-2.0 and adds no terms to the weights",
        "",
    ]
    return "\n".join(lines)


def public_name(name: str) -> str:
    """A hub id as it is; of a folder only its own name."""
    is_path = name.startswith((".", "/", "~")) or Path(name).is_dir()
    return name.rstrip("/").rsplit("/", 1)[-1] if is_path else name


def _training(recipe: Recipe, run: RunFolder, layout: str) -> list[str]:
    report = json.loads(run.report.read_text(encoding="utf-8")) if run.report.is_file() else {}
    adapter, video = recipe.adapter, recipe.video
    ranks = f", rank {adapter.rank}, alpha {adapter.alpha:g}" if adapter.method != "full" else ""
    carried = ". The processor files here carry these numbers" * (layout != "vllm-adapter")
    small = f", base held in {recipe.model.quantize}" if recipe.model.quantize else ""
    lines = [
        f"- {_METHODS[adapter.method]} on {', '.join(adapter.targets)}{ranks}{small}",
        f"- AdamW ({recipe.optim.name}), rate {recipe.optim.lr:g}, {recipe.optim.schedule}; "
        f"seed {recipe.seed}",
        f"- videos: up to {video.max_frames} frames at {video.max_fps:g} per second "
        f"({video.sampling}); images: up to {recipe.image.max_crops} crops{carried}",
    ]
    if "train" in report:
        counts = report["train"]
        lines.append(
            f"- {counts['samples']} samples with {counts['questions']} questions "
            f"({counts['tokens']} tokens), {report['steps']} optimizer steps"
        )
    if "preference" in report and recipe.preference is not None:
        lines.append(
            f"- after an earlier run, on {report['preference']['pairs']} pairs of its own answers "
            f"to these (DPO, beta {recipe.preference.beta:g})"
        )
    return lines


def _scores(run: RunFolder) -> list[str]:
    rows = []
    for name in ("before", "after"):
        file = run.evaluation(name)
        if file.is_file():
            summary = json.loads(file.read_text(encoding="utf-8"))["summary"]
            rows.append(f"| {name} | {_interval(summary)} | {summary['questions']} |")
    if not rows:
        return []
    head = ["| | F1 with 95 % interval | held-out questions |", "|---|---|---|"]
    return ["", "## Scores", "", *head, *rows]


def _use(layout: str, base: str, vllm: dict[str, Any]) -> str:
    """How to load it, and to serve it with vLLM where that can be."""
    found = vllm.get("hf_overrides")
    overrides = f" \\\n#       --hf-overrides '{json.dumps(found)}'" if found else ""
    if layout in _USE:
        rank = vllm.get("max_lora_rank")
        return _USE[layout].format(base=base, rank=rank, overrides=overrides)
    can_serve = layout == "hub" and not vllm.get("unmet", True)
    return _USE_WHOLE + (_SERVE + overrides) * can_serve


def _interval(summary: dict[str, Any]) -> str:
    if summary["f1"] is None:
        return "not scored"
    return f"{summary['f1']:.3f} [{summary['f1_low']:.3f}, {summary['f1_high']:.3f}]"


def _proof(export: dict[str, Any]) -> list[str]:
    lines, small = [], export.get("quantized")
    if "tensors" in export:
        counts = export["tensors"]
        lines.append(f"- {counts['merged']} tensors merged, {counts['unchanged']} as in the base")
    if "largest_update_diff" in export:
        lines.append(
            f"- {len(export['modules'])} fused modules; each update is that of the run's split "
            f"ones to {export['largest_update_diff']:.0e} of its largest entry. vLLM was not run"
        )
    elif "modules" in export:
        lines.append(f"- {len(export['modules'])} modules, bit for bit those of the run")
    if "max_logit_diff" in export:
        merged = "of the merged checkpoint, before it was quantized, " if small else ""
        lines += [
            f"- logits {merged}on text, image, two images and a clip differ from the run's by at "
            f"most {export['max_logit_diff']:.1e}",
            f"- {export['equal_answers']} of {len(export['answers'])} greedy answers equal the "
            "run's",
        ]
    if small:
        lines += [
            f"- decoder in {small['kind']}; {', '.join(small['kept_in_bfloat16'])} in bfloat16. "
            "Loaded back, its logits are those of the merged model quantized in memory",
            f"- quantizing moved the logits by at most {small['max_logit_diff']:.2g}, "
            f"{small['mean_logit_diff']:.2g} on average; {small['equal_answers']} of "
            f"{len(small['answers'])} greedy answers stayed",
        ]
    return lines


def _license(base: Path) -> str | None:
    """What the front matter of the base's own card names."""
    card = base / "README.md"
    if not card.is_file():
        return None
    parts = card.read_text(encoding="utf-8", errors="replace").split("---")
    for line in parts[1].splitlines() if len(parts) > 2 and not parts[0].strip() else []:
        key, _, value = line.partition(":")
        if key.strip() == "license":
            return value.strip() or None
    return None
