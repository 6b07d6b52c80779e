"""The information matrix of the chosen examples, and what each further example would add to its log-determinant.

V^-1 is kept as `root @ root.T` in float64. Gains are computed in two precisions: `screen` is quick, in bfloat16 or float32,
and says how wrong it may be; `exact` is float64. Source: paper, section 3; the square root, its update and the error
estimate are ours (extension).
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fisherlib._device import computes_bfloat16
from fisherlib._door import numbers
from fisherlib.features import Indices, TokenFeatures
from fisherlib.greedy.blocks import Blocks, pad

TIE = 1e-9  # two scores this close, relatively, are a tie; the lowest index wins
COLLAPSE = 1e-6  # a difference that is smaller than this share of what it was taken from has lost too many digits
COARSE = 8.0  # up to this trace a Gram matrix that is rounded to bfloat16 adds no more error than the rounded root does
STANDARD_ERRORS = 4.0  # how far a screened gain is trusted to lie from the true one


class Information:
    """The information matrix V of the examples chosen so far, and the gain of each further one."""

    def __init__(
        self,
        features: TokenFeatures,
        prior,
        weighting: str,
        device: str | torch.device,
        dtype: str = "auto",
        memory: int | None = None,
    ):
        self.features = features
        self.blocks = Blocks(features, weighting, device, memory)
        self.device = self.blocks.device
        self.dtype = _screening_dtype(dtype, features, self.device)
        self.evaluations = 0
        self.V = prior_matrix(prior, features.dim).to(self.device)
        d = features.dim
        self._columns = torch.zeros(d, d, dtype=torch.float64, device=self.device)  # what picks took from V^-1 = root root^T
        widest, numbers = self.blocks.plan.widest, self.blocks.plan.gram_numbers
        slots = min(len(features), numbers // widest**2) if widest < d else 0
        self._grams = torch.zeros(slots, widest, widest, dtype=torch.float64, device=self.device)
        self._slot = np.full(len(features), -1)  # where an example's Gram matrix is remembered
        self._seen = np.zeros(len(features), dtype=np.int64)  # how many columns are already in it
        self._first_trace = np.zeros(len(features))
        screened = 0 if self.dtype == torch.float64 else len(features)
        self._norms = torch.zeros(screened, d, dtype=self.dtype, device=self.device)  # a T-th of the features' own size
        self._normed = np.zeros(screened, dtype=bool)
        self._used = self._next_slot = 0
        self._factorise()

    def has_tokens(self, indices: np.ndarray) -> Bool[np.ndarray, " B"]:
        return self.blocks.lengths[indices] > 0

    def add(self, i: int) -> None:
        """V <- V + X_i^T X_i, and its inverse's root. O(T d^2); every d tokens O(d^3), a fresh start without any drift."""
        X = self.blocks.padded([i], torch.float64)[0]
        self.V.addmm_(X.T, X)
        T, used = len(X), self._used
        W = X @ self.root
        if used + T > len(self.root) or float(W.square().sum()) > 1 / COLLAPSE:
            return self._factorise()
        # With I + W W^T = C C^T, both V^-1 -> V^-1 - Z Z^T for Z = root W^T C^-T, and its root -> root - Z (C + I)^-1 W.
        C = torch.linalg.cholesky(W @ W.T + torch.eye(T, dtype=W.dtype, device=W.device))
        Z = torch.linalg.solve_triangular(C, W @ self.root.T, upper=False).T
        identity = torch.eye(T, dtype=W.dtype, device=W.device)
        self.root.addmm_(Z, torch.linalg.solve_triangular(C + identity, W, upper=False), alpha=-1)
        self._columns[:, used : used + T] = Z
        self._used = used + T
        self._lower_root()

    def exchange(self, out: int, into: int) -> None:
        """Take one example out again and add another: V <- V - X_i^T X_i + X_j^T X_j, and its root anew. O(d^3)."""
        for i, sign in ((out, -1), (into, 1)):
            X = self.blocks.padded([i], torch.float64)[0]
            self.V.addmm_(X.T, X, alpha=sign)
        self._factorise()

    def exact(self, indices: Indices) -> Float[np.ndarray, " B"]:
        """`log det(I + X_i V^-1 X_i^T)` of each example in float64.

        O(T d^2 + T^3) each, or O(T d m) if few tokens m were added since an example's last time: its Gram matrix
        X_i V^-1 X_i^T is remembered, and only what these took away is subtracted.
        """
        indices = np.asarray(indices, dtype=np.int64)
        gains = np.zeros(len(indices))
        for part in self.blocks.parts(indices):
            self.evaluations += len(part)
            which = indices[part]
            known = self._slot[which] >= 0
            for some, gram in ((known, self._updated_gram), (~known, self._fresh_gram)):
                if some.any():
                    gains[part[some]] = self._log_det(gram(which[some]), which[some])
        return gains

    def screen(self, indices: np.ndarray) -> tuple[Float[np.ndarray, " B"], Float[np.ndarray, " B"]]:
        """Gains in the screening precision, and an estimate of the error of each; infinite where nothing is known.

        O(T d^2 + T^3) each, in few and large products: a part at a time, as many as the memory holds.
        """
        gains, errors = np.zeros(len(indices)), np.zeros(len(indices))
        for part in self.blocks.parts(indices):
            gains[part], errors[part] = self.screen_part(indices[part])
        return gains, errors

    def screen_part(self, indices: np.ndarray) -> tuple[Float[np.ndarray, " B"], Float[np.ndarray, " B"]]:
        """The same of one part."""
        self.evaluations += len(indices)
        X, place = self.blocks.flat(indices, self.dtype)
        W = pad(X @ self._low, place)
        T, d = W.shape[1:]
        in_float32 = W.float()
        column_norms = in_float32.square().sum(1)
        energy = column_norms.sum(1)
        coarse = self.dtype == torch.bfloat16 and d >= T and bool(energy.max() < COARSE)
        W = W if coarse else in_float32
        gram = (W @ W.mT if d >= T else W.mT @ W).float()
        error = self._screening_error(self._token_norms(indices, X, place), column_norms, energy, gram, coarse)
        gram.diagonal(dim1=1, dim2=2).add_(1.0)
        sign, gains = torch.linalg.slogdet(gram)  # by LU, which works on several matrices at once; Cholesky does not
        unusable = (sign <= 0) | ~torch.isfinite(gains) | ~torch.isfinite(error)
        both = torch.stack([torch.where(unusable, 0.0, gains), torch.where(unusable, torch.inf, error)])
        gains, error = both.double().cpu().numpy()  # one transfer
        if np.isinf(error).any():
            self._check_finite(indices)
        return gains.clip(min=0), error

    def _screening_error(self, token_norms, column_norms, energy, gram, coarse: bool) -> Float[Tensor, " B"]:
        """How far rounding moves a gain, to first order and as if roundings were independent (extension).

        A change dW of W = X root moves the gain by <D, dW> with D = 2 (I + W W^T)^-1 W, whose column k has a squared norm of
        at most n_k = min(1, 4 |W_k|^2). Rounding X and root, relatively by u each, has a variance of
        at most 2 u^2 sum_k n_k q_k with q_k = sum_l root_lk^2 |X_l|^2; rounding W itself adds u^2 sum_k n_k |W_k|^2.
        Products are summed in float32 or better: another u' sqrt(d) beside u, and for the Gram matrix G and its LU.
        A coarse G, rounded entry by entry, moves the gain by <M, dG> with M = (I + G)^-1, which is at most 1 on the diagonal
        and at most half of e / (1 + e) beside it, e = tr G.
        """
        u, summing = _unit(self.dtype), _unit(torch.promote_types(self.dtype, torch.float32))
        d, width = len(self.root), gram.shape[1]
        q = (token_norms @ self._low_squared).float()
        n = (4 * column_norms).clamp(max=1)
        variance = (u**2 + d * summing**2) * (n * (2 * q + column_norms)).sum(1)
        if coarse:
            on = gram.diagonal(dim1=1, dim2=2).square().sum(1)
            beside = gram.square().sum((1, 2)) - on
            variance += u**2 * (on + 2 * (0.5 * energy / (1 + energy)) ** 2 * beside)
        return STANDARD_ERRORS * variance.sqrt() + 4 * summing * ((d**0.5 + width) * energy + 4 * width)

    def _token_norms(self, indices: np.ndarray, X: Float[Tensor, "m d"], place: Int[Tensor, "B T"]) -> Float[Tensor, "B d"]:
        """|X_l|^2 over the tokens of each example, for each feature l. Kept, as an example is screened many times."""
        which = torch.from_numpy(indices).to(self.device)
        if not self._normed[indices].all():
            self._norms[which] = pad(X, place).float().square().sum(1).to(self._norms.dtype)
            self._normed[indices] = True
        return self._norms.index_select(0, which)

    def leverages(self) -> Float[np.ndarray, " N"]:
        """t_i = tr(X_i V^-1 X_i^T) of every example: how much V's log-determinant would rise per unit of example i."""
        totals = np.zeros(len(self.features))
        for part in self.blocks.parts(np.arange(len(self.features))):
            X, place = self.blocks.flat(part, torch.float64)
            leverages = (X @ self.root).square().sum(1, keepdim=True)  # of each token
            totals[part] = pad(leverages, place).sum((1, 2)).cpu().numpy()
        return totals

    def _fresh_gram(self, indices: np.ndarray) -> Float[Tensor, "B t t"]:
        X, place = self.blocks.flat(indices, torch.float64)
        W = pad(X @ self.root, place)
        if W.shape[1] > W.shape[2]:
            return W.mT @ W  # the smaller of the two with the same determinant
        G = W @ W.mT
        self._remember(indices, G)
        self._first_trace[indices] = _traces(G)
        return G

    def _updated_gram(self, indices: np.ndarray) -> Float[Tensor, "B t t"]:
        X, place = self.blocks.flat(indices, torch.float64)
        T, begin = place.shape[1], int(self._seen[indices].min())
        G = self._grams[torch.from_numpy(self._slot[indices]).to(self.device), :T, :T]
        if begin == self._used:
            return G
        Y = pad(X @ self._columns[:, begin : self._used], place)
        unseen = np.arange(begin, self._used) >= self._seen[indices, None]
        G -= (Y * torch.from_numpy(unseen).to(self.device)[:, None]) @ Y.mT
        if (lost := _traces(G) < COLLAPSE * self._first_trace[indices]).any():
            G[torch.from_numpy(lost).to(self.device)] = self._fresh_gram(indices)[torch.from_numpy(lost).to(self.device)]
        self._remember(indices, G)
        return G

    def _remember(self, indices: np.ndarray, G: Float[Tensor, "B T T"]) -> None:
        new = indices[self._slot[indices] < 0]
        if len(new) > len(self._grams):
            return
        if self._next_slot + len(new) > len(self._grams):  # full: forget all, the useful ones soon return
            self._slot[:] = -1
            self._next_slot = 0
            new = indices
            if len(new) > len(self._grams):
                return
        self._slot[new] = np.arange(self._next_slot, self._next_slot + len(new))
        self._next_slot += len(new)
        slots = torch.from_numpy(self._slot[indices]).to(self.device)
        if len(new):
            self._grams[slots] = 0  # a batch that is padded further must not find another example's there
        self._grams[slots, : G.shape[1], : G.shape[1]] = G
        self._seen[indices] = self._used

    def _log_det(self, G: Float[Tensor, "B t t"], indices: np.ndarray) -> Float[np.ndarray, " B"]:
        factor, failed = torch.linalg.cholesky_ex(G + torch.eye(G.shape[1], dtype=G.dtype, device=G.device))
        gains = 2 * factor.diagonal(dim1=1, dim2=2).log().sum(1)
        if bool((failed != 0).any()) or not bool(torch.isfinite(gains).all()):
            self._check_finite(indices)
            raise ValueError(f"expected gains that float64 can compute {_TOO_WIDE}")
        if bool((small := gains < 1e-4).any()):
            # In 1 + w^2 a small w^2 loses its digits; log1p of the eigenvalues of W W^T keeps them.
            gains[small] = torch.linalg.eigvalsh(G[small]).clamp(min=0).log1p().sum(1)
        return gains.clamp(min=0).cpu().numpy()

    def _factorise(self) -> None:
        self.root = inverse_root(self.V)
        self._used = self._next_slot = 0
        self._slot[:] = -1
        self._lower_root()

    def _lower_root(self) -> None:
        if self.dtype != torch.float64:
            self._low = self.root.to(self.dtype)
            self._low_squared = self._low.square()

    def _check_finite(self, indices: Indices) -> None:
        X = self.blocks.padded(indices, torch.float64)
        finite = torch.isfinite(X).flatten(1).all(1).tolist()
        if not all(finite):
            bad = indices[finite.index(False)]
            raise ValueError(f"expected finite features, got NaN or infinity in example {bad}: extract the features again")


