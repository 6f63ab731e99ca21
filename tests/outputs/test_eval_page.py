"""The page of an evaluation, read by an HTML parser: complete, self-contained, and no way in for hostile names."""

from __future__ import annotations

import base64
import hashlib
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from browser import Browser
from evaluation_documents import page_of
from hypothesis import given, settings
from hypothesis import strategies as st
from parsed_page import Page
from PIL import Image

from dualformer_cli.documents.evaluate import EvaluationPage
from dualformer_cli.errors import DualFormerError
from dualformer_cli.outputs.eval_page import write_eval_report

HOSTILE = "</td><script>alert(1)</script>\"' onerror=x \x1b[31m\u202e\udcff\n&amp;<!--"
SHOWN = "</td><script>alert(1)</script>\"' onerror=x \\x1b[31m\\u202e\\udcff\\n&amp;<!--"


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), "teal").save(buffer, "JPEG")
    return buffer.getvalue()


def document(name: str = "pan left", path: str = "clips/a.mp4", **changes: Any) -> dict[str, Any]:
    return {
        "preset": "k400-tiny",
        "list": path,
        "weights": name,
        "torch": "2.12",
        "root": None,
        "videos": {"listed": 4, "scored": 2, "missing": 1, "unreadable": 0, "too_short": 1},
        "digest": "ab" * 32,
        "top1": 50.0,
        "top1_interval": [12.5, 87.5],
        "top5": 100.0,
        "mean_class_accuracy": 25.0,
        "top1_all_listed": 33.333,
        "loss": 1.23456789,
        "expected_calibration_error": 7.5,
        "label_order": f"{name!r} is predicted as another",
        "views_curve": [{"views": 1, "top1": 45.0}, {"views": 2, "top1": 50.0}],
        "calibration": {
            "expected_calibration_error": 7.5,
            "bins": [{"low": 0.4, "high": 0.5, "videos": 2, "confidence": 42.5, "accuracy": 50.0}],
        },
        "classes": [
            {
                "label": name,
                "index": 0,
                "videos": 2,
                "correct": 1,
                "accuracy": 50.0,
                "taken_for": "pan right",
                "taken_for_videos": 1,
            },
            {
                "label": "pan right",
                "index": 1,
                "videos": 0,
                "correct": 0,
                "accuracy": None,
                "taken_for": None,
                "taken_for_videos": 0,
            },
        ],
        "confused": [{"label": name, "predicted": "pan right", "videos": 1, "share": 50.0}],
        "worst": [
            {
                "path": path,
                "label": name,
                "label_score": 0.25,
                "predicted": "pan right",
                "score": 0.75,
                "thumbnail": jpeg(),
            }
        ],
        "unscored": [{"path": path, "status": "too_short", "reason": name}],
        "comparison": {
            "videos": 2,
            "only_in_first": 1,
            "only_in_second": 0,
            "top1_first": 50.0,
            "top1_second": 100.0,
            "both_right": 1,
            "first_right": 0,
            "second_right": 1,
            "both_wrong": 0,
            "p_value": 0.25,
            "chi_squared": 1.0,
            "p_value_chi_squared": 0.3,
            "flipped": [{"path": path, "label": 0, "first": 1, "second": 0}],
        },
        **changes,
    }


def written(content: dict[str, Any], folder: Path) -> Page:
    write_eval_report(page_of(content), folder / "report.html")
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_the_page_shows_every_part_of_the_document(tmp_path: Path) -> None:
    page = written(document(), tmp_path)
    assert page.of("title")[0] == page.of("h1")[0] == "Evaluation of clips/a.mp4"
    assert page.of("h2") == [
        "Videos that were not scored",
        "Accuracy and cost",
        "Calibration",
        "Compared with another run",
        "Most confused",
        "Worst videos",
        "Classes",
        "What the numbers can be traced to",
    ]
    assert page.of("b") == ["50.00%", "100.00%", "25.00%", "33.33%", "2 of 4", "pan right"]
    of_five = written(document(num_classes=5), tmp_path)
    assert of_five.of("b") == ["50.00%", "25.00%", "33.33%", "2 of 4", "pan right"], "the label is among the best five"
    assert "95% interval 12.50% to 87.50%" in page.of("div")
    assert "1 missing, 1 too short" in page.of("div")
    assert "Videos that only one of the two recognises: 1" in page.of("summary")


def test_everything_else_is_listed_as_what_the_numbers_are_traced_to(tmp_path: Path) -> None:
    cells = written(document(), tmp_path).of("td")
    traced = cells[cells.index("preset") :]
    facts = dict(zip(traced[::2], traced[1::2], strict=True))
    assert facts["preset"] == "k400-tiny"
    assert facts["torch"] == "2.12"
    assert facts["root"] == "none"
    assert facts["digest"] == "ab" * 32
    assert (facts["loss"], facts["calibration error"]) == ("1.23457", "7.50%")


