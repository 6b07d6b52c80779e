"""Each closed form has the least expected loss; chances read off a model are the model's own, whatever the batch."""

import itertools

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import fisherlib as fl
from fisherlib.evaluation.decisions import METRICS, answer_distribution, decide, draws, number_distribution, recalibrate
from fisherlib.model import answers as answers_module
from fisherlib.model import load_tokenizer, prefix

P = np.array([0.1, 0.1, 0.1, 0.3, 0.4])
FIVE = np.arange(1.0, 6)
LOSSES = {
    "squared": lambda y, a: (y - a) ** 2,
    "absolute": lambda y, a: abs(y - a),
    "exact": lambda y, a: np.where(np.isclose(y, a), 0.0, 1.0),
}


def expected_loss(p, values, answer, metric):
    return float(p @ LOSSES[metric](values, answer) / p.sum())


def test_the_paper_s_three_rows_on_five_digits():
    mean, median, mode = (float(decide(P[None], FIVE, metric)[0]) for metric in METRICS)
    assert (mean, median, mode) == (pytest.approx(3.8), 4, 5)
    assert expected_loss(P, FIVE, mean, "squared") == pytest.approx(1.76)
    assert expected_loss(P, FIVE, mode, "squared") == pytest.approx(3.20)
    assert [expected_loss(P, FIVE, a, "absolute") for a in (median, mode)] == pytest.approx([1.0, 1.2])


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(-9, 9)), min_size=1, max_size=7, unique_by=lambda pair: pair[1]))
def test_no_answer_has_a_smaller_expected_loss(pairs):
    p, values = (np.array(column, dtype=float) for column in zip(*pairs, strict=True))
    if p.sum() == 0:
        p[0] = 1.0
    grid = np.unique(np.concatenate([np.linspace(-9, 9, 721), values]))
    for metric in METRICS:
        answer = float(decide(p[None], values, metric)[0])
        best = min(expected_loss(p, values, a, metric) for a in grid)
        assert expected_loss(p, values, answer, metric) <= best + 1e-9
        turned = np.random.default_rng(0).permutation(len(values))
        again = float(decide(7.5 * p[None, turned], values[turned], metric)[0])  # nor do the order and the sum matter
        assert metric == "exact" or again == pytest.approx(answer)


def test_of_many_medians_it_is_the_lowest_and_all_are_as_good():
    p = np.array([0.25, 0.25, 0.5])
    assert decide(p[None], [1, 2, 9], "absolute") == [2]
    assert len({round(expected_loss(p, np.array([1.0, 2, 9]), a, "absolute"), 12) for a in (2, 4.5, 9)}) == 1
    tenths = np.full((1, 10), 0.1)  # whose sums do not quite reach one half
    assert decide(tenths, np.arange(10), "absolute") == [4]


def test_the_mode_pays_its_distance_from_the_mean():
    mean, variance = float(P @ FIVE), float(P @ (FIVE - P @ FIVE) ** 2)
    for answer in np.linspace(0, 6, 25):
        assert expected_loss(P, FIVE, answer, "squared") == pytest.approx(variance + (answer - mean) ** 2)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_mean_of_k_samples_has_a_risk_of_one_and_a_kth_variances(k):
    """By enumeration of all samples; so samples beat the mode once k > Var / (mode - mean)^2."""
    variance = float(P @ (FIVE - P @ FIVE) ** 2)
    risk = sum(
        float(np.prod(P[list(drawn)])) * expected_loss(P, FIVE, FIVE[list(drawn)].mean(), "squared")
        for drawn in itertools.product(range(5), repeat=k)
    )
    assert risk == pytest.approx(variance * (1 + 1 / k))


