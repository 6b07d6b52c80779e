"""Every notebook and solution through papermill, with claims about what it recorded; one twice, one sabotaged."""

import json
import math
import os
import re
import subprocess
import sys
from functools import partial
from itertools import pairwise

import nbformat
import numpy as np
import pandas as pd
import papermill
import pytest
import torch
from nbformat.v4 import new_code_cell
from transformers import LlamaConfig, LlamaForCausalLM

import fisherlib as fl
from fisherlib.course import notebook
from fisherlib.course.notebook import NOTEBOOKS, results
from fisherlib.course.notebook.committed import refuse_stderr
from tests.notebooks.test_static import ALL

QUICKSTART = NOTEBOOKS / "00_quickstart.ipynb"
MINUTES = 10  # for a run of seconds
pytestmark = pytest.mark.slow
run = partial(notebook.run, progress=False, minutes=MINUTES)


def claims_00(r):
    pools, arms = {"with copies", "clean"}, {"uniform", "MinHash + uniform", "FisherSFT", "recipe"}
    assert set(r["information"]) == set(r["heads"]) == set(r["versus_uniform"]) == set(r["advised"]) == pools
    for known in r["information"].values():
        assert set(known) == arms and known["FisherSFT"] == max(known.values())
    for differences in r["heads"].values():  # of as many draws as the smoke profile makes
        assert set(differences) == arms - {"uniform"} and {d["count"] for d in differences.values()} == {2}
    alike, apart = r["heads"]["clean"]["MinHash + uniform"], r["heads"]["with copies"]["MinHash + uniform"]
    assert alike["mean"] == alike["low"] == alike["high"] == 0  # no copies to take out: the uniform draw itself
    assert apart["mean"] != 0 and apart["low"] < apart["mean"] < apart["high"]
    assert len({steps for _, steps, _ in r["trained"]}) == 1
    for nll, _, tokens in r["trained"]:
        assert nll < r["untuned"] and 130 < tokens <= 150  # every arm learned something, at one budget
    for differences in r["versus_uniform"].values():
        assert set(differences) == {"FisherSFT"}  # what the smoke profile tunes
        assert all(d["low"] <= d["mean"] <= d["high"] and d["low"] < d["high"] for d in differences.values())
    assert len(r["agree"]) == 2  # the study has FisherSFT on both pools
    (copied, bent), (clean, straight) = (r["numbers"][pool] for pool in ("with copies", "clean"))
    assert copied == 0.9 and clean == 0 and bent > 0.8 and straight > 0.8
    assert r["advised"]["with copies"] == "MinHash + uniform" and r["written"] in arms
    naive, lazy = r["looks"]
    assert lazy < naive
    bends = fl.study.verdicts.bends(fl.study.verdicts.load(), tokens=2000)  # near the border the study has ties and wins
    assert set(bends["verdict"][(bends["bend"] - 1.1).abs() < 0.02]) == {"tie", "better"}


def claims_00_solutions(r):
    assert 0 < r["second"] < r["first"] / 2  # a copy after the original
    assert r["tokens_of_picks"] > r["tokens_of_pool"] and r["correlation"] > 0.95
    assert r["near_copies"] == 0.9


def claims_02(r):
    assert r["rank"] >= 1 and 1 - 1 / math.e <= r["worst_ratio"] < 1 and 0.5 < r["exactly_optimal"] <= 1
    assert r["knapsack_worst"][2] >= max(r["knapsack_worst"][:2]) and r["knapsack_worst"][2] <= 1 + 1e-9
    naive = max(r["evaluations"], key=int)
    assert r["evaluations"]["1"] < r["evaluations"]["16"] < r["evaluations"][naive]
    assert all(0 < share <= 1 + 1e-9 for share in r["guaranteed"]) and r["guaranteed"][-1] > 1 - 1e-6
    assert 100 * (1 - 1 / math.e) / 2 < r["token_certificate"] <= 100
    assert r["correlation"] > 0.95 and r["mean_tokens"]["gain"] > r["mean_tokens"]["whole pool"]
    assert r["information"]["gain per token"] > max(r["information"]["uniform"], r["information"]["mean pooling"])
    # sigma0^2: no pick changes at the usual one; far above the eigenvalues some do, and below them hardly any
    assert all(kept[r["priors"].index(1)] == 1 for kept in r["kept"].values())
    per_token = dict(zip(r["priors"], r["kept"]["gain per token"], strict=True))
    assert per_token[1e6] < 0.8 < min(share for prior, share in per_token.items() if prior <= 1) and 1 < r["scale"] < 1e6
    assert r["copies"] == sorted(r["copies"], reverse=True)
    assert all(0.9 * law < gain <= law for gain, law in zip(r["copies"][1:], r["law"], strict=True))
    assert r["copies"][1] < 0.3 * r["copies"][0] < 0.6 * r["another"]


def claims_02_solutions(r):
    assert 0.75 <= r["share_of_optimum"] < 1 and r["leverage"] < r["width"]
    assert r["gains"] < r["naive_gains"]


def claims_01(r):
    for lines in r["agreement"].values():
        plain, weighted = (np.mean(lines[name], axis=0) for name in ("log det V", "log det V_w"))
        assert plain[0] == pytest.approx(1, abs=1e-6) and weighted[0] == pytest.approx(1, abs=1e-6)  # uniform predictions
        assert all(before > after for before, after in pairwise(plain[:5]))  # sharper predictions, a worse ranking
        assert all(weighted[1:] > plain[1:])
        assert plain[3] < 0.85 < weighted[2]  # it does break, and the weights repair much of it
    assert 0 < r["too_high"] < 2 < r["too_low"]  # nats per eigenvalue
    assert 0 < r["gamma"] < 1e-6
    assert r["area"]["D"] < r["area"]["mean"] < r["area"]["axis"]
    assert r["scatter"] == pytest.approx(1, abs=0.1)  # the fits' covariance is the inverse of H
    shares = list(r["copy"].values())  # a copy counts the more, the larger the prior
    assert shares == sorted(shares) and shares[0] < 0.1 and shares[-1] > 0.9


