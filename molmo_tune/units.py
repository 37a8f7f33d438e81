"""Numbers as people read them: one spelling each for percentages, sizes, counts and durations.

    percent(0.021, 1)             2.1%           gigabytes(4_200_000_000)    4.2 GB
    count(1024, "token")          1,024 tokens   seconds(12.34)              12.3 s
    with_interval(0.8, 0.7, 0.9)  0.800 [0.700, 0.900]

A value and the limit that it missed are written together (`missed`), with enough digits to differ:
"needs 1.0 GB; at most 1.0 GB" helps nobody.

Limitations: JSON files hold plain numbers; they do not pass through here.
"""

from __future__ import annotations

from collections.abc import Callable

BYTES_PER_GB, BYTES_PER_MB = 1_000_000_000, 1_000_000
_MAX_DIGITS = 17  # enough for any two floats to differ

Writer = Callable[[float, int], str]
"""Writes a number with a number of digits: `percent`, `gigabytes`, `seconds`, `difference`, …"""


def percent(fraction: float, digits: int = 0) -> str:
    """Return ``2.1%`` for a fraction of 0.021."""
    return f"{100 * fraction:.{digits}f}%"


def gigabytes(num_bytes: float, digits: int = 1) -> str:
    """Return ``4.2 GB``; a GB is 10⁹ bytes."""
    return f"{num_bytes / BYTES_PER_GB:.{digits}f} GB"


def megabytes(num_bytes: float, digits: int = 0) -> str:
    """Return ``42 MB``; an MB is 10⁶ bytes."""
    return f"{num_bytes / BYTES_PER_MB:.{digits}f} MB"


def seconds(duration_s: float, digits: int = 1) -> str:
    """Return ``12.3 s``."""
    return f"{duration_s:.{digits}f} s"


def frame_rate(fps: float) -> str:
    """Return ``30 fps``, with the digits that the rate has."""
    return f"{fps:g} fps"


def count(number: int, singular: str, plural: str = "") -> str:
    """Return ``1 token`` or ``1,024 tokens``; without `plural`, an s is added."""
    noun = singular if number == 1 else plural or f"{singular}s"
    return f"{number:,} {noun}"


def difference(value: float, digits: int = 1) -> str:
    """Return ``1.2e-05``: how far two tensors are apart."""
    return f"{value:.{digits}e}"


def score(value: float, digits: int = 3) -> str:
    """Return ``0.812``: F1, precision, recall, accuracy."""
    return f"{value:.{digits}f}"


def with_interval(value: float, low: float, high: float) -> str:
    """Return ``0.812 [0.750, 0.861]``: a score and its confidence interval."""
    return f"{score(value)} [{score(low)}, {score(high)}]"


def p_value(p: float) -> str:
    """Return ``p = 0.031``, or ``p < 0.001`` below what three digits show."""
    return f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"


def missed(found: float, limit: float, write: Writer, digits: int = 1) -> tuple[str, str]:
    """Return a value and the limit it missed, with enough digits to differ.

    Args:
        found: the value.
        limit: what it should have kept to.
        write: a function of this module, such as `gigabytes`.
        digits: the fewest digits to write.
    """
    for more in range(digits, _MAX_DIGITS):
        texts = write(found, more), write(limit, more)
        if texts[0] != texts[1]:
            return texts
    return write(found, _MAX_DIGITS), write(limit, _MAX_DIGITS)
