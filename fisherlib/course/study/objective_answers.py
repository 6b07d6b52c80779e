"""What the rows of `objectives` and of `self_play` say: numbers, differences paired by seed, verdicts."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fisherlib.assets import ROOT
from fisherlib.evaluation import Interval, equivalence_margin, holm, paired_t

# The questions of the protocol, each a family for Holm: pairs of an arm and what it is compared with; numbers.
PAIRED: dict[str, tuple[Sequence[tuple[str, str]], Sequence[str]]] = {
    "a better surrogate for MLE?": (
        [(arm, "MLE") for arm in ("ExMATE", "MATE", "unlikelihood")],
        ("margin", "loss"),
    ),
    "displacement": ([("DPO", "before training")], ("good learned", "bad learned", "good", "bad")),
    "what is added to DPO": (
        [("DPO + MLE", "DPO"), ("DPO + ExMATE", "DPO + MLE")],
        ("good learned", "margin", "loss"),
    ),
    "strength": (
        [(arm, "MLE") for arm in ("ExMATE, c = 5", "ExMATE, c = 100", "MATE, c = 1")]
        + [("DPO + ExMATE, c = 100", "DPO + MLE")],
        ("margin", "loss", "bad learned"),
    ),
}
SEEDS = 5  # of both protocols
ONE = "one seed"  # the verdict on a difference that no interval can have
VERBS = {"tie": "ties with", ONE: "is not judged yet against"}  # else it differs


def read(name: str, folder: str | Path = "") -> tuple[pd.DataFrame, dict]:
    """The table of a study and where it comes from: the committed one, or that of `folder`.

    A seed that is not done with all arms is left out, so that means are over the same seeds.
    Raises `ValueError` if there is none.
    """
    place = (Path(folder) if folder else ROOT / "notebooks" / "results") / name
    if not (place / "rows.json").is_file():
        raise ValueError(f"expected rows.json in {place}, got none: run the study, or name the folder of its results")
    table, about = (json.loads((place / name).read_text()) for name in ("rows.json", "about.json"))
    rows = pd.DataFrame(table)
    arms = rows.groupby("seed")["arm"].transform("nunique")
    return rows[arms == arms.max()].reset_index(drop=True), about


def numbers(table: pd.DataFrame) -> pd.DataFrame:
    """Of each arm and seed: the test's `loss` (nats a token), pair `margin` (nats) and its `share` above 0, and the change
    of log p of an answer (nats): `good learned`, `bad learned`, `good` and `bad`, of rows learned from and of the test.

    The arm "before training" has the numbers of the start.
    """
    found = {}
    for row in table.to_dict("records"):
        for arm, when in (("before training", "before"), (row["arm"], "after")):
            of = {side: np.array(row[f"{side}_{when}"]) for side in ("good_train", "bad_train", "good_test", "bad_test")}
            margins = (of["good_test"] - of["bad_test"]).reshape(-1, 2).sum(1)
            moved = {side: float((values - row[f"{side}_before"]).mean()) for side, values in of.items()}
            found[arm, row["seed"]] = {
                "loss": -of["good_test"].sum() / sum(row["tokens_test"]),
                "margin": margins.mean(),
                "share": (margins > 0).mean(),
                "good learned": moved["good_train"],
                "bad learned": moved["bad_train"],
                "good": moved["good_test"],
                "bad": moved["bad_test"],
            }
    return _indexed(found, ["arm", "seed"])


def rounds(table: pd.DataFrame) -> pd.DataFrame:
    """Of each arm, seed and round of self-play: the test's `loss` (nats a token of human answers), the change of log p of
    the human answer and of the start's own answer (`human`, `own`, in nats), and the `share` of lines where the first rose
    more. Round 0 is the start, -1 the model before SFT.
    """
    found = {}
    for row in table.to_dict("records"):
        when = {-1: "base", 0: "start"} | {k: f"round_{k}" for k in range(1, len(row["steps"]) + 1)}
        for number, name in when.items():
            human, own = (np.array(row[f"{side}_{name}"]) - row[f"{side}_start"] for side in ("data", "own"))
            found[row["arm"], row["seed"], number] = {
                "loss": -sum(row[f"data_{name}"]) / sum(row["tokens_test"]),
                "human": human.mean(),
                "own": own.mean(),
                "share": (human > own).mean(),
            }
    return _indexed(found, ["arm", "seed", "round"])


def _indexed(found: Mapping, names: list[str]) -> pd.DataFrame:
    table = pd.DataFrame.from_dict(found, orient="index")
    table.index = pd.MultiIndex.from_tuples(list(found), names=names)
    return table


def minus(values: pd.DataFrame, arm: str, reference: str, metric: str) -> np.ndarray:
    """One difference for each seed that both arms have."""
    a, b = values.loc[arm, metric], values.loc[reference, metric]
    return (a - b).dropna().to_numpy(dtype=float)


def contrasts(differences: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """One question: of each contrast `mean`, `low`, `high` (Student, 95 %), `p`, `p_holm` over them, `verdict` ("higher",
    "lower", or "tie" unless `p_holm` < 0.05), `margin` (TOST: equivalent within it, at 5 %) and `seeds`.

    One seed has no interval, and is not judged: its verdict is "one seed". Raises `ValueError` for none.
    """
    alone = {name: Interval(float(d[0]), math.nan, math.nan, 1.0, 1) for name, d in differences.items() if len(d) == 1}
    tests = {name: alone.get(name) or paired_t(d) for name, d in differences.items()}
    adjusted = holm([float(one.p or 0.0) for one in tests.values()])
    rows = {
        name: {
            "mean": one.mean,
            "low": one.low,
            "high": one.high,
            "p": one.p,
            "p_holm": p,
            "verdict": ONE if one.count == 1 else "tie" if p >= 0.05 else "higher" if one.mean > 0 else "lower",
            "margin": equivalence_margin(one),
            "seeds": one.count,
        }
        for (name, one), p in zip(tests.items(), adjusted, strict=True)
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def against(values: pd.DataFrame, metric: str, reference: str) -> dict[str, tuple[float, float, float, bool | None]]:
    """Every arm minus the reference: mean, low, high, and whether it is sure after Holm over the arms. For `forest`.

    The reference itself is 0, and neither sure nor not (None).
    """
    arms = [arm for arm in values.index.unique("arm") if arm != "before training"]
    found = contrasts({arm: minus(values, arm, reference, metric) for arm in arms if arm != reference})
    sure = {"higher": True, "lower": True, "tie": False}  # of one seed nothing is decided
    rows = {str(arm): (one["mean"], one["low"], one["high"], sure.get(one["verdict"])) for arm, one in found.iterrows()}
    return {arm: rows.get(arm, (0.0, 0.0, 0.0, None)) for arm in arms}


def in_words(questions: Mapping[str, pd.DataFrame]) -> str:
    """Each question with its contrasts, a line each."""
    lines = []
    for question, table in questions.items():
        lines.append(question)
        for name, one in table.iterrows():
            verdict = {"tie": "a tie", ONE: "not judged"}.get(one["verdict"], f"surely {one['verdict']}")
            seeds = ONE if one["seeds"] == 1 else f"{one['seeds']} seeds"
            lines.append(f"  {name} {interval(one)}: {verdict}, {seeds}")
    return "\n".join(lines)


def interval(one: pd.Series) -> str:
    """A mean with its interval, if it has one."""
    ends = "" if one["verdict"] == ONE else f" [{one['low']:+.3f}, {one['high']:+.3f}]"
    return f"{one['mean']:+.3f}{ends}"


def appears(one: pd.Series, sign: str) -> str:
    """Whether a difference surely has the sign of a paper, "higher" or "lower"."""
    return "one seed cannot say" if one["verdict"] == ONE else "appears" if one["verdict"] == sign else "did not appear"


def within(one: pd.Series) -> str:
    """How alike two losses are, by both one-sided tests."""
    if one["verdict"] == ONE:
        return "one seed cannot say how alike their losses are"
    return f"the same loss within {one['margin']:.3f} nats a token (TOST)"


def self_play_costs(table: pd.DataFrame) -> pd.DataFrame:
    """Of each arm, the mean over seeds: tokens of human and of own answers that it learned from, and seconds of the CPU."""
    sums = pd.DataFrame(
        {
            "arm": table["arm"],
            "human tokens": table["data_tokens"].map(sum),
            "own tokens": table["own_tokens"].map(sum),
            "CPU seconds": table["cpu_seconds"],
        }
    )
    return sums.groupby("arm", sort=False).mean()


def own_answers(table: pd.DataFrame) -> pd.DataFrame:
    """Of SPIN's rounds, the share of own answers that ended by themselves, and their mean tokens."""
    spin = table[table["arm"] == "SPIN"]
    ended = np.mean(spin["ended"].tolist(), axis=0)
    lengths = np.mean([[np.mean(one) for one in row] for row in spin["own_lengths"]], axis=0)
    return pd.DataFrame({"ended": ended, "tokens": lengths}, index=pd.RangeIndex(1, len(ended) + 1, name="round"))


