"""A run's validation, which a signal may stop between two videos and which goes on from there when the run resumes."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dualformer_cli.config.schema import DataConfig
from dualformer_cli.data.clips.index_cache import IndexCache
from dualformer_cli.data.lists.samples import LabelledList
from dualformer_cli.documents.evaluate import Summary
from dualformer_cli.engine.parallel.devices import dtype_of
from dualformer_cli.engine.parallel.ranks import Ranks
from dualformer_cli.engine.parallel.same_weights import digest_of_all_ranks
from dualformer_cli.engine.scoring.evaluate import evaluate
from dualformer_cli.engine.scoring.kept_records import KeptRecords
from dualformer_cli.engine.scoring.records import VideoRecord
from dualformer_cli.engine.scoring.scorer import Scorer
from dualformer_cli.engine.scoring.summary import summarise
from dualformer_cli.engine.training.stop_signals import StopSignals
from dualformer_cli.errors import Stopped
from dualformer_cli.model.dualformer import DualFormer
from dualformer_cli.system.result_parts import Parts
from dualformer_cli.system.workers import WorkerPool

_LOGGER = logging.getLogger(__name__)
_PREFIX = "validation-"


class Validation:
    """Scores the validation list again and again.

    Args:
        listed: the list.
        data: section of the configuration.
        ranks: this process among the others.
        output: the run folder, where the scores of a validation are kept until it is done.
        precision: fp32, bf16 or fp16.
        indexes: of the files, which training shares.
        signals: what stops a validation.
    """

    def __init__(
        self,
        listed: LabelledList,
        data: DataConfig,
        ranks: Ranks,
        *,
        output: Path,
        precision: str,
        indexes: IndexCache,
        signals: StopSignals,
    ) -> None:
        self.listed, self.data, self.ranks, self.output = listed, data, ranks, output
        self.precision, self.indexes, self.signals = precision, indexes, signals

    def run(
        self,
        model: DualFormer,
        pool: WorkerPool,
        *,
        on_video: Callable[[VideoRecord], None] = lambda record: None,
    ) -> Summary:
        """Score the list, but for the videos that these weights have scored before a stop.

        Args:
            model: in evaluation mode.
            pool: decodes.
            on_video: called with every video of this rank, those scored before included.

        Raises:
            Stopped: a signal came; what is scored is kept.
        """
        data, listed = self.data, self.listed
        autocast = None if self.precision == "fp32" else dtype_of(self.precision)
        scorer = Scorer(model, mean=data.mean, std=data.std, multi_label=data.multi_label, autocast=autocast)
        with self._kept(model) as kept:
            records = evaluate(
                scorer,
                listed,
                data,
                data.validation,
                pool,
                self.ranks,
                on_video=on_video,
                indexes=self.indexes,
                kept=kept,
                is_stopped=self.signals.heard,
            )
        if (signum := self.signals.of_any_rank()) is not None:
            raise Stopped(signum)
        for record in records:
            if record.reason is not None and self.ranks.is_main:
                _LOGGER.warning("not scored: %r: %s", record.path, record.reason)
        return summarise(records, listed.class_names, multi_label=data.multi_label)

    def forget(self, *, but: str = "") -> None:
        """Delete kept scores, which belong to weights that are validated or gone."""
        for folder in self.output.glob(f"{_PREFIX}*"):
            if folder.name != but:
                shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def _kept(self, model: DualFormer) -> Iterator[KeptRecords]:
        """Open the folder of what this validation has scored; where the ranks share no disk, each has one of its own.

        Its name says of what the scores depend, so that others are never taken for them.
        """
        settings = f"{digest_of_all_ranks(model.state_dict())} {self.listed.fingerprint} {self.precision} {self.data}"
        folder = self.output / f"{_PREFIX}{hashlib.sha256(settings.encode()).hexdigest()[:16]}"
        if self.ranks.local_rank == 0:
            self.forget(but=folder.name)
        folder.mkdir(parents=True, exist_ok=True)
        parts = Parts(folder, {}, holds="scores of the validation")
        if self.ranks.is_main:
            parts.open()
        kept = KeptRecords(parts, self.ranks.rank)
        try:
            yield kept
        finally:
            kept.close()
            parts.close()
