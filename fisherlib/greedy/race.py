"""The race for the next pick: who has the highest score now, at the price of as few evaluations as possible.

Gains only ever shrink, so an old gain is an upper bound (paper, algorithm 2). Bounds are tightened in three sieves: an old
gain rules out most of the pool, a screened gain most of the rest, and float64 decides between the few that are left.

All bounds are tensors on the device of the features. The CPU asks once a round what it needs to know to start the next
one, and otherwise waits for nothing. (The sieves and the rounds are extensions.)
"""

import contextlib
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fisherlib._device import is_accelerator, send
from fisherlib.greedy.information import TIE, Information
from fisherlib.greedy.screen import Screen

_AGE = 8  # picks that a front has to last: else the next one is twice as large
_NONE = -torch.inf  # the bound of one that does not race, or whose bound is in another sieve


class Race:
    """Finds the candidate of the highest score, gain / divisor, at each pick, and evaluates few others.

    `front` [F]: the candidates that race, in the order of the pool; nobody else's score exceeds `behind`. Each one's bound
    is in one of three sieves [F], by how it came about: `old`, `screened` since the last pick, or `decided` in float64
    since then. `gain` [F]: of the decided. `bound` [N]: as they were when the front was drawn.
    """

    front: Int[Tensor, " F"]
    gain: Float[Tensor, " F"]

    def __init__(
        self,
        information: Information,
        screen: Screen | None,
        divisor: np.ndarray,
        price: np.ndarray,
        batch_size: int | None = None,
        sampled: int | None = None,
        seed: int = 0,
        groups: Int[np.ndarray, " N"] | None = None,
    ):
        self.information, self.screen, self.device = information, screen, information.device
        # On an accelerator an evaluation costs little and a round much: batches are large, and a few are decided in each.
        self.hurried = is_accelerator(self.device)
        self.batch_size = batch_size or (2048 if self.hurried else 32)
        self.size = 2**15 if self.hurried else 2**13  # of a front: a pass over all of a large pool takes long
        self.finalists = 16 if self.hurried else 4  # decided before the others: what they reach rules out most of them
        self.divisor, self.price = send(divisor, self.device), send(price, self.device)
        self.group = None if groups is None else send(groups, self.device)
        self.bound = torch.full((len(divisor),), torch.inf, dtype=torch.float64, device=self.device)
        self.available = torch.ones(len(divisor), dtype=torch.bool, device=self.device)
        self.sound = torch.ones((), dtype=torch.bool, device=self.device)  # whether float64 could compute what it was asked
        self.sampled, self.seed = sampled, seed
        self._left: float | Float[np.ndarray, " G"] = -np.inf  # the budget that the front was made for
        self._needed = self.batch_size  # evaluations at the last pick
        self._looked, self._longest = False, 1  # at anyone since the last pick; the longest of them
        self._age = 0  # of the front, in picks
        self._start(torch.zeros(0, dtype=torch.int64, device=self.device))

    def threads(self) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext()  # as many as torch has

    def next(self, left: float | Float[np.ndarray, " G"]) -> tuple[int, float] | None:
        """The best available example of at most this price, lowest index on ties, and its gain.

        With groups, `left` holds the highest price for each.
        """
        self.floor = torch.full((), _NONE, dtype=torch.float64, device=self.device)  # a score that is certainly reached
        if self.sampled is not None:
            self._enter(self._sample(self._candidates(left), self.sampled))
        elif np.any(left > self._left):
            self._draw(left)
        elif np.any(left < self._left):
            fits = self._fits(left, self.front)
            self.old, self.screened, self.decided = (torch.where(fits, sieve, _NONE) for sieve in self._sieves())
        self._left = left
        while (best := self._search()) is None or best.score * (1 - 2 * TIE) <= self.behind:
            if self.behind == _NONE:
                return None
            self.size *= 2 if self._age < _AGE else 1
            self._draw(left)
        return int(self._front[best.place]), best.gain

    def take(self, i: int) -> None:
        """Add an example to the information matrix: gains that were new are upper bounds from now on."""
        self.information.add(i)
        self.available[i] = False
        self.old = self._bounds()
        place = int(np.searchsorted(self._front, i))
        if place < len(self._front) and self._front[place] == i:
            self.old[place] = _NONE
        self.screened.fill_(_NONE)
        self.decided.fill_(_NONE)
        self._looked, self._longest, self._age = False, 1, self._age + 1

    def _sieves(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.old, self.screened, self.decided

    def _bounds(self) -> Tensor:
        return torch.maximum(self.old, torch.maximum(self.screened, self.decided))

    def _candidates(self, left: float | Float[np.ndarray, " G"]) -> Int[Tensor, " C"]:
        return torch.nonzero(self.available & self._fits(left, slice(None)))[:, 0]

    def _fits(self, left: float | Float[np.ndarray, " G"], at: Int[Tensor, " F"] | slice) -> Bool[Tensor, " F"]:
        """Whether the price of each is low enough, for it or for its group."""
        if self.group is None:
            return self.price[at] <= float(left)
        return self.price[at] <= send(np.asarray(left), self.device)[self.group[at]]

    def _sample(self, candidates: Int[Tensor, " C"], size: int) -> Int[Tensor, " S"]:
        runners = candidates.cpu().numpy()
        if (some := self.information.has_tokens(runners)).any():
            runners = runners[some]
        if len(runners) > size:
            rng = np.random.default_rng([self.seed, int(self.available.sum())])  # of this pick, however it was reached
            runners = np.sort(rng.choice(runners, size, replace=False))
        return send(runners, self.device)

    def _draw(self, left: float | Float[np.ndarray, " G"]) -> None:
        """A new front: the candidates of the highest bounds."""
        self._age = 0
        self._enter(self._candidates(left))
        if len(self.front) > self.size:
            self._keep()
            top = self._bounds().topk(self.size)
            self.behind, kept = float(top.values[-1]), top.indices.sort().values
            self.front, self.gain = self.front[kept], self.gain[kept]
            self.old, self.screened, self.decided = (sieve[kept] for sieve in self._sieves())
            self._front = self.front.cpu().numpy()

    def _enter(self, candidates: Int[Tensor, " F"]) -> None:
        """Let these race instead; those that nobody has looked at yet are evaluated in one sweep."""
        before, gain, sieves, raced = self.front, self.gain, self._sieves(), self._bounds() > _NONE
        self._keep()
        self._start(candidates)
        if self._looked:  # at some of them since the last pick: that need not be done again
            places = torch.searchsorted(candidates, before).clamp(max=max(len(candidates) - 1, 0))
            stay = raced & (candidates[places] == before if len(candidates) else False)
            places = places[stay]
            self.gain[places] = gain[stay]
            self.old[places], self.screened[places], self.decided[places] = (sieve[stay] for sieve in sieves)
        if len(new := torch.nonzero(torch.isposinf(self.old))[:, 0]):
            self._evaluate(new.cpu().numpy())

    def _keep(self) -> None:
        """The bounds of the front, for when others race."""
        bounds = self._bounds()
        self.bound[self.front] = torch.where(bounds > _NONE, bounds, self.bound[self.front])

    def _start(self, candidates: Int[Tensor, " F"]) -> None:
        self.front, self._front, self.behind = candidates, candidates.cpu().numpy(), _NONE
        self.old, self.gain = self.bound[candidates], torch.zeros_like(self.bound[candidates])
        self.screened, self.decided = torch.full_like(self.old, _NONE), torch.full_like(self.old, _NONE)

    def _search(self) -> "_Best | None":
        """The one of the highest score in front, if anyone there runs."""
        if not len(self.front):
            return None
        # A quarter of what the last pick needed, then twice as many, and so on: what can still win after a few batches
        # mostly has to be evaluated anyway. On an accelerator one batch is to be enough.
        most = max(self._needed // (1 if self.hurried else 4), self.batch_size)
        some, spent = self.finalists, 0
        while True:
            seen = self._read(most)
            if not seen.sound:
                self.information.refuse(self._front[(self.decided != _NONE).cpu().numpy()])  # NaN among them
            if not seen.open and (seen.certain or seen.floor == _NONE):
                break
            if not seen.open:  # a screen promised what float64 could not find: only what float64 found counts
                self.floor.fill_(seen.best.score)
            if seen.stale:
                batch = seen.old[: self._full(min(most, seen.stale))]
                self._evaluate(np.sort(batch))
                most, spent = 2 * most, spent + len(batch)
            if seen.open and self.screen is not None and (self.hurried or not seen.stale):
                self._decide(some if seen.stale else min(some, seen.open))
                some *= 8
        self._needed = max(spent, self.batch_size)
        return seen.best if seen.certain else None

    def _full(self, size: int) -> int:
        """In bfloat16 batches are always full, since its kernels are compiled anew for each shape."""
        narrow = self.screen is not None and self.screen.dtype == torch.bfloat16
        return -(-size // self.batch_size) * self.batch_size if narrow else size

    def _read(self, most: int) -> "_Standing":
        """How the race stands: the one question of a round to the device."""
        top, reach = self.decided.max(), self._reach()
        first = (self.decided >= top * (1 - TIE)).byte().argmax()  # the lowest index, since the front rises
        gain = self.gain.gather(0, first[None])[0]  # gain[first] would ask the device for `first`
        old = self.old.topk(min(self._full(most), len(self.front)))
        stale, screened = (self.old >= reach).sum(), (self.screened >= reach).sum()
        numbers = torch.stack(
            [n.double() for n in (stale, screened, self.floor, top >= reach, self.sound, first, gain, top)]
        )
        waiting = torch.where(old.values > _NONE, old.indices, -1).double()
        answer = torch.cat([numbers, waiting]).cpu().numpy()
        said, places = answer[: len(numbers)].tolist(), answer[len(numbers) :]
        return _Standing(
            open=int(said[0] + said[1]),
            stale=int(said[0]),
            floor=said[2],
            certain=bool(said[3]),
            sound=bool(said[4]),
            best=_Best(int(said[5]), *said[6:]),
            old=places[places >= 0].astype(np.int64),
        )

    def _reach(self) -> Tensor:
        """The lowest bound that may win."""
        return (self.floor * (1 - 2 * TIE)).clamp(min=-1)  # no score is negative; one of a tiny cost may be infinite

    def _evaluate(self, places: np.ndarray) -> None:
        """Tighten some bounds, and raise the floor to the highest score that one of them certainly has."""
        at, examples = send(places, self.device), self._front[places]
        divisor = self.divisor[self.front[at]]
        self.old[at] = _NONE
        if self.screen is None:
            gains, sound = self.information.gains(examples)
            errors, self.gain[at], self.sound = torch.zeros_like(gains), gains, self.sound & sound
        else:
            gains, errors = self.screen.gains(examples)
        (self.decided if self.screen is None else self.screened)[at] = (gains + errors) / divisor
        self.floor = torch.maximum(self.floor, ((gains - errors) / divisor).max())
        self._looked, self._longest = True, max(self._longest, int(self.information.blocks.lengths[examples].max()))

    def _decide(self, most: int) -> None:
        """Compute the gains of a few in float64: of those with the highest screened bounds."""
        top = self.screened.topk(min(most, len(self.front)))
        at, real = top.indices, top.values >= self._reach()  # fewer may be waiting: the first one fills their places
        examples = self.front[at]
        gains, sound = self.information.gains_there(torch.where(real, examples, examples[0]), self._longest)
        scores = torch.where(real, gains / self.divisor[examples], _NONE)
        self.gain[at] = torch.where(real, gains, self.gain[at])
        self.decided[at] = torch.where(real, scores, self.decided[at])
        self.screened[at] = torch.where(real, _NONE, self.screened[at])
        self.floor = torch.maximum(self.floor, scores.max())
        self.sound = self.sound & (sound | ~real[0])


class _Best(NamedTuple):
    place: int
    gain: float
    score: float


class _Standing(NamedTuple):
    """What the CPU knows of a race. `open`: how many may win and are not decided, of which `stale` have old gains only.

    `certain`: whether the best of the decided, `best`, may win. `old`: places of old gains, the highest bounds first.
    """

    open: int
    stale: int
    floor: float
    certain: bool
    sound: bool
    best: _Best
    old: np.ndarray
