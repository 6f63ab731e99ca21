"""Files of checkpoints: how one is written, read and described, and which of a run is the latest that is whole.

A file holds tensors and plain Python values only, so that it loads with `weights_only=True`. It appears under its
name when it is complete and on the disk: a process or a machine that dies at any moment leaves the last one or the
one before it.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dualformer_cli.errors import WeightsError
from dualformer_cli.model.weights import KIND, read_checkpoint
from dualformer_cli.system.files import atomic_path
from dualformer_cli.system.versions import versions
from dualformer_cli.system.words import os_reason

Checkpoint = Mapping[str, Any]
"""Tensors and plain values, by the names of `REQUIRED` and others."""

FORMAT = 1

REQUIRED: dict[str, tuple[type, ...]] = {
    "model": (Mapping,),
    "optimizer": (Mapping,),
    "progress": (Mapping,),
    "config": (str, Mapping),
}
"""What every checkpoint holds, and as what; `model` is what `load_weights` loads."""

_LOGGER = logging.getLogger(__name__)
_EPOCH = re.compile(r"epoch-(\d+)\.pt")
_TEMPORARY = re.compile(r"\.(last|previous|best|epoch-\d+)\.[0-9a-f]{8}\.part\.pt")


class CheckpointFolder:
    """The checkpoints of one run: `last.pt`, `previous.pt` (the one before it), `best.pt` and `epoch-N.pt`.

    Rank 0 alone saves; any rank may load.

    Args:
        root: the run folder; the files lie in `checkpoints` there, which the first save makes.
        keep_epochs: how many `epoch-N.pt` stay; None keeps all.
    """

    def __init__(self, root: str | os.PathLike[str], *, keep_epochs: int | None = None) -> None:
        if keep_epochs is not None and keep_epochs < 1:
            raise ValueError(f"keep_epochs must be at least 1 or None, got {keep_epochs}")
        self.root = Path(root)
        self.path = self.root / "checkpoints"
        self.last = self.path / "last.pt"
        self.previous = self.path / "previous.pt"
        self.best = self.path / "best.pt"
        self._keep_epochs = keep_epochs
        self._is_last_whole: bool | None = None
        self._last_step: int | None = None
        self._is_last_refused = False

    def save(self, contents: Checkpoint, *, epoch: int | None = None, is_best: bool = False) -> None:
        """Make a new `last.pt`, and `previous.pt` of what it was; on a failure both stay what they were.

        Args:
            contents: tensors and plain values under the names of `REQUIRED` and others, nested as you like; numpy's
                scalars and arrays become plain values and tensors. Kind, format and versions are added.
            epoch: also keep it as `epoch-N.pt`, and delete the oldest ones that are too many.
            is_best: also keep it as `best.pt`.

        Raises:
            OSError: if the disk is full or cannot be written.
            ValueError: if something required is missing, or a value is neither a tensor nor plain; the message names
                it.
        """
        if self._is_last_whole is None:
            self._tidy_up()
        self.path.mkdir(parents=True, exist_ok=True)
        payload = _payload(contents)
        step = payload["progress"].get("step")
        with atomic_path(self.last) as temporary:
            _write(payload, temporary, self.last)
            # A broken one must not take the place of a whole one, and two of one step are one too few.
            if self._is_last_whole and step != self._last_step and self.last.exists():
                _duplicate(self.last, self.previous)
        self._is_last_whole, self._last_step = True, step
        if epoch is not None:
            _duplicate(self.last, self.path / f"epoch-{epoch}.pt")
            self._prune(epoch)
        if is_best:
            _duplicate(self.last, self.best)
        _synchronize_folder(self.path)

    def load_latest(self, flaw_in: Callable[[Checkpoint], str | None] = lambda checkpoint: None) -> Checkpoint | None:
        """Return what was saved last; None where nothing was. If that is the one before the last, a warning says so.

        Args:
            flaw_in: says what is wrong with a checkpoint that can be read, or None.

        Raises:
            WeightsError: if neither of the two can be used, or they are of another kind or a newer version.
        """
        reasons: list[str] = []
        for path in (self.last, self.previous):
            found = _damage(path) or _load(path)
            flaw = found if isinstance(found, str) else flaw_in(found)
            if flaw is None and not isinstance(found, str):
                if reasons:
                    _LOGGER.warning("%s; going on from the one before, %r", reasons[0], str(path))
                return found
            reasons.append(f"checkpoint {str(path)!r} {flaw}")
            self._is_last_refused = True
        if not self.last.exists() and not self.previous.exists():
            return None
        others = sorted(str(path) for path in self.path.glob("*.pt") if path not in (self.last, self.previous))
        raise WeightsError(
            f"{' and '.join(reasons)}; " + (f"start from {others[-1]!r} instead" if others else "start the run again")
        )

    def _tidy_up(self) -> None:
        """Delete what an interrupted save left behind, and see whether the last checkpoint is whole."""
        self.path.mkdir(parents=True, exist_ok=True)
        for entry in self.path.iterdir():
            if _TEMPORARY.fullmatch(entry.name):
                entry.unlink(missing_ok=True)
        self._is_last_whole = not self._is_last_refused and _damage(self.last) is None

    def _prune(self, newest: int) -> None:
        if self._keep_epochs is None:
            return
        epochs = sorted(int(match[1]) for entry in self.path.iterdir() if (match := _EPOCH.fullmatch(entry.name)))
        others = [epoch for epoch in epochs if epoch != newest]
        for epoch in others[: max(0, len(others) + 1 - self._keep_epochs)]:
            (self.path / f"epoch-{epoch}.pt").unlink(missing_ok=True)


def _load(path: Path) -> Checkpoint | str:
    """Return a checkpoint, or what is wrong with it.

    Raises:
        WeightsError: if it is of another kind or a newer version, and so was put there by somebody.
    """
    try:
        checkpoint = read_checkpoint(path)
    except WeightsError as error:
        return f"does not load: {error}"
    name = f"checkpoint {str(path)!r}"
    if checkpoint.get("kind") != KIND:
        raise WeightsError(
            f"{name} is not a checkpoint that this program made, so no run can go on from it; "
            "to start a new run from its weights, give it to --init-from"
        )
    found = checkpoint.get("format")
    if not isinstance(found, int) or found > FORMAT:
        raise WeightsError(f"{name} has format {found!r}, this version reads up to {FORMAT}; update dualformer")
    for key, kind in REQUIRED.items():
        if not isinstance(checkpoint.get(key), kind):
            return f"lacks {key!r}, or it is not what it should be"
    return checkpoint


def _payload(contents: Checkpoint) -> Checkpoint:
    for key, kind in REQUIRED.items():
        if not isinstance(contents.get(key), kind):
            raise ValueError(f"a checkpoint needs {key!r}, got {type(contents.get(key)).__name__}")
    made_with = {**versions("dualformer", "python", "torch"), "cuda": torch.version.cuda or "none", **versions("numpy")}
    return {"versions": made_with, **_plain(contents, ""), "kind": KIND, "format": FORMAT}


def _plain(value: Any, name: str) -> Any:
    """Rebuild nested values of tensors and builtins only.

    Raises:
        ValueError: if that cannot be; the message has the dotted name.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Tensor):
        return _compact(value)
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, np.generic):
        return _plain(value.item(), name)
    if isinstance(value, Mapping) and all(type(key) in (str, int) for key in value):
        return {key: _plain(item, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [_plain(item, f"{name}.{index}") for index, item in enumerate(value)]
        return items if isinstance(value, list) else tuple(items)
    what = f"{type(value).__module__}.{type(value).__qualname__}"
    raise ValueError(f"checkpoint entry {name.lstrip('.')!r} is a {what}; it must be a tensor or a plain value")


def _compact(tensor: Tensor) -> Tensor:
    """On the CPU, without history and without the rest of a larger storage, which would be saved with it."""
    tensor = tensor.detach().cpu()
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()


def _write(payload: Checkpoint, temporary: Path, target: Path) -> None:
    """Write and wait for the disk.

    Raises:
        OSError: with the name of the target, not of the temporary file.
    """
    try:
        with temporary.open("wb") as file:
            torch.save(payload, file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:  # torch trips over a full disk with an error of its own on top
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        cause.filename = str(target)
        raise cause from None


def _duplicate(source: Path, target: Path) -> None:
    """Give a file a second name, in no time and space; copy it where the file system has no hard links."""
    with atomic_path(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())


def _synchronize_folder(folder: Path) -> None:
    """Have the new names on the disk too; some file systems and Windows have no such call."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _damage(path: Path) -> str | None:
    """Return why a file of PyTorch's cannot be trusted, or None. torch.load itself does not check the checksums."""
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except FileNotFoundError:
        return "is missing"
    except zipfile.BadZipFile:
        return _damage_of_no_archive(path)
    except OSError as error:
        return f"cannot be read: {os_reason(error)}"
    except (RuntimeError, ValueError, EOFError, struct.error, zlib.error):  # of fields that make no sense
        return "is damaged: its directory makes no sense"
    return None if broken is None else f"is damaged: {broken!r} in it is not what was written"


def _damage_of_no_archive(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(4)
    if not head:
        return "is empty"
    if head == b"PK\x03\x04":
        return f"is truncated ({path.stat().st_size:,} bytes): its end is missing"
    return "is not a checkpoint, or something else was written over it"
