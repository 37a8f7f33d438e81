"""Scores of a run under the attention masks of servers, which differ from the trained one.

    python -m tests.serving.mask_cost RUN

In training, all image tokens of a question attend to each other. In vLLM, image tokens attend
within a contiguous row (an image, a frame of a video) on GPUs, and causally on a CPU. The
validation questions are answered and scored under each of the three masks, in Transformers.

Limitations: no server is run. The masks are those in the code of vLLM 0.33.0.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers.models.molmo2 import modeling_molmo2

from molmo_tune.commands.evaluate import evaluate_recipe
from molmo_tune.recipe.loader import load_recipe
from molmo_tune.run_folder import RunFolder
from molmo_tune.units import count, with_interval

BLOCKS = "block_sequence_ids"  # of tokens that attend to each other; -1 elsewhere


def contiguous_rows(blocks: torch.Tensor) -> torch.Tensor:
    """Give each contiguous row of image tokens ``(B, L)`` its own block id."""
    before = torch.nn.functional.pad(blocks, (1, 0), value=-1)[:, :-1]
    starts = (blocks >= 0) & (before < 0)
    return torch.where(blocks >= 0, starts.cumsum(dim=1) - 1, -1)


MASKS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "as trained": lambda blocks: blocks,
    "within an image or frame": contiguous_rows,
    "causal": lambda blocks: torch.full_like(blocks, -1),
}


@contextmanager
def use_mask(rule: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Make Molmo 2 in Transformers build its masks from changed block ids."""
    original = modeling_molmo2.create_causal_mask

    def changed(**options: Any) -> Any:
        if BLOCKS in options:
            options[BLOCKS] = rule(options[BLOCKS])
        return original(**options)

    modeling_molmo2.create_causal_mask = changed
    try:
        yield
    finally:
        modeling_molmo2.create_causal_mask = original


def main(folder: Path) -> None:
    """Print the score under each mask."""
    run = RunFolder(folder)
    recipe = load_recipe(run.recipe)
    for name, rule in MASKS.items():
        with use_mask(rule):
            quiet = Console(quiet=True)
            found, _ = evaluate_recipe(recipe, run.adapter, quiet, title=name)
        score = found.summary()
        f1 = with_interval(score["f1"], score["f1_low"], score["f1_high"])
        print(f"{name:<26}F1 {f1}  {count(score['questions'], 'question')}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
