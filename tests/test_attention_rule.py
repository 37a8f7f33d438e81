"""The four forms of the attention rule allow the same pairs, and compute the same numbers.

`dense_mask` is the plain transcription; the others are compared with it on random rows: packs,
trees, padding, text without vision, one long clip.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from molmo_tune.model.attention_rule import allows, dense_mask, pieces, rectangles
from molmo_tune.model.flash_attention import flash_attention
from molmo_tune.model.rectangle_attention import rectangle_attention

Row = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def _example(random: np.random.Generator, has_vision: bool, branches: int) -> np.ndarray:
    """Columns ``branch, vision`` of one example."""
    prefix = np.zeros((random.integers(2, 24), 2), int)
    if has_vision:
        prefix[1:, 1] = random.random(len(prefix) - 1) < 0.7
    own = [np.full((random.integers(1, 6), 2), (number, 0)) for number in range(1, branches + 1)]
    return np.concatenate([prefix, *own])


def _row(random: np.random.Generator, length: int, kind: str) -> np.ndarray:
    """Columns ``example, branch, vision`` of one row, padded with example -1."""
    found: list[np.ndarray] = []
    count = 1 if kind == "one clip" else int(random.integers(1, 5))
    for number in range(count):
        has_vision = kind != "text" and (kind == "one clip" or random.random() < 0.7)
        branches = int(random.integers(0, 4)) if kind == "trees" else 0
        example = _example(random, has_vision, branches)
        found.append(np.concatenate([np.full((len(example), 1), number), example], axis=1))
    row = np.concatenate(found)[:length]
    return np.concatenate([row, np.full((length - len(row), 3), (-1, 0, 0))])


def _rows(seed: int, kind: str) -> Row:
    random = np.random.default_rng(seed)
    rows = torch.from_numpy(np.stack([_row(random, 90, kind) for _ in range(2)]))
    return rows[..., 0], rows[..., 1], rows[..., 2].bool()


def _pairs(row: Row) -> torch.Tensor:
    """`dense_mask` without what padding reads of itself: ``(B, L, L)``."""
    return dense_mask(*row)[:, 0] & (row[0] >= 0)[:, :, None]


KINDS = ("packs", "trees", "text", "one clip")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(5))
def test_rectangles_are_the_dense_mask(seed: int, kind: str) -> None:
    row = _rows(seed, kind)
    found = torch.zeros_like(_pairs(row))
    for one in rectangles(*row):
        size = (one.queries.stop - one.queries.start, one.keys.stop - one.keys.start)
        allowed = torch.ones(size, dtype=torch.bool).tril() if one.mask is None else one.mask
        assert not found[one.row, one.queries].any(), "a query is in two rectangles"
        found[one.row, one.queries, one.keys] = allowed
    assert torch.equal(found, _pairs(row))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(5))
def test_the_predicate_is_the_dense_mask(seed: int, kind: str) -> None:
    row = _rows(seed, kind)
    length, index = row[0].shape[1], torch.arange(row[0].shape[1])
    may_read = allows(*row)
    for number in range(len(row[0])):
        rows, head = torch.tensor(number), torch.tensor(0)
        found = may_read(rows, head, index[:, None].expand(length, length), index[None, :])
        assert torch.equal(found, dense_mask(*row)[number, 0])


def _dense(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, row: Row) -> torch.Tensor:
    groups = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(groups, dim=1) for x in (k, v))
    output = F.scaled_dot_product_attention(q, k, v, attn_mask=dense_mask(*row), scale=0.3)
    return output.transpose(1, 2) * (row[0] >= 0)[..., None, None]


COMPUTED: dict[str, Callable[..., torch.Tensor]] = {
    "rectangles": lambda q, k, v, row: rectangle_attention(q, k, v, rectangles(*row), 0.3),
    "pieces": lambda q, k, v, row: flash_attention(q, k, v, pieces(*row), 0.3),
}


@pytest.mark.parametrize("way", COMPUTED)
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_and_gradients_are_those_of_the_dense_mask(kind: str, way: str) -> None:
    row = _rows(7, kind)
    torch.manual_seed(0)
    shapes = ((2, 4, 90, 8), (2, 2, 90, 8), (2, 2, 90, 8))
    tensors = [torch.randn(shape, requires_grad=True) for shape in shapes]
    weight = torch.randn(2, 90, 4, 8)
    wanted = _dense(*tensors, row)
    found = COMPUTED[way](*tensors, row)
    assert (found - wanted).abs().max() < 1e-5
    ours = torch.autograd.grad((found * weight).sum(), tensors)
    theirs = torch.autograd.grad((wanted * weight).sum(), tensors)
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).abs().max() < 2e-5


@pytest.mark.parametrize(
    ("examples", "branches", "message"),
    [([0, 1, 0], [0, 0, 0], "stand together"), ([0, 0, 0], [1, 0, 0], "follow its prefix")],
)
def test_rows_out_of_order_are_refused(
    examples: list[int], branches: list[int], message: str
) -> None:
    ids = (torch.tensor([examples]), torch.tensor([branches]), torch.zeros(1, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match=message):
        rectangles(*ids)
