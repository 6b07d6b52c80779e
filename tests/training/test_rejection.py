"""Rejection sampling: sides that share no two numbers, a verifier that never evaluates, what is kept, and pass@k."""

import itertools
import random
import string
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from fisherlib.text.word_problems import paths, side_of
from fisherlib.training import rejection
from fisherlib.training.rejection import (
    answer_of,
    distinct,
    equations,
    holds,
    is_right,
    keep,
    pass_at_k,
    rejection_sample,
    word_problems,
)

ALL = {"train": 162, "test": 81}


def met(rows):
    """All pairs of numbers that stand together in a problem."""
    return {frozenset(pair) for numbers in rows["numbers"] for pair in itertools.combinations(numbers, 2)}


# --- the problems -----------------------------------------------------------------------------------------------------


def test_no_two_numbers_meet_on_both_sides_though_each_is_on_both():
    train, test = (word_problems(ALL[side], seed=3, side=side) for side in ALL)
    assert len(met(train)) == 27 and len(met(test)) == 18 and not met(train) & met(test)
    numbers = [set(itertools.chain.from_iterable(rows["numbers"])) for rows in (train, test)]
    assert numbers[0] == numbers[1] == set(range(1, 10))


@pytest.mark.parametrize("side", ALL)
def test_every_problem_is_said_once_and_solved_by_one_of_its_paths(side):
    rows = word_problems(ALL[side], seed=0, side=side)
    assert len({tuple(row["numbers"]) for row in rows}) == ALL[side]
    shown = []
    for row in rows:
        both = paths(row["numbers"])
        shown.append(both.index(equations(row["response"])))
        assert all(holds(equation) for path in both for equation in path)
        assert {path[-1].split("=")[1] for path in both} == {row["answer"]} and int(row["answer"]) > 0
        assert is_right(row["response"], row["answer"]) and side_of(row["numbers"]) == side
        assert [n for n in row["prompt"].replace(",", "").replace("?", "").split() if n.isdigit()] == [
            str(n) for n in row["numbers"]
        ]
    assert 0.4 < np.mean(shown) < 0.6  # each way about as often


def test_fewer_problems_are_the_first_of_more_and_a_seed_gives_others():
    few, many, other = word_problems(9, seed=5), word_problems(30, seed=5), word_problems(30, seed=6)
    assert few.to_list() == many.to_list()[:9] and many.to_list() != other.to_list()


def test_what_cannot_be_asked_for_is_refused():
    with pytest.raises(ValueError, match="expected a side of"):
        word_problems(3, side="dev")
    for n in (0, 163):
        with pytest.raises(ValueError, match="expected 1 to 162 problems"):
            word_problems(n)


# --- the verifier -----------------------------------------------------------------------------------------------------


@given(st.integers(0, 999), st.integers(0, 999), st.sampled_from("+-*"), st.integers(-2, 2))
def test_an_equation_holds_if_and_only_if_python_s_integers_say_so(a, b, sign, off):
    value = {"+": a + b, "-": a - b, "*": a * b}[sign] + off
    assert holds(f"{a}{sign}{b}={value}") == (off == 0)
    assert holds(f" {a} {sign} {b} = {value} ") == (off == 0)


@given(st.lists(st.integers(1, 9), min_size=2, max_size=5), st.lists(st.sampled_from("+-*/"), min_size=4, max_size=4))
def test_operations_bind_as_usual(numbers, signs):
    text = str(numbers[0]) + "".join(f"{sign}{n}" for sign, n in zip(signs, numbers[1:], strict=False))
    value = eval(text)  # of this test's own making
    assert holds(f"{text}={value:.6f}") and not holds(f"{text}={value + 0.01:.6f}")


HOSTILE = [
    "9**9**9=1", "9**9**9**9=9**9**9**9", "__import__('os').system('true')=1", "1" * 100_000 + "=1", "(" * 30 + "1=1",
    "(" * 50_000 + "1" + ")" * 50_000 + "=1", "1e999=1e999", "1=1=1", "=", "1=", "=1", "", "a=a", "1 1=11", "8/0=1", "0/0=0",
    "[1]=[1]", "True=1", "1j=1j", "1,2=1,2", "1<2=1", "x:=1", "1//1=1", "5%3=2", "~1=-2", "'a'='a'", "0x10=16", "1_0=10",
    "007=7", "1\n=1", "1=1;1=1", "1=1#", "\u0661=1", "1=1\x00", "lambda:1=1",
    "999999999999*9999999=1", "-" * 62 + "1=1", "()=()",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text[:24]))
