"""The page of predictions in a real browser, worked with mouse and keys."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from browser import Browser
from prediction_documents import failed, result, scored, segment

from dualformer_cli.documents.predict import ModelFacts, VideoResult
from dualformer_cli.outputs import predictions_page
from dualformer_cli.outputs.predictions_page import write_predictions_page

pytestmark = pytest.mark.xdist_group("browser")

FACTS = ModelFacts(
    preset="k400-tiny", weights="published", weights_sha256="ab" * 32, device="cpu", precision="fp32", views="4x1"
)
HOSTILE = '</script><img src=x onerror="hacked=1"><script>hacked=1</script>\u202e\''
STRIP, VIDEO = "document.querySelector('.strip')", "document.querySelector('video')"
NEXT = "document.querySelectorAll('[data-to=\"1\"]')"


def many() -> list[VideoResult]:
    """Sixty videos: every tenth is broken; of the others the score falls, and those of even number are tai chi."""
    found = []
    for number in range(60):
        name = f"clips/clip{number}.mp4"
        label = scored("tai chi", 0.99 - number / 100, 0) if number % 2 == 0 else scored("surfing", 0.5, 1)
        found.append(failed(name, "no video stream") if number % 10 == 9 else result(name, predictions=[label]))
    found[1] = result(
        "clips/clip1.mp4", predictions=[scored("surfing", 0.5, 1)], segments=[segment(0, 9, "tai chi", 0.4)]
    )
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, clip_drawer: Any, here_pool: Any) -> Path:
    """A folder with the pages many.html, of one.html a video of 4 s with its timeline, and odd.html."""
    place = tmp_path_factory.mktemp("report")
    clip = clip_drawer(place / "a #1?.mp4", num_frames=100)
    broken = place / "broken.mp4"
    broken.write_text("not a video")
    parts = [segment(0.0, 1.0), segment(1.0, 3.0, "surfing", index=1), segment(3.0, 4.0)]
    timeline = {"duration_seconds": 4.0, "segments": parts}
    for name, rows in {
        "many.html": many(),
        "one.html": [result(str(clip), **timeline)],
        "odd.html": [result(HOSTILE, predictions=[scored(HOSTILE, 0.5)], warnings=[HOSTILE]), failed("x", HOSTILE)],
        "without picture.html": [result(str(clip), views=0)],
        "unplayable.html": [result(str(broken), **timeline)],
    }.items():
        write_predictions_page(rows, place / name, facts=FACTS, fallback=None, pool=here_pool())
    return place


def names(browser: Browser) -> list[str]:
    return list(browser.run("[...document.querySelectorAll('.card h2')].map(each => each.textContent)"))


def status(browser: Browser) -> str:
    return str(browser.run("document.querySelector('[role=status]').textContent"))


def choose(browser: Browser, name: str, value: str) -> None:
    """Set a filter, as its control does when a user has chosen."""
    control = f"document.forms[0].elements[{name!r}]"
    browser.run(f"{control}.value = {value!r}, {control}.dispatchEvent(new Event('input', {{bubbles: true}}))")


def clips(*numbers: int) -> list[str]:
    return [f"clip{number}.mp4" for number in numbers]


def test_pages_turn(browser: Browser, folder: Path) -> None:
    browser.open(folder / "many.html")
    assert (names(browser), status(browser)) == (clips(*range(24)), "Videos 1 to 24 of 60, page 1 of 3")
    browser.click(f"{NEXT}[0]")
    assert (names(browser), status(browser)) == (clips(*range(24, 48)), "Videos 25 to 48 of 60, page 2 of 3")
    browser.click(f"{NEXT}[1]")
    assert (names(browser), status(browser)) == (clips(*range(48, 60)), "Videos 49 to 60 of 60, page 3 of 3")
    assert browser.run("document.activeElement.id") == "cards"
    assert browser.run(f"{NEXT}[0].disabled && {NEXT}[1].disabled")
    browser.click("document.querySelector('[data-to=\"-1000000000\"]')")
    assert names(browser) == clips(*range(24))


def test_search_finds_names_labels_and_reasons(browser: Browser, folder: Path) -> None:
    browser.open(folder / "many.html")
    browser.click("document.forms[0].elements.search")
    browser.type("CLIP5")
    assert (names(browser), status(browser)) == (clips(5, *range(50, 60)), "Videos 1 to 11 of 11, page 1 of 1")
    browser.type(" stream")
    assert names(browser) == clips(59)
    browser.type(" at all")
    assert (names(browser), status(browser)) == ([], "No video matches the filters.")
    browser.click("document.querySelector('[type=reset]')")
    browser.wait("document.querySelectorAll('.card').length === 24")
    choose(browser, "search", "surfing")
    assert names(browser) == clips(*(number for number in range(1, 60, 2) if number % 10 != 9))[:24]


def test_videos_are_filtered_by_label_and_score(browser: Browser, folder: Path) -> None:
    browser.open(folder / "many.html")
    options = browser.run("[...document.forms[0].elements.label.options].map(each => each.textContent)")
    assert options == ["any", "tai chi (31)", "surfing (24)"]
    choose(browser, "label", "0")
    assert names(browser) == clips(0, 1, *range(2, 60, 2))[:24]
    choose(browser, "score", "90")
    assert names(browser) == clips(0, 2, 4, 6, 8)
    choose(browser, "label", "")
    assert names(browser) == clips(0, 2, 4, 6, 8)
    choose(browser, "score", "50")
    assert "clip1.mp4" in names(browser)


def test_errors_are_shown_with_their_reason_and_can_be_left_out(browser: Browser, folder: Path) -> None:
    browser.open(folder / "many.html")
    choose(browser, "state", "error")
    assert names(browser) == clips(9, 19, 29, 39, 49, 59)
    assert browser.run("document.querySelector('.error').textContent") == "Error: no video stream"
    choose(browser, "state", "ok")
    assert status(browser).startswith("Videos 1 to 24 of 54")


def test_videos_are_put_in_order(browser: Browser, folder: Path) -> None:
    browser.open(folder / "many.html")
    choose(browser, "order", "high")
    assert names(browser)[:3] == clips(0, 2, 4)
    choose(browser, "order", "low")
    assert names(browser)[:3] == clips(58, 56, 54)
    choose(browser, "label", "0")
    assert names(browser)[:4] == clips(1, 58, 56, 54)  # by the score of this label: 0.4 in a part of clip1
    choose(browser, "label", "")
    choose(browser, "search", "clip1")
    choose(browser, "order", "name")
    assert names(browser) == clips(1, *range(10, 20))


def test_a_click_on_the_timeline_leads_to_that_time_in_the_video(browser: Browser, folder: Path) -> None:
    browser.open(folder / "one.html")
    assert browser.run(f"{VIDEO}.preload") == "none"
    assert browser.run(f"{VIDEO}.readyState") == 0
    browser.click(STRIP, across=0.75)
    browser.wait(f"{VIDEO}.readyState >= 2 && !{VIDEO}.seeking")
    assert browser.run(f"{VIDEO}.currentTime") == pytest.approx(3.0, abs=0.05)
    browser.click(STRIP, across=0.5)
    browser.wait(f"!{VIDEO}.seeking")
    assert browser.run(f"{VIDEO}.currentTime") == pytest.approx(2.0, abs=0.05)
    assert browser.run(f"{STRIP}.nextSibling.textContent") == "0:01 to 0:03: surfing 50.0%"
    assert browser.run(f"parseFloat({STRIP}.querySelector('span').style.left)") == pytest.approx(50, abs=1)
    browser.run(f"{VIDEO}.currentTime = 3.5")
    browser.wait(f"{STRIP}.getAttribute('aria-valuenow') === '3.5'")


def test_the_timeline_is_walked_with_keys_and_says_where_it_is(browser: Browser, folder: Path) -> None:
    browser.open(folder / "one.html")
    browser.run(f"{STRIP}.focus()")
    said = []
    for key in ("ArrowRight", "ArrowRight", "ArrowRight", "ArrowLeft", "Home", "End"):
        browser.press(key)
        said.append((browser.run(f"{VIDEO}.currentTime"), browser.run(f"{STRIP}.getAttribute('aria-valuetext')")))
    first, second = "0:00 to 0:01: tai chi 50.0%", "0:01 to 0:03: surfing 50.0%"
    third = "0:03 to 0:04: tai chi 50.0%"
    assert said == [(1, second), (3, third), (3, third), (1, second), (0, first), (3, third)]


def test_the_timeline_has_the_colours_of_its_labels(browser: Browser, folder: Path) -> None:
    browser.open(folder / "one.html")
    pixel = "document.querySelector('.strip canvas').getContext('2d').getImageData({x}, {y}, 1, 1).data"
    bottom = [browser.run(f"[...{pixel.format(x=x, y=39)}]") for x in (100, 500, 900)]
    swatches = browser.run("[...document.querySelectorAll('.legend span')].map(each => each.style.background)")
    rows = browser.run("[...document.querySelectorAll('.legend li')].map(each => each.textContent)")
    assert rows == ["tai chi 0:02", "surfing 0:02"]
    colours = [tuple(map(int, re.findall(r"\d+", swatch))) for swatch in swatches]
    assert tuple(bottom[0][:3]) == tuple(bottom[2][:3]) == colours[0]
    assert tuple(bottom[1][:3]) == colours[1]
    top = browser.run(f"[...{pixel.format(x=100, y=5)}]")
    assert (bottom[0][3], top[3]) == (255, pytest.approx(0.3 * 255, abs=1))  # a part is as high as its score

    choose(browser, "label", "1")
    alphas = [browser.run(f"{pixel.format(x=x, y=39)}[3]") for x in (100, 500, 900)]
    assert alphas == [pytest.approx(255 * share, abs=14) for share in (0.2, 1, 0.2)]  # others stand back


def test_of_a_video_without_a_picture_the_browser_shows_the_first_frame(browser: Browser, folder: Path) -> None:
    browser.open(folder / "without picture.html")
    browser.wait(f"{VIDEO}.readyState >= 1")
    assert browser.run(f"[{VIDEO}.videoWidth, {VIDEO}.poster, {VIDEO}.currentTime]") == [96, "", 0]


def test_a_file_that_the_browser_cannot_play_is_named_so(browser: Browser, folder: Path) -> None:
    browser.open(folder / "unplayable.html")
    browser.click(STRIP)
    browser.wait("!document.querySelector('.card .caution').hidden")
    text = browser.run("document.querySelector('.card .caution').textContent")
    assert text == "This browser cannot play the file, or it is no longer there."
    assert browser.run("document.querySelector('.card a').getAttribute('href')") == "broken.mp4"


def test_hostile_names_are_shown_as_text(browser: Browser, folder: Path) -> None:
    browser.open(folder / "odd.html")
    assert browser.run("typeof hacked") == "undefined"
    shown = HOSTILE.replace("\u202e", "\\u202e")
    assert names(browser)[0] == shown.rpartition("/")[2]
    assert browser.run("document.querySelector('.scores span').textContent") == shown
    assert browser.run("document.querySelector('.error').textContent") == f"Error: {shown}"
    assert browser.run("document.querySelectorAll('.card img, .card script').length") == 0


@pytest.mark.parametrize("width", [320, 360, 800, 1400])
def test_nothing_is_wider_than_the_screen(width: int, browser: Browser, folder: Path) -> None:
    for page in ("many.html", "one.html", "odd.html"):
        browser.open(folder / page, width=width)
        assert browser.run("document.documentElement.scrollWidth") <= width


def luminance(colour: str) -> float:
    """As WCAG 2 defines it."""
    shares = [int(number) / 255 for number in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("dark", [False, True])
def test_text_can_be_read_in_light_and_dark(dark: bool, browser: Browser, folder: Path) -> None:
    style = "getComputedStyle(document.querySelector({!r}))"
    for page, seen in (
        ("many.html", ("body", "label", "select", ".faint", ".percent")),
        ("odd.html", (".error", ".caution")),
        ("one.html", ("h2 a", ".legend")),
    ):
        browser.open(folder / page, dark=dark)
        back = luminance(browser.run(f"{style.format('body')}.backgroundColor"))
        assert (back < 0.05) == dark
        for name in seen:
            text = luminance(browser.run(f"{style.format(name)}.color"))
            assert (max(text, back) + 0.05) / (min(text, back) + 0.05) >= 4.5, name


def test_every_control_has_a_name(browser: Browser, folder: Path) -> None:
    browser.open(folder / "one.html")
    browser.call("Accessibility.enable")
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    named = {(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]}
    for control in (
        ("searchbox", "Search names, labels and errors"),
        ("combobox", "Label"),
        ("slider", "Score at least 0%"),
        ("combobox", "Order"),
        ("button", "Next"),
        ("group", "Pages"),
        ("list", "Videos"),
        ("slider", "Timeline"),
        ("list", "Labels"),
    ):
        assert control in named
    roles = {"button", "combobox", "link", "searchbox", "slider", "Video"}
    assert [node for node in named if node[0] in roles and not node[1]] == []


def test_files_of_a_large_report_lead_to_each_other(
    browser: Browser, tmp_path: Path, here_pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictions_page, "VIDEOS_PER_FILE", 40)
    write_predictions_page(many(), tmp_path / "all.html", facts=FACTS, fallback=None, pool=here_pool())
    browser.open(tmp_path / "all.html")
    assert status(browser) == "Videos 1 to 24 of 40, page 1 of 2"
    browser.click("document.querySelectorAll('nav a')[1]")
    browser.wait("location.pathname.endsWith('/all-2.html') && document.readyState === 'complete'")
    assert names(browser) == clips(*range(40, 60))
