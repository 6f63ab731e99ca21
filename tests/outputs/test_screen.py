"""Lines on stderr."""

from __future__ import annotations

import pytest

from dualformer_cli.outputs.screen import log


def test_log_is_one_escaped_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    log("a\nb\x1b[2J")
    assert capsys.readouterr() == ("", "a\\nb\\x1b[2J\n")
