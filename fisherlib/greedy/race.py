"""The race for the next pick: who has the highest score now, at the price of as few evaluations as possible.

Gains only ever shrink, so an old gain is an upper bound (paper, algorithm 2). Bounds are tightened in three sieves: an old
gain rules out most of the pool, a screened gain most of the rest, and float64 decides between the few that are left.
"""

from collections.abc import Sequence

import numpy as np
import torch

from fisherlib._device import is_accelerator
from fisherlib.greedy.information import TIE, Information

_FIRST_FINALISTS = 4  # decided before the others


class Race:
    """Finds the candidate of the highest score, gain / divisor, at each pick, and evaluates few others.

    `bound` [N] of each score: an old gain plus its error. Examples outside the `front` score less than `behind`, so a pick
    looks at few examples, not at the whole pool, until the winners' scores have fallen that far.
    """

    def __init__(
        self,
        state: Information,
        divisor: np.ndarray,
        price: np.ndarray,
        picks: Sequence[int],
        batch_size: int | None,
        sampled: int | None = None,
        seed: int = 0,
    ):
        self.state, self.divisor, self.price = state, divisor, price
        self.batch_size = batch_size or (256 if is_accelerator(state.device) else 32)
        self.bound = np.full(len(divisor), np.inf)
        self.fresh = np.zeros(len(divisor), dtype=bool)  # evaluated since the last pick
        self.exact: dict[int, float] = {}  # gains that were computed in float64 since then
        self.available = np.ones(len(divisor), dtype=bool)
        self.available[picks] = False
        self.front, self.behind = np.arange(len(divisor)), -np.inf
        self.sampled, self.seed = sampled, seed

    def winner(self, left: float) -> tuple[int, float] | None:
        """Take the best example of at most this price, lowest index on ties, and return it with its gain."""
        best, gain = self._winner_of_a_sample(left) if self.sampled is not None else self._winner_of_all(left)
        if best is None:
            return None
        self.available[best] = False
        self.fresh[:] = False
        self.exact.clear()
        return best, gain

    def _winner_of_all(self, left: float) -> tuple[int | None, float]:
        while True:
            runners = self.front[self.available[self.front] & (self.price[self.front] <= left)]
            best, gain, score = self._search(runners) if len(runners) else (None, 0.0, -np.inf)
            if score * (1 - 2 * TIE) > self.behind or self.behind == -np.inf:
                break
            self._draw_front(score)  # what was left behind may win by now
        if self.behind == -np.inf:
            self._draw_front(score)
        return best, gain

    def _winner_of_a_sample(self, left: float) -> tuple[int | None, float]:
        runners = np.flatnonzero(self.available & (self.price <= left))
        if (self.state.blocks.lengths[runners] > 0).any():
            runners = runners[self.state.blocks.lengths[runners] > 0]
        if len(runners) > self.sampled:
            rng = np.random.default_rng([self.seed, int(self.available.sum())])  # of this pick, however it was reached
            runners = np.sort(rng.choice(runners, self.sampled, replace=False))
        return self._search(runners)[:2] if len(runners) else (None, 0.0)

    def _draw_front(self, score: float) -> None:
        self.behind = 0.9 * score if score > 0 else -np.inf  # a tenth lower: drawn anew about twenty times in a decade
        self.front = np.flatnonzero(self.bound >= self.behind)

    def _search(self, runners: np.ndarray) -> tuple[int, float, float]:
        """The one of the highest score, its gain and its score. Tightens `bound`."""
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
                    if self.state.dtype == torch.bfloat16:
                        size = -(-size // self.batch_size) * self.batch_size
                        stale = runners[~self.fresh[runners]]
                    batch = np.sort(stale[np.argpartition(-self.bound[stale], min(size, len(stale)) - 1)[:size]])
                    most *= 2
                for part in self.state.blocks.parts(batch):
                    floor = max(floor, self._evaluate(batch[part]))
            # 2. decide, in float64: a few with the highest bounds first, since what they reach rules out most others
            some = _FIRST_FINALISTS
            while len(unknown := np.array([i for i in hopeful().tolist() if i not in self.exact], dtype=np.int64)):
                unknown = unknown[np.argsort(-self.bound[unknown], kind="stable")[:some]]
                gains = self.state.exact(unknown)
                self.exact |= zip(unknown.tolist(), gains.tolist(), strict=True)
                self.bound[unknown] = gains / self.divisor[unknown]
                floor = max(floor, float(self.bound[unknown].max()))
                some = len(self.bound)
            if len(finalists := hopeful()):
                break
            # A screen promised what float64 could not find: only what float64 found counts.
            floor = max(gain / self.divisor[i] for i, gain in self.exact.items())
        scores = np.array([self.exact[i] for i in finalists.tolist()]) / self.divisor[finalists]
        best = int(finalists[np.flatnonzero(scores >= scores.max() * (1 - TIE))[0]])
        return best, self.exact[best], float(scores.max())

    def _evaluate(self, examples: np.ndarray) -> float:
        """Tighten the bounds of some examples; returns the highest score that one of them certainly has."""
        if self.state.dtype == torch.float64:
            gains, errors = self.state.exact(examples), 0.0
            self.exact |= zip(examples.tolist(), gains.tolist(), strict=True)
        else:
            gains, errors = self.state.screen(examples)
        self.fresh[examples] = True
        self.bound[examples] = (gains + errors) / self.divisor[examples]
        return float(((gains - errors) / self.divisor[examples]).max())
