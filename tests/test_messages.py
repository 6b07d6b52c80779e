"""Every error at the public boundary says what was expected, what was got and what to do, in one line."""

import json

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from transformers import BertConfig, BertForMaskedLM

import fisherlib as fl

FEATURES = fl.TokenFeatures.from_list([torch.ones(3, 2), torch.eye(2), torch.ones(1, 2)])


def poisoned():
    blocks = [torch.ones(3, 2), torch.tensor([[1.0, float("nan")]])]
    return fl.TokenFeatures.from_list(blocks)


def start_of_other_pool():
    return fl.select(fl.TokenFeatures.from_list([torch.ones(1, 2)]), examples=1)


SELECT = [
    ({}, "expected exactly one of examples= and tokens=, got examples=None, tokens=None"),
    ({"examples": 1, "tokens": 2}, "expected exactly one of examples= and tokens="),
    ({"examples": 0}, "from 1 to 3 \\(the pool\\), got 0"),
    ({"examples": -1}, "got -1"),
    ({"examples": 4}, "from 1 to 3 \\(the pool\\), got 4"),
    ({"tokens": 0}, "from 1 to 6 tokens \\(the whole pool\\), got 0"),
    ({"tokens": -5}, "got -5"),
    ({"tokens": 7}, "the whole pool\\), got 7"),
    ({"tokens": float("nan")}, "the whole pool\\), got nan"),
    ({"tokens": 0.5}, "at least the cheapest example \\(1\\)"),
    ({"examples": 1, "rule": "worst"}, "expected rule to be one of .*gain_per_token.*, got 'worst'"),
    ({"examples": 1, "rule": "best"}, "expected a budget of tokens for rule='best'"),
    ({"examples": 1, "weighting": "trace"}, "expected features with trace_weights"),
    ({"examples": 1, "dtype": "float16"}, "expected dtype to be one of"),
    ({"examples": 1, "batch_size": 0}, "batch_size of at least 1"),
    ({"examples": 1, "prior": 0.0}, "positive definite prior"),
    ({"examples": 1, "prior": -1.0}, "positive definite prior"),
    ({"examples": 1, "prior": float("inf")}, "finite"),
    ({"examples": 1, "prior": torch.eye(3)}, "a matrix \\[2, 2\\] as prior, got shape \\(3, 3\\)"),
    ({"examples": 1, "prior": torch.tensor([[1.0, 2.0], [0.0, 1.0]])}, "symmetric"),
    ({"examples": 1, "prior": 1e-10 * torch.tensor([[1.0, 0.5], [0.0, 1.0]])}, "symmetric"),
    ({"examples": 1, "device": "mps"}, "it has no float64"),
    ({"tokens": 2, "costs": [1.0, 2.0]}, "expected one cost for each of 3 examples"),
    ({"tokens": 2, "costs": [1.0, -2.0, 1.0]}, "expected positive, finite costs"),
    ({"examples": 1, "start": start_of_other_pool()}, "expected a start from this pool of 3"),
]


def one_line(error):
    message = str(error.value)
    assert "\n" not in message and len(message) < 450, message


def test_a_budget_below_the_cheapest_example_in_a_pool_with_empty_ones():
    features = fl.TokenFeatures.from_list([torch.zeros(0, 2), torch.ones(3, 2), torch.ones(2, 2)])
    with pytest.raises(ValueError, match="at least the cheapest example \\(2\\), got 1: raise it") as error:
        fl.select(features, tokens=1)
    one_line(error)


