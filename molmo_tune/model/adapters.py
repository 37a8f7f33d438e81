"""What is trained: PEFT adapters or weights of the model itself, in named components.

Leaf names (`q_proj`, …) occur in all three towers, so a list of them would also put adapters where
they were not asked for. Here the components are regular expressions anchored at their tower:

    language   attention and MLP of the decoder
    connector  attention pooling and projector (peers count the pooling as vision tower)
    vision     attention and MLP of the vision tower

The embedding and the LM head are never trained: vLLM *assigns* vision features over the
`<im_patch>` row while all other code *adds* them, so a trained row would differ between servers.

A trained adapter is saved in PEFT's format. PiSSA moves the base's principal components into its
initial adapter, which therefore fits no other base; it is saved as the difference from that start,
a plain LoRA of twice the rank. Fully trained weights are saved under their native names in
`WEIGHTS_FILE`.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from molmo_tune import choices
from molmo_tune.atomic_files import atomic_folder
from molmo_tune.errors import UserError
from molmo_tune.model.molmo import Molmo
from molmo_tune.model.quantization import num_weights

Part = choices.Component
Method = choices.AdapterMethod

PART_MODULES: dict[Part, str] = {
    "language": r"model\.language_model\.layers\.\d+\."
    r"(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)",
    "connector": r"model\.multi_modal_projector\."
    r"(image_pooling_2d\.[qkvo]_proj|image_projector\.(gate|up|down)_proj)",
    "vision": r"model\.vision_tower\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.fc[12])",
}
WEIGHTS_FILE = "trained_weights.safetensors"
_PISSA_START = "pissa_niter_16"  # a randomized decomposition: seconds instead of hours
_START_FOLDER = "start"


def add_adapter(
    model: Molmo,
    *,
    method: Method,
    rank: int,
    alpha: float,
    dropout: float,
    targets: Sequence[Part],
    rslora: bool = False,
) -> torch.nn.Module:
    """Make the named components trainable, and nothing else.

    Args:
        model: frozen.
        method: kind of adapter, or ``full`` for the weights themselves.
        rank: of LoRA.
        alpha: of LoRA.
        dropout: fraction of the adapter's inputs dropped in training.
        targets: components.
        rslora: scale by alpha / sqrt(rank).

    Returns:
        A `PeftModel`, or for ``full`` the model itself with these components in float32.

    Raises:
        UserError: a component got no adapter (another architecture).
    """
    if method == "full":
        return _unfreeze(model, targets)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules="|".join(f"({PART_MODULES[part]})" for part in targets),
        use_rslora=rslora,
        use_dora=method == "dora",
        init_lora_weights=_PISSA_START if method == "pissa" else True,
        bias="none",
        task_type="CAUSAL_LM",
    )
    peft_model: torch.nn.Module = get_peft_model(model, config)
    for part in targets:
        if not any(part_of(name) == part for name, _ in trainable_parameters(peft_model)):
            raise UserError("adapter.targets", f"{part!r} matches no layer of the model")
    return peft_model


def _unfreeze(model: Molmo, targets: Sequence[Part]) -> Molmo:
    for name, parameter in model.named_parameters():
        if part_of(name) in targets and "embed_tokens" not in name:
            parameter.data = (
                parameter.data.float()
            )  # 16-bit weights would round off an update of 1e-5
            parameter.requires_grad_(True)
    return model


def keep_start(model: torch.nn.Module, folder: Path) -> None:
    """Save the initial adapter of PiSSA for `save_adapter`; do nothing for other methods."""
    if not isinstance(model, PeftModel) or not _is_pissa(model):
        return
    config = model.peft_config["default"]
    config.init_lora_weights = True
    with atomic_folder(folder / _START_FOLDER, replace=True) as unfinished:
        model.save_pretrained(str(unfinished))
    config.init_lora_weights = _PISSA_START


def save_adapter(
    model: torch.nn.Module, folder: Path, weights: dict[str, torch.Tensor] | None = None
) -> None:
    """Write what was trained, complete or not at all (formats: see the module's text).

    Args:
        model: the trained model.
        folder: replaced if it exists, all files together.
        weights: the trained weights by name, if the model itself holds only a shard of them.

    Raises:
        UserError: the folder cannot be written; an older one is as it was.
    """
    with atomic_folder(folder, replace=True) as unfinished:
        if not isinstance(model, PeftModel):
            trained = weights or {name: p.detach().cpu() for name, p in trainable_parameters(model)}
            save_file(trained, str(unfinished / WEIGHTS_FILE), metadata={"format": "pt"})
        elif _is_pissa(model):
            start = unfinished / _START_FOLDER
            shutil.copytree(folder / _START_FOLDER, start)
            model.save_pretrained(
                str(unfinished), path_initial_model_for_weight_conversion=str(start)
            )
        else:
            model.save_pretrained(str(unfinished), state_dict=weights)


def load_adapter(model: Molmo, folder: Path) -> torch.nn.Module:
    """Load what was trained into a base model, for evaluation.

    Raises:
        UserError: the folder has no adapter, or one that does not fit the model.
    """
    if (folder / WEIGHTS_FILE).is_file():
        return _load_weights(model, folder / WEIGHTS_FILE)
    if not (folder / "adapter_config.json").is_file():
        raise UserError(folder, "no adapter_config.json", "a PEFT adapter folder")
    try:
        adapted: torch.nn.Module = PeftModel.from_pretrained(model, str(folder)).eval()
    except (RuntimeError, ValueError, OSError, SafetensorError) as error:
        raise UserError(folder, f"does not fit this base model ({str(error)[:200]})") from error
    return adapted


def _load_weights(model: Molmo, file: Path) -> Molmo:
    try:
        trained = load_file(str(file))
    except (OSError, SafetensorError) as error:
        raise UserError(file, f"does not load ({error})", fix="copy the run again") from error
    known = dict(model.named_parameters())
    odd = [n for n, t in trained.items() if n not in known or known[n].shape != t.shape]
    if odd:
        raise UserError(file, f"does not fit this base model ({odd[0]})")
    with torch.no_grad():
        for name, tensor in trained.items():
            known[name].copy_(tensor)
    return model.eval()


def bare_model(model: torch.nn.Module) -> Molmo:
    """Return `Molmo2ForConditionalGeneration`, with any adapters inside."""
    return cast(Molmo, model.get_base_model() if isinstance(model, PeftModel) else model)


def trainable_parameters(model: torch.nn.Module) -> list[tuple[str, torch.nn.Parameter]]:
    """Return names and parameters that receive gradients."""
    return [(name, p) for name, p in model.named_parameters() if p.requires_grad]


def part_of(parameter_name: str) -> Part | Literal["head"]:
    """Return the component of a parameter, by its native name."""
    if "multi_modal_projector." in parameter_name:
        return "connector"
    if "vision_tower." in parameter_name:
        return "vision"
    if "language_model." in parameter_name:
        return "language"
    return "head"


def parameter_table(model: torch.nn.Module) -> list[tuple[str, int, int]]:
    """Return rows ``(component, parameters, trainable parameters)``, the last one ``total``."""
    counts: dict[str, list[int]] = {"vision": [0, 0], "connector": [0, 0], "language": [0, 0]}
    for name, parameter in model.named_parameters():
        row = counts.setdefault(part_of(name), [0, 0])
        weights = num_weights(parameter)
        row[0] += weights
        row[1] += weights * parameter.requires_grad
    rows = [(part, total, trained) for part, (total, trained) in counts.items()]
    return [*rows, ("total", sum(r[1] for r in rows), sum(r[2] for r in rows))]


def _is_pissa(model: torch.nn.Module) -> bool:
    if not isinstance(model, PeftModel):
        return False
    return bool(model.peft_config["default"].init_lora_weights == _PISSA_START)
