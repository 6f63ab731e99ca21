"""What one rank of each machine reads, and all ranks of the machine have in memory once."""

from __future__ import annotations

import mmap
import os
import pickle
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

from dualformer_cli.engine.parallel.ranks import Ranks
from dualformer_cli.engine.parallel.reductions import barrier, gather_objects
from dualformer_cli.engine.parallel.watch import long_work
from dualformer_cli.errors import DualFormerError

_ALIGNMENT = 64

T = TypeVar("T")


class _Offer(NamedTuple):
    """Memory of a process that others of the machine can map."""

    process: int
    descriptor: int
    mark: bytes
    """What it begins with: on another machine, or in another container, the same numbers name something else."""
    sizes: tuple[int, ...]
    """Bytes of each part."""


def made_once_a_node(ranks: Ranks, what: str, make: Callable[[], T]) -> T:
    """Return what the first rank of this machine makes; arrays in it are in memory once, and cannot be written.

    Where processes cannot share memory, each makes its own. What a first rank cannot make for a reason in words is
    raised on all ranks.

    Args:
        ranks: this process among the others, all of which call this.
        what: is done, in words.
        make: gives the same on every rank, and what can be pickled.
    """
    if ranks.world_size == 1:
        return make()
    made: list[T] = []
    offer: _Offer | None = None
    problem: DualFormerError | None = None
    with long_work(what):
        if ranks.local_rank == 0:
            try:
                made.append(make())
                offer = _offered(made[0])
            except DualFormerError as error:
                problem = error
        offers, problems = zip(*gather_objects((offer, problem)), strict=True)
        for each in problems:
            if each is not None:
                raise each
        mapped = next((memory for each in offers if (memory := _mapped(each)) is not None), None)
        value = _loaded(mapped) if mapped is not None else made[0] if made else make()
    barrier()  # so that the memory is there until all have mapped it
    if offer is not None:
        os.close(offer.descriptor)
    return cast(T, value)


def _offered(value: object) -> _Offer | None:
    """Write a value into memory that has no name; None where there is no such memory."""
    if not hasattr(os, "memfd_create"):
        return None
    buffers: list[pickle.PickleBuffer] = []
    content = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    parts: list[Any] = [content, *(buffer.raw() for buffer in buffers)]
    mark = uuid.uuid4().bytes
    try:
        descriptor = os.memfd_create("dualformer")
    except OSError:
        return None
    with open(descriptor, "wb", closefd=False) as file:
        file.write(mark)
        for part in parts:
            file.seek(_aligned(file.tell()))
            file.write(part)
    return _Offer(os.getpid(), descriptor, mark, tuple(len(part) for part in parts))


def _mapped(offer: _Offer | None) -> list[memoryview] | None:
    """Return the parts of what a process of this machine offers; None if it is of another."""
    if offer is None:
        return None
    path = Path(f"/proc/{offer.process}/fd/{offer.descriptor}")
    try:
        if not str(path.readlink()).startswith("/memfd:dualformer"):
            return None
        with path.open("rb") as file:
            memory = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError):
        return None
    if memory[: len(offer.mark)] != offer.mark:
        return None
    parts, end = [], len(offer.mark)
    for size in offer.sizes:
        start = _aligned(end)
        end = start + size
        parts.append(memory[start:end])
    return parts


def _loaded(parts: Sequence[memoryview]) -> object:
    """Return the value, whose arrays stay where they are. It comes from a process of the same run and user."""
    return pickle.loads(parts[0], buffers=parts[1:])


def _aligned(position: int) -> int:
    return -(-position // _ALIGNMENT) * _ALIGNMENT
