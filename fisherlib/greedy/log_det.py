"""Log-determinants of many small matrices at once, which is what most of an evaluation's calls are for. (Extension.)

Where Triton is installed and the device is a GPU, one kernel does the elimination of each matrix in registers; elsewhere
PyTorch's LU factorisation.
"""

import functools
import importlib.util

import torch
from jaxtyping import Float
from torch import Tensor

LARGEST = 64  # a kernel's matrix has to fit into the registers of its threads


def log_det(matrices: Float[Tensor, "b t t"], kernel: bool | None = None) -> Float[Tensor, " b"]:
    """log det of symmetric, positive definite matrices; NaN where one is not. O(t^3) each, and waits for nothing.

    `kernel`: whether to use Triton's; None where it can be had.
    """
    if kernel if kernel is not None else matrices.is_cuda and _triton() and matrices.shape[1] <= LARGEST:
        from fisherlib.greedy.log_det_kernel import eliminate

        return eliminate(matrices)
    sign, value = torch.linalg.slogdet(matrices)  # by LU, which works on several matrices at once; Cholesky does not
    return torch.where(sign > 0, value, torch.nan)


@functools.cache
def _triton() -> bool:
    return importlib.util.find_spec("triton") is not None
