"""Devices, ranks, exchanges between them, and BatchNorm over all of them."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import pytest
import torch
import warm
from torch import Tensor, nn

from dualformer_cli.engine.parallel import node_memory
from dualformer_cli.engine.parallel.batch_norm import (
    FrozenBatchNorm,
    SynchronizedBatchNorm,
    average_running_statistics,
    convert_batch_norm,
)
from dualformer_cli.engine.parallel.devices import multiplies_bf16, pick_device, pick_precision
from dualformer_cli.engine.parallel.gradients import GradientSums
from dualformer_cli.engine.parallel.placement import is_one_of_many
from dualformer_cli.engine.parallel.ranks import init_ranks
from dualformer_cli.engine.parallel.reductions import (
    any_rank,
    barrier,
    broadcast_object,
    gather_objects,
    in_touch,
    sum_over_ranks,
)
from dualformer_cli.engine.parallel.same_weights import digest_of
from dualformer_cli.errors import DualFormerError

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent.parent
PLACEMENT = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

Results = dict[str, list[Any]]
"""World (two, three, lost, ...) to what each of its ranks stored."""


def script_environment() -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if name not in PLACEMENT}
    return {**clean, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


def test_a_digest_is_of_values_in_their_places() -> None:
    one, two = torch.ones(3), torch.zeros(3)
    found = [digest_of(tensors) for tensors in ({"a": one, "b": two}, {"a": two, "b": one}, {"b": one, "a": two})]
    found.append(digest_of({"a": one.clone(), "b": two.clone()}))
    assert found[0] == found[3]
    assert len(set(found)) == 3
    assert digest_of({"a": one}) != digest_of({"b": one})
    assert digest_of({"a": torch.tensor([1.0, 2])}) != digest_of({"a": torch.tensor([1.0, 3])})


@pytest.fixture(scope="module")
def jobs() -> ModuleType:
    """The script with the ranks' side of these tests, for the same work in one process."""
    spec = importlib.util.spec_from_file_location("rank_jobs", HERE / "rank_jobs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("worlds")
    command = [sys.executable, str(HERE / "rank_jobs.py"), str(folder)]
    done = warm.run(command, env=script_environment())
    assert done.returncode == 0, done.stderr
    sizes = {"two": 2, "three": 3, "lost": 1, "alone": 1, "orphan": 1}
    missing = [
        f"{name}-{rank}"
        for name, n in sizes.items()
        for rank in range(n)
        if not (folder / f"{name}-{rank}.pt").exists()
    ]
    assert not missing, done.stderr
    return {
        name: [torch.load(folder / f"{name}-{rank}.pt", weights_only=True) for rank in range(n)]
        for name, n in sizes.items()
    }


def both(worlds: Results, job: str) -> list[list[Any]]:
    return [[rank[job] for rank in worlds[name]] for name in ("two", "three")]


def test_sums_are_over_all_ranks_and_leave_what_was_given(worlds: Results) -> None:
    for seen in both(worlds, "exchange"):
        n = len(seen)
        for rank, one in enumerate(seen):
            assert one["tensor"].tolist() == [n * k + n * (n - 1) / 2 for k in range(3)]
            assert one["tensor_before"].tolist() == [rank, rank + 1, rank + 2]
            assert one["array"] == (np.array([[1, 2], [3, 4]]) * n * (n + 1) // 2).tolist()
            assert one["array_before"] == (np.array([[1, 2], [3, 4]]) * (rank + 1)).tolist()
            assert one["scalar"] == n / 2


def test_sums_of_floats_are_bitwise_the_same_on_every_rank(worlds: Results) -> None:
    for seen in both(worlds, "exchange"):
        assert len({one["float_bits"] for one in seen}) == 1


def test_objects_come_in_rank_order_and_from_rank_0(worlds: Results) -> None:
    for seen in both(worlds, "exchange"):
        for one in seen:
            assert one["objects"] == [{"rank": rank, "text": "x" * 10**rank} for rank in range(len(seen))]
            assert one["from_main"] == ["main", 0]


def test_a_flag_on_one_rank_is_seen_by_all(worlds: Results) -> None:
    for seen in both(worlds, "exchange"):
        assert [one["any"] for one in seen] == [[True, False, True]] * len(seen)


def test_ranks_know_their_place_under_torchrun_and_srun_and_only_rank_0_has_an_exit_code(worlds: Results) -> None:
    for seen in both(worlds, "ranks"):
        assert seen == [[rank, "cpu", 75 if rank == 0 else 0] for rank in range(len(seen))]
    assert not any(one["is_initialized_after"] for name in ("two", "three") for one in worlds[name])


def test_gradients_are_summed_and_those_that_no_rank_has_stay_none(worlds: Results) -> None:
    for seen in both(worlds, "gradients_of_some"):
        n = len(seen)
        expected = [
            [n * (n + 1) / 2] * 6,
            [0.0, 1.0, 2.0, 3.0, 4.0, 5.0],
            None,
            [n * value for value in (0.0, 2.0, 4.0, 1.0, 3.0, 5.0)],
            [n / 2] * 2,
            None,
        ]
        assert seen == [expected] * n


def test_gradients_that_travel_are_the_sums_of_what_each_rank_has(worlds: Results) -> None:
    """Also where passes accumulate, a rank makes none, and layers go out of use and come back."""
    for seen in both(worlds, "gradients_on_the_way"):
        for one in seen:
            for step, (found, wanted) in enumerate(zip(one["found"], one["wanted"], strict=True)):
                unused = {3, 4} if step == 4 else set()  # of a layer that nobody uses in this step
                assert found == [None if number in unused else value for number, value in enumerate(wanted)]


def test_gradients_are_sent_on_before_the_backward_pass_has_all(worlds: Results) -> None:
    """Seven of four layers, the last layer first, where the step before has had the same ones."""
    for first, *others in both(worlds, "gradients_on_the_way"):
        assert first["sent"][:3] == [
            ["after the passes", 7, 7, 7, 7],
            [2, 4, 6, 7, "after the passes"],
            [2, 4, 6, 7, "after the passes"],
        ]
        assert first["sent"][3] == [7, 7, 7, 7, "after the passes"], "of two passes the last sends"
        assert first["sent"][4] == [2, "after the passes", 5, 5, 5, 5, 5, 5], "expected in vain: all over again"
        for other in others:
            assert other["sent"][2] == ["after the passes", 0, 0, 0, 0], "no pass, the same exchanges"


def test_sums_are_bitwise_the_same_whenever_gradients_travel(worlds: Results) -> None:
    """As with an unbroken run and one that has just been resumed, whose first step knows of none before it."""
    for seen in both(worlds, "same_bits"):
        assert all(seen)


def test_buffers_become_means_and_counters_maxima(worlds: Results) -> None:
    for seen in both(worlds, "averaged_buffers"):
        for buffers in seen:
            assert buffers["0.running_mean"].tolist() == [len(seen) / 2] * 2
            assert torch.equal(buffers["1.running_var"], torch.tensor([0.1])), "the mean of equal values moved"
            assert buffers["1.num_batches_tracked"].item() == 7


def test_a_signal_to_one_rank_is_heard_by_the_others_without_an_exchange(worlds: Results) -> None:
    for seen in both(worlds, "stop_signals"):
        for found in seen:
            assert found == [False, None, (None, True), True, signal.SIGUSR1, False]


def test_ranks_with_other_weights_are_named(worlds: Results) -> None:
    for seen in both(worlds, "same_weights"):
        assert len({digest for digest, _ in seen}) == 1
        for _, message in seen:
            assert message.startswith(f"the weights of rank {len(seen) - 1} are not those of rank 0 (")
            assert message.endswith("give all of them the same --output, weights and settings")


def test_a_save_within_an_epoch_has_the_mean_of_the_statistics_and_leaves_each_rank_its_own(worlds: Results) -> None:
    for seen in both(worlds, "saved_statistics"):
        mean = sum(range(1, len(seen) + 1)) / len(seen)
        assert seen == [{"saved": mean, "stays": rank + 1.0, "resumed": rank + 1.0} for rank in range(len(seen))]


def test_what_the_first_rank_of_a_machine_makes_is_in_memory_once_for_all(worlds: Results) -> None:
    for seen in both(worlds, "once_a_node"):
        assert [one["calls"] for one in seen] == [[0]] + [[]] * (len(seen) - 1)
        for one in seen:
            assert one["sum"] == 100_000 * 99_999 // 2
            assert one["rest"] == [["a", "\u00e9", ""], ["x"]]
            assert not one["is_writable"]
            assert (one["mapped"], one["open"]) == (1, 1), "the mapping alone has it open"
            assert one["said"] == "rank 1 finds no list", "the only one that is the first of a machine"


def test_memory_of_another_machine_is_not_taken() -> None:
    """There the same process and descriptor are nothing, or something else."""
    offer = node_memory._offered({"numbers": np.arange(5), "name": "x"})
    assert offer is not None
    parts = node_memory._mapped(offer)
    assert parts is not None
    found: Any = node_memory._loaded(parts)
    assert (found["numbers"].tolist(), found["name"]) == ([0, 1, 2, 3, 4], "x")
    other = os.memfd_create("dualformer")
    for wrong in ({"process": 999_999_999}, {"mark": bytes(16)}, {"descriptor": other}, {"descriptor": 0}):
        assert node_memory._mapped(offer._replace(**wrong)) is None
    os.close(offer.descriptor)
    os.close(other)


def difference(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> float:
    assert found.keys() == wanted.keys()
    scale = max(float(value.abs().max()) for value in wanted.values())
    return max(float((found[name] - wanted[name]).abs().max()) for name in wanted) / scale


@pytest.mark.parametrize(
    ("kind", "dtype", "bound"), [("double", torch.float64, 1e-12), ("single", torch.float32, 1e-6)]
)
def test_synchronized_batch_norm_equals_one_process_with_all_samples(
    kind: str, dtype: torch.dtype, bound: float, worlds: Results, jobs: ModuleType
) -> None:
    alone = jobs.train_network(jobs.network("per_rank", dtype), jobs.samples().to(dtype), 0)
    for seen in both(worlds, "batch_norm"):
        ranks = [one[kind] for one in seen]
        assert [len(one["output"]) for one in ranks] == jobs.SHARES["two" if len(seen) == 2 else "three"]
        for part in ("output", "input_gradient"):
            joined = torch.cat([one[part] for one in ranks])
            assert difference({part: joined}, {part: alone[part]}) < bound
        for one in ranks:
            assert difference(one["gradients"], alone["gradients"]) < bound
            assert difference(one["buffers"], alone["buffers"]) < bound
            assert all(torch.equal(value, ranks[0]["buffers"][name]) for name, value in one["buffers"].items())
            assert all(torch.equal(value, ranks[0]["gradients"][name]) for name, value in one["gradients"].items())


def test_a_video_model_has_the_gradients_of_one_process_even_beside_a_rank_without_clips(
    worlds: Results, jobs: ModuleType
) -> None:
    alone = jobs.train_video_model(0, 7)
    assert any("coarse_norm" in name for name in alone)
    for seen in both(worlds, "batch_norm"):
        for one in seen:
            assert difference(one["video"], alone) < 1e-10


def test_a_rank_that_dies_is_noticed_by_the_others(worlds: Results) -> None:
    assert worlds["lost"][0].startswith("RanksLost: rank 0 of 2 lost the other ranks while ")
    assert worlds["lost"][0].endswith("; the message of the rank that failed first says why")
    assert "[/" not in worlds["lost"][0], "a place in Gloo's source"


def test_ranks_that_never_come_are_given_up(worlds: Results) -> None:
    assert worlds["alone"][0].startswith("rank 0 of 2 could not join the others at 127.0.0.1:")
    assert worlds["alone"][0].endswith("check that all of them run and that MASTER_ADDR and MASTER_PORT can be reached")


def test_one_process_needs_no_process_group(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PLACEMENT:
        monkeypatch.delenv(name, raising=False)
    parameter, model = nn.Parameter(torch.ones(2)), nn.BatchNorm3d(1)
    with init_ranks("cpu") as ranks:
        assert (ranks.rank, ranks.local_rank, ranks.world_size, ranks.is_main) == (0, 0, 1, True)
        assert ranks.device == torch.device("cpu")
        assert not torch.distributed.is_initialized()
        assert sum_over_ranks(np.arange(3)).tolist() == [0, 1, 2]
        assert gather_objects("a") == ["a"]
        assert broadcast_object("a") == "a"
        assert (any_rank(True), any_rank(False)) == (True, False)
        barrier()
        GradientSums([parameter]).finish(torch.zeros(1))
        average_running_statistics(model)
    assert parameter.grad is None
    with pytest.raises(ValueError, match="sum_over_ranks takes a Tensor or an ndarray, got float"):
        sum_over_ranks(1.0)


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"RANK": "1"}, "environment variable WORLD_SIZE must be a whole number, but is not set; start with torchrun"),
        ({"RANK": "one", "WORLD_SIZE": "2"}, "environment variable RANK must be a whole number, but is 'one'"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "rank must be between 0 and 1 in a world of 2 processes, got 2"),
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "8"}, "srun started 8 tasks, but MASTER_ADDR is not set"),
    ],
)
def test_variables_that_make_no_sense_are_named(environ: dict[str, str], message: str) -> None:
    with pytest.raises(DualFormerError, match=message):
        is_one_of_many(environ)


