"""An XML label file as plain `Node`s with their lines; an invalid file is one error with its line.

XML is parsed with `defusedxml`, and any document type declaration is refused: no label tool writes
one, while entity bombs and external entities need one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from xml.sax import SAXException, SAXParseException
from xml.sax.handler import ContentHandler
from xml.sax.xmlreader import AttributesImpl, Locator

from defusedxml.common import DefusedXmlException
from defusedxml.sax import parse

from molmo_tune.errors import UserError
from molmo_tune.labels.files.text import EXPORT_AGAIN, read_bytes


@dataclass(slots=True)
class Node:
    """One XML element: tag, attributes, 1-based line, text and children."""

    tag: str
    attributes: dict[str, str]
    line: int
    text: str = ""
    children: list[Node] = field(default_factory=list)

    def all(self, tag: str) -> Iterator[Node]:
        """Yield the children with that tag."""
        return (child for child in self.children if child.tag == tag)

    def at(self, *tags: str) -> Node | None:
        """Return the first descendant along these tags, None if missing."""
        node: Node | None = self
        for tag in tags:
            node = next(node.all(tag), None) if node is not None else None
        return node

    def text_at(self, *tags: str) -> str:
        """Return the stripped text of that descendant, empty if missing."""
        node = self.at(*tags)
        return node.text.strip() if node is not None else ""


def read_xml(path: Path) -> Node:
    """Return the root element of an XML file.

    Raises:
        UserError: the file is empty, declares a document type or entities, or is not XML.
    """
    data = read_bytes(path)
    if not data.strip():
        raise UserError(path, "the file is empty", "labels", EXPORT_AGAIN)
    builder = _TreeBuilder()
    try:
        parse(BytesIO(data), builder, forbid_dtd=True)
    except DefusedXmlException as error:
        found = "declares a document type or entities, which can attack the parser"
        raise UserError(f"{path}:{builder.line}", found, "plain XML without <!DOCTYPE>") from error
    except SAXParseException as error:
        raise _malformed(path, error.getLineNumber(), error.getMessage()) from error
    except (SAXException, ValueError, LookupError) as error:  # e.g., encodings unknown to expat
        raise _malformed(path, builder.line, error) from error
    return builder.root.children[0]


def _malformed(path: Path, line: int | None, reason: object) -> UserError:
    found = f"not valid XML ({reason})"
    return UserError(f"{path}:{line or 1}", found, fix=EXPORT_AGAIN)


class _TreeBuilder(ContentHandler):
    """Builder of `Node`s without recursion, so that deep nesting needs no stack."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Node("", {}, 0)
        self._open = [self.root]
        self._where: Locator | None = None

    @property
    def line(self) -> int:
        return (self._where.getLineNumber() if self._where else None) or 1

    def setDocumentLocator(self, locator: Locator) -> None:  # noqa: N802 (SAX's name)
        self._where = locator

    def startElement(self, name: str, attrs: AttributesImpl) -> None:  # noqa: N802
        node = Node(name, dict(attrs.items()), self.line)
        self._open[-1].children.append(node)
        self._open.append(node)

    def endElement(self, name: str) -> None:  # noqa: N802
        self._open.pop()

    def characters(self, content: str) -> None:
        self._open[-1].text += content
