"""A web server for tests that misbehaves on request: cuts, ignored ranges, errors, pages and wrong lengths."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

ATTACHMENT = {"Content-Disposition": 'attachment; filename="model.pth"', "Content-Type": "application/octet-stream"}

Responder = Callable[[BaseHTTPRequestHandler], None]


def body(
    data: bytes,
    *,
    takes_ranges: bool = True,
    sends: int | None = None,
    length: int | None = -1,
    headers: dict[str, str] | None = None,
    etag: str | None = '"1"',
    reset: bool = False,
) -> Responder:
    """A server of one file.

    Args:
        data: the file.
        takes_ranges: whether it answers a Range with 206; else it sends all.
        sends: bytes after which it hangs up.
        length: Content-Length that it claims; -1 for the true one, None for none.
        headers: of the file.
        etag: of the file.
        reset: hang up with a TCP reset.
    """

    def respond(request: BaseHTTPRequestHandler) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", "")) if takes_ranges else None
        condition = request.headers.get("If-Range")
        if condition is not None and condition != etag:
            asked = None
        start = int(asked[1]) if asked else 0
        if asked and start >= len(data):
            return status(416, {"Content-Range": f"bytes */{len(data)}"})(request)
        rest = data[start : int(asked[2]) + 1 if asked and asked[2] else None]
        request.send_response(206 if asked else 200)
        if asked:
            request.send_header("Content-Range", f"bytes {start}-{start + len(rest) - 1}/{len(data)}")
        if length is not None:
            request.send_header("Content-Length", str(len(rest) if length == -1 else length))
        for name, value in {**(headers or ATTACHMENT), **({"ETag": etag} if etag else {})}.items():
            request.send_header(name, value)
        request.end_headers()
        if request.command == "HEAD":
            return None
        request.wfile.write(rest if sends is None else rest[:sends])
        if reset:
            request.wfile.flush()
            time.sleep(0.05)  # a reset overtakes bytes that are still on their way
            request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return respond


def page(title: str, rest: str = "", *, code: int = 200) -> Responder:
    html = f"<!DOCTYPE html><html><head><title>{title}</title></head><body>{rest}</body></html>"
    return status(code, {"Content-Type": "text/html; charset=utf-8"}, html.encode())


def status(code: int, headers: dict[str, str] | None = None, content: bytes = b"") -> Responder:
    def respond(request: BaseHTTPRequestHandler) -> None:
        request.send_response(code)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            request.send_header(name, value)
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(content)

    return respond


def silence(seconds: float) -> Responder:
    return lambda request: time.sleep(seconds)


class WebServer:
    """Answers each path with its responders, one after the other; the last one stays.

    A path without responders gives the file of that name, after the faults of `trouble`, one a request.

    Attributes:
        files: bytes by path, unquoted and with its slash.
        trouble: makes the first answers about each file out of its bytes.
        requests: all so far.
    """

    def __init__(self) -> None:
        self.responders: dict[str, list[Responder]] = {}
        self.files: dict[str, bytes] = {}
        self.trouble: list[Callable[[bytes], Responder]] = []
        self.requests: list[BaseHTTPRequestHandler] = []
        self._asked: dict[str, int] = {}
        outer, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with lock:
                    outer.requests.append(self)
                    respond = outer._responder(urlsplit(self.path).path)
                with contextlib.suppress(OSError):
                    respond(self)

            def do_HEAD(self) -> None:
                outer._responder(urlsplit(self.path).path)(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def _responder(self, path: str) -> Responder:
        if path in self.responders:
            waiting = self.responders[path]
            return waiting.pop(0) if len(waiting) > 1 else waiting[0]
        data = self.files.get(unquote(path))
        if data is None:
            return status(404)
        number = self._asked[path] = self._asked.get(path, -1) + 1
        return self.trouble[number](data) if number < len(self.trouble) else body(data)

    def on(self, path: str, *responders: Responder) -> str:
        """Set the answers of a path and return its address."""
        self.responders[path] = list(responders)
        return self.address + path

    def asked(self, header: str) -> list[str | None]:
        """The values of a header in all requests so far."""
        return [request.headers.get(header) for request in self.requests]

    @property
    def paths(self) -> list[str]:
        return [request.path for request in self.requests]

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


def slowly(data: bytes, *, step: int, pause: float) -> Responder:
    """A server that sends a file bit by bit, whatever range is asked for."""

    def respond(request: BaseHTTPRequestHandler) -> None:
        body(data, sends=0)(request)
        for start in range(0, len(data), step):
            request.wfile.write(data[start : start + step])
            time.sleep(pause)

    return respond
