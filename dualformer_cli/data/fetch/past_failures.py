"""Files that could not be fetched a short while ago are noted beside their place: nobody waits for them again."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path

from dualformer_cli.errors import DualFormerError
from dualformer_cli.system.files import atomic_path
from dualformer_cli.system.words import duration_in_words

REMEMBERED_SECONDS = 24 * 3600.0
"""How long a failure counts."""


def note_failure(target: Path, url: str, reason: str) -> None:
    """Note that the file `target` could not be fetched from an address; where that cannot be written, nothing is."""
    content = {"url": url, "reason": reason, "seconds": time.time()}
    with suppress(OSError, DualFormerError):
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(_note_of(target)) as temporary:
            temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")


def past_failure(target: Path, url: str) -> str | None:
    """Return why a file could not be fetched from this address within the last day, and when; None if nobody tried."""
    try:
        content = json.loads(_note_of(target).read_text(encoding="utf-8"))
        ago = time.time() - float(content["seconds"])
        if content["url"] != url or not 0 <= ago < REMEMBERED_SECONDS:
            return None
        return f"{content['reason']} ({duration_in_words(ago)} ago; nobody asks again before a day is over)"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _note_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.failed.json")
