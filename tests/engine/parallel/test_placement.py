"""Which GPU each process takes, on one machine and on several, as torchrun or srun tell."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch

from dualformer_cli.engine.parallel import ranks as ranks_module
from dualformer_cli.engine.parallel.devices import pick_device
from dualformer_cli.engine.parallel.ranks import Ranks, init_ranks
from dualformer_cli.errors import DualFormerError

NAMES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR")
SLURM = ("PROCID", "LOCALID", "NODEID", "NTASKS", "STEP_NUM_TASKS", "TASKS_PER_NODE", "STEP_TASKS_PER_NODE")


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The function place(variables, gpus, device="auto") -> Ranks, on a machine with so many GPUs, joining nobody."""

    def run(variables: dict[str, Any], gpus: int, device: str = "auto") -> Ranks:
        for name in (*NAMES, *(f"SLURM_{name}" for name in SLURM)):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, str(value))
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        taken: list[torch.device] = []
        monkeypatch.setattr(torch.cuda, "set_device", taken.append)
        monkeypatch.setattr(ranks_module, "_joined", lambda *_: nullcontext())
        monkeypatch.setattr(ranks_module.dist, "destroy_process_group", lambda: None)
        with init_ranks(device) as ranks:
            assert taken == ([ranks.device] if ranks.device.type == "cuda" else [])
            return ranks

    return run


def torchrun(rank: int, local_rank: int, world_size: int, on_machine: int) -> dict[str, Any]:
    return dict(zip(NAMES[:4], (rank, local_rank, world_size, on_machine), strict=True))


def srun(rank: int, local_rank: int, node: int, tasks: int, per_node: str) -> dict[str, Any]:
    values = {"PROCID": rank, "LOCALID": local_rank, "NODEID": node, "NTASKS": tasks, "TASKS_PER_NODE": per_node}
    return {**{f"SLURM_{name}": value for name, value in values.items()}, "MASTER_ADDR": "first"}


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_a_second_machine_takes_its_own_gpus(place: Any, device: str) -> None:
    for local_rank in range(4):
        ranks = place(torchrun(4 + local_rank, local_rank, 8, 4), 4, device)
        assert ranks == Ranks(
            rank=4 + local_rank, local_rank=local_rank, world_size=8, device=torch.device("cuda", local_rank)
        )
        assert place(srun(4 + local_rank, local_rank, 1, 8, "4(x2)"), 4, device) == ranks


def test_a_machine_may_have_more_gpus_than_processes(place: Any) -> None:
    assert place(torchrun(3, 0, 6, 3), 4).device == torch.device("cuda", 0)
    assert place(srun(5, 2, 1, 6, "3(x2)"), 8).device == torch.device("cuda", 2)


def test_machines_may_have_different_numbers_of_tasks(place: Any) -> None:
    ranks = place(srun(6, 0, 3, 7, "2(x3),1"), 1)
    assert (ranks.rank, ranks.local_rank, ranks.device) == (6, 0, torch.device("cuda", 0))
    with pytest.raises(DualFormerError, match=r"2 processes on this machine need a GPU each, it has 0|no CUDA"):
        place(srun(3, 1, 1, 7, "2(x3),1"), 0, "cuda")
    with pytest.raises(DualFormerError, match=r"^3 processes on this machine need a GPU each, it has 2; start 2, or"):
        place(srun(6, 2, 2, 7, "2(x2),3"), 2)
    with pytest.raises(DualFormerError, match=r"device 'cuda:0' is one GPU for 2 processes on this machine"):
        place(srun(4, 0, 2, 7, "2(x3),1"), 2, "cuda:0")
    assert place(srun(6, 0, 3, 7, "2(x3),1"), 2, "cuda:1").device == torch.device("cuda", 1)


def test_a_task_that_sees_one_gpu_of_its_own_takes_it(place: Any) -> None:
    assert place(srun(3, 3, 0, 4, "4"), 1).device == torch.device("cuda", 0)
    with pytest.raises(DualFormerError, match="4 processes on this machine need a GPU each, it has 1"):
        place(torchrun(3, 3, 4, 4), 1)


def test_a_gpu_is_taken_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert [pick_device(name) for name in ("auto", "cuda", "cuda:2")] == [
        torch.device("cuda", index) for index in (0, 0, 2)
    ]
