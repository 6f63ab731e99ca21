"""OmniSource: lists of PATH LABEL, and a JSON list of the pieces of raw videos."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from dualformer_cli.data.datasets.formats import base
from dualformer_cli.data.datasets.formats.base import Annotation, ClassIndex, Format, Found
from dualformer_cli.errors import DualFormerError

FILES = {"k200_train.txt": "train", "k200_val.txt": "val"}


def _omnisource(folder: Path) -> Found:
    # The lists called _duplicate name videos of the web that are those of k200_val: the ones without them are taken.
    web = {"slowonly_8x8_insvideo_200_wodup.txt|slowonly_8x8_insvideo_200.txt": "train_insvideo"}
    for split, path in base.first_files(folder, {**FILES, **web}):
        for where, line in base.numbered_lines(path):
            file, _, label = line.rpartition(" ")
            if not file or not label.isdecimal():
                raise DualFormerError(f"{where}: {line!r} is not PATH LABEL; fetch it again")
            yield Annotation(split, (base.stem_of_name(file),), (int(label),), where, os.path.dirname(file))
    for split, path in base.first_files(folder, {"*kinetics_raw_200_wodup.json|*kinetics_raw_200.json": "train_raw"}):
        content = base.read_json(path)
        with base.reading(path):
            for number, video in enumerate(content, start=1):
                where = f"annotations {str(path)!r}, entry {number}"
                for part in video["positive_clip_inds"]:  # of the videos cut into pieces of 10 s
                    name = os.path.basename(video["video_dir"])
                    yield Annotation(split, (f"part_{int(part)}",), (int(video["label"]),), where, name)


def _mini_kinetics(folder: Path) -> Iterator[ClassIndex]:
    for _, path in base.first_files(folder, {"k200_actions.txt": ""}):
        yield ClassIndex(str(path), {"": list(base.text_lines(path))})


FORMAT = Format(files=FILES, read=_omnisource, classes=_mini_kinetics)
