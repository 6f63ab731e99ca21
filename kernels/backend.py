"""Which of the two computes an operation: its Triton kernel or its PyTorch reference.

The files that import triton are themselves imported only when a kernel runs: on a CPU nothing pays for it, and torch
comes without triton on some systems.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any, get_args

import torch
from torch import Tensor
from torch.autograd import forward_ad

from dualformer_cli.config.schema import Kernels

Backend = Kernels
"""auto: kernels on NVIDIA cards that have them; triton: the same, and say why where it cannot be; torch: no kernels.

Another way to attend is a name in the schema and its lines in `LocalWindowAttention.attend_windows`, which every pass
without a kernel comes to; all else is PyTorch's with it."""

Size3 = tuple[int, int, int]

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
MIN_CAPABILITY = (8, 0)

_LOGGER = logging.getLogger(__name__)


def uses_triton(backend: Backend, x: Tensor, *, problem: str | None = None) -> bool:
    """Whether an operation on `x` is computed by its Triton kernel.

    Args:
        backend: what was asked for.
        x: the operation's input.
        problem: why the kernel cannot take this shape; None when it can.

    Raises:
        ValueError: if there is no such backend.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"backend must be one of {', '.join(get_args(Backend))}, got {backend!r}")
    if backend not in ("auto", "triton") or (backend == "auto" and x.device.type != "cuda"):
        return False
    return _decide(x.device, x.dtype, problem)


def _decide(device: torch.device, dtype: torch.dtype, problem: str | None) -> bool:
    reason = _why_not(device) or problem
    if reason is None and dtype not in DTYPES:
        reason = f"there are none for {str(dtype).removeprefix('torch.')}"
    if reason is not None:
        say_once(f"computing with PyTorch instead of Triton kernels: {reason}")
    return reason is None


# What torch.compiler.assume_constant_result does, but that imports torch._dynamo, which takes longer than torch itself.
# torch.compile then calls the function instead of tracing it, which it could not without breaking the graph.
_decide._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _why_not(device: torch.device) -> str | None:
    if find_spec("triton") is None:
        return "the package triton is not installed"
    if device.type == "cpu" and is_interpreted():
        return None
    if device.type != "cuda":
        return f"they do not run on {device.type}"
    if torch.version.hip is not None:
        return "they are for NVIDIA cards"
    capability = torch.cuda.get_device_capability(device)
    if capability < MIN_CAPABILITY:
        needed, found = (".".join(map(str, version)) for version in (MIN_CAPABILITY, capability))
        return f"they need CUDA capability {needed}, {torch.cuda.get_device_name(device)} has {found}"
    return None


@cache
def say_once(message: str) -> None:
    """Log a warning, the first time that it is given."""
    _LOGGER.warning("%s", message)


def is_interpreted() -> bool:
    """Whether Triton interprets kernels on the CPU, as tests have it."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def shapes_in_words(*tensors: Tensor | None) -> str:
    """Return the shapes of the tensors that there are: "(2, 3), (3,) and (4,)"."""
    *others, last = (str(tuple(tensor.shape)) for tensor in tensors if tensor is not None)
    return f"{', '.join(others)} and {last}"


def compute_dtype(x: Tensor) -> torch.dtype:
    """Return the type in which products of tokens like `x` are computed: autocast's where it is on."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def is_eager() -> bool:
    """Whether nothing follows this pass but autograd; what traces, compiles or differentiates otherwise asks for more.

    Those are torch.jit, torch.compile and torch.export, forward-mode derivatives, and the transforms of torch.func.
    """
    return (
        not torch.jit.is_tracing()  # type: ignore[attr-defined]
        and not torch.compiler.is_compiling()
        and forward_ad._current_level < 0
        and not torch._C._are_functorch_transforms_active()
    )


def is_plainly_recorded(*inputs: Tensor) -> bool:
    """Whether this pass over tensors is recorded for one backward pass, which an autograd function may then compute."""
    return torch.is_grad_enabled() and any(x.requires_grad for x in inputs) and is_eager()


def check_operands(*operands: Tensor | None, one_type: bool = True) -> None:
    """Refuse what a kernel would read wrongly and not say so.

    Args:
        operands: tensors of a kernel.
        one_type: whether it reads all of them in one type; else in any that has kernels.

    Raises:
        ValueError: if the operands differ in type or device, or are of a type without kernels.
        NotImplementedError: where forward-mode derivatives are taken, which would come out as zero.
    """
    given = [x for x in operands if x is not None]
    kinds = dict.fromkeys((x.dtype, x.device) for x in given)
    if len({device if not one_type else (dtype, device) for dtype, device in kinds}) > 1:
        found = ", ".join(f"{str(dtype).removeprefix('torch.')} on {device}" for dtype, device in kinds)
        raise ValueError(f"tensors of a kernel must be {'of one type and ' * one_type}on one device, got {found}")
    for dtype, _ in kinds:
        if dtype not in DTYPES:
            raise ValueError(f"there are no kernels for {dtype}")
    if forward_ad._current_level >= 0:
        raise NotImplementedError("Triton kernels have no forward-mode derivative; use runtime.kernels=torch")


_LIBRARY = torch.library.Library("dualformer", "FRAGMENT")


def register_autocast(name: str, operation: Callable[..., Any], *, lower: bool) -> None:
    """Tell autocast what to do with an operation of ours.

    Args:
        name: the operation's name after `dualformer::`.
        operation: the operation.
        lower: cast floating-point tensors to autocast's own type; else to the widest type among them, so that the
            residual stream keeps its precision.
    """
    for device_type in ("cuda", "cpu"):

        def rule(*arguments: Any, device_type: str = device_type) -> Any:
            dtype = torch.get_autocast_dtype(device_type) if lower else _widest(arguments)
            cast = [a.to(dtype) if isinstance(a, Tensor) and a.dtype in DTYPES else a for a in arguments]
            with torch.autocast(device_type, enabled=False):
                return operation(*cast)

        _LIBRARY.impl(name, rule, f"Autocast{device_type.upper()}")


def _widest(arguments: tuple[Any, ...]) -> torch.dtype:
    dtypes = [a.dtype for a in arguments if isinstance(a, Tensor)]
    widest: torch.dtype = dtypes[0]
    for dtype in dtypes[1:]:
        widest = torch.promote_types(widest, dtype)
    return widest
