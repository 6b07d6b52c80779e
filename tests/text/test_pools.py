"""Exactly the response tokens count; a bad file names its line; nothing of a test document is in training."""

import copy
import datetime
import json
import re

import pytest
from datasets import Dataset, DatasetDict

import fisherlib as fl
from fisherlib.text import provenance, write_jsonl
from fisherlib.text.shakespeare import TEST_PLAYS, parse_play


def counted(row, tokenizer):
    (example,) = fl.encode(Dataset.from_list([row]), tokenizer)
    pairs = zip(example.input_ids, example.is_response, strict=True)
    return tokenizer.decode([token for token, counts in pairs if counts])


@pytest.fixture(scope="module")
def tokenizer(real):
    return real[1]


@pytest.fixture(scope="module")
def plain(tokenizer):
    """The same tokenizer without its chat template."""
    bare = copy.deepcopy(tokenizer)
    bare.chat_template = None
    return bare


def test_a_pair_counts_its_response_and_the_end_of_turn(tokenizer):
    assert counted({"prompt": "Who's there?", "response": "Nay, answer me."}, tokenizer) == "Nay, answer me.<|im_end|>"


def test_every_assistant_turn_of_a_conversation_counts(tokenizer):
    turns = [("user", "Hi"), ("assistant", "Ho"), ("user", "Who?"), ("assistant", "I.\n\nYes")]
    row = {"messages": [{"role": role, "content": content} for role, content in turns]}
    assert counted(row, tokenizer) == "Ho<|im_end|>I.\n\nYes<|im_end|>"


def test_the_response_may_repeat_the_prompt(tokenizer):
    assert counted({"prompt": "yes yes", "response": "yes yes"}, tokenizer) == "yes yes<|im_end|>"


def test_a_system_line_replaces_the_template_s_own(tokenizer):
    row = {"prompt": "p", "response": "r"}
    own = fl.encode(Dataset.from_list([row]), tokenizer)[0].input_ids
    given = fl.encode(Dataset.from_list([{**row, "system": "Continue the play."}]), tokenizer)[0].input_ids
    assert "SmolLM" in tokenizer.decode(own) and "SmolLM" not in tokenizer.decode(given)


def test_without_a_template_prompt_and_response_are_joined(plain):
    assert counted({"prompt": "To be, or", "response": " not to be"}, plain) == " not to be<|im_end|>"
    # the space belongs to the first word's token, which straddles the boundary and must not be lost
    assert counted({"prompt": "To be, or ", "response": "not to be"}, plain) == " not to be<|im_end|>"
    assert counted({"text": "To be"}, plain).endswith(" be<|im_end|>")  # the first token has nothing before it
    with pytest.raises(ValueError, match="chat template for 'messages'"):
        counted({"messages": [{"role": "assistant", "content": "x"}]}, plain)


def test_a_template_that_rewrites_earlier_turns_is_refused(tokenizer):
    rewriting = copy.deepcopy(tokenizer)
    rewriting.chat_template = "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}"
    with pytest.raises(ValueError, match="turn by turn"):
        counted({"prompt": "p", "response": "r"}, rewriting)


def test_a_template_that_drops_the_assistant_is_an_error_that_says_why(tokenizer):
    dropping = copy.deepcopy(tokenizer)
    dropping.chat_template = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
    with pytest.raises(ValueError, match="template may drop the assistant"):
        counted({"prompt": "p", "response": "r"}, dropping)


def test_too_long_a_row_is_refused_not_cut(tokenizer):
    with pytest.raises(ValueError, match="row 0: expected at most 10 tokens"):
        fl.encode(Dataset.from_list([{"prompt": "p", "response": "word " * 50}]), tokenizer, max_tokens=10)


def test_the_audit_shows_what_counts(tokenizer):
    audit = fl.MaskAudit(Dataset.from_list([{"prompt": "ask <b>", "response": "tell"}]), tokenizer)
    assert "⟦tell<|im_end|>⟧" in repr(audit) and audit.responses == 2 and audit.empty == []
    assert "&lt;" in audit._repr_html_() and "<b>" not in audit._repr_html_()


# --- files -----------------------------------------------------------------------------------------------------------


def write(tmp_path, *lines):
    path = tmp_path / "my.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def test_jsonl_keeps_every_column_and_splits_by_document(tmp_path):
    rows = [{"prompt": f"p{i}", "response": f"r{i}", "document": f"d{i // 5}", "extra": i} for i in range(50)]
    pool = fl.load_pool(write(tmp_path, *rows), test_fraction=0.2, seed=3)
    assert len(pool.train) + len(pool.test) == 50 and len(pool.test) == 10
    assert set(pool.train["document"]).isdisjoint(pool.test["document"])
    assert set(pool.train.column_names) == {"prompt", "response", "document", "extra", "_source"}
    assert fl.load_pool(write(tmp_path, *rows), test_fraction=0.2, seed=3).test["extra"] == pool.test["extra"]


