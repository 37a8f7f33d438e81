"""``python -m tests.vectors FILE [FILE …]`` prints failures, then ``N passed, M failed``."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.vectors import failures


def main(arguments: list[str]) -> int:
    if not arguments:
        print("usage: python -m tests.vectors FILE [FILE …]", file=sys.stderr)
        return 2
    passed = failed = 0
    for argument in arguments:
        for name, reason in failures(Path(argument)):
            passed += reason is None
            failed += reason is not None
            if reason is not None:
                print(f"FAILED {name}: {reason}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
