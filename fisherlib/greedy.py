"""Exact lazy greedy maximisation of the log-determinant of the information matrix.

The objective of a set S of examples, with X_i [T_i, d] the token features of example i (paper, section 3):

    f(S) = log det V - log det V0,    V = V0 + sum_{i in S} X_i^T X_i
    gain_i = f(S + i) - f(S) = log det(I + X_i V^-1 X_i^T)

f is monotone and submodular: gains only shrink as S grows. So a gain computed earlier is an upper bound, and at each pick
only the examples whose old gain could still win are evaluated again (paper, algorithm 2).

Gains are *screened* in a low precision with an estimate of their rounding error, and *decided* in float64: a screened gain
can rule an example out, never choose it. So the answer is the float64 greedy's, whatever the batch size and the device.
"""

import time
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from fisherlib.features import hidden
from fisherlib.information import TIE, Information
from fisherlib.one_token import OneToken
from fisherlib.selection import Selection
from fisherlib.token_features import Indices, TokenFeatures

_FIRST_FINALISTS = 4


def select(
    features: TokenFeatures,
    *,
    examples: int | None = None,
    tokens: float | int | None = None,
    costs: Sequence[float] | Float[np.ndarray, " N"] | None = None,
    rule: str = "gain",
    weighting: str = "none",
    prior: float | int | Float[Tensor, "d d"] | Float[np.ndarray, "d d"] = 1.0,
    start: Selection | None = None,
    batch_size: int = 32,
    device: str = "auto",
    dtype: str = "auto",
    progress: bool | None = None,
) -> Selection:
    """Choose the examples that together tell most about the model's last layer.

    Give exactly one budget: `examples`, or `tokens` (in units of `costs` [N], by default each example's response tokens).
    `rule`: "gain" picks the largest gain, "gain_per_token" the largest gain / cost (for token budgets). `weighting`:
    "trace" multiplies each token's x x^T by 1 - ||p||^2 (extension). `prior`: sigma0^2, or a matrix V0 [d, d] of what is
    already known. `start`: an earlier selection to continue; its picks count towards the budget. `dtype` is that of the
    screening. Under a token budget, picking goes on with what still fits.

    Returns a `Selection` whose certificate is a bound that holds for this very selection (see `upper_bound`).
    Ties go to the lowest index. Examples without tokens gain 0 and are picked last, under a token budget never.
    Time O(evaluations * T d^2 + picks * d^3); memory O(d^2 + batch). Source: paper, algorithms 1 and 2; token budgets,
    gain per token, weighting and certificate are extensions.
    Raises `ValueError` for a budget that is missing, doubled, not positive or larger than the pool, for features or a
    prior that are not finite, and for an unknown option.
    """
    began = time.perf_counter()
    costs = _costs(features, costs)
    picks = [] if start is None else [int(i) for i in start.indices]
    _check_options(features, costs, examples, tokens, rule, weighting, dtype, start, batch_size)
    n = len(features)
    divisor = np.where(costs > 0, costs, 1.0) if rule == "gain_per_token" else np.ones(n)
    price = costs if examples is None else np.ones(n)
    if OneToken.fits(features, device, dtype):
        state = race = OneToken(features, prior, weighting, divisor, price)
    else:
        state = Information(features, prior, weighting, device, dtype)
        race = Race(state, divisor, price, picks, batch_size)
    gains = []
    for i in picks:  # anew, since the start may have had another prior or weighting
        gains.append(float(state.exact([i])[0]))
        state.add(i)
    budget = float(tokens if examples is None else examples)
    left = budget - price[picks].sum()
    if left < 0:
        raise ValueError(f"expected a budget that covers the start selection ({budget - left:g}), got {budget:g}: raise it")
    bar = tqdm(
        total=budget, initial=budget - left, unit="token" if examples is None else "example", disable=hidden(progress)
    )
    with bar, state.threads():
        while len(picks) != examples and (found := race.winner(left + TIE * budget)) is not None:
            best, gain = found
            if gain <= 0 and examples is None:
                break  # nothing that fits adds anything
            picks.append(best)
            gains.append(gain)
            state.add(best)
            left -= price[best]
            bar.update(price[best])
    if not picks and price.min() <= budget:
        raise ValueError("expected an example that adds information, got gains of 0 for all that fit: check the features")
    if not picks:
        raise ValueError(f"expected a budget of at least the cheapest example ({price.min():g}), got {budget:g}: raise it")
    settings = {
        "method": "FisherSFT" if weighting == "none" else "FisherSFT, trace-weighted",
        "budget": {"examples": examples} if examples is not None else {"tokens": tokens},
        "rule": rule,
        "weighting": weighting,
        "prior": float(prior) if np.ndim(prior) == 0 else "matrix",
        "features": features.info,
    }
    objective = float(np.sum(gains))
    return Selection(
        indices=np.array(picks, dtype=np.int64),
        gains=np.array(gains, dtype=np.float64),
        costs=costs[picks],
        pool_size=n,
        upper_bound=objective + _slack(state, picks, price, budget),
        evaluations=state.evaluations,
        seconds=time.perf_counter() - began,
        settings=settings,
    )


