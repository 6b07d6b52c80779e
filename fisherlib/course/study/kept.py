"""What the rows of `keep_learning` say: a table of the arms, and the answers to the five questions of their protocol.

Losses are in nats per byte: *A* is the old text, *B* the new one. Every difference is paired by seed, with Student's
interval at 95 %; a *tie* is not significant after Holm over all contrasts of one question and shift, prices counted.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from fisherlib.course.study.keep_learning import ARMS, SHIFTS
from fisherlib.evaluation import after_holm, equivalence_margin, paired_t

LOW, HIGH, REWARM = "constant, lowest rate", "constant, highest rate", "re-warm, re-decay"
COLD, INFINITE, SCRATCH = "re-decay without warm-up", "infinite", "A and B from scratch"
SHARES = {0.0: REWARM} | {share: f"re-warm, {share:.0%} replay" for share in (0.01, 0.05, 0.2, 0.5)}
CHOSEN = ("FisherSFT given B", "FisherSFT", "MinHash")
EQUIVALENT = 0.010  # nats per byte, named in the protocol
_NUMBERS = ["mean", "low", "high", "p", "seeds", "margin", "p_holm", "verdict", "appears"]


class Contrast(NamedTuple):
    """One arm minus another on a side: "A", "B" or their "sum". `sign`: what the protocol expects, 0 if it only asks."""

    part: str
    arm: str
    reference: str
    side: str
    sign: int = 0


_COLUMNS = ["shift", *Contrast._fields, *_NUMBERS]
QUESTIONS = {
    "Q1": [
        Contrast("a", REWARM, LOW, "B", -1),
        Contrast("a", REWARM, LOW, "A", +1),
        Contrast("b", REWARM, HIGH, "B", -1),
        Contrast("c", SHARES[0.05], REWARM, "A", -1),
        Contrast("c", SHARES[0.05], REWARM, "B"),
        *(Contrast("d", COLD, REWARM, side) for side in "AB"),
        *(Contrast("e", SHARES[0.5], SCRATCH, side) for side in "AB"),
    ],
    "Q3": [
        Contrast(f"{share:.0%}", f"{SHARES[share]} by {how}", SHARES[share], side, -1 if side == "A" else 0)
        for share in (0.05, 0.01)
        for how in CHOSEN
        for side in "AB"
    ],
    "Q5": [Contrast("", INFINITE, REWARM, "sum")],
    "SmolLM2": [
        Contrast("S1", REWARM, LOW, "B", -1),
        Contrast("S1", REWARM, LOW, "A", +1),
        *(Contrast("S2", SHARES[share], REWARM, side, -1 if side == "A" else 0) for share in (0.05, 0.2) for side in "AB"),
    ],
}


def load(folder: str | Path) -> pd.DataFrame:
    """The committed rows: one for each shift, arm and seed. Raises `FileNotFoundError` where none are."""
    return pd.read_json(Path(folder) / "rows.json")


def losses(table: pd.DataFrame, shift: str, arm: str, side: str) -> pd.Series:
    """The final loss of an arm by seed: on "A", on "B", or the "sum" of both. Empty if the arm was not run."""
    rows = table[(table["shift"] == shift) & (table["arm"] == arm)].set_index("seed").sort_index()
    return rows["old"] + rows["new"] if side == "sum" else rows["old" if side == "A" else "new"]


def arms(table: pd.DataFrame, shift: str) -> pd.DataFrame:
    """Means over the seeds, a row for each arm in the order of the study: A and B at the end, what A lost, the sum, seeds.

    `forgot` is A at the end minus A before B was learned; the model from scratch knew nothing before, so it has none.
    """
    rows = table[table["shift"] == shift]
    scratch = rows["arm"] == SCRATCH
    rows = rows.assign(forgot=(rows["old"] - rows["old_before"]).mask(scratch), sum=rows["old"] + rows["new"])
    found = rows.groupby("arm", sort=False)[["old", "new", "forgot", "sum"]].mean()
    found = found.rename(columns={"old": "A", "new": "B"}).assign(seeds=rows.groupby("arm")["seed"].nunique())
    return found.loc[[arm for arm in ARMS if arm in found.index]]


def contrasts(table: pd.DataFrame, question: str) -> pd.DataFrame:
    """The contrasts of one of `QUESTIONS`, a row for each shift and contrast that two seeds have; or of "Q2", one row.

    Columns: those of `Contrast` and `shift`; `mean`, `low`, `high`, `p`, `seeds`; `margin`, the smallest at which both are
    equivalent at 5 %; `p_holm` and `verdict` ("lower", "higher" or "tie"); `appears`, whether the expected sign is
    significant (NaN where none is expected). Q2 is the gain of 5 % replay on A, strong shift minus weak.
    """
    if question == "Q2":
        gains = [losses(table, shift, REWARM, "A") - losses(table, shift, SHARES[0.05], "A") for shift in ("strong", "weak")]
        return _judged([_measured(Contrast("", SHARES[0.05], REWARM, "A", +1), "strong - weak", gains[0] - gains[1])])
    parts = []
    for shift in table["shift"].unique():
        pairs = [
            (one, losses(table, shift, one.arm, one.side) - losses(table, shift, one.reference, one.side))
            for one in QUESTIONS[question]
        ]
        parts.append(_judged([_measured(one, shift, by_seed) for one, by_seed in pairs]))
    return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)


def _measured(one: Contrast, shift: str, by_seed: pd.Series) -> dict | None:
    """A contrast with its interval; None if fewer than two seeds have both arms."""
    values = by_seed.dropna().to_numpy(dtype=float)
    if len(values) < 2:
        return None
    found = paired_t(values)
    numbers = {"mean": found.mean, "low": found.low, "high": found.high, "p": found.p, "seeds": len(values)}
    return {"shift": shift, **one._asdict(), **numbers, "margin": equivalence_margin(found)}


def _judged(rows: Sequence[dict | None]) -> pd.DataFrame:
    """The rows that were measured, as one family of Holm's."""
    measured = [row for row in rows if row is not None]
    if not measured:
        return pd.DataFrame(columns=_COLUMNS)
    table = after_holm(pd.DataFrame(measured))
    words = table["verdict"].map({"better": "lower", "worse": "higher", "tie": "tie"})
    right = words.map({"lower": -1, "higher": 1, "tie": 0}) == table["sign"]
    return table.assign(verdict=words, appears=right.astype(object).where(table["sign"] != 0, np.nan))


