"""Two tiers of tests: the fast one runs by default, the slow one with ``pytest -m slow``.

A test belongs to the fast tier when nothing else there shows the same behavior breaking. Of a grid
of parameters, the fast tier runs the few that differ most.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def slow_except(values: Iterable[Any], *fast: Any) -> list[Any]:
    """Mark all parameters as slow except the named ones; ids stay as pytest makes them."""
    return [v if v in fast else pytest.param(v, marks=pytest.mark.slow) for v in values]
