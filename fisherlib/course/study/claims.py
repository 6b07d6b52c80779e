"""The claims of the study, fixed before its results were complete, and what the results say of them.

They come from single measurements made earlier. They were written down in commit 2cbdb7b, while the first of five seeds ran
(the two about heads at equal examples in 7869638, a quarter of an hour later). None was changed to fit the results.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fisherlib.course.study.arms import ALL, NONE, REFERENCE
from fisherlib.course.study.methods import title
from fisherlib.course.study.pools import MAJORITY
from fisherlib.course.study.statistics import against, rows_of
from fisherlib.course.study.verdicts import family
from fisherlib.text import project_files

RARE = tuple(project_files.FILES)
METRICS = {
    "nll": "held-out NLL",
    "kl": "KL to the full pool's head",
    "max_logit_error": "max logit error",
    "mean_logit_error": "mean logit error",
    "majority_share": "share of dialogues among the picks",
}


_TRAININGS = {
    "head": "head from scratch",
    "head_weak": "head from scratch, weak ridge",
    "head_update": "update of the pretrained head",
    "full": "full fine-tuning",
    "lora": "low-rank updates",
}


@dataclass(frozen=True)
class Claim:
    """`method` is below the reference in `metric`, or above it if `above`. It must hold at every budget that was run."""

    text: str
    pool: str
    training: str
    method: str
    metric: str = "nll"
    above: bool = False
    reference: str = REFERENCE
    domains: Sequence[str] | None = None
    by: str = "tokens"  # the kind of budget

    @property
    def command(self) -> str:
        """Makes the rows of this claim again."""
        return f".venv/bin/python -m fisherlib.study --pool {self.pool} --training {self.training}"


_HEAD = "FisherSFT per token beats uniform where the theory applies: a head from scratch"
_WEAK = "The same with a ridge so weak that the heads overfit"
_UPDATE = "It beats uniform in an update of the pretrained head"
_EXAMPLES = "At equal examples, FisherSFT by gain beats uniform"
_LENGTH = "and so does taking the longest: it is length"
CLAIMS = (
    Claim(_HEAD, "clean", "head", "fisher_per_token"),
    Claim(_HEAD, "clean", "head", "fisher_per_token", "kl"),
    Claim(_HEAD, "clean", "head", "fisher_per_token", "max_logit_error"),
    Claim(_WEAK, "clean", "head_weak", "fisher_per_token"),
    Claim(_WEAK, "clean", "head_weak", "fisher_per_token", "max_logit_error"),
    Claim(_UPDATE, "clean", "head_update", "fisher_per_token"),
    Claim(_UPDATE, "clean", "head_update", "fisher_per_token", "max_logit_error"),
    Claim("It loses to uniform in full fine-tuning on a clean pool", "clean", "full", "fisher_per_token", above=True),
    Claim("It beats uniform in full fine-tuning on an extremely redundant pool", "redundant", "full", "fisher_per_token"),
    Claim(
        "There, dedup then uniform beats it", "redundant", "full", "dedup_uniform", reference="fisher_per_token"
    ),
    Claim(
        "On an imbalanced pool it picks fewer examples of the majority", "imbalanced", "full", "fisher_per_token",
        "majority_share",
    ),
    Claim("and the rare domains gain", "imbalanced", "full", "fisher_per_token", domains=RARE),
    Claim("and the majority loses", "imbalanced", "full", "fisher_per_token", above=True, domains=(MAJORITY,)),
    Claim(_EXAMPLES, "clean", "head", "fisher_gain", by="examples"),
    Claim(_LENGTH, "clean", "head", "longest", by="examples"),
    Claim(_EXAMPLES, "clean", "full", "fisher_gain", by="examples"),
    Claim(_LENGTH, "clean", "full", "longest", by="examples"),
)  # fmt: skip


def judge(claim: Claim, table: pd.DataFrame) -> dict:
    """What the table says of a claim.

    `verdict`: "holds" if every budget agrees for sure, "fails" if any contradicts for sure, else "tie"; sure is what is left
    after Holm's correction over all arms that have rows there (`table`: of `verdicts.load`, or of one study). The numbers
    are those of the budget that agrees least. `budgets`: how many were run, at how many the sign agrees, at how many that is
    sure, and at how many the interval, which is not corrected, lies on the other side. Without rows of two seeds the verdict
    is "not run".
    """
    sign = -1.0 if claim.above else 1.0
    rows = table[(table["pool"] == claim.pool) & (table["training"] == claim.training)]
    budgets = sorted(set(rows.loc[rows["method"] == claim.method, claim.by]) - {0})
    about = {
        "claim": claim.text,
        "metric": METRICS[claim.metric] + (f" of {_domains(claim.domains)}" if claim.domains else ""),
        "setting": f"{_TRAININGS[claim.training]}, {claim.pool} pool",
        "method": title(claim.method),
        "reference": title(claim.reference),
        "command": claim.command,
    }
    found = {}
    for budget in budgets:
        compared = family(table, claim.pool, claim.training, **{claim.by: int(budget)})
        seeds = {m: set(compared.loc[compared["method"] == m, "seed"]) for m in (claim.method, claim.reference)}
        if len(set.intersection(*seeds.values())) > 1:
            results = against(compared, metric=claim.metric, domains=claim.domains, reference=claim.reference, resamples=0)
            found[int(budget)] = results.loc[claim.method]
    if not found:
        return about | {"budget": f"no {claim.by}", "verdict": "not run"}
    agrees = {budget: sign * row["mean"] < 0 for budget, row in found.items()}
    sure = {budget: row["verdict"] != "tie" for budget, row in found.items()}
    holds = [agrees[b] and sure[b] for b in found]
    fails = [sure[b] and not agrees[b] for b in found]
    against_it = [sign * row["mean"] > 0 and (row["low"] > 0 or row["high"] < 0) for row in found.values()]
    weakest = max(found, key=lambda b: sign * found[b]["mean"] / max(found[b]["high"] - found[b]["low"], 1e-12))
    row = found[weakest]
    return about | {
        "budget": f"{weakest:,} {claim.by}",
        "mean": float(row["mean"]),
        "low": float(row["low"]),
        "high": float(row["high"]),
        "p_holm": float(row["p_holm"]),
        "seeds": int(row["seeds"]),
        "margin": float(row["margin"]),
        "budgets": {
            "run": len(found),
            "agree": int(sum(agrees.values())),
            "sure": int(sum(holds)),
            "against": int(sum(against_it)),
        },
        "verdict": "holds" if all(holds) else "fails" if any(fails) else "tie",
    }


def _domains(domains: Sequence[str]) -> str:
    return "the rare domains" if tuple(domains) == RARE else " and ".join(f"{name}s" for name in domains)


def judge_all(table: pd.DataFrame, claims: Sequence[Claim] = CLAIMS) -> pd.DataFrame:
    """One row for each claim."""
    return pd.DataFrame([judge(claim, table) for claim in claims])


def markdown(judged: pd.DataFrame) -> str:
    """The table of claims for a reader: claim, metric, difference with its interval, verdict, command."""
    lines = [
        "| claim | metric | difference [95 % interval] | seeds | budgets: sign agrees, sure, interval against it | verdict "
        "| rows made by |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in judged.itertuples():
        ran = row.verdict != "not run"
        difference = f"{row.mean:+.3f} [{row.low:+.3f}, {row.high:+.3f}]" if ran else "–"
        what = f"{row.metric}: {row.setting}, {row.budget}"
        agree = "– | –"
        if ran:
            agree = "{:.0f} | {agree}, {sure}, {against} of {run}".format(row.seeds, **row.budgets)
        lines.append(f"| {row.claim} | {what} | {difference} | {agree} | **{row.verdict}** | `{row.command}` |")
    return "\n".join(lines)


def complete(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the arms that have every seed of the reference."""
    seeds = {method: set(part["seed"]) for method, part in rows.groupby("method")}
    return rows[[seeds[method] >= seeds.get(REFERENCE, set()) for method in rows["method"]]]


def composition(table: pd.DataFrame, pool: str, training: str, *, tokens: int) -> pd.DataFrame:
    """Means over the seeds of what each arm chose and what it cost: examples, tokens, information, share of dialogues.

    Only of arms that have every seed of the reference: means over different seeds cannot be compared.
    """
    rows = complete(rows_of(table, pool, training, tokens=tokens))
    columns = [
        "chosen_examples",
        "chosen_tokens",
        "trained_all_tokens",
        "information",
        "majority_share",
        "selection_seconds",
    ]
    means = rows.groupby("method", sort=False)[[c for c in columns if c in rows]].mean()
    return means.rename(index=title).replace({np.nan: None})


def curve(table: pd.DataFrame, pool: str, method: str = REFERENCE) -> dict[int, float]:
    """Mean NLL of full fine-tuning over the seeds at each budget of tokens that every seed has; 0 tokens are left out."""
    rows = table[(table["pool"] == pool) & (table["training"] == "full") & (table["method"] == method)]
    rows = rows[(rows["tokens"] > 0) & ~rows["method"].isin((NONE, ALL))]
    seeds = rows["seed"].nunique()
    return {int(b): float(part["nll"].mean()) for b, part in rows.groupby("tokens") if part["seed"].nunique() == seeds}
