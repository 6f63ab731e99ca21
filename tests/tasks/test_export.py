"""Weights to give away: small, complete, and as sure as they are right."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hub_server import serve
from safetensors import safe_open
from safetensors.torch import load_file
from typer.testing import CliRunner

import dualformer_cli
from dualformer_cli import create_model, load_weights
from dualformer_cli.app import app
from dualformer_cli.config.load import load_config, to_yaml
from dualformer_cli.config.schema import RuntimeConfig
from dualformer_cli.engine import model_files
from dualformer_cli.engine.scoring.dump import Dump
from dualformer_cli.engine.scoring.records import VideoRecord
from dualformer_cli.engine.training.initial_weights import start_from_video
from dualformer_cli.engine.training.teacher import Student, Teacher
from dualformer_cli.errors import DualFormerError
from dualformer_cli.outputs.runs import write_json_lines
from dualformer_cli.tasks import session
from dualformer_cli.tasks.export import ExportRequest, export
from dualformer_cli.tasks.session import ModelRequest


@pytest.fixture
def checkpoint(mini_preset: Path, tmp_path: Path) -> Path:
    """A checkpoint as training writes it, with what only training needs, and paths of the machine."""
    resolved = load_config(str(mini_preset), overrides=["data.root=/home/me/videos", "data.train_list=/home/me/a.csv"])
    model = create_model(str(mini_preset))
    with torch.no_grad():
        model.classifier.weight.mul_(60)
    state = {**model.state_dict(), "motion_heads.0.linear.weight": torch.zeros(8, 96)}
    contents = {"kind": "dualformer checkpoint", "model": state, "config": to_yaml(resolved.config)}
    torch.save({**contents, "class_names": CLASS_NAMES, "optimizer": {}}, tmp_path / "best.pt")
    return tmp_path / "best.pt"


CLASS_NAMES = ["a", "b", "c, d", "e", "naïve 💃"]


def run(*words: object) -> Any:
    return CliRunner().invoke(app, ["export", *map(str, words)])


def logits_of(preset: Path, weights: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Clips and what the model of the weights makes of them."""
    model = create_model(str(preset)).eval()
    load_weights(model, weights)
    clips = torch.randn(2, 3, 8, 64, 64, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        return clips, model(clips)


def test_weights_lose_what_only_training_needs_and_know_what_they_are(
    checkpoint: Path, mini_preset: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out.safetensors"
    result = run(checkpoint, "--output", target, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert (document["largest_difference"], document["num_bytes"]) == (0, target.stat().st_size)
    assert (document["num_classes"], document["input_shape"], document["half"]) == (5, [None, 3, 8, 64, 64], False)
    with safe_open(target, "pt") as file:
        facts, names = file.metadata(), set(file.keys())
    assert not [name for name in names if name.startswith("motion_heads")]
    assert json.loads(facts["class_names"]) == CLASS_NAMES
    assert (json.loads(facts["input_size"]), json.loads(facts["num_clips"])) == ([8, 64, 64], 2)
    assert (json.loads(facts["mean"]), facts["sampling"]) == ([123.675, 116.28, 103.53], "interval")
    assert "/home/me" not in str(facts)
    assert stat.S_IMODE(target.stat().st_mode) & 0o044, "others may read it, as files that users make"
    _, wanted = logits_of(mini_preset, checkpoint)
    np.testing.assert_array_equal(logits_of(mini_preset, target)[1], wanted)


def test_exported_weights_need_no_preset(checkpoint: Path, clip_drawer: Callable[..., Path], tmp_path: Path) -> None:
    clip = clip_drawer(tmp_path / "clip.mp4")
    run(checkpoint, "--output", tmp_path / "out.safetensors")
    results = []
    for weights in (checkpoint, tmp_path / "out.safetensors"):
        result = CliRunner().invoke(app, ["predict", str(clip), "--weights", str(weights), "--json"])
        assert result.exit_code == 0, result.output
        results.append(json.loads(result.stdout)["results"][0]["predictions"])
    assert results[0] == results[1]
    assert {each["label"] for each in results[0]} == set(CLASS_NAMES)


def test_half_precision_halves_the_file(checkpoint: Path, tmp_path: Path) -> None:
    results = [
        run(checkpoint, "--output", tmp_path / f"{name}.safetensors", *options, "--json")
        for name, options in (("whole", []), ("half", ["--half"]))
    ]
    assert [result.stderr.splitlines()[-1] for result in results] == [
        f"wrote {tmp_path / name}.safetensors" for name in ("whole", "half")
    ]
    whole, half = (json.loads(result.stdout) for result in results)
    assert half["num_bytes"] < 0.7 * whole["num_bytes"]
    assert 0 < half["largest_difference"] < 0.01 * half["largest_logit"]
    kept = load_file(tmp_path / "half.safetensors").values()
    assert {tensor.dtype for tensor in kept if tensor.is_floating_point()} == {torch.float16}


def test_a_graph_in_half_precision_has_logits_in_full(mini_preset: Path) -> None:
    model = create_model(str(mini_preset)).eval()
    clips = model_files.example_clips(model, 1)
    with torch.no_grad():
        wanted, found = model(clips), model_files._InHalf(model)(clips)
    assert found.dtype == torch.float32
    assert found.numpy() == pytest.approx(wanted.numpy(), abs=0.01)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}  # it is a copy


def test_a_pt2_file_computes_what_the_model_does(checkpoint: Path, mini_preset: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.pt2"
    result = run(checkpoint, "--format", "pt2", "--output", target, "--dynamic-batch")
    assert result.exit_code == 0, result.output
    assert "5 classes, any number of clips of 8x64x64" in result.stdout
    extra = {"dualformer.json": ""}
    program = torch.export.load(target, extra_files=extra)
    facts = json.loads(extra["dualformer.json"])
    assert facts["class_names"] == CLASS_NAMES
    assert (facts["std"], facts["short_side"]) == ([58.395, 57.12, 57.375], 64)
    clips, wanted = logits_of(mini_preset, checkpoint)
    for some in (clips, clips[:1], torch.cat([clips, clips])):
        found = program.module()(some)
        assert (found.dtype, found.shape) == (torch.float32, (len(some), 5))
        np.testing.assert_allclose(found[:1].detach(), wanted[:1], atol=1e-5)


def test_an_onnx_file_computes_what_the_model_does(checkpoint: Path, mini_preset: Path, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    target = tmp_path / "out.onnx"
    result = run(checkpoint, "--format", "onnx", "--output", target, "--dynamic-batch", "--half", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert 0 < document["largest_difference"] < 0.01 * document["largest_logit"]
    session = onnxruntime.InferenceSession(str(target), providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["class_names"]) == CLASS_NAMES
    clips, wanted = logits_of(mini_preset, checkpoint)
    np.testing.assert_allclose(session.run(["logits"], {"clips": clips.numpy()})[0], wanted, atol=0.02)


def test_the_example_of_the_page_predicts_without_this_package(
    checkpoint: Path,
    clip_drawer: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    monkeypatch.chdir(tmp_path)
    clip_drawer(tmp_path / "clip.mp4")
    assert run(checkpoint, "--format", "onnx", "--output", "model.onnx").exit_code == 0
    command = ["predict", "clip.mp4", "--weights", str(checkpoint), "--views", "1x1", "--json"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, (result.output, result.exception)
    wanted = json.loads(result.stdout)["results"][0]["predictions"][0]["label"]
    capsys.readouterr()
    page = (Path(dualformer_cli.__file__).parent / "docs" / "export.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert "dualformer" not in example
    exec(example, {})
    assert capsys.readouterr().out == f"{wanted}\n"


def test_a_file_that_computes_something_else_is_not_kept(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_files, "load_model_file", lambda *_: lambda clips: torch.zeros(len(clips), 5))
    result = run(checkpoint, "--output", tmp_path / "out.safetensors")
    assert re.fullmatch(r"the file computes other logits than the model, up to [\d.e-]+ apart", str(result.exception))
    assert [path.name for path in tmp_path.iterdir()] == ["best.pt"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--format", "onnx"], r"--format onnx needs .*: pip install 'dualformer\[onnx\]'"),
        (["--output", "out.pt"], r"--format safetensors makes a \.safetensors file, got 'out\.pt'"),
        (["--dynamic-batch"], "--dynamic-batch is of a graph, --format pt2 or onnx"),
        (["--eval", "eval.json"], "--eval is of a model card, --format hub"),
    ],
)
def test_options_that_do_not_fit_are_refused(words: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_files, "find_spec", lambda name: None)
    assert re.match(message, str(run("none.pt", *words).exception))


def test_weights_that_do_not_say_what_they_are_of_need_a_preset(
    mini_weights: Path, mini_preset: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out.safetensors"
    assert "do not say which model they are of; name its --preset" in str(
        run(mini_weights, "--output", target).exception
    )
    assert run(mini_weights, "--preset", mini_preset, "--output", target).exit_code == 0
    assert "weights 'camera-motoin' not found; did you mean 'camera-motion'?" in str(run("camera-motoin").exception)


def test_a_preset_with_published_weights_is_named_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("camera-motion", "--half", "--offline")
    assert result.exit_code == 0, result.output
    assert result.stderr.splitlines()[-1] == "wrote camera-motion.safetensors"
    with safe_open("camera-motion.safetensors", "pt") as file:
        assert json.loads(file.metadata()["class_names"])[0] == "static"


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    """Scores of one view that are too sure: seven of ten right at 0.9 each."""
    path = tmp_path / "val.jsonl"
    records = [
        VideoRecord(index, f"{index}.mp4", (int(index >= 7),), "scored", None, np.array([[0.9, 0.1]], np.float32))
        for index in range(10)
    ]
    facts: dict[str, str | int | None] = {}
    whole = Dump(records=records, class_names=["a", "b"], multi_label=False, num_clips=1, num_crops=1, facts=facts)
    write_json_lines(whole.rows(), path)
    return path


def test_the_command_divides_by_the_temperature_of_the_dump(checkpoint: Path, dump: Path, tmp_path: Path) -> None:
    """Odds of 9 : 1 are 7 : 3 after a division of the logits by ln 9 / ln (7 / 3) = 2.593."""
    target = tmp_path / "out.safetensors"
    words = [checkpoint, "--calibrate", dump, "--half", "--output", target]
    result = run(*words, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    found = document["calibration"]
    assert found["temperature"] == pytest.approx(2.593, rel=0.01)
    assert (found["videos"], document["num_bytes"]) == (10, target.stat().st_size)
    assert found["calibration_error_before"] == pytest.approx(20, abs=0.01)
    assert found["calibration_error_after"] < 0.5
    written = load_file(target)
    assert {"classifier.weight", "classifier.bias", "norm.weight"} <= set(written)
    for name, tensor in torch.load(checkpoint)["model"].items():
        if name in written and tensor.is_floating_point():
            divisor = 2.593 if name.startswith("classifier.") else 1
            np.testing.assert_allclose(written[name].float(), tensor / divisor, rtol=0.02, atol=1e-4, err_msg=name)
    assert str(run(*words).exception) == f"{str(target)!r} exists; name another file or replace it with --overwrite"
    lines = run(*words, "--overwrite").stdout.splitlines()
    assert "temperature        2.585, from 10 videos" in lines
    assert re.fullmatch(r"calibration error  \d+\.\d\d% before, \d\.\d\d% after", lines[-1])


def test_an_export_is_refused_before_anything_is_read(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(DualFormerError, match=r"folder '.*nodir' does not exist; create it"):
        export(request_of(tmp_path / "none.pt", tmp_path / "nodir" / "x.safetensors"))
    run(checkpoint, "--output", tmp_path / "x.safetensors")
    with pytest.raises(DualFormerError, match="it is one of the inputs"):
        export(request_of(tmp_path / "x.safetensors", tmp_path / "x.safetensors"))


def request_of(weights: Path, output: Path) -> ExportRequest:
    return ExportRequest(model=ModelRequest(weights=str(weights)), format="safetensors", output=output, overwrite=True)


def test_a_dump_without_labels_has_no_temperature(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "val.jsonl"
    whole = Dump(records=[], class_names=["a"], multi_label=False, num_clips=1, num_crops=1, facts={})
    write_json_lines(whole.rows(), path)
    result = run(checkpoint, "--calibrate", path, "--output", tmp_path / "x.safetensors")
    assert "has no scored video with one label" in str(result.exception)


def test_a_folder_for_the_hub_has_the_numbers_of_eval_and_comes_back_from_there(
    checkpoint: Path,
    clip_drawer: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    here_pool: Any,
) -> None:
    monkeypatch.setattr(session, "WorkerPool", here_pool)
    clip = clip_drawer(tmp_path / "clip.mp4")
    (tmp_path / "val.csv").write_text("path,label\nclip.mp4,a\n")
    scored = CliRunner().invoke(
        app,
        [
            "eval",
            "--weights",
            str(checkpoint),
            "--data",
            str(tmp_path / "val.csv"),
            "--set",
            "data.root=null",
            "--json",
        ],
    )
    assert scored.exit_code == 0, (scored.output, scored.exception)
    (tmp_path / "eval.json").write_text(scored.stdout)
    numbers = json.loads(scored.stdout)
    words = ["--format", "hub", "--output", tmp_path / "my-model", "--eval", tmp_path / "eval.json"]
    result = run(checkpoint, *words)
    assert result.exit_code == 0, (result.output, result.exception)
    files = {path.name: path.read_bytes() for path in (tmp_path / "my-model").iterdir()}
    assert sorted(files) == ["README.md", "config.json", "model.safetensors"]
    assert json.loads(files["config.json"])["class_names"] == CLASS_NAMES
    card = files["README.md"].decode()
    front = yaml.safe_load(card.split("---")[1])
    assert (front["pipeline_tag"], front["library_name"]) == ("video-classification", "dualformer")
    metrics = {each["type"]: each["value"] for each in front["model-index"][0]["results"][0]["metrics"]}
    assert (metrics["top1"], metrics["loss"]) == (numbers["top1"], numbers["loss"])
    assert ("top5" in metrics, "top5" in numbers) == (False, True), "of five classes nobody wants to know"
    assert f"| top-1 | {numbers['top1']:.2f}% |" in card
    assert f"1 of 1 videos of `val.csv` (fingerprint `{numbers['list_fingerprint'][:16]}`), 2x1 views, fp32" in card
    assert str(tmp_path) not in card
    assert "exists; name another file or replace it with --overwrite" in str(run(checkpoint, *words).exception)
    with serve("some/model", files, monkeypatch, cache=tmp_path / "hub") as hub:
        for weights, options in (("hf://some/model", []), ("hf://some/model@main", ["--offline"])):
            asked = len(hub.asked)
            command = ["predict", str(clip), "--weights", weights, "--json", *options]
            result = CliRunner().invoke(app, command)
            assert result.exit_code == 0, (result.output, result.exception)
            document = json.loads(result.stdout)
            assert document["weights"] == weights
            assert document["weights_sha256"] == sha256(files["model.safetensors"]).hexdigest()
            assert (len(hub.asked) > asked) is not bool(options)
        model = create_model("hf://some/model", pretrained=True)
        assert model.class_names == CLASS_NAMES
        notes = start_from_video(create_model("hf://some/model", pretrained=True), "hf://some/model", class_names=["a"])
        assert notes[0].startswith("started from hf://some/model: ")
        assert len(load_weights(model, "hf://some/model").fresh) == 0
        student = Student(input_size=(8, 64, 64), grid=(4, 2, 2), class_names=CLASS_NAMES)
        runtime = RuntimeConfig(device="cpu")
        teacher = Teacher("hf://some/model", student, runtime=runtime, device=torch.device("cpu"), offline=True)
        assert teacher.facts.weights_sha256 == sha256(files["model.safetensors"]).hexdigest()


def test_a_card_takes_no_numbers_of_other_weights(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "eval.json").write_text('{"videos": {}, "digest": "0", "weights_sha256": "1", "top1": 99}')
    words = ["--format", "hub", "--output", tmp_path / "my-model", "--eval", tmp_path / "eval.json"]
    assert "is of other weights than" in str(run(checkpoint, *words).exception)
    assert not (tmp_path / "my-model").exists()
    (tmp_path / "eval.json").write_text("[]")
    assert "is not what `dualformer eval --json` prints" in str(run(checkpoint, *words).exception)
    (tmp_path / "my-model").mkdir()
    monkeypatch.chdir(tmp_path / "my-model")
    result = run(checkpoint, "--format", "hub", "--output", ".")
    assert result.exit_code == 0, result.output
    assert f"{checkpoint}, to hub\n" in result.output
    card = (tmp_path / "my-model" / "README.md").read_text()
    assert "Not evaluated." in card
    assert "--weights hf://OWNER/my-model\n" in card
