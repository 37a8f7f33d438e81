"""A forecast as tables for a terminal, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.table import Table

from molmo_tune.planning.adjustments import Adjustment
from molmo_tune.planning.forecast import BUCKETS, Forecast
from molmo_tune.planning.gpus import (
    BYTES_PER_GB,
    CONTEXT_BYTES,
    GAPS_FRACTION,
    GPUS,
    fits,
    needed_bytes,
)
from molmo_tune.planning.step import (
    BACKWARD,
    BATCH,
    BUFFERS,
    DECODER,
    GRADIENTS,
    LOSS,
    OPTIMIZER,
    TRAINED,
    UPDATE,
    VISION,
    StepCost,
)

COMPARED = (
    "Compared with one H200: four 4B steps peaked within 1.1% of their forecasts; other GPUs are "
    "untested."
)
MARGIN = (
    f"A GPU of N GB counts as {BYTES_PER_GB / 1e9:g} N; the margin is {CONTEXT_BYTES / 1e9:g} GB "
    f"for the CUDA context plus {GAPS_FRACTION:.0%} of the peak for gaps in the allocator: "
    "assumptions."
)
OLDER = (
    "GPUs older than Ampere (T4) have neither bfloat16 nor FlashAttention: plan for them with "
    "--set model.dtype=float16 --set model.attention=sdpa."
)
_CATEGORIES = (
    (TRAINED, TRAINED),
    (GRADIENTS, GRADIENTS),
    (BUCKETS, "ddp buckets"),
    (OPTIMIZER, OPTIMIZER),
    (BUFFERS, BUFFERS),
    (BATCH, BATCH),
    (VISION, "activations, vision and connector"),
    (DECODER, "activations, language model"),
    (LOSS, "loss"),
    (BACKWARD, "backward pass: recomputed, temporary"),
    (UPDATE, "optimizer step: temporary"),
)


def rows_table(found: Forecast) -> Table:
    """Return a table of what the rows contain."""
    table = Table("row", "samples", "tokens", "crops or frames")
    for row in found.counted.rows[: len(found.costs)]:
        figures = (len(row.samples), row.num_tokens, row.num_crops)
        table.add_row(row.name, *(f"{figure:,}" for figure in figures))
    return table


def memory_table(found: Forecast) -> Table:
    """Return a table of the memory at the peak by category, in gigabytes of 10⁹ bytes."""
    table = Table("GB at the peak", *(row.name for row in found.counted.rows))
    for column in table.columns[1:]:
        column.justify = "right"
    for key, name in _lines(found.costs):
        table.add_row(name, *(_gb(cost.at_peak.get(key, 0)) for cost in found.costs))
    table.add_section()
    table.add_row("peak", *(_gb(cost.peak_bytes) for cost in found.costs))
    table.add_row("with the margin", *(_gb(needed_bytes(c.peak_bytes)) for c in found.costs))
    return table


def _lines(costs: tuple[StepCost, ...]) -> Iterator[tuple[str, str]]:
    """Yield categories that occur and their names, the frozen weights first."""
    present = {key for cost in costs for key in cost.at_peak}
    for key in sorted(present - dict(_CATEGORIES).keys()):
        yield key, key
    for key, name in _CATEGORIES:
        if key in present:
            yield key, name


def cards_table(found: Forecast) -> Table:
    """Return a table of the GPUs that the rows fit."""
    table = Table("GPU", "GB", "fits")
    for name, memory_gb in GPUS:
        verdicts = [row.name for row, cost in _costs(found) if fits(cost.peak_bytes, memory_gb)]
        every = "every row" if len(verdicts) == len(found.costs) else ", ".join(verdicts)
        table.add_row(name, str(memory_gb), every or "no")
    return table


def steps_line(found: Forecast) -> str:
    """Return a line with the steps, the rows of a step, and the epochs."""
    trainer, counted = found.recipe.trainer, found.counted
    rows = trainer.batch_size * trainer.accumulate_grad_batches
    text = f"{trainer.max_steps} steps of {rows} rows on one device"
    if counted.rows_per_epoch is not None:
        epochs = trainer.max_steps * rows / counted.rows_per_epoch
        text += f", {rows * counted.samples_per_row:.1f} sequences a step, {epochs:.1f} epochs"
    return text


def flops_line(found: Forecast) -> str:
    """Return a line with the FLOPs, as PyTorch's formulas count them."""
    step = found.num_step_flops
    run = step * found.recipe.trainer.max_steps
    return (
        f"{step:.2e} FLOPs per step of typical rows, {run:.2e} per run (attention counted "
        "unmasked); time is not estimated"
    )


def as_json(found: Forecast, memory_gb: float | None, tried: list[Adjustment]) -> dict[str, Any]:
    """Return everything in the tables, in bytes."""
    return {
        "source": found.counted.source,
        "rows": [
            {
                "name": row.name,
                "num_samples": len(row.samples),
                "num_tokens": row.num_tokens,
                "num_crops": row.num_crops,
                "peak_bytes": cost.peak_bytes,
                "needed_bytes": needed_bytes(cost.peak_bytes),
                "at_peak_bytes": cost.at_peak,
                "resting_bytes": cost.resting_bytes,
                "num_batch_flops": cost.num_flops,
            }
            for row, cost in _costs(found)
        ],
        "steps": steps_line(found),
        "num_step_flops": found.num_step_flops,
        "cards": {name: fits(found.peak_bytes, gb) for name, gb in GPUS},
        "memory_gb": memory_gb,
        "fits": None if memory_gb is None else fits(found.peak_bytes, memory_gb),
        "remedies": [{"set": one.settings, "peak_bytes": one.peak_bytes} for one in tried],
        "remarks": [*found.remarks, MARGIN, OLDER, COMPARED],
    }


def _costs(found: Forecast) -> Iterator[tuple[Any, StepCost]]:
    yield from zip(found.counted.rows, found.costs, strict=False)


def _gb(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f}"