def best_shares(table: pd.DataFrame, shift: str) -> pd.DataFrame:
    """The shares replayed by chance: mean A, B and sum, and in how many `seeds` each share has the lowest sum (`wins`).

    Only seeds that have every share; an empty table if there are none.
    """
    sides = {
        side: pd.DataFrame({share: losses(table, shift, arm, side) for share, arm in SHARES.items()}).dropna()
        for side in ("A", "B", "sum")
    }
    best = sides["sum"].idxmin(axis=1)
    if best.empty:
        return pd.DataFrame(columns=["A", "B", "sum", "wins", "seeds"])
    wins = [int((best == share).sum()) for share in SHARES]
    return pd.DataFrame({side: of.mean() for side, of in sides.items()}).assign(wins=wins, seeds=len(best))


def curve(table: pd.DataFrame, shift: str, arm: str) -> Float[np.ndarray, "2 moments"]:
    """The way of an arm while it learns B, mean over its seeds: losses on A (first row) and B, the first before B."""
    rows = table[(table["shift"] == shift) & (table["arm"] == arm)]
    return np.array([np.mean(rows[side].tolist(), axis=0) for side in ("old_curve", "new_curve")])


def ways(table: pd.DataFrame, shift: str) -> dict[str, Float[np.ndarray, "2 _"]]:
    """`curve` of every arm of a shift; of the model from scratch only the end, since before B it knew nothing."""
    found = {arm: curve(table, shift, arm) for arm in arms(table, shift).index}
    return {arm: of[:, -1:] if arm == SCRATCH else of for arm, of in found.items()}


def panels(found: pd.DataFrame) -> dict[str, dict[str, tuple[float, float, float, bool]]]:
    """Contrasts of Q3 for `fl.plotting.forest`: a panel for each shift and side, a row for each share and way to choose."""
    result: dict[str, dict] = {}
    for row in _rows(found):
        name = f"{row['part']} by {row['arm'].partition(' by ')[2]}"
        judged = (row["mean"], row["low"], row["high"], row["verdict"] != "tie")
        result.setdefault(f"{row['shift']} shift, {row['side']}", {})[name] = judged
    return result


# --- in words ----------------------------------------------------------------------------------------------------------


