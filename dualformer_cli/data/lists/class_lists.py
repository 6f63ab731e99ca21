"""Names of classes, in the order of their numbers: a file of one name a line, or a list that the package ships."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

from dualformer_cli.errors import DualFormerError, nearest
from dualformer_cli.system.words import cannot_read
from dualformer_cli.video.addresses import is_address, mask_credentials
from dualformer_cli.video.remote_files import read_text

CLASSES_FILE = "classes.txt"
"""Beside a list."""
_MAX_BYTES = 16 * 2**20


def shipped_class_lists() -> tuple[str, ...]:
    """Names of the class lists in the package, such as kinetics400."""
    folder = files("dualformer_cli.data.datasets") / "classes"
    return tuple(sorted(entry.name.removesuffix(".txt") for entry in folder.iterdir() if entry.name.endswith(".txt")))


def load_class_names(source: str) -> list[str]:
    """Read class names; line n of the list names class n - 1.

    Args:
        source: a shipped list's name, or a text file with one name a line.

    Raises:
        DualFormerError: if there is no such list, or the file is empty, unreadable or holds a name twice.
    """
    shipped = shipped_class_lists()
    if source in shipped:
        text = (files("dualformer_cli.data.datasets") / "classes" / f"{source}.txt").read_text(encoding="utf-8")
    else:
        text = _read(Path(source), shipped)
    return _names_in(text, source)


def _names_in(text: str, source: str) -> list[str]:
    names = [line.strip() for line in text.splitlines()]
    while names and not names[-1]:
        names.pop()
    if not names:
        raise DualFormerError(f"class list {source!r} is empty; it needs one class name a line")
    first_seen: dict[str, int] = {}
    for line, name in enumerate(names, start=1):
        if not name:
            raise DualFormerError(f"class list {source!r}: line {line} is empty; every line names one class")
        if name in first_seen:
            raise DualFormerError(f"class list {source!r}: {name!r} is on lines {first_seen[name]} and {line}")
        first_seen[name] = line
    return names


def _read(path: Path, shipped: tuple[str, ...]) -> str:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise DualFormerError(f"class list {str(path)!r} is larger than 16 MiB; it needs one class name a line")
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        hint = nearest(str(path), shipped)
        ships = f"{hint} The" if hint else "; the"
        names = ", ".join(shipped)
        raise DualFormerError(f"class list {str(path)!r} not found{ships} package ships {names}") from None
    except OSError as error:
        raise DualFormerError(cannot_read("class list", path, error)) from None
    except ValueError:
        raise DualFormerError(f"class list {str(path)!r} cannot be read: it is not UTF-8 text") from None


def class_names_beside(folder: str) -> list[str] | None:
    """Return the names in the file of classes beside a list, if there is one."""
    path = os.path.join(folder, CLASSES_FILE)
    if not is_address(path):
        return load_class_names(path) if os.path.exists(path) else None
    text = read_text(path, most=_MAX_BYTES)
    if text is None or text.lstrip().startswith("<"):  # the page by which a server says that there is none
        return None
    return _names_in(text, mask_credentials(path))
