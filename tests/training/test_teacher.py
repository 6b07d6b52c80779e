"""A model as the reference: its demonstrations are not trained on, candidates differ, and ranks are those of its scores."""

import copy

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from fisherlib.text import encode
from fisherlib.training import objectives, teacher
from tests.training.test_self_play import talker  # noqa: F401

ROWS = Dataset.from_list(
    [{"prompt": "a b ", "response": "c d"}, {"prompt": "b ", "response": "a"}, {"prompt": "c c ", "response": "d"}]
)
EXAMPLES = Dataset.from_list([{"prompt": "d ", "response": "b"}])


def test_demonstrations_stand_in_the_prompt_and_count_for_nothing(talker):  # noqa: F811
    _, tokenizer = talker
    shown = teacher.demonstrated(ROWS, tokenizer, EXAMPLES)
    for before, after in zip(encode(ROWS, tokenizer), encode(shown, tokenizer), strict=True):
        assert sum(before.is_response) == sum(after.is_response)
        assert after.input_ids[-len(before.input_ids) :] == before.input_ids and len(after.input_ids) > len(before.input_ids)
    assert shown["response"] == ROWS["response"]


def test_in_a_chat_they_are_earlier_turns_and_count_for_nothing(talker):  # noqa: F811
    _, tokenizer = talker
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['content'] }} {% if m['role'] == 'assistant' %}<end> {% endif %}{% endfor %}"
    )
    rows = ROWS.add_column("system", ["d d "] * 3).add_column("kept", [1, 2, 3])
    shown = teacher.demonstrated(rows, tokenizer, EXAMPLES)
    assert shown["kept"] == [1, 2, 3] and [m["role"] for m in shown[0]["messages"]] == [
        "system", "user", "assistant", "user", "assistant",
    ]  # fmt: skip
    for before, after in zip(encode(rows, tokenizer), encode(shown, tokenizer), strict=True):
        assert sum(before.is_response) == sum(after.is_response) > 1
        ends = [
            [token for token, counts in zip(one.input_ids, one.is_response, strict=True) if counts]
            for one in (before, after)
        ]
        assert ends[0] == ends[1] and len(after.input_ids) > len(before.input_ids)


@pytest.mark.parametrize("count", [1, 4])
def test_candidates_differ_and_are_as_many_as_were_found(talker, count):  # noqa: F811
    model, tokenizer = talker
    rows = teacher.candidates(model, tokenizer, ROWS, count=count, max_new_tokens=3, progress=False)
    for several in rows["alternatives"]:
        assert 1 <= len(several) <= count and len(set(map(tuple, several))) == len(several)
        assert all(1 <= len(ids) <= 3 for ids in several)
    again = teacher.candidates(model, tokenizer, ROWS, count=count, max_new_tokens=3, progress=False)
    assert rows["alternatives"] == again["alternatives"]


def test_scores_are_the_mean_log_probabilities_of_the_model_itself(talker):  # noqa: F811
    model, tokenizer = talker
    rows = teacher.candidates(model, tokenizer, ROWS, count=3, max_new_tokens=4, progress=False)
    ranked = teacher.rank(model, tokenizer, rows, examples=EXAMPLES, progress=False)
    shown = teacher.demonstrated(ROWS, tokenizer, EXAMPLES)
    for row, example in enumerate(encode(shown, tokenizer)):
        prompt = example.input_ids[: example.is_response.index(True)]
        answers = [example.input_ids[len(prompt) :], *rows["alternatives"][row]]
        for answer, score in zip(answers, ranked.scores[row], strict=True):
            with torch.no_grad():
                log_p = model(torch.tensor([prompt + answer])).logits[0].double().log_softmax(-1)
            steps = log_p[len(prompt) - 1 : -1].gather(1, torch.tensor(answer)[:, None])
            assert score == pytest.approx(steps.mean().item(), abs=1e-4)
    assert any(len(one) > 2 for one in ranked.scores)


def test_demonstrations_change_what_the_teacher_says(talker):  # noqa: F811
    model, tokenizer = talker
    rows = teacher.candidates(model, tokenizer, ROWS, count=3, max_new_tokens=4, progress=False)
    alone = teacher.rank(model, tokenizer, rows, progress=False)
    shown = teacher.rank(model, tokenizer, rows, examples=EXAMPLES, progress=False)
    assert any(not np.allclose(a, b, atol=1e-3) for a, b in zip(alone.scores, shown.scores, strict=True))


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=7), st.randoms())
def test_ranks_follow_scores_whatever_their_order(values, random):
    ranks = teacher.ranks_of([0.0, *map(float, values)])[1:]
    for i, a in enumerate(values):
        for j, b in enumerate(values):
            assert (ranks[i] > ranks[j]) == (a > b) and (ranks[i] == ranks[j]) == (a == b)
    assert set(ranks) == set(range(len(set(values))))  # no rank is left out
    order = list(range(len(values)))
    random.shuffle(order)
    moved = teacher.ranks_of([0.0, *(float(values[k]) for k in order)])[1:]
    assert moved.tolist() == [ranks[k] for k in order]


def test_ranks_go_into_the_loss_and_the_target_is_not_ranked():
    loss = objectives.Ranking([teacher.ranks_of([9.0, -1.0, -2.0])])
    log_p = [torch.tensor([-9.0]), torch.tensor([-1.0]), torch.tensor([-3.0])]
    assert float(loss(0, log_p)) == 0  # in order, far apart
    assert float(loss(0, [log_p[0], log_p[2], log_p[1]])) == pytest.approx(100 * (2 + 0.01 * np.log(2)))
    assert float(objectives.Ranking([teacher.ranks_of([0.0, 1.0, 1.0])])(0, log_p)) == 0  # a tie teaches nothing


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m, t: teacher.demonstrated(ROWS, t, EXAMPLES.select([])), "expected examples with 'prompt' and 'response'"),
        (lambda m, t: teacher.demonstrated(ROWS.remove_columns("response"), t, EXAMPLES), "expected rows with 'prompt'"),
        (lambda m, t: teacher.candidates(m, t, ROWS, count=0), "count of at least 1, got 0"),
        (lambda m, t: teacher.candidates(m, t, ROWS.add_column("alternatives", [["a"]] * 3)), "rows without alternatives"),
        (lambda m, t: teacher.rank(m, t, ROWS), "expected rows with alternatives to rank"),
    ],
)
def test_refusals(talker, call, words):  # noqa: F811
    with pytest.raises(ValueError, match=words):
        call(*talker)
