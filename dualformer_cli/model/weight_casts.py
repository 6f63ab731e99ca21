"""Casts of weights under autocast, kept for several passes: each weight is cast once, however often it is used.

Autocast forgets its casts where the outermost one of a thread ends. A block that is recomputed for a GPU runs on
autograd's thread for it, where its own autocast is the outermost: every block would forget those of all.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_keeper: int | None = None
"""The thread that keeps casts."""
_thread = threading.local()
"""Whether this thread counts as inside of autocast between blocks."""


@contextmanager
def kept_casts(device_type: str) -> Iterator[None]:
    """Keep casts through all passes in here, forward and backward; until then no weight may change."""
    global _keeper
    with torch.autocast(device_type, enabled=False):  # at whose end casts are forgotten
        _keeper = threading.get_ident()
        try:
            yield
        finally:
            _keeper = None


@contextmanager
def recomputed_casts() -> Iterator[None]:
    """Have the autocast around this, which recomputes a block, forget no casts that another thread keeps."""
    try:
        yield
    finally:
        is_inside = _keeper is not None and _keeper != threading.get_ident()
        if is_inside != getattr(_thread, "is_inside", False):
            (torch.autocast_increment_nesting if is_inside else torch.autocast_decrement_nesting)()
            _thread.is_inside = is_inside
