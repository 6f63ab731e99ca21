"""What ranks share: sums and objects.

One process is a world of size 1, in which every sum is the number itself: callers have no branch for it.
"""

from __future__ import annotations

import pickle
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from dualformer_cli.engine.parallel.watch import end_of_wait, waiting
from dualformer_cli.errors import DualFormerError
from dualformer_cli.system.signals import unwind_on_sigterm

_SECONDS_FOR_THE_WATCHER = 3.0
_BETWEEN_LOOKS = timedelta(seconds=0.5)

_T = TypeVar("_T")


class RanksLost(DualFormerError):  # noqa: N818
    """Another process of the run is gone or does not answer."""


def sum_over_ranks(values: _T) -> _T:
    """Add up a tensor or numpy array over all ranks.

    Args:
        values: a Tensor or an ndarray, of one shape and type on every rank; it stays as it is.

    Returns:
        The sum, of the same kind, type and device, bitwise the same on every rank.
    """
    if isinstance(values, np.ndarray):
        total: Any = torch.from_numpy(np.array(values, order="C"))
    elif isinstance(values, Tensor):
        total = values.detach().clone(memory_format=torch.contiguous_format)
    else:
        raise ValueError(f"sum_over_ranks takes a Tensor or an ndarray, got {type(values).__name__}")
    all_reduce(total, "adding up numbers")
    return total.numpy() if isinstance(values, np.ndarray) else total


def gather_objects(value: _T) -> list[_T]:
    """Return the values of all ranks in rank order, on every rank; anything that can be pickled."""
    if world_size() == 1:
        return [value]
    own, doing = _pickled(value), "gathering results"
    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(world_size())]
    exchange(doing, dist.all_gather, sizes, torch.tensor([len(own)]))
    padded = own.new_zeros(int(max(sizes)))
    padded[: len(own)] = own
    rows = [torch.empty_like(padded) for _ in sizes]
    exchange(doing, dist.all_gather, rows, padded)
    return [pickle.loads(row[: int(size)].numpy().data) for row, size in zip(rows, sizes, strict=True)]


def broadcast_object(value: _T) -> _T:
    """Return rank 0's value, on every rank; anything that can be pickled. The others wait as long as it takes."""
    if world_size() == 1:
        return value
    is_main, doing = dist.get_rank() == 0, "hearing from rank 0"
    content = _pickled(value) if is_main else torch.empty(0, dtype=torch.uint8)
    size = torch.tensor([len(content)])
    exchange(doing, dist.broadcast, size, src=0, is_long=True)
    if not is_main:
        content = torch.empty(int(size), dtype=torch.uint8)
    exchange(doing, dist.broadcast, content, src=0, is_long=True)
    return value if is_main else cast(_T, pickle.loads(content.numpy().data))


def _pickled(value: object) -> Tensor:
    return torch.frombuffer(bytearray(pickle.dumps(value)), dtype=torch.uint8)


def made_by_main(make: Callable[[], _T]) -> _T:
    """Return what rank 0 makes, on every rank; what rank 0 cannot make for a reason in words is raised on all.

    The others need not have the files that it is made of.
    """
    made: tuple[Any, DualFormerError | None] = (None, None)
    if world_size() == 1 or dist.get_rank() == 0:
        try:
            made = (make(), None)
        except DualFormerError as error:
            made = (None, error)
    value, problem = broadcast_object(made)
    if problem is not None:
        raise problem
    return cast(_T, value)


def any_rank(flag: bool) -> bool:
    """Return whether the flag is set on any rank; the same answer on every rank."""
    flags = torch.tensor([int(flag)])
    all_reduce(flags, "agreeing on what to do next", dist.ReduceOp.MAX)
    return bool(flags.item())


def barrier() -> None:
    """Wait until every rank is here, whatever one of them still does alone."""
    all_reduce(torch.zeros(1), "waiting until all are here", is_long=True)


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def all_reduce(values: Tensor, doing: str, operation: Any = dist.ReduceOp.SUM, *, is_long: bool = False) -> None:
    if world_size() > 1:
        exchange(doing, dist.all_reduce, values, op=operation, is_long=is_long)


def exchange(
    doing: str,
    start: Callable[..., dist.Work | None],
    *tensors: Tensor | list[Tensor],
    is_long: bool = False,
    **options: Any,
) -> None:
    """Exchange tensors with all ranks; on CPUs, signals are obeyed while others are waited for.

    Args:
        doing: what for, in words.
        start: one of torch's collectives.
        tensors, options: its arguments.
        is_long: whether it waits for what a rank does alone, however long that takes.

    Raises:
        RanksLost: if another process is gone, or does not come before the exchange timeout.
    """
    with waiting(doing, is_long=is_long), in_touch(doing):
        last = tensors[-1]
        if isinstance(last, Tensor) and last.is_cuda:
            start(*tensors, **options)
        else:
            _finish(_begun(start(*tensors, async_op=True, **options)))


def begin_sum(values: Tensor, doing: str) -> dist.Work:
    """Begin to add a tensor up over all ranks, in place; `end_sum` waits for it, and all that is here goes on."""
    with in_touch(doing):
        return _begun(dist.all_reduce(values, async_op=True))


def end_sum(values: Tensor, work: dist.Work, doing: str) -> None:
    """Wait as `exchange` does for what `begin_sum` has begun."""
    with waiting(doing), in_touch(doing):
        if values.is_cuda:  # what follows on the card waits, not this process
            _unfinished.remove(work)
            work.wait()
        else:
            _finish(work)


_unfinished: list[dist.Work] = []
"""Exchanges that nobody has waited for to their end; they go on, and a process group with one cannot be taken down."""


def has_unfinished() -> bool:
    """Return whether this process has given an exchange up."""
    return bool(_unfinished)


def _begun(work: dist.Work | None) -> dist.Work:
    assert work is not None, "this process is in the group"
    _unfinished.append(work)
    return work


def _finish(work: dist.Work) -> None:
    began = time.monotonic()
    while True:
        with suppress(RuntimeError):  # nothing yet, or it has failed
            work.wait(_BETWEEN_LOOKS)
        if work.is_completed():
            _unfinished.remove(work)
            work.wait()  # raises what it has failed of
            return
        if (reason := end_of_wait(began)) is not None:
            raise RanksLost(reason)


@contextmanager
def in_touch(doing: str) -> Iterator[None]:
    """Turn the many ways in which an exchange ends when another process is gone into one error."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise  # this process's own trouble
    except RuntimeError as error:
        rank, world_size = dist.get_rank(), dist.get_world_size()
        _let_the_watcher_act()
        raise RanksLost(
            f"rank {rank} of {world_size} lost the other ranks while {doing}: {first_sentence(error)}; "
            "the message of the rank that failed first says why"
        ) from error


def _let_the_watcher_act() -> None:
    """Give torchrun's agent the time to notice who died first, before this process looks dead as well.

    Without the others no state can be agreed and saved: SIGTERM, which the agent sends, ends this process at once.
    """
    with suppress(ValueError):  # only the main thread can, and a backward pass on a GPU has its own
        unwind_on_sigterm()
    time.sleep(_SECONDS_FOR_THE_WATCHER)


def first_sentence(error: Exception) -> str:
    """Return the library's message without the place in its source."""
    text = re.sub(r"^\[[^\]]*:\d+\]\s*", "", str(error).strip())
    return re.split(r"\.?\s*\n|\. ", text)[0].rstrip(".") or type(error).__name__


@torch.no_grad()
def scatter_flat(flat: Tensor, tensors: list[Tensor]) -> None:
    """Copy a flat tensor back into the tensors that it was made of."""
    for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view(tensor.shape))
