"""README's numbers and verdicts, made again from the committed rows by other code: pandas, scipy, json and re.

Nothing of fisherlib is imported. It fails at the first number of README, or verdict, that the rows do not give. What is
shared with the library is only the question: one family for Holm's correction for each pool, training, metric, budget and
setting, over all arms that have rows there; arms that are the same bit for bit counted once; spreads never below the noise
of the test; the confirmation's own family for what its protocol asked.
"""

import functools
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

HERE = Path(__file__).resolve().parents[2]
RESULTS = HERE / "notebooks" / "results"
FOLDERS = ("05_fine_tuning", "05b_why", "07_related", "05b_recipes", "05b_confirmation")
MAJORITY = {"imbalanced": "dialogue", "code_mix": "code"}  # of the pools of several domains; it is 95 % of the examples
PROTOCOL = ("guide", "guide_redundant", "code_mix")
RARE = ("python", "documentation", "html", "javascript")
NUMBER = r"[+-]\d+\.\d{3}"
CELL = rf"({NUMBER}) \[({NUMBER}), ({NUMBER})\] \**(better|worse|tie)\**"
PRINTED = {  # as README calls them
    "dedup_uniform": "deduplicated, then uniform",
    "dedup_fisher": "deduplicated, then FisherSFT",
    "dedup_in_clusters": "deduplicated, uniform in clusters",
    "dedup_half_fisher": "deduplicated, half uniform, half FisherSFT",
    "dedup_where_fisher": "deduplicated, uniform where FisherSFT looks",
    "fisher_per_token": "FisherSFT",
    "fisher_gain": "FisherSFT, by gain",
    "fisher_weighted": "FisherSFT, trace-weighted",
    "ifd_then_fisher": "IFD, then FisherSFT",
    "uniform_where_fisher": "uniform where FisherSFT looks",
    "semhash": "SemHash, then uniform",
}


# --- the rows, and what they say -------------------------------------------------------------------------------------


@functools.cache
def rows():
    parts = []
    for name in FOLDERS:
        settings = json.loads((RESULTS / name / "about.json").read_text())["settings"]
        for path in sorted((RESULTS / name).glob("*.parquet")):
            part = pd.read_parquet(path)
            for column in ("epochs", "learning_rate"):
                if column not in part:
                    part[column] = settings[column]
            parts.append(part.assign(folder=name))
    table = pd.concat(parts, ignore_index=True)
    assert table.groupby("key")["nll"].nunique().max() == 1
    table = table.drop_duplicates("key", ignore_index=True)
    return table[~table["method"].isin(["no_fine_tuning", "all_data"])]


@functools.cache
def comparisons():
    """Records by pool, training, tokens, examples, epochs and learning rate."""
    found = {}
    for record in rows().to_dict("records"):
        named = [record[name] for name in ("pool", "training", "tokens", "examples", "epochs", "learning_rate")]
        found.setdefault(tuple(named), []).append(record)
    return found


def printed(arm):
    return PRINTED.get(arm, arm.replace("_", " "))


@functools.cache
def arms_of(pool, training, unit, budget, epochs=2, rate=5e-5):
    """{arm: {seed: (record, loss sums, counts, domains)}} of one comparison."""
    found, spent = {}, (budget, 0) if unit == "tokens" else (0, budget)
    for record in comparisons()[pool, training, *spent, epochs, rate]:
        arrays = (np.asarray(record[name], dtype=float) for name in ("nll_sums", "scored_tokens"))
        found.setdefault(record["method"], {})[record["seed"]] = (record, *arrays, np.asarray(record["domains"]))
    return found


def groups_of(domains, part, pool):
    """The part of a test as masks and weights."""
    if part == "test":
        return [(1.0, np.full(len(domains), True))]
    most = domains == MAJORITY[pool]
    if part == "own mix":
        return [(0.95, most), (0.05, ~most)]
    return [(1.0, {"majority": most, "rest": ~most}.get(part, domains == part))]


def linear(sums, counts, domains, part, pool):
    """The value of a contrast of one seed, and its variance over the draw of the test: stratified by domain."""
    value = variance = 0.0
    for weight, of in groups_of(domains, part, pool):
        ratio = sums[of].sum() / counts[of].sum()
        value += weight * ratio
        rest = (sums[of] - ratio * counts[of]) / counts[of].sum()
        for name in set(domains[of]):
            inside = rest[domains[of] == name]
            n = len(inside)
            variance += weight**2 * n / (n - 1) * ((inside - inside.mean()) ** 2).sum() if n > 1 else 0.0
    return value, variance


@functools.cache
def quantile(share, freedom):
    return stats.t.ppf(share, freedom)


