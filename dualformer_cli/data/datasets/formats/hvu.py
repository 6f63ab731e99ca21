"""HVU: a CSV file of each split, with tags, and one of the groups of tags."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dualformer_cli.data.datasets.formats import base
from dualformer_cli.data.datasets.formats.base import Annotation, ClassIndex, Format, Found

FILES = {"hvu_train_v1*.csv|*train*.csv": "train", "hvu_val_v1*.csv|*val*.csv": "val"}


def _hvu(folder: Path) -> Found:
    for split, path in base.first_files(folder, FILES):
        for where, row in base.read_table(path, ("tags", "youtube_id", "time_start", "time_end")):
            with base.reading(path):
                times = float(row["time_start"]), float(row["time_end"])
            # mmaction2 names clips in tenths of a second, HVU-Downloader in seconds.
            tenths, seconds = ("_".join(f"{int(scale * time):06d}" for time in times) for scale in (10, 1))
            tags = tuple(dict.fromkeys(tag for tag in row["tags"].split("|") if tag))
            yield Annotation(split, (f"{row['youtube_id']}_{tenths}", f"{row['youtube_id']}_{seconds}"), tags, where)


def _tag_groups(folder: Path) -> Iterator[ClassIndex]:
    for _, path in base.first_files(folder, {"*tags_categories*.csv|*categories*.csv": ""}):
        groups: dict[str, list[str]] = {}
        for _, row in base.read_table(path, ("tag", "category")):
            groups.setdefault(row["category"], []).append(row["tag"])
        yield ClassIndex(str(path), {group: sorted(set(groups[group])) for group in sorted(groups)})


FORMAT = Format(files=FILES, read=_hvu, classes=_tag_groups)
