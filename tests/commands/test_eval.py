"""The options, files and ends of `dualformer eval`."""

from __future__ import annotations

import errno
import json
import os
import re
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NoReturn

import pytest
import warm
from tar_shards import write_shard
from typer.testing import CliRunner

from dualformer_cli.app import app
from dualformer_cli.documents.base import json_schema
from dualformer_cli.documents.evaluate import Evaluation
from dualformer_cli.engine.engine import Engine
from dualformer_cli.engine.scoring import evaluate as scoring
from dualformer_cli.errors import DualFormerError, VideoError
from dualformer_cli.system.workers import WorkerTimeout
from dualformer_cli.tasks import needs
from dualformer_cli.video import remote_videos

RUNNER = CliRunner(env={"COLUMNS": "100"})
NAMES = ["running", "jumping", "sitting down", "waving, both hands", "naïve dancing 💃"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, clip_drawer: Callable[..., Path]) -> Path:
    """Six videos of five classes with good.csv; bad.csv has a missing and a broken one too."""
    folder = tmp_path_factory.mktemp("listed")
    rows = "path,label\n"
    for index in range(6):
        clip_drawer(folder / f"video {index}.mp4", num_frames=20 + 8 * index, size=(72, 64))
        rows += f"video {index}.mp4,{index % 5}\n"
    (folder / "broken.mp4").write_bytes(b"no video")
    (folder / "good.csv").write_text(rows)
    (folder / "bad.csv").write_text(rows + "gone.mp4,1\nbroken.mp4,2\n")
    (folder / "unlabelled.csv").write_text("path\nvideo 0.mp4\nvideo 3.mp4\n")
    return folder


