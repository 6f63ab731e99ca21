"""The scores of a list on disk: everything that scoring gave, enough to compute every metric again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dualformer_cli.documents.base import JsonObject
from dualformer_cli.documents.evaluate import ClassRow, Evaluation, ViewsPoint
from dualformer_cli.engine.scoring.comparison import compare_runs
from dualformer_cli.engine.scoring.metrics import Labels, Scores
from dualformer_cli.engine.scoring.mistakes import Confusion, class_rows
from dualformer_cli.engine.scoring.records import VideoRecord
from dualformer_cli.engine.scoring.summary import summarise
from dualformer_cli.engine.scoring.views_curve import view_curve, view_hits, view_order
from dualformer_cli.errors import DualFormerError
from dualformer_cli.system.words import cannot_read

DUMP_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Dump:
    """Everything that scoring a list gave: enough to compute every metric again without the model."""

    records: list[VideoRecord]
    """In the order of the list."""
    class_names: list[str]
    multi_label: bool
    num_clips: int
    num_crops: int
    facts: Mapping[str, str | int | None]
    """What the scores can be traced to: preset, weights and their hash, list and its fingerprint, versions."""

    def rows(self) -> Iterator[JsonObject]:
        """Return JSON lines: one about the run, then one per video."""
        yield {
            "dualformer": DUMP_VERSION,
            "class_names": self.class_names,
            "multi_label": self.multi_label,
            "num_clips": self.num_clips,
            "num_crops": self.num_crops,
            "facts": dict(self.facts),
        }
        for record in self.records:
            scores = None if record.scores is None else record.scores.tolist()
            fields = {"path": record.path, "labels": list(record.labels), "status": record.bucket}
            yield {**fields, "reason": record.reason, "scores": scores}

    def document(self, other: Dump | None = None) -> Evaluation:
        """Return the metrics with what they can be traced to, compared with another run if there is one."""
        return Evaluation(
            facts=self.facts,
            summary=summarise(self.records, self.class_names, multi_label=self.multi_label),
            views_curve=None if self.multi_label else self._curve() or None,
            comparison=None if other is None else compare_runs(self._answers(), other._answers()),
        )

    def file_of(self, path: str) -> str:
        """Where a listed video is, or was when the list was scored."""
        root = self.facts.get("root") or os.path.dirname(str(self.facts.get("list") or ""))
        return os.path.join(str(root), path)

    def classes(self) -> tuple[ClassRow, ...]:
        """Return how many videos of each class were right; nothing of lists whose videos have several labels."""
        if (answers := self.single_answers()) is None:
            return ()
        _, scores, labels = answers
        return class_rows(Confusion.of(labels, scores.argmax(axis=1), len(self.class_names)), self.class_names)

    def single_answers(self) -> tuple[list[str], Scores, Labels] | None:
        """Return path, mean scores and label of every scored video; None where there is none with one label."""
        scored = [record for record in self.records if record.scores is not None and record.labels]
        if self.multi_label or not scored:
            return None
        scores = np.stack([record.mean() for record in scored])
        return [record.path for record in scored], scores, np.array([record.labels[0] for record in scored])

    def _curve(self) -> tuple[ViewsPoint, ...]:
        """Return the accuracy over the first 1, 2, ... views of every video: what fewer views would have given."""
        order = view_order(self.num_clips, self.num_crops)
        rows = [
            view_hits(record.scores, record.labels[0], order)
            for record in self.records
            if record.scores is not None and record.labels and len(record.scores) == len(order)
        ]
        return view_curve(np.stack(rows)) if rows else ()

    def _answers(self) -> dict[str, tuple[int, int]]:
        return {
            record.path: (record.labels[0], int(record.mean().argmax()))
            for record in self.records
            if record.scores is not None and record.labels
        }


def read_dump(path: str | Path) -> Dump:
    """Read the JSON lines of `eval --dump`.

    Raises:
        DualFormerError: if it is not such a file, or a line is damaged.
    """
    records = []
    line = 0
    try:
        with open(path, encoding="utf-8") as file:
            head = json.loads(file.readline())
            if head["dualformer"] != DUMP_VERSION:
                raise DualFormerError(f"dump {str(path)!r} is of another version; make it again with eval --dump")
            for line, text in enumerate(file, start=2):
                row = json.loads(text)
                scores = None if row["scores"] is None else np.array(row["scores"], dtype=np.float32)
                labels = tuple(int(label) for label in row["labels"])
                records.append(VideoRecord(line - 2, row["path"], labels, row["status"], row["reason"], scores))
            return Dump(
                records=records,
                class_names=[str(name) for name in head["class_names"]],
                multi_label=bool(head["multi_label"]),
                num_clips=int(head["num_clips"]),
                num_crops=int(head["num_crops"]),
                facts=dict(head["facts"]),
            )
    except OSError as error:
        raise DualFormerError(cannot_read("dump", path, error)) from None
    except (ValueError, KeyError, TypeError) as error:
        reason = f"line {line}: {error}" if line else "it does not begin as one"
        raise DualFormerError(f"{str(path)!r} is not a dump of dualformer eval: {reason}") from None