def test_draws_are_shares_of_draws_from_these_chances():
    shares = draws(np.repeat(3 * P[None], 4000, axis=0), 5, seed=1)
    counts = 5 * shares
    assert np.allclose(counts, counts.round()) and np.allclose(shares.sum(1), 1)
    assert stats.chisquare(counts.sum(0), 20_000 * P).pvalue > 1e-4
    means = decide(shares, FIVE)
    assert means.mean() == pytest.approx(3.8, abs=4 * np.sqrt(1.76 / 5 / 4000))
    assert means.var() == pytest.approx(1.76 / 5, rel=0.15)
    assert np.array_equal(draws(P[None], 5, seed=1), draws(P[None], 5, seed=1))


def test_a_biased_model_makes_the_mean_lose():
    truth = np.array([0, 0, 0.05, 0.15, 0.8])
    mean, mode = (float(decide(P[None], FIVE, metric)[0]) for metric in ("squared", "exact"))
    assert expected_loss(truth, FIVE, mean, "squared") > 3 * expected_loss(truth, FIVE, mode, "squared")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(-50, 50), st.floats(-50, 50)), min_size=3, max_size=20))
def test_a_recalibration_is_the_least_squares_line(pairs):
    x, y = np.array(pairs).T
    line = recalibrate(x, y)
    error = float(((line(x) - y) ** 2).sum())
    assert error <= float(((y - y.mean()) ** 2).sum()) + 1e-6  # never worse, on these rows, than the constant
    if np.ptp(x) > 0.1:
        slope, intercept = np.polyfit(x, y, 1)
        assert error == pytest.approx(float(((intercept + slope * x - y) ** 2).sum()), abs=1e-5, rel=1e-5)


