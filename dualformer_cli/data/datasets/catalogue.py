"""The catalogue of what can be fetched: `catalogue.yaml`, and a file of facts for each dataset, `facts/NAME.yaml`.

`DUALFORMER_CATALOGUE=FILE.yaml` names a file of the same shape whose values replace the shipped ones, for mirrors, dead
links and tests. Every address is in reach of it. A mirror of all weights that answers as Google Drive does, one plain
file, a mirror of a whole host, and one archive of a dataset:

    google_drive: {direct: "http://mirror.local/{id}", page: "http://mirror.local/{id}"}
    weights: {k400-tiny: {url: "https://example.org/k400-tiny.pth", sha256: ...}}
    mirrors: {"https://s3.amazonaws.com/kinetics/": "http://mirror.local/kinetics/"}
    datasets: {hmdb51: {files: {videos: {urls: ["http://mirror.local/hmdb51_org.rar"]}}}}
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import yaml

from dualformer_cli.config.typed_yaml import checked
from dualformer_cli.data.camera_motion.classes import FLIP_PAIRS
from dualformer_cli.errors import ConfigError, DownloadError, nearest
from dualformer_cli.system.words import os_reason

VARIABLE = "DUALFORMER_CATALOGUE"
GROUPS = ("annotations", "videos")

# The C parser reads the catalogue in 8 ms, the other one in 100; not every PyYAML has it.
_Loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsEntry:
    """One published checkpoint. Exactly one of `drive_id` and `url` says where its bytes are; `url` wins."""

    browser_url: str
    """Page where a person fetches the file by hand."""
    file_name: str
    """Bare name under which the file is stored."""
    minimum_bytes: int
    """A smaller file cannot hold the parameters."""
    dataset: str | None = None
    """Dataset that it was trained on."""
    drive_id: str | None = None
    """File id on Google Drive."""
    url: str | None = None
    """Address of the bytes on a plain server."""
    sha256: str | None = None
    """Hash of the file, where one is published."""
    top1: float | None = None
    """Published top-1, in percent."""
    licence: str | None = None
    """What is known of the licence."""
    note: str = ""
    """What a user should know of the file."""

    def __post_init__(self) -> None:
        if not self.file_name or self.file_name != Path(self.file_name).name or self.file_name.startswith("."):
            raise ConfigError(f"file_name must be a bare file name, got {self.file_name!r}")
        if self.url is None and self.drive_id is None:
            raise ConfigError("one of url and drive_id must be given")
        _check_hash("sha256", self.sha256, 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedFile:
    """What is published of one file, and where."""

    num_bytes: int | None = None
    """Exact size."""
    md5: str | None = None
    sha256: str | None = None
    sources: tuple[str, ...] = ()
    """Where that was read; (one source) where no second one was found."""

    def __post_init__(self) -> None:
        _check_hash("sha256", self.sha256, 64)
        _check_hash("md5", self.md5, 32)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """One file of a dataset, or several that are treated alike: from an address, a list of addresses, or by hand.

    At most one of `urls`, `url_list` and `place` is given; with none of them, the user fills the folder `into`.
    """

    group: Literal["annotations", "videos"]
    """What --only asks for."""
    split: Literal["train", "val", "test"] | None = None
    """The part of the dataset that it belongs to; None for all."""
    urls: tuple[str, ...] = ()
    """Addresses of the same content; a later one is asked when an earlier one fails. Those that end in the same name
    are the same file."""
    url_list: str | None = None
    """Address of a text file with the address of an archive on each line."""
    place: tuple[str, ...] = ()
    """Names or patterns of what the user puts into the dataset's folder, its `archives/` or its `annotations/`; each
    is needed, and `|` separates alternatives."""
    parts: bool = False
    """Whether what `place` finds are the pieces of one archive."""
    there: tuple[str, ...] = ()
    """Files in the dataset's folder; when one is there, the user has unpacked `place` already."""
    optional: bool = False
    """Whether a dataset is complete without it."""
    num_archives: int | None = None
    """Files that a `url_list` or a `place` gives."""
    num_bytes: int | None = None
    """Exact size."""
    about_gb: float | None = None
    """Stated size of all of it, in 10^9 bytes, for planning; unlike `num_bytes` it is not checked."""
    md5: str | None = None
    sha256: str | None = None
    published: Mapping[str, PublishedFile | None] = field(default_factory=dict)
    """What is published of each file by its name; of a name without any, `num_bytes`, `md5` and `sha256` count."""
    incomplete_certificate: bool = False
    """Whether the server is known for a certificate chain that fails to verify, so that the user may waive it."""
    into: str | None = None
    """Folder, in the dataset's, to unpack into; {stem} is the archive's name without suffixes. None: not an archive."""
    strip: tuple[str, ...] = ()
    """Outer folders of the archive that are left out where they are there, outermost first; {stem} as in `into`."""
    nested: bool = False
    """Whether archives in the archive are unpacked too, each into a folder of its name."""
    annotations: tuple[str, ...] = ()
    """Patterns of names in the archive that go to `annotations/` and not to `into`."""
    by_hand: str | None = None
    """What the user has to do where the file cannot be fetched."""

    def __post_init__(self) -> None:
        if bool(self.urls) + bool(self.url_list) + bool(self.place) > 1:
            raise ConfigError("only one of urls, url_list and place can be given")
        if not self.urls and not self.url_list and not self.place and not (self.into and self.by_hand):
            raise ConfigError("one of urls, url_list and place must be given, or into and by_hand")
        if not self.into and (self.url_list or self.parts or self.strip or self.nested or self.annotations):
            raise ConfigError("into must say where to unpack")
        for name in (*([self.into] if self.into else []), *self.strip, *self.place, *self.there):
            if name.startswith("/") or ".." in PurePosixPath(name).parts:
                raise ConfigError(f"{name!r} must stay inside the dataset's folder")
        _check_hash("sha256", self.sha256, 64)
        _check_hash("md5", self.md5, 32)

    def published_of(self, name: str) -> PublishedFile:
        """Return what is published of the file of this name."""
        of_all = PublishedFile(num_bytes=self.num_bytes, md5=self.md5, sha256=self.sha256)
        return self.published.get(name) or of_all

    @property
    def is_by_hand(self) -> bool:
        """Whether nothing of it can be fetched."""
        return not self.urls and self.url_list is None

    @property
    def size_bytes(self) -> int | None:
        """Bytes of all of it, exact or about, where known."""
        return self.num_bytes if self.about_gb is None else round(self.about_gb * 1e9)


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetEntry:
    """One dataset."""

    title: str
    homepage: str
    metric: str
    """How results on it are given."""
    num_classes: int
    classes: tuple[str, ...]
    """Shipped class lists: one, or one a group of labels."""
    splits: Mapping[str, int | None]
    """Annotated videos of each split, as counted in the lists or stated by the authors; null where it is not known."""
    files: Mapping[str, FileEntry]
    rounded: tuple[str, ...] = ()
    """Splits whose number of videos is a rounded one."""
    aliases: tuple[str, ...] = ()
    """Other names that the command line takes."""
    licence: str | None = None
    labels: Literal["single", "multi"] = "single"
    """Labels of a video."""
    flip_labels: tuple[tuple[int, ...], ...] = ()
    """Classes that a mirror turns into each other, numbered as in `classes`."""
    num_videos: Mapping[str, int] = field(default_factory=dict)
    """Folder to the videos, or folders of frames, that the archives leave in it, where somebody has counted them."""
    annotation_format: str | None = None
    """How annotations.py reads which videos there are, and their classes."""
    folders_tell_labels: bool = False
    """Whether a video that the annotations lack has the class of the folder that it was unpacked into."""
    videos_of: str | None = None
    """Dataset whose archives hold the videos of this one."""
    not_used: Mapping[str, str] = field(default_factory=dict)
    """Folders and files in the dataset's folder that prepare makes nothing of, and why."""
    note: str = ""
    """What a user should know of it."""

    def __post_init__(self) -> None:
        pairs = [label for pair in self.flip_labels for label in pair]
        if any(len(pair) != 2 for pair in self.flip_labels) or len(set(pairs)) < len(pairs):
            raise ConfigError(f"flip_labels must be pairs of different classes, got {self.flip_labels!r}")
        if any(not 0 <= label < self.num_classes for label in pairs):
            raise ConfigError(f"flip_labels names a class that is not one of the {self.num_classes}")
        names = [file.urls[0].rpartition("/")[2] for file in self.files.values() if file.urls]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ConfigError(f"files has two that would be stored under the name {twice[0]!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """All that can be fetched."""

    mirrors: Mapping[str, str]
    """Beginnings of addresses, and what to put in their place."""
    google_drive: Mapping[str, str]
    """Addresses with {id} for the id of a file: `direct` of the file, `page` of the page that leads to it."""
    weights: Mapping[str, WeightsEntry]
    """Published weights by preset."""
    datasets: Mapping[str, DatasetEntry]

    def __post_init__(self) -> None:
        for name, template in self.google_drive.items():
            if "{id}" not in template:
                raise ConfigError(f"google_drive.{name} must be an address with {{id}} in it, got {template!r}")
        for name, entry in self.datasets.items():
            if entry.videos_of is not None and entry.videos_of not in self.datasets:
                raise ConfigError(f"datasets.{name}: videos_of must be another dataset, got {entry.videos_of!r}")

    def dataset_name(self, name: str) -> str | None:
        """Return the name of a dataset, as written in any way that is known; None when it is not one."""
        plain = name.lower().replace("_", "-")
        known = {alias: name for name, entry in self.datasets.items() for alias in (name, *entry.aliases)}
        return known.get(plain)

    def entry(self, name: str) -> WeightsEntry:
        """Return the published weights of a preset.

        Raises:
            DownloadError: if the preset has none; the message says so of a dataset's name.
        """
        if name in self.weights:
            return self.weights[name]
        known = ", ".join(self.weights)
        if self.dataset_name(name) is not None:
            raise DownloadError(f"{name!r} is a dataset, not a preset. Presets with published weights: {known}")
        hint = nearest(name, self.weights)
        raise DownloadError(f"no published weights for {name!r}{hint or '.'} Presets that have some: {known}")

    def address(self, url: str) -> str:
        """Return where an address leads, after the mirrors; of several that fit, the longest counts."""
        fitting = [beginning for beginning in self.mirrors if url.startswith(beginning)]
        if not fitting:
            return url
        longest = max(fitting, key=len)
        return self.mirrors[longest] + url[len(longest) :]


@lru_cache(maxsize=1)
def flip_labels() -> Mapping[str, tuple[tuple[int, int], ...]]:
    """Return the classes that a mirror turns into each other, by name of the shipped class list."""
    datasets = load_catalogue({}).datasets.values()
    of_datasets = {
        entry.classes[0]: tuple((a, b) for a, b in entry.flip_labels) for entry in datasets if entry.flip_labels
    }
    return {**of_datasets, "camera_motion": FLIP_PAIRS}


def load_catalogue(environ: Mapping[str, str] = os.environ) -> Catalogue:
    """Read the shipped catalogue, and over it the file that DUALFORMER_CATALOGUE names.

    Raises:
        ConfigError: if that file cannot be read or does not have the catalogue's shape.
    """
    shipped = _shipped()
    path = environ.get(VARIABLE)
    if not path:
        return checked(shipped, Catalogue, "")
    try:
        return checked(_replaced(shipped, _read(Path(path)), key=""), Catalogue, "")
    except ConfigError as error:
        raise ConfigError(f"{VARIABLE}={path}: {error}") from error


def _shipped() -> Any:
    """Return what the package's files say: catalogue.yaml, and facts/NAME.yaml of each dataset."""
    folder = resources.files("dualformer_cli.data.datasets")
    content = yaml.load(folder.joinpath("catalogue.yaml").read_text(encoding="utf-8"), _Loader)
    first = content.pop("first")
    entries = (entry for entry in folder.joinpath("facts").iterdir() if entry.name.endswith(".yaml"))
    facts = {
        entry.name.removesuffix(".yaml"): yaml.load(entry.read_text(encoding="utf-8"), _Loader) for entry in entries
    }
    others = sorted(facts.keys() - set(first))
    return {**content, "datasets": {name: facts[name] for name in (*first, *others)}}


def _read(path: Path) -> Any:
    """Return the content of a YAML file."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise ConfigError(f"cannot be read: {os_reason(error)}; name a YAML file or unset the variable") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"is not YAML: {' '.join(str(error).split())}") from error


def _replaced(base: Any, override: Any, *, key: str) -> Any:
    """Return `base` with the values of `override`, mapping by mapping; the top level and google_drive gain no keys.

    An address of another kind takes the place of the one that was there: `urls` that of a `url_list`, and so on.
    """
    if override is None and key.endswith(".published"):
        return {}
    if not isinstance(base, dict) or (override is None and ".published." in key):
        return override  # null: nothing is published of the file
    if not isinstance(override, dict):
        raise ConfigError(f"{key or 'the file'} must be a mapping, got {type(override).__name__}")
    unknown = [name for name in override if name not in base]
    if unknown and key in ("", "google_drive"):
        hint = nearest(str(unknown[0]), base)
        raise ConfigError(f"unknown key {unknown[0]!r}{hint or '.'} Known keys: {', '.join(base)}")
    kinds = {"urls", "url_list", "place"}
    kept = {name: value for name, value in base.items() if not (name in kinds and kinds & set(override))}
    changed = {
        name: _replaced(base[name], value, key=f"{key}.{name}" if key else str(name)) if name in base else value
        for name, value in override.items()
    }
    return {**kept, **changed}


def _check_hash(key: str, value: str | None, digits: int) -> None:
    """Refuse a hash that is not in the form that hashlib prints."""
    if value is not None and not (len(value) == digits and set(value) <= set("0123456789abcdef")):
        raise ConfigError(f"{key} must be {digits} lower-case hexadecimal digits, got {value!r}")


def chosen_files(
    entry: DatasetEntry, *, groups: Sequence[str] = GROUPS, splits: Sequence[str] | None = None
) -> dict[str, FileEntry]:
    """Return the files of a dataset that belong to some groups and splits; one without a split belongs to each."""
    return {
        name: file
        for name, file in entry.files.items()
        if file.group in groups and (splits is None or file.split is None or file.split in splits)
    }
