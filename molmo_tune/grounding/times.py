"""Times of a clip: how the model writes them, and how to read the formats of label files.

The model was trained on seconds from the start of the clip, with one decimal, rounded by Python.
Label files also contain ``MM:SS.ff`` text. `molmo_tune.grounding.text` places times in answers.
"""

from __future__ import annotations

import math
from datetime import datetime

from molmo_tune.errors import UserError

Time = float | int | str


def read_time(time_s: Time) -> float | int | str:
    """Return a time in seconds, or the text itself if it is not a time.

    Args:
        time_s: a number of seconds, or text: ``MM:SS.ff``, ``HH:MM:SS.ff`` or a number. NumPy
            numbers become Python numbers, because they round halves differently.
    """
    if isinstance(time_s, str):
        return _read_text(time_s)
    item = getattr(time_s, "item", None)
    return item() if callable(item) else time_s


def _read_text(text: str) -> float | str:
    for layout in ("%M:%S.%f", "%H:%M:%S.%f"):
        try:
            at = datetime.strptime(text, layout)
        except ValueError:
            continue
        return at.hour * 3600 + at.minute * 60 + at.second + at.microsecond / 1_000_000
    try:
        return float(text)
    except ValueError:
        return text


def time_order(time_s: Time) -> tuple[bool, float | str]:
    """Return the sort key of a time: by seconds; text that is not a time comes last."""
    value = read_time(time_s)
    return isinstance(value, str), value


def format_time(time_s: Time, *, ai2_compat: bool = False) -> str:
    """Return a time as the model writes it: seconds with one decimal, never ``mm:ss``.

    Python rounds the binary value, as in the reference: 0.25 gives ``0.2``.

    Args:
        time_s: seconds from the start of the clip. An ``int`` stays one (``60`` gives ``"60"``,
            ``60.0`` gives ``"60.0"``). `read_time` reads text; other text is returned unchanged.
        ai2_compat: write negative and non-finite times too, as the reference does.

    Raises:
        UserError: the time is negative or not finite, which would make the answer unreadable.
    """
    value = read_time(time_s)
    if isinstance(value, str):
        return value
    if ai2_compat:
        return str(round(value, 1))
    if not math.isfinite(value) or round(value, 1) < 0:
        raise UserError("time", f"{time_s!r}", "seconds from the start of the clip, 0 or later")
    return str(abs(round(value, 1)))  # abs: write -0.01 as 0.0, not -0.0


def written_time(time_s: float) -> float:
    """Return the number that an answer states for a time, that is, rounded by `format_time`."""
    return float(format_time(float(time_s)))
