"""Utilities by training and by reading: the losses that they are made of, and what a reader who sees nothing gives."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM

import fisherlib as fl
from fisherlib.mixtures import (
    EndpointReader,
    ModelReader,
    ablation_utilities,
    in_context_utilities,
    medu_utilities,
    unimax,
    utilimax,
)
from fisherlib.mixtures.medu import GRADE, LEVELS
from fisherlib.mixtures.utilities import relative

QUIET = {"precision": "float32", "progress": False}


def rows_of(token, n=6, length=8):
    return [[token] * length for _ in range(n)]


SOURCES = {"threes": rows_of(3), "fours": rows_of(4), "few": rows_of(3, n=1)}


@pytest.fixture(scope="module")
def reads():
    """A random model that can be asked in words, and its tokenizer."""
    _, tokenizer = fl.load_model("smollm2-135m")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        eos_token_id=tokenizer.eos_token_id, initializer_range=0.5,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval(), tokenizer


def test_relative_gains_are_zero_for_harm_and_one_for_the_best():
    U = relative(np.array([[2.0, -1.0], [1.0, -2.0], [-3.0, 0.0]]))
    assert U.tolist() == [[1.0, 0.0], [0.5, 0.0], [0.0, 0.0]]  # a task that nothing helps has no best
    with pytest.raises(ValueError, match="expected finite gains"):
        relative(np.array([[np.nan]]))


def test_ablations_are_fine_tunings_on_one_source_and_the_one_of_the_task_is_its_best(tiny):
    tasks = {"threes": rows_of(3, n=2, length=5), "fours": rows_of(4, n=2, length=5)}
    options = {"tokens": 28, "steps": 2, "learning_rate": 1e-2, "seed": 5, **QUIET}
    U = ablation_utilities(tiny, None, SOURCES, tasks, **options)
    assert U.shape == (3, 2) and U[:2, 0].argmax() == 0 and U[:2, 1].argmax() == 1
    assert U.max(0) == pytest.approx([1, 1]) and U.min() >= 0
    before = fl.held_out_nll(tiny, None, tasks["threes"], **QUIET).nll
    gains = []
    for rows in SOURCES.values():
        some = [*rows, *rows, *rows, *rows][:4]  # 28 tokens are four rows, and the last source has one
        tuned = fl.fine_tune(tiny, None, some, steps_per_epoch=2, learning_rate=1e-2, seed=5, **QUIET)
        gains.append(before - fl.held_out_nll(tuned.model, None, tasks["threes"], **QUIET).nll)
    assert U[:, 0] == pytest.approx(np.clip(gains, 0, None) / max(gains), abs=1e-5)


def test_in_context_utilities_are_falls_of_the_loss_behind_a_document(tiny):
    sources = {"a": [[3, 1, 4, 1], [5, 9, 2]], "b": [[6, 5], [3, 5, 8, 9]]}
    task = [[2, 7, 1, 8], [2, 8]]
    U = in_context_utilities(tiny, None, sources, {"t": task}, documents=2, **QUIET)

    def loss(before, row):
        with torch.no_grad():
            log_p = tiny(torch.tensor([[*before, *row]])).logits[0].double().log_softmax(1)
        places = range(len(before), len(before) + len(row) - 1)
        return [-float(log_p[k, token]) for k, token in zip(places, row[1:], strict=True)]

    alone = np.mean([x for row in task for x in loss([], row)])
    gains = [alone - np.mean([x for d in docs for row in task for x in loss(d, row)]) for docs in sources.values()]
    assert U[:, 0] == pytest.approx(relative(np.array(gains)[:, None])[:, 0], abs=1e-5)
    other = in_context_utilities(tiny, None, {"b": sources["b"], "a": sources["a"]}, {"t": task}, documents=2, **QUIET)
    assert other == pytest.approx(U[::-1], abs=1e-5)  # all documents are read: no order counts


def test_datasets_are_read_with_a_tokenizer(reads):
    model, tokenizer = reads
    rows = Dataset.from_list([{"prompt": "a", "response": f"word {k}"} for k in range(4)])
    few = {"tokens": 20, "steps": 1, **QUIET}
    assert ablation_utilities(model, tokenizer, {"a": rows}, {"t": rows.select([0])}, **few).shape == (1, 1)
    assert in_context_utilities(model, tokenizer, {"a": rows}, {"t": rows.select([0])}, documents=1, **QUIET).shape == (1, 1)


# --- MEDU


class Recalls:
    """Grades a text by the share of the description's words that it has."""

    def __init__(self):
        self.seen = []

    def describe(self, examples):
        return " ".join(examples)

    def grade(self, description, documents):
        self.seen += documents
        return np.array([len({*description.split()} & {*text.split()}) / len({*description.split()}) for text in documents])


