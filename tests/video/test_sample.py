"""The clip that comes with the package can be read, is small, and says where it is from."""

from __future__ import annotations

import av
import numpy as np

from dualformer_cli.video.open import open_video
from dualformer_cli.video.sample import SAMPLE_CREDIT, sample_clip


def test_the_sample_clip_is_a_short_video_that_moves():
    path = sample_clip()
    assert path.stat().st_size < 500_000
    with open_video(str(path)) as reader:
        frames = np.stack(list(reader.frames()))
        assert reader.info.fps == 20
    assert frames.shape == (104, 240, 426, 3)
    assert np.abs(frames[60].astype(int) - frames[0]).mean() > 10


def test_the_sample_clip_has_no_sound_and_no_tags_of_the_phone():
    with av.open(str(sample_clip())) as container:
        assert [stream.type for stream in container.streams] == ["video"]
        assert set(container.metadata) <= {"major_brand", "minor_version", "compatible_brands", "encoder"}


def test_the_licence_lies_beside_the_sample_clip():
    text = sample_clip().with_name("cockatoo.LICENSE.txt").read_text(encoding="utf-8")
    assert "imageio contributors" in text
    assert "imageio contributors" in SAMPLE_CREDIT
    assert "Redistributions in binary form" in text
