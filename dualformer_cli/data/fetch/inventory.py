"""What is there of the files that can be fetched, without the network.

An archive that has its marker counts as unpacked, whether or not it is still there. What another tool, or the user, has
put into a dataset's folder counts too.
"""

from __future__ import annotations

import os
from pathlib import Path

from dualformer_cli.data.datasets.annotations import found_splits
from dualformer_cli.data.datasets.catalogue import Catalogue
from dualformer_cli.data.datasets.find_videos import find_videos
from dualformer_cli.data.fetch.archive_members import stem
from dualformer_cli.data.fetch.items import Item, file_name, placed_files, plan, route
from dualformer_cli.data.fetch.markers import is_done, read_marker
from dualformer_cli.documents.download import DatasetState, FilesState, State

_PER_SPLIT = (
    "annotations",
    "annotations_train",
    "annotations_val",
    "annotations_test",
    "splits",
    "train",
    "val",
    "test",
)
"""Names of entries that bring the annotations themselves, and not an index or a second form of them."""


def describe(catalogue: Catalogue, name: str, root: Path) -> DatasetState:
    """Say what is known of a dataset and what is there of it, without the network."""
    entry = catalogue.datasets[name]
    items = plan(catalogue, [name], root)
    states = [state_of(catalogue, item) for item in items]
    needed = [state for item, state in zip(items, states, strict=True) if not item.entry.optional]
    kinds = {state.state for state in needed}
    by_hand = {item.entry.is_by_hand for item in items if not item.entry.optional}
    return DatasetState(
        name=name,
        state=kinds.pop() if len(kinds) == 1 else "partly",
        how="automatic" if by_hand == {False} else "by hand" if by_hand == {True} else "partly by hand",
        title=entry.title,
        folder=str(root.absolute() / name),
        num_classes=entry.num_classes,
        classes=entry.classes,
        splits=entry.splits,
        labels=entry.labels,
        flip_labels=entry.flip_labels,
        metric=entry.metric,
        licence=entry.licence,
        homepage=entry.homepage,
        note=entry.note,
        aliases=entry.aliases,
        size_bytes=sum(state.size_bytes or 0 for state in needed),
        files=tuple(states),
    )


def state_of(catalogue: Catalogue, item: Item) -> FilesState:
    """Say what is there of an item, without the network."""
    entry = item.entry
    done, wanted = _count_done(item)
    there = done > 0 or is_filled_by_hand(item)
    state: State = "missing"
    if is_from_elsewhere(item):
        state = "present"
    elif there:
        state = "present" if entry.is_by_hand or wanted is None or done >= wanted else "partly"
    size = entry.size_bytes
    left = size if wanted is None or size is None else round(size * max(0, wanted - done) / wanted)
    url = entry.urls[0] if entry.urls else entry.url_list
    return FilesState(
        dataset=item.dataset,
        name=item.name,
        group=entry.group,
        split=entry.split,
        state=state,
        num_done=done,
        num_wanted=wanted,
        size_bytes=size,
        missing_bytes=0 if state == "present" else left,
        url=None if url is None else catalogue.address(url),
        by_hand=route(item) if entry.is_by_hand else entry.by_hand,
        path=item.target,
    )


def _count_done(item: Item) -> tuple[int, int | None]:
    """Return how many archives or files of an item are there, and how many it has."""
    entry = item.entry
    if entry.into is None:
        return sum(path is not None for path in _plain_paths(item)), max(len(entry.urls[:1]), len(entry.place))
    done = sum(is_done(marker) for marker in item.marker_folder.glob("*.json"))
    if entry.num_archives is not None or entry.url_list:
        return done, entry.num_archives
    return done, 1 if entry.urls or entry.parts else len(entry.place) or None


def _plain_paths(item: Item) -> list[Path | None]:
    """Return the plain files of an item that are there; None for each that is not."""
    if item.entry.urls:
        path = item.archive_folder / file_name(item.entry.urls[0])
        return [path if path.is_file() else None]
    return [next(iter(placed_files(item, name)), None) for name in item.entry.place]


def is_filled_by_hand(item: Item) -> bool:
    """Whether the user has unpacked an item: its folder has files, and no archive was unpacked into it by us."""
    entry = item.entry
    if not entry.is_by_hand or entry.into is None:
        return False
    if entry.there:
        return any((item.folder / path).exists() for path in entry.there)
    ours = (read_marker(marker) for marker in item.marker_folder.parent.glob("*/*.json"))
    return _has_files(item.folder / entry.into) and not any(one and one.into == entry.into for one in ours)


def is_from_elsewhere(item: Item) -> bool:
    """Whether another tool has put there what would be fetched: annotations of its split, or all published videos."""
    entry = item.entry
    if entry.is_by_hand or any(item.marker_folder.glob("*.json")):
        return False
    if entry.group == "videos":
        return item.num_videos is not None and _num_videos(Path(item.target)) >= item.num_videos
    if any(next(item.folder.glob(pattern), None) for pattern in entry.there):
        return True
    if item.name not in _PER_SPLIT and entry.split is None:
        return False
    found = found_splits(item.annotation_format, item.folder / "annotations")
    if entry.split is not None:
        ours = {file_name(url) for url in entry.urls}
        return entry.split in found and found[entry.split].name not in ours and item.name in _PER_SPLIT
    return bool(found)


def _num_videos(folder: Path) -> int:
    """Count the videos, or folders of frames, in a folder of a dataset."""
    return len(find_videos(folder.parent).get(folder.name, ())) if folder.is_dir() else 0


def is_marked(item: Item, name: str) -> bool:
    """Whether an archive that the user had put there for one entry of `place` is unpacked; it may be gone since."""
    patterns = ["parts"] if item.entry.parts else [pattern.rpartition("/")[2] for pattern in name.split("|")]
    markers = (marker for pattern in patterns for marker in item.marker_folder.glob(f"{pattern}.json"))
    return any(is_done(marker) for marker in markers)


def _has_files(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            # An archive may lie in the folder that it is unpacked into.
            return any(not entry.name.startswith(".") and stem(entry.name) == entry.name for entry in entries)
    except OSError:
        return False
