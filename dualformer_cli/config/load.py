"""Presets, `--set`, environment and flags become one RunConfig, and a RunConfig becomes YAML again.

Each value is parsed by the type of its key in `schema.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, get_origin, get_type_hints

from dualformer_cli.config.other_code import foreign_config, foreign_key, key_instead, option_instead
from dualformer_cli.config.schema import RunConfig
from dualformer_cli.config.typed_yaml import Document, Plain, checked, shown
from dualformer_cli.errors import ConfigError, closest, nearest
from dualformer_cli.system.words import cannot_read, printable

if TYPE_CHECKING:
    from typing import BinaryIO

    from yaml import Node

Section = TypeVar("Section")

ENVIRONMENT_PREFIX = "DUALFORMER_"
"""DUALFORMER_RUNTIME__DEVICE sets runtime.device: upper case, two underscores for each dot."""
RESERVED_VARIABLES = ("DUALFORMER_CACHE", "DUALFORMER_OFFLINE")
"""Variables of the tool that are not keys."""
MAX_PRESET_BYTES = 64 * 1024
"""A larger file is refused unread; the shipped presets have about 1 KiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedConfig:
    """A RunConfig and where its values come from."""

    config: RunConfig
    preset: str
    """Name or path of the preset as the user gave it; "default" when there was none."""
    origins: Mapping[str, str]
    """For every dotted key: flag, --set, environment VARIABLE, preset NAME or default."""


def load_config(
    preset: str | None,
    *,
    overrides: Sequence[str] = (),
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    text: str | None = None,
) -> ResolvedConfig:
    """Resolve a run's configuration; a flag wins over `overrides`, then environment, preset, schema default.

    Args:
        preset: a shipped preset's name, or the path of a YAML file; None takes the schema's defaults.
        overrides: the texts of `--set`, each "dotted.key=value"; of two for one key the last wins.
        flags: dotted key to a value of the key's type.
        environ: environment variables; those of the process when None.
        text: the preset's YAML, where it is not in a file but in a checkpoint; `preset` then names it.

    Raises:
        ConfigError: an unknown preset or key, or a value that is not allowed.
    """
    settings = {} if preset is None else _preset_settings(preset) if text is None else _text_settings(preset, text)
    settings |= _environment_settings(os.environ if environ is None else environ)
    settings |= _override_settings(overrides)
    settings |= {key: _setting(key, value, origin="flag") for key, value in (flags or {}).items()}
    origins = {key: settings[key].origin if key in settings else "default" for key in known_keys()}
    config = _apply(RunConfig(), "", settings)
    return ResolvedConfig(config=config, preset="default" if preset is None else preset, origins=origins)


