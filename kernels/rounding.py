"""What the Triton files share: products and rounding that are the same on a GPU and interpreted on a CPU.

Importing it has Triton say when it compiles kernels of ours.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from dualformer_cli.kernels.backend import is_interpreted, say_once

INTERPRETED = tl.constexpr(is_interpreted())


def _compiled(*, src: Any, cache_hit: bool, **_: object) -> None:
    """Say once why the first pass takes longer, when Triton has compiled the first kernel of ours."""
    module = getattr(getattr(src, "fn", None), "__module__", "")
    if not cache_hit and module.startswith("dualformer_cli.kernels"):
        say_once(f"compiling GPU kernels, once; they are kept in {triton.knobs.cache.dir}")


if triton.knobs.compilation.listener is None:
    triton.knobs.compilation.listener = _compiled


@triton.jit
def dot(a: tl.tensor, b: tl.tensor) -> tl.tensor:
    """Matrix product accumulated in float32; float32 operands keep all their bits (no TF32)."""
    if INTERPRETED:  # the interpreter multiplies the bit patterns of bfloat16; a product of float32 copies is the same
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, input_precision="ieee")


@triton.jit
def cast(x: tl.tensor, dtype: tl.constexpr) -> tl.tensor:
    """Round float32 to the nearest number of `dtype`."""
    if INTERPRETED and dtype == tl.bfloat16:  # the interpreter cuts the lower bits off
        bits = x.to(tl.uint32, bitcast=True)
        bits = bits + 0x7FFF + ((bits >> 16) & 1)
        x = (bits & 0xFFFF0000).to(tl.float32, bitcast=True)
    return x.to(dtype)
