"""README's answers, as Markdown, made of the committed rows: no number and no verdict in them is typed by hand.

The words around the numbers follow them: a headline that says "no better" is only there while nothing is better.
"""

import json

import numpy as np
import pandas as pd
import scipy  # its stats come on first use

from fisherlib.assets import ROOT
from fisherlib.course.study import kept, systems
from fisherlib.course.study.arms import REFERENCE
from fisherlib.course.study.claims import CLAIMS, judge_all
from fisherlib.course.study.methods import title
from fisherlib.course.study.plans import NEW_SEEDS
from fisherlib.course.study.pools import POOLS, Sizes, composition
from fisherlib.course.study.profiles import PROFILES
from fisherlib.course.study.verdicts import MAJORITY, OWN, REST, RESULTS, by_part, family, load, verdicts
from fisherlib.course.study.why import confirmed, what_moved
from fisherlib.evaluation import LEVEL

TOKENS = PROFILES["full"].tokens
ARMS = {"dedup_uniform": "MinHash + uniform", "fisher_per_token": "FisherSFT", "recipe": "recipe"}
_KINDS = {"clean": "dialogues", "guide": "documentation", "redundant": "dialogues", "guide_redundant": "documentation"}
_KINDS |= {"imbalanced": "dialogues", "code_mix": "code"}
Said = dict[str, pd.DataFrame]  # the verdicts on each pool, on the test as it is
_ORDER = ("clean", "guide", "redundant", "guide_redundant", "imbalanced", "code_mix")


def cell(row: pd.Series) -> str:
    """A difference with its interval and verdict."""
    word = row["verdict"] if row["verdict"] == "tie" else f"**{row['verdict']}**"
    return f"{row['mean']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}] {word}"


def brief(row: pd.Series) -> str:
    """A difference with its verdict."""
    return f"{row['mean']:+.3f} ({row['verdict']})"


def described(table: pd.DataFrame, pool: str) -> str:
    """What a pool holds, for a reader."""
    sizes = Sizes(**json.loads(family(table, pool, tokens=TOKENS)["sizes"].iloc[0]))
    kind, (most, *rare) = _KINDS[pool], composition(pool, sizes).values()
    if rare:
        return f"{most / sizes.pool_examples:.0%} {kind}, {len(rare)} rare kinds"
    if pool.endswith("redundant"):
        return f"{sizes.variants:.0%} variants of {sizes.bases} {'texts' if pool == 'guide_redundant' else kind}"
    return f"{kind}, as they come" if kind.endswith("s") else f"{kind}, as it comes"


def found(table: pd.DataFrame, said: Said) -> str:
    """What was found, in three lines."""
    clean, guide, copies = said["clean"], said["guide"], said["redundant"]
    arms, better = int(clean["family"].iloc[0]), (clean["verdict"] == "better").sum()
    fisher = [brief(part.loc["fisher_per_token"]) for part in (clean, guide)]
    rivals = verdicts(table, "redundant", tokens=TOKENS, reference="dedup_uniform")
    then = "then chance is as good as anything" if not (rivals["verdict"] == "better").any() else "then choose"
    mixed = by_part(table, "code_mix", tokens=TOKENS).loc["recipe"]
    trade = mixed.loc[REST, "verdict"] == "better" and mixed.loc[MAJORITY, "verdict"] == "worse"
    return (
        f"- **One kind of text, no copies: {better or 'none'} of {arms} ways to choose beat chance.** FisherSFT: "
        f"{fisher[0]} on dialogues, {fisher[1]} on documentation.\n"
        f"- **Many near-copies: take them out, {then}.** MinHash + uniform {brief(copies.loc['dedup_uniform'])}, FisherSFT "
        f"{brief(copies.loc['fisher_per_token'])}, recipe {brief(copies.loc['recipe'])}; recipe minus MinHash + "
        f"uniform {cell(rivals.loc['recipe'])}.\n"
        f"- **Rare kinds beside a majority: {'the rare gain, the majority pays' if trade else 'see the table'}.** "
        f"Recipe on {described(table, 'code_mix')}: the rare {brief(mixed.loc[REST])}, the code "
        f"{brief(mixed.loc[MAJORITY])}, and {cell(mixed.loc[OWN])} at the pool's own mix."
    )


