"""Numbers that people write: what is one, and what Python alone takes for one."""

from __future__ import annotations

import pytest

from dualformer_cli.system.numbers import amount_in, count_in, number_in


@pytest.mark.parametrize(
    ("text", "number"),
    [("3", 3), ("-2.5", -2.5), ("+1.", 1), (".5", 0.5), ("1e-05", 1e-5), ("2E3", 2000), (" 7 ", 7), ("007", 7)],
)
def test_numbers_are_read(text: str, number: float) -> None:
    assert number_in(text) == number


@pytest.mark.parametrize(
    "text", ["", ".", "1_0", "\u0661\u0660", "nan", "inf", "-Infinity", "1e999", "0x1", "1 0", "1,0", "e3"]
)
def test_what_only_python_takes_for_a_number_is_none(text: str) -> None:
    for read, what in ((number_in, "number"), (amount_in, "number of at least 0"), (count_in, "whole number of at le")):
        with pytest.raises(ValueError, match=f"'{text}' is not a {what}"):
            read(text)


def test_amounts_are_not_negative_and_counts_are_whole() -> None:
    assert (amount_in("0"), amount_in("2.5"), count_in("0"), count_in("300.0")) == (0.0, 2.5, 0, 300)
    with pytest.raises(ValueError, match="'-1' is not a number of at least 0"):
        amount_in("-1")
    for text in ("-1", "2.5", "1e300"):
        with pytest.raises(ValueError, match=f"'{text}' is not a whole number of at least 0"):
            count_in(text)
