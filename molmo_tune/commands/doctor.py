"""`molmo-tune doctor`: whether this machine is ready, and how to fix what is not.

A library counts as working if it does here what training needs from it. Exceptions: peft,
lightning, av and pycocotools are only imported, flash-attn too, and the Hub is not contacted. An
optional package that is missing is a note. A problem that would stop training gives exit code 1.
`--json` writes the same lines with the versions of all packages and the GPUs, for bug reports.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any, Literal

from molmo_tune import __version__
from molmo_tune.errors import cannot_write

HELP = "check that this machine is ready, and say how to fix what is not"
STDOUT = "-"

State = Literal["ok", "note", "problem"]
MIN_TRANSFORMERS = (5, 20)
"""First version with native Molmo 2 classes."""

_LARGE_GB = 25  # disk space for a 4B checkpoint, its adapter checkpoints and one export
_NOT_NEEDED_TO_RUN = ("dev", "notebooks")  # extras


@dataclass(frozen=True, slots=True)
class Line:
    """The result of one check."""

    state: State
    what: str
    found: str

    def __str__(self) -> str:
        return f"{self.state:<8}{self.what:<16}{self.found}"


Check = Callable[[], Iterator[Line]]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``."""
    parser.add_argument(
        "--json",
        nargs="?",
        const=STDOUT,
        metavar="FILE",
        help="JSON file for the results with versions and GPUs (default: standard output)",
    )


def run(options: argparse.Namespace) -> int:
    """Print a line per check; exit code 1 if there is something to fix."""
    lines = []
    for check in CHECKS:
        for line in run_check(check):
            lines.append(line)
            if options.json != STDOUT:
                sys.stdout.write(f"{line}\n")
    num_problems = sum(line.state == "problem" for line in lines)
    verdict = f"{num_problems} to fix" if num_problems else "ready"
    if options.json is not None:
        _write(options.json, as_json(lines))
    if options.json != STDOUT:
        sys.stdout.write(f"molmo-tune {__version__}: {verdict}\n")
    return 1 if num_problems else 0


def run_check(check: Check) -> Iterator[Line]:
    """Yield what a check finds; an exception becomes a problem with its message."""
    try:
        yield from check()
    except Exception as error:  # whatever a broken installation raises
        name = check.__name__.strip("_")
        message = str(error).strip().splitlines() or [""]
        yield Line("problem", name, f"{type(error).__name__}: {message[0][:200]}")


def as_json(lines: list[Line]) -> dict[str, Any]:
    """Return versions, GPUs, the lines of all checks, and those that are problems."""
    return {
        "molmo_tune": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": package_versions(),
        "gpus": _gpus(),
        "checks": [asdict(line) for line in lines],
        "problems": [line.what for line in lines if line.state == "problem"],
    }


def package_versions() -> dict[str, str | None]:
    """Return the installed version of every package that molmo-tune can use, None if missing.

    Without an installed molmo-tune (a bare checkout on the path), nothing names them: empty.
    """
    try:
        requirements = requires("molmo-tune") or []
    except PackageNotFoundError:
        return {}
    names = set()
    for requirement in requirements:
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", requirement)
        name = re.match(r"[\w.-]+", requirement)
        if name and name[0] != "molmo-tune" and (not extra or extra[1] not in _NOT_NEEDED_TO_RUN):
            names.add(name[0])
    return {name: _version(name) for name in sorted(names)}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _gpus() -> list[dict[str, Any]]:
    try:
        import torch
    except Exception:  # reported by its own check
        return []
    found = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return [
        {
            "name": gpu.name,
            "memory_bytes": gpu.total_memory,
            "compute_capability": f"{gpu.major}.{gpu.minor}",
        }
        for gpu in found
    ]


