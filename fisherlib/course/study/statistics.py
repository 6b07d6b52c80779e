"""From rows to differences with intervals: paired by seed, corrected for the number of arms.

A seed is a whole repetition: other examples to choose from, other examples to judge by, another training order. So the unit
that is replicated is the seed, and the interval comes from the spread of the differences between seeds (Student's t). The
percentile bootstrap over so few seeds is too narrow, as notebook 05 measures; the two-level bootstrap, over seeds and within
each over test examples, is given beside it.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from fisherlib.course.study.arms import ALL, NONE, REFERENCE
from fisherlib.evaluation import after_holm, coverage, holm, paired_t, two_level_bootstrap

__all__ = [
    "against",
    "coverage",
    "holm",
    "nll_of",
    "paired_t",
    "rows_of",
    "tokens_to_match",
    "two_level_bootstrap",
    "value_of",
]


def rows_of(table: pd.DataFrame, pool: str, training: str, *, tokens: int = 0, examples: int = 0) -> pd.DataFrame:
    """The rows of one comparison: a pool, a training and a budget. Raises `ValueError` if there are none."""
    kept = table[(table["pool"] == pool) & (table["training"] == training)]
    kept = kept[(kept["tokens"] == tokens) & (kept["examples"] == examples)]
    if kept.empty:
        raise ValueError(f"expected rows of {pool}, {training}, tokens={tokens}, examples={examples}, got none: run them")
    return kept


def nll_of(row: pd.Series, domains: Sequence[str] | None = None) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    """Loss sums and token counts of a row's test examples, of some domains only if they are named."""
    sums, counts = np.asarray(row["nll_sums"], dtype=float), np.asarray(row["scored_tokens"], dtype=float)
    if domains is None:
        return sums, counts
    kept = np.isin(np.asarray(row["domains"]), domains)
    return sums[kept], counts[kept]


def against(
    rows: pd.DataFrame,
    *,
    metric: str = "nll",
    domains: Sequence[str] | None = None,
    reference: str = REFERENCE,
    resamples: int = 2000,
) -> pd.DataFrame:
    """Every arm of a comparison minus the reference, paired by seed; lower is better. Indexed by method, best first.

    Columns: `mean`, `low`, `high` (t interval), `bootstrap_low`, `bootstrap_high` (of NLL only), `p`, `p_holm` over the
    arms, `verdict` ("better", "worse", or "tie" unless `p_holm` < 0.05), `seeds`, and `value`, the arm's own mean.
    Raises `ValueError` without the reference or with fewer than two common seeds.
    """
    by = {(row["method"], row["seed"]): row for _, row in rows.iterrows()}
    seeds = sorted(seed for method, seed in by if method == reference)
    if not seeds:
        raise ValueError(f"expected rows of {reference} to compare with, got {sorted(set(rows['method']))}: run them")
    found = {}
    for method in dict.fromkeys(rows["method"]):
        common = [seed for seed in seeds if (method, seed) in by]
        if method in (reference, NONE, ALL) or len(common) < 2:
            continue
        pairs = [(by[method, seed], by[reference, seed]) for seed in common]
        result = paired_t([value_of(a, metric, domains) - value_of(b, metric, domains) for a, b in pairs])
        limits = (np.nan, np.nan)
        if metric == "nll" and resamples:
            sums = [nll_of(a, domains)[0] - nll_of(b, domains)[0] for a, b in pairs]
            limits = two_level_bootstrap(sums, [nll_of(a, domains)[1] for a, _ in pairs], resamples=resamples)
        found[method] = {
            "mean": result.mean, "low": result.low, "high": result.high, "p": result.p, "seeds": result.count,
            "bootstrap_low": limits[0], "bootstrap_high": limits[1],
            "value": float(np.mean([value_of(a, metric, domains) for a, _ in pairs])),
        }  # fmt: skip
    if not found:
        raise ValueError(f"expected another arm with two seeds of {reference}'s, got seeds {seeds}: run more")
    return after_holm(pd.DataFrame(found).T).sort_values("mean")


def value_of(row: pd.Series, metric: str, domains: Sequence[str] | None = None) -> float:
    """A row's metric; the NLL per token, of some domains only if they are named."""
    if metric != "nll" or domains is None:
        return float(row[metric])
    sums, counts = nll_of(row, domains)
    return float(sums.sum() / counts.sum())


def tokens_to_match(curve: dict[int, float], value: float) -> float:
    """How many tokens the reference needs for an NLL of `value`, on its curve {tokens: NLL}, linear in log(tokens).

    The curve is made falling first (a running minimum). 0 if the smallest budget is more than enough, infinity if the
    largest is not enough; on a plateau the smallest budget counts.
    """
    budgets = np.array(sorted(curve))
    falling, first = np.unique(-np.minimum.accumulate([curve[budget] for budget in budgets]), return_index=True)
    if -value < falling[0]:
        return 0.0
    if -value > falling[-1]:
        return float("inf")
    return float(np.exp(np.interp(-value, falling, np.log(budgets[first]))))
