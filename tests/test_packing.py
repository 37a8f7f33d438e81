"""Packing: plans that lose nothing and can be resumed, and rows that train like separate ones."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.plugins.precision import HalfPrecision
from PIL import Image
from rich.console import Console

from molmo_tune.encoding.collation import collate
from molmo_tune.encoding.datasets import TrainingSet
from molmo_tune.encoding.encoded import NO_PATCH, EncodedSample
from molmo_tune.encoding.items import Item, MediaLimits, plan_items
from molmo_tune.encoding.pack_plan import measure_packs, plan_packs, sizes_of
from molmo_tune.encoding.packing import POOL_SIZE, Packer, PackerState, Size, knapsack, pack
from molmo_tune.encoding.sample_encoder import encode_conversation, encode_tree
from molmo_tune.encoding.sampler import ItemSampler
from molmo_tune.encoding.sources import limits_of, read_items
from molmo_tune.encoding.vision_inputs import image_inputs, video_inputs
from molmo_tune.labels.sample import Instance, Media, Point, Sample
from molmo_tune.model import attention_backends, attention_rule
from molmo_tune.model.adapters import trainable_parameters
from molmo_tune.model.attention_backends import BACKENDS, use_backend
from molmo_tune.model.flash_attention import flash_attention
from molmo_tune.model.forward import hidden_states
from molmo_tune.model.loading import load_model, load_processor
from molmo_tune.recipe.loader import load_recipe
from molmo_tune.templates.template import load_template
from molmo_tune.training.batches.pack_stream import PackStream
from molmo_tune.training.molmo_module import MolmoModule
from molmo_tune.training.optimizers import OptimSettings
from molmo_tune.training.run import train
from tests.drawn_lora import drawn_lora
from tests.stopped_training import stopping_after

LIMITS = Size(16384, 128)
SETTINGS = OptimSettings(lr=1e-3, max_steps=1, part_lr={})


def random_sizes(count: int, seed: int = 0) -> list[Size]:
    """Text, images and videos of all lengths; a few fill a row or do not fit one."""
    rng = np.random.default_rng(seed)
    sizes = []
    for _ in range(count):
        crops = int(rng.choice([0, rng.integers(2, 10), rng.integers(5, 129)]))
        tokens = 86 * crops + int(rng.lognormal(5, 1))
        sizes.append(Size(min(tokens, LIMITS.num_tokens), crops))
    sizes[3], sizes[5] = Size(16384, 0), Size(9000, 135)
    return sizes


# --- choosing --------------------------------------------------------------------------------


def value(sizes: Sequence[Size]) -> int:
    return sum(size.num_tokens + 30 * size.num_crops for size in sizes)


def fits(sizes: Sequence[Size], limits: Size) -> bool:
    return all(np.sum([(0, 0), *sizes], axis=0) <= limits)


@pytest.mark.parametrize("seed", range(20))
def test_the_knapsack_finds_the_best_set(seed: int) -> None:
    rng = np.random.default_rng(seed)
    limits = Size(400, 20)  # below 512 tokens nothing is rounded
    sizes = [Size(int(rng.integers(5, 300)), int(rng.integers(0, 15))) for _ in range(9)]
    chosen = knapsack(sizes, limits)
    assert chosen == sorted(set(chosen), reverse=True)
    assert fits([sizes[n] for n in chosen], limits)
    sets = itertools.chain.from_iterable(itertools.combinations(sizes, k) for k in range(10))
    assert value([sizes[n] for n in chosen]) == max(value(s) for s in sets if fits(s, limits))


def test_the_knapsack_counts_tokens_in_steps_and_keeps_the_first_of_equals() -> None:
    assert knapsack([Size(300, 0)] * 3, Size(512, 9)) == [0]
    assert knapsack([Size(8192, 0), Size(8192, 0), Size(1, 0)], LIMITS) == [1, 0]
    assert knapsack([Size(8193, 0), Size(8191, 0)], LIMITS) == [0]  # 257 + 256 of 512 steps
    assert knapsack([Size(10, 200)], LIMITS) == []
    assert knapsack([], LIMITS) == []


# --- planning --------------------------------------------------------------------------------


def test_every_sample_comes_once_a_pass_and_none_waits_long() -> None:
    sizes, order = random_sizes(200), ItemSampler(200, seed=1)
    packer = plan_packs(sizes, LIMITS, order)
    drawn_at: dict[int, int] = {}
    out: list[int] = []
    for number in range(400):
        places = packer.next_pack()
        for place in range(len(drawn_at), packer.state.next_place):
            drawn_at[place] = number
        assert all(number - drawn_at[place] <= POOL_SIZE for place in places)
        row = [sizes[order.item_at(place)] for place in places]
        assert len(places) == 1 or fits(row, LIMITS)
        out += places
    waiting = packer.state.waiting
    assert sorted([*out, *waiting]) == list(range(packer.state.next_place))
    passes = packer.state.next_place // 200
    assert passes >= 5
    items = [order.item_at(place) for place in [*out, *waiting] if place < 200 * passes]
    assert Counter(items) == dict.fromkeys(range(200), passes)


def test_what_fills_a_row_gets_one_alone() -> None:
    sizes = random_sizes(60)
    packer = Packer(lambda place: sizes[place], LIMITS)
    packs = [packer.next_pack() for _ in range(3)]
    assert packs[:2] == [(3,), (5,)]
    assert len(packs[2]) > 1


def test_a_small_set_is_not_repeated_to_fill_rows() -> None:
    sizes, order = [Size(10, 1)] * 5, ItemSampler(5, seed=0)
    packer = plan_packs(sizes, LIMITS, order)
    for _ in range(10):
        assert len(packer.next_pack()) == 5


def test_a_plan_goes_on_from_its_state() -> None:
    sizes, order = random_sizes(150), ItemSampler(150, seed=2)
    whole = plan_packs(sizes, LIMITS, order)
    packs = [whole.next_pack() for _ in range(60)]
    first = plan_packs(sizes, LIMITS, order)
    assert [first.next_pack() for _ in range(25)] == packs[:25]
    state = PackerState(**json.loads(json.dumps(asdict(first.state))))
    second = plan_packs(sizes, LIMITS, order, state)
    assert [second.next_pack() for _ in range(35)] == packs[25:]


def stream(sizes: Sequence[Size], **options: Any) -> PackStream:
    order = ItemSampler(len(sizes), seed=4)
    return PackStream(sizes, LIMITS, order, **({"batch_size": 2, "num_batches": 12} | options))


def test_batches_of_packs_resume_with_and_without_a_state() -> None:
    sizes = random_sizes(100)
    one = stream(sizes)
    batches = list(one)
    assert len(batches) == len(one) == 12
    assert all(len(batch) == 2 for batch in batches)
    assert list(stream(sizes)) == batches
    assert list(stream(sizes, first_batch=5)) == batches[5:]
    state = one.state_before(5)
    assert state is not None
    assert list(stream(sizes, first_batch=5, state=state)) == batches[5:]
    assert one.state_before(12) is not None
    assert one.state_before(13) is None


def test_processes_share_one_plan() -> None:
    sizes = random_sizes(100)
    alone = list(stream(sizes, batch_size=4))
    shares = [list(stream(sizes, rank=rank, world_size=2)) for rank in (0, 1)]
    assert [a + b for a, b in zip(*shares, strict=True)] == alone
    assert not set(itertools.chain(*shares[0][0])) & set(itertools.chain(*shares[1][0]))


def test_figures() -> None:
    sizes = random_sizes(500)
    figures = measure_packs(sizes, LIMITS, ItemSampler(500, seed=0))
    assert figures.fill > 0.9
    assert figures.fill >= max(figures.token_fill, figures.crop_fill)
    tokens_per_pack = figures.token_fill * LIMITS.num_tokens
    wanted = sum(size.num_tokens for size in sizes) / tokens_per_pack
    assert figures.packs_per_epoch == pytest.approx(wanted, rel=0.05)
    assert "500 sequences in about" in str(figures)


# --- rows ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny() -> Any:
    return load_processor("tiny")


@pytest.fixture(scope="module")
def samples(tiny: Any) -> list[EncodedSample]:
    """A video tree, text, an image, two images, a video: all kinds, in an order that mixes them."""
    rng = np.random.default_rng(0)

    def picture(height: int, width: int) -> Any:
        return rng.integers(0, 256, (height, width, 3), np.uint8)

    frames = rng.integers(0, 256, (3, 40, 60, 3), np.uint8)
    video = video_inputs(tiny, frames, [0.0, 0.5, 1.0])
    other = video_inputs(tiny, frames[::-1].copy(), [0.0, 0.4, 0.8])
    branches = [["Koi?", "At 0.5 s."], ["Frog?", "None."], ["Newt?", "Top, left."]]
    return [
        encode_tree(tiny, "tree", branches, video, weighting="root_both"),
        encode_conversation(tiny, "text", ["Hello?", "Yes, hello."], weight=0.2),
        encode_conversation(
            tiny, "image", ["Frog?", "None."], image_inputs(tiny, [picture(50, 70)])
        ),
        encode_conversation(
            tiny, "two", ["Which?", "2"], image_inputs(tiny, [picture(90, 40), picture(200, 300)])
        ),
        encode_conversation(tiny, "video", ["Where?", "Left of the middle."], other),
    ]


def test_a_row_keeps_its_samples_apart_and_whole(samples: list[EncodedSample]) -> None:
    row = pack(samples)
    assert row.sample_id == "tree text image two video"
    assert row.num_tokens == sum(sample.num_tokens for sample in samples)
    patches = row.patches.reshape(-1, row.patches.shape[-1])
    seen = 0
    for number, sample in enumerate(samples):
        own = row.example_ids == number
        for name in ("input_ids", "target_ids", "loss_weights", "position_ids", "branch_ids"):
            assert np.array_equal(getattr(row, name)[own], getattr(sample, name))
        theirs = sample.patches.reshape(-1, sample.patches.shape[-1])
        pooling = row.pooling[seen : seen + len(sample.pooling)]
        seen += len(sample.pooling)
        for packed, alone in zip(pooling, sample.pooling, strict=True):
            valid = alone != NO_PATCH
            assert np.array_equal(np.flatnonzero(packed != NO_PATCH), np.flatnonzero(valid))
            ours = patches[packed[: len(alone)][valid]]
            assert np.array_equal(ours, theirs[alone[valid]])
    assert seen == len(row.pooling)
    assert len(row.patches) == sum(len(sample.patches) for sample in samples)


def test_narrow_pooling_windows_are_widened(samples: list[EncodedSample]) -> None:
    """Images pool 2×2 patches and videos of the released models 3×3."""
    wide = replace(samples[0], pooling=np.zeros((len(samples[0].pooling), 9), np.int64))
    row = pack([wide, samples[2]])
    image = row.pooling[len(wide.pooling) :]
    assert image.shape[1] == 9
    assert (image[:, 4:] == NO_PATCH).all()
    offset = wide.patches.shape[0] * wide.patches.shape[1]
    assert image[:, :4].min() in (NO_PATCH, offset)
    assert image.max() == offset + samples[2].pooling.max()


@torch.no_grad()
def _logits(model: Any, row: EncodedSample) -> torch.Tensor:
    return model.lm_head(hidden_states(model, collate([row], pad_id=0)))[0]


def _difference(packed: torch.Tensor, separate: list[torch.Tensor]) -> float:
    return float((packed - torch.cat(separate)).abs().max())


def test_packed_logits_are_the_separate_ones(samples: list[EncodedSample]) -> None:
    model = load_model("tiny")
    separate = [_logits(model, sample) for sample in samples]
    assert _difference(_logits(model, pack(samples)), separate) < 3e-5


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_keeps_packs_apart(samples: list[EncodedSample], backend: Any) -> None:
    """In float64, where little but the rule is left (flash merges its pieces in float32)."""
    model = load_model("tiny").double()
    separate = [_logits(model, sample) for sample in samples]
    use_backend(model, backend)
    assert _difference(_logits(model, pack(samples)), separate) < 2e-5


def _without_wall(examples: Any, branches: Any, vision: Any) -> torch.Tensor:
    return attention_rule.dense_mask(examples.clamp(max=0), branches, vision)


def _without_overlay(examples: Any, branches: Any, vision: Any) -> torch.Tensor:
    return attention_rule.dense_mask(examples, branches, torch.zeros_like(vision))


def _overlay_over_the_wall(examples: Any, branches: Any, vision: Any) -> torch.Tensor:
    """Trap 2: position-based packing, to which transformers adds one overlay for the whole row."""
    causal = attention_rule.dense_mask(examples, branches, torch.zeros_like(vision))
    return causal | (vision[:, :, None] & vision[:, None, :])[:, None]


@pytest.mark.parametrize("broken", [_without_wall, _without_overlay, _overlay_over_the_wall])
def test_a_wrong_mask_would_be_noticed(
    samples: list[EncodedSample], broken: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model("tiny")
    separate = [_logits(model, sample) for sample in samples]
    monkeypatch.setattr(attention_backends, "dense_mask", broken)
    assert _difference(_logits(model, pack(samples)), separate) > 1e-3


def _gradients(rows: Sequence[EncodedSample]) -> dict[str, torch.Tensor]:
    """In float64: the connector's queries get gradients so small that float32 alone, in batches
    without any packing, moves them by 3e-4."""
    model = drawn_lora(load_model("tiny"), std=0.05)
    module = MolmoModule(model.double(), SETTINGS)
    sums = [module.sums(collate([row], pad_id=0)) for row in rows]
    weight = torch.stack([one.weight for one in sums]).sum()
    (torch.stack([one.total for one in sums]).sum() / weight).backward()
    return {name: p.grad for name, p in trainable_parameters(model) if p.grad is not None}


def _worst(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """Largest difference, relative to the largest gradient of its matrix."""
    assert ours.keys() == theirs.keys()
    assert ours
    return max(
        float((ours[name] - theirs[name]).abs().max() / theirs[name].abs().max()) for name in ours
    )


def test_packed_gradients_are_the_separate_ones(
    samples: list[EncodedSample], monkeypatch: pytest.MonkeyPatch
) -> None:
    separate = _gradients(samples)
    assert _worst(_gradients([pack(samples)]), separate) < 1e-4
    assert _worst(_gradients([pack(samples[:2]), pack(samples[2:])]), separate) < 1e-4
    monkeypatch.setattr(attention_backends, "dense_mask", _without_wall)
    assert _worst(_gradients([pack(samples)]), separate) > 1e-3


# --- in training -----------------------------------------------------------------------------


def _actual_sizes(items: Sequence[Item], processor: Any, limits: MediaLimits) -> list[Size]:
    encoded = TrainingSet(items, processor, limits)
    return [Size(encoded[n].num_tokens, len(encoded[n].patches)) for n in range(len(items))]


def test_flash_merges_pieces_in_32_bits_whatever_the_default_type_is() -> None:
    """Lightning's bf16-true makes bfloat16 the default, and a log-sum-exp has no bits to spare."""
    torch.manual_seed(0)
    ids = torch.zeros(1, 64, dtype=torch.long)
    found = attention_rule.pieces(ids, ids, torch.arange(64)[None] < 32)
    q, k, v = (4 * torch.randn(1, 2, 64, 16, dtype=torch.bfloat16) for _ in range(3))
    wanted = flash_attention(q, k, v, found, 0.25)
    with HalfPrecision("bf16-true").forward_context():
        assert torch.equal(flash_attention(q, k, v, found, 0.25), wanted)


