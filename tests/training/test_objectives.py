"""Objectives on plain float64 tensors against their formulas, and the hook that trains with them."""

import itertools
import math

import numpy as np
import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, get_scheduler

import fisherlib as fl
from fisherlib import objectives
from fisherlib.training.groups import grouped
from fisherlib.training.steps import batch_of, equal_token_steps

WORDS = ["no", "yes", "who", "is", "there", "answer", "me", "good", "bad", "day", "night"]


@pytest.fixture(scope="module")
def words():
    """One token a word; without a chat template, so that prompt and response are joined as they stand."""
    vocabulary = {word: k for k, word in enumerate(["<unk>", "<end>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<end>")


@pytest.fixture(scope="module")
def asked():
    """Rows with two alternatives each, as texts."""
    rng = np.random.default_rng(0)

    def says(n):
        return " ".join(rng.choice(WORDS, n))

    rows = [(says(3), says(n), [says(n + 1), says(2)]) for n in (2, 5, 3, 4, 6, 2)]
    return Dataset.from_list([{"prompt": f"{p} ", "response": r, "alternatives": a} for p, r, a in rows])


def some_log_p(*lengths, seed=0):
    rng = np.random.default_rng(seed)
    return [torch.tensor(-rng.exponential(size=n) - 0.01, requires_grad=True) for n in lengths]


EACH = {
    "MLE": objectives.MLE(),
    "ExMATE": objectives.ExMATE(0.5),
    "MATE": objectives.MATE(0.5),
    "Unlikelihood": objectives.Unlikelihood(0.5),
    "DPO": objectives.Preference([[-4.0, -3.0, -5.0]], beta=0.7),
    "hinge": objectives.Preference([[-4.0, -3.0, -5.0]], beta=0.7, hinge=True),
    "Ranking": objectives.Ranking([[2, 1, 3]], weight=10.0, scale=0.3),
    "Sum": objectives.Sum((objectives.MLE(), 2.0), (objectives.ExMATE(), 0.5)),
}


@pytest.mark.parametrize("name", EACH)
def test_every_gradient_is_that_of_the_value(name):
    assert torch.autograd.gradcheck(lambda *log_p: EACH[name](0, list(log_p)), some_log_p(4, 3, 5))


def test_each_value_is_its_formula():
    y, z, other = (one.detach().numpy() for one in some_log_p(4, 3, 5))
    value = {name: float(one(0, some_log_p(4, 3, 5)).detach()) for name, one in EACH.items()}
    means = [z.mean(), other.mean()]
    assert value["MLE"] == pytest.approx(-y.mean())
    assert value["ExMATE"] == pytest.approx(-y.mean() + 0.5 * np.mean(np.exp(means)))
    assert value["MATE"] == pytest.approx(-y.mean() + 0.5 * np.mean(means))
    unlikely = [np.log(1 - np.exp(one)).mean() for one in (z, other)]
    assert value["Unlikelihood"] == pytest.approx(-y.mean() - 0.5 * np.mean(unlikely))
    margins = 0.7 * ((y.sum() + 4) - np.array([z.sum() + 3, other.sum() + 5]))
    assert value["DPO"] == pytest.approx(np.log1p(np.exp(-margins)).mean())
    assert value["hinge"] == pytest.approx(np.maximum(0, 1 - margins).mean())
    assert value["Sum"] == pytest.approx(-2 * y.mean() + 0.5 * (-y.mean() + 0.05 * np.mean(np.exp(means))))


@pytest.mark.parametrize("p", [0.99, 0.5, 1e-4])
def test_the_penalties_push_the_logit_of_a_bad_token_by_p_1_minus_p_or_p_or_1_minus_p(p):
    # one token among three, of probability p; the response is the same for all, and of no interest
    rest = [math.log((1 - p) / 2)] * 2
    pushes = {}
    for name in ("ExMATE", "MATE", "Unlikelihood"):
        logits = torch.tensor([math.log(p), *rest], dtype=torch.float64, requires_grad=True)
        EACH[name](0, [torch.zeros(1, dtype=torch.float64), torch.log_softmax(logits, 0)[:1]]).backward()
        pushes[name] = float(logits.grad[0]) / 0.5
    assert pushes["ExMATE"] == pytest.approx(p * (1 - p))
    assert pushes["Unlikelihood"] == pytest.approx(p)
    assert pushes["MATE"] == pytest.approx(1 - p)


def test_of_a_sequence_exmate_pushes_by_the_geometric_mean_over_the_length():
    y, z = some_log_p(4, 30)
    objectives.ExMATE(c=1.0)(0, [y, z]).backward()
    assert torch.allclose(z.grad, z.detach().mean().exp() / 30 * torch.ones_like(z))


def test_what_is_certain_stays_finite():
    for name in ("ExMATE", "MATE", "Unlikelihood"):
        y, z = torch.zeros(2, requires_grad=True), torch.zeros(3, requires_grad=True)
        loss = EACH[name](0, [y, z])
        loss.backward()
        assert math.isfinite(loss.item()) and torch.isfinite(z.grad).all()


@pytest.mark.parametrize("order", list(itertools.permutations([1, 2, 3])))
def test_the_order_of_the_alternatives_does_not_matter(order):
    log_p, q, r = some_log_p(4, 3, 5, 2), [-1.0, -4.0, -2.0, -3.0], [3, 1, 4, 1]
    at = [0, *order]
    both = [
        (objectives.Preference([q]), objectives.Preference([[q[i] for i in at]])),
        (objectives.Ranking([r], scale=0.3), objectives.Ranking([[r[i] for i in at]], scale=0.3)),
        (EACH["ExMATE"], EACH["ExMATE"]),
    ]
    for first, second in both:
        assert first(0, log_p).item() == pytest.approx(second(0, [log_p[i] for i in at]).item(), rel=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_ranking_is_a_double_loop(seed):
    rng = np.random.default_rng(seed)
    log_p, ranks = some_log_p(*rng.integers(1, 6, 5), seed=seed), rng.integers(0, 4, 5).astype(float)
    ranks[rng.integers(5)] = math.nan  # is not ranked
    f = [one.sum().item() / len(one) ** 0.5 for one in log_p]
    terms = []
    for i in range(5):
        for j in range(5):
            if not (math.isnan(ranks[i]) or math.isnan(ranks[j])) and ranks[i] > ranks[j]:
                terms.append(max(0.0, 0.2 * (math.log(2) + math.log(ranks[i] - ranks[j])) - (f[i] - f[j])))
    found = objectives.Ranking([ranks], weight=3.0, scale=0.2, length_power=0.5)(0, log_p)
    assert found.item() == pytest.approx(3.0 * np.mean(terms) if terms else 0.0)


def test_ranking_is_zero_where_all_tie_and_where_neighbours_keep_their_margin():
    log_p = some_log_p(2, 3, 4)
    tied = objectives.Ranking([[1, 1, 1]])(0, log_p)
    tied.backward()
    assert float(tied) == 0 and all(torch.equal(one.grad, torch.zeros_like(one)) for one in log_p)
    apart = [torch.tensor([k * 0.01 * math.log(2) - 5], dtype=torch.float64) for k in range(4)]
    assert float(objectives.Ranking([[0, 1, 2, 3]])(0, apart)) == pytest.approx(0, abs=1e-9)


def test_spin_starts_at_log_2_with_half_beta_of_the_gradient_of_sft():
    """Enumerated: five answers of one token, the opponent is the model itself, its expectation is exact."""
    torch.manual_seed(0)
    theta, beta, truth = torch.randn(5, dtype=torch.float64, requires_grad=True), 0.3, 2
    log_p = torch.log_softmax(theta, 0)
    q = log_p.detach().tolist()
    losses = [objectives.Preference([[q[truth], q[z]]], beta)(0, [log_p[[truth]], log_p[[z]]]) for z in range(5)]
    assert all(float(loss) == pytest.approx(math.log(2)) for loss in losses)
    expected = sum(p * loss for p, loss in zip(log_p.detach().exp(), losses, strict=True))
    (spin,) = torch.autograd.grad(expected, theta, retain_graph=True)
    (sft,) = torch.autograd.grad(-log_p[truth], theta)
    assert torch.allclose(spin, beta / 2 * sft, atol=1e-12)


# --- the hook


SMALL = {"tokens_per_step": 8, "learning_rate": 1e-2, "precision": "float32", "progress": False}


def test_mle_through_the_hook_is_the_default_where_rows_are_equally_long(tiny):
    rows = [torch.randint(1, 97, (6,), generator=torch.Generator().manual_seed(k)).tolist() for k in range(5)]
    plain, hooked = (fl.fine_tune(tiny, None, rows, epochs=2, objective=one, **SMALL) for one in (None, objectives.MLE()))
    assert hooked.losses == pytest.approx(plain.losses, abs=1e-5) and len(plain.losses) == 6
    for before, after in zip(plain.model.parameters(), hooked.model.parameters(), strict=True):
        assert torch.allclose(before, after, atol=1e-4)
    assert hooked.alternative_tokens == 0 and hooked.all_tokens == plain.all_tokens


def test_the_objective_gets_the_rows_and_the_log_probabilities_of_the_model(tiny, words, asked):
    reference = objectives.log_likelihoods(tiny, words, asked, precision="float32")
    plain = asked.remove_columns("alternatives")
    assert [one[0] for one in reference] == pytest.approx((-fl.held_out_nll(tiny, words, plain).nll_sums).tolist(), abs=1e-4)
    heard = {}

    def listen(row, log_p):
        heard[row] = [float(one.sum()) for one in log_p]
        return log_p[0].sum()

    fl.fine_tune(tiny, words, asked, objective=listen, **(SMALL | {"tokens_per_step": 1000}))
    assert sorted(heard) == list(range(6))
    for row, sums in heard.items():
        assert sums == pytest.approx(reference[row].tolist(), abs=1e-4)


def test_a_group_is_one_item_and_arms_stay_equal_in_real_tokens(tiny, words, asked):
    groups = grouped(asked, fl.encode(asked, words), words, 64)
    steps = equal_token_steps(groups, 8, 0)
    assert sorted(group.row for step in steps for group in step) == list(range(6)) and len(steps) > 2
    for step in steps:
        parts = batch_of(step)["parts"]
        assert [row for row, _ in parts] == [group.row for group in step]
        assert all(len(sizes) == 3 for _, sizes in parts)
    plain = fl.fine_tune(tiny, words, asked.remove_columns("alternatives"), **SMALL)
    pairs = fl.fine_tune(tiny, words, asked, objective=objectives.ExMATE(), **SMALL)
    assert pairs.response_tokens == plain.response_tokens and len(pairs.losses) == len(plain.losses)
    assert plain.alternative_tokens == 0 and pairs.alternative_tokens == sum(
        len(words(text).input_ids) + 1 for row in asked for text in row["alternatives"]
    )
    assert pairs.all_tokens > plain.all_tokens + pairs.alternative_tokens  # each alternative has the prompt again


def test_ids_follow_the_prompt_as_they_are_and_equal_the_text_that_they_spell(words, asked):
    spelled = [[[*words(text).input_ids, words.eos_token_id] for text in row["alternatives"]] for row in asked]
    by_ids = asked.remove_columns("alternatives").add_column("alternatives", spelled)
    texts, ids = (grouped(rows, fl.encode(rows, words), words, 64) for rows in (asked, by_ids))
    assert texts == ids
    cut = asked.remove_columns("alternatives").add_column("alternatives", [[[2, 3]]] * 6)  # what was cut has no end
    for group in grouped(cut, fl.encode(cut, words), words, 64):
        (other,) = group.alternatives
        assert other.input_ids[-2:] == [2, 3] and sum(other.is_response) == 2 and words.eos_token_id not in other.input_ids


def test_of_a_conversation_the_last_answer_is_replaced(real):
    _, tokenizer = real
    turns = [("user", "Who's there?"), ("assistant", "Nay, answer me."), ("user", "Long live."), ("assistant", "Bernardo?")]
    messages = [{"role": role, "content": text} for role, text in turns]
    rows = Dataset.from_list([{"messages": messages, "alternatives": ["He."]}])
    other = [*messages[:3], {"role": "assistant", "content": "He."}]
    (group,) = grouped(rows, fl.encode(rows, tokenizer), tokenizer, None)
    assert [vars(one) for one in group.alternatives] == [
        vars(fl.encode(Dataset.from_list([{"messages": other}]), tokenizer)[0])
    ]
    ids = tokenizer("He.<|im_end|>").input_ids
    sampled = Dataset.from_list([{"messages": messages, "alternatives": [ids]}])
    (by_ids,) = grouped(sampled, fl.encode(sampled, tokenizer), tokenizer, None)
    n = len(by_ids.alternatives[0].input_ids)
    assert by_ids.alternatives[0].input_ids == group.alternatives[0].input_ids[:n] and n >= len(group.input_ids) - 5


def test_preference_raises_the_response_and_lowers_the_alternative(tiny, words, asked):
    before = objectives.log_likelihoods(tiny, words, asked)
    arms = {"DPO": objectives.Preference(before, beta=1.0), "MLE": objectives.MLE()}
    moved = {}
    for name, objective in arms.items():
        tuned = fl.fine_tune(tiny, words, asked, epochs=5, objective=objective, **SMALL)
        after = objectives.log_likelihoods(tuned.model, words, asked)
        moved[name] = np.mean([(b - a)[0] - (b - a)[1:].mean() for a, b in zip(before, after, strict=True)])
        assert tuned.losses[-1] < tuned.losses[0]
        if name == "DPO":
            assert tuned.losses[0] == pytest.approx(math.log(2), abs=1e-4)
    assert moved["DPO"] > 1


SCHEDULES = [
    ("linear", 0, {}),
    ("cosine_with_min_lr", 3, {"min_lr_rate": 0.1}),
    ("warmup_stable_decay", 0.25, {"num_decay_steps": 4}),
    ("constant_with_warmup", 2, {}),
]


@pytest.mark.parametrize(("name", "warmup", "options"), SCHEDULES)
def test_the_rates_that_were_used_are_those_of_transformers(tiny, name, warmup, options):
    rows = [[1, 2, 3, 4, 5]] * 12
    more = {"schedule": name, "warmup": warmup, "schedule_options": options}
    tuned = fl.fine_tune(tiny, None, rows, **(SMALL | {"tokens_per_step": 4, "learning_rate": 1e-3}), **more)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1e-3)
    whole = warmup if warmup >= 1 else math.ceil(warmup * 12)
    schedule = get_scheduler(name, optimizer, whole, 12, scheduler_specific_kwargs=options)
    expected = []
    for _ in range(12):
        expected.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert tuned.learning_rates == pytest.approx(expected, rel=1e-12) and len(tuned.learning_rates) == 12


def test_the_cosine_has_its_four_points(tiny):
    more = {"schedule": "cosine_with_min_lr", "warmup": 4, "schedule_options": {"min_lr_rate": 0.1}}
    rates = fl.fine_tune(
        tiny, None, [[1, 2, 3]] * 24, tokens_per_step=2, learning_rate=3e-4, progress=False, **more
    ).learning_rates
    assert rates[0] == 0 and rates[4] == pytest.approx(3e-4) and rates[14] == pytest.approx(1.65e-4)
    assert rates[-1] == pytest.approx(3e-5, rel=0.1)  # its end is the step after the last


def refusals(asked):
    plain = asked.remove_columns("alternatives")

    def rows(alternatives):
        return plain.add_column("alternatives", [alternatives] * 6)

    mle, exmate = objectives.MLE(), objectives.ExMATE()
    many = [[-1.0] * 2] * 6
    return {
        "without an objective": (asked, {}, "expected an objective for rows with alternatives"),
        "with weights": (asked, {"objective": mle, "weights": [1.0] * 6}, "expected an objective, weights or an order"),
        "none to compare": (plain, {"objective": exmate}, "expected an alternative to compare"),
        "an empty text": (rows([""]), {"objective": exmate}, "row 0: expected alternatives with tokens"),
        "no ids": (rows([[2], []]), {"objective": exmate}, "row 0: expected alternatives with tokens"),
        "one text": (rows("no"), {"objective": exmate}, "row 0: expected a list of alternatives, got str"),
        "numbers": (rows([0.5]), {"objective": exmate}, "row 0: expected alternatives that are texts or lists"),
        "unknown ids": (rows([[2, 97]]), {"objective": exmate}, "expected token ids from 0 to 96"),
        "too long": (rows([[2] * 70]), {"objective": exmate}, "row 0: expected alternatives of at most 64 tokens"),
        "a short reference": (asked, {"objective": objectives.Preference(many)}, "expected 3 numbers in reference"),
        "few rows": (asked, {"objective": objectives.Ranking([])}, "expected 3 numbers in ranks"),
        "a diverged opponent": (
            asked,
            {"objective": objectives.Preference([[-math.inf] * 3] * 6)},
            "expected finite log-probabilities in reference",
        ),
        "not a tensor": (asked, {"objective": lambda row, log_p: 0.5}, "expected an objective that gives one number"),
        "not one number": (asked, {"objective": lambda row, log_p: log_p[0]}, "expected an objective that gives one number"),
        "an unknown schedule": (plain, {"schedule": "quadratic"}, "expected a schedule among linear, cosine"),
        "a schedule that looks": (plain, {"schedule": "reduce_lr_on_plateau"}, "expected a schedule among"),
        "unknown options": (plain, {"schedule_options": {"min": 1}}, "expected schedule_options that 'linear'"),
        "options that lack": (plain, {"schedule": "warmup_stable_decay"}, "expected schedule_options that 'warmup_stable"),
        "a negative warmup": (plain, {"warmup": -1}, "expected a warmup of whole steps"),
        "half a step": (plain, {"warmup": 1.5}, "expected a warmup of whole steps"),
    }


def test_what_cannot_be_trained_is_refused_with_one_clear_word(tiny, words, asked):
    for what, (rows, options, message) in refusals(asked).items():
        with pytest.raises(ValueError, match=message) as error:
            fl.fine_tune(tiny, words, rows, **SMALL, **options)
        assert "\n" not in str(error.value), what


def test_sum_needs_parts():
    with pytest.raises(ValueError, match="expected at least one pair"):
        objectives.Sum()


def test_preference_is_what_trl_computes(tiny, words, tmp_path):
    """SPIN's round and DPO are the same loss there: two random models, chosen and rejected answers of several lengths."""
    import copy

    from trl import DPOConfig, DPOTrainer

    torch.manual_seed(1)
    opponent = copy.deepcopy(tiny)
    with torch.no_grad():
        for weight in opponent.parameters():
            weight += 0.02 * torch.randn_like(weight)
    pairs = [("who is ", "there", "me good day"), ("bad ", "yes no yes day", "no"), ("answer ", "me", "who")]
    data = Dataset.from_list([{"prompt": p, "chosen": c, "rejected": r} for p, c, r in pairs])
    rows = Dataset.from_list([{"prompt": p, "response": c, "alternatives": [r]} for p, c, r in pairs])
    reference = objectives.log_likelihoods(opponent, words, rows, precision="float32")
    for kind in ("sigmoid", "hinge"):
        ours = objectives.Preference(reference, beta=0.5, hinge=kind == "hinge")
        tuned = fl.fine_tune(tiny, words, rows, objective=ours, **(SMALL | {"tokens_per_step": 1000}))
        words.pad_token = "<unk>"
        arguments = DPOConfig(
            output_dir=str(tmp_path), beta=0.5, loss_type=kind, per_device_train_batch_size=3, max_steps=1, report_to=[],
            use_cpu=True, logging_steps=1, learning_rate=1e-9, bf16=False, gradient_checkpointing=False, save_strategy="no",
            disable_tqdm=True,
        )  # fmt: skip
        trainer = DPOTrainer(copy.deepcopy(tiny), opponent, args=arguments, train_dataset=data, processing_class=words)
        trainer.train()
        theirs = next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry)
        assert tuned.losses[0] == pytest.approx(theirs, abs=1e-5)