@pytest.fixture
def evaluate(
    _own_environment: None, mini_preset: Path, mini_weights: Path, here_pool: Any, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """The function evaluate(*options) -> result of the command with the mini model, decoding in this process."""
    for module in ("system.workers", "tasks.evaluate", "tasks.session"):
        monkeypatch.setattr(f"dualformer_cli.{module}.WorkerPool", here_pool)

    def run(*options: object) -> Any:
        arguments = ["eval", "--preset", str(mini_preset), "--weights", str(mini_weights)]
        return RUNNER.invoke(app, [*arguments, *map(str, options)])

    return run


def test_a_list_that_is_all_right_ends_with_0_and_says_where_its_numbers_come_from(
    evaluate: Any, folder: Path, mini_weights: Path
) -> None:
    result = evaluate("--data", folder / "good.csv", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["videos"] == {"listed": 6, "scored": 6, "missing": 0, "unreadable": 0, "too_short": 0}
    assert document["top1"] == document["top1_all_listed"]
    assert document["weights"] == str(mini_weights)
    assert re.fullmatch("[0-9a-f]{64}", document["digest"])
    assert re.fullmatch("[0-9a-f]{64}", document["list_fingerprint"])
    assert [row["views"] for row in document["views_curve"]] == [1, 2]
    table = evaluate("--data", folder / "good.csv").stdout
    assert re.search(r"^videos +6 listed, 6 scored", table, re.MULTILINE)
    assert re.search(rf"^top-1 +{document['top1']:.2f}%$", table, re.MULTILINE)
    assert document["digest"] in table


def test_precision_auto_is_fp32_on_any_cpu_as_scores_are_compared(
    evaluate: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dualformer_cli.engine.parallel.devices.multiplies_bf16", lambda: True)
    monkeypatch.setattr("dualformer_cli.engine.engine.BF16_ON_CPU_FROM", 0)
    assert json.loads(evaluate("--data", folder / "good.csv", "--json").stdout)["precision"] == "fp32"


def test_videos_that_cannot_be_scored_are_named_and_end_with_3(evaluate: Any, folder: Path) -> None:
    good = json.loads(evaluate("--data", folder / "good.csv", "--json").stdout)
    result = evaluate("--data", folder / "bad.csv", "--json")
    assert result.exit_code == 3
    document = json.loads(result.stdout)
    assert document["videos"] == {"listed": 8, "scored": 6, "missing": 1, "unreadable": 1, "too_short": 0}
    assert document["top1"] == good["top1"]
    assert document["top1_all_listed"] == pytest.approx(good["top1"] * 6 / 8)
    assert document["digest"] == good["digest"]
    assert "missing: gone.mp4: no such file" in result.stderr
    assert "unreadable: broken.mp4: " in result.stderr


def test_tar_shards_are_scored_as_the_files_in_them(evaluate: Any, folder: Path, tmp_path: Path) -> None:
    members = [(f"v{index}.mp4", folder / f"video {index}.mp4") for index in range(6)]
    labels = [(f"v{index}.cls", str(index % 5)) for index in range(6)]
    write_shard(tmp_path / "x-08.tar", [*labels[:4], *members[:4]])
    write_shard(tmp_path / "x-09.tar", [*members[4:], *labels[4:]])
    files, shards = (
        json.loads(evaluate("--data", source, "--json").stdout)
        for source in (folder / "good.csv", tmp_path / "x-{08..09}.tar")
    )
    assert shards["videos"] == files["videos"]
    for name in ("top1", "top5", "loss", "mean_class_accuracy"):
        assert shards[name] == files[name]
    broken = [("broken.mp4", "no video"), ("broken.cls", "2")]
    write_shard(tmp_path / "x-10.tar", broken)
    result = evaluate("--data", tmp_path / "x-*.tar", "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["videos"] == {**files["videos"], "listed": 7, "unreadable": 1}
    assert "unreadable: x-10.tar/broken.mp4: a text file, not a video" in result.stderr


def test_remote_shards_are_scored_as_local_ones_and_what_cannot_be_had_is_tried_again(
    evaluate: Any, folder: Path, tmp_path: Path, web: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("aiohttp")
    monkeypatch.setenv("DUALFORMER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("dualformer_cli.video.remote_files._WAIT_SECONDS", 0)
    members = [
        member
        for index in range(3)
        for member in ((f"v{index}.cls", str(index)), (f"v{index}.mp4", folder / f"video {index}.mp4"))
    ]
    shard = write_shard(tmp_path / "x-0.tar", [*members, ("broken.mp4", "no video"), ("broken.cls", "2")])
    web.files["/x-0.tar"] = shard.read_bytes()
    remote, dump = f"{web.address}/x-{{0..0}}.tar", tmp_path / "dump.jsonl"
    local = json.loads(evaluate("--data", shard, "--json").stdout)
    result = evaluate("--data", remote, "--json")
    assert result.exit_code == 3
    document = json.loads(result.stdout)
    names = ("videos", "digest", "list_fingerprint", "top1", "loss")
    assert {name: document[name] for name in names} == {name: local[name] for name in names}
    assert "unreadable: x-0.tar/broken.mp4: a text file, not a video" in result.stderr
    fetch = remote_videos.fetch_file

    def lose_one(address: str, target: str, *, member: Any) -> None:
        if member.name == "v1.mp4":
            raise VideoError(address, "cannot be had: the cable is out")
        fetch(address, target, member=member)

    monkeypatch.setattr(remote_videos, "fetch_file", lose_one)
    lost = evaluate("--data", remote, "--dump", dump, "--json")
    assert json.loads(lost.stdout)["videos"] == {**local["videos"], "scored": 2, "missing": 1}
    assert "missing: x-0.tar/v1.mp4: cannot be had: the cable is out" in lost.stderr
    assert list((tmp_path / "cache" / "copies").iterdir()) == []
    refused = evaluate("--data", remote, "--offline")
    assert isinstance(refused.exception, DualFormerError)
    assert str(refused.exception).startswith(f"{remote!r} is not on this machine, and --offline is given")
    web.close()
    silent = evaluate("--data", remote)
    assert isinstance(silent.exception, DualFormerError)
    assert str(silent.exception).startswith(f"list {remote!r}: '{web.address}/x-0.tar': no answer from its server: ")


def test_scores_that_are_gone_on_with_lack_videos_that_were_given_up_sooner_than_now(
    evaluate: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dump, read, seen = tmp_path / "dump.jsonl", scoring.read_views, list[str]()

    def hang(file: str, *given: Any, **options: Any) -> Any:
        seen.append(Path(file).stem)
        if file.endswith("video 1.mp4"):
            raise WorkerTimeout(file, 20.0)
        if file.endswith("video 3.mp4"):
            raise KeyboardInterrupt
        return read(file, *given, **options)

    with monkeypatch.context() as patch:
        patch.setattr(scoring, "read_views", hang)
        assert evaluate("--data", folder / "good.csv", "--dump", dump).exit_code == 1
        patch.setattr(scoring, "read_views", lambda *given, **options: hang("video 3.mp4"))
        assert evaluate("--data", folder / "good.csv", "--dump", dump, "--resume").exit_code == 1
    assert seen == ["video 0", "video 1", "video 2", "video 3", "video 3"]
    patience = ("--set", "data.decode_timeout_seconds=60")
    result = evaluate("--data", folder / "good.csv", "--dump", dump, "--resume", *patience, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["videos"]["scored"] == 6


def test_scores_of_other_settings_are_refused_before_a_model_is_loaded(
    evaluate: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dump = tmp_path / "dump.jsonl"

    def stop(*given: Any, **options: Any) -> NoReturn:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(scoring, "read_views", stop)
        assert evaluate("--data", folder / "good.csv", "--dump", dump).exit_code == 1
    monkeypatch.delattr(Engine, "__init__")
    refused = evaluate("--data", folder / "good.csv", "--dump", dump, "--resume", "--views", "3x1")
    assert isinstance(refused.exception, DualFormerError), refused.exception
    assert "holds scores of other settings: data.test.num_clips was 2 and is 3; name another" in str(refused.exception)


def test_a_dump_gives_the_same_document_without_the_model(evaluate: Any, folder: Path, tmp_path: Path) -> None:
    dump = tmp_path / "dump.jsonl"
    first = evaluate("--data", folder / "bad.csv", "--dump", dump, "--json")
    again = RUNNER.invoke(app, ["eval", "--from-dump", str(dump), "--json"])
    assert (first.exit_code, again.exit_code) == (3, 3)
    assert json.loads(again.stdout) == json.loads(first.stdout)
    rows = [json.loads(line) for line in dump.read_text().splitlines()]
    assert rows[0]["class_names"] == NAMES
    assert [row["status"] for row in rows[1:]] == ["scored"] * 6 + ["missing", "unreadable"]
    assert [len(row["scores"]) for row in rows[1:7]] == [2] * 6
    refused = evaluate("--data", folder / "bad.csv", "--dump", dump)
    assert isinstance(refused.exception, DualFormerError)
    assert str(refused.exception) == f"{str(dump)!r} exists; name another file or replace it with --overwrite"
    assert evaluate("--data", folder / "bad.csv", "--dump", dump, "--overwrite").exit_code == 3


@pytest.mark.parametrize("option", ["--dump", "--report"])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nodir/file", "folder '.*nodir' does not exist; create it"),
        ("", "it is a folder; name a file"),
        ("good.csv", "it is one of the inputs"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_a_video_is_read(
    option: str, name: str, message: str, evaluate: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dualformer_cli.tasks.evaluate.open_session", lambda *_, **__: pytest.fail("work has begun"))
    result = evaluate("--data", folder / "good.csv", option, folder / name, "--overwrite")
    assert result.exit_code == 1
    assert re.search(f"cannot write .*{message}", str(result.exception))
    assert result.stdout == ""


def test_the_result_is_printed_and_the_page_written_even_if_the_dump_cannot_be(
    evaluate: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(rows: Any, path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("dualformer_cli.outputs.runs.write_json_lines", full)
    files = ["--dump", tmp_path / "dump.jsonl", "--report", tmp_path / "page.html"]
    result = evaluate("--data", folder / "good.csv", *files, "--json")
    assert result.exit_code == 1
    assert "No space left on device" in str(result.exception)
    assert json.loads(result.stdout)["videos"]["scored"] == 6
    assert (tmp_path / "page.html").exists()
    assert not (tmp_path / "dump.jsonl").exists()


def test_a_run_to_compare_with_is_read_before_a_video_is(
    evaluate: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dualformer_cli.tasks.evaluate.open_session", lambda *_, **__: pytest.fail("work has begun"))
    result = evaluate("--data", folder / "good.csv", "--compare", folder / "good.csv")
    assert "good.csv' is not a dump of dualformer eval" in str(result.exception)


class Page(HTMLParser):
    """Checks that tags close, and collects the text."""

    VOID = ("meta", "link", "img", "br", "hr", "input", "col")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID and self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_parses_and_needs_nothing_else(evaluate: Any, folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "page.html"
    result = evaluate("--data", folder / "bad.csv", "--report", target)
    assert result.exit_code == 3, result.output
    page = Page()
    page.feed(target.read_text(encoding="utf-8"))
    assert not [tag for tag in page.open if tag in ("html", "body", "table", "tr", "div", "section", "svg")]
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    for text in ("gone.mp4", "broken.mp4", "naïve dancing 💃"):
        assert text in page.text, text


def test_the_page_shows_the_worst_videos_also_from_a_dump_made_elsewhere(
    evaluate: Any, folder: Path, tmp_path: Path
) -> None:
    evaluate("--data", folder / "good.csv", "--dump", tmp_path / "dump.jsonl", "--report", tmp_path / "page.html")
    result = evaluate("--from-dump", tmp_path / "dump.jsonl", "--report", tmp_path / "again.html")
    assert result.exit_code == 0, result.output
    for name in ("page.html", "again.html"):
        page = Page()
        page.feed((tmp_path / name).read_text(encoding="utf-8"))
        pictures = [address for address in page.addresses if address.startswith("data:image/jpeg")]
        assert len(pictures) == sum(1 for line in page.text.split("label: ")[1:]) > 0


def test_two_runs_are_compared(evaluate: Any, folder: Path, mini_preset: Path, tmp_path: Path) -> None:
    assert evaluate("--data", folder / "good.csv", "--dump", tmp_path / "a.jsonl").exit_code == 0
    other = ["--views", "1x1", "--dump", tmp_path / "b.jsonl"]
    assert evaluate("--data", folder / "good.csv", *other).exit_code == 0
    command = ["eval", "--from-dump", str(tmp_path / "a.jsonl"), "--compare", str(tmp_path / "b.jsonl")]
    comparison = json.loads(RUNNER.invoke(app, [*command, "--json"]).stdout)["comparison"]
    assert comparison["videos"] == 6
    table = RUNNER.invoke(app, command).stdout
    assert re.search(r"^compared +with \S*b\.jsonl, 6 videos in both$", table, re.MULTILINE)
    assert re.search(r"^worst classes +\w.* \(\d of \d right\)", table, re.MULTILINE)
    report = tmp_path / "report.html"
    reported = RUNNER.invoke(app, [*command, "--report", str(report)])
    assert (reported.exit_code, reported.stderr) == (0, f"wrote {report}\n")
    page = report.read_text(encoding="utf-8")
    assert "Compared with " in page
    assert "b.jsonl</h2>" in page
    assert "What was taken for what" in page
    assert re.search(r"^McNemar +p = ", table, re.MULTILINE)


def test_a_list_without_labels_gives_predictions_only(evaluate: Any, folder: Path, tmp_path: Path) -> None:
    dump = tmp_path / "dump.jsonl"
    result = evaluate("--data", folder / "unlabelled.csv", "--json", "--dump", dump)
    assert result.exit_code == 0, result.output
    assert result.stderr.splitlines()[-1] == f"wrote {dump}"
    document = json.loads(result.stdout)
    assert not {"top1", "top1_all_listed", "loss", "views_curve"} & set(document)
    assert document["videos"]["scored"] == 2
    rows = [json.loads(line) for line in dump.read_text().splitlines()]
    assert [row["labels"] for row in rows[1:]] == [[], []]


def test_classes_in_another_order_are_matched_by_name_and_said(
    evaluate: Any, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = json.loads(evaluate("--data", folder / "good.csv", "--json").stdout)
    order = [NAMES[index] for index in (3, 1, 4, 0, 2)]
    (tmp_path / "classes.txt").write_text("\n".join(order), encoding="utf-8")
    rows = [f"{folder / f'video {index}.mp4'},{order.index(NAMES[index % 5])}\n" for index in range(6)]
    (tmp_path / "list.csv").write_text("path,label\n" + "".join(rows))
    result = evaluate("--data", tmp_path / "list.csv", "--json")
    assert result.exit_code == 0, result.output
    assert "the same 5 classes in another order" in caplog.text
    assert json.loads(result.stdout)["top1"] == expected["top1"]


def test_a_list_is_looked_for_once_by_the_command(evaluate: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_for: list[str] = []
    monkeypatch.setattr(needs, "check_list", lambda source, **options: looked_for.append(source))
    monkeypatch.setattr("dualformer_cli.tasks.evaluate.evaluate", lambda request, **options: None)
    evaluate("--data", "given.csv")
    evaluate("--set", "data.validation_list=set.csv")
    assert looked_for == ["given.csv", "set.csv"]


def test_a_list_is_needed_and_the_preset_is_not(evaluate: Any, folder: Path) -> None:
    result = evaluate()
    assert result.exit_code == 2
    assert "name a list of videos" in result.stderr
    shown = evaluate("--data", folder / "good.csv", "--views", "4x3", "--print-config")
    assert re.search(r"num_clips: 4 .*# from flag", shown.stdout)


def test_of_two_lists_none_is_dropped_without_a_word(evaluate: Any, folder: Path) -> None:
    for result in (
        evaluate("--data", folder / "good.csv", "--data", folder / "bad.csv"),
        RUNNER.invoke(app, ["tokenlabel", "write", "--data", "a.csv", "--data", "b.csv"]),
    ):
        assert result.exit_code == 2
        assert "invalid value for --data: give one list, got 2; run the command for each" in result.stderr.lower()


@pytest.fixture
def checkpoint(
    _own_environment: None, folder: Path, mini_preset: Path, tmp_path: Path, here_pool: Any, monkeypatch: Any
) -> Path:
    """A checkpoint of a model with the three classes of its training list, made from a preset with five."""
    monkeypatch.setattr("dualformer_cli.engine.training.loop.WorkerPool", here_pool)
    training = tmp_path / "training"
    training.mkdir()
    (training / "classes.txt").write_text("alpha\nbeta\ngamma\n")
    rows = [f"{folder / f'video {index}.mp4'},{index % 3}\n" for index in range(6)]
    (training / "list.csv").write_text("path,label\n" + "".join(rows))
    command = ["train", "--preset", str(mini_preset), "--data", str(training / "list.csv")]
    command += ["--output", str(tmp_path / "run"), "--set", "train.epochs=1", "--set", "data.train.short_side=64"]
    result = RUNNER.invoke(app, command)
    assert result.exit_code == 0, result.output
    return tmp_path / "run" / "checkpoints" / "last.pt"


def test_a_checkpoint_is_evaluated_and_predicts_without_its_preset(
    checkpoint: Path, folder: Path, tmp_path: Path, here_pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("system.workers", "tasks.evaluate", "tasks.session"):
        monkeypatch.setattr(f"dualformer_cli.{module}.WorkerPool", here_pool)
    dump = tmp_path / "dump.jsonl"
    command = ["eval", "--weights", str(checkpoint), "--json", "--dump", str(dump)]
    result = RUNNER.invoke(app, [*command, "--data", str(tmp_path / "training" / "list.csv")])
    assert result.exit_code == 0, result.output
    assert json.loads(dump.read_text().splitlines()[0])["class_names"] == ["alpha", "beta", "gamma"]
    result = RUNNER.invoke(app, ["predict", str(folder / "video 0.mp4"), "--weights", str(checkpoint), "--json"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert "alpha" in json.dumps(document)
    assert "running" not in json.dumps(document)


def test_two_processes_leave_with_3_and_the_digest_of_one(
    evaluate: Any, folder: Path, mini_preset: Path, mini_weights: Path
) -> None:
    expected = json.loads(evaluate("--data", folder / "bad.csv", "--json").stdout)
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    command = ["eval", "--preset", str(mini_preset), "--weights", str(mini_weights), "--data", str(folder / "bad.csv")]
    done = warm.run([sys.executable, "-m", "dualformer_cli", *command, "--json", "--cpu-processes", "2"], env=environ)
    assert done.returncode == 3, done.stderr
    assert json.loads(done.stdout) == expected


def test_the_document_has_the_fields_of_its_schema_and_no_others(evaluate: Any, folder: Path, tmp_path: Path) -> None:
    dump = tmp_path / "dump.jsonl"
    assert evaluate("--data", folder / "good.csv", "--dump", dump).exit_code == 0
    document = json.loads(
        RUNNER.invoke(app, ["eval", "--from-dump", str(dump), "--compare", str(dump), "--json"]).stdout
    )
    described = json_schema(Evaluation)["$defs"]["Evaluation"]
    assert set(document) <= set(described["properties"])
    assert set(described["required"]) <= set(document)
    assert {"list", "weights_sha256", "dualformer", "comparison", "views_curve", "top1"} <= set(document)
