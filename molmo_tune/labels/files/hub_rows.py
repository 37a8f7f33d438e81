"""Rows of a dataset on the Hugging Face Hub, streamed: ``hf://OWNER/NAME[/CONFIG][:SPLIT]``.

The URL replaces the path of a label file. Rows are read as they are downloaded and are not stored;
the split is ``train`` unless the URL names another. Images are passed on as bytes, not decoded.
Needs ``datasets`` and a connection.

Limitations: datasets that need their own loading script are not read, because ``datasets`` refuses
to run it.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from molmo_tune.errors import UserError

Row = Mapping[str, Any]

_URL = re.compile(r"hf:/+([\w.-]+/[\w.-]+)(?:/([\w.-]+))?(?::([\w.-]+))?")


def is_on_hub(path: Path) -> bool:
    """Whether a path is the URL of a dataset (a `Path` keeps one slash of two)."""
    return str(path).startswith("hf:")


class HubDataset:
    """Split of a dataset on the Hub.

    Args:
        path: URL of the dataset.

    Raises:
        UserError: an invalid URL, `datasets` is not installed, or there is no such dataset.
    """

    def __init__(self, path: Path) -> None:
        match = _URL.fullmatch(str(path))
        if match is None:
            raise UserError(path, "not a dataset URL", "hf://OWNER/NAME/CONFIG:SPLIT")
        name, config, split = match.groups()
        self._place = f"hf://{name}"
        try:
            datasets: Any = importlib.import_module("datasets")
        except ImportError as error:
            found = "needs datasets, which is not installed"
            fix = "install it: uv pip install datasets"
            raise UserError(self._place, found, fix=fix) from error
        try:
            dataset = datasets.load_dataset(name, config, split=split or "train", streaming=True)
            for column, feature in (dataset.features or {}).items():
                if isinstance(feature, datasets.Image):
                    dataset = dataset.cast_column(column, datasets.Image(decode=False))
        except Exception as error:  # from the Hub, the connection, the files or pyarrow
            raise self._failed(error) from error
        self._dataset = dataset

    @property
    def features(self) -> Mapping[str, Any]:
        """The features as `datasets` writes them into files, empty if unknown."""
        features = self._dataset.features
        written: Mapping[str, Any] = features.to_dict() if features is not None else {}
        return written

    def rows(self) -> Iterator[tuple[str, Row]]:
        """Yield rows with their places.

        Raises:
            UserError: the connection failed, or the data is damaged.
        """
        rows = iter(self._dataset)
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
        return UserError(self._place, found, fix="check the URL and the connection")
