"""Which files and folders a command may write; what it may not is refused before any work."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from dualformer_cli.errors import DualFormerError
from dualformer_cli.system.words import os_reason


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
