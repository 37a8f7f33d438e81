"""Which token attends to which: the only place that decides it.

Molmo 2 is a causal language model with one exception: all vision tokens of an example (patches,
column and start/end tokens of all its images, crops and frames) see each other in both directions.
Packs and message trees add two limits. With example number e, branch number b (0 = the prefix that
all branches share) and positions q and k in the row, query q reads key k if

    e_q = e_k                      nothing crosses examples
    k ≤ q, or both are vision      causal, with the vision overlay
    b_k = 0 or b_k = b_q           the prefix and its own branch

The rule is written four times, once for each way to compute it; tests compare the four with each
other and with the reference's logits:

    `dense_mask`    every pair of a row: exact on any input, and what the others are tested against
    `rectangles`    each example alone, for PyTorch's scaled-dot-product attention
    `allows`        a predicate of two indices, for FlexAttention (`flex_attention`)
    `pieces`        three disjoint sets of pairs that FlashAttention kernels can compute

              prefix P (v = vision)   branch 1   branch 2
    P         causal ∪ v→later v         ·          ·          own   segment by segment, causal
    branch 1  all                      causal       ·          back  branches read their prefix
    branch 2  all                        ·        causal       ahead vision reads later vision

FlashAttention kernels take no mask, and transformers silently drops the overlay there; so the
pieces are computed one by one and merged by their log-sum-exp (`flash_attention`). Reversing the
vision tokens of an example and shifting them by one turns "strictly later" into "causal".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby

import torch

Predicate = Callable[..., torch.Tensor]


def dense_mask(
    example_ids: torch.Tensor, branch_ids: torch.Tensor, is_vision: torch.Tensor
) -> torch.Tensor:
    """Return a boolean mask ``(B, 1, L, L)``, true where the query (row) reads the key (column).

    Args:
        example_ids: ``(B, L)``, -1 on padding.
        branch_ids: ``(B, L)``, 0 on shared prefixes.
        is_vision: ``(B, L)`` bool.

    Padding reads only itself, so that no row of the softmax is empty.
    """
    length = example_ids.shape[1]
    index = torch.arange(length, device=example_ids.device)
    causal = index[:, None] >= index[None, :]
    overlay = is_vision[:, :, None] & is_vision[:, None, :]
    same_example = example_ids[:, :, None] == example_ids[:, None, :]
    keys_branch = branch_ids[:, None, :]
    same_branch = (keys_branch == 0) | (keys_branch == branch_ids[:, :, None])
    real = (example_ids >= 0)[:, None, :]
    allowed = (causal | overlay) & same_example & same_branch & real
    itself = index[:, None] == index[None, :]
    return (allowed | itself)[:, None]


def allows(
    example_ids: torch.Tensor, branch_ids: torch.Tensor, is_vision: torch.Tensor
) -> Predicate:
    """Return FlexAttention's ``mask_mod(batch, head, query, key)``; arguments as above."""

    def may_read(
        row: torch.Tensor, _head: torch.Tensor, query: torch.Tensor, key: torch.Tensor
    ) -> torch.Tensor:
        in_order = (query >= key) | (is_vision[row, query] & is_vision[row, key])
        same_example = example_ids[row, query] == example_ids[row, key]
        keys_branch = branch_ids[row, key]
        same_branch = (keys_branch == 0) | (keys_branch == branch_ids[row, query])
        real = example_ids[row, key] >= 0
        return (in_order & same_example & same_branch & real) | (query == key)

    return may_read


@dataclass(frozen=True, slots=True)
class Rectangle:
    """Adjacent queries of one row and the adjacent keys that they may read.

    Args:
        row: number of the row.
        queries, keys: the tokens in that row.
        mask: ``(queries, keys)`` bool; None means causal, for as many queries as keys.
    """

    row: int
    queries: slice
    keys: slice
    mask: torch.Tensor | None


def rectangles(
    example_ids: torch.Tensor, branch_ids: torch.Tensor, is_vision: torch.Tensor
) -> tuple[Rectangle, ...]:
    """Return the rule as one square per example, and for a tree one more rectangle.

    A tree's prefix is a square. Its branches are one rectangle that reads the whole example. Pairs
    of different examples, most of a packed row's square, are never computed, and neither are
    padding's. Rectangles come in the order of their queries.

    Args:
        example_ids, branch_ids, is_vision: as for `dense_mask`.

    Raises:
        ValueError: an example's tokens are in several places, or a branch precedes its prefix.
    """
    found: list[Rectangle] = []
    for row, (examples, branches) in enumerate(
        zip(example_ids.tolist(), branch_ids.tolist(), strict=True)
    ):
        seen: set[int] = set()
        for example, tokens in groupby(range(len(examples)), examples.__getitem__):
            if example < 0:
                continue
            if example in seen:
                raise ValueError("the tokens of an example must be contiguous")
            seen.add(example)
            places = list(tokens)
            start, end = places[0], places[-1] + 1
            split = next((place for place in places if branches[place]), end)
            if split == start or not all(branches[split:end]):
                raise ValueError("an example's branches must follow its prefix")
            prefix = slice(start, split)
            found.append(Rectangle(row, prefix, prefix, _overlaid(is_vision[row, prefix])))
            if split < end:
                mask = _branches_mask(branch_ids[row, start:end], split - start)
                found.append(Rectangle(row, slice(split, end), slice(start, end), mask))
    return tuple(found)


