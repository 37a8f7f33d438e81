"""Checkpoints → native Molmo 2 model and processor.

One way in for a hub id, a folder in hub layout (the released files, our exports) and the word
``tiny`` (the base bundled with the package). Always transformers' native classes, never remote
code. What was loaded is checked: no tensor of the model may be missing from the files.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoProcessor, Molmo2ForConditionalGeneration
from transformers.utils import logging as transformers_logging

from molmo_tune.encoding.resize import ExactImageProcessor, ExactVideoProcessor
from molmo_tune.errors import UserError
from molmo_tune.model.quantization import (
    Quantize,
    keep_trainable_kernels,
    quantization_config,
    require_quantized,
)

DtypeName = Literal["auto", "float32", "bfloat16", "float16"]
TINY = "tiny"
TINY_FOLDER = Path(__file__).parent.parent / "tiny" / "base"


def checkpoint_source(name: str) -> str:
    """What transformers is asked for: a folder's path or a hub id.

    Raises:
        UserError: a folder is named that does not exist or holds no Molmo 2 configuration.
    """
    source = str(TINY_FOLDER) if name == TINY else name
    folder = Path(source).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(folder, "no config.json", "a checkpoint folder in hub layout")
        return str(folder)
    looks_like_path = source.startswith((".", "/", "~")) or source.count("/") != 1
    if looks_like_path:
        raise UserError("model.name", f"{name!r} is no folder", "a hub id, a folder or 'tiny'")
    return source


def checkpoint_folder(name: str) -> Path:
    """The folder of a checkpoint; a hub id is looked up in the local cache or fetched."""
    source = checkpoint_source(name)
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(source))


def checkpoint_config(name: str) -> Any:
    """The native configuration of a checkpoint.

    Raises:
        UserError: no such checkpoint, or one of another architecture.
    """
    source = checkpoint_source(name)
    try:
        config = AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        fix = "is the hub reachable?" if not os.path.isdir(source) else ""  # noqa: PTH112
        raise UserError(name, f"no checkpoint found ({_first_line(error)})", fix=fix) from error
    if config.model_type != "molmo2":
        raise UserError(name, f"a {config.model_type!r} checkpoint", "a Molmo 2 one")
    return config


def resolve_dtype(name: DtypeName) -> torch.dtype:
    """``auto`` is bfloat16 on a GPU that has it, float16 on one that has not, float32 on a CPU."""
    if name != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[
            name
        ]
    if not torch.cuda.is_available():
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def load_model(
    name: str, *, dtype: torch.dtype = torch.float32, quantize: Quantize | None = None
) -> Any:
    """The model in evaluation mode on the CPU, all parameters frozen.

    Args:
        name: hub id, folder or ``tiny``.
        dtype: of all weights that are not quantized, and in which quantized ones compute; files
            that are quantized already keep their own.
        quantize: store the decoder's linear layers in 4 or 8 bits (`quantization`).

    Raises:
        UserError: no such checkpoint, another architecture, or weights missing from the files.
    """
    source = checkpoint_source(name)
    config = checkpoint_config(name)
    if getattr(config, "quantization_config", None):
        dtype = config.dtype or dtype  # other types would meet its whole parts in the middle
    options = {"quantization_config": quantization_config(quantize, dtype)} if quantize else {}
    with quiet_loading():
        try:
            model, info = Molmo2ForConditionalGeneration.from_pretrained(
                source,
                dtype=dtype,
                attn_implementation="sdpa",
                output_loading_info=True,
                **options,
            )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise UserError(name, f"does not load ({_first_line(error)})") from error
    if info["missing_keys"] or info["mismatched_keys"]:
        bad = sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]]))
        raise UserError(name, f"{len(bad)} tensors missing or misshapen, the first {bad[0]}")
    if quantize:
        require_quantized(model, quantize, dtype)
        keep_trainable_kernels(model)
    model.requires_grad_(False)
    return model.eval()


def model_from_tensors(config: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """A model of tensors in memory, in evaluation mode, frozen: for files no library loads.

    Args:
        config: native.
        tensors: by native name, all of one type; they become the weights.

    Raises:
        ValueError: not exactly the model's tensors.
    """
    model = Molmo2ForConditionalGeneration._from_config(config, attn_implementation="sdpa")
    try:
        model.load_state_dict(tensors, strict=True, assign=True)
    except RuntimeError as error:
        raise ValueError(_first_line(error)) from error
    model.requires_grad_(False)
    return model.eval()


def load_processor(name: str) -> Any:
    """The checkpoint's `Molmo2Processor`, with resizing that is the same on every machine."""
    source = checkpoint_source(name)
    checkpoint_config(name)
    try:
        processor = AutoProcessor.from_pretrained(source)
        processor.image_processor = ExactImageProcessor.from_pretrained(source)
        processor.video_processor = ExactVideoProcessor.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise UserError(name, f"has no usable processor files ({_first_line(error)})") from error
    return processor


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


class quiet_loading:  # noqa: N801  (a context manager reads as a verb)
    """Without the weight loader's progress bar, which belongs to whoever owns the terminal."""

    def __enter__(self) -> None:
        self._was_on = transformers_logging.is_progress_bar_enabled()
        transformers_logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        if self._was_on:
            transformers_logging.enable_progress_bar()