def test_medu_is_the_mean_grade_whatever_the_order_and_however_often_a_document_comes():
    sources, tasks = {"a": ["to be", "or not", "be or"], "b": ["x y"]}, {"t": ["to be", "never seen"], "s": ["x"]}
    U = medu_utilities(Recalls(), sources, tasks, examples=1)
    assert pytest.approx(np.array([[0.5, 0], [0, 1]])) == U
    turned = {"a": sources["a"][::-1] * 2, "b": sources["b"] * 3}
    assert medu_utilities(Recalls(), turned, tasks, examples=1) == pytest.approx(U)
    reader = Recalls()
    medu_utilities(reader, sources, {"t": ["to be"]}, documents=2, seed=1)
    assert len(reader.seen) == 3  # two of the first source, the one that the other has


def test_a_grade_is_the_expected_level_by_the_probabilities_of_the_five_numbers(reads):
    model, tokenizer = reads
    reader = ModelReader(model, tokenizer, precision="float32", new_tokens=3)
    texts = ["import this", "To be, or not to be", "x"]
    grades = reader.grade("plays", texts)
    tokens = [tokenizer(level)["input_ids"][0] for level in LEVELS]
    for text, grade in zip(texts, grades, strict=True):
        turn = [{"role": "user", "content": GRADE.format(description="plays", document=text)}]
        asked = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        with torch.no_grad():
            logits = model(torch.tensor([tokenizer(asked, add_special_tokens=False)["input_ids"]])).logits[0, -1, tokens]
        assert grade == pytest.approx(float(logits.double().softmax(0) @ torch.linspace(0, 1, 5).double()), abs=1e-5)
    assert np.ptp(grades) > 1e-4 and isinstance(reader.describe(["To be", "Or not"]), str)


def test_a_blind_reader_gives_unimax_at_every_risk_above_zero(reads):
    import copy

    model, tokenizer = reads
    blind = copy.deepcopy(model)  # every token looks the same: it predicts the same whatever it has read
    blind.model.embed_tokens.weight.data[:] = blind.model.embed_tokens.weight[5].detach().clone()
    reader = ModelReader(blind, tokenizer, precision="float32", new_tokens=2)
    sources = {"a": ["to be", "or not to be"], "b": ["x = 1"], "c": ["be to"]}
    U = medu_utilities(reader, sources, {"t": ["to be"], "s": ["def f():"]}, documents=2)
    assert np.ptp(U) < 1e-6
    sizes, flat = {"a": 9, "b": 30, "c": 70}, unimax({"a": 9, "b": 30, "c": 70}, tokens=60, epochs=1).weights
    for risk in (1e-3, 0.1, 3):
        assert utilimax(U, sizes, tokens=60, epochs=1, risk=risk).weights == pytest.approx(flat, abs=1e-6)


def test_an_endpoint_is_read_by_the_number_that_it_says():
    from fisherlib.evaluation.judging import Endpoint
    from fisherlib.evaluation.judging.endpoint import Reply

    said = iter(["Plays.", "5", "The grade is 3.", "no idea", "2 or 3", "1"])

    class Says(Endpoint):
        def ask(self, messages, **options):
            return Reply("text", next(said))

    reader = EndpointReader(Says("http://127.0.0.1:1/v1", "x"))
    assert reader.describe(["to be"]) == "Plays."
    grades = reader.grade("Plays.", ["a"] * 5)
    assert grades[[0, 1, 4]].tolist() == [1.0, 0.5, 0.0] and np.isnan(grades[2:4]).all()


class NeverSays(Recalls):
    def grade(self, description, documents):
        return np.full(len(documents), np.nan)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: ablation_utilities(m, None, {}, {"t": [[1, 2]]}, tokens=4), "expected sources by name"),
        (lambda m: ablation_utilities(m, None, SOURCES, {"t": []}, tokens=4), "expected tasks by name"),
        (lambda m: ablation_utilities(m, None, SOURCES, {"t": [[1, 2]]}, tokens=4), "expected a row of 'threes' within 4"),
        (lambda m: in_context_utilities(m, None, SOURCES, {"t": [[1, 2]]}, documents=0), "expected at least 1 document"),
        (
            lambda m: in_context_utilities(m, None, {"long": [[1] * 60]}, {"t": [[1] * 9]}),
            "expected a document of 'long' and an example of a task within 64 tokens",
        ),
        (lambda m: medu_utilities(Recalls(), {"a": ["x"]}, {"t": ["x"]}, examples=0), "expected at least 1 document"),
        (lambda m: medu_utilities(NeverSays(), {"a": ["x"]}, {"t": ["x"]}), "expected grades of 'a' from 0 to 1"),
    ],
)
def test_what_gives_no_utilities_is_refused(tiny, call, message):
    with pytest.raises(ValueError, match=message):
        call(tiny)
