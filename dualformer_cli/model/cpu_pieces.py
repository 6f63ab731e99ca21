"""Work on a CPU in cache-sized pieces, each on one thread.

Whole activations of the first stages are far larger than the caches, and every new one costs page faults: in float32
a (50176, 64) x (64, 256) product runs at a third of the rate of the same product in pieces of 2048 rows. Handing whole
pieces to threads, in place of splitting each small operation over them, also spares thousands of barriers: beside
other programs on both of 2 cores, a forward pass of tiny took 3.3 s this way and 15 s the other, alone 1.2 s either
way. Whole clips are handed out alike (engine/scoring/scorer.py).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Piece = TypeVar("Piece")

PIECE_NUMBERS = 2**17
"""Numbers (tokens x channels) in a piece; the time is flat from 2^16 to 2^18."""

_pools: dict[int, ThreadPoolExecutor] = {}
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_pools.clear)  # a fork takes no threads along


def can_work_in_pieces(x: torch.Tensor) -> bool:
    """Whether an inference pass over `x` may go piece by piece: on a CPU, and not while the pass is being recorded.

    Autocast, tracing and compilation are states of one thread, which the others would not share.
    """
    return (
        x.device.type == "cpu"
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.jit.is_tracing()  # type: ignore[attr-defined]
        and not torch.compiler.is_compiling()
    )


def for_each_piece(function: Callable[[Piece], object], pieces: Iterable[Piece]) -> None:
    """Call `function` on every piece, on as many threads as torch may use, each computing alone.

    What `function` hands out in turn is computed by the thread that calls it.

    Raises:
        Exception: the first that a call raises.
    """
    num_threads = torch.get_num_threads()
    if num_threads == 1:
        for piece in pieces:
            function(piece)
        return
    waiting, lock, is_inference = iter(pieces), threading.Lock(), torch.is_inference_mode_enabled()

    def work() -> None:
        with torch.inference_mode(is_inference), torch.no_grad():
            while True:
                with lock:
                    piece = next(waiting, _END)
                if isinstance(piece, _End):
                    return
                function(piece)

    if num_threads not in _pools:
        _pools[num_threads] = ThreadPoolExecutor(num_threads, "dualformer-piece", torch.set_num_threads, (1,))
    for future in [_pools[num_threads].submit(work) for _ in range(num_threads)]:
        future.result()


class _End:
    pass


_END = _End()