def claims_01_solutions(r):
    for agreement in r["agreement"].values():
        assert min(agreement["trace"], agreement["geometric mean"]) > agreement["log det V"]
    assert r["agreement"]["drawn at random"]["trace"] > r["agreement"]["drawn at random"]["geometric mean"]
    assert r["pdet"] == pytest.approx(3 * 0.7 * 0.2 * 0.1) and r["fisher"] < 1e-9


def claims_03(r):
    assert r["mapped"] == r["picks"] and len(set(r["picks"])) == len(r["picks"])
    for alone, engine in r["right"].values():
        assert alone < engine == 20  # low precision alone misses larger twins, the engine none
    assert r["caution"] > 1
    assert all(0 < error < 0.01 for error in r["wrong"].values())
    assert r["wrong"]["as they are"] < 4 * min(r["wrong"]["rotated"], r["wrong"]["whitened"])  # another basis does not pay
    naive = r["looks"]["algorithm 1"]
    assert naive == 5 * 20 - 10 and all(5 <= count <= naive for name, count in r["looks"].items() if name != "fl.select")
    assert r["kept"]["everything"][0] == 1
    assert all(0.63 < share <= 1.01 and 0 < least <= 1 + 1e-9 for share, least in r["kept"].values())
    assert r["kept"]["uniform"][0] < r["kept"]["compressed to 36"][0]  # compressing loses less than choosing at random
    assert all(seconds > 0 for seconds in [*r["took"].values(), *r["clock"].values(), *r["peaks"].values()])
    assert len(r["side"]["memory"]) + len(r["side"]["compute"]) == 6  # of the roof: every step is on one side of it
    assert 5 <= r["forecast"] <= 5 * naive


def claims_03_solutions(r):
    assert r["finalists"] == [0, 1, 2, 4] and r["batch"] == 16 and r["error"] < 1e-12
    assert 1000 / 3 <= r["intensity"] < 576