@pytest.mark.parametrize(
    ("environ", "answer"),
    [
        ({}, False),
        ({"RANK": "0", "WORLD_SIZE": "1"}, False),
        ({"RANK": "3", "WORLD_SIZE": "4"}, True),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, False),  # a batch script, not srun
        ({"SLURM_PROCID": "3", "SLURM_NTASKS": "4", "MASTER_ADDR": "node1"}, True),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "RANK": "0", "WORLD_SIZE": "8", "MASTER_ADDR": "node1"}, True),
    ],
)
def test_one_of_many_is_told_from_one(environ: dict[str, str], answer: bool) -> None:
    assert is_one_of_many(environ) is answer


@pytest.mark.parametrize(
    ("device", "rank", "gpus", "message"),
    [
        ("cuda", 1, 1, "2 processes on this machine need a GPU each, it has 1; start 1, or use --device cpu"),
        ("auto", 1, 1, "2 processes on this machine need a GPU each, it has 1; start 1, or use --device cpu"),
        ("cuda:1", 0, 4, "device 'cuda:1' is one GPU for 2 processes on this machine; use --device cuda"),
        ("cuda", 0, 0, "device 'cuda' is not here: this machine has no CUDA device"),
    ],
)
def test_gpus_that_are_not_there_are_named(
    device: str, rank: int, gpus: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in zip(PLACEMENT, (rank, rank, 2, 2), strict=False):
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(DualFormerError, match=message), init_ranks(device):
        pytest.fail("there are not enough GPUs")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_auto_is_the_cpu_without_a_gpu() -> None:
    assert pick_device("auto") == torch.device("cpu")


@pytest.mark.parametrize("is_fast", [True, False])
def test_auto_is_bf16_on_a_cpu_only_where_it_is_fast_and_wanted(is_fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: is_fast)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    cpu = torch.device("cpu")
    assert pick_precision("auto", cpu) == "fp32"
    assert pick_precision("auto", cpu, bf16_on_cpu=True) == ("bf16" if is_fast else "fp32")
    for asked in ("fp32", "bf16", "fp16"):
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
        assert pick_precision(asked, cpu, bf16_on_cpu=True) == asked
        assert not torch.backends.cudnn.allow_tf32


def test_memory_that_ran_out_in_an_exchange_is_not_taken_for_lost_ranks() -> None:
    with pytest.raises(torch.OutOfMemoryError, match="tried to allocate"), in_touch("adding up gradients"):
        raise torch.OutOfMemoryError("tried to allocate 2 GiB")


def test_a_processor_with_matrix_tiles_multiplies_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    for has_tiles in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda has_tiles=has_tiles: has_tiles)
        assert multiplies_bf16() is has_tiles


