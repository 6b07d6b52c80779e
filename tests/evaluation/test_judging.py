"""Judging: both orders, nothing guessed, nothing asked twice, no key in any file; scores that are the optimum."""

import json
import math
import os
import subprocess
import sys
import time
import traceback
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from threading import Thread

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from transformers import LlamaConfig, LlamaForCausalLM

import fisherlib as fl
from fisherlib.evaluation import judging
from fisherlib.evaluation.judging.endpoint import MODEL_VARIABLE, Reply
from fisherlib.evaluation.judging.pairwise import messages_of, read_answer, shown

SECRET = "sk-sentinel-7d1f0c9a"
ONCE = {"retries": 0, "timeout": 5.0}
TEXTS = {
    "uniform": ["a short one", "words", "not long, not short"],
    "longest": ["a text that is rather longer", "words in a row, many", "long"],
    "FisherSFT": ["middling text", "words, words", "a text of some length"],
}
PAIRS = judging.all_pairs(TEXTS, ["first:", "second:", "third:"])


def longer(a, b):
    return "A" if len(a) > len(b) else "B" if len(b) > len(a) else "tie"


def judged(rule, pairs=PAIRS, **options):
    with judging.rule_server(rule, "a rule", **ONCE) as endpoint:
        return judging.judge(pairs, endpoint, **options)


# --- what judges of known behaviour must give ------------------------------------------------------------------------


def test_a_judge_that_always_says_a_gives_one_half_exactly():
    table = judged(lambda a, b: "A")
    assert len(table) == 2 * len(PAIRS) == 18
    for rate in judging.win_rates(table).values():
        assert rate.value == rate.low == rate.high == 0.5 and rate.verdict == "tie"
    assert judging.position_bias(table).value == 1 and judging.order_agreement(table).value == 0
    assert judging.length_bias(table).value == 0.5
    assert (judging.bradley_terry(table)["score"] == 0).all()


def test_a_judge_that_prefers_longer_text_is_found_out():
    table = judged(longer)
    bias = judging.length_bias(table)
    assert bias.value == 1 and bias.verdict == "above"
    assert judging.position_bias(table).value == 0.5 and judging.order_agreement(table).value == 1
    assert judging.win_rates(table)["longest"].value == pytest.approx(2 / 3)
    assert judging.win_rates(table)["FisherSFT"].value == 1


def test_a_judge_that_rolls_dice_agrees_with_itself_by_chance():
    rng = np.random.default_rng(0)
    table = judged(lambda a, b: "AB"[rng.integers(2)], repeats=2, temperature=1.0)
    assert len(table) == 36 and 0 < judging.order_agreement(table).value < 1


def test_what_is_not_an_answer_is_counted_and_never_guessed():
    said = iter(["A", "maybe B", "I'm sorry, I cannot.", "tie", "B.", ""])
    table = judged(lambda a, b: next(said), PAIRS[:3])
    assert table["answer"].tolist() == ["A", "malformed", "refused", "tie", "B", "malformed"]
    assert judging.counts(table) == {"A": 1, "B": 1, "tie": 1, "malformed": 2, "refused": 1, "timeout": 0}
    assert len(judging.scores(table)) == 0  # no question was decided in both orders
    assert all(rate.verdict == "not judged" for rate in judging.win_rates(table).values())
    with pytest.raises(ValueError, match="link all arms"):
        judging.bradley_terry(table)


@pytest.mark.parametrize(
    ("text", "answer"),
    [("A", "A"), (" B.\n", "B"), ("**A**", "A"), ("Answer: B", "B"), ("tie", "tie"), ("Tie.", "tie"), ('"A"', "A")]
    + [(t, "malformed") for t in ("a", "A or B", "A is better", "AB", "", "A B", "neither", "B? no, A")]
    + [(t, "refused") for t in ("I'm sorry, but no", "I can’t judge that", "As an AI, I do not")],
)
def test_answers_are_read_strictly(text, answer):
    assert read_answer(Reply("text", text)) == answer


