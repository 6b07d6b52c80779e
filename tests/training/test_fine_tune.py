"""Response-only loss, equal steps, an untouched original, and nothing that diverged goes unsaid."""

import copy

import numpy as np
import pytest
import torch
from datasets import Dataset

import fisherlib as fl
from fisherlib.text.masks import Encoded
from fisherlib.training import ClusterOrder
from fisherlib.training.steps import equal_token_steps


def rows_of(*lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(1, 97, (n,), generator=generator).tolist() for n in lengths]


def test_equal_tokens_give_equal_steps_and_lose_nothing():
    rng = np.random.default_rng(0)
    for total, per_step in ((600, 50), (601, 128), (90, 128)):
        for longest in (4, 20, 60):
            lengths = []
            while sum(lengths) < total:
                lengths.append(min(int(rng.integers(1, longest + 1)), total - sum(lengths)))
            examples = [Encoded([i] * (n + 1), [False] + [True] * n) for i, n in enumerate(lengths)]
            steps = equal_token_steps(examples, per_step, seed=1)
            assert len(steps) == min(max(round(total / per_step), 1), len(examples))
            assert sorted(e.input_ids[0] for step in steps for e in step) == list(range(len(examples)))
            assert all(steps)  # none empty
            named = equal_token_steps(examples, per_step, seed=1, steps=3)
            assert len(named) == 3 and sum(map(len, named)) == len(examples)


@pytest.mark.parametrize("lengths", [[1, 1, 1, 1000], [10, 20, 500, 30, 440], [5] * 7])
def test_uneven_examples_still_fill_every_step(lengths):
    examples = [Encoded([0] * (n + 1), [False] + [True] * n) for n in lengths]
    for number in range(1, len(lengths) + 1):
        steps = equal_token_steps(examples, 1, seed=0, steps=number)
        assert len(steps) == number and all(steps)
    with pytest.raises(ValueError, match="at least one example for each"):
        equal_token_steps(examples, 1, seed=0, steps=len(lengths) + 1)


def test_the_loss_is_the_mean_over_response_tokens_only(real):
    model, tokenizer = real
    rows = Dataset.from_list([{"prompt": "Who's there?", "response": "Nay, answer me."}])
    other = Dataset.from_list([{"prompt": "Who's there?", "response": "Nay, answer me.", "system": "x"}])
    tuned = fl.fine_tune(model, tokenizer, rows, precision="float32", learning_rate=1e-4)
    assert tuned.losses == pytest.approx([fl.held_out_nll(model, tokenizer, rows, precision="float32").nll], abs=1e-3)
    assert tuned.response_tokens == 7 and tuned.all_tokens > 20
    # a single step, and it teaches: the response gets likelier, in a context that was not trained on as well
    for text in (rows, other):
        assert fl.held_out_nll(tuned.model, tokenizer, text).nll < fl.held_out_nll(model, tokenizer, text).nll - 0.05


def test_the_original_stays_and_the_seed_decides(tiny):
    before = {name: p.clone() for name, p in tiny.state_dict().items()}
    rows = rows_of(9, 5, 7, 8, 6, 9, 4)
    first, again, other = (
        fl.fine_tune(tiny, None, rows, tokens_per_step=12, learning_rate=1e-2, precision="float32", seed=seed)
        for seed in (0, 0, 1)
    )
    assert all(torch.equal(before[name], p) for name, p in tiny.state_dict().items())
    assert first.losses == again.losses != other.losses
    moved = (first.model.state_dict()["lm_head.weight"] - before["lm_head.weight"]).abs().max()
    assert moved > 1e-3 and not first.model.training


def test_padding_and_empty_rows_do_not_change_training(tiny):
    rows = rows_of(9, 5, 7, 8)
    alone = fl.fine_tune(tiny, None, rows, tokens_per_step=40, learning_rate=1e-2, precision="float32")
    with_empty = fl.fine_tune(tiny, None, [[], *rows, [3]], tokens_per_step=40, learning_rate=1e-2, precision="float32")
    assert alone.losses == pytest.approx(with_empty.losses, abs=1e-5)


def test_more_epochs_fit_better(tiny):
    rows = rows_of(12, 12, 12)
    tuned = fl.fine_tune(tiny, None, rows, epochs=20, tokens_per_step=40, learning_rate=3e-2, precision="float32")
    assert len(tuned.losses) == 20 and tuned.losses[-1] < 0.5 * tuned.losses[0]
    assert tuned.response_tokens == 20 * 33 and tuned.all_tokens == 20 * 36


