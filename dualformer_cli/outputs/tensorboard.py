"""The log of a training run as TensorBoard's event files."""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dualformer_cli.errors import DualFormerError

_NAMES = {"step": "training", "validation": "validation"}
_NO_CURVES = frozenset({"epoch", "step", "seconds_left"})


def check_tensorboard() -> None:
    """Check that TensorBoard can be imported, without importing it.

    Raises:
        DualFormerError: if it is not installed.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise DualFormerError("--tensorboard needs TensorBoard, which is not installed: pip install tensorboard")


class TensorBoardLog:
    """Event files in a folder of their own, one curve per number of the log.

    Args:
        folder: where they go; event files that are there already are replaced.
        rows: lines of log.jsonl so far, of a run that is resumed.
    """

    def __init__(self, folder: str | os.PathLike[str], rows: Iterable[Mapping[str, Any]] = ()) -> None:
        from tensorboard.summary import Writer

        for old in Path(folder).glob("events.out.tfevents.*"):
            old.unlink()
        self._writer = Writer(os.fspath(folder))
        for row in rows:
            self.add(row)

    def add(self, row: Mapping[str, Any]) -> None:
        """Add the numbers of one line of log.jsonl, under "training/" or "validation/"."""
        name = _NAMES.get(row["event"])
        if name is None:
            return
        for key, value in row.items():
            if key not in _NO_CURVES and isinstance(value, int | float) and math.isfinite(value):
                self._writer.add_scalar(f"{name}/{key}", float(value), int(row["step"]))
        self._writer.flush()

    def close(self) -> None:
        """Write what is waiting, and close the file."""
        self._writer.close()