def student(d, floor=0.0):
    d, n = np.asarray(d, dtype=float), len(d)
    error = max(np.sqrt(((d - d.mean()) ** 2).sum() / (n - 1)), floor) / np.sqrt(n)
    if error < 1e-15:
        return {"mean": d.mean(), "low": d.mean(), "high": d.mean(), "p": 1.0, "margin": abs(d.mean()), "seeds": n}
    half = quantile(0.975, n - 1) * error
    about = {"mean": d.mean(), "low": d.mean() - half, "high": d.mean() + half, "seeds": n}
    margin = abs(d.mean()) + quantile(0.95, n - 1) * error
    return about | {"p": 2 * stats.t.cdf(-abs(d.mean()) / error, n - 1), "margin": margin}


def step_down(p):
    """Holm's adjusted p-values of {name: p}."""
    left, least, found = len(p), 0.0, {}
    for name in sorted(p, key=p.get):
        least = max(least, min(1.0, left * p[name]))
        found[name], left = least, left - 1
    return found


def word(result):
    return "tie" if result["p_holm"] >= 0.05 else "better" if result["mean"] < 0 else "worse"


@functools.cache
def said(pool, training="full", unit="tokens", budget=2000, part="test", metric="nll", reference="uniform"):
    """{arm: what the rows say of arm - reference}, with `twin`: the arm that it is bit for bit."""
    arms, found, seen = arms_of(pool, training, unit, budget), {}, {}
    base = arms[reference]

    def losses(of, seeds):
        return tuple((seed, of[seed][1].tobytes()) for seed in seeds)

    seen[losses(base, sorted(base))] = reference
    for arm, of in arms.items():
        seeds = sorted(set(of) & set(base))
        if arm == reference or len(seeds) < 2:
            continue
        differences, variances = [], []
        for seed in seeds:
            (one, sums, counts, domains), (two, others, _, _) = of[seed], base[seed]
            if metric != "nll":
                differences.append(one[metric] - two[metric])
                continue
            value, variance = linear(sums - others, counts, domains, part, pool)
            if part == "test":
                assert value == pytest.approx(one["nll"] - two["nll"], abs=2e-6)  # the sums are kept in float32
                value = one["nll"] - two["nll"]
            differences.append(value)
            variances.append(variance)
        floor = np.sqrt(np.mean(variances)) if metric == "nll" else 0.0
        found[arm] = student(differences, floor) | {"twin": seen.setdefault(losses(of, seeds), arm)}
    single = {arm: result["p"] for arm, result in found.items() if result["twin"] == arm}
    adjusted = step_down(single)
    for result in found.values():
        result["p_holm"] = adjusted.get(result["twin"], 1.0)
        result["family"] = len(single)
        result["verdict"] = word(result)
    if (training, metric, part, reference) == ("full", "nll", "test", "uniform") and pool in PROTOCOL:
        found["recipe"] |= confirmation()[pool]
    return found


@functools.cache
def confirmation():
    found = {}
    for pool in PROTOCOL:
        arms = arms_of(pool, "full", "tokens", 2000)
        d = [arms["recipe"][seed][0]["nll"] - arms["uniform"][seed][0]["nll"] for seed in sorted(arms["recipe"])]
        found[pool] = student(d)
    adjusted = step_down({pool: result["p"] for pool, result in found.items()})
    for pool, result in found.items():
        result["p_holm"] = adjusted[pool]
        result["verdict"] = word(result)
    return found


# --- reading README ---------------------------------------------------------------------------------------------------


def section(text, name):
    return re.search(rf"<!-- {name} -->\n(.*?)\n<!-- /{name} -->", text, re.DOTALL)[1]


def table_of(text):
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return cells[0], cells[2:]


def same(printed_value, value, digits=3):
    assert f"{value:+.{digits}f}".replace("-0." + "0" * digits, "+0." + "0" * digits) == printed_value.replace(
        "-0." + "0" * digits, "+0." + "0" * digits
    ), (printed_value, value)


def same_cell(cell, result):
    mean, low, high, verdict = re.fullmatch(CELL, cell).groups()
    for got, name in ((mean, "mean"), (low, "low"), (high, "high")):
        same(got, result[name])
    assert verdict == result["verdict"], (cell, result)


def check_readme(text):
    for name in ("found", "replay", "pays", "questions", "related", "systems", "cost", "limits"):
        globals()[f"check_{name}"](section(text, name))


def check_found(text):
    one, two, three = text.splitlines()
    clean, guide, copies = said("clean"), said("guide"), said("redundant")
    rivals = said("redundant", reference="dedup_uniform")
    arms = next(iter(clean.values()))["family"]
    assert f"none of {arms} ways" in one and not any(r["verdict"] == "better" for r in clean.values())
    assert "chance is as good as anything" in two and not any(r["verdict"] == "better" for r in rivals.values())
    mixed = {part: said("code_mix", part=part)["recipe"] for part in ("rest", "majority", "own mix")}
    assert "the rare gain, the majority pays" in three
    assert (mixed["rest"]["verdict"], mixed["majority"]["verdict"]) == ("better", "worse") and "95% code, 4 rare" in three
    brief = rf"({NUMBER}) \((better|worse|tie)\)"
    expected = [clean["fisher_per_token"], guide["fisher_per_token"]]
    expected += [copies[arm] for arm in ("dedup_uniform", "fisher_per_token", "recipe")] + [mixed["rest"], mixed["majority"]]
    shown = re.findall(brief, text)
    assert len(shown) == len(expected)
    for (value, verdict), result in zip(shown, expected, strict=True):
        same(value, result["mean"])
        assert verdict == result["verdict"]
    (rival,), (own,) = (re.findall(CELL.replace("(", "(?:").replace(r"\(?:", r"\("), line) for line in (two, three))
    same_cell(rival, rivals["recipe"])
    same_cell(own, mixed["own mix"])


