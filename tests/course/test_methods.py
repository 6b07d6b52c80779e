"""The table of methods: what committed rows are called stays, and a row is all that a new method needs."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest

import fisherlib as fl
from fisherlib.assets import ROOT
from fisherlib.course.study import methods
from fisherlib.course.study.methods import METHODS, NEIGHBOURS, QUOTAS, RECIPES, RELATED, SCORES, VARIANTS, choose, title

# What stood in committed rows, tables and figures before there was one table of methods.
TABLES = {
    "ARMS": {
        "uniform": "uniform",
        "fisher_gain": "FisherSFT, by gain",
        "fisher_per_token": "FisherSFT",
        "fisher_weighted": "FisherSFT, trace-weighted",
        "longest": "longest",
        "dedup_uniform": "deduplicated, then uniform",
        "dedup_fisher": "deduplicated, then FisherSFT",
        "length_matched": "length-matched",
        "uniform_in_clusters": "uniform in clusters",
        "nearest_to_centre": "nearest to centre",
        "clustered": "clustered",
        "density": "density",
        "farthest_point": "farthest point",
        "sentence_optimal": "sentence-optimal",
        "ask_llm": "AskLLM",
        "all_data": "all the data",
    },
    "VARIANTS": {
        "prior_1e3": "prior times 1,000",
        "prior_1e5": "prior times 100,000",
        "target_prior": "target-aware prior",
        "i_optimal": "I-optimal",
        "half_uniform": "half uniform, half FisherSFT",
        "fisher_in_clusters": "FisherSFT inside clusters",
        "without_memorised": "without memorised examples",
        "without_extremes": "without memorised and extreme examples",
        "fisher_of_common": "FisherSFT among common targets",
        "uniform_of_uncommon": "uniform among rare targets",
        "uniform_where_fisher": "uniform where FisherSFT looks",
    },
    "RECIPES": {
        "dedup_where_fisher": "deduplicated, uniform where FisherSFT looks",
        "dedup_in_clusters": "deduplicated, uniform in clusters",
        "dedup_half_fisher": "deduplicated, half uniform, half FisherSFT",
    },
    "RELATED": {
        "ifd": "IFD",
        "ifd_then_fisher": "IFD, then FisherSFT",
        "slearn": "SLearnLLM",
        "adaicl": "AdaICL",
        "adaicl_plus": "AdaICL+",
        "llmaaa_k_means": "LLMaAA, k-means",
        "llmaaa_entropy": "LLMaAA, entropy",
        "sparft": "SPaRFT",
        "isa": "ISA",
    },
    "NEIGHBOURS": {
        "farthest_point": "farthest point",
        "facility_location": "facility location",
        "semhash": "SemHash, then uniform",
    },
    "QUOTAS": {
        "minhash_uniform": "MinHash, then uniform",
        "minhash_proportional": "MinHash, proportional quotas",
        "minhash_equal": "MinHash, equal quotas",
        "minhash_root": "MinHash, square-root quotas",
        "minhash_fisher": "MinHash, FisherSFT's quotas",
        "minhash_permuted": "MinHash, FisherSFT's quotas permuted",
        "length_matched_weighted": "length-matched to trace-weighted",
        "minhash_oracle": "MinHash, the test's mix",
    },
}
FILES = {
    "ask_llm": "answers",
    "ifd": "ifd",
    "ifd_then_fisher": "ifd",
    "slearn": "token_accuracy",
    "llmaaa_entropy": "entropy",
}


@pytest.mark.parametrize("name", TABLES)
def test_arms_and_titles_stay_as_they_were_and_in_their_order(name):
    table = getattr(methods, name)
    assert list(table) == list(TABLES[name])
    assert {arm: title(arm) for arm in table} == TABLES[name]
    assert all(map(callable, table.values()))


def test_titles_of_what_is_in_no_table():
    assert title("no_fine_tuning") == "no fine-tuning" and title("recipe") == "recipe"
    assert title("layer_20") == "features after layer 20" and title("an_arm_of_tomorrow") == "an arm of tomorrow"


def test_every_arm_of_a_committed_row_is_in_the_table():
    import pandas as pd

    known, seen = {method.name for method in METHODS}, set()
    for path in (ROOT / "notebooks" / "results").rglob("*.parquet"):
        if "method" in (columns := pd.read_parquet(path)).columns:
            seen |= set(columns["method"])
    assert len(seen) > 40 and {arm for arm in seen if not arm.startswith("layer_")} <= known


def test_names_and_titles_differ():
    names, titles = [method.name for method in METHODS], [method.title for method in METHODS]
    assert len(set(names)) == len(names) and len(set(titles)) == len(titles)
    assert {arm: file for arm, (file, _) in SCORES.items()} == FILES


def test_who_is_in_no_table_is_not_chosen_by(as_a_user):
    for name in ("no_fine_tuning", "in_clusters", "an_arm_of_tomorrow"):
        with pytest.raises(ValueError, match=f"expected method to be one of .*, got '{name}'"):
            choose(name, None, None, seed=0, tokens=1)
    tables = [methods.ARMS, VARIANTS, RECIPES, RELATED, NEIGHBOURS, QUOTAS, {"recipe": None}]
    assert {method.name for method in METHODS if method.table} == {name for table in tables for name in table}


# Run with a copy of the package that holds the example of CONTRIBUTING.
ENTERED = """
import json, sys
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM

