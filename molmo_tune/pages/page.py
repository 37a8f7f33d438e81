"""Page templates (in ``html/``) → one HTML file without references to other files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from molmo_tune.atomic_files import write_text

_FOLDER = Path(__file__).parent / "html"


def write_page(template: str, out: Path, **variables: Any) -> None:
    """Render a template and write the page atomically.

    Raises:
        UserError: the file cannot be written.
    """
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template(template).render(**variables)
    write_text(out, text, errors="backslashreplace")
