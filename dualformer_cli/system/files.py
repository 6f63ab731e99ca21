"""Writing files so that a reader never meets half of one, and saying what is in one."""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from tempfile import TemporaryDirectory

from dualformer_cli.errors import DualFormerError
from dualformer_cli.system.disk import is_full
from dualformer_cli.system.words import os_reason


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


def check_outputs(
    outputs: Sequence[Path], inputs: Sequence[str], *, overwrite: bool, made: str | os.PathLike[str] | None = None
) -> None:
    """Refuse, before any work is done, files that could not be written in the end, or should not be.

    Args:
        outputs: files to write.
        inputs: files that must stay as they are; one that does not exist is left to whoever reads it.
        overwrite: whether files that exist may be replaced.
        made: a folder that the work makes where it is not there yet, so that outputs may go into it.

    Raises:
        DualFormerError: if an output's folder is missing or closed, or it is a folder, a device, an input, or exists.
    """
    statuses = filter(None, map(_status, inputs)) if outputs else ()
    identities = {(status.st_dev, status.st_ino) for status in statuses}
    for path in outputs:
        if made is None or os.path.lexists(made) or os.path.abspath(path.parent) != os.path.abspath(made):
            _check_output(path, identities, overwrite=overwrite)


def check_output_folder(path: Path) -> None:
    """Refuse, before any work is done, a folder that could not be made, or not be written in.

    Raises:
        DualFormerError: naming what is in the way.
    """
    existing = next(place for place in (path.absolute(), *path.absolute().parents) if os.path.lexists(place))
    problem = None
    if existing.is_symlink() and not existing.exists():
        problem = f"{str(existing)!r} is a link to nothing"
    elif not existing.is_dir():
        problem = f"{str(existing)!r} is not a folder"
    elif not os.access(existing, os.W_OK | os.X_OK):
        problem = f"no permission to write in {str(existing)!r}"
    if problem is not None:
        raise DualFormerError(f"cannot write into {str(path)!r}: {problem}; name another --output")


def _check_output(path: Path, inputs: set[tuple[int, int]], *, overwrite: bool) -> None:
    """The check of one file; `inputs` are devices and inodes."""
    problem = f"cannot write {str(path)!r}"
    check_place(path)
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise DualFormerError(f"{problem}: {os_reason(error)}") from None
    if not stat.S_ISREG(status.st_mode):
        raise DualFormerError(f"{problem}: it is a device or a pipe; name a file")
    if (status.st_dev, status.st_ino) in inputs:
        raise DualFormerError(f"{problem}: it is one of the inputs")
    if not overwrite:
        raise DualFormerError(f"{str(path)!r} exists; name another file or replace it with --overwrite")


def check_place(path: Path) -> None:
    """Refuse a file whose folder is missing or closed, or that is a folder."""
    problem, folder = f"cannot write {str(path)!r}", str(path.parent)
    if not os.path.isdir(folder):
        if os.path.exists(folder):
            raise DualFormerError(f"{problem}: {folder!r} is a file, not a folder")
        raise DualFormerError(f"{problem}: folder {folder!r} does not exist; create it")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise DualFormerError(f"{problem}: no permission to write in {folder!r}")
    if os.path.isdir(path):
        raise DualFormerError(f"{problem}: it is a folder; name a file")


def _status(name: str) -> os.stat_result | None:
    try:
        return os.stat(name)
    except (OSError, ValueError):  # reading it will say why
        return None


def cache_dir() -> Path:
    """Return the folder of fetched files: DUALFORMER_CACHE, else $XDG_CACHE_HOME/dualformer or ~/.cache/dualformer."""
    if explicit := os.environ.get("DUALFORMER_CACHE"):
        return Path(explicit)
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg) / "dualformer"
    return Path.home() / ".cache" / "dualformer"
