"""The picture of token classes: one panel per frame, one colour per class, a legend that counts them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from dualformer_cli.documents.tokenlabel import (
    ClassShare,
    LabelledVideos,
    LabelPlan,
    LabelSummary,
    TeacherFacts,
    TeacherTrial,
    TriedTeacher,
    WrittenLabels,
)
from dualformer_cli.outputs.tokens import Panel, print_labels, write_sheet

NAMES = [f"class {index}" for index in range(40)]


def sheet(panels: list[Panel], path: Path, names: list[str] = NAMES) -> np.ndarray:
    write_sheet(panels, names, path, title="a model")
    return np.asarray(Image.open(path))


def grey(height: int = 64, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), 100, np.uint8)


def test_tokens_of_one_class_have_one_colour_which_others_have_not(tmp_path: Path) -> None:
    classes = np.array([[3, 3], [5, 3]])
    picture = sheet([Panel(grey(), classes, "frame 1")], tmp_path / "a.png")
    # the panel starts at (16, 47) with a head of 22 pixels; frame, 8 pixels, tokens; cells of 112 pixels
    top, left = 47 + 22, 16 + 224 + 8
    assert (picture[top + 20, 16 + 20] == 100).all()
    corner = [picture[top + 112 * row + 12, left + 112 * column + 12] for row in range(2) for column in range(2)]
    assert (corner[0] == corner[1]).all()
    assert (corner[0] == corner[3]).all()
    assert (corner[2] != corner[0]).any()


def test_a_token_lies_where_its_part_of_the_frame_is(tmp_path: Path) -> None:
    """A frame twice as wide as high keeps its shape, and its tokens cover it."""
    classes = np.zeros((2, 4), np.int64)
    classes[1, 3] = 7
    picture = sheet([Panel(grey(64, 128), classes, "x")], tmp_path / "a.png")
    top, left = 47 + 22, 16 + 448 + 8
    others = picture[top + 12, left + 12]
    assert (picture[top + 224 - 12, left + 448 - 12] != others).any()
    assert (picture[top + 12, left + 448 - 12] == others).all()


def test_many_classes_and_panels_fit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    panels = [Panel(grey(), rng.integers(0, 40, (7, 7)), f"frame {number}, 0.1 s") for number in range(8)]
    names = [name * 20 for name in NAMES]
    picture = sheet(panels, tmp_path / "a.png", names)
    assert picture.shape == (47 + 4 * (224 + 22 + 16) + 16, 16 + 2 * (456 + 32) + 340, 3)


def test_shares_are_of_all_tokens_also_of_those_that_have_no_colour(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    texts: list[str] = []
    text = ImageDraw.ImageDraw.text
    monkeypatch.setattr(ImageDraw.ImageDraw, "text", lambda *given, **o: (texts.append(given[2]), text(*given, **o))[1])
    classes = np.repeat(np.arange(20), 5).reshape(10, 10)  # 12 of the 20 have a colour, 5% each
    sheet([Panel(grey(), classes, "x")], tmp_path / "a.png")
    assert [each for each in texts if each.endswith("%")] == ["5%"] * 12 + ["40%"]


def test_numbers_of_a_dry_run_and_of_a_run_are_printed() -> None:
    facts = TeacherFacts(source="t.pt", weights_sha256=None, precision="fp32")
    teacher = TriedTeacher(facts=facts, trial=TeacherTrial(videos=4, right=3, chance=0.01))
    document = LabelPlan(teacher=teacher, estimated_bytes=3 * 2**20, output="labels")
    stream = io.StringIO()
    print_labels(document, stream=stream)
    assert "right on 3 of 4 videos" in stream.getvalue()
    assert "estimated  3.1 MB" in stream.getvalue()
    summary = LabelSummary(
        videos=LabelledVideos(listed=5, labelled=4, unreadable=1),
        clips=12,
        tokens=9408,
        bytes=20 * 2**20,
        agreement=31.25,
        classes=(ClassShare(label="abseiling", index=0, percent=12.5),),
        unreadable=(),
    )
    written = WrittenLabels(teacher=teacher, estimated_bytes=3 * 2**20, summary=summary, output="labels")
    stream = io.StringIO()
    print_labels(written, stream=stream)
    text = stream.getvalue()
    for part in ("written    21.0 MB", "4 labelled of 5", "12, 9,408 tokens", "31.2% of the tokens", "abseiling"):
        assert part in text
