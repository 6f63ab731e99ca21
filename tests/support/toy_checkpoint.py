"""A file of the shape of a checkpoint, and a server's answer that is one."""

from __future__ import annotations

import io
import random
import zipfile
from typing import Any

import web_server
from web_server import Responder


def checkpoint(size: int = 300_000, seed: int = 0) -> bytes:
    """A zip archive of the shape that torch.save writes; what is inside does not matter here."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        # ZipInfo, because a name alone would be stored with the time, and two calls would give two archives.
        archive.writestr(zipfile.ZipInfo("model/data.pkl"), b"\x80\x02}q\x00.")
        archive.writestr(zipfile.ZipInfo("model/data/0"), random.Random(seed).randbytes(size))
    return buffer.getvalue()


CHECKPOINT = checkpoint()


def body(data: bytes = CHECKPOINT, **faults: Any) -> Responder:
    return web_server.body(data, **faults)