def _write(file: str, results: dict[str, Any]) -> None:
    text = f"{json.dumps(results, indent=2)}\n"
    if file == STDOUT:
        sys.stdout.write(text)
        return
    try:
        Path(file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise cannot_write(file, error) from error


def _python() -> Iterator[Line]:
    yield Line("ok", "python", f"{platform.python_version()} on {platform.platform()}")


def _torch() -> Iterator[Line]:
    import torch

    yield Line("ok", "torch", f"{torch.__version__}, {torch.get_num_threads()} threads")
    if not torch.cuda.is_available():
        text = "none usable by torch: the tiny model runs, real checkpoints need one "
        text += "(molmo-tune plan RECIPE estimates the memory)"
        yield Line("note", "gpu", text)
        return
    for number in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(number)
        memory = f"{gpu.total_memory / 1e9:.0f} GB, compute capability {gpu.major}.{gpu.minor}"
        torch.ones(8, 8, device=f"cuda:{number}") @ torch.ones(8, 8, device=f"cuda:{number}")
        yield Line("ok", f"gpu {number}", f"{gpu.name}, {memory}")
    if not torch.cuda.is_bf16_supported():
        yield Line("note", "bfloat16", "not supported by this GPU: model.dtype auto is float16")


def _torchvision() -> Iterator[Line]:
    import torch
    import torchvision

    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 4.0]])
    kept = torchvision.ops.nms(boxes, torch.tensor([0.9, 0.8]), 0.5)
    if len(kept) != 1:
        raise RuntimeError("its operators give wrong results")
    yield Line("ok", "torchvision", f"{torchvision.__version__}, operators match this torch")


def _transformers() -> Iterator[Line]:
    import transformers

    found = transformers.__version__
    if tuple(int(part) for part in found.split(".")[:2]) < MIN_TRANSFORMERS:
        fix = "uv pip install 'transformers>=5.20'"
        yield Line("problem", "transformers", f"{found} has no Molmo 2 classes: {fix}")
        return
    from transformers.models.molmo2 import modeling_molmo2

    name = modeling_molmo2.Molmo2ForConditionalGeneration.__name__
    yield Line("ok", "transformers", f"{found}, with {name}")


def _libraries() -> Iterator[Line]:
    for name in ("peft", "lightning", "av", "pycocotools"):
        import_module(name)
        yield Line("ok", name, f"{version(name)}, imports")


def _model() -> Iterator[Line]:
    from molmo_tune.model.loading import load_model

    parameters = sum(p.numel() for p in load_model("tiny").parameters())
    yield Line("ok", "tiny model", f"loads, {parameters:,} parameters")


def _quantization() -> Iterator[Line]:
    found = _version("bitsandbytes")
    if found is None:
        text = "not installed, so no QLoRA: uv pip install 'molmo-tune[quant]'"
        yield Line("note", "bitsandbytes", text)
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
            text = "not installed: PyTorch's kernels are used; uv pip install 'molmo-tune[flash]'"
            yield Line("note", "flash-attn", text)
        return
    yield Line("ok", "flash-attn", f"{flash_attn.__version__}, imports")


def _video() -> Iterator[Line]:
    import tempfile

    from molmo_tune.media.video import probe_video, read_frames
    from molmo_tune.tiny.pond import write_pond

    with tempfile.TemporaryDirectory() as name:
        write_pond(Path(name), num_clips=1, seed=0, on_clip=lambda: None)
        clip = next(Path(name).rglob("*.mp4"))
        frames = read_frames(clip, [0, probe_video(clip).num_frames - 1])
    yield Line("ok", "video", f"H.264 encoded and decoded ({len(frames)} frames)")


def _disk() -> Iterator[Line]:
    for what, path in (("disk here", Path()), ("hub cache", _hub_cache())):
        folder = next(one for one in (path.absolute(), *path.absolute().parents) if one.exists())
        free_gb = shutil.disk_usage(folder).free / 1e9
        state: State = "ok" if free_gb > _LARGE_GB else "note"
        small = "" if free_gb > _LARGE_GB else f": a 4B run needs up to {_LARGE_GB} GB"
        yield Line(state, what, f"{free_gb:.0f} GB free at {folder}{small}")


def _hub_cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _hub() -> Iterator[Line]:
    from huggingface_hub import get_token

    is_offline = os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0")
    state = "offline (HF_HUB_OFFLINE)" if is_offline else "not contacted"
    token = "token set" if get_token() else "no token (molmo-tune push needs one)"
    yield Line("ok", "hub", f"{state}; {token}")


CHECKS: tuple[Check, ...] = (
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
