"""A data set of rendered clips on disk: complete, resumable, and never a mixture."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dualformer_cli.data.camera_motion import files
from dualformer_cli.data.camera_motion.classes import CLASSES
from dualformer_cli.data.camera_motion.files import (
    SPLITS,
    Settings,
    estimate,
    find_sources,
    plan,
    render_all,
    write_h264,
)
from dualformer_cli.data.lists.manifest import read_manifest
from dualformer_cli.errors import DualFormerError
from dualformer_cli.video.open import open_video

QUICK = Settings(num_frames=2, difficulty=0.5)


@pytest.fixture(autouse=True)
def here(monkeypatch, here_pool):
    monkeypatch.setattr(files, "WorkerPool", here_pool)
    monkeypatch.setattr(files, "_SIDE", 64)
    files._stock.cache_clear()


def contents(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*.mp4"))}


def test_a_data_set_reads_back_as_its_lists_say(tmp_path):
    seen = []
    summary = render_all(tmp_path / "set", QUICK, 100, num_workers=1, on_clip=seen.append)
    assert summary.clips == {"train": 80, "val": 10, "test": 10}
    assert summary.rendered == len(seen) == 100
    for split in SPLITS:
        manifest = read_manifest(summary.lists[split])
        assert manifest.class_names == list(CLASSES)
        assert len(manifest) == summary.clips[split]
        labels = [sample.label for sample in manifest.samples]
        assert {labels.count(label) for label in range(len(CLASSES))} == {len(labels) // len(CLASSES)}
    sample, path = manifest.samples[3], manifest.files[3]
    with open_video(path) as reader:
        frames = list(reader.frames())
        assert reader.info.fps == sample.fps
    assert len(frames) == sample.num_frames == 2
    assert frames[0].shape == (sample.height, sample.width, 3)
    assert sum(path.stat().st_size for path in (tmp_path / "set").rglob("*.mp4")) == summary.num_bytes


def test_a_second_run_keeps_what_is_there_and_makes_what_is_missing(tmp_path):
    render_all(tmp_path, QUICK, 100, num_workers=1)
    before = contents(tmp_path)
    lost = tmp_path / "val" / "000004-tilt-down.mp4"
    lost.unlink()
    (tmp_path / "val" / ".000004-tilt-down.abc.part.mp4").write_bytes(b"half")
    summary = render_all(tmp_path, QUICK, 110, num_workers=1)
    assert summary.rendered == 11
    after = contents(tmp_path)
    assert {name: after[name] for name in before} == before
    assert not list(tmp_path.rglob(".*.part.mp4"))


def test_clips_of_other_settings_are_neither_mixed_in_nor_lost_unasked(tmp_path):
    render_all(tmp_path, QUICK, 100, num_workers=1)
    before = contents(tmp_path)
    other = Settings(num_frames=2, difficulty=0.5, seed=8)
    for run in (render_all, estimate):
        with pytest.raises(DualFormerError, match="other settings \\(seed 0, not 8\\)"):
            run(tmp_path, other, 100, num_workers=1)
    assert contents(tmp_path) == before
    assert render_all(tmp_path, other, 100, num_workers=1, overwrite=True).rendered == 100
    after = contents(tmp_path)
    assert after.keys() == before.keys()
    assert not set(after.values()) & set(before.values())


def test_busy_clips_are_rendered_where_they_are_asked_for_and_a_folder_from_before_them_goes_on(tmp_path):
    roots = [tmp_path / name for name in ("plain", "busy")]
    for root, busy in zip(roots, (0.0, 1.0), strict=True):
        render_all(root, replace(QUICK, busy=busy), 100, num_workers=1)
    clips = [sorted((root / "test").glob("*.mp4")) for root in roots]
    assert [clip.name for clip in clips[0]] == [clip.name for clip in clips[1]]
    assert sum(a.read_bytes() != b.read_bytes() for a, b in zip(*clips, strict=True)) >= 8
    with pytest.raises(DualFormerError, match=r"busy 1\.0, not 0\.0"):
        render_all(roots[1], QUICK, 100, num_workers=1)
    summary = roots[0] / "camera-motion.json"
    document = json.loads(summary.read_text())
    del document["settings"]["busy"]  # as an earlier version wrote it
    summary.write_text(json.dumps(document))
    assert render_all(roots[0], QUICK, 100, num_workers=1).rendered == 0


def test_a_run_stopped_while_it_replaces_leaves_no_old_clip(tmp_path):
    render_all(tmp_path, QUICK, 100, num_workers=1)

    def stop(name):
        raise KeyboardInterrupt

    other = Settings(num_frames=3, difficulty=0.5)
    with pytest.raises(KeyboardInterrupt):
        render_all(tmp_path, other, 100, num_workers=1, overwrite=True, on_clip=stop)
    assert len(contents(tmp_path)) == 1
    assert json.loads((tmp_path / "camera-motion.json").read_text())["settings"]["num_frames"] == 3


def test_files_of_others_are_not_written_among(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "holiday.mp4").write_bytes(b"mine")
    with pytest.raises(DualFormerError, match="not rendered by this command"):
        render_all(tmp_path, QUICK, 100, num_workers=1)
    render_all(tmp_path, QUICK, 100, num_workers=1, overwrite=True)
    assert (tmp_path / "train" / "holiday.mp4").read_bytes() == b"mine"


def test_an_estimate_writes_nothing(tmp_path):
    needed = estimate(tmp_path / "set", QUICK, 200, num_workers=2)
    assert needed.missing == 200
    assert needed.num_bytes > 200 * 500
    assert not (tmp_path / "set").exists()


def test_pictures_of_a_folder_belong_to_one_split_each(tmp_path):
    for number in range(20):
        Image.new("RGB", (40, 40), (number * 10, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    found = find_sources([str(tmp_path)])
    assert len(found) == 20
    shared = files.share_out(found, seed=1)
    assert {split: len(paths) for split, paths in shared.items()} == {"train": 16, "val": 2, "test": 2}
    assert sorted(str(path) for paths in shared.values() for path in paths) == sorted(found)
    assert {split: len(paths) for split, paths in files.share_out(found[:3], seed=1).items()} == dict.fromkeys(
        SPLITS, 1
    )


def test_splits_share_neither_clips_nor_drawn_pictures_and_few_files_are_trained_on():
    jobs = plan(100)
    assert len({tuple(job.seeds(QUICK)) for job in jobs}) == len(jobs)
    assert len({files._stock(split, QUICK).seed for split in SPLITS}) == len(SPLITS)
    assert files.share_out(["a.png", "b.png"], seed=1) == {
        "train": [Path("a.png"), Path("b.png")],
        "val": [],
        "test": [],
    }


def test_easy_clips_are_compressed_least_and_a_picture_of_another_size_is_another(tmp_path):
    qualities = [{job.describe(Settings(difficulty=hard))[1] for job in plan(100)} for hard in (0.0, 1.0)]
    assert qualities[0] == {16}
    assert min(qualities[1]) < 20
    assert 32 < max(qualities[1]) <= 36
    picture, digests = tmp_path / "a.png", set()
    for side in (40, 50):
        Image.new("RGB", (side, side)).save(picture)
        digests.add(Settings(pictures=(str(picture),)).fingerprint().pictures)
    assert len(digests) == 2


def test_a_folder_of_broken_pictures_is_named(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(DualFormerError, match="none of the 1 pictures"):
        find_sources([str(tmp_path)])


def test_written_files_show_the_frames(tmp_path):
    rows, columns = np.mgrid[0:48, 0:64]
    frames = np.stack([np.stack([rows * 4, columns * 3, rows + columns + n], -1) for n in range(20)]).astype(np.uint8)
    write_h264(tmp_path / "clip.mp4", frames, fps=Fraction(25), crf=10)
    with open_video(str(tmp_path / "clip.mp4")) as reader:
        read = np.stack(list(reader.frames()))
    assert read.shape == frames.shape
    assert np.abs(read.astype(int) - frames).mean() < 4


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"num_frames": 1}, "at least 2 frames"),
        ({"difficulty": 2.0}, "0 to 1, got 2"),
        ({"busy": -0.5}, "busy must be 0 to 1, got -0.5"),
        ({"seed": -1}, "got -1"),
    ],
)
def test_settings_out_of_range_are_named(values, words):
    with pytest.raises(DualFormerError, match=words):
        Settings(**values)


def test_too_few_clips_for_all_classes_are_refused():
    with pytest.raises(DualFormerError, match=r"99 clips are too few .* ask for 100"):
        plan(99)
