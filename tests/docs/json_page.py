"""The page about JSON documents, made from their types: python tests/docs/json_page.py writes it again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dualformer_cli.documents.base import json_schema
from dualformer_cli.documents.download import Download, DownloadList, DownloadPlan
from dualformer_cli.documents.evaluate import Evaluation
from dualformer_cli.documents.export import Export
from dualformer_cli.documents.flops import Flops
from dualformer_cli.documents.gradcam import Gradcam, LayerList
from dualformer_cli.documents.predict import LiveClip, NoPredictions, PredictionRun, Predictions
from dualformer_cli.documents.prepare import Preparation, PreparationPlan
from dualformer_cli.documents.render import RenderEstimate, RenderSummary
from dualformer_cli.documents.tokenlabel import LabelPlan, Tokens, WrittenLabels
from dualformer_cli.documents.train import Preflight, TrainResult

PAGE = Path(__file__).parents[2] / "dualformer_cli" / "docs" / "json.md"

DOCUMENTS: dict[str, type] = {
    "predict --json": Predictions,
    "predict --output FOLDER --json": PredictionRun,
    "predict --json, with --output too, where no input is there": NoPredictions,
    "predict --json-lines, a clip of a live input": LiveClip,
    "eval --json": Evaluation,
    "gradcam --json": Gradcam,
    "gradcam --list-layers --json": LayerList,
    "flops --json": Flops,
    "train --json": TrainResult,
    "train --dry-run --json": Preflight,
    "tokenlabel show --json": Tokens,
    "tokenlabel write --json": WrittenLabels,
    "tokenlabel write --dry-run --json": LabelPlan,
    "export --json": Export,
    "download --json": Download,
    "download --list --json": DownloadList,
    "download --dry-run --json": DownloadPlan,
    "prepare --json": Preparation,
    "prepare --dry-run --json": PreparationPlan,
    "prepare camera-motion --json": RenderSummary,
    "prepare camera-motion --dry-run --json": RenderEstimate,
}
"""What each command prints with --json."""

_INTRODUCTION = """\
# JSON documents

With `--json` a command prints one JSON document on stdout and nothing else. Scripts may rely on the names below. A
field that may be missing says so; all others are always there. New fields may come with new versions. Arrays are
written `[...]`. The page is made from the types in `dualformer_cli/documents`, from which
`dualformer_cli.documents.base.json_schema` also makes a JSON Schema (draft 2020-12).
"""


def page() -> str:
    """Return the text of the page."""
    parts = [_INTRODUCTION]
    described: set[str] = set()
    for command, document in DOCUMENTS.items():
        schema = json_schema(document)
        root = schema["$ref"].rpartition("/")[2]
        parts.append(f"## {command}\n\n{_table(schema['$defs'][root])}")
        for name, definition in schema["$defs"].items():
            if name != root and name not in described:
                described.add(name)
                parts.append(f"### {name}\n\n{definition['description'].splitlines()[0]}\n\n{_table(definition)}")
    return "\n".join(parts)


def _table(definition: dict[str, Any]) -> str:
    rows = ["| field | value | |", "|---|---|---|"]
    for name, schema in definition["properties"].items():
        missing = [] if name in definition["required"] else ["May be missing."]
        text = " ".join([*missing, *filter(None, [schema.get("description")])])
        rows.append(f"| `{name}` | {_value(schema)} | {text} |")
    if definition["additionalProperties"]:
        rows.append("| others | | What the document can be traced to. |")
    return "\n".join(rows) + "\n"


def _value(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(_value(each) for each in schema["anyOf"])
    if schema.get("type") == "array":
        inner = [_value(each) for each in schema.get("prefixItems", [])] or [f"{_value(schema['items'])}, ..."]
        return f"[ {', '.join(inner)} ]"
    if schema.get("type") == "object":
        return f"object of {_value(schema['additionalProperties'])}"
    return {"integer": "whole number"}.get(schema.get("type", ""), schema.get("type", "any"))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
