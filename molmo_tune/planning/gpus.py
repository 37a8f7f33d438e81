"""GPUs by their memory, and the margin a forecast adds to the peak.

A GPU of N GB counts as 0.97·N·10⁹ bytes, because some have slightly less than N·10⁹ with error
correction on. This fraction and the margin are **assumptions**: a constant for the CUDA context,
workspaces and kernels, and a fraction of the peak for the gaps between the allocator's blocks. On
an H200 the allocator reserved 1.0 to 1.7 GB more than the forecast peak in four 4B steps
(2026-11-26); the CUDA context was not measured.

Limitations: this machine's GPUs are not looked at (`molmo-tune doctor` does that).
"""

from __future__ import annotations

BYTES_PER_GB = 970_000_000
GPUS: tuple[tuple[str, int], ...] = (
    ("T4, RTX 4080", 16),
    ("RTX 4090, L4, A10", 24),
    ("A100 40 GB", 40),
    ("L40S, A6000", 48),
    ("A100 80 GB, H100", 80),
    ("H200", 141),
)
"""Names and nominal memory in gigabytes, smallest first."""

CONTEXT_BYTES = 1_000_000_000
GAPS_FRACTION = 0.05


def needed_bytes(peak_bytes: int) -> int:
    """Return the memory that a run with this peak needs, margin included."""
    return CONTEXT_BYTES + round(peak_bytes * (1 + GAPS_FRACTION))


def fits(peak_bytes: int, memory_gb: float) -> bool:
    """Whether a run with this peak fits a GPU of `memory_gb` gigabytes, margin included."""
    return needed_bytes(peak_bytes) <= memory_gb * BYTES_PER_GB
