"""What judgements add up to: biases of the judge first, then win rates and Bradley-Terry scores, all with intervals.

Every interval is a percentile bootstrap over *prompts*: judgements of one prompt are not independent. One of no width means
that all prompts agree, not certainty. They cover neither the seeds of training nor those of generation. Source: extension.
"""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import pandas as pd
from jaxtyping import Float

from fisherlib._door import checked, numbers
from fisherlib.evaluation.judging.pairwise import DECIDED, LOST
from fisherlib.evaluation.statistics import Interval, resample

Many: TypeAlias = Sequence | np.ndarray | pd.Series


class Share(Interval):
    """A share of `count`, with its interval: "above" or "below" one half, or a "tie"."""

    null, words, form = 0.5, ("below", "above"), ".0%"


@checked
def counts(table: pd.DataFrame) -> dict[str, int]:
    """How often each answer was given, those that count and those that do not."""
    return {answer: int((table["answer"] == answer).sum()) for answer in (*DECIDED, *LOST)}


def scores(table: pd.DataFrame) -> pd.DataFrame:
    """`score` of `first` against `second` at each `prompt`: 1 won, 0 lost, the mean of its two orders and all repeats.

    A pick is a win and a tie half a win in each order (our choice), so that a judge who always answers A gives exactly 1/2.
    Only questions that were decided in both orders count: one order alone would be biased. `consistent`: both orders agree.
    """
    decided = table[table["answer"].isin(DECIDED)]
    swapped = decided["a"] > decided["b"]
    points = decided["answer"].map({"A": 1.0, "tie": 0.5, "B": 0.0}).astype(float)
    flat = pd.DataFrame(
        {
            "prompt": decided["prompt"],
            "first": decided["a"].where(~swapped, decided["b"]),
            "second": decided["b"].where(~swapped, decided["a"]),
            "repeat": decided["repeat"],
            "swapped": swapped,
            "score": points.where(~swapped, 1 - points),
        }
    )
    keys = ["prompt", "first", "second"]
    each = flat.groupby([*keys, "repeat"])["score"].agg(score="mean", orders="size", spread=np.ptp).reset_index()
    each = each[each["orders"] == 2].assign(consistent=lambda t: (t["spread"] == 0).astype(float))
    return each.groupby(keys, as_index=False)[["score", "consistent"]].mean()


def _in_both_orders(table: pd.DataFrame) -> pd.DataFrame:
    """`scores`, of a table where no question is twice: two tables that were joined may both number their prompts from 0."""
    asked = table.groupby(["prompt", "a", "b", "repeat"]).size()
    if (asked > 1).any():
        prompt, a, b, _ = asked.idxmax()
        raise ValueError(
            f"expected each question once in each order, got prompt {prompt} of {a!r} against {b!r} {asked.max()} times: "
            "number the prompts of joined tables apart"
        )
    return scores(table)


@checked
def position_bias(table: pd.DataFrame, *, seed: int = 0) -> Share:
    """The share of A among the answers A and B. Both orders are asked, so a judge that looks at the texts gives one half."""
    picked = table[table["answer"].isin(["A", "B"])]
    return share(picked["prompt"], picked["answer"] == "A", seed=seed)


@checked
def length_bias(table: pd.DataFrame, *, seed: int = 0) -> Share:
    """The share of the longer text among the answers A and B, where the lengths differ. One half: length does not matter."""
    picked = table[table["answer"].isin(["A", "B"]) & (table["length_a"] != table["length_b"])]
    return share(picked["prompt"], (picked["answer"] == "A") == (picked["length_a"] > picked["length_b"]), seed=seed)


@checked
def order_agreement(table: pd.DataFrame, *, seed: int = 0) -> Share:
    """The share of questions whose two orders name the same arm, or both a tie."""
    both = _in_both_orders(table)
    return share(both["prompt"], both["consistent"], seed=seed)


@checked
def win_rates(table: pd.DataFrame, *, against: str = "uniform", seed: int = 0) -> dict[str, Share]:
    """How often each other arm wins against one, ties half. Raises `ValueError` for an arm that was not judged."""
    arms = set(table["a"])
    if against not in arms:
        raise ValueError(f"expected one of the judged arms {sorted(arms)}, got {against!r}")
    each, rates = _in_both_orders(table), {}
    for arm in dict.fromkeys(table["a"]):
        if arm != against:
            as_first = each[(each["first"] == arm) & (each["second"] == against)]
            as_second = each[(each["second"] == arm) & (each["first"] == against)]
            won = np.concatenate([as_first["score"], 1 - as_second["score"]])
            rates[arm] = share(np.concatenate([as_first["prompt"], as_second["prompt"]]), won, seed=seed)
    return rates


