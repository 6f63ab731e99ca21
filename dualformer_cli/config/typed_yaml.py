"""The one typed YAML reader: a file is a tree of texts, and each text is parsed by the annotated type of its key.

YAML is read as nodes and not constructed: YAML 1.1's guesses (1e-3 is text, no is false, 010 is 8) do not apply. Values
that are typed already, of a flag or of the catalogue, which the faster reader in C constructs, are checked alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from dualformer_cli.errors import ConfigError, nearest
from dualformer_cli.system.numbers import number_in

if TYPE_CHECKING:
    from yaml import Node

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,99})")
_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_YAML_TAGS = {  # those that YAML gives by itself
    f"tag:yaml.org,2002:{name}"
    for name in ("str", "int", "float", "bool", "null", "timestamp", "value", "merge", "seq", "map")
}


class Plain(str):
    """A scalar without quotes, whose type is its key's to decide."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self) if self.isprintable() and self else super().__repr__()


class MismatchError(Exception):
    """A value that is not of its key's type."""


def checked(value: object, annotation: Any, key: str) -> Any:
    """Return a value as the annotated type: what `parse` knows, and mappings and dataclasses of it.

    Args:
        value: text, lists and mappings as YAML has them, or values that are typed already.
        annotation: the type.
        key: where the value stands, for messages; "" for the whole file.

    Raises:
        ConfigError: if it is of another type, lacks a key or has an unknown one, or a dataclass refuses it.
    """
    inner = annotation if _is_null(value) else _without_null(annotation)
    if is_dataclass(inner) or get_origin(inner) is Mapping:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{key or 'the file'} must be a mapping, got {shown(value)}")
        if is_dataclass(inner):
            return _built(inner, value, key)
        of_values = get_args(inner)[1]
        return {str(name): checked(item, of_values, _dotted(key, name)) for name, item in value.items()}
    try:
        return parse(value, annotation)
    except MismatchError:
        raise ConfigError(f"{key} must be {allowed(annotation)}, got {shown(value)}") from None


def _built(kind: Any, content: Mapping[str, object], key: str) -> Any:
    """Return a dataclass of the fields that a mapping gives."""
    known = {field.name: field for field in fields(kind)}
    for name in content:
        if name not in known:
            hint = nearest(str(name), known)
            raise ConfigError(f"{key} has an unknown key {name!r}{hint or '.'} Known keys: {', '.join(known)}")
    needed = [name for name, field in known.items() if field.default is MISSING and field.default_factory is MISSING]
    if missing := [name for name in needed if name not in content]:
        raise ConfigError(f"{key} needs {', '.join(missing)}")
    hints = _hints(kind)
    values = {name: checked(item, hints[name], _dotted(key, name)) for name, item in content.items()}
    try:
        return kind(**values)
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}" if key else str(error)) from None


_hints = cache(get_type_hints)


def _dotted(key: str, name: object) -> str:
    return f"{key}.{name}" if key else str(name)


def parse(value: object, annotation: Any) -> Any:
    """Return `value` as the annotated type. Text is parsed only when it is Plain; quoted text stays text."""
    kind, arguments = get_origin(annotation), get_args(annotation)
    if kind in (Union, UnionType):
        return None if _is_null(value) else parse(value, _without_null(annotation))
    if kind is Literal:
        return _parse_literal(value, arguments)
    if kind is tuple:
        return _parse_tuple(value, arguments)
    return {bool: _parse_bool, int: _parse_int, float: _parse_float, str: _parse_str}[annotation](value)


def _without_null(annotation: Any) -> Any:
    if get_origin(annotation) not in (Union, UnionType):
        return annotation
    (inner,) = (argument for argument in get_args(annotation) if argument is not type(None))
    return inner


def _is_null(value: object) -> bool:
    return value is None or (isinstance(value, Plain) and value.lower() in ("", "~", "null"))


def _parse_literal(value: object, allowed: tuple[object, ...]) -> object:
    for option in allowed:
        if str(option) == value if isinstance(value, Plain) else (type(option), option) == (type(value), value):
            return option
    raise MismatchError


