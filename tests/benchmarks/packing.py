"""How full packs are, and what planning costs: ``python tests/benchmarks/packing.py``.

Samples the sizes of 20,000 samples from a mixture like the released supervised stage and packs
them with pool 48 into rows of 16,384 tokens and 128 crops. The knapsack alone, as in the released
trainer, is compared with the kit's rule that the longest-waiting sample always goes into the next
row. Figures go to ``results/packing.json``. Two mixtures, because a row of videos reaches 128
frames at 11,000 tokens: `fill` is the fraction of the limit that a row comes closer to.

    released   the rates of molmo2.md §8; videos of half a second to minutes at 2 fps, at most 128
               frames; images of common shapes in at most 8 crops; lengths of answers and texts
               log-normal around each group's typical size
    texts      the same with nine times as many texts, so that tokens are the limit and not crops

Lengths are assumed, not measured: the training data were not available.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from molmo_tune.encoding.packing import POOL_SIZE, Packer, Size, knapsack

NUM_SAMPLES = 20_000
LIMITS = Size(16384, 128)
TOKENS_PER_FRAME = 87
# (tokens, crops) of an image by its shape, from molmo2.md §4, and the assumed frequency.
IMAGES = ((410, 2), (545, 3), (752, 5), (982, 7), (1189, 9), (1208, 9))
IMAGE_SHARES = (0.05, 0.05, 0.3, 0.25, 0.25, 0.1)
RESULTS = Path(__file__).parent / "results" / "packing.json"

Draw = Callable[[np.random.Generator], Size]


def answer(rng: np.random.Generator, usual: int) -> int:
    """Tokens of a sample's questions and answers."""
    return int(np.clip(rng.lognormal(np.log(usual), 0.7), 10, 6000))


def images(usual_answer: int, counts: tuple[int, ...] = (1,)) -> Draw:
    def draw(rng: np.random.Generator) -> Size:
        shapes = rng.choice(len(IMAGES), size=rng.choice(counts), p=IMAGE_SHARES)
        tokens, crops = np.sum([IMAGES[shape] for shape in shapes], axis=0)
        return Size(int(tokens) + answer(rng, usual_answer), int(crops))

    return draw


def video(usual_answer: int, shortest_s: float, longest_s: float) -> Draw:
    def draw(rng: np.random.Generator) -> Size:
        duration = float(np.exp(rng.uniform(np.log(shortest_s), np.log(longest_s))))
        frames = min(128, int(2 * duration) + 2)
        return Size(TOKENS_PER_FRAME * frames + answer(rng, usual_answer), frames)

    return draw


def text(rng: np.random.Generator) -> Size:
    return Size(int(np.clip(rng.lognormal(np.log(550), 0.9), 60, 8000)), 0)


def mixture(text_rate: float) -> list[tuple[float, Draw]]:
    return [
        (0.15, images(300, counts=(1, 1, 1, 3))),  # demo
        (0.20, video(40, 8, 120)),  # video academic
        (0.25, images(80)),  # image academic
        (0.15, video(400, 3, 25)),  # tracking
        (0.15, video(120, 4, 63)),  # video pointing
        (0.10, images(200)),  # image pointing
        (text_rate, text),
    ]


def draw_sizes(groups: list[tuple[float, Draw]], seed: int = 0) -> list[Size]:
    rng = np.random.default_rng(seed)
    rates = np.array([rate for rate, _ in groups])
    chosen = rng.choice(len(groups), size=NUM_SAMPLES, p=rates / rates.sum())
    return [groups[number][1](rng) for number in chosen]


class KnapsackAlone(Packer):
    """The released trainer's rule."""

    def _draw(self) -> tuple[int, ...]:
        numbers = knapsack([size for _, size in self._waiting], self._limits)
        chosen = tuple(self._waiting[number][0] for number in numbers)
        for number in numbers:
            del self._waiting[number]
        return chosen


def measure(sizes: list[Size], packer: Packer) -> dict[str, float]:
    """Pack the whole stream once."""
    packs: list[tuple[int, ...]] = []
    started = time.perf_counter()
    while packer.state.next_place < len(sizes) - POOL_SIZE:
        packs.append(packer.next_pack())
    seconds = time.perf_counter() - started
    used = np.array([np.sum([sizes[place] for place in row], axis=0) for row in packs])
    shares = used / np.array(LIMITS)
    return {
        "packs": len(packs),
        "samples_per_pack": round(sum(map(len, packs)) / len(packs), 3),
        "fill": round(float(shares.max(axis=1).mean()), 4),
        "token_fill": round(float(shares[:, 0].mean()), 4),
        "crop_fill": round(float(shares[:, 1].mean()), 4),
        "oldest_waits_since": packer.state.next_place - min(packer.state.waiting),
        "ms_per_pack": round(1000 * seconds / len(packs), 2),
    }


def main() -> None:
    results: dict[str, dict[str, dict[str, float]]] = {}
    for name, text_rate in (("released", 0.1), ("texts", 0.9)):
        sizes = draw_sizes(mixture(text_rate))
        results[name] = {
            "ours": measure(sizes, Packer(sizes.__getitem__, LIMITS)),
            "knapsack alone": measure(sizes, KnapsackAlone(sizes.__getitem__, LIMITS)),
        }
        for rule, figures in results[name].items():
            print(f"{name}, {rule}: {figures}")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