def test_a_rank_does_not_start_without_its_launcher(worlds: Results) -> None:
    assert worlds["orphan"] == ["process 999999999, which started this rank, is gone"]


def test_frozen_batch_norm_trains_with_its_running_statistics_and_keeps_them() -> None:
    layer, x = nn.BatchNorm3d(3), torch.randn(2, 3, 1, 2, 2)
    torch.nn.init.normal_(layer.weight)
    torch.nn.init.normal_(layer.get_buffer("running_mean"))
    layer = cast(nn.BatchNorm3d, convert_batch_norm(layer, "frozen")).train()
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    output = layer(x)
    output.square().sum().backward()
    assert torch.equal(output, layer.eval()(x))
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
    assert layer.weight.grad is not None
    assert layer.weight.grad.abs().min() > 0


def test_conversion_keeps_names_tensors_and_the_other_modules() -> None:
    model = nn.ModuleDict({"block": nn.Sequential(nn.Conv3d(2, 2, 1), nn.BatchNorm3d(2, eps=1e-3, momentum=0.2))})
    names, tensors = list(model.state_dict()), [*model.parameters(), *model.buffers()]
    kinds = {"synchronized": SynchronizedBatchNorm, "frozen": FrozenBatchNorm, "per_rank": nn.BatchNorm3d}
    for mode, kind in kinds.items():
        assert convert_batch_norm(model, mode) is model  # type: ignore[arg-type]
        layer = cast(nn.BatchNorm3d, model.get_submodule("block.1"))
        assert type(layer) is kind
        assert (layer.eps, layer.momentum, layer.training) == (1e-3, 0.2, True)
        assert list(model.state_dict()) == names
        assert all(a is b for a, b in zip([*model.parameters(), *model.buffers()], tensors, strict=True))