_TOO_WIDE = "(the features' range is too wide for the prior): raise the prior or scale the features down"


def _traces(G: Float[Tensor, "B t t"]) -> Float[np.ndarray, " B"]:
    return G.diagonal(dim1=1, dim2=2).sum(1).cpu().numpy()


def _unit(dtype: torch.dtype) -> float:
    """The root mean square of a relative rounding error: about half of the largest one."""
    return torch.finfo(dtype).eps / 4


def _screening_dtype(dtype: str, features: TokenFeatures, device: torch.device) -> torch.dtype:
    if dtype != "auto":
        return getattr(torch, dtype)
    if len(features) and int(features.lengths.max()) <= 1:
        return torch.float64  # one vector each: a gain is a few dot products, nothing is left to save
    return torch.bfloat16 if computes_bfloat16(device) else torch.float32


def inverse_root(V: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """R with R R^T = V^-1. O(d^3). Raises `ValueError` if float64 cannot factorise V."""
    factor, failed = torch.linalg.cholesky_ex(V)
    if failed:
        largest = float(V.abs().max())
        raise ValueError(f"expected an information matrix that float64 can factorise, got {largest:.1e} in it {_TOO_WIDE}")
    identity = torch.eye(len(V), dtype=V.dtype, device=V.device)
    return torch.linalg.solve_triangular(factor, identity, upper=False).T.contiguous()


def prior_matrix(prior, d: int) -> Float[Tensor, "d d"]:
    matrix = prior if isinstance(prior, Tensor) else torch.tensor(numbers(prior, "prior"))
    matrix = matrix.detach().to("cpu", torch.float64)
    if matrix.ndim == 0:
        matrix = matrix * torch.eye(d, dtype=torch.float64)
    if matrix.shape != (d, d):
        raise ValueError(f"expected a positive number or a matrix [{d}, {d}] as prior, got shape {tuple(matrix.shape)}")
    symmetric = bool((matrix - matrix.T).abs().max() <= 1e-9 * matrix.abs().max())  # up to rounding, at any scale
    if not torch.isfinite(matrix).all() or not symmetric or torch.linalg.cholesky_ex(matrix)[1] != 0:
        raise ValueError("expected a finite, symmetric, positive definite prior: sigma0^2 > 0, or add a small multiple of I")
    return (matrix + matrix.T) / 2
