"""Lists of class names: those that the package ships, and the user's own."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from dualformer_cli.errors import DualFormerError, nearest

_MAX_BYTES = 16 * 2**20


def shipped_class_lists() -> tuple[str, ...]:
    """Names of the class lists in the package, such as kinetics400."""
    folder = files("dualformer_cli.data") / "classes"
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
        text = (files("dualformer_cli.data") / "classes" / f"{source}.txt").read_text(encoding="utf-8")
    else:
        text = _read(Path(source), shipped)
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
        known = f"shipped lists: {', '.join(shipped)}"
        raise DualFormerError(f"class list {str(path)!r} not found{nearest(str(path), shipped)}; {known}") from None
    except (OSError, ValueError) as error:
        reason = "it is not UTF-8 text" if isinstance(error, ValueError) else error.strerror
        raise DualFormerError(f"class list {str(path)!r} cannot be read: {reason}") from None