def check_replay(text):
    rows = json.loads((RESULTS / "09_keep_learning" / "rows.json").read_text())
    ways = ["by FisherSFT given B", "by FisherSFT", "by MinHash"]
    expected = {}
    for shift in ("strong", "weak"):
        family = {}
        for share in ("5%", "1%"):
            for way in ways:
                for side in ("old", "new"):
                    pairs = [
                        {row["seed"]: row[side] for row in rows if (row["shift"], row["arm"]) == (shift, arm)}
                        for arm in (f"re-warm, {share} replay {way}", f"re-warm, {share} replay")
                    ]
                    assert set(pairs[0]) == set(pairs[1]) and len(pairs[0]) == 5
                    family[share, way, side] = student([pairs[0][seed] - pairs[1][seed] for seed in pairs[0]])
        adjusted = step_down({name: one["p"] for name, one in family.items()})
        for side in ("old", "new"):
            one, sure = family["5%", ways[0], side], adjusted["5%", ways[0], side] < 0.05
            expected[side, shift] = one | {"verdict": ("better" if one["mean"] < 0 else "worse") if sure else "tie"}
    head, rest = text.split(".** ")
    wins = all(expected["old", shift]["verdict"] == "better" for shift in ("strong", "weak"))
    assert wins and "beats chance" in head and "5 seeds" in rest
    old, new = rest.split("; on the new one ")
    for cell, shift in zip(
        re.findall(CELL.replace("(", "(?:").replace(r"\(?:", r"\("), old), ("strong", "weak"), strict=True
    ):
        same_cell(cell, expected["old", shift])
    shown = re.findall(rf"({NUMBER}) \((better|worse|tie)\)", new)
    for (value, verdict), shift in zip(shown, ("strong", "weak"), strict=True):
        same(value, expected["new", shift]["mean"])
        assert verdict == expected["new", shift]["verdict"]


def check_pays(text):
    head, lines = table_of(text)
    assert head[3:6] == ["MinHash + uniform", "FisherSFT", "recipe"] and len(lines) == 6
    columns = {3: "dedup_uniform", 4: "fisher_per_token", 5: "recipe"}
    for cells in lines:
        pool = re.match(r"`(\w+)`", cells[0])[1]
        results, uniform = said(pool), arms_of(pool, "full", "tokens", 2000)["uniform"]
        assert int(cells[1]) == len(uniform) and cells[2] == f"{np.mean([r[0]['nll'] for r in uniform.values()]):.3f}"
        for column, arm in columns.items():
            assert (cells[column] == "not run") == (arm not in results)
            if arm in results:
                same_cell(cells[column], results[arm])
        for column, arm in ((6, "fisher_per_token"), (7, "recipe")):
            assert (cells[column] == "–") == (pool not in MAJORITY)
            if pool in MAJORITY:
                same_cell(cells[column], said(pool, part="majority")[arm])
    wanted = {"guide": "not worse", "guide_redundant": "better", "code_mix": "better"}
    for pool, result in confirmation().items():
        met = result["verdict"] == "better" if wanted[pool] == "better" else result["verdict"] != "worse"
        assert f"{wanted[pool]} on {pool}: {'met' if met else 'not met'}" in text
    for pool in ("clean", "guide"):
        assert f"{said(pool)['recipe']['margin']:.3f} on `{pool}`" in text
    seeds = sorted(arms_of("guide", "full", "tokens", 2000)["uniform"])
    assert f"on seeds {seeds[0]} to {seeds[-1]}" in text