def test_modes_and_layers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="mode must be per_rank, synchronized or frozen, got 'sync'"):
        convert_batch_norm(nn.BatchNorm3d(2), "sync")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a BatchNorm without running statistics cannot be frozen"):
        convert_batch_norm(nn.BatchNorm3d(2, track_running_stats=False), "frozen")


RANKS_SCRIPT = """
import json, sys
from pathlib import Path
from dualformer_cli.engine.parallel.ranks import init_ranks
from dualformer_cli.engine.parallel.reductions import gather_objects
with init_ranks("cpu") as ranks:
    places = gather_objects([ranks.rank, ranks.local_rank, ranks.world_size])
    if ranks.is_main:
        Path(sys.argv[1]).write_text(json.dumps(places))
"""


def test_two_torchrun_agents_make_one_world(tmp_path: Path) -> None:
    (tmp_path / "ranks.py").write_text(RANKS_SCRIPT)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{probe.getsockname()[1]}"
    agent = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    meeting = ["--rdzv-backend", "c10d", "--rdzv-id", "test", "--rdzv-endpoint", endpoint, "--local-addr", "127.0.0.1"]
    command = [*agent, *meeting, "ranks.py", "places.json"]
    environment = {**script_environment(), "TMPDIR": str(tmp_path)}  # for torchrun's logs
    running = [subprocess.Popen(command, cwd=tmp_path, env=environment) for _ in range(2)]
    try:
        assert [process.wait(timeout=120) for process in running] == [0, 0]
    finally:
        for process in running:
            process.kill()
    assert json.loads((tmp_path / "places.json").read_text()) == [[0, 0, 2], [1, 0, 2]]
