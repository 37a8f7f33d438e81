"""What the pages under `docs/` tell the user to run does run."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from molmo_tune.model.loading import TINY_FOLDER

DOCS = Path(__file__).parent.parent / "docs"


def test_the_transformers_block_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my-molmo2").symlink_to(TINY_FOLDER)
    shutil.copy(DOCS / "demo.jpg", tmp_path / "picture.jpg")
    monkeypatch.chdir(tmp_path)
    text = (DOCS / "serving.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(block, "serving.md", "exec"), {})
    assert "points" in capsys.readouterr().out
