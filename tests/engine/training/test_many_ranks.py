"""Several processes train and score as one does: two under torchrun, and three without."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import warm

from dualformer_cli.engine.parallel.ranks import Ranks

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def make_jobs(toy_preset: Path, toy_list: Path, part_of: Callable[..., Path]) -> Callable[[Path], list[dict[str, Any]]]:
    """Jobs for train_ranks.py: lists that leave 1 and 7 videos over after steps of 12."""

    def make(folder: Path) -> list[dict[str, Any]]:
        jobs = []
        for number, mode in ((13, "synchronized"), (19, "synchronized"), (19, "frozen")):
            overrides = [f"train.batch_norm={mode}", "train.lr=1e-3"]
            overrides += ["train.batch_size=12", "train.global_batch_size=12"]
            listed, name = str(part_of(toy_list, number)), f"{mode} {number}"
            job = {"preset": str(toy_preset), "overrides": overrides, "train": listed, "validation": listed}
            jobs.append({**job, "output": str(folder / name), "result": str(folder / f"{name}.json")})
        return jobs

    return make


@pytest.fixture(scope="module")
def alone(
    make_jobs: Callable[[Path], list[dict[str, Any]]], tmp_path_factory: pytest.TempPathFactory, here_pool: Any
) -> list[dict[str, Any]]:
    """What those jobs give in one process."""
    spec = importlib.util.spec_from_file_location("train_ranks", HERE / "train_ranks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    ranks = Ranks(rank=0, local_rank=0, world_size=1, device=torch.device("cpu"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("dualformer_cli.engine.training.loop.WorkerPool", here_pool)
            return [module.losses_and_digest(job, ranks) for job in make_jobs(tmp_path_factory.mktemp("alone"))]
    finally:
        torch.set_num_threads(threads)


def run(jobs: list[dict[str, Any]], file: Path, before: tuple[str, ...] = (), after: tuple[str, ...] = ()) -> None:
    """Do the jobs, each after the other, in the processes of one start."""
    file.write_text(json.dumps(jobs))
    environ = {**os.environ, "PYTHONPATH": str(HERE.parents[2]), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, *before, str(HERE / "train_ranks.py"), str(file), *after]
    done = warm.run(command, env=environ)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def on_two(
    make_jobs: Callable[[Path], list[dict[str, Any]]], tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    """What two processes under torchrun have done: the jobs, and one epoch and the next without a common disk."""
    folder = tmp_path_factory.mktemp("two")
    jobs = make_jobs(folder)
    shorter = {**jobs[1], "output": str(folder / "own"), "result": str(folder / "own.json"), "has_own_disks": True}
    longer = {**shorter, "overrides": [*shorter["overrides"], "train.epochs=2"], "resume": True}
    longer["result"] = str(folder / "longer.json")
    jobs += [shorter, longer]
    run(jobs, folder / "jobs.json", before=("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"))
    return jobs


def check(jobs: list[dict[str, Any]], alone: list[dict[str, Any]]) -> None:
    for job, one in zip(jobs, alone, strict=True):
        many = json.loads(Path(job["result"]).read_text())
        assert many["losses"] == pytest.approx(one["losses"], abs=1e-5), job["output"]
        assert many["trained"] == pytest.approx(one["trained"], abs=1e-2)
        for key in ("digest", "top1", "videos"):
            assert many[key] == one[key], (job["output"], key)


def test_two_processes_give_the_losses_and_the_digest_of_one(
    on_two: list[dict[str, Any]], alone: list[dict[str, Any]]
) -> None:
    check(on_two[: len(alone)], alone)


def test_three_processes_give_the_losses_and_the_digest_of_one(
    make_jobs: Callable[[Path], list[dict[str, Any]]], alone: list[dict[str, Any]], tmp_path: Path
) -> None:
    jobs = make_jobs(tmp_path)
    run(jobs, tmp_path / "jobs.json", after=("3",))
    check(jobs, alone)


def test_ranks_without_a_common_disk_resume_what_rank_0_has(
    on_two: list[dict[str, Any]], alone: list[dict[str, Any]]
) -> None:
    """Each has a folder of its own; nothing of a checkpoint is in that of rank 1."""
    *_, job, longer = on_two
    assert len(json.loads(Path(job["result"]).read_text())["losses"]) == len(alone[1]["losses"])
    found = json.loads(Path(longer["result"]).read_text())
    assert len(found["losses"]) == len(alone[1]["losses"]), "the first epoch was trained again"
    assert (Path(job["output"], "0") / "checkpoints" / "epoch-2.pt").exists()
    assert not list(Path(job["output"], "1").rglob("*.pt"))
