"""Something-Something v1 and Jester: a CSV file of each split, ID;LABEL, and the labels in order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dualformer_cli.data.datasets.formats import base
from dualformer_cli.data.datasets.formats.base import Annotation, ClassIndex, Format, Found
from dualformer_cli.errors import DualFormerError

FILES = {"*train.csv": "train", "*validation.csv|*val.csv": "val", "*test-answers.csv|*test.csv": "test"}


def _twentybn(folder: Path) -> Found:
    for split, path in base.first_files(folder, FILES):
        for where, line in base.numbered_lines(path):
            name, _, label = line.partition(";")  # labels have commas and apostrophes, but no semicolon
            if split != "test" and not label:
                raise DualFormerError(f"{where}: {line!r} is not ID;LABEL; fetch it again")
            yield Annotation(split, (name.strip(),), (label.strip(),) if label else (), where)


def _label_lines(folder: Path) -> Iterator[ClassIndex]:
    for _, path in base.first_files(folder, {"*labels.csv": ""}):
        yield ClassIndex(str(path), {"": list(base.text_lines(path))})


FORMAT = Format(files=FILES, read=_twentybn, classes=_label_lines)
