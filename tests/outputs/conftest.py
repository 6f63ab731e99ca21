"""What tests of text on a screen and of pages share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from browser import NAMES, PROGRAM, Browser


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A real browser; tests that take it are one xdist_group, for there is to be one of it."""
    if PROGRAM is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is on the path")
    opened = Browser(tmp_path_factory.mktemp("browser"))
    yield opened
    opened.close()


@pytest.fixture
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
