"""Numbers that people write into lists and options: float() and int() also take what Python and Unicode call one."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


def number_in(text: str) -> float:
    """Return the number that a text is, of the digits 0 to 9: no 1_0, no nan or inf, no digits of other scripts.

    Raises:
        ValueError: if it is none.
    """
    return _read(text, "a number")


def amount_in(text: str) -> float:
    """Return the number of at least 0 that a text is.

    Raises:
        ValueError: if it is none.
    """
    return _read(text, "a number of at least 0", lambda number: number >= 0)


def count_in(text: str) -> int:
    """Return the whole number of at least 0 that a text is, maybe as tools write columns with gaps ("300.0").

    Raises:
        ValueError: if it is none.
    """
    return int(_read(text, "a whole number of at least 0", lambda number: number.is_integer() and 0 <= number < 2**53))


def _read(text: str, what: str, fits: Callable[[float], bool] = math.isfinite) -> float:
    number = float(text) if _NUMBER.fullmatch(text.strip()) else math.nan
    if not (math.isfinite(number) and fits(number)):
        raise ValueError(f"{text!r} is not {what}")
    return number
