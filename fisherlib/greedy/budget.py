"""What a selection may spend: so many examples, or so many tokens."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from fisherlib.greedy.quotas import Quotas


class Budget:
    """An amount of examples, each at a price of 1, or of tokens, each example at its cost; and what of it is left.

    `asked`: the budget as it was given, {"examples": n} or {"tokens": m}; `price` [N]; `free` [N]: not taken yet.
    With `quotas` it also knows what each group got, `spent` [G].
    """

    def __init__(
        self,
        costs: Float[np.ndarray, " N"],
        examples: int | None,
        tokens: float | int | None,
        quotas: Quotas | None = None,
    ):
        both: dict[str, float | int | None] = {"examples": examples, "tokens": tokens}
        self.asked = {unit: given for unit, given in both.items() if given is not None}
        self.unit, given = next(iter(self.asked.items()))
        self.amount = self.left = float(given)
        self.price = costs if examples is None else np.ones(len(costs))
        self.free = np.ones(len(costs), dtype=bool)
        self.quotas, self._reserving, self._closing = quotas, quotas is not None, False
        self.spent = np.zeros(0 if quotas is None else len(quotas.labels))

    def affordable(self) -> Bool[np.ndarray, " N"]:
        """Who may still be taken."""
        return self.free & (self.price <= self.left)

    def take(self, picks: int | np.integer | Sequence[int]) -> None:
        """Pay for an example, or for several."""
        self.free[picks] = False
        self.left -= self.price[picks].sum()
        if self.quotas is not None:
            self.spent += self.quotas.spent(self.price, np.atleast_1d(np.asarray(picks, dtype=np.int64)))

    def give_back(self, pick: int) -> None:
        """Take an example out again, and its price back."""
        self.free[pick] = True
        self.left += self.price[pick]
        if self.quotas is not None:
            self.spent -= self.quotas.spent(self.price, np.array([pick]))

    def room(self) -> float | Float[np.ndarray, " G"]:
        """The most that the next example may cost; with quotas, for each group."""
        if self.quotas is None:
            return self.left
        most = self.quotas.limits(self.spent, self.left, self._reserving)
        return np.where(self.quotas.open(self.spent) > 0, most, -1.0) if self._closing else most

    def release(self) -> bool:
        """Give free what is reserved for floors. Returns whether that changes anything."""
        reserved = self._reserving and not self._closing
        self._reserving = False
        return reserved and self.quotas is not None and bool(self.quotas.open(self.spent).any())

    def close(self) -> bool:
        """From now on only what a floor still needs may be taken. Returns whether that lets anything in."""
        needed = not self._closing and self.quotas is not None and bool(self.quotas.open(self.spent).any())
        self._closing = True
        return needed

    def may_replace(self, out: int, others: Int[np.ndarray, " B"]) -> Bool[np.ndarray, " B"]:
        """Whether each of some examples can be paid for, and breaks no quota, when one goes out for it."""
        fits = self.price[others] <= self.left + self.price[out]
        return fits if self.quotas is None else fits & self.quotas.keep(self.spent, self.price, out, others)
