"""The kernels against float64 and inside a model; `test_accuracy.py` runs this file in a process of its own.

Interpreted on the CPU where TRITON_INTERPRET=1 is set before triton is imported, else on the GPU, where the sizes of
the published models are tried too. Results and scratch memory hold NaN before anything is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from math import prod
from typing import Any

import numpy as np
import pytest
import torch
import triton
from torch import Tensor

from dualformer_cli.engine.complexity import count
from dualformer_cli.engine.scoring.scorer import Scorer
from dualformer_cli.kernels import add_layer_norm as norm
from dualformer_cli.kernels import bias_gelu as gelu
from dualformer_cli.kernels import depthwise_conv3d as conv
from dualformer_cli.kernels import frame_patches as patches
from dualformer_cli.kernels import pyramid_pool as pool
from dualformer_cli.kernels import window_attention as window
from dualformer_cli.kernels.backend import is_interpreted
from dualformer_cli.model.dualformer import DualFormer

DEVICE = torch.device("cpu" if is_interpreted() else "cuda")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
OPERATIONS = ("window_attention", "depthwise_conv3d", "pyramid_pool", "add_layer_norm", "bias_gelu")
ON_GPU = pytest.mark.skipif(is_interpreted(), reason="needs a GPU: too slow when interpreted")


@pytest.fixture(autouse=True)
def _poisoned_memory() -> Iterator[None]:
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True, warn_only=True)  # fills what torch.empty gives with NaN
    assert torch.empty(3, device=DEVICE).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def _bounds_of_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton's interpreter, until 3.7, takes a loop's bound by int() of an array, which NumPy 2.4 refuses."""
    if not is_interpreted() or tuple(map(int, triton.__version__.split(".")[:2])) >= (3, 7):
        return
    from triton.runtime import interpreter

    def patch(tensor: Any, scope: Any, *, original: Callable[..., None] = interpreter._patch_lang_tensor) -> None:
        original(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    monkeypatch.setattr(interpreter, "_patch_lang_tensor", patch)


def results(
    operation: Callable[..., Any], inputs: tuple[Any, ...], given: torch.dtype, computed: torch.dtype
) -> list[Tensor]:
    """Outputs and the gradient of every input, computed in one type from numbers that another can hold."""
    tensors = [
        x.to(DEVICE, given).to(computed).requires_grad_() if isinstance(x, Tensor) and x.is_floating_point() else x
        for x in inputs
    ]
    outputs = operation(*tensors)
    outputs = [y for y in (outputs if isinstance(outputs, tuple) else (outputs,)) if y is not None]
    generator = torch.Generator().manual_seed(1)
    grads = [torch.randn(y.shape, generator=generator).to(DEVICE, given).to(computed) for y in outputs]
    inputs_with_grad = [x for x in tensors if isinstance(x, Tensor)]
    return [*outputs, *torch.autograd.grad(outputs, inputs_with_grad, grads)]


def check(ours: Callable[..., Any], reference: Callable[..., Any], inputs: tuple[Any, ...], dtype: torch.dtype) -> None:
    """Our largest error against float64 is at most twice PyTorch's own in the same type."""
    exact = results(reference, inputs, dtype, torch.float64)
    library = results(reference, inputs, dtype, dtype)
    found = results(partial(ours, backend="triton"), inputs, dtype, dtype)
    assert len(found) == len(exact)
    for number, (value, other, right) in enumerate(zip(found, library, exact, strict=True)):
        assert value.dtype == dtype
        assert value.shape == right.shape
        error = (value.double() - right).abs().max().item()
        bound = 2 * (other.double() - right).abs().max().item()
        rounding = torch.finfo(dtype).eps / 2 * right.abs().max().item()
        assert error <= max(bound, rounding), f"result {number}: error {error:.3g}, bound {bound:.3g}"


def qkv(b: int, grid: tuple[int, int, int], num_heads: int, width: int) -> Tensor:
    return torch.randn(b, *grid, 3 * num_heads * width)


@pytest.mark.parametrize("dtype", DTYPES)
def test_window_attention_of_two_odd_windows_and_heads(dtype: torch.dtype) -> None:
    inputs = (qkv(1, (4, 3, 7), 2, 16), (2, 3, 7), 2)
    check(window.window_attention, window.window_attention_reference, inputs, dtype)


@pytest.mark.parametrize(
    ("b", "grid", "window_size", "width"),
    [
        (2, (1, 2, 3), (1, 1, 3), 32),
        (1, (1, 4, 4), (1, 4, 4), 64),
        (1, (2, 1, 2), (1, 1, 2), 16),
        (1, (1, 2, 9), (1, 2, 9), 24),  # padded to 32
        (1, (1, 4, 6), (1, 2, 2), 16),  # two windows high, three wide
        (1, (1, 1, 2), (1, 1, 2), 8),  # padded to 16
    ],
)
def test_window_attention_of_other_widths_and_few_tokens(
    b: int, grid: tuple[int, int, int], window_size: tuple[int, int, int], width: int
) -> None:
    inputs = (qkv(b, grid, 1, width), window_size, 1)
    check(window.window_attention, window.window_attention_reference, inputs, torch.float32)


@pytest.mark.parametrize("sign", [1, -1])
def test_window_attention_of_extreme_scores_stays_finite(sign: int) -> None:
    q, k, v = torch.randn(3, 1, 1, 18, 16).unbind(0)  # scores of 1000s: only differences may be exponentiated
    q, k = (40 * q.abs()).round(), (40 * k.abs()).round()  # whole: their sums are exact in any order
    inputs = (torch.cat([q, sign * k, v], dim=-1)[None], (1, 1, 18), 1)
    exact = results(window.window_attention_reference, inputs, torch.float32, torch.float64)
    found = results(partial(window.window_attention, backend="triton"), inputs, torch.float32, torch.float32)
    for value, right in zip(found, exact, strict=True):
        torch.testing.assert_close(value.double(), right, rtol=1e-3, atol=1e-3)


def test_window_attention_of_padded_heads_next_to_each_other() -> None:
    inputs = (qkv(1, (1, 2, 3), 3, 24), (1, 2, 3), 3)
    check(window.window_attention, window.window_attention_reference, inputs, torch.float16)


def test_window_attention_of_keys_that_nobody_attends_to_stays_finite() -> None:
    q, k, v = torch.rand(3, 1, 1, 20, 16).unbind(0)
    q, k[..., :17, 0] = q + 1, float("-inf")  # the first block of 16 keys has no finite score
    inputs = (torch.cat([q, k, v], dim=-1)[None].to(DEVICE), (1, 1, 20), 1)
    found = window.window_attention(*inputs, backend="triton")
    assert found.isfinite().all()
    torch.testing.assert_close(found, window.window_attention_reference(*inputs))


@ON_GPU
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window_size", [(8, 7, 7), (4, 7, 7), (16, 7, 7)])
def test_window_attention_at_published_sizes(window_size: tuple[int, int, int], dtype: torch.dtype) -> None:
    inputs = (qkv(2, (16, 14, 14), 4, 32), window_size, 4)
    check(window.window_attention, window.window_attention_reference, inputs, dtype)


def convolution(b: int, t: int, h: int, w: int, channels: int) -> tuple[Tensor, ...]:
    return torch.randn(b, t, h, w, channels), torch.randn(channels, 1, 3, 3, 3), torch.randn(channels)


@pytest.mark.parametrize("dtype", DTYPES)
def test_depthwise_conv3d_of_several_tiles_and_parts_of_time(dtype: torch.dtype) -> None:
    check(conv.depthwise_conv3d, conv.depthwise_conv3d_reference, convolution(1, 3, 5, 7, 5), dtype)


def test_depthwise_conv3d_of_clips_of_one_row_and_two_blocks_of_channels() -> None:
    check(conv.depthwise_conv3d, conv.depthwise_conv3d_reference, convolution(2, 1, 1, 3, 66), torch.float32)


@ON_GPU
@pytest.mark.parametrize("dtype", DTYPES)
def test_depthwise_conv3d_at_published_sizes(dtype: torch.dtype) -> None:
    check(conv.depthwise_conv3d, conv.depthwise_conv3d_reference, convolution(2, 16, 56, 56, 64), dtype)


def pyramid(
    grid: tuple[int, ...], fine: tuple[int, ...], coarse: tuple[int, ...] | None, *, b: int = 1, channels: int = 5
) -> tuple[Tensor, ...]:
    inputs = [torch.randn(b, *grid, channels), torch.randn(channels, 1, *fine), torch.randn(channels)]
    return (*inputs, torch.randn(channels, 1, *coarse), torch.randn(channels)) if coarse else tuple(inputs)


def pool_reference(*inputs: Any) -> Any:
    return pool.pyramid_pool_reference(*inputs, *[None] * (5 - len(inputs)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_pyramid_pool_of_levels_with_different_boxes(dtype: torch.dtype) -> None:
    check(pool.pyramid_pool, pool_reference, pyramid((4, 12, 12), (2, 4, 4), (1, 3, 3)), dtype)


def test_pyramid_pool_without_a_coarse_level() -> None:
    inputs = pyramid((3, 4, 6), (1, 2, 3), None, b=2, channels=66)
    check(pool.pyramid_pool, pool_reference, inputs, torch.float32)


@ON_GPU
@pytest.mark.parametrize("dtype", DTYPES)
def test_pyramid_pool_at_published_sizes(dtype: torch.dtype) -> None:
    inputs = pyramid((16, 56, 56), (2, 8, 8), (1, 7, 7), b=2, channels=64)
    check(pool.pyramid_pool, pool_reference, inputs, dtype)


def summands(b: int, *shape: int) -> tuple[Tensor, ...]:
    """Tokens, a branch, weight and bias."""
    return torch.randn(b, *shape), torch.randn(b, *shape), torch.randn(shape[-1]), torch.randn(shape[-1])


def norm_of(factors: Tensor | None) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The sum's LayerNorm with these factors, and its reference, of what has gradients."""

    def ours(x: Tensor, branch: Tensor, weight: Tensor, bias: Tensor, *, backend: Any) -> Any:
        return norm.add_layer_norm(x, branch, weight, bias, factors=factors, backend=backend)

    return ours, lambda *inputs: norm.add_layer_norm_reference(*inputs, factors, 1e-5)


@pytest.fixture
def one_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a single program sum the gradients of weights over all tokens, step by step."""
    from dualformer_cli.kernels import add_layer_norm_kernel, bias_gelu_kernel

    monkeypatch.setattr(add_layer_norm_kernel, "ENOUGH_PROGRAMS", 1)
    monkeypatch.setattr(bias_gelu_kernel, "ENOUGH_PROGRAMS", 1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_norm_of_a_sum_whose_branches_are_dropped_and_scaled(dtype: torch.dtype) -> None:
    factors = torch.tensor([0.0, 2.0, 1.0], device=DEVICE)
    check(*norm_of(factors), summands(3, 2, 5, 7, 5), dtype)


@pytest.mark.usefixtures("one_program")
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_norm_of_a_sum_over_several_steps_of_a_program(dtype: torch.dtype) -> None:
    check(*norm_of(None), summands(1, 37, 130), dtype)  # 8 tokens of 256 channels a step


def test_the_norm_without_a_branch_returns_its_tokens() -> None:
    x, _, weight, bias = (tensor.to(DEVICE) for tensor in summands(2, 3, 66))
    assert norm.add_layer_norm(x, None, weight, bias, backend="triton")[0] is x
    check(
        lambda *inputs, backend: norm.add_layer_norm(inputs[0], None, *inputs[1:], backend=backend)[1],
        lambda *inputs: norm.add_layer_norm_reference(inputs[0], None, *inputs[1:], None, 1e-5)[1],
        (x, weight, bias),
        torch.float32,
    )


@pytest.mark.parametrize("far", [1e4, -1e4])
def test_the_norm_of_tokens_far_from_0_keeps_their_differences(far: float) -> None:
    x, branch, weight, bias = summands(1, 4, 12)
    check(*norm_of(None), ((8 * x).round() / 8 + far, (8 * branch).round() / 8, weight, bias), torch.float32)


@ON_GPU
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [64, 768])
def test_the_norm_of_a_sum_at_published_sizes(channels: int, dtype: torch.dtype) -> None:
    check(*norm_of(torch.tensor([0.0, 2.0], device=DEVICE)), summands(2, 16, 28, 28, channels), dtype)


def test_the_norm_of_a_sum_takes_and_gives_the_types_of_autocast() -> None:
    x, branch, weight, bias = (tensor.to(DEVICE).requires_grad_() for tensor in summands(2, 3, 12))
    branch = branch.detach().bfloat16().requires_grad_()
    factors, grads = torch.tensor([2.0, 0.0], device=DEVICE), torch.randn(2, 2, 3, 12, device=DEVICE)
    grads = grads.bfloat16().float()
    with torch.autocast(DEVICE.type, torch.bfloat16):
        total, normed = norm.add_layer_norm(x, branch, weight, bias, factors=factors, backend="triton")
    found = torch.autograd.grad([total, normed], (x, branch, weight, bias), [grads[0], grads[1].bfloat16()])
    exact = [tensor.detach().double().requires_grad_() for tensor in (x, branch, weight, bias)]
    wanted = norm.add_layer_norm_reference(*exact, factors, 1e-5)
    right = torch.autograd.grad(wanted, exact, [grads[0].double(), grads[1].double()])
    assert [y.dtype for y in (total, normed, *found)] == [
        torch.float32, torch.bfloat16, torch.float32, torch.bfloat16, torch.float32, torch.float32,
    ]  # fmt: skip
    for value, expected in zip((total, normed, *found), (*wanted, *right), strict=True):
        rounding = 2.0**-8 if value.dtype == torch.bfloat16 else 1e-6
        torch.testing.assert_close(value.double(), expected, rtol=rounding, atol=1e-6 * expected.abs().max().item())


@pytest.mark.parametrize("dtype", DTYPES)
def test_gelu_of_two_blocks_of_channels(dtype: torch.dtype) -> None:
    check(gelu.bias_gelu, gelu.bias_gelu_reference, (3 * torch.randn(2, 3, 130), torch.randn(130)), dtype)


@pytest.mark.usefixtures("one_program")
@pytest.mark.parametrize("dtype", DTYPES)
def test_gelu_over_several_steps_of_a_program(dtype: torch.dtype) -> None:
    check(gelu.bias_gelu, gelu.bias_gelu_reference, (torch.randn(37, 70), torch.randn(70)), dtype)  # 16 tokens a step


def test_gelu_of_large_numbers_is_finite_and_has_slopes_of_0_and_1() -> None:
    x = torch.tensor([[-1e30, -200.0, -15.0, 15.0, 200.0, 1e30]], device=DEVICE, requires_grad=True)
    y = gelu.bias_gelu(x, torch.zeros(6, device=DEVICE), backend="triton")
    assert y.tolist() == [[0.0, 0.0, 0.0, *x[0, 3:].tolist()]]
    assert torch.autograd.grad(y.sum(), x)[0].tolist() == [[0.0, 0.0, 0.0, 1.0, 1.0, 1.0]]


def test_gelu_takes_a_bias_of_another_type_and_gives_it_its_gradient() -> None:
    x = torch.randn(3, 6, device=DEVICE).bfloat16().requires_grad_()
    bias = torch.randn(6, device=DEVICE, requires_grad=True)
    y = gelu.bias_gelu(x, bias, backend="triton")
    grads = torch.autograd.grad(y, (x, bias), torch.ones_like(y))
    exact = [x.detach().double().requires_grad_(), bias.detach().double().requires_grad_()]
    wanted = gelu.bias_gelu_reference(*exact)
    right = torch.autograd.grad(wanted.sum(), exact)
    assert [value.dtype for value in (y, *grads)] == [torch.bfloat16, torch.bfloat16, torch.float32]
    for value, expected in zip((y, grads[0]), (wanted, right[0]), strict=True):
        torch.testing.assert_close(value.double(), expected, rtol=2**-8, atol=1e-6)
    torch.testing.assert_close(grads[1].double(), right[1], rtol=1e-6, atol=1e-6)


@ON_GPU
@pytest.mark.parametrize("dtype", DTYPES)
def test_gelu_at_published_sizes(dtype: torch.dtype) -> None:
    check(gelu.bias_gelu, gelu.bias_gelu_reference, (torch.randn(2, 16, 56, 56, 256), torch.randn(256)), dtype)


def coloured_frames(*shape: int) -> tuple[Tensor, Tensor]:
    """Frames, and means and deviations by which no grey level becomes a round number."""
    frames = torch.randint(0, 256, (*shape, 3), dtype=torch.uint8)
    return frames.to(DEVICE), torch.tensor([[123.675, 116.28, 103.53], [58.395, 57.12, 57.375]], device=DEVICE)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "patch_size"), [((2, 4, 6, 10), (2, 3, 5)), ((1, 4, 24, 12), (4, 12, 12)), ((3, 1, 2, 2), (1, 1, 1))]
)
def test_patches_of_frames_are_those_of_pytorch_bit_by_bit(
    shape: tuple[int, ...], patch_size: tuple[int, int, int], dtype: torch.dtype
) -> None:
    frames, colours = coloured_frames(*shape)
    ours = patches.frame_patches(frames, colours, patch_size, dtype, backend="triton")
    assert torch.equal(ours, patches.frame_patches_reference(frames, colours, patch_size, dtype))
    assert patches.frame_patches(frames[:0], colours, patch_size, dtype, backend="triton").shape == ours[:0].shape


def test_patches_of_frames_with_gaps_in_memory_are_those_of_contiguous_ones() -> None:
    frames, colours = coloured_frames(1, 2, 4, 4)
    gaps = spread(frames)
    assert not gaps.is_contiguous()
    ours = patches.frame_patches(gaps, spread(colours), (1, 2, 2), torch.float32, backend="triton")
    assert torch.equal(ours, patches.frame_patches_reference(frames, colours, (1, 2, 2), torch.float32))


def test_the_operation_of_patches_refuses_what_it_would_read_wrongly_and_keeps_its_contract() -> None:
    frames, colours = coloured_frames(1, 2, 4, 4)
    for given, message in (
        ((frames.float(), colours, [1, 2, 2], torch.float32), "must be uint8"),
        ((frames[..., :2], colours, [1, 2, 2], torch.float32), "must be uint8 of shape"),
        ((frames, colours.double(), [1, 2, 2], torch.float32), "colours must be float32"),
        ((frames, colours[:1], [1, 2, 2], torch.float32), "colours must be float32 of shape"),
        ((frames, colours, [1, 3, 2], torch.float32), "do not divide into patches of"),
        ((frames, colours, [1, 2, 0], torch.float32), "do not divide into patches of"),
        ((frames, colours, [1, 2, 2], torch.float64), "there are no kernels for torch.float64"),
    ):
        with pytest.raises(ValueError, match=message):
            patches._operation(*given)
    torch.use_deterministic_algorithms(False)
    found = torch.library.opcheck(patches._operation, (frames, colours, [1, 2, 2], torch.bfloat16))
    assert set(found.values()) == {"SUCCESS"}


def far(*shape: int, dtype: torch.dtype) -> Tensor:
    """Return zeros, however many: memory is taken where something else is written."""
    of_size = {1: np.uint8, 2: np.uint16, 4: np.float32}
    return torch.from_numpy(np.zeros(prod(shape), of_size[dtype.itemsize])).view(dtype).view(shape)


@contextmanager
def last_program_alone() -> Iterator[None]:
    """Interpret the last program of each grid only; the gradients of weights are summed by many of them."""
    from triton.runtime import interpreter

    def programs(*bounds: int) -> Iterable[int]:
        return range(*bounds) if len(bounds) > 1 else (bounds[0] - 1,)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter, "range", programs, raising=False)
        patch.setattr(interpreter.GridExecutor, "_restore_args_dev", lambda *_: None)  # copies all onto itself
        patch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)
        patch.setattr(Tensor, "new_empty", Tensor.new_zeros)
        for name in ("depthwise_conv3d", "pyramid_pool", "add_layer_norm", "bias_gelu"):
            patch.setattr(import_module(f"dualformer_cli.kernels.{name}_kernel"), "ENOUGH_PROGRAMS", 2**15)
        yield


def launch_all(name: str, b: int) -> tuple[list[Tensor], list[Tensor]]:
    """Results of the last of b clips and of all, by the launch functions; the clips before the last are zeros."""
    kernel = import_module(f"dualformer_cli.kernels.{name}_kernel")
    generator = torch.Generator().manual_seed(2)

    def of_clips(*shape: int, dtype: torch.dtype = torch.bfloat16, is_result: bool = False) -> Tensor:
        x = far(b, *shape, dtype=dtype)
        if not is_result:
            x[-1] = torch.randint(1, 9, shape, generator=generator).to(dtype)
        return x

    result = partial(of_clips, is_result=True)
    if name == "window_attention":
        qkv, grad, out, grad_qkv = (
            of_clips(1, 4, 4, 48),
            of_clips(1, 4, 4, 16),
            result(1, 4, 4, 16),
            result(1, 4, 4, 48),
        )
        logsumexp = result(1, 1, 16, dtype=torch.float32)
        kernel.forward(qkv, out, logsumexp, (1, 4, 4), 1)
        kernel.backward(grad, qkv, out, logsumexp, grad_qkv, (1, 4, 4), 1)
        return [out, logsumexp, grad_qkv], []
    if name == "frame_patches":
        frames, cut = of_clips(2, 8, 8, 3, dtype=torch.uint8), result(1, 2, 2, 96)
        kernel.forward(frames, torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), cut, (2, 4, 4))
        return [cut], []
    x, grad, y, grad_x = of_clips(2, 4, 4, 64), of_clips(2, 4, 4, 64), result(2, 4, 4, 64), result(2, 4, 4, 64)
    bias = torch.randn(64, generator=generator).bfloat16()
    grad_bias, other_bias = torch.zeros(2, 64).bfloat16()
    if name == "bias_gelu":
        kernel.forward(x, bias, y)
        kernel.backward(grad, x, bias, grad_x, grad_bias)
        return [y, grad_x], [grad_bias]
    if name == "add_layer_norm":
        grad_branch, normed = result(2, 4, 4, 64), result(2, 4, 4, 64)
        kernel.forward(x, grad, bias, bias, None, 1e-5, y, normed)
        kernel.backward(grad, x, y, bias, None, 1e-5, grad_x, grad_branch, grad_bias, other_bias)
        return [y, normed, grad_x, grad_branch], [grad_bias, other_bias]
    if name == "depthwise_conv3d":
        weight, grad_weight = (
            torch.randn(64, 1, 3, 3, 3, generator=generator).bfloat16(),
            far(64, 1, 3, 3, 3, dtype=x.dtype),
        )
        kernel.forward(x, weight, bias, y)
        kernel.backward_input(grad, weight, grad_x)
        kernel.backward_weight(grad, x, grad_weight, grad_bias)
        return [y, grad_x], [grad_weight[:, :, :, -1]]
    weights = [torch.randn(64, 1, *box, generator=generator).bfloat16() for box in ((2, 4, 4), (1, 4, 4))]
    fine, coarse, fine_grad, coarse_grad = (
        result(1, 1, 1, 64),
        result(2, 1, 1, 64),
        of_clips(1, 1, 1, 64),
        of_clips(2, 1, 1, 64),
    )
    kernel.forward(x, weights[0], bias, fine, weights[1], bias, coarse)  # its last program pools to the coarse level
    kernel.forward(x, weights[0], bias, fine, None, None, coarse)
    kernel.backward_input(fine_grad, weights[0], coarse_grad, weights[1], grad_x)
    grad_weights = [torch.zeros_like(weight) for weight in weights]
    kernel.backward_weight(fine_grad, x, grad_weights[0], grad_bias)
    kernel.backward_weight(coarse_grad, x, grad_weights[1], other_bias)
    return [fine, coarse, grad_x], [grad_weights[0][:, :, -1], grad_weights[1], grad_bias, other_bias]


@pytest.mark.skipif(not is_interpreted(), reason="a card runs all programs; needs TRITON_INTERPRET=1")
@pytest.mark.parametrize("name", [*OPERATIONS, "frame_patches"])
def test_clips_beyond_the_reach_of_32_bits_are_found(name: str) -> None:
    size = {"window_attention": 16 * 48, "frame_patches": 2 * 8 * 8 * 3}.get(name, 2 * 4 * 4 * 64)
    wanted = launch_all(name, 1)
    with last_program_alone():
        found = launch_all(name, 2**31 // size + 1)
    for value, right in zip(found[0], wanted[0], strict=True):
        assert torch.equal(value[-1:], right)
    for value, right in zip(found[1], wanted[1], strict=True):
        torch.testing.assert_close(value, right)


@ON_GPU
def test_two_backward_passes_give_the_same_bits() -> None:
    for operation, inputs in (
        (window.window_attention, (qkv(2, (8, 14, 14), 2, 32), (8, 7, 7), 2)),
        (conv.depthwise_conv3d, convolution(2, 8, 14, 14, 64)),
        (pool.pyramid_pool, pyramid((16, 56, 56), (2, 8, 8), (1, 7, 7), channels=64)),
        (norm.add_layer_norm, summands(2, 16, 28, 28, 64)),
        (gelu.bias_gelu, (torch.randn(2, 16, 28, 28, 256), torch.randn(256))),
    ):
        once, again = (results(operation, inputs, torch.bfloat16, torch.bfloat16) for _ in range(2))
        assert all(torch.equal(first, second) for first, second in zip(once, again, strict=True))


@ON_GPU
def test_global_attention_copies_neither_its_queries_nor_its_result() -> None:
    from dualformer_cli.model.attention import attend

    x = torch.randn(2, 1000, 64, device=DEVICE, dtype=torch.bfloat16).unflatten(-1, (2, 32))
    k, v = torch.randn(2, 392, 2, 2, 32, device=DEVICE, dtype=torch.bfloat16).unbind(2)
    with torch.profiler.profile() as profile:
        attend(x, k, v)
    assert not [event.key for event in profile.key_averages() if event.key in ("aten::copy_", "aten::clone")]


def spread(x: Tensor) -> Tensor:
    """Return the same numbers in memory with gaps."""
    return torch.stack([x, torch.full_like(x, 7.0)], dim=-1)[..., 0]


@pytest.mark.parametrize("name", OPERATIONS)
def test_operands_with_gaps_in_memory_give_the_numbers_of_contiguous_ones(name: str) -> None:
    operation, inputs = {
        "window_attention": (window.window_attention, (qkv(1, (1, 2, 3), 1, 16), (1, 1, 3), 1)),
        "depthwise_conv3d": (conv.depthwise_conv3d, convolution(1, 1, 2, 2, 6)),
        "pyramid_pool": (pool.pyramid_pool, pyramid((1, 2, 2), (1, 1, 2), (1, 2, 1), channels=6)),
        "add_layer_norm": (norm.add_layer_norm, summands(2, 3, 6)),
        "bias_gelu": (gelu.bias_gelu, (torch.randn(2, 3, 6), torch.randn(6))),
    }[name]
    gaps = tuple(spread(x) if isinstance(x, Tensor) else x for x in inputs)
    assert not any(x.is_contiguous() for x in gaps if isinstance(x, Tensor))
    of_gaps = operation(*(x.to(DEVICE) if isinstance(x, Tensor) else x for x in gaps), backend="triton")
    expected = operation(*(x.to(DEVICE) if isinstance(x, Tensor) else x for x in inputs), backend="triton")
    torch.testing.assert_close(of_gaps, expected, rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(0, 2, 2, 2), (1, 0, 2, 2), (1, 2, 0, 2)])
def test_empty_grids_give_empty_results_and_no_gradient(shape: tuple[int, ...]) -> None:
    weight, bias = torch.randn(6, 1, 3, 3, 3), torch.randn(6)
    inputs = [x.to(DEVICE).requires_grad_() for x in (torch.zeros(*shape, 6), weight, bias)]
    y = conv.depthwise_conv3d(*inputs, backend="triton")
    assert y.shape == inputs[0].shape
    assert not any(grad.any() for grad in torch.autograd.grad(y.sum(), inputs))
    tokens = torch.zeros(*shape, 48, device=DEVICE, requires_grad=True)
    attended = window.window_attention(tokens, (1, 1, 2), 1, backend="triton")
    assert attended.shape == (*shape, 16)
    assert torch.autograd.grad(attended.sum(), tokens)[0].shape == tokens.shape


def test_norm_and_gelu_of_no_tokens_are_empty_and_have_no_gradient() -> None:
    x, branch, weight, bias = (tensor.to(DEVICE).requires_grad_() for tensor in summands(0, 2, 6))
    outputs = norm.add_layer_norm(x, branch, weight, bias, factors=torch.ones(0, device=DEVICE), backend="triton")
    activated = gelu.bias_gelu(x, bias, backend="triton")
    assert [y.shape for y in (*outputs, activated)] == [(0, 2, 6)] * 3
    grads = torch.autograd.grad([y.sum() for y in (*outputs, activated)], (x, branch, weight, bias))
    assert not any(grad.any() for grad in grads)


def test_the_pyramid_of_no_clips_is_empty_and_has_no_gradient() -> None:
    inputs = [x.to(DEVICE).requires_grad_() for x in pyramid((1, 2, 2), (1, 1, 2), (1, 2, 1), b=0)]
    fine, coarse = pool.pyramid_pool(*inputs, backend="triton")
    assert (fine.shape, coarse.shape) == ((0, 1, 2, 1, 5), (0, 1, 1, 2, 5))
    assert not any(grad.any() for grad in torch.autograd.grad([fine.sum(), coarse.sum()], inputs))


X, C = torch.zeros(2, 3, 6), torch.zeros(6)


@pytest.mark.parametrize(
    ("operation", "inputs"),
    [
        (window._operation, (torch.zeros(1, 1, 2, 3, 48), [1, 2, 2], 1, True)),
        (window._operation, (torch.zeros(1, 1, 2, 3, 48), [1, 1, 0], 1, True)),
        (window._operation, (torch.zeros(1, 1, 2, 3, 48), [1, 1, 3], 0, True)),
        (window._operation, (torch.zeros(1, 1, 2, 3, 60), [1, 1, 3], 1, True)),
        (
            window._backward_operation,
            (
                torch.zeros(1, 1, 2, 3, 16),
                torch.zeros(1, 1, 2, 3, 48),
                torch.zeros(1, 1, 2, 3, 16),
                torch.zeros(1, 2, 1, 3),
                [1, 2, 2],
                1,
            ),
        ),
        (conv._operation, (torch.zeros(1, 1, 2, 2, 6), torch.zeros(6, 1, 3, 3, 1), torch.zeros(6))),
        (conv._backward_input, (torch.zeros(1, 1, 2, 2, 6), torch.zeros(5, 1, 3, 3, 3))),
        (conv._backward_weight, (torch.zeros(1, 1, 2, 2, 6), torch.zeros(1, 1, 2, 3, 6))),
        (pool._operation, (torch.zeros(1, 1, 2, 2, 6), torch.zeros(6, 1, 1, 2, 3), torch.zeros(6), None, None)),
        (pool._operation, (torch.zeros(1, 0, 2, 2, 6), torch.zeros(6, 1, 1, 2, 2), torch.zeros(6), None, None)),
        (
            pool._backward_input,
            (
                torch.zeros(1, 1, 2, 2, 6),
                torch.zeros(1, 1, 1, 1, 6),
                torch.zeros(6, 1, 1, 1, 1),
                torch.zeros(6, 1, 1, 1, 1),
            ),
        ),
        (pool._backward_weight, (torch.zeros(1, 1, 2, 2, 6), torch.zeros(1, 1, 3, 2, 6))),
        (norm._operation, (X, torch.zeros(2, 4, 6), C, C, None, 1e-5, torch.float32)),
        (norm._operation, (X, X, torch.zeros(5), torch.zeros(5), None, 1e-5, torch.float32)),
        (norm._operation, (X, X, C, torch.zeros(5), None, 1e-5, torch.float32)),
        (norm._operation, (X, X, C, C, torch.zeros(3), 1e-5, torch.float32)),
        (norm._operation, (X, X, C, C, torch.zeros(2).half(), 1e-5, torch.float32)),
        (norm._operation, (torch.zeros(6), None, C, C, None, 1e-5, torch.float32)),
        (norm._operation, (torch.zeros(1, 4104), None, *2 * [torch.zeros(4104)], None, 1e-5, torch.float32)),
        (norm._backward_operation, (X, torch.zeros(2, 4, 6), X, C, None, 1e-5, torch.float32)),
        (norm._backward_operation, (torch.zeros(2, 4, 6), X, X, C, None, 1e-5, torch.float32)),
        (norm._backward_operation, (X, X, X, C, None, 1e-5, None)),
        (norm._backward_operation, (X.half(), X, X, C, None, 1e-5, torch.float32)),
        (norm._backward_operation, (X, X, X, torch.zeros(5), None, 1e-5, torch.float32)),
        (gelu._operation, (X, torch.zeros(5))),
        (gelu._backward_operation, (torch.zeros(2, 4, 6), X, C)),
        (gelu._backward_operation, (X, X, torch.zeros(5))),
    ],
)
def test_the_operations_themselves_refuse_sizes_that_would_be_read_out_of_bounds(
    operation: Callable[..., Any], inputs: tuple[Any, ...]
) -> None:
    with pytest.raises(ValueError, match=r"divide|fit|equal heads|got 20|one shape|one grid|up to 4096"):
        operation(*(x.to(DEVICE) if isinstance(x, Tensor) else x for x in inputs))


def test_operands_of_several_types_are_refused() -> None:
    x, weight, bias = (tensor.to(DEVICE) for tensor in convolution(1, 1, 2, 2, 6))
    message = "one type and on one device, got bfloat16 on .*, float32 on "
    with pytest.raises(ValueError, match=message):
        conv.depthwise_conv3d(x.bfloat16(), weight, bias, backend="triton")
    with pytest.raises(ValueError, match=message):
        pool.pyramid_pool(x.bfloat16(), torch.ones(6, 1, 1, 1, 1, device=DEVICE), bias, backend="triton")
    with pytest.raises(ValueError, match=r"there are no kernels for torch\.float64"):
        torch.ops.dualformer.depthwise_conv3d(x.double(), weight.double(), bias.double())
    tokens, sums = torch.zeros(1, 1, 1, 3, 16, device=DEVICE), torch.zeros(1, 1, 1, 3, device=DEVICE)
    qkv_of_half = torch.zeros(1, 1, 1, 3, 48, device=DEVICE).bfloat16()
    box = torch.ones(6, 1, 1, 1, 1, device=DEVICE)
    for operation, inputs in (
        (window._backward_operation, (tokens.bfloat16(), qkv_of_half, tokens, sums, [1, 1, 3], 1)),
        (conv._backward_input, (x.bfloat16(), weight)),
        (conv._backward_weight, (x.bfloat16(), x)),
        (pool._backward_input, (x.bfloat16(), x[:, :0, :0, :0, :0], box, None)),
        (pool._backward_weight, (x.bfloat16(), x)),
    ):
        with pytest.raises(ValueError, match=message):
            operation(*inputs)


def test_norm_and_gelu_refuse_types_without_kernels_and_mixed_pairs() -> None:
    x, branch, weight, bias = (tensor.to(DEVICE) for tensor in summands(2, 3, 6))
    for given in ((x, branch.double(), weight, bias), (x.double(), branch, weight, bias)):
        with pytest.raises(ValueError, match=r"there are no kernels for torch\.float64"):
            norm._operation(*given, None, 1e-5, torch.float32)
    with pytest.raises(ValueError, match=r"there are no kernels for torch\.float64"):
        norm._operation(x, branch, weight, bias, None, 1e-5, torch.float64)
    with pytest.raises(ValueError, match=r"one type and on one device, got float32 on .*, bfloat16 on "):
        norm._operation(x, branch, weight, bias.bfloat16(), None, 1e-5, torch.float32)
    with pytest.raises(ValueError, match=r"must be on one device, got float32 on .*, float32 on meta"):
        norm._check_kernel(x, branch.to("meta"), weight, bias, None)
    with pytest.raises(ValueError, match=r"there are no kernels for torch\.float64"):
        gelu._operation(x, bias.double())
    with pytest.raises(ValueError, match=r"one type and on one device, got bfloat16 on .*, float32 on "):
        gelu._backward_operation(x.bfloat16(), x, bias)


def test_derivatives_in_forward_mode_are_refused() -> None:
    x, weight, bias = (tensor.to(DEVICE) for tensor in convolution(1, 1, 2, 2, 6))
    tokens = torch.randn(1, 1, 1, 2, 48, device=DEVICE)
    for function, primals in (
        (partial(conv.depthwise_conv3d, backend="triton"), (x, weight, bias)),
        (lambda x: pool.pyramid_pool(x, weight[..., :1, :1, :1], bias, backend="triton")[0], (x,)),
        (lambda x: window.window_attention(x, (1, 1, 2), 1, backend="triton"), (tokens,)),
        (lambda x: norm.add_layer_norm(x, None, bias, bias, backend="triton")[1], (x,)),
        (partial(gelu.bias_gelu, backend="triton"), (x, bias)),
    ):
        with pytest.raises(NotImplementedError, match="no forward-mode derivative"):
            torch.func.jvp(function, primals, tuple(map(torch.ones_like, primals)))


@pytest.mark.parametrize(
    "name",
    [f"{operation}{part}" for operation in OPERATIONS for part in ("", " backward")],
)
def test_operations_keep_the_contract_of_custom_operations(name: str) -> None:
    grid = (1, 1, 2, 2, 2)
    for operation, inputs in {
        "window_attention": [(window._operation, (qkv(1, (1, 2, 3), 1, 16), [1, 1, 3], 1, True))],
        "window_attention backward": [
            (
                window._backward_operation,
                (
                    torch.randn(1, 1, 2, 3, 16),
                    qkv(1, (1, 2, 3), 1, 16),
                    torch.randn(1, 1, 2, 3, 16),
                    torch.randn(1, 2, 1, 3),
                    [1, 1, 3],
                    1,
                ),
            )
        ],
        "depthwise_conv3d": [(conv._operation, convolution(*grid))],
        "depthwise_conv3d backward": [
            (conv._backward_input, (torch.randn(grid), torch.randn(2, 1, 3, 3, 3))),
            (conv._backward_weight, (torch.randn(grid), torch.randn(grid))),
        ],
        "pyramid_pool": [(pool._operation, pyramid((1, 2, 2), (1, 1, 2), (1, 2, 1), channels=2))],
        "pyramid_pool backward": [
            (
                pool._backward_input,
                (
                    torch.randn(1, 1, 2, 1, 2),
                    torch.randn(1, 1, 1, 2, 2),
                    torch.randn(2, 1, 1, 1, 2),
                    torch.randn(2, 1, 1, 2, 1),
                ),
            ),
            (pool._backward_weight, (torch.randn(1, 1, 2, 1, 2), torch.randn(grid))),
        ],
        "add_layer_norm": [
            (norm._operation, (*summands(2, 3, 4), None, 1e-5, torch.float32)),
            (norm._operation, (torch.randn(2, 3, 4), None, *summands(2, 3, 4)[2:], None, 1e-5, torch.bfloat16)),
        ],
        "add_layer_norm backward": [
            (
                norm._backward_operation,
                (*torch.randn(3, 2, 3, 4).unbind(), torch.randn(4), torch.tensor([0.0, 2.0]), 1e-5, torch.float16),
            ),
            (
                norm._backward_operation,
                (torch.zeros(0), *torch.randn(2, 2, 3, 4).unbind(), torch.randn(4), None, 1e-5, None),
            ),
        ],
        "bias_gelu": [(gelu._operation, (torch.randn(2, 3, 4), torch.randn(4)))],
        "bias_gelu backward": [(gelu._backward_operation, (*torch.randn(2, 2, 3, 4).unbind(), torch.randn(4)))],
    }[name]:
        torch.use_deterministic_algorithms(False)  # uninitialised memory is compared, and NaN is not equal to NaN
        has_gradient = not name.endswith("backward")
        given = tuple(x.to(DEVICE).requires_grad_(has_gradient) if isinstance(x, Tensor) else x for x in inputs)
        assert set(torch.library.opcheck(operation, given).values()) == {"SUCCESS"}


def build(kernels: Any, *, drop_path: float = 0.0) -> DualFormer:
    torch.manual_seed(0)
    model = DualFormer(
        input_size=(4, 16, 16),
        num_classes=3,
        embed_dims=[16],
        depths=[3],  # the last two without position between
        num_heads=[1],
        patch_sizes=[(2, 4, 4)],
        window_size=(1, 2, 2),
        fine_grid=(2, 1, 1),
        coarse_grid=(1, 1, 1),
        mlp_ratio=4.0,
        dropout=0.0,
        drop_path=drop_path,
        kernels=kernels,
    )
    return model.to(DEVICE)


@pytest.fixture
def clips() -> Tensor:
    return torch.randn(1, 3, 4, 16, 16, generator=torch.Generator().manual_seed(2)).to(DEVICE)


def logits_and_gradients(model: torch.nn.Module, clips: Tensor) -> list[Tensor]:
    logits = model(clips)
    return [logits, *torch.autograd.grad(logits.square().sum(), list(model.parameters()))]


def test_a_model_trains_the_same_with_kernels_compiled_and_without(clips: Tensor) -> None:
    expected = logits_and_gradients(build("torch"), clips)
    kernels = build("triton")
    compiled = torch.compile(build("triton"), fullgraph=True, backend="aot_eager")
    for model in (kernels, compiled):
        for value, wanted in zip(logits_and_gradients(model, clips), expected, strict=True):
            torch.testing.assert_close(value, wanted, rtol=1e-4, atol=1e-5)


def test_paths_are_dropped_the_same_with_kernels_and_without(clips: Tensor) -> None:
    found = []
    for kernels in ("torch", "triton"):
        model = build(kernels, drop_path=0.5).train()
        torch.manual_seed(5)
        found.append(logits_and_gradients(model, torch.cat([clips, 2 * clips, -clips])))
    for value, wanted in zip(*found, strict=True):
        torch.testing.assert_close(value, wanted, rtol=1e-4, atol=1e-5)


def test_recomputed_blocks_give_the_same_with_kernels(clips: Tensor) -> None:
    found = []
    for checkpointing in (False, True):
        model = build("triton", drop_path=0.5).train()
        model.set_gradient_checkpointing(checkpointing)
        torch.manual_seed(5)
        found.append(logits_and_gradients(model, torch.cat([clips, -clips])))
    for value, wanted in zip(*found, strict=True):
        torch.testing.assert_close(value, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_frames_score_the_same_with_kernels_and_without(
    autocast: torch.dtype | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = torch.randint(0, 256, (2, 4, 16, 16, 3), dtype=torch.uint8).numpy()
    found, seen = [], []
    operation = patches._operation
    monkeypatch.setattr(patches, "_operation", lambda *given: [seen.append(given[3]), operation(*given)][1])
    for kernels in ("triton", "torch"):
        model = build(kernels).eval()
        scorer = Scorer(model, mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375), autocast=autocast)
        found.append(scorer.score(frames))
    assert set(seen) == {autocast or torch.float32}  # the kernel of one model, and in the type of the first product
    tolerance = 1e-5 if autocast is None else 2e-2
    for value, wanted in zip(*found, strict=True):
        torch.testing.assert_close(torch.from_numpy(value), torch.from_numpy(wanted), rtol=tolerance, atol=tolerance)


def test_a_model_with_kernels_counts_the_same_multiply_adds() -> None:
    counts = {kernels: count(build(kernels), (3, 4, 16, 16)) for kernels in ("triton", "torch")}
    assert counts["triton"] == counts["torch"]


def test_an_exported_model_names_the_operations(clips: Tensor) -> None:
    graph = torch.export.export(build("triton").train(), (clips,)).graph
    names = {str(node.target) for node in graph.nodes if "dualformer" in str(node.target)}
    assert names == {f"dualformer.{name}.default" for name in OPERATIONS}


def test_autocast_lowers_attention_and_pooling_and_leaves_the_residual_stream() -> None:
    x, weight, bias = (tensor.to(DEVICE) for tensor in convolution(1, 1, 2, 2, 48))
    with torch.autocast(DEVICE.type, torch.bfloat16):
        attended = torch.ops.dualformer.window_attention(x, [1, 2, 2], 1, False)[0]
        positioned = torch.ops.dualformer.depthwise_conv3d(x.bfloat16(), weight, bias)
        tokens, *kernel = (tensor.to(DEVICE) for tensor in pyramid((2, 4, 4), (1, 2, 2), None))
        pooled, _ = torch.ops.dualformer.pyramid_pool(tokens.bfloat16(), *kernel, None, None)
    assert attended.dtype == torch.bfloat16
    assert positioned.dtype == torch.float32
    assert pooled.dtype == torch.bfloat16  # as PyTorch's convolutions; what is pooled comes normed, in 16 bits
