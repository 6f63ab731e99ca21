"""Kinetics: a CSV or JSON file of each split; a clip is an id and its start and end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dualformer_cli.data.datasets.formats import base
from dualformer_cli.data.datasets.formats.base import Annotation, Format, Found, Names
from dualformer_cli.data.lists.tables import kinetics_name
from dualformer_cli.errors import DualFormerError

_KINETICS = "{0}.csv|kinetics*{0}.csv|k[4-7]00*{0}.csv|{0}.json|kinetics*{0}.json|k[4-7]00*{0}.json"

FILES = {
    _KINETICS.format("train"): "train",
    "|".join(_KINETICS.format(name) for name in ("val", "validate", "validation")): "val",
    _KINETICS.format("test"): "test",
}


def _kinetics(folder: Path) -> Found:
    for split, path in base.first_files(folder, FILES):
        yield from (_kinetics_json if path.suffix == ".json" else _kinetics_csv)(path, split)


def _kinetics_csv(path: Path, split: str) -> Found:
    labelled = () if split == "test" else ("label",)
    for where, row in base.read_table(path, (*labelled, "youtube_id", "time_start", "time_end")):
        label = row.get("label", "")
        if not label and labelled:
            raise DualFormerError(f"{where}: {row['youtube_id']!r} has no label; fetch it again")
        with base.reading(path):
            names = _clip_names(row["youtube_id"], row["time_start"], row["time_end"])
        yield Annotation(split, names, (label,) if label else (), where)


def _kinetics_json(path: Path, split: str) -> Found:
    content = base.read_json(path)
    with base.reading(path):
        for name, video in content.items():
            said = video["annotations"]
            labels = (str(said["label"]),) if said.get("label") else ()
            where = f"annotations {str(path)!r}, video {name!r}"
            yield Annotation(split, _clip_names(name, *said["segment"]), labels, where)


def _clip_names(name: str, start: Any, end: Any) -> Names:
    return kinetics_name(name, float(start), float(end)), name


FORMAT = Format(files=FILES, read=_kinetics)
