"""Checkpoints → native Molmo 2 model and processor.

A checkpoint is a hub id, a folder in hub layout (the released files, our exports) or ``tiny``, the
base bundled with the package. Models are always transformers' native classes, never remote code,
and no tensor of a model may be missing from its files.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoProcessor, Molmo2ForConditionalGeneration
from transformers.utils import logging as transformers_logging

from molmo_tune import choices
from molmo_tune.encoding.processor import Processor
from molmo_tune.encoding.resize import ExactImageProcessor, ExactVideoProcessor
from molmo_tune.errors import UserError
from molmo_tune.model.molmo import Molmo, MolmoConfig
from molmo_tune.model.quantization import (
    Quantize,
    keep_trainable_kernels,
    quantization_config,
    require_quantized,
)

DtypeName = choices.Dtype
TINY = "tiny"
TINY_FOLDER = Path(__file__).parent.parent / "tiny" / "base"


def checkpoint_source(name: str) -> str:
    """Return what transformers loads from: a folder's path or a hub id.

    Raises:
        UserError: a folder that does not exist or has no configuration.
    """
    source = str(TINY_FOLDER) if name == TINY else name
    folder = Path(source).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(folder, "no config.json", "a checkpoint folder in hub layout")
        return str(folder)
    looks_like_path = source.startswith((".", "/", "~")) or source.count("/") != 1
    if looks_like_path:
        raise UserError("model.name", f"{name!r} is not a folder", "a hub id, a folder or 'tiny'")
    return source


def checkpoint_folder(name: str) -> Path:
    """Return the folder of a checkpoint, downloading a hub id that is not in the local cache."""
    source = checkpoint_source(name)
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(source))


def checkpoint_config(name: str) -> MolmoConfig:
    """Return the native configuration of a checkpoint.

    Raises:
        UserError: no such checkpoint, or one of another architecture.
    """
    source = checkpoint_source(name)
    try:
        config: MolmoConfig = AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        fix = "check the name and the network" if not os.path.isdir(source) else ""  # noqa: PTH112
        raise UserError(name, f"no checkpoint found ({_first_line(error)})", fix=fix) from error
    if config.model_type != "molmo2":
        raise UserError(name, f"a {config.model_type!r} checkpoint", "a Molmo 2 checkpoint")
    return config


def resolve_dtype(name: DtypeName) -> torch.dtype:
    """Return the dtype; ``auto`` is bfloat16 (else float16) on a GPU, float32 on a CPU."""
    if name != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[
            name
        ]
    if not torch.cuda.is_available():
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def load_model(
    name: str, *, dtype: torch.dtype = torch.float32, quantize: Quantize | None = None
) -> Molmo:
    """Load the model in evaluation mode on the CPU, with all parameters frozen.

    Args:
        name: hub id, folder or ``tiny``.
        dtype: of all weights that are not quantized, and of the computation with quantized ones;
            files that are quantized already keep their own.
        quantize: make the decoder's linear layers 4-bit or 8-bit (`quantization`).

    Raises:
        UserError: no such checkpoint, another architecture, or weights missing from the files.
    """
    source = checkpoint_source(name)
    config = checkpoint_config(name)
    if getattr(config, "quantization_config", None):
        dtype = config.dtype or dtype  # its unquantized layers must match
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
    loaded: Molmo = model.requires_grad_(False).eval()
    return loaded


def model_from_tensors(config: MolmoConfig, tensors: dict[str, torch.Tensor]) -> Molmo:
    """Build a frozen model in evaluation mode from tensors, for files that no library loads.

    Args:
        config: native.
        tensors: by native name, all of one dtype; they become the weights.

    Raises:
        ValueError: tensors are missing or unexpected.
    """
    model = Molmo2ForConditionalGeneration._from_config(config, attn_implementation="sdpa")
    try:
        model.load_state_dict(tensors, strict=True, assign=True)
    except RuntimeError as error:
        raise ValueError(_first_line(error)) from error
    loaded: Molmo = model.requires_grad_(False).eval()
    return loaded


def load_processor(name: str) -> Processor:
    """Load the checkpoint's `Molmo2Processor`, with resizing that is the same on every machine.

    Raises:
        UserError: no such checkpoint, or one without processor files.
    """
    source = checkpoint_source(name)
    checkpoint_config(name)
    try:
        processor: Processor = AutoProcessor.from_pretrained(source)
        processor.image_processor = ExactImageProcessor.from_pretrained(source)
        processor.video_processor = ExactVideoProcessor.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise UserError(name, f"has no usable processor files ({_first_line(error)})") from error
    return processor


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


class quiet_loading:  # noqa: N801  (a context manager reads as a verb)
    """Hide transformers' progress bar during a ``with``; the command owns the terminal."""

    def __enter__(self) -> None:
        self._was_on = transformers_logging.is_progress_bar_enabled()
        transformers_logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        if self._was_on:
            transformers_logging.enable_progress_bar()
