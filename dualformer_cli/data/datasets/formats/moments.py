"""Moments in Time and Multi-Moments in Time: CLASS/FILE,LABEL..."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from dualformer_cli.data.datasets.formats import base
from dualformer_cli.data.datasets.formats.base import Annotation, ClassIndex, Format, Found
from dualformer_cli.errors import DualFormerError
from dualformer_cli.video.suffixes import VIDEO_SUFFIXES

_SECOND_COLUMN = re.compile(rf"(.+?\.(?:{'|'.join(suffix[1:] for suffix in sorted(VIDEO_SUFFIXES))})),(.*)", re.I)

FILES = {"trainingset*": "train", "validationset*": "val"}


def _moments(folder: Path) -> Found:
    for split, path in base.first_files(folder, FILES):
        for where, line in base.numbered_lines(path):
            match = _SECOND_COLUMN.fullmatch(line)
            values = [value for value in match[2].split(",") if value] if match else []
            # Moments: the class and how many people agreed; Multi-Moments: the numbers of the classes.
            is_numbered = all(value.strip().isdecimal() for value in values)
            labels = tuple(int(value) for value in values) if is_numbered else (values[0].strip(),)
            name, _, file = (match[1] if match else "").rpartition("/")
            if not file or not labels:
                raise DualFormerError(f"{where}: {line!r} is not CLASS/FILE,LABEL...; fetch it again")
            yield Annotation(split, (base.stem_of_name(file),), labels, where, name.rpartition("/")[2])


def _categories(folder: Path) -> Iterator[ClassIndex]:
    for _, path in base.first_files(folder, {"moments_categories.txt|*categories*.txt": ""}):
        numbered = [line.rpartition(",") for line in base.text_lines(path)]
        with base.reading(path):
            yield base.in_order(path, {name.strip(): int(number) for name, _, number in numbered})


FORMAT = Format(files=FILES, read=_moments, classes=_categories)
