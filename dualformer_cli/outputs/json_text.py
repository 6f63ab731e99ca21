"""A document as JSON text."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Mapping
from typing import TextIO

from dualformer_cli.system.status import clear_status
from dualformer_cli.system.words import is_unseen


def print_json(document: object, *, stream: TextIO | None = None, on_one_line: bool = False) -> None:
    r"""Print exactly one JSON document in UTF-8, whatever the locale, and a newline.

    A number that is not finite becomes null, which JSON has and NaN is not. Undecodable bytes of file names and
    characters a terminal would obey stay inside their strings as ``\uXXXX``.
    """
    text = json.dumps(_finite(document), ensure_ascii=False, allow_nan=False, indent=None if on_one_line else 2)
    text = re.sub(r"[^\n\x20-\x7e]", lambda match: _json_escape(match[0]), text) + "\n"
    clear_status()
    stream = sys.stdout if stream is None else stream
    stream.flush()
    binary = getattr(stream, "buffer", None)
    if binary is None:
        stream.write(text)
    else:
        binary.write(text.encode("utf-8"))
    stream.flush()


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return value


def _json_escape(char: str) -> str:
    return json.dumps(char)[1:-1] if is_unseen(char) else char