def replay() -> str:
    """What to replay while something new is learned: the primary question of the protocol of notebook 09."""
    third = kept.contrasts(kept.load(RESULTS / "09_keep_learning"), "Q3").replace({"lower": "better", "higher": "worse"})
    asked = third[(third["part"] == "5%") & third["arm"].str.endswith(kept.CHOSEN[0])].set_index(["side", "shift"])
    wins = (asked.loc["A", "verdict"] == "better").all() and (asked.loc["B", "verdict"] != "worse").all()
    head = "FisherSFT, told what the new text says, beats chance" if wins else "FisherSFT is not sure to beat chance"
    on = {"strong": "Python", "weak": "documentation"}
    candidates = json.loads((RESULTS / "09_keep_learning" / "about.json").read_text())["settings"]["candidates"]
    old, new = (
        ", ".join(f"{say(asked.loc[side, shift])} ({text})" for shift, text in on.items())
        for side, say in (("A", cell), ("B", brief))
    )
    return (
        f"- **Which twentieth of the old text to replay while a new one is learned: {head}.** On the old text {old}; on the "
        f"new one {new}. Nats per byte, a byte model of half a million weights, {asked['seeds'].min()} seeds, after Holm "
        f"over the contrasts of the protocol's question. It chose among {candidates:,} old windows, chance among "
        "all of them "
        "([notebook 09](notebooks/09_keep_learning.ipynb))."
    )


def pays(table: pd.DataFrame, said: Said) -> str:
    """The one table: six pools, the ways to choose, and the harm to the majority; and what the protocol asked."""
    shown = ("fisher_per_token", "recipe")
    heads = ["pool", "seeds", "uniform, NLL", *ARMS.values(), *(f"majority alone: {ARMS[arm]}" for arm in shown)]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for pool, result in said.items():
        uniform = family(table, pool, tokens=TOKENS).query("method == @REFERENCE")["nll"].mean()
        cells = [f"`{pool}`: {described(table, pool)}", f"{result['seeds'].min()}", f"{uniform:.3f}"]
        cells += [cell(result.loc[arm]) if arm in result.index else "not run" for arm in ARMS]
        mixed = len(composition(pool, Sizes())) > 1
        alone = verdicts(table, pool, tokens=TOKENS, part=MAJORITY) if mixed else None
        cells += [cell(alone.loc[arm]) if alone is not None else "–" for arm in shown]
        lines.append(f"| {' | '.join(cells)} |")
    answer = confirmed(table)
    asked = "; ".join(f"{r['wanted']} on {pool}: {'met' if r['met'] else 'not met'}" for pool, r in answer.iterrows())
    margins = " and ".join(f"{said[pool].loc['recipe', 'margin']:.3f} on `{pool}`" for pool in ("clean", "guide"))
    note = (
        f"{', '.join(f'`{pool}`' for pool in POOLS)}: the recipe was chosen on these, so they flatter it. The others were "
        f"tried once, on seeds {NEW_SEEDS[0]} to {NEW_SEEDS[-1]}, by a "
        "[protocol](notebooks/results/05b_confirmation/protocol.md) that is older than their rows "
        f"({asked}). It had neither MinHash + uniform as an arm nor harm as a criterion, and its mixed test has equally "
        "many examples of each kind. *Not worse* is weak: for the recipe only differences above "
        f"{margins} are excluded (TOST, 5 %)."
    )
    return "\n".join([*lines, "", note])