def _parse_tuple(value: object, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise MismatchError
    inner = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
    if len(inner) != len(value):
        raise MismatchError
    return tuple(parse(item, annotation) for item, annotation in zip(value, inner, strict=True))


def _parse_bool(value: object) -> bool:
    if isinstance(value, Plain) and value.lower() in _BOOLEANS:
        return _BOOLEANS[value.lower()]
    if isinstance(value, bool):
        return value
    raise MismatchError


def _parse_int(value: object) -> int:
    if isinstance(value, Plain) and _INTEGER.fullmatch(value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise MismatchError


def _parse_float(value: object) -> float:
    if isinstance(value, Plain) or (isinstance(value, int | float) and not isinstance(value, bool)):
        try:
            return number_in(str(value))
        except ValueError:
            raise MismatchError from None
    raise MismatchError


def _parse_str(value: object) -> str:
    if isinstance(value, str) and not _is_null(value):
        return str(value)
    raise MismatchError


def allowed(annotation: Any, *, plural: bool = False) -> str:
    """Describe a type in words: "a list of 3 numbers"."""
    kind, arguments = get_origin(annotation), get_args(annotation)
    if kind in (Union, UnionType):
        return f"{allowed(_without_null(annotation))} or null"
    if kind is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if kind is tuple:
        count = "" if arguments[-1] is Ellipsis else f"{len(arguments)} "
        return f"{'lists' if plural else 'a list'} of {count}{allowed(arguments[0], plural=True)}"
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[annotation]
    return words.removeprefix("a ") + "s" if plural else words


def shown(value: object) -> str:
    text = "nothing" if value == "" and isinstance(value, Plain) else repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


class Document:
    """One YAML document as text.

    Args:
        text: the YAML.
        label: the file, option or variable that it comes from, for messages.
    """

    def __init__(self, text: str, label: str) -> None:
        self._text = text
        self.label = label
        self._visited: set[int] = set()

    def root_value(self) -> object:
        """Read a bare value, such as [1, 2]."""
        with self.bounded_depth():
            root = self.compose()
            return Plain("") if root is None else self.value(root)

    @contextmanager
    def bounded_depth(self) -> Iterator[None]:
        """Name a document that is nested too deeply for Python."""
        try:
            yield
        except RecursionError:
            raise self.error(1, "not usable: nested too deeply") from None

    def error(self, line: int, problem: str) -> ConfigError:
        """Return the error about one line."""
        return ConfigError(f"{self.label}, line {line}: {problem}")

    def compose(self) -> Node | None:
        """Return the root of the tree; None of an empty document."""
        import yaml  # here, because commands that only show help never need it

        try:
            return yaml.compose(self._text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            problem = f"not valid YAML: {error.problem or error.context}"
            raise self.error(mark.line + 1 if mark else 1, problem) from None
        except yaml.reader.ReaderError as error:
            line = self._text.count("\n", 0, error.position) + 1
            raise self.error(line, f"not valid YAML: character {chr(error.character)!a} is not allowed") from None
        except (ValueError, OverflowError):  # yaml passes an escape like "\UFFFFFFFF" on to chr()
            raise self.error(1, "not valid YAML: an escape names no character") from None

    def visit(self, node: Node) -> None:
        """Refuse tags and aliases: neither has a use here, and aliases can make a small file huge."""
        if node.tag not in _YAML_TAGS:
            raise self.error(node.start_mark.line + 1, f"the tag {node.tag!r} is not allowed in a preset")
        if id(node) in self._visited:
            raise self.error(node.start_mark.line + 1, "an alias (*name) is not allowed; write the value again")
        self._visited.add(id(node))

    def value(self, node: Node) -> object:
        """Return a text or a list of them; texts without quotes are Plain."""
        import yaml

        self.visit(node)
        if isinstance(node, yaml.ScalarNode):
            return node.value if node.style else Plain(node.value)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item) for item in node.value]
        raise self.error(node.start_mark.line + 1, "a mapping stands where a value is expected")