def answers(table: pd.DataFrame) -> dict[str, str]:
    """One computed sentence or two for each question of the protocol; "not run yet" where two seeds are missing."""
    found = {name: contrasts(table, name) for name in ("Q1", "Q2", "Q3", "Q5")}
    said = {
        "Q1": "; ".join(_signs(part, str(shift)) for shift, part in _by_shift(found["Q1"])),
        "Q2": "".join(f"5 % replay saves {_written(row)} more of A under the strong shift than under the weak: "
                      f"{'above 0' if row['appears'] else 'not surely above 0'}" for row in _rows(found["Q2"])),
        "Q3": "; ".join(_choice(part, str(shift), best_shares(table, str(shift))) for shift, part in _by_shift(found["Q3"])),
        "Q4": "; ".join(filter(None, (_share(best_shares(table, shift), shift) for shift in SHIFTS))),
        "Q5": "; ".join(f"{row['shift']}: {_written(row)}, {_word(row)}" for row in _rows(found["Q5"])),
    }  # fmt: skip
    if said["Q5"]:
        seeds = table.loc[table["arm"] == INFINITE, "seed"]
        same = table[table["seed"].isin(seeds)].groupby("arm")["old_before"].mean()
        before = [same[INFINITE], same[REWARM]]
        said["Q5"] += f". Before B its loss on A is {before[0]:.3f}, that of the annealed model {before[1]:.3f}"
    return {name: (text or "not run yet") + "." for name, text in said.items()}


def written_table(found: pd.DataFrame) -> str:
    """Markdown: each contrast in a row, with its interval, the expected sign and the verdict after Holm."""
    words = {-1: "lower", 0: "–", 1: "higher"}
    lines = ["| shift | | arm − reference | side | difference | expected | verdict |", "|---" * 7 + "|"]
    for row in _rows(found):
        names = f"{row['arm']} − {row['reference']}"
        cells = [row["shift"], row["part"], names, row["side"], _written(row), words[row["sign"]], row["verdict"]]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _by_shift(found: pd.DataFrame):
    return () if found.empty else found.groupby("shift", sort=False)


def _rows(found: pd.DataFrame) -> list[dict]:
    return found.to_dict("records")


def _written(row: dict) -> str:
    return f"{row['mean']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"


def _word(row: dict) -> str:
    return "a tie" if row["verdict"] == "tie" else row["verdict"]


_PARTS = {
    "a": "re-warming is better on B than the lowest rate, and worse on A",
    "b": "it is better on B than the highest rate",
    "c": "5 % replay keeps more of A",
    "d": "no warm-up minus re-warming",
    "e": "50 % replay minus both from scratch",
}


def _signs(part: pd.DataFrame, shift: str) -> str:
    """Which of the paper's signs appear, the price, and the two contrasts that only ask."""
    words = []
    for name, of in part.groupby("part", sort=False):
        expected = of[of["sign"] != 0]["appears"]
        if len(expected):
            words.append(f"({name}) {_PARTS[str(name)]}: {'appears' if expected.all() else 'does not appear'}")
        open_ = ", ".join(f"{row['side']} {row['mean']:+.3f} {_word(row)}" for row in _rows(of[of["sign"] == 0]))
        if open_:
            words.append(f"({name}) {_PARTS[str(name)]}: {open_}" if not len(expected) else f"at a price of {open_}")
    return f"{shift}: {', '.join(words)}"


def _choice(part: pd.DataFrame, shift: str, shares: pd.DataFrame) -> str:
    """The primary contrast of Q3, its price, what it is worth in shares, and whether both are the same within the margin."""
    main = part[part["arm"] == f"{SHARES[0.05]} by {CHOSEN[0]}"].set_index("side")
    if not {"A", "B"} <= set(main.index):
        return f"{shift}: not run yet"
    old, new = (main.loc[side].to_dict() for side in "AB")
    worth = ""
    if len(shares):
        more = shares.loc[0.05, "A"] - shares.loc[0.2, "A"]
        worth = f"; as a part of what 20 % by chance brings: {-old['mean'] / more:.0%}"
    same = "equivalent" if old["margin"] < EQUIVALENT else "not shown to be equivalent"
    return (
        f"{shift}: FisherSFT given B minus chance at 5 %: A {_written(old)}, {_word(old)}; B {_written(new)}, {_word(new)}; "
        f"on A {same} within {EQUIVALENT:.3f}{worth}"
    )


def _share(found: pd.DataFrame, shift: str) -> str:
    if found.empty:
        return ""
    best = found["sum"].idxmin()
    return f"{shift}: {best:.0%} has the lowest sum, in {found.loc[best, 'wins']} of {found.loc[best, 'seeds']} seeds"
