"""The pairs of a run as a file, for people and for `--resume`.

A resumed run must train on the pairs it started with, and the model that made them changes; so they
are stored with the reference's log-probabilities (JSON keeps every bit of a float) and never made
again. Their questions are compared with those of today's data.
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
    """Write pairs with the ids of their samples, and the number of unused answer pairs."""
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
    """Read the pairs of an interrupted run.

    Raises:
        UserError: there is no such file, or its questions differ from those of the items.
    """
    try:
        contents: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        pairs = tuple(_pair(record) for record in contents["pairs"])
        names = [record["sample_id"] for record in contents["pairs"]]
        mined = Mined(pairs, contents["unused"], contents["drawn_f1"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        fix = "train again with another output.dir"
        raise UserError(path, f"cannot be read ({error})", "the run's pairs", fix) from error
    for pair, name in zip(pairs, names, strict=True):
        if (name, pair.asked) != _question_at(items, pair.item, pair.question):
            raise UserError(
                path,
                f"question {pair.question} of item {pair.item} has changed",
                f"{pair.asked!r} about {name}",
                "restore labels, template and seed, or train again with another output.dir",
            )
    return mined


def _pair(record: dict[str, Any]) -> Pair:
    named = {name: value for name, value in record.items() if name != "sample_id"}
    chosen, rejected = named.pop("reference")
    return Pair(**named, reference=(float(chosen), float(rejected)))


def _question_at(items: Sequence[Item], item: int, question: int) -> tuple[str, str] | None:
    """Return the sample's id and the question's text, if there is such a question."""
    asked = items[item].conversations if item < len(items) else ()
    return (items[item].sample.id, asked[question].question) if question < len(asked) else None
