"""What moved the gap between FisherSFT and uniform, as differences of differences; and whether the recipe was confirmed."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from fisherlib.course.study.arms import REFERENCE
from fisherlib.course.study.methods import title
from fisherlib.course.study.pools import UNSEEN
from fisherlib.course.study.profiles import PROFILES, Profile
from fisherlib.course.study.statistics import nll_of, rows_of, sampling_variance
from fisherlib.evaluation import Interval, after_holm, equivalence_margin, paired_t

METHOD = "fisher_per_token"
_ROW = ["method", "tokens", "epochs", "learning_rate"]


def what_moved(table: pd.DataFrame, study: Profile = PROFILES["full"]) -> pd.DataFrame:
    """One row for each thing that was changed, indexed by its name, first the change of nothing, then the most helpful.

    The gap of a seed is NLL(FisherSFT) - NLL(uniform), with the change made in FisherSFT, in uniform, or in the training of
    both; it moved by (gap with the change) - (gap without). Columns: `gap`, `gap_low`, `gap_high`, `moved`, `low`, `high`
    (t intervals, spreads floored at the noise of the test sample: `floored`), `p_holm` over the changes, `verdict`
    ("better": the gap fell; "worse": it grew; "tie"), `seeds`. `table`: of the plan "ablations", one pool, with the columns
    `epochs` and `learning_rate`. A change with fewer than two seeds of all that it needs is left out. Raises `ValueError` if
    the unchanged pair has fewer than two.
    """
    here = (study.tokens, study.settings.epochs, study.settings.learning_rate)
    rows = {key: {row["seed"]: row for _, row in part.iterrows()} for key, part in table.groupby(_ROW)}
    unchanged = [(1, (METHOD, *here)), (-1, (REFERENCE, *here))]
    if len(seeds := _seeds(rows, unchanged)) < 2:
        raise ValueError(f"expected two seeds of {METHOD} and {REFERENCE} at {here}, got {len(seeds)}: run more")
    found = {}
    for method, *at in rows:
        if method == REFERENCE or (method != METHOD and tuple(at) != here):
            continue
        gap = [(1, (method, *at)), (-1, (REFERENCE, *at))]
        change = [*gap, *((-sign, key) for sign, key in unchanged)]
        seeds = _seeds(rows, change)
        if len(seeds) > 1:
            (one, _, _), (two, p, floored) = (_contrast(rows, terms, seeds) for terms in (gap, change))
            name = title(method) if tuple(at) == here else _training(tuple(at), here)
            found["nothing" if (method, *at) == (METHOD, *here) else name] = {
                "gap": one.mean, "gap_low": one.low, "gap_high": one.high, "moved": two.mean, "low": two.low,
                "high": two.high, "p": p, "seeds": two.count, "floored": floored,
            }  # fmt: skip
    result = pd.DataFrame.from_dict(found, orient="index")
    changes = after_holm(result.drop(index="nothing").sort_values("moved"), "moved")
    return pd.concat([result.loc[["nothing"]].assign(verdict="tie"), changes])


_Terms = Sequence[tuple[int, tuple]]  # signs and keys of rows: what a contrast is the sum of


def _seeds(rows: dict[tuple, dict[int, pd.Series]], terms: _Terms) -> list[int]:
    """The seeds that have every row of a contrast."""
    return sorted(set.intersection(*(set(rows.get(key, ())) for _, key in terms)))


def _contrast(rows: dict[tuple, dict[int, pd.Series]], terms: _Terms, seeds: Sequence[int]) -> tuple[Interval, float, bool]:
    """A signed sum of NLLs over the seeds; its p with a spread of at least the test sample's noise; whether that acted."""
    sums = [sum(sign * rows[key][seed]["nll"] for sign, key in terms) for seed in seeds]
    noise, one = 0.0, rows[terms[0][1]]
    if "nll_sums" in one[seeds[0]]:
        of: list[Any] = [sum(sign * nll_of(rows[key][seed])[0] for sign, key in terms) for seed in seeds]
        parts = [sampling_variance(total, one[seed]) for total, seed in zip(of, seeds, strict=True)]
        noise = float(np.sqrt(np.mean(parts)))
    found = paired_t(sums, at_least=noise)
    return found, 1.0 if found.p is None else found.p, bool(noise > np.std(sums, ddof=1))


def _training(at: tuple, here: tuple) -> str:
    """What is different in the training."""
    (tokens, epochs, rate), (usual, usual_epochs, usual_rate) = at, here
    parts = [f"{tokens:,} tokens"] if tokens != usual else []
    parts += [f"{epochs} epoch" + "s" * (epochs > 1)] if epochs != usual_epochs else []
    parts += [f"learning rate times {rate / usual_rate:.0f}"] if rate != usual_rate else []
    return ", ".join(parts)


def confirmed(table: pd.DataFrame, method: str = "recipe") -> pd.DataFrame:
    """The question of the protocol of `fl.recipe`, one row per pool: its NLL minus uniform's, Holm over the pools.

    Columns: `mean`, `low`, `high`, `margin` (TOST), `p_holm`, `verdict`, `seeds`, `wanted` ("better" or "not worse"), `met`.
    The test and its family are those that the protocol fixed: Student's, over the pools. `table`: with the rows of the plan
    "confirmation". Raises `ValueError` for a pool without two seeds of both.
    """
    found, table = {}, table[table["pool"].isin(UNSEEN)]
    for pool in UNSEEN:
        rows = rows_of(table, pool, "full", tokens=int(table["tokens"].max()))
        nll = rows.pivot(index="seed", columns="method", values="nll")
        one = paired_t((nll[method] - nll[REFERENCE]).dropna().to_numpy())
        found[pool] = {name: getattr(one, name) for name in ("mean", "low", "high", "p")}
        found[pool] |= {"margin": equivalence_margin(one), "seeds": one.count}
    result = after_holm(pd.DataFrame.from_dict(found, orient="index"))
    result["wanted"] = ["not worse" if pool == "guide" else "better" for pool in result.index]
    result["met"] = [
        said != "worse" if wanted == "not worse" else said == "better"
        for said, wanted in zip(result["verdict"], result["wanted"], strict=True)
    ]
    return result
