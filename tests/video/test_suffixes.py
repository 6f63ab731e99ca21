from __future__ import annotations

import pytest

from dualformer_cli.video.suffixes import is_video_name, stem_of


@pytest.mark.parametrize(
    ("path", "is_video", "stem"),
    [
        ("run/a.mp4", True, "a"),
        ("A.B.WebM", True, "A.B"),
        ("run/v_x_g01_c01.AVI", True, "v_x_g01_c01"),
        ("frames/a.b", False, "a.b"),
        ("frames/a", False, "a"),
        ("a.jpg", False, "a.jpg"),
        (".mp4", False, ".mp4"),
    ],
)
def test_a_video_is_known_by_its_suffix_and_called_without_it(path: str, is_video: bool, stem: str) -> None:
    assert is_video_name(path) is is_video
    assert stem_of(path) == stem