@pytest.mark.parametrize(("arguments", "message"), SELECT)
def test_select(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        fl.select(FEATURES, **arguments)
    one_line(error)


def test_select_names_the_example_with_nan():
    with pytest.raises(ValueError, match="NaN or infinity in example 1: extract the features again") as error:
        fl.select(poisoned(), examples=1)
    one_line(error)


def test_select_refuses_a_start_beyond_the_budget():
    with pytest.raises(ValueError, match="covers the start selection \\(2\\), got 1"):
        fl.select(FEATURES, examples=1, start=fl.select(FEATURES, examples=2))


BAD_INDICES = [
    ([True, False, True], "use np.flatnonzero"),
    ([3], "from 0 to 2, got 3"),
    ([-1], "got -1"),
    ([1, 1], "different"),
]


@pytest.mark.parametrize(("indices", "message"), BAD_INDICES)
def test_score_selection(indices, message):
    with pytest.raises(ValueError, match=message) as error:
        fl.score_selection(FEATURES, indices)
    one_line(error)


def test_scales_that_float64_cannot_hold_are_an_error():
    # V = 1e18 [[1, 1], [1, 1]] + 1e-9 I: the prior vanishes in the sum, and what is left is exactly singular
    blocks = [torch.full((1, 2), 1e9, dtype=torch.float64), torch.eye(2, dtype=torch.float64)]
    with pytest.raises(ValueError, match="raise the prior or scale the features down"):
        fl.select(fl.TokenFeatures.from_list(blocks), examples=2, prior=1e-9)


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([], "at least one example"),
        ([torch.ones(2, 3), torch.ones(2, 4)], "one width d"),
        ([torch.ones(3)], "matrices"),
    ],
)
def test_features_from_list(blocks, message):
    with pytest.raises(ValueError, match=message):
        fl.TokenFeatures.from_list(blocks)


@pytest.mark.parametrize("selector", [fl.selectors.uniform, fl.selectors.longest])
@pytest.mark.parametrize("budget", [{}, {"examples": 0}, {"tokens": 99}, {"tokens": 0.5}, {"examples": 1, "tokens": 1}])
def test_selectors(selector, budget):
    with pytest.raises(ValueError, match="expected") as error:
        selector(None, FEATURES, **budget)
    one_line(error)


GOOD = {"prompt": "a", "response": "b"}
ROWS = Dataset.from_list([{"prompt": f"{i}?", "response": f"{i}"} for i in range(3)])
CHOSEN = fl.score_selection(FEATURES, [0])
# Who wants rows and gets something else.
ROW_DOORS = {
    "to_dataset": lambda rows, model: CHOSEN.to_dataset(rows),
    "encode": lambda rows, model: fl.encode(rows, None),
    "MaskAudit": lambda rows, model: fl.MaskAudit(rows, None),
    "extract_features": lambda rows, model: fl.extract_features(model, None, rows),
    "fine_tune": lambda rows, model: fl.fine_tune(model, None, rows),
    "held_out_nll": lambda rows, model: fl.held_out_nll(model, None, rows),
    "prompt_ids": lambda rows, model: fl.judging.prompt_ids(rows, None),
    "continuations": lambda rows, model: fl.judging.continuations(model, AsksAnything(), rows),
    "near_duplicates": lambda rows, model: fl.selectors.near_duplicates(rows),
    "ask_llm_scores": lambda rows, model: fl.selectors.ask_llm_scores(rows, model, AsksAnything()),
    "ifd_scores": lambda rows, model: fl.selectors.ifd_scores(rows, model, None),
    "slearn_scores": lambda rows, model: fl.selectors.slearn_scores(rows, model, None),
    "slearn_grades": lambda rows, model: fl.selectors.slearn_grades(rows, model, None),
    "recipe": lambda rows, model: fl.recipe(rows, FEATURES, examples=1),
}
FEATURE_DOORS = {
    "density_scores": fl.selectors.density_scores,
    "isa_entropies": fl.selectors.isa_entropies,
    "sparft_clusters": fl.selectors.sparft_clusters,
    "cluster_labels": fl.selectors.cluster_labels,
    "ifd_warm_up": fl.selectors.ifd_warm_up,
    "llmaaa_scores": lambda features: fl.selectors.llmaaa_scores(features, torch.eye(2)),
    "meta_weights": lambda features: fl.selectors.meta_weights(features, FEATURES, torch.eye(2)),
    "meta_weights, target": lambda target: fl.selectors.meta_weights(FEATURES, target, torch.eye(2)),
    "recipe": lambda features: fl.recipe(ROWS, features, examples=1),
    "fit_heads": lambda features: fl.fit_heads(features, [[0]]),
    "compress": lambda features: fl.compress(features, 1),
}


class AsksAnything:
    """A tokenizer that tells yes from no."""

    is_fast = True

    def __call__(self, text, add_special_tokens):
        return {"input_ids": [ord(text.strip()[0])]}