def test_unusual_but_valid_files(tmp_path):
    path = tmp_path / "my.jsonl"
    lines = [json.dumps({"text": f"a\u2028b {i}"}, ensure_ascii=False) for i in range(4)]
    path.write_bytes("\ufeff".encode() + "\r\n".join(lines).encode() + b"\n\n")
    pool = fl.load_pool(path)
    assert sorted([*pool.train["text"], *pool.test["text"]]) == [f"a\u2028b {i}" for i in range(4)]
    path.write_bytes(b'{"text": "a"}\n{"text": "\xff"}')
    with pytest.raises(ValueError, match="line 2: expected UTF-8"):
        fl.load_pool(path)


def test_a_column_that_starts_late_is_kept_and_still_splits(tmp_path):
    late = [{"prompt": f"p{i}", "response": f"r{i}", "document": f"book{i % 4}"} for i in range(40)]
    pool = fl.load_pool(write(tmp_path, {"prompt": "p", "response": "x"}, *late), test_fraction=0.4)
    assert len(pool.train) + len(pool.test) == 41
    named = [{d for d in part["document"] if d} for part in (pool.train, pool.test)]
    assert named[0].isdisjoint(named[1]) and named[0] | named[1] == {f"book{i}" for i in range(4)}


def test_without_a_test_every_row_is_a_candidate(tmp_path):
    rows = [{"prompt": f"p{i}", "response": f"r{i}", "document": "one"} for i in range(5)]  # one document cannot be split
    pool = fl.load_pool(write(tmp_path, *rows), test_fraction=0)
    assert pool.train["prompt"] == [row["prompt"] for row in rows] and len(pool.test) == 0
    assert pool.test.column_names == pool.train.column_names and "0 test" in repr(pool)
    for wrong in (-0.1, 1, float("nan")):
        with pytest.raises(ValueError, match="0 <= test_fraction < 1"):
            fl.load_pool(write(tmp_path, *rows), test_fraction=wrong)


@pytest.mark.parametrize("fraction", [0.01, 0.5, 0.99])
def test_no_side_of_a_split_is_empty(tmp_path, fraction):
    pool = fl.load_pool(write(tmp_path, *({"text": f"t{i}"} for i in range(3))), test_fraction=fraction)
    assert len(pool.train) and len(pool.test)


def test_copies_of_a_row_stay_on_one_side(tmp_path):
    rows = [{"text": f"t{i % 4}"} for i in range(40)]
    pool = fl.load_pool(write(tmp_path, *rows))
    assert set(pool.train["text"]).isdisjoint(pool.test["text"])


def test_parquet_and_datasets_give_the_same(tmp_path):
    rows = Dataset.from_list([{"text": f"t{i}"} for i in range(20)])
    rows.to_parquet(str(tmp_path / "my.parquet"))
    assert fl.load_pool(tmp_path / "my.parquet").train["text"] == fl.load_pool(rows).train["text"]


def test_a_test_split_that_exists_is_kept(monkeypatch):
    from fisherlib.text import pools as data

    both = DatasetDict(train=Dataset.from_list([{"text": "a"}]), test=Dataset.from_list([{"text": "b"}]))
    monkeypatch.setattr(data, "load_dataset", lambda source: both)
    pool = fl.load_pool("some/dataset")
    assert pool.train["text"] == ["a"] and pool.test["text"] == ["b"]


# --- the plays -------------------------------------------------------------------------------------------------------


def test_whole_plays_are_held_out(plays):
    assert set(plays.test["document"]) == set(TEST_PLAYS)
    assert len(set(plays.train["document"])) == 37 - len(TEST_PLAYS)
    assert len(plays.train) > 10_000 and len(plays.test) > 800


def test_the_plays_are_clean(plays):
    responses = [*plays.train["response"], *plays.test["response"]]
    assert len(set(responses)) == len(responses)
    suspicious = re.compile(r"\[|\]|\bExeunt\b|^(ACT|SCENE)\b|^Enter [A-Z]|Gutenberg|_|@", re.MULTILINE)
    assert [r for r in responses if suspicious.search(r)] == []
    speakers = {s for part in (plays.train, plays.test) for s in part["speaker"]}
    assert {"Hamlet", "Ham"} & speakers and {"Macbeth", "Othello", "Shylock"} <= speakers


def test_parse_play():
    text = """PERSONS REPRESENTED.

HAMLET, Prince.
A GHOST.

ACT I.

SCENE I. Elsinore.

[Enter HAMLET
and others.]

HAMLET.
Whither wilt thou lead me? [Aside.] Speak;
I'll go no further.

GHOST
Mark me.

[Exit.]

I am thy father's spirit.

SCENE II. Another part.

HAMLET.
Alas, poor ghost!

FIRST and SECOND CLOWN.
Pity him not.
"""
    assert parse_play(text) == [
        [
            ("Hamlet", "Whither wilt thou lead me?  Speak;\nI'll go no further."),
            ("Ghost", "Mark me.\nI am thy father's spirit."),
        ],
        [("Hamlet", "Alas, poor ghost!"), ("First and Second Clown", "Pity him not.")],
    ]