@given(st.text(), st.text(), st.text())
def test_a_rule_sees_the_two_texts(context, a, b):
    question = messages_of(context, a, b)[-1]["content"]
    if not any("Continuation" in t or "Which" in t for t in (context, a, b)):
        assert shown(question) == (a, b)


# --- caches, deaths, timeouts ----------------------------------------------------------------------------------------


def test_a_server_that_dies_loses_nothing_already_judged(tmp_path):
    cache, asked = tmp_path / "deep" / "cache.jsonl", []

    def mortal(a, b):
        asked.append((a, b))
        if len(asked) == 8:
            raise ConnectionAbortedError
        return longer(a, b)

    with pytest.raises(judging.JudgeError, match="7 of 18 judgements were done; all are kept in cache.jsonl"):
        judged(mortal, cache=cache)
    assert len(cache.read_text().splitlines()) == 7
    asked.clear()
    table = judged(lambda a, b: asked.append((a, b)) or longer(a, b), cache=cache)
    assert len(asked) == 11 and table["cached"].sum() == 7
    pd.testing.assert_frame_equal(table.drop(columns="cached"), judged(longer).drop(columns="cached"))
    asked.clear()
    with cache.open("ab") as file:
        file.write(b'{"key": "0123abc')
    torn = cache.read_bytes()
    assert judged(lambda a, b: asked.append(a) or "A", cache=cache)["cached"].all() and not asked
    assert cache.read_bytes() == torn  # nothing was to be written, so nothing is repaired
    assert judged(lambda a, b: "A", cache=cache, temperature=0.5)["cached"].sum() == 0  # another question
    with cache.open("ab") as file:
        file.write(b"something else\n")
    with pytest.raises(ValueError, match="cache.jsonl line 37: expected a judgement"):
        judged(longer, cache=cache)


def test_timeouts_are_counted_and_asked_again(tmp_path):
    with judging.rule_server(lambda a, b: time.sleep(1) or "A", "slow", retries=0, timeout=0.2) as endpoint:
        table = judging.judge(PAIRS[:1], endpoint, cache=tmp_path / "cache.jsonl")
    assert table["answer"].tolist() == ["timeout", "timeout"]
    assert (tmp_path / "cache.jsonl").read_bytes() == b""