import fisherlib as fl
from fisherlib.course.study import Bench, Row, Settings, run_row
from fisherlib.course.study.pools import Sizes
from tests.selectors.test_selectors import SELECTORS

model, tokenizer = fl.load_model("smollm2-135m")
torch.manual_seed(0)
tiny = LlamaForCausalLM(LlamaConfig(
    vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
    num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.5,
)).eval()
features = fl.TokenFeatures.from_list([torch.eye(4)[:length] for length in (3, 0, 1, 2, 2)])
call = {"seed": 3, "tokens": 6}
chosen = fl.selectors.shortest(None, features, **call)
settings = Settings(Sizes(pool_examples=40, test_examples=8), classes=20, dimensions=8)
row = run_row(Row("clean", "head", "shortest", 0, tokens=150), Bench(settings, Path(sys.argv[1]), tiny, tokenizer))
print(json.dumps({
    "file": fl.__file__,
    "chosen": chosen.indices.tolist(),
    "settings": chosen.settings,
    "arm": fl.study.choose("shortest", None, features, **call).indices.tolist(),
    "in the tests": SELECTORS["shortest"](None, features, **call).indices.tolist(),
    "arms": list(fl.study.ARMS)[-2:],
    "rows": sum(row.method == "shortest" for row in fl.study.PROFILES["full"].rows()),
    "row": {name: row[name] for name in ("method", "chosen_tokens", "chosen_examples", "nll")},
    "title": fl.study.title("shortest"),
}))
"""


@pytest.mark.slow
def test_the_example_of_contributing_is_in_every_table(tmp_path):
    blocks = re.findall(r"```(?:python|text)\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    file, door, row = blocks
    assert len([line for line in file.splitlines() if line.strip()]) <= 10
    shutil.copytree(ROOT / "fisherlib", tmp_path / "fisherlib", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "fisherlib" / "selectors" / "shortest.py").write_text(file)
    with (tmp_path / "fisherlib" / "selectors" / "__init__.py").open("a") as init:
        init.write(door)
    table = tmp_path / "fisherlib" / "course" / "study" / "methods.py"
    before = table.read_text()
    assert before.count("    # FisherSFT with one thing changed") == 1
    table.write_text(
        before.replace("    # FisherSFT with one thing changed", f"{row}    # FisherSFT with one thing changed")
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "FISHERLIB_CACHE": str(fl.assets.cache_dir())}
    run = [sys.executable, "-c", ENTERED, str(tmp_path / "bench")]
    ran = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr[-2000:]
    found = json.loads(ran.stdout.splitlines()[-1])
    assert found["file"].startswith(str(tmp_path))
    assert found["chosen"] == found["arm"] == found["in the tests"] == [3, 4, 2]  # lengths 2, 2, and what fits of the rest
    assert found["settings"] == {
        **{"method": "the shortest", "budget": {"tokens": 6}, "seed": None, "least": 2, "features": {}},
    }
    assert found["arms"] == ["all_data", "shortest"] and found["rows"] > 0
    assert found["row"]["method"] == "shortest" and 100 < found["row"]["chosen_tokens"] <= 150
    assert found["title"] == "the shortest"
