"""KITTI MOTS: masks of `formats.tracking._mots` whose frames count from 0.

Nothing in the files tells the two kinds of MOTS apart, so the user names the format.
"""

from __future__ import annotations

from functools import partial

from molmo_tune.labels.formats.tracking._mots import looks_like_mots, read_mots
from molmo_tune.labels.reader import Reader

READER = Reader(
    partial(read_mots, first=0),
    looks_like_mots,
    "**/*.[tp][xn][tg]",
    "KITTI MOTS (frames from 0: txt with run lengths, or 16-bit pictures)",
)
