"""Something-Something v2: a JSON file of each split, with templates, and the numbers of the templates."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dualformer_cli.data.datasets.formats import base
from dualformer_cli.data.datasets.formats.base import Annotation, ClassIndex, Format, Found

FILES = {
    "train.json|*[-_]train.json": "train",
    "validation.json|*[-_]validation.json|val.json|*[-_]val.json": "val",
    "test.json|*[-_]test.json": "test",
}


def _twentybn(folder: Path) -> Found:
    for split, path in base.first_files(folder, FILES):
        answers = _answers(folder) if split == "test" else {}
        content = base.read_json(path)
        with base.reading(path):
            for number, video in enumerate(content, start=1):
                key = str(video["id"])
                # The class is the template without its brackets; "label" is what was said of this video.
                label = answers.get(key, "") if split == "test" else _without_brackets(video.get("template", ""))
                where = f"annotations {str(path)!r}, entry {number}"
                yield Annotation(split, (key,), (label,) if label else (), where)


def _answers(folder: Path) -> dict[str, str]:
    """Return the classes of test videos by id, where they are published."""
    for _, path in base.first_files(folder, {"*test-answers.csv": "test"}):
        pairs = (line.partition(";") for line in base.text_lines(path))
        return {name.strip(): _without_brackets(label.strip()) for name, _, label in pairs}
    return {}


def _without_brackets(template: str) -> str:
    return template.replace("[", "").replace("]", "")


def _label_numbers(folder: Path) -> Iterator[ClassIndex]:
    for _, path in base.first_files(folder, {"labels.json|*[-_]labels.json": ""}):
        content = base.read_json(path)
        with base.reading(path):
            yield base.in_order(path, {_without_brackets(name): int(number) for name, number in content.items()})


FORMAT = Format(files=FILES, read=_twentybn, classes=_label_numbers)
