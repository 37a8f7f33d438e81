"""Settings that allow a few words: the one place where the words are listed.

The recipe, the command line and the code that acts on a setting all take its type from here, so a
word added here is accepted everywhere and refused nowhere. `words_of` gives the words to argparse.

Limitations: no defaults (those of recipe keys are in `molmo_tune.recipe.sections`), and no label
formats (`molmo_tune.label_formats`), which are files.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

# The model and its adapter
Component = Literal["language", "connector", "vision"]
LayeredComponent = Literal["language", "vision"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
AttentionBackend = Literal["sdpa", "flex", "flash"]
Attention = Literal["auto", AttentionBackend]
BaseQuantization = Literal["nf4", "int8"]
AdapterMethod = Literal["lora", "dora", "pissa", "full"]

# Labels and media
Units = Literal["pixel", "percent", "unit"]
BoxStyle = Literal["xyxy", "xywh", "cxcywh"]
Sampling = Literal["uniform_last_frame", "fps"]
Decoder = Literal["pyav", "decord", "torchcodec"]

# Training
Weighting = Literal["flat", "root_length", "root_branches", "root_both"]
OptimizerName = Literal["adamw", "adamw_8bit", "paged_adamw_8bit"]
Schedule = Literal["cosine", "linear", "constant"]
Precision = Literal["32-true", "bf16-true", "bf16-mixed", "16-mixed", "auto"]
Accelerator = Literal["auto", "cpu", "gpu"]
Strategy = Literal["auto", "ddp", "fsdp"]

# Export
ExportDtype = Literal["base", "float32", "bfloat16"]
CheckpointLayout = Literal["hub", "native", "ai2"]
AdapterLayout = Literal["adapter", "vllm-adapter"]
ExportLayout = Literal[CheckpointLayout, AdapterLayout]
ExportQuantization = Literal[BaseQuantization, "w4a16", "fp8"]


def words_of(choice: Any) -> tuple[Any, ...]:
    """Return the words of a type in this module, in its order."""
    return get_args(choice)
