"""Opening label files: text, JSON and XML, each fault as one error with a line number.

A label file comes from someone else's tool or machine. So XML is parsed with `defusedxml` and any
document type declaration is refused (no label tool writes one; entity bombs and external entities
need one); a truncated or undecodable file is named with the line where it goes wrong; nothing is
guessed. XML becomes plain `Node`s that know their line, for the messages of the readers.

What it does not do: know any format (one module each beside this one) or follow names to media
(`molmo_tune.labels.media_source`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.sax import SAXException, SAXParseException
from xml.sax.handler import ContentHandler
from xml.sax.xmlreader import AttributesImpl, Locator

from defusedxml.common import DefusedXmlException
from defusedxml.sax import parse

from molmo_tune.errors import UserError

HEAD_BYTES = 4_000_000
_EXPORT_AGAIN = "export the file again"


@dataclass(slots=True)
class Node:
    """One XML element: tag, attributes, 1-based line, text and children."""

    tag: str
    attributes: dict[str, str]
    line: int
    text: str = ""
    children: list[Node] = field(default_factory=list)

    def all(self, tag: str) -> Iterator[Node]:
        """Children of that tag."""
        return (child for child in self.children if child.tag == tag)

    def at(self, *tags: str) -> Node | None:
        """The first descendant along these tags."""
        node: Node | None = self
        for tag in tags:
            node = next(node.all(tag), None) if node is not None else None
        return node

    def text_at(self, *tags: str) -> str:
        """Text of that descendant, stripped; empty when there is none."""
        node = self.at(*tags)
        return node.text.strip() if node is not None else ""


def read_head(path: Path) -> str:
    """The beginning of a file, for telling formats apart; bytes that are no text are replaced."""
    return _decoded(_read_bytes(path, HEAD_BYTES), "replace")


def read_text(path: Path) -> str:
    """A whole text file in UTF-8 (or UTF-16 with a byte order mark).

    Raises:
        UserError: the file is empty or is not text in these encodings.
    """
    data = _read_bytes(path)
    try:
        text = _decoded(data, "strict")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        found = f"not UTF-8 text (byte {data[error.start]:#04x})"
        raise UserError(f"{path}:{line}", found, fix="save the file as UTF-8") from error
    if not text or text.isspace():
        raise UserError(path, "the file is empty", "labels", _EXPORT_AGAIN)
    return text


def read_json(path: Path) -> Any:
    """A JSON file. ``NaN`` is let through as a number; the readers judge numbers.

    Raises:
        UserError: the file is empty, not text, or not JSON.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"{path}:{error.lineno}"
        raise UserError(where, f"not valid JSON ({error.msg})", fix=_EXPORT_AGAIN) from error
    except (RecursionError, ValueError) as error:
        raise UserError(path, f"not usable JSON ({error})", fix=_EXPORT_AGAIN) from error


def read_xml(path: Path) -> Node:
    """The root element of an XML file.

    Raises:
        UserError: the file is empty, declares a document type or entities, or is not XML.
    """
    data = _read_bytes(path)
    if not data.strip():
        raise UserError(path, "the file is empty", "labels", _EXPORT_AGAIN)
    builder = _TreeBuilder()
    try:
        parse(BytesIO(data), builder, forbid_dtd=True)
    except DefusedXmlException as error:
        found = "declares a document type or entities, which could be used against the reader"
        raise UserError(f"{path}:{builder.line}", found, "plain XML without <!DOCTYPE>") from error
    except SAXParseException as error:
        raise _malformed(path, error.getLineNumber(), error.getMessage()) from error
    except (SAXException, ValueError, LookupError) as error:  # encodings that expat does not know
        raise _malformed(path, builder.line, error) from error
    return builder.root.children[0]


def _malformed(path: Path, line: int | None, reason: object) -> UserError:
    found = f"not valid XML ({reason})"
    return UserError(f"{path}:{line or 1}", found, fix=_EXPORT_AGAIN)


class _TreeBuilder(ContentHandler):
    """Builds `Node`s without recursion, so that depth costs no stack."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Node("", {}, 0)
        self._open = [self.root]
        self._where: Locator | None = None

    @property
    def line(self) -> int:
        return (self._where.getLineNumber() if self._where else None) or 1

    def setDocumentLocator(self, locator: Locator) -> None:  # noqa: N802 (name given by SAX)
        self._where = locator

    def startElement(self, name: str, attrs: AttributesImpl) -> None:  # noqa: N802
        node = Node(name, dict(attrs.items()), self.line)
        self._open[-1].children.append(node)
        self._open.append(node)

    def endElement(self, name: str) -> None:  # noqa: N802
        self._open.pop()

    def characters(self, content: str) -> None:
        self._open[-1].text += content


def _read_bytes(path: Path, count: int = -1) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError as error:
        raise UserError(path, f"cannot be read ({error.strerror})") from error


def _decoded(data: bytes, errors: str) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", errors)
    return data.decode("utf-8-sig", errors)
