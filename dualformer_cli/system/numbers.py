"""Numbers that people write into lists and options: float() and int() also take what Python and Unicode call one."""

from __future__ import annotations

import math
import re

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


def number_in(text: str) -> float:
    """Return the number that a text is, of the digits 0 to 9: no 1_0, no nan or inf, no digits of other scripts.

    Raises:
        ValueError: if it is none.
    """
    number = float(text) if _NUMBER.fullmatch(text.strip()) else math.nan
    if not math.isfinite(number):
        raise ValueError(f"{text!r} is not a number")
    return number


def amount_in(text: str) -> float:
    """Return the number of at least 0 that a text is.

    Raises:
        ValueError: if it is none.
    """
    try:
        number = number_in(text)
    except ValueError:
        number = -1.0
    if number < 0:
        raise ValueError(f"{text!r} is not a number of at least 0")
    return number


def count_in(text: str) -> int:
    """Return the whole number of at least 0 that a text is, maybe as tools write columns with gaps ("300.0").

    Raises:
        ValueError: if it is none.
    """
    try:
        number = amount_in(text)
    except ValueError:
        number = 0.5
    if not number.is_integer() or number >= 2**53:
        raise ValueError(f"{text!r} is not a whole number of at least 0")
    return int(number)
