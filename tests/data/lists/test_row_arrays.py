"""Rows in arrays: what goes in comes out, and a long list says where it is wrong."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualformer_cli.data.lists import row_arrays as of_lists
from dualformer_cli.data.lists.manifest import Manifest, read_manifest
from dualformer_cli.data.lists.row_arrays import Columns, LabelSets, Texts
from dualformer_cli.data.lists.samples import Sample
from dualformer_cli.errors import DualFormerError

TEXTS = st.text(st.characters(exclude_categories=[]), max_size=6)  # halves of characters included
NUMBERS = st.none() | st.integers(0, 2**53)
SECONDS = st.none() | st.floats(0, 1e6)


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    labels = tuple(draw(st.lists(st.integers(0, 10**9), max_size=3)))
    return Sample(
        draw(TEXTS),
        labels[0] if labels else None,
        labels,
        draw(st.integers(0, 2**40)),
        draw(NUMBERS),
        draw(SECONDS),
        draw(NUMBERS),
        draw(NUMBERS),
        draw(SECONDS),
        draw(st.sampled_from(["ok", "sequential_only", "broken: x"])),
        draw(SECONDS),
        draw(SECONDS),
    )


def fingerprint_of(rows: list[Sample]) -> str:
    """As checkpoints have it since lists have one."""
    digest = hashlib.sha256()
    for row in rows:
        status = ("" if row.status == "ok" else repr(row.status)) + row.part.fragment
        text = f"{row.path}\0{row.labels}\0{row.start}\0{row.num_frames}\0{status}\n"
        digest.update(text.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


@given(st.lists(samples(), max_size=9), st.integers(1, 4), st.data())
def test_rows_come_out_as_they_went_in(rows: list[Sample], chunk: int, data: st.DataObject) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(of_lists, "CHUNK", chunk)
        columns = Columns.of(iter(rows), is_multi_label=False)
        assert list(columns) == rows
        assert [columns[row] for row in range(len(rows))] == rows
        assert (columns[-1:], len(columns)) == (rows[-1:], len(rows))
        assert pickle.loads(pickle.dumps(columns)) == rows
        assert list(columns.labels) == [row.labels for row in rows]
        assert columns.labels.used() == {label for row in rows for label in row.labels}
        assert Manifest(samples=rows).fingerprint == columns.fingerprint() == fingerprint_of(rows)
        is_kept = columns.usable()
        assert is_kept.tolist() == [row.is_usable for row in rows]
        kept = [row for row in rows if row.is_usable]
        assert columns.kept(is_kept) == kept
        assert columns.kept(is_kept).fingerprint() == fingerprint_of(kept)
        codes = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=9)) if rows else []
        chosen = LabelSets.chosen([row.labels for row in rows], np.array(codes, np.int32))
        assert chosen == [rows[code].labels for code in codes]


def test_rows_beyond_the_last_are_none() -> None:
    texts = Texts.of(["a", "b"])
    assert [texts[-2], texts[1], texts[:]] == ["a", "b", ["a", "b"]]
    for row in (2, -3):
        with pytest.raises(IndexError):
            texts[row]
    assert texts != ["a", "c"]
    assert texts != ["a"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("b.mp4,x,1", "line 30003: 'b.mp4,x,1': 'x' is not a class number"),
        ("b.mp4,1,1,1", "line 30003: 'b.mp4,1,1,1': it has 4 fields and the header has 3"),
        ('"b.mp4,1,1', "line 30003: unexpected end of data"),
        (",1,1", "line 30003: ',1,1': the path is empty"),
        ("b.mp4,1,-2", "line 30003: 'b.mp4,1,-2': num_frames '-2' is not a whole number"),
    ],
)
def test_a_row_far_down_a_table_is_named_by_its_line(wrong: str, message: str, tmp_path: Path) -> None:
    source = tmp_path / "list.csv"
    source.write_text("path,label,num_frames\n" + "a.mp4,1,30\n\n" * 14_999 + '"a\nb.mp4",1,30\n' + "\n" + wrong + "\n")
    with pytest.raises(DualFormerError) as found:
        read_manifest(str(source))
    assert message in str(found.value)


def test_a_line_far_down_a_list_is_named_by_its_number(tmp_path: Path) -> None:
    source = tmp_path / "list.txt"
    for wrong, problem in (("b.mp4 -1", "label -1 is negative"), ("b.jpg 1", "'b.jpg' is an image")):
        source.write_text("a.mp4 1\n\n" * 15_000 + wrong + "\n")
        with pytest.raises(DualFormerError) as found:
            read_manifest(str(source))
        assert f"line 30001: {wrong!r}: {problem}" in str(found.value)
