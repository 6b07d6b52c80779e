"""README's table of the sixteen systems of the related papers: what works here, where it is taught, what was found.

Every number in it is made of the committed rows, by the module that answers the questions of their protocol.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import pandas as pd

from fisherlib.course.study import decided, kept, mixtures, objective_answers, self_made_claims, taught
from fisherlib.course.study.verdicts import RESULTS
from fisherlib.evaluation.statistics import Interval

NO_ROWS, ONE_SEED = "no rows yet", "one seed: not judged"
Said = Mapping[str, pd.DataFrame]  # the verdicts on each pool


@dataclass(frozen=True)
class System:
    """A row: the paper, the call that is its implementation here, the notebook that teaches it, and what was found."""

    name: str
    arxiv: str
    call: str
    notebook: str
    found: Callable[[Said], str]


def _arm(said: Said, arm: str) -> str:
    """What an arm came to on copies and without them, minus uniform."""
    of = {pool: said[pool].loc[arm] for pool in ("redundant", "clean")}
    return "; ".join(f"{pool} pool {row['mean']:+.3f} ({row['verdict']})" for pool, row in of.items())


def _interval(row: Interval | pd.Series) -> str:
    return f"{row.mean:+.3f} [{row.low:+.3f}, {row.high:+.3f}]" if isinstance(row, Interval) else (
        f"{row['mean']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
    )  # fmt: skip


_GOOD = {"lower": "better", "higher": "worse", "below": "better", "above": "worse"}  # of a loss
_GOOD_SHARE = {"lower": "worse", "higher": "better", "below": "worse", "above": "better"}


def _judged(row: pd.Series, words: Mapping[str, str] = _GOOD) -> str:
    """A contrast with its interval and verdict, as good or bad."""
    if row["verdict"] in ("one seed", "no seed", "not run"):
        return ONE_SEED if row["verdict"] == "one seed" else NO_ROWS
    return f"{_interval(row)} ({words.get(row['verdict'], row['verdict'])})"


def _side(found: Interval, *, lower_is_better: bool) -> str:
    """An interval over items with the word for it."""
    word = "tie" if found.low <= 0 <= found.high else "better" if (found.high < 0) == lower_is_better else "worse"
    return f"{_interval(found)} ({word})"


def _continual(said: Said) -> str:
    first = kept.contrasts(kept.load(RESULTS / "09_keep_learning"), "Q1")
    rows = first[(first["part"] == "c") & (first["shift"] == "strong")].set_index("side")
    return f"5 % of the old text replayed: loss on it {_judged(rows.loc['A'])}, on the new {_judged(rows.loc['B'])}"


def _mixture(said: Said, arm: str, before: str = "") -> str:
    table = mixtures.against_unimax(mixtures.load(), poison=True)
    return f"{before}loss minus UniMax's, with a poisoned source: {_judged(table.loc[arm])}"


def _medu(said: Said) -> str:
    rho = mixtures.cheap_ways(mixtures.readings())[1].loc["MEDU"]
    before = f"its ranks of sources against trained ones: ρ {rho['rho']:+.2f} [{rho['low']:+.2f}, {rho['high']:+.2f}]; "
    return _mixture(said, "MEDU, then UtiliMax", before)


def _exmate(said: Said) -> str:
    asked = objective_answers.objective_questions(objective_answers.numbers(objective_answers.read("10_objectives")[0]))
    weak, strong = asked["a better surrogate for MLE?"].loc["ExMATE: loss"], asked["strength"].loc["ExMATE, c = 100: loss"]
    return (
        f"loss minus plain fine-tuning's: {_judged(strong)} at c = 100; at c = 0.05 within {weak['margin']:.4f} of it "
        "(the penalty is next to nothing)"
    )


def _spin(said: Said) -> str:
    rounds = objective_answers.rounds(objective_answers.read("10_self_play")[0])
    asked = objective_answers.self_play_questions(rounds)
    equal = {what: _judged(asked[f"equal {what}"].loc["loss"]) for what in ("tokens", "seconds")}
    return (
        f"loss minus going on with SFT: {equal['tokens']} at equal tokens, {equal['seconds']} at equal seconds (SFT repeats "
        "its rows then)"
    )


def _teacher(said: Said) -> str:
    table = taught.load(RESULTS / "10b_teacher")
    found = taught.answers(table)
    if found.empty:
        return NO_ROWS if table.empty else ONE_SEED
    rows = found.set_index(["question", "metric"])
    return (
        f"agreement with the teacher minus that of shuffled ranks: {_judged(rows.loc['Q2', 'tau'])}; loss on people's lines "
        f"minus training without ranks: {_judged(rows.loc['Q4', 'nll_people'])}; {found['seeds'].min()} seeds"
    )


def _rft(said: Said) -> str:
    table = self_made_claims.load(RESULTS / "11_self_made_data")[0]
    found = self_made_claims.contrasts(table, self_made_claims.PAPER).loc["own solutions: RFT minus SFT"]
    return f"share of right answers minus SFT's: {_judged(found, _GOOD_SHARE)}"


def _rail(said: Said) -> str:
    rows = decided.load(RESULTS / "12_decide_and_merge")["ratings"]
    found = decided.rated_contrasts(rows)
    one, five = (next(of for name, of in found.items() if name.startswith(which)) for which in ("R1", "R5"))
    return (
        f"squared error, mean minus mode: {_side(one, lower_is_better=True)}; by a line from labels, minus a constant: "
        f"{_side(five, lower_is_better=True)}"
    )


def _rethinking(said: Said) -> str:
    rows = decided.load(RESULTS / "12_decide_and_merge")
    if not decided.complete(rows):
        return NO_ROWS
    found = decided.answered_contrasts(rows)["log-loss"]
    asked = {
        "its parts' mean": "D5",
        "one model of all data": "D6",
    }
    of = {name: next(one for label, one in found.items() if str(label).startswith(key)) for name, key in asked.items()}
    return "log-loss of the merged model minus " + "; minus ".join(
        f"{name}: {_side(one, lower_is_better=True)}" for name, one in of.items()
    )


_SELECTORS = (
    ("IFD", "2308.12032", "ifd", "ifd"),
    ("SLearnLLM", "2505.17470", "slearn", "slearn"),
    ("AdaICL", "2310.20046", "adaicl", "adaicl"),
    ("LLMaAA", "2310.19596", "llmaaa", "llmaaa_k_means"),
    ("SPaRFT", "2508.05015", "sparft", "sparft"),
    ("ISA", "2411.10545", "isa", "isa"),
)
SYSTEMS = (
    System("FisherSFT", "2505.14826", "fl.select", "00_quickstart", partial(_arm, arm="fisher_per_token")),
    *(
        System(name, arxiv, f"fl.selectors.{call}", "07_related_selectors", partial(_arm, arm=arm))
        for name, arxiv, call, arm in _SELECTORS
    ),
    System("UtiliMax", "2501.11747", "fl.mixtures.utilimax", "08_data_mixtures",
           partial(_mixture, arm="UtiliMax, risk 0.1")),
    System("MEDU", "2501.11747", "fl.mixtures.medu_utilities", "08_data_mixtures", _medu),
    System("Continual pre-training", "2403.08763", "fl.mixtures.replayed", "09_keep_learning", _continual),
    System("ExMATE", "2408.16751", "fl.objectives.ExMATE", "10_objectives", _exmate),
    System("SPIN", "2401.01335", "fl.self_play.play", "10_objectives", _spin),
    System("An LLM as reference", "2305.14239", "fl.teacher.rank", "10b_teacher", _teacher),
    System("Rejection sampling (RFT)", "2308.01825", "fl.rejection.keep", "11_self_made_data", _rft),
    System("RAIL", "2403.04182", "fl.decisions.decide", "12_decide_and_merge", _rail),
    System("Rethinking Data", "2503.01464", "fl.merge", "12_decide_and_merge", _rethinking),
)  # fmt: skip


def table(said: Said) -> str:
    """All of them as Markdown, the paper's own first; `said`: of `verdicts.verdicts` by pool."""
    lines = ["| system | here | taught in | found here | see it |", "|---|---|---|---|---|"]
    for one in SYSTEMS:
        paper, number = f"[{one.arxiv}](https://arxiv.org/abs/{one.arxiv})", one.notebook.partition("_")[0]
        taught_in = f"[{number}](notebooks/{one.notebook}.ipynb)"
        command = f"`fisherlib notebook {one.notebook}`"
        lines.append(f"| {one.name}, {paper} | `{one.call}` | {taught_in} | {one.found(said)} | {command} |")
    return "\n".join(lines)