def claims_04(r):
    assert r["agree"] > 0.98 and 0 < r["bias"] < 0.5  # theory ranks the errors, and is too low
    slope = next(of for of in r["slopes"] if (of["pool"], of["error"], of["method"]) == ("isotropic", "max", "FisherSFT"))
    assert slope["low"] <= slope["value"] <= slope["high"] and -0.8 < slope["value"] < -0.4
    assert 0 <= r["holds"] <= len(r["slopes"]) == 16
    assert r["over"][0] > r["over"][-1] > 0.9 and r["rates"][0] > r["rates"][1]  # why it is not -1/2
    assert r["gain"]["rare directions, max error"][0] > 1.8  # uniform's error over FisherSFT's, 25 sentences
    ends = {of["method"]: of["value"] for of in r["ends"]}  # largest errors over FisherSFT's
    assert ends["uniform"] > 1.8 > 1.3 > ends["sentence optimal"]
    # before any label: uniform is in trouble on the rare pool, and not on words
    levers = {name: (of["FisherSFT"], of["uniform"]) for name, of in r["levers"].items()}
    assert all(ours >= 1 and uniform >= 1 for ours, uniform in levers.values())
    assert levers["rare directions"][1] > 3 * max(
        uniform for name, (_, uniform) in levers.items() if name != "rare directions"
    )
    assert all(0.75 < of["value"] < 1.25 for of in r["words"])
    assert r["shares"][1] < r["shares"][0]  # with noisy features the weights speak against the rare sentences
    assert min(r["spoilt"]) > 1.3 and r["spent"] > 0.3  # long outliers: the largest and the mean error are lost
    logit, kl = r["plain"]["mean logit error"], r["plain"]["mean KL"]  # certain predictions: the tiny ridge, the wise one
    assert logit[0] > 1.3 and kl[len(kl) // 2] < 0.95
    ours, placebo = ({of["level"]: of for of in r["map"]}[name] for name in ("FisherSFT", "placebo"))
    cells = {name: sum(of[kind] for kind in ("better", "tie", "worse")) for name, of in (("a", ours), ("b", placebo))}
    assert cells["a"] == cells["b"] and ours["better"] > placebo["better"]
    for by in ("metric", "near-copies", "logit scale"):  # each way of counting counts every cell
        assert sum(of[k] for of in r["where"] if of["by"] == by for k in ("better", "tie", "worse")) == cells["a"]


def claims_04_solutions(r):
    assert r["measured"] == pytest.approx(r["square"], rel=0.15)
    assert 1 < r["on_the_curve"] < r["factor"] and r["verdict"] == "worse"
    assert r["outliers"][0] > 1 > r["outliers"][1]


def claims_05(r):
    assert len(r["verdicts"]) == len(fl.study.claims.CLAIMS)
    assert {verdict for *_, verdict in r["verdicts"]} <= {"holds", "tie", "fails", "not run"}
    assert all(low <= mean <= high for mean, low, high in r["differences"])
    assert all(text in r["summary"] for text, *_ in r["verdicts"])
    # five seeds: what the intervals promise, and what the bootstrap keeps of it
    assert r["covers"]["Student's t"][1] > r["covers"]["bootstrap"][1]
    assert set(r["live"]) == {"uniform", "fisher_per_token"} and len(r["commands"]) == 2
    assert set(r["needed"]) == set(fl.study.POOLS)
    # What the lesson says in words of the committed rows.
    said = {(pool, part, arm): (mean, verdict) for pool, part, arm, mean, *_, verdict in r["table"]}
    alone = {arm: of for (pool, part, arm), of in said.items() if (pool, part) == ("clean", "test")}
    assert not any(verdict == "better" for _, verdict in alone.values())
    ends = {(pool, part, arm): (low, high) for pool, part, arm, _, low, high, *_ in r["table"]}
    assert ends["clean", "test", "fisher_per_token"][0] < 0 < ends["clean", "test", "fisher_per_token"][1]
    assert said["redundant", "test", "fisher_per_token"][1] == said["redundant", "test", "dedup_uniform"][1] == "better"
    for pool in fl.study.POOLS:
        others = [said[pool, "test", arm][0] for arm in ("fisher_per_token", "recipe")]
        assert said[pool, "test", "longest"][0] > max(0, *others)
    assert said["imbalanced", "rest", "fisher_per_token"][0] < 0 < said["imbalanced", "majority", "fisher_per_token"][0]
    assert said["imbalanced", "test", "fisher_per_token"][0] < 0 < said["imbalanced", "own mix", "fisher_per_token"][0]
    tries, better, worse, below, above = r["heads"]
    assert tries == 15 and better == worse == 0 and below > 0 and above > 0
    assert r["rival"][0] == 0 and r["rival"][1] == "tie" and r["shift"] < -0.9


def claims_05_solutions(r):
    assert 0 < r["ratio"] < 1 and r["sizes"][0] > 2 * r["sizes"][1] > 0
    assert r["holm"] == pytest.approx([0.02, 0.02])


def claims_05b(r):
    assert {"uniform where FisherSFT looks", "I-optimal", "6 epochs"} <= set(r["moved"])
    assert set(r["verdicts"].values()) <= {"better", "worse", "tie"} and set(r["verdicts"]) == set(r["moved"])
    assert all(low <= mean <= high for mean, low, high in r["moved"].values())
    assert set(r["confirmed"]) == {"guide", "guide_redundant", "code_mix"}
    assert ("criteria are **met**" in r["summary"]) == all(r["confirmed"].values())
    assert all(set(groups) == {"pool", "uniform", "FisherSFT", "recipe"} for groups in r["medians"].values())
    # What the lesson says in words of the committed rows.
    assert set(r["verdicts"].values()) == {"tie"} and all(r["confirmed"].values())
    assert r["moved"]["uniform where FisherSFT looks"][0] < 0 < r["moved"]["FisherSFT inside clusters"][0]
    assert max(r["moved"], key=lambda name: abs(r["moved"][name][0])).startswith("6 epochs")
    assert r["epochs"]["6"] > r["epochs"]["2"] < r["epochs"]["1"]
    assert r["rival"][0] > 0 and r["rival"][1] == "tie"
    code = {(part, arm): (mean, verdict) for pool, part, arm, mean, *_, verdict in r["table"] if pool == "code_mix"}
    assert code["majority", "recipe"][1] == code["own mix", "recipe"][1] == "worse"
    assert code["dialogue", "recipe"][0] == min(mean for (_, arm), (mean, _) in code.items() if arm == "recipe")


def claims_05b_solutions(r):
    assert r["interval"][0] < r["interval"][1] and 0 < r["reduction"] < 9
    assert r["luck"] == pytest.approx(0.688, abs=0.01)  # 1.5388 / sqrt(5): tables of order statistics
    assert 0 < r["share"] < 1


def claims_06(r):
    exam, arms = r["exam"], {"no fine-tuning", "uniform", "recipe"}
    numbers = {"likelihood", "prompt's help", "characters"}
    assert set(exam) == {"always A", "longer", "says a letter", "leans to a letter", *numbers}
    assert all(set(found) == {"shuffled", "loop", "elsewhere"} for found in exam.values())
    assert all(share == 0.5 for share, _ in exam["always A"].values())
    for name, found in exam.items():  # nobody is heard who was not right more often than not
        assert name not in r["heard"] or min(found[kind][0] for kind in ("shuffled", "loop")) > 0.5
    assert r["judge"] == "smollm2-135m"  # the real server, not a judge of the environment
    assert r["asked_about_arms"] == ("says a letter" in r["heard"])  # no judge, no verdict
    assert ("no judge, no verdict" in r["summary"]) == (not r["heard"])
    assert set(r["nll"]) == set(r["scores"]) == arms and abs(sum(r["scores"].values())) < 1e-9
    assert all(set(shares) == arms - {"uniform"} for shares in r["wins"].values()) and numbers <= set(r["wins"])
    assert 2 <= r["judgements"] <= 2 * 3 + r["asked_about_arms"] * 2 * 2 * 3  # orders x tests, and orders x prompts x pairs
    # What the text says of the committed run: probable is not good, a letter knows nothing, and one number passes.
    committed = results(NOTEBOOKS / "06_judging_text.ipynb")
    assert committed["exam"]["likelihood"]["loop"][0] < 0.3 < 0.9 < committed["exam"]["likelihood"]["shuffled"][0]
    assert committed["exam"]["prompt's help"]["loop"][0] > committed["exam"]["likelihood"]["loop"][0]
    assert "says a letter" not in committed["heard"] and "likelihood" not in committed["heard"]
    assert committed["chief"] in committed["heard"]
    assert not committed["asked_about_arms"] and set(committed["nll"]) == arms | {"FisherSFT"}


def claims_06_solutions(r):
    assert r["share"] == pytest.approx(0.32) and r["prompts"][1] == pytest.approx(4 * r["prompts"][0])
    assert r["mine"] == pytest.approx(r["library"], abs=1e-6)


def claims_07(r):
    live, arms = r["live"], {"uniform", "dedup_uniform", "fisher_per_token", "recipe", *fl.study.RELATED}
    arms |= set(fl.selectors.installed())
    assert set(live["repeats"]) == set(live["asks"]) == set(r["tokens"]) == arms
    assert all(0 <= share < 1 for share in live["repeats"].values())
    assert all(110 < tokens <= 150 for tokens in r["tokens"].values())
    asked = {arm for arm, seconds in live["asks"].items() if seconds > 0}
    assert asked == {arm for arm in arms if arm in fl.study.SCORES}
    overlap = np.array(live["overlap"])
    assert overlap.shape == (len(arms), len(arms)) and (overlap == overlap.T).all() and (np.diag(overlap) == 1).all()
    assert overlap.min() >= 0 and len(np.unique(overlap)) > 5  # the methods do differ
    assert 1 - 1 / math.e <= r["worst"]["coverage"] <= 1 <= r["worst"]["radius"] <= 2 and r["worst"]["stuck"] > 0.9
    assert 0 < r["kept"][0] <= r["kept"][1] == 40
    assert set(r["advice"]) == set(r["differences"]) <= set(fl.study.POOLS)
    for pool, found in r["differences"].items():
        assert all(low <= mean <= high for mean, low, high, _ in found.values())
        better = {arm for arm, (*_, verdict) in found.items() if verdict == "better"}
        assert r["advice"][pool] in (better or {"uniform"})  # a tie is no reason to pay
    # What section 9 says in words of the committed rows.
    clean, redundant, imbalanced = (r["differences"][pool] for pool in fl.study.POOLS)
    doubt = {"ifd", "slearn", "adaicl", "adaicl_plus", "llmaaa_entropy"}
    assert all(found[arm][3] == "tie" for found in (clean, redundant, imbalanced) for arm in doubt)
    assert all(redundant[arm][0] > 0 for arm in doubt)
    seeing = {"dedup_uniform", "fisher_per_token", "ifd_then_fisher", "farthest_point", "facility_location", "recipe"}
    assert {arm for arm, found in redundant.items() if found[3] == "better"} == seeing
    assert min(redundant, key=lambda arm: redundant[arm][0]) == "dedup_uniform" == r["advice"]["redundant"]
    assert not any(found[3] != "tie" for found in (*clean.values(), *imbalanced.values()))
    assert sum(mean > 0 for mean, *_ in clean.values()) > len(clean) / 2 and clean["semhash"][0] == 0
    assert all(abs(f["ifd_then_fisher"][0] - f["fisher_per_token"][0]) < 0.01 for f in (clean, redundant, imbalanced))
    table, _ = fl.study.store.read(NOTEBOOKS / "results" / "07_related")
    share = fl.study.claims.composition(table, "imbalanced", "full", tokens=2000)["majority_share"]
    rare = {arm: share["uniform"] - share[fl.study.title(arm)] for arm in imbalanced}  # more rare domains than uniform
    assert min(rare[arm] for arm in ("fisher_per_token", "ifd_then_fisher", "recipe", "farthest_point", "sparft")) > 0.1
    assert max(rare[arm] for arm in (*doubt, "facility_location", "llmaaa_k_means", "semhash")) < 0.01


def claims_07_solutions(r):
    assert r["overlap"] == pytest.approx(1 / 15) and r["share"] == pytest.approx(5 / 6)
    assert r["chance"] == pytest.approx(0.898, abs=1e-3)  # Phi(1.2728): tables of the normal distribution


def claims_12(r):
    assert set(r["rmse"]) >= {"mean", "median", "mode", "mean, line", "constant", "raters' noise"}
    assert r["rmse"]["raters' noise"] < min(value for name, value in r["rmse"].items() if name != "raters' noise")
    merged, mean, log_z = r["merged"]
    assert merged == pytest.approx(mean + log_z, abs=1e-9) and log_z < 0  # so it is below the mean of its parts
    assert set(r["line"]) == {"0.0", "0.5", "1.0"} and all(0 < nll < 20 for nll in r["line"].values())
    recall = [r["recall"][k] for k in sorted(r["recall"], key=int)]
    assert recall == sorted(recall) and 0.4 < r["recall"]["1"] < 0.9 < r["recall"]["10"]
    assert all(low <= mean <= high for mean, low, high in r["intervals"].values())
    for name, sign in r["signs"].items():  # a sign is what its interval says
        _, low, high = r["intervals"][name]
        wanted = low > 0 if name.startswith("R3") else high < 0
        assert (sign == "appears") == wanted and (sign == "tie") == (low <= 0 <= high), name
    assert set(r["passed"]) == {"letter", "expectation"} and all(text in r["summary"] for text in ("RAIL", "judge", "RMSE"))


def claims_12_solutions(r):
    assert r["k"] == 2 and r["border"] == pytest.approx(1.76 / 1.44) and (r["median"], r["mean"], r["lost"]) == (1, 3, 0)


def claims_09(r):
    live, ends = r["live"], pd.DataFrame(r["live"]["ends"]).T  # a row for each arm
    assert len(set(live["bytes"])) == 1 and live["weights"] == 492_160
    assert set(ends.index) == {"lowest", "highest", "re-warm, re-decay", "with replay", "before B"}
    assert (ends["B"].drop("before B") < ends["B"]["before B"]).all()  # all learn, however short
    assert ends["B"]["highest"] < ends["B"]["lowest"] and ends["B"]["re-warm, re-decay"] < ends["B"]["lowest"]
    assert ends["A"]["with replay"] < ends["A"]["re-warm, re-decay"] and len(set(r["picks"])) == 4
    assert all(a >= b - 1e-9 for a, b in pairwise(r["gains"]))  # gains of a greedy choice never grow
    assert 100 <= r["rows"] <= 160 and set(r["answers"]) == {"Q1", "Q2", "Q3", "Q4", "Q5"}
    by = {
        name: pd.DataFrame(rows).set_index(["shift", "part", "arm", "side"]).sort_index()
        for name, rows in r["contrasts"].items()
    }
    assert {name: len(of) for name, of in by.items()} == {"Q1": 18, "Q2": 1, "Q3": 24, "Q5": 2}
    for of in by.values():
        assert (of["low"] <= of["mean"]).all() and (of["mean"] <= of["high"]).all() and (of["seeds"] >= 2).all()
    # What the text says of the committed rows.
    rewarm, fifth, mean = "re-warm, re-decay", "re-warm, 20% replay", by["Q1"]["mean"]
    table = pd.read_json(NOTEBOOKS / "results" / "09_keep_learning" / "rows.json")
    for shift in ("weak", "strong"):
        assert by["Q1"]["high"][shift, "a", rewarm, "B"] < 0 < by["Q1"]["low"][shift, "a", rewarm, "A"]
        little = mean[shift, "c", "re-warm, 5% replay"]
        assert by["Q1"]["high"][shift, "c", "re-warm, 5% replay", "A"] < 0 and -little["A"] > 5 * abs(little["B"])
        means = table[table["shift"] == shift].groupby("arm")[["old_before", "old", "new"]].mean()
        assert means["old_before"]["infinite"] > means["old_before"][rewarm]  # never annealed
        usual = means.drop(index=["constant, lowest rate", "A and B from scratch", "re-warm, 50% replay"])
        assert np.ptp(usual["new"]) < 0.4 * np.ptp(usual["old"])  # nearly the same place on B, far apart on A
        steep = means.loc[[rewarm, "re-warm, 5% replay", fifth, "re-warm, 50% replay"]]
        assert (steep["old"].diff().iloc[1:] < 0).all() and steep["new"].diff().idxmax() == "re-warm, 50% replay"
    assert by["Q2"]["mean"].iloc[0] > 0


def claims_09_solutions(r):
    assert r["rate"] == pytest.approx(0.2607, abs=1e-4)
    assert r["steps"] == pytest.approx([1.0, 1.9 / 1.099**0.5]) and r["longest"] > 4
    for shares in r["chosen"].values():
        chosen = [shares[weight] for weight in sorted(shares, key=float)]
        assert chosen == sorted(chosen) and chosen[-1] == 0.5  # the more A counts, the more of it; all that was tried


def claims_10(r):
    live = r["live"]
    assert live["loss"] == pytest.approx(math.log(2), abs=1e-3)  # a round begins there
    assert all(-1 <= cosine < 1 for cosine in live["cosine"]) and all(size > 0 for size in live["noise"])
    settles = {2: True, 0.8: True, 0.5: False, 0.4: False}  # beta above a half
    assert [end < 0.1 for end in live["ends"]] == list(settles.values())
    assert live["pushed"]["mean"] == pytest.approx(0.1 / 30) and live["pushed"]["sum"] < 1e-25
    usual = {kind: of["(4), c = 0.05"] for kind, of in live["strength"].items()}
    assert 0 < usual["siblings"] < usual["own, greedy"] < 0.05  # a tie at this c is arithmetic
    # What the text says of the committed rows.
    arms, asked = r["arms"], r["questions"]
    assert arms["MLE"]["bad"] > 0 and arms["MLE"]["loss"] < arms["before training"]["loss"]
    assert arms["before training"]["good learned"] == 0 and 0.5 < arms["before training"]["share"] <= 1
    assert abs(asked["a better surrogate for MLE?"]["ExMATE: loss"]["mean"]) < 0.02
    assert all(0 <= share <= 1 for share in r["ended"]) and len(r["ended"]) == 3 and r["cost"] > 1
    assert set(asked) >= {"displacement", "strength", "equal tokens", "equal seconds", "what moves", "told apart"}
    for table in asked.values():
        for one in table.values():
            assert one["verdict"] in (("one seed",) if one["seeds"] == 1 else ("higher", "lower", "tie"))
            assert (one["verdict"] in ("tie", "one seed")) == (one["p_holm"] >= 0.05)


def claims_10_solutions(r):
    assert r["losses"] == pytest.approx([-5, -50, -500], abs=1e-3)
    assert r["beta"] == pytest.approx(10 / 9) and r["orpo"] > -0.5 * math.log(0.5 * 0.4)


def claims_11(r):
    live = r["live"]
    assert live["written"] == 8 >= live["answer right"] >= live["equations too"] >= live["one for each list"]
    assert live["one for each list"] >= live["not the original's list"] >= 0
    assert all(0 <= share <= 1 for share in live["passed"]) and live["passed"] == sorted(live["passed"])
    assert r["kept"] == sorted(r["kept"]) and r["kept"] == pytest.approx(r["law"], abs=0.4)
    from fisherlib.course.study import self_made_claims

    assert set(r["claims"]) == set(self_made_claims.PAPER) and set(r["bridge"]) == set(self_made_claims.BRIDGE)
    for mean, low, high, p, verdict, seeds in [*r["claims"].values(), *r["bridge"].values()]:
        assert (verdict == "not run") == (seeds == 0)
        if verdict == "not run":
            continue
        assert low <= mean <= high and 0 <= p <= 1
        assert verdict == ("tie" if p >= 0.05 else "above" if mean > 0 else "below")
    assert ("**appears**" in r["summary"]) == (r["claims"]["own solutions: RFT minus SFT"][4] == "above")
    committed = json.loads((NOTEBOOKS / "results" / "11_self_made_data" / "rows.json").read_text())
    assert r["rows"] == len(committed) and all(count > 0 for count in r["picks"].values())


def claims_11_solutions(r):
    assert r["chance"] == pytest.approx(0.8) and r["number"] == pytest.approx(1.8047) and not r["right"]


def claims_08(r):
    useless = {shape: row for shape, row in r["far"]["r = K"].items()}
    assert len(useless) == 4 and max(useless.values()) < 0.2 < 0.5 < min(
        r["far"]["r = 0"].values()
    )  # the claim of section 4
    least, most = r["sweep"]
    assert (
        least[-1] < 0.01 < 0.5 * r["flat"]["shuffled words"] < most[-1]
    )  # low risk drops the useless source, high keeps it
    assert set(r["clock"]) == {"ablation", "MEDU", "in context"} and min(r["clock"].values()) > 0
    assert all(a >= 0 and b >= 0 for a, b in zip(*r["gaps"].values(), strict=True)) and 0 <= r["nearer"] <= 6
    assert all(len(losses) == 2 and 0 < min(losses.values()) < 20 for losses in r["live"].values()) and len(r["live"]) == 3
    assert set(r["cheap"]["rho"]) == {"MEDU", "in context"}
    if r["seeds"] > 1:
        assert all(low <= mean <= high for mean, low, high in r["differences"].values())
        assert r["weights"]["UtiliMax, risk 0"] < r["weights"]["UniMax"]  # without risk the poison loses weight


def claims_08_solutions(r):
    assert r["weights"] == pytest.approx([0.05, 0.15, 0.3, 0.5]) and r["gap"] == 0 and r["epochs"] == 2.5


def claims_10b(r):
    assert 0 < r["lost"] < 0.01 and r["spread"] >= 0 and set(r["steps"].values()) == {1}
    assert set(r["live"]) == {"first stage", "lines", "ranking", "shuffled"}
    assert all(0 < loss < 20 for loss in r["live"].values())
    mean, low, high = r["helps"]
    assert low <= mean <= high
    assert 0 <= r["rows"] <= 30 and set(r["verdicts"].values()) <= {"better", "worse", "tie"}
    assert len(r["verdicts"]) == (0 if r["rows"] < 12 else 12)


def claims_10b_solutions(r):
    assert r["spread"] == pytest.approx(0.01 * math.log(8)) and r["tied"] == [0, 0]


CLAIMS = {
    "10b_teacher.ipynb": claims_10b,
    "solutions/10b_teacher.ipynb": claims_10b_solutions,
    "12_decide_and_merge.ipynb": claims_12,
    "solutions/12_decide_and_merge.ipynb": claims_12_solutions,
    "08_data_mixtures.ipynb": claims_08,
    "solutions/08_data_mixtures.ipynb": claims_08_solutions,
    "09_keep_learning.ipynb": claims_09,
    "solutions/09_keep_learning.ipynb": claims_09_solutions,
    "10_objectives.ipynb": claims_10,
    "solutions/10_objectives.ipynb": claims_10_solutions,
    "11_self_made_data.ipynb": claims_11,
    "solutions/11_self_made_data.ipynb": claims_11_solutions,
    "07_related_selectors.ipynb": claims_07,
    "solutions/07_related_selectors.ipynb": claims_07_solutions,
    "06_judging_text.ipynb": claims_06,
    "solutions/06_judging_text.ipynb": claims_06_solutions,
    "05b_why.ipynb": claims_05b,
    "solutions/05b_why.ipynb": claims_05b_solutions,
    "05_fine_tuning.ipynb": claims_05,
    "solutions/05_fine_tuning.ipynb": claims_05_solutions,
    "00_quickstart.ipynb": claims_00,
    "solutions/00_quickstart.ipynb": claims_00_solutions,
    "02_greedy_selection.ipynb": claims_02,
    "solutions/02_greedy_selection.ipynb": claims_02_solutions,
    "03_gpu_selection.ipynb": claims_03,
    "solutions/03_gpu_selection.ipynb": claims_03_solutions,
    "04_known_truth.ipynb": claims_04,
    "solutions/04_known_truth.ipynb": claims_04_solutions,
    "01_softmax_fisher.ipynb": claims_01,
    "solutions/01_softmax_fisher.ipynb": claims_01_solutions,
}


def executed(name, folder, **parameters):
    """What a notebook records in the smoke profile, from a folder that is not the repository's."""
    folder.mkdir(exist_ok=True)
    recorded = run(NOTEBOOKS / name, folder / "out.ipynb", profile="smoke", parameters=parameters, cwd=folder)
    refuse_stderr(nbformat.read(folder / "out.ipynb", as_version=4), name)
    return recorded


@pytest.fixture(scope="module")
def small_model(tmp_path_factory, real):
    """A folder with a random model of two layers and the shipped tokenizer: trained in a tenth of a second."""
    torch.manual_seed(0)
    _, tokenizer = real
    size = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=2, initializer_range=0.2, **size)
    folder = tmp_path_factory.mktemp("small")
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("name", [path.relative_to(NOTEBOOKS).as_posix() for path in ALL if path != QUICKSTART])
def test_runs_and_its_claims_hold(tmp_path, small_model, name):
    """The arms of notebook 06 are tuned from the small model, for time; its judge is the shipped one. 12 tunes it too."""
    tuned = {"model": small_model} if name == "06_judging_text.ipynb" else {}
    CLAIMS[name](executed(name, tmp_path, **tuned))


