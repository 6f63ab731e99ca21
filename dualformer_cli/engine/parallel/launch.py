"""`--gpus N` and `--cpu-processes N`: torchrun for the processes of this machine, with plain words at the end.

torchrun's agent starts the processes, watches them and stops all when one fails. Around it, this file forwards
signals, keeps the output of the other ranks back, and turns what the agent reports into an exit code or one message.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Literal

import torch
from torch.distributed.elastic.agent.server.api import WorkerSpec
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure
from torch.distributed.elastic.rendezvous import RendezvousParameters
from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler

from dualformer_cli.engine.parallel.placement import LAUNCHER_PID, is_one_of_many
from dualformer_cli.errors import DualFormerError
from dualformer_cli.system.exit_codes import INTERRUPTED, SAVED, SOME_FAILED
from dualformer_cli.system.signals import KILL, STOPPING, kill_group
from dualformer_cli.system.threads import usable_cores
from dualformer_cli.system.words import counted

PLANNED_ENDS = (SOME_FAILED, SAVED, INTERRUPTED)
"""Exit codes of rank 0 that are no failure."""

_OPTIONS = ("--gpus", "--cpu-processes")
_STOPPED = (-signal.SIGTERM, 128 + signal.SIGTERM)
_LINES_SHOWN = 40


def relaunch(
    num_processes: int,
    *,
    device: Literal["cuda", "cpu"],
    argv: Sequence[str],
    command: Sequence[str] = (sys.executable, "-m", "dualformer_cli"),
    retries: int = 0,
) -> int:
    """Run a command line in several processes of this machine and wait for them.

    Every process runs the whole command; rank 0 alone prints. What the others say on stderr is shown if one of them
    ends the run. SIGTERM, SIGINT and SIGUSR1 are passed on to all of them, each kind once; a second Ctrl-C kills them.

    Args:
        num_processes: how many.
        device: cuda gives each a GPU; cpu hides the GPUs from them.
        argv: arguments of the command; --gpus and --cpu-processes are left out.
        command: what the arguments are for.
        retries: how often to start all of them again after one was killed, for a command that goes on from where it
            was.

    Returns:
        Rank 0's exit code; 128 and the signal where that ended it.

    Raises:
        DualFormerError: if there are not enough GPUs, the run has its processes already, or one of them failed without
            rank 0 having said why; then all of them are gone.
        KeyboardInterrupt: after a second Ctrl-C.
    """
    _check(num_processes, device)
    with (
        TemporaryDirectory(prefix="dualformer-") as logs,
        _environment(_variables(num_processes, device)),
        _quiet("torch.distributed.elastic"),
    ):
        for attempt in range(retries + 1):
            folder = Path(logs, str(attempt))
            folder.mkdir()
            agent = _agent(num_processes, [*command, *_without_own_options(argv)], str(folder))
            try:
                with _Forwarder(agent) as forwarder:
                    try:
                        failures = agent.run().failures
                    except _StoppedBeforeStart as stop:
                        return 128 + stop.number
                    finally:
                        forwarder.kill()  # what a dead rank may have left behind
            finally:  # or its timer, where it is the last to know the agent, would wait for itself and say so
                agent.get_worker_group().spec.rdzv_handler.shutdown()
            if attempt == retries or forwarder.seen or not _was_killed(failures):
                break
            rank = _first_to_fail(failures)
            reason = _explain(rank, failures[rank].exitcode, num_processes, folder)
            print(f"dualformer: {reason}; starting again from what is kept", file=sys.stderr, flush=True)
        return _verdict(failures, num_processes, forwarder, folder)


class _StoppedBeforeStart(Exception):  # noqa: N818
    """A signal came when there was no process yet to pass it on to."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _Forwarder:
    """Passes signals on to the agent's processes, which have sessions of their own and hear no Ctrl-C."""

    def __init__(self, agent: LocalElasticAgent) -> None:
        self.seen: list[int] = []
        self.is_second_interrupt = False
        self._agent = agent
        self._before: dict[int, object] = {}

    def __enter__(self) -> _Forwarder:
        self._before = {number: signal.signal(number, self._forward) for number in STOPPING}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def kill(self) -> None:
        """Kill every process together with the children that share its session."""
        for pid in self._pids():
            with suppress(ProcessLookupError):
                kill_group(pid)

    def _forward(self, number: int, frame: FrameType | None) -> None:
        if number in self.seen:
            if number == signal.SIGINT:
                self.is_second_interrupt = True
                self.kill()
            return
        self.seen.append(number)
        pids = self._pids()
        if not pids:
            raise _StoppedBeforeStart(number)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _pids(self) -> list[int]:
        return [worker.id for worker in self._agent.get_worker_group().workers if worker.id is not None]


def _check(num_processes: int, device: str) -> None:
    if num_processes < 1:
        raise DualFormerError(f"the number of processes must be at least 1, got {num_processes}")
    if is_one_of_many():
        raise DualFormerError(
            f"--gpus and --cpu-processes start processes, but this is one of {os.environ.get('WORLD_SIZE', 'several')} "
            "that torchrun or srun started; leave the option out"
        )
    if (lack := lack_of_devices(num_processes, device)) is not None:
        raise DualFormerError(lack)