def test_a_document_with_less_has_fewer_sections(tmp_path: Path) -> None:
    videos = {"listed": 3, "scored": 3, "missing": 0}
    page = written({"videos": videos, "digest": "ab", "mean_average_precision": 55.5}, tmp_path)
    assert page.of("h2") == ["What the numbers can be traced to"]
    assert page.of("b") == ["55.50%", "3 of 3"]
    assert page.of("p") == []


def test_accuracy_over_all_listed_is_told_only_when_some_were_not_scored(tmp_path: Path) -> None:
    assert "top-1 of all listed" not in " ".join(written(document(top1_all_listed=50.0), tmp_path).of("div"))


def test_hostile_names_and_paths_stay_text(tmp_path: Path) -> None:
    plain, page = written(document(), tmp_path), written(document(HOSTILE, HOSTILE), tmp_path)
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in plain.elements]
    assert [list(attributes) for _, attributes in page.elements] == [
        list(attributes) for _, attributes in plain.elements
    ]
    assert f"Evaluation of {SHOWN}" in page.of("h1")
    assert page.of("td").count(SHOWN) >= 5
    assert any(f"label: {SHOWN}" in text for text in page.of("div"))


@given(text=st.text(st.characters(exclude_categories=()), max_size=40))
@settings(max_examples=25, deadline=None)
def test_no_name_changes_the_elements_of_the_page(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("page")
    page, plain = written(document(text or "x", text or "x"), folder), written(document(), folder)
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in plain.elements]


def test_the_page_loads_nothing_and_runs_its_own_script_only(tmp_path: Path) -> None:
    page = written(document(), tmp_path)
    (policy,) = [meta["content"] for meta in page.attributes("meta") if "http-equiv" in meta]
    for tag in ("script", "style"):
        (content,) = page.of(tag)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}';" in f"{policy};"
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:; ")
    names = {name for _, attributes in page.elements for name in attributes}
    assert not {"href", "style", "onclick", "onload", "srcset"} & names
    assert all((image["src"] or "").startswith("data:image/jpeg;base64,") for image in page.attributes("img"))


def test_thumbnails_are_the_bytes_that_were_given(tmp_path: Path) -> None:
    (image,) = written(document(), tmp_path).attributes("img")
    assert base64.b64decode((image["src"] or "").split(",")[1]) == jpeg()
    worst = [{**document()["worst"][0], "thumbnail": None}]
    assert written(document(worst=worst), tmp_path).attributes("img") == []


@pytest.mark.xdist_group("browser")
@pytest.mark.parametrize("width", [360, 800, 1400])
def test_a_page_keeps_its_layout_while_its_pictures_come(width: int, browser: Browser, tmp_path: Path) -> None:
    write_eval_report(page_of(document()), tmp_path / "page.html")
    browser.open(tmp_path / "page.html", width=width)
    height = "document.querySelector('.card').offsetHeight"
    browser.run("document.querySelector('.card img').loading = 'eager'")
    browser.wait("document.querySelector('.card img').naturalWidth === 8")
    with_picture = browser.run(height)
    browser.run("document.querySelector('.card img').removeAttribute('src')")
    assert browser.run(height) == with_picture
    assert browser.run("document.documentElement.scrollWidth") <= width


@pytest.mark.xdist_group("browser")
def test_numbers_of_a_chart_can_be_read_on_a_phone(browser: Browser, tmp_path: Path) -> None:
    write_eval_report(page_of(document()), tmp_path / "page.html")
    browser.open(tmp_path / "page.html", width=360)
    size = "parseFloat(getComputedStyle(document.querySelector('svg text')).fontSize)"
    scale = "document.querySelector('figure svg').getBoundingClientRect().width / 440"
    assert browser.run(f"{size} * {scale}") >= 11


def test_tables_can_be_sorted_by_values_not_by_their_text(tmp_path: Path) -> None:
    page = written(document(), tmp_path)
    assert page.of("button")[-7:] == [
        "class",
        "number",
        "videos",
        "right",
        "accuracy",
        "most often taken for",
        "videos of it",
    ]
    assert [cell["data-value"] for cell in page.attributes("td") if "data-value" in cell] == ["50.0", "50.0", ""]


def test_long_lists_of_videos_are_cut_and_counted(tmp_path: Path) -> None:
    unscored = [{"path": f"{n}.mp4", "status": "missing", "reason": "no such file"} for n in range(205)]
    page = written(document(unscored=unscored), tmp_path)
    assert page.of("td").count("no such file") == 200
    assert "and 5 more" in page.of("p")


