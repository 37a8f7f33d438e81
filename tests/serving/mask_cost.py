"""What a run's answers are worth under the masks that servers have instead of the trained one.

    python -m tests.serving.mask_cost RUN

In training all image tokens of a question attend to each other. vLLM lets them do so within an
unbroken row of image tokens (an image, a frame of a video) on GPUs, and causally on a CPU. The
validation questions are answered under each of the three masks, in transformers, and scored.

What it does not do: run a server. The masks were read in vLLM 0.33.0.
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

BLOCKS = "block_sequence_ids"  # of tokens that attend to each other; -1 elsewhere


def unbroken_rows(blocks: torch.Tensor) -> torch.Tensor:
    """Each unbroken row of image tokens ``(B, L)`` as a block of its own."""
    before = torch.nn.functional.pad(blocks, (1, 0), value=-1)[:, :-1]
    starts = (blocks >= 0) & (before < 0)
    return torch.where(blocks >= 0, starts.cumsum(dim=1) - 1, -1)


MASKS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "as trained": lambda blocks: blocks,
    "within an image or frame": unbroken_rows,
    "causal": lambda blocks: torch.full_like(blocks, -1),
}


@contextmanager
def masked_by(rule: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Let transformers' Molmo 2 make its masks from other blocks."""
    own = modeling_molmo2.create_causal_mask

    def changed(**options: Any) -> Any:
        if BLOCKS in options:
            options[BLOCKS] = rule(options[BLOCKS])
        return own(**options)

    modeling_molmo2.create_causal_mask = changed
    try:
        yield
    finally:
        modeling_molmo2.create_causal_mask = own


def main(folder: Path) -> None:
    """See the module's text."""
    run = RunFolder(folder)
    recipe = load_recipe(run.recipe)
    for name, rule in MASKS.items():
        with masked_by(rule):
            quiet = Console(quiet=True)
            found, _ = evaluate_recipe(recipe, run.adapter, quiet, title=name)
        score = found.summary()
        interval = f"[{score['f1_low']:.3f}, {score['f1_high']:.3f}]"
        print(f"{name:<26}F1 {score['f1']:.3f} {interval}  {score['questions']} questions")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
