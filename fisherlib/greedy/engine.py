"""What `select` asks of an engine, whichever of the three it is."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from fisherlib.greedy.information import Information
from fisherlib.greedy.one_token import OneToken
from fisherlib.greedy.screen import Screen


@runtime_checkable
class Engine(Protocol):
    """Finds pick after pick: `Race` in general, `OneToken` where every example is one vector at most, `SmallPool` in float64
    where there is little of everything."""

    @property
    def screen(self) -> Screen | None:
        """The quick look at gains that it has, if any."""

    @property
    def information(self) -> Information | OneToken:
        """The information matrix of the picks so far, and what each further example would add to it."""

    def next(self, left: float | Float[np.ndarray, " G"]) -> tuple[int, float] | None:
        """The best example that is still there and costs at most `left`, and its gain. The lowest index wins a tie.

        Of an engine with groups, `left` is what an example of each may cost.
        """

    def take(self, i: int) -> None:
        """Add an example to the information matrix; it is no candidate any more."""

    def threads(self) -> AbstractContextManager:
        """Within this context there are as many as the engine can use."""


def replay(information: Information | OneToken, picks: Sequence[int], take: Callable[[int], None]) -> list[float]:
    """Take examples in this order; returns what each gained."""
    gains = []
    for i in picks:
        gains.append(float(information.exact([i])[0]))
        take(i)
    return gains
