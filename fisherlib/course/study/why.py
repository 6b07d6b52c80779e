"""What moved the gap between FisherSFT and uniform, as differences of differences; and whether the recipe was confirmed."""

import pandas as pd

from fisherlib.course.study.arms import REFERENCE, title
from fisherlib.course.study.pools import UNSEEN
from fisherlib.course.study.profiles import PROFILES, Profile
from fisherlib.course.study.statistics import against, rows_of
from fisherlib.evaluation import after_holm, paired_t

METHOD = "fisher_per_token"
_ROW = ["method", "tokens", "epochs", "learning_rate"]


def what_moved(table: pd.DataFrame, study: Profile = PROFILES["full"]) -> pd.DataFrame:
    """One row for each thing that was changed, indexed by its name, first the change of nothing, then the most helpful.

    The gap of a seed is NLL(FisherSFT) - NLL(uniform), with the change made in FisherSFT, in uniform, or in the training of
    both; it moved by (gap with the change) - (gap without). Columns: `gap`, `gap_low`, `gap_high`, `moved`, `low`, `high`
    (t intervals), `p_holm` over the changes, `verdict` ("better": the gap fell; "worse": it grew; "tie"), `seeds`.
    `table`: of the plan "ablations", one pool, with the columns `epochs` and `learning_rate`. A change with fewer than two
    seeds of all that it needs is left out. Raises `ValueError` if the unchanged pair has fewer than two.
    """
    here = (study.tokens, study.settings.epochs, study.settings.learning_rate)
    nll = {key: part.set_index("seed")["nll"] for key, part in table.groupby(_ROW)}
    unchanged = _gap(nll, METHOD, here)
    if len(unchanged) < 2:
        raise ValueError(f"expected two seeds of {METHOD} and {REFERENCE} at {here}, got {len(unchanged)}: run more")
    found = {}
    for method, *at in nll:
        if method == REFERENCE or (method != METHOD and tuple(at) != here):
            continue
        gap = _gap(nll, method, tuple(at))
        moved = (gap - unchanged).dropna()
        if len(moved) > 1:
            one, two = paired_t(gap[moved.index].to_numpy()), paired_t(moved.to_numpy())
            name = title(method) if tuple(at) == here else _training(tuple(at), here)
            found["nothing" if (method, *at) == (METHOD, *here) else name] = {
                "gap": one.mean, "gap_low": one.low, "gap_high": one.high,
                "moved": two.mean, "low": two.low, "high": two.high, "p": two.p, "seeds": two.count,
            }  # fmt: skip
    result = pd.DataFrame(found).T
    changes = after_holm(result.drop(index="nothing").sort_values("moved"), "moved")
    return pd.concat([result.loc[["nothing"]].assign(verdict="tie"), changes])


def _gap(nll: dict[tuple, pd.Series], method: str, at: tuple) -> pd.Series:
    reference = nll.get((REFERENCE, *at), pd.Series(dtype=float))
    return (nll.get((method, *at), pd.Series(dtype=float)) - reference).dropna()


def _training(at: tuple, here: tuple) -> str:
    """What is different in the training."""
    (tokens, epochs, rate), (usual, usual_epochs, usual_rate) = at, here
    parts = [f"{tokens:,} tokens"] if tokens != usual else []
    parts += [f"{epochs} epoch" + "s" * (epochs > 1)] if epochs != usual_epochs else []
    parts += [f"learning rate times {rate / usual_rate:.0f}"] if rate != usual_rate else []
    return ", ".join(parts)


def confirmed(table: pd.DataFrame, method: str = "recipe") -> pd.DataFrame:
    """The question of the protocol of `fl.recipe`, one row per pool: its NLL minus uniform's, Holm over the pools.

    Columns: `mean`, `low`, `high`, `p_holm`, `verdict`, `seeds`, `wanted` ("better" or "not worse"), `met`.
    `table`: of the plan "confirmation". Raises `ValueError` for a pool without two seeds of both.
    """
    found = {}
    for pool in UNSEEN:
        rows = rows_of(table, pool, "full", tokens=int(table["tokens"].max()))
        pair = rows[rows["method"].isin((REFERENCE, method))]
        found[pool] = against(pair, resamples=0).loc[method, ["mean", "low", "high", "p", "seeds"]]
    result = after_holm(pd.DataFrame(found).T)
    result["wanted"] = ["not worse" if pool == "guide" else "better" for pool in result.index]
    result["met"] = [
        said != "worse" if wanted == "not worse" else said == "better"
        for said, wanted in zip(result["verdict"], result["wanted"], strict=True)
    ]
    return result
