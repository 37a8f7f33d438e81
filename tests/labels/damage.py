"""Damage to label files, of every kind (`tests/test_label_damage.py`, `tests/labels/fuzz.py`).

`DESTROYED`       the file holds nothing that could be labels: always an error
`DAMAGED`         cut short or in another encoding
`MALFORMED`       the file of a format's folder that lists a wrong type, a negative size and NaN
`wrong_values`    every value of a JSON file in turn, replaced by one of another type
`damage`          one to three random faults in bytes, words, lines, or values of JSON and XML
"""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.labels.cases import MALFORMED, ROOT

Damage = Callable[[bytes, random.Random], bytes]

# --- whole files ---------------------------------------------------------------------------------

DESTROYED: dict[str, bytes | Callable[[bytes], bytes]] = {
    "empty": b"",
    "blank": b" \n\t\n",
    "an image": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
    "a zip": lambda data: b"PK\x03\x04" + data,
    "zeros": bytes(200),
    "half a byte order mark": b"\xff\xfe\xff",
    "an empty object": b"{}",
    "an empty list": b"[]",
    "a number": b"7",
    "deep": b"[" * 100_000,
    "words": b"the quick brown fox\n",
    "foreign letters first": lambda data: "å".encode("latin-1") * 9 + data,
}
DAMAGED: dict[str, Callable[[bytes], bytes]] = {
    "a sixth": lambda data: data[: len(data) // 6],
    "a half": lambda data: data[: len(data) // 2],
    "a foreign letter": lambda data: data[: len(data) // 2] + b"\xe5" + data[len(data) // 2 :],
    "UTF-16 without a mark": lambda data: data.decode("latin-1").encode("utf-16-le"),
}

# --- malformed values ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Malformed:
    """One row of a format's malformed.json."""

    format: str
    kind: str
    reason: str
    replace: str = ""
    by: str = ""
    file: str = ""

    def apply(self, label_file: Path) -> None:
        """Put the malformed value into a label file, or another file in its place."""
        if self.file:
            label_file.write_bytes((ROOT / self.format / self.file).read_bytes())
            return
        text = label_file.read_text(encoding="utf-8")
        assert self.replace in text, f"{self.format}: {self.replace!r} is not in {label_file.name}"
        label_file.write_text(text.replace(self.replace, self.by), encoding="utf-8")


def malformed_values() -> Iterator[Malformed]:
    """All rows of all formats."""
    for path in sorted(ROOT.glob(f"*/{MALFORMED}")):
        for row in json.loads(path.read_text(encoding="utf-8")):
            yield Malformed(path.parent.name, by=row.pop("with", ""), **row)


# --- values of JSON ------------------------------------------------------------------------------

WRONG = (None, True, "x", "", -1, 0, 1.5, math.nan, 1e300, 10**30, [], {}, [[]], ["x"], {"x": 1})


def wrong_values(content: object, num_places: int, seed: str) -> Iterator[object]:
    """Yield copies of a JSON value with one place replaced by each of `WRONG`."""
    places = list(places_in(content))
    for place in random.Random(seed).sample(places, min(num_places, len(places))):
        for wrong in WRONG:
            yield replaced(content, place, wrong)


def places_in(value: object, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all values in JSON, this one first."""
    yield here
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places_in(inner, (*here, key))


def replaced(value: Any, place: tuple[Any, ...], by: object) -> object:
    """A copy with another value at one place."""
    if not place:
        return by
    changed = dict(value) if isinstance(value, dict) else list(value)
    changed[place[0]] = replaced(value[place[0]], place[1:], by)
    return changed


# --- at random -----------------------------------------------------------------------------------

WORDS = (
    *("-1", "NaN", "1e999", "1e308", "-1e308", "inf", "1000000000", "9" * 30, "0", "0.5", "1e-320"),
    *(
        "null",
        "true",
        "[]",
        "{}",
        '""',
        '"x"',
        "",
        "x",
        "-",
        "1,5",
        "\u0663",
        "1_0",
        "../x",
        "\\",
        "//[",
    ),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 1.5, 10**9, 10**30, 1e308, -1e308, math.nan, math.inf),
    *(
        "",
        "x",
        "1",
        "-1",
        "http://[",
        "a\0",
        "../x",
        "/etc/passwd",
        "\ud800",
        [],
        {},
        [[]],
        [None],
        ["x"],
        {"x": 1},
    ),
    *([10**9] * 4, [-1.0] * 4, [math.nan] * 4, {"size": [10**9, 10**9], "counts": [10**18]}),
)
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_ATTRIBUTE = re.compile(r' ?[\w.:-]+="([^"]*)"')


def damage(content: bytes, rng: random.Random) -> bytes:
    """Break a file one to three times."""
    for _ in range(rng.randint(1, 3)):
        content = rng.choice(_DAMAGES)(content, rng)
    return content


def _place(data: bytes, rng: random.Random) -> int:
    return rng.randrange(len(data) + 1)


def _flip(data: bytes, rng: random.Random) -> bytes:
    at = _place(data, rng)
    return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: _place(data, rng)]


def _shorten(data: bytes, rng: random.Random) -> bytes:
    at = _place(data, rng)
    return data[:at] + data[at + rng.randint(1, 20) :]


def _double(data: bytes, rng: random.Random) -> bytes:
    at = _place(data, rng)
    return data[:at] + data[at : at + rng.randint(1, 20)] + data[at:]


def _overwrite(data: bytes, rng: random.Random) -> bytes:
    at = _place(data, rng)
    return data[:at] + rng.choice(WORDS).encode() + data[at + rng.randint(0, 6) :]


def _replace_all(data: bytes, rng: random.Random) -> bytes:
    """Rarely: nothing is left, or another kind of file."""
    return data if rng.random() < 0.8 else rng.choice((b"", b" \n", b"PK\x03\x04" + data, b"{}"))


def _encode(data: bytes, rng: random.Random) -> bytes:
    text = data.decode("utf-8", "replace")
    at = rng.randrange(len(text) + 1)
    foreign = text[:at] + "å" + text[at:]
    codec = rng.choice(("latin-1", "utf-16", "utf-16-le", "utf-8-sig", "cp437"))
    return foreign.encode(codec, "replace")


def _number(data: bytes, rng: random.Random) -> bytes:
    return _exchange(data, _NUMBER, rng)


def _attribute(data: bytes, rng: random.Random) -> bytes:
    """The value of an XML attribute, or the whole attribute."""
    if rng.random() < 0.7:
        return _exchange(data, re.compile(r'(?<==")[^"]*(?=")'), rng)
    return _exchange(data, _ATTRIBUTE, rng, words=("",))


def _exchange(
    data: bytes, pattern: re.Pattern[str], rng: random.Random, words: tuple[str, ...] = WORDS
) -> bytes:
    text = data.decode("latin-1")
    found = list(pattern.finditer(text))
    if not found:
        return data
    start, end = rng.choice(found).span()
    return text[:start].encode("latin-1") + rng.choice(words).encode() + data[end:]


def _lines(data: bytes, rng: random.Random) -> bytes:
    """A line twice, gone, empty, or in the place of another."""
    lines = data.split(b"\n")
    at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    match rng.randrange(4):
        case 0:
            lines.insert(other, lines[at])
        case 1:
            del lines[at]
        case 2:
            lines[at] = b""
        case _:
            lines[at], lines[other] = lines[other], lines[at]
    return b"\n".join(lines)


def _json(data: bytes, rng: random.Random) -> bytes:
    """A value of another type, a key or entry gone, or one that comes twice; also of one line."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        before, line_end, after = data.partition(b"\n")
        return _json(before, rng) + line_end + after if line_end else data
    boxes = [box for box in _containers(value) if box]
    if boxes:
        _change(rng.choice(boxes), rng)
    return json.dumps(value).encode()


def _containers(value: object) -> list[Any]:
    if not isinstance(value, dict | list):
        return []
    inner = value.values() if isinstance(value, dict) else value
    return [value, *(box for part in inner for box in _containers(part))]


def _change(box: Any, rng: random.Random) -> None:
    keys = list(box) if isinstance(box, dict) else list(range(len(box)))
    key, other = rng.choice(keys), rng.choice(keys)
    match rng.randrange(5):
        case 0:
            del box[key]
        case 1 if isinstance(box, list):
            box.append(json.loads(json.dumps(box[key])))
        case 2:
            box[key], box[other] = box[other], box[key]
        case _:
            box[key] = rng.choice(VALUES)


_DAMAGES: tuple[Damage, ...] = (
    *(_flip, _cut, _shorten, _double, _overwrite, _replace_all, _encode),
    *(_number, _number, _attribute, _attribute, _lines, _lines, _json, _json, _json, _json),
)
