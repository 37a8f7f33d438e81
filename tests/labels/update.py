"""Rewrite the expected files of golden cases: ``python -m tests.labels.update [FORMAT …]``.

Prints every change as a diff, so that none slips into a commit unread; nothing is written with
``--check``, which exits with 1 where something would change.
"""

from __future__ import annotations

import argparse
import difflib
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.labels.cases import CASES, EXPECTED, REPORT, Case, differences, expected, outcome


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("format", nargs="*", help="formats to update (default: all)")
    parser.add_argument("--check", action="store_true", help="print the changes, write nothing")
    options = parser.parse_args()
    known = {case.format for case in CASES.values()}
    if unknown := set(options.format) - known:
        parser.error(f"no golden case of {', '.join(sorted(unknown))}")
    num_changed = 0
    for case in CASES.values():
        if options.format and case.format not in options.format:
            continue
        if not case.is_readable():
            print(f"skipped {case.format}/{case.name}: {case.needs} is not installed")
            continue
        for path, text in updates(case):
            num_changed += 1
            print_diff(path, text)
            if not options.check:
                path.write_text(text, encoding="utf-8")
    print(f"{num_changed} files {'would change' if options.check else 'changed'}")
    return int(options.check and num_changed > 0)


def updates(case: Case) -> Iterator[tuple[Path, str]]:
    """Expected files whose contents differ from what is read now, with the new text."""
    with tempfile.TemporaryDirectory() as place:
        records, report = outcome(case, Path(place))
    known = all((case.folder / name).is_file() for name in (EXPECTED, REPORT))
    if known and not any(differences([records, report], list(expected(case)))):
        return
    texts = {EXPECTED: "".join(map(_line, rounded(records))), REPORT: report_text(report)}
    for name, text in texts.items():
        path = case.folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            yield path, text


def rounded(value: Any) -> Any:
    """The same JSON with at most six decimals."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return [rounded(inner) for inner in value] if isinstance(value, list) else value


def report_text(report: dict[str, Any]) -> str:
    """A report with one line per count and reason."""
    parts = []
    for key, value in report.items():
        if isinstance(value, list) and value:
            rows = ",\n".join("  " + json.dumps(row, ensure_ascii=False) for row in value)
            parts.append(f" {json.dumps(key)}: [\n{rows}\n ]")
        else:
            parts.append(f" {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def print_diff(path: Path, text: str) -> None:
    """Print what changes in a file."""
    old = path.read_text(encoding="utf-8") if path.is_file() else ""
    name = str(path)
    lines = difflib.unified_diff(old.splitlines(), text.splitlines(), name, name, n=0, lineterm="")
    print("\n".join(lines))


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.exit(main())
