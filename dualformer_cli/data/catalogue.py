"""The catalogue of what can be fetched, as `catalogue.yaml` states it.

`DUALFORMER_CATALOGUE=FILE.yaml` names a file of the same shape whose values replace the shipped ones, for mirrors, dead
links and tests. Every address is in reach of it. A mirror of all weights that answers as Google Drive does:

    google_drive: {direct: "http://mirror.local/{id}", page: "http://mirror.local/{id}"}

or one plain file:

    weights: {k400-tiny: {url: "https://example.org/k400-tiny.pth", sha256: ...}}
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from dualformer_cli.data.transfer import Source
from dualformer_cli.errors import ConfigError, DownloadError, nearest

VARIABLE = "DUALFORMER_CATALOGUE"
_NUMBERS: Mapping[str, tuple[type, ...]] = {"minimum_bytes": (int,), "top1": (int, float)}


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsEntry:
    """One published checkpoint. Exactly one of `drive_id` and `url` says where its bytes are; `url` wins."""

    browser_url: str
    """Page where a person fetches the file by hand."""
    file_name: str
    """Bare name under which the file is stored."""
    minimum_bytes: int
    """A smaller file cannot hold the parameters."""
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
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            kind = _NUMBERS.get(field.name, (str,))
            optional = value is None and field.default is None
            if not optional and (isinstance(value, bool) or not isinstance(value, kind)):
                raise ConfigError(f"{field.name} has a value of the wrong type: {value!r}")
        if not self.file_name or self.file_name != Path(self.file_name).name or self.file_name.startswith("."):
            raise ConfigError(f"file_name must be a bare file name, got {self.file_name!r}")
        if self.url is None and self.drive_id is None:
            raise ConfigError("one of url and drive_id must be given")
        if self.sha256 is not None and not _is_sha256(self.sha256):
            raise ConfigError(f"sha256 must be 64 lower-case hexadecimal digits, got {self.sha256!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """All that can be fetched."""

    drive_direct: str
    """Address of a Google Drive file, with {id} for its id."""
    drive_page: str
    """Address of the page that leads to a Google Drive file, with {id} for its id."""
    weights: Mapping[str, WeightsEntry]
    """Published weights by preset."""
    datasets: tuple[str, ...]
    """Datasets that a later version fetches."""

    def entry(self, name: str) -> WeightsEntry:
        """Return the published weights of a preset.

        Raises:
            DownloadError: if the preset has none; a dataset's name is told apart from a typing error.
        """
        if name in self.weights:
            return self.weights[name]
        known = ", ".join(self.weights)
        if name.lower().replace("_", "-") in self.datasets:
            raise DownloadError(
                f"{name!r} is a dataset, and datasets are not in this version yet. Presets with weights: {known}"
            )
        hint = nearest(name, self.weights)
        raise DownloadError(f"no published weights for {name!r}{hint or '.'} Presets that have some: {known}")

    def source(self, name: str) -> Source:
        """Return where the weights of a preset come from."""
        entry = self.entry(name)
        on_drive = entry.url is None
        return Source(
            name=name,
            url=entry.url or self.drive_direct.replace("{id}", str(entry.drive_id)),
            drive_page=self.drive_page.replace("{id}", str(entry.drive_id)) if on_drive else None,
            browser_url=entry.browser_url,
            minimum_bytes=entry.minimum_bytes,
            sha256=entry.sha256,
            is_checkpoint=True,
        )


def load_catalogue(environ: Mapping[str, str] = os.environ) -> Catalogue:
    """Read the shipped catalogue, and over it the file that DUALFORMER_CATALOGUE names.

    Raises:
        ConfigError: if that file cannot be read or does not have the catalogue's shape.
    """
    text = resources.files("dualformer_cli.data").joinpath("catalogue.yaml").read_text(encoding="utf-8")
    shipped: dict[str, Any] = yaml.safe_load(text)
    path = environ.get(VARIABLE)
    if not path:
        return _parse(shipped)
    try:
        return _parse(_replaced(shipped, _read(Path(path)), key=""))
    except ConfigError as error:
        raise ConfigError(f"{VARIABLE}={path}: {error}") from error


def _read(path: Path) -> Any:
    """Return the content of a YAML file."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}; name a YAML file or unset the variable") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"is not YAML: {' '.join(str(error).split())}") from error


def _replaced(base: Any, override: Any, *, key: str) -> Any:
    """Return `base` with the values of `override`, mapping by mapping; only `weights` may gain keys."""
    if not isinstance(base, dict):
        return override
    if not isinstance(override, dict):
        raise ConfigError(f"{key or 'the file'} must be a mapping, got {type(override).__name__}")
    unknown = [name for name in override if name not in base]
    if unknown and key in ("", "google_drive"):
        hint = nearest(str(unknown[0]), base)
        raise ConfigError(f"unknown key {unknown[0]!r}{hint or '.'} Known keys: {', '.join(base)}")
    changed = {
        name: _replaced(base[name], value, key=name) if name in base else value for name, value in override.items()
    }
    return {**base, **changed}


def _parse(content: dict[str, Any]) -> Catalogue:
    """Turn the mapping of a catalogue into its checked form."""
    drive = content["google_drive"]
    for name, template in drive.items():
        if not isinstance(template, str) or "{id}" not in template:
            raise ConfigError(f"google_drive.{name} must be an address with {{id}} in it, got {template!r}")
    if not isinstance(content["datasets"], list):
        raise ConfigError(f"datasets must be a list of names, got {content['datasets']!r}")
    return Catalogue(
        drive_direct=drive["direct"],
        drive_page=drive["page"],
        weights={str(name): _parse_entry(str(name), fields) for name, fields in content["weights"].items()},
        datasets=tuple(map(str, content["datasets"])),
    )


def _parse_entry(name: str, fields: Any) -> WeightsEntry:
    """Turn one mapping below `weights` into its checked form."""
    if not isinstance(fields, dict):
        raise ConfigError(f"weights.{name} must be a mapping, got {fields!r}")
    known = {field.name: field for field in dataclasses.fields(WeightsEntry)}
    for key in fields:
        if key not in known:
            hint = nearest(str(key), known)
            raise ConfigError(f"weights.{name} has an unknown key {key!r}{hint or '.'} Known keys: {', '.join(known)}")
    missing = [key for key in ("browser_url", "file_name", "minimum_bytes") if key not in fields]
    if missing:
        raise ConfigError(f"weights.{name} needs {', '.join(missing)}")
    try:
        return WeightsEntry(**fields)
    except ConfigError as error:
        raise ConfigError(f"weights.{name}: {error}") from error


def _is_sha256(value: str) -> bool:
    """Whether a text is a SHA-256 in the form that hashlib prints."""
    return len(value) == 64 and set(value) <= set("0123456789abcdef")