@pytest.mark.parametrize("door", ROW_DOORS.values(), ids=ROW_DOORS)
def test_a_pool_is_not_its_rows(door, tiny, as_a_user):
    for wrong, instead in (
        (fl.Pool("mine", ROWS, ROWS), "got a Pool: give pool.train"),
        (DatasetDict(train=ROWS), "got a DatasetDict: give one of its splits"),
        (FEATURES, "got a TokenFeatures: rows come before their features"),
    ):
        with pytest.raises(ValueError, match=f"^expected rows, a datasets.Dataset(?: or a list)?, {instead}$"):
            door(wrong, tiny)


@pytest.mark.parametrize("door", FEATURE_DOORS.values(), ids=FEATURE_DOORS)
def test_a_list_is_not_features(door, as_a_user):
    for wrong, instead in (
        ([torch.ones(2, 2)], "got a list: make them with TokenFeatures.from_list"),
        (ROWS, "got a Dataset: rows come before their features"),
        (torch.ones(2, 2), "got a Tensor: extract them with fl.extract_features"),
    ):
        with pytest.raises(ValueError, match=f"^expected (?:features|target), TokenFeatures, {instead}$"):
            door(wrong)


# Every door of the engine, and what it says to something else than features.
ENGINE_DOORS = {
    "select": lambda features: fl.select(features, examples=1),
    "score_selection": lambda features: fl.score_selection(features, [0]),
    "certify": lambda features: fl.certify(features, CHOSEN),
    "forecast": lambda features: fl.forecast(features, examples=1),
    "compress": lambda features: fl.compress(features, 1),
    "fit_heads": lambda features: fl.fit_heads(features, [[0]]),
}
NO_FEATURES = [
    ([torch.ones(2, 2)], "got a list: make them with TokenFeatures.from_list"),
    (np.ones((2, 2)), "got a ndarray: make them with TokenFeatures.from_list"),
    (ROWS, "got a Dataset: rows come before their features"),
    (fl.Pool("mine", ROWS, ROWS), "got a Pool: extract them with fl.extract_features from pool.train"),
    (CHOSEN, "got a Selection: features come before a selection of them"),
    ("features", "got a str: open a folder of them with TokenFeatures.load"),
    (None, "got None: extract them with fl.extract_features"),
]


@pytest.mark.parametrize("door", ENGINE_DOORS.values(), ids=ENGINE_DOORS)
def test_features_are_wanted(door, as_a_user):
    for wrong, instead in NO_FEATURES:
        with pytest.raises(ValueError, match=f"^expected (?:features|target), TokenFeatures, {instead}$"):
            door(wrong)


WRONG_KIND = {
    "tokens": ("3", "expected tokens, a number, got a str '3': change tokens="),
    "examples": (3.0, "expected examples, a whole number, got a float 3.0: change examples="),
    "examples, true": (True, "expected examples, a whole number, got a bool True: change examples="),
    "batch_size": (True, "expected batch_size, a whole number, got a bool True: change batch_size="),
    "stochastic": ("0.1", "expected stochastic, a number, got a str '0.1': change stochastic="),
    "memory": ("4GB", "expected memory, a number, got a str '4GB': change memory="),
    "prior": ("small", "expected prior, a number, a Tensor or an array, got a str 'small': change prior="),
    "costs": (["a", "b", "c"], "expected costs to be numbers, got others .*: check costs="),
    "stop": ("0.1", "expected stop, a number, got a str '0.1': change stop="),
    "start": ([1, 2], "expected start, a Selection or TokenFeatures, got a list: make one of picks with fl.score_selection"),
    "device": (3.5, "expected device, a text or a torch.device, got a float 3.5: change device="),
}


@pytest.mark.parametrize("name", WRONG_KIND)
def test_an_option_of_the_wrong_kind(name, as_a_user):
    value, message = WRONG_KIND[name]
    budget = {} if name.startswith(("tokens", "examples")) else {"examples": 1}
    with pytest.raises(ValueError, match=f"^{message}") as error:
        fl.select(FEATURES, **budget, **{name.split(",")[0]: value})
    one_line(error)


