"""IFD, SLearnLLM and LLMaAA do what their papers say, up to the differences that their docstrings name."""

import copy
import importlib
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import fisherlib as fl
from fisherlib import selectors
from fisherlib.selectors import (
    head_matrix,
    ifd,
    ifd_scores,
    ifd_warm_up,
    llmaaa,
    llmaaa_scores,
    meta_gradients,
    meta_weights,
    read_grade,
    slearn,
    slearn_grades,
    slearn_kept,
    slearn_scores,
)
from fisherlib.selectors._scored import check_scores
from fisherlib.selectors.llmaaa import _nearest_distinct

slearn_module = importlib.import_module("fisherlib.selectors.slearn")  # the package's attribute is the function
some = settings(max_examples=25, deadline=None)
CHARACTERS = list(map(chr, range(32, 127)))
EXACT = {"precision": "float32"}
CHAT = "{% for m in messages %}{{ m.role[0] }}:{{ m.content }};{% endfor %}{% if add_generation_prompt %}a:{% endif %}"


def letters(eos="<eos>", template=None, **special):
    """A token for each character; 97 in all, as the tiny model has."""
    vocabulary = {word: i for i, word in enumerate(["<unk>", *CHARACTERS, "<eos>"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token=eos, chat_template=template, **special
    )


def exchanges(*pairs):
    return Dataset.from_list([{"prompt": prompt, "response": response} for prompt, response in pairs])


PAIRS = [("Who goes?", "A friend."), ("Why?", "x"), ("Say it again: ", "It is the east, and so on"), ("Ha", "ha ha ha")]


def losses(model, before, text):
    """The loss of each token of `text` after `before`, one forward pass, by hand."""
    with torch.no_grad():
        log_p = model(torch.tensor([[*before, *text]])).logits[0].double().log_softmax(1)
    places = torch.arange(len(before) - 1, len(before) + len(text) - 1)
    return -log_p[places, torch.tensor(text)].numpy()


def bare(n=6, d=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return fl.TokenFeatures.from_list([torch.randn(i % 3 + 1, d, generator=generator) for i in range(n)])


# --- IFD -------------------------------------------------------------------------------------------------------------


def test_ifd_is_the_ratio_of_two_losses_of_the_same_tokens_whatever_the_batch(tiny):
    tokenizer, rows = letters(), exchanges(*PAIRS)
    expected = []
    for prompt, response in PAIRS:
        prompt, response = tokenizer(prompt)["input_ids"], [*tokenizer(response)["input_ids"], 96]
        expected.append((losses(tiny, prompt, response).mean(), losses(tiny, [96], response).mean()))
    after, alone = np.array(expected).T
    assert np.ptp(after / alone) > 0.01
    for options in ({}, {"tokens_per_batch": 1}, {"features": fl.extract_features(tiny, tokenizer, rows, **EXACT)}):
        scores = ifd_scores(rows, tiny, tokenizer, **EXACT, **options)
        assert np.allclose(scores, after / alone, rtol=0, atol=1e-6)
        scores = ifd_scores(rows, tiny, tokenizer, **EXACT, **options, ratio="perplexity")
        assert np.allclose(scores, np.exp(after) / np.exp(alone), rtol=1e-5, atol=0)
    other = ifd_scores(rows, tiny, tokenizer, **EXACT, opening="Q:")
    alone = [losses(tiny, tokenizer("Q:")["input_ids"], [*tokenizer(r)["input_ids"], 96]).mean() for _, r in PAIRS]
    assert np.allclose(other, after / alone, rtol=0, atol=1e-6)


def test_alone_is_after_what_the_template_writes_before_an_answer(tiny):
    tokenizer = letters(template=CHAT)
    turns = [[{"role": "user", "content": p}, {"role": "assistant", "content": r}] for p, r in PAIRS]
    scores = ifd_scores(exchanges(*PAIRS), tiny, tokenizer, **EXACT)
    assert np.array_equal(scores, ifd_scores(Dataset.from_list([{"messages": t} for t in turns]), tiny, tokenizer, **EXACT))
    for (prompt, response), score in zip(PAIRS, scores, strict=True):
        said = tokenizer(f"{response};")["input_ids"]
        after, alone = (losses(tiny, tokenizer(s)["input_ids"], said).mean() for s in (f"u:{prompt};a:", "a:"))
        assert score == pytest.approx(after / alone, abs=1e-6)


def test_what_begins_every_row_begins_a_response_that_stands_alone(tiny):
    tokenizer = letters(template="~" + CHAT, bos_token="~")
    for (prompt, response), score in zip(PAIRS, ifd_scores(exchanges(*PAIRS), tiny, tokenizer, **EXACT), strict=True):
        said = tokenizer(f"{response};")["input_ids"]
        after, alone = (losses(tiny, tokenizer(s)["input_ids"], said).mean() for s in (f"~u:{prompt};a:", "~a:"))
        assert score == pytest.approx(after / alone, abs=1e-6)


def test_what_costs_nothing_either_way_owes_nothing():
    certain = oracle()
    certain.lm_head.weight.data *= 1e4
    assert ifd_scores(exchanges(("three and four?", "7")), certain, letters(), **EXACT).tolist() == [1.0]


def test_a_response_that_owes_nothing_to_its_prompt_has_a_score_of_one(tiny):
    blind = copy.deepcopy(tiny)  # every token looks the same: it predicts the same whatever it has read
    blind.model.embed_tokens.weight.data[:] = tiny.model.embed_tokens.weight[5].detach()
    short = copy.deepcopy(tiny)  # no attention: it sees only the token before
    for layer in short.model.layers:
        layer.self_attn.o_proj.weight.data.zero_()
    for ratio in ("loss", "perplexity"):
        options = {"ratio": ratio, **EXACT}
        assert np.allclose(ifd_scores(exchanges(*PAIRS), blind, letters(), **options), 1, rtol=0, atol=1e-6)
        assert np.allclose(ifd_scores(exchanges(*PAIRS), short, letters(template=CHAT), **options), 1, rtol=0, atol=1e-6)
        assert np.abs(ifd_scores(exchanges(*PAIRS), tiny, letters(template=CHAT), **options) - 1).min() > 1e-4


def ratios(after, alone):
    return after / alone, np.exp(after - alone)


@some
@given(pairs=st.lists(st.tuples(st.integers(1, 99), st.integers(1, 99)), min_size=1, max_size=9), n=st.integers(1, 9))
def test_both_ratios_agree_on_what_is_at_most_one_and_the_top_of_that_is_taken(pairs, n):
    after, alone = np.array(pairs).T / 16
    loss, perplexity = ratios(after, alone)
    assert np.array_equal(loss <= 1, perplexity <= 1) and (loss > 0).all() and (perplexity > 0).all()
    features, n = bare(len(pairs)), min(n, len(pairs))
    chosen = ifd(None, features, examples=n, scores=loss).indices.tolist()
    fine = sorted(np.flatnonzero(loss <= 1), key=lambda i: (-loss[i], i))
    above = sorted(np.flatnonzero(loss > 1), key=lambda i: (loss[i], i))
    assert chosen == [*fine, *above][:n]


def test_the_two_ratios_rank_differently():
    loss, perplexity = ratios(np.array([2.0, 0.5]), np.array([2.2, 0.6]))
    assert loss.round(3).tolist() == [0.909, 0.833] and perplexity.round(3).tolist() == [0.819, 0.905]
    assert ifd(None, bare(2), examples=1, scores=loss).indices.tolist() == [0]
    assert ifd(None, bare(2), examples=1, scores=perplexity).indices.tolist() == [1]


def test_what_ifd_refuses(tiny):
    tokenizer, rows = letters(), exchanges(*PAIRS)
    text = Dataset.from_list([{"text": "No prompt here."}])
    turns = [{"role": r, "content": "x"} for r in ("user", "assistant", "user", "assistant")]
    mine, other = (fl.extract_features(m, tokenizer, rows, **EXACT) for m in (tiny, copy.deepcopy(tiny).apply(_double)))
    for bad, options, message in (
        (text, {}, "row 0: expected a prompt that the response answers, got none"),
        (exchanges(("Q", "x"), (" ", "x")), {}, "row 1: expected a prompt"),
        (Dataset.from_list([{"messages": turns}]), {}, "row 0: expected one turn of the assistant, the last"),
        (None, {}, "expected the rows of the pool"),
        (rows, {"ratio": "margin"}, "expected ratio to be one of"),
        (rows, {"features": other}, "expected features of this model, but row 1"),
        (rows, {"features": mine.subset([1, 0, 2, 3])}, "expected features with nll of these 4 rows, token by token"),
    ):
        with pytest.raises(ValueError, match=message):
            ifd_scores(bad, tiny, tokenizer, **EXACT, **options)
    with pytest.raises(ValueError, match="an opening of at least one token"):
        ifd_scores(rows, tiny, letters(eos=None))
    with pytest.raises(ValueError, match="a model and its tokenizer, or scores= of ifd_scores, got neither"):
        ifd(rows, bare(4), examples=1)
    with pytest.raises(ValueError, match="got NaN for example 2"):
        ifd(None, bare(4), examples=1, scores=np.array([1.0, 1.0, np.nan, 1.0]))
    with pytest.raises(ValueError, match="a score for each of 4 examples, got 3"):
        ifd(None, bare(4), examples=1, scores=np.ones(3))
    for bad, shape in ((0.5, "\\(\\)"), (np.ones((4, 1)), "\\(4, 1\\)")):
        with pytest.raises(ValueError, match=f"a score for each of 4 examples, got an array of shape {shape}"):
            check_scores(bare(4), bad)  # called by all; the annotations of the selectors are checked in tests only
    with pytest.raises(ValueError, match="no more options beside scores="):
        ifd(None, bare(4), examples=1, scores=np.ones(4), ratio="loss")


def _double(module):
    if isinstance(module, torch.nn.Linear):
        module.weight.data *= 2


def test_ifd_computes_what_it_is_not_given(tiny):
    rows, tokenizer = exchanges(*PAIRS), letters()
    options = {"ratio": "perplexity", **EXACT}
    asked = ifd(rows, bare(4), examples=4, model=tiny, tokenizer=tokenizer, **options)
    given = ifd(None, bare(4), examples=4, scores=ifd_scores(rows, tiny, tokenizer, **options))
    assert np.array_equal(asked.indices, given.indices) and asked.settings["ratio"] == "perplexity"


@some
@given(seed=st.integers(0, 500), clusters=st.integers(1, 30), each=st.integers(1, 4), own=st.booleans())
def test_the_warm_up_draws_from_the_middle_of_each_cluster(seed, clusters, each, own):
    features = bare(24, seed=seed)
    spread = np.random.default_rng(seed).random(24) if own else None
    chosen = ifd_warm_up(features, n_clusters=clusters, per_cluster=each, spread=spread, seed=seed)
    ids, X = selectors._pooled.centred(features)
    labels, distances = selectors._pooled.clusters(X, min(clusters, 24), seed)
    by = distances if spread is None else spread[ids]
    assert len(set(chosen)) == len(chosen)
    for cluster in np.unique(labels):
        members = np.flatnonzero(labels == cluster)
        picked = members[np.isin(ids[members], chosen)]
        rank = np.argsort(np.argsort(by[members], kind="stable"))[np.isin(members, picked)]
        m = len(members)
        middle = range(m // 4, int(np.ceil(3 * m / 4)))
        assert len(picked) == min(each, len(middle)) > 0 and set(rank) <= set(middle)
    with pytest.raises(ValueError, match="n_clusters and per_cluster of at least 1"):
        ifd_warm_up(features, per_cluster=0)
    with pytest.raises(ValueError, match="a spread for each of 24 examples"):
        ifd_warm_up(features, spread=np.ones(3))


# --- SLearnLLM -------------------------------------------------------------------------------------------------------


def oracle():
    """Says "7", and then ends, whatever it is asked: next tokens follow from the last token alone."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=97, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1, eos_token_id=96
    )
    model = LlamaForCausalLM(config).eval()
    model.model.layers[0].self_attn.o_proj.weight.data.zero_()
    model.model.layers[0].mlp.down_proj.weight.data.zero_()
    seven, e = letters().convert_tokens_to_ids("7"), torch.eye(16)
    model.model.embed_tokens.weight.data[:] = e[0]
    model.model.embed_tokens.weight.data[seven] = e[1]
    model.lm_head.weight.data.zero_()
    model.lm_head.weight.data[seven], model.lm_head.weight.data[96] = e[0], e[1]
    return model


def test_an_oracle_keeps_nothing():
    rows = exchanges(("three and four?", "7"), ("ten less three?", "7"), ("two and two?", "4"))
    scores = slearn_scores(rows, oracle(), letters(), **EXACT)
    assert scores.tolist() == [1, 1, 0]  # after the wrong "4" it says "7" again
    assert slearn_kept(scores[:2]).sum() == 0 and slearn_kept(scores).tolist() == [False, False, True]
    assert slearn(rows, bare(3), examples=1, model=oracle(), tokenizer=letters()).indices.tolist() == [2]


def test_token_accuracy_is_teacher_forced_and_exact_match_is_greedy_decoding(tiny):
    tokenizer, rng = letters(eos=None), np.random.default_rng(0)
    pairs, accuracy, exact = [], [], []
    for k in range(12):
        prompt = [int(i) for i in rng.integers(1, 96, 4)]
        said = greedy(tiny, prompt, 5)
        if k % 3:
            said[int(rng.integers(5))] = int(rng.integers(1, 96))
        if 0 in said or 96 in said:  # no text stands for these
            continue
        right = [greedy(tiny, [*prompt, *said[:t]], 1)[0] == said[t] for t in range(5)]
        accuracy.append(np.mean(right))
        exact.append(float(greedy(tiny, prompt, 5) == said))
        pairs.append(("".join(CHARACTERS[i - 1] for i in prompt), "".join(CHARACTERS[i - 1] for i in said)))
    assert 0 < sum(exact) < len(exact) and len(set(accuracy)) > 2
    for batch in (1, 1000):
        options = {"tokens_per_batch": batch, **EXACT}
        assert np.allclose(slearn_scores(exchanges(*pairs), tiny, tokenizer, **options), accuracy)
        assert slearn_scores(exchanges(*pairs), tiny, tokenizer, how="exact match", **options).tolist() == exact


def greedy(model, prompt, n):
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(n):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


@some
@given(
    scores=st.lists(st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.5, 1.0]), st.just(np.nan)), min_size=2, max_size=9),
    thresholds=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)),
    seed=st.integers(0, 99),
)
def test_what_is_kept_comes_first_grows_with_the_threshold_and_leaves_the_ungraded(scores, thresholds, seed):
    scores, features = np.array([0.7, *scores]), bare(len(scores) + 1)
    low, high = (slearn_kept(scores, t) for t in sorted(thresholds))
    assert (low <= high).all()
    order = slearn(None, features, examples=len(scores), scores=scores, threshold=max(thresholds), seed=seed)
    kept, rest = np.split(order.indices, [high.sum()])
    assert sorted(kept) == np.flatnonzero(high).tolist() and sorted(order.indices) == list(range(len(scores)))
    assert rest.tolist() == sorted(rest, key=lambda i: (np.isnan(scores[i]), scores[i] if scores[i] >= 0 else 0, i))
    assert order.settings["ungraded"] == np.isnan(scores).sum()
    other = slearn(None, features, examples=len(scores), scores=scores, threshold=max(thresholds), seed=seed + 1)
    assert sorted(kept) == sorted(other.indices[: len(kept)]) and np.array_equal(rest, other.indices[len(kept) :])
    lowest = slearn(None, features, examples=len(scores), scores=scores).indices
    assert np.array_equal(scores[lowest], np.sort(scores), equal_nan=True)


def test_what_is_wrong_alike_comes_in_any_order():
    orders = {
        tuple(slearn(None, bare(3), examples=3, scores=np.array([0.1, 0.2, 0.3]), threshold=0.5, seed=k).indices)
        for k in range(40)
    }
    assert len(orders) == 6


def test_the_model_answers_and_grades_itself():
    rows, grading = exchanges(("three and four?", "7"), ("two and two?", "4")), "{question} {reference} {answer} Grade:"
    graded = slearn_grades(rows, oracle(), letters(), grading=grading, answer_tokens=3, reply_tokens=3)
    assert graded.answers == graded.replies == ["7", "7"] and graded.scores.tolist() == [0.7, 0.7] and graded.ungraded == 0
    assert "2 of 2 answers graded, mean 0.70" in repr(graded)


def test_a_grade_by_expectation_is_the_mean_over_what_the_model_would_write(tiny):
    rows, tokenizer, answers = exchanges(*PAIRS), letters(), ["7", "x", "Why?", "ha ha ha"]
    graded = slearn_grades(
        rows, tiny, tokenizer, answers=answers, grading="{question}{reference}{answer}", read="expectation"
    )
    for (question, reference), answer, score in zip(PAIRS, answers, graded.scores, strict=True):
        asked = tokenizer(f"{question}{reference}{answer}\n")["input_ids"]
        grades = [[*tokenizer(str(grade))["input_ids"], 96] for grade in range(11)]  # 1 and 10 differ at their second token
        p = np.exp([-losses(tiny, asked, grade).sum() for grade in grades])
        assert score == pytest.approx(p @ np.arange(11) / 10 / p.sum(), abs=1e-6)
    assert graded.ungraded == 0 and len(set(graded.scores)) == 4 and graded.replies == [""] * 4
    roomy = copy.deepcopy(tiny)
    roomy.config.max_position_embeddings = 512
    own = slearn_grades(rows, roomy, tokenizer, answers=answers, read="expectation")  # asks for the grade at once
    assert not np.allclose(own.scores, graded.scores) and ((own.scores > 0) & (own.scores < 1)).all()


def test_a_grader_sees_all_three_texts_and_is_not_guessed_for():
    rows = exchanges(("a {answer}?", "7"), ("b", "4"), ("c", "7"))
    seen = []

    def strict(question, reference, answer):
        seen.append((question, reference, answer))
        return "Well.\nGrade: 10" if answer == reference else "Not at all" if question == "c" else "Grade: 0"

    answers = ["7", "x", "{question}"]
    first, again = (slearn_grades(rows, None, None, answers=answers, grader=strict) for _ in range(2))
    assert seen[:3] == [("a {answer}?", "7", "7"), ("b", "4", "x"), ("c", "7", "{question}")]
    assert first.scores[:2].tolist() == [1, 0] and first.ungraded == 1 and np.isnan(first.scores[2])
    assert np.array_equal(first.scores, again.scores, equal_nan=True)
    assert slearn_kept(first.scores).tolist() == [False, True, False]
    assert slearn(None, bare(3), examples=3, scores=first.scores).indices.tolist() == [1, 0, 2]
    again = slearn_grades(exchanges(("b", "4")), None, None, answers=["4"], grader=strict)
    assert slearn_kept(again.scores).sum() == 0  # taught, it is not asked to learn the same again
    whole = slearn_module._filled("{question}|{reference}|{answer}", "{answer}", "r", "a")
    assert whole == "{answer}|r|a"


def test_only_a_grade_is_a_grade():
    for reply, grade in (
        ("Grade: 7", 0.7),
        ("It differs in a word.\nThat is right.\n\nGrade: 10 ", 1.0),
        ("3/10", 0.3),
        ("0.", 0.0),
        ("Grade: 6\nI checked that.\nGrade: 6", 0.6),
    ):
        assert read_grade(reply) == grade
    for reply in (
        "",
        "   ",
        "good",
        "11",
        "-1",
        "7.5",
        "Grade: seven",
        "Grade: 7 or 8",
        "Grade: 3\nGrade: 4",
        "Grade: 3, but for a word.\nGrade: 4",
        "I first thought of Grade: 3.\n4",
        "Grade: 7\nBye",
    ):
        assert np.isnan(read_grade(reply))


def test_what_slearn_refuses(tiny):
    rows = exchanges(*PAIRS)
    for threshold in (0.0, -1.0, 1.1, np.nan):
        with pytest.raises(ValueError, match="a threshold above 0 and at most 1"):
            slearn(None, bare(2), examples=1, scores=np.ones(2), threshold=threshold)
    with pytest.raises(ValueError, match="expected how to be one of"):
        slearn_scores(rows, tiny, letters(), how="luck")
    with pytest.raises(ValueError, match="expected the rows of the pool"):
        slearn_scores(None, tiny, letters())
    with pytest.raises(ValueError, match="expected {answer} in the grading"):
        slearn_grades(rows, tiny, letters(), grading="{question} {reference}")
    with pytest.raises(ValueError, match="an answer to each of 4 prompts, got 1"):
        slearn_grades(rows, tiny, letters(), answers=["x"])
    for wrong in ({"read": "letter"}, {"read": "expectation", "grader": lambda *_: "7"}):
        with pytest.raises(ValueError, match="expected read 'reply', or 'expectation' without a grader"):
            slearn_grades(rows, tiny, letters(), **wrong)
    with pytest.raises(ValueError, match="a score for some example, got NaN for all 2 with tokens"):
        slearn(None, bare(2), examples=1, scores=np.full(2, np.nan))
    with pytest.raises(ValueError, match="scores= of slearn_scores, got neither"):
        slearn(rows, bare(4), examples=1)


# --- LLMaAA ----------------------------------------------------------------------------------------------------------


def test_the_nearest_to_two_centres_is_taken_once():
    X = np.array([[3.0, 0], [7, 0], [0, 5], [0, -5]])  # the centres are (5, 0) and (0, 0): both are nearest to the first
    labels = np.array([0, 0, 1, 1])
    assert _nearest_distinct(X, labels).tolist() == [0, 2]
    assert sorted(_nearest_distinct(X, 1 - labels)) == [0, 1]  # who comes first takes it


@some
@given(seed=st.integers(0, 500), n=st.integers(1, 12), copies=st.booleans())
def test_k_means_picks_are_distinct_and_nearest(seed, n, copies):
    rng = np.random.default_rng(seed)
    X = rng.integers(0, 3, (12, 2)).astype(float) if copies else rng.normal(size=(12, 2))
    features = fl.TokenFeatures.from_list([torch.tensor(x)[None] for x in X])
    picks = llmaaa(None, features, examples=n, seed=seed).indices
    assert len(set(picks)) == n == len(picks)
    _, X = selectors._pooled.centred(features)
    labels, _ = selectors._pooled.clusters(X, n, seed)
    taken = []
    for cluster in sorted(set(labels), key=lambda c: (-(labels == c).sum(), c)):
        distances = np.linalg.norm(X - X[labels == cluster].mean(0), axis=1)
        distances[taken] = np.inf
        taken.append(int(np.argmin(distances)))
    assert picks[: len(taken)].tolist() == taken


def test_doubt_is_that_of_the_models_own_distribution(tiny, ids):
    rows = [row for row in ids if len(row) > 1] + [[], [3]]
    biased = copy.deepcopy(tiny)
    biased.lm_head = torch.nn.Linear(16, 97)
    biased.lm_head.weight.data *= 8
    for model in (tiny, biased):
        features = fl.extract_features(model, None, rows, **EXACT)
        for reduction in ("mean", "sum", "max"):
            entropy, unsure = (
                llmaaa_scores(features, head_matrix(model), doubt=d, reduction=reduction)
                for d in ("entropy", "least confidence")
            )
            assert np.isnan(entropy[-2:]).all() and np.isnan(unsure[-2:]).all()
            for i, row in enumerate(rows[:-2]):
                with torch.no_grad():
                    p = model(torch.tensor([row])).logits[0, :-1].double().softmax(1).numpy()
                how = getattr(np, reduction)
                assert entropy[i] == pytest.approx(how(-(p * np.log(p)).sum(1)), rel=1e-4, abs=1e-5)
                assert unsure[i] == pytest.approx(how(1 - p.max(1)), rel=1e-4, abs=1e-5)
    chosen = llmaaa(None, features, examples=3, acquisition="entropy", head=head_matrix(model), reduction="max")
    best = llmaaa_scores(features, head_matrix(model), reduction="max")
    assert chosen.indices.tolist() == np.argsort(-best)[:3].tolist()


@some
@given(seed=st.integers(0, 500), scale=st.sampled_from([0.0, 0.1, 1.0, 30.0]))
def test_the_trace_weight_bounds_both_doubts(seed, scale):
    features, theta = problem(seed, scale=scale)
    p = (features.values @ theta.T).softmax(1)
    w, V = 1 - (p * p).sum(1).numpy(), len(theta)
    alone = fl.TokenFeatures(features.values, torch.arange(len(w) + 1))
    unsure, entropy = (llmaaa_scores(alone, theta, doubt=d) for d in ("least confidence", "entropy"))
    slack = 1e-12
    assert (1 - np.sqrt(1 - w) <= unsure + slack).all() and (unsure <= w + slack).all()
    assert (-np.log(1 - w) <= entropy + slack).all() and (entropy <= np.log(V) + slack).all()


def problem(seed, n=5, d=4, V=6, scale=1.0):
    """Features in float64 with labels, one example without tokens, and a head."""
    rng = np.random.default_rng(seed)
    lengths = [*rng.integers(1, 5, n - 1), 0]
    blocks = [torch.tensor(rng.normal(size=(int(t), d)) * scale) for t in lengths]
    labels = torch.tensor(rng.integers(0, V, sum(lengths)))
    return fl.TokenFeatures.from_list(blocks, labels=labels), torch.tensor(rng.normal(size=(V, d)))


def head_losses(theta, features, average):
    per_token = torch.nn.functional.cross_entropy(features.values @ theta.T, features.labels, reduction="none")
    return [part.mean() if average else part.sum() for part in per_token.split(features.lengths.tolist()) if len(part)]


def look_ahead(features, target, theta, loss, step):
    """-d (mean loss of the target after `step`) / d eps at 0, by autograd. `step(theta, gradient) -> theta'`."""
    theta = theta.clone().requires_grad_(True)
    own = head_losses(theta, features, loss == "mean")
    eps = torch.zeros(len(own), dtype=torch.float64, requires_grad=True)
    gradient = torch.autograd.grad(sum(e * part for e, part in zip(eps, own, strict=True)), theta, create_graph=True)[0]
    after = step(theta, gradient)
    judged = torch.nn.functional.cross_entropy(target.values @ after.T, target.labels)
    return -torch.autograd.grad(judged, eps)[0].numpy()


@some
@given(seed=st.integers(0, 500), loss=st.sampled_from(["sum", "mean"]), rate=st.sampled_from([1e-3, 1.0]))
def test_the_look_ahead_is_an_inner_product_of_gradients(seed, loss, rate):
    (features, theta), (target, _) = problem(seed), problem(seed + 1000)
    expected = look_ahead(features, target, theta, loss, lambda t, g: t - rate * g) / rate
    found = meta_gradients(features, target, theta, loss=loss)
    assert np.allclose(found[:-1], expected, rtol=0, atol=1e-12) and found[-1] == 0
    weights = meta_weights(features, target, theta, loss=loss)
    useful = np.maximum(found, 0)
    assert np.allclose(weights * useful.sum(), useful, rtol=0, atol=1e-12) and weights.min() >= 0
    assert weights.sum() == pytest.approx(1 if useful.any() else 0)
    if loss == "sum":  # and what the weights promise happens
        smaller = theta - 1e-4 * sum(w * g for w, g in zip(weights[:-1], example_gradients(features, theta), strict=True))
        before, after = (
            float(torch.nn.functional.cross_entropy(target.values @ t.T, target.labels)) for t in (theta, smaller)
        )
        assert after < before or not useful.any()


def example_gradients(features, theta):
    theta = theta.clone().requires_grad_(True)
    return [torch.autograd.grad(part, theta, retain_graph=True)[0] for part in head_losses(theta, features, False)]


def test_adam_inside_keeps_the_identity_at_zero_only_and_loses_it_with_its_moments():
    (features, theta), (target, _) = problem(3), problem(4)
    inner = meta_gradients(features, target, theta)[:-1]
    gradients = torch.stack(example_gradients(features, theta))

    def adam(g, m=0.0, v=0.0, t=1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        return theta - 1e-3 * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)

    def fall(h, **moments):
        """How fast the target's loss falls in each eps_i, by central differences of width h."""
        value = [
            [float(torch.nn.functional.cross_entropy(target.values @ adam(s * h * g, **moments).T, target.labels))]
            for g in gradients
            for s in (1, -1)
        ]
        plus, minus = np.array(value)[::2, 0], np.array(value)[1::2, 0]
        return (minus - plus) / (2 * h)

    def spread(x):
        return np.ptp(x / inner) / np.abs(x / inner).max()

    assert spread(fall(1e-11)) < 0.02  # proportional: the factor is lr / 1e-8
    assert np.median(fall(1e-11) / inner) == pytest.approx(1e-3 / 1e-8, rel=0.02)
    assert spread(fall(1e-4)) > 0.5  # a step that moves anything is one of signs
    rng = np.random.default_rng(0)
    assert spread(fall(1e-5, v=torch.tensor(rng.random(theta.shape) ** 4), t=5)) > 0.5  # a scale for each parameter


def test_weights_of_a_real_model_agree_with_autograd_and_train(tiny, ids):
    rows = [row for row in ids if len(row) > 1]
    features = fl.extract_features(tiny, None, rows, **EXACT)
    target = features.subset([0, 2])
    model = copy.deepcopy(tiny)
    gradients = []
    for row in rows:
        logits = model(torch.tensor([row])).logits[0, :-1]
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(row[1:]), reduction="sum")
        gradients.append(torch.autograd.grad(loss, model.lm_head.weight)[0].double())
    aim = (gradients[0] + gradients[2]) / (len(rows[0]) + len(rows[2]) - 2)
    expected = [float((aim * g).sum()) for g in gradients]
    found = meta_gradients(features, target, head_matrix(tiny))
    assert np.allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    weights = meta_weights(features, target, head_matrix(tiny))
    tuned = fl.fine_tune(tiny, None, rows, weights=weights, learning_rate=1e-3, precision="float32")
    used = [len(row) - 1 for row, w in zip(rows, weights, strict=True) if w > 0]
    assert tuned.response_tokens == sum(used)


def test_the_parameter_of_a_model_will_do_as_the_head():
    features, theta = problem(0)
    parameter = torch.nn.Parameter(theta)
    assert np.array_equal(meta_weights(features, features, parameter), meta_weights(features, features, theta))
    assert np.array_equal(llmaaa_scores(features, parameter), llmaaa_scores(features, theta), equal_nan=True)


def test_what_llmaaa_refuses():
    features, theta = problem(0)
    unlabelled = fl.TokenFeatures(features.values, features.offsets)
    wide = torch.ones(6, 5)
    for call, message in (
        (lambda: llmaaa(None, features, examples=2, acquisition="luck"), "acquisition to be one of"),
        (lambda: llmaaa(None, features, examples=2, head=theta), "no head or scores beside 'k-means'"),
        (lambda: llmaaa(None, features, examples=2, scores=np.ones(5)), "no head or scores beside 'k-means'"),
        (lambda: llmaaa(None, features, examples=2, acquisition="entropy"), "the output head, a matrix .*, got None"),
        (lambda: llmaaa(None, features, examples=2, acquisition="entropy", scores=np.ones(2)), "each of 5 examples, got 2"),
        (lambda: llmaaa_scores(features, wide), "expected a head \\[V, 4\\].*got \\[6, 5\\]"),
        (lambda: meta_weights(features, features, theta * np.nan), "expected a finite head, got NaN or infinity"),
        (lambda: llmaaa_scores(features, theta, doubt="luck"), "expected a doubt of"),
        (lambda: llmaaa_scores(features, theta, reduction="median"), "expected a doubt of"),
        (
            lambda: meta_weights(features, None, theta),
            "expected a target, features of held-out examples with tokens, got None",
        ),
        (lambda: meta_weights(features, features.subset([4]), theta), "expected a target"),
        (lambda: meta_weights(features, unlabelled, theta), "with labels below 6.* without labels"),
        (lambda: meta_weights(features, features, theta[:2]), "with labels below 2"),
        (lambda: meta_weights(features, features, wide), "expected a head \\[V, 4\\]"),
        (lambda: meta_weights(features, features, theta, loss="max"), "expected loss to be one of"),
        (lambda: meta_weights(features, bare(3, d=3), theta), "expected features of width 4"),
        (lambda: llmaaa_scores(fl.TokenFeatures(features.values * np.nan, features.offsets), theta), "finite features"),
        (
            lambda: head_matrix(SimpleNamespace(get_output_embeddings=lambda: None, config=None)),
            "a linear output head, got NoneType",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()


# --- the figure of notebook 07 ---------------------------------------------------------------------------------------


def test_methods_that_choose_alike_stand_together_in_the_figure():
    names, values = list("abcd"), np.eye(4)
    values[0, 2] = values[2, 0] = 0.8
    values[1, 3] = values[3, 1] = 0.5
    figure = fl.plotting.overlap(pd.DataFrame(values, names, names), "two pairs")
    (axis,) = figure.axes
    shown, numbers = zip(*(label.get_text().split() for label in axis.get_yticklabels()), strict=True)
    assert numbers == ("1", "2", "3", "4")
    assert [label.get_text() for label in axis.get_xticklabels()] == ["1", "2", "3"]
    assert sorted(shown) == names and {frozenset(shown[:2]), frozenset(shown[2:])} == {frozenset("ac"), frozenset("bd")}
    order = [names.index(name) for name in shown]
    below, ordered = np.tri(4, k=-1, dtype=bool), values[np.ix_(order, order)]  # each pair once
    np.testing.assert_array_equal(axis.images[0].get_array().filled(np.nan), np.where(below, ordered, np.nan))
    texts = {text.get_position(): text.get_text() for text in axis.texts}  # (column, row)
    pairs = zip(*np.nonzero(below & (ordered > 0)), strict=True)
    assert texts == {(column, row): f"{100 * ordered[row, column]:.0f}" for row, column in pairs} and len(texts) == 2
    values[0, 2] = 0.7
    for bad in (values, np.ones((1, 1)), 0.5 * np.ones((2, 2)), np.ones((2, 3))):
        with pytest.raises(ValueError, match="a symmetric table of at least two methods"):
            fl.plotting.overlap(pd.DataFrame(bad), "")
