"""`data.train[].weight` decides how often a source is sampled, `loss_weight` how much it counts."""

from __future__ import annotations

import io
import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from molmo_tune.training.data import BatchStream
from rich.console import Console

from molmo_tune.checks.recipe_data import check_recipe
from molmo_tune.encoding.datasets import TrainingSet
from molmo_tune.encoding.packing import Size
from molmo_tune.encoding.sampler import ItemSampler, Mixture
from molmo_tune.encoding.sources import item_sampler, limits_of, read_items, source_shares
from molmo_tune.model.loading import load_processor
from molmo_tune.recipe.loader import load_recipe
from molmo_tune.training.batches.pack_stream import PackStream
from molmo_tune.training.run import train

MIXTURE = Mixture(counts=(2, 40, 7), weights=(3.0, 0.5, 1.5))
NUM_ITEMS = sum(MIXTURE.counts)


def sampled(sampler: ItemSampler, num_places: int) -> list[int]:
    return [sampler.item_at(place) for place in range(num_places)]


def source_of(item: int) -> int:
    return int(np.searchsorted(np.cumsum(MIXTURE.counts), item, side="right"))


# --- the order -------------------------------------------------------------------------------


@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_without_weights_the_order_is_that_of_earlier_versions(epoch: int) -> None:
    sampler = ItemSampler(20, seed=7)
    expected = np.random.default_rng([7, epoch]).permutation(20).tolist()
    assert [sampler.item_at(20 * epoch + place) for place in range(20)] == expected


@given(
    st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=8),
    st.integers(0, 10**7),
    st.integers(0, 1000),
)
def test_places_divide_exactly_and_never_drift(
    weights: list[float], num_places: int, more: int
) -> None:
    mixture = Mixture((1,) * len(weights), tuple(weights))
    before, after = mixture.divide(num_places), mixture.divide(num_places + more)
    assert sum(before) == num_places
    assert all(0 <= few <= many for few, many in zip(before, after, strict=True))
    for number, share in zip(before, mixture.shares, strict=True):
        assert abs(number - share * num_places) <= 2


def test_shares_follow_the_weights_whatever_the_sizes() -> None:
    items = sampled(ItemSampler(NUM_ITEMS, seed=1, mixture=MIXTURE), 1000 * NUM_ITEMS)
    by_source = Counter(map(source_of, items))
    assert [by_source[n] / len(items) for n in range(3)] == pytest.approx([0.6, 0.1, 0.3], abs=1e-4)
    by_item = Counter(items)
    repeats = [by_item[0] / 1000, by_item[2] / 1000, by_item[42] / 1000]
    assert MIXTURE.repeats == pytest.approx(repeats, rel=1e-2)


def test_every_item_of_a_source_comes_once_before_any_returns() -> None:
    items = sampled(ItemSampler(NUM_ITEMS, seed=1, mixture=MIXTURE), 50 * NUM_ITEMS)
    first = 0
    for source, count in enumerate(MIXTURE.counts):
        times = Counter(item for item in items if source_of(item) == source)
        assert set(times) == set(range(first, first + count))
        assert max(times.values()) - min(times.values()) <= 1
        first += count


def test_every_epoch_mixes_the_sources() -> None:
    sampler = ItemSampler(NUM_ITEMS, seed=1, mixture=MIXTURE)
    for epoch in range(4):
        places = range(epoch * NUM_ITEMS, (epoch + 1) * NUM_ITEMS)
        found = Counter(source_of(sampler.item_at(place)) for place in places)
        for source, share in enumerate(MIXTURE.shares):
            assert abs(found[source] - share * NUM_ITEMS) <= 2
        changes = sum(
            source_of(sampler.item_at(one)) != source_of(sampler.item_at(two))
            for one, two in itertools.pairwise(places)
        )
        assert changes > 10


def test_without_shuffling_each_source_keeps_its_file_order() -> None:
    sampler = ItemSampler(6, seed=1, shuffle=False, mixture=Mixture((2, 4), (2.0, 1.0)))
    assert sampled(sampler, 12) == [0, 1, 0, 1, 2, 3, 0, 1, 0, 1, 4, 5]


def test_one_source_with_a_weight_comes_once_per_epoch() -> None:
    items = sampled(ItemSampler(5, seed=3, mixture=Mixture((5,), (0.3,))), 20)
    for epoch in range(4):
        assert sorted(items[5 * epoch : 5 * epoch + 5]) == [0, 1, 2, 3, 4]


def test_a_rare_source_is_missing_from_most_epochs() -> None:
    sampler = ItemSampler(11, seed=3, mixture=Mixture((1, 10), (0.01, 1.0)))
    items = sampled(sampler, 11 * 101)
    assert 9 <= items.count(0) <= 13


