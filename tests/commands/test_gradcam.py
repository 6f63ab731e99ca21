"""`dualformer gradcam`: files, document and messages, on a model that computes in milliseconds."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import PIL.Image
import pytest
import warm
from typer.testing import CliRunner

import dualformer_cli
from dualformer_cli.app import app
from dualformer_cli.errors import DualFormerError
from dualformer_cli.outputs import heatmap
from dualformer_cli.tasks import session

pytestmark = pytest.mark.usefixtures("_own_environment")


@pytest.fixture
def run(mini_preset: Path, mini_weights: Path, here_pool: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """The function run(*arguments) -> the runner's result; files are decoded in this process."""
    monkeypatch.setattr(session, "WorkerPool", here_pool)

    def invoke(*arguments: Any) -> Any:
        options = ["gradcam", "--preset", str(mini_preset), "--weights", str(mini_weights)]
        return CliRunner().invoke(app, [*options, *map(str, arguments)])

    return invoke


@pytest.fixture
def document(run: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """The function document(*arguments) -> the JSON document of a run that succeeds."""

    def invoke(*arguments: Any) -> dict[str, Any]:
        result = run("--json", *arguments)
        assert result.exit_code == 0, result.output + str(result.exception)
        return dict(json.loads(result.stdout))

    return invoke


def refused(result: Any) -> str:
    assert isinstance(result.exception, DualFormerError), result.output
    return str(result.exception)


def frames_of(path: str | Path) -> list[np.ndarray[Any, Any]]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_the_document_has_what_scripts_rely_on(document: Any, scenes: Path, mini_preset: Path) -> None:
    found = document(scenes / "a.mp4")
    assert found["path"] == str(scenes / "a.mp4")
    assert found["output"] == "a.gradcam.gif"
    assert found["layer"] == "3/1"
    assert set(found["class"]) >= {"index", "label", "score"}
    assert found["preset"] == str(mini_preset)
    assert found["num_frames"] == len(found["frames"]) == len(found["saliency"]) == len(frames_of(found["output"]))
    assert os.listdir() == ["a.gradcam.gif"]


def test_the_class_and_its_score_are_those_of_predict(document: Any, run: Any, scenes: Path) -> None:
    found = document(scenes / "a.mp4")
    arguments = ["predict", str(scenes / "a.mp4"), "--json", "--preset", found["preset"], "--weights", found["weights"]]
    best = json.loads(CliRunner().invoke(app, arguments).stdout)["results"][0]["predictions"][0]
    assert (found["class"]["label"], found["class"]["index"]) == (best["label"], best["index"])
    assert found["class"]["score"] == pytest.approx(best["score"], abs=1e-6)


@pytest.mark.parametrize("name", ["sitting down", "Sitting_Down", "2"])
def test_a_class_is_chosen_by_name_or_number(name: str, document: Any, scenes: Path) -> None:
    chosen = document(scenes / "a.mp4", "--class", name, "--out", "a.png")["class"]
    assert (chosen["index"], chosen["label"]) == (2, "sitting down")


def test_views_are_merged_on_the_timeline_or_shown_one_after_the_other(document: Any, scenes: Path) -> None:
    merged = document(scenes / "a.mp4", "--out", "merged.mp4")
    assert merged["frames"] == sorted(set(merged["frames"]))
    joined = document(scenes / "a.mp4", "--out", "joined.mp4", "--concatenate")
    assert joined["num_frames"] == 2 * 8
    assert len(frames_of("joined.mp4")) == 16
    assert len(frames_of("merged.mp4")) == merged["num_frames"]


@pytest.mark.parametrize("suffix", ["gif", "mp4", "png"])
@pytest.mark.parametrize("flags", [(), ("--side-by-side", "--colormap", "turbo", "--alpha", "0.7")])
def test_each_format_is_written_whole(suffix: str, flags: tuple[str, ...], document: Any, scenes: Path) -> None:
    found = document(scenes / "b.mp4", "--out", f"heat.{suffix}", "--views", "1x3", *flags)
    assert os.listdir() == [f"heat.{suffix}"]
    if suffix == "png":
        with PIL.Image.open("heat.png") as image:
            assert np.asarray(image).std() > 20
    else:
        assert len(frames_of(f"heat.{suffix}")) == found["num_frames"]


def test_the_arrays_are_raw_maps_with_their_frames(document: Any, scenes: Path) -> None:
    found = document(scenes / "a.mp4", "--npz", "maps.npz", "--layer", "2/0", "--views", "2x3", "--out", "a.png")
    with np.load("maps.npz") as arrays:
        assert arrays["heatmaps"].shape == (6, 8, 64, 64)
        assert arrays["heatmaps"].dtype == np.float32
        assert (arrays["heatmaps"].min(), arrays["heatmaps"].max()) == (0, 1)
        assert arrays["grid"].shape == (6, 4, 4, 4)
        assert arrays["frames"].shape == (6, 8)
        assert (arrays["frames"][:3] == arrays["frames"][0]).all()  # the crops of a clip come one after the other
        assert (arrays["frames"][2] < arrays["frames"][3]).all()
        assert str(arrays["layer"]) == found["layer"] == "2/0"
        assert str(arrays["label"]) == found["class"]["label"]
        assert arrays["timeline_frames"].tolist() == found["frames"]
    assert found["npz"] == "maps.npz"


def test_the_deletion_score_comes_with_its_curves(document: Any, scenes: Path) -> None:
    found = document(scenes / "a.mp4", "--deletion", "--out", "a.png", "--views", "1x1")
    curves = found["deletion"]
    assert len(curves["shares"]) == len(curves["hottest_first"]) == len(curves["random_order"])
    assert curves["hottest_first"][0] == pytest.approx(found["class"]["score"], abs=1e-5)
    area = np.trapezoid(curves["random_order"], curves["shares"]) - np.trapezoid(
        curves["hottest_first"], curves["shares"]
    )
    assert curves["score"] == pytest.approx(area)


def test_a_folder_of_frames_and_odd_names_work(document: Any, scenes: Path, tmp_path: Path) -> None:
    folder = tmp_path / "frames é 100%\nnow"
    folder.mkdir()
    for number, frame in enumerate(frames_of(scenes / "a.mp4")[:12]):
        PIL.Image.fromarray(frame).save(folder / f"{number:03d}.png")
    found = document(folder)
    assert found["video"]["num_frames"] == 12
    assert os.path.isfile(found["output"])
    shutil.copy(scenes / "a.mp4", tmp_path / "--json.mp4")
    assert document("--", tmp_path / "--json.mp4")["output"] == "--json.gradcam.gif"


def test_the_layers_can_be_listed_without_an_input(run: Any, document: Any) -> None:
    listed = document("--list-layers")["layers"]
    assert [layer["layer"] for layer in listed] == ["0/0", "0/1", "1/0", "1/1", "2/0", "2/1", "3/0", "3/1"]
    shown = run("--list-layers").stdout
    assert "3/1    global     4 x 2 x 2" in shown


def test_a_result_is_printed_for_readers(run: Any, scenes: Path) -> None:
    shown = run(scenes / "a.mp4", "--out", "a.png", "--npz", "a.npz", "--deletion")
    for text in ("class", "score", "layer", "3/1 of", "deletion"):
        assert text in shown.stdout
    assert shown.stderr.splitlines()[-2:] == ["wrote a.png", "wrote a.npz"]


def test_a_folder_is_made_and_gets_the_picture(run: Any, scenes: Path) -> None:
    shown = run(scenes / "a.mp4", "--out", "maps/new/")
    assert shown.exit_code == 0, shown.output
    assert [path.name for path in Path("maps/new").iterdir()] == ["a.gradcam.gif"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layer", "3/3"], "layer '3/3' not found: {preset} has 2 blocks in stage 3: 3/0, 3/1"),
        (["--class", "runing"], "class 'runing' is none of the model's 5 classes; did you mean 'running'?"),
        (["--out", "heat.jpg"], "--out 'heat.jpg' must end in .gif, .mp4 or .png"),
        (["--npz", "heat.zip"], "--npz 'heat.zip' must end in .npz"),
        (["--out", "no/heat.gif"], "cannot write 'no/heat.gif': folder 'no' does not exist; create it"),
    ],
)
def test_a_wrong_value_is_answered_with_what_is_allowed(
    arguments: list[str], message: str, run: Any, scenes: Path, mini_preset: Path
) -> None:
    assert refused(run(scenes / "a.mp4", *arguments)) == message.format(preset=mini_preset)
    assert os.listdir() == []


