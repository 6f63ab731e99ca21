"""Attention in the model: what it hands to the library."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dualformer_cli.model import cpu_attention
from dualformer_cli.model.attention import GlobalPyramidAttention, attend


class _Calls(TorchDispatchMode):
    """Names of all operations that run on this thread."""

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


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("multiplies", "has_tiles", "takes_products"),
    [(True, True, False), (True, False, True), (False, False, False)],
)
def test_attention_in_bfloat16_is_near_on_every_processor(
    multiplies: bool, has_tiles: bool, takes_products: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: multiplies)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has_tiles)
    monkeypatch.setattr(cpu_attention, "_prefers_products", cpu_attention._prefers_products.__wrapped__)
    monkeypatch.setattr(cpu_attention, "_CACHED_SCORES", 1000)  # several groups of heads and parts of the queries
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(3, length, 5, 32, generator=generator).bfloat16() for length in (37, 53, 53))
    with torch.no_grad(), _Calls() as calls:
        found = attend(q, k, v)
        exact = attend(q.double(), k.double(), v.double())
    assert ("bmm" in calls.names) is takes_products
    assert found.shape == (3, 37, 160)
    assert float((found - exact).abs().max() / exact.abs().max()) < 2e-2


@pytest.fixture
def by_products(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> bool:
    """Whether the processor is one on which products are faster than PyTorch's attention."""
    monkeypatch.setattr(cpu_attention, "_prefers_products", lambda: request.param)
    return bool(request.param)


def _gradients(attention: Any, dtype: torch.dtype) -> list[torch.Tensor]:
    """Of tokens on either side of the window's 53, strided as the model has them."""
    generator = torch.Generator().manual_seed(0)
    given = [torch.randn(3, length, 5, 32, generator=generator).bfloat16() for length in (37, 53, 53)]
    slope = torch.randn(3, 37, 160, generator=generator).bfloat16()
    q, k, v = (x.to(dtype).requires_grad_() for x in given)
    return [x.double() for x in torch.autograd.grad(attention(q, k, v), (q, k, v), slope.to(dtype))]


def _of_library(*tensors: torch.Tensor) -> torch.Tensor:
    q, k, v = (x.transpose(1, 2) for x in tensors)
    return torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def _of_the_published_model(*tensors: torch.Tensor) -> torch.Tensor:
    q, k, v = (x.transpose(1, 2) for x in tensors)
    return (torch.softmax(q * 32**-0.5 @ k.mT, dim=-1) @ v).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("by_products", [False], indirect=True)
def test_gradients_of_attention_in_bfloat16_are_nearer_than_the_library_s(by_products: bool) -> None:
    exact = _gradients(_of_library, torch.float64)
    for own, library, truth in zip(
        _gradients(attend, torch.bfloat16), _gradients(_of_library, torch.bfloat16), exact, strict=True
    ):
        assert (own - truth).norm() < (library - truth).norm()
        assert (own - truth).norm() < 2**-8 * truth.norm(), "rounded once"


@pytest.mark.usefixtures("one_thread")  # which restores their number
@pytest.mark.parametrize("cached", [53, 1000, 2**20], ids=["a row", "some rows", "some heads"])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("by_products", [True], indirect=True)
def test_gradients_by_products_are_as_near_as_the_published_model_s(
    by_products: bool, threads: int, cached: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In as many parts as the cache has room for: their sums in float32 or rounded once more."""
    monkeypatch.setattr(cpu_attention, "_CACHED_SCORES", cached)
    torch.set_num_threads(threads)
    with _Calls() as calls:
        found = _gradients(attend, torch.bfloat16)
    assert not any("flash" in name for name in calls.names)
    exact = _gradients(_of_library, torch.float64)
    for own, published, truth in zip(found, _gradients(_of_the_published_model, torch.bfloat16), exact, strict=True):
        assert (own - truth).norm() < 1.25 * (published - truth).norm()


@pytest.mark.usefixtures("one_thread")  # which restores their number
@pytest.mark.parametrize("by_products", [True], indirect=True)
def test_gradients_by_products_are_the_same_bits_on_any_number_of_threads(
    by_products: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_attention, "_CACHED_SCORES", 1000)
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(_gradients(attend, torch.bfloat16))
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("by_products", [True, False], indirect=True)
def test_the_model_trains_by_the_attention_of_its_processor(by_products: bool) -> None:
    """Under autocast, as `dualformer train --precision bf16` runs it."""
    attention = GlobalPyramidAttention(64, 2, pool=None)
    with _Calls() as calls, torch.autocast("cpu", torch.bfloat16):
        attention(torch.randn(1, 2, 3, 3, 64)).float().sum().backward()
    assert ("bmm" in calls.names) is by_products
    assert any("flash" in name for name in calls.names) is not by_products


def test_attention_in_bfloat16_has_gradients_by_torch_func() -> None:
    q, k, v = (torch.randn(1, length, 2, 8).bfloat16() for length in (5, 7, 7))

    def loss(q: torch.Tensor) -> torch.Tensor:
        return attend(q, k, v).float().square().sum()

    own = q.clone().requires_grad_()
    (expected,) = torch.autograd.grad(loss(own), own)
    torch.testing.assert_close(torch.func.grad(loss)(q), expected, rtol=0.05, atol=0.05)


def test_torch_compile_takes_attention_in_bfloat16_without_breaking_its_graph() -> None:
    q, k, v = torch.randn(3, 1, 2, 2, 8, dtype=torch.bfloat16).unbind()
    compiled = torch.compile(attend, fullgraph=True, backend="eager")
    with torch.inference_mode():
        torch.testing.assert_close(compiled(q, k, v), attend(q, k, v), rtol=2**-6, atol=2**-6)
