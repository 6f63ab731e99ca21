"""Names of the published checkpoints."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from dualformer_cli.model.weights import published_key


def to_published(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a model's tensors to the published layout."""
    return {published_key(key): value for key, value in state_dict.items()}
