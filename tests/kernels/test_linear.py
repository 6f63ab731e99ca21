"""Linear layers: as exact as PyTorch's by either library, with the same gradients, and by oneDNN where it is faster."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dualformer_cli.kernels import linear as linear_module
from dualformer_cli.kernels.linear import Linear, linear
from dualformer_cli.model.attention import GlobalPyramidAttention, LocalWindowAttention
from dualformer_cli.model.blocks import Mlp, PatchEmbed

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch without oneDNN")


class _Calls(TorchDispatchMode):
    """How often oneDNN's product ran, and how often another one."""

    def __init__(self) -> None:
        super().__init__()
        self.onednn = self.others = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.onednn += name == "_linear_pointwise"
        self.others += name in ("addmm", "mm", "bmm")
        return func(*args, **(kwargs or {}))


@pytest.fixture
def prefers_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_module, "_prefers_onednn", lambda: True)
    monkeypatch.setattr(linear_module, "_FEW", 0)


def _gradients(function: Callable[..., Tensor], x: Tensor, weight: Tensor, bias: Tensor | None) -> list[Tensor]:
    """The layer's values, and the gradients of what it is given."""
    inputs = [each.clone().requires_grad_() for each in (x, weight, bias) if each is not None]
    y = function(*inputs)
    slope = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).reshape(y.shape).sin()
    return [y.detach(), *torch.autograd.grad(y, inputs, slope)]


@pytest.mark.usefixtures("prefers_onednn")
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize(("inputs", "outputs"), [(48, 17), (17, 48), (32, 32)])
def test_values_and_gradients_are_as_near_as_the_library_s(inputs: int, outputs: int, has_bias: bool) -> None:
    """Of tokens that do not lie in one piece, as windows of a grid do."""
    torch.manual_seed(0)
    x = torch.randn(inputs, 5, 3, 7).permute(1, 2, 3, 0)
    weight, bias = torch.randn(outputs, inputs), torch.randn(outputs) if has_bias else None
    with _Calls() as calls:
        found = _gradients(linear, x, weight, bias)
    assert (calls.onednn, calls.others) == (3, 0), "forward, and the gradients of tokens and weight"
    library = _gradients(F.linear, x, weight, bias)
    truth = _gradients(F.linear, x.double(), weight.double(), None if bias is None else bias.double())
    assert len(found) == 3 + has_bias
    for own, theirs, exact in zip(found, library, truth, strict=True):
        assert own.shape == exact.shape
        assert float((own - exact).norm()) <= 2 * float((theirs - exact).norm()) + 1e-7 * float(exact.norm())


@pytest.mark.usefixtures("prefers_onednn")
def test_only_what_is_asked_for_has_a_gradient() -> None:
    x, weight = torch.randn(6, 8), torch.randn(4, 8, requires_grad=True)
    with _Calls() as calls:
        linear(x, weight).sum().backward()
    assert calls.onednn == 2, "tokens that nobody learns cost nothing"
    torch.testing.assert_close(weight.grad, x.sum(0).expand(4, 8))


@pytest.mark.usefixtures("prefers_onednn")
def test_a_frozen_weight_whose_bias_learns_is_recorded() -> None:
    bias = torch.zeros(4, requires_grad=True)
    linear(torch.randn(6, 8), torch.randn(4, 8), bias).sum().backward()
    assert bias.grad is not None
    assert bias.grad.tolist() == [6.0] * 4


@pytest.mark.usefixtures("prefers_onednn")
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_are_left_to_pytorch(dtype: torch.dtype) -> None:
    x, weight = torch.randn(6, 8, dtype=dtype), torch.randn(4, 8, dtype=dtype)
    with _Calls() as calls:
        assert torch.equal(linear(x, weight), F.linear(x, weight))
    assert not calls.onednn


@pytest.mark.usefixtures("prefers_onednn")
def test_autocast_lowers_it_like_pytorch_s() -> None:
    layer = Linear(8, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(6, 8)).dtype == torch.bfloat16