WHERE = {  # setting as printed: training
    "head from scratch": "head",
    "head from scratch, weak ridge": "head_weak",
    "update of the pretrained head": "head_update",
    "full fine-tuning": "full",
}
WHAT = {
    "held-out NLL": ("nll", "test"),
    "KL to the full pool's head": ("kl", "test"),
    "max logit error": ("max_logit_error", "test"),
    "share of dialogues among the picks": ("majority_share", "test"),
    "held-out NLL of the rare domains": ("nll", "rest"),
    "held-out NLL of dialogues": ("nll", "majority"),
}
# Of each question: the arm, the sign that agrees, the reference, the unit, and its measures (what, where).
NLL, ERROR = "held-out NLL", "max logit error"
QUESTIONS = {
    "FisherSFT per token beats uniform where the theory applies": (
        "fisher_per_token", -1, "uniform", [(NLL, "head"), ("KL to the full pool's head", "head"), (ERROR, "head")]
    ),
    "The same with a ridge so weak": ("fisher_per_token", -1, "uniform", [(NLL, "head_weak"), (ERROR, "head_weak")]),
    "It beats uniform in an update": ("fisher_per_token", -1, "uniform", [(NLL, "head_update"), (ERROR, "head_update")]),
    "It loses to uniform in full": ("fisher_per_token", 1, "uniform", [(NLL, "full")]),
    "It beats uniform in full fine-tuning on an extremely": ("fisher_per_token", -1, "uniform", [(NLL, "full")]),
    "There, dedup then uniform": ("dedup_uniform", -1, "fisher_per_token", [(NLL, "full")]),
    "On an imbalanced pool": ("fisher_per_token", -1, "uniform", [("share of dialogues among the picks", "full")]),
    "and the rare domains gain": ("fisher_per_token", -1, "uniform", [("held-out NLL of the rare domains", "full")]),
    "and the majority loses": ("fisher_per_token", 1, "uniform", [("held-out NLL of dialogues", "full")]),
    "At equal examples": ("fisher_gain", -1, "uniform", [(NLL, "head"), (NLL, "full")]),
    "and so does taking the longest": ("longest", -1, "uniform", [(NLL, "head"), (NLL, "full")]),
}  # fmt: skip


def claimed(pool, arm, sign, reference, what, training, unit):
    """The verdict of a claim, its result where it agrees least, that budget, and of how many budgets what is true."""
    metric, part = WHAT[what]
    t = rows()
    budgets = t.loc[(t["pool"] == pool) & (t["training"] == training) & (t["method"] == arm), unit]
    results = {}
    for budget in sorted(set(budgets) - {0}):
        results[budget] = said(pool, training, unit, budget, part, metric, reference)[arm]
    agree = {b: sign * r["mean"] > 0 for b, r in results.items()}
    sure = {b: r["verdict"] != "tie" for b, r in results.items()}
    against = sum(not agree[b] and not r["low"] <= 0 <= r["high"] for b, r in results.items())
    holds, fails = all(agree[b] and sure[b] for b in results), any(sure[b] and not agree[b] for b in results)
    least = min(results, key=lambda b: sign * results[b]["mean"] / (results[b]["high"] - results[b]["low"]))
    verdict = "holds" if holds else "fails" if fails else "tie"
    counts = (len(results), sum(agree.values()), sum(agree[b] and sure[b] for b in results), against)
    return verdict, results[least], least, counts


def check_questions(text):
    _, lines = table_of(text)
    assert len(lines) == len(QUESTIONS)
    helps = []
    for (start, (arm, sign, reference, measures)), cells in zip(QUESTIONS.items(), lines, strict=True):
        assert cells[0].startswith(start)
        numbers, what, where = re.fullmatch(rf"({NUMBER} \[{NUMBER}, {NUMBER}\]), (.*?): (.*)", cells[2]).groups()
        setting, pool, budget = re.fullmatch(r"(.*), (\w+) pool, (.*)", where).groups()
        unit = budget.split()[1]
        claims = {m: claimed(pool, arm, sign, reference, *m, unit) for m in measures}
        _, result, least, _ = claims[what, WHERE[setting]]
        for value, name in zip(re.findall(NUMBER, numbers), ("mean", "low", "high"), strict=True):
            same(value, result[name])
        assert budget == f"{least:,} {unit}"
        given = dict(re.findall(r"\*\*(\w+)\*\*(?: \((\d+) of \d+\))?", cells[1]))
        every = [c[0] for c in claims.values()]
        assert {w: int(n or 1) for w, n in given.items()} == {w: every.count(w) for w in set(every)}
        assert cells[3] == f"{sum(c[3][3] for c in claims.values())} of {sum(c[3][0] for c in claims.values())}"
        if unit == "tokens" and sign < 0 and arm.startswith("fisher") and "share" not in what:
            helps += every
    count, holds, ties, fails = re.match(r"Of (\d+) claims .*?: (\d+) hold\w*, (\d+) ties?, (\d+) fail", text).groups()
    assert [int(n) for n in (count, holds, ties, fails)] == [
        len(helps),
        *(helps.count(w) for w in ("holds", "tie", "fails")),
    ]


def check_related(text):
    _, lines = table_of(text)
    twins = {}
    for pool, arms, lowest, better, worse, ties in lines:
        results = said(pool)
        single = {arm: r for arm, r in results.items() if r["twin"] == arm}
        assert int(arms) == len(single) and int(ties) == sum(r["verdict"] == "tie" for r in single.values())
        best = min(single, key=lambda arm: single[arm]["mean"])
        assert lowest == f"{printed(best)} ({single[best]['mean']:+.3f})"
        for cell, kind in ((better, "better"), (worse, "worse")):
            names = {printed(arm) for arm, r in single.items() if r["verdict"] == kind}
            assert set(cell.split(" · ")) == (names or {"none"})
        for arm, r in results.items():
            if r["twin"] != arm:
                twins.setdefault(f"*{printed(arm)}* and *{printed(r['twin'])}*", []).append(pool)
    assert set(re.findall(r"(\*[^*]+\* and \*[^*]+\* \([\w, ]+\))", text)) == {
        f"{k} ({', '.join(v)})" for k, v in twins.items()
    }
    changes, narrow, widen = map(int, re.search(r"Of (\d+) things .*?, (\d+) narrow .*? and (\d+) widen", text).groups())
    words = [word(result) for result in moved().values()]
    assert (changes, narrow, widen) == (len(words), words.count("better"), words.count("worse"))


