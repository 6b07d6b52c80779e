"""SPIN: the closed form of a round, own answers as ids (text would pay the model for length), and rounds on a tiny model."""

import copy

import numpy as np
import pytest
import torch
from datasets import Dataset
from scipy.optimize import minimize
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from fisherlib.model import at_responses, continuation_ids, continuations, pad
from fisherlib.text import encode
from fisherlib.training import objectives
from fisherlib.training.groups import grouped, mean_loss
from fisherlib.training.self_play import best_response, play
from fisherlib.training.steps import batch_of

WORDS = ["a", "b", "c", "d"]
SMALL = {"tokens_per_step": 8, "learning_rate": 1e-3, "precision": "float32", "progress": False}


@pytest.fixture(scope="module")
def talker():
    """A random model of six tokens, of which one ends; one token a word, no chat template."""
    vocabulary = {word: k for k, word in enumerate(["<end>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<end>")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=6, hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=32, tie_word_embeddings=False, initializer_range=0.7, eos_token_id=0, bos_token_id=None,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval(), tokenizer


@pytest.mark.parametrize("beta", [0.2, 0.5, 1, 2, 5])
def test_a_round_played_to_its_end_is_the_closed_form(beta):
    rng = np.random.default_rng(0)
    p_data, p = rng.dirichlet(np.ones(5)), rng.dirichlet(np.ones(5))

    def loss(theta):
        log_q = theta - np.log(np.exp(theta).sum())
        gain = log_q - np.log(p)
        margins = beta * (gain[:, None] - gain[None, :])
        return (p_data[:, None] * p[None, :] * np.log1p(np.exp(-margins))).sum()

    found = minimize(loss, np.zeros(5), method="BFGS", options={"gtol": 1e-9}).x
    assert np.exp(found) / np.exp(found).sum() == pytest.approx(best_response(p_data, p, beta), abs=1e-5)


@pytest.mark.parametrize(("beta", "ends"), [(5, True), (1, True), (0.6, True), (0.5, False), (0.3, False)])
def test_rounds_converge_if_and_only_if_beta_is_above_a_half(beta, ends):
    rng = np.random.default_rng(1)
    p_data, p = rng.dirichlet(np.ones(4)), rng.dirichlet(np.ones(4))
    start = np.abs(p - p_data).sum()
    for _ in range(6 if beta < 0.5 else 60):  # below, probabilities soon are too small for float64
        p = best_response(p_data, p, beta)
    assert np.isfinite(p).all() and (np.abs(p - p_data).sum() < 1e-4) == ends
    assert beta >= 0.5 or np.abs(p - p_data).sum() > start
    if beta == 0.5:
        twice = best_response(p_data, best_response(p_data, p, beta), beta)
        assert twice == pytest.approx(p) and np.abs(p - p_data).sum() > start / 2


def test_ids_come_as_they_were_sampled_and_are_what_the_text_says(talker):
    model, tokenizer = talker
    rows = Dataset.from_list([{"prompt": "a b ", "response": "c"}, {"prompt": "d ", "response": "a"}] * 8)
    ids = continuation_ids(model, tokenizer, rows, max_new_tokens=6, temperature=0.7, seed=3)
    texts = continuations(model, tokenizer, rows, max_new_tokens=6, temperature=0.7, seed=3)
    assert [tokenizer.decode([i for i in one if i], skip_special_tokens=True).strip() for one in ids] == texts
    assert all(0 not in one[:-1] and 1 <= len(one) <= 6 for one in ids)
    assert any(one[-1] == 0 for one in ids) and any(one[-1] != 0 for one in ids)  # some ended, some were cut
    assert ids == continuation_ids(model, tokenizer, rows, max_new_tokens=6, temperature=0.7, seed=3)


def test_the_score_of_own_answers_has_mean_zero_as_ids_and_not_as_text(talker):
    """The gradient of log p(z) by a bias on the logits, z from p: sum over tokens of (one-hot - p), in standard errors."""
    model, tokenizer = talker
    rows = Dataset.from_list([{"prompt": "a b ", "response": "c"}] * 3000)
    ids = continuation_ids(model, tokenizer, rows, max_new_tokens=4, seed=0)
    texts = [" ".join(["<unk>", *WORDS][i - 1] for i in one if i) for one in ids]
    off = {}
    for name, said in {"ids": ids, "text": texts}.items():
        kept = [one for one in said if one]
        pool = rows.select(range(len(kept))).add_column("alternatives", [[one] for one in kept])
        groups = grouped(pool, encode(pool, tokenizer), tokenizer, None)
        others = [group.alternatives[0] for group in groups]
        with torch.no_grad():
            logits, labels = at_responses(model, pad(others), "float32", compute_logits=True)
        scores = torch.nn.functional.one_hot(labels, 6) - torch.softmax(logits, 1)
        each = torch.stack([part.sum(0) for part in scores.split([sum(other.is_response) for other in others])]).double()
        off[name] = float((each.mean(0) / (each.std(0) / len(each) ** 0.5)).abs().max())
    assert off["ids"] < 4 < 10 < off["text"], off


def test_rounds_start_at_log_2_and_learn_to_tell_the_data_from_their_own(talker):
    model, tokenizer = talker
    rng = np.random.default_rng(0)
    rows = Dataset.from_list([{"prompt": f"{w} ", "response": " ".join(rng.choice(WORDS[:2], 3))} for w in WORDS * 3])
    rounds = play(
        model,
        tokenizer,
        rows,
        rounds=2,
        samples=2,
        beta=0.5,
        max_new_tokens=5,
        epochs=4,
        **(SMALL | {"learning_rate": 1e-2}),
    )
    assert len(rounds) == 2 and all(len(one.answers) == 12 and len(one.answers[0]) == 2 for one in rounds)
    for one in rounds:
        assert one.tuned.losses[0] == pytest.approx(np.log(2), abs=1e-4) and one.tuned.losses[-1] < np.log(2)
        assert 0 <= one.ended <= 1 and one.margins.shape == (12,)
    assert rounds[1].margins.mean() > rounds[0].margins.mean()
    again = rounds[1].tuned.alternative_tokens / rounds[0].tuned.alternative_tokens
    assert 1.5 < again < 2.5  # the second round also has the first one's answers
    assert rounds[0].tuned.response_tokens == rounds[1].tuned.response_tokens


def test_of_many_own_answers_the_first_gradient_is_half_beta_of_that_of_sft(talker):
    model, tokenizer = copy.deepcopy(talker[0]), talker[1]
    rows = Dataset.from_list([{"prompt": "a b ", "response": "c d"}] * 8)
    drawn = [continuation_ids(model, tokenizer, rows, max_new_tokens=12, seed=k) for k in range(60)]
    pairs = rows.add_column("alternatives", [list(one) for one in zip(*drawn, strict=True)])
    groups = grouped(pairs, encode(pairs, tokenizer), tokenizer, None)
    batch = batch_of(groups)

    def gradient(objective):
        model.zero_grad()
        logits, labels = at_responses(model, batch, "float32", compute_logits=True)
        log_p = -torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        mean_loss(objective, log_p, batch["parts"]).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    reference = objectives.log_likelihoods(model, tokenizer, pairs, precision="float32")
    spin, sft = gradient(objectives.Preference(reference, beta=0.4)), gradient(lambda row, log_p: -log_p[0].sum())
    assert torch.nn.functional.cosine_similarity(spin, sft, dim=0) > 0.97
    assert float(spin.norm() / sft.norm()) == pytest.approx(0.2, rel=0.15)


def test_what_cannot_be_played_is_refused(talker):
    model, tokenizer = talker
    rows = Dataset.from_list([{"prompt": "a ", "response": "b"}])
    with pytest.raises(ValueError, match="expected at least one round"):
        play(model, tokenizer, rows, rounds=0)
    with pytest.raises(ValueError, match="expected rows without alternatives"):
        play(model, tokenizer, rows.add_column("alternatives", [["c"]]))
