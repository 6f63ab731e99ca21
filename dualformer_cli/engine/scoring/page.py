"""What the page of an evaluation holds: classes, confusions, calibration and the worst videos."""

from __future__ import annotations

from dualformer_cli.documents.evaluate import Evaluation, EvaluationPage, UnscoredVideo
from dualformer_cli.engine.scoring.dump import Dump
from dualformer_cli.engine.scoring.metrics import calibration
from dualformer_cli.engine.scoring.mistakes import Confusion, class_rows, confused_pairs, worst_videos

MOST_CLASSES_OF_A_TABLE = 30
"""Up to here a page shows how often each class was taken for each; beyond, the commonest mistakes."""


def page_of(dump: Dump, evaluation: Evaluation) -> EvaluationPage:
    """Return the content of the page of a scored list, whose metrics are `evaluation`."""
    unscored = tuple(
        UnscoredVideo(path=record.path, status=record.bucket, reason=record.reason)
        for record in dump.records
        if record.scores is None
    )
    if (answers := dump.single_answers()) is None:
        return EvaluationPage(evaluation=evaluation, unscored=unscored)
    paths, scores, labels = answers
    confusion = Confusion.of(labels, scores.argmax(axis=1), len(dump.class_names))
    return EvaluationPage(
        evaluation=evaluation,
        unscored=unscored,
        classes=class_rows(confusion, dump.class_names),
        confusion=confusion.table() if len(dump.class_names) <= MOST_CLASSES_OF_A_TABLE else (),
        confused=confused_pairs(confusion, dump.class_names),
        worst=worst_videos(paths, scores, labels, dump.class_names),
        calibration=calibration(scores, labels),
    )
