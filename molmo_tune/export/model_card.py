"""The model card of an export: what it is, how it was trained, its scores, how to use it.

All numbers come from the files of the run. As a card is published, it contains counts but no path,
file name or label of the user.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from molmo_tune.export.report import ExportReport, VllmReport
from molmo_tune.recipe.sections import Recipe
from molmo_tune.run_folder import RunFolder
from molmo_tune.units import count, difference, frame_rate, with_interval

_USE = {
    "adapter": """\
from peft import PeftModel
from transformers import AutoModelForImageTextToText

base = AutoModelForImageTextToText.from_pretrained("{base}", dtype="auto")
model = PeftModel.from_pretrained(base, "PATH")""",
    "vllm-adapter": """\
# On top of the unchanged base, in vLLM's own environment:
#   vllm serve {base} --trust-remote-code --enable-lora --lora-modules mine=PATH \\
#       --max-lora-rank {rank}{overrides}
# The processor is the base's: set its limits on frames and crops as under "Training".""",
    "ai2": """\
# model.pt is a state of Ai2's trainer; copy the config.yaml of the base's state next to it.""",
}
_ADAPTERS = ("adapter", "vllm-adapter")
_USE_CHECKPOINT = """\
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
    "full": "full fine-tuning",
}


def model_card(recipe: Recipe, run: RunFolder, export: ExportReport, base: Path) -> str:
    """Return the card in Markdown, with the front matter that the Hub reads.

    Args:
        recipe: of the run.
        run: its folder.
        export: report of the export.
        base: folder of the base, whose card may name a license.
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
        "## Verification",
        "",
        *_verification(export),
        "",
        "## Licenses",
        "",
        f"- base, {name}: " + (license or "not named in its folder; see its model card"),
        "- training data: not included; the publisher states its licenses",
        "- code: molmo-tune is Apache-2.0 and adds no terms to the weights",
        "",
    ]
    return "\n".join(lines)


def public_name(name: str) -> str:
    """Return a Hub id as it is, and only the last part of a path."""
    is_path = name.startswith((".", "/", "~")) or Path(name).is_dir()
    return name.rstrip("/").rsplit("/", 1)[-1] if is_path else name


def _training(recipe: Recipe, run: RunFolder, layout: str) -> list[str]:
    report = json.loads(run.report.read_text(encoding="utf-8")) if run.report.is_file() else {}
    adapter, video = recipe.adapter, recipe.video
    ranks = f", rank {adapter.rank}, alpha {adapter.alpha:g}" if adapter.method != "full" else ""
    included = "; the processor files include these limits" * (layout != "vllm-adapter")
    base = f", base quantized to {recipe.model.quantize}" if recipe.model.quantize else ""
    lines = [
        f"- {_METHODS[adapter.method]} on {', '.join(adapter.targets)}{ranks}{base}",
        f"- AdamW ({recipe.optim.name}), learning rate {recipe.optim.lr:g}, "
        f"{recipe.optim.schedule} schedule, seed {recipe.seed}",
        f"- videos: at most {count(video.max_frames, 'frame')} at {frame_rate(video.max_fps)} "
        f"({video.sampling}); images: at most {count(recipe.image.max_crops, 'crop')}{included}",
    ]
    if "train" in report:
        counts = report["train"]
        lines.append(
            f"- {count(counts['samples'], 'sample')} with {count(counts['questions'], 'question')} "
            f"({count(counts['tokens'], 'token')}), {count(report['steps'], 'optimizer step')}"
        )
    if "preference" in report and recipe.preference is not None:
        lines.append(
            f"- continued an earlier run with DPO (beta {recipe.preference.beta:g}) on "
            f"{count(report['preference']['pairs'], 'pair')} of its own answers"
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
    head = ["| | F1 [95% interval] | held-out questions |", "|---|---|---|"]
    return ["", "## Scores", "", *head, *rows]


def _use(layout: str, base: str, vllm: VllmReport) -> str:
    """Return the code that loads the export, and the command that serves it, if vLLM can."""
    fields = vllm.get("hf_overrides")
    overrides = f" \\\n#       --hf-overrides '{json.dumps(fields)}'" if fields else ""
    if layout in _USE:
        rank = vllm.get("max_lora_rank")
        return _USE[layout].format(base=base, rank=rank, overrides=overrides)
    can_serve = layout == "hub" and not vllm.get("unmet", True)
    return _USE_CHECKPOINT + (_SERVE + overrides) * can_serve


def _interval(summary: dict[str, Any]) -> str:
    if summary["f1"] is None:
        return "not scored"
    return with_interval(summary["f1"], summary["f1_low"], summary["f1_high"])


def _verification(export: ExportReport) -> list[str]:
    lines, quantized = [], export.get("quantized")
    if "tensors" in export:
        counts = export["tensors"]
        lines.append(
            f"- {count(counts['merged'], 'tensor')} merged, "
            f"{counts['unchanged']:,} bit-identical to the base"
        )
    if "largest_update_diff" in export:
        lines.append(
            f"- {count(len(export['modules']), 'fused module')}; each update equals the run's "
            f"split updates to {difference(export['largest_update_diff'], 0)} of its largest "
            "entry; vLLM was not run"
        )
    elif "modules" in export:
        lines.append(f"- {count(len(export['modules']), 'module')}, bit-identical to the run's")
    if "max_logit_diff" in export:
        merged = "of the merged checkpoint, before quantization, " if quantized else ""
        lines += [
            f"- logits {merged}on text, image, two images and a video differ from the run's by at "
            f"most {difference(export['max_logit_diff'])}",
            f"- {export['equal_answers']} of {len(export['answers'])} greedy answers equal the "
            "run's",
        ]
    if quantized:
        lines += [
            f"- decoder in {quantized['kind']}; {', '.join(quantized['kept_in_bfloat16'])} in "
            "bfloat16; reloaded logits equal those of the merged model quantized in memory",
            f"- quantization changed the logits by at most {quantized['max_logit_diff']:.2g}, "
            f"{quantized['mean_logit_diff']:.2g} on average; {quantized['equal_answers']} of "
            f"{len(quantized['answers'])} greedy answers are unchanged",
        ]
    return lines


def _license(base: Path) -> str | None:
    """Return the license in the front matter of the base's card."""
    card = base / "README.md"
    if not card.is_file():
        return None
    parts = card.read_text(encoding="utf-8", errors="replace").split("---")
    for line in parts[1].splitlines() if len(parts) > 2 and not parts[0].strip() else []:
        key, _, value = line.partition(":")
        if key.strip() == "license":
            return value.strip() or None
    return None
