"""From a document to JSON, and from a document's type to the JSON Schema that describes it.

A document is a frozen dataclass whose fields are the names that users read, in the order in which they are printed. A
name that Python reserves ends in an underscore there (`class_`) and has none in JSON (`class`).
"""

from __future__ import annotations

import ast
import inspect
import textwrap
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, field, fields, is_dataclass
from functools import cache, partial
from os import PathLike, fspath
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import numpy as np

JsonObject = dict[str, Any]
"""A JSON object as Python has it: what `json.dumps` takes."""

Document = TypeVar("Document")

_Reader = Callable[[Any], Any]
_ABSENT = "absent_if_none"
_INLINED = "inlined"
_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


def absent() -> Any:
    """Return the default of a field that is None, and is then left out of the JSON document."""
    return field(default=None, metadata={_ABSENT: True})


def inlined(**names: Any) -> Any:
    """Return a field whose value is a document or a mapping, which has no name in JSON: its own names stand there.

    Args:
        names: of a mapping, each with the type of its value, for the schema; any may be missing.
    """
    return field(metadata={_INLINED: names})


def to_json(document: Any) -> JsonObject:
    """Return a document as a JSON object, with its fields in order.

    Raises:
        TypeError: if it holds something that JSON has no form for.
    """
    found = _plain(document)
    if not isinstance(found, dict):
        raise TypeError(f"a document is a dataclass, not a {type(document).__name__}")
    return found


def from_json(document: type[Document], found: Mapping[str, Any]) -> Document:
    """Return the document that `to_json` has made an object of; it may hold no mapping, and nothing inlined.

    Raises:
        TypeError: if a name is missing.
    """
    own = ((name, read, found[key]) for name, key, read in _readers(cast(Any, document)) if key in found)
    return document(**{name: value if read is None else read(value) for name, read, value in own})


@cache
def _readers(document: type) -> tuple[tuple[str, str, _Reader | None], ...]:
    """Return name, key and reader of each field: a disk of videos has a million documents of one type."""
    hints = get_type_hints(document)
    return tuple((each.name, _key(each), _reader(hints[each.name])) for each in fields(document))


def _reader(hint: Any) -> _Reader | None:
    """Return what makes the type that a field says of a value of JSON; None where it has that type."""
    if get_origin(hint) in (Union, types.UnionType):
        (hint,) = (each for each in get_args(hint) if each is not type(None))
        read = _reader(hint)
        return None if read is None else lambda value: None if value is None else read(value)
    if get_origin(hint) is tuple:
        read_item = _reader(get_args(hint)[0])
        return tuple if read_item is None else lambda value: tuple(map(read_item, value))
    return partial(from_json, hint) if is_dataclass(hint) and isinstance(hint, type) else None


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, tuple | list):
        return [_plain(own) for own in value]
    if is_dataclass(value) and not isinstance(value, type):
        found: JsonObject = {}
        for name, key, is_inlined, may_be_absent in _writers(type(value)):
            own = getattr(value, name)
            if is_inlined:
                found |= _plain(own)
            elif own is not None or not may_be_absent:
                found[key] = _plain(own)
        return found
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, PathLike):
        return fspath(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(own) for key, own in value.items()}
    if isinstance(value, Sequence):
        return [_plain(own) for own in value]
    raise TypeError(f"JSON has no form for {value!r} of type {type(value).__name__}")


@cache
def _writers(document: type) -> tuple[tuple[str, str, bool, bool], ...]:
    """Return name and key of each field, and whether it is inlined, or left out when it is None."""
    return tuple((each.name, _key(each), _INLINED in each.metadata, _may_be_absent(each)) for each in fields(document))


def json_schema(document: type) -> JsonObject:
    """Return the JSON Schema (draft 2020-12) of a document's type; every dataclass in it is one of its `$defs`.

    Descriptions are the strings below the fields.
    """
    definitions: dict[str, JsonObject] = {}
    root = schema_of(document, definitions)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **root, "$defs": definitions}


def schema_of(hint: Any, definitions: dict[str, JsonObject]) -> JsonObject:
    """Return the schema of a type; those of the dataclasses in it are added to `definitions`."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint in _TYPES:
        return {"type": _TYPES[hint]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [schema_of(each, definitions) for each in arguments]}
    if is_dataclass(hint) and isinstance(hint, type):
        return _reference_to(hint, definitions)
    if origin is tuple and not (len(arguments) == 2 and arguments[1] is ...):
        items = [schema_of(each, definitions) for each in arguments]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": schema_of(arguments[1], definitions)}
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return {"type": "array", "items": schema_of(arguments[0], definitions)}
    if isinstance(hint, type) and issubclass(hint, PathLike):
        return {"type": "string"}
    if hint is Any:
        return {}
    raise TypeError(f"a document cannot hold {hint!r}")


def _reference_to(document: type, definitions: dict[str, JsonObject]) -> JsonObject:
    name = document.__name__
    if name not in definitions:
        definitions[name] = {}  # a document may hold its own kind
        hints, texts = get_type_hints(document), descriptions(document)
        properties: JsonObject = {}
        required, is_open = [], False
        for each in fields(document):
            hint, key = hints[each.name], _key(each)
            if _INLINED in each.metadata:
                inner = _inner_schema(hint, each.metadata[_INLINED], definitions)
                properties |= inner["properties"]
                required += inner["required"]
                is_open |= inner["additionalProperties"]
                continue
            if _may_be_absent(each):
                (hint,) = (own for own in get_args(hint) if own is not type(None))
            else:
                required.append(key)
            text = {"description": texts[each.name]} if each.name in texts else {}
            properties[key] = {**schema_of(hint, definitions), **text}
        definitions[name] = {
            "type": "object",
            "description": inspect.cleandoc(document.__doc__ or ""),
            "properties": properties,
            "required": required,
            "additionalProperties": is_open,
        }
    return {"$ref": f"#/$defs/{name}"}


def _inner_schema(hint: Any, names: Mapping[str, Any], definitions: dict[str, JsonObject]) -> JsonObject:
    """Return the schema of a field that is inlined: of the document that it is, or of a mapping's names."""
    if is_dataclass(hint):
        inner = dict(definitions)
        reference = schema_of(hint, inner)["$ref"].rpartition("/")[2]
        definitions |= {name: own for name, own in inner.items() if name != reference}
        return inner[reference]
    properties = {name: schema_of(own, definitions) for name, own in names.items()}
    return {"properties": properties, "required": [], "additionalProperties": not names}


def _key(each: Field[Any]) -> str:
    return each.name.removesuffix("_")


def _may_be_absent(each: Field[Any]) -> bool:
    return bool(each.metadata.get(_ABSENT))


@cache
def descriptions(document: type) -> dict[str, str]:
    """Return the string below each field of a dataclass, inherited ones too, on one line."""
    found: dict[str, str] = {}
    for kind in reversed(document.__mro__[:-1]):
        body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
        assert isinstance(body, ast.ClassDef)
        for above, below in zip(body.body, body.body[1:], strict=False):
            if not (isinstance(above, ast.AnnAssign) and isinstance(above.target, ast.Name)):
                continue
            if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                found[above.target.id] = " ".join(str(below.value.value).split())
    return found
