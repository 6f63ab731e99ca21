"""`dualformer predict`: every form of input and output, true scores, and an end in words whatever happens."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import itertools
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import numpy as np
import PIL.Image
import pytest
import torch
from prediction_documents import segment as a_segment
from typer.testing import CliRunner
from warm import WarmPython

import dualformer_cli
from dualformer_cli import create_model, load_weights
from dualformer_cli.app import app
from dualformer_cli.config.load import load_config, to_yaml
from dualformer_cli.config.schema import DataConfig
from dualformer_cli.data.clips import sampling, timeline
from dualformer_cli.data.clips.transforms import FrameTransform, normalize
from dualformer_cli.data.fetch import weights
from dualformer_cli.documents.predict import VideoResult
from dualformer_cli.engine.scoring import video_scores
from dualformer_cli.errors import ConfigError, DownloadError, DualFormerError, WeightsError
from dualformer_cli.outputs import json_text, prediction_files, predictions
from dualformer_cli.tasks import built_in_model, prediction_outputs, session
from dualformer_cli.tasks import gradcam as gradcam_task
from dualformer_cli.tasks import predict as predict_task
from dualformer_cli.video import decord_reader
from dualformer_cli.video.sample import SAMPLE_CREDIT, sample_clip

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
NAMES = ["running", "jumping", "sitting down", "waving, both hands", "naïve dancing 💃"]

pytestmark = pytest.mark.usefixtures("_own_environment")
needs_decord = pytest.mark.skipif(decord_reader.load_decord() is None, reason="decord is not installed")


@pytest.fixture(autouse=True)
def _quiet_again() -> Iterator[None]:
    logger = logging.getLogger("dualformer_cli")
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.fixture
def model_options(mini_preset: Path, mini_weights: Path) -> list[str]:
    return ["--preset", str(mini_preset), "--weights", str(mini_weights)]


@pytest.fixture
def predict(model_options: list[str], here_pool: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """The function predict(*arguments, input=None) -> the runner's result; files are decoded in this process."""
    monkeypatch.setattr(session, "WorkerPool", here_pool)

    def run(*arguments: Any, input: str | bytes | None = None, options: Sequence[str] | None = None) -> Any:
        chosen = model_options if options is None else options
        return CliRunner().invoke(app, ["predict", *chosen, *map(str, arguments)], input=input)

    return run


@pytest.fixture
def results(predict: Callable[..., Any]) -> Callable[..., list[dict[str, Any]]]:
    """The function results(*arguments, code=0, input=None) -> the `results` of the JSON document."""

    def run(*arguments: Any, code: int = 0, input: str | bytes | None = None) -> list[dict[str, Any]]:
        result = predict("--json", *arguments, input=input)
        assert result.exit_code == code, result.output
        return list(json.loads(result.stdout)["results"])

    return run


