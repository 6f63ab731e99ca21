"""Writing files so that a reader never meets half of one, and saying what is in one."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from tempfile import TemporaryDirectory

from dualformer_cli.errors import DualFormerError
from dualformer_cli.system.disk import is_full
from dualformer_cli.system.output_checks import check_place


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path`, with the same suffix; rename it on success, delete it on failure.

    Raises:
        DualFormerError: if the folder does not exist or cannot be written.
        OSError: of the body; that of a full disk names `path`.
    """
    target = Path(path)
    check_place(target)
    temporary = target.with_name(_unfinished(target.stem, secrets.token_hex(4), target.suffix))
    try:
        yield temporary
        os.replace(temporary, target)
    except OSError as error:
        if is_full(error) and error.filename in (None, str(temporary)):  # of a write it says no name
            error.filename = str(target)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def remove_unfinished(path: Path) -> None:
    """Remove what processes that were killed have left of a file, which no other process may be writing."""
    for unfinished in path.parent.glob(_unfinished(path.stem, "[0-9a-f]" * 8, path.suffix, shown=escape)):
        unfinished.unlink(missing_ok=True)


def _unfinished(stem: str, token: str, suffix: str, *, shown: Callable[[str], str] = str) -> str:
    """Return the name of a file that is being written, or the pattern of all such names."""
    return f".{shown(stem[:40])}.{token}.part{shown(suffix)}"


def replace_text(path: Path, text: str) -> None:
    """Write a text file that is on the disk when it appears under its name; until then an older one stays.

    Raises:
        DualFormerError: as `atomic_path`.
        OSError: if it cannot be written.
    """
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def path_in_own_folder(target: Path) -> Iterator[Path]:
    """Give a path for what another process writes, in a folder of its own beside `target`; rename it on success.

    The process may be killed at any moment, by Ctrl-C too: what it leaves behind goes with the folder. An error that
    names a file of that folder names it without.

    Raises:
        DualFormerError: what the body raises, in these words.
    """
    with TemporaryDirectory(prefix=".dualformer-", dir=target.parent, ignore_cleanup_errors=True) as folder:
        unfinished = Path(folder, target.name)
        try:
            yield unfinished
        except DualFormerError as error:
            raise DualFormerError(str(error).replace(os.path.join(os.path.basename(folder), ""), "")) from error
        os.replace(unfinished, target)


def write_all(
    *writes: Callable[[], object], then: Callable[[Sequence[Exception | None]], object] = lambda failures: None
) -> None:
    """Write several outputs; one that cannot be written does not keep the others from being written.

    Args:
        writes: each writes one output.
        then: called when all are done, with the failure of each or None, before the first failure is raised.

    Raises:
        DualFormerError or OSError: the first failure.
    """
    failures: list[Exception | None] = []
    for write in writes:
        try:
            write()
            failures.append(None)
        except (DualFormerError, OSError) as error:
            failures.append(error)
    then(failures)
    for failure in filter(None, failures):
        raise failure


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def cache_dir() -> Path:
    """Return the folder of fetched files: DUALFORMER_CACHE, else $XDG_CACHE_HOME/dualformer or ~/.cache/dualformer."""
    if explicit := os.environ.get("DUALFORMER_CACHE"):
        return Path(explicit)
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg) / "dualformer"
    return Path.home() / ".cache" / "dualformer"