def known_presets() -> tuple[str, ...]:
    """Return the names of the shipped presets, sorted."""
    names = (entry.name for entry in _shipped_folder().iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml") and name[0] != "."))


def to_yaml(config: RunConfig, origins: Mapping[str, str] | None = None) -> str:
    """Write every key as YAML that loads back, as a preset, to an equal config.

    Args:
        config: the config to write.
        origins: dotted key to its origin, written as a comment behind each value; None writes no comments.
    """
    return "".join(f"{line}\n" for line in _yaml_lines(config, "", origins))


def values_of(section: object, prefix: str = "") -> dict[str, object]:
    """Return every value of a section and those below it, by its dotted key."""
    found: dict[str, object] = {}
    for field in fields(section):  # type: ignore[arg-type]  # every section is a dataclass
        value = getattr(section, field.name)
        found |= values_of(value, f"{prefix}{field.name}.") if is_dataclass(value) else {prefix + field.name: value}
    return found


@cache
def known_keys() -> Mapping[str, Any]:
    """Return every dotted key with its annotation, in the schema's order."""

    def walk(section: type[Any], prefix: str) -> Iterator[tuple[str, Any]]:
        for name, annotation in get_type_hints(section).items():
            if is_dataclass(annotation):
                yield from walk(annotation, f"{prefix}{name}.")  # type: ignore[arg-type]  # a class, not an instance
            else:
                yield prefix + name, annotation

    return dict(walk(RunConfig, ""))


def _keys_below(section: str) -> list[str]:
    return [key for key in known_keys() if key.startswith(f"{section}.")]


def _nearest_key(key: str) -> str | None:
    """The known key that `key` most resembles, whether it is spelled from the root or only by its end."""
    spellings: dict[str, str] = {}
    for known in known_keys():
        parts = known.split(".")
        for start in range(len(parts)):
            spellings.setdefault(".".join(parts[start:]), known)
    parts = key.split(".")
    ends = [".".join(parts[start:]) for start in range(len(parts))]
    close = next((end for end in ends if end in spellings), None) or closest(key, spellings)
    return spellings[close] if close else None


def _require_key(key: str, place: str) -> None:
    if key in known_keys():
        return
    if below := _keys_below(key):
        raise ConfigError(f"{key} is a section, not a value; set one of its keys: {', '.join(below)} (from {place})")
    known, option = key_instead(key), option_instead(key)
    if known is None and option is not None:
        raise ConfigError(f"{key}: no key, but an option here: {option} (from {place})")
    known = known or _nearest_key(key)
    hint = f"did you mean {known!r}?" if known else "--print-config lists every key"
    raise ConfigError(f"{key}: unknown key; {hint} (from {place})")


@dataclass(frozen=True, slots=True)
class _Setting:
    value: object
    origin: str
    place: str


def _setting(key: str, value: object, *, origin: str, place: str | None = None) -> _Setting:
    """Check key and value at once, so that a mistake counts even where something else overrides it."""
    place = place or origin
    _require_key(key, place)
    try:
        return _Setting(checked(value, known_keys()[key], key), origin, place)
    except ConfigError as error:
        raise ConfigError(f"{error} (from {place})") from None


def _override_settings(overrides: Sequence[str]) -> dict[str, _Setting]:
    settings = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        key = key.strip()
        if not equals:
            raise ConfigError(f"--set {override!r} has no '='; write --set KEY=VALUE, as in data.clip.num_frames=16")
        settings[key] = _setting(key, _value_of_text(key, text, "--set"), origin="--set")
    return settings


def _environment_settings(environ: Mapping[str, str]) -> dict[str, _Setting]:
    """Read the variables that name keys. Empty ones count as unset; unknown ones without a `__` may be anybody's."""
    settings = {}
    for name, text in sorted(environ.items()):
        if not name.startswith(ENVIRONMENT_PREFIX) or name in RESERVED_VARIABLES:
            continue
        key = name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", ".")
        if key in known_keys():
            if text:
                origin = f"environment {name}"
                settings[key] = _setting(key, _value_of_text(key, text, origin), origin=origin)
        elif "__" in name or any(known.endswith(f".{key}") for known in known_keys()):
            known = _nearest_key(key)
            hint = f"did you mean {_variable(known)!r}?" if known else "--print-config lists every key"
            raise ConfigError(f"environment variable {name} names no key; {hint}")
    return settings


def _variable(key: str) -> str:
    return ENVIRONMENT_PREFIX + key.replace(".", "__").upper()


def _value_of_text(key: str, text: str, place: str) -> object:
    """Read a value from a command line or variable: YAML for lists, else the text itself, without outer quotes."""
    text = text.strip()
    if get_origin(known_keys().get(key)) is tuple:
        return Document(text, f"{key} (from {place})").root_value()
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    return Plain(text)


def _apply(section: Section, prefix: str, settings: Mapping[str, _Setting]) -> Section:
    """Return `section` with the settings below `prefix`; put the dotted key in front of what the schema says."""
    changes: dict[str, Any] = {}
    for field in fields(section):  # type: ignore[arg-type]  # every Section is a dataclass
        key, value = prefix + field.name, getattr(section, field.name)
        if is_dataclass(value):
            changes[field.name] = _apply(value, f"{key}.", settings)
        elif key in settings:
            changes[field.name] = settings[key].value
    try:
        return replace(section, **changes)  # type: ignore[type-var]
    except ConfigError as error:
        message = f"{prefix}{error}"
        named = settings.get(message.split()[0])  # the schema's messages begin with the key
        raise ConfigError(f"{message} (from {named.place})" if named else message) from None


class _File(Protocol):
    """What pathlib.Path and a resource of the package share."""

    def open(self, mode: Literal["rb"]) -> BinaryIO: ...


def _preset_settings(preset: str) -> dict[str, _Setting]:
    """Read a preset and what it extends; the child's values win."""
    settings: dict[str, _Setting] = {}
    labels: list[str] = []
    seen: list[str] = []
    name: str | None = preset
    folder: Path | None = None
    while name is not None:
        file, label, identity, folder = _locate(name, folder)
        labels.append(label)
        if identity in seen:
            raise ConfigError(f"preset {preset!r} extends itself: {' -> '.join(labels)}; remove one `extends`")
        seen.append(identity)
        name, named = _Preset(_read_text(file, label), label).read()
        settings = named | settings
    return settings


def _text_settings(label: str, text: str) -> dict[str, _Setting]:
    parent, named = _Preset(text, label, is_saved=True).read()
    return named if parent is None else named | _preset_settings(parent) | named


def _locate(name: str, folder: Path | None) -> tuple[_File, str, str, Path | None]:
    """Find a preset: (file, label for messages, identity, folder of relative names)."""
    if (answer := foreign_config(name)) is not None:
        raise ConfigError(answer)
    if name.endswith((".yaml", ".yml")) or "/" in name or os.sep in name:
        path = Path(name) if folder is None else folder / name
        try:
            return path, str(path), os.path.realpath(path), path.parent
        except ValueError as error:  # a null character, or one that no file name can have
            raise _unreadable(str(path), str(error)) from None
    known = known_presets()
    if name not in known:
        hint = nearest(name, known) or "; a file's name must end in .yaml."
        raise ConfigError(f"preset {name!r} not found{hint} Known presets: {', '.join(known)}")
    return _shipped_folder().joinpath(f"{name}.yaml"), name, name, None


def _shipped_folder() -> Any:
    from importlib.resources import files  # here, because it costs a tenth of the time of --help

    return files("dualformer_cli.presets")


def _unreadable(label: str, reason: str) -> ConfigError:
    return ConfigError(f"preset {label!r} cannot be read: {reason}; {_presets_to_name()}")


def _presets_to_name() -> str:
    return f"name a YAML file or one of the presets {', '.join(known_presets())}"


def _read_text(file: _File, label: str) -> str:
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_PRESET_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{cannot_read('preset', label, error)}; {_presets_to_name()}") from None
    except ValueError as error:  # as in _locate; Python 3.13 notices only here
        raise _unreadable(label, str(error)) from None
    if len(data) > MAX_PRESET_BYTES:
        raise ConfigError(f"preset {label!r} is larger than {MAX_PRESET_BYTES} bytes; a preset is a short YAML file")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"preset {label!r} is not UTF-8 text: byte {error.start} is {data[error.start]:#04x}"
        ) from None


