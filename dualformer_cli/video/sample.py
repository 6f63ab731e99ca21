"""The short video that comes with the package, so that there is something to try on any machine."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

SAMPLE_CREDIT = "a cockatoo before a hand-held phone, (c) 2015 imageio contributors, BSD-2-Clause"


def sample_clip() -> Path:
    """Return the path of the video: 104 frames of 426x240 pixels, 5.2 seconds."""
    return Path(str(files("dualformer_cli.video") / "sample_clip" / "cockatoo.mp4"))
