"""What the committed rows of the study of mixtures say: the answers to the protocol's questions."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from fisherlib.assets import ROOT
from fisherlib.course.study.data_mixtures import ARMS, TIMES, WITHOUT
from fisherlib.course.study.sources import POISON, TASKS, Plan, shuffled
from fisherlib.evaluation.statistics import Interval, after_holm, equivalence_margin, paired_t, student

COMMITTED = ROOT / "notebooks" / "results" / "08_data_mixtures"
TRAINED = {True: tuple(arm for arm in ARMS if TIMES.get(arm, 1.0) == 1), False: WITHOUT}  # at the whole budget, by poison

_OURS = "UtiliMax, risk 0.1"
_WAYS = {"ablation": "ablation", "MEDU": "MEDU", "in context": "context"}
_VERBS = {"better": "beats", "worse": "loses to", "tie": "ties with"}


def load(folder: str | Path = COMMITTED) -> pd.DataFrame:
    """One row for each arm and seed: `balanced` and `pool_mix` losses in nats per token beside those of each task.

    Raises `ValueError` if there are none.
    """
    path = Path(folder) / "rows.json"
    rows = json.loads(path.read_text()) if path.is_file() else []
    if not rows:
        raise ValueError(f"expected rows of the study in {path.name}, got none: run data_mixtures first")
    table = pd.DataFrame(rows)
    tasks = pd.DataFrame(list(table["nll"]))[list(TASKS)]
    own = np.array([Plan().sources[task] for task in TASKS], dtype=float)
    return table.assign(balanced=tasks.mean(axis=1), pool_mix=tasks @ (own / own.sum()), **tasks)


def about(folder: str | Path = COMMITTED) -> dict:
    return json.loads((Path(folder) / "about.json").read_text())


def whole_seeds(table: pd.DataFrame, poison: bool, arms: Sequence[str]) -> list[int]:
    """Seeds that have a row of each of these arms."""
    some = table[(table["pool"] == ("poison" if poison else "clean")) & table["arm"].isin(arms)]
    counts = some.groupby("seed")["arm"].nunique()
    return [int(seed) for seed in counts.index[counts == len(set(arms))]]


def against_unimax(table: pd.DataFrame, *, poison: bool, measure: str = "balanced") -> pd.DataFrame:
    """Every arm minus UniMax, paired by seed: mean, low, high, p, p_holm, verdict, margin of equivalence, seeds.

    Of a single seed only the mean is there, and the verdict is "one seed". Raises `ValueError` if no seed is whole.
    """
    arms = TRAINED[poison]
    seeds = whole_seeds(table, poison, arms)
    if not seeds:
        raise ValueError(f"expected a seed with all {len(arms)} arms, got none: run more of the study")
    some = table[(table["pool"] == ("poison" if poison else "clean")) & table["seed"].isin(seeds)]
    losses = some.pivot(index="seed", columns="arm", values=measure)
    others = [arm for arm in arms if arm != "UniMax"]
    differences = {arm: (losses[arm] - losses["UniMax"]).to_numpy() for arm in others}
    if len(seeds) == 1:
        means = pd.Series({arm: float(d[0]) for arm, d in differences.items()})
        nothing = dict.fromkeys(("low", "high", "p", "margin", "p_holm"), np.nan)
        return pd.DataFrame({"mean": means}).assign(**nothing, verdict="one seed", seeds=1)
    found = {}
    for arm, difference in differences.items():
        d = paired_t(difference)
        found[arm] = {"mean": d.mean, "low": d.low, "high": d.high, "p": d.p, "margin": equivalence_margin(d)}
    return after_holm(pd.DataFrame(found).T.astype(float)).assign(seeds=len(seeds))


def weight_of(table: pd.DataFrame, arm: str, source: str = POISON) -> np.ndarray:
    """The weight of a source in an arm with poison, seed by seed."""
    some = table[(table["pool"] == "poison") & (table["arm"] == arm)].sort_values("seed")
    return np.array([weights[source] for weights in some["weights"]])


def tokens_needed(table: pd.DataFrame, arm: str = "UtiliMax, risk 0.1") -> dict[str, float]:
    """Tokens that UniMax needs for the mean loss of another arm, on the line through its two budgets by log tokens.

    `times`: of the arm's own tokens; NaN where UniMax does not become better with more, as no number of tokens would do.
    """
    half, names = "UniMax, half the tokens", ("UniMax", "UniMax, half the tokens", arm)
    seeds = whole_seeds(table, True, names)
    some = table[(table["pool"] == "poison") & table["seed"].isin(seeds)]
    loss = some.groupby("arm")["balanced"].mean()
    budget = some.groupby("arm")["tokens"].mean()
    fall = (loss[half] - loss["UniMax"]) / np.log(budget["UniMax"] / budget[half]) if seeds else np.nan
    times = float(np.exp((loss["UniMax"] - loss[arm]) / fall)) if seeds and fall > 0 else float("nan")
    return {"times": times, "fall": float(fall), "seeds": len(seeds)}


def readings(folder: str | Path = COMMITTED) -> list[dict]:
    """What was read of the sources for each seed: `known[how]` with `utilities` [K, T] and `seconds`; `examination`."""
    return json.loads((Path(folder) / "utilities.json").read_text())


def mean_utilities(read: Sequence[Mapping], how: str) -> np.ndarray:
    """Of the seeds that have them [K, T]."""
    return np.mean([one["known"][how]["utilities"] for one in read if how in one["known"]], axis=0)


def spearman(first: np.ndarray, second: np.ndarray, *, resamples: int = 2000, seed: int = 0) -> Interval:
    """Rank correlation over all K x T cells of two tables of utilities; percentile interval by resampling *sources*.

    Cells of one source are not independent: what makes a source good for one task makes it good for others.
    A resample in which one of the tables is constant says nothing and is left out. NaN where a table is constant.
    """
    rng, K = np.random.default_rng(seed), len(first)

    def rho(rows) -> float:
        x, y = first[rows].ravel(), second[rows].ravel()
        return float(spearmanr(x, y).statistic) if np.ptp(x) and np.ptp(y) else float("nan")

    drawn = np.array([rho(rng.integers(0, K, K)) for _ in range(resamples)])
    drawn = drawn[np.isfinite(drawn)]
    low, high = np.quantile(drawn, [0.025, 0.975]) if len(drawn) else (np.nan, np.nan)
    return Interval(rho(np.arange(K)), float(low), float(high))


def graded_above(read: Sequence[Mapping], kind: str, share: Callable):
    """How often a text of the task's own kind has the higher grade: a `Share`, interval by resampling seeds and tasks.

    `kind`: "shuffled" or "elsewhere". `share`: `judging.share`.
    """
    won, owner = [], []
    for one in read:
        if "examination" in one:
            own, other = (np.array(one["examination"][name]) for name in ("own", kind))
            result = (own > other) + 0.5 * (own == other)
            won += result.ravel().tolist()
            owner += [f"{one['seed']} {task}" for task in range(len(own)) for _ in range(own.shape[1])]
    return share(owner, won)


def graded(reader, wish: str, own: Sequence[str], elsewhere: Sequence[str], rng: np.random.Generator) -> dict[str, list]:
    """The examination of a reader on one task: who won, text by text, against each kind."""
    mine = reader.grade(wish, own)
    mixed = reader.grade(wish, [shuffled(text, rng) for text in own])
    return {"shuffled": (mine > mixed).tolist(), "elsewhere": (mine > reader.grade(wish, elsewhere)).tolist()}


def cheap_ways(read: Sequence[Mapping]) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """Mean utilities by each way, and for those that only read: `rho` with `low`, `high`, and `times`.

    `times`: the seconds of the ablations over those of the way.
    """
    tables = {how: pd.DataFrame(mean_utilities(read, key), list(Plan().sources), list(TASKS)) for how, key in _WAYS.items()}
    seconds = {
        how: np.mean([one["known"][key]["seconds"] for one in read if key in one["known"]]) for how, key in _WAYS.items()
    }
    first, *others = tables
    found = {}
    for how in others:
        r = spearman(tables[first].to_numpy(), tables[how].to_numpy())
        found[how] = {"rho": r.mean, "low": r.low, "high": r.high, "times": seconds[first] / seconds[how]}
    return tables, pd.DataFrame(found).T


def verb(found: pd.Series) -> str:
    return _VERBS.get(found["verdict"], "is not yet compared with")


def forest_panels(tables: Mapping[str, pd.DataFrame]) -> dict[str, dict[str, tuple]]:
    """What `plotting.forest` draws: hollow for a tie, a square where one seed decides nothing."""
    sure = {"tie": False, "better": True, "worse": True}
    return {
        name: {arm: (d["mean"], d["low"], d["high"], sure.get(d["verdict"])) for arm, d in table.iterrows()}
        for name, table in tables.items()
    }


def summary(table: pd.DataFrame, passed: bool) -> str:
    """The answers to the protocol's questions, in a paragraph of computed sentences, from whole seeds."""
    ours, clean = (against_unimax(table, poison=poison).loc[_OURS] for poison in (True, False))
    whole = table[table["seed"].isin(whole_seeds(table, True, TRAINED[True]))]
    weight = {arm: weight_of(whole, arm) for arm in TRAINED[True]}
    by_size = Plan().sources[POISON] / sum(Plan().sources.values())
    more = student(weight["information"] - weight["UniMax"])
    love = "more" if more.low > 0 else "less" if more.high < 0 else "not surely more or less"
    needed = tokens_needed(table)
    cost = f"{needed['times']:.2g} times the tokens" if needed["times"] > 0 else "no number of tokens (it does not gain)"
    mean = {arm: w.mean() for arm, w in weight.items()}
    parts = (
        f"{int(ours['seeds'])} whole seeds. With poison, UtiliMax at risk 0.1 {verb(ours)} UniMax ({ours['mean']:+.3f} "
        f"[{ours['low']:+.3f}, {ours['high']:+.3f}] nats per token).",
        f"Without it, UtiliMax {verb(clean)} UniMax ({clean['mean']:+.3f}, {int(clean['seeds'])} seeds, margin "
        f"{clean['margin']:.3f}).",
        f"The poison's weight: {mean['UniMax']:.2f} in UniMax, {mean[_OURS]:.2f} in UtiliMax at risk 0.1, "
        f"{mean['UtiliMax, risk K']:.2f} at risk K, {by_size:.2f} by size.",
        f"The information mixture gives it {love} than UniMax: {mean['information']:.2f}; after the filter "
        f"{mean['information, filtered']:.2f}.",
        f"For UtiliMax's loss UniMax needs {cost}.",
        f"The reader {'passes' if passed else 'does not pass'} its examination.",
    )
    return " ".join(parts)
