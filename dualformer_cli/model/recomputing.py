"""What holds while a checkpointed block is computed again in the backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from torch import nn

from dualformer_cli.model.weight_casts import recomputed_casts


def recompute_contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Contexts of a checkpointed block's two forward passes: the second one must not count its batch again."""
    return nullcontext(), _recomputing(block)


@contextmanager
def _recomputing(block: nn.Module) -> Iterator[None]:
    with recomputed_casts(), _still_statistics(block):
        yield


@contextmanager
def _still_statistics(block: nn.Module) -> Iterator[None]:
    norms = [module for module in block.modules() if isinstance(module, nn.BatchNorm3d)]
    before = [
        (norm.momentum, norm.num_batches_tracked.clone()) for norm in norms if norm.num_batches_tracked is not None
    ]
    for norm in norms:
        norm.momentum = 0.0  # the running statistics stay the same tensors, which the backward pass checks
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(count)  # type: ignore[union-attr]
