"""`push` to a fake Hub on this machine: files are uploaded, the token is never printed."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

TOKEN = "hf_" + "x" * 34


class Hub(BaseHTTPRequestHandler):
    """A fake Hub with the three calls of an upload; records the requests."""

    status = 200
    url = ""
    calls: list[tuple[str, str, bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        type(self).calls.append((self.path, self.headers.get("Authorization", ""), body))
        answer: Any = {"url": f"{self.url}/me/mine", "error": "no"}
        if "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            answer = {
                "files": [
                    {"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names
                ]
            }
        elif "/commit/" in self.path:
            answer = {"commitUrl": f"{self.url}/me/mine/commit/1", "commitOid": "1"}
        data = json.dumps(answer).encode()
        self.send_response(self.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


@pytest.fixture
def hub() -> Iterator[Any]:
    kind = type("Hub", (Hub,), {"calls": [], "status": 200})
    server = HTTPServer(("127.0.0.1", 0), kind)
    Thread(target=server.serve_forever, daemon=True).start()
    kind.url = f"http://127.0.0.1:{server.server_port}"
    yield kind
    server.shutdown()


@pytest.fixture
def export(tmp_path: Path) -> Path:
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "README.md").write_text("# card\n")
    (folder / ".hidden").write_text("not for the Hub")
    return folder


def push(hub: Any, *arguments: str) -> tuple[int, str]:
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN}
    environment["no_proxy"] = "127.0.0.1"
    done = subprocess.run(
        [sys.executable, "-m", "molmo_tune", "push", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    output = done.stdout + done.stderr
    assert TOKEN not in output
    assert "Traceback" not in output
    return done.returncode, output


def test_dry_run_lists_files_and_uploads_nothing(hub: Any, export: Path) -> None:
    code, output = push(hub, str(export), "me/mine", "--dry-run")
    assert code == 0
    assert "model.safetensors" in output
    assert "dry run: 2 files, 14 bytes for me/mine (private if new)" in output
    assert hub.calls == []


def test_files_are_uploaded_in_one_commit(hub: Any, export: Path) -> None:
    code, output = push(hub, str(export), "me/mine")
    assert (code, output.splitlines()[-1]) == (0, f"pushed: {hub.url}/me/mine/commit/1")
    (create,) = [body for path, _, body in hub.calls if path == "/api/repos/create"]
    assert b"private" in create
    assert {header for _, header, _ in hub.calls} == {f"Bearer {TOKEN}"}
    (commit,) = [body for path, _, body in hub.calls if "/commit/" in path]
    lines = [json.loads(line)["value"] for line in commit.splitlines()]
    sent = {v["path"]: base64.b64decode(v["content"]) for v in lines if "path" in v}
    assert sent == {"model.safetensors": b"weights", "README.md": b"# card\n"}


def test_rejections_are_one_line(hub: Any, export: Path, tmp_path: Path) -> None:
    hub.status = 403
    code, output = push(hub, str(export), "me/mine")
    assert code == 1
    assert "the Hub answered 403" in output.splitlines()[-1]
    (tmp_path / "empty").mkdir()
    faulty = ((tmp_path / "empty", "me/mine"), (tmp_path / "no", "me/mine"), (export, "x"))
    for folder, name in faulty:
        code, output = push(hub, str(folder), name, "--dry-run")
        assert (code, len(output.splitlines())) == (1, 1)
