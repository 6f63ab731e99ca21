"""Checkpoints as files of their own, written and read by what trains and resumes."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dualformer_cli.engine.training.checkpoint_files import CheckpointFolder


def save_checkpoint(path: Path, contents: Mapping[str, Any]) -> None:
    """Save as a run does, and keep only the file."""
    with TemporaryDirectory() as root:
        folder = CheckpointFolder(root)
        folder.save(contents)
        shutil.move(folder.last, path)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Load as a run does that is resumed, where this is the only file."""
    with TemporaryDirectory() as root:
        folder = CheckpointFolder(root)
        folder.path.mkdir()
        shutil.copyfile(path, folder.last)
        found = folder.load_latest()
    assert found is not None
    return found