class Odd(BaseHTTPRequestHandler):
    """Answers with `status` and `body`, which may repeat the caller's key."""

    status, body, kind = 200, "", "application/json"

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        data = self.body.replace("{key}", self.headers["Authorization"]).encode()
        self.send_response(self.status)
        self.send_header("Content-Type", self.kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def odd():
    """An endpoint made by `make(status, body, kind)` of a server that answers so; its key is the sentinel."""
    servers = []

    def make(status, body, kind="application/json"):
        handler = type("Handler", (Odd,), {"status": status, "body": body, "kind": kind})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        servers.append(server)
        return judging.Endpoint(f"http://127.0.0.1:{server.server_port}/v1", "odd", SECRET, **ONCE)

    yield make
    for server in servers:
        server.shutdown()
        server.server_close()


def message(**fields):
    return json.dumps({"id": "0", "object": "chat.completion", "created": 0, "model": "m"} | {"choices": [fields]})


REFUSED = message(index=0, finish_reason="stop", message={"role": "assistant", "content": None, "refusal": "no"})
FILTERED = message(index=0, finish_reason="content_filter", message={"role": "assistant", "content": ""})


@pytest.mark.parametrize(
    ("status", "body", "kind", "answer"),
    [
        (200, "{not json", "application/json", "malformed"),
        (200, "<html>", "text/html", "malformed"),
        (200, "{}", "application/json", "malformed"),
        (200, '{"choices": []}', "application/json", "malformed"),
        (200, REFUSED, "application/json", "refused"),
        (200, FILTERED, "application/json", "refused"),
        (400, '{"error": {"message": "no", "code": "content_filter"}}', "application/json", "refused"),
    ],
)
def test_odd_replies(odd, status, body, kind, answer):
    assert read_answer(odd(status, body, kind).ask(messages_of("x", "a", "b"))) == answer


# --- the key ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500])
def test_a_server_that_repeats_the_key_in_an_error_does_not_spread_it(odd, status):
    endpoint = odd(status, '{"error": {"message": "bad key {key}"}}')
    with pytest.raises(judging.JudgeError, match=f"status {status}") as caught:
        judging.judge(PAIRS, endpoint)
    error, seen = caught.value, []
    while error is not None:  # the whole chain, and what its errors hold
        seen.append(f"{error!r} {vars(error)} {type(error)}")
        error = error.__context__
    assert SECRET not in "".join([*traceback.format_exception(caught.value), *seen]) and "openai" not in "".join(seen)


def test_the_key_is_in_no_repr_no_dict_no_pickle_and_no_cache(odd, tmp_path):
    import copy
    import pickle

    said = message(index=0, finish_reason="stop", message={"role": "assistant", "content": "your key is {key}"})
    endpoint = odd(200, said)
    table = judging.judge(PAIRS[:2], endpoint, cache=tmp_path / "cache.jsonl")
    assert SECRET not in table.to_csv() + (tmp_path / "cache.jsonl").read_text()
    assert "[key]" in table["said"][0]
    assert SECRET not in repr(endpoint) + str(asdict(endpoint))
    for save in (pickle.dumps, copy.copy):
        with pytest.raises(TypeError, match="must not reach a file"):
            save(endpoint)
    named = judging.Endpoint("https://example.org/v1", "m", SECRET)
    assert repr(named) == "Endpoint('m' at https://example.org/v1)"
    assert SECRET not in str(vars(endpoint)) + str(vars(named)) + str(vars(endpoint._client))


def test_the_environment_names_a_judge_only_with_its_model(monkeypatch):
    for name in (MODEL_VARIABLE, "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    assert judging.Endpoint.from_environment() is None
    monkeypatch.setenv(MODEL_VARIABLE, "big")
    with pytest.raises(ValueError, match="expected OPENAI_BASE_URL"):
        judging.Endpoint.from_environment()
    monkeypatch.setenv("OPENAI_BASE_URL", "https://example.org/v1")
    endpoint = judging.Endpoint.from_environment(timeout=3.0)
    assert (endpoint.model, endpoint.place, endpoint.timeout) == ("big", "https://example.org/v1", 3.0)


def test_messages_for_a_wrong_call():
    for wrong, match in (
        (lambda: judging.Endpoint("example.org", "m"), "begins with http"),
        (lambda: judging.Endpoint("http://example.org", ""), "name of a model"),
        (lambda: judging.all_pairs({"a": ["x"]}, ["1", "2"]), "a text for each of 2 prompts, got 1 from 'a'"),
        (lambda: judged(longer, repeats=0), "at least 1 repeat"),
        (lambda: judging.win_rates(judged(longer), against="x"), "judged arms"),
        (lambda: judging.CharacterModel([]), "some text"),
    ):
        with pytest.raises(ValueError, match=match):
            wrong()


# --- what judgements add up to ---------------------------------------------------------------------------------------


def table_of(wins, ties=()):
    """A table in which each (winner, loser) was decided so in both orders, a prompt for each."""
    rows = []
    for k, (x, y, tie) in enumerate([(*w, False) for w in wins] + [(*t, True) for t in ties]):
        for a, b, answer in ((x, y, "A"), (y, x, "B")):
            rows.append({"prompt": k, "a": a, "b": b, "answer": "tie" if tie else answer, "repeat": 0})
    return pd.DataFrame(rows)


def test_two_arms_differ_by_the_logit_of_the_win_rate():
    result = judging.bradley_terry(table_of([("x", "y")] * 7 + [("y", "x")] * 2, [("x", "y")] * 2), resamples=20)
    assert result.loc["x", "score"] - result.loc["y", "score"] == pytest.approx(math.log(8 / 3))
    assert result["score"].sum() == pytest.approx(0) and not result["ridge"].any()
    assert (result["low"] <= result["score"]).all() and (result["score"] <= result["high"]).all()


def test_an_arm_that_wins_everything_has_a_finite_score_that_says_so():
    result = judging.bradley_terry(table_of([("x", "y")] * 12), resamples=20)
    assert result["ridge"].all() and result.loc["x", "score"] - result.loc["y", "score"] == pytest.approx(math.log(49))


matrices = st.integers(2, 5).flatmap(lambda K: st.lists(st.floats(0.1, 9), min_size=K * K, max_size=K * K))


@settings(deadline=None, max_examples=40)
@given(matrices, st.randoms(use_true_random=False))
def test_scores_are_the_maximum_of_the_likelihood(values, random):
    K = math.isqrt(len(values))
    wins = np.array(values).reshape(K, K) * (1 - np.eye(K))
    ours = judging.bradley_terry_scores(wins)

    def loss(s):
        return (wins * np.logaddexp(0, s[None, :] - s[:, None])).sum() + s.sum() ** 2

    assert np.allclose(ours, optimize.minimize(loss, np.zeros(K), method="BFGS", options={"gtol": 1e-9}).x, atol=1e-4)
    assert np.allclose(judging.bradley_terry_scores(wins.T), -ours, atol=1e-8)  # who loses instead of wins
    order = list(range(K))
    random.shuffle(order)
    assert np.allclose(judging.bradley_terry_scores(wins[np.ix_(order, order)]), ours[order], atol=1e-8)


def test_intervals_resample_prompts():
    rng = np.random.default_rng(0)
    values, prompts = rng.uniform(size=40), np.arange(40)
    ours = judging.share(prompts, values, resamples=20_000)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", rng=rng).confidence_interval
    assert (ours.low, ours.high) == (pytest.approx(theirs.low, abs=5e-3), pytest.approx(theirs.high, abs=5e-3))
    doubled = judging.share(np.tile(prompts, 2), np.tile(values, 2), resamples=20_000)  # copies are no news
    assert (doubled.low, doubled.high) == (pytest.approx(ours.low), pytest.approx(ours.high))


# --- numbers ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.text("abc ", min_size=1), min_size=1, max_size=4), st.text("abcx ", max_size=8), st.integers(1, 5))
def test_the_character_model_is_a_distribution(texts, history, order):
    model = judging.CharacterModel(texts, order=order)
    assert sum(model.probability(c, history) for c in model.alphabet) == pytest.approx(1)


def test_the_character_model_by_hand():
    model = judging.CharacterModel(["aab"], order=2)  # an alphabet of a, b and the unknown
    unigram = (2 + 2 / 3) / 5  # a twice of three characters, two types
    assert model.probability("a", "") == pytest.approx(unigram)
    assert model.probability("a", "a") == pytest.approx((1 + 2 * unigram) / 4)  # after a: a once, b once
    assert model.nats("a") == pytest.approx(-math.log(unigram)) and math.isnan(model.nats(""))
    assert model.nats("z") == pytest.approx(-math.log(2 / 3 / 5))


# --- generation, and the real server ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(real):
    """A random model with the shipped tokenizer."""
    torch.manual_seed(0)
    vocabulary = len(real[1])
    config = LlamaConfig(vocab_size=vocabulary, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
                         num_attention_heads=2, max_position_embeddings=1024, eos_token_id=real[1].eos_token_id)  # fmt: skip
    return LlamaForCausalLM(config).eval(), real[1]


ROWS = Dataset.from_list(
    [
        {"system": "Go on.", "prompt": p, "response": r}
        for p, r in (
            ("Romeo:\nTut!\n\nBenvolio:", "Tell me."),
            ("A much longer prompt than the other one has:", "Yes, my lord."),
        )
    ]
)


def test_the_prompt_is_what_training_saw(small):
    _, tokenizer = small
    for row, ids, example in zip(ROWS, judging.prompt_ids(ROWS, tokenizer), fl.encode(ROWS, tokenizer), strict=True):
        assert example.input_ids[: len(ids)] == ids and not any(example.is_response[: len(ids)])
        assert all(example.is_response[len(ids) : -1])
        turns = [{"role": "system", "content": "Go on."}, {"role": "user", "content": row["prompt"]}]
        rendered = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        assert ids == tokenizer(rendered, add_special_tokens=False)["input_ids"]
    with pytest.raises(ValueError, match="expected a prompt to continue"):
        judging.prompt_ids(Dataset.from_list([{"text": "no prompt here"}]), tokenizer)


def test_continuations_are_the_model_s_whatever_the_batch_and_end_with_the_turn(small, monkeypatch):
    model, tokenizer = small
    greedy = {"temperature": 0.0, "max_new_tokens": 6}
    alone = [judging.continuations(model, tokenizer, ROWS.select([i]), **greedy)[0] for i in (0, 1)]
    assert judging.continuations(model, tokenizer, ROWS, **greedy) == alone
    ids = judging.prompt_ids(ROWS, tokenizer)[1]
    for _ in range(6):  # greedy by hand
        ids = [*ids, int(model(torch.tensor([ids])).logits[0, -1].argmax())]
    assert tokenizer.decode(ids[-6:], skip_special_tokens=True).strip() == alone[1]
    state = torch.random.get_rng_state()
    first, again, other = (judging.continuations(model, tokenizer, ROWS, seed=s) for s in (1, 1, 2))
    assert first == again != other and (torch.random.get_rng_state() == state).all()
    monkeypatch.setattr(model.generation_config, "eos_token_id", [ids[-4]])  # the third token of the greedy answer
    assert judging.continuations(model, tokenizer, ROWS.select([1]), **greedy)[0] == tokenizer.decode(ids[-6:-4]).strip()


@pytest.mark.slow
def test_the_real_server(small, tmp_path, monkeypatch):
    """`transformers serve` over HTTP, with a sentinel key in the environment that no file holds and no child is given."""
    model, tokenizer = small
    model.save_pretrained(tmp_path / "small")
    tokenizer.save_pretrained(tmp_path / "small")
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    with judging.local_server(tmp_path / "small", retries=0) as endpoint:
        assert endpoint.model == "small" and endpoint.place.startswith("http://127.0.0.1:")
        table = judging.judge(PAIRS[:2], endpoint, cache=tmp_path / "cache.jsonl", temperature=1.0, repeats=2)
    assert len(table) == 8 and sum(judging.counts(table).values()) == 8
    assert table.groupby(["prompt", "a", "b"])["said"].nunique().max() == 2  # the temperature counts
    with pytest.raises(judging.JudgeError, match="no connection"):  # and it is gone afterwards
        endpoint.ask(messages_of("x", "a", "b"))
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


@pytest.mark.slow
def test_a_server_that_does_not_start_says_why(tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{}")
    with (
        pytest.raises(judging.JudgeError, match="it ended with status 1; its last lines: .*"),
        judging.local_server(tmp_path / "broken"),
    ):
        pass
    with pytest.raises(ValueError, match="no config.json"), judging.local_server(tmp_path):
        pass


@pytest.mark.slow
def test_the_package_is_imported_without_the_extra():
    code = "import sys, fisherlib as fl; fl.judging; sys.exit(any(m in sys.modules for m in ('openai', 'fastapi')))"
    assert subprocess.run([sys.executable, "-c", code], env=os.environ, timeout=120).returncode == 0
    assert all(a != b for a, b in pairwise(sorted(judging.__all__)))
