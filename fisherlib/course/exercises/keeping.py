"""Checkers of the exercises of notebook 09."""

import math
from collections.abc import Callable

import pandas as pd
import torch

from fisherlib.course.notebook import attempt


def rate_at(answer, progress: float, warmup: float, lowest: float) -> None:
    """The rate after a part `progress` of all steps, in units of the highest: warm-up, then a cosine to the lowest."""
    from transformers import get_scheduler

    steps = 1000
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    options = {"min_lr_rate": lowest}
    schedule = get_scheduler(
        "cosine_with_min_lr", optimizer, round(warmup * steps), steps, scheduler_specific_kwargs=options
    )
    expected = schedule.lr_lambdas[0](round(progress * steps))
    claim = "the rate of transformers at this step"
    forgot = lowest + (1 - lowest) / 2 * (1 + math.cos(math.pi * progress))
    if answer is not ... and abs(float(answer) - forgot) < 1e-3:
        raise AssertionError(f"{claim}: got the cosine over all steps, but it begins after the warm-up")
    attempt(claim, answer, expected, atol=1e-3)


def first_steps(fresh, carried, ratio: float) -> None:
    """How far Adam's first step on B goes, in units of the rate, if B's gradient is `ratio` times that of A.

    `fresh`: with moments that begin at zero. `carried`: with the moments of a long training at A's gradient.
    """
    attempt("the first step of a fresh Adam", fresh, _step(ratio, None), atol=1e-3)
    attempt("the first step with the moments of A", carried, _step(ratio, 1.0), atol=1e-3)


def _step(gradient: float, before: float | None) -> float:
    """What torch's Adam does to one weight at a rate of 1, after very many gradients `before`, if any."""
    weight = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([weight], lr=1.0)
    if before is not None:
        moments = {"exp_avg": torch.full_like(weight, before), "exp_avg_sq": torch.full_like(weight, before**2)}
        adam.state[weight] = {"step": torch.tensor(1e6), **{name: value.detach() for name, value in moments.items()}}
    weight.grad = torch.full_like(weight, gradient)
    adam.step()
    return -float(weight.detach())


def share_for(my_share, tables: dict[str, pd.DataFrame]) -> None:
    """A function of (table, weight of A): the share with the least weighted loss, for every table and eleven weights.

    `tables`: as from `kept.best_shares`, by shift. Raises `AssertionError` that names the first weight where it differs.
    """
    claim = "your share has the least weighted loss"
    if my_share is ...:
        print(f"○ not answered yet: {claim}")
        return
    for shift, table in tables.items():
        for tenths in range(11):
            weight = tenths / 10
            cost = weight * table["A"] + (1 - weight) * table["B"]
            got = _asked(my_share, table, weight)
            if got not in table.index:
                raise AssertionError(f"{claim}: expected one of the shares {list(table.index)}, got {got!r}")
            if cost[got] > cost.min() + 1e-12:
                raise AssertionError(f"{claim}: {shift} shift, weight {weight:g} of A: {cost.idxmin():.0%}, got {got:.0%}")
    attempt(claim, True, True)


def _asked(my_share: Callable, table: pd.DataFrame, weight: float) -> float:
    return float(my_share(table.copy(), weight))
