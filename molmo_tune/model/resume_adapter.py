"""A base with the trained weights of a finished run, trainable: where preference training starts.

The run's own adapter is trained further, not a second one on top, so the result is one ordinary
adapter of the same base, which evaluates, merges and exports like any other. It must match the
recipe's `adapter` section, or the new run's recipe would be wrong about its adapter. Dropout is
off: the reference has none, and the model must start equal to it.

Limitations: no PiSSA; such a run contains plain LoRA of twice the rank and continues as that.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftConfig, PeftModel
from safetensors.torch import load_file

from molmo_tune.errors import UserError
from molmo_tune.model.adapters import (
    WEIGHTS_FILE,
    Method,
    Part,
    add_adapter,
    part_of,
    trainable_parameters,
)
from molmo_tune.model.molmo import Molmo


def continue_adapter(
    base: Molmo,
    folder: Path,
    *,
    method: Method,
    rank: int,
    alpha: float,
    targets: Sequence[Part],
    rslora: bool = False,
) -> torch.nn.Module:
    """Load a run's trained weights into the base and make them trainable.

    Args:
        base: frozen.
        folder: adapter of the run.
        method: like the following, as in the recipe.
        rank: of LoRA.
        alpha: of LoRA.
        targets: components.
        rslora: scale by alpha / sqrt(rank).

    Raises:
        UserError: there is no adapter, or the recipe describes another.
    """
    if not (folder / WEIGHTS_FILE).is_file() and not (folder / "adapter_config.json").is_file():
        raise UserError(folder, "no trained adapter", "the adapter folder of a finished run")
    found = _settings_of(folder)
    expected: dict[str, object] = {"method": method}
    if method != "full":
        expected |= {"rank": rank, "alpha": float(alpha), "rslora": rslora}
    _require_equal(folder, expected, found)
    model = _load_full(base, folder, targets) if method == "full" else _load_lora(base, folder)
    parts = {part_of(name) for name, _ in trainable_parameters(model)}
    _require_equal(folder, {"targets": sorted(targets)}, {"targets": sorted(parts)})
    return model


def _settings_of(folder: Path) -> dict[str, object]:
    """Read an adapter's settings from its files, under the recipe's names."""
    if (folder / WEIGHTS_FILE).is_file():
        return {"method": "full"}
    config = PeftConfig.from_pretrained(str(folder))
    return {
        "method": "dora" if config.use_dora else "lora",
        "rank": config.r,
        "alpha": float(config.lora_alpha),
        "rslora": config.use_rslora,
    }


def _require_equal(folder: Path, expected: dict[str, object], found: dict[str, object]) -> None:
    odd = [name for name, value in expected.items() if found.get(name) != value]
    if "method" in odd:
        odd = ["method"]  # the others follow from it
    if odd:
        theirs = ", ".join(f"{name}: {found[name]}" for name in odd)
        ours = ", ".join(f"adapter.{name}: {expected[name]}" for name in odd)
        fix = "set these keys of the recipe as in the adapter"
        raise UserError(folder, f"an adapter with {theirs}", f"the recipe's {ours}", fix)


def _load_lora(base: Molmo, folder: Path) -> torch.nn.Module:
    config = PeftConfig.from_pretrained(str(folder))
    config.lora_dropout, config.inference_mode = 0.0, False
    try:
        adapted: torch.nn.Module = PeftModel.from_pretrained(
            base, str(folder), is_trainable=True, config=config
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(folder, f"does not fit this base model ({str(error)[:200]})") from error
    return adapted


def _load_full(base: Molmo, folder: Path, targets: Sequence[Part]) -> torch.nn.Module:
    model = add_adapter(base, method="full", rank=1, alpha=1, dropout=0.0, targets=targets)
    stored, trained = load_file(str(folder / WEIGHTS_FILE)), dict(trainable_parameters(model))
    if {n: t.shape for n, t in stored.items()} != {n: p.shape for n, p in trained.items()}:
        odd = sorted(stored.keys() ^ trained.keys()) or ["shapes"]
        raise UserError(folder, f"weights that do not match adapter.targets ({odd[0]})")
    with torch.no_grad():
        for name, tensor in stored.items():
            trained[name].copy_(tensor)
    return model