def lack_of_devices(num_processes: int, device: str) -> str | None:
    """Return in words that this machine has fewer GPUs or cores than processes are asked for; None if it has them."""
    cores = usable_cores()
    if device == "cpu":
        of_cores = f"--cpu-processes {num_processes}: this machine has {counted(cores, 'core')}; use {_on_cores(cores)}"
        return of_cores if num_processes > cores else None
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if num_processes <= found:
        return None
    has = counted(found, "GPU") if found else "no GPU"
    use = f"--gpus {found}" if found else _on_cores(min(num_processes, cores))
    return f"--gpus {num_processes}: this machine has {has}; use {use}"


def _on_cores(num_processes: int) -> str:
    return f"--cpu-processes {num_processes}" if num_processes > 1 else "--device cpu"


def _variables(num_processes: int, device: str) -> dict[str, str]:
    """What the processes find in their environment, beside what torchrun puts there."""
    variables = {
        LAUNCHER_PID: str(os.getpid()),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, usable_cores() // num_processes))),
        "TORCHELASTIC_SIGNALS_TO_HANDLE": "SIGQUIT",  # the others are ours
    }
    return variables if device == "cuda" else {**variables, "CUDA_VISIBLE_DEVICES": ""}


def _agent(num_processes: int, command: Sequence[str], logs: str) -> LocalElasticAgent:
    """What `torchrun --standalone` makes of its options; the operating system picks a free port."""
    meeting = RendezvousParameters(
        backend="c10d",
        endpoint="localhost:0",
        run_id=uuid.uuid4().hex,
        min_nodes=1,
        max_nodes=1,
        local_addr="127.0.0.1",
    )
    spec = WorkerSpec(
        role="rank",
        local_world_size=num_processes,
        entrypoint=command[0],
        args=tuple(command[1:]),
        rdzv_handler=get_rendezvous_handler(meeting),
        max_restarts=0,
        local_addr="127.0.0.1",
    )
    redirects = {rank: Std.NONE if rank == 0 else Std.ALL for rank in range(num_processes)}
    return LocalElasticAgent(spec, DefaultLogsSpecs(log_dir=logs, redirects=redirects))


def _verdict(failures: Mapping[int, ProcessFailure], num_processes: int, forwarder: _Forwarder, logs: Path) -> int:
    """Turn what the agent reports into rank 0's exit code.

    Raises:
        DualFormerError: naming the rank that failed, unless rank 0 has named it itself.
        KeyboardInterrupt: after a second Ctrl-C, unless rank 0 left with a code of its own.
    """
    code = failures[0].exitcode if 0 in failures else 0
    if code in PLANNED_ENDS:
        return code
    if forwarder.is_second_interrupt:
        raise KeyboardInterrupt
    if not failures:
        return 0
    shell_code = code if code >= 0 else 128 - code
    if shell_code - 128 in forwarder.seen:
        return shell_code
    first = _first_to_fail(failures)
    if first == 0 and code > 0:
        return code
    raise DualFormerError(_explain(first, failures[first].exitcode, num_processes, logs))


def _was_killed(failures: Mapping[int, ProcessFailure]) -> bool:
    """Return whether the rank that ended the run was killed, rather than having said what is wrong."""
    return bool(failures) and failures[_first_to_fail(failures)].exitcode < 0


def _first_to_fail(failures: Mapping[int, ProcessFailure]) -> int:
    """The rank that did not just follow: the agent ends the others with SIGTERM, which comes seconds before RanksLost.

    Times are whole seconds; of the same second, a death by a signal comes before an exit.
    """
    own = [rank for rank, failure in failures.items() if failure.exitcode not in _STOPPED]
    return min(own or failures, key=lambda rank: (failures[rank].timestamp, failures[rank].exitcode > 0, rank))


def _explain(rank: int, exit_code: int, num_processes: int, logs: Path) -> str:
    """One line about the end of a rank; a traceback of it goes to stderr before."""
    lines = _last_lines(rank, logs)
    reason = ""
    if lines and lines[-1].startswith("dualformer: "):
        reason = ": " + lines[-1].removeprefix("dualformer: ")
    elif lines:
        print(*lines, sep="\n", file=sys.stderr, flush=True)
    if exit_code < 0:
        end = f"was killed by {signal.Signals(-exit_code).name}"
        if exit_code == -KILL:
            end += ", perhaps because memory ran out"
        elif exit_code == -signal.SIGABRT:
            end += ", as NCCL does when another rank or the link to it is gone"
    else:
        end = f"ended with exit code {exit_code}"
    return f"rank {rank} of {num_processes} {end}{reason}; all processes are stopped"


def _last_lines(rank: int, logs: Path) -> list[str]:
    lines: list[str] = []
    for path in logs.glob(f"*/attempt_0/{rank}/stderr.log"):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-_LINES_SHOWN:]
    return lines


def _without_own_options(argv: Sequence[str]) -> list[str]:
    kept: list[str] = []
    items = iter(argv)
    for item in items:
        if item == "--":
            return [*kept, item, *items]
        if item in _OPTIONS:
            next(items, None)
        elif not item.startswith(tuple(f"{option}=" for option in _OPTIONS)):
            kept.append(item)
    return kept


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Keep the agent's own account of signals and failures back, unless the user asked for details (-v)."""
    logger = logging.getLogger(name)
    before = logger.level
    if not logging.getLogger("dualformer_cli").isEnabledFor(logging.DEBUG):
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)
