"""Damaged label files end in one clear error, or their losses are counted.

Every format's golden case (`tests/labels/FORMAT/basic`) is damaged in the ways of
`tests.labels.damage`; ``python -m tests.labels.fuzz`` tries random damage at length.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from molmo_tune.errors import UserError
from molmo_tune.label_formats import FORMAT_MODULES
from molmo_tune.labels.report import ConversionReport
from molmo_tune.labels.sample import Sample
from tests.labels.cases import BASIC, Inputs
from tests.labels.damage import (
    DAMAGED,
    DESTROYED,
    Malformed,
    malformed_values,
    wrong_values,
)
from tests.labels.fuzz import Target, break_once, golden_targets, limits

FORMATS = [name for name, case in BASIC.items() if not case.needs]
JSON = [name for name in FORMATS if (BASIC[name].label_file or BASIC[name].path).endswith(".json")]
MALFORMED = list(malformed_values())
slow = pytest.mark.slow
ImageMissing = r"missing|no such|no video|no file|no im"


def read_or_message(inputs: Inputs) -> tuple[list[Sample], ConversionReport] | str:
    """Return what is read, or the message of the error, which has one line."""
    try:
        with limits():
            samples, report = inputs.read()
    except UserError as error:
        message = str(error)
        assert "\n" not in message
        return message
    for count in report.counts:
        assert count.read == count.kept + count.skipped + count.dropped, count
    return samples, report


def num_kept(report: ConversionReport) -> int:
    return sum(count.kept for count in report.counts)


def num_read(report: ConversionReport) -> int:
    return sum(count.read for count in report.counts)


def num_reported(report: ConversionReport, reason: str) -> int:
    """How often a reason was given."""
    found = (*report.dropped, *report.corrected)
    return sum(finding.count for finding in found if reason in finding.reason)


def test_every_format_has_a_list_of_malformed_values():
    assert {row.format for row in MALFORMED} == set(FORMATS)
    for name in FORMATS:
        kinds = [row.kind for row in MALFORMED if row.format == name]
        assert kinds == ["wrong type", "negative size", "not a number"]


@pytest.mark.parametrize("row", MALFORMED, ids=lambda row: f"{row.format}-{row.kind}")
def test_malformed_values_are_reported(row: Malformed, tmp_path: Path) -> None:
    inputs = BASIC[row.format].write(tmp_path)
    _, good = inputs.read()
    row.apply(inputs.label_file)
    result = read_or_message(inputs)
    if isinstance(result, str):
        assert row.reason in result
        return
    assert num_reported(result[1], row.reason) > num_reported(good, row.reason)
    assert num_kept(result[1]) <= num_kept(good)


@pytest.mark.parametrize("how", DESTROYED)
@pytest.mark.parametrize("name", FORMATS)
def test_destroyed_files_are_one_clear_error(name: str, how: str, tmp_path: Path) -> None:
    inputs = BASIC[name].write(tmp_path)
    content = DESTROYED[how]
    data = content if isinstance(content, bytes) else content(inputs.label_file.read_bytes())
    inputs.label_file.write_bytes(data)
    message = read_or_message(inputs)
    assert isinstance(message, str)
    assert message.startswith(str(tmp_path))


@pytest.mark.parametrize("how", DAMAGED)
@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files_are_reported(name: str, how: str, tmp_path: Path) -> None:
    inputs = BASIC[name].write(tmp_path)
    samples, good = inputs.read()
    inputs.label_file.write_bytes(DAMAGED[how](inputs.label_file.read_bytes()))
    result = read_or_message(inputs)
    if isinstance(result, str):
        return
    if how == "UTF-16 without a mark":  # XML recognizes it
        assert result[0] == samples
    else:  # a file of lines that was cut short has fewer lines
        assert how in ("a sixth", "a half")
        assert num_read(result[1]) < num_read(good)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", FORMATS)
def test_a_byte_order_mark_changes_nothing_or_is_an_error(
    name: str, encoding: str, tmp_path: Path
) -> None:
    inputs = BASIC[name].write(tmp_path)
    samples, _ = inputs.read()
    try:
        text = inputs.label_file.read_bytes().decode()
    except UnicodeDecodeError:
        pytest.skip("not a text file")
    inputs.label_file.write_bytes(text.encode(encoding))
    result = read_or_message(inputs)
    assert isinstance(result, str) or result[0] == samples


@pytest.mark.parametrize("num_places", [6, pytest.param(40, marks=slow)])
@pytest.mark.parametrize("name", JSON)
def test_values_of_the_wrong_type_are_errors_or_counted(
    name: str, num_places: int, tmp_path: Path
) -> None:
    inputs = BASIC[name].write(tmp_path)
    good = json.loads(inputs.label_file.read_bytes())
    for content in wrong_values(good, num_places, f"wrong {name}"):
        inputs.label_file.write_text(json.dumps(content))
        read_or_message(inputs)


@pytest.mark.parametrize("name", FORMATS)
def test_missing_media_are_an_error(name: str, tmp_path: Path) -> None:
    inputs = BASIC[name].write(tmp_path, draw=False)
    with pytest.raises(UserError, match=ImageMissing):
        inputs.read()


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "jsonl"])  # opens no media
def test_media_that_do_not_open_are_an_error(name: str, tmp_path: Path) -> None:
    inputs = BASIC[name].write(tmp_path)
    for file in BASIC[name].draw:
        (tmp_path / file).write_bytes(b"not an image or a video")
    with pytest.raises(UserError, match=r"missing or unreadable"):
        inputs.read()


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Target]]:
    found: dict[str, list[Target]] = {}
    for target in golden_targets(tmp_path_factory.mktemp("fuzz")):
        found.setdefault(target.format, []).append(target)
    return found


@pytest.mark.parametrize("num_times", [15, pytest.param(150, marks=slow)])
@pytest.mark.parametrize("format", FORMAT_MODULES)
def test_random_damage_is_an_error_or_counted(
    format: str, num_times: int, targets: dict[str, list[Target]]
) -> None:
    if format not in targets:
        pytest.skip("its files are a library's; `tests.labels.fuzz` damages real ones")
    for seed in range(num_times):
        break_once(targets[format][seed % len(targets[format])], seed)
