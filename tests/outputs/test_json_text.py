"""A document as JSON text."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from screens import HOSTILE, any_text, ascii_stream

from dualformer_cli.outputs.json_text import print_json
from dualformer_cli.system.words import printable

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
@example({"path": HOSTILE})
def test_json_comes_back_as_it_was_and_holds_no_control_characters(document: Any) -> None:
    stream = ascii_stream()
    print_json(document, stream=stream)
    text = stream.buffer.getvalue().decode("utf-8")  # type: ignore[attr-defined]
    assert printable(text.replace("\n", "")) == text.replace("\n", "")
    loaded = json.loads(text)
    assert json.dumps(loaded) == json.dumps(document)


def test_json_is_one_utf8_document_on_stdout(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    print_json({"label": "跑步", "scores": (1.0, 2)})
    assert capsysbinary.readouterr().out == '{\n  "label": "跑步",\n  "scores": [\n    1.0,\n    2\n  ]\n}\n'.encode()


def test_json_has_null_for_numbers_that_are_not_finite() -> None:
    stream = io.StringIO()
    print_json({"map": float("nan"), "list": [float("inf"), 0.5]}, stream=stream)
    assert json.loads(stream.getvalue()) == {"map": None, "list": [None, 0.5]}