def test_a_recalibration_keeps_the_order_and_of_equal_answers_makes_the_mean():
    x, y = np.array([1.0, 4, 2, 8]), np.array([0.0, 3, 1, 5])
    assert np.array_equal(np.argsort(recalibrate(x, y)(x)), np.argsort(x))
    assert np.allclose(recalibrate(np.full(3, 0.1), np.array([1.0, 2, 6]))(np.array([0.1, 7])), 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: decide(P[None], FIVE, "cubic"), "expected a metric out of"),
        (lambda: decide(P[None], FIVE[:4]), "a column of chances for each"),
        (lambda: decide(np.stack([P, -P]), FIVE), "row 1: expected chances"),
        (lambda: decide(np.stack([P, P * np.nan]), FIVE), "row 1: expected chances"),
        (lambda: decide(np.zeros((1, 5)), FIVE), "row 0: expected chances"),
        (lambda: decide(P[None], [1, 2, 3, 4, np.inf]), "some finite values"),
        (lambda: draws(P[None], 0), "at least 1 sample"),
        (lambda: draws(np.zeros((1, 5)), 1), "row 0: expected chances"),
        (lambda: recalibrate(np.ones(1), np.ones(1)), "two or more answers"),
        (lambda: recalibrate(np.ones(3), np.ones(2)), "a truth for each"),
        (lambda: recalibrate(np.array([1.0, np.nan]), np.ones(2)), "finite answers and truths"),
    ],
)
def test_what_cannot_be_decided_is_refused(as_a_user, call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- what a model says ------------------------------------------------------------------------------------------------

COMMON = "A long beginning that all rows share, word by word, so that it is worth a pass of its own: so it is said. "


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer()[0]


@pytest.fixture(scope="module")
def words(tokenizer):
    """A random model with the vocabulary of the shipped tokenizer, and rows of unequal length."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.5,
    )
    rows = [{"prompt": COMMON + more, "response": "never read"} for more in ("one", "two and three", "four five six seven")]
    return LlamaForCausalLM(config).eval(), Dataset.from_list(rows)


def naive(model, tokenizer, rows, answers):
    """By its definition, one answer at a time: the loss of the whole response."""
    flat = [{**row, "response": answer} for row in rows for answer in answers]
    nll = fl.held_out_nll(model, tokenizer, Dataset.from_list(flat), precision="float32").nll_sums
    return np.exp(-nll).reshape(len(rows), len(answers))


@pytest.mark.parametrize("answers", [["1", "10", "2"], ["a b", "a", "c d e"]])
def test_several_tokens_are_scored_to_the_end_of_the_response(words, tokenizer, answers):
    model, rows = words
    got = answer_distribution(model, tokenizer, rows, answers, precision="float32", progress=False)
    np.testing.assert_allclose(got, naive(model, tokenizer, rows, answers), rtol=1e-3)


def test_digits_are_read_in_one_pass_and_are_shares_of_the_next_token(words, tokenizer, monkeypatch):
    model, rows = words
    calls = []
    hook = model.register_forward_pre_hook(lambda *_: calls.append(1))
    p = number_distribution(model, tokenizer, rows, range(1, 10), precision="float32", progress=False)
    hook.remove()
    assert len(calls) == 1 and p.shape == (3, 9)  # the beginning runs through the body alone
    assert (p > 0).all() and (p.sum(1) < 1).all()
    digits = [tokenizer(str(k), add_special_tokens=False)["input_ids"][-1] for k in range(1, 10)]
    for row, found in zip(rows, p, strict=True):
        ids = fl.judging.prompt_ids(Dataset.from_list([row]), tokenizer)[0]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
        np.testing.assert_allclose(found, logits.softmax(0)[digits], rtol=1e-4)


@pytest.mark.parametrize("tokens_per_batch", [1, 40, 4096])
def test_neither_batches_nor_the_common_beginning_nor_the_order_matter(words, tokenizer, monkeypatch, tokens_per_batch):
    model, rows = words
    options = {"precision": "float32", "progress": False}
    expected = number_distribution(model, tokenizer, rows, range(1, 6), **options)
    got = number_distribution(model, tokenizer, rows, range(1, 6), tokens_per_batch=tokens_per_batch, **options)
    np.testing.assert_allclose(got, expected, rtol=1e-4)
    turned = number_distribution(model, tokenizer, rows.select([2, 0, 1]), range(1, 6), **options)
    np.testing.assert_allclose(turned, expected[[2, 0, 1]], rtol=1e-4)
    monkeypatch.setattr(prefix, "_WORTH", 10**9)
    np.testing.assert_allclose(number_distribution(model, tokenizer, rows, range(1, 6), **options), expected, rtol=1e-4)


def test_rows_may_have_answers_of_their_own_and_conversations(words, tokenizer):
    model, rows = words
    options = {"precision": "float32", "progress": False}
    own = [["x", "y"], ["None", "[]"], ["'a'", "'b c'"]]
    got = answer_distribution(model, tokenizer, rows, own, **options)
    for i, answers in enumerate(own):
        alone = answer_distribution(model, tokenizer, rows.select([i]), answers, **options)
        ratio = got[i] / alone[0]  # of one row a single token may tell them apart: then the end is left out
        assert ratio[0] == pytest.approx(ratio[1], rel=0.5)
    turns = [
        {"messages": [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": "?"}]} for row in rows
    ]
    talk = answer_distribution(model, tokenizer, Dataset.from_list(turns), ["1", "2"], **options)
    np.testing.assert_allclose(talk, answer_distribution(model, tokenizer, rows, ["1", "2"], **options), rtol=1e-4)


def test_what_cannot_be_asked_is_refused(words, tokenizer):
    model, rows = words
    for answers, message in (
        (["1"], "row 0: expected two or more different"),
        (["1", "1"], "row 0: expected two or more different"),
        ([["1", "2"], ["1", "2"]], "answers for all rows or as many for each of 3"),
        ([["1", "2"], ["1", "2"], ["1", "2", "3"]], "answers for all rows or as many"),
    ):
        with pytest.raises(ValueError, match=message):
            answer_distribution(model, tokenizer, rows, answers, progress=False)


def test_the_last_answer_is_replaced_and_not_what_a_user_said_after_it():
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}, {"role": "user", "content": "thanks"}]
    assert answers_module._answered({"messages": turns}, "b")["messages"] == [
        turns[0],
        {**turns[1], "content": "b"},
        turns[2],
    ]
    with pytest.raises(ValueError, match="an answer to replace, got none"):
        answers_module._answered({"messages": turns[:1]}, "b")