def test_the_quickstart_keeps_its_claims_leaves_what_it_promises_and_says_the_same_twice(tmp_path, small_model):
    """With a small model, for time; the shipped one reads a user's own rows below."""
    first, second = (executed(QUICKSTART.name, tmp_path / folder, model=small_model) for folder in ("first", "second"))
    for name in ("information", "heads", "trained", "versus_uniform", "numbers", "picks"):
        assert first[name] == second[name], name
    left = tmp_path / "first" / "runs" / "00_quickstart"
    selection = fl.Selection.load(left / "selection.json")
    assert selection.indices.tolist() == first["picks"]
    subset = [json.loads(line) for line in (left / "subset.jsonl").read_text().splitlines()]
    assert len(subset) == len(selection) and all(row["prompt"] and row["response"] for row in subset)
    assert {p.name for p in left.glob("*.svg")} == {"comparison.svg", "ellipses.svg", "heads.svg", "information.svg"}
    CLAIMS[QUICKSTART.name](first)  # last: it takes the record apart


def test_the_key_of_a_judge_is_in_no_file_that_notebook_06_wrote(tmp_path, monkeypatch, small_model):
    """A judge of the environment takes the place of the local one; its key goes into requests and nowhere else."""
    secret = "sk-sentinel-51c2aa07"

    def points(text):  # it passes the examination, so that it is asked about the arms too; a loop has few different words
        return text[:1].isupper() + (text[-1:] in ".!?") + len(set(text.split())) / max(len(text.split()), 1)

    with fl.judging.rule_server(lambda a, b: "A" if points(a) > points(b) else "B", "from-outside") as judge:
        monkeypatch.setenv("FISHERLIB_JUDGE_MODEL", judge.model)
        monkeypatch.setenv("OPENAI_BASE_URL", judge.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", secret)
        small = {"arms": "uniform", "model": small_model}
        out = tmp_path / "out.ipynb"
        recorded = run(NOTEBOOKS / "06_judging_text.ipynb", out, profile="smoke", parameters=small, cwd=tmp_path)
    assert recorded["judge"] == "from-outside" and recorded["asked_about_arms"] and "says a letter" in recorded["wins"]
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"out.ipynb", "judgements.jsonl", "wins.svg"} <= {path.name for path in written}
    assert not [path.name for path in written if secret.encode() in path.read_bytes()]


