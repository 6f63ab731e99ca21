"""A Hugging Face Hub on this machine: one repository, as far as its client asks for it."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubServer:
    """Serves the files of `repo` at the revisions main, v1 and COMMIT, and notes what it was asked for."""

    def __init__(self, repo: str, files: dict[str, bytes]) -> None:
        self.repo, self.files, self.asked = repo, files, list[str]()
        self.gated = False
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self._answer(with_body=False)

            def do_GET(self) -> None:
                self._answer(with_body=True)

            def _answer(self, *, with_body: bool) -> None:
                path = unquote(urlsplit(self.path).path)
                hub.asked.append(path)
                code, error, body = hub.find(path)
                self.send_response(code)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
                if error:
                    self.send_header("X-Error-Code", error)
                    self.send_header("X-Error-Message", error)
                self.end_headers()
                if with_body:
                    self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def find(self, path: str) -> tuple[int, str, bytes]:
        """Return status, the Hub's name of an error, and the body."""
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            names = [{"type": "file", "path": name, "size": 1, "oid": "0"} for name in self.files]
            is_tree = "tree" in parts
            found = (
                names
                if is_tree
                else {"id": self.repo, "sha": COMMIT, "siblings": [{"rfilename": n} for n in self.files]}
            )
            return 200, "", json.dumps(found).encode()
        repo, revision, file = "/".join(parts[:2]), parts[3] if len(parts) > 3 else "", "/".join(parts[4:])
        if repo != self.repo:
            return 401, "RepoNotFound", b""
        if self.gated:
            return 403, "GatedRepo", b""
        if revision not in ("main", "v1", COMMIT):
            return 404, "RevisionNotFound", b""
        return (200, "", self.files[file]) if file in self.files else (404, "EntryNotFound", b"")

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def serve(repo: str, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, *, cache: Path) -> Iterator[HubServer]:
    """Open a Hub that this process asks in place of the real one, as HF_ENDPOINT and HF_HUB_CACHE would make it do."""
    server = HubServer(repo, files)
    template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    with suppress(ImportError):  # what newer clients ask the Hub for once a day, as if they had never asked
        from huggingface_hub.utils import _detect_agent

        monkeypatch.setattr(_detect_agent, "_registry", None)
        monkeypatch.setattr(constants, "AGENT_HARNESSES_PATH", str(cache / "harnesses.json"))
    yield server
    server.close()