def score_selection(
    features: TokenFeatures,
    indices: Indices,
    *,
    prior: float | int | Float[Tensor, "d d"] | Float[np.ndarray, "d d"] = 1.0,
    weighting: str = "none",
    device: str = "auto",
    **fields,
) -> Selection:
    """A `Selection` of given examples, in their order, with the information that each added. Float64 throughout.

    `fields` fill `Selection` (for instance `settings`). Time O(n d^3). Raises `ValueError` for indices that are no whole
    numbers, do not exist or repeat, for an unknown weighting, and for features or a prior that are not finite.
    """
    indices = np.asarray(indices)
    if indices.size and indices.dtype.kind not in "iu":
        raise ValueError(f"expected indices as whole numbers, got {indices.dtype}: use np.flatnonzero for a mask")
    if bad := [int(i) for i in indices if not 0 <= i < len(features)]:
        raise ValueError(f"expected indices from 0 to {len(features) - 1}, got {bad[0]}")
    _check_weighting(features, weighting)
    state = Information(features, prior, weighting, device, "float64")
    gains = []
    indices = np.array(indices, dtype=np.int64)
    for i in indices.tolist():
        gains.append(float(state.exact([i])[0]))
        state.add(i)
    fields = {"costs": features.lengths.numpy().astype(float)[indices], **fields}
    return Selection(indices=indices, gains=np.array(gains), pool_size=len(features), **fields)


class Race:
    """Finds the candidate of the highest score, gain / divisor, at each pick, and evaluates few others.

    `bound` [N] of each score: an old gain plus its error. Examples outside the `front` score less than `behind`, so a pick
    looks at few examples, not at the whole pool, until the winners' scores have fallen that far.
    """

    def __init__(self, state: Information, divisor: np.ndarray, price: np.ndarray, picks: Sequence[int], batch_size: int):
        self.state, self.divisor, self.price, self.batch_size = state, divisor, price, batch_size
        self.bound = np.full(len(divisor), np.inf)
        self.fresh = np.zeros(len(divisor), dtype=bool)  # evaluated since the last pick
        self.exact: dict[int, float] = {}  # gains that were computed in float64 since then
        self.available = np.ones(len(divisor), dtype=bool)
        self.available[picks] = False
        self.front, self.behind = np.arange(len(divisor)), -np.inf

    def winner(self, left: float) -> tuple[int, float] | None:
        """Take the best example of at most this price, lowest index on ties, and return it with its gain."""
        while True:
            runners = self.front[self.available[self.front] & (self.price[self.front] <= left)]
            best, gain, score = self._search(runners) if len(runners) else (None, 0.0, -np.inf)
            if score * (1 - 2 * TIE) > self.behind or self.behind == -np.inf:
                break
            self._draw_front(score)  # what was left behind may win by now
        if best is None:
            return None
        if self.behind == -np.inf:
            self._draw_front(score)
        self.available[best] = False
        self.fresh[:] = False
        self.exact.clear()
        return best, gain

    def _draw_front(self, score: float) -> None:
        self.behind = 0.9 * score if score > 0 else -np.inf  # a tenth lower: drawn anew about twenty times in a decade
        self.front = np.flatnonzero(self.bound >= self.behind)

    def _search(self, runners: np.ndarray) -> tuple[int, float, float]:
        """The one of the highest score, its gain and its score. Tightens `bound`."""
        floor = -np.inf  # the highest score that is certainly reached

        def hopeful() -> np.ndarray:
            reach = floor - 2 * TIE * abs(floor) if np.isfinite(floor) else -np.inf
            return runners[self.bound[runners] >= reach]

        # 1. screen: evaluate old gains again, the most promising first, until no old one can win
        while len(stale := (group := hopeful())[~self.fresh[group]]):
            if np.isposinf(self.bound[stale]).all():
                batch = stale  # the first pass
            else:
                if self.state.dtype == torch.bfloat16:  # always full: its kernels are compiled anew for each shape
                    stale = runners[~self.fresh[runners]]
                order = np.argpartition(-self.bound[stale], min(self.batch_size, len(stale)) - 1)
                batch = stale[order[: self.batch_size]]
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
        finalists = hopeful()
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


