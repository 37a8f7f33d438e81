"""Do two pictures show nearly the same: difference hashes, 256 bits a picture.

A picture is made 17 by 16 grays; each bit says whether a gray is brighter than the one left of it
(D. Looft and N. Krawetz's "dHash"). Other sizes, formats and qualities of one picture differ in a
few bits, neighboring frames of a film in some, different pictures in about half. Pictures without
structure say nothing and have no hash.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 16
NUM_BITS = SIDE * SIDE
_FLAT = 2.0  # standard deviation in gray levels under which there is nothing to compare
_AT_ONCE = 20_000_000  # pairs compared, two bytes each

Hashes = NDArray[np.uint64]
"""``(n, 4)``."""


def hash_of(picture: NDArray[np.uint8]) -> Hashes | None:
    """The four words of a picture ``(H, W, 3)``; None when it is flat."""
    small = Image.fromarray(picture).convert("L").resize((SIDE + 1, SIDE), Image.Resampling.BOX)
    grays = np.asarray(small, np.int16)
    if grays.std() < _FLAT:
        return None
    return np.packbits(grays[:, 1:] > grays[:, :-1]).view(np.uint64)


def nearest(those: Hashes, among: Hashes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each of `those` the place of the most similar one and how many bits differ."""
    places, bits = [], []
    rows = max(1, _AT_ONCE // max(len(among), 1))
    for start in range(0, len(those), rows):
        part = those[start : start + rows, None, :]
        differ = np.zeros((part.shape[0], len(among)), np.uint16)
        for word in range(part.shape[2]):
            differ += np.bitwise_count(part[..., word] ^ among[None, :, word])
        places.append(differ.argmin(axis=1))
        bits.append(differ.min(axis=1).astype(np.int64))
    return np.concatenate(places), np.concatenate(bits)
