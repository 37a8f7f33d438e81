"""The preview page in a real browser: no complaint on the console; keys, theme and search work."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from molmo_tune.cli import main

CHROMIUM = Path("/usr/bin/chromium")
QUIET = "quic background-networking component-update sync gpu"


def opened(page: Path, profile: Path) -> subprocess.CompletedProcess[str]:
    """The page after its scripts have run (stdout), and the browser's log (stderr)."""
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}")
    flags = [f"--disable-{name}" for name in QUIET.split()]
    command = [CHROMIUM, "--headless", "--no-sandbox", "--no-first-run", *flags]
    more = [f"--user-data-dir={profile}", "--enable-logging=stderr", "--dump-dom", page.as_uri()]
    done = subprocess.run([*command, *more], capture_output=True, text=True, timeout=60, check=True)
    assert "<body" in done.stdout
    return done


def console_of(page: Path, profile: Path) -> list[str]:
    """What the page says on the browser's console, errors of scripts among it."""
    return [line for line in opened(page, profile).stderr.splitlines() if "CONSOLE" in line]


def test_the_page_has_no_console_errors(pond_recipe: Path, tmp_path: Path) -> None:
    page, broken = tmp_path / "preview.html", tmp_path / "broken.html"
    assert main(["preview", str(pond_recipe), "--out", str(page)]) == 0
    assert console_of(page, tmp_path / "profile") == []
    broken.write_text("<body><script>nothing.there()</script>")
    assert console_of(broken, tmp_path / "profile"), "the browser tells errors"


PRESSES = """
<script>
function press(key) {
  document.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
}
const told = [];
press("j"); told.push(document.activeElement.id);
press("j"); told.push(document.activeElement.id);
press("k"); told.push(document.activeElement.id);
const grounds = ["light", "dark"].map((theme) => {
  document.documentElement.dataset.theme = theme;
  return getComputedStyle(document.body).backgroundColor;
});
told.push(grounds[0] !== grounds[1]);
const before = document.documentElement.dataset.theme;
press("t"); told.push(before !== document.documentElement.dataset.theme);
press("/"); told.push(document.activeElement.id);
filter.value = "pond_002"; filter.dispatchEvent(new Event("input"));
told.push(shown().length, document.getElementById("count").textContent);
document.body.dataset.told = told.join("|");
</script>
"""


def test_keys_theme_and_search(pond_recipe: Path, tmp_path: Path) -> None:
    page = tmp_path / "preview.html"
    assert main(["preview", str(pond_recipe), "--out", str(page)]) == 0
    page.write_text(page.read_text().replace("</body>", f"{PRESSES}</body>"))
    dom = opened(page, tmp_path / "profile").stdout
    assert 'data-told="s0|s1|s0|true|true|filter|1|1 of 4"' in dom
