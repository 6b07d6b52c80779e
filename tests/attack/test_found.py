"""What an attacker found by hand, from README and docstrings alone, where no other file asks it yet."""

import os
import stat

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, BertConfig, RobertaConfig, RobertaForCausalLM

import fisherlib as fl
from fisherlib.evaluation import judging
from fisherlib.text import write_jsonl

pytestmark = pytest.mark.usefixtures("as_a_user")  # what they passed is not what the annotations say


def drawn(n: int, tokens: int = 3, d: int = 6) -> fl.TokenFeatures:
    generator = torch.Generator().manual_seed(0)
    return fl.TokenFeatures.from_list([torch.randn(tokens, d, generator=generator) for _ in range(n)])


@pytest.mark.parametrize("name", ["density", "farthest_point", "i_optimal", "in_clusters", "sparft"])
def test_a_selector_does_not_read_a_file_that_was_cut(tmp_path, name):
    """It would end the process (SIGBUS)."""
    drawn(40, d=600).save(tmp_path / "f")
    features = fl.TokenFeatures.load(tmp_path / "f")
    os.truncate(tmp_path / "f" / "values.bin", 4096)
    with pytest.raises(ValueError, match="it was cut since it was opened"):
        getattr(fl.selectors, name)(None, features, examples=5)


@pytest.mark.parametrize("kind", [np.uint8, np.uint64, np.int8, bool, float])
def test_the_highest_scores_are_asked_for_whatever_holds_them(kind):
    scores = np.array([0, 9, 0, 4, 7, 1] if kind is not bool else [0, 1, 0, 1, 1, 0], dtype=kind)
    rows = Dataset.from_list([{"text": "a"}] * 6)
    chosen = fl.selectors.ask_llm(rows, drawn(6), examples=3, scores=scores)
    assert sorted(chosen.indices.tolist()) == [1, 3, 4]
    for bad in (np.ones((6, 1)), np.array(["a"] * 6), np.ones(5)):
        with pytest.raises(ValueError, match="expected "):
            fl.selectors.ask_llm(rows, drawn(6), examples=3, scores=bad)


def test_tables_that_number_the_same_prompts_are_not_joined_unseen():
    row = {"prompt": 0, "repeat": 0, "answer": "A", "length_a": 1, "length_b": 1}
    table = pd.DataFrame([row | {"a": "x", "b": "y"}, row | {"a": "y", "b": "x"}])
    assert judging.win_rates(table, against="y")["x"].mean == 0.5
    both = pd.concat([table, table], ignore_index=True)
    for ask in (lambda t: judging.win_rates(t, against="y"), judging.order_agreement, judging.bradley_terry):
        with pytest.raises(ValueError, match="got prompt 0 of 'x' against 'y' 2 times: number the prompts of joined tables"):
            ask(both)


def test_offsets_that_fall_are_seen_in_unsigned_numbers_too():
    values = torch.ones(100, 3)
    with pytest.raises(ValueError, match="expected offsets that rise"):
        fl.TokenFeatures(values, torch.tensor([0, 90, 80, 100], dtype=torch.uint8))
    features = fl.TokenFeatures(values, torch.tensor([0, 60, 100], dtype=torch.uint8))
    assert features.lengths.tolist() == [60, 40] and len(fl.select(features, examples=1)) == 1


@pytest.mark.parametrize("method", ["pca", "random"])
def test_compressed_features_are_finite_and_in_float32(method):
    values = torch.ones(4, 3, dtype=torch.float64)
    values[1, 1] = 1e100
    with pytest.raises(ValueError, match="finite"):
        fl.compress(fl.TokenFeatures(values, torch.arange(5)), 2, method=method)
    values[1, 1] = torch.nan
    with pytest.raises(ValueError, match="finite"):
        fl.compress(fl.TokenFeatures(values, torch.arange(5)), 2, method=method)


@pytest.mark.parametrize("size", [1e7, 3e7, 1e8])
def test_gains_whose_digits_are_lost_are_refused(size):
    """Two large vectors that hardly differ: I + W W^T is left without its 1."""
    X = torch.tensor([[size, size], [size, size + 1]], dtype=torch.float64)
    features = fl.TokenFeatures.from_list([X, torch.tensor([[1.0, 0.0]], dtype=torch.float64)])
    with pytest.raises(ValueError, match="range is too wide for the prior"):
        fl.select(features, examples=1)
    smaller = fl.TokenFeatures.from_list([X / size * 1e3, torch.tensor([[1.0, 0.0]], dtype=torch.float64)])
    fl.select(smaller, examples=1)


def test_a_model_that_begins_its_positions_elsewhere_is_refused():
    config = RobertaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, is_decoder=True)
    for call in (fl.extract_features, fl.held_out_nll, fl.fine_tune):
        with pytest.raises(ValueError, match="expected a model that counts positions from 0"):
            call(RobertaForCausalLM(config), None, [[3, 1, 4, 1, 5]])


