"""Replay keeps the total and the share, to one row."""

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

import fisherlib as fl


def rows_of(mark, lengths):
    return [[mark] * (n + 1) for n in lengths]  # the first token of a row does not count


def tokens_of(rows, mark):
    return sum(len(row) - 1 for row in rows if row[0] == mark)


@given(st.lists(st.integers(1, 9), min_size=20, max_size=40), st.floats(0, 1), st.integers(20, 60), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_the_total_and_the_share_are_met_to_one_row(lengths, share, tokens, seed):
    new, old = rows_of(1, lengths * 3), rows_of(2, lengths * 3)
    mixed = fl.mixtures.replayed(new, old, share=share, tokens=tokens, seed=seed)
    again = round(share * tokens)
    for mark, budget in ((1, tokens - again), (2, again)):
        assert budget - max(lengths) < tokens_of(mixed, mark) <= budget
    assert mixed == fl.mixtures.replayed(new, old, share=share, tokens=tokens, seed=seed)


def test_shares_of_0_and_1_are_the_pure_parts_and_ask_nothing_of_the_other():
    new, old = rows_of(1, [3, 4, 5]), rows_of(2, [2, 2])
    assert set(map(tuple, fl.mixtures.replayed(new, [[9]], share=0, tokens=12))) == set(map(tuple, new))
    assert fl.mixtures.replayed([[9]], old, share=1, tokens=4) == old


def test_who_chooses_is_asked_for_the_old_part_and_believed_only_as_far_as_it_goes():
    new, old, asked = rows_of(1, [4] * 9), rows_of(2, [4] * 9), []

    def choose(tokens):
        asked.append(tokens)
        return np.array([7, 2])

    mixed = fl.mixtures.replayed(new, old, share=0.25, tokens=32, choose=choose)
    assert asked == [8] and tokens_of(mixed, 2) == 8 and tokens_of(mixed, 1) == 24
    for wrong in ([7, 7], [9], [-1], [0, 1, 2]):
        with pytest.raises(ValueError, match=r"expected choose\(8\) to give different positions in 9 old rows"):
            fl.mixtures.replayed(new, old, share=0.25, tokens=32, choose=lambda tokens, wrong=wrong: wrong)


def test_fisher_sft_given_the_new_rows_replays_what_they_do_not_say():
    rng = np.random.default_rng(0)
    common, lost = np.eye(6)[:3], np.eye(6)[3:]
    old_x = [rng.normal(size=(4, 3)) @ (lost if i % 5 == 0 else common) for i in range(20)]
    new_x = [rng.normal(size=(4, 3)) @ common for _ in range(30)]
    features, said = fl.TokenFeatures.from_list(old_x), np.concatenate(new_x)
    mixed = fl.mixtures.replayed(
        rows_of(1, [4] * 30),
        [[2, i, i, i, i] for i in range(20)],
        share=0.25,
        tokens=32,
        choose=lambda tokens: fl.select(features, tokens=tokens, prior=np.eye(6) + said.T @ said).indices,
    )
    assert {row[1] % 5 for row in mixed if row[0] == 2} == {0}


def test_datasets_come_back_as_one_with_all_their_columns(real):
    _, tokenizer = real
    new = Dataset.from_list([{"prompt": "a", "response": f"new {i}", "id": i} for i in range(9)])
    old = Dataset.from_list([{"prompt": "b", "response": f"old {i}", "id": i} for i in range(9)])
    mixed = fl.mixtures.replayed(new, old, share=0.5, tokens=20, tokenizer=tokenizer)
    spent = sum(sum(e.is_response) for e in fl.encode(mixed, tokenizer))
    assert 10 < spent <= 20 and set(mixed["prompt"]) == {"a", "b"} and "id" in mixed.column_names


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": 1.2, "tokens": 4}, "expected a share from 0 to 1"),
        ({"share": 0.5, "tokens": 0}, "expected at least 1 token"),
        ({"share": 0.5, "tokens": 60}, "expected 30 tokens of new rows, got 12"),
        ({"share": 1, "tokens": 60}, "expected 60 tokens of old rows, got 4"),
    ],
)
def test_what_cannot_be_mixed_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        fl.mixtures.replayed(rows_of(1, [3, 4, 5]), rows_of(2, [2, 2]), **options)
