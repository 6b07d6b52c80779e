"""Greedy selection in float64 from a pool so small that all of it stays padded, in one array. (Extension.)

In ten dimensions a gain is a few thousand products, and `Race` would spend its time on calls, not on these. Here the gains
of all examples that may still win are one batched determinant in NumPy, whose calls cost least.
"""

import contextlib

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from fisherlib._device import is_accelerator
from fisherlib.features import TokenFeatures
from fisherlib.greedy.information import TIE, Information
from fisherlib.greedy.memory import pick_device

_LARGEST = 2**20  # numbers in the padded pool
_BATCH = 32  # examples that are evaluated at first; then twice as many, and so on
_PLAIN = 1e-5, 1e6  # traces of Gram matrices for which log det(I + G) needs no care about lost digits


class SmallPool:
    """The race for the next pick in its plainest form (paper, algorithm 2): an old gain is an upper bound."""

    screen = None

    @staticmethod
    def fits(features: TokenFeatures, device: str | torch.device, dtype: str, memory: int | None) -> bool:
        """Whether nothing is to be screened, and the padded pool is small."""
        size = len(features) * int(features.lengths.max()) * features.dim
        return dtype == "float64" and memory is None and size <= _LARGEST and not is_accelerator(pick_device(device))

    def __init__(
        self,
        information: Information,
        divisor: np.ndarray,
        price: np.ndarray,
        groups: Int[np.ndarray, " N"] | None = None,
    ):
        self.information, self.divisor, self.price, self.group = information, divisor, price, groups
        self.X = information.blocks.padded(np.arange(len(price)), torch.float64)  # [N, T, d]
        self.gain = np.full(len(price), np.inf)  # as it was when it was last computed
        self.fresh = np.zeros(len(price), dtype=bool)  # whether that was after the last pick
        self.available = np.ones(len(price), dtype=bool)

    def threads(self) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext()

    @np.errstate(over="ignore", invalid="ignore")  # a score of a tiny cost may be infinite; features that are, are refused
    def next(self, left: float | Float[np.ndarray, " G"]) -> tuple[int, float] | None:
        """The best available example of at most this price, lowest index on ties, and its gain.

        With groups, `left` holds the highest price for each.
        """
        runs, most = self._runs(left), _BATCH
        while True:
            scores = np.where(runs, self.gain / self.divisor, -1.0)
            best = scores[self.fresh].max(initial=0.0)
            stale = np.flatnonzero((scores >= best * (1 - 2 * TIE)) & ~self.fresh)
            if not len(stale):
                break
            some = np.sort(stale[np.argsort(-scores[stale], kind="stable")[:most]])
            self.gain[some], self.fresh[some] = self._gains(some), True
            most *= 2
        first = int((self.fresh & (scores >= best * (1 - TIE))).argmax())
        return (first, float(self.gain[first])) if runs[first] else None

    def take(self, i: int) -> None:
        """Add an example to the information matrix: gains that were fresh are upper bounds from now on."""
        self.information.absorb(self.X[i, : self.information.blocks.lengths[i]])
        self.available[i], self.fresh[:] = False, False

    def _runs(self, left: float | Float[np.ndarray, " G"]) -> Bool[np.ndarray, " N"]:
        return self.available & (self.price <= (left if self.group is None else np.asarray(left)[self.group]))

    def _gains(self, examples: Int[np.ndarray, " B"]) -> Float[np.ndarray, " B"]:
        """As `Information.exact`, which takes over where float64 needs more care."""
        W = self.X.numpy()[examples] @ self.information.root.numpy()
        G = W @ W.mT if W.shape[1] <= W.shape[2] else W.mT @ W
        traces = np.trace(G, axis1=1, axis2=2)
        if not (traces.min() > _PLAIN[0] and traces.max() < _PLAIN[1]):  # NaN among them, or too small, or too large
            return self.information.exact(examples)
        self.information.evaluations += len(examples)
        factor = np.linalg.cholesky(G + np.eye(G.shape[1]))
        return 2 * np.log(factor.diagonal(axis1=1, axis2=2)).sum(1)
