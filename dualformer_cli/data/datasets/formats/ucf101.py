"""UCF101: a list of each split, CLASS/FILE.avi, and classInd.txt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dualformer_cli.data.datasets.formats import base
from dualformer_cli.data.datasets.formats.base import Annotation, ClassIndex, Format, Found
from dualformer_cli.errors import DualFormerError

FILES = {"trainlist01.txt": "train", "testlist01.txt": "val"}


def _ucf101(folder: Path) -> Found:
    for number in "123":
        names = {patterns.replace("1", number): split for patterns, split in FILES.items()}
        for split, path in base.first_files(folder, names):
            for where, line in base.numbered_lines(path):
                at = line.lower().find(".avi")
                name, _, file = line[:at].rpartition("/")
                if at < 0 or not name:
                    raise DualFormerError(f"{where}: {line!r} is not CLASS/FILE.avi; fetch it again")
                yield Annotation(f"{split}_{number}", (file,), (name,), where, name)


def _class_ind(folder: Path) -> Iterator[ClassIndex]:
    """UCF101: numbers from 1; a copy that circulates calls the last one 0."""
    for _, path in base.first_files(folder, {"classind.txt": ""}):
        numbered = [line.split(None, 1) for line in base.text_lines(path)]
        with base.reading(path):
            yield base.in_order(path, {name.strip(): (int(number) - 1) % len(numbered) for number, name in numbered})


FORMAT = Format(files=FILES, read=_ucf101, classes=_class_ind)