@pytest.mark.usefixtures("prefers_onednn")
def test_what_follows_a_model_through_sees_pytorch_s_layer() -> None:
    """Export, tracing, forward-mode derivatives and torch.func know no other."""
    layer, x = Linear(8, 4), torch.randn(6, 8)
    exported = torch.export.export(layer, (x,))
    assert {node.target for node in exported.graph.nodes if node.op == "call_function"} == {
        torch.ops.aten.linear.default
    }
    traced = torch.jit.trace(layer, x)
    assert "linear_pointwise" not in str(traced.inlined_graph)
    _, slope = torch.func.jvp(layer, (x,), (torch.ones_like(x),))
    torch.testing.assert_close(slope, layer.weight.sum(1).expand(6, 4))
    torch.testing.assert_close(torch.func.grad(lambda x: layer(x).sum())(x), layer.weight.sum(0).expand(6, 8))


@pytest.mark.usefixtures("prefers_onednn")
def test_rows_with_gaps_are_joined_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of them oneDNN has only a plain loop, which takes 700 times as long."""
    given = []
    product = torch.ops.mkldnn._linear_pointwise.default
    operation = lambda x, weight, *rest: given.append(weight.stride()) or product(x, weight, *rest)  # noqa: E731
    monkeypatch.setattr(torch.ops.mkldnn._linear_pointwise, "default", operation)
    x, wide = torch.randn(6, 8), torch.randn(4, 16)
    torch.testing.assert_close(linear(x, wide[:, :8]), x @ wide[:, :8].t())
    torch.testing.assert_close(linear(x, wide.t()[:8].t()), x @ wide[:, :8].t())
    linear(x.requires_grad_(), wide[:, :8].contiguous().requires_grad_()).sum().backward()
    assert given[:2] == [(8, 1), (8, 1)]
    assert all(1 in strides and max(strides) in (4, 6, 8) for strides in given), given


@pytest.mark.parametrize(
    ("capability", "processors", "is_faster"),
    [
        ("AVX512", "vendor_id\t: AuthenticAMD\n", True),
        ("AVX512", "vendor_id\t: GenuineIntel\n", False),
        ("AVX2", "vendor_id\t: AuthenticAMD\n", False),
    ],
)
@pytest.mark.parametrize("system", ["linux", "win32"])
def test_it_is_onednn_where_mkl_leaves_half_of_the_processor_unused(
    capability: str, processors: str, is_faster: bool, system: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(linear_module.sys, "platform", system)
    if system == "linux":
        monkeypatch.setattr(Path, "read_text", lambda path, **_: {"/proc/cpuinfo": processors}[str(path)])
    else:
        name = processors.split()[-1]
        monkeypatch.setattr(linear_module.platform, "processor", lambda: f"Family 26 Model 2 Stepping 1, {name}")
    assert linear_module._prefers_onednn.__wrapped__() is is_faster


def test_small_products_are_left_to_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calling either library costs as much as 2^20 multiply-adds."""
    monkeypatch.setattr(linear_module, "_prefers_onednn", lambda: True)
    for rows, count in ((1023, 0), (1024, 1)):
        with _Calls() as calls:
            linear(torch.randn(rows, 32), torch.randn(32, 32))
        assert calls.onednn == count


@pytest.mark.usefixtures("prefers_onednn")
@pytest.mark.parametrize(
    ("layer", "count"),
    [
        (LocalWindowAttention(32, 1, window_size=(2, 3, 3)), 2),
        (GlobalPyramidAttention(32, 1, pool=None), 3),
        (Mlp(32, 64), 2),
        (PatchEmbed(32, 16, patch_size=(1, 1, 1)), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_layers_of_the_model_are_of_this_kind(layer: torch.nn.Module, count: int) -> None:
    with torch.no_grad(), _Calls() as calls:
        layer(torch.randn(1, 2, 3, 3, 32))
    assert calls.onednn == count


def test_torch_compile_takes_a_linear_layer_without_breaking_its_graph() -> None:
    """Whatever processor there is: what it prefers is not asked."""
    linear_module._prefers_onednn.cache_clear()
    layer, x = Linear(3, 2), torch.randn(4, 3)
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), F.linear(x, layer.weight, layer.bias))
