"""Strict YAML, with the line of every key.

Differences from ``yaml.safe_load``: plain scalars follow YAML 1.2, so ``1e-4`` is a number and
``yes``, ``off`` and ``2024-01-01`` are strings; duplicate keys, unknown tags (``!foo``,
``!!python/...``), aliases and merge keys are faults. Faults are collected, not raised, and reading
continues after them; a value that could not be read becomes None and its path is added to
`Reading.unreadable`, so that the None is not reported as well.

    optim:                  lines = {(): 1, ("optim",): 1,
      lr: 1e-4                       ("optim", "lr"): 2}        value = {"optim": {"lr": 0.0001}}
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import yaml
from yaml.events import AliasEvent
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.reader import ReaderError

from molmo_tune.recipe.issues import KeyPath

_STANDARD = "tag:yaml.org,2002:"
_ALIAS = "molmo-tune:alias"
_LONGEST_NUMBER = 40
_HALF = re.compile("[\ud800-\udfff]")  # lone surrogates, which files and tokenizers reject

CORE_WORDS: tuple[tuple[str, re.Pattern[str], str], ...] = (
    ("null", re.compile(r"^(?:null|Null|NULL|~|)$"), "~nN\0"),
    ("bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF"),
    ("int", re.compile(r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$"), "-+0123456789"),
    (
        "float",
        re.compile(
            r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
            r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
        ),
        "-+.0123456789",
    ),
)
"""YAML 1.2's core schema: type, pattern, first characters (``\\0``: the empty scalar)."""


class CoreLoader(yaml.SafeLoader):
    """Composes nodes with YAML 1.2's plain scalars; an alias becomes a separate node."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - a class variable by PyYAML's design

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        """Compose the next node, with a placeholder for ``*name``."""
        if not self.check_event(AliasEvent):
            return super().compose_node(parent, index)
        event = self.get_event()  # type: ignore[no-untyped-call]
        return ScalarNode(_ALIAS, event.anchor, event.start_mark, event.end_mark)


for _kind, _pattern, _first in CORE_WORDS:
    CoreLoader.add_implicit_resolver(
        _STANDARD + _kind, _pattern, ["" if char == "\0" else char for char in _first]
    )


@dataclass(frozen=True, slots=True)
class ReadFault:
    """A part of the text that cannot be read; ``path`` is empty if it concerns no key."""

    line: int
    path: KeyPath
    reason: str


@dataclass(slots=True)
class Reading:
    """A YAML text as plain Python values, with the 1-based line of every key and list entry."""

    value: object = None
    lines: dict[KeyPath, int] = field(default_factory=dict)
    faults: list[ReadFault] = field(default_factory=list)
    unreadable: set[KeyPath] = field(default_factory=set)


def read_yaml(text: str) -> Reading:
    """Read one YAML document; an empty one has the value None."""
    try:
        node = CoreLoader(text).get_single_node()
        reading = Reading()
        if node is not None:
            reading.lines[()] = _line(node)
            reading.value = _Walk(reading).value(node, ())
        return reading
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        return _unread(mark.line + 1 if mark else 1, f"not YAML: {error.problem}")
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        return _unread(line, f"the character {error.character!r} is not allowed in YAML")
    except RecursionError:
        return _unread(1, "lists or sections are nested too deeply")


class _Walk:
    """Turns nodes into values and records lines and faults."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading

    def value(self, node: Node, path: KeyPath) -> object:
        if node.tag == _ALIAS:
            self._give_up(node, path, f"alias *{node.value} is not supported; {_WRITE_OUT}")
            return None
        if isinstance(node, MappingNode):
            self._check_tag(node, path, "map")
            return self._mapping(node, path)
        if isinstance(node, SequenceNode):
            self._check_tag(node, path, "seq")
            return [self._entry(item, (*path, index)) for index, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: MappingNode, path: KeyPath) -> dict[str, object]:
        values: dict[str, object] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node, path)
            if key is None:
                continue
            inner, line = (*path, key), _line(key_node)
            if key in values:
                first = self.reading.lines[inner]
                self._fault(line, inner, f"duplicate key, first on line {first}")
                continue
            self.reading.lines[inner] = line
            values[key] = self.value(value_node, inner)
        return values

    def _key(self, node: Node, path: KeyPath) -> str | None:
        """The key as written, or None if its entry has to be skipped."""
        if not isinstance(node, ScalarNode) or node.tag == _ALIAS or _HALF.search(node.value):
            self._fault(_line(node), path, "a key must be a plain scalar")
            return None
        key: str = node.value
        if key == "<<" and node.style is None:
            self._fault(_line(node), path, f"merge key << is not supported; {_WRITE_OUT}")
            return None
        self._check_tag(node, (*path, key), *_SCALARS)
        return key

    def _entry(self, node: Node, path: KeyPath) -> object:
        self.reading.lines[path] = _line(node)
        return self.value(node, path)

    def _scalar(self, node: Node, path: KeyPath) -> object:
        if not self._check_tag(node, path, *_SCALARS):
            self.reading.unreadable.add(path)
            return None
        kind = node.tag.removeprefix(_STANDARD)
        try:
            return _SCALARS[kind](node.value)
        except (ValueError, KeyError):
            shown = node.value if len(node.value) <= _LONGEST_NUMBER else node.value[:20] + "…"
            self._give_up(node, path, f"{shown!r} cannot be read as {_KIND_NAMES[kind]}")
            return None

    def _check_tag(self, node: Node, path: KeyPath, *allowed: str) -> bool:
        if node.tag in {_STANDARD + kind for kind in allowed}:
            return True
        shown = node.tag.replace(_STANDARD, "!!", 1)
        self._fault(_line(node), path, f"tag {shown} is not allowed; remove it")
        return False

    def _give_up(self, node: Node, path: KeyPath, reason: str) -> None:
        self._fault(_line(node), path, reason)
        self.reading.unreadable.add(path)

    def _fault(self, line: int, path: KeyPath, reason: str) -> None:
        self.reading.faults.append(ReadFault(line, path, reason))


def _read_int(text: str) -> int:
    if len(text) > _LONGEST_NUMBER:
        raise ValueError(text)
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


def _read_float(text: str) -> float:
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


def _read_text(text: str) -> str:
    if _HALF.search(text):
        raise ValueError(text)
    return text


_SCALARS = {
    "null": lambda text: None,
    "bool": lambda text: {"true": True, "false": False}[text.lower()],
    "int": _read_int,
    "float": _read_float,
    "str": _read_text,
}
_KIND_NAMES = {
    "bool": "true or false",
    "int": "an integer",
    "float": "a number",
    "str": "a string",
}
_WRITE_OUT = "write out the values"


def _line(node: Node) -> int:
    line: int = node.start_mark.line + 1
    return line


def _unread(line: int, reason: str) -> Reading:
    """A reading without a value: the text as a whole is unreadable."""
    return Reading(faults=[ReadFault(line, (), reason)], unreadable={()})
