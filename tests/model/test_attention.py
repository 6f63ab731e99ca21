"""Attention in the model: what it hands to the library."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dualformer_cli.model.attention import GlobalPyramidAttention


class _Calls(TorchDispatchMode):
    """Names of all operations that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_global_attention_gives_the_library_strided_tokens_without_a_copy() -> None:
    attention = GlobalPyramidAttention(64, 2, pool=None)
    x = torch.randn(2, 2, 3, 3, 64, requires_grad=True)
    with _Calls() as calls:
        attention(x)
    assert any("scaled_dot_product" in name for name in calls.names)
    assert not {"clone", "copy_", "_to_copy", "contiguous"} & set(calls.names), calls.names
