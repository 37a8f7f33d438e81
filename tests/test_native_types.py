"""The types in `encoding/processor.py` and `model/molmo.py` name what transformers really has."""

from __future__ import annotations

from typing import get_type_hints

import pytest

from molmo_tune.encoding.processor import ImageProcessor, Processor, Tokenizer, VideoProcessor
from molmo_tune.model.loading import load_model, load_processor
from molmo_tune.model.molmo import (
    AdapterConfig,
    Decoder,
    Molmo,
    MolmoBody,
    MolmoConfig,
    TextConfig,
    VisionConfig,
    VisionTower,
)


def _named(kind: type) -> set[str]:
    methods = {name for name, value in vars(kind).items() if callable(value)} - {"__init__"}
    return set(get_type_hints(kind)) & set(vars(kind).get("__annotations__", {})) | {
        name for name in methods if not name.startswith("_") or name == "__call__"
    }


def test_a_loaded_processor_has_what_the_protocols_name() -> None:
    processor = load_processor("tiny")
    parts = {
        Processor: processor,
        Tokenizer: processor.tokenizer,
        ImageProcessor: processor.image_processor,
        VideoProcessor: processor.video_processor,
    }
    for kind, part in parts.items():
        assert _named(kind)
        assert not {name for name in _named(kind) if not hasattr(part, name)}, kind


def test_a_loaded_model_has_what_the_types_name() -> None:
    model = load_model("tiny")
    config = model.config
    parts = {
        Molmo: model,
        MolmoBody: model.model,
        Decoder: model.model.language_model,
        VisionTower: model.model.vision_tower,
        MolmoConfig: config,
        TextConfig: config.text_config,
        VisionConfig: config.vision_config,
        AdapterConfig: config.adapter_config,
    }
    for kind, part in parts.items():
        assert _named(kind)
        assert not {name for name in _named(kind) if not hasattr(part, name)}, kind


@pytest.mark.parametrize("name", ["encode", "no_such_call"])
def test_the_comparison_sees_what_is_missing(name: str) -> None:
    kind = type("Odd", (), {name: lambda self: None})
    missing = {n for n in _named(kind) if not hasattr(load_processor("tiny").tokenizer, n)}
    assert missing == ({name} if name == "no_such_call" else set())
