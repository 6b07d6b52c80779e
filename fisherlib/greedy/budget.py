"""What a selection may spend: so many examples, or so many tokens."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float


class Budget:
    """An amount of examples, each at a price of 1, or of tokens, each example at its cost; and what of it is left.

    `asked`: the budget as it was given, {"examples": n} or {"tokens": m}; `price` [N]; `free` [N]: not taken yet.
    """

    def __init__(self, costs: Float[np.ndarray, " N"], examples: int | None, tokens: float | int | None):
        both: dict[str, float | int | None] = {"examples": examples, "tokens": tokens}
        self.asked = {unit: given for unit, given in both.items() if given is not None}
        self.unit, given = next(iter(self.asked.items()))
        self.amount = self.left = float(given)
        self.price = costs if examples is None else np.ones(len(costs))
        self.free = np.ones(len(costs), dtype=bool)

    def affordable(self) -> Bool[np.ndarray, " N"]:
        """Who may still be taken."""
        return self.free & (self.price <= self.left)

    def take(self, picks: int | np.integer | Sequence[int]) -> None:
        """Pay for an example, or for several."""
        self.free[picks] = False
        self.left -= self.price[picks].sum()

    def give_back(self, pick: int) -> None:
        """Take an example out again, and its price back."""
        self.free[pick] = True
        self.left += self.price[pick]