# --- datasets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pandas", "arrow", "numpy", "torch"])
def test_a_format_changes_no_row(tokenizer, kind):
    turns = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]
    for rows in (
        Dataset.from_list([{"messages": [*turns, *turns, {**turns[0], "content": f"u{i}"}]} for i in range(6)]),
        Dataset.from_list([{"prompt": f"p{i}", "response": "r", "document": i // 2} for i in range(6)]),
    ):
        formatted, plainly = rows.with_format(kind), fl.load_pool(rows)
        pool = fl.load_pool(formatted)
        assert (pool.train.to_list(), pool.test.to_list()) == (plainly.train.to_list(), plainly.test.to_list())
        assert isinstance(pool.train[0], dict) and type(pool.train[0].get("document", 0)) is int
        assert fl.encode(formatted, tokenizer) == fl.encode(rows, tokenizer)
        assert repr(fl.MaskAudit(formatted, tokenizer)) == repr(fl.MaskAudit(rows, tokenizer))
        assert formatted.format["type"] == kind  # the user's own is left as it was


def test_a_transform_would_make_two_texts_of_one_row(tmp_path, tokenizer):
    rows = Dataset.from_list([{"prompt": f"p{i}", "response": "r"} for i in range(4)])
    louder = rows.with_transform(lambda batch: {**batch, "response": [text + "!" for text in batch["response"]]})
    for door in (
        fl.load_pool,
        provenance,
        lambda rows: fl.encode(rows, tokenizer),
        lambda rows: fl.MaskAudit(rows, tokenizer),
        lambda rows: write_jsonl(rows, tmp_path / "out.jsonl"),
    ):
        with pytest.raises(ValueError, match="expected rows without a transform, .* rows.map, or .* rows.with_format.None."):
            door(louder)
    assert fl.encode(louder.with_format(None), tokenizer) == fl.encode(rows, tokenizer)
    made = louder.with_format(None).map(lambda row: {"response": row["response"] + "!"})
    assert provenance(made)["hash"][:] != provenance(rows)["hash"][:] and fl.load_pool(made).train[0]["response"] == "r!"


@pytest.mark.usefixtures("as_a_user")
def test_what_is_no_dataset_says_what_to_do(tmp_path):
    rows = Dataset.from_list([{"text": f"t{i}"} for i in range(4)])
    rows.save_to_disk(tmp_path / "saved")
    for source, message in (
        (tmp_path / "saved", "written with save_to_disk: open it with datasets.load_from_disk and give that"),
        (DatasetDict(train=rows), "got a DatasetDict: give one of its splits"),
        (rows.to_iterable_dataset(), "got an IterableDataset: make one with Dataset.from_list"),
        (rows.to_list(), "got a list: make one with Dataset.from_list, or name the files"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            fl.load_pool(source)
        assert "\n" not in str(error.value)
    for wrong in (rows.to_list(), None, DatasetDict(train=rows)):
        with pytest.raises(ValueError, match="expected train, a datasets.Dataset, got"):
            fl.Pool("mine", wrong, rows)


def test_of_several_splits_train_is_chosen_from_and_no_other(monkeypatch):
    from fisherlib.text import pools as data

    one, two = Dataset.from_list([{"text": "a"}]), Dataset.from_list([{"text": f"b{i}"} for i in range(4)])
    monkeypatch.setattr(data, "load_dataset", lambda source: DatasetDict(validation=one, train=two))
    assert len(fl.load_pool("some/dataset", test_fraction=0).train) == 4
    monkeypatch.setattr(data, "load_dataset", lambda source: DatasetDict(validation=one, test=two))
    with pytest.raises(ValueError, match=r"some/dataset: expected a split 'train', got \['test', 'validation'\]: load the"):
        fl.load_pool("some/dataset")
    monkeypatch.setattr(data, "load_dataset", lambda source: DatasetDict(test=two))
    assert len(fl.load_pool("some/dataset", test_fraction=0.5).train) == 2  # the only one is meant


def test_turns_may_hold_more_than_json_knows(tokenizer):
    turn = {"role": "user", "content": "u", "at": datetime.date(2020, 1, 1)}
    rows = [{"messages": [{**turn, "content": f"u{i % 4}"}, {"role": "assistant", "content": "a"}]} for i in range(8)]
    pool = fl.load_pool(Dataset.from_list(rows), test_fraction=0.25)
    assert len(pool.test) == 2 and len(fl.encode(pool.train, tokenizer)) == 6
