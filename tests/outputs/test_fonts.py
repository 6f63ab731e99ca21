"""Labels in every script are drawn with a font that has their letters, if there is one."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from dualformer_cli.errors import DualFormerError
from dualformer_cli.outputs import fonts


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """Nothing is remembered from one test to the next."""
    caches = (
        fonts._font_for,
        fonts._parts,
        fonts._has_glyph,
        fonts._system_fonts,
        fonts._say_boxes,
        fonts._say_unshaped,
    )
    for cached in caches:
        cached.cache_clear()
    yield
    fonts.prefer(None)
    for cached in caches:
        cached.cache_clear()


def drawn(label: str) -> np.ndarray:
    image = Image.new("L", (300, 40))
    fonts.draw_label(ImageDraw.Draw(image), (2, 2), label, size=20, room=290, fill=(255,))
    return np.asarray(image)


@pytest.mark.parametrize(
    ("preferred", "text", "expected"),
    [
        (None, "ab", None),  # the built-in font has all
        (None, "aé", "accents"),
        (None, "aé跑", "most"),  # none has all: the one with the most letters
        (None, "跑", None),  # nobody has any: the built-in one
        ("own", "ab", "own"),
        ("own", "é", "accents"),
    ],
)
def test_the_font_with_the_most_letters_is_taken(
    preferred: str | None, text: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    letters = {None: "ab", "own": "ab", "accents": "abé", "most": "aé跑"[:2] + "ß", "last": "ab"}
    if text == "aé跑":
        letters["accents"] = "é"
    monkeypatch.setattr(fonts, "_has_glyph", lambda file, char: char in letters[file])
    monkeypatch.setattr(fonts, "_system_fonts", lambda: ("accents", "most", "last"))
    assert fonts._font_for(text, preferred) == expected


def test_the_system_is_not_searched_for_letters_that_the_built_in_font_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "_system_fonts", None)  # calling it would fail
    assert drawn("surfing water").any()


def test_greek_and_accents_are_drawn_with_a_font_of_the_system(capsys: pytest.CaptureFixture[str]) -> None:
    if fonts._font_for("Ελληνικός", None) is None:
        pytest.skip("no font of this machine has Greek letters")
    assert not np.array_equal(drawn("χορός"), drawn("χοροσ"))
    assert not np.array_equal(drawn("café"), drawn("cafe"))
    assert capsys.readouterr().err == ""


def test_the_users_font_goes_before_the_built_in_one(tmp_path: Path) -> None:
    file = tmp_path / "own.ttf"
    built_in = ImageFont.load_default(16)
    assert isinstance(built_in, ImageFont.FreeTypeFont)
    file.write_bytes(built_in.font_bytes if built_in.font_bytes else Path(str(built_in.path)).read_bytes())
    fonts.prefer(file)
    assert fonts._font_for("surfing", fonts._preferred) == str(file)
    assert drawn("surfing").any()


@pytest.mark.parametrize("content", [None, b"no font"])
def test_a_file_that_is_no_font_is_refused(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "own.ttf"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DualFormerError, match=r"--font '.*own\.ttf' is not a font"):
        fonts.prefer(file)


@pytest.mark.skipif(sys.platform != "linux", reason="the folders of other systems have other names")
def test_plain_fonts_come_first_and_fonts_that_are_damaged_do_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "fonts" / "deep"
    folder.mkdir(parents=True)
    for name in ("NotoSerif-Bold.ttf", "NotoSans-Regular.ttf", "NotoSansMono-Bold.otf", "readme.txt"):
        (folder / name).write_bytes(b"damaged")
    monkeypatch.setattr(fonts, "_font_folders", lambda: [str(tmp_path / "fonts"), str(tmp_path / "none")])
    names = [Path(file).name for file in fonts._system_fonts()]
    assert names == ["NotoSans-Regular.ttf", "NotoSerif-Bold.ttf", "NotoSansMono-Bold.otf"]
    assert drawn("跑步").any()


@pytest.mark.parametrize("error", [OSError, RuntimeError, ValueError])
def test_a_font_that_raqm_fails_with_has_not_the_letter(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it does with U+180C, which shapes Mongolian letters, and Noto Sans Tamil Supplement."""

    class Font:
        def getmask(self, char: str) -> bytes:
            raise error("raqm_get_glyphs() failed.")

    monkeypatch.setattr(fonts, "_open", lambda file, size: Font())
    assert not fonts._has_glyph("some.ttf", "\u180c")


