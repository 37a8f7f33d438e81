"""A JSON label file as plain Python values, each fault as one error with its line.

Limitations: does not check what the values mean; `files.strict_json` asks for
keys and types one at a time.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from molmo_tune.errors import UserError
from molmo_tune.labels.files.text import EXPORT_AGAIN, read_text


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
        raise UserError(where, f"not valid JSON ({error.msg})", fix=EXPORT_AGAIN) from error
    except (RecursionError, ValueError) as error:
        raise UserError(path, f"not usable JSON ({error})", fix=EXPORT_AGAIN) from error