def test_one_row_of_the_study_by_its_papermill_command(tmp_path):
    """The command that the notebook prints, in a fresh process and another folder, gives the number of the library."""
    row = fl.study.Row("redundant", "head", "fisher_per_token", 1, tokens=150)
    command = fl.study.papermill_command(row, "smoke").split()
    assert command[0] == ".venv/bin/papermill" and command[2] == "out.ipynb"
    command = [sys.executable, "-m", "papermill", command[1], str(tmp_path / "out.ipynb"), *command[3:]]
    small = ["-p", "trials", "40", "-p", "out_dir", str(tmp_path / "rows")]
    done = subprocess.run([*command, *small], cwd=NOTEBOOKS.parent, capture_output=True, text=True, timeout=60 * MINUTES)
    assert done.returncode == 0, done.stderr[-2000:]
    settings = fl.study.PROFILES["smoke"].settings
    (expected,) = fl.study.run_rows([row], settings, tmp_path / "again", progress=False)["nll"]
    close = pytest.approx(expected, rel=1e-6)  # a process with another number of threads rounds another way
    assert results(tmp_path / "out.ipynb")["live"] == {"fisher_per_token": close}


def test_sabotage_fails_at_the_check_that_guards_it(tmp_path):
    """A gain of the wrong sign in the library must stop the notebook where naive and library are compared."""
    node = nbformat.read(QUICKSTART, as_version=4)
    wrong = (
        "from fisherlib.greedy.information import Information\n"
        "from fisherlib.greedy.screen import Screen\n"
        "exact, screen = Information.exact, Screen.gains\n"
        "Information.exact = lambda *a: 1 / (1 + exact(*a))\n"
        "Screen.gains = lambda *a: (lambda gains, errors: (1 / (1 + gains), 0 * errors))(*screen(*a))"
    )
    setup = next(i for i, cell in enumerate(node.cells) if "notebook.setup" in cell.source)
    node.cells.insert(setup + 1, new_code_cell(wrong))
    nbformat.write(node, tmp_path / "sabotaged.ipynb")
    with pytest.raises(papermill.PapermillExecutionError, match="the naive and the library's greedy pick the same"):
        run(tmp_path / "sabotaged.ipynb", tmp_path / "out.ipynb", profile="smoke", cwd=tmp_path)


