"""`molmo-tune doctor`: is this machine ready, and if not, what to do.

Every line was tried, not looked up: a library counts as there when it does on this machine what we
need of it. What is missing but optional is a note. A problem that would stop training gives exit
code 1.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from molmo_tune import __version__

State = Literal["ok", "note", "problem"]
MIN_TRANSFORMERS = (5, 20)
"""First version with Molmo 2's own classes."""

_LARGE_GB = 25  # of disk: a 4B checkpoint, its adapter checkpoints and one export


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that was tried."""

    state: State
    what: str
    found: str

    def __str__(self) -> str:
        return f"{self.state:<8}{self.what:<16}{self.found}"


def run(options: argparse.Namespace) -> int:
    """Print a line per thing; exit code 1 where something must be mended."""
    lines = []
    for look in LOOKS:
        for line in tried(look):
            lines.append(line)
            sys.stdout.write(f"{line}\n")
    problems = sum(line.state == "problem" for line in lines)
    told = f"{problems} to mend" if problems else "ready"
    sys.stdout.write(f"molmo-tune {__version__}: {told}\n")
    return 1 if problems else 0


def tried(look: Callable[[], Iterator[Line]]) -> Iterator[Line]:
    """What was found; a library that fails in its own way is a problem with its words."""
    try:
        yield from look()
    except Exception as error:  # whatever a broken installation raises
        name = look.__name__.strip("_")
        words = str(error).strip().splitlines() or [""]
        yield Line("problem", name, f"{type(error).__name__}: {words[0][:200]}")


def _python() -> Iterator[Line]:
    yield Line("ok", "python", f"{platform.python_version()} on {platform.platform()}")


def _torch() -> Iterator[Line]:
    import torch

    yield Line("ok", "torch", f"{torch.__version__}, {torch.get_num_threads()} threads")
    if not torch.cuda.is_available():
        what = "none that torch can use: the toy (tiny) runs, real checkpoints need a GPU "
        what += "(molmo-tune plan RECIPE says how large a one)"
        yield Line("note", "gpu", what)
        return
    for number in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(number)
        memory = f"{card.total_memory / 1e9:.0f} GB, compute {card.major}.{card.minor}"
        torch.ones(8, 8, device=f"cuda:{number}") @ torch.ones(8, 8, device=f"cuda:{number}")
        yield Line("ok", f"gpu {number}", f"{card.name}, {memory}")
    if not torch.cuda.is_bf16_supported():
        yield Line("note", "bfloat16", "this GPU lacks it: float16 is used instead")


def _torchvision() -> Iterator[Line]:
    import torch
    import torchvision

    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 4.0]])
    kept = torchvision.ops.nms(boxes, torch.tensor([0.9, 0.8]), 0.5)
    if len(kept) != 1:
        raise RuntimeError("its operators give wrong results")
    yield Line("ok", "torchvision", f"{torchvision.__version__}, made for this torch")


def _transformers() -> Iterator[Line]:
    import transformers

    found = transformers.__version__
    if tuple(int(part) for part in found.split(".")[:2]) < MIN_TRANSFORMERS:
        fix = "uv pip install 'transformers>=5.20'"
        yield Line("problem", "transformers", f"{found} has no classes for Molmo 2: {fix}")
        return
    from transformers.models.molmo2 import modeling_molmo2

    name = modeling_molmo2.Molmo2ForConditionalGeneration.__name__
    yield Line("ok", "transformers", f"{found}, with {name}")


def _libraries() -> Iterator[Line]:
    for name in ("peft", "lightning", "av", "pycocotools"):
        yield Line("ok", name, version(name))


def _model() -> Iterator[Line]:
    from molmo_tune.model.loading import load_model

    parameters = sum(p.numel() for p in load_model("tiny").parameters())
    yield Line("ok", "tiny model", f"loads, {parameters:,} parameters")


def _quantization() -> Iterator[Line]:
    try:
        found = version("bitsandbytes")
    except PackageNotFoundError:
        yield Line(
            "note", "bitsandbytes", "not there, so no QLoRA: uv pip install 'molmo-tune[quant]'"
        )
        return
    import torch
    from bitsandbytes import functional

    device = "cuda" if torch.cuda.is_available() else "cpu"
    packed, state = functional.quantize_4bit(torch.ones(64, 64, device=device), quant_type="nf4")
    restored = functional.dequantize_4bit(packed, state)
    if not torch.allclose(restored, torch.ones_like(restored)):
        raise RuntimeError(f"bitsandbytes {found} gives wrong 4-bit weights on {device}")
    yield Line("ok", "bitsandbytes", f"{found}, 4-bit weights on {device}")


def _flash_attention() -> Iterator[Line]:
    import torch

    try:
        import flash_attn
    except ImportError:
        if torch.cuda.is_available():
            text = "not there: attention flex or sdpa is used; uv pip install 'molmo-tune[flash]'"
            yield Line("note", "flash-attn", text)
        return
    yield Line("ok", "flash-attn", flash_attn.__version__)


def _video() -> Iterator[Line]:
    import tempfile

    from molmo_tune.media.video import probe_video, read_frames
    from molmo_tune.tiny.pond import write_pond

    with tempfile.TemporaryDirectory() as name:
        write_pond(Path(name), num_clips=1, seed=0, on_clip=lambda: None)
        clip = next(Path(name).rglob("*.mp4"))
        frames = read_frames(clip, [0, probe_video(clip).num_frames - 1])
    yield Line("ok", "video", f"H.264 written and read again ({frames.shape[1]} lines)")


def _disk() -> Iterator[Line]:
    for what, path in (("disk here", Path()), ("hub cache", _hub_cache())):
        there = next(one for one in (path.absolute(), *path.absolute().parents) if one.exists())
        free = shutil.disk_usage(there).free / 1e9
        state: State = "ok" if free > _LARGE_GB else "note"
        small = "" if free > _LARGE_GB else f": less than the {_LARGE_GB} GB of a 4B run"
        yield Line(state, what, f"{free:.0f} GB free at {there}{small}")


def _hub_cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _hub() -> Iterator[Line]:
    from huggingface_hub import get_token

    offline = os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0")
    state = "offline by HF_HUB_OFFLINE" if offline else "asked when a model is named by its id"
    known = "a token is set" if get_token() else "no token (needed for push only)"
    yield Line("ok", "hub", f"{state}; {known}")


LOOKS: tuple[Callable[[], Iterator[Line]], ...] = (
    _python,
    _torch,
    _torchvision,
    _transformers,
    _libraries,
    _model,
    _quantization,
    _flash_attention,
    _video,
    _disk,
    _hub,
)
