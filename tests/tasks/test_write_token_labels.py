"""Token labels from Python: a request goes in, a document comes out, nothing is printed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dualformer_cli.documents.base import to_json
from dualformer_cli.documents.tokenlabel import LabelPlan, TeacherFacts, TeacherTrial, WrittenLabels
from dualformer_cli.errors import ConfigError, DualFormerError
from dualformer_cli.tasks import write_token_labels as task
from dualformer_cli.tasks.session import ModelRequest
from dualformer_cli.tasks.write_token_labels import WriteLabelsRequest, write_token_labels


@pytest.fixture
def request_(
    toy_preset: Path,
    one_clip_list: Path,
    teacher_file: Path,
    one_thread: None,
    here_pool: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> WriteLabelsRequest:
    """A request of eight videos, three a file, which decodes here."""
    monkeypatch.setattr("dualformer_cli.tasks.session.WorkerPool", here_pool)
    return WriteLabelsRequest(
        model=ModelRequest(preset=str(toy_preset), device="cpu"),
        training_list=str(one_clip_list),
        teacher=str(teacher_file),
        output=tmp_path / "labels",
        videos_per_shard=3,
    )


def test_labels_are_a_request_and_a_document(
    request_: WriteLabelsRequest, teacher_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Any] = []
    notes: list[str] = []

    @contextmanager
    def watching(total: int) -> Iterator[Callable[[str], None]]:
        seen.append(total)
        yield seen.append

    plan = write_token_labels(request_, dry_run=True, watching=watching, note=notes.append)
    assert isinstance(plan, LabelPlan)
    assert (seen, request_.output.exists()) == ([], False)
    assert (plan.teacher.facts.source, plan.output) == (str(teacher_file), str(request_.output))
    assert notes[0] == f"the teacher is right on {plan.teacher.trial.right} of 8 videos of the list"
    document = write_token_labels(request_, watching=watching, on_document=seen.append)
    assert isinstance(document, WrittenLabels)
    assert (seen[0], len(seen), seen[-1]) == (8, 10, document)
    assert (document.teacher, document.estimated_bytes) == (plan.teacher, plan.estimated_bytes)
    assert json.loads((request_.output / "summary.json").read_text()) == to_json(document.summary)
    assert len(list(request_.output.glob("shard-*.bin"))) == 3  # of 3, 3 and 2 videos
    assert (request_.output / "sheet.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("chance", "is_warned_of"), [(0.001, False), (0.5, True)])
def test_a_teacher_that_chance_explains_is_warned_of_and_the_disk_is_looked_at(
    chance: float, is_warned_of: bool
) -> None:
    class Writer:
        """Tries a teacher that is right on three of eight videos."""

        header = SimpleNamespace(teacher=TeacherFacts(source="t.pt", weights_sha256=None, precision="fp32"))
        folder = SimpleNamespace(root=Path("labels"))
        room = 10**9

        def verify(self, pool: Any) -> TeacherTrial:
            return TeacherTrial(videos=8, right=3, chance=chance)

        def estimate(self, pool: Any) -> Any:
            return SimpleNamespace(bytes=2e6, standard_error=1e5)

        def check_space(self, estimate: Any) -> None:
            if estimate.bytes > self.room:
                raise DualFormerError("no room")

    notes: list[str] = []
    writer: Any = Writer()
    pool: Any = None
    plan = task._plan(writer, pool, notes.append)
    assert (plan.estimated_bytes, plan.teacher.trial.right) == (2_000_000, 3)
    assert [note for note in notes if note.startswith("warning: chance would do as well in 50% of cases")] == (
        notes[1:2] if is_warned_of else []
    )
    assert notes[-1] == "the labels will take 2.0 MB (give or take 10%)"
    writer.room = 10**6
    with pytest.raises(DualFormerError, match="no room"):
        task._plan(writer, pool, notes.append)


def test_a_request_is_checked_without_torch() -> None:
    """Worker processes start before it is loaded, which takes seconds."""
    code = "import sys; import dualformer_cli.tasks.write_token_labels; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"


def test_a_folder_of_something_else_is_refused_before_list_and_teacher_are_read(request_: WriteLabelsRequest) -> None:
    request_.output.mkdir()
    (request_.output / "letter.txt").write_text("x")
    with pytest.raises(DualFormerError, match=r"labels' holds something else than token labels; name another"):
        write_token_labels(replace(request_, training_list="none.csv", teacher="none.pt"))


def test_without_a_teacher_nothing_is_labelled(request_: WriteLabelsRequest) -> None:
    with pytest.raises(ConfigError, match=r"no model labels: name it in train.teacher, a file of weights or a preset"):
        write_token_labels(replace(request_, teacher=None))
