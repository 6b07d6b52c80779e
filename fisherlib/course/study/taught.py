"""What the rows of `teaching` say: the means of its arms, and the answers to the five questions of their protocol."""

from pathlib import Path

import numpy as np
import pandas as pd

from fisherlib.course.study.teaching import ARMS
from fisherlib.evaluation import after_holm, paired_t

UNTUNED, PEOPLE, LINES, LONGER, RANKING, SHUFFLED = ARMS
OWNED = ("tau", "teacher_score")  # by the teacher: higher is better
OTHERS = ("nll_people", "surprise")  # lower is better
_NUMBERS = (*OWNED, *OTHERS, "length", "second_stage_tokens", "second_stage_seconds")
QUESTIONS = {  # an arm minus another, and what is asked about
    "Q1": (RANKING, LINES, OWNED),
    "Q2": (RANKING, SHUFFLED, OWNED),
    "Q3": (RANKING, LONGER, OWNED),
    "Q4": (RANKING, LINES, OTHERS),
    "Q5": (PEOPLE, LINES, (*OWNED, *OTHERS)),
}


def load(folder: str | Path) -> pd.DataFrame:
    """The committed rows, one for each arm and seed; an empty table where the study was not run yet."""
    path = Path(folder) / "rows.json"
    return pd.read_json(path) if path.exists() else pd.DataFrame(columns=["arm", "seed", *_NUMBERS])


def means(table: pd.DataFrame) -> pd.DataFrame:
    """Means over the seeds, a row for each arm in the order of the study, and how many seeds there are."""
    grouped = table.astype(dict.fromkeys(_NUMBERS, float)).groupby("arm")
    found = grouped[list(_NUMBERS)].mean().assign(seeds=grouped["seed"].nunique())
    return found.reindex([arm for arm in ARMS if arm in found.index])


def answers(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each contrast: question, arm, reference, metric; mean, low, high; `p_holm` within its question; `verdict`.

    Differences are paired by seed. The verdict is "better" or "worse" for who wants what the metric wants (a higher tau or
    score, a lower loss or surprise), or "tie". Contrasts with fewer than two seeds in common are left out.
    """
    rows = []
    for question, (arm, reference, metrics) in QUESTIONS.items():
        for metric in metrics:
            values = table.pivot(index="seed", columns="arm", values=metric).reindex(columns=[arm, reference]).dropna()
            if len(values) < 2:
                continue
            found = paired_t((values[arm] - values[reference]).to_numpy())
            rows.append(
                {"question": question, "arm": arm, "reference": reference, "metric": metric}
                | {name: getattr(found, name) for name in ("mean", "low", "high", "p")}
                | {"seeds": len(values)}
            )
    if not rows:
        return pd.DataFrame(columns=["question", "arm", "reference", "metric", "mean", "low", "high", "verdict", "seeds"])
    parts = []
    for _, part in pd.DataFrame(rows).groupby("question", sort=False):
        # `after_holm` takes lower for better
        wanted = np.where(part["metric"].isin(OWNED), -part["mean"], part["mean"])
        parts.append(after_holm(part.assign(wanted=wanted), mean="wanted").drop(columns="wanted"))
    return pd.concat(parts, ignore_index=True)


WORDS = {
    "tau": "agreement with the teacher's order",
    "teacher_score": "the teacher's score of its answers",
    "nll_people": "the loss on people's lines",
    "surprise": "surprise under a character model",
}
SHORT = {"tau": "tau", "teacher_score": "the teacher's score", "nll_people": "the loss", "surprise": "surprise"}
_SAID = {"better": "surely better", "worse": "surely worse", "tie": "a tie"}


def sentence(found: pd.DataFrame, question: str) -> str:
    """The answer to one question in words, with its numbers."""
    part = found[found["question"] == question]
    if part.empty:
        return f"{question}: no rows yet."
    first = part.iloc[0]
    told = [
        f"{WORDS[row.metric]} {row.mean:+.3f} [{row.low:+.3f}, {row.high:+.3f}], {_SAID[row.verdict]}"
        for row in part.itertuples()
    ]
    return f"{question}. {first['arm']} minus {first['reference']}: {'; '.join(told)} ({first['seeds']} seeds)."
