"""The console of all verbs: long lines wrap softly, and text is printed as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def new_console() -> Console:
    """Return a console that neither interprets markup nor colors numbers and paths."""
    from rich.console import Console

    return Console(soft_wrap=True, markup=False, highlight=False)
