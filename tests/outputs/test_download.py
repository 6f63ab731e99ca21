"""What `download` did, as text."""

from __future__ import annotations

import pytest

from dualformer_cli.documents.download import Download, WeightsOutcome
from dualformer_cli.outputs.download import print_download


def test_folders_of_any_name_are_printed_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    found = WeightsOutcome(name="k400-tiny", status="present", path="a\x1b[2J\udcff", url="u", num_bytes=2_000_000)
    print_download(Download(datasets=(), present={}, results=(found,)))
    assert capsys.readouterr().out == "k400-tiny: present, 2.0 MB, a\\x1b[2J\\udcff\n"