def test_low_rank_updates_are_merged_and_leave_the_head_and_the_original_alone(tiny):
    before = {name: p.clone() for name, p in tiny.state_dict().items()}
    rows = rows_of(12, 12, 12)
    first, again = (
        fl.fine_tune(
            tiny, None, rows, epochs=10, tokens_per_step=40, learning_rate=3e-2, precision="float32", lora_rank=2, seed=1
        )
        for _ in range(2)
    )
    after = first.model.state_dict()
    assert set(after) == set(before) and all(torch.equal(before[name], p) for name, p in tiny.state_dict().items())
    change = {name: after[name] - before[name] for name in before}
    moved = {name for name, delta in change.items() if delta.abs().max() > 1e-4}
    assert moved and all("proj" in name for name in moved)  # neither the head nor the embeddings
    assert all(int(torch.linalg.matrix_rank(change[name], atol=1e-4)) <= 2 for name in moved)
    assert first.losses == again.losses and first.losses[-1] < 0.9 * first.losses[0]
    assert all(p.requires_grad for p in first.model.parameters())


WEIGHED = {"tokens_per_step": 12, "learning_rate": 1e-2, "precision": "float32"}


def end(tuned):
    return torch.cat([p.detach().flatten() for p in tuned.model.parameters()])


def test_only_ratios_of_weights_matter_and_equal_ones_change_nothing(tiny):
    rows, weights = rows_of(9, 5, 7, 8, 6), [1.0, 3.0, 0.5, 2.0, 0.25]
    plain, equal = (fl.fine_tune(tiny, None, rows, weights=w, **WEIGHED) for w in (None, [7.0] * 5))
    once, twice = (fl.fine_tune(tiny, None, rows, weights=f * np.array(weights), **WEIGHED) for f in (1, 2))
    assert torch.allclose(end(plain), end(equal), rtol=0, atol=1e-5) and equal.losses == pytest.approx(plain.losses)
    assert torch.equal(end(once), end(twice)) and once.losses == twice.losses
    assert (end(once) - end(plain)).abs().max() > 1e-3


def test_a_row_of_weight_zero_is_not_there(tiny):
    rows = rows_of(9, 5, 7, 8, 6)
    part = fl.fine_tune(tiny, None, [rows[0], rows[2], rows[4]], weights=[1.0, 2.0, 4.0], **WEIGHED)
    whole = fl.fine_tune(tiny, None, rows, weights=[1.0, 0.0, 2.0, 0.0, 4.0], **WEIGHED)
    assert torch.equal(end(part), end(whole)) and part.losses == whole.losses
    assert whole.response_tokens == 8 + 6 + 5


def test_a_weighted_loss_is_the_weighted_mean_over_tokens_and_two_is_twice(tiny):
    rows, weights = rows_of(9, 5, 7), np.array([1.0, 2.0, 1.0])
    options = {**WEIGHED, "steps_per_epoch": 1}
    weighted = fl.fine_tune(tiny, None, rows, weights=weights, **options)
    held = fl.held_out_nll(tiny, None, rows, precision="float32")
    mean = (weights * held.nll_sums).sum() / (weights * held.tokens).sum()
    assert weighted.losses == pytest.approx([mean], abs=1e-4)
    twice = fl.fine_tune(tiny, None, [*rows, rows[1]], **options)
    assert torch.allclose(end(weighted), end(twice), rtol=0, atol=1e-4) and twice.losses == pytest.approx([mean], abs=1e-4)
    # over several steps, what is the whole pool's mean weight: sums over a weighted sample stay unbiased
    steps = fl.fine_tune(tiny, None, rows, weights=weights, **{**WEIGHED, "learning_rate": 1e-12, "steps_per_epoch": 3})
    shares = np.sort(weights * held.nll_sums / held.tokens / (weights @ held.tokens / held.tokens.sum()))
    assert np.sort(steps.losses) == pytest.approx(shares, abs=1e-4)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, 1.0], "a finite weight of at least 0 for each of 3 rows"),
        ([1.0, -1.0, 1.0], "at least 0"),
        ([1.0, np.nan, 1.0], "finite weight"),
        ([0.0, 0.0, 0.0], "a positive weight for a row with response tokens, got none"),
        ([0.0, 0.0, 1.0], "a positive weight for a row with response tokens, got none"),
    ],
)
def test_weights_that_are_refused(tiny, weights, message):
    with pytest.raises(ValueError, match=message):
        fl.fine_tune(tiny, None, [[3, 4], [5, 6, 7], [8]], weights=np.array(weights))