def objective_questions(values: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The questions of the protocol, one table each; a row is "arm: number"."""
    return {
        question: contrasts(
            {f"{arm}: {of}": minus(values, arm, reference, of) for arm, reference in pairs for of in numbers}
        )
        for question, (pairs, numbers) in PAIRED.items()
    }


def self_play_questions(values: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The same for self-play, after the last round."""
    last = values.xs(values.index.get_level_values("round").max(), level="round")
    start = values.xs(0, level="round").loc[["SPIN"]].rename(index={"SPIN": "start"})
    both, equal = pd.concat([last, start]), "SFT, equal tokens"
    return {
        "equal tokens": contrasts({"loss": minus(both, "SPIN", equal, "loss")}),
        "equal seconds": contrasts({"loss": minus(both, "SPIN", "SFT, equal seconds", "loss")}),
        "what moves": contrasts(
            {f"{arm}: {of}": minus(both, arm, "start", of) for arm in ("SPIN", equal) for of in ("human", "own")}
        ),
        "told apart": contrasts({"share": minus(both, "SPIN", equal, "share")}),
    }


def moves(played: pd.DataFrame) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """For `curves`: the change of log p of human and of own answers by round, of each arm an array [seeds, rounds]."""
    wide = played.query("round >= 0")[["human", "own"]].unstack("round")
    return {
        panel: {
            str(arm): (wide[column].columns.to_numpy(), wide[column].loc[arm].to_numpy())
            for arm in played.index.unique("arm")
        }
        for panel, column in {"human answers": "human", "the start's own": "own"}.items()
    }


def summary(rows: Mapping[str, pd.Series]) -> str:
    """A Markdown table of contrasts."""
    head = "| difference, nats | mean, 95 % | verdict |\n|---|---|---|\n"
    return head + "\n".join(f"| {name} | {interval(of)} | {of['verdict']} |" for name, of in rows.items())


def as_record(questions: Mapping[str, pd.DataFrame]) -> dict[str, dict]:
    """All contrasts as plain numbers, for `record`; what is not a number is None."""
    return {
        question: table.astype(object).where(table.notna(), None).to_dict("index") for question, table in questions.items()
    }