def _overlaid(is_vision: torch.Tensor) -> torch.Tensor | None:
    """Causal, or both are vision ``(n, n)``; None without vision tokens."""
    if not bool(is_vision.any()):
        return None
    causal = torch.ones(len(is_vision), len(is_vision), dtype=torch.bool, device=is_vision.device)
    return causal.tril() | (is_vision[:, None] & is_vision[None, :])


def _branches_mask(branch_ids: torch.Tensor, num_prefix: int) -> torch.Tensor:
    """What the branches of one example read: their prefix, and themselves causally."""
    index = torch.arange(len(branch_ids), device=branch_ids.device)
    own = branch_ids[num_prefix:, None] == branch_ids[None, :]
    causal = index[num_prefix:, None] >= index[None, :]
    return (own & causal) | (branch_ids == 0)[None, :]


@dataclass(frozen=True, slots=True)
class Piece:
    """A set of (query, key) pairs that a variable-length flash kernel can compute.

    Sequence s pairs the queries ``queries[query_starts[s]:query_starts[s+1]]`` with the keys of the
    same s: with all of them, or if ``causal`` the i-th query with the first i+1 keys.

    Args:
        queries, keys: numbers of tokens in the flattened ``B·L``, each at most once.
        query_starts, key_starts: ``(S + 1,)`` int32.
        longest_query, longest_key: tokens of the longest sequence.
        causal: if false, every query reads every key of its sequence.
    """

    queries: torch.Tensor
    keys: torch.Tensor
    query_starts: torch.Tensor
    key_starts: torch.Tensor
    longest_query: int
    longest_key: int
    causal: bool


def pieces(
    example_ids: torch.Tensor, branch_ids: torch.Tensor, is_vision: torch.Tensor
) -> tuple[Piece, ...]:
    """Return the rule as disjoint, non-empty pieces for FlashAttention.

    Arguments as for `dense_mask`. Padding is in no piece.

    Raises:
        ValueError: vision tokens in a branch, or a branch whose tokens are not contiguous.
    """
    length = example_ids.shape[1]
    tokens = torch.nonzero(example_ids.flatten() >= 0).flatten()
    rows = tokens // length
    examples = rows * (int(example_ids.max()) + 1) + example_ids.flatten()[tokens]
    branches = branch_ids.flatten()[tokens]
    vision = is_vision.flatten()[tokens]
    if bool((vision & (branches > 0)).any()):
        raise ValueError("vision tokens must be in the prefix that all branches share")
    segments = examples * (int(branches.max()) + 1) + branches
    if len(segments.unique()) != len(segments.unique_consecutive()):
        raise ValueError("the tokens of an example's branch must be contiguous")
    found = (
        _piece((tokens, segments), (tokens, segments), causal=True),
        _back(tokens, examples, branches),
        _ahead(tokens[vision], examples[vision]),
    )
    return tuple(piece for piece in found if len(piece.queries))


def _back(tokens: torch.Tensor, examples: torch.Tensor, branches: torch.Tensor) -> Piece:
    in_branch = branches > 0
    is_tree = torch.isin(examples, examples[in_branch])
    shared = ~in_branch & is_tree
    return _piece(
        (tokens[in_branch], examples[in_branch]),
        (tokens[shared], examples[shared]),
        causal=False,
    )


def _ahead(tokens: torch.Tensor, examples: torch.Tensor) -> Piece:
    tokens, examples = tokens.flip(0), examples.flip(0)
    follows = examples[1:] == examples[:-1]
    return _piece(
        (tokens[1:][follows], examples[1:][follows]),
        (tokens[:-1][follows], examples[:-1][follows]),
        causal=True,
    )


def _piece(
    queries: tuple[torch.Tensor, torch.Tensor],
    keys: tuple[torch.Tensor, torch.Tensor],
    *,
    causal: bool,
) -> Piece:
    """Make a piece of (tokens, sequence number of each); sequences are contiguous and in order."""
    (query_starts, longest_query), (key_starts, longest_key) = _starts(queries[1]), _starts(keys[1])
    return Piece(queries[0], keys[0], query_starts, key_starts, longest_query, longest_key, causal)


def _starts(sequences: torch.Tensor) -> tuple[torch.Tensor, int]:
    if not len(sequences):
        return torch.zeros(1, dtype=torch.int32, device=sequences.device), 0
    _, lengths = sequences.unique_consecutive(return_counts=True)
    ends = lengths.cumsum(0).to(torch.int32)
    return torch.nn.functional.pad(ends, (1, 0)), int(lengths.max())
