"""What `download` did, as text."""

from __future__ import annotations

import pytest

from dualformer_cli.documents.download import Download, SplitPresence, WeightsOutcome
from dualformer_cli.outputs.download import print_download


def test_folders_of_any_name_are_printed_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    found = WeightsOutcome(name="k400-tiny", status="present", path="a\x1b[2J\udcff", url="u", num_bytes=2_000_000)
    print_download(Download(datasets=(), present={}, results=(found,)))
    assert capsys.readouterr().out == "k400-tiny: present, 2.0 MB, a\\x1b[2J\\udcff\n"


def test_what_is_missing_of_a_split_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    rows = (
        SplitPresence(split="train", annotated=10, present=7, examples=("a.mp4",)),
        SplitPresence(split="val", annotated=1, present=1, examples=()),
    )
    print_download(Download(datasets=(), present={"ucf101": rows}, results=()))
    assert capsys.readouterr().out.splitlines() == [
        "ucf101 train: 7 of 10 videos are there, 3 missing, such as a.mp4; all in missing.csv",
        "ucf101 val: 1 of 1 video is there",
    ]
