"""The JSON Schema of a preset, with which an editor completes its keys, shows what they mean, and marks mistakes."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

from dualformer_cli.config.schema import RunConfig
from dualformer_cli.documents.base import JsonObject, descriptions, schema_of, to_json


def preset_schema() -> JsonObject:
    """Return the JSON Schema of a preset (draft 7, which every editor knows); a preset names what differs, and no more.

    What a key may be beyond its type, such as a least value, is checked when the preset is loaded.
    """
    root = _section(RunConfig())
    parent = {"type": "string", "description": "Preset, or YAML file relative to this one, whose values count as well."}
    root["properties"] = {"extends": parent, **root["properties"]}
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Preset of dualformer", **root}


def _section(section: Any) -> JsonObject:
    """Return the schema of a section, and of those in it, with their values as defaults."""
    kind: type = type(section)
    hints, texts, values = get_type_hints(kind), descriptions(kind), to_json(section)
    properties: JsonObject = {}
    for each in fields(section):
        value = getattr(section, each.name)
        if is_dataclass(value):
            properties[each.name] = _section(value)
        else:
            properties[each.name] = {**_of_draft_7(schema_of(hints[each.name], {})), "default": values[each.name]}
        if each.name in texts:
            properties[each.name]["description"] = texts[each.name]
    text = " ".join((kind.__doc__ or "").split())
    return {
        "type": ["object", "null"],
        "description": text,
        "properties": properties,
        "additionalProperties": False,
    }


def _of_draft_7(schema: Any) -> Any:
    """Return a schema with lists of a fixed length, whose values are of one type here, as draft 7 writes them."""
    if isinstance(schema, list):
        return [_of_draft_7(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if "prefixItems" in schema:
        schema = {("items" if key == "prefixItems" else key): value for key, value in schema.items()}
        schema["items"] = schema["items"][0]
    return {key: _of_draft_7(value) for key, value in schema.items()}
