"""The race for the next pick: who has the highest score now, at the price of as few evaluations as possible.

Gains only ever shrink, so an old gain is an upper bound (paper, algorithm 2). Bounds are tightened in three sieves: an old
gain rules out most of the pool, a screened gain most of the rest, and float64 decides between the few that are left.
"""

import contextlib

import numpy as np
import torch

from fisherlib._device import is_accelerator
from fisherlib.greedy.information import TIE, Information
from fisherlib.greedy.screen import Screen

_FIRST_FINALISTS = 4  # decided before the others


class Race:
    """Finds the candidate of the highest score, gain / divisor, at each pick, and evaluates few others.

    `bound` [N] of each score: an old gain plus its error.
    """

    def __init__(
        self,
        information: Information,
        screen: Screen | None,
        divisor: np.ndarray,
        price: np.ndarray,
        batch_size: int | None = None,
        sampled: int | None = None,
        seed: int = 0,
    ):
        self.information, self.screen, self.divisor, self.price = information, screen, divisor, price
        self.batch_size = batch_size or (256 if is_accelerator(information.device) else 32)
        self.bound = np.full(len(divisor), np.inf)
        self.fresh = np.zeros(len(divisor), dtype=bool)  # evaluated since the last pick
        self.decided: dict[int, float] = {}  # gains that were computed in float64 since then
        self.available = np.ones(len(divisor), dtype=bool)
        self.sampled, self.seed = sampled, seed

    def threads(self) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext()  # as many as torch has

    def next(self, left: float) -> tuple[int, float] | None:
        """The best available example of at most this price, lowest index on ties, and its gain."""
        runners = np.flatnonzero(self.available & (self.price <= left))
        if self.sampled is not None:
            runners = self._sample(runners, self.sampled)
        return self._search(runners) if len(runners) else None

    def take(self, i: int) -> None:
        """Add an example to the information matrix: gains that were fresh are upper bounds from now on."""
        self.information.add(i)
        self.available[i] = False
        self.fresh[:] = False
        self.decided.clear()

    def _sample(self, runners: np.ndarray, size: int) -> np.ndarray:
        if (some := self.information.has_tokens(runners)).any():
            runners = runners[some]
        if len(runners) <= size:
            return runners
        rng = np.random.default_rng([self.seed, int(self.available.sum())])  # of this pick, however it was reached
        return np.sort(rng.choice(runners, size, replace=False))

    def _search(self, runners: np.ndarray) -> tuple[int, float]:
        """The one of the highest score, and its gain. Tightens `bound`."""
        floor = -np.inf  # the highest score that is certainly reached

        def hopeful() -> np.ndarray:
            reach = floor - 2 * TIE * abs(floor) if np.isfinite(floor) else -np.inf
            return runners[self.bound[runners] >= reach]

        while True:
            # 1. screen: evaluate old gains again, the most promising first, until no old one can win. Each batch may have
            # twice the size of the one before: what can still win after a few batches mostly has to be evaluated anyway. In
            # bfloat16 batches are always full, since its kernels are compiled anew for each shape.
            most = self.batch_size
            while len(stale := (group := hopeful())[~self.fresh[group]]):
                if np.isposinf(self.bound[stale]).all():
                    batch = stale  # the first pass
                else:
                    size = min(most, len(stale))
                    if self.screen is not None and self.screen.dtype == torch.bfloat16:
                        size = -(-size // self.batch_size) * self.batch_size
                        stale = runners[~self.fresh[runners]]
                    batch = np.sort(stale[np.argpartition(-self.bound[stale], min(size, len(stale)) - 1)[:size]])
                    most *= 2
                floor = max(floor, self._evaluate(batch))
            # 2. decide, in float64: a few with the highest bounds first, since what they reach rules out most others
            some = _FIRST_FINALISTS
            while len(unknown := np.array([i for i in hopeful().tolist() if i not in self.decided], dtype=np.int64)):
                unknown = unknown[np.argsort(-self.bound[unknown], kind="stable")[:some]]
                gains = self.information.exact(unknown)
                self.decided |= zip(unknown.tolist(), gains.tolist(), strict=True)
                self.bound[unknown] = gains / self.divisor[unknown]
                floor = max(floor, float(self.bound[unknown].max()))
                some = len(self.bound)
            if len(finalists := hopeful()):
                break
            # A screen promised what float64 could not find: only what float64 found counts.
            floor = max(gain / self.divisor[i] for i, gain in self.decided.items())
        scores = np.array([self.decided[i] for i in finalists.tolist()]) / self.divisor[finalists]
        best = int(finalists[np.flatnonzero(scores >= scores.max() * (1 - TIE))[0]])
        return best, self.decided[best]

    def _evaluate(self, examples: np.ndarray) -> float:
        """Tighten the bounds of some examples; returns the highest score that one of them certainly has."""
        if self.screen is None:
            gains = self.information.exact(examples)
            errors = np.zeros(len(gains))
            self.decided |= zip(examples.tolist(), gains.tolist(), strict=True)
        else:
            gains, errors = self.screen.gains(examples)
        self.fresh[examples] = True
        self.bound[examples] = (gains + errors) / self.divisor[examples]
        return float(((gains - errors) / self.divisor[examples]).max())
