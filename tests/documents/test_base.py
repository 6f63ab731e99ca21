"""Documents become JSON with the names and the order of their fields, and a schema that says so."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from dualformer_cli.documents.base import absent, inlined, json_schema, to_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A class and how sure the model is of it."""

    label: str
    score: float
    """From 0
    to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What is said of one video."""

    status: Literal["ok", "error"]
    class_: Score | None
    """The best class."""
    input: tuple[int, int]
    others: tuple[Score, ...] = ()
    shares: Mapping[str, float]
    output: Path
    error: str | None = absent()
    again: tuple[Answer, ...] = ()


ANSWER = Answer(
    status="ok",
    class_=Score(label="jump", score=0.5),
    input=(3, 32),
    others=(Score(label="run", score=np.float64(0.25)),),
    shares={"a": 1.5},
    output=Path("out/x.gif"),
)


def test_a_document_keeps_names_order_and_values_and_leaves_out_what_is_absent() -> None:
    written = (
        '{"status": "ok", "class": {"label": "jump", "score": 0.5}, "input": [3, 32], '
        '"others": [{"label": "run", "score": 0.25}], "shares": {"a": 1.5}, "output": "out/x.gif", "again": []}'
    )
    assert json.dumps(to_json(ANSWER)) == written


def test_none_is_null_where_a_field_is_always_there() -> None:
    failed = Answer(status="error", class_=None, input=(1, 2), shares={}, output=Path("x"), error="no such file")
    document = to_json(failed)
    assert document["class"] is None
    assert document["error"] == "no such file"


def test_what_json_has_no_form_for_is_refused() -> None:
    with pytest.raises(TypeError, match="no form for 1j of type complex"):
        to_json(Score(label="x", score=1j))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a document is a dataclass, not a list"):
        to_json([1])


def test_the_schema_states_types_required_fields_and_descriptions() -> None:
    schema = json_schema(Answer)
    assert schema["$ref"] == "#/$defs/Answer"
    answer, score = schema["$defs"]["Answer"], schema["$defs"]["Score"]
    assert score == {
        "type": "object",
        "description": "A class and how sure the model is of it.",
        "properties": {"label": {"type": "string"}, "score": {"type": "number", "description": "From 0 to 1."}},
        "required": ["label", "score"],
        "additionalProperties": False,
    }
    assert answer["required"] == ["status", "class", "input", "others", "shares", "output", "again"]
    assert answer["properties"] == {
        "status": {"enum": ["ok", "error"]},
        "class": {"anyOf": [{"$ref": "#/$defs/Score"}, {"type": "null"}], "description": "The best class."},
        "input": {"type": "array", "prefixItems": [{"type": "integer"}] * 2, "minItems": 2, "maxItems": 2},
        "others": {"type": "array", "items": {"$ref": "#/$defs/Score"}},
        "shares": {"type": "object", "additionalProperties": {"type": "number"}},
        "output": {"type": "string"},
        "error": {"type": "string"},
        "again": {"type": "array", "items": {"$ref": "#/$defs/Answer"}},
    }


def test_a_type_that_json_has_no_form_for_has_no_schema() -> None:
    @dataclass
    class Wrong:
        """With a set."""

        names: set[str]

    with pytest.raises(TypeError, match=r"a document cannot hold set\[str\]"):
        json_schema(Wrong)


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """A document around another."""

    facts: Mapping[str, str] = inlined(preset=str)
    best: Score = inlined()
    end: int


def test_what_is_inlined_stands_in_its_place_without_a_name() -> None:
    whole = Whole(facts={"preset": "tiny"}, best=Score(label="jump", score=0.5), end=1)
    assert json.dumps(to_json(whole)) == '{"preset": "tiny", "label": "jump", "score": 0.5, "end": 1}'
    schema = json_schema(Whole)["$defs"]
    assert list(schema) == ["Whole"]
    assert list(schema["Whole"]["properties"]) == ["preset", "label", "score", "end"]
    assert schema["Whole"]["required"] == ["label", "score", "end"]
    assert schema["Whole"]["additionalProperties"] is False
