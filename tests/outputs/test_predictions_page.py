"""The page of predictions, read by an HTML parser: complete, self-contained, and no way in for hostile names."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parsed_page import Page
from prediction_documents import failed, result, scored, segment

from dualformer_cli.documents.predict import ModelFacts, VideoResult
from dualformer_cli.outputs import predictions_page
from dualformer_cli.outputs.predictions_page import page_files, write_predictions_page
from dualformer_cli.outputs.progress import Progress
from dualformer_cli.video.thumbnails import read_thumbnail

HOSTILE = "</script><script>alert(1)</script>\"' onerror=x \x1b[31m\u202e\udcff\n&amp;<!--"
SHOWN = "</script><script>alert(1)</script>\"' onerror=x \\x1b[31m\\u202e\\udcff\\n&amp;<!--"
FACTS = ModelFacts(
    preset="k400-tiny", weights="published", weights_sha256="ab" * 32, device="cpu", precision="fp32", views="4x1"
)

Write = Callable[..., list[Path]]


@pytest.fixture
def write(tmp_path: Path, here_pool: Any) -> Write:
    """The function write(results, path=page.html, **changes) -> the files."""

    def run(results: Iterable[VideoResult], path: Path | None = None, **changes: Any) -> list[Path]:
        arguments = {"facts": FACTS, "fallback": None, "pool": here_pool(), **changes}
        return write_predictions_page(results, path or tmp_path / "page.html", **arguments)

    return run


def parsed(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def content(path: Path) -> dict[str, Any]:
    """What the page's script reads."""
    data, _ = parsed(path).of("script")
    return dict(json.loads(data))


def test_results_are_in_the_page_as_they_were_given(write: Write, tmp_path: Path) -> None:
    parts = [segment(0.0, 2.0), segment(2.0, 9.9996, score=0.98765)]
    video = result("gone/clip.mp4", segments=parts, warnings=["frame 7 is damaged"])
    assert write([video, failed("bad.mp4", "no video stream")]) == [tmp_path / "page.html"]
    assert content(tmp_path / "page.html") == {
        "labels": {"0": "tai chi", "3": "surfing water", "7": "tai chi"},
        "videos": [
            {
                "name": "gone/clip.mp4",
                "top": [[3, 0.75], [7, 0.125]],
                "facts": "250 frames, 25 fps, 10.0 s, 4 views",
                "seconds": 10.0,
                "parts": [[0.0, 2.0, 0, 0.5], [2.0, 10.0, 0, 0.9877]],
                "warnings": ["frame 7 is damaged"],
            },
            {"name": "bad.mp4", "top": [], "error": "no video stream"},
        ],
    }


def test_parts_that_say_too_little_are_one_grey_part(write: Write) -> None:
    parts = [segment(0.0, 2.0, "x", 0.1, 4), segment(2.0, 4.0, "y", 0.1, 5), segment(4.0, 5.0, "x", 0.5, 4)]
    (path,) = write([result(segments=parts, unsure_below=0.2)])
    (video,), labels = content(path)["videos"], content(path)["labels"]
    assert video["parts"] == [[0.0, 4.0, -1, 0.1], [4.0, 5.0, 4, 0.5]]
    assert (labels["-1"], labels["4"]) == ("unsure", "x")


def test_the_page_says_what_classified_how_many(write: Write) -> None:
    (path,) = write([result("a.mp4"), result("b.mp4"), failed()], fallback="no network: built in", lost=1)
    page = parsed(path)
    assert page.of("b") == ["2", "1"]
    note, question, fallback, lost = page.of("p")[:4]
    assert question == "How the camera moves, by the built-in model, as the default one is not here:"
    assert note.startswith("k400-tiny, published weights, 4x1 views a video, cpu, fp32.")
    assert fallback == "no network: built in"
    assert lost == "1 video lost with a process; run the same command again, and the page is complete."
    assert page.attributes("nav") == []


def test_at_most_ten_labels_of_a_video_are_kept(write: Write) -> None:
    (path,) = write([result(predictions=[scored(f"label {n}", 0.01, n) for n in range(400)])])
    found = content(path)
    assert [index for index, _ in found["videos"][0]["top"]] == list(range(10)) == [int(n) for n in found["labels"]]


