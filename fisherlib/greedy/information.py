"""The information matrix of the chosen examples, and what each further example would add to its log-determinant.

Everything here is float64. V^-1 is kept as `root @ root.T`: with W = X root, the gain of an example with token features X is
log det(I + X V^-1 X^T) = log det(I + W W^T). Source: paper, section 3; the root and its update are ours (extension).
"""

from collections.abc import Iterator
from typing import NoReturn

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fisherlib._device import send
from fisherlib._door import numbers
from fisherlib.features import Indices, TokenFeatures
from fisherlib.greedy.blocks import Blocks, pad
from fisherlib.greedy.memory import LENGTH_STEP

TIE = 1e-9  # two scores this close, relatively, are a tie; the lowest index wins
COLLAPSE = 1e-6  # a difference that is smaller than this share of what it was taken from has lost too many digits
_SMALL = 1e-5  # below it, what the series leaves out is less than 1e-10 of a gain
_STRETCH = 1.5  # how much longer than the shortest the longest may be of those whose Gram matrices are padded to one size


class Information:
    """The information matrix V of the examples chosen so far, and the gain of each further one."""

    def __init__(
        self, features: TokenFeatures, prior, weighting: str, device: str | torch.device, memory: int | None = None
    ):
        self.features = features
        self.blocks = Blocks(features, weighting, device, memory)
        self.device = self.blocks.device
        self.evaluations = self.changes = 0  # `changes` of V
        self.V = prior_matrix(prior, features.dim).to(self.device)
        self._factorise()

    def has_tokens(self, indices: np.ndarray) -> Bool[np.ndarray, " B"]:
        return self.blocks.lengths[indices] > 0

    def add(self, i: int) -> None:
        """V <- V + X_i^T X_i, and its inverse's root. O(T d^2); every d tokens O(d^3), a fresh start without any drift."""
        self.absorb(self.blocks.padded([i], torch.float64)[0])

    def absorb(self, X: Float[Tensor, "T d"]) -> None:
        """`add`, for an example whose features are at hand."""
        self.V.addmm_(X.T, X)
        self.changes += 1
        T, W = len(X), X @ self.root
        if self._updated + T > self.features.dim or float(W.square().sum()) > 1 / COLLAPSE:
            return self._factorise()
        # With I + W W^T = C C^T: V^-1 -> V^-1 - Z Z^T for Z = root W^T C^-T, and its root -> root - Z (C + I)^-1 W.
        identity = torch.eye(T, dtype=W.dtype, device=W.device)
        C = torch.linalg.cholesky_ex(W @ W.T + identity)[0]  # which cannot fail, and so is not asked whether it did
        Z = torch.linalg.solve_triangular(C, W @ self.root.T, upper=False).T
        self.root.addmm_(Z, torch.linalg.solve_triangular(C + identity, W, upper=False), alpha=-1)
        self._updated += T

    def exchange(self, out: int, into: int) -> None:
        """Take one example out again and add another: V <- V - X_i^T X_i + X_j^T X_j, and its root anew. O(d^3)."""
        for i, sign in ((out, -1), (into, 1)):
            X = self.blocks.padded([i], torch.float64)[0]
            self.V.addmm_(X.T, X, alpha=sign)
        self.changes += 1
        self._factorise()

    def exact(self, indices: Indices) -> Float[np.ndarray, " B"]:
        """`log det(I + X_i V^-1 X_i^T)` of each. O(T d^2 + T^3). Raises `ValueError` for what float64 cannot compute."""
        indices = np.asarray(indices, dtype=np.int64)
        gains, sound = self.gains(indices)
        if not bool(sound):
            self.refuse(indices)
        return gains.cpu().numpy()

    def gains(self, indices: np.ndarray) -> tuple[Float[Tensor, " B"], Bool[Tensor, ""]]:
        """`exact` on the device, and whether all of it could be computed. Waits for nothing."""
        self.evaluations += len(indices)
        gains = torch.zeros(len(indices), dtype=torch.float64, device=self.device)
        sound = torch.ones((), dtype=torch.bool, device=self.device)
        for part in self.blocks.parts(indices):
            X, place = self.blocks.flat(indices[part], torch.float64)
            found = [log_det(gram(W)) for _, W in self.in_groups(X @ self.root, place, indices[part])]
            gains[send(part, self.device)] = torch.cat([gain for gain, _ in found])
            sound = torch.stack([sound, *(good for _, good in found)]).all()
        return gains, sound

    def gains_there(self, at: Int[Tensor, " B"], longest: int) -> tuple[Float[Tensor, " B"], Bool[Tensor, ""]]:
        """`gains` of examples whose numbers are on the device, none longer than `longest`: where it has the features, no one
        else needs to know them."""
        if not self.blocks.on_accelerator:
            return self.gains(at.cpu().numpy())
        self.evaluations += len(at)
        most = max(self.blocks.plan.part_numbers // (longest * self.features.dim), 1)
        found = [
            log_det(gram(self.blocks.padded_there(some, longest, torch.float64) @ self.root)) for some in at.split(most)
        ]
        return torch.cat([gains for gains, _ in found]), torch.stack([sound for _, sound in found]).all()

    def leverages(self) -> Float[np.ndarray, " N"]:
        """t_i = tr(X_i V^-1 X_i^T) of every example: how much V's log-determinant would rise per unit of example i."""
        totals = np.zeros(len(self.features))
        for part in self.blocks.parts(np.arange(len(self.features))):
            X, place = self.blocks.flat(part, torch.float64)
            leverages = (X @ self.root).square().sum(1, keepdim=True)  # of each token
            totals[part] = pad(leverages, place).sum((1, 2)).cpu().numpy()
        return totals

    def in_groups(
        self, W: Float[Tensor, "m d"], place: Int[Tensor, "B T"], indices: np.ndarray
    ) -> Iterator[tuple[slice, Float[Tensor, "b t d"]]]:
        """Examples of similar length together, padded no further than that; sorted by length, as `Blocks.parts` has them."""
        lengths, begin = self.blocks.lengths[indices], 0
        while begin < len(lengths):
            longest = max(_STRETCH * lengths[begin], lengths[begin] + LENGTH_STEP)
            some = slice(begin, int(np.searchsorted(lengths, longest, side="right")))
            yield some, pad(W, place[some, : self.blocks.padded_length(lengths[some])])
            begin = some.stop

    def refuse(self, indices: np.ndarray) -> NoReturn:
        """Raise `ValueError` for gains that could not be computed, with the reason."""
        self.check_finite(indices)
        raise ValueError(f"expected gains that float64 can compute {_TOO_WIDE}")

    def check_finite(self, indices: np.ndarray) -> None:
        """Raise `ValueError` for features that hold NaN or infinity."""
        for part in self.blocks.parts(indices):
            finite = torch.isfinite(self.blocks.padded(indices[part], torch.float64)).flatten(1).all(1)
            if len(bad := indices[part][~finite.cpu().numpy()]):
                raise ValueError(
                    f"expected finite features, got NaN or infinity in example {bad.min()}: extract the features again"
                )

    def _factorise(self) -> None:
        self.root = inverse_root(self.V)
        self._updated = 0  # tokens since then


_TOO_WIDE = "(the features' range is too wide for the prior): raise the prior or scale the features down"


def gram(W: Float[Tensor, "B t d"]) -> Float[Tensor, "B s s"]:
    """The smaller of W W^T and W^T W: both have the same log det(I + .)."""
    return W @ W.mT if W.shape[1] <= W.shape[2] else W.mT @ W


def log_det(G: Float[Tensor, "B s s"]) -> tuple[Float[Tensor, " B"], Bool[Tensor, ""]]:
    """log det(I + G) of each, and whether float64 could compute them all."""
    factor, failed = torch.linalg.cholesky_ex(G + torch.eye(G.shape[1], dtype=G.dtype, device=G.device))
    gains = 2 * factor.diagonal(dim1=1, dim2=2).log().sum(1)
    sound = (failed == 0).all() & torch.isfinite(gains).all() & ~lost(G, factor)
    # In 1 + g a small g loses its digits; log det(I + G) = tr G - tr G^2 / 2 + ... keeps them.
    trace = G.diagonal(dim1=1, dim2=2).sum(1)
    return torch.where(trace < _SMALL, trace - G.square().sum((1, 2)) / 2, gains).clamp(min=0), sound


def lost(matrix: Float[Tensor, "*b d d"], factor: Float[Tensor, "*b d d"]) -> Bool[Tensor, ""]:
    """Whether a pivot of a Cholesky factor is what cancellation left: hardly more than the rounding of what it was."""
    pivots, taken_from = factor.diagonal(dim1=-2, dim2=-1).square(), matrix.diagonal(dim1=-2, dim2=-1)
    return (pivots < 1e-13 * taken_from).any()


def inverse_root(V: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """R with R R^T = V^-1. O(d^3). Raises `ValueError` if float64 cannot factorise V."""
    factor, failed = torch.linalg.cholesky_ex(V)
    if failed or lost(V, factor):
        largest = float(V.abs().max())
        raise ValueError(f"expected an information matrix that float64 can factorise, got {largest:.1e} in it {_TOO_WIDE}")
    identity = torch.eye(len(V), dtype=V.dtype, device=V.device)
    return torch.linalg.solve_triangular(factor, identity, upper=False).T.contiguous()


def prior_matrix(prior, d: int) -> Float[Tensor, "d d"]:
    matrix = prior if isinstance(prior, Tensor) else torch.tensor(numbers(prior, "prior"))
    matrix = (matrix if matrix.layout == torch.strided else matrix.to_dense()).detach().to("cpu", torch.float64)
    if matrix.ndim == 0:
        matrix = matrix * torch.eye(d, dtype=torch.float64)
    if matrix.shape != (d, d):
        raise ValueError(f"expected a positive number or a matrix [{d}, {d}] as prior, got shape {tuple(matrix.shape)}")
    symmetric = bool((matrix - matrix.T).abs().max() <= 1e-9 * matrix.abs().max())  # up to rounding, at any scale
    if not torch.isfinite(matrix).all() or not symmetric or torch.linalg.cholesky_ex(matrix)[1] != 0:
        raise ValueError("expected a finite, symmetric, positive definite prior: sigma0^2 > 0, or add a small multiple of I")
    return (matrix + matrix.T) / 2
