"""A mixture of sources: weights under epoch caps, drawn as rows; and the linear program that certifies one."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset, concatenate_datasets
from jaxtyping import Float
from scipy.optimize import minimize

from fisherlib._types import Tokenizer
from fisherlib.text import encode

Sizes = Mapping[Any, float | int] | Sequence[float | int] | Float[np.ndarray, " K"]
Weights = Float[np.ndarray, " K"]
_RESTARTS, _ENOUGH, _INSIDE = 10, 1e-9, 1e-5
_SLACK = 1e-9  # of the budget: what rounding leaves breaks no cap


@dataclass(frozen=True, eq=False)
class Mixture(Mapping):
    """The share of a budget of tokens for each source, as a mapping: what `fl.select(quotas=)` and `draw` take.

    >>> fl.mixtures.unimax({"plays": 100, "code": 10}, tokens=80, epochs=4)
    Mixture({'plays': 0.5, 'code': 0.5}, 80 tokens, at most 4 epochs)

    `names` of the K sources; `weights` [K], not negative, with sum 1; `caps` [K], the largest weights that `epochs` passes
    over each source allow. `objective`: what was minimised or maximised, at these weights. `gap`: no weights under these
    caps are better by more than this (zero up to rounding if they are the best; see `frank_wolfe_gap`).
    """

    names: tuple
    weights: Weights
    caps: Weights
    tokens: int
    epochs: float
    objective: float
    gap: float

    def __getitem__(self, name) -> float:
        if name not in self.names:
            raise KeyError(name)
        return float(self.weights[self.names.index(name)])

    def __iter__(self) -> Iterator:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        shares = {name: round(float(w), 4) for name, w in zip(self.names, self.weights, strict=True)}
        return f"Mixture({shares}, {self.tokens:,} tokens, at most {self.epochs:g} epochs)"

    def draw(
        self,
        sources: Mapping | Sequence,
        *,
        tokenizer: Tokenizer | None = None,
        tokens: int | None = None,
        seed: int = 0,
        show: bool = True,
    ) -> Dataset | list:
        """Rows in these shares, source by source: each in random order, and again from its start where a source is short.

        `sources`: for each name a dataset, or lists of token ids with `tokenizer=None`. What a source cannot use, by less
        than a row, goes to the next, so the total stays below `tokens` by less than a row. No row comes more often than
        `epochs`, rounded up. `show`: print for each source what was asked and what it got. O(rows) encodings.
        Raises `ValueError` for other sources than those of the mixture, or with fewer tokens than it was made for.
        """
        given = dict(sources) if isinstance(sources, Mapping) else dict(enumerate(sources))
        if set(given) != set(self.names):
            raise ValueError(f"expected the sources {', '.join(map(str, self.names))}, got {', '.join(map(str, given))}")
        total, spent, parts = self.tokens if tokens is None else tokens, 0, []
        rng = np.random.default_rng(seed)
        for name, share, until in zip(self.names, self.weights, np.cumsum(self.weights) * total, strict=True):
            rows = given[name]
            lengths = np.array([sum(example.is_response) for example in encode(rows, tokenizer)])
            most = math.ceil(self.epochs) * int(lengths.sum())
            if share * total > most * (1 + _SLACK):
                raise ValueError(
                    f"expected {share * total:,.0f} tokens in {math.ceil(self.epochs)} epochs over {name!r}, got {most:,}: "
                    "make the mixture with today's sizes"
                )
            asked = min(round(until) - spent, most)  # with what the sources before it left by less than a row
            passes, rest = divmod(asked, int(lengths.sum()))
            order = np.flatnonzero(lengths)[rng.permutation(np.count_nonzero(lengths))]
            part = order[lengths[order].cumsum() <= rest]
            picks = [*np.tile(order, passes).tolist(), *part.tolist()]
            got = passes * int(lengths.sum()) + int(lengths[part].sum())
            spent += got
            if show:
                times = got / int(lengths.sum())
                print(f"{name}: asked {share * total:,.0f} tokens, got {got:,}, {times:.2f} times its {len(rows):,} rows")
            parts.append((rows, picks))
        if all(isinstance(rows, Dataset) for rows, _ in parts):
            return concatenate_datasets([rows.select(picks) for rows, picks in parts])
        return [rows[i] for rows, picks in parts for i in picks]


def named(sizes: Sizes) -> tuple[tuple, Weights]:
    """Names and sizes of the sources. Raises `ValueError` for no sources, or sizes that are not positive and finite."""
    names = tuple(sizes) if isinstance(sizes, Mapping) else tuple(range(len(sizes)))
    tokens = np.array([*(sizes.values() if isinstance(sizes, Mapping) else sizes)], dtype=float)
    if not len(tokens) or not (np.isfinite(tokens).all() and (tokens > 0).all()):
        raise ValueError(f"expected the number of tokens of each source, positive and finite, got {tokens}")
    return names, tokens


def caps_of(sizes: Weights, tokens: int, epochs: float | int) -> Weights:
    """The largest weight of each source: as often as `epochs` over its tokens.

    Raises `ValueError` for caps that leave part of the budget to nobody, with the epochs that would do.
    """
    if tokens < 1 or not 0 < epochs < math.inf:
        raise ValueError(f"expected a budget of at least 1 token and a positive number of epochs, got {tokens} and {epochs}")
    if epochs * sizes.sum() < tokens * (1 - _SLACK):
        raise ValueError(
            f"expected sources with {tokens:,} tokens in {epochs:g} epochs, got {epochs * sizes.sum():,.0f}: give "
            f"epochs={math.ceil(100 * tokens / sizes.sum()) / 100:g} or more, or a smaller budget"
        )
    return np.minimum(epochs * sizes / tokens, 1.0)


def water_filling(caps: Weights) -> Weights:
    """The flattest weights under the caps: all equal, but where a cap is lower. Closed form, O(K log K)."""
    order, left, weights = np.argsort(caps, kind="stable"), 1.0, np.empty(len(caps))
    for number, k in enumerate(order):
        weights[k] = min(caps[k], left / (len(caps) - number))
        left -= weights[k]
    return weights


def frank_wolfe_gap(gradient: Weights, weights: Weights, caps: Weights) -> float:
    """How far a convex function at `weights` can lie above its minimum under the caps: max over s of gradient . (w - s).

    Convexity puts the function above its tangent, so no feasible s is lower than f(w) - gap. The best s fills the sources of
    the smallest slope first. Source: textbook (Frank and Wolfe 1956; Jaggi 2013).
    """
    order, left, best = np.argsort(gradient, kind="stable"), 1.0, np.zeros(len(caps))
    for k in order:
        best[k] = min(caps[k], left)
        left -= best[k]
    return max(float(gradient @ (weights - best)), 0.0)


def lowest(value_and_slope: Callable[[Weights], tuple[float, Weights]], caps: Weights) -> tuple[Weights, float, float]:
    """Weights with the lowest value under the caps, that value, and its gap: SLSQP of SciPy from the flattest weights.

    SLSQP stops when its own line search does, with a gap that may be 1e-5; begun again there, it comes nearer, and steps
    of Newton on the slopes end it.
    """
    best = water_filling(caps)
    value, slope = value_and_slope(best)
    gap = frank_wolfe_gap(slope, best, caps)
    for _ in range(_RESTARTS):
        if gap <= _ENOUGH:
            break
        weights = _step(value_and_slope, best, caps)
        found, slope = value_and_slope(weights)
        if found >= value:  # where all tie, the flattest stays
            break
        best, value, gap = weights, found, frank_wolfe_gap(slope, weights, caps)
    for _ in range(_RESTARTS):
        stepped = None if gap <= _ENOUGH else _newton(lambda w: value_and_slope(w)[1], best, caps)
        if stepped is None:
            break
        found, slope = value_and_slope(stepped)
        if (lower := frank_wolfe_gap(slope, stepped, caps)) >= gap:
            break
        best, value, gap = stepped, found, lower
    return best, float(value), gap


def _newton(slope: Callable[[Weights], Weights], w: Weights, caps: Weights) -> Weights | None:
    """A step towards equal slopes of all sources inside their bounds; None if fewer than two are, or it leaves the bounds.

    Values that differ by rounding can be 1e-6 apart in their weights; slopes are not so blind.
    """
    inside = np.flatnonzero((w > _INSIDE) & (w < caps - _INSIDE))
    n, h = len(inside), _INSIDE / 10
    if n < 2:
        return None
    here, eye = slope(w)[inside], np.eye(len(w))[inside]
    bend = np.array([(slope(w + h * e) - slope(w - h * e))[inside] / (2 * h) for e in eye])
    system = np.block([[bend, np.ones((n, 1))], [np.ones((1, n)), np.zeros((1, 1))]])
    step = np.linalg.lstsq(system, np.append(-here, 0.0))[0][:n]
    moved = w + step @ eye
    return moved if (moved >= 0).all() and (moved <= caps).all() else None


def _step(value_and_slope: Callable[[Weights], tuple[float, Weights]], start: Weights, caps: Weights) -> Weights:
    found = minimize(
        value_and_slope,
        start,
        jac=True,
        method="SLSQP",
        bounds=[(0.0, cap) for cap in caps],
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like},
        options={"ftol": 1e-15, "maxiter": 1000},
    )
    # SLSQP stops within rounding of the caps: what is over goes back, what is left goes where there is room.
    weights = np.clip(found.x, 0.0, caps)
    room = caps - weights if weights.sum() < 1 else weights
    return weights + (1 - weights.sum()) * room / max(room.sum(), 1e-300)