def _slack(state: Information | OneToken, picks: list[int], price: np.ndarray, budget: float) -> float:
    """How far the objective of any selection A within the budget can lie above this one, S. The smaller of two bounds.

    Concavity: F(pi) = log det(V0 + sum pi_i G_i) is concave in pi, with gradient t_i = tr(V^-1 G_i) at S, so
    f(A) - f(S) <= sum_A t - sum_S t. Submodularity: f(A) - f(S) <= the sum over A \\ S of gain_i, given S.
    Either sum over A is at most the value of a *fractional* knapsack. (Extension.) The first is the sharper one when
    the chosen tokens far outnumber d, the second when they do not.
    """
    n = len(price)
    t = state.leverages()
    by_concavity = _fractional_knapsack(t, price, budget) - t[picks].sum()
    rest = np.setdiff1d(np.arange(n), picks)
    remaining = np.zeros(n)
    if state.dtype != torch.float64:  # a quick look whether the second bound can be the smaller one at all
        for part in state.blocks.parts(rest):
            gains, errors = state.screen(rest[part])
            remaining[rest[part]] = gains - errors
        if _fractional_knapsack(remaining.clip(min=0), price, budget) > by_concavity:
            return max(by_concavity, 0.0)
    remaining[rest] = state.exact(rest)
    return max(min(by_concavity, _fractional_knapsack(remaining, price, budget)), 0.0)


def _fractional_knapsack(value: np.ndarray, price: np.ndarray, budget: float) -> float:
    """The most value that `budget` buys if examples may be taken in part: by value per price. What is free is taken."""
    fits = (price > 0) & (price <= budget)
    order = np.flatnonzero(fits)[np.argsort(-value[fits] / price[fits], kind="stable")]
    bought = np.diff(np.minimum(price[order].cumsum(), budget), prepend=0.0) / price[order]
    return float((bought * value[order]).sum() + value[price == 0].sum())


# --- checking the arguments ------------------------------------------------------------------------------------------


def _costs(features: TokenFeatures, costs: Sequence[float] | Float[np.ndarray, " N"] | None) -> Float[np.ndarray, " N"]:
    lengths = features.lengths.numpy().astype(float)
    if costs is None:
        return lengths
    costs = np.asarray(costs, dtype=float)
    if costs.shape != lengths.shape:
        raise ValueError(f"expected one cost for each of {len(lengths):,} examples, got shape {costs.shape}")
    if not np.isfinite(costs).all() or (costs < 0).any() or (costs[lengths > 0] == 0).any():
        raise ValueError("expected positive, finite costs (0 only for examples without tokens): check the costs")
    return costs


def check_budget(features: TokenFeatures, costs: np.ndarray, examples: int | None, tokens: float | int | None) -> None:
    """Raise `ValueError` unless exactly one budget is given, positive and no larger than the pool."""
    if (examples is None) == (tokens is None):
        raise ValueError(f"expected exactly one of examples= and tokens=, got examples={examples}, tokens={tokens}")
    if examples is not None and not (isinstance(examples, int | np.integer) and 0 < examples <= len(features)):
        raise ValueError(
            f"expected a whole number of examples from 1 to {len(features):,} (the pool), got {examples}: change it"
        )
    if tokens is not None and not 0 < tokens <= costs.sum():
        raise ValueError(
            f"expected a budget from 1 to {costs.sum():,.0f} tokens (the whole pool), got {tokens:,}: change it"
        )


def _check_options(features, costs, examples, tokens, rule, weighting, dtype, start, batch_size) -> None:
    if len(features) == 0:
        raise ValueError("expected features of at least one example, got none")
    check_budget(features, costs, examples, tokens)
    for name, value, known in (
        ("rule", rule, ("gain", "gain_per_token")),
        ("dtype", dtype, ("auto", "bfloat16", "float32", "float64")),
    ):
        if value not in known:
            raise ValueError(f"expected {name} to be one of {known}, got {value!r}")
    if batch_size < 1:
        raise ValueError(f"expected batch_size of at least 1, got {batch_size}")
    _check_weighting(features, weighting)
    if start is not None and start.pool_size != len(features):
        raise ValueError(f"expected a start from this pool of {len(features):,}, got one from {start.pool_size:,} examples")


def _check_weighting(features: TokenFeatures, weighting: str) -> None:
    if weighting not in ("none", "trace"):
        raise ValueError(f"expected weighting to be one of ('none', 'trace'), got {weighting!r}")
    if weighting == "trace" and features.trace_weights is None:
        raise ValueError("expected features with trace_weights for weighting='trace': extract them with extract_features")
