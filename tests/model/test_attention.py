"""Attention in the model: what it hands to the library."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dualformer_cli.model import attention as attention_module
from dualformer_cli.model.attention import GlobalPyramidAttention, attend


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


@pytest.mark.parametrize(
    ("multiplies", "has_tiles", "takes_products"),
    [(True, True, False), (True, False, True), (False, False, False)],
)
def test_attention_in_bfloat16_is_near_on_every_processor(
    multiplies: bool, has_tiles: bool, takes_products: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: multiplies)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has_tiles)
    monkeypatch.setattr(attention_module, "_prefers_products", attention_module._prefers_products.__wrapped__)
    monkeypatch.setattr(attention_module, "_CACHED_SCORES", 1000)  # several groups of heads and parts of the queries
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(3, length, 5, 32, generator=generator).bfloat16() for length in (37, 53, 53))
    with torch.no_grad(), _Calls() as calls:
        found = attend(q, k, v)
        exact = attend(q.double(), k.double(), v.double())
    assert ("bmm" in calls.names) is takes_products
    assert found.shape == (3, 37, 160)
    assert float((found - exact).abs().max() / exact.abs().max()) < 2e-2


def test_gradients_of_attention_in_bfloat16_are_nearer_than_the_library_s() -> None:
    """Of tokens on either side of the window's 53, strided as the model has them, beside float64."""
    generator = torch.Generator().manual_seed(0)
    given = [torch.randn(3, length, 5, 32, generator=generator).bfloat16() for length in (37, 53, 53)]
    slope = torch.randn(3, 37, 160, generator=generator).bfloat16()

    def gradients(attention: Any, dtype: torch.dtype) -> list[torch.Tensor]:
        q, k, v = (x.to(dtype).requires_grad_() for x in given)
        return [x.double() for x in torch.autograd.grad(attention(q, k, v), (q, k, v), slope.to(dtype))]

    def of_library(*tensors: torch.Tensor) -> torch.Tensor:
        q, k, v = (x.transpose(1, 2) for x in tensors)
        return torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    exact = gradients(of_library, torch.float64)
    for own, library, truth in zip(
        gradients(attend, torch.bfloat16), gradients(of_library, torch.bfloat16), exact, strict=True
    ):
        assert (own - truth).norm() < (library - truth).norm()
        assert (own - truth).norm() < 2**-8 * truth.norm(), "rounded once"


def test_attention_in_bfloat16_has_gradients_by_torch_func() -> None:
    q, k, v = (torch.randn(1, length, 2, 8).bfloat16() for length in (5, 7, 7))

    def loss(q: torch.Tensor) -> torch.Tensor:
        return attend(q, k, v).float().square().sum()

    own = q.clone().requires_grad_()
    (expected,) = torch.autograd.grad(loss(own), own)
    torch.testing.assert_close(torch.func.grad(loss)(q), expected, rtol=0.05, atol=0.05)
