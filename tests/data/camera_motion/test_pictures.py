"""Pictures to move over: drawn ones, files, and their reductions."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from PIL import Image

from dualformer_cli.data.camera_motion import pictures
from dualformer_cli.data.camera_motion.pictures import (
    Picture,
    PictureSource,
    draw_picture,
    find_pictures,
    photographs,
    read_picture,
)
from dualformer_cli.errors import DualFormerError


@pytest.mark.parametrize("kind", pictures._ALL)
def test_every_kind_of_drawn_picture_has_contrast_and_follows_from_its_seed(kind):
    images = [pictures._draw_kind(np.random.default_rng(seed), kind, 64, bold=False) for seed in (1, 1, 2)]
    first, again, other = (np.asarray(image, np.float32) for image in images)
    assert first.shape == (64, 64, 3)
    assert first.std() > 5
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).mean() > 5


def test_bold_pictures_have_strong_edges():
    for seed in range(20):
        values = np.asarray(draw_picture(seed, 64, simple=True).convert("L"), np.float32)
        assert np.percentile(values, 95) - np.percentile(values, 5) > 30


def test_levels_halve_until_the_picture_is_small():
    picture = Picture(Image.new("RGB", (200, 130)))
    assert [level.size for level in picture.levels] == [(200, 130), (100, 65), (50, 33), (25, 17)]


def test_a_tiled_picture_mirrors_without_a_seam():
    picture = Picture(draw_picture(0, 32, simple=False))
    tiled = np.asarray(picture.tiled.image)
    assert tiled.shape == (64, 64, 3)
    np.testing.assert_array_equal(tiled[:, 31], tiled[:, 32])
    np.testing.assert_array_equal(tiled[31], tiled[32])


def test_a_full_stock_forgets_its_oldest_picture_and_easy_clips_show_drawn_ones_alone():
    stock = PictureSource(num_drawn=9, side=32, max_kept=2, arrays=[np.zeros((40, 40, 3), np.uint8)], taken_share=1.0)
    kept = [stock._keep(False, number, True) for number in range(3)]
    assert [picture is known for picture, known in zip(kept[1:], stock._kept.values(), strict=True)] == [True, True]
    rng = np.random.default_rng(0)
    assert {stock.choose(rng, 0.0).image.size for _ in range(20)} == {(32, 32)}
    assert {stock.choose(rng, 1.0).image.size for _ in range(20)} == {(40, 40)}


def test_a_picture_file_is_read_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a camera that was held upright
    Image.new("RGB", (80, 40)).save(tmp_path / "tall.jpg", exif=exif)
    assert read_picture(tmp_path / "tall.jpg", longest=100).size == (40, 80)


def test_a_stock_gives_the_same_pictures_in_another_process_and_forgets_old_ones():
    stock = PictureSource(seed=4, num_drawn=30, side=32, max_kept=3)
    copy = pickle.loads(pickle.dumps(stock))
    first, second = ([one.choose(np.random.default_rng(i), 1.0) for i in range(20)] for one in (stock, copy))
    for mine, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(np.asarray(mine.image), np.asarray(other.image))
    assert len(stock._kept) == 3


def test_stocks_of_other_seeds_share_no_picture():
    stocks = [PictureSource(seed=seed, num_drawn=8, side=32) for seed in (0, 1)]
    drawn = [
        {np.asarray(stock.choose(np.random.default_rng(i), 1.0).image).tobytes() for i in range(40)} for stock in stocks
    ]
    assert drawn[0].isdisjoint(drawn[1])


def test_files_and_arrays_are_used_and_only_they_where_nothing_is_drawn(tmp_path):
    path = tmp_path / "red.png"
    Image.new("RGB", (300, 40), (255, 0, 0)).save(path)
    blue = np.full((40, 50, 3), (0, 0, 255), np.uint8)
    stock = PictureSource(num_drawn=0, files=[path], arrays=[blue], side=64)
    seen = {stock.choose(np.random.default_rng(i), 0.0).image.getpixel((3, 3)) for i in range(30)}
    assert seen == {(255, 0, 0), (0, 0, 255)}
    assert max(level.size[0] for level in (read_picture(path, longest=128),)) == 128


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [("a.png", b"no picture", "cannot be read"), ("b.png", None, "is 20x90; the smallest")],
)
def test_a_file_that_is_no_picture_of_use_is_named(tmp_path, name, content, words):
    path = tmp_path / name
    if content is None:
        Image.new("RGB", (20, 90)).save(path)
    else:
        path.write_bytes(content)
    with pytest.raises(DualFormerError, match=words):
        read_picture(path, longest=64)


def test_a_folder_without_pictures_is_named(tmp_path):
    with pytest.raises(DualFormerError, match="not found"):
        find_pictures(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DualFormerError, match="no pictures in"):
        find_pictures(tmp_path)


def test_photographs_say_how_to_get_them(monkeypatch):
    monkeypatch.setattr(pictures, "find_spec", lambda name: None)
    with pytest.raises(DualFormerError, match=r"pip install 'dualformer\[camera-motion\]'"):
        photographs()


def test_photographs_are_those_of_the_package_that_are_really_there(tmp_path, monkeypatch):
    package = tmp_path / "skimage"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").touch()
    Image.new("RGB", (64, 64)).save(package / "data" / "coffee.png")
    Image.new("RGB", (64, 64)).save(package / "data" / "other.png")
    monkeypatch.syspath_prepend(tmp_path)
    assert [path.name for path in photographs()] == ["coffee.png"]


def test_a_stock_without_pictures_is_refused():
    with pytest.raises(ValueError, match="needs pictures"):
        PictureSource(num_drawn=0)
    with pytest.raises(ValueError, match="num_drawn must be at least 0"):
        PictureSource(side=8)
