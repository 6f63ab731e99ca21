"""The moving average of the weights (EMA), which is validated and saved in place of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Exponential moving average of a model's weights, and of the statistics of its norms.

    Bias-corrected: after n updates, weights w_1 .. w_n count as decay^(n - k), normalised to sum 1. So the starting
    weights have no part in it, the first update copies the model, and a run shorter than 1 / (1 - decay) updates has
    nearly the plain mean of its own weights rather than mostly its start. Whole-number buffers are copied.

    Args:
        model: whose weights are averaged; the average lives on the same device, in the same precision.
        decay: weight of the past against one update, 0 to below 1; 0.9999 averages over about 10,000 updates.
    """

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be at least 0 and below 1, got {decay}")
        self.decay = decay
        self.num_updates = 0
        self.weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the model's weights after an optimizer step."""
        self.num_updates += 1
        share = (1 - self.decay) / (1 - self.decay**self.num_updates)  # of the new weights
        current = model.state_dict()
        averaged = [name for name, tensor in self.weights.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([self.weights[name] for name in averaged], [current[name] for name in averaged], share)
        for name, tensor in self.weights.items():
            if not tensor.is_floating_point():
                tensor.copy_(current[name])

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Let the model have the averaged weights inside the `with` block, and its own again after it."""
        own = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        model.load_state_dict(self.weights)
        try:
            yield
        finally:
            model.load_state_dict(own)

    def restore(self, saved: Mapping[str, Tensor], num_updates: int) -> None:
        """Go on from the weights of a saved average and the number of its updates, with this object's decay.

        Raises:
            ValueError: if it is the average of another model.
        """
        if differing := sorted(set(self.weights) ^ set(saved)):
            raise ValueError(f"the saved average is of another model: {differing[0]!r} is in only one of them")
        for name, tensor in self.weights.items():
            if tensor.shape != saved[name].shape:
                shapes = f"{tuple(saved[name].shape)}, not {tuple(tensor.shape)}"
                raise ValueError(f"the saved average is of another model: {name!r} has shape {shapes}")
            tensor.copy_(saved[name])
        self.num_updates = num_updates
