"""Greedy selection where every example is a single vector: a pivoted Cholesky factorisation, done lazily. (Extension.)

With one token, gain_i = log(1 + c_i) with the leverage c_i = x_i^T V^-1 x_i, and a pick j takes (x_i^T z)^2 from every c_i,
where z = V^-1 x_j / sqrt(1 + c_j). That is too little arithmetic for screens and batches to pay: all is float64 here, and
only the examples in front are kept up to date at every pick. The others follow in one product when their turn may come.
"""

import contextlib

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.linalg.blas import dger
from threadpoolctl import threadpool_limits

from fisherlib._device import is_accelerator
from fisherlib.features import Indices, TokenFeatures
from fisherlib.greedy.blocks import Blocks
from fisherlib.greedy.information import COLLAPSE, TIE, inverse_root, prior_matrix
from fisherlib.greedy.memory import free_memory, pick_device

_FRONT = 16  # one example in so many is kept up to date
_COLUMNS = 128  # picks after which the others follow at the latest


class OneToken:
    """The information matrix of the chosen examples, their gains, and the race for the next pick, for T_i <= 1."""

    screen = None
    evaluations = 0

    @property
    def information(self) -> "OneToken":
        return self

    @staticmethod
    def fits(features: TokenFeatures, device: str | torch.device, dtype: str, memory: int | None) -> bool:
        """Whether every example is one vector at most, and a copy of them in float64 is affordable."""
        if int(features.lengths.max()) > 1 or dtype not in ("auto", "float64") or is_accelerator(pick_device(device)):
            return False
        return len(features) * features.dim * 16 <= (free_memory(pick_device(device)) if memory is None else memory)

    def __init__(
        self,
        features: TokenFeatures,
        prior,
        weighting: str,
        divisor: np.ndarray,
        price: np.ndarray,
        groups: Int[np.ndarray, " N"] | None = None,
    ):
        self.blocks = Blocks(features, weighting, "cpu")
        self.X = self.blocks.padded(np.arange(len(features)), torch.float64)[:, 0].numpy()  # [N, d]; zeros for no token
        if not np.isfinite(self.X).all():
            bad = int(np.flatnonzero(~np.isfinite(self.X).all(1))[0])
            raise ValueError(f"expected finite features, got NaN or infinity in example {bad}: extract the features again")
        self.V = prior_matrix(prior, features.dim)
        self.divisor, self.price, self.group = divisor, price, groups
        self.available = np.ones(len(features), dtype=bool)
        self.fresh_picks: list[int] = []  # not in V yet
        self._start_afresh()

    def threads(self) -> contextlib.AbstractContextManager:
        """These products are so small that waking a second thread takes longer than its share of the work."""
        return threadpool_limits(1, user_api="blas")

    def take(self, i: int) -> None:
        """V <- V + x_i x_i^T, V^-1 = root root^T <- V^-1 - z z^T. O(d^2), and O(d) for each example in front."""
        x = self.X[i]
        self.fresh_picks.append(i)
        self.available[i] = False
        w = x @ self.root
        c = float(w @ w)
        if c > 1 / COLLAPSE:  # what is left of V^-1 in this direction would have lost its digits
            return self._start_afresh()
        length = np.sqrt(1 + c)
        z = self.root @ w / length
        dger(-1 / (1 + length), z, w, a=self.root, overwrite_a=True)
        self.Z[:, self.used] = z
        self.used += 1
        self.front_c -= (self.front_X @ z) ** 2
        if self.used == _COLUMNS:
            self._catch_up()

    def next(self, left: float | Float[np.ndarray, " G"]) -> tuple[int, float] | None:
        """The best available example of at most this price, lowest index on ties, and its gain.

        With groups, `left` holds the highest price for each.
        """
        if np.any(left > self._drawn_for):  # others may run now than when the front was drawn
            self._catch_up(left)
        while True:
            gains = np.log1p(self.front_c.clip(min=0))
            scores = gains / self.divisor[self.front]
            runs = self.available[self.front] & self._fits(left, self.front)
            scores[~runs] = -1.0
            self.evaluations += int(runs.sum())
            best = scores.max(initial=-1.0)
            if best * (1 - 2 * TIE) > self.behind and best >= 0:
                first = np.flatnonzero(scores >= best * (1 - TIE))[0]
                return int(self.front[first]), float(gains[first])
            if not (self.available & self._fits(left, slice(None))).any():
                return None
            self._catch_up(left)

    def exact(self, indices: Indices) -> Float[np.ndarray, " B"]:
        return np.log1p(self.leverages()[np.asarray(indices, dtype=np.int64)])

    def leverages(self) -> Float[np.ndarray, " N"]:
        """c_i = x_i^T V^-1 x_i of every example."""
        if self.used:
            self._catch_up()
        return self.c.clip(min=0)

    def _fits(self, left: float | Float[np.ndarray, " G"], at: Int[np.ndarray, " F"] | slice) -> Bool[np.ndarray, " F"]:
        """Whether the price of each is low enough, for it or for its group."""
        return self.price[at] <= (left if self.group is None else np.asarray(left)[self.group[at]])

    def _catch_up(self, left: float | Float[np.ndarray, " G"] | None = None) -> None:
        """What the picks since last time took from everyone. O(N d) for each of them."""
        self.c -= ((self.X @ self.Z[:, : self.used]) ** 2).sum(1)
        self.evaluations += int(self.available.sum())
        if len(self.fresh_picks) > 8 * len(self.root) or bool((self.c < COLLAPSE * self.first_c).any()):
            self._start_afresh(left)
        else:
            self._draw_front(left)

    def _start_afresh(self, left: float | Float[np.ndarray, " G"] | None = None) -> None:
        """The root and all leverages from a new factorisation, which has no drift. O(d^3 + N d^2)."""
        X = torch.from_numpy(self.X[self.fresh_picks])
        self.V.addmm_(X.T, X)
        self.fresh_picks = []
        self.root = np.asfortranarray(inverse_root(self.V).numpy())
        self.c = ((self.X @ self.root) ** 2).sum(1)
        self.first_c = self.c.copy()
        self._draw_front(left)

    def _draw_front(self, left: float | Float[np.ndarray, " G"] | None) -> None:
        """The available ones, of at most this price, of the highest scores; all others score at most `behind`."""
        self._drawn_for = np.inf if left is None else left
        candidates = np.flatnonzero(self.available if left is None else self.available & self._fits(left, slice(None)))
        scores = np.log1p(self.c[candidates].clip(min=0)) / self.divisor[candidates]
        size, self.behind = max(len(self.c) // _FRONT, 64), -1.0
        if size < len(candidates):
            last = float(np.partition(scores, -size)[-size])
            limit = last * (1 + 4 * TIE)
            if scores.max() * (1 - 2 * TIE) > limit:  # else nearly all are equal, and all stay
                candidates, self.behind = candidates[scores > limit], limit
        self.front, self.front_c, self.front_X = candidates, self.c[candidates], self.X[candidates]
        self.Z, self.used = np.zeros((len(self.root), _COLUMNS)), 0
