"""The contents of `export_report.json`, which the model card and the command line read back."""

from __future__ import annotations

from typing import Any, TypedDict

REPORT_FILE = "export_report.json"
ProbeAnswers = tuple[tuple[str, str, str], ...]
"""(probe, answer before, answer after) for each probe."""


class TensorCounts(TypedDict):
    """Number of tensors by outcome, and the names of all but the unchanged ones."""

    unchanged: int
    merged: int
    names: dict[str, list[str]]


class QuantizationReport(TypedDict):
    """How far a quantized checkpoint is from the merged one; see `quantized.quantize`."""

    kind: str
    kept_in_bfloat16: list[str]
    diff_to_quantized_in_memory: float
    max_logit_diff: float
    mean_logit_diff: float
    answers: ProbeAnswers
    equal_answers: int


class VllmReport(TypedDict, total=False):
    """What to know before serving with vLLM; see `verification.vllm_requirements`.

    ``was_run`` and ``max_lora_rank`` are of adapters, ``unmet`` and ``image_patch_row`` of
    checkpoints.
    """

    version: str
    was_run: bool
    max_lora_rank: int
    unmet: list[str]
    hf_overrides: dict[str, int]
    image_patch_row: float


class _Always(TypedDict):
    layout: str


class ExportReport(_Always, total=False):
    """All keys; which of them are there depends on the kind of export."""

    base: str
    converted_from: str
    like: str
    tensors: TensorCounts
    modules: list[str]
    largest_update_diff: float
    max_logit_diff: float
    rounding_diff: float
    merge_floor: float
    answers: ProbeAnswers
    equal_answers: int
    processor: dict[str, Any]
    base_recorded: bool
    quantized: QuantizationReport
    vllm: VllmReport
