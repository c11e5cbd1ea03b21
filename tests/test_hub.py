"""A model hub of our own: what it has is loaded, and what it has not or keeps for others is said in one sentence."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from disendiff_lite.support.paths import ROOT

pytestmark = pytest.mark.slow  # another process loads torch

COMMIT = "0" * 40
LOAD = """
import json, sys
from disendiff_lite.models import load_pipeline, model_name
from disendiff_lite.support.errors import UserError
said = {}
for name in sys.argv[1:]:
    try:
        said[name] = model_name(load_pipeline(name, device="cpu"))
    except UserError as error:
        said[name] = f"refused: {error}"
print(json.dumps(said))
"""


def hub_of(folder: Path) -> type[BaseHTTPRequestHandler]:
    """Answers of a hub that has owner/plain and owner/half as folders, and owner/gated for those who are let in."""

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self):  # noqa: N802
            self.answer(body=True)

        def do_HEAD(self):  # noqa: N802
            self.answer(body=False)

        def answer(self, body: bool) -> None:
            parts = self.path.split("?")[0].strip("/").split("/")
            if parts[:2] == ["api", "models"]:
                repo = parts[3]
                if repo == "missing":
                    return self.send(401, b"", body, {"X-Error-Code": "RepoNotFound"})
                files = [path for path in sorted((folder / repo).rglob("*")) if path.is_file()]
                names = [path.relative_to(folder / repo).as_posix() for path in files]
                if "tree" in parts:
                    found = [
                        {"type": "file", "path": name, "size": path.stat().st_size, "oid": "1"}
                        for name, path in zip(names, files)
                    ]
                else:
                    found = {"id": f"owner/{repo}", "sha": COMMIT, "siblings": [{"rfilename": name} for name in names]}
                return self.send(200, json.dumps(found).encode(), body)
            repo, path = parts[1], folder.joinpath(parts[1], *parts[4:])
            if repo == "gated":
                return self.send(403, b"", body, {"X-Error-Code": "GatedRepo"})
            if not path.is_file():
                return self.send(404, b"", body, {"X-Error-Code": "EntryNotFound"})
            content = path.read_bytes()
            self.send(200, content, body, {"ETag": f'"{hashlib.sha256(content).hexdigest()}"'})

        def send(self, status: int, content: bytes, body: bool, headers: dict | None = None) -> None:
            self.send_response(status)
            for name, value in {"X-Repo-Commit": COMMIT, "Content-Length": len(content), **(headers or {})}.items():
                self.send_header(name, str(value))
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *_):
            pass

    return Hub


@pytest.fixture
def hub(new_tiny_pipe, tmp_path):
    folder = tmp_path / "models"
    new_tiny_pipe().save_pretrained(folder / "plain")
    new_tiny_pipe().save_pretrained(folder / "half", variant="fp16")
    (folder / "gated").mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), hub_of(folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def load(names, endpoint, home) -> dict[str, str]:
    """What another process says that loads models, with this hub as its only one."""
    hidden = ("HF_TOKEN", "HF_HUB_OFFLINE", "HUGGING_FACE_HUB_TOKEN")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", LOAD, *names]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_what_a_hub_has_and_has_not(hub, tmp_path):
    said = load(["owner/plain", "owner/half", "owner/gated", "owner/missing"], hub, tmp_path / "home")
    assert (said["owner/plain"], said["owner/half"]) == ("owner/plain", "owner/half")
    assert said["owner/gated"] == (
        "refused: owner/gated is kept for those who accept its licence: accept it at https://huggingface.co/owner/gated,"
        " then log in with hf auth login."
    )
    assert said["owner/missing"] == (
        "refused: The model hub has no owner/missing, or it is private: check how it is spelled, or log in with hf auth"
        " login."
    )
    again = load(["owner/plain", "owner/other"], "http://127.0.0.1:9", tmp_path / "home")  # nobody answers there
    assert again["owner/plain"] == "owner/plain"
    assert again["owner/other"].startswith("refused: Cannot fetch owner/other from the model hub (")
    assert again["owner/other"].endswith("give its folder, or use the model that is shipped, 'emoji'.")
