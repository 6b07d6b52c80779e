"""The information matrix of the chosen examples, and what each further example would add to its log-determinant."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fisherlib.token_features import Indices, TokenFeatures

BATCH_ELEMENTS = 2**24  # of one padded batch of features: 64 MB in float32


class Information:
    """The information matrix V of the examples chosen so far, and the gain of each further one."""

    def __init__(self, features: TokenFeatures, prior, weighting: str, device: str, dtype: str):
        self.features = features
        self.device = _device(device)
        self.dtype = getattr(torch, dtype)
        self.evaluations = 0
        self.root_weights = features.trace_weights.double().clamp(min=0).sqrt() if weighting == "trace" else None
        self.V = _prior_matrix(prior, features.dim).to(self.device)
        self._factorise()

    def add(self, i: int) -> None:
        """V <- V + X_i^T X_i."""
        X = self._blocks([i], torch.float64)[0]
        self.V += X.T @ X
        self._factorise()

    def gains(self, indices: Indices, dtype: torch.dtype | None = None) -> tuple[np.ndarray, np.ndarray]:
        """`log det(I + X_i V^-1 X_i^T)` of each example, and an estimate of the rounding error of each. Float64 [B] arrays.

        With V = L L^T and W = X L^-T the gain is log det(I + W W^T), or of I + W^T W, whichever is smaller.
        """
        dtype = dtype or self.dtype
        self.evaluations += len(indices)
        X = self._blocks(indices, dtype)
        if not torch.isfinite(X).all():
            bad = next(i for i, block in zip(indices, X, strict=True) if not torch.isfinite(block).all())
            raise ValueError(f"expected finite features, got NaN or infinity in example {bad}: extract the features again")
        T, d = X.shape[1:]
        W = X @ self.inverse_root.to(dtype)
        gram = W @ W.mT if d >= T else W.mT @ W
        gram.diagonal(dim1=1, dim2=2).add_(1.0)
        factor, failed = torch.linalg.cholesky_ex(gram)
        gains = 2 * factor.diagonal(dim1=1, dim2=2).log().sum(1).double()
        if dtype == torch.float64 and bool((small := gains < 1e-4).any()):
            # In 1 + w^2 a small w^2 loses its digits; log1p of the eigenvalues of W W^T keeps them.
            product = W[small] @ W[small].mT if d >= T else W[small].mT @ W[small]
            gains[small] = torch.linalg.eigvalsh(product).clamp(min=0).log1p().sum(1)
        # An estimate of the rounding error, to first order and as if roundings were random: |tr((I + WW^T)^-1 dG)|, where
        # X L^-T contributes sqrt(T d) u |X| |L^-1|, the Gram matrix with its Cholesky (sqrt(d) + T) u |W|^2, and adding 1
        # to each of its diagonal entries a few u. Tests compare it with the true error from tiny to huge scales.
        unit, width = torch.finfo(dtype).eps, min(T, d)
        size, energy = X.flatten(1).norm(dim=1).double(), W.flatten(1).norm(dim=1).double().square()
        error = unit * (np.sqrt(width * d) * size * self.inverse_norm + (np.sqrt(d) + width) * energy + 4 * width)
        unusable = (failed != 0) | ~torch.isfinite(gains) | ~torch.isfinite(error)
        error = torch.where(unusable, torch.inf, error)
        return torch.where(unusable, 0.0, gains).clamp(min=0).cpu().numpy(), error.cpu().numpy()

    def leverages(self) -> Float[np.ndarray, " N"]:
        """t_i = tr(X_i V^-1 X_i^T) of every example: how much V's log-determinant would rise per unit of example i."""
        totals = torch.zeros(len(self.features.values), dtype=torch.float64)  # per token
        step = max(BATCH_ELEMENTS // self.features.dim // 2, 1)
        for begin in range(0, len(totals), step):
            X = self._rows(slice(begin, begin + step), torch.float64)
            totals[begin : begin + step] = (X @ self.inverse_root).square().sum(1).cpu()
        owner = torch.arange(len(self.features)).repeat_interleave(self.features.lengths)
        return totals.new_zeros(len(self.features)).index_add_(0, owner, totals).numpy()

    def _factorise(self) -> None:
        factor, failed = torch.linalg.cholesky_ex(self.V)
        if failed:
            raise ValueError(
                "expected an information matrix that float64 can factorise, got one of too wide a range "
                f"(largest entry {float(self.V.abs().max()):.1e}): raise the prior or scale the features down"
            )
        identity = torch.eye(len(self.V), dtype=torch.float64, device=self.device)
        self.inverse_root = torch.linalg.solve_triangular(factor, identity, upper=False).T
        self.inverse_norm = float(self.inverse_root.norm())  # Frobenius, an upper bound of the spectral norm

    def _blocks(self, indices: Indices, dtype: torch.dtype) -> Float[Tensor, "B T d"]:
        """The features of some examples, padded with rows of zeros, which add nothing to any gain."""
        begin = self.features.offsets[list(indices)]
        lengths = self.features.lengths[list(indices)]
        T = max(int(lengths.max()), 1)
        rows = begin[:, None] + torch.arange(T)
        real = torch.arange(T) < lengths[:, None]
        X = self._rows(rows[real], dtype)
        padded = X.new_zeros(len(lengths), T, self.features.dim)
        padded[real.to(self.device)] = X
        return padded

    def _rows(self, rows, dtype: torch.dtype) -> Float[Tensor, "m d"]:
        X = self.features.values[rows].to(self.device, dtype)
        return X if self.root_weights is None else X * self.root_weights[rows].to(self.device, dtype)[:, None]


def _prior_matrix(prior, d: int) -> Float[Tensor, "d d"]:
    matrix = torch.as_tensor(prior, dtype=torch.float64)
    if matrix.ndim == 0:
        matrix = matrix * torch.eye(d, dtype=torch.float64)
    if matrix.shape != (d, d):
        raise ValueError(f"expected a positive number or a matrix [{d}, {d}] as prior, got shape {tuple(matrix.shape)}")
    symmetric = bool((matrix - matrix.T).abs().max() <= 1e-9 * matrix.abs().max())  # up to rounding, at any scale
    if not torch.isfinite(matrix).all() or not symmetric or torch.linalg.cholesky_ex(matrix)[1] != 0:
        raise ValueError("expected a finite, symmetric, positive definite prior: sigma0^2 > 0, or add a small multiple of I")
    return (matrix + matrix.T) / 2


def _device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if torch.device(device).type == "mps":
        raise ValueError("expected device 'cpu' or 'cuda', got 'mps': it has no float64, which the selection needs")
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"expected device 'cpu', got {device!r}: no CUDA device is visible here")
    return torch.device(device)