def questions(table: pd.DataFrame, judged: pd.DataFrame | None = None) -> str:
    """The claims of notebook 05, one row for each question. `table`: of `verdicts.load`, as in all functions here.

    `judged`: of `judge_all`, if it is there already.
    """
    judged = judge_all(table) if judged is None else judged
    helps = [c.by == "tokens" and c.method.startswith("fisher") and not c.above and c.metric != "majority_share"
             for c in CLAIMS]  # fmt: skip
    counts = judged.loc[helps, "verdict"].value_counts()
    verb = {"holds": ("hold", "holds"), "tie": ("ties", "tie"), "fails": ("fail", "fails")}
    lines = [
        f"Of {sum(helps)} claims that FisherSFT helps at equal tokens: "
        + ", ".join(f"{counts.get(word, 0)} {verb[word][int(counts.get(word, 0) == 1)]}" for word in verb)
        + ".",
        "",
        "| claim | verdict | where it agrees least | raw intervals against it |",
        "|---|---|---|---|",
    ]
    for text, part in judged.groupby("claim", sort=False):
        weakest = part.loc[part["verdict"].isin(["tie", "fails"])].head(1) if len(part) > 1 else part
        row = (weakest if len(weakest) else part).iloc[0]
        words = part["verdict"].value_counts(sort=False)
        said = ", ".join(f"**{word}**" + (f" ({n} of {len(part)})" if len(part) > 1 else "") for word, n in words.items())
        run, against = (sum(budgets[name] for budgets in part["budgets"]) for name in ("run", "against"))
        difference = f"{row['mean']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
        where = f"{difference}, {row['metric']}: {row['setting']}, {row['budget']}"
        lines.append(f"| {text} | {said} | {where} | {against} of {run} |")
    return "\n".join(lines)


def related(said: Said) -> str:
    """What all arms came to on the three pools that all of them have rows on."""
    lines = ["| pool | arms | lowest mean | better than uniform | worse | ties |", "|---|---|---|---|---|---|"]
    twice: dict[str, list[str]] = {}
    for pool in POOLS:
        result = said[pool]
        alike = result["same_as"] != ""
        for arm, of in result.loc[alike, "same_as"].items():
            twice.setdefault(f"*{title(arm)}* and *{of}*", []).append(pool)
        names = {
            word: " · ".join(map(title, result.index[~alike & (result["verdict"] == word)])) or "none"
            for word in ("better", "worse")
        }
        best, ties = (
            f"{title(result.index[0])} ({result['mean'].iloc[0]:+.3f})",
            (~alike & (result["verdict"] == "tie")).sum(),
        )
        lines.append(f"| {pool} | {(~alike).sum()} | {best} | {names['better']} | {names['worse']} | {ties} |")
    changes = what_moved(load(RESULTS / "05b_why")).drop(index="nothing")["verdict"]
    same = "; ".join(f"{what} ({', '.join(pools)})" for what, pools in twice.items())
    note = (
        f"Full fine-tuning, {TOKENS:,} response tokens, after Holm over all arms of a pool. Bit for bit the same, and "
        f"counted once: {same}. Of {len(changes)} "
        "things changed one at a time in FisherSFT or in the training (clean pool), "
        f"{(changes == 'better').sum()} narrow its gap to uniform for sure and {(changes == 'worse').sum()} widen it."
    )
    return "\n".join([*lines, "", note])


def cost(table: pd.DataFrame) -> str:
    """Seconds and bytes: of the study's pools, and of a larger one from the benchmarks."""
    means = family(table, "redundant", tokens=TOKENS).groupby("method")[["selection_seconds", "pool_tokens"]].mean()
    seconds = ", ".join(f"{name} {means.loc[arm, 'selection_seconds']:.1f} s" for arm, name in ARMS.items())
    bench = json.loads((ROOT / "benchmarks" / "results" / "tokens.json").read_text())
    of, cores = bench["settings"], bench["machine"]["cores"]
    extracted = next(value for name, value in of.items() if name.startswith("extraction seconds"))
    ours = next(row["seconds"] for row in bench["rows"] if row["method"] == "fl.select")
    small, large = of["tokens"] * of["d"] * 4 / 1e9, 50_000 * 200 * 4096 * 4 / 1e9
    return (
        f"- Choosing {TOKENS:,} of {means['pool_tokens'].mean():,.0f} response tokens, on one or two CPU cores: {seconds}. "
        "FisherSFT and the recipe first need features: one forward pass over the pool.\n"
        f"- {of['pool']:,} examples with {of['tokens']:,} response tokens, a model of 135M weights, {cores} CPU cores: "
        f"{extracted:.0f} s for the features, {ours:.0f} s for {of['picks']:,} picks with their certificate.\n"
        f"- Features take *response tokens* x *width* x 4 bytes: {small:.1f} GB there, {large:.0f} GB for 50,000 answers of "
        "200 tokens at a width of 4,096. `dtype=torch.bfloat16` halves that, `fl.compress` narrows it, `out_dir=` keeps it "
        "on disk. A GPU is not measured yet." + _chat_rows()
    )


