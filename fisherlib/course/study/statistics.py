"""From rows to differences with intervals: paired by seed, corrected for the number of arms.

A seed is a whole repetition: other examples to choose from, other examples to judge by, another training order. So the unit
that is replicated is the seed, and the interval comes from the spread of the differences between seeds (Student's t). That
spread holds the noise of the test sample, which is known from the losses of the examples; five seeds that lie closer
together were lucky, so it is never taken to be smaller (*floored*). The percentile bootstrap over so few seeds is too
narrow, as notebook 05 measures; the two-level bootstrap, over seeds and within each over test examples, stands beside it.

One word has one meaning wherever it stands: a **tie** is a difference that is not significant at 5 % after Holm's correction
over all arms of the comparison. It is no proof of equality; `margin` says what is excluded.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from fisherlib.course.study.arms import ALL, NONE, REFERENCE
from fisherlib.course.study.methods import title
from fisherlib.evaluation import (
    after_holm,
    coverage,
    equivalence_margin,
    holm,
    paired_t,
    ratio_variance,
    sign_flip,
    two_level_bootstrap,
)

__all__ = [
    "against",
    "coverage",
    "holm",
    "nll_of",
    "paired_t",
    "rows_of",
    "sampling_variance",
    "tokens_to_match",
    "two_level_bootstrap",
    "value_of",
]

# Which test tokens count: those of some domains, or a mix, the weights of groups of domains. None: all as they are.
Domains = Sequence[str] | Mapping[tuple[str, ...], float] | None
Metric = str | Callable[[pd.Series], float]  # a column, or what a row is worth
SETTINGS = ("epochs", "learning_rate", "sizes")  # rows that differ in one of them are never compared


def rows_of(
    table: pd.DataFrame, pool: str, training: str, *, tokens: int = 0, examples: int = 0, **settings
) -> pd.DataFrame:
    """The rows of one comparison: a pool, a training, a budget, and of `settings` (epochs=..., ...) those that are named.

    Raises `ValueError` if there are none, or if they were made under several settings.
    """
    kept = table[(table["pool"] == pool) & (table["training"] == training)]
    kept = kept[(kept["tokens"] == tokens) & (kept["examples"] == examples)]
    for name, value in settings.items():
        kept = kept[kept[name] == value] if name in kept else kept
    if kept.empty:
        raise ValueError(f"expected rows of {pool}, {training}, tokens={tokens}, examples={examples}, got none: run them")
    for name in SETTINGS:
        if name in kept and kept[name].nunique() > 1:
            raise ValueError(f"expected rows of one setting, got {name} {sorted(kept[name].unique())}: name one")
    return kept


def nll_of(row: pd.Series, domains: Sequence[str] | None = None) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    """Loss sums and token counts of a row's test examples, of some domains only if they are named."""
    sums, counts = np.asarray(row["nll_sums"], dtype=float), np.asarray(row["scored_tokens"], dtype=float)
    if domains is None:
        return sums, counts
    kept = np.isin(np.asarray(row["domains"]), domains)
    return sums[kept], counts[kept]


def value_of(row: pd.Series, metric: Metric, domains: Domains = None) -> float:
    """A row's metric. The NLL per token may be that of some domains, or a weighted mean over groups of them."""
    if callable(metric):
        return metric(row)
    if metric != "nll" or domains is None:
        return float(row[metric])
    parts = [(weight, nll_of(row, list(names))) for names, weight in _mix(domains).items()]
    return float(sum(weight * sums.sum() / counts.sum() for weight, (sums, counts) in parts))


def _mix(domains: Sequence[str] | Mapping[tuple[str, ...], float]) -> Mapping[tuple[str, ...], float]:
    return domains if isinstance(domains, Mapping) else {tuple(domains): 1.0}


def sampling_variance(difference: Float[np.ndarray, " N"], row: pd.Series, domains: Domains = None) -> float:
    """Variance of a difference of NLLs over the draw of the test examples, so many of each domain.

    `difference`: of the loss sums of each example; `row`: any of the rows compared, for its token counts and domains.
    """
    counts, labels = nll_of(row)[1], np.asarray(row["domains"])
    total = 0.0
    for names, weight in _mix(tuple(np.unique(labels)) if domains is None else domains).items():
        of: Bool[np.ndarray, " N"] = np.isin(labels, names)
        total += weight**2 * ratio_variance(difference[of], counts[of], labels[of])
    return total


