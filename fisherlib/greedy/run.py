"""The picks of one call of `select`, one after the other."""

import time
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from tqdm.auto import tqdm

from fisherlib._quiet import hidden
from fisherlib.features import TokenFeatures
from fisherlib.greedy.budget import Budget
from fisherlib.greedy.certificate import slack
from fisherlib.greedy.checkpoint import Checkpoint
from fisherlib.greedy.engine import Engine, replay
from fisherlib.greedy.information import TIE
from fisherlib.greedy.selection import Selection, provenance_of


class Run:
    """The picks of one call, in their order, and what each gained: a `Selection` at any moment."""

    def __init__(
        self,
        features: TokenFeatures,
        engine: Engine,
        budget: Budget,
        costs: Float[np.ndarray, " N"],
        settings: dict,
        saved: Selection | None,
        began: float,
    ):
        self.features, self.engine, self.budget, self.costs = features, engine, budget, costs
        self.settings, self.began = settings, began
        self.evaluations, self.seconds = (saved.evaluations, saved.seconds) if saved else (0, 0.0)  # of before
        self.picks: list[int] = []
        self.gains: list[float] = []
        self.stopped: str | None = None

    def begin(self, picks: Sequence[int]) -> None:
        """Take these picks; their gains are computed anew, since they may have had another prior or weighting."""
        self.picks = list(picks)
        self.gains = replay(self.engine.information, self.picks, self.engine.take)
        self.budget.take(self.picks)
        amount = self.budget.amount
        if (left := self.budget.left) < -TIE * amount:  # what rounding leaves of costs like 0.1 is no debt
            raise ValueError(
                f"expected a budget that covers the start selection ({amount - left:g}), got {amount:g}: raise it"
            )

    def to_the_end(self, file: Checkpoint, progress: bool | None) -> None:
        """Pick until the budget is spent, or until nothing that fits adds anything."""
        budget, engine = self.budget, self.engine
        spent = budget.amount - budget.left
        try:
            with (
                tqdm(total=budget.amount, initial=spent, unit=budget.unit[:-1], disable=hidden(progress)) as bar,
                engine.threads(),
            ):
                while len(self.picks) != budget.asked.get("examples"):
                    found = engine.next(budget.room() + TIE * budget.amount)
                    if found is None or (found[1] <= 0 and budget.unit == "tokens"):
                        if budget.release():
                            continue
                        break
                    best, gain = found
                    if self.stopped is None and (reason := self._too_low(best, gain)):
                        self.stopped = reason
                        if budget.close():  # what floors still need is taken all the same
                            continue
                        break
                    engine.take(best)
                    self.picks.append(best)
                    self.gains.append(gain)
                    budget.take(best)
                    bar.update(budget.price[best])
                    file.tick(self.selection)
        except BaseException:  # Ctrl-C above all
            if len(self.picks) == len(self.gains):
                file.save(self.selection())
            raise
        if not self.picks and (cheapest := budget.price[self.costs > 0].min()) > budget.amount:
            raise ValueError(
                f"expected a budget of at least the cheapest example ({cheapest:g}), got {budget.amount:g}: raise it"
            )
        if not self.picks and budget.quotas is not None and not budget.quotas.allows_any(budget.price):
            raise ValueError("expected quotas that at least one example fits into, got none that do: raise the ceilings")
        if not self.picks:
            raise ValueError(
                "expected an example that adds information, got gains of 0 for all that fit: check the features"
            )

    def _too_low(self, best: int, gain: float) -> str | None:
        """Why to stop before this pick; None to go on."""
        least = self.settings.get("stop")
        if least is None or not self.picks:
            return None
        per_token = self.settings["rule"] == "gain_per_token"
        first, now = (
            g / (max(self.costs[i], 1e-300) if per_token else 1) for i, g in ((self.picks[0], self.gains[0]), (best, gain))
        )
        unit = "nats per token" if per_token else "nats"
        if now >= least * first:
            return None
        return f"the next pick would gain {now:.3g} {unit}, less than {least:g} of the first one's {first:.3g}"

    def selection(self, certified: bool = False) -> Selection:
        upper_bound, quotas = None, self.budget.quotas
        if certified:
            upper_bound = float(np.sum(self.gains))
            engine = self.engine
            upper_bound += slack(engine.information, self.picks, self.budget.price, self.budget.amount, engine.screen)
        return Selection(
            indices=np.array(self.picks, dtype=np.int64),
            gains=np.array(self.gains, dtype=np.float64),
            costs=self.costs[self.picks],
            pool_size=len(self.costs),
            upper_bound=upper_bound,
            evaluations=self.engine.information.evaluations + self.evaluations,
            seconds=time.perf_counter() - self.began + self.seconds,
            settings=self.settings if self.stopped is None else self.settings | {"stopped": self.stopped},
            provenance=provenance_of(self.features, self.picks),
            groups=None if quotas is None else tuple(quotas.labels[g] for g in quotas.group[self.picks]),
        )
