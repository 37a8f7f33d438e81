"""The files next to the weights: configuration, processor, tokenizer, chat template, remote code.

The base's files are copied, with two changes. `config.json` gets the fields of the layout and the
dtype of the weights. The processor files get the limits of the run (frames, frame rate, crops,
frame sampling): a model trained on 128 frames and served 384 sees inputs unlike its training data,
and nothing would report it.

Limitations: the processor files carry the right limits, but the native Transformers video
processor samples frames at other times than training did.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from molmo_tune.atomic_files import write_json
from molmo_tune.encoding.items import MediaLimits
from molmo_tune.errors import UserError
from molmo_tune.export.layouts.hub_config import hub_config
from molmo_tune.export.layouts.tensor_layouts import Layout

CONFIG = "config.json"
IMAGE, VIDEO, PROCESSOR = (
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
)
_SECTIONS = {IMAGE: "image_processor", VIDEO: "video_processor"}  # of a native `PROCESSOR` file
_NOT_COPIED = (".safetensors", ".safetensors.index.json", ".bin", ".pt", ".gitattributes", ".md")
_REMOTE_CODE = ".py"


def side_files(base: Path) -> list[Path]:
    """Return the files of a checkpoint other than weights, model card and trainer settings."""
    files = (file for file in sorted(base.iterdir()) if file.is_file())
    return [
        file for file in files if not file.name.endswith(_NOT_COPIED) and file.name != "config.yaml"
    ]


def copy_model_files(
    base: Path, out: Path, layout: Layout, dtype: torch.dtype | None, limits: MediaLimits | None
) -> None:
    """Write everything but the weights of a checkpoint in the hub or native layout.

    Args:
        base: folder of the base's files, in either layout.
        out: existing folder.
        layout: ``hub`` or ``native``.
        dtype: of the weights; None for the base's.
        limits: written into the processor files; None leaves them unchanged.
    """
    copy_processor_files(base, out, limits)
    for file in side_files(base):
        if file.suffix == _REMOTE_CODE and layout == "hub":
            shutil.copyfile(file, out / file.name)
    config = json.loads((base / CONFIG).read_text(encoding="utf-8"))
    config = hub_config(config) if layout == "hub" else native_config(base)
    if dtype is not None:
        key = "torch_dtype" if "torch_dtype" in config else "dtype"
        config[key] = str(dtype).removeprefix("torch.")
    write_json(out / CONFIG, config)
    if layout == "native":
        for name in (IMAGE, VIDEO, PROCESSOR):  # or trust_remote_code would look for code
            _edit(out / name, lambda file: file.pop("auto_map", None) and None)


def copy_processor_files(base: Path, out: Path, limits: MediaLimits | None) -> None:
    """Copy processor, tokenizer, chat template and generation settings, with the run's limits."""
    for file in side_files(base):
        if file.suffix != _REMOTE_CODE and file.name != CONFIG:
            shutil.copyfile(file, out / file.name)
    _split_sections(out)
    if limits is not None:
        _edit(out / IMAGE, lambda file: file.update(image_settings(limits)))
        _edit(out / VIDEO, lambda file: file.update(video_settings(limits)))


def image_settings(limits: MediaLimits) -> dict[str, object]:
    """Return the image processor fields that the run sets."""
    return {"max_crops": limits.max_crops}


def video_settings(limits: MediaLimits) -> dict[str, object]:
    """Return the video processor fields that the run sets."""
    return {
        "num_frames": limits.max_frames,
        "max_fps": limits.max_fps,
        "frame_sample_mode": limits.sampling,
    }


def native_config(base: Path) -> dict[str, Any]:
    """Return `config.json` as Transformers writes it, without references to remote code."""
    config: dict[str, Any] = AutoConfig.from_pretrained(str(base)).to_dict()
    config.pop("auto_map", None)
    config["architectures"] = ["Molmo2ForConditionalGeneration"]
    return config


def _split_sections(out: Path) -> None:
    """Split the processor file of a native `save_pretrained` into the files as released."""
    joint = out / PROCESSOR
    contents = json.loads(joint.read_text(encoding="utf-8")) if joint.is_file() else {}
    for name, section in _SECTIONS.items():
        if section in contents and not (out / name).is_file():
            write_json(out / name, contents.pop(section))
            write_json(joint, contents)


def _edit(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a JSON file; without a change in its contents, it keeps its bytes."""
    try:
        contents: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(file.name, "missing or not JSON", "the base's processor files") from error
    before = json.dumps(contents)
    change(contents)
    if json.dumps(contents) != before:
        write_json(file, contents)