@functools.cache
def moved():
    """{change: result} of notebook 05b's ablations, FisherSFT minus uniform with the change minus the same without."""
    t = rows()
    t = t[(t["pool"] == "clean") & (t["training"] == "full") & (t["tokens"] > 0)]
    regimes = {(int(k[0]), int(k[1]), float(k[2])) for k in t[t["method"] == "fisher_per_token"].groupby(
        ["tokens", "epochs", "learning_rate"]).groups}  # fmt: skip
    here = (2000, 2, 5e-5)
    usual = arms_of("clean", "full", "tokens", 2000)
    plan = set(pd.read_parquet(RESULTS / "05b_why" / "full.parquet")["method"]) - {"uniform", "fisher_per_token"}
    contrasts = {arm: [(1, usual[arm]), (-1, usual["fisher_per_token"])] for arm in plan}
    for regime in regimes - {here}:
        tokens, epochs, rate = regime
        arms = arms_of("clean", "full", "tokens", tokens, epochs, rate)
        contrasts[regime] = [(1, arms["fisher_per_token"]), (-1, arms["uniform"])]
        contrasts[regime] += [(-1, usual["fisher_per_token"]), (1, usual["uniform"])]
    found = {}
    for name, terms in contrasts.items():
        values, variances = [], []
        for seed in sorted(set.intersection(*(set(of) for _, of in terms))):
            values.append(sum(sign * of[seed][0]["nll"] for sign, of in terms))
            _, _, counts, domains = terms[0][1][seed]
            variances.append(linear(sum(s * of[seed][1] for s, of in terms), counts, domains, "test", "clean")[1])
        found[name] = student(values, np.sqrt(np.mean(variances)))
    adjusted = step_down({name: result["p"] for name, result in found.items()})
    return {name: result | {"p_holm": adjusted[name]} for name, result in found.items()}


def check_cost(text):
    arms = arms_of("redundant", "full", "tokens", 2000)
    for arm, name in (("dedup_uniform", "MinHash + uniform"), ("fisher_per_token", "FisherSFT"), ("recipe", "recipe")):
        assert f"{name} {np.mean([r[0]['selection_seconds'] for r in arms[arm].values()]):.1f} s" in text
    pool = np.mean([np.mean([r[0]["pool_tokens"] for r in of.values()]) for of in arms.values()])
    assert f"2,000 of {pool:,.0f} response tokens" in text
    bench = json.loads((HERE / "benchmarks" / "results" / "tokens.json").read_text())
    of = bench["settings"]
    assert f"{of['pool']:,} examples with {of['tokens']:,} response tokens" in text
    assert f"{of['extraction seconds for 6,000 dialogues']:.0f} s for the features" in text
    assert f"{bench['rows'][0]['seconds']:.0f} s for {of['picks']:,} picks" in text and bench["rows"][0]["kind"] == "ours"
    assert f"{of['tokens'] * of['d'] * 4e-9:.1f} GB there, {50e3 * 200 * 4096 * 4e-9:.0f} GB for 50,000" in text


def check_limits(text):
    pools = [arms_of(pool, "full", "tokens", 2000) for pool in ("clean", "redundant", "imbalanced", *PROTOCOL)]
    sizes = [np.mean([r[0]["pool_tokens"] for of in arms.values() for r in of.values()]) for arms in pools]
    assert f"2,000 of {min(sizes):,.0f} to {max(sizes):,.0f} response tokens" in text
    (steps,) = {int(r[0]["steps"]) for arms in pools for of in arms.values() for r in of.values()}
    few, more = sorted({len(of) for arms in pools for of in arms.values()})
    assert f"{steps} optimiser steps" in text and f"{few} or {more} seeds" in text
    results = said("clean")
    family = results["fisher_per_token"]["family"]
    spreads = [(r["high"] - r["low"]) / 2 / quantile(0.975, 4) * np.sqrt(5) for r in results.values()]
    least = quantile(1 - 0.025 / family, 4) * np.median(spreads) / np.sqrt(5)
    assert f"{few} seeds and {family} arms a difference must be about {least:.2f} nats" in text
    assert f"p = {2 / 2**few:.3f} with {few} seeds and {2 / 2**more:.3f} with {more}" in text
    trained = {arm: np.mean([r[0]["trained_all_tokens"] for arms in pools for r in arms[arm].values()])
               for arm in ("fisher_per_token", "uniform")}  # fmt: skip
    assert f"{trained['fisher_per_token'] / trained['uniform']:.2f} times uniform's tokens" in text


