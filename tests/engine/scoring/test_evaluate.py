"""Evaluation: every video in one bucket, labels in the model's numbering, and dumps that say it all again."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dualformer_cli.config.load import load_config
from dualformer_cli.data.clips.index_cache import IndexCache
from dualformer_cli.data.lists.model_labels import open_list
from dualformer_cli.documents.base import to_json
from dualformer_cli.engine.build import build_model
from dualformer_cli.engine.parallel.ranks import Ranks
from dualformer_cli.engine.scoring.dump import Dump, read_dump
from dualformer_cli.engine.scoring.evaluate import evaluate
from dualformer_cli.engine.scoring.page import page_of
from dualformer_cli.engine.scoring.records import VideoRecord
from dualformer_cli.engine.scoring.scorer import Scored, Scorer
from dualformer_cli.engine.scoring.summary import summarise
from dualformer_cli.errors import DualFormerError
from dualformer_cli.outputs.runs import write_json_lines
from dualformer_cli.video import pyav_reader

NAMES = ["dark", "red", "green", "blue"]


@pytest.fixture
def evaluate_list(toy_preset: Path, one_thread: None, here_pool: Any) -> Callable[..., Any]:
    """The function evaluate_list(list, class_names=NAMES) -> (labelled list, records) with fixed random weights."""
    config = load_config(str(toy_preset), environ={}).config
    torch.manual_seed(0)
    model = build_model(config.model, config.data).eval()
    scorer = Scorer(model, mean=config.data.mean, std=config.data.std)
    alone = Ranks(rank=0, local_rank=0, world_size=1, device=torch.device("cpu"))

    def run(source: Path, class_names: list[str] | None = None, **options: Any) -> Any:
        listed = open_list(config.data, str(source), class_names=NAMES if class_names is None else class_names)
        return listed, evaluate(scorer, listed, config.data, config.data.test, here_pool(), alone, **options)

    return run


def bad_list(validation: Path, clip_drawer: Callable[..., Path]) -> Path:
    """Eight good videos, and one each that is missing, a dangling link, empty, broken, cut short and too short."""
    folder = validation.parent
    lines = validation.read_text().splitlines()[:9]
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "noise.mp4").write_bytes(os.urandom(2000))
    whole = (folder / lines[1].split(",")[0]).read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 4])
    if not (folder / "link.mp4").is_symlink():
        (folder / "link.mp4").symlink_to("nothing.mp4")
    clip_drawer(folder / "short.mp4", num_frames=1, size=(72, 72))
    lines += [f"{name}.mp4,1" for name in ("gone", "link", "empty", "noise", "cut", "short")]
    target = folder / "bad.csv"
    target.write_text("".join(f"{line}\n" for line in lines))
    return target


def test_every_video_is_in_one_bucket_and_both_accuracies_count_them(
    evaluate_list: Any, toy_validation: Path, clip_drawer: Callable[..., Path]
) -> None:
    listed, records = evaluate_list(bad_list(toy_validation, clip_drawer))
    buckets = {record.path: record.bucket for record in records[8:]}
    assert buckets == {
        "gone.mp4": "missing",
        "link.mp4": "unreadable",
        "empty.mp4": "unreadable",
        "noise.mp4": "unreadable",
        "cut.mp4": "unreadable",
        "short.mp4": "too_short",
    }
    assert all(record.bucket == "scored" and record.reason is None for record in records[:8])
    assert all(record.reason and "\n" not in record.reason for record in records[8:])
    assert [record.index for record in records] == list(range(14))
    document = to_json(summarise(records, listed.class_names, multi_label=False))
    assert document["videos"] == {"listed": 14, "scored": 8, "missing": 1, "unreadable": 4, "too_short": 1}
    right = sum(int(record.mean().argmax()) == record.labels[0] for record in records[:8])
    assert document["top1"] == pytest.approx(100 * right / 8)
    assert document["top1_all_listed"] == pytest.approx(100 * right / 14)


def test_a_list_scored_again_is_not_read_as_a_whole_and_has_the_same_scores(
    evaluate_list: Any, toy_validation: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    indexes = IndexCache()
    _, first = evaluate_list(toy_validation, indexes=indexes)
    monkeypatch.setattr(pyav_reader, "scan_file", lambda _: pytest.fail("read a whole file"))
    listed, again = evaluate_list(toy_validation, indexes=indexes)
    assert [record.bucket for record in again] == len(first) * ["scored"]
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.scores, other.scores)
    documents = [to_json(summarise(records, listed.class_names, multi_label=False)) for records in (first, again)]
    assert documents[0] == documents[1]


def test_parts_of_one_video_are_told_apart_by_their_times(evaluate_list: Any, toy_validation: Path) -> None:
    name = toy_validation.read_text().splitlines()[1].split(",")[0]
    target = toy_validation.with_name("parts.csv")
    target.write_text(f"path,label,start_seconds,end_seconds\n{name},0,0,0.2\n{name},0,0.2,\n")
    _, records = evaluate_list(target)
    assert [record.path for record in records] == [f"{name}#t=0,0.2", f"{name}#t=0.2"]


def make_record(index: int, label: int | None, scores: list[float] | None) -> VideoRecord:
    labels = () if label is None else (label,)
    bucket: Any = "scored" if scores else "missing"
    array = None if scores is None else np.array([scores], np.float32)
    return VideoRecord(index, f"{index}.mp4", labels, bucket, None if scores else "no such file", array)


@given(st.lists(st.tuples(st.integers(0, 2), st.one_of(st.none(), st.integers(0, 2))), min_size=1, max_size=30))
def test_accuracies_over_scored_and_over_all_listed_are_what_they_say(rows: list[tuple[int, int | None]]) -> None:
    records = [
        make_record(index, label, None if found is None else [0.8 if k == found else 0.1 for k in range(3)])
        for index, (label, found) in enumerate(rows)
    ]
    document = to_json(summarise(records, ["a", "b", "c"], multi_label=False))
    right = sum(label == found for label, found in rows)
    scored = sum(found is not None for _, found in rows)
    assert sum(document["videos"].values()) == 2 * len(rows)
    if scored:
        assert document["top1"] == pytest.approx(100 * right / scored)
        assert document["top1_all_listed"] == pytest.approx(100 * right / len(rows))
    else:
        assert "top1" not in document


def test_a_list_without_labels_has_predictions_only(evaluate_list: Any, toy_validation: Path) -> None:
    target = toy_validation.with_name("unlabelled.csv")
    names = [line.split(",")[0] for line in toy_validation.read_text().splitlines()[1:5]]
    target.write_text("path\n" + "".join(f"{name}\n" for name in names))
    listed, records = evaluate_list(target)
    assert not any(listed.labels)
    document = to_json(summarise(records, listed.class_names, multi_label=False))
    assert set(document) == {"videos", "digest"}
    assert document["videos"]["scored"] == 4


def test_classes_in_another_order_are_matched_by_name_and_said(
    evaluate_list: Any, toy_validation: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, expected = evaluate_list(toy_validation)
    order = ["blue", "green", "dark", "red"]
    rows = [line.rsplit(",", 1) for line in toy_validation.read_text().splitlines()[1:]]
    moved = [f"{path},{order.index(NAMES[int(label)])}\n" for path, label in rows]
    for path, _ in rows:
        (tmp_path / path).symlink_to(toy_validation.parent / path)
    (tmp_path / "classes.txt").write_text("".join(f"{name}\n" for name in order))
    (tmp_path / "list.csv").write_text("path,label\n" + "".join(moved))
    caplog.clear()
    _, records = evaluate_list(tmp_path / "list.csv")
    assert "data and model have the same 4 classes in another order" in caplog.text
    assert [record.labels for record in records] == [record.labels for record in expected]


@pytest.fixture
def dump(evaluate_list: Any, toy_validation: Path, clip_drawer: Callable[..., Path]) -> Dump:
    _, records = evaluate_list(bad_list(toy_validation, clip_drawer))
    facts = {"preset": "toy", "weights": "random", "list": "bad.csv"}
    return Dump(records=records, class_names=NAMES, multi_label=False, num_clips=2, num_crops=1, facts=facts)


def test_a_dump_gives_the_same_document_again(dump: Dump, tmp_path: Path) -> None:
    write_json_lines(dump.rows(), tmp_path / "dump.jsonl")
    again = read_dump(tmp_path / "dump.jsonl")
    assert again.document() == dump.document()
    assert page_of(again, again.document()) == page_of(dump, dump.document())
    curve = to_json(again.document())["views_curve"]
    assert [row["views"] for row in curve] == [1, 2]
    assert curve[-1]["top1"] == pytest.approx(to_json(again.document())["top1"])
    json.dumps(to_json(again.document()))


def test_a_comparison_names_the_videos_that_flipped(dump: Dump) -> None:
    def turned(record: VideoRecord) -> VideoRecord:
        return record if record.scores is None else replace(record, scores=np.roll(record.scores, 1, axis=1))

    other = replace(dump, records=[turned(record) for record in dump.records])
    same = to_json(dump.document(dump))["comparison"]
    assert (same["videos"], same["flipped"]) == (8, [])
    assert same["top1_first"] == same["top1_second"]
    comparison = to_json(dump.document(other))["comparison"]
    assert comparison["top1_second"] == pytest.approx(to_json(other.document())["top1"])
    right = [int(r.mean().argmax()) == r.labels[0] for r in dump.records[:8]]
    right_other = [int(r.mean().argmax()) == r.labels[0] for r in other.records[:8]]
    flipped = [r.path for r, one, two in zip(dump.records, right, right_other, strict=False) if one != two]
    assert sorted(row["path"] for row in comparison["flipped"]) == sorted(flipped)
    assert 0 <= comparison["p_value"] <= 1


def test_a_page_has_a_table_of_confusions_up_to_30_classes(dump: Dump) -> None:
    scored = [record for record in dump.records if record.scores is not None]
    table = page_of(dump, dump.document()).confusion
    expected = [[0] * 4 for _ in range(4)]
    for record in scored:
        expected[record.labels[0]][int(record.mean().argmax())] += 1
    assert [list(row) for row in table] == expected
    assert [row.correct for row in dump.classes()] == [expected[n][n] for n in range(4)]
    for num_classes, has_table in ((30, True), (31, False)):
        wider = [
            record
            if record.scores is None
            else replace(record, scores=np.pad(record.scores, ((0, 0), (0, num_classes - 4))))
            for record in dump.records
        ]
        many = replace(dump, records=wider, class_names=[*NAMES, *(f"class {n}" for n in range(4, num_classes))])
        page = page_of(many, many.document())
        assert bool(page.confusion) is has_table
        assert page.confused


def test_a_page_without_scored_videos_has_what_went_wrong(dump: Dump) -> None:
    lost = replace(dump, records=[record for record in dump.records if record.scores is None])
    page = page_of(lost, lost.document())
    assert [row.status for row in page.unscored].count("unreadable") == 4
    assert page.classes == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it does not begin as one"),
        ("{}\n", "it does not begin as one"),
        ("[]\n", "it does not begin as one"),
        ('{"dualformer": 99}\n', r"is of another version; make it again with eval --dump"),
        ('{"dualformer": 1}\n{"path": "a"}\n', "line 2: 'scores'"),
    ],
)
def test_a_file_that_is_no_dump_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "dump.jsonl"
    path.write_text(text)
    with pytest.raises(DualFormerError, match=message) as refused:
        read_dump(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_dump_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DualFormerError, match=r"dump '.*none' not found$"):
        read_dump(tmp_path / "none")


def test_scores_that_are_not_numbers_stop_the_evaluation(
    toy_validation: Path, toy_preset: Path, here_pool: Any
) -> None:
    config = load_config(str(toy_preset), environ={}).config
    listed = open_list(config.data, str(toy_validation), class_names=NAMES)
    scores = Scored(np.full((1, 4), math.nan), np.zeros((1, 1), np.float32), 0.0)
    scorer: Any = SimpleNamespace(score_each=lambda items, clips_of: ((item, scores) for item in items))
    alone = Ranks(rank=0, local_rank=0, world_size=1, device=torch.device("cpu"))
    with pytest.raises(DualFormerError, match=r"dark 000.mp4': the scores are not numbers; try --precision fp32"):
        evaluate(scorer, listed, config.data, config.data.test, here_pool(), alone)


def test_several_labels_give_mean_average_precision(tmp_path: Path) -> None:
    records = [
        replace(make_record(0, 0, [0.9, 0.8, 0.1]), labels=(0, 1)),
        make_record(1, 2, [0.1, 0.2, 0.9]),
        make_record(2, 1, None),
    ]
    document = to_json(summarise(records, ["a", "b", "c"], multi_label=True))
    assert document["mean_average_precision"] == pytest.approx(100)
    assert "top1" not in document
    whole = Dump(records=records, class_names=["a", "b", "c"], multi_label=True, num_clips=1, num_crops=1, facts={})
    write_json_lines(whole.rows(), tmp_path / "dump.jsonl")
    assert read_dump(tmp_path / "dump.jsonl").document() == whole.document()
