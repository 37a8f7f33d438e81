"""Rows of a data set on the Hugging Face hub, streamed: ``hf://OWNER/NAME[/CONFIG][:SPLIT]``.

The place of a label file that is not on this machine. Rows come as they are downloaded and are not
kept; the split is ``train`` unless the address says another. Pictures are handed on as bytes, not
decoded. Needs ``datasets`` and a connection; data sets that need a program of their own to be read
are not read, since ``datasets`` refuses to run it.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from molmo_tune.errors import UserError

Row = Mapping[str, Any]

_ADDRESS = re.compile(r"hf:/+([\w.-]+/[\w.-]+)(?:/([\w.-]+))?(?::([\w.-]+))?")


def is_on_hub(path: Path) -> bool:
    """Whether a path is the address of a data set (a `Path` keeps one slash of two)."""
    return str(path).startswith("hf:")


class HubTable:
    """A split of a data set.

    Args:
        path: its address.

    Raises:
        UserError: the address is none, `datasets` is missing, or there is no such data set.
    """

    def __init__(self, path: Path) -> None:
        found = _ADDRESS.fullmatch(str(path))
        if found is None:
            raise UserError(path, "not the address of a data set", "hf://OWNER/NAME/CONFIG:SPLIT")
        name, config, split = found.groups()
        self._place = f"hf://{name}"
        try:
            datasets: Any = importlib.import_module("datasets")
        except ImportError as error:
            fix = "uv pip install datasets"
            raise UserError(self._place, "needs datasets, which is missing", fix=fix) from error
        try:
            table = datasets.load_dataset(name, config, split=split or "train", streaming=True)
            for column, feature in (table.features or {}).items():
                if isinstance(feature, datasets.Image):
                    table = table.cast_column(column, datasets.Image(decode=False))
        except Exception as error:  # of the hub, the connection, the files, pyarrow
            raise self._failed(error) from error
        self._table = table

    @property
    def features(self) -> Mapping[str, Any]:
        """The features as `datasets` writes them into files, empty when unknown."""
        features = self._table.features
        written: Mapping[str, Any] = features.to_dict() if features is not None else {}
        return written

    def rows(self) -> Iterator[tuple[str, Row]]:
        """Rows with their places.

        Raises:
            UserError: the connection or the data fail.
        """
        rows = iter(self._table)
        number = 0
        while True:
            try:
                row = next(rows)
            except StopIteration:
                return
            except Exception as error:
                raise self._failed(error) from error
            number += 1
            yield f"{self._place}: row {number}", row

    def _failed(self, error: Exception) -> UserError:
        reason = " ".join(str(error).split())[:160]
        found = f"cannot be read ({type(error).__name__}: {reason})"
        return UserError(self._place, found, fix="check the address and the connection")