def against(
    rows: pd.DataFrame,
    *,
    metric: Metric = "nll",
    domains: Domains = None,
    reference: str = REFERENCE,
    resamples: int = 2000,
) -> pd.DataFrame:
    """Every arm of a comparison minus the reference, paired by seed; lower is better. Indexed by method, best first.

    Columns: `mean`, `low`, `high` (t interval, 95 %), `p`, `p_holm` over the arms, `verdict` ("better", "worse", or "tie"
    unless `p_holm` < 0.05), `seeds`; `spread` (standard deviation over the seeds, as used), `noise` (the part that is the
    test sample's; of NLL only) and `floored` (the seeds lay closer together than that); `p_flip`, `p_flip_least` (exact
    sign-flip test, and the smallest p that so many seeds allow); `margin` (TOST: the smallest margin at which the two are
    equivalent at 5 %); `value`, the arm's own mean, and of its picks `chosen_tokens`, of its training `prompt_tokens` and
    `total_tokens` (all passes; NaN of a head). `bootstrap_low`, `bootstrap_high`: of NLL only, and not of a mix.
    `same_as`: an arm that is another (or the reference) bit for bit in every seed; it is no chance more to be lucky, so Holm
    counts the two once, and they share a verdict. Raises `ValueError` without the reference or with fewer than two common
    seeds.
    """
    by = {(row["method"], row["seed"]): row for _, row in rows.iterrows()}
    seeds = sorted(seed for method, seed in by if method == reference)
    if not seeds:
        raise ValueError(f"expected rows of {reference} to compare with, got {sorted(set(rows['method']))}: run them")
    found, losses = {}, {_losses(by, reference, seeds): reference}
    for method in dict.fromkeys(rows["method"]):
        common = [seed for seed in seeds if (method, seed) in by]
        if method in (reference, NONE, ALL) or len(common) < 2:
            continue
        pairs = [(by[method, seed], by[reference, seed]) for seed in common]
        about = _paired(pairs, metric, domains)
        if metric == "nll" and resamples and not isinstance(domains, Mapping):
            sums = [nll_of(a, domains)[0] - nll_of(b, domains)[0] for a, b in pairs]
            limits = two_level_bootstrap(sums, [nll_of(a, domains)[1] for a, _ in pairs], resamples=resamples)
            about |= {"bootstrap_low": limits[0], "bootstrap_high": limits[1]}
        found[method] = about | {"same_as": losses.setdefault(_losses(by, method, common), method)}
    if not found:
        raise ValueError(f"expected another arm with two seeds of {reference}'s, got seeds {seeds}: run more")
    result = after_holm(pd.DataFrame.from_dict(found, orient="index"), same_as="same_as")
    result["same_as"] = ["" if of == method else title(of) for method, of in result["same_as"].items()]
    return result.sort_values("mean", kind="stable")


def _losses(by: dict[tuple, pd.Series], method: str, seeds: Sequence[int]) -> tuple:
    """What tells an arm from another: the loss of every test example of every seed (its name, if they were not kept)."""
    rows = [by[method, seed] for seed in seeds]
    if any("nll_sums" not in row for row in rows):
        return (method,)
    return tuple((int(row["seed"]), np.asarray(row["nll_sums"], dtype=float).tobytes()) for row in rows)


def _paired(pairs: Sequence[tuple[pd.Series, pd.Series]], metric: Metric, domains: Domains) -> dict[str, float]:
    d = [value_of(a, metric, domains) - value_of(b, metric, domains) for a, b in pairs]
    noise = np.nan
    if metric == "nll" and "nll_sums" in pairs[0][0]:
        noise = np.sqrt(np.mean([sampling_variance(nll_of(a)[0] - nll_of(b)[0], a, domains) for a, b in pairs]))
    result = paired_t(d, at_least=np.nan_to_num(noise))
    chosen, trained, total = (
        float(np.mean([a.get(name, np.nan) for a, _ in pairs]))
        for name in ("chosen_tokens", "trained_tokens", "trained_all_tokens")
    )
    flip, own = sign_flip(d) if len(d) <= 20 else (np.nan, np.nan), float(np.std(d, ddof=1))
    return {
        **{name: getattr(result, name) for name in ("mean", "low", "high", "p")},
        "seeds": result.count,
        "spread": max(own, float(np.nan_to_num(noise))),
        "noise": float(noise),
        "floored": bool(noise > own),
        "p_flip": flip[0],
        "p_flip_least": flip[1],
        "margin": equivalence_margin(result),
        "value": float(np.mean([value_of(a, metric, domains) for a, _ in pairs])),
        "bootstrap_low": np.nan,
        "bootstrap_high": np.nan,
        "chosen_tokens": chosen,
        "prompt_tokens": total - trained,
        "total_tokens": total,
    }


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
