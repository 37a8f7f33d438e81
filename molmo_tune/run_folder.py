"""The layout of a run folder, in one place.

recipe.yaml        the resolved recipe, every default written out
base.json          digests of the base that was trained on
adapter/           the trained weights in PEFT's format
checkpoints/       checkpoints that training resumes from
pairs.json         of preference training: the answer pairs, and the outcome of every question
metrics.csv        loss and fraction of time spent waiting for data, one row per optimizer step
report.json        what was trained on what data, and how it ended
evaluation/        NAME.json per evaluation
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from molmo_tune.errors import UserError, cannot_write


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths inside a run folder."""

    root: Path

    @property
    def recipe(self) -> Path:
        """The resolved recipe."""
        return self.root / "recipe.yaml"

    @property
    def base(self) -> Path:
        """Digests of the base; see `molmo_tune.model.fingerprint`."""
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
        """The checkpoint that `--resume` continues from."""
        return self.checkpoints / "last.ckpt"

    @property
    def pairs(self) -> Path:
        """Answer pairs of preference training."""
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
        """Create the folder.

        Raises:
            UserError: it cannot be written.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe = self.root / ".write_test"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise cannot_write(self.root, error, "change output.dir") from error

    def require(self) -> None:
        """Check that this is a run folder, finished or not.

        Raises:
            UserError: it is not.
        """
        if not self.recipe.is_file():
            raise UserError(self.root, f"no {self.recipe.name}", "a run folder (output.dir)")

    def require_trained(self) -> None:
        """Check that this is the folder of a finished run, whose weights can be trained further.

        Raises:
            UserError: it is not, or the run has not finished.
        """
        self.require()
        for path in (self.adapter, self.base):
            if not path.exists():
                raise UserError(self.root, f"no {path.name}", "the folder of a finished run")


def read_json(path: Path) -> Any:
    """Read what `write_json` wrote.

    Raises:
        UserError: the file is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(path, f"cannot be read ({error})") from error