def test_joiners_shape_a_label_and_are_not_shown() -> None:
    ((text, _),) = fonts._fitted("ab\u200cc", 20, 290)
    assert text == "ab\u200cc"
    ((text, _),) = fonts._fitted("a\u180eb", 20, 290)  # the one of Mongolian
    assert text == "a\u180eb"
    ((text, _),) = fonts._fitted("a\u202eb", 20, 290)  # marks of direction are escaped
    assert text == r"a\u202eb"


def test_a_label_of_several_scripts_takes_a_font_for_each_and_what_is_between_goes_with_its_neighbours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    letters = {None: "score 8.4%, é", "hindi": "दौड़ ,.", "han": "跑步 "}
    monkeypatch.setattr(fonts, "_has_glyph", lambda file, char: char in letters[file])
    monkeypatch.setattr(fonts, "_system_fonts", lambda: ("hindi", "han"))
    assert fonts._parts("दौड़ दौड़, score 8.4%, 跑步", None) == (
        ("दौड़ दौड़", "hindi"),
        (", score 8.4%, ", None),
        ("跑步", "han"),
    )


@pytest.mark.parametrize("anchor", ["la", "lm", "mm", "ra"])
def test_parts_stand_beside_each_other_as_a_label_of_one_font_does(
    anchor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def picture() -> np.ndarray:
        image = Image.new("L", (300, 60))
        options = {"size": 20, "room": 290, "fill": (255,), "anchor": anchor}
        fonts.draw_label(ImageDraw.Draw(image), (150, 30), "ab cd", **options)
        return np.asarray(image).astype(int)

    whole = picture()
    monkeypatch.setattr(fonts, "_parts", lambda text, preferred: (("ab ", None), ("cd", None)))
    assert np.abs(picture() - whole).mean() < 0.05 * whole.mean()


@pytest.mark.parametrize(
    ("label", "is_wrong"),
    [
        ("क्रिया", True),
        ("นี่", True),
        ("សួ", True),
        ("שחייה", True),
        ("السباحة", True),
        ("ᠮᠣᠩᠭᠣᠯ", True),
        ("ꡏꡡꡃ", True),  # Phags-pa
        ("\u1112\u119e\u11ab", True),  # a Korean syllable of the 15th century
        ("한", False),
        ("ⵜⵉⴼⵉⵏⴰⵖ", False),
        ("ქართული", False),
        ("አማርኛ", False),
        ("नमक", False),  # letters one after the other
        ("跑步", False),
        ("χορός", False),
        ("ete\u0301", False),
        ("❤\ufe0f", False),
    ],
)
def test_shapes_that_this_pillow_cannot_draw_are_said(
    label: str, is_wrong: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scripts with marks around letters, joined letters or another direction, as the Unicode standard groups them.

    Those with joined letters are Adlam, Arabic, Chorasmian, Hanifi Rohingya, Mandaic, Manichaean, Mongolian, N'Ko, Old
    Uyghur, Phags-pa, Psalter Pahlavi, Sogdian and Syriac (the property Joining_Type, of Perl's Unicode::UCD 14.0.0).
    """
    monkeypatch.setattr(fonts, "_has_glyph", lambda file, char: True)
    for has_raqm in (True, False):
        monkeypatch.setattr("PIL.features.check", lambda name, has_raqm=has_raqm: has_raqm)
        fonts._fitted(label, 20, 290)
        assert ("it lacks raqm" in capsys.readouterr().err) == (is_wrong and not has_raqm)


@pytest.mark.parametrize(
    "first",
    [0x1E900, 0x628, 0x10FB0, 0x10D00, 0x841, 0x10AC0, 0x1820, 0x7CA, 0xA840, 0x10B80, 0x10F30, 0x712],
    ids=lambda first: unicodedata.name(chr(first)),
)
def test_letters_of_every_script_that_joins_its_letters_need_shaping(first: int) -> None:
    """All but Old Uyghur, which the unicodedata of Python 3.10 does not know yet."""
    assert fonts._is_shaped(chr(first))


def test_letters_in_parts_are_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some systems keep names of files so, and folders are names of classes."""
    monkeypatch.setattr(fonts, "_system_fonts", tuple)
    for parts, whole in (("\u1109\u116e\u110b\u1167\u11bc", "수영"), ("cafe\u0301", "cafe")):  # it has no accents
        assert [text for text, _ in fonts._fitted(parts, 20, 290)] == [whole]
