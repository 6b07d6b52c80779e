"""What the committed rows say when they are read together: the same row has the same verdict wherever it stands.

The rows of notebooks 05, 05b and 07 were made one study after the other, on the same pools, seeds and uniform picks. So an
arm is one of many, whatever notebook it was made for: there is *one* family for Holm's correction for each pool, training,
metric, budget and setting, over all arms that have rows there. The primary contrasts of a protocol keep the family that the
protocol fixed, before its rows were made.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from fisherlib.assets import ROOT
from fisherlib.course.study.arms import REFERENCE
from fisherlib.course.study.pools import UNSEEN, Sizes, composition
from fisherlib.course.study.rows import Settings
from fisherlib.course.study.statistics import SETTINGS, Domains, Metric, against, rows_of
from fisherlib.course.study.store import read
from fisherlib.course.study.why import confirmed

RESULTS = ROOT / "notebooks" / "results"
STUDIES = ("05_fine_tuning", "05b_why", "07_related", "05b_recipes", "05b_confirmation")
TEST, OWN, MAJORITY, REST = "test", "own mix", "majority", "rest"
PRIMARY = "recipe"  # the arm that the protocol of the confirmation asks about


def load(*folders: str | Path) -> pd.DataFrame:
    """The rows of several studies as one table, by default of all that are committed; each row once.

    Adds the columns `epochs`, `learning_rate` and `sizes` (JSON) where a study had one setting for all. Raises `ValueError`
    for a folder without results, and if two studies have different numbers for the same row.
    """
    parts = []
    for folder in folders or [RESULTS / name for name in STUDIES]:
        table, about = read(folder)
        known = {name: about["settings"][name] for name in SETTINGS if name not in table}
        parts.append(table.assign(**{n: json.dumps(v) if n == "sizes" else v for n, v in known.items()}))
    table = pd.concat(parts, ignore_index=True)
    if (table.groupby("key")["nll"].nunique() > 1).any():
        raise ValueError("expected one number for each row, got two studies that differ: make the rows of one of them again")
    return table.drop_duplicates("key", ignore_index=True)


def parts(rows: pd.DataFrame) -> dict[str, Domains]:
    """Which test tokens may count in a comparison, by name, as `statistics.against` takes them.

    `test`: all, as they are; the tests of mixed pools have equally many examples of each domain. Of mixed pools also `own
    mix` (the loss of the majority and that of the rest, weighted by the shares of *examples* that the pool has of them; the
    rest in one sum), `majority`, `rest`, and each domain by its name.
    """
    pool, sizes = rows["pool"].iloc[0], Sizes(**json.loads(rows["sizes"].iloc[0]))
    counts = composition(pool, sizes)
    (majority, most), *others = counts.items()
    if not others:
        return {TEST: None}
    rest = tuple(domain for domain, _ in others)
    share = most / sizes.pool_examples
    own = {(majority,): share, rest: 1 - share}
    found: dict[str, Domains] = {TEST: None, OWN: own, MAJORITY: (majority,), REST: rest}
    return found | {domain: (domain,) for domain in counts}


def family(table: pd.DataFrame, pool: str, training: str = "full", **call) -> pd.DataFrame:
    """All rows of one comparison: `tokens=` or `examples=`, at the usual `epochs` and `learning_rate` unless they are named.

    Raises `ValueError` if there are none.
    """
    usual = {name: getattr(Settings(), name) for name in ("epochs", "learning_rate")}
    return rows_of(table, pool, training, **(usual | call))


def verdicts(
    table: pd.DataFrame,
    pool: str,
    training: str = "full",
    *,
    metric: Metric = "nll",
    part: str = TEST,
    reference: str = REFERENCE,
    resamples: int = 0,
    **call,
) -> pd.DataFrame:
    """Every arm minus the reference on one pool, one row for each, best first: the columns of `statistics.against`.

    `table`: of `load`. `part`: which test tokens count, a name of `parts`; each part is a metric of its own, corrected over
    the arms and not over the parts. `call`: as for `family`. Adds `family`: over how many contrasts Holm's correction went.
    What the protocol of the confirmation asked (the recipe on its three pools, on the test as it is) has its verdict.
    Raises `ValueError` for an unknown part and what `family` raises.
    """
    rows = family(table, pool, training, **call)
    known = parts(rows)
    if part not in known:
        raise ValueError(f"expected a part out of {list(known)} of the {pool} pool, got {part!r}")
    result = against(rows, metric=metric, domains=known[part], reference=reference, resamples=resamples)
    result["family"] = int((result["same_as"] == "").sum())
    asked = pool in UNSEEN and (training, metric, part, reference) == ("full", "nll", TEST, REFERENCE)
    if asked and PRIMARY in result.index:
        answer = confirmed(rows_of_protocol(table))
        result.loc[PRIMARY, ["p_holm", "verdict", "family"]] = [*answer.loc[pool, ["p_holm", "verdict"]], len(answer)]
    return result


def rows_of_protocol(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the confirmation."""
    return table[table["pool"].isin(UNSEEN) & (table["training"] == "full")]


def by_part(table: pd.DataFrame, pool: str, training: str = "full", **call) -> pd.DataFrame:
    """`verdicts` for each part of the test, indexed by (method, part); the methods in the order of the whole test."""
    known = parts(family(table, pool, training, **{n: v for n, v in call.items() if n not in ("metric", "reference")}))
    found = {part: verdicts(table, pool, training, part=part, **call) for part in known}
    order = pd.MultiIndex.from_product([found[TEST].index, known], names=["method", "part"])
    return pd.concat(found, names=["part", "method"]).swaplevel().reindex(order)


def listed(table: pd.DataFrame, parts_of: dict[str, list[str]], tokens: int) -> list[list]:
    """What a notebook records of these parts of these pools: pool, part, arm, mean, low, high, margin, p_holm, verdict."""
    columns = ["mean", "low", "high", "margin", "p_holm", "verdict"]
    return [
        [pool, part, arm, *(float(value) for value in row[columns[:-1]]), row["verdict"]]
        for pool, names in parts_of.items()
        for part in names
        for arm, row in verdicts(table, pool, tokens=tokens, part=part).iterrows()
    ]


def tail(row: pd.Series, share: float = 0.1) -> float:
    """Mean NLL per token of the worst test examples, this share of them, by the row's own losses (CVaR).

    R. T. Rockafellar and S. Uryasev, 2000. Examples of few tokens fill the tail of such means: see the length-matched arm
    beside it. As a metric: `verdicts(table, pool, tokens=2000, metric=tail)`.
    """
    sums, tokens = (np.asarray(row[name], dtype=float) for name in ("nll_sums", "scored_tokens"))
    losses = np.sort(sums[tokens > 0] / tokens[tokens > 0])[::-1]
    return float(losses[: max(round(share * len(losses)), 1)].mean())


def bends(table: pd.DataFrame, *, tokens: int) -> pd.DataFrame:
    """The bend of each pool's information curve, and the recipe's verdict there: one row per pool, the straightest first.

    `bend`: FisherSFT's information over uniform's at this budget, the mean over the seeds. `table`: of `load`.
    """
    full = table.query("training == 'full' and tokens == @tokens")
    known = full.pivot_table("information", "pool", "method")
    bend = (known["fisher_per_token"] / known[REFERENCE]).dropna().sort_values()
    said = [verdicts(table, str(pool), tokens=tokens).loc[PRIMARY] for pool in bend.index]
    return pd.DataFrame({"bend": bend, "recipe": [r["mean"] for r in said], "verdict": [r["verdict"] for r in said]})
