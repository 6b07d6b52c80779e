"""What the committed rows of the study of mixtures say: the answers to the protocol's questions."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from fisherlib.assets import ROOT
from fisherlib.course.study.data_mixtures import ARMS, TIMES, WITHOUT, wanted
from fisherlib.course.study.sources import POISON, TASKS, Plan, shuffled
from fisherlib.evaluation.judging import Share, share
from fisherlib.evaluation.statistics import Interval, after_holm, equivalence_margin, paired_t, student

COMMITTED = ROOT / "notebooks" / "results" / "08_data_mixtures"
TRAINED = {True: tuple(arm for arm in ARMS if TIMES.get(arm, 1.0) == 1), False: WITHOUT}  # at the whole budget, by poison

_OURS = "UtiliMax, risk 0.1"
_WAYS = {"ablation": "ablation", "MEDU": "MEDU", "in context": "context"}
_VERBS = {"better": "beats", "worse": "loses to", "tie": "ties with"}


def load(folder: str | Path = COMMITTED) -> pd.DataFrame:
    """One row for each arm and seed that is done: `balanced` and `pool_mix` losses in nats per token beside each task's."""
    path = Path(folder) / "rows.json"
    rows = json.loads(path.read_text()) if path.is_file() else []
    table = pd.DataFrame(rows, columns=None if rows else ["pool", "arm", "seed", "tokens", "weights", "nll"])
    tasks = pd.DataFrame(list(table["nll"]), columns=list(TASKS), dtype=float)
    own = np.array([Plan().sources[task] for task in TASKS], dtype=float)
    return table.assign(balanced=tasks.mean(axis=1), pool_mix=tasks @ (own / own.sum()), **tasks)


def done(folder: str | Path = COMMITTED) -> str:
    """How many rows of how many there are."""
    return f"{len(load(folder))} of {len(wanted(5))} rows"


def whole_seeds(table: pd.DataFrame, poison: bool, arms: Sequence[str]) -> list[int]:
    """Seeds that have a row of each of these arms."""
    some = table[(table["pool"] == ("poison" if poison else "clean")) & table["arm"].isin(arms)]
    counts = some.groupby("seed")["arm"].nunique()
    return [int(seed) for seed in counts.index[counts == len(set(arms))]]


def against_unimax(table: pd.DataFrame, *, poison: bool, measure: str = "balanced") -> pd.DataFrame:
    """Every arm minus UniMax, paired by seed: mean, low, high, p, p_holm, verdict, margin of equivalence, seeds.

    Of a single whole seed only the mean is there and the verdict is "one seed"; of none, "no seed".
    """
    arms = TRAINED[poison]
    seeds = whole_seeds(table, poison, arms)
    some = table[(table["pool"] == ("poison" if poison else "clean")) & table["seed"].isin(seeds)]
    losses = some.pivot(index="seed", columns="arm", values=measure)
    others = [arm for arm in arms if arm != "UniMax"]
    if len(seeds) < 2:
        means = losses.sub(losses["UniMax"], axis=0).iloc[0] if seeds else pd.Series(np.nan, others)
        nothing = dict.fromkeys(("low", "high", "p", "margin", "p_holm"), np.nan)
        verdict = "one seed" if seeds else "no seed"
        return pd.DataFrame({"mean": means[others]}).assign(**nothing, verdict=verdict, seeds=len(seeds))
    differences = {arm: (losses[arm] - losses["UniMax"]).to_numpy() for arm in others}
    found = {}
    for arm, difference in differences.items():
        d = paired_t(difference)
        found[arm] = {"mean": d.mean, "low": d.low, "high": d.high, "p": d.p, "margin": equivalence_margin(d)}
    return after_holm(pd.DataFrame(found).T.astype(float)).assign(seeds=len(seeds))


def weight_of(table: pd.DataFrame, arm: str, source: str = POISON) -> np.ndarray:
    """The weight of a source in an arm with poison, seed by seed; NaN if there is no row."""
    some = table[(table["pool"] == "poison") & (table["arm"] == arm)].sort_values("seed")
    return np.array([weights[source] for weights in some["weights"]] or [np.nan])


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
    path = Path(folder) / "utilities.json"
    return json.loads(path.read_text()) if path.is_file() else []


def mean_of(read: Sequence[Mapping], how: str, what: str) -> np.ndarray:
    """`utilities` [K, T] or `seconds` by one way, the mean over the seeds that have them; NaN if none has."""
    known = [np.array(one["known"][how][what]) for one in read if how in one["known"]]
    shape = (len(Plan().sources), len(TASKS)) if what == "utilities" else ()
    return np.asarray(np.mean(known, axis=0)) if known else np.full(shape, np.nan)


def spearman(first: np.ndarray, second: np.ndarray, *, resamples: int = 2000, seed: int = 0) -> Interval:
    """Rank correlation over all K x T cells of two tables of utilities; percentile interval by resampling *sources*.

    Cells of one source are not independent: what makes a source good for one task makes it good for others.
    A resample in which one of the tables is constant says nothing and is left out. NaN where a table is constant.
    """
    rng, K = np.random.default_rng(seed), len(first)

    def rho(rows) -> float:
        x, y = first[rows].ravel(), second[rows].ravel()
        return float(spearmanr(x, y).statistic) if np.ptp(x) > 0 and np.ptp(y) > 0 else float("nan")

    drawn = np.array([rho(rng.integers(0, K, K)) for _ in range(resamples)])
    drawn = drawn[np.isfinite(drawn)]
    low, high = np.quantile(drawn, [0.025, 0.975]) if len(drawn) else (np.nan, np.nan)
    return Interval(rho(np.arange(K)), float(low), float(high))


def graded_above(read: Sequence[Mapping], kind: str) -> Share:
    """How often a text of the task's own kind has the higher grade; interval by resampling seeds and tasks.

    `kind`: "shuffled" or "elsewhere".
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
    index, columns = list(Plan().sources), list(TASKS)
    tables = {how: pd.DataFrame(mean_of(read, key, "utilities"), index, columns) for how, key in _WAYS.items()}
    seconds = {how: float(mean_of(read, key, "seconds")) for how, key in _WAYS.items()}
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


def examined(exam: Mapping) -> str:
    """What the reader's shares of texts that it grades right say together."""
    if not all(share.count for share in exam.values()):
        return "was not examined by the study yet"
    return "passes" if all(share.verdict == "above" for share in exam.values()) else "does not pass"


def summary(table: pd.DataFrame, passed: str) -> str:
    """The answers to the protocol's questions, in computed sentences, from whole seeds. `passed`: of `examined`."""
    ours, clean = (against_unimax(table, poison=poison).loc[_OURS] for poison in (True, False))
    if min(ours["seeds"], clean["seeds"]) < 2:
        return (
            f"{len(table)} of {len(wanted(5))} rows of the study are there, and {int(ours['seeds'])} whole seeds: "
            f"it decides nothing yet. The live run is one seed. In the study, the reader {passed}."
        )
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
        f"In its examination, the reader {passed}.",
    )
    return " ".join(parts)
