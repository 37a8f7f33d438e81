"""Names of the label formats: one per module in `molmo_tune/labels/formats/`.

A recipe needs the names before any reader is imported, and a name without a reader must not exist.
So the folder is the list: every module there without a leading underscore is a format with the
module's name. A new format is one new file.

Limitations: imports no reader (`molmo_tune.labels.read` does).
"""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent / "labels" / "formats"

FORMAT_MODULES: dict[str, str] = {
    path.stem: ".".join(("molmo_tune", *path.relative_to(_FOLDER.parent.parent).parts))[:-3]
    for path in sorted(_FOLDER.rglob("*.py"), key=lambda path: path.stem)
    if not path.stem.startswith("_")
}
"""Module name of each format, in alphabetical order of the formats."""
