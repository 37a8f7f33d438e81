"""MOTSChallenge: masks of `formats.tracking._mots` whose frames count from 1.

Nothing in the files tells the two kinds of MOTS apart, so the user names the format.
"""

from __future__ import annotations

from functools import partial

from molmo_tune.labels.formats.tracking._mots import looks_like_mots, read_mots
from molmo_tune.labels.reader import Reader

READER = Reader(
    partial(read_mots, first=1),
    looks_like_mots,
    "**/*.[tp][xn][tg]",
    "MOTSChallenge (frames from 1: txt with run lengths, or 16-bit pictures)",
)