def test_what_a_turn_holds_beside_its_words_does_not_part_copies():
    def row(i):
        return {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": f"b{i % 6}", "weight": i}]}

    pool = fl.load_pool(Dataset.from_list([row(i) for i in range(36)]), test_fraction=0.4)
    words = [{r["messages"][1]["content"] for r in side} for side in (pool.train, pool.test)]
    assert words[0] and words[1] and not words[0] & words[1]


def test_measured_losses_are_numbers_one_for_each_example():
    tokens = np.array([2, 4, 3])
    low, high = (fl.HeldOut(np.array(sums, dtype=np.uint8), tokens) for sums in ([7, 15, 9], [8, 16, 11]))
    assert fl.paired_difference(low, high).high < 0
    assert low != fl.HeldOut(low.nll_sums, tokens) and len({low, high}) == 2
    with pytest.raises(ValueError, match="expected a sum and a number of tokens for each example"):
        fl.HeldOut(np.ones(2), tokens)


def test_a_link_and_what_only_its_owner_may_read_stay_so(tmp_path):
    rows = Dataset.from_list([{"text": "a"}])
    (tmp_path / "there").write_text("old")
    (tmp_path / "there").chmod(0o600)
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "there")
    write_jsonl(rows, tmp_path / "link.jsonl")
    assert (tmp_path / "link.jsonl").is_symlink() and "a" in (tmp_path / "there").read_text()
    assert stat.S_IMODE((tmp_path / "there").stat().st_mode) == 0o600
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(OSError, match="it is a pipe or a device, no file"):
        write_jsonl(rows, tmp_path / "pipe.jsonl")
    assert stat.S_ISFIFO((tmp_path / "pipe.jsonl").stat().st_mode)
    for name in ("x.zip", "x.jsonl.bz2", "x.jsonl.zst", "x.arrow"):
        with pytest.raises(ValueError, match=r"expected a \.jsonl file"):
            write_jsonl(rows, tmp_path / name)


def test_one_clear_word_where_a_raw_error_was(tiny, ids):
    with torch.no_grad(), pytest.raises(ValueError, match="expected gradients"):
        fl.fine_tune(tiny, None, ids)
    with pytest.raises(ValueError, match="expected a finite weight"):
        fl.fine_tune(tiny, None, ids[:2], weights=[1e308, 1e308])
    with pytest.raises(ValueError, match="expected a list of indices"):
        fl.score_selection(drawn(4), np.array([[1, 2]]))
    big = fl.TokenFeatures(drawn(4).values.double() * 1e160, drawn(4).offsets)
    with pytest.raises(ValueError, match="raise prior="):
        fl.selectors.i_optimal(None, big, examples=2)
    rows = Dataset.from_list([{"text": str(i)} for i in range(4)])
    with pytest.raises(ValueError, match="expected then= to return a Selection, got a list"):
        fl.selectors.deduplicated(rows, drawn(4), examples=1, then=lambda *_, **__: [1])
    with pytest.raises(ValueError, match="expected a label for at least one example"):
        fl.recipe(rows, drawn(4), examples=2, groups=[None] * 4)


def test_numbers_of_judgements_are_checked():
    for values in ([np.nan, 1.0], [1.0]):
        with pytest.raises(ValueError, match="expected a finite value for each of 2 prompts"):
            judging.share([1, 2], values)
    for wins in (np.array([[0, -1], [2, 0]]), np.zeros((2, 3))):
        with pytest.raises(ValueError, match="expected wins"):
            judging.bradley_terry_scores(wins)
    few = judging.bradley_terry_scores(np.array([[0, 3], [1, 0]], dtype=np.uint8))
    assert np.allclose(few, judging.bradley_terry_scores(np.array([[0.0, 3.0], [1.0, 0.0]])))
    pair = judging.Pair(7, "c\ud800", "x", "y", "a", "b")
    with pytest.raises(ValueError, match="prompt 7: expected whole characters"):
        judging.judge([pair], judging.Endpoint("http://127.0.0.1:9/v1", "m", "k"))


def test_a_model_that_sees_what_follows_is_refused(ids):
    made = BertConfig(vocab_size=99, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    with pytest.raises(ValueError, match="whose tokens see what follows them: give one with is_decoder=True"):
        fl.held_out_nll(AutoModelForCausalLM.from_config(made), None, ids)
    made.is_decoder = True
    fl.held_out_nll(AutoModelForCausalLM.from_config(made), None, ids, progress=False)


def test_a_prior_may_be_sparse():
    features = drawn(5)
    prior = 2.0 * torch.eye(6)
    expected = fl.select(features, examples=3, prior=prior)
    assert fl.select(features, examples=3, prior=prior.to_sparse()).indices.tolist() == expected.indices.tolist()


def test_blocks_of_several_kinds_lose_no_number():
    blocks = [torch.tensor([[100001, 2]]), torch.tensor([[0.5, 1.0]], dtype=torch.float16)]
    assert fl.TokenFeatures.from_list(blocks).values.tolist() == [[100001, 2], [0.5, 1.0]]
    with pytest.raises(ValueError, match=r"block 0: .* \(a mask, which would be lost\)"):
        fl.TokenFeatures.from_list([np.ma.array([[1.0, 2.0]], mask=[[0, 1]])])
