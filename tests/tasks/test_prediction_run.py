"""A run folder: what is done is kept and not done again, and the files are those of an unbroken run."""

from __future__ import annotations

import csv
import errno
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from typer.testing import CliRunner
from warm import WarmPython

from dualformer_cli.app import app
from dualformer_cli.documents.predict import VideoResult
from dualformer_cli.engine import engine
from dualformer_cli.engine.engine import Engine
from dualformer_cli.engine.parallel.shared_work import SharedWork
from dualformer_cli.errors import DualFormerError
from dualformer_cli.system.workers import WorkerDied, WorkerTimeout
from dualformer_cli.tasks import prediction_index, prediction_run, session
from dualformer_cli.tasks.predict import PredictRequest, predict
from dualformer_cli.tasks.session import ModelRequest


@pytest.fixture
def model(mini_preset: Path, mini_weights: Path) -> ModelRequest:
    return ModelRequest(preset=str(mini_preset), weights=str(mini_weights), device="cpu")


@pytest.fixture
def folder(tmp_path: Path, clip_drawer: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three clips and a file that is none, in `clips` of the current folder."""
    monkeypatch.chdir(tmp_path)
    Path("clips").mkdir()
    for name in ("a", "b", "c"):
        clip_drawer(Path("clips", f"{name}.mp4"), num_frames=20 + ord(name) % 7)
    Path("clips", "d.mp4").write_bytes(b"no video")
    return tmp_path


@pytest.fixture
def read_paths(monkeypatch: pytest.MonkeyPatch, here_pool: Any) -> list[str]:
    """The videos that were read, in order; they are decoded in this process."""
    monkeypatch.setattr(session, "WorkerPool", here_pool)
    seen: list[str] = []
    whole = Engine.predict

    def spy(self: Engine, paths: Iterator[str], *others: Any, **options: Any) -> Any:
        def noted() -> Iterator[str]:
            for path in paths:
                seen.append(path)
                yield path

        return whole(self, noted(), *others, **options)

    monkeypatch.setattr(Engine, "predict", spy)
    return seen


def run(model: ModelRequest, *, output: str = "run", inputs: tuple[str, ...] = ("clips",), **options: Any) -> Any:
    return predict(PredictRequest(model=model, inputs=inputs, output=Path(output), **options))


def lines(output: str = "run") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(output, "predictions.jsonl").read_text().splitlines()]


def test_the_files_hold_what_predict_without_a_folder_says(
    folder: Path, model: ModelRequest, read_paths: list[str]
) -> None:
    document = run(model, every_seconds=0.4, features=Path("run/features.npz"))
    videos = document.videos
    assert (videos.listed, videos.ok, videos.failed, videos.kept, videos.lost) == (4, 3, 1, 0, 0)
    plain = predict(PredictRequest(model=model, inputs=("clips",), every_seconds=0.4, csv=Path("t.csv")))
    for line, result in zip(lines(), plain.results, strict=True):
        assert (line["path"], line["status"], line.get("error")) == (result.path, result.status, result.error)
        assert [row["score"] for row in line["predictions"]] == [row.score for row in result.predictions]
        assert [row["end_seconds"] for row in line.get("segments", ())] == [
            row.end_seconds for row in result.segments or ()
        ]
        assert "timing" not in line
    assert Path("run/predictions.csv").read_bytes() == Path("t.csv").read_bytes()
    predict(PredictRequest(model=model, inputs=("clips",), every_seconds=0.4, features=Path("f.npz")))
    with np.load("run/features.npz") as kept, np.load("f.npz") as expected:
        assert sorted(kept) == ["end_seconds", "features", "path", "start_seconds"]
        for name in kept:
            np.testing.assert_array_equal(kept[name], expected[name])
    assert Path("run/features.npz").read_bytes() == Path("f.npz").read_bytes()


def test_what_is_done_is_not_read_again_unless_it_changed_or_could_not_be_read(
    folder: Path, model: ModelRequest, read_paths: list[str], clip_drawer: Callable[..., Path]
) -> None:
    inputs = ("clips", "clips/e.mp4")
    run(model, inputs=inputs)
    before = Path("run/predictions.jsonl").read_bytes()
    assert read_paths == [f"clips/{name}.mp4" for name in "abcde"]
    read_paths.clear()
    document = run(model, inputs=inputs)
    assert read_paths == ["clips/e.mp4"], "only what is missing is tried again"
    assert document.videos.kept == 4
    assert Path("run/predictions.jsonl").read_bytes() == before
    read_paths.clear()
    clip_drawer(Path("clips", "b.mp4"), num_frames=33)
    clip_drawer(Path("clips", "e.mp4"))
    document = run(model, inputs=inputs)
    assert read_paths == ["clips/b.mp4", "clips/e.mp4"]
    assert (document.videos.ok, document.videos.failed) == (4, 1)
    assert [line["num_frames"] for line in lines()] == [26, 33, 21, None, 40]


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception, name: str = "b.mp4") -> None:
    """Have one video fail in its decoder."""
    whole = engine.read_views

    def read(path: str, *given: Any, **options: Any) -> Any:
        if Path(path).name == name:
            raise error
        return whole(path, *given, **options)

    monkeypatch.setattr(engine, "read_views", read)


def test_a_file_on_which_the_decoder_was_given_up_is_tried_again_with_more_patience_alone(
    folder: Path, model: ModelRequest, read_paths: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        failing(patch, WorkerTimeout("b.mp4", 20.0))
        assert run(model).videos.failed == 2
        assert lines()[1]["error"] == "decoder made no progress for 20 s"
        for seconds, read in ((None, []), (15, []), (30, ["clips/b.mp4"])):
            read_paths.clear()
            overrides = () if seconds is None else (f"data.decode_timeout_seconds={seconds}",)
            assert run(replace(model, overrides=overrides)).videos.failed == 2
            assert read_paths == read
    read_paths.clear()
    document = run(replace(model, overrides=("data.decode_timeout_seconds=60",)))
    assert read_paths == ["clips/b.mp4"]
    assert (document.videos.ok, document.videos.failed, document.videos.kept) == (3, 1, 3)
    read_paths.clear()
    assert run(model).videos.ok == 3
    assert read_paths == []


@pytest.mark.parametrize("error", [WorkerDied("b.mp4", -9), WorkerTimeout("b.mp4", 20.0)])
def test_what_failed_is_tried_again_when_asked_and_what_did_not_is_kept(
    error: Exception, folder: Path, model: ModelRequest, read_paths: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        failing(patch, error)
        assert run(model).videos.failed == 2
    read_paths.clear()
    assert (run(model).videos.failed, read_paths) == (2, [])
    document = run(model, retry_failed=True)
    assert read_paths == ["clips/b.mp4", "clips/d.mp4"]
    assert (document.videos.ok, document.videos.failed, document.videos.kept) == (3, 1, 2)
    read_paths.clear()
    assert (run(model).videos.ok, read_paths) == (3, [])


def test_a_video_for_which_a_gpu_had_no_memory_is_tried_again(
    folder: Path, model: ModelRequest, read_paths: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        failing(patch, torch.OutOfMemoryError("CUDA out of memory"))
        assert run(model).videos.failed == 2
    read_paths.clear()
    assert run(model).videos.ok == 3
    assert read_paths == ["clips/b.mp4"]


def test_folders_and_patterns_without_videos_are_said_and_counted_as_videos_are(
    folder: Path, model: ModelRequest, read_paths: list[str]
) -> None:
    Path("empty").mkdir()
    said: list[tuple[str, str | None]] = []
    totals: list[int] = []

    @contextmanager
    def watching(total: Callable[[], int]) -> Iterator[Callable[[VideoResult], None]]:
        def note(result: VideoResult) -> None:
            said.append((result.path, result.error))
            totals.append(total())

        yield note

    inputs = ("empty", "clips", "none/*.mp4")
    predict(PredictRequest(model=model, inputs=inputs, output=Path("run")), watching=watching)
    assert [path for path, _ in said[:4]] == ["clips/a.mp4", "clips/b.mp4", "clips/c.mp4", "clips/d.mp4"]
    assert said[4:] == [
        ("empty", "the folder holds no videos and no numbered frames"),
        ("none/*.mp4", "the pattern matches no videos"),
    ]
    assert totals[-1] == 6


def test_other_settings_are_refused_with_the_difference_before_a_model_is_loaded(
    folder: Path, model: ModelRequest, read_paths: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(model)
    monkeypatch.delattr(Engine, "__init__")
    for options, said in (
        ({"top_k": 2}, "--top-k was 5 and is 2"),
        ({"every_seconds": 1.0}, "--every was not given and is 1"),
        ({"features": Path("run/f.npz")}, "--features was not given and is given"),
    ):
        with pytest.raises(DualFormerError, match=f"'run' holds predictions of other settings: {said}; name another"):
            run(model, **options)
    other = Path("other.pt")
    other.write_bytes(b"other weights")
    for options, said in (
        ({"views": (3, 1)}, r"data\.test\.num_clips was 2 and is 3"),
        (
            {"weights": str(other)},
            f'weights was "{sha256(Path(str(model.weights)).read_bytes()).hexdigest()}" and is "',
        ),
        ({"weights": "random", "seed": 3}, 'and is "random, seed 3"'),
    ):
        with pytest.raises(DualFormerError, match=said):
            run(replace(model, **options))
    assert len(lines()) == 4


@pytest.mark.parametrize("option", ["csv", "srt", "save"])
def test_outputs_of_a_handful_of_videos_are_refused_beside_a_run_folder(
    option: str, folder: Path, model: ModelRequest
) -> None:
    with pytest.raises(DualFormerError, match=f"--{option} goes with a handful of videos"):
        run(model, **({"subtitles": {option: Path("x.srt")}} if option == "srt" else {option: Path("x.srt")}))
    assert not Path("run").exists()


def test_a_line_that_was_cut_off_is_done_again(folder: Path, model: ModelRequest, read_paths: list[str]) -> None:
    run(model)
    before = Path("run/predictions.jsonl").read_bytes()
    (part,) = Path("run/parts").glob("*.jsonl")
    content = part.read_bytes()
    part.write_bytes(content[: content.rindex(b"\n", 0, -1) - 10])  # the third line lacks its end, the fourth is gone
    read_paths.clear()
    run(model)
    assert read_paths == ["clips/c.mp4", "clips/d.mp4"]
    assert Path("run/predictions.jsonl").read_bytes() == before


def test_what_a_killed_run_left_of_its_files_goes(folder: Path, model: ModelRequest, read_paths: list[str]) -> None:
    run(model)
    before = set(os.listdir("run"))
    for name in (".predictions.0123abcd.part.csv", ".page.0123abcd.part.html", ".other.0123abcd.part.csv"):
        Path("run", name).write_text("half")
    run(model, report=Path("run/page.html"))
    assert set(os.listdir("run")) == {*before, "page.html", ".other.0123abcd.part.csv"}


def test_another_run_in_the_same_folder_is_refused(
    folder: Path, model: ModelRequest, read_paths: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = []
    whole = Engine.predict

    def again(self: Engine, *given: Any, **options: Any) -> Any:
        monkeypatch.setattr(Engine, "predict", whole)
        try:
            run(model)
        except DualFormerError as error:
            said.append(str(error))
        return whole(self, *given, **options)

    monkeypatch.setattr(Engine, "predict", again)
    run(model)
    holder = f"process {os.getpid()} on {socket.gethostname()}"
    assert said == [f"another run writes into 'run': {holder}; name another folder"]


def start(*arguments: str) -> subprocess.Popen[str]:
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    return WarmPython(
        [sys.executable, "-m", "dualformer_cli", *arguments],
        env=environ,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def kill_after(process: subprocess.Popen[str], parts: str, num_lines: int) -> None:
    """Kill the command and its workers once its parts hold so many lines."""
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if sum(part.read_bytes().count(b"\n") for part in Path(parts).glob("*.jsonl")) >= num_lines:
            break
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture
def typed_here() -> Iterator[Callable[..., int]]:
    """The function typed_here(*arguments) -> exit code of the command in this process, which computes as others do."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield lambda *arguments: CliRunner().invoke(app, arguments).exit_code
    torch.set_num_threads(threads)


@pytest.mark.parametrize("command", ["predict", "eval"])
def test_runs_that_are_killed_end_with_the_bytes_of_an_unbroken_one(
    command: str, folder: Path, model: ModelRequest, typed_here: Callable[..., int]
) -> None:
    for number in range(12):
        shutil.copy(Path("clips", f"{'abc'[number % 3]}.mp4"), Path("clips", f"n{number}.mp4"))
    Path("list.csv").write_text("".join(f"{path},1\n" for path in sorted(map(str, Path("clips").iterdir()))))
    options = ["--preset", str(model.preset), "--weights", str(model.weights), "--device", "cpu"]
    if command == "predict":
        arguments = ["predict", "clips", *options, "--every", "0.5", "--features", "run/f.npz", "--output", "run"]
        files, parts, resumed = ["run/predictions.jsonl", "run/predictions.csv", "run/f.npz"], "run/parts", arguments
    else:
        arguments = ["eval", *options, "--data", "list.csv", "--dump", "s.jsonl"]
        files, parts, resumed = ["s.jsonl"], "s.jsonl.parts", [*arguments, "--resume"]
    assert typed_here(*arguments) == 3
    expected = [Path(name).read_bytes() for name in files]
    shutil.rmtree("run", ignore_errors=True)
    Path("s.jsonl").unlink(missing_ok=True)
    for num_lines in (2, 6):
        kill_after(start(*resumed), parts, num_lines)
        assert not Path(files[0]).exists(), "the kill came too late"
    assert typed_here(*resumed) == 3
    assert [Path(name).read_bytes() for name in files] == expected
    if command == "eval":
        assert not Path(parts).exists()


def test_scores_of_a_stopped_evaluation_are_not_thrown_away_unasked(folder: Path, model: ModelRequest) -> None:
    from dualformer_cli.tasks.evaluate import EvaluateRequest, evaluate

    Path("s.jsonl.parts").mkdir()
    request = EvaluateRequest(model=model, data="list.csv", dump=Path("s.jsonl"))
    with pytest.raises(DualFormerError, match="holds the scores of a run that was stopped; go on with --resume, or"):
        evaluate(request)


def test_a_list_that_finds_no_room_is_one_line_and_what_is_done_is_kept(
    folder: Path, model: ModelRequest, read_paths: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = sqlite3.connect

    def small(*given: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*given, **options)
        connection.execute("PRAGMA max_page_count = 20")
        return connection

    Path("list.txt").write_text("".join(f"clips/{name}.mp4\n" for name in ("a", "b", *range(2000))))
    monkeypatch.setattr(prediction_index, "_BLOCK", 2)
    monkeypatch.setattr(sqlite3, "connect", small)
    with pytest.raises(DualFormerError) as caught:
        run(model, inputs=("@list.txt",))
    assert str(caught.value) == (
        "the list of inputs, which a temporary file holds while the command runs, cannot be kept: database or disk is "
        f"full; make room in {tempfile.gettempdir()!r}, or set TMPDIR to a folder with some; the same command goes on "
        "from what is done"
    )
    assert read_paths[:2] == ["clips/a.mp4", "clips/b.mp4"]
    monkeypatch.setattr(sqlite3, "connect", connect)
    read_paths.clear()
    document = run(model)
    assert (document.videos.kept, read_paths) == (2, ["clips/c.mp4", "clips/d.mp4"])


def test_names_of_any_kind_come_back(folder: Path, model: ModelRequest, read_paths: list[str]) -> None:
    odd = os.fsdecode(b'clips/\xff, "x"\n.mp4')
    shutil.copy("clips/a.mp4", odd)
    for _ in range(2):
        run(model, inputs=(odd,))
        assert [line["path"] for line in lines()] == [odd]
    with open("run/predictions.csv", encoding="utf-8", errors="surrogateescape", newline="") as file:
        assert {row["path"] for row in csv.DictReader(file)} == {odd}
    assert read_paths == [odd]


def test_a_file_that_kills_decoders_is_tried_once_and_named_in_the_next_run_too(
    tmp_path: Path, model: ModelRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("slow").mkdir()
    PIL.Image.new("RGB", (7000, 7000)).save("slow/img_00001.png")  # takes ten times longer than it is given
    Path("slow/img_00002.png").symlink_to("img_00001.png")
    impatient = replace(model, overrides=("data.decode_timeout_seconds=0.03",))
    first = run(impatient, inputs=("slow",))
    before = Path("run/predictions.jsonl").read_bytes()
    again = run(impatient, inputs=("slow",))
    assert [(each.videos.failed, each.videos.kept) for each in (first, again)] == [(1, 0), (1, 1)]
    assert [line["error"] for line in lines()] == ["decoder made no progress for 0.03 s"]
    assert Path("run/predictions.jsonl").read_bytes() == before


def test_a_file_that_its_owner_hides_is_tried_again(
    folder: Path, model: ModelRequest, read_paths: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as hidden:
        hidden.setattr(prediction_run, "opened", refuse)
        run(model, inputs=("clips/a.mp4", "clips/d.mp4"))
    read_paths.clear()
    for expected in (["clips/d.mp4"], []):
        assert run(model, inputs=("clips/a.mp4", "clips/d.mp4")).videos.failed == 1
        assert read_paths == expected
        read_paths.clear()


@pytest.fixture
def lose(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """The function lose(*paths): from now on a process dies that has these in hand."""

    whole = SharedWork.in_order

    def start(*paths: str) -> None:
        def in_order(self: SharedWork[Any], items: Iterable[Any], work: Any) -> Iterator[Any]:
            drawn = list(items)
            self.lost_items = [item for item in drawn if item in paths or item[0] in paths]
            return whole(self, [item for item in drawn if item not in self.lost_items], work)

        monkeypatch.setattr(SharedWork, "in_order", in_order)

    return start


def test_a_lost_video_is_counted_and_an_old_result_of_it_is_not_shown(
    folder: Path, model: ModelRequest, read_paths: list[str], clip_drawer: Callable[..., Path], lose: Any
) -> None:
    run(model, inputs=("clips/a.mp4", "clips/b.mp4"))
    clip_drawer(Path("clips", "b.mp4"), num_frames=33)
    lose("clips/b.mp4", "clips/c.mp4")
    videos = run(model).videos
    assert (videos.listed, videos.ok, videos.failed, videos.kept, videos.lost) == (4, 1, 1, 1, 2)
    assert [line["path"] for line in lines()] == ["clips/a.mp4", "clips/d.mp4"]
    lose()
    assert run(model).videos.ok == 3
    assert [line["num_frames"] for line in lines()] == [26, 33, 21, None]


def test_a_lost_video_is_named_without_a_folder_too(
    folder: Path, model: ModelRequest, read_paths: list[str], lose: Any
) -> None:
    lose("clips/b.mp4")
    document = predict(PredictRequest(model=model, inputs=("clips",), csv=Path("t.csv")))
    errors = {result.path: result.error for result in document.results if result.error is not None}
    assert errors["clips/b.mp4"] == "lost: the process that had it in hand has died; classify it again"
    assert sorted(errors) == ["clips/b.mp4", "clips/d.mp4"]
    assert "clips/b.mp4,error,lost: the process" in Path("t.csv").read_text()


def test_a_video_in_an_archive_is_read_again_only_if_the_archive_changed(
    folder: Path, model: ModelRequest, read_paths: list[str]
) -> None:
    def pack(*names: str) -> None:
        with tarfile.open("shard.tar", "w") as archive:
            for name in names:
                archive.add(f"clips/{name}.mp4", f"{name}.mp4")

    pack("a", "d")
    for expected in (["shard.tar/a.mp4", "shard.tar/d.mp4"], []):
        videos = run(model, inputs=("shard.tar",)).videos
        assert (videos.ok, videos.failed, read_paths) == (1, 1, expected)
        read_paths.clear()
    pack("a", "b", "d")
    assert run(model, inputs=("shard.tar",)).videos.ok == 2
    assert read_paths == [f"shard.tar/{name}.mp4" for name in "abd"]


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("/sys/dualformer/run", "not permitted|[Pp]ermission denied|[Rr]ead-only"),
        ("clips/a.mp4/run", "is not a folder"),
    ],
)
def test_a_folder_that_cannot_be_made_is_one_line_before_any_work(
    output: str, reason: str, folder: Path, model: ModelRequest, read_paths: list[str]
) -> None:
    with pytest.raises(DualFormerError) as caught:
        run(model, output=output)
    assert re.fullmatch(f".*{output}.*({reason}).*", str(caught.value))
    assert read_paths == []


def test_the_parquet_file_has_the_rows_of_the_table(folder: Path, model: ModelRequest, read_paths: list[str]) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed: pip install dualformer[parquet]")
    document = run(model, every_seconds=0.4)
    assert document.files[2] == "run/predictions.parquet"
    table = parquet.read_table("run/predictions.parquet").to_pylist()
    with open("run/predictions.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [list(row) for row in table] == [list(row) for row in rows]
    for found, expected in zip(table, rows, strict=True):
        texts = {name: "" if value is None else str(value) for name, value in found.items()}
        assert texts == expected
    assert {type(row["score"]) for row in table} == {float, type(None)}