def test_links_lead_from_the_page_to_the_videos(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    videos, pages = tmp_path / "my videos", tmp_path / "pages"
    for folder in (videos, pages, videos / "frames"):
        folder.mkdir()
    monkeypatch.chdir(videos)
    names = ["a:b?#%.mp4", "ü.mp4", os.fsdecode(b"raw\xff.mp4"), str(videos / 'q"<.mp4')]
    for name in names:
        Path(name).touch()
    (path,) = write([result(name) for name in [*names, "frames", "camera:0", "gone.mp4"]], pages / "page.html")
    rows = content(path)["videos"]
    assert [row.get("link") for row in rows] == [
        "../my%20videos/a%3Ab%3F%23%25.mp4",
        "../my%20videos/%C3%BC.mp4",
        "../my%20videos/raw%FF.mp4",
        "../my%20videos/q%22%3C.mp4",
        "../my%20videos/frames",
        None,
        None,
    ]
    assert [row.get("isFolder", False) for row in rows] == [False] * 4 + [True, False, False]


def test_pictures_are_those_of_videos_that_were_seen(write: Write, clip_drawer: Any, tmp_path: Path) -> None:
    clip, other = (str(clip_drawer(tmp_path / name)) for name in ("clip.mp4", "other.mp4"))
    saved = result(clip, status="error", error="classified, but not saved: no space left on device")
    (path,) = write([saved, failed(other), result("gone.mp4")])
    first, *others = content(path)["videos"]
    assert base64.b64decode(first["picture"]) == read_thumbnail(clip)
    assert [row for row in others if "picture" in row] == []


def test_reading_pictures_shows_how_far_it_is(
    write: Write, clip_drawer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictions_page, "Progress", partial(Progress, interval_seconds=0.0))
    clip = str(clip_drawer(tmp_path / "clip.mp4"))
    write([result(clip), failed("bad.mp4")])
    assert capsys.readouterr().err.startswith(f"pictures: 1/1, {clip}\n")


def test_hostile_names_labels_and_reasons_stay_text(write: Write) -> None:
    video = result(HOSTILE, predictions=[scored(HOSTILE, 0.5)], segments=[segment(0, 1, HOSTILE)], warnings=[HOSTILE])
    plain = parsed(*write([result(), failed()]))
    (path,) = write([video, failed(HOSTILE, HOSTILE)], fallback=HOSTILE)
    page, (first, second) = parsed(path), content(path)["videos"]
    assert [tag for tag, _ in page.elements if tag != "p"] == [tag for tag, _ in plain.elements if tag != "p"]
    assert (first["name"], first["warnings"], content(path)["labels"]["0"]) == (SHOWN, [SHOWN], SHOWN)
    assert (second["name"], second["error"]) == (SHOWN, SHOWN)
    assert SHOWN in page.of("p")


@given(text=st.text(st.characters(exclude_categories=()), max_size=40))
@settings(max_examples=25, deadline=None)
def test_no_name_changes_the_elements_of_the_page(
    text: str, tmp_path_factory: pytest.TempPathFactory, here_pool: Any
) -> None:
    path = tmp_path_factory.mktemp("page") / "page.html"
    rows = [result(text, predictions=[scored(text, 0.5)]), failed(text, text or "x")]
    write_predictions_page(rows, path, facts=FACTS, fallback=None, pool=here_pool())
    assert len(parsed(path).attributes("script")) == 2
    assert len(content(path)["videos"]) == 2


def test_the_page_loads_nothing_but_the_videos_and_runs_its_own_script_only(write: Write) -> None:
    (path,) = write([result()])
    page = parsed(path)
    (policy,) = [meta["content"] for meta in page.attributes("meta") if "http-equiv" in meta]
    (style,), (_, script) = page.of("style"), page.of("script")
    hashes = [base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in (style, script)]
    assert policy == (
        "default-src 'none'; img-src data:; media-src 'self' file:; "
        f"style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; base-uri 'none'; form-action 'none'"
    )
    names = {name for _, attributes in page.elements for name in attributes}
    assert not {"href", "src", "style", "onclick", "onload", "srcset"} & names
    assert not re.search(r"https?:|url\(|@import|fetch\(|innerHTML", style + script)


def test_a_report_of_many_videos_is_several_files_that_name_each_other(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictions_page, "VIDEOS_PER_FILE", 3)
    target = tmp_path / "all #1.html"
    results = (result(f"{number}.mp4") if number % 2 else failed(f"{number}.mp4") for number in range(8))
    paths = write(results, target)
    assert [path.name for path in paths] == ["all #1.html", "all #1-2.html", "all #1-3.html"]
    assert paths == page_files(target, 8)
    names = [[row["name"] for row in content(path)["videos"]] for path in paths]
    assert names == [["0.mp4", "1.mp4", "2.mp4"], ["3.mp4", "4.mp4", "5.mp4"], ["6.mp4", "7.mp4"]]
    for number, path in enumerate(paths):
        page = parsed(path)
        links = page.attributes("a")
        assert [link["href"] for link in links] == ["all%20%231.html", "all%20%231-2.html", "all%20%231-3.html"]
        assert [link.get("aria-current") for link in links] == [
            "page" if place == number else None for place in range(3)
        ]
        assert page.of("a") == ["1 to 3", "4 to 6", "7 to 8"]
        assert page.of("b") == ["4", "4"]
        assert f"The 8 videos are in 3 files. This is number {number + 1}; " in " ".join(page.of("p"))


def test_only_the_first_file_has_pictures(
    write: Write, clip_drawer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictions_page, "VIDEOS_PER_FILE", 1)
    clip = str(clip_drawer(tmp_path / "clip.mp4"))
    rows = [content(path)["videos"] for path in write([result(clip), result(clip)])]
    assert ["picture" in row for (row,) in rows] == [True, False]


@pytest.mark.parametrize(("count", "names"), [(0, 1), (1, 1), (1000, 1), (1001, 2), (2001, 3)])
def test_a_file_has_a_thousand_videos(count: int, names: int) -> None:
    assert len(page_files(Path("page.html"), count)) == names


def test_results_are_not_all_in_memory(write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(predictions_page, "VIDEOS_PER_FILE", 2)
    written: list[int] = []

    def results() -> Iterator[VideoResult]:
        for number in range(6):
            written.append(sum("<html" in path.read_text() for path in tmp_path.glob(".page*.part.html")))
            yield failed(f"{number}.mp4")

    write(results())
    assert written == [0, 0, 1, 1, 2, 2]


def test_a_report_that_fails_leaves_the_old_one(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictions_page, "VIDEOS_PER_FILE", 1)

    def results() -> Iterator[VideoResult]:
        yield from (failed("a.mp4"), failed("b.mp4"))
        raise OSError("the disk is gone")

    (tmp_path / "page.html").write_text("old")
    with pytest.raises(OSError, match="the disk is gone"):
        write(results())
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("page.html", "old")]


def test_the_page_of_no_video_is_still_a_page(write: Write) -> None:
    (path,) = write([])
    assert content(path) == {"labels": {}, "videos": []}
    assert parsed(path).of("b") == ["0", "0"]
