"""The study of notebook 12 on a random model: are its rows what they say, and does a run go on where it was?"""

import json

import numpy as np
import pytest
import torch

from fisherlib.course.study import decide_and_merge, documents, ratings
from fisherlib.model import load_tokenizer
from fisherlib.text.ratings import rated_sentences
from fisherlib.text.settings_reference import LETTERS, options, settings_reference

SMALL = decide_and_merge.Plan(
    sentences=4, labelled=3, shown=2, pairs=3, seeds=1,
    reference=documents.Plan(questions=12, folds=2, parts=2, per_part=2, steps=1, top=3, trained_layers=1),
)  # fmt: skip


@pytest.fixture(scope="module")
def words():
    """A random model with the vocabulary of the shipped tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    tokenizer = load_tokenizer()[0]
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
    )
    return LlamaForCausalLM(config).eval(), tokenizer


def test_sentences_are_those_of_the_archive_and_no_review_is_on_two_sides():
    known = rated_sentences()
    assert len(known) > 2000 and len({one.sentence.lower() for one in known}) == len(known)
    assert all(len(one.ratings) >= 20 and set(one.ratings) <= set(range(1, 10)) for one in known)
    assert np.std([one.mean for one in known]) > 1
    sides = ratings.sentences(20, 50)
    reviews = [{one.review for one in side} for side in (sides.labelled, sides.test, sides.others)]
    assert reviews[0].isdisjoint(reviews[1]) and reviews[1].isdisjoint(reviews[2]) and reviews[0].isdisjoint(reviews[2])
    shown = ratings.demonstrations(sides.others, 8, 3)
    assert len(shown) == 8 and shown == ratings.demonstrations(sides.others, 8, 3) != ratings.demonstrations(
        sides.others, 8, 4
    )
    assert max(one.mean for one in shown) - min(one.mean for one in shown) > 3


def test_the_reference_states_each_default_once_where_the_question_says():
    chunks, questions = settings_reference()
    assert len(questions) > 150 and len({q.setting for q in questions}) == len(questions)
    for q in questions:
        assert chunks[q.chunk].setting == q.setting and f"Default: {q.answer}" in chunks[q.chunk].text, q
    assert max(len(chunk.text) for chunk in chunks) <= 160
    known = {q.setting: q.answer for q in questions}
    assert (known["APPEND_SLASH"], known["ADMINS"], known["SESSION_COOKIE_AGE"]) == ("True", "[]", "1209600")


def test_options_hold_the_right_one_once_anywhere_and_a_frequent_one_gives_nothing_away():
    _, questions = settings_reference()
    places, frequent, right = [], 0, 0
    for seed in range(20):
        for q in questions:
            shown = options(q, questions, seed=seed)
            assert len(set(shown)) == len(LETTERS) and q.answer in shown
            places.append(shown.index(q.answer))
            frequent += "None" in shown
            right += q.answer == "None"
    assert np.bincount(places).min() > 0.22 * len(places)  # so a model that looks at places has a quarter
    assert right / frequent < 0.4  # of the questions that show None
    assert options(questions[0], questions[::-1], seed=3) == options(questions[0], questions, seed=3)
    with pytest.raises(ValueError, match="4 different defaults"):
        options(questions[0], questions[:2], seed=0)


def test_a_judge_that_always_says_a_earns_one_half_by_letter_and_shows_what_it_leans_to_by_expectation():
    p = np.array([[[0.7, 0.2, 0.1]], [[0.6, 0.35, 0.05]]])  # A is likelier if the true text is A
    assert ratings.earned(p, "letter").tolist() == [0.5]
    assert ratings.earned(p, "expectation")[0] == pytest.approx((0.75 + 0.375) / 2)
    tied = np.array([[[0.4, 0.4, 0.2]], [[0.1, 0.1, 0.8]]])
    assert ratings.earned(tied, "letter").tolist() == [0.5]
    sure = np.array([[[1.0, 0, 0]], [[0, 1.0, 0]]])
    assert ratings.earned(sure, "letter").tolist() == ratings.earned(sure, "expectation").tolist() == [1.0]


def test_false_texts_are_of_the_same_length_or_from_elsewhere():
    for kind in ratings.KINDS:
        for prompt, true, false in ratings.pairs(kind, 5):
            assert prompt and true != false
            if kind != "elsewhere":
                assert len(true.split()) == len(false.split())
            if kind == "shuffled":
                assert sorted(true.split()) == sorted(false.split())


def test_all_rows_are_written_once_and_say_what_they_are(words, tmp_path, monkeypatch):
    monkeypatch.setattr(decide_and_merge, "Plan", lambda: SMALL)
    monkeypatch.setattr(decide_and_merge, "load_model", lambda: words)
    decide_and_merge.main(["--folder", str(tmp_path / "run"), "--results", str(tmp_path / "results")])
    rows = json.loads((tmp_path / "results" / "rows.json").read_text())
    assert [(row["part"], row["seed"]) for row in rows] == decide_and_merge.wanted(SMALL)
    by = {(row["part"], row["seed"]): row for row in rows}
    assert np.shape(by["ratings", 0]["p"]) == (7, 9) and len(by["ratings", 0]["truth"]) == 7
    assert np.shape(by["judge loop", 0]["p"]) == (2, 3, 3)
    for stage in documents.STAGES:
        tested = [i for fold in range(2) for i in by[stage, fold]["test"]]
        assert sorted(tested) == list(range(12))  # each question once
        for fold in range(2):
            assert all(np.allclose(np.sum(p, axis=1), 1, atol=1e-4) for p in by[stage, fold]["p"].values())
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "rows").iterdir()}
    next(iter(sorted(before))).unlink()
    monkeypatch.setattr(decide_and_merge, "run", lambda *_: by["ratings", 0])
    decide_and_merge.main(["--folder", str(tmp_path / "run"), "--results", str(tmp_path / "results")])
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "rows").iterdir()}
    assert sum(before[path] != time for path, time in after.items()) == 1


def test_parts_are_disjoint_and_the_re_ranker_never_sees_a_test_question(words, monkeypatch):
    model, tokenizer = words
    known = documents.desk(model, tokenizer, 12, 3, progress=False)
    features = documents.training_features(model, tokenizer, known)
    train = np.arange(1, 12, 2)
    plan = SMALL.reference
    for given in (None, features):
        parts = documents.parts_of(train, plan, 0, given)
        picked = np.concatenate(parts).tolist()
        assert len(parts) == 2 and len(set(picked)) == 4 and set(picked) <= set(train.tolist())
    seen = []
    fit = documents.ChunkReranker.fit
    monkeypatch.setattr(documents.ChunkReranker, "fit", lambda *given: seen.append(given) or fit(*given))
    documents.contexts(known, train, np.arange(0, 12, 2))
    assert np.array_equal(seen[0][0], known.scores[train]) and np.array_equal(seen[0][2], known.relevant[train])


def test_only_the_last_layers_are_trained(words):
    model, tokenizer = words
    known = documents.desk(model, tokenizer, 4, 2, progress=False)
    after = documents.tuned(model, tokenizer, known, np.arange(3), 1, SMALL.reference, seed=0)
    moved = {name for name, weight in after.state_dict().items() if not torch.equal(weight, model.state_dict()[name])}
    assert moved and all(name.startswith("model.layers.1.") for name in moved)