def start(*arguments: Any, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "dualformer_cli", "predict", *map(str, arguments)]
    where = str(Path(dualformer_cli.__file__).parents[1])  # the current folder is not the checkout here
    environ = {**os.environ, "PYTHONPATH": where, "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return WarmPython(command, env=environ, **{**pipes, **options})


def run(*arguments: Any, input: str | None = None) -> tuple[int, str, str]:
    """Run the command as a process; returns its exit code, stdout and stderr."""
    with start(*arguments, stdin=subprocess.PIPE) as process:
        stdout, stderr = process.communicate(input, timeout=300)
    return process.returncode, stdout, stderr


def named(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(os.path.basename(row["path"]), row["status"]) for row in rows]


# What is predicted


def frames_of(path: Path) -> list[np.ndarray[Any, Any]]:
    """Decode a file from start to end in the simplest way."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def plain_scores(
    frames: list[np.ndarray[Any, Any]], indices: np.ndarray[Any, Any], *, crops: int, preset: Path, weights: Path
) -> np.ndarray[Any, Any]:
    """Scores (views, classes) of the clips with these frame numbers, computed step by step."""
    model = create_model(str(preset))
    load_weights(model, weights)
    cut = FrameTransform(short_side=64, crop_size=64, num_crops=crops, antialias=True)
    views = [np.stack([cut(frames[i])[crop] for i in clip]) for clip in indices for crop in range(crops)]
    with torch.inference_mode():
        clips = normalize(torch.from_numpy(np.stack(views)), MEAN, STD, torch.float32)
        return np.asarray(model.eval()(clips).double().softmax(-1).numpy())


def scores_of(entries: list[dict[str, Any]]) -> np.ndarray[Any, Any]:
    """Scores of all five classes in their order."""
    return np.array([entry["score"] for entry in sorted(entries, key=lambda entry: entry["index"])])


@pytest.mark.parametrize(("views", "clips", "crops"), [("1x1", 1, 1), ("2x1", 2, 1), ("2x3", 2, 3)])
@pytest.mark.parametrize("decoder", ["pyav", pytest.param("decord", marks=needs_decord)])
def test_scores_are_those_of_a_plain_computation(
    views: str, clips: int, crops: int, decoder: str, results: Any, scenes: Path, mini_preset: Path, mini_weights: Path
) -> None:
    rows = results(scenes / "a.mp4", scenes / "b.mp4", "--views", views, "--set", f"data.decoder={decoder}")
    for row, name in zip(rows, ("a.mp4", "b.mp4"), strict=True):
        frames = frames_of(scenes / name)
        indices = sampling.test_clips(len(frames), num_frames=8, frame_interval=2, num_clips=clips)
        expected = plain_scores(frames, indices, crops=crops, preset=mini_preset, weights=mini_weights)
        np.testing.assert_allclose(scores_of(row["predictions"]), expected.mean(axis=0), atol=1e-6)
        assert (row["num_frames"], row["views"]) == (len(frames), clips * crops)
        shifted = plain_scores(
            frames, (indices + 1) % len(frames), crops=crops, preset=mini_preset, weights=mini_weights
        )
        assert np.abs(shifted.mean(axis=0) - expected.mean(axis=0)).max() > 1e-4, "the test could not see a wrong frame"


@pytest.mark.parametrize("crops", [1, 3])
def test_a_timeline_is_that_of_a_plain_computation(
    crops: int, results: Any, scenes: Path, mini_preset: Path, mini_weights: Path, tmp_path: Path
) -> None:
    (row,) = results(
        scenes / "b.mp4", "--every", 0.8, "--views", f"4x{crops}", "--features", tmp_path / "f.npz", "--csv", "t.csv"
    )
    frames = frames_of(scenes / "b.mp4")
    starts, ends, indices = timeline.timeline_clips(
        np.arange(30) / 10, num_frames=8, frame_interval=2, every_seconds=0.8, duration_seconds=3.0
    )
    views = plain_scores(frames, indices, crops=crops, preset=mini_preset, weights=mini_weights)
    expected = views.reshape(len(starts), crops, 5).mean(axis=1)
    np.testing.assert_allclose(
        scores_of(row["predictions"]), np.average(expected, axis=0, weights=ends - starts), atol=1e-6
    )
    assert row["views"] == 4 * crops
    with np.load(tmp_path / "f.npz") as stored:
        np.testing.assert_allclose(stored["start_seconds"], starts)
        np.testing.assert_allclose(stored["end_seconds"], ends)
        assert stored["features"].shape == (4, 32)
    for segment in row["segments"]:
        inside = (starts >= segment["start_seconds"] - 1e-6) & (ends <= segment["end_seconds"] + 1e-6)
        assert set(expected[inside].argmax(axis=1)) == {segment["index"]}
        best = np.average(expected[inside, segment["index"]], weights=(ends - starts)[inside])
        assert segment["score"] == pytest.approx(best, abs=1e-6)
    assert (row["segments"][0]["start_seconds"], row["segments"][-1]["end_seconds"]) == (0.0, pytest.approx(3.0))
    with open("t.csv", encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert [entry["label"] for entry in table if not entry["start_seconds"]] == [p["label"] for p in row["predictions"]]
    assert [(float(entry["start_seconds"]), entry["label"]) for entry in table if entry["start_seconds"]] == [
        (segment["start_seconds"], segment["label"]) for segment in row["segments"]
    ]


def test_top_k_may_be_more_than_there_are_classes(results: Any, scenes: Path) -> None:
    (row,) = results(scenes / "a.mp4", "--top-k", 99)
    assert sorted(entry["label"] for entry in row["predictions"]) == sorted(NAMES)
    (row,) = results(scenes / "a.mp4", "--top-k", 2)
    assert len(row["predictions"]) == 2


def test_a_score_does_not_depend_on_the_other_inputs(results: Any, scenes: Path) -> None:
    alone = results(scenes / "b.mp4")
    among = results(scenes / "a.mp4", scenes / "b.mp4", "missing.mp4", code=3)
    assert alone[0]["predictions"] == among[1]["predictions"]


def test_random_weights_are_said_to_mean_nothing_and_follow_the_seed(
    predict: Any, mini_preset: Path, scenes: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("dualformer_cli"), "propagate", True)
    options = ["--preset", str(mini_preset), "--weights", "random", "--json"]
    first, again, other = (predict(scenes / "a.mp4", "--seed", seed, options=options).stdout for seed in (3, 3, 4))
    scores = [json.loads(text)["results"][0]["predictions"] for text in (first, again, other)]
    assert scores[0] == scores[1] != scores[2]
    assert "weights are random: labels and scores mean nothing" in caplog.text


# Inputs


def frame_folder(path: Path, *, num_frames: int = 12) -> Path:
    path.mkdir(parents=True)
    for number in range(num_frames):
        pixels = np.full((70, 90, 3), 15 * number, np.uint8)
        PIL.Image.fromarray(pixels).save(path / f"img_{number:05d}.png")
    return path


def test_inputs_are_files_folders_patterns_lists_stdin_and_frames(results: Any, scenes: Path, tmp_path: Path) -> None:
    clip = scenes / "a.mp4"
    for name in ("one.mp4", "deep/er/two.mkv", "three.mp4", "listed.mp4", "from stdin.mp4"):
        target = tmp_path / "in" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip, target)
    frame_folder(tmp_path / "in" / "frames")
    (tmp_path / "list.txt").write_text("# what to look at\nin/listed.mp4\n\n")
    rows = results(
        *(tmp_path / "in" / "one.mp4", tmp_path / "in" / "deep", tmp_path / "in" / "thr*.mp4"),
        *(f"@{tmp_path / 'list.txt'}", "-", tmp_path / "in" / "frames"),
        input=f"{tmp_path}/in/from stdin.mp4\n",
    )
    assert named(rows) == [
        (name, "ok") for name in ("one.mp4", "two.mkv", "three.mp4", "listed.mp4", "from stdin.mp4", "frames")
    ]
    assert rows[0]["predictions"] == rows[4]["predictions"]
    assert (rows[5]["num_frames"], rows[5]["fps"], rows[5]["duration_seconds"]) == (12, None, None)


HOSTILE = ["new\nline.mp4", "emoji 🎬.mp4", "[brackets].mp4", "--help", "-dash.mp4", "\x1b[31mred.mp4", "a'\"b.mp4"]


def test_names_may_hold_anything(predict: Any, scenes: Path) -> None:
    raw = os.fsdecode(b"not utf8 \xff\xfe.mp4")
    wanted = [*HOSTILE, raw]
    for name in wanted:
        shutil.copy(scenes / "a.mp4", name)
    result = predict("--json", "--csv", "t.csv", "--features", "f.npz", "--", *wanted)
    assert result.exit_code == 0
    assert [row["path"] for row in json.loads(result.stdout)["results"]] == wanted
    with open("t.csv", encoding="utf-8", errors="surrogateescape", newline="") as file:
        assert list(dict.fromkeys(row["path"] for row in csv.DictReader(file))) == wanted
    with np.load("f.npz") as stored:
        assert stored["path"].tolist() == wanted
    shown = predict("--", *HOSTILE).stdout
    assert "\x1b" not in shown
    assert "new\\nline.mp4\n" in shown
    assert "emoji 🎬.mp4\n" in shown


def damage(folder: Path, clip: Path) -> dict[str, str]:
    """Make inputs that cannot be used; returns what is to be said of each."""
    data = clip.read_bytes()
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("this is no video\n" * 50)
    (folder / "cut.mp4").write_bytes(data[: len(data) // 2])
    (folder / "noise.mp4").write_bytes(bytes(np.random.default_rng(0).integers(0, 256, 9000, np.uint8)))
    (folder / "videos").mkdir()
    os.mkfifo(folder / "pipe.mp4")
    os.symlink("loop.mp4", folder / "loop.mp4")
    with av.open(str(folder / "audio.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        for number in range(20):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.rate, frame.pts = 44100, number * 1024
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return {
        "videos": "the folder holds no videos and no numbered frames",
        "no*such.mp4": "the pattern matches no videos",
        "empty.mp4": "the file is empty (0 bytes)",
        "text.mp4": "a text file, not a video",
        "cut.mp4": "an MP4 without a readable index, as left by an unfinished download or recording",
        "noise.mp4": "not a video format that is known here, or damaged beyond opening",
        "pipe.mp4": "a named pipe, not a file",
        "loop.mp4": "too many levels of symbolic links",
        "audio.mp4": "no video in it, only audio",
        "missing.mp4": "no such file or folder",
    }


def test_bad_inputs_are_named_with_their_reason_and_the_others_predicted(
    results: Any, scenes: Path, clip_drawer: Any
) -> None:
    reasons = damage(Path(), scenes / "a.mp4")
    clip_drawer(Path("short.mp4"), num_frames=1)
    reasons["short.mp4"] = "has 1 frame; at least 2 are needed, or allow fewer with --set data.min_frames=1"
    rows = results(*reasons, scenes / "a.mp4", code=3)
    assert {row["path"]: row["error"] for row in rows if row["status"] == "error"} == reasons
    assert {tuple(row) for row in rows if row["status"] == "error"} == {
        ("path", "status", "error", "num_frames", "fps", "duration_seconds", "views", "predictions")
    }
    assert named(rows)[-1] == ("a.mp4", "ok")
    assert len(rows) == len(reasons) + 1


def test_frames_without_a_rate_have_no_timeline_until_one_is_given(results: Any, tmp_path: Path) -> None:
    folder = frame_folder(tmp_path / "frames")
    (row,) = results(folder, "--every", 1, code=3)
    assert "give the one it was recorded at, for example --set data.frame_rate=25" in row["error"]
    (row,) = results(folder, "--every", 1, "--set", "data.frame_rate=4")
    assert row["segments"][-1]["end_seconds"] == 3.0


# Outputs


def test_results_for_readers_show_labels_percents_warnings_and_errors(predict: Any, scenes: Path) -> None:
    result = predict(scenes / "a.mp4", "missing.mp4", "--top-k", 2)
    assert result.exit_code == 3
    blocks = result.stdout.split("\n\n")
    assert blocks[0].splitlines()[0] == str(scenes / "a.mp4")
    assert blocks[0].splitlines()[1] == "  40 frames, 25 fps, 1.6 s, 2 views"
    assert re.fullmatch(r"  1  .+  +\d+\.\d%  █.*", blocks[0].splitlines()[2])
    assert len(blocks[0].splitlines()) == 4
    assert blocks[1] == "missing.mp4\n  error: no such file or folder"


def test_the_first_line_on_stderr_says_what_computes(predict: Any, scenes: Path, mini_preset: Path) -> None:
    result = predict(scenes / "a.mp4", "--views", "2x3", "-v")
    lines = result.stderr.splitlines()
    assert lines[0].startswith(f"{mini_preset}, ")
    assert lines[0].endswith(" weights, 2x3 views, cpu fp32")
    assert re.fullmatch(r".*a\.mp4: decode \d+\.\d\d s, preprocess \d+\.\d\d s, forward \d+\.\d\d s", lines[-1])


def test_subtitles_are_the_timeline(results: Any, scenes: Path) -> None:
    (row,) = results(scenes / "b.mp4", "--every", 1, "--srt", "out.srt")
    cues = Path("out.srt").read_text(encoding="utf-8").strip().split("\n\n")
    assert len(cues) == len(row["segments"])
    for number, (cue, segment) in enumerate(zip(cues, row["segments"], strict=True), start=1):
        index, times, text = cue.split("\n")
        assert int(index) == number
        seconds = [
            int(h) * 3600 + int(m) * 60 + int(s) + int(ms) / 1000
            for h, m, s, ms in re.findall(r"(\d\d):(\d\d):(\d\d),(\d{3})", times)
        ]
        assert seconds == pytest.approx([segment["start_seconds"], segment["end_seconds"]], abs=1e-3)
        assert text == f"{segment['label']} ({segment['score']:.0%})"


def test_a_video_is_saved_with_its_labels_on_every_frame(results: Any, scenes: Path, clip_drawer: Any) -> None:
    large = clip_drawer(Path("large.mp4"), num_frames=20, size=(320, 240))
    results(large, "--save", "shown.mp4", "--top-k", 2)
    before, after = frames_of(large), frames_of(Path("shown.mp4"))
    assert len(after) == 20
    for old, new in zip(before, after, strict=True):
        difference = np.abs(old.astype(int) - new)
        assert difference[:30, :100].mean() > 20, "no caption"
        assert difference[120:].mean() < 12, "the picture changed"


def test_a_gif_keeps_at_most_12_frames_a_second(results: Any, scenes: Path) -> None:
    results(scenes / "a.mp4", "--save", "shown.gif", "--every", 1)
    with PIL.Image.open("shown.gif") as image:
        durations = list(_durations(image))
    assert len(durations) == 20
    assert sum(durations) == pytest.approx(1600, abs=20)


def _durations(image: PIL.Image.Image) -> Iterator[float]:
    for number in range(getattr(image, "n_frames", 1)):
        image.seek(number)
        yield image.info["duration"]


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_a_saved_video_with_an_uneven_rate_keeps_its_times_and_captions_follow_them(
    suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dualformer_cli.outputs import annotated_video

    with av.open("uneven.mkv", "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        for number in range(10):  # five frames in the first half second, five in the next four and a half
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 20 * number, np.uint8), format="rgb24")
            frame.pts = 100 * number if number < 5 else 500 + 900 * (number - 5)
            frame.time_base = Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    seen: list[str] = []
    monkeypatch.setattr(annotated_video, "draw_captions", lambda frame, lines: seen.append(lines[0][0]) or frame)
    segments = (a_segment(0.0, 0.5, "early", 1.0), a_segment(0.5, 5.0, "late", 1.0))
    video = VideoResult(path="uneven.mkv", status="ok", segments=segments)
    assert prediction_outputs._annotate((video, f"x{suffix}", DataConfig(), None)) is None
    assert seen == ["early"] * 5 + ["late"] * 5
    with av.open(f"x{suffix}") as container:
        times = [float(frame.time) for frame in container.decode(video=0)]
    expected = [*(0.1 * number for number in range(5)), *(0.5 + 0.9 * number for number in range(5))]
    assert times == pytest.approx(expected, abs=0.0051)


def test_several_videos_are_saved_into_a_folder_each_under_its_own_name(
    results: Any, scenes: Path, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    shutil.copy(scenes / "a.mp4", tmp_path / "other" / "a.mov")
    target = tmp_path / "out"  # which the slash makes
    results(scenes / "a.mp4", tmp_path / "other" / "a.mov", "no.mp4", "--save", f"{target}/", "--srt", target, code=3)
    assert sorted(os.listdir(target)) == ["a-2.mp4", "a-2.srt", "a.mp4", "a.srt"]
    results(scenes / "a.mp4", "--vtt", f"{tmp_path}/new/titles/")
    assert os.listdir(tmp_path / "new" / "titles") == ["a.vtt"]
    assert len(frames_of(target / "a-2.mp4")) == 40


def test_features_are_one_row_per_video_or_segment(results: Any, scenes: Path) -> None:
    rows = results(scenes / "a.mp4", "no.mp4", scenes / "b.mp4", "--features", "f.npz", code=3)
    with np.load("f.npz") as stored:
        assert sorted(stored) == ["end_seconds", "features", "path", "start_seconds"]
        assert stored["path"].tolist() == [row["path"] for row in rows if row["status"] == "ok"]
        assert (stored["features"].shape, stored["features"].dtype) == ((2, 32), np.float32)
        assert np.isnan(stored["start_seconds"]).all()
    results("no.mp4", "--features", "none.npz", code=3)
    with np.load("none.npz") as stored:
        assert len(stored["features"]) == 0


def test_an_output_may_have_the_longest_name_that_there_is(results: Any, scenes: Path) -> None:
    stem = "🎬" * 62  # 248 of 255 bytes
    results(scenes / "a.mp4", "--csv", f"{stem}.csv", "--save", f"{stem}.mp4", "--srt", f"{stem}.srt")
    assert sorted(os.listdir()) == [f"{stem}.csv", f"{stem}.mp4", f"{stem}.srt"]


@pytest.mark.parametrize(
    "option",
    [("--csv", "t.csv"), ("--srt", "t.srt"), ("--save", "t.mp4"), ("--features", "t.npz"), ("--report", "t.html")],
)
def test_an_output_that_exists_is_kept_unless_told_otherwise(
    option: tuple[str, str], predict: Any, scenes: Path
) -> None:
    target = Path(option[1])
    target.write_text("precious")
    result = predict(scenes / "a.mp4", *option)
    assert str(result.exception) == f"{option[1]!r} exists; name another file or replace it with --overwrite"
    assert target.read_text() == "precious"
    assert predict(scenes / "a.mp4", *option, "--overwrite").exit_code == 0
    assert target.read_bytes()[:8] != b"precious"
    assert sorted(os.listdir()) == [option[1]], "something was left behind"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--csv", "no/t.csv"), "cannot write 'no/t.csv': folder 'no' does not exist; create it"),
        (("--csv", "."), "cannot write '.': it is a folder; name a file"),
        (("--csv", "x" * 300), f"cannot write '{'x' * 300}': file name too long"),
        (("--csv", "/dev/null", "--overwrite"), "cannot write '/dev/null': it is a device or a pipe; name a file"),
        (("--save", "t.avi"), "--save 't.avi' must end in .mp4 or .gif, or be a folder, with a / at its end"),
        (("--srt", "t.txt"), "--srt 't.txt' must end in .srt, or be a folder, with a / at its end"),
        (("--features", "t.npy"), "--features 't.npy' must end in .npz"),
        (("--segments", "t.xml"), "--segments 't.xml' must end in .csv or .json"),
        (("--report", "t.htm"), "--report 't.htm' must end in .html"),
        (("--report", "no/t.html"), "cannot write 'no/t.html': folder 'no' does not exist; create it"),
        (
            ("--csv", "t.html", "--report", "t.html"),
            "'t.html' is named for two outputs; name another file for one of them",
        ),
        (("--csv", "t.srt", "--srt", "t.srt"), "'t.srt' is named for two outputs; name another file for one of them"),
        (
            ("two.mp4", "--save", "t.mp4"),
            "--save 't.mp4' is one file, but there are 2 videos; name a folder, with a / at its end",
        ),
        (("camera:0", "--save", "."), "--save needs files, but 'camera:0' is live; use --csv"),
        (
            ("rtsp://me:secret@cam/1", "--srt", "."),
            "--srt needs files, but 'rtsp://***@cam/1' is live; use --csv",
        ),
    ],
)
def test_an_output_that_cannot_be_is_refused_before_any_work(
    arguments: tuple[str, ...], said: str, predict: Any, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "WorkerPool", None)  # reaching it would be work
    result = predict(scenes / "a.mp4", *arguments)
    assert isinstance(result.exception, DualFormerError)
    assert str(result.exception) == said


def test_an_input_is_never_overwritten(predict: Any, scenes: Path) -> None:
    shutil.copy(scenes / "a.mp4", "a.mp4")
    os.symlink("a.mp4", "link.mp4")
    for target in ("a.mp4", ".", "link.mp4"):
        result = predict("a.mp4", "--save", target, "--overwrite")
        name = "a.mp4" if target == "." else target
        assert str(result.exception) == f"cannot write {name!r}: it is one of the inputs"
    assert Path("a.mp4").read_bytes() == (scenes / "a.mp4").read_bytes()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_refused_before_any_work(predict: Any, scenes: Path) -> None:
    Path("closed").mkdir(mode=0o555)
    result = predict(scenes / "a.mp4", "--csv", "closed/t.csv")
    assert str(result.exception) == "cannot write 'closed/t.csv': no permission to write in 'closed'"


def test_an_output_of_one_video_that_fails_costs_only_that_one(results: Any, scenes: Path, tmp_path: Path) -> None:
    frames = frame_folder(tmp_path / "frames")
    Path("out").mkdir()
    rows = results(frames, scenes / "a.mp4", "--srt", "out", "--save", "out", code=3)
    assert named(rows) == [("frames", "error"), ("a.mp4", "ok")]
    assert rows[0]["error"] == (
        f"classified, but not saved: no subtitles for {str(frames)!r}: its duration is unknown; set data.frame_rate"
    )
    assert len(rows[0]["predictions"]) == 5
    assert sorted(os.listdir("out")) == ["a.mp4", "a.srt", "frames.mp4"]


def test_a_video_that_cannot_be_saved_names_the_file_and_keeps_its_labels(
    predict: Any, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dualformer_cli.outputs import annotated_video

    def fail(frames: Any, path: str, **_: Any) -> None:
        Path(path).write_bytes(b"half of it")
        raise DualFormerError(f"cannot write {path!r}: No space left on device")

    monkeypatch.setattr(annotated_video, "save_annotated", fail)
    result = predict(scenes / "a.mp4", "--save", "shown.mp4")
    assert result.exit_code == 3
    assert "  1  " in result.stdout
    said = " ".join(result.stdout.split())
    assert "error: classified, but not saved: cannot write 'shown.mp4': No space left on device" in said
    assert os.listdir() == []


def test_a_table_that_cannot_be_written_does_not_take_the_document_along(
    predict: Any, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(prediction_files.PredictionTable, "_write", full)
    result = predict(scenes / "a.mp4", "--csv", "t.csv", "--json")
    assert result.exit_code != 0
    assert named(json.loads(result.stdout)["results"]) == [("a.mp4", "ok")]


@pytest.mark.parametrize("lost", ["t.csv", "f.npz", "p.html"])
@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_file_that_cannot_be_written_takes_neither_the_results_nor_the_other_files_along(
    lost: str, options: tuple[str, ...], predict: Any, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("gone").mkdir()
    top = video_scores.top

    def remove_the_folder(*given: Any) -> Any:
        shutil.rmtree("gone", ignore_errors=True)
        return top(*given)

    monkeypatch.setattr(video_scores, "top", remove_the_folder)
    names = ("t.csv", "f.npz", "p.html")
    table, features, page = (str(Path("gone", name)) if name == lost else name for name in names)
    result = predict(scenes / "a.mp4", "--csv", table, "--features", features, "--report", page, *options)
    assert result.exit_code == 1
    assert str(result.exception) == f"cannot write 'gone/{lost}': folder 'gone' does not exist; create it"
    assert all(name in result.stdout for name in NAMES[:3])
    assert set(os.listdir()) == set(names) - {lost}


@pytest.mark.parametrize("option", [("--csv", "no/t.csv"), ("--features", "no/f.npz"), ("--save", "no/t.mp4")])
def test_an_output_that_cannot_be_is_refused_before_an_address_is_fetched(
    option: tuple[str, str], predict: Any, web: Any
) -> None:
    result = predict(f"{web.address}/one.mp4", *option)
    assert str(result.exception) == f"cannot write {option[1]!r}: folder 'no' does not exist; create it"
    assert web.requests == []


# Configuration


def test_precision_auto_is_bf16_for_a_large_model_on_a_processor_that_has_it(
    predict: Any, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dualformer_cli.engine.parallel.devices.multiplies_bf16", lambda: True)
    found = {}
    for numbers in (2**20, 0):
        monkeypatch.setattr("dualformer_cli.engine.engine.BF16_ON_CPU_FROM", numbers)
        for precision in ("auto", "fp32"):
            result = predict(scenes / "a.mp4", "--json", "--precision", precision)
            assert f", cpu {json.loads(result.stdout)['precision']}\n" in result.stderr
            found[numbers, precision] = json.loads(result.stdout)["precision"]
    assert found == {(2**20, "auto"): "fp32", (2**20, "fp32"): "fp32", (0, "auto"): "bf16", (0, "fp32"): "fp32"}


def test_the_configuration_is_shown_with_the_origin_of_each_value(
    predict: Any, mini_preset: Path, mini_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUALFORMER_RUNTIME__SEED", "7")
    result = predict("--print-config", "--views", "2x3", "--set", "data.min_frames=4")
    assert result.exit_code == 0
    lines = {line.strip() for line in result.stdout.splitlines()}
    assert f"weights: {mini_weights}  # from flag" in lines
    assert f"num_classes: 5  # from preset {mini_preset}" in lines
    assert "num_crops: 3  # from flag" in lines
    assert "min_frames: 4  # from --set" in lines
    assert "seed: 7  # from environment DUALFORMER_RUNTIME__SEED" in lines
    assert "mlp_ratio: 4.0  # from default" in lines
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--preset", "k400-tinny"), "preset 'k400-tinny' not found; did you mean 'k400-tiny'?"),
        (
            ("--set", "data.clip.num_framez=4"),
            "data.clip.num_framez: unknown key; did you mean 'data.clip.num_frames'?",
        ),
        (("--set", "data.clip.num_frames=four"), "data.clip.num_frames must be a whole number, got four (from --set)"),
        (("--views", "2x2"), "data.test.num_crops must be one of 1, 3, got 2"),
        (("--precision", "fp8"), "runtime.precision must be one of auto, fp32, bf16, fp16, got 'fp8'"),
        (("--device", "cuda:99"), "device 'cuda:99' is not here: this machine has "),
        (("--set", "data.clip.num_frames=7"), "clips of 7 frames, 64x64 pixels do not fit"),
    ],
)
def test_configurations_that_cannot_be_are_one_line_each(
    arguments: tuple[str, ...], said: str, predict: Any, scenes: Path
) -> None:
    result = predict(scenes / "a.mp4", *arguments)
    assert isinstance(result.exception, DualFormerError)
    assert str(result.exception).startswith(said)
    assert "\n" not in str(result.exception)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--views", "4"), "--views: '4' is not CLIPSxCROPS, such as 4x3"),
        (("--every", "0"), "--every: 0 is not a positive number of seconds"),
        (("--every", "-2"), "--every: -2 is not a positive number of seconds"),
        (("--every", "nan"), "'--every': must be a number, got 'nan'"),
        (("--every=1_0",), "'--every': must be a number, got '1_0'"),
        (("--top-k", "1_0"), "'--top-k': must be a number, got '1_0'"),
        (("--min-score", "1_0"), "--min-score: '1_0' is not a percentage"),
        (("--every", "often"), "--every"),
        (("--duration", "inf"), "'--duration': must be a number, got 'inf'"),
        (("--top-k", "0"), "--top-k"),
        (("--nonsense",), "No such option: --nonsense"),
        (("--retry-failed",), "--retry-failed: it goes with --output, which keeps what failed"),
    ],
)
def test_wrong_usage_exits_2_and_says_what_is_wrong(
    arguments: tuple[str, ...], said: str, predict: Any, scenes: Path
) -> None:
    result = predict(scenes / "a.mp4", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr


def test_without_an_input_it_is_about_the_sample_clip_and_says_so(predict: Any) -> None:
    result = predict("--json")
    assert result.exit_code == 0
    (about,) = json.loads(result.stdout)["results"]
    assert (about["path"], about["num_frames"]) == (str(sample_clip()), 104)
    assert f"the sample clip of the package ({SAMPLE_CREDIT}): {sample_clip()}" in " ".join(result.stderr.split())


def test_a_class_list_of_another_length_names_both_numbers(predict: Any, scenes: Path) -> None:
    Path("two.txt").write_text("a\nb\n")
    result = predict(scenes / "a.mp4", "--set", "data.classes=two.txt")
    assert isinstance(result.exception, ConfigError)
    assert str(result.exception).startswith("data.classes 'two.txt' names 2 classes, model.num_classes is 5")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.embed_dims=[8,16,16,64]", "are of embed_dims [8, 16, 16, 32], depths [2, 2, 2, 2], the model is embed"),
        ("model.depths=[2,2,4,2]", "are of embed_dims [8, 16, 16, 32], depths [2, 2, 2, 2], the model is embed_dims"),
        ("model.num_classes=7", "have 5 classes, the model has 7; choose the preset that they were trained with, or"),
    ],
)
def test_weights_of_another_model_are_one_line(
    override: str, said: str, predict: Any, scenes: Path, mini_weights: Path
) -> None:
    result = predict(scenes / "a.mp4", "--set", override, "--set", "data.classes=null")
    assert isinstance(result.exception, WeightsError)
    assert str(result.exception).startswith(f"weights {str(mini_weights)!r} {said}")


def test_missing_weights_say_what_can_be_given(predict: Any, scenes: Path) -> None:
    result = predict(scenes / "a.mp4", "--weights", "no.pth")
    expected = "weights 'no.pth' not found; give a file, hf://OWNER/NAME, or a preset with weights: k400-tiny, "
    assert str(result.exception).startswith(expected)


# Published weights


@contextmanager
def weights_server(content: bytes, asked: list[str]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/mini.pth"
        server.shutdown()


def test_published_weights_are_fetched_once_and_then_found_offline(
    predict: Any, scenes: Path, mini_preset: Path, mini_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    content = mini_weights.read_bytes()
    with weights_server(content, asked) as address:
        entry = {"url": address, "file_name": "mini.pth", "browser_url": address, "minimum_bytes": 1000}
        Path("mirror.yaml").write_text(json.dumps({"weights": {str(mini_preset): entry}}))
        monkeypatch.setenv("DUALFORMER_CATALOGUE", "mirror.yaml")
        monkeypatch.setenv("no_proxy", "*")
        options = ["--preset", str(mini_preset), "--json"]

        missing = predict(scenes / "a.mp4", "--offline", options=options)
        assert isinstance(missing.exception, DownloadError)
        target = os.path.join(os.environ["DUALFORMER_CACHE"], "weights", "mini.pth")
        assert str(missing.exception) == (
            f"{mini_preset}: offline, and the file is missing; fetch {address} by hand and put it at {target!r}"
        )
        assert asked == []

        fetched = predict(scenes / "a.mp4", options=options)
        found = predict(scenes / "a.mp4", "--offline", "--weights", "published", options=options)
        assert asked == ["/mini.pth"]
    documents = [json.loads(result.stdout) for result in (fetched, found)]
    for document in documents:
        assert (document["weights"], document["weights_sha256"]) == ("published", hashlib.sha256(content).hexdigest())
    assert documents[0]["results"][0]["predictions"] == documents[1]["results"][0]["predictions"]


@pytest.fixture
def two_models(mini_preset: Path, mini_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Small models in the places of the default one and of the built-in one; the names of the two."""
    default, built_in = str(mini_preset), str(tmp_path / "built-in.yaml")
    Path(built_in).write_text(f"extends: {default}\nruntime: {{seed: 7}}\n")
    shipped = tmp_path / "built-in.pth"
    shutil.copy(mini_weights, shipped)
    for module in (session, predict_task):
        monkeypatch.setattr(module, "DEFAULT_PRESET", default)
    monkeypatch.setattr(built_in_model, "BUILT_IN_PRESET", built_in)
    monkeypatch.setattr(weights, "SHIPPED_WEIGHTS", {built_in: str(shipped)})
    entry = {"url": "http://127.0.0.1:9/mini.pth", "file_name": "mini.pth", "browser_url": "b", "minimum_bytes": 1000}
    Path("mirror.yaml").write_text(json.dumps({"weights": {default: entry}}))
    monkeypatch.setenv("DUALFORMER_CATALOGUE", "mirror.yaml")
    monkeypatch.setenv("no_proxy", "*")
    return [default, built_in]


@pytest.mark.parametrize("arguments", [["--offline"], []])
def test_where_the_default_model_cannot_be_had_the_built_in_one_answers_and_says_so(
    arguments: list[str], predict: Any, scenes: Path, two_models: list[str]
) -> None:
    result = predict(scenes / "a.mp4", "--json", *arguments, options=[])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert (document["preset"], document["weights"]) == (two_models[1], "built-in")
    assert len(document["results"][0]["predictions"]) == 5
    reason = "offline, and the file is missing" if arguments else "127.0.0.1 cannot be reached"
    assert document["fallback"].startswith(f"{two_models[0]}: {reason}")
    first, second = result.stderr.splitlines()[:2]
    assert first == f"{two_models[0]} is not here: the built-in {two_models[1]} answers how the camera moves"
    assert second == f"for actions: dualformer download {two_models[0]} (-v says why it is not here)"
    assert document["fallback"] not in result.stderr


def test_the_fall_back_is_short_and_tells_the_rest_with_v(
    predict: Any, scenes: Path, two_models: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    names = len(two_models[0]) - len("k400-tiny") + len(two_models[1]) - len("camera-motion")
    result = predict(scenes / "a.mp4", "--offline", options=[])
    assert len(result.stderr.splitlines()[0]) - names <= 80
    header, empty, path, *_ = result.stdout.splitlines()
    assert (header, empty, path) == (f"How the camera moves, by {two_models[1]}", "", str(scenes / "a.mp4"))
    assert not caplog.records
    logging.getLogger("dualformer_cli").propagate = True
    with caplog.at_level(logging.DEBUG, "dualformer_cli"):
        predict(scenes / "a.mp4", "--offline", "-v", options=[])
    assert "offline, and the file is missing; fetch b by hand and put it at" in caplog.text


def test_the_second_command_does_not_ask_the_server_again(
    predict: Any, scenes: Path, two_models: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reasons = []
    for _ in range(2):
        result = predict(scenes / "a.mp4", "--json", options=[])
        reasons.append(json.loads(result.stdout)["fallback"])
        monkeypatch.setattr(weights, "open_file", None)  # whoever calls it fails otherwise
    reason = re.escape(reasons[0].partition(";")[0])
    assert " ago" not in reason
    assert re.match(rf"{reason} \(\d+ s ago; nobody asks again", reasons[1])


@pytest.mark.parametrize("option", ["--print-config", "--list-layers"])
def test_what_is_described_is_the_model_that_would_run(
    option: str, two_models: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradcam_task, "DEFAULT_PRESET", two_models[0])
    for command in ("predict", "gradcam") if option == "--print-config" else ("gradcam",):
        result = CliRunner().invoke(app, [command, option, "--offline"])
        assert result.exit_code == 0, result.output
        assert two_models[1] in result.stdout
        assert option == "--list-layers" or "seed: 7" in result.stdout
        assert result.stderr.splitlines()[0].startswith(f"{two_models[0]} is not here: ")


def test_where_the_default_model_can_be_fetched_it_answers(
    predict: Any, scenes: Path, two_models: list[str], mini_weights: Path
) -> None:
    asked: list[str] = []
    with weights_server(mini_weights.read_bytes(), asked) as address:
        entry = {"url": address, "file_name": "mini.pth", "browser_url": address, "minimum_bytes": 1000}
        Path("mirror.yaml").write_text(json.dumps({"weights": {two_models[0]: entry}}))
        fetched = predict(scenes / "a.mp4", "--json", options=[])
    cached = predict(scenes / "a.mp4", "--json", "--offline", options=[])
    for result in (fetched, cached):
        document = json.loads(result.stdout)
        assert (document["preset"], document["fallback"]) == (two_models[0], None)
        assert "built-in" not in result.stderr
    assert asked


@pytest.mark.parametrize("chosen", ["preset", "weights", "environment"])
def test_a_model_that_was_chosen_is_never_replaced(
    chosen: str, predict: Any, scenes: Path, two_models: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"preset": ["--preset", two_models[0]], "weights": ["--weights", "published"], "environment": []}[chosen]
    if chosen == "environment":
        monkeypatch.setenv("DUALFORMER_WEIGHTS", "published")
    result = predict(scenes / "a.mp4", "--offline", options=options)
    assert isinstance(result.exception, DownloadError)
    assert str(result.exception).startswith(f"{two_models[0]}: offline, and the file is missing")


def test_without_a_built_in_model_it_says_why_there_is_none(
    predict: Any, scenes: Path, two_models: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "SHIPPED_WEIGHTS", {})
    result = predict(scenes / "a.mp4", "--offline", options=[])
    assert isinstance(result.exception, DownloadError)


def test_settings_hold_for_the_built_in_model_too(predict: Any, scenes: Path, two_models: list[str]) -> None:
    result = predict(scenes / "a.mp4", "--json", "--offline", "--views", "1x1", options=[])
    assert json.loads(result.stdout)["views"] == "1x1"


@pytest.mark.skipif(weights.shipped_weights("camera-motion") is None, reason="this checkout has no built-in weights")
def test_a_fresh_machine_without_a_network_is_answered_by_the_built_in_model() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "dualformer_cli", "predict", "--json", "--offline"], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["preset"] == "camera-motion"
    assert result.stderr.startswith("k400-tiny is not here: the built-in camera-motion answers how the camera moves\n")
    assert "camera-motion, built-in weights, " in result.stderr
    assert 0 < document["results"][0]["predictions"][0]["score"] <= 1


def test_weights_are_named_by_their_preset(predict: Any, scenes: Path) -> None:
    """As in train --init-from; with another preset beside them they are still those."""
    document = json.loads(predict(scenes / "a.mp4", "--json", options=["--weights", "camera-motion"]).stdout)
    assert (document["preset"], document["weights"], document["fallback"]) == ("camera-motion", "built-in", None)
    Path("own.yaml").write_text("extends: camera-motion\n")
    options = ["--preset", "own.yaml", "--weights", "camera-motion"]
    other = json.loads(predict(scenes / "a.mp4", "--json", options=options).stdout)
    assert (other["preset"], other["weights"]) == ("own.yaml", "built-in camera-motion")
    assert other["results"][0]["predictions"] == document["results"][0]["predictions"]
    wrong = predict(scenes / "a.mp4", options=["--weights", "k400-tinny"])
    assert "weights 'k400-tinny' not found; did you mean 'k400-tiny'?" in str(wrong.exception)


def test_weights_that_bring_their_configuration_are_named_once(
    predict: Any, scenes: Path, mini_preset: Path, mini_weights: Path
) -> None:
    text = to_yaml(load_config(str(mini_preset)).config)
    torch.save({**torch.load(mini_weights), "kind": "dualformer checkpoint", "config": text}, "best.pt")
    result = predict(scenes / "a.mp4", options=["--weights", "best.pt"])
    assert result.stderr.splitlines()[0].startswith("best.pt, 2x1 views, ")
    assert result.stderr.splitlines()[0].count("best.pt") == 1


def test_a_preset_without_published_weights_names_those_that_have_some(
    predict: Any, scenes: Path, mini_preset: Path
) -> None:
    result = predict(scenes / "a.mp4", options=["--preset", str(mini_preset)])
    assert isinstance(result.exception, DownloadError)
    assert str(result.exception).startswith(f"no published weights for {str(mini_preset)!r}")
    assert "k400-tiny" in str(result.exception)


# Labels of lists


@pytest.fixture
def labelled(scenes: Path, results: Any) -> tuple[Path, list[str]]:
    """A list in the current folder whose first label is right, second wrong, third unknown; the best labels."""
    best = [results(scenes / name)[0]["predictions"][0]["label"] for name in ("a.mp4", "b.mp4")]
    other = next(name for name in NAMES if name != best[1])
    Path("classes.txt").write_text("\n".join([*NAMES, "swimming"]), encoding="utf-8")
    rows = [("a.mp4", NAMES.index(best[0])), ("b.mp4", NAMES.index(other)), ("gone.mp4", 0)]
    lines = [f"{scenes / name},{label}" for name, label in rows]
    Path("val.csv").write_text("path,label\n" + "\n".join(lines) + "\n")
    return Path("val.csv"), [best[0], other, NAMES[0]]


def test_a_list_of_prepare_is_read_and_compared(predict: Any, labelled: tuple[Path, list[str]]) -> None:
    path, listed = labelled
    document = json.loads(predict(f"@{path}", "--json", "--csv", "t.csv").stdout)
    assert [row["labels"] for row in document["results"]] == [[label] for label in listed]
    assert [row.get("is_right") for row in document["results"]] == [True, False, None]
    assert document["compared"] == {"right": 1, "wrong": 1, "not_compared": 1}
    with open("t.csv", encoding="utf-8", newline="") as file:
        rows = {(os.path.basename(row["path"]), row["listed_labels"], row["is_right"]) for row in csv.DictReader(file)}
    assert rows == {("a.mp4", listed[0], "true"), ("b.mp4", listed[1], "false"), ("gone.mp4", listed[2], "")}
    text = predict(f"@{path}").stdout
    assert f"  right: the list says {listed[0]}\n" in text
    assert f"  wrong: the list says {listed[1]}\n" in text
    assert text.splitlines()[-1].startswith("1 of 2 videos right (50.0%); 1 video not compared")


def test_a_path_of_a_list_is_shown_short_and_kept_as_it_is(predict: Any, scenes: Path) -> None:
    (Path("own") / "prepared").mkdir(parents=True)
    shutil.copy(scenes / "a.mp4", "own/a.mp4")
    Path("own/prepared/val.csv").write_text("path,label\n../a.mp4,0\n../gone.mp4,0\n")
    result = predict("@own/prepared/val.csv", "--csv", "t.csv", "--report", "page.html")
    assert [line for line in result.stdout.splitlines() if ".mp4" in line] == ["own/a.mp4", "own/gone.mp4"]
    document = json.loads(predict("@own/prepared/val.csv", "--json").stdout)
    assert [row["path"] for row in document["results"]] == ["own/prepared/../a.mp4", "own/prepared/../gone.mp4"]
    assert "own/prepared/../a.mp4," in Path("t.csv").read_text()
    page = Path("page.html").read_text(encoding="utf-8")
    assert '"own/a.mp4"' in page
    assert "own/prepared" not in page
    run = predict("@own/prepared/val.csv", "--output", "run", "--verbose")
    assert "own/gone.mp4: no such file or folder" in run.stderr.splitlines()
    assert "own/a.mp4: decode " in run.stderr


def test_a_run_folder_compares_with_the_list_of_now(
    predict: Any, labelled: tuple[Path, list[str]], scenes: Path
) -> None:
    path, listed = labelled
    first = predict(f"@{path}", "--output", "run")
    assert "1 of 2 videos right (50.0%); 1 video not compared" in first.stdout
    path.write_text(
        path.read_text().replace(f"b.mp4,{NAMES.index(listed[1])}", "b.mp4,5")
    )  # a class that is not the model's
    document = json.loads(predict(f"@{path}", "--output", "run", "--json").stdout)
    assert document["videos"]["kept"] == 2
    assert document["compared"] == {"right": 1, "wrong": 0, "not_compared": 2}
    rows = [json.loads(line) for line in Path("run/predictions.jsonl").read_text().splitlines()]
    assert [(row["labels"], row.get("is_right")) for row in rows[:2]] == [([listed[0]], True), (["swimming"], None)]
    with open("run/predictions.csv", encoding="utf-8", newline="") as file:
        assert [row["is_right"] for row in csv.DictReader(file) if row["rank"] == "1"] == ["true", ""]
    assert "is_right" not in predict(scenes / "a.mp4", "--output", "other").stdout
    assert "is_right" not in Path("other/predictions.csv").read_text()


def test_a_list_without_its_sign_is_answered_with_it(results: Any, labelled: tuple[Path, list[str]]) -> None:
    (row,) = results(labelled[0], code=3)
    assert row["error"] == "it is text and no video; a list of videos is named as '@val.csv'"


# What is unsure


@pytest.mark.parametrize(("given", "limit"), [("100", 1.0), ("99.5%", 0.995), ("0.98", 0.98)])
def test_below_the_score_that_the_user_names_labels_are_unsure(
    given: str, limit: float, predict: Any, scenes: Path
) -> None:
    result = predict(scenes / "a.mp4", "--every", 0.5, "--min-score", given, "--srt", "a.srt", "--json")
    (row,) = json.loads(result.stdout)["results"]
    assert row["unsure_below"] == limit
    assert row["predictions"][0]["label"] in NAMES  # who reads JSON may judge for himself
    assert Path("a.srt").read_text().splitlines()[2].startswith("unsure (")
    text = predict(scenes / "a.mp4", "--every", 0.5, "--min-score", given).stdout
    assert f"unsure: no label reaches {limit:.1%}" in text
    assert re.search(r"^  00:00\.0 - 00:01\.6  unsure ", text, re.MULTILINE)


@pytest.mark.parametrize("given", ["0", "0.9%"])  # a percent of its own is less than any best of five classes
def test_above_it_nothing_is_said(given: str, results: Any, scenes: Path) -> None:
    (row,) = results(scenes / "a.mp4", "--every", 0.5, "--min-score", given)
    assert "unsure_below" not in row


@pytest.mark.parametrize(
    ("given", "said"),
    [("101", "not a percentage"), ("some", "not a percentage"), ("nan", "not a percentage"), ("-1", "not a percentage"),
     ("-0.5", "write 30, 30% or 0.3 for 30%")],
)  # fmt: skip
def test_a_score_that_is_no_percentage_is_refused(given: str, said: str, predict: Any, scenes: Path) -> None:
    result = predict(scenes / "a.mp4", f"--min-score={given}")
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())


def test_results_of_another_limit_are_never_mixed(predict: Any, scenes: Path) -> None:
    predict(scenes / "a.mp4", "--output", "run")
    result = predict(scenes / "a.mp4", "--output", "run", "--min-score", "50")
    assert isinstance(result.exception, DualFormerError)
    assert "--min-score" in str(result.exception)


# What was written


def test_what_was_written_is_said_at_the_end(predict: Any, scenes: Path) -> None:
    files = ("--csv", "t.csv", "--features", "f.npz", "--report", "page.html")
    result = predict(scenes / "a.mp4", scenes / "b.mp4", "--srt", "subtitles/", "--save", "new/videos/", *files)
    assert result.stderr.splitlines()[-5:] == [
        "wrote t.csv",
        "wrote f.npz",
        "wrote page.html",
        "wrote 2 SRT files in subtitles",
        "wrote 2 MP4 files in new/videos",
    ]
    assert sorted(os.listdir("subtitles")) == ["a.srt", "b.srt"]
    assert sorted(os.listdir("new/videos")) == ["a.mp4", "b.mp4"]
    run = predict(scenes / "a.mp4", "--output", "run", "--segments", "s.csv", "--every", "1").stderr.splitlines()
    assert run[-1] == "wrote s.csv"
    assert {"wrote run/predictions.jsonl", "wrote run/predictions.csv"} <= set(run)
    single = predict(scenes / "a.mp4", "--srt", "a.srt", "--json")
    assert single.stderr.splitlines()[-1] == "wrote a.srt"
    json.loads(single.stdout)


def test_a_folder_that_cannot_be_made_is_named(predict: Any, scenes: Path) -> None:
    Path("file").write_text("")
    result = predict(scenes / "a.mp4", "--srt", "file/inside/")
    assert result.exit_code == 2
    assert "cannot make the folder 'file/inside/'" in " ".join(result.stderr.split())


def test_sound_that_could_not_be_saved_is_a_warning(
    results: Any, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dualformer_cli.outputs import annotated_video

    monkeypatch.setattr(annotated_video, "save_annotated", lambda *_, **__: "it ends at 1.0 s: x")
    monkeypatch.setattr(prediction_outputs, "path_in_own_folder", lambda target: nullcontext(target))
    (row,) = results(scenes / "a.mp4", "--save", "x.mp4")
    assert row["warnings"] == ["saved without some or all of its sound: it ends at 1.0 s: x"]
    assert row["status"] == "ok"


def test_a_font_that_is_none_is_refused_before_any_work(predict: Any, scenes: Path) -> None:
    Path("own.ttf").write_text("no font")
    result = predict(scenes / "a.mp4", "--save", "x.mp4", "--font", "own.ttf")
    assert "--font 'own.ttf' is not a font" in str(result.exception)
    result = predict(scenes / "a.mp4", "--font", "own.ttf")
    assert "--font is that of the labels in --save" in str(result.exception)


# Live


def transport_stream(num_frames: int) -> bytes:
    written = io.BytesIO()
    with av.open(written, "w", format="mpegts") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 96, 64, "yuv420p", 5
        for number in range(num_frames):
            pixels = np.full((64, 96, 3), 4 * number % 255, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return written.getvalue()


@contextmanager
def sender(data: bytes, seconds: float = 0) -> Iterator[str]:
    """Yield the address of a sender that plays a stream, in so long a time, to whoever comes first and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError), server.accept()[0] as connection:
                for piece in range(100):
                    connection.sendall(data[len(data) * piece // 100 : len(data) * (piece + 1) // 100])
                    time.sleep(seconds / 100)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
        thread.join(5)


def test_a_live_stream_becomes_segments_until_it_ends(predict: Any, scenes: Path) -> None:
    with sender(transport_stream(60)) as address:
        result = predict(address, scenes / "a.mp4", "--every", 0.5, "--json", "--csv", "t.csv", "--features", "f.npz")
    assert result.exit_code == 0
    file, live = json.loads(result.stdout)["results"]
    assert (file["path"], live["path"], live["status"]) == (str(scenes / "a.mp4"), address, "ok")
    assert (live["num_frames"], live["fps"]) == (None, None)
    assert live["views"] >= 1
    starts = [segment["start_seconds"] for segment in live["segments"]]
    assert starts == sorted(starts)
    assert 0 <= starts[0] < 60 / 25  # frames that came while the reader was busy are skipped, the first ones too
    assert live["segments"][-1]["end_seconds"] == live["duration_seconds"] <= 60 / 25
    assert len(live["predictions"]) == 5
    with np.load("f.npz") as stored:
        assert stored["path"].tolist() == [file["path"]] * file["views"] + [address] * live["views"]


def test_a_live_stream_is_shown_clip_by_clip_and_stops_in_time(predict: Any) -> None:
    with sender(transport_stream(200), seconds=8) as address:  # at once, a slow reader would find its end first
        result = predict(address, "--every", 0.2, "--duration", 2)
    assert result.exit_code == 0
    clips = result.stdout.split(address)[0]
    assert clips.endswith("\n\n")
    lines = clips.splitlines()[:-1]
    pattern = re.compile(r"    (00:0\d\.\d) -   (00:0\d\.\d)  ( \d\d|  \d|100)\.\d%  [█▏▎▍▌▋▊▉ ]{10}  \S.*")
    spans = [match.groups()[:2] for match in map(pattern.fullmatch, lines) if match is not None]
    assert len(spans) == len(lines) >= 2
    assert all(end == start for (_, end), (start, _) in itertools.pairwise(spans))  # one kind of times, without gaps


def test_a_live_stream_is_told_in_lines_of_json_while_it_plays(predict: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[float] = []
    print_json = json_text.print_json

    def timed(document: Any, **options: Any) -> None:
        times.append(time.monotonic())
        print_json(document, **options)

    monkeypatch.setattr(json_text, "print_json", timed)
    with sender(transport_stream(200), seconds=8) as address:
        result = predict(address, "--every", 0.2, "--duration", 2, "--json-lines")
    *clips, last = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(clips) >= 2
    assert {(clip["path"], len(clip["predictions"])) for clip in clips} == {(address, 5)}
    assert (last["path"], last["status"], last["views"]) == (address, "ok", len(clips))
    assert [clip["end_seconds"] for clip in clips[:-1]] == [clip["start_seconds"] for clip in clips[1:]]
    assert last["segments"][-1]["end_seconds"] == clips[-1]["end_seconds"]
    assert times[0] < times[-2]  # as they come


def test_lines_of_json_are_the_results_of_the_document(predict: Any, results: Any, scenes: Path) -> None:
    arguments = (scenes / "a.mp4", scenes.parent / "none.mp4", scenes / "b.mp4", "--every", 0.5)
    lines = [json.loads(line) for line in predict(*arguments, "--json-lines").stdout.splitlines()]
    expected = results(*arguments, code=3)
    for row in (*lines, *expected):
        row.pop("timing", None)
    assert lines == expected


@pytest.mark.parametrize("other", [("--json",), ("--output", "run")])
def test_lines_of_json_go_with_nothing_that_prints_otherwise(
    other: tuple[str, ...], predict: Any, scenes: Path
) -> None:
    result = predict(scenes / "a.mp4", "--json-lines", *other)
    assert result.exit_code == 2
    assert "--json-lines" in result.stderr


def test_a_sender_that_is_not_there_is_a_named_row_without_its_password(results: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    (row,) = results(f"rtsp://me:secret@127.0.0.1:{port}/live", code=3)
    assert row["path"] == f"rtsp://***@127.0.0.1:{port}/live"
    assert row["error"] == "connection refused; is the address right and the sender running?"


def test_ctrl_c_ends_the_live_inputs_keeps_what_was_seen_and_exits_130(
    predict: Any, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(predictions, "print_clip", interrupt)
    with sender(transport_stream(60)) as address:
        result = predict(scenes / "a.mp4", address, "tcp://127.0.0.1:9", "--csv", "t.csv")
    assert result.exit_code == 130
    with open("t.csv", encoding="utf-8", newline="") as file:
        assert {row["path"]: row["status"] for row in csv.DictReader(file)} == {
            str(scenes / "a.mp4"): "ok",
            address: "ok",
        }


# Real processes


def test_a_process_prints_one_document_and_leaves_with_3_when_some_failed(
    scenes: Path, model_options: list[str], tmp_path: Path, mini_preset: Path, mini_weights: Path
) -> None:
    damage(tmp_path, scenes / "a.mp4")
    shutil.copy(scenes / "b.mp4", tmp_path / "new\nline 🎬 [x].mp4")
    code, stdout, stderr = run(
        *model_options, "-", tmp_path, "--views", "2x3", "--json", "--save", ".", input=f"{scenes}/a.mp4\n"
    )
    assert code == 3
    document = json.loads(stdout)
    assert {name: value for name, value in document.items() if name != "results"} == {
        "preset": str(mini_preset),
        "weights": str(mini_weights),
        "weights_sha256": hashlib.sha256(mini_weights.read_bytes()).hexdigest(),
        "device": "cpu",
        "precision": "fp32",
        "views": "2x3",
        "fallback": None,
    }
    rows = {os.path.basename(row["path"]): row for row in document["results"]}
    assert {name for name, row in rows.items() if row["status"] == "ok"} == {"a.mp4", "new\nline 🎬 [x].mp4"}
    assert len(rows) == 9
    ok = rows["a.mp4"]
    assert list(ok) == ["path", "status", "num_frames", "fps", "duration_seconds", "views", "predictions", "timing"]
    assert (ok["num_frames"], ok["fps"], ok["duration_seconds"], ok["views"]) == (40, 25.0, 1.6, 6)
    assert [list(entry) for entry in ok["predictions"]] == [["label", "index", "score"]] * 5
    assert all(NAMES[entry["index"]] == entry["label"] for entry in ok["predictions"])
    assert sum(entry["score"] for entry in ok["predictions"]) == pytest.approx(1)
    assert sorted(os.listdir()) == ["a.mp4", "new\nline 🎬 [x].mp4"]
    assert len(frames_of(Path("a.mp4"))) == 40
    assert stderr.splitlines()[0].startswith(f"{mini_preset}, ")
    assert "Traceback" not in stderr


def test_two_processes_give_the_document_the_files_and_the_exit_code_of_one(
    scenes: Path, model_options: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "b broken.mp4").write_bytes(b"no video")
    for name in ("a.mp4", "c.mp4", "d.mp4"):
        shutil.copy(scenes / "a.mp4", folder / name)
    documents = []
    for processes in ([], ["--cpu-processes", "2"]):
        target = tmp_path / f"subtitles {len(processes)}"
        target.mkdir()
        code, stdout, stderr = run(*model_options, folder, "--json", "--srt", target, *processes)
        assert code == 3, stderr
        assert len(sorted(target.glob("*.srt"))) == 3
        document = json.loads(stdout)
        for result in document["results"]:
            result.pop("timing", None)
        documents.append(document)
    assert [os.path.basename(row["path"]) for row in documents[0]["results"]] == sorted(os.listdir(folder))
    assert documents[1] == documents[0]


def test_several_processes_refuse_one_stdin(scenes: Path, model_options: list[str]) -> None:
    code, stdout, stderr = run(*model_options, "-", "--cpu-processes", "2", input=f"{scenes}/a.mp4\n")
    assert (code, stdout) == (2, "")
    assert "several processes cannot read one stdin; give @list.txt" in " ".join(stderr.split())


def test_an_error_of_a_process_is_one_line_and_exit_1(scenes: Path) -> None:
    code, stdout, stderr = run(scenes / "a.mp4", "--preset", "k400-tinny", "--json")
    assert (code, stdout) == (1, "")
    assert re.fullmatch(r"dualformer: preset 'k400-tinny' not found; did you mean 'k400-tiny'\?.*\n", stderr)


def test_a_decoder_without_progress_is_killed_and_named(tmp_path: Path, model_options: list[str]) -> None:
    folder = tmp_path / "slow"
    folder.mkdir()
    PIL.Image.new("RGB", (7000, 7000)).save(folder / "img_00001.png")  # takes ten times longer than it is given
    (folder / "img_00002.png").symlink_to(folder / "img_00001.png")
    arguments = ["predict", *model_options, str(folder), "--json", "--set", "data.decode_timeout_seconds=0.03"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 3
    (row,) = json.loads(result.stdout)["results"]
    assert (row["path"], row["error"]) == (str(folder), "decoder made no progress for 0.03 s")


def children(pid: int) -> set[int]:
    """Processes below this one."""
    below: set[int] = set()
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError, IndexError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid:
                below |= {int(entry.name)} | children(int(entry.name))
    return below


def is_running(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.parametrize(("number", "code", "said"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "")])
def test_a_signal_while_a_video_is_saved_leaves_no_file_and_no_process(
    number: signal.Signals, code: int, said: str, model_options: list[str], clip_drawer: Any
) -> None:
    clip_drawer(Path("long.mp4"), num_frames=800, size=(160, 96))
    Path("out").mkdir()
    with start(*model_options, "long.mp4", "--save", "out", "--csv", "t.csv") as process:
        deadline = time.monotonic() + 60
        while not any(Path("out").glob(".*/.*")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        below = children(process.pid)
        assert below
        process.send_signal(number)
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == code
    assert said in stderr
    assert "Traceback" not in stderr
    assert os.listdir("out") == []
    assert not Path("t.csv").exists()
    deadline = time.monotonic() + 10
    while any(map(is_running, below)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_running, below))


def test_a_reader_that_leaves_ends_the_command_quietly(scenes: Path, model_options: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with start(*model_options, scenes, stdout=writer) as process:
        os.close(writer)
        _, stderr = process.communicate(timeout=300)
    assert process.returncode == 141
    assert "Traceback" not in stderr


def test_a_file_behind_an_address_is_a_file_and_named_by_its_address(
    results: Any, predict: Any, scenes: Path, web: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUALFORMER_CACHE", str(tmp_path))
    clip = sorted(scenes.glob("*.mp4"))[0]
    web.files = {"/one.mp4": clip.read_bytes()}
    one, gone = f"{web.address}/one.mp4?key=hush", f"{web.address}/gone.mp4"
    rows = results(one, gone, clip, code=3)
    by_path = {row["path"]: row for row in rows}
    assert list(by_path[f"{web.address}/one.mp4?***"]["predictions"]) == list(by_path[str(clip)]["predictions"])
    assert by_path[f"{web.address}/one.mp4?***"]["num_frames"] == by_path[str(clip)]["num_frames"]
    assert by_path[gone]["error"].startswith("not found, the file was moved or deleted")
    num_asked = len(web.requests)
    (again,) = results("--offline", one)
    assert (again["status"], len(web.requests)) == ("ok", num_asked)
    refused = predict("--offline", f"{web.address}/other.mp4")
    assert refused.exit_code == 3
    assert "offline, and it was not fetched before" in refused.output
