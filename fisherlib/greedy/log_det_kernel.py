"""`log_det` in Triton: one program a matrix, Gaussian elimination on a tile in registers. Needs the extra `gpu`."""

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor


@triton.jit
def _eliminate(matrices, found, T: tl.constexpr, SIZE: tl.constexpr):
    """One matrix [T, T], padded to SIZE by the identity. Lengths are few, since they are padded: each is compiled once."""
    at = tl.program_id(0).to(tl.int64)
    rows, columns = tl.arange(0, SIZE)[:, None], tl.arange(0, SIZE)[None, :]
    inside = (rows < T) & (columns < T)
    A = tl.load(matrices + at * T * T + rows * T + columns, mask=inside, other=0.0)
    A = tl.where(inside, A, tl.where(rows == columns, 1.0, 0.0))
    total = 0.0
    for k in range(T):
        column = tl.sum(tl.where(columns == k, A, 0.0), axis=1)
        row = tl.sum(tl.where(rows == k, A, 0.0), axis=0)
        pivot = tl.sum(tl.where(tl.arange(0, SIZE) == k, row, 0.0), axis=0)
        total += tl.log(pivot)  # NaN once a pivot is negative, -inf where one is 0
        A -= column[:, None] * (row / pivot)[None, :]
    tl.store(found + at, total)


def eliminate(matrices: Float[Tensor, "b t t"]) -> Float[Tensor, " b"]:
    """log det of symmetric, positive definite matrices in float32; NaN where one is not."""
    b, t = matrices.shape[:2]
    found = torch.empty(b, dtype=matrices.dtype, device=matrices.device)
    if b:
        size = max(triton.next_power_of_2(t), 16)
        _eliminate[(b,)](matrices.contiguous(), found, T=t, SIZE=size, num_warps=1 if size <= 16 else 4)
    return torch.where(torch.isfinite(found), found, torch.nan)