@pytest.mark.parametrize("arguments", [["--alpha", "1.5"], ["--fps", "0"], ["--colormap", "jet"], ["--score", "x"]])
def test_a_value_out_of_range_is_a_usage_error(arguments: list[str], run: Any, scenes: Path) -> None:
    assert run(scenes / "a.mp4", *arguments).exit_code == 2


def test_an_existing_output_stays_unless_overwrite_says_so(run: Any, document: Any, scenes: Path) -> None:
    Path("heat.png").write_text("mine")
    message = refused(run(scenes / "a.mp4", "--out", "heat.png"))
    assert message == "'heat.png' exists; name another file or replace it with --overwrite"
    assert Path("heat.png").read_text() == "mine"
    document(scenes / "a.mp4", "--out", "heat.png", "--overwrite")
    assert Path("heat.png").stat().st_size > 1000


def test_what_was_computed_is_printed_even_if_a_file_cannot_be_written(
    run: Any, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise DualFormerError("no space left")

    monkeypatch.setattr(heatmap, "write_sheet", full)
    undrawn = run(scenes / "a.mp4", "--out", "a.png", "--npz", "a.npz", "--json")
    found = json.loads(undrawn.stdout)
    assert (found["output"], found["npz"], found["layer"]) == (None, "a.npz", "3/1")
    assert refused(undrawn) == f"{str(scenes / 'a.mp4')!r} was not drawn: no space left"
    assert os.listdir() == ["a.npz"]
    assert [line for line in undrawn.stderr.splitlines() if line.startswith("wrote")] == ["wrote a.npz"]


def test_the_input_is_never_the_output(run: Any, scenes: Path, tmp_path: Path) -> None:
    shutil.copy(scenes / "a.mp4", "clip.mp4")
    assert "it is one of the inputs" in refused(run("clip.mp4", "--out", "clip.mp4", "--overwrite"))


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "the file is empty (0 bytes)"), (b"\0" * 5000, ""), (None, "no such file or folder")]
)
def test_a_file_that_is_no_video_is_named_and_leaves_nothing(content: bytes | None, reason: str, run: Any) -> None:
    if content is not None:
        Path("bad.mp4").write_bytes(content)
    assert refused(run("bad.mp4")).startswith(f"'bad.mp4': {reason}")
    assert os.listdir() == ([] if content is None else ["bad.mp4"])


def test_one_frame_is_too_short_unless_allowed(run: Any, document: Any, clip_drawer: Any, tmp_path: Path) -> None:
    clip = clip_drawer(tmp_path / "one.mp4", num_frames=1)
    assert "has 1 frame; at least 2 are needed" in refused(run(clip))
    assert document(clip, "--set", "data.min_frames=1")["num_frames"] == 1
    assert document(clip, "--set", "data.min_frames=1", "--out", "one.png")["frames"] == [0]


def test_as_a_process_it_prints_one_document_and_one_line_of_error(
    scenes: Path, mini_preset: Path, mini_weights: Path
) -> None:
    def start(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "dualformer_cli", "gradcam", str(scenes / "a.mp4"), *arguments]
        options = ["--preset", str(mini_preset), "--weights", str(mini_weights)]
        environ = {**os.environ, "PYTHONPATH": str(Path(dualformer_cli.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
        return warm.run([*command, *options], env=environ)

    done = start("--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["output"] == "a.gradcam.gif"
    failed = start("--layer", "9/9", "--out", "b.gif")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.startswith("dualformer: layer '9/9' not found")
    assert len(failed.stderr.splitlines()) == 1
