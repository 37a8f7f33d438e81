"""The pairs of a run as a file: for a person to read, and for `--resume` to go on with.

A resumed run must train on the very pairs it began with, and the model that made them is changing;
so they are written down with the reference's log-probabilities (floats in JSON come back bit by
bit) and never made again. What a pair says of its question is compared with what is asked now.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from molmo_tune.atomic_files import write_json
from molmo_tune.encoding.items import Item
from molmo_tune.errors import UserError
from molmo_tune.preference.pairs import Mined, Pair


def write_pairs(path: Path, mined: Mined, items: Sequence[Item]) -> None:
    """Write pairs with the names of their samples, and the count of what gave none."""
    records = [
        {"sample_id": items[pair.item].sample.id, **asdict(pair), "reference": pair.reference}
        for pair in mined.pairs
    ]
    contents = {
        "answer_pairs": mined.num_answer_pairs,
        "unused": mined.unused,
        "drawn_f1": mined.drawn_f1,
        "pairs": records,
    }
    write_json(path, contents)


def read_pairs(path: Path, items: Sequence[Item]) -> Mined:
    """The pairs of an interrupted run.

    Raises:
        UserError: there is no such file, or its questions are not those of the items.
    """
    try:
        contents: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        pairs = tuple(_pair(record) for record in contents["pairs"])
        names = [record["sample_id"] for record in contents["pairs"]]
        mined = Mined(pairs, contents["unused"], contents["drawn_f1"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        fix = "start again in a new folder"
        raise UserError(path, f"cannot be read ({error})", "the run's pairs", fix) from error
    for pair, name in zip(pairs, names, strict=True):
        if (name, pair.asked) != _question_at(items, pair.item, pair.question):
            raise UserError(
                path,
                f"question {pair.question} of item {pair.item} is another one now",
                f"{pair.asked!r} about {name}",
                "restore the labels, the template and the seed, or start again in a new folder",
            )
    return mined


def _pair(record: dict[str, Any]) -> Pair:
    named = {name: value for name, value in record.items() if name != "sample_id"}
    chosen, rejected = named.pop("reference")
    return Pair(**named, reference=(float(chosen), float(rejected)))


def _question_at(items: Sequence[Item], item: int, question: int) -> tuple[str, str] | None:
    """The sample's id and the words, if there is such a question."""
    asked = items[item].conversations if item < len(items) else ()
    return (items[item].sample.id, asked[question].question) if question < len(asked) else None
