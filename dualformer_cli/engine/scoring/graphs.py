"""CUDA graphs of a forward pass: a GPU replays its kernels by itself, in place of Python launching one by one."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor

MOST_GRAPHS = 4
"""Shapes that get a graph. Others, as seldom numbers of views, go on as before: capturing takes more than a pass."""

_LOGGER = logging.getLogger(__name__)


class _Graph(NamedTuple):
    """What was captured for inputs of one shape."""

    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    """From which it reads."""
    result: Tensor
    """To which it writes."""


class ForwardGraphs:
    """A forward pass that is captured when inputs of a shape come a second time, and replayed from then on.

    The first pass over a shape compiles what there is to compile. Where a pass cannot be captured, that is said once,
    and all go on as if there were no graphs.

    Args:
        forward: takes tensors on a GPU and returns one; what it launches depends on nothing but their shapes.
    """

    def __init__(self, forward: Callable[..., Tensor]) -> None:
        self._forward = forward
        self._passes: Counter[tuple[object, ...]] = Counter()
        self._graphs: dict[tuple[object, ...], _Graph] = {}
        self._is_off = False

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Return what `forward` gives, in memory that no later pass writes to."""
        kind = tuple((x.shape, x.stride(), x.dtype) for x in inputs)
        if kind not in self._graphs and not self._captures(kind, inputs):
            return self._forward(*inputs)
        graph, own, result = self._graphs[kind]
        for x, value in zip(own, inputs, strict=True):
            x.copy_(value)
        graph.replay()
        return result.clone()

    def give_up(self, reason: str) -> bool:
        """Free what graphs take and make none any more; return whether there was one."""
        had_some = bool(self._graphs)
        if not self._is_off:
            _LOGGER.warning("going on without CUDA graphs: %s", reason)
        self._is_off = True
        self._graphs.clear()
        return had_some

    def _captures(self, kind: tuple[object, ...], inputs: tuple[Tensor, ...]) -> bool:
        """Capture a pass if it is time to; return whether there is a graph now."""
        self._passes[kind] += 1
        if self._is_off or self._passes[kind] == 1 or len(self._graphs) == MOST_GRAPHS:
            return False
        try:
            self._graphs[kind] = self._capture(inputs)
        except torch.OutOfMemoryError:
            self.give_up("the GPU's memory does not hold them")
        except RuntimeError as error:
            self.give_up(f"this pass cannot be captured: {str(error).splitlines()[0]}")
        return kind in self._graphs

    def _capture(self, inputs: tuple[Tensor, ...]) -> _Graph:
        device = inputs[0].device
        torch.cuda.empty_cache()
        before = torch.cuda.memory_reserved(device)
        own = [x.clone() for x in inputs]
        # Other threads may lock pages meanwhile. Each graph has memory of its own: none writes to another's.
        graph, pool, stream = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle(), torch.cuda.Stream(device)
        capture = torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local")
        with _restored(device, pool), capture:
            result = self._forward(*own)
        taken = (torch.cuda.memory_reserved(device) - before) / 2**20
        _LOGGER.info("a CUDA graph of %d views keeps %.0f MiB of the GPU's memory", len(inputs[0]), taken)
        return _Graph(graph, own, result)


@contextmanager
def _restored(device: torch.device, pool: Any) -> Iterator[None]:
    """Undo what PyTorch leaves of a capture that cannot be ended: its stream, and until 2.12 its source of memory."""
    with torch.cuda.stream(torch.cuda.current_stream(device)):
        try:
            yield
        except RuntimeError:
            with suppress(RuntimeError):  # PyTorch has done it
                torch._C._cuda_endAllocateToPool(device.index, pool)
            raise
