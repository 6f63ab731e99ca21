"""From views to the numbers of a list: means, parts of files, the order over ranks. Scores are written by hand."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from dualformer_cli.config.load import load_config
from dualformer_cli.data.lists.model_labels import open_list
from dualformer_cli.documents.base import to_json
from dualformer_cli.engine.parallel.ranks import Ranks
from dualformer_cli.engine.scoring import evaluate as module
from dualformer_cli.engine.scoring.dump import Dump
from dualformer_cli.engine.scoring.evaluate import evaluate
from dualformer_cli.engine.scoring.records import VideoRecord
from dualformer_cli.engine.scoring.scorer import Scored
from dualformer_cli.engine.scoring.summary import summarise
from dualformer_cli.video.parts import WHOLE, Part

NAMES = ["a", "b"]
VIEWS = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]], np.float32)
"""The best single score is of a, the mean is higher for b."""


def record(index: int, label: int | None, views: Any) -> VideoRecord:
    labels = () if label is None else (label,)
    return VideoRecord(index, f"{index}.mp4", labels, "scored", None, np.array(views, np.float32))


def test_a_videos_scores_are_the_mean_over_its_views() -> None:
    assert record(0, 1, VIEWS).mean().tolist() == pytest.approx([1.4 / 3, 1.6 / 3])
    document = to_json(summarise([record(0, 1, VIEWS)], NAMES, multi_label=False))
    assert (document["top1"], document["mean_class_accuracy"]) == (100, 100)
    assert document["loss"] == pytest.approx(-math.log(1.6 / 3), rel=1e-6)


def test_the_loss_is_a_mean_of_logarithms_and_never_infinite() -> None:
    document = to_json(summarise([record(0, 0, [[0.5, 0.5]]), record(1, 0, [[0.25, 0.75]])], NAMES, multi_label=False))
    assert document["loss"] == pytest.approx((math.log(2) + math.log(4)) / 2, rel=1e-6)
    wrong = to_json(summarise([record(0, 0, [[0.0, 1.0]])], NAMES, multi_label=False))
    assert 80 < wrong["loss"] < 90  # of float32's smallest normal number


def test_several_labels_are_ranked_by_the_mean_over_views() -> None:
    """By the maximum, video 1 would come first for class a."""
    records = [record(0, 0, [[0.6, 0.1], [0.6, 0.1]]), record(1, 1, [[0.9, 0.5], [0.1, 0.5]])]
    assert to_json(summarise(records, NAMES, multi_label=True))["mean_average_precision"] == 100


def test_videos_without_a_label_do_not_count_as_listed_and_wrong() -> None:
    missing = VideoRecord(2, "2.mp4", (1,), "missing", "gone", None)
    document = to_json(summarise([record(0, 1, VIEWS), record(1, None, VIEWS), missing], NAMES, multi_label=False))
    assert (document["top1"], document["top1_all_listed"]) == (100, 50)


def test_the_digest_is_of_the_mean_over_views() -> None:
    """A second view alone changes the digest; views in another order do not."""

    def digest(views: Any) -> str:
        return str(to_json(summarise([record(0, 1, views)], NAMES, multi_label=False))["digest"])

    assert digest(VIEWS) != digest([*VIEWS[:2], [0.5, 0.5]])
    assert digest([[0.25, 0.75], [0.75, 0.25]]) == digest([[0.75, 0.25], [0.25, 0.75]])


def test_accuracy_by_views_begins_in_the_middle_of_the_video() -> None:
    """Three clips of one crop: the middle one alone says b, all together say a."""
    views = [[0.9, 0.1], [0.1, 0.9], [0.8, 0.2]]
    dump = Dump(records=[record(0, 1, views)], class_names=NAMES, multi_label=False, num_clips=3, num_crops=1, facts={})
    curve = to_json(dump.document())["views_curve"]
    assert curve[0] == {"views": 1, "top1": 100}
    assert curve[2] == {"views": 3, "top1": 0}


def test_a_dump_has_every_view_and_why_a_video_has_none() -> None:
    missing = VideoRecord(1, "1.mp4", (0,), "missing", "no such file", None)
    dump = Dump(
        records=[record(0, 1, VIEWS), missing], class_names=NAMES, multi_label=False, num_clips=3, num_crops=1, facts={}
    )
    _, first, second = dump.rows()
    assert first["scores"] == VIEWS.tolist()
    assert (second["status"], second["reason"], second["scores"]) == ("missing", "no such file", None)


def test_runs_are_compared_by_what_each_predicted() -> None:
    def dump(*best: int) -> Dump:
        records = [record(index, 1, [np.eye(2)[label]]) for index, label in enumerate(best)]
        return Dump(records=records, class_names=NAMES, multi_label=False, num_clips=1, num_crops=1, facts={})

    found = to_json(dump(1, 1, 0).document(dump(0, 1, 0)))["comparison"]
    assert (found["top1_first"], found["top1_second"]) == (pytest.approx(200 / 3), pytest.approx(100 / 3))
    assert found["flipped"] == [{"path": "0.mp4", "label": 1, "first": 1, "second": 0}]


def test_videos_without_a_label_or_with_fewer_views_are_left_out_of_what_needs_them() -> None:
    records = [record(0, 1, VIEWS), record(1, None, VIEWS), record(2, 0, VIEWS[:1])]
    dump = Dump(records=records, class_names=NAMES, multi_label=False, num_clips=3, num_crops=1, facts={})
    document = to_json(dump.document(dump))
    assert document["comparison"]["videos"] == 2
    assert [point["top1"] for point in document["views_curve"]] == [100, 0, 100]


@pytest.fixture
def score_list(toy_preset: Path, tmp_path: Path, here_pool: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The function score_list(text, rank, world_size, others=[...]) -> (records, (file, start, frames) that were read).

    The scores of a video are the number in its name.
    """
    config = load_config(str(toy_preset), environ={}).config

    def run(text: str, rank: int = 0, world_size: int = 1, others: Any = (), **options: Any) -> Any:
        (tmp_path / "list.csv").write_text(text)
        reads: list[Any] = []

        def read_views(path: str, data: Any, views: Any, *, part: Part, index: Any) -> Any:
            reads.append((Path(path).name, part.start, part.num_frames))
            return SimpleNamespace(clips=int(Path(path).stem), index=None)

        monkeypatch.setattr(module, "read_views", lambda *given, **named: read_views(*given, **{**DEFAULTS, **named}))
        parts = dict(others)
        monkeypatch.setattr(module, "gather_objects", lambda own: [parts.get(r, own) for r in range(world_size)])

        def score_each(items: Any, clips_of: Any) -> Any:
            for item in items:
                yield item, Scored(np.full((1, 2), clips_of(item) / 8), np.zeros((1, 1), np.float32), 0.0)

        scorer: Any = SimpleNamespace(score_each=score_each)
        listed = open_list(config.data, str(tmp_path / "list.csv"), class_names=NAMES)
        place = Ranks(rank=rank, local_rank=rank, world_size=world_size, device=torch.device("cpu"))
        return evaluate(scorer, listed, config.data, config.data.test, here_pool(), place, **options), reads

    return run


