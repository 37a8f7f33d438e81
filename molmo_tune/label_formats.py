"""The names of the label formats: one per module in `molmo_tune/labels/formats/`.

A recipe must know the names before any reader is imported, and a name must never exist without its
reader. So the folder is the list: every module there without a leading underscore is a format, and
the format is named as its module is. A new format is one new file.

Limitations: imports no reader (`molmo_tune.labels.read` does) and knows no file.
"""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent / "labels" / "formats"

FORMAT_MODULES: dict[str, str] = {
    path.stem: ".".join(("molmo_tune", *path.relative_to(_FOLDER.parent.parent).parts))[:-3]
    for path in sorted(_FOLDER.rglob("*.py"), key=lambda path: path.stem)
    if not path.stem.startswith("_")
}
"""Name of each format, in alphabetical order, with the dotted name of its module."""
