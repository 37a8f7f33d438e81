"""What is trained: adapters through PEFT, or weights of the model itself, in named parts of it.

The leaf names (`q_proj`, …) occur in all three towers, so a bare list of them puts adapters where
nobody asked. Here the parts are regular expressions anchored at their tower:

    language   attention and MLP of the decoder
    connector  attention pooling and projector (both: peers count the pooling to the vision tower)
    vision     attention and MLP of the vision tower

The embedding rows and the LM head are never touched: vLLM *assigns* vision features over the
`<im_patch>` row while all other code *adds* them, so a trained row would differ between servers.

A trained adapter is saved in PEFT's format. PiSSA moves the base's principal parts into its start,
so its adapter fits no other base; what is saved is the difference to that start, as plain LoRA of
twice the rank. Weights trained whole are saved under their native names in `WEIGHTS_FILE`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from molmo_tune.errors import UserError
from molmo_tune.model.quantization import num_weights

Part = Literal["language", "connector", "vision"]
Method = Literal["lora", "dora", "pissa", "full"]

PART_MODULES: dict[Part, str] = {
    "language": r"model\.language_model\.layers\.\d+\."
    r"(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)",
    "connector": r"model\.multi_modal_projector\."
    r"(image_pooling_2d\.[qkvo]_proj|image_projector\.(gate|up|down)_proj)",
    "vision": r"model\.vision_tower\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.fc[12])",
}
WEIGHTS_FILE = "trained_weights.safetensors"
_PISSA_START = "pissa_niter_16"  # a randomised decomposition: seconds instead of hours
_START_FOLDER = "start"


def add_adapter(
    model: Any,
    *,
    method: Method,
    rank: int,
    alpha: float,
    dropout: float,
    targets: Sequence[Part],
    rslora: bool = False,
) -> Any:
    """The same model, only the named parts of it trainable.

    Returns:
        A `PeftModel`, or for ``full`` the model itself with those parts in float32.

    Raises:
        UserError: a part got no adapter (another architecture).
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
    peft_model = get_peft_model(model, config)
    for part in targets:
        if not any(part_of(name) == part for name, _ in trainable_parameters(peft_model)):
            raise UserError("adapter.targets", f"{part!r} matches no layer of this model")
    return peft_model


def _unfreeze(model: Any, targets: Sequence[Part]) -> Any:
    for name, parameter in model.named_parameters():
        if part_of(name) in targets and "embed_tokens" not in name:
            parameter.data = parameter.data.float()  # an update of 1e-5 is lost in 16 bits
            parameter.requires_grad_(True)
    return model


def keep_start(model: Any, folder: Path) -> None:
    """Save what PiSSA starts from beside the adapter-to-be; nothing for other methods."""
    if not _is_pissa(model):
        return
    config = model.peft_config["default"]
    config.init_lora_weights = True
    model.save_pretrained(str(folder / _START_FOLDER))
    config.init_lora_weights = _PISSA_START


def save_adapter(model: Any, folder: Path, weights: dict[str, torch.Tensor] | None = None) -> None:
    """Write what was trained (see the module's text for the formats).

    Args:
        model: the trained model.
        folder: made when it does not exist.
        weights: the trained weights by name, where the model itself holds only a share of them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not isinstance(model, PeftModel):
        trained = weights or {name: p.detach().cpu() for name, p in trainable_parameters(model)}
        save_file(trained, str(folder / WEIGHTS_FILE), metadata={"format": "pt"})
    elif _is_pissa(model):
        start = str(folder / _START_FOLDER)
        model.save_pretrained(str(folder), path_initial_model_for_weight_conversion=start)
    else:
        model.save_pretrained(str(folder), state_dict=weights)


def load_adapter(model: Any, folder: Path) -> Any:
    """A base model with what was trained on top, for evaluation.

    Raises:
        UserError: the folder holds no adapter, or one that does not fit the model.
    """
    if (folder / WEIGHTS_FILE).is_file():
        return _load_weights(model, folder / WEIGHTS_FILE)
    if not (folder / "adapter_config.json").is_file():
        raise UserError(folder, "no adapter_config.json", "a PEFT adapter folder")
    try:
        return PeftModel.from_pretrained(model, str(folder)).eval()
    except (RuntimeError, ValueError, OSError, SafetensorError) as error:
        raise UserError(folder, f"does not fit this base model ({str(error)[:200]})") from error


def _load_weights(model: Any, file: Path) -> Any:
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


def bare_model(model: Any) -> Any:
    """`Molmo2ForConditionalGeneration`, with the adapters inside when there are some."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def trainable_parameters(model: Any) -> list[tuple[str, Any]]:
    """Names and parameters that receive gradients."""
    return [(name, p) for name, p in model.named_parameters() if p.requires_grad]


def part_of(parameter_name: str) -> Part | Literal["head"]:
    """The part of the model a parameter belongs to, by its native name."""
    if "multi_modal_projector." in parameter_name:
        return "connector"
    if "vision_tower." in parameter_name:
        return "vision"
    if "language_model." in parameter_name:
        return "language"
    return "head"


def parameter_table(model: Any) -> list[tuple[str, int, int]]:
    """Rows ``(part, parameters, trainable parameters)`` with a last row ``total``."""
    counts: dict[str, list[int]] = {"vision": [0, 0], "connector": [0, 0], "language": [0, 0]}
    for name, parameter in model.named_parameters():
        row = counts.setdefault(part_of(name), [0, 0])
        weights = num_weights(parameter)
        row[0] += weights
        row[1] += weights * parameter.requires_grad
    rows = [(part, total, trained) for part, (total, trained) in counts.items()]
    return [*rows, ("total", sum(r[1] for r in rows), sum(r[2] for r in rows))]


def _is_pissa(model: Any) -> bool:
    if not isinstance(model, PeftModel):
        return False
    return bool(model.peft_config["default"].init_lora_weights == _PISSA_START)
