"""Graphics cards by their memory, and what of it a forecast leaves alone.

A card of N GB is taken for 0.97·N·10⁹ bytes, because some show a little less than N·10⁹ when their
error correction is on. That share and the margin are **assumptions that were not measured**; the
margin is a part for the CUDA context, the libraries' workspaces and kernels, and a share of the
peak for the gaps that PyTorch's allocator leaves between blocks.

What it does not do: look at the cards of this machine (`molmo-tune doctor` does).
"""

from __future__ import annotations

BYTES_PER_GB = 970_000_000
CARDS: tuple[tuple[str, int], ...] = (
    ("T4, RTX 4080", 16),
    ("RTX 4090, L4, A10", 24),
    ("A100 40 GB", 40),
    ("L40S, A6000", 48),
    ("A100 80 GB, H100", 80),
    ("H200", 141),
)
"""Names and memory in gigabytes as they are sold, smallest first."""

CONTEXT_BYTES = 1_000_000_000
GAPS_SHARE = 0.05


def needed_bytes(peak_bytes: int) -> int:
    """Memory that a card must have for a run with this peak."""
    return CONTEXT_BYTES + round(peak_bytes * (1 + GAPS_SHARE))


def fits(peak_bytes: int, memory_gb: float) -> bool:
    """Whether a run with this peak fits a card, margin included."""
    return needed_bytes(peak_bytes) <= memory_gb * BYTES_PER_GB