def test_sizes_of_videos_are_known_before_anything_is_decoded(pond_recipe: Path, tiny: Any) -> None:
    recipe = load_recipe(pond_recipe)
    items, _ = read_items(recipe.data.train, recipe, tiny)
    assert len(items) == 4
    assert sizes_of(items) == _actual_sizes(items, tiny, limits_of(recipe))


def test_sizes_of_images_are_known_before_anything_is_decoded(tmp_path: Path, tiny: Any) -> None:
    paths = []
    for number, size in enumerate([(640, 480), (9, 300), (84, 84)]):
        paths.append(tmp_path / f"{number}.png")
        Image.new("RGB", size).save(paths[-1])
    instances = (Instance("a", "frog", Point((5, 5))), Instance("b", "newt", Point((2, 2))))
    groups = ([paths[0]], [paths[1]], paths)
    samples = [
        Sample(str(number), Media("image", tuple(group)), instances)
        for number, group in enumerate(groups)
    ]
    limits, template = MediaLimits(8, 2.0, 4), load_template("image_pointing")
    plan = plan_items(samples, template, tiny, limits, max_tokens=4000, seed=0)
    assert len(plan.items) == 3
    assert sizes_of(plan.items) == _actual_sizes(plan.items, tiny, limits)


def test_a_packed_run_stops_and_resumes_without_changing_a_bit(
    pond_recipe: Path, tmp_path: Path
) -> None:
    rooms = ["data.packing=true", "data.max_tokens=900", "data.max_crops_per_pack=20"]
    console = Console(quiet=True)
    whole = load_recipe(pond_recipe, [*rooms, f"output.dir={tmp_path / 'whole'}"])
    train(whole, console)
    parted = load_recipe(pond_recipe, [*rooms, f"output.dir={tmp_path / 'parted'}"])
    with stopping_after(3):
        assert train(parted, console).steps == 3
    assert train(parted, console, resume=True).steps == 6
    texts = [(tmp_path / run / "metrics.csv").read_text() for run in ("whole", "parted")]
    losses = [[line.split(",")[:2] for line in text.splitlines()] for text in texts]
    assert losses[0] == losses[1]
    packing = json.loads((tmp_path / "whole" / "report.json").read_text())["packing"]
    assert packing["packs"] == 12
    assert packing["samples_per_pack"] > 1
    last = tmp_path / "whole" / "checkpoints" / "last.ckpt"
    data = torch.load(last, weights_only=False)["MolmoDataModule"]
    assert data["batches_done"] == 12
    assert data["packer"]["next_place"] > 12
