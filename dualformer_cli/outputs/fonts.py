"""Labels in pictures: drawn with the built-in font, or for letters that it lacks one of the user's or the system's."""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from itertools import groupby, islice
from pathlib import Path

from PIL import ImageDraw, ImageFont, features

from dualformer_cli.errors import DualFormerError
from dualformer_cli.outputs.screen import log
from dualformer_cli.system.words import printable

SUFFIXES = (".ttf", ".ttc", ".otf", ".otc")
_MOST_FONTS = 4000
"""Files that are looked at in the folders of the system."""
_LESS_FIT = ("serif", "mono", "bold", "italic", "oblique", "condensed", "narrow", "light", "thin", "black")
_JOINERS = "\u180e\u200c\u200d"
"""They shape the letters beside them, in Mongolian, Persian and Hindi say, and are not seen themselves."""
_JOINED = re.compile("MONGOLIAN |PHAGS-PA |HANGUL (CHOSEONG|JUNGSEONG|JONGSEONG) ")
"""How the names of letters begin whose shape depends on those beside them, in scripts from left to right: of Unicode's
ArabicShaping.txt (17.0), and the parts of Korean syllables that have no character of their own."""

_preferred: str | None = None

_Run = tuple[str, ImageFont.FreeTypeFont]


def prefer(file: str | os.PathLike[str] | None) -> None:
    """Draw the labels of this process with the font in a file, as far as it has their letters.

    Raises:
        DualFormerError: if the file is no font.
    """
    global _preferred
    name = None if file is None else os.fspath(file)
    if name is not None and not _opens(name):
        raise DualFormerError(f"--font {name!r} is not a font that can be drawn; name a file {' or '.join(SUFFIXES)}")
    _preferred = name


def draw_label(
    draw: ImageDraw.ImageDraw,
    place: tuple[float, float],
    label: str,
    *,
    size: int,
    room: float,
    fill: tuple[int, ...],
    anchor: str = "la",
) -> None:
    """Draw a label in one line, cut with an ellipsis to `room` pixels.

    Args:
        draw: what to draw on.
        place: of the anchor, in pixels.
        label: any text; what a screen would obey or hide is escaped.
        size: of the font, in pixels.
        room: width in pixels.
        fill: colour.
        anchor: as Pillow names it.
    """
    runs = _fitted(label, size, room)
    if len(runs) == 1:
        ((text, font),) = runs
        draw.text(place, text, fill=fill, font=font, anchor=anchor)
        return
    x, y = place
    x -= round({"l": 0.0, "m": 0.5, "r": 1.0}[anchor[0]] * _length(runs))
    tops = [font_of(size).getbbox("x", anchor=f"l{vertical}")[1] for vertical in (anchor[1], "s")]
    baseline = y + tops[0] - tops[1]  # one for all fonts
    for text, font in runs:
        draw.text((x, baseline), text, fill=fill, font=font, anchor="ls")
        x += font.getlength(text)


@cache
def font_of(size: int) -> ImageFont.FreeTypeFont:
    """Return the built-in font in a size, in pixels."""
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise DualFormerError("this Pillow was built without FreeType and cannot draw captions; install another Pillow")
    return font


def _fitted(label: str, size: int, room: float) -> list[_Run]:
    """Return a label as it can be drawn, cut with an ellipsis to `room` pixels, in parts of one font each."""
    composed = unicodedata.normalize("NFC", label)  # names of files may come letter by letter, Korean ones say
    text = re.sub(f"[^{_JOINERS}]+", lambda match: printable(match[0]), composed)
    parts = _parts(text, _preferred)
    if any(_num_missing(file, part) for part, file in parts):
        _say_boxes()
    elif not features.check("raqm") and any(map(_is_shaped, text)):
        _say_unshaped()
    runs = [(part, font_of(size) if file is None else _open(file, size)) for part, file in parts]
    if _length(runs) <= room:
        return runs
    fitting, num_chars = 0, sum(len(part) for part, _ in parts)
    while fitting < num_chars and _length(_cut(runs, fitting + 1)) <= room:
        fitting += 1
    *whole, (last, font) = _cut(runs, fitting)
    return [*whole, (last[:-1].rstrip() + "…", font)]


def _length(runs: Iterable[_Run]) -> float:
    return sum(font.getlength(text) for text, font in runs)


def _cut(runs: Iterable[_Run], num_chars: int) -> list[_Run]:
    """Return the first characters of a label, and an ellipsis."""
    kept: list[_Run] = []
    for text, font in runs:
        kept.append((text[:num_chars], font))
        num_chars -= len(text)
        if num_chars <= 0:
            break
    text, font = kept[-1]
    kept[-1] = (text + "…", font)
    return kept


