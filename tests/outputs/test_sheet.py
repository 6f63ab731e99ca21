"""The sheet of training clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dualformer_cli.errors import DualFormerError
from dualformer_cli.outputs.sheet import FRAMES_PER_CLIP, check_sheet, write_sheet


def test_each_clip_has_a_row_with_its_frames_in_order(tmp_path: Path) -> None:
    bright = np.zeros((16, 32, 32, 3), np.uint8) + np.linspace(40, 240, 16).astype(np.uint8)[:, None, None, None]
    clips = [("run", "a.mp4", bright), ('naïve 💃 "x"' * 30, "b\n.mp4" * 60, 255 - bright), ("short", "c", bright[:2])]
    write_sheet(clips, tmp_path / "sheet.png", title="what is seen")
    with Image.open(tmp_path / "sheet.png") as image:
        pixels = np.asarray(image.convert("L")).astype(int)
    rows = np.flatnonzero((pixels[:, 20:60] < 250).all(axis=1))  # rows of pixels through a first frame
    blocks = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
    frames = [block for block in blocks if len(block) > 50]
    assert len(frames) == 3
    levels = [pixels[block[5], 20 :: pixels.shape[1] // FRAMES_PER_CLIP][:FRAMES_PER_CLIP] for block in frames]
    assert (np.diff(levels[0]) > 0).all()
    assert (np.diff(levels[1]) < 0).all()
    assert (levels[2][2:] == 255).all()  # paper


@pytest.mark.parametrize(
    ("name", "complaint"), [("a.jpg", r"ends in \.png"), ("nowhere/a.png", "'.*nowhere' does not exist")]
)
def test_a_name_that_cannot_be_written_is_refused(tmp_path: Path, name: str, complaint: str) -> None:
    with pytest.raises(DualFormerError, match=complaint):
        check_sheet(tmp_path / name, [], overwrite=False, made=str(tmp_path / "made"))