DEFAULTS = {"part": WHOLE, "index": None}


def test_parts_of_files_are_read_from_their_first_frame_to_their_last(score_list: Any) -> None:
    _, reads = score_list("path,label,start,num_frames\n0.mp4,0,30,20\n0.mp4,1,50,\n1.mp4,1,,40\n")
    assert reads == [("0.mp4", 30, 20), ("0.mp4", 50, None), ("1.mp4", 0, 40)]


def test_ranks_share_the_list_and_all_have_it_in_its_order(score_list: Any) -> None:
    text = "path,label\n" + "".join(f"{number}.mp4,{number % 2}\n" for number in range(5))
    second, reads = score_list(text, rank=1, world_size=2, others=[(0, [])])
    assert [name for name, *_ in reads] == ["1.mp4", "3.mp4"]
    records, reads = score_list(text, rank=0, world_size=2, others=[(1, second)])
    assert [name for name, *_ in reads] == ["0.mp4", "2.mp4", "4.mp4"]
    assert [(r.index, r.path, r.labels, r.scores[0, 0]) for r in records] == [
        (number, f"{number}.mp4", (number % 2,), number / 8) for number in range(5)
    ]


def test_records_that_all_ranks_have_kept_count_once(score_list: Any) -> None:
    kept = SimpleNamespace(read=lambda listed, patience: {n: record(n, n, VIEWS) for n in range(2)})
    for rank, expected in ((0, [0, 1]), (1, [])):
        told: list[VideoRecord] = []
        score_list("path,label\n0.mp4,0\n1.mp4,1\n", rank, 2, kept=kept, on_video=told.append)
        assert [each.index for each in told] == expected


def test_labels_are_in_the_models_numbers_in_every_record(score_list: Any, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("b\na\n")
    records, _ = score_list("path,label\n0.mp4,0\n1.mp4,1\n")
    assert [r.labels for r in records] == [(1,), (0,)]
