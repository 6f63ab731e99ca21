"""The JSON Schema of presets: it takes what the loader takes, and no misspelt key."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import pytest
import yaml

from dualformer_cli.config.load import known_keys, known_presets, load_config, to_yaml
from dualformer_cli.config.schema import RunConfig
from dualformer_cli.documents.base import to_json
from dualformer_cli.documents.preset import preset_schema

TYPES = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "null": type(None), "array": list}


def is_valid(value: Any, schema: dict[str, Any]) -> bool:
    """Whether a value is what the words of draft 7 say that the schema of presets has."""
    known = {"$schema", "title", "description", "default", "type", "enum", "anyOf", "properties"}
    assert set(schema) <= known | {"additionalProperties", "items", "minItems", "maxItems"}
    if "anyOf" in schema:
        return any(is_valid(value, each) for each in schema["anyOf"])
    if "enum" in schema:
        return value in schema["enum"]
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if isinstance(value, dict):
        assert schema["additionalProperties"] is False
        inner = schema["properties"]
        return "object" in kinds and all(key in inner and is_valid(own, inner[key]) for key, own in value.items())
    if isinstance(value, bool):
        return "boolean" in kinds
    if isinstance(value, list):
        is_long = schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value))
        return "array" in kinds and is_long and all(is_valid(each, schema["items"]) for each in value)
    return any(kind != "object" and isinstance(value, TYPES[kind]) for kind in kinds)


@pytest.mark.parametrize("name", known_presets())
def test_every_shipped_preset_fits_as_it_is_and_resolved(name: str) -> None:
    written = files("dualformer_cli.presets").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    for text in (written, to_yaml(load_config(name, environ={}).config)):
        assert is_valid(yaml.safe_load(text), preset_schema())


@pytest.mark.parametrize(
    "text",
    [
        "data: {clip: {num_frame: 16}}",
        "trian: {}",
        "train: {epochs: three}",
        "train: {epochs: true}",
        "train: {epochs: null}",
        "train: {optimizer: sgd}",
        "model: {window_size: [8, 7]}",
        "model: {patch_sizes: [[2, 4, 4], 2]}",
        "extends: [tiny]",
        "data: 3",
    ],
)
def test_a_mistake_does_not_fit(text: str) -> None:
    assert not is_valid(yaml.safe_load(text), preset_schema())


@pytest.mark.parametrize(
    "text",
    [
        "extends: k400-tiny",
        "model:",
        "train: {clip_grad_norm: null, lr: 1}",
        "data: {train_list: train.csv, std: [1, 2.5, 3]}",
        "model: {patch_sizes: [[2, 4, 4]], window_size: [8, 7, 7]}",
    ],
)
def test_what_the_loader_takes_fits(text: str) -> None:
    assert is_valid(yaml.safe_load(text), preset_schema())


def test_every_key_has_its_own_default_and_its_meaning() -> None:
    for key in known_keys():
        *sections, name = key.split(".")
        found, values = preset_schema(), to_json(RunConfig())
        for section in sections:
            found, values = found["properties"][section], values[section]
        assert found["properties"][name]["default"] == values[name], key
        assert found["properties"][name]["description"], key
    views = preset_schema()["properties"]["data"]["properties"]["validation"]
    assert views["properties"]["num_clips"]["default"] == 1
    assert views["description"] == "Views of the validation during training."


def test_the_schema_is_one_by_its_own_rules() -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    jsonschema.Draft7Validator.check_schema(preset_schema())
    checker = jsonschema.Draft7Validator(preset_schema())
    assert checker.is_valid(yaml.safe_load("data: {clip: {num_frames: 16}}"))
    errors = [error.message for error in checker.iter_errors(yaml.safe_load("data: {clip: {num_frame: 16}}"))]
    assert errors == ["Additional properties are not allowed ('num_frame' was unexpected)"]