def test_a_wrong_median_stops_notebook_12_at_the_right_check(tmp_path, small_model):
    """A library whose median is its mode fails where the naive search of all answers is compared with it."""
    node = nbformat.read(NOTEBOOKS / "12_decide_and_merge.ipynb", as_version=4)
    wrong = (
        "from fisherlib.evaluation import decisions\n"
        "right = decisions.decide\n"
        "decisions.decide = lambda p, v, m: right(p, v, 'exact' if m == 'absolute' else m)"
    )
    setup = next(i for i, cell in enumerate(node.cells) if "notebook.setup" in cell.source)
    node.cells.insert(setup + 1, new_code_cell(wrong))
    nbformat.write(node, tmp_path / "sabotaged.ipynb")
    small = {"model": small_model}
    with pytest.raises(papermill.PapermillExecutionError, match="absolute: the library answers 5"):
        run(tmp_path / "sabotaged.ipynb", tmp_path / "out.ipynb", profile="smoke", parameters=small, cwd=tmp_path)


@pytest.mark.parametrize(
    ("wrong", "claim"),
    [
        # diag(p) + p p^T
        (
            "fisher.softmax_covariance = lambda p: torch.diag_embed(p) + p[..., :, None] * p[..., None, :]",
            "(4) the library's Hessian is the naive one",
        ),
        # a weight that grows where the model is certain
        ("fisher.trace_weights = lambda P: 1 + P.square().sum(-1)", "(11), (12) step 3, the mean block"),
    ],
    ids=["sign of the Hessian", "sign of the trace weight"],
)
def test_a_flipped_sign_stops_notebook_01_at_the_right_check(tmp_path, wrong, claim):
    node = nbformat.read(NOTEBOOKS / "01_softmax_fisher.ipynb", as_version=4)
    setup = next(i for i, cell in enumerate(node.cells) if "notebook.setup" in cell.source)
    node.cells.insert(setup + 1, new_code_cell(f"from fisherlib import fisher\n{wrong}"))
    node.cells = [cell for cell in node.cells if not needs_the_model(cell)]
    nbformat.write(node, tmp_path / "sabotaged.ipynb")
    with pytest.raises(papermill.PapermillExecutionError, match=re.escape(f"AssertionError: {claim}")):
        run(tmp_path / "sabotaged.ipynb", tmp_path / "out.ipynb", cwd=tmp_path)


