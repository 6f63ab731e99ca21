"""Which files belong to the datasets and presets that are asked for, and where each goes.

Below ROOT/NAME lie `archives/` as they came, `annotations/`, the folders of videos or frames, and `.done/` with a
marker for each archive that is unpacked.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from dualformer_cli.data.datasets.catalogue import GROUPS, Catalogue, FileEntry, chosen_files
from dualformer_cli.data.datasets.formats.base import BESIDE_A_FILE
from dualformer_cli.data.fetch.archive_members import Layout
from dualformer_cli.errors import DownloadError, nearest
from dualformer_cli.system.words import natural_key

PIECE = re.compile(r"(.+\.(?:tar|tgz|gz|zip))[._-](?:part)?(?:\d{1,4}|[a-z]{2})", re.IGNORECASE)
"""Name of one of several pieces of an archive, as `split` and others number them; group 1 is the archive's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One entry of a dataset's files, and where it goes."""

    dataset: str
    """Dataset in whose folder it lies."""
    name: str
    entry: FileEntry
    folder: Path
    """The dataset's folder."""
    homepage: str
    annotation_format: str | None = None
    num_videos: int | None = None
    """Videos that all archives should leave in its folder, where known."""

    @property
    def label(self) -> str:
        """What messages call it."""
        return f"{self.dataset} {self.name}"

    @property
    def archive_folder(self) -> Path:
        """Where its archives, or its plain files, lie."""
        if self.entry.into is None:
            return self.folder / "annotations"
        archives = self.folder / "archives"
        return archives / self.name if self.entry.url_list else archives

    @property
    def target(self) -> str:
        """Where what comes out of its archives goes."""
        into = self.entry.into
        return str(self.archive_folder if into is None else self.folder / into.partition("/{")[0])

    @property
    def marker_folder(self) -> Path:
        """Where the markers of its unpacked archives lie."""
        return self.folder / ".done" / self.name

    @property
    def layout(self) -> Layout:
        """Where the members of its archives go."""
        entry = self.entry
        return Layout(
            into=entry.into or "",
            strip=entry.strip,
            annotations=entry.annotations,
            nested=entry.nested,
            holds_videos=entry.group == "videos",
        )


def plan(
    catalogue: Catalogue,
    names: Sequence[str],
    root: Path,
    *,
    groups: Sequence[str] = GROUPS,
    splits: Sequence[str] | None = None,
) -> list[Item]:
    """Return what belongs to some datasets.

    Args:
        catalogue: what there is.
        names: datasets, as `Catalogue.datasets` names them.
        root: folder below which each has its own.
        groups: annotations, videos or both.
        splits: train, val, test; None for all.
    """
    items = []
    for name in names:
        entry = catalogue.datasets[name]
        owners = [(name, groups)]
        if entry.videos_of is not None and "videos" in groups:
            owners.append((entry.videos_of, ["videos"]))
        for owner, wanted in owners:
            of = catalogue.datasets[owner]
            items += [
                Item(
                    dataset=owner,
                    name=key,
                    entry=file,
                    folder=root.absolute() / owner,
                    homepage=of.homepage,
                    annotation_format=of.annotation_format,
                    num_videos=of.num_videos.get((file.into or "").partition("/{")[0]),
                )
                for key, file in chosen_files(of, groups=wanted, splits=splits).items()
            ]
    return list({(item.dataset, item.name): item for item in items}.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What the names on a command line stand for."""

    weights: tuple[str, ...]
    """Presets."""
    datasets: tuple[str, ...]
    groups: tuple[str, ...]
    """Of the datasets' files: annotations, videos."""


def select(catalogue: Catalogue, names: Sequence[str], only: Sequence[str] = ()) -> Selection:
    """Sort names into presets with published weights and datasets.

    Args:
        catalogue: what there is.
        names: as the user wrote them.
        only: annotations, videos, weights. With weights, a dataset stands for the presets trained on it. Nothing for
            all files of datasets, and weights of presets.

    Raises:
        DownloadError: for a name that is neither, or of which `only` leaves nothing.
    """
    groups = tuple(group for group in GROUPS if group in only or not only)
    weights: dict[str, None] = {}
    datasets: dict[str, None] = {}
    for name in names:
        dataset = catalogue.dataset_name(name)
        if name not in catalogue.weights and dataset is None:
            hint = nearest(name, [*catalogue.datasets, *catalogue.weights])
            raise DownloadError(
                f"nothing is known of {name!r}{hint or '.'} Datasets: {', '.join(catalogue.datasets)}. "
                f"Presets with published weights: {', '.join(catalogue.weights)}"
            )
        trained = [preset for preset, entry in catalogue.weights.items() if entry.dataset == dataset]
        found = [name] if name in catalogue.weights else trained if "weights" in only else []
        if (name in catalogue.weights and only and "weights" not in only) or (dataset and not found and not groups):
            raise DownloadError(f"{name!r} has no {' and no '.join(only)}; leave --only out to get what it has")
        weights |= dict.fromkeys(found)
        if dataset is not None and groups:
            datasets[dataset] = None
    return Selection(weights=tuple(weights), datasets=tuple(datasets), groups=groups)


def route(item: Item, missing: Sequence[str] | None = None) -> str:
    """Say in one line what the user has to do to get what cannot be fetched.

    Args:
        item: with an entry by hand.
        missing: the names of its `place` that are not there; all when None.
    """
    entry = item.entry
    todo = f"go to {item.homepage}"
    if entry.by_hand:
        todo += f" and {entry.by_hand}" if "http" not in entry.by_hand else f", {entry.by_hand}"
    if entry.place:
        names = ", ".join(name.replace("|", " or ") for name in (entry.place if missing is None else missing))
        folder = item.folder / "annotations" if entry.into is None else item.folder
        return f"{todo}; put {names} into {str(folder)!r} and run this command again"
    return f"{todo}; put what you get into {str(item.folder / (entry.into or ''))!r}"


def placed_files(item: Item, name: str) -> list[Path]:
    """Return the files that the user has put there for one entry of `place`, in natural order."""
    folders = [item.folder / "annotations"]
    if item.entry.into is not None:
        folders += [item.folder, item.folder / "archives"]
    for pattern in name.split("|"):
        for ending in ("", "[._-]*"):  # the archive, else pieces of it
            found = {
                path.name: path
                for folder in folders
                for path in map(Path, glob.glob(os.path.join(glob.escape(str(folder)), pattern + ending)))
                if path.is_file() and not path.name.endswith(BESIDE_A_FILE)
                if not ending or PIECE.fullmatch(path.name)
            }
            if found:
                return [found[key] for key in sorted(found, key=natural_key)]
    return []


def file_name(url: str) -> str:
    """Return the name under which the file of an address is stored; empty if it has none that can be used."""
    name = unquote(urlsplit(url).path).rpartition("/")[2]
    return "" if name in ("", ".", "..") or name.startswith(".") or "\0" in name or len(name) > 200 else name
