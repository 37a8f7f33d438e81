"""The preview page in a real browser: it opens without a complaint on the console."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from molmo_tune.cli import main

CHROMIUM = Path("/usr/bin/chromium")
QUIET = "quic background-networking component-update sync gpu"


def console_of(page: Path, profile: Path) -> list[str]:
    """What the page says on the browser's console, errors of scripts among it."""
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}")
    flags = [f"--disable-{name}" for name in QUIET.split()]
    command = [CHROMIUM, "--headless", "--no-sandbox", "--no-first-run", *flags]
    more = [f"--user-data-dir={profile}", "--enable-logging=stderr", "--dump-dom", page.as_uri()]
    done = subprocess.run([*command, *more], capture_output=True, text=True, timeout=60, check=True)
    assert "<body" in done.stdout
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_the_page_has_no_console_errors(pond_recipe: Path, tmp_path: Path) -> None:
    page, broken = tmp_path / "preview.html", tmp_path / "broken.html"
    assert main(["preview", str(pond_recipe), "--out", str(page)]) == 0
    assert console_of(page, tmp_path / "profile") == []
    broken.write_text("<body><script>nothing.there()</script>")
    assert console_of(broken, tmp_path / "profile"), "the browser tells errors"