def test_hostile_equations_are_refused_at_once(text):
    holds(text)  # compiled patterns, imports
    began = time.process_time()
    for _ in range(5):
        found = holds(text)
    assert (time.process_time() - began) / 5 < 0.1  # what would be evaluated takes for ever; this takes a millisecond
    assert not found


def test_a_thousand_strings_are_judged_soon_and_nothing_is_run(monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("evaluated")

    rng = random.Random(0)
    letters = "0123456789+-*/().= <>#_" + string.ascii_letters + "**é٣\n\x00"
    texts = ["".join(rng.choices(letters, k=rng.randrange(80))) for _ in range(400)]
    texts += ["".join(rng.choices("0123456789+-*/().=", k=rng.randrange(60))) for _ in range(400)]
    texts += [f"<<{text}>>#### 1" for text in HOSTILE * 6][:200]
    for name in ("eval", "exec", "__import__"):  # not compile, which ast.parse needs
        monkeypatch.setattr(f"builtins.{name}", never)
    began = time.process_time()
    found = [(holds(text), is_right(text, "1")) for text in texts]
    took = time.process_time() - began
    monkeypatch.undo()
    assert len(found) == 1000 and took < 10
    assert not any(right for text, (_, right) in zip(texts[800:], found[800:], strict=True) if not set(text) & set(" \n"))


def test_equations_and_answers_are_read_as_they_stand():
    assert equations("a <<1 + 2=3>> b <<3*4=12>>#### 12") == ["1+2=3", "3*4=12"]
    assert equations("<<1+<<2=2>> and <<3") == ["2=2"] and equations("") == []
    assert answer_of("#### 1 #### 1,234 ") == "1234" and answer_of("####") is None and answer_of("12") is None


def test_one_wrong_equation_is_enough_and_none_is_not():
    assert is_right("<<3+5=8>> <<8*4=32>> #### 32", "32")
    assert not is_right("<<3+5=9>> <<8*4=32>> #### 32", "32")  # the right answer by luck
    assert not is_right("<<3+5=8>> <<8*4=32>> #### 33", "32") and not is_right("<<3+5=8>> <<8*4=32>>", "32")
    assert not is_right("#### 32", "32") and is_right("#### 32", "32", allow_no_equations=True)
    assert not is_right("<<3+5=9>> #### 32", "32", allow_no_equations=True)
    assert not is_right("<<3+5=9 <<8*4=32>> #### 32", "32") and not is_right("3+5=9>> <<8*4=32>> #### 32", "32")


# --- what is kept -----------------------------------------------------------------------------------------------------


def test_one_for_each_list_the_wording_that_is_farthest_by_brute_force():
    Levenshtein = pytest.importorskip("rapidfuzz.distance").Levenshtein
    texts = ["each <<3+5=8>>", "the whole of it <<3+5=8>>", "red <<3*4=12>>", "each <<3+5=8>>", "#### 8"]
    assert distinct(texts) == [1, 2, 4]
    far = [Levenshtein.distance(texts[i], texts[2]) + Levenshtein.distance(texts[i], texts[4]) for i in (0, 1, 3)]
    assert np.argmax(far) == 1
    assert distinct([]) == [] and distinct(["a <<1=1>>", "b <<1=1>>"]) == [0]  # no others to be far from: the first


@given(st.lists(st.tuples(st.sampled_from(["each", "one", "it is"]), st.integers(0, 4)), max_size=9))
def test_as_many_are_kept_as_there_are_lists(drawn):
    texts = [f"{word} <<{number}+1={number + 1}>>" for word, number in drawn]
    kept = distinct(texts)
    assert len(kept) == len({number for _, number in drawn}) == len({equations(texts[i])[0] for i in kept})


def stub(rows, chances, k, rng):
    """A sampler whose paths are known: each by its chance, the rest wrong."""
    said = []
    for row in rows:
        texts = [f"<<{'>> <<'.join(path)}>> #### {row['answer']}" for path in paths(row["numbers"])]
        texts.append("<<1+1=3>> #### 0")
        said.append([texts[j] for j in rng.choice(3, k, p=[*chances, 1 - sum(chances)])])
    return said


def test_the_originals_are_all_there_and_all_that_is_kept_is_right():
    rows = word_problems(30, seed=0)
    made = keep(rows, stub(rows, (0.3, 0.2), 5, np.random.default_rng(0)))
    assert [{name: row[name] for name in rows.column_names} for row in made.select(range(30))] == rows.to_list()
    own = made.filter(lambda row: row["own"])
    assert len(made) == 30 + len(own) > 40 and all(is_right(row["response"], row["answer"]) for row in own)
    assert all(rows[row["problem"]]["prompt"] == row["prompt"] for row in own)
    lists = [(row["problem"], tuple(equations(row["response"]))) for row in own]
    assert len(lists) == len(set(lists)) <= 2 * 30
    none = keep(rows, [[] for _ in rows])
    assert len(none) == 30 and not any(none["own"])


@pytest.mark.parametrize("k", [1, 2, 4, 16])
def test_the_number_of_distinct_paths_is_what_chance_says(k):
    chances, rows = (0.45, 0.1), word_problems(150, seed=1)
    rng = np.random.default_rng(k)
    own = [sum(keep(rows, stub(rows, chances, k, rng))["own"]) / len(rows) for _ in range(5)]
    expected = sum(1 - (1 - p) ** k for p in chances)
    assert np.mean(own) == pytest.approx(expected, abs=4 * 0.7 / np.sqrt(750))


def test_more_samples_never_keep_fewer():
    rows = word_problems(40, seed=2)
    said = stub(rows, (0.3, 0.1), 16, np.random.default_rng(0))
    pools = [keep(rows, [one[:k] for one in said]) for k in (1, 2, 4, 8, 16)]
    lists = [{(row["problem"], *equations(row["response"])) for row in pool if row["own"]} for pool in pools]
    assert all(few <= many for few, many in itertools.pairwise(lists)) and lists[0] < lists[-1]


@pytest.fixture(scope="module")
def talker():
    """A random model of few tokens, which says nothing that is right."""
    words = ["<end>", "<unk>", "####", "8", "<<3+5=8>>", "each"]
    tokenizer = Tokenizer(models.WordLevel({word: k for k, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<end>")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=6, hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=64, tie_word_embeddings=False, eos_token_id=0, bos_token_id=None,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval(), tokenizer


def test_of_a_model_what_is_right_is_kept_and_a_seed_gives_the_same(talker):
    rows = word_problems(12, seed=0).map(lambda row: {"answer": "8"})
    many = rejection.solutions(*talker, rows, k=60, temperature=1.0, max_new_tokens=5, seed=1, progress=False)
    assert [len(one) for one in many] == [60] * 12 and len({text for one in many for text in one}) > 100
    assert many == rejection.solutions(*talker, rows, k=60, temperature=1.0, max_new_tokens=5, seed=1, progress=False)
    pool = rejection_sample(*talker, rows, k=60, temperature=1.0, max_new_tokens=5, seed=1, progress=False)
    assert pool.to_list() == keep(rows, many).to_list()
    lists = [{tuple(equations(text)) for text in one if is_right(text, "8")} for one in many]
    assert sum(pool["own"]) == sum(map(len, lists)) > 0


def test_rows_without_answers_and_no_samples_are_refused(talker):
    rows = word_problems(3, seed=0)
    with pytest.raises(ValueError, match="expected rows with a column 'answer'"):
        rejection_sample(*talker, rows.remove_columns("answer"), k=1)
    with pytest.raises(ValueError, match="expected at least one solution"):
        rejection_sample(*talker, rows, k=0)
    with pytest.raises(ValueError, match="a list of solutions for each of 3"):
        keep(rows, [["a"]])


# --- pass@k -----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 8).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_the_share_of_all_subsets_with_a_right_one(drawn):
    n, c, k = drawn
    subsets = list(itertools.combinations([True] * c + [False] * (n - c), k))
    assert pass_at_k([c], n, k)[0] == pytest.approx(np.mean([any(of) for of in subsets]))


def test_pass_at_k_has_no_bias_and_the_plain_formula_has():
    n, k, p = 6, 3, 0.3
    counts = np.arange(n + 1)
    weight = np.array([float(np.prod([(n - j) / (j + 1) for j in range(c)])) * p**c * (1 - p) ** (n - c) for c in counts])
    truth = 1 - (1 - p) ** k
    assert weight @ pass_at_k(counts, n, k) == pytest.approx(truth)
    assert weight @ (1 - (1 - counts / n) ** k) < truth - 0.02


def test_pass_at_k_refuses_what_has_no_meaning():
    for right, n, k in (([1], 3, 0), ([1], 3, 4), ([4], 3, 1), ([-1], 3, 1)):
        with pytest.raises(ValueError, match="expected 1 <= k <= n"):
            pass_at_k(right, n, k)