@lru_cache(maxsize=4096)
def _parts(text: str, preferred: str | None) -> tuple[tuple[str, str | None], ...]:
    """Cut a text where no font has all of its letters: words with the font of each, and what is between them.

    What is between two words of one font is drawn with it, anything else with the font that has it.
    """
    whole = _font_for(text, preferred)
    if not _num_missing(whole, text):
        return ((text, whole),)
    pieces = ["".join(chars) for _, chars in groupby(text, _is_of_word)]
    files = [_font_for(piece, preferred) for piece in pieces]
    for at in range(1, len(pieces) - 1):
        before, after = files[at - 1], files[at + 1]
        if before == after and not _is_of_word(pieces[at][0]) and not _num_missing(before, pieces[at]):
            files[at] = before
    same = groupby(zip(pieces, files, strict=True), lambda found: found[1])
    joined = (("".join(piece for piece, _ in found), file) for file, found in same)
    return tuple((part if file else "".join(map(_without_accent, part)), file) for part, file in joined)


def _is_of_word(char: str) -> bool:
    return char in _JOINERS or unicodedata.category(char)[0] in "LMN"


def _without_accent(char: str) -> str:
    """Return the letter below an accent that the built-in font lacks, where it has that."""
    plain = unicodedata.normalize("NFKD", char)[0]
    return plain if not _has_glyph(None, char) and _has_glyph(None, plain) else char


@lru_cache(maxsize=4096)
def _font_for(text: str, preferred: str | None) -> str | None:
    """Return the font with the most letters of a text: the preferred, the built-in (None), or one of the system."""
    best, fewest = preferred, _num_missing(preferred, text)
    others: Iterator[str | None] = iter((None, *_system_fonts()) if fewest else ())
    while fewest and (found := next(others, "")) != "":
        if (missing := _num_missing(found, text)) < fewest:
            best, fewest = found, missing
    return best


def _num_missing(file: str | None, text: str) -> int:
    return sum(not _has_glyph(file, char) for char in set(text))


@lru_cache(maxsize=65536)
def _has_glyph(file: str | None, char: str) -> bool:
    if char in _JOINERS:
        return True
    try:
        font = font_of(16) if file is None else _open(file, 16)
        mask, missing = font.getmask(char), font.getmask("\uffff")
    except (OSError, RuntimeError, ValueError):  # a bitmap font without this size, a damaged one, or raqm fails
        return False
    return (mask.size, bytes(mask)) != (missing.size, bytes(missing))


def _is_shaped(char: str) -> bool:
    """Return whether a letter's shape or place depends on its neighbours.

    It goes to the left, is a mark that they place, as in Hindi, Thai and Khmer, or joins them, as in Mongolian.
    """
    is_mark = unicodedata.category(char)[0] == "M" and not "\ufe00" <= char <= "\ufe0f"  # those choose an emoji's form
    is_leftward = unicodedata.bidirectional(char) in ("R", "AL")
    return is_mark or is_leftward or _JOINED.match(unicodedata.name(char, "")) is not None


def _opens(file: str) -> bool:
    try:
        return bool(_open(file, 16).getlength("a"))
    except OSError:
        return False


@lru_cache(maxsize=64)
def _open(file: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(file, size)


@cache
def _system_fonts() -> tuple[str, ...]:
    """Return the font files of this system, plain sans-serif ones first."""
    files = (
        os.path.join(folder, name)
        for top in _font_folders()
        for folder, _, names in os.walk(top)
        for name in names
        if name.lower().endswith(SUFFIXES)
    )
    return tuple(sorted(islice(files, _MOST_FONTS), key=_fitness))


def _fitness(file: str) -> tuple[int, int, str]:
    stem = Path(file).stem.lower()
    return sum(word in stem for word in _LESS_FIT), len(stem), file


def _font_folders() -> list[str]:
    home = os.path.expanduser("~")
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA", home)
        return [
            os.path.join(os.environ.get("WINDIR", r"C:\Windows"), "Fonts"),
            os.path.join(local, "Microsoft", "Windows", "Fonts"),
        ]
    if sys.platform == "darwin":
        return ["/System/Library/Fonts", "/Library/Fonts", f"{home}/Library/Fonts"]
    data = os.environ.get("XDG_DATA_HOME") or f"{home}/.local/share"
    return [f"{data}/fonts", f"{home}/.fonts", "/usr/local/share/fonts", "/usr/share/fonts"]


@cache
def _say_boxes() -> None:
    log("no font here has all letters of the labels: some are boxes in the picture; name a font with --font FILE")


@cache
def _say_unshaped() -> None:
    log(
        "this Pillow cannot join letters, place marks or write from right to left (it lacks raqm): such labels are "
        "hard to read"
    )
