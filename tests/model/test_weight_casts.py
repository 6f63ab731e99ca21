"""Casts of weights under autocast: kept while a step lasts, and forgotten as ever by whoever uses the model without."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dualformer_cli.model.recomputing import recompute_contexts
from dualformer_cli.model.weight_casts import kept_casts


def test_a_thread_that_recomputed_in_a_step_forgets_casts_after_it() -> None:
    """Weights that change between backward passes, under an autocast of the user's own."""
    layer, x = nn.Linear(4, 4, bias=False), torch.ones(1, 4, requires_grad=True)

    def loss() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            y = checkpoint(layer, x, use_reentrant=False, context_fn=lambda: recompute_contexts(layer))
        return y.float().sum()

    with ThreadPoolExecutor(1) as thread:
        with kept_casts("cpu"):
            thread.submit(loss().backward).result()
        for value in (1.0, 2.0, 3.0):
            nn.init.constant_(layer.weight, value)
            found = loss()
            assert found.item() == 4 * 4 * value
            x.grad = None
            thread.submit(found.backward).result()
            assert x.grad is not None
            assert x.grad.tolist() == [[4 * value] * 4]
