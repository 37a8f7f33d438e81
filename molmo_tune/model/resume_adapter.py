"""A base with the weights of a finished run, trainable: where preference training starts.

The run's own adapter is trained further, rather than a second one on top, so that what comes out is
one ordinary adapter of the same base, which evaluates, merges and exports like any other. It must
be the adapter that the recipe describes, or the new run's folder would tell something else than
what it holds. Dropout is off: the reference has none, and the model must start equal to it.

What it does not do: PiSSA, whose run holds plain LoRA of twice the rank (and is continued as that).
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
    """The base with a run's trained weights on it, those weights trainable.

    Args:
        base: frozen.
        folder: of the run's adapter.
        method: with the others, what the recipe says about the adapter.
        rank: of LoRA.
        alpha: of LoRA.
        targets: parts of the model.
        rslora: kind of scaling.

    Raises:
        UserError: there is no adapter, or it is not as described.
    """
    if not (folder / WEIGHTS_FILE).is_file() and not (folder / "adapter_config.json").is_file():
        raise UserError(folder, "no trained adapter", "the adapter of a finished run")
    found = _settings_of(folder)
    wanted: dict[str, object] = {"method": method}
    if method != "full":
        wanted |= {"rank": rank, "alpha": float(alpha), "rslora": rslora}
    _require_equal(folder, wanted, found)
    model = _whole(base, folder, targets) if method == "full" else _lora(base, folder)
    parts = {part_of(name) for name, _ in trainable_parameters(model)}
    _require_equal(folder, {"targets": sorted(targets)}, {"targets": sorted(parts)})
    return model


def _settings_of(folder: Path) -> dict[str, object]:
    """What an adapter's files say of it, under the recipe's names."""
    if (folder / WEIGHTS_FILE).is_file():
        return {"method": "full"}
    config = PeftConfig.from_pretrained(str(folder))
    return {
        "method": "dora" if config.use_dora else "lora",
        "rank": config.r,
        "alpha": float(config.lora_alpha),
        "rslora": config.use_rslora,
    }


def _require_equal(folder: Path, wanted: dict[str, object], found: dict[str, object]) -> None:
    odd = [name for name, value in wanted.items() if found.get(name) != value]
    if odd and "method" in odd:
        odd = ["method"]  # the others follow from it
    if odd:
        there = ", ".join(f"{name}: {found[name]}" for name in odd)
        ours = ", ".join(f"adapter.{name}: {wanted[name]}" for name in odd)
        raise UserError(folder, f"holds {there}", f"what the recipe says, {ours}", "change these")


def _lora(base: Molmo, folder: Path) -> torch.nn.Module:
    config = PeftConfig.from_pretrained(str(folder))
    config.lora_dropout, config.inference_mode = 0.0, False
    try:
        adapted: torch.nn.Module = PeftModel.from_pretrained(
            base, str(folder), is_trainable=True, config=config
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(folder, f"does not fit this base model ({str(error)[:200]})") from error
    return adapted


def _whole(base: Molmo, folder: Path, targets: Sequence[Part]) -> torch.nn.Module:
    model = add_adapter(base, method="full", rank=1, alpha=1, dropout=0.0, targets=targets)
    stored, trained = load_file(str(folder / WEIGHTS_FILE)), dict(trainable_parameters(model))
    if {n: t.shape for n, t in stored.items()} != {n: p.shape for n, p in trained.items()}:
        odd = sorted(stored.keys() ^ trained.keys()) or ["shapes"]
        raise UserError(folder, f"other weights than adapter.targets names ({odd[0]})")
    with torch.no_grad():
        for name, tensor in stored.items():
            trained[name].copy_(tensor)
    return model