def in_clusters(n):
    return ClusterOrder(np.arange(n) % 2, examples_per_step=2)


WAYS = {
    "plain": {},
    "weights": {"weights": [1.0, 2.0, 0.5, 1.0, 1.0]},
    "low rank": {"lora_rank": 2},
    "order": {"order": in_clusters(5), "steps_per_epoch": 4},
}


@pytest.mark.parametrize("way", WAYS)
def test_training_that_diverges_stops_with_the_step(tiny, way):
    rows = rows_of(9, 5, 7, 8, 6)
    with pytest.raises(
        ValueError, match=r"^step [23] of \d+: expected a finite .*, got (nan|inf) with learning_rate=1e\+30: lower"
    ):
        fl.fine_tune(tiny, None, rows, epochs=3, **{**WEIGHED, "learning_rate": 1e30} | WAYS[way])


def test_a_model_that_is_broken_stops_at_the_first_step(tiny):
    broken = copy.deepcopy(tiny)
    with torch.no_grad():
        broken.lm_head.weight[3] = torch.nan
    with pytest.raises(ValueError, match="step 1 of .*expected a finite loss, got nan.*load the model again"):
        fl.fine_tune(broken, None, rows_of(9, 5), **WEIGHED)


def test_a_weight_that_the_last_step_broke_is_found(tiny, monkeypatch):
    step = torch.optim.AdamW.step

    def breaks(self, *arguments, **options):
        result = step(self, *arguments, **options)
        with torch.no_grad():
            self.param_groups[0]["params"][-1].view(-1)[0] = torch.inf
        return result

    monkeypatch.setattr(torch.optim.AdamW, "step", breaks)
    with pytest.raises(
        ValueError, match="^step 1 of 1: expected a finite weight .*, got NaN or infinity with learning_rate=0.01"
    ):
        fl.fine_tune(tiny, None, rows_of(9, 5), **{**WEIGHED, "steps_per_epoch": 1})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(({"learning_rate": rate}, "a positive, finite learning_rate, got") for rate in (0.0, -1e-3, np.nan, np.inf)),
        ({"epochs": 0}, "at least 1 epoch, got 0"),
        ({"steps_per_epoch": 0}, "1 to 2 steps, .*got 0"),
        ({"steps_per_epoch": 3}, "1 to 2 steps, .*got 3"),
        ({"steps_per_epoch": 0, "order": in_clusters(2)}, "steps_per_epoch of at least 1 beside an order, got 0"),
        ({"lora_rank": 0}, "a lora_rank from 1 to .*, got 0"),
        ({"seed": -1}, "seed from 0 to .*, got -1"),
        ({"seed": 2**32}, "seed from 0 to"),
        ({"precision": "int8"}, "precision 'auto', 'bfloat16' or 'float32', got 'int8'"),
    ],
)
def test_numbers_that_are_refused(tiny, options, message):
    with pytest.raises(ValueError, match=f"expected {message}"):
        fl.fine_tune(tiny, None, rows_of(9, 5), **options)


def test_a_frozen_model_is_refused_and_frozen_weights_stay(tiny):
    frozen = copy.deepcopy(tiny).requires_grad_(False)
    with pytest.raises(
        ValueError, match=r"expected weights to train, got a model that is frozen: call model.requires_grad_"
    ):
        fl.fine_tune(frozen, None, rows_of(9, 5), **WEIGHED)
    assert fl.fine_tune(frozen, None, rows_of(9, 5), **WEIGHED, lora_rank=2).losses
    name, weight = next(iter(frozen.named_parameters()))
    weight.requires_grad_(True)
    tuned = dict(fl.fine_tune(frozen, None, rows_of(9, 5), **WEIGHED).model.named_parameters())
    assert [n for n, w in frozen.named_parameters() if not torch.equal(w, tuned[n])] == [name]


def test_a_model_without_a_head_is_refused(tiny):
    for call in (fl.extract_features, fl.held_out_nll, fl.fine_tune):
        with pytest.raises(
            ValueError, match="expected a causal language model, got LlamaModel, without a head: use fl.load"
        ):
            call(tiny.model, None, rows_of(9, 5))