def _chat_rows() -> str:
    """What the command takes for chat rows, as a table: measured, or forecast by `fisherlib forecast`."""
    file = ROOT / "benchmarks" / "results" / "chat.json"
    if not file.exists():
        return ""
    bench = json.loads(file.read_text())
    lines = [
        "\n\n`fisherlib select` on synthetic chat rows, with a random model of one layer, for a budget of "
        f"{bench['settings']['budget']:,} tokens ({bench['machine']['processor']}, "
        f"{bench['settings']['threads']} threads):\n",
        "| rows x response tokens x width | method | GB on disk | peak memory, GB | seconds | |",
        "|---|---|---|---|---|---|",
    ]
    for (rows, d, method), part in pd.DataFrame(bench["rows"]).groupby(["rows", "d", "method"], sort=False):
        step = part.set_index("step")
        which = "forecast" if np.isnan(step.loc["all", "measured"]) else "measured"
        disk, memory, seconds = step.loc[["disk", "memory", "all"], which]
        length = step["response_tokens"].iloc[0] / rows
        ahead = f", forecast {step.loc['all', 'forecast']:,.0f} s" if which == "measured" else ""
        size = f"{rows:,} x {length:.0f} x {d}"
        lines.append(f"| {size} | {method} | {disk:.2f} | {memory:.1f} | {seconds:,.0f} | {which}{ahead} |")
    return "\n".join(lines)


def limits(table: pd.DataFrame, said: Said) -> str:
    """At what scale it was shown, and what so few seeds can see."""
    usual = pd.concat([family(table, pool, tokens=TOKENS) for pool in _ORDER])
    sizes, steps = usual.groupby("pool")["pool_tokens"].mean(), sorted(usual["steps"].astype(int).unique())
    clean = said["clean"]
    seeds, more, arms = int(clean["seeds"].min()), len(NEW_SEEDS), int(clean["family"].iloc[0])
    least = scipy.stats.t.ppf(1 - (1 - LEVEL) / 2 / arms, seeds - 1) * np.median(clean["spread"]) / np.sqrt(seeds)
    trained = usual.groupby("method")["trained_all_tokens"].mean()
    return (
        f"- **Shown** at one scale: SmolLM2-135M, {TOKENS:,} of {sizes.min():,.0f} to {sizes.max():,.0f} response tokens, "
        f"{' or '.join(map(str, steps))} optimiser steps, plays and the files of one software project, {seeds} or {more} "
        "seeds a pool.\n"
        f"- **A tie is not equality.** With {seeds} seeds and {arms} arms a difference must be about {least:.2f} nats on "
        "the clean pool to be sure. And *sure* rests on Student's normal distribution: an exact sign-flip test cannot go "
        f"below p = {2 / 2**seeds:.3f} with {seeds} seeds and {2 / 2**more:.3f} with {more}, which no correction leaves "
        "below 0.05.\n"
        "- **Equal response tokens are not equal compute.** Short examples bring more prompt: FisherSFT trained on "
        f"{trained['fisher_per_token'] / trained[REFERENCE]:.2f} times uniform's tokens, prompts counted."
    )


def sections(table: pd.DataFrame) -> dict[str, str]:
    """All of them by the name of their markers."""
    said = {pool: verdicts(table, pool, tokens=TOKENS) for pool in _ORDER}
    return {
        "found": found(table, said),
        "replay": replay(),
        "pays": pays(table, said),
        "questions": questions(table),
        "related": related(said),
        "systems": systems.table(said),
        "cost": cost(table),
        "limits": limits(table, said),
    }
