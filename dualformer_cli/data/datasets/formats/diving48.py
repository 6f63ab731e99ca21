"""Diving48: a JSON file of each split, with numbers of classes, and the vocabulary that names them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dualformer_cli.data.datasets.formats import base
from dualformer_cli.data.datasets.formats.base import Annotation, ClassIndex, Format, Found

FILES = {"*v2_train.json": "train", "*v2_test.json": "val"}


def _diving48(folder: Path) -> Found:
    for split, path in base.first_files(folder, FILES):
        content = base.read_json(path)
        with base.reading(path):
            for number, video in enumerate(content, start=1):
                where = f"annotations {str(path)!r}, entry {number}"
                labels = (int(video["label"]),) if "label" in video else ()
                yield Annotation(split, (str(video["vid_name"]),), labels, where)


def _vocabulary(folder: Path) -> Iterator[ClassIndex]:
    for _, path in base.first_files(folder, {"*vocab.json": ""}):
        content = base.read_json(path)
        with base.reading(path):
            yield ClassIndex(str(path), {"": ["+".join(parts) for parts in content]})


FORMAT = Format(files=FILES, read=_diving48, classes=_vocabulary)
