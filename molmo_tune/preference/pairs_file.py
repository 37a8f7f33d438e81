"""The pairs of a run as a file: for a person to read, and for `--resume` to go on with.

A resumed run must train on the very pairs it began with, and the model that made them is changing;
so they are written down with the reference's log-probabilities (floats in JSON come back bit by
bit) and never made again. What a pair says of its question is compared with the labels as they are
now.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from molmo_tune.encoding.items import Item
from molmo_tune.errors import UserError
from molmo_tune.preference.pairs import Mined, Pair
from molmo_tune.run_folder import write_json


def write_pairs(path: Path, mined: Mined, items: Sequence[Item]) -> None:
    """Write pairs with the names of their samples, and the count of what gave none."""
    records = [
        {"sample_id": items[pair.item].sample.id, **asdict(pair), "reference": pair.reference}
        for pair in mined.pairs
    ]
    contents = {"answers": mined.num_answers, "unused": mined.unused, "pairs": records}
    write_json(path, contents)


def read_pairs(path: Path, items: Sequence[Item]) -> Mined:
    """The pairs of an interrupted run.

    Raises:
        UserError: there is no such file, or its questions are not those of the items.
    """
    try:
        contents: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        pairs = tuple(_pair(record) for record in contents["pairs"])
        mined = Mined(pairs, contents["unused"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        fix = "start again in a new folder"
        raise UserError(path, f"cannot be read ({error})", "the run's pairs", fix) from error
    for pair in pairs:
        _require_same_question(path, pair, items)
    return mined


def _pair(record: dict[str, Any]) -> Pair:
    chosen, rejected = record.pop("reference")
    record.pop("sample_id")
    return Pair(**record, reference=(float(chosen), float(rejected)))


def _require_same_question(path: Path, pair: Pair, items: Sequence[Item]) -> None:
    asked = items[pair.item].conversations if pair.item < len(items) else ()
    now = asked[pair.question].messages if pair.question < len(asked) else None
    if now != (pair.asked, pair.chosen):
        raise UserError(
            path,
            f"question {pair.question} of item {pair.item} is another one now",
            f"{pair.asked!r}, {pair.chosen!r}",
            "restore the labels, the template and the seed, or start again in a new folder",
        )
