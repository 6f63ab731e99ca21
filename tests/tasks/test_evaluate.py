"""Scores that are kept until the dump is written: what they depend on, when they are gone on with, when they go."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from dualformer_cli.documents.evaluate import EvaluationPage
from dualformer_cli.engine.parallel.ranks import Ranks
from dualformer_cli.engine.scoring.dump import Dump
from dualformer_cli.engine.scoring.records import VideoRecord
from dualformer_cli.errors import DualFormerError
from dualformer_cli.tasks import evaluate as task
from dualformer_cli.tasks.evaluate import EvaluateRequest

RECORD = VideoRecord(0, "a.mp4", (1,), "scored", None, np.array([[0.25, 0.75]], np.float32))
ALONE = Ranks(rank=0, local_rank=0, world_size=1, device=torch.device("cpu"))


def kept_of(request: EvaluateRequest, fingerprint: str = "0123", **settings: str) -> set[int]:
    """Return the videos whose scores are known to a run, which then keeps those of the first one."""
    engine: Any = SimpleNamespace(settings=lambda: {"preset": "p", **settings})
    listed: Any = SimpleNamespace(
        fingerprint=fingerprint, samples=[SimpleNamespace(name="a.mp4")], labels=[RECORD.labels]
    )
    with task._keeping(request, engine, listed, ALONE) as kept:
        assert kept is not None
        known = set(kept.read(listed, patience=20.0))
        kept.append(RECORD)
    return known


def test_scores_are_gone_on_with_where_that_is_asked_for_and_nothing_has_changed(tmp_path: Path) -> None:
    request = EvaluateRequest(dump=tmp_path / "d.jsonl", resume=True)
    assert kept_of(request) == set()
    assert kept_of(request) == {0}
    for changed in ({"fingerprint": "4567"}, {"weights": "others"}):
        with pytest.raises(DualFormerError, match=r"list|weights"):
            kept_of(request, **changed)
    assert kept_of(request) == {0}
    assert kept_of(EvaluateRequest(dump=tmp_path / "d.jsonl", overwrite=True)) == set()


def test_scores_go_once_they_are_in_the_dump_and_the_page_names_the_other_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages: list[EvaluationPage] = []
    monkeypatch.setattr("dualformer_cli.outputs.eval_page.write_eval_report", lambda page, path: pages.append(page))
    monkeypatch.setattr(task, "WorkerPool", lambda *_: pytest.fail("there is no video"))
    scores = Dump(
        records=[VideoRecord(0, "a.mp4", (), "missing", "no such file", None)],
        class_names=["run", "jump"],
        multi_label=False,
        num_clips=1,
        num_crops=1,
        facts={},
    )
    request = EvaluateRequest(
        dump=tmp_path / "d.jsonl", report=tmp_path / "r.html", compare=tmp_path / "old.jsonl", resume=True
    )
    kept_of(request)
    assert request.kept is not None
    assert request.kept.exists()
    written: list[Path] = []
    task._write(request, scores.document(), scores, written.append)
    assert written == [request.dump, request.report]
    assert not request.kept.exists()
    assert [page.other for page in pages] == [str(tmp_path / "old.jsonl")]