class _Preset(Document):
    """A preset as text: the settings that it names, and the preset that it extends.

    Args:
        text: the YAML.
        label: its name, for messages.
        is_saved: a checkpoint holds it, perhaps an older version's: a key of its recipe that is gone is left out.
    """

    def __init__(self, text: str, label: str, *, is_saved: bool = False) -> None:
        super().__init__(text, label)
        self._is_saved = is_saved
        self._names: set[str] = set()
        self._settings: dict[str, _Setting] = {}
        self._extends: str | None = None

    def read(self) -> tuple[str | None, dict[str, _Setting]]:
        """Read a preset: the name that it extends, and the settings in it."""
        with self.bounded_depth():
            root = self.compose()
            if root is not None:
                self._read_section(root, "")
        return self._extends, self._settings

    def _read_section(self, node: Node, prefix: str) -> None:
        import yaml

        self.visit(node)
        if isinstance(node, yaml.ScalarNode) and not node.value and not node.style:
            return  # "model:" with nothing below it
        if not isinstance(node, yaml.MappingNode):
            what = f"{prefix.removesuffix('.')} is a section and" if prefix else "a preset"
            raise self.error(node.start_mark.line + 1, f"{what} must map keys to values")
        for name, value in node.value:
            self._read_entry(name, value, prefix)

    def _read_entry(self, name: Node, value: Node, prefix: str) -> None:
        line = name.start_mark.line + 1
        text = self.value(name)
        if not isinstance(text, str):
            raise self.error(line, f"a key must be a name, got {shown(text)}")
        key = prefix + text
        if key in self._names:
            raise self.error(line, f"{key} is set twice")
        self._names.add(key)
        if key == "extends":
            self._extends = self._parent(value)
        elif key not in known_keys() and _keys_below(key):
            self._read_section(value, f"{key}.")
        elif self._is_saved and key not in known_keys() and key.startswith("train."):
            return
        else:
            place = f"{self.label}, line {line}"
            if (answer := foreign_key(key, self.label)) is not None:
                raise ConfigError(answer)
            _require_key(key, place)
            raw = self.value(value)
            self._settings[key] = _setting(key, raw, origin=f"preset {self.label}", place=place)

    def _parent(self, node: Node) -> str:
        value = self.value(node)
        if not isinstance(value, str) or not value:
            raise self.error(node.start_mark.line + 1, f"extends must name one preset or file, got {shown(value)}")
        return str(value)


def _yaml_lines(section: object, prefix: str, origins: Mapping[str, str] | None) -> Iterator[str]:
    indent = "  " * prefix.count(".")
    for field in fields(section):  # type: ignore[arg-type]  # every section is a dataclass
        key, value = prefix + field.name, getattr(section, field.name)
        if is_dataclass(value):
            yield f"{indent}{field.name}:"
            yield from _yaml_lines(value, f"{key}.", origins)
        else:
            comment = f"  # from {printable(origins[key])}" if origins is not None else ""
            yield f"{indent}{field.name}: {yaml_value(value)}{comment}"


def yaml_value(value: object) -> str:
    """Write one value on one line, in the YAML that other readers understand too."""
    import yaml

    style = '"' if isinstance(value, str) and not value.isprintable() else None
    text = yaml.safe_dump(
        [_as_lists(value)], default_flow_style=True, default_style=style, width=inf, allow_unicode=True
    )
    return str(text).strip()[1:-1]


def _as_lists(value: object) -> object:
    return [_as_lists(item) for item in value] if isinstance(value, tuple) else value
