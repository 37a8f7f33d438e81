"""What lies where in the folder of a run: the one place that knows.

recipe.yaml        the resolved recipe, every default written out
base.json          digests of the base that was trained on
adapter/           the trained weights in PEFT's format
checkpoints/       what training resumes from
pairs.json         of preference training: the pairs of answers, and what became of no pair
metrics.csv        loss and share of time waited for data, one row per optimizer step
report.json        what was trained on what, and how it ended
evaluation/        NAME.json per evaluation
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from molmo_tune.errors import UserError


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths inside a run's folder."""

    root: Path

    @property
    def recipe(self) -> Path:
        """The resolved recipe."""
        return self.root / "recipe.yaml"

    @property
    def base(self) -> Path:
        """Digests of the base; see `model.identity`."""
        return self.root / "base.json"

    @property
    def adapter(self) -> Path:
        """The trained adapter."""
        return self.root / "adapter"

    @property
    def checkpoints(self) -> Path:
        """Lightning checkpoints."""
        return self.root / "checkpoints"

    @property
    def last_checkpoint(self) -> Path:
        """The checkpoint `--resume` continues from."""
        return self.checkpoints / "last.ckpt"

    @property
    def pairs(self) -> Path:
        """Pairs of answers that preference training is made of."""
        return self.root / "pairs.json"

    @property
    def metrics(self) -> Path:
        """Logged numbers."""
        return self.root / "metrics.csv"

    @property
    def report(self) -> Path:
        """The training report."""
        return self.root / "report.json"

    def evaluation(self, name: str) -> Path:
        """Results of one evaluation."""
        return self.root / "evaluation" / f"{name}.json"

    def create(self) -> None:
        """Make the folder.

        Raises:
            UserError: it cannot be written to.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe = self.root / ".write_test"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise UserError(
                self.root, f"cannot be written to ({error.strerror})", fix="change output.dir"
            ) from error

    def require(self) -> None:
        """Check that a finished or interrupted run lies here.

        Raises:
            UserError: it does not.
        """
        if not self.recipe.is_file():
            raise UserError(self.root, "no recipe.yaml", "the folder of a run (output.dir)")

    def require_trained(self) -> None:
        """Check that a run lies here whose weights can be trained further.

        Raises:
            UserError: it does not, or has not ended yet.
        """
        self.require()
        for path in (self.adapter, self.base):
            if not path.exists():
                raise UserError(self.root, f"no {path.name}", "the folder of a finished run")


def read_json(path: Path) -> Any:
    """Return the contents of a JSON file of the run.

    Raises:
        UserError: it is missing, or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(path, f"cannot be read ({error})") from error
