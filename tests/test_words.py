"""The style page's patterns (`docs/style.md`) over everything a person reads: 0 hits.

Python files are searched in their strings, docstrings and comments; American spelling also holds
for identifiers. `python -m tests.test_words [PATH …]` lists the hits with file and line.
"""

from __future__ import annotations

import io
import json
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
READ_BY_PEOPLE = (
    *("molmo_tune", "dev", "docs", "recipes", "data_templates", "notebooks"),
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "RELEASING.md", ".github"),
)
QUOTES_THEM = "docs/style.md"
SUFFIXES = (".py", ".md", ".j2", ".yaml", ".yml", ".ipynb")

# What to write instead -> what not to write.
PATTERNS = {
    "fix": r"\bmend(s|ed|ing)?\b",
    "resume, continue, happen": r"\b(gone|goes|go|going) on\b",
    "omit": r"\b(left|leave|leaves|leaving) (it |\S+ )?away\b",
    "report, show, given": r"\b(told|tells?)\b(?! apart)",
    "split the sentence or turn it round": r"\bof which\b",
    "represents, replaces": r"\bstands? (in )?for\b",
    "depends on": r"\bhangs? on\b",
    "stored in": r"\bat[ _]rest\b",
    "is in, falls in": r"\b(lie|lies|lay) (in|at|on|beside|below|there|outside|between)\b",
    "is not a, has no": r"(?<!there )\b(is|are|was|were) no [a-z]",
    "next to, in addition to, other than": r"\bbesides?\b",
    "absent, missing, not installed": r"\bnot there\b",
    "differs from": r"\banother \w+ than\b",
    "at most N": r"\bso many\b",
    "matches, equals": r"\b(is|are|was|were) (that|those) of\b",
    "say who does what": r"\bmay be (said|called|asked)\b",
    "media file, image, video": r"\bmedium\b",
    "image (file), frame (of a video)": r"\bpictures?\b",
    "dataset, checksum, timeout": r"\b(data sets?|check sums?|time-outs?)\b",
    "dropped": r"\blost\b",
    "4-bit, 16-bit": r"\bin (4|8|16|32) bits\b",
    "no space before %": r"[\d}] %(?![\w(])",
    "verified, verification": r"\b(prove[ns]?|proofs?)\b",
    "subpackage, pipeline": r"\b(rooms?|road)\b",
}
AMERICAN = (
    r"\w*(optimis|normalis|quantis|tokenis|initialis|recognis|synchronis|colour|centre|grey|licence"
    r"|neighbour|favour|labell|misspelt|spelt|learnt|behaviour|summaris|serialis|organis)\w*"
)
ALLOWED: frozenset[tuple[str, str]] = frozenset(
    {  # keys of `pairs.json` and `report.json`
        ("molmo_tune/preference/mining.py", 'self.skip(item, "medium does not open")'),
        ("molmo_tune/preference/mining.py", 'tally.skip(item, "no medium")'),
        ("molmo_tune/preference/pairs.py", '"no medium",'),
        ("molmo_tune/preference/pairs.py", '"medium does not open",'),
        ("molmo_tune/preference/pairs.py", '"no medium": "without image or video",'),
        ("molmo_tune/preference/pairs.py", '"medium does not open": "with unreadable media",'),
    }
)
"""``(file, line's text)`` of hits that are right, such as a quotation of a file's own words."""


def hits(path: Path) -> Iterator[tuple[int, str, str, str]]:
    """Line number, what was found, what to write instead, and the line, for each hit."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    for number, prose in _prose(path, text):
        for instead, pattern in PATTERNS.items():
            for found in re.finditer(pattern, prose, re.IGNORECASE):
                line = number + prose.count("\n", 0, found.start())
                yield line, found[0], instead, lines[line - 1].strip()
    for number, line in enumerate(lines, 1):
        for found in re.finditer(AMERICAN, line, re.IGNORECASE):
            yield number, found[0], "American spelling", line.strip()


def _prose(path: Path, text: str) -> Iterator[tuple[int, str]]:
    if path.suffix == ".ipynb":
        for cell in json.loads(text)["cells"]:
            yield 1, "".join(cell["source"])
    elif path.suffix == ".py":
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            kinds = (tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", -1))
            if token.type in kinds:
                yield token.start[0], token.string
    elif path.parent.name == "data_templates":  # the questions are training data, not our prose
        for number, line in enumerate(text.splitlines(), 1):
            yield number, line[line.find("#") :] if "#" in line else ""
    else:
        yield 1, text


def files(names: tuple[str, ...] = READ_BY_PEOPLE) -> list[Path]:
    """All files that people read, below these names."""
    found = []
    for name in names:
        path = ROOT / name
        inside = path.rglob("*") if path.is_dir() else [path] if path.is_file() else []
        found += [p for p in inside if p.suffix in SUFFIXES and "tiny/base" not in p.as_posix()]
    return sorted(p for p in found if p != ROOT / QUOTES_THEM)


@pytest.mark.parametrize("path", files(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_words(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    found = [hit for hit in hits(path) if (name, hit[3]) not in ALLOWED]
    assert not found, "\n".join(
        f"{name}:{line}: {word!r}: {instead}" for line, word, instead, _ in found
    )


def test_questions_of_data_templates_are_not_prose(tmp_path: Path) -> None:
    path = tmp_path / "data_templates" / "count.yaml"
    path.parent.mkdir()
    path.write_text("questions:  # drawn from a medium\n  - Tell me how many there are.\n")
    assert [(line, word) for line, word, _, _ in hits(path)] == [(1, "medium")]


def test_the_patterns_find_what_they_forbid(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text('"""The proof is told; colours\n\nlie in it."""\nx = 5 % 3  # a medium\n')
    assert [(line, word) for line, word, _, _ in hits(path)] == [
        (1, "told"),
        (3, "lie in"),
        (1, "proof"),
        (4, "medium"),
        (1, "colours"),
    ]


if __name__ == "__main__":
    for file in files(tuple(sys.argv[1:]) or READ_BY_PEOPLE):
        for line, word, instead, whole in hits(file):
            print(f"{file.relative_to(ROOT)}:{line}: {word!r} → {instead}: {whole[:100]}")