def test_the_sources_must_hold_all_items() -> None:
    with pytest.raises(ValueError, match="6 items in the sources of 7"):
        ItemSampler(7, seed=0, mixture=Mixture((2, 4), (1.0, 1.0)))


# --- in the loaders --------------------------------------------------------------------------


def test_processes_and_resumed_runs_find_the_same_samples() -> None:
    def stream(**options: Any) -> BatchStream:
        return BatchStream(NUM_ITEMS, 3, 60, seed=5, mixture=MIXTURE, **options)

    batches = list(stream())
    assert [item for batch in batches for item in batch] == sampled(
        ItemSampler(NUM_ITEMS, seed=5, mixture=MIXTURE), 180
    )
    assert list(stream(first_batch=41)) == batches[41:]
    ranks = [list(stream(rank=rank, world_size=2)) for rank in (0, 1)]
    together = [batch for pair in zip(*ranks, strict=True) for batch in pair]
    assert together[:60] == batches


def test_packs_hold_the_sources_in_their_shares_and_resume() -> None:
    order = ItemSampler(NUM_ITEMS, seed=5, mixture=MIXTURE)
    sizes = [Size(100 + item, 1) for item in range(NUM_ITEMS)]

    def stream(**options: Any) -> PackStream:
        options = {"batch_size": 2, "num_batches": 50, **options}
        return PackStream(sizes, Size(1024, 16), order, **options)

    whole = stream()
    batches = list(whole)
    items = Counter(source_of(item) for batch in batches for pack in batch for item in pack)
    assert [items[n] / items.total() for n in range(3)] == pytest.approx([0.6, 0.1, 0.3], abs=0.06)
    assert list(stream(first_batch=20)) == batches[20:]
    assert list(stream(first_batch=20, state=whole.state_before(20))) == batches[20:]


# --- in a recipe -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny() -> Any:
    return load_processor("tiny")


@pytest.fixture
def two_sources(pond_recipe: Path) -> Path:
    """The pond twice: all four clips, and one of them three times as often as all together."""
    lines = pond_recipe.read_text().splitlines()
    for number, line in enumerate(lines):
        if line.startswith("  train: [{"):
            source = line.removeprefix("  train: [{").removesuffix("}]")
            lines[number] = f"  train: [{{{source}}}, {{{source}, max_samples: 1, weight: 3}}]"
    pond_recipe.write_text("\n".join(lines))
    return pond_recipe


def test_a_source_without_a_weight_counts_as_one(two_sources: Path, tiny: Any) -> None:
    recipe = load_recipe(two_sources)
    items, _ = read_items(recipe.data.train, recipe, tiny)
    shares = source_shares(items, recipe)
    assert [(one.number, one.share, one.repeats) for one in shares] == [
        (0, 0.25, pytest.approx(0.25 * 5 / 4)),
        (1, 0.75, pytest.approx(0.75 * 5)),
    ]
    places = [item_sampler(items, recipe).item_at(place) for place in range(400)]
    assert places.count(4) == 300


def test_training_prints_and_reports_the_shares(two_sources: Path, tmp_path: Path) -> None:
    recipe = load_recipe(two_sources, ["trainer.max_steps=2"])
    out = io.StringIO()
    train(recipe, Console(file=out, soft_wrap=True))
    path = recipe.data.train[0].path
    assert f"sources: {path} 25.0%, {path} 75.0% of samples" in out.getvalue()
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["sources"] == [
        {"path": str(path), "share": 0.25, "per_epoch": pytest.approx(0.3125)},
        {"path": str(path), "share": 0.75, "per_epoch": pytest.approx(3.75)},
    ]


def test_the_check_says_how_often_a_sample_comes(two_sources: Path) -> None:
    lines = [str(one) for one in check_recipe(load_recipe(two_sources))]
    (line,) = [line for line in lines if "data.train.1.weight" in line]
    assert line.endswith("75.0% of samples; each comes 3.75 times per epoch")
    even = load_recipe(two_sources, ["data.train.1.weight=null"])
    assert not any(".weight" in str(one) for one in check_recipe(even))


def test_the_loss_weight_is_a_factor_on_answer_tokens(pond_recipe: Path, tiny: Any) -> None:
    recipe = load_recipe(pond_recipe, ["data.train.0.loss_weight=0.5"])
    items, _ = read_items(recipe.data.train, recipe, tiny)
    weights = TrainingSet(items, tiny, limits_of(recipe))[0].loss_weights
    assert set(weights.tolist()) == {0.0, 0.5}
