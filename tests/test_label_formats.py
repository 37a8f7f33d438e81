"""Every golden case of `tests/labels` is read as its expected files say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from molmo_tune.label_formats import FORMAT_MODULES
from molmo_tune.labels.record import parse_record
from molmo_tune.labels.survey import detect_format
from tests.labels.cases import BASIC, CASES, MALFORMED, ROOT, Case, differences, expected, outcome
from tests.labels.update import report_text, rounded

UPDATE = "; if this is right: python -m tests.labels.update"
cases = pytest.mark.parametrize("case", CASES.values(), ids=lambda c: f"{c.format}/{c.name}")


def test_every_format_has_a_golden_case_and_its_source():
    assert set(BASIC) == set(FORMAT_MODULES)
    for format in FORMAT_MODULES:
        assert "\n\n" in (ROOT / format / "README.md").read_text(encoding="utf-8")
        assert (ROOT / format / MALFORMED).is_file() or BASIC[format].needs


@cases
def test_golden_case(case: Case, tmp_path: Path) -> None:
    records, report = outcome(case, tmp_path)
    wanted_records, wanted_report = expected(case)
    assert list(differences(records, wanted_records)) == [], f"{case.folder}{UPDATE}"
    assert list(differences(report, wanted_report)) == [], f"{case.folder}{UPDATE}"
    for count in report["counts"]:
        sums = [count.get(outcome, 0) for outcome in ("kept", "skipped", "dropped")]
        assert count["read"] == sum(sums), count


@cases
def test_golden_case_is_recognized(case: Case, tmp_path: Path) -> None:
    if not case.detected:
        pytest.skip("its format cannot be recognized from the file")
    assert detect_format(case.write(tmp_path).path) == case.format


@cases
def test_expected_samples_are_valid_records(case: Case) -> None:
    records, report = expected(case)
    for record in records:
        parse_record(record, str(case.folder))
    assert len(records) == report["num_samples"]
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in rounded(records))
    assert (case.folder / "expected.jsonl").read_text(encoding="utf-8") == text
    assert (case.folder / "report.json").read_text(encoding="utf-8") == report_text(report)


def test_a_difference_is_found():
    """The comparison itself: a changed number, key, length, type and order."""
    good = {"a": [1.0, 2, {"b": "c"}], "d": True}
    assert not list(differences({"a": [1.0 + 1e-9, 2, {"b": "c"}], "d": True}, good))
    for bad in (
        {"a": [1.001, 2, {"b": "c"}], "d": True},
        {"a": [1.0, 2, {"b": "c"}]},
        {"a": [1.0, 2], "d": True},
        {"a": [1.0, 2, {"b": "x"}], "d": True},
        {"a": [2, 1.0, {"b": "c"}], "d": True},
        {"a": [1.0, 2, {"b": "c"}], "d": 1},
        {**good, "e": 0},
    ):
        assert len(list(differences(bad, good))) >= 1, bad