@checked
def share(prompts: Many, values: Many, *, resamples: int = 2000, seed: int = 0) -> Share:
    """The mean of `values` with an interval from resampling `prompts`, each with all its values."""
    values = numbers(values, "values")
    if values.shape != (len(prompts),) or not np.isfinite(values).all():
        raise ValueError(f"expected a finite value for each of {len(prompts):,} prompts, got {values}")
    if not len(values):
        return Share(np.nan, np.nan, np.nan, count=0)
    _, owner = np.unique(np.asarray(prompts), return_inverse=True)
    sums, sizes = np.bincount(owner, values), np.bincount(owner)
    drawn = resample(len(sums), resamples, np.random.default_rng(seed))
    low, high = np.quantile(drawn @ sums / (drawn @ sizes), [0.025, 0.975])
    return Share(float(values.mean()), float(low), float(high), count=len(values))


# --- Bradley-Terry ---------------------------------------------------------------------------------------------------


@checked
def bradley_terry(table: pd.DataFrame, *, resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Maximum-likelihood scores s with P(i beats j) = 1 / (1 + exp(s_j - s_i)), sum zero; a tie is half a win.

    Columns `score`, `low`, `high` by arm, and `ridge`. Where an arm (or a group) wins everything the maximum is at infinity:
    then `ridge` is True and half a drawn question between every two arms is added (our choice), in the resamples as well
    where they need it. Raises `ValueError` if no question was decided, or some arms are linked to others by none.
    """
    each = _in_both_orders(table)
    arms = list(dict.fromkeys(table["a"]))
    index, prompts = {arm: i for i, arm in enumerate(arms)}, np.unique(each["prompt"])
    wins = np.zeros((len(prompts), len(arms), len(arms)))
    for row in each.itertuples():
        p, i, j = np.searchsorted(prompts, row.prompt), index[row.first], index[row.second]
        wins[p, i, j] += row.score
        wins[p, j, i] += 1 - row.score
    total = wins.sum(0)
    if len(arms) < 2 or not _reaches_all(total + total.T):
        raise ValueError("expected decided questions that link all arms, got too few: look at counts() before you rank")
    fitted = bradley_terry_scores(total)
    drawn = resample(len(prompts), resamples, np.random.default_rng(seed))
    again = np.stack([bradley_terry_scores(np.tensordot(w, wins, 1)) for w in drawn])
    low, high = np.quantile(again, [0.025, 0.975], axis=0)
    return pd.DataFrame({"score": fitted, "low": low, "high": high, "ridge": not _reaches_all(total)}, index=arms)


@checked
def bradley_terry_scores(wins: Float[np.ndarray, "K K"]) -> Float[np.ndarray, " K"]:
    """The scores for `wins[i, j]`, how often i beat j, by damped Newton steps; see `bradley_terry`."""
    wins, K = numbers(wins, "wins"), len(wins)
    if wins.shape != (K, K) or not (np.isfinite(wins).all() and (wins >= 0).all()):
        raise ValueError(f"expected wins [K, K], finite and of at least 0, got others of shape {wins.shape}")
    if not _reaches_all(wins):
        wins = wins + 0.25 * (1 - np.eye(K))
    games, s = wins + wins.T, np.zeros(K)
    for _ in range(200):
        p = 1 / (1 + np.exp(s[None, :] - s[:, None]))
        gradient = (wins - games * p).sum(1)
        curvature = games * p * (1 - p)
        hessian = np.diag(curvature.sum(1)) - curvature
        step = np.linalg.solve(hessian + np.ones((K, K)), gradient)  # the ones hold the sum at zero
        s = s + step / (1 + np.abs(step).max())  # a whole step may overshoot
        if np.abs(step).max() < 1e-10:
            break
    return s - s.mean()


def _reaches_all(wins: Float[np.ndarray, "K K"]) -> bool:
    """Whether a chain of wins leads from every arm to every other: the maximum exists exactly then."""
    from scipy.sparse.csgraph import connected_components

    return connected_components(wins > 0, directed=True, connection="strong")[0] == 1
