"""Gains in a low precision, each with an estimate of how wrong rounding may have made it. (Extension.)

A screened gain can rule an example out, never choose it: `Race` decides in float64 between those that it leaves.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fisherlib._device import computes_bfloat16, is_accelerator, send
from fisherlib.greedy.blocks import pad
from fisherlib.greedy.information import Information
from fisherlib.greedy.log_det import log_det

COARSE = 8.0  # up to this trace a Gram matrix that is rounded to bfloat16 adds no more error than the rounded root does
STANDARD_ERRORS = 4.0  # how far a screened gain is trusted to lie from the true one


class Screen:
    """The gains of `Information`, quickly.

    A change dW of W = X root moves the gain by <D, dW> with D = 2 (I + W W^T)^-1 W, whose column k has a squared norm of at
    most n_k = min(1, 4 |W_k|^2). Roundings are taken as independent. Those of X and root, relatively by u each, have a
    variance of at most 2 u^2 sum_k n_k q_k with q_k = sum_l root_lk^2 |X_l|^2; that of W itself adds u^2 sum_k n_k |W_k|^2.
    Products are summed in float32 or better: another u' sqrt(d) beside u, and for the Gram matrix G and its determinant.
    """

    def __init__(self, information: Information, dtype: torch.dtype):
        self.information, self.dtype = information, dtype
        self._changes = -1  # of V when its root was rounded

    def gains(self, indices: np.ndarray) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        """Gains in the screening precision, and an estimate of the error of each; infinite where nothing is known.

        On the device; waits for nothing there. O(T d^2 + T^3) each, in few and large products: a part at a time, as many as
        the memory holds.
        """
        if self._changes != self.information.changes:
            self._root, self._changes = self.information.root.to(self.dtype), self.information.changes
            self._root_squared = self._root.float().square()
        self.information.evaluations += len(indices)
        found = torch.zeros(2, len(indices), dtype=torch.float64, device=self.information.device)
        for part in self.information.blocks.parts(indices):
            found[:, send(part, found.device)] = self._part(indices[part]).double()
        return found[0], found[1]

    def _part(self, indices: np.ndarray) -> Float[Tensor, "2 B"]:
        X, place = self.information.blocks.flat(indices, self.dtype)
        W, found, narrow = X @ self._root, [], self.dtype == torch.bfloat16
        of_tokens = (X.float().square() @ self._root_squared.sum(1))[:, None]  # sum_k q_k of each token by itself
        for some, w in self.information.in_groups(W, place, indices):
            at, (T, d), coarse = place[some, : w.shape[1]], w.shape[1:], False
            if narrow:
                columns = w.float().square().sum(1)
                q = pad(X, at).float().square().sum(1) @ self._root_squared
                spread = ((4 * columns).clamp(max=1) * (2 * q + columns)).sum(1)
                # An accelerator is not asked, since that means to wait; there a float32 product is not dear, either.
                coarse = d >= T and not is_accelerator(w.device) and bool(columns.sum(1).max() < COARSE)
                w = w if coarse else w.float()
            gram = (w @ w.mT if d >= T else w.mT @ w).float()
            energy = gram.diagonal(dim1=1, dim2=2).sum(1)
            if not narrow:  # roundings are so small that n_k = 1 will do
                spread = 2 * pad(of_tokens, at).sum((1, 2)) + energy
            error = self._error(spread, energy, gram, coarse)
            gram.diagonal(dim1=1, dim2=2).add_(1.0)
            gain = log_det(gram)
            usable = torch.isfinite(gain) & torch.isfinite(error)
            found.append(torch.stack([torch.where(usable, gain.clamp(min=0), 0.0), torch.where(usable, error, torch.inf)]))
        return torch.cat(found, dim=1)

    def _error(
        self, spread: Float[Tensor, " b"], energy: Float[Tensor, " b"], gram: Float[Tensor, "b t t"], coarse: bool
    ) -> Float[Tensor, " b"]:
        """How far rounding may have moved a gain. `spread` = sum_k n_k (2 q_k + |W_k|^2), `energy` = tr G.

        A coarse G, rounded entry by entry, moves the gain by <M, dG> with M = (I + G)^-1, which is at most 1 on the diagonal
        and at most half of e / (1 + e) beside it, e = tr G.
        """
        u, summing = _unit(self.dtype), _unit(torch.float32)
        d, width = len(self._root), gram.shape[1]
        variance = (u**2 + d * summing**2) * spread
        if coarse:
            on = gram.diagonal(dim1=1, dim2=2).square().sum(1)
            beside = gram.square().sum((1, 2)) - on
            variance += u**2 * (on + 2 * (0.5 * energy / (1 + energy)) ** 2 * beside)
        return STANDARD_ERRORS * variance.sqrt() + 4 * summing * ((d**0.5 + width) * energy + 4 * width)


def screen_of(information: Information, dtype: str) -> Screen | None:
    """The screen in this precision, or in the quickest of the device; None where float64 decides everything."""
    if dtype == "auto":
        lengths = information.blocks.lengths
        if len(lengths) and int(lengths.max()) <= 1:
            return None  # one vector each: a gain is a few dot products, nothing is left to save
        dtype = "bfloat16" if computes_bfloat16(information.device) else "float32"
    return None if dtype == "float64" else Screen(information, getattr(torch, dtype))


def _unit(dtype: torch.dtype) -> float:
    """The root mean square of a relative rounding error: about half of the largest one."""
    return torch.finfo(dtype).eps / 4
