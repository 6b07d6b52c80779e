"""Search and second look: recall grows with what is shown, and neither the order of chunks nor a question's level counts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fisherlib.training.retrieval import ChunkReranker, question_log_p, retrieve

CHUNKS = ["the cat sat on a mat", "dogs run far", "one dog and one cat", "mats are flat", "nothing here"]
QUESTIONS = ["where did the cat sit?", "do dogs run?", "zebra"]


def test_the_best_chunk_comes_first_and_ties_in_their_order():
    found, scores = retrieve(CHUNKS, QUESTIONS, top=3)
    assert found[0, 0] in (0, 2) and found[1, 0] == 1
    assert found[2].tolist() == [0, 1, 2] and not scores[2].any()  # no word in common
    assert (np.diff(scores, axis=1) <= 0).all() and (scores <= 1 + 1e-12).all()


def test_more_is_the_same_and_more_and_the_order_of_chunks_is_nothing():
    wide, scores = retrieve(CHUNKS, QUESTIONS, top=5)
    for top in range(1, 5):
        assert np.array_equal(retrieve(CHUNKS, QUESTIONS, top=top)[0], wide[:, :top])  # so recall grows with top
    turned = [3, 0, 4, 1, 2]
    again, same = retrieve([CHUNKS[i] for i in turned], QUESTIONS, top=5)
    np.testing.assert_allclose(same, scores, atol=1e-12)
    assert [turned[i] for i in again[1, :1]] == wide[1, :1].tolist()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_a_re_ranker_finds_a_signal_and_never_leaves_the_candidates(seed):
    rng = np.random.default_rng(seed)
    Q, K = 60, 5
    relevant = np.zeros((Q, K), dtype=bool)
    relevant[np.arange(Q), rng.integers(0, K, Q)] = True
    scores = -np.sort(-rng.random((Q, K)), axis=1)
    log_p = rng.normal(size=(Q, 1)) + 3 * relevant + 0.1 * rng.normal(size=(Q, K))  # each question has a level of its own
    chances = ChunkReranker.fit(scores[:40], log_p[:40], relevant[:40]).chances(scores[40:], log_p[40:])
    assert chances.shape == (20, K) and ((chances > 0) & (chances < 1)).all()
    hits = relevant[40:][np.arange(20), chances.argmax(1)].mean()
    assert hits >= 0.9 and hits <= relevant[40:].any(1).mean()


def test_the_level_of_a_question_does_not_count():
    rng = np.random.default_rng(0)
    scores, log_p = rng.random((30, 4)), rng.normal(size=(30, 4))
    relevant = np.eye(4, dtype=bool)[rng.integers(0, 4, 30)]
    reranker = ChunkReranker.fit(scores, log_p, relevant)
    np.testing.assert_allclose(reranker.chances(scores, log_p + 7), reranker.chances(scores, log_p))


def test_the_model_s_view_is_the_held_out_loss_of_the_question(real):
    got = question_log_p(*real, ["DEBUG Default: False"], ["What is the default of DEBUG?"], progress=False)
    assert got.shape == (1,) and -6 < got[0] < 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: retrieve(CHUNKS, QUESTIONS, top=0), "from 1 to 5"),
        (lambda: retrieve(CHUNKS, QUESTIONS, top=6), "from 1 to 5"),
        (lambda: retrieve(["the", "of"], QUESTIONS, top=1), "chunks with words"),
        (lambda: ChunkReranker.fit(np.ones((2, 2)), np.ones((2, 2)), np.zeros((2, 2), bool)), "right and wrong candidates"),
        (lambda: ChunkReranker.fit(np.ones((2, 2)), np.ones((2, 3)), np.eye(2, dtype=bool)), "of one shape"),
        (lambda: ChunkReranker.fit(np.full((2, 2), np.nan), np.ones((2, 2)), np.eye(2, dtype=bool)), "finite scores"),
    ],
)
def test_what_cannot_be_searched_is_refused(as_a_user, call, message):
    with pytest.raises(ValueError, match=message):
        call()