def test_a_risk_of_the_wrong_sign_stops_notebook_08(tmp_path):
    """Weights that gather where they should spread: the grid has better ones, or equal utilities are not UniMax."""
    node = nbformat.read(NOTEBOOKS / "08_data_mixtures.ipynb", as_version=4)
    wrong = (
        "library = fl.mixtures.utilimax\n"
        "def wrong(U, sizes, *, risk, **ways):\n"
        "    return library(1 - U, sizes, risk=risk, **ways)\n"
        "fl.mixtures.utilimax = wrong"
    )
    setup = next(i for i, cell in enumerate(node.cells) if "notebook.setup" in cell.source)
    last = next(i for i, cell in enumerate(node.cells) if "the teaching version" in cell.source)
    kept = [cell for cell in node.cells[: last + 1] if "load_model" not in cell.source and "naive_unimax" not in cell.source]
    kept.insert(setup + 1, new_code_cell(wrong))
    node.cells = kept
    nbformat.write(node, tmp_path / "sabotaged.ipynb")
    with pytest.raises(papermill.PapermillExecutionError, match="AssertionError: the teaching version"):
        run(tmp_path / "sabotaged.ipynb", tmp_path / "out.ipynb", profile="smoke", cwd=tmp_path)


def test_margins_that_are_too_small_stop_notebook_03(tmp_path):
    """An engine that is too sure of its screens must stop at the check of its error estimate."""
    node = nbformat.read(NOTEBOOKS / "03_gpu_selection.ipynb", as_version=4)
    wrong = (
        "from fisherlib.greedy.screen import Screen\n"
        "library = Screen.gains\n"
        "Screen.gains = lambda *a: (lambda gains, errors: (gains, 1e-4 * errors))(*library(*a))"
    )
    guarded = next(i for i, cell in enumerate(node.cells) if "exercises.margins(" in cell.source)
    node.cells.insert(guarded, new_code_cell(wrong))
    nbformat.write(node, tmp_path / "sabotaged.ipynb")
    with pytest.raises(
        papermill.PapermillExecutionError, match="AssertionError: no gain in bfloat16 lies outside its margin"
    ):
        run(tmp_path / "sabotaged.ipynb", tmp_path / "out.ipynb", profile="smoke", cwd=tmp_path)