def test_a_selection_is_wanted_or_its_indices(as_a_user):
    with pytest.raises(
        ValueError, match="expected selection, a Selection, got a list: make one of picks with fl.score_selection"
    ):
        fl.certify(FEATURES, [0, 1])
    with pytest.raises(ValueError, match="expected indices, a list or an array, got a Selection: give its indices"):
        fl.score_selection(FEATURES, CHOSEN)
    with pytest.raises(ValueError, match="expected memory, a number, got a str '1'"):
        fl.forecast(FEATURES, examples=1, memory="1")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([json.dumps(GOOD), '{"prompt": "a", '], "my.jsonl line 2: expected one JSON object per line"),
        ([json.dumps(GOOD), "", "[1]"], "my.jsonl line 3: expected a JSON object, got list"),
        (
            [json.dumps({"prompt": "a"})],
            "line 1: expected the columns 'prompt' and 'response', or .*got \\['prompt'\\]",
        ),
        ([json.dumps({"prompt": "a", "response": "  "})], "line 1: expected a non-empty 'response'"),
        ([json.dumps({"prompt": "a", "response": 3})], "line 1: expected strings in 'prompt' and 'response'"),
        ([json.dumps({"text": ""})], "line 1: expected a non-empty 'text'"),
        ([json.dumps({"messages": [{"role": "user", "content": "x"}]})], "line 1: expected an assistant turn"),
        ([json.dumps({"messages": "x"})], "line 1: expected 'messages' to be a list"),
        (
            [json.dumps({"messages": [{"role": "assistant", "content": {"text": "y"}}]})],
            "'content' in 'messages' to be a string",
        ),
        ([json.dumps({**GOOD, "system": 5})], "line 1: expected a string in 'system'"),
        ([""], "got an empty file"),
        (
            [json.dumps({"text": "a", "question": "q", "answer": "a"})],
            "line 1: expected one shape, got the columns of question.answer and",
        ),
        ([json.dumps(GOOD)], "at least two different documents"),
    ],
)
def test_jsonl(tmp_path, lines, message):
    path = tmp_path / "my.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=message) as error:
        fl.load_pool(path)
    one_line(error)
    assert [p.name for p in tmp_path.iterdir()] == ["my.jsonl"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("no/such.jsonl", "no such file; check the path"),
        ("nobody/no-such-dataset", "could not load 'nobody/no-such-dataset'.*download it first"),
        (Dataset.from_list([{"question": "a"}]), "row 0: expected the columns .*got \\['question'\\]"),
        (Dataset.from_list([]), "at least one example"),
    ],
)
def test_pools(source, message):
    with pytest.raises(ValueError, match=message) as error:
        fl.load_pool(source)
    one_line(error)


def test_a_folder_that_is_no_causal_model(tmp_path):
    BertForMaskedLM(BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=9)).save_pretrained(
        tmp_path
    )
    (tmp_path / "empty").mkdir()
    for name, message in (
        (str(tmp_path), "its architecture is BertForMaskedLM"),
        (str(tmp_path / "empty"), "could not load"),
        (str(tmp_path / "absent"), "no such folder; check the path"),
        ("nobody/no-such-model", "an id that is reachable from here"),
    ):
        with pytest.raises(ValueError, match=f"^expected a .*{message}") as error:
            fl.load_model(name)
        one_line(error)


def test_the_rest(tiny, ids):
    with pytest.raises(ValueError, match="row 0: expected at most 64 tokens"):
        fl.extract_features(tiny, None, [[1] * 65])
    with pytest.raises(ValueError, match="expected some response tokens to learn from, got none in 2 rows"):
        fl.extract_features(tiny, None, [[], [5]])
    with pytest.raises(ValueError, match="precision 'auto', 'bfloat16' or 'float32', got 'int8'"):
        fl.extract_features(tiny, None, ids, precision="int8")
    with pytest.raises(ValueError, match="padding_side 'left' or 'right'"):
        fl.extract_features(tiny, None, ids, padding_side="up")
    with pytest.raises(ValueError, match="tokens_per_step of at least 1"):
        fl.fine_tune(tiny, None, ids, tokens_per_step=0)
    with pytest.raises(ValueError, match="features with labels"):
        fl.fit_heads(FEATURES, [[0]])
    selection = fl.select(FEATURES, examples=2)
    for budget in ({}, {"examples": 3}, {"examples": 0}, {"tokens": 0}, {"tokens": 100}):
        with pytest.raises(ValueError, match="expected"):
            selection.prefix(**budget)
    with pytest.raises(IndexError, match="example 3 of 3"):
        FEATURES[3]
    assert np.isfinite(selection.objective)