# --- README's table of the sixteen systems -----------------------------------------------------------------------------

SELECTORS = {
    "FisherSFT": "fisher_per_token",
    "IFD": "ifd",
    "SLearnLLM": "slearn",
    "AdaICL": "adaicl",
    "LLMaAA": "llmaaa_k_means",
    "SPaRFT": "sparft",
    "ISA": "isa",
}
INTERVAL = rf"({NUMBER}) \[({NUMBER}), ({NUMBER})\] \((better|worse|tie)\)"


def rows_of_study(name):
    path = RESULTS / name / "rows.json"
    return json.loads(path.read_text()) if path.is_file() else []


def families(differences):
    """{name: differences by seed} of one family of Holm's as {name: Student's result with `p_holm`}."""
    found = {name: student(d) for name, d in differences.items()}
    adjusted = step_down({name: one["p"] for name, one in found.items()})
    return {name: one | {"p_holm": adjusted[name]} for name, one in found.items()}


def by_seed(rows, value, **which):
    return {row["seed"]: value(row) for row in rows if all(row[name] == wanted for name, wanted in which.items())}


def differ(rows, value, one, two, **which):
    """An arm minus another in the seeds that have both, in their order."""
    a, b = (by_seed(rows, value, arm=arm, **which) for arm in (one, two))
    return [a[seed] - b[seed] for seed in sorted(set(a) & set(b))]


def found_in(cell, expected, good=-1):
    """Each interval of a cell is one of the expected, in order; `good`: the sign that is better."""
    shown = re.findall(INTERVAL, cell)
    assert len(shown) == len(expected), cell
    for (mean, low, high, verdict), one in zip(shown, expected, strict=True):
        for got, name in ((mean, "mean"), (low, "low"), (high, "high")):
            same(got, one[name])
        sure = "better" if np.sign(one["mean"]) == good else "worse"
        assert verdict == ("tie" if one["p_holm"] >= 0.05 else sure), (cell, one)


def of_mixtures():
    """Every arm minus UniMax with the poison, over the seeds that have all arms at the whole budget."""
    rows = [row for row in rows_of_study("08_data_mixtures") if row["pool"] == "poison" and "half" not in row["arm"]]
    arms = {row["arm"] for row in rows}
    whole = [seed for seed in range(5) if {row["arm"] for row in rows if row["seed"] == seed} == arms]
    rows = [row for row in rows if row["seed"] in whole]
    others = sorted(arms - {"UniMax"})
    return families({arm: differ(rows, lambda row: np.mean([*row["nll"].values()]), arm, "UniMax") for arm in others})


def of_replay():
    rows, high, low = rows_of_study("09_keep_learning"), "constant, highest rate", "constant, lowest rate"
    warm, five, half = "re-warm, re-decay", "re-warm, 5% replay", "re-warm, 50% replay"
    pairs = [(warm, low, "new"), (warm, low, "old"), (warm, high, "new"), (five, warm, "old"), (five, warm, "new")]
    pairs += [("re-decay without warm-up", warm, side) for side in ("old", "new")]
    pairs += [(half, "A and B from scratch", side) for side in ("old", "new")]
    found = families({pair: differ(rows, lambda row, s=pair[2]: row[s], *pair[:2], shift="strong") for pair in pairs})
    return [found[five, warm, side] for side in ("old", "new")]


def of_exmate():
    """The loss at c = 0.05 minus plain fine-tuning's, and at c = 100 in the family of strengths."""
    rows = rows_of_study("10_objectives")

    def margin(row):
        gap = np.subtract(row["good_test_after"], row["bad_test_after"])
        return (gap[::2] + gap[1::2]).mean()

    numbers = {"loss": lambda row: -sum(row["good_test_after"]) / sum(row["tokens_test"]), "margin": margin}
    numbers["bad"] = lambda row: np.mean(row["bad_train_after"])  # before, all arms are the same
    pairs = [(arm, "MLE") for arm in ("ExMATE, c = 5", "ExMATE, c = 100", "MATE, c = 1")]
    pairs += [("DPO + ExMATE, c = 100", "DPO + MLE")]
    strength = families({(one, name): differ(rows, of, one, two) for one, two in pairs for name, of in numbers.items()})
    return student(differ(rows, numbers["loss"], "ExMATE", "MLE")), strength["ExMATE, c = 100", "loss"]


def of_spin():
    rows = rows_of_study("10_self_play")

    def loss(row):
        return -sum(row[f"data_round_{len(row['steps'])}"]) / sum(row["tokens_test"])

    return [families({what: differ(rows, loss, "SPIN", f"SFT, equal {what}")})[what] for what in ("tokens", "seconds")]


