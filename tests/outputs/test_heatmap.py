"""Heat on frames: colours, geometry, videos and sheets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import av
import numpy as np
import PIL.Image
import pytest

from dualformer_cli.errors import DualFormerError
from dualformer_cli.outputs import heatmap
from dualformer_cli.outputs.heatmap import Heatmaps, Style, colours_of, fit, paint, picture_size


def heatmaps(
    number: int, *, breaks: tuple[int, ...] = (), fps: float | None = 25.0, title: str = "juggling"
) -> Heatmaps:
    ramp = np.linspace(0, 255, 20).astype(np.uint8)
    return Heatmaps(
        heat=np.tile(ramp, (number, 10, 1)),
        boxes=np.tile([0.25, 0, 0.75, 1], (number, 1)),
        curve=np.linspace(0.1, 0.4, number).astype(np.float32),
        numbers=np.arange(number) * 2,
        fps=fps,
        breaks=breaks,
        title=title,
        detail="layer 3/3",
    )


def frames(number: int, size: tuple[int, int]) -> list[Any]:
    return [np.full((size[1], size[0], 3), 60 + 5 * index, np.uint8) for index in range(number)]


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("magma", (0, 0, 4), (252, 253, 191)),
        ("viridis", (68, 1, 84), (253, 231, 37)),
        ("turbo", (48, 18, 59), (122, 4, 3)),
        ("gray", (0, 0, 0), (255, 255, 255)),
    ],
)
def test_colour_maps_run_from_their_first_to_their_last_colour(name: Any, first: Any, last: Any) -> None:
    colours = colours_of(name)
    assert colours.shape == (256, 3)
    assert (tuple(colours[0]), tuple(colours[-1])) == (first, last)
    assert np.abs(np.diff(colours.astype(int), axis=0)).max() <= 12
    if name != "turbo":
        assert (np.diff(colours @ [0.299, 0.587, 0.114]) > -0.5).all()  # hotter is brighter


def test_heat_is_painted_inside_its_box_and_the_rest_is_darker() -> None:
    frame = np.full((40, 80, 3), 100, np.uint8)
    painted = paint(frame, np.full((5, 5), 255, np.uint8), (0.25, 0, 0.75, 1), Style(alpha=0.5, colormap="gray"))
    assert (painted[:, :20] == 40).all()
    assert (painted[:, 60:] == 40).all()
    assert (painted[:, 20:60] == 178).all()
    assert (frame == 100).all()


def test_alpha_is_the_share_of_the_heat() -> None:
    frame = np.full((8, 8, 3), 90, np.uint8)
    cold = np.zeros((2, 2), np.uint8)
    assert (paint(frame, cold, (0, 0, 1, 1), Style(alpha=0.0)) == frame).all()
    assert (paint(frame, cold, (0, 0, 1, 1), Style(alpha=1.0)) == (0, 0, 4)).all()


def test_heat_keeps_its_place_at_another_size() -> None:
    heat = np.zeros((4, 4), np.uint8)
    heat[0, 3] = 255
    painted = paint(np.zeros((64, 64, 3), np.uint8), heat, (0, 0, 1, 1), Style(alpha=1.0, colormap="gray"))
    assert np.unravel_index(int(painted[..., 0].argmax()), (64, 64))[0] < 16
    assert painted[:16, 48:].mean() > 100
    assert painted[32:].max() == 0


@pytest.mark.parametrize("size", [(640, 272), (176, 144), (1920, 1080), (64, 640), (640, 20)])
@pytest.mark.parametrize("name", ["a.gif", "a.mp4", "a.PNG"])
@pytest.mark.parametrize("side_by_side", [False, True])
def test_pictures_keep_their_shape_and_fit(size: tuple[int, int], name: str, side_by_side: bool) -> None:
    style = Style(side_by_side=side_by_side)
    width, height = picture_size(*size, name, style)
    assert width % 2 == height % 2 == 0
    assert width / height == pytest.approx(size[0] / size[1], rel=0.25)
    limit = {"a.gif": 400, "a.mp4": 1280, "a.PNG": 660}[name]
    assert style.columns * width <= limit
    assert height <= limit
    assert fit(np.zeros((size[1], size[0], 3), np.uint8), (width, height)).shape == (height, width, 3)


@pytest.mark.parametrize("name", ["heat.gif", "heat.mp4"])
@pytest.mark.parametrize("side_by_side", [False, True])
@pytest.mark.parametrize("breaks", [(), (3,)])
def test_a_video_has_each_frame_over_the_panel(
    name: str, side_by_side: bool, breaks: tuple[int, ...], tmp_path: Path
) -> None:
    style = Style(side_by_side=side_by_side)
    size = picture_size(96, 64, name, style)
    heatmap.write_overlay(frames(7, size), heatmaps(7, breaks=breaks), tmp_path / name, fps=10, style=style)
    with av.open(str(tmp_path / name)) as container:
        written = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(written) == 7
    height, width = written[0].shape[:2]
    assert width >= style.columns * size[0]
    assert height == size[1] + 104
    first, last = written[0][size[1] + 40 : size[1] + 84], written[-1][size[1] + 40 : size[1] + 84]
    assert first[:, : width // 2].mean() > last[:, : width // 2].mean()  # the playhead has moved
    assert os.listdir(tmp_path) == [name]


def test_a_frame_that_fails_leaves_no_file(tmp_path: Path) -> None:
    def broken() -> Any:
        yield from frames(2, (96, 64))
        raise DualFormerError("the file ends here")

    with pytest.raises(DualFormerError, match="the file ends here"):
        heatmap.write_overlay(broken(), heatmaps(5), tmp_path / "heat.gif", fps=10, style=Style())
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("number", [1, 2, 5, 16, 40])
@pytest.mark.parametrize("side_by_side", [False, True])
def test_a_sheet_shows_frames_over_the_whole_course(number: int, side_by_side: bool, tmp_path: Path) -> None:
    style = Style(side_by_side=side_by_side)
    chosen = heatmap.sheet_frames(number, style)
    assert (chosen[0], chosen[-1]) == (0, number - 1)
    assert len(chosen) == min(number, 8 if side_by_side else 16)
    size = picture_size(96, 64, "sheet.png", style)
    heatmap.write_sheet(frames(len(chosen), size), heatmaps(number), tmp_path / "sheet.png", chosen=chosen, style=style)
    with PIL.Image.open(tmp_path / "sheet.png") as image:
        assert image.width <= 1320
        assert np.asarray(image).std() > 10
    assert os.listdir(tmp_path) == ["sheet.png"]


@pytest.mark.parametrize("title", ["naïve dancing 💃 of a very long name that goes on and on and on " * 3, "", "a\nb"])
def test_any_title_can_be_drawn(title: str, tmp_path: Path) -> None:
    shown = heatmaps(3, title=title, fps=None)
    heatmap.write_overlay(frames(3, (96, 64)), shown, tmp_path / "a.mp4", fps=10, style=Style())
    assert (tmp_path / "a.mp4").stat().st_size > 500


def test_the_curve_runs_over_the_video_or_over_the_frames_as_shown() -> None:
    shown = heatmaps(4)
    gap = Heatmaps(**{**{name: getattr(shown, name) for name in shown.__slots__}, "numbers": np.array([0, 1, 9, 10])})
    np.testing.assert_allclose(gap.positions(), [0, 0.1, 0.9, 1])
    np.testing.assert_allclose(heatmaps(3, breaks=(1,)).positions(), [0, 0.5, 1])
    assert heatmaps(1).positions().tolist() == [0.5]
    assert (shown.moment(3), heatmaps(4, fps=None).moment(3)) == ("frame 6, 00:00.2", "frame 6")
