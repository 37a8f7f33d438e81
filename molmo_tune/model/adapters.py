"""LoRA on named parts of the model, through PEFT.

The leaf names (`q_proj`, …) occur in all three towers, so a bare list of them puts adapters where
nobody asked. Here the parts are regular expressions anchored at their tower:

    language   attention and MLP of the decoder
    connector  attention pooling and projector (both: peers count the pooling to the vision tower)
    vision     attention and MLP of the vision tower

The embedding rows and the LM head are never touched: vLLM *assigns* vision features over the
`<im_patch>` row while all other code *adds* them, so a trained row would differ between servers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from peft import LoraConfig, PeftModel, get_peft_model

from molmo_tune.errors import UserError

Part = Literal["language", "connector", "vision"]

PART_MODULES: dict[Part, str] = {
    "language": r"model\.language_model\.layers\.\d+\."
    r"(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)",
    "connector": r"model\.multi_modal_projector\."
    r"(image_pooling_2d\.[qkvo]_proj|image_projector\.(gate|up|down)_proj)",
    "vision": r"model\.vision_tower\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.fc[12])",
}


def add_lora(
    model: Any,
    *,
    rank: int,
    alpha: float,
    dropout: float,
    targets: Sequence[Part],
    rslora: bool = False,
) -> Any:
    """The same model with LoRA layers in the named parts, as a `PeftModel`; only they train.

    Raises:
        UserError: a part got no adapter (another architecture).
    """
    pattern = "|".join(f"({PART_MODULES[part]})" for part in targets)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=pattern,
        use_rslora=rslora,
        bias="none",
        task_type="CAUSAL_LM",
    )
    peft_model = get_peft_model(model, config)
    for part in targets:
        if not any(part_of(name) == part for name, _ in trainable_parameters(peft_model)):
            raise UserError("adapter.targets", f"{part!r} matches no layer of this model")
    return peft_model


def load_adapter(model: Any, folder: Path) -> Any:
    """A base model with a saved adapter on top, for evaluation.

    Raises:
        UserError: the folder holds no adapter, or one that does not fit the model.
    """
    if not (folder / "adapter_config.json").is_file():
        raise UserError(folder, "no adapter_config.json", "a PEFT adapter folder")
    try:
        return PeftModel.from_pretrained(model, str(folder)).eval()
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(folder, f"does not fit this base model ({str(error)[:200]})") from error


def trainable_parameters(model: Any) -> list[tuple[str, Any]]:
    """Names and parameters that receive gradients."""
    return [(name, p) for name, p in model.named_parameters() if p.requires_grad]


def part_of(parameter_name: str) -> Part | Literal["head"]:
    """The part of the model a parameter belongs to, by its native name."""
    if ".multi_modal_projector." in parameter_name:
        return "connector"
    if ".vision_tower." in parameter_name:
        return "vision"
    if ".language_model." in parameter_name:
        return "language"
    return "head"


def parameter_table(model: Any) -> list[tuple[str, int, int]]:
    """Rows ``(part, parameters, trainable parameters)`` with a last row ``total``."""
    counts: dict[str, list[int]] = {"vision": [0, 0], "connector": [0, 0], "language": [0, 0]}
    for name, parameter in model.named_parameters():
        row = counts.setdefault(part_of(name), [0, 0])
        row[0] += parameter.numel()
        row[1] += parameter.numel() * parameter.requires_grad
    rows = [(part, total, trained) for part, (total, trained) in counts.items()]
    return [*rows, ("total", sum(r[1] for r in rows), sum(r[2] for r in rows))]