def of_teacher():
    rows = rows_of_study("10b_teacher")
    lines, placebo = "teacher's lines", "teacher's lines and shuffled ranks"
    ranking = f"{lines} and ranking"
    second = families({of: differ(rows, lambda row, o=of: row[o], ranking, placebo) for of in ("tau", "teacher_score")})
    fourth = families({of: differ(rows, lambda row, o=of: row[o], ranking, lines) for of in ("nll_people", "surprise")})
    return second["tau"], fourth["nll_people"]


def over_items(d, seed=0):
    """The mean with the percentile interval of a bootstrap of our own; what another bootstrap says is near it."""
    d = np.asarray(d, dtype=float)
    means = d[np.random.default_rng(seed).integers(0, len(d), (4000, len(d)))].mean(1)
    return d.mean(), *np.quantile(means, [0.025, 0.975])


def near_in(cell, expected):
    shown = re.findall(INTERVAL, cell)
    assert len(shown) == len(expected), cell
    for (*numbers, verdict), d in zip(shown, expected, strict=True):
        mean, low, high = map(float, numbers)
        own = over_items(d)
        assert mean == pytest.approx(own[0], abs=6e-4) and verdict == (
            "tie" if low <= 0 <= high else "better" if high < 0 else "worse"
        )
        assert [low, high] == pytest.approx(own[1:], abs=0.08 * (own[2] - own[1]) + 1e-3)


def of_ratings():
    """Squared errors by sentence, mean over the draws: mean minus mode, and the mean by a line minus the constant."""
    scale, one, two = np.arange(1, 10), [], []
    for row in rows_of_study("12_decide_and_merge"):
        if row["part"] == "ratings":
            p, y, n = np.array(row["p"]), np.array(row["truth"]), row["labelled"]
            mean, mode = p @ scale / p.sum(1), scale[p.argmax(1)]
            slope, start = np.polyfit(mean[:n], y[:n], 1)
            error = {name: (said - y) ** 2 for name, said in (("mean", mean), ("mode", mode), ("none", y[:n].mean()))}
            line = (start + slope * mean - y) ** 2
            one.append((error["mean"] - error["mode"])[n:])
            two.append((line - error["none"])[n:])
    return np.mean(one, axis=0), np.mean(two, axis=0)


def of_documents():
    """Log-loss by question of the merged model, minus the mean of its parts', and minus that of one model of all data."""
    parts, whole = [], []
    rows = [row for row in rows_of_study("12_decide_and_merge") if row["part"] in MERGING]
    for fold in sorted({row["seed"] for row in rows}):
        of = [row for row in rows if row["seed"] == fold]
        if len(of) < len(MERGING):
            continue
        p = {name: np.array(chances) for row in of for name, chances in row["p"].items()}
        at = np.array(of[0]["right"])
        loss = {name: -np.log(np.maximum(one[np.arange(len(at)), at], 1e-6)) for name, one in p.items()}
        single = np.mean([one for name, one in loss.items() if name.startswith("part ")], axis=0)
        parts.append(loss["merged | re-ranker"] - single)
        whole.append(loss["merged | re-ranker"] - loss["all data, as many steps | re-ranker"])
    return np.concatenate(parts), np.concatenate(whole)


MERGING = ("merged", "merged, FisherSFT parts", "all data, as many steps", "no tuning")


def check_systems(text):
    _, lines = table_of(text)
    cells = {line[0].partition(",")[0]: line for line in lines}
    assert len(cells) == 16 and all(re.search(r"\[\d{4}\.\d{5}\]", line[0]) for line in lines)
    for name, arm in SELECTORS.items():
        shown = re.findall(rf"({NUMBER}) \((better|worse|tie)\)", cells[name][3])
        for (value, verdict), pool in zip(shown, ("redundant", "clean"), strict=True):
            same(value, said(pool)[arm]["mean"])
            assert verdict == said(pool)[arm]["verdict"]
    mixed = of_mixtures()
    found_in(cells["UtiliMax"][3], [mixed["UtiliMax, risk 0.1"]])
    found_in(cells["MEDU"][3], [mixed["MEDU, then UtiliMax"]])
    rho = float(re.search(r"ρ ([+-][\d.]+)", cells["MEDU"][3])[1])
    read = json.loads((RESULTS / "08_data_mixtures" / "utilities.json").read_text())
    ranks = [np.mean([one["known"][how]["utilities"] for one in read], axis=0).ravel() for how in ("MEDU", "ablation")]
    assert rho == pytest.approx(stats.spearmanr(*ranks).statistic, abs=0.006)
    found_in(cells["Continual pre-training"][3], of_replay())
    weak, strong = of_exmate()
    found_in(cells["ExMATE"][3], [strong])
    assert f"within {weak['margin']:.4f} of it" in cells["ExMATE"][3]
    found_in(cells["SPIN"][3], of_spin())
    seeds = {row["seed"] for row in rows_of_study("10b_teacher")}
    if len(seeds) > 1:
        tau, loss = of_teacher()
        one, two, counted = cells["An LLM as reference"][3].split("; ")
        assert counted == f"{len(seeds)} seeds"
        found_in(one, [tau], good=1)
        found_in(two, [loss])
    else:  # an interval needs two
        assert cells["An LLM as reference"][3] == ("one seed: not judged" if seeds else "no rows yet")
    table = rows_of_study("11_self_made_data")
    items = {arm: by_seed(table, lambda row: np.array(row["right"], dtype=float), arm=arm) for arm in ("RFT", "SFT")}
    d = [items["RFT"][seed] - items["SFT"][seed] for seed in sorted(items["SFT"])]
    own = student([one.mean() for one in d], np.sqrt(np.mean([one.var(ddof=1) / len(one) for one in d])))
    ((mean, low, high, verdict),) = re.findall(INTERVAL, cells["Rejection sampling (RFT)"][3])
    for got, of in ((mean, "mean"), (low, "low"), (high, "high")):
        same(got, own[of])
    assert (verdict == "tie") >= (own["p"] >= 0.05) and (verdict == "tie") <= (5 * own["p"] >= 0.05)  # a family of five
    near_in(cells["RAIL"][3], of_ratings())
    near_in(cells["Rethinking Data"][3], of_documents())


