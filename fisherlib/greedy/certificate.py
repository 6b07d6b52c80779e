"""How good a selection is: an upper bound on what any selection within the budget could reach."""

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fisherlib._door import checked
from fisherlib.features import TokenFeatures
from fisherlib.greedy.checks import check_weighting, costs_of
from fisherlib.greedy.engine import replay
from fisherlib.greedy.information import TIE, Information
from fisherlib.greedy.one_token import OneToken
from fisherlib.greedy.screen import Screen
from fisherlib.greedy.selection import Selection


@checked
def certify(
    features: TokenFeatures,
    selection: Selection,
    *,
    costs: Sequence[float] | Float[np.ndarray, " N"] | None = None,
    prior: float | int | Float[Tensor, "d d"] | Float[np.ndarray, "d d"] = 1.0,
    weighting: str = "none",
    device: str | torch.device = "auto",
) -> Selection:
    """The same picks with their gains and their certificate on `features`: what another method's picks are worth here.

    For picks that were made with compressed features, or at random, or by anyone. `costs` [N]: what
    the examples cost, if that is not their response tokens: of all, since the bound is over all that could have been picked.
    The budget is that of the selection's settings, or its number of examples. Float64 throughout: O(M d^2 + n d^3).
    Raises `ValueError` if the selection is from a pool of another size, its settings hold no budget that could be, or it
    was paid with other costs, or cost more than its budget, of which no certificate can speak. Source: extension.
    """
    features.check_whole()
    if selection.pool_size != len(features):
        raise ValueError(
            f"expected a selection from this pool of {len(features):,}, got one from {selection.pool_size:,} examples"
        )
    check_weighting(features, weighting)
    began = time.perf_counter()
    state = Information(features, prior, weighting, device)
    picks = selection.indices.tolist()
    gains = replay(state, picks, state.add)
    tokens = _tokens(selection)
    by_tokens = tokens is not None
    price = costs_of(features, costs) if by_tokens else np.ones(len(features))
    if by_tokens and not np.allclose(price[picks], selection.costs):
        raise ValueError("expected the costs that the picks were paid with, got others: give costs=, those of all examples")
    budget = float(len(picks)) if tokens is None else tokens
    if (spent := float(price[picks].sum())) > budget * (1 + TIE):
        raise ValueError(
            f"expected a selection within its budget of {budget:g}, got one that cost {spent:g}: its settings or its costs "
            "are those of another; make it anew with fl.score_selection"
        )
    return replace(
        selection,
        gains=np.array(gains),
        upper_bound=float(np.sum(gains)) + slack(state, picks, price, budget),
        evaluations=state.evaluations,
        seconds=time.perf_counter() - began,
        settings={**selection.settings, "certified_on": features.info},
    )


def _tokens(selection: Selection) -> float | None:
    """The budget of tokens that the settings speak of, if they do. Raises `ValueError` for what no budget can be."""
    asked = selection.settings.get("budget", {})
    tokens = asked.get("tokens", 1) if isinstance(asked, dict) else None
    if not isinstance(tokens, int | float | np.integer | np.floating) or isinstance(tokens, bool) or not 0 < tokens < np.inf:
        raise ValueError(
            f"expected settings of a budget like {{'tokens': 300}}, got {asked!r:.60}: make it anew with fl.score_selection"
        )
    return float(tokens) if "tokens" in asked else None


def slack(
    information: Information | OneToken, picks: list[int], price: np.ndarray, budget: float, screen: Screen | None = None
) -> float:
    """How far the objective of any selection A within the budget can lie above this one, S. The smaller of two bounds.

    Concavity: F(pi) = log det(V0 + sum pi_i G_i) is concave in pi, with gradient t_i = tr(V^-1 G_i) at S, so
    f(A) - f(S) <= sum_A t - sum_S t. Submodularity: f(A) - f(S) <= the sum over A \\ S of gain_i, given S.
    Either sum over A is at most the value of a *fractional* knapsack. (Extension.) The first is the sharper one when
    the chosen tokens far outnumber d, the second when they do not.
    """
    n = len(price)
    t = information.leverages()
    by_concavity = _fractional_knapsack(t, price, budget) - t[picks].sum()
    rest = np.setdiff1d(np.arange(n), picks)
    remaining = np.zeros(n)
    if screen is not None:  # a quick look whether the second bound can be the smaller one at all
        gains, errors = screen.gains(rest)
        screen.information.check_finite(rest[torch.isinf(errors).cpu().numpy()])  # nobody who fits may have been among them
        remaining[rest] = (gains - errors).cpu().numpy()
        if _fractional_knapsack(remaining.clip(min=0), price, budget) > by_concavity:
            return max(by_concavity, 0.0)
    remaining[rest] = information.exact(rest)
    return max(min(by_concavity, _fractional_knapsack(remaining, price, budget)), 0.0)


def _fractional_knapsack(value: np.ndarray, price: np.ndarray, budget: float) -> float:
    """The most value that `budget` buys if examples may be taken in part: by value per price. What is free is taken."""
    fits = (price > 0) & (price <= budget)
    order = np.flatnonzero(fits)[np.argsort(-value[fits] / price[fits], kind="stable")]
    bought = np.diff(np.minimum(price[order].cumsum(), budget), prepend=0.0) / price[order]
    return float((bought * value[order]).sum() + value[price == 0].sum())
