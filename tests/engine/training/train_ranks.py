"""Run by test_many_ranks.py: trains and evaluates on this rank, and writes what rank 0 saw.

Usage: train_ranks.py JOBS.json under torchrun, or train_ranks.py JOBS.json WORLD_SIZE, which forks that many ranks from
one process that has loaded the libraries. JOBS.json is a list of {"preset", "overrides", "train", "validation",
"output", "result"}, and "has_own_disks" where each rank has an output of its own, "resume".
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from dualformer_cli.config.load import load_config
from dualformer_cli.data.lists.model_labels import open_list
from dualformer_cli.documents.base import to_json
from dualformer_cli.documents.train import StepRow
from dualformer_cli.engine.build import build_model
from dualformer_cli.engine.parallel.ranks import Ranks, init_ranks
from dualformer_cli.engine.scoring.evaluate import evaluate
from dualformer_cli.engine.scoring.scorer import Scorer
from dualformer_cli.engine.scoring.summary import summarise
from dualformer_cli.engine.training import loop
from dualformer_cli.system.workers import Outcome


class HerePool:
    """Decodes in this process, which saves the start of a worker."""

    def __init__(self, *_: Any, **__: Any) -> None:
        """Take what a WorkerPool takes."""

    def __enter__(self) -> HerePool:
        return self

    def __exit__(self, *_: object) -> None:
        """There is nothing to end."""

    def imap(
        self, function: Callable[[Any], Any], items: Iterable[Any], *, ahead: int | None = None
    ) -> Iterator[Outcome[Any, Any]]:
        for item in items:
            yield Outcome(item, function(item))


def losses_and_digest(job: dict[str, Any], ranks: Ranks) -> dict[str, Any]:
    """The loss of every step, the weights after them, and what fresh weights score."""
    flags = {"data.train_list": job["train"], "data.validation_list": job["validation"]}
    resolved = load_config(job["preset"], overrides=job["overrides"], flags=flags, environ={})
    steps: list[StepRow] = []
    trainer = loop.Trainer(
        resolved,
        ranks,
        output=Path(job["output"], str(ranks.rank)) if job.get("has_own_disks") else Path(job["output"]),
        resume=job.get("resume", False),
        changes=frozenset({"train.epochs"}),
        on_event=lambda event: steps.append(event) if isinstance(event, StepRow) else None,
    )
    trainer.run()
    torch.manual_seed(1)
    model = build_model(resolved.config.model, resolved.config.data).eval()
    listed = open_list(resolved.config.data, job["validation"], class_names=None)
    scorer = Scorer(model, mean=resolved.config.data.mean, std=resolved.config.data.std)
    data = resolved.config.data
    records = evaluate(scorer, listed, data, data.test, HerePool(), ranks)  # type: ignore[arg-type]
    document = summarise(records, listed.class_names, multi_label=False)
    return {
        "losses": [row.losses["loss"] for row in steps],
        "trained": [float(value.double().abs().sum()) for value in trainer.state.model.state_dict().values()],
        "digest": document.digest,
        "top1": document.metrics["top1"],
        "videos": to_json(document.videos),
    }


def do_all(path: Path) -> None:
    """Do all jobs in one start of the processes."""
    with init_ranks("cpu") as ranks:
        for job in json.loads(path.read_text()):
            found = losses_and_digest(job, ranks)
            if ranks.is_main:
                Path(job["result"]).write_text(json.dumps(found))


def main() -> None:
    torch.set_num_threads(1)
    loop.WorkerPool = HerePool  # type: ignore[assignment, misc]
    path = Path(sys.argv[1])
    if len(sys.argv) == 2:
        do_all(path)
        return
    sys.path.append(str(Path(__file__).parents[1] / "parallel"))
    from rank_jobs import World, run_worlds

    importlib.import_module("torch._dynamo")  # optimizers load it: here once, and not in every rank
    run_worlds([World("trained", lambda rank, world_size: do_all(path), int(sys.argv[2]))], path.parent)


if __name__ == "__main__":
    main()
