"""A JSON label file as plain Python values; an invalid file is one error with its line.

Limitations: does not check the values; `files.strict_json` checks keys and types.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from molmo_tune.errors import UserError
from molmo_tune.labels.files.text import EXPORT_AGAIN, read_text


def read_json(path: Path) -> Any:
    """Return the values of a JSON file. ``NaN`` is accepted; the readers check numbers.

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
        raise UserError(path, f"JSON that cannot be read ({error})", fix=EXPORT_AGAIN) from error
