"""Difference hashes of images, 256 bits each, to find images that look nearly the same.

An image is resized to 17 by 16 grays; each bit says whether a gray is brighter than its left
neighbor (D. Looft and N. Krawetz's "dHash"). Another size, format or quality of an image changes a
few bits, a neighboring frame of a video some, a different image about half. An image without
structure has no hash.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 16
NUM_BITS = SIDE * SIDE
_FLAT = 2.0  # standard deviation in gray levels below which an image has no structure
_CHUNK_PAIRS = 20_000_000  # pairs compared at a time, two bytes each

Hashes = NDArray[np.uint64]
"""Hashes ``(n, 4)``, or one hash ``(4,)``."""


def hash_of(image: NDArray[np.uint8]) -> Hashes | None:
    """Return the hash ``(4,)`` of an RGB image ``(H, W, 3)``, or None without structure."""
    small = Image.fromarray(image).convert("L").resize((SIDE + 1, SIDE), Image.Resampling.BOX)
    grays = np.asarray(small, np.int16)
    if grays.std() < _FLAT:
        return None
    return np.packbits(grays[:, 1:] > grays[:, :-1]).view(np.uint64)


def nearest(queries: Hashes, among: Hashes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return, for each query, the index of the most similar hash and the number of bits differing.

    Args:
        queries: ``(n, 4)``.
        among: ``(m, 4)``, at least one.

    Returns:
        Two arrays ``(n,)``.
    """
    indices, bits = [], []
    rows = max(1, _CHUNK_PAIRS // max(len(among), 1))
    for start in range(0, len(queries), rows):
        part = queries[start : start + rows, None, :]
        differ = np.zeros((part.shape[0], len(among)), np.uint16)
        for word in range(part.shape[2]):
            differ += np.bitwise_count(part[..., word] ^ among[None, :, word])
        indices.append(differ.argmin(axis=1))
        bits.append(differ.min(axis=1).astype(np.int64))
    return np.concatenate(indices), np.concatenate(bits)
