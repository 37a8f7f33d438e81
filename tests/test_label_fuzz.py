"""A fixed share of `tests.fuzz_labels`: the golden input of every format, damaged fifteen times."""

from __future__ import annotations

import pytest

from molmo_tune.labels.read import READERS
from tests.fuzz_labels import NEEDS, Victim, break_once, golden_victims

TIMES = 15


@pytest.fixture(scope="module")
def victims(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Victim]:
    folder = tmp_path_factory.mktemp("fuzz")
    return {victim.format: victim for victim in golden_victims(folder)}


@pytest.mark.parametrize("format", READERS)
def test_damage_is_an_error_or_counted(victims: dict[str, Victim], format: str) -> None:
    if format in NEEDS:
        pytest.skip("its files are a library's; `tests.fuzz_labels` damages real ones")
    for seed in range(TIMES):
        break_once(victims[format], seed)