def test_replay_on_top_of_the_new_bytes_stops_notebook_09(tmp_path):
    """An arm with more bytes than the others must stop where bytes are compared."""
    node = nbformat.read(NOTEBOOKS / "09_keep_learning.ipynb", as_version=4)
    setup = next(i for i, cell in enumerate(node.cells) if "notebook.setup" in cell.source)
    wrong = (
        "from fisherlib import mixtures\n"
        "right = mixtures.replayed\n"
        "mixtures.replayed = lambda new, old, *, share, tokens, **call: [\n"
        "    *right(new, old, share=0.0, tokens=tokens, **call),\n"
        "    *right(new, old, share=1.0, tokens=round(share * tokens), **call),\n"
        "]"
    )
    node.cells.insert(setup + 1, new_code_cell(wrong))
    nbformat.write(node, tmp_path / "sabotaged.ipynb")
    with pytest.raises(papermill.PapermillExecutionError, match="all arms learn from the same number of bytes"):
        run(tmp_path / "sabotaged.ipynb", tmp_path / "out.ipynb", profile="smoke", cwd=tmp_path)


def test_a_verifier_that_looks_at_the_answer_alone_stops_notebook_11(tmp_path):
    """Right by luck would be learned: the table of section 1 must notice."""
    node = nbformat.read(NOTEBOOKS / "11_self_made_data.ipynb", as_version=4)
    wrong = "rft.is_right = lambda text, answer, **_: rft.answer_of(text) == answer"
    setup = next(i for i, cell in enumerate(node.cells) if "notebook.setup" in cell.source)
    node.cells.insert(setup + 1, new_code_cell(wrong))
    nbformat.write(node, tmp_path / "sabotaged.ipynb")
    with pytest.raises(papermill.PapermillExecutionError, match="AssertionError: two of four are kept"):
        run(tmp_path / "sabotaged.ipynb", tmp_path / "out.ipynb", profile="smoke", cwd=tmp_path)


def test_a_ranking_loss_of_the_wrong_sign_stops_notebook_10b(tmp_path):
    """A loss that wants the better answer below the other must stop where it is compared with the one by hand."""
    node = nbformat.read(NOTEBOOKS / "10b_teacher.ipynb", as_version=4)
    wrong = (
        "from fisherlib.training import objectives\n"
        "right = objectives.Ranking.__call__\n"
        "objectives.Ranking.__call__ = lambda self, row, log_p: right(self, row, [-one for one in log_p])"
    )
    setup = next(i for i, cell in enumerate(node.cells) if "notebook.setup" in cell.source)
    node.cells.insert(setup + 1, new_code_cell(wrong))
    nbformat.write(node, tmp_path / "sabotaged.ipynb")
    with pytest.raises(papermill.PapermillExecutionError, match="the library's loss is the mean over pairs"):
        run(tmp_path / "sabotaged.ipynb", tmp_path / "out.ipynb", profile="smoke", cwd=tmp_path)


def needs_the_model(cell):
    return cell.cell_type == "code" and ("load_model" in cell.source or "numel" in cell.source)


def test_plain_papermill_on_a_user_s_own_jsonl(tmp_path):
    """The README's command, on rows of another shape, from the folder in which the file lies."""
    subjects = ["frost", "rivers", "engines", "bread", "maps", "winter", "glass", "music"]
    rows = [
        {"messages": [{"role": "user", "content": f"Say something about {s}."}, {"role": "assistant", "content": text}]}
        for i, s in enumerate(subjects * 3)
        for text in [f"Number {i}: people who study {s} often begin with what they can see, and end with what they cannot."]
    ]
    (tmp_path / "my.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    small = ["-p", "tokens", "90", "-p", "pool_examples", "12", "-p", "test_examples", "3", "-p", "tuned", "recipe"]
    small += ["-p", "out_dir", "mine"]
    command = [
        sys.executable,
        "-m",
        "papermill",
        str(QUICKSTART),
        "out.ipynb",
        "-k",
        "python3",
        "-p",
        "data",
        "my.jsonl",
        *small,
    ]
    environment = {**os.environ, "NO_COLOR": "1"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment, timeout=60 * MINUTES)
    assert done.returncode == 0, done.stderr[-2000:]
    recorded = results(tmp_path / "out.ipynb")
    assert set(recorded["information"]) == {"my data"} and recorded["information"]["my data"]["FisherSFT"] > 0
    subset = (tmp_path / "mine" / "subset.jsonl").read_text().splitlines()
    assert all(json.loads(line) in rows for line in subset)


@pytest.mark.parametrize(
    ("wrong", "claim"),
    [
        (  # a bad answer is rewarded
            "right = objectives.ExMATE.__call__\n"
            "objectives.ExMATE.__call__ = lambda self, row, log_p: -2 * log_p[0].mean() - right(self, row, log_p)",
            "c exp(-CE) in row A",
        ),
        (  # the opponent's half is left out of the margin: no more log 2, nor half of SFT's gradient
            "untouched = objectives.Preference.__call__\n"
            "objectives.Preference.__call__ = lambda self, row, log_p: untouched(self, row, [log_p[0], 0 * log_p[1]])",
            "the library's loss is this one",
        ),
    ],
    ids=["sign of ExMATE's penalty", "half of SPIN's margin"],
)
def test_wrong_objectives_stop_notebook_10_at_the_right_check(tmp_path, wrong, claim):
    node = nbformat.read(NOTEBOOKS / "10_objectives.ipynb", as_version=4)
    setup = next(i for i, cell in enumerate(node.cells) if "notebook.setup" in cell.source)
    node.cells.insert(setup + 1, new_code_cell(f"from fisherlib.training import objectives\n{wrong}"))
    live = ("load_model", "likelihood_of", "gradients(", "answers.", "fl.plotting", "learned = ")
    node.cells = [c for c in node.cells if "notebook.setup" in c.source or not any(word in c.source for word in live)]
    nbformat.write(node, tmp_path / "sabotaged.ipynb")
    with pytest.raises(papermill.PapermillExecutionError, match=re.escape(f"AssertionError: {claim}")):
        run(tmp_path / "sabotaged.ipynb", tmp_path / "out.ipynb", cwd=tmp_path)
