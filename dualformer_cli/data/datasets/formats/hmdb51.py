"""HMDB51: a file of each class and split, FILE FLAG."""

from __future__ import annotations

from pathlib import Path

from dualformer_cli.data.datasets.formats import base
from dualformer_cli.data.datasets.formats.base import Annotation, Format, Found
from dualformer_cli.errors import DualFormerError

FILES = {"*_test_split1.txt": "train"}


def _hmdb51(folder: Path) -> Found:
    splits = {"1": "train", "2": "val", "0": None}  # 0 is not used in this split
    for path in sorted(folder.rglob("*_test_split[123].txt")):
        name, number = path.stem[: -len("_test_split1")], path.stem[-1]
        for where, line in base.numbered_lines(path):
            file, _, flag = line.rpartition(" ")
            if flag not in splits or not file:
                raise DualFormerError(f"{where}: {line!r} is not FILE FLAG with a flag of 0, 1 or 2; fetch it again")
            if split := splits[flag]:
                yield Annotation(f"{split}_{number}", (base.stem_of_name(file.strip()),), (name,), where, name)


FORMAT = Format(files=FILES, read=_hmdb51)
