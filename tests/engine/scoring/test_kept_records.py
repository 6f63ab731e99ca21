"""Records that an evaluation has kept come back as they were, but those of videos that are to be tried again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dualformer_cli.data.lists.samples import Sample
from dualformer_cli.engine.scoring.kept_records import KeptRecords
from dualformer_cli.engine.scoring.records import VideoRecord
from dualformer_cli.system.result_parts import Parts

SCORES = np.array([[0.1, 0.9], [0.3, 0.7], [0.25, 0.75]], np.float32)
"""Of three views."""


@pytest.mark.parametrize(("patience", "is_tried_again"), [(10.0, False), (20.0, True)])
def test_what_is_kept_comes_back_and_what_may_be_had_now_does_not(
    tmp_path: Path, patience: float, is_tried_again: bool
) -> None:
    samples = [
        Sample("a.mp4", start_seconds=0.5, end_seconds=2.0),
        *(Sample(f"{name}.mp4") for name in ("b", "c", "d")),
    ]
    listed: Any = SimpleNamespace(samples=samples, labels=[(1,), (0,), (), (1,)])
    scored = VideoRecord(0, "a.mp4#t=0.5,2", (1,), "scored", None, SCORES)
    broken = VideoRecord(1, "b.mp4", (0,), "unreadable", "no video in it, only audio", None)
    missing = VideoRecord(2, "c.mp4", (), "missing", "no such file", None)
    given_up = VideoRecord(3, "d.mp4", (1,), "unreadable", "decoder made no progress for 10 s", None)
    parts = Parts(tmp_path / "kept", {}, holds="scores")
    parts.open()
    kept = KeptRecords(parts, 0)
    for record in (scored, broken, missing):
        kept.append(record)
    kept.append(given_up, timeout=10.0)
    found = kept.read(listed, patience=patience)
    kept.close()
    parts.close()
    assert found.keys() == ({0, 1} if is_tried_again else {0, 1, 3})
    assert (found[0].path, found[0].labels, found[0].bucket) == ("a.mp4#t=0.5,2", (1,), "scored")
    np.testing.assert_array_equal(found[0].scores, SCORES)
    assert found[1] == broken