@pytest.mark.parametrize("values", [[0.0], [100.0], [50.0, 50.0, 50.0], [10.0 + n for n in range(30)]])
def test_the_curve_over_views_stays_in_its_chart(values: list[float], tmp_path: Path) -> None:
    curve = [{"views": number, "top1": value} for number, value in enumerate(values, start=1)]
    page = written(document(views_curve=curve), tmp_path)
    dots = page.attributes("circle")
    assert len(dots) == len(values)
    assert all(44 <= float(dot["cx"] or "") <= 416 and 12 <= float(dot["cy"] or "") <= 220 for dot in dots)
    ys = [float(dot["cy"] or "") for dot in dots]
    assert ys == sorted(ys, reverse=True)


def test_calibration_bars_stand_over_their_scores(tmp_path: Path) -> None:
    (bar,) = written(document(), tmp_path).attributes("rect")
    assert {key: float(value or "") for key, value in bar.items() if key != "class"} == {
        "x": pytest.approx(44 + 372 * 0.4 + 1, abs=0.1),
        "width": pytest.approx(372 * 0.1 - 2, abs=0.2),
        "y": pytest.approx(12 + 208 / 2, abs=0.1),
        "height": pytest.approx(104, abs=0.1),
    }


def test_the_page_of_nothing_labelled_is_still_a_page(tmp_path: Path) -> None:
    nothing = {"videos": {"listed": 1, "scored": 1}, "digest": "ab", "views_curve": [], "calibration": None}
    page = written(nothing, tmp_path)
    assert page.of("h2") == ["What the numbers can be traced to"]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DualFormerError, match=r"folder '.*nowhere' does not exist; create it"):
        write_eval_report(page_of(document()), tmp_path / "nowhere" / "report.html")


def with_confusion(rows: list[list[int]], **changes: Any) -> EvaluationPage:
    """Two classes, "pan left" and "pan right", and what their videos were taken for."""
    return replace(page_of(document(**changes)), confusion=tuple(map(tuple, rows)))


def shown(content: EvaluationPage, folder: Path) -> Page:
    write_eval_report(content, folder / "report.html")
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_few_classes_have_a_table_of_what_was_taken_for_what(tmp_path: Path) -> None:
    page = shown(with_confusion([[8, 2], [0, 0]]), tmp_path)
    assert "What was taken for what" in page.of("h2")
    assert "Most confused" not in page.of("h2")
    (first, *_) = [n for n, text in enumerate(page.of("th")) if text == "pan left"]
    assert page.of("th")[first : first + 4] == ["pan left", "pan right", "pan left", "pan right"]
    kinds = [(cell["class"] or "") for cell in page.attributes("td") if (cell.get("class") or "")[:3] in ("hit", "mis")]
    assert kinds == ["hit of5", "miss of1", "miss", "hit"]  # 8, 2, none, and a class without videos


def test_names_of_a_confusion_table_stay_text(tmp_path: Path) -> None:
    page = shown(with_confusion([[1, 1], [0, 0]], name=HOSTILE), tmp_path)
    assert page.of("th").count(SHOWN) == 2


def test_a_bar_has_what_is_right_and_what_is_wrong_apart_also_without_colour(tmp_path: Path) -> None:
    """An accuracy of 50% is half filled and half hatched; a share of mistakes is hatched alone."""
    parts = [
        path for path in written(document(), tmp_path).attributes("path") if path.get("class") in ("right", "wrong")
    ]
    assert [(part["class"], part["d"]) for part in parts] == [
        ("wrong", "M0 .5H50.0V11.5H0z"),
        ("right", "M0 0H50.0V12H0z"),
        ("wrong", "M50.0 .5H100V11.5H50.0z"),
    ]
    assert "fill: url(#hatch)" in written(document(), tmp_path).of("style")[0]


def test_the_axis_of_accuracies_goes_from_0_to_100(tmp_path: Path) -> None:
    curve = [{"views": 1, "top1": 25.0}, {"views": 2, "top1": 50.0}]
    page = written(document(views_curve=curve), tmp_path)
    assert [float(dot["cy"] or "") for dot in page.attributes("circle")] == [12 + 208 * 0.75, 12 + 208 * 0.5]
    assert page.of("text").count("25.0") == page.of("text").count("50.0") == 1


def test_the_other_run_of_a_comparison_is_named(tmp_path: Path) -> None:
    page = shown(replace(page_of(document()), other="runs/<b>.jsonl"), tmp_path)
    assert "Compared with runs/<b>.jsonl" in page.of("h2")
    assert "runs/<b>.jsonl" in page.of("button")
