"""What the Triton files share: products and rounding that are the same on a GPU and interpreted on a CPU."""

from __future__ import annotations

import triton
import triton.language as tl

from dualformer_cli.kernels.backend import is_interpreted

INTERPRETED = tl.constexpr(is_interpreted())


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
