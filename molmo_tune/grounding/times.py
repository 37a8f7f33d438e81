"""Times of a clip: how the model writes them, and how the spellings in label files are read.

The model was trained on seconds with one decimal, rounded by Python and counted from the start of
the clip. Label files also bring ``MM:SS.ff`` text. This module knows both and nothing else; where a
time stands inside an answer is `molmo_tune.grounding.text`'s business.
"""

from __future__ import annotations

import math
from datetime import datetime

from molmo_tune.errors import UserError

Time = float | int | str


def read_time(time_s: Time) -> float | int | str:
    """Number of seconds that a time stands for, or the text itself when it is not a time.

    Args:
        time_s: a number of seconds, or text: ``MM:SS.ff``, ``HH:MM:SS.ff`` or a number. numpy
            numbers become Python's, because they round halves differently.
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
    """Sort key of a time: by seconds, text that is no time last."""
    value = read_time(time_s)
    return isinstance(value, str), value


def format_time(time_s: Time, *, ai2_compat: bool = False) -> str:
    """Time as the model writes it: seconds with one decimal, ``3600.5``, never ``mm:ss``.

    Args:
        time_s: seconds from the start of the clip. An ``int`` stays one (``60`` gives ``"60"``,
            ``60.0`` gives ``"60.0"``); text is read by `read_time` and kept when it is no time.
        ai2_compat: write negative and non-finite times too, as the reference does.

    Raises:
        UserError: the time is negative or not finite. Such text makes the whole answer unreadable.

    Rounding is Python's on the binary value, as in the reference: 0.25 gives ``0.2``.
    """
    value = read_time(time_s)
    if isinstance(value, str):
        return value
    if ai2_compat:
        return str(round(value, 1))
    if not math.isfinite(value) or round(value, 1) < 0:
        raise UserError("time", f"{time_s!r}", "seconds from the start of the clip, 0 or later")
    return str(abs(round(value, 1)))  # abs: -0.01 must not be written as -0.0


def written_time(time_s: float) -> float:
    """The number that an answer spells for a time: what `format_time` writes, read back."""
    return float(format_time(float(time_s)))
