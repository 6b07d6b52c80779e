"""Log-determinants of small matrices: PyTorch's and, where the extra `gpu` is installed, those of the Triton kernel."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fisherlib.greedy.log_det import log_det

SIZES = (1, 2, 7, 16, 17, 32, 47, 64)


def matrices(t: int) -> torch.Tensor:
    """I + W W^T for W of scales from 0 to 10."""
    W = torch.randn(7, t, 80, generator=torch.Generator().manual_seed(t))
    W *= torch.tensor([0, 1e-3, 0.03, 0.1, 1, 3, 10])[:, None, None]
    return W @ W.mT + torch.eye(t)


def assert_right(found: torch.Tensor, A: torch.Tensor) -> None:
    expected = torch.linalg.slogdet(A.double())[1]
    assert torch.allclose(found.double(), expected, rtol=1e-5, atol=1e-5), (found.double() - expected).abs().max()


WRONG = torch.stack(
    [
        torch.diag(torch.tensor([1.0, -1.0])),
        torch.diag(torch.tensor([1.0, 0.0])),
        torch.full((2, 2), torch.nan),
        torch.eye(2),
    ]
)


@pytest.mark.parametrize("t", SIZES)
def test_log_determinants(t):
    assert_right(log_det(matrices(t)), matrices(t))
    assert torch.isnan(log_det(WRONG)).tolist() == [True, True, True, False] and len(log_det(WRONG[:0])) == 0


def kernel_is_right() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for t in SIZES:
        assert_right(log_det(matrices(t).to(device), kernel=True).cpu(), matrices(t))
    found = log_det(WRONG.to(device), kernel=True).cpu()
    assert torch.isnan(found).tolist() == [True, True, True, False] and len(log_det(WRONG[:0].to(device), kernel=True)) == 0


def test_the_kernel_gives_the_same():
    """On a CPU by Triton's interpreter, which shows that the kernel is right, and nothing of its speed."""
    pytest.importorskip("triton")
    environment = os.environ | ({} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"})  # read when it is imported
    command = [sys.executable, "-c", "from tests.greedy.test_log_det import kernel_is_right; kernel_is_right()"]
    done = subprocess.run(
        command, env=environment, cwd=Path(__file__).parents[2], timeout=250, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