# --- the tests -------------------------------------------------------------------------------------------------------

README = (HERE / "README.md").read_text()


@pytest.mark.parametrize("name", ["found", "replay", "pays", "questions", "related", "systems", "cost", "limits"])
def test_readme_says_what_the_rows_say(name):
    globals()[f"check_{name}"](section(README, name))


def test_a_changed_digit_is_found():
    """A digit of each of some numbers is changed, and a word: every time it fails."""
    for name in ("found", "replay", "pays", "questions", "systems"):
        text = section(README, name)
        drawn = text.find("| RAIL")  # from there on intervals are bootstraps, and near is enough
        places = [m.end() - 1 for m in re.finditer(NUMBER, text[:drawn])]
        for place in places[:: max(len(places) // 6, 1)]:
            wrong = text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :]
            with pytest.raises(AssertionError):
                globals()[f"check_{name}"](wrong)
    for name, old, new in (
        ("pays", "**worse**", "tie"),
        ("related", "| 38 | ", "| 39 | "),
        ("questions", "**tie**", "**holds**"),
    ):
        with pytest.raises(AssertionError):
            globals()[f"check_{name}"](section(README, name).replace(old, new, 1))


# --- the notebooks that record a table -------------------------------------------------------------------------------


def lessons():
    """What each notebook of the course recorded, of those that record their verdicts (`verdicts.listed`)."""
    for path in sorted((HERE / "notebooks").glob("0*.ipynb")):
        cells = json.loads(path.read_text())["cells"]
        if any("verdicts.listed(" in "".join(cell["source"]) for cell in cells):
            recorded = {}
            for cell in cells:
                for output in cell.get("outputs", []):
                    recorded |= output.get("data", {}).get("application/vnd.fisherlib.record+json", {})
            yield path.stem, recorded


def test_notebooks_recorded_what_the_rows_say():
    """Of a notebook that was changed and not run again this fails too: its outputs are stale."""
    for name, recorded in lessons():
        asked = {}
        for pool, part, arm, *numbers, verdict in recorded["table"]:
            result = said(pool, part=part)[arm]
            wanted = [result[column] for column in ("mean", "low", "high", "margin", "p_holm")]
            assert numbers == pytest.approx(wanted, abs=1e-8), (name, pool, part, arm)
            assert verdict == result["verdict"], (name, pool, part, arm)
            asked.setdefault((pool, part), set()).add(arm)
        assert all(arms == set(said(pool, part=part)) for (pool, part), arms in asked.items())
        if name == "05_fine_tuning":
            check_claims(recorded["summary"])
        if name == "05b_why":
            triples = sorted([result["mean"], result["low"], result["high"]] for result in moved().values())
            assert np.array(sorted(recorded["moved"].values())) == pytest.approx(np.array(triples), abs=1e-8)
            assert sorted(recorded["verdicts"].values()) == sorted(word(result) for result in moved().values())


def check_claims(summary):
    """The claims of notebook 05, each with its budgets: where the sign agrees, where that is sure, and against it."""
    _, lines = table_of(summary)
    assert len(lines) == sum(len(measures) for *_, measures in QUESTIONS.values())
    for claim, what, difference, seeds, counts, verdict, _ in lines:
        (arm, sign, reference, _), *others = (about for start, about in QUESTIONS.items() if claim.startswith(start))
        assert not others
        metric, setting, pool, budget = re.fullmatch(r"(.*?): (.*), (\w+) pool, (.*)", what).groups()
        unit = budget.split()[1]
        said_of_it, result, least, (run, agree, sure, against) = claimed(
            pool, arm, sign, reference, metric, WHERE[setting], unit
        )
        for value, column in zip(re.findall(NUMBER, difference), ("mean", "low", "high"), strict=True):
            same(value, result[column])
        assert (budget, counts) == (f"{least:,} {unit}", f"{agree}, {sure}, {against} of {run}")
        assert (int(seeds), verdict) == (result["seeds"], f"**{said_of_it}**")
