"""Does a bad file or row say, in one line, where it is bad, why, and what to do?"""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset

import fisherlib as fl

pytestmark = pytest.mark.usefixtures("as_a_user")

U, A = {"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}
GOOD = {"prompt": "p", "response": "r"}


@pytest.fixture(scope="module")
def tokenizer(real):
    return real[1]


def one_line(error):
    message = str(error.value)
    assert "\n" not in message and len(message) < 450, message


def write(tmp_path, *lines, name="my.jsonl"):
    path = tmp_path / name
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    return path


def turns(*messages):
    return {"messages": list(messages)}


# What `load_pool` refuses with the number of the line, `encode` refuses with the number of the row.
BAD_ROWS = {
    "other columns": ({"x": 1}, "expected the columns 'prompt' and 'response', or .* got \\['x'\\]: rename your columns"),
    "half a pair": ({"prompt": "p"}, "expected the columns .* got \\['prompt'\\]"),
    "a null response": ({"prompt": "p", "response": None}, "expected the columns"),
    "an empty response": ({"prompt": "p", "response": " "}, "expected a non-empty 'response'"),
    "a number": ({"prompt": "p", "response": 5}, "expected strings in 'prompt' and 'response', got str and int"),
    "a system that is none": ({**GOOD, "system": 5}, "expected a string in 'system', got int"),
    "an empty text": ({"text": "\n"}, "expected a non-empty 'text'"),
    "a list as text": ({"text": ["a"]}, "expected a string in 'text', got list"),
    "both shapes": ({**turns(U, A), **GOOD}, "expected 'messages', or 'prompt' and 'response', got both: leave out"),
    "no turns": (turns(), "expected 'messages' to be a list of"),
    "sharegpt": (turns({"from": "human", "value": "u"}), "expected 'messages' to be a list of {'role', 'content'}"),
    "no assistant": (turns(U), "expected an assistant turn with text"),
    "an empty assistant": (turns(U, {**A, "content": " "}), "expected an assistant turn with text"),
    "assistant first": (turns(A, U, A), "expected a turn before the assistant's first in 'messages', got none"),
    "null content": (
        turns(U, {**A, "content": None}),
        "got none in turn 1: a turn without text .and without tool_calls. cannot be",
    ),
    "a role that is a number": (turns(U, {**A, "role": 1}), "every 'role' in 'messages' to be a string, got int in turn 1"),
    "a role that is null": (turns({**U, "role": None}, A), "every 'role' .* got NoneType in turn 0"),
    "gpt beside": (
        turns(U, A, U, {**A, "role": "gpt"}),
        "'assistant' as the role of who answers, got 'gpt' in turn 3: rename",
    ),
    "gpt alone": (turns(U, {**A, "role": "gpt"}), "got 'gpt' in turn 1"),
    "model": (turns(U, {**A, "role": "model"}), "got 'model' in turn 1"),
    "bot": (turns(U, {**A, "role": "Bot"}), "got 'Bot' in turn 1"),
    "a capital": (turns(U, {**A, "role": "Assistant"}), "got 'Assistant' in turn 1"),
    "half a character": ({"text": "a\ud800"}, "got half of one .the lone surrogate '.ud800'. in 'text': repair it"),
    "half in a response": ({**GOOD, "response": "\udfff"}, "lone surrogate '.udfff'. in 'response'"),
    "half in a turn": (turns(U, {**A, "content": "\ud83d"}), "lone surrogate '.ud83d'. in turn 1 of 'messages'"),
}


@pytest.mark.parametrize(("row", "message"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_bad_row_has_a_number_and_a_reason(tmp_path, tokenizer, row, message):
    with pytest.raises(ValueError, match=f"my.jsonl line 2: .*{message}") as error:
        fl.load_pool(write(tmp_path, GOOD, row))
    one_line(error)
    for door in (lambda rows: fl.encode(rows, tokenizer), lambda rows: fl.MaskAudit(rows, tokenizer)):
        with pytest.raises(ValueError, match=f"^row 1: .*{message}") as error:
            door([GOOD, row])
        one_line(error)


def test_bytes_are_no_text_and_ids_need_no_tokenizer(tokenizer):
    with pytest.raises(ValueError, match="row 0: expected strings in 'prompt' and 'response', got str and bytes"):
        fl.encode(Dataset.from_list([{"prompt": "2+3", "response": b"5"}]), tokenizer)
    with pytest.raises(
        ValueError, match="row 0: expected a row with columns by name, got list: token ids go with tokenizer=None"
    ):
        fl.encode([[1, 2]], tokenizer)


def test_rows_of_different_shapes_live_in_one_file(tmp_path, tokenizer):
    path = write(tmp_path, GOOD, turns(U, A), {"text": "t"}, {**GOOD, "text": "of the whole, as another column"})
    rows = fl.load_pool(path, test_fraction=0).train  # Arrow gives every row all columns, with nulls
    said = [tokenizer.decode(np.array(e.input_ids)[e.is_response]) for e in fl.encode(rows, tokenizer)]
    assert said[0] == said[3] == "r<|im_end|>" and said[1] == "a<|im_end|>"


IDS = {
    "a fraction": ([1.9, 2.9], "got 1.9 \\(float\\)"),
    "a whole float": ([1.0], "got 1.0 \\(float\\)"),
    "a negative": ([1, -2], "got -2 \\(int\\)"),
    "beyond any vocabulary": ([2**40], "got 1099511627776"),
    "true": ([True, False], "got True \\(bool\\)"),
    "numpy's true": (np.array([True]), "got True \\(bool\\)"),
    "strings": (["1"], "got 1 \\(str\\)"),
    "nothing": ([None], "got None"),
    "nested": ([[1, 2]], "got \\[1, 2\\] \\(list\\)"),
    "a float tensor": (torch.tensor([1.5]), "got 1.5 \\(float\\)"),
    "a text": ("abc", "a list of token ids without a tokenizer, got str: give lists of ids"),
    "a number": (3, "a list of token ids without a tokenizer, got int"),
    "a scalar tensor": (torch.tensor(3), "a list of token ids without a tokenizer, got Tensor"),
    "no row": (None, "got NoneType"),
    "a row of text": (GOOD, "got dict: give the tokenizer of these rows"),
    "a row of ids": ({"input_ids": [1, 2]}, "got dict: give the column of ids, rows.'input_ids'."),
}


@pytest.mark.parametrize(("row", "message"), IDS.values(), ids=IDS)
def test_ids_are_whole_numbers(row, message):
    with pytest.raises(ValueError, match=f"^row 1: expected .*{message}") as error:
        fl.encode([[1, 2, 3], row], None)
    one_line(error)


def test_ids_of_numpy_and_torch_are_whole_numbers_too():
    wanted = [[3, 1, 4]] * 5
    given = [[3, 1, 4], (3, 1, 4), np.array([3, 1, 4], dtype=np.int32), torch.tensor([3, 1, 4]), list(np.array([3, 1, 4]))]
    encoded = fl.encode([*given, [torch.tensor(3), torch.tensor([1]), 4], []], None)
    assert [e.input_ids for e in encoded] == [*wanted, [3, 1, 4], []]
    assert {type(i) for e in encoded for i in e.input_ids} == {int}
    assert [e.input_ids for e in fl.encode(np.array([[1, 2], [3, 4]]), None)] == [[1, 2], [3, 4]]


# --- lines -----------------------------------------------------------------------------------------------------------


def extra(value):
    return '{"prompt": "p", "response": "r", "x": ' + value + "}"


LINES = {
    "deep lists": (extra("[" * 5000 + "]" * 5000), "line 2: expected JSON of at most 32 levels, got more"),
    "deep, unclosed": ('{"x": ' + "[" * 100_000, "line 2: expected JSON of at most 32 levels"),
    "deep objects": (extra('{"a":' * 40 + "1" + "}" * 40), "line 2: expected JSON of at most 32 levels"),
    "digits": (extra("9" * 5000), "line 2: expected numbers as JSON has them, got one of thousands of digits"),
    "NaN": (extra("NaN"), "line 2: expected numbers as JSON has them, got NaN: write null or a string"),
    "infinity": (extra("[-Infinity]"), "line 2: expected numbers as JSON has them, got -Infinity"),
    "half a character": (extra('{"y": "\\ud800"}'), "line 2: expected whole characters, .* in 'x.y': repair it"),
    "half in a name": (extra('{"\\ud800": 1}'), "line 2: expected whole characters"),
}


@pytest.mark.parametrize(("line", "message"), LINES.values(), ids=LINES)
def test_what_json_or_arrow_cannot_hold_has_a_line(tmp_path, line, message):
    with pytest.raises(ValueError, match=f"my.jsonl {message}") as error:
        fl.load_pool(write(tmp_path, GOOD, line, GOOD))
    one_line(error)


MIXTURES = {
    "numbers and strings": (["1", '"row-1"'], ["1", "row-1"]),
    "booleans and numbers": (["true", "1"], ["true", "1"]),
    "a list and none": (["[1]", "1"], ["[1]", "1"]),
    "within a list": (["[1]", '[2, "a"]'], ["[1]", '[2, "a"]']),
    "within objects": (['{"y": [{"z": 1}]}', '{"y": [{"z": {}}]}'], ['{"y": [{"z": 1}]}', '{"y": [{"z": {}}]}']),
    "53 bits": (["0.5", "1152921504606846976"], ["0.5", "1152921504606846976"]),
    "64 bits": (["1", "[1, 18446744073709551616]"], ["1", "[1, 18446744073709551616]"]),
    "63 bits": (["1", "9223372036854775808"], ["1", "9223372036854775808"]),
}


@pytest.mark.parametrize(("values", "texts"), MIXTURES.values(), ids=MIXTURES)
def test_a_column_of_several_types_becomes_text_and_its_lines_stay_as_they_were(tmp_path, values, texts):
    lines = [extra(values[0]), extra("null"), extra(values[1])]
    rows = fl.load_pool(write(tmp_path, *lines), test_fraction=0).train
    assert rows["x"][:] == [texts[0], None, texts[1]] and rows["prompt"][:] == ["p"] * 3
    fl.text.write_jsonl(rows, tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text().splitlines() == lines


def test_what_arrow_can_hold_is_no_mixture(tmp_path):
    values = [extra(v) for v in ("1", "1.5", "null", "2", "9007199254740992")]
    values += [extra("1").replace('"x"', '"y"'), extra(str(2**63 - 1)).replace('"x"', '"y"')]
    values += [extra(v).replace('"x"', '"z"') for v in ("{}", '{"a": 1}', '{"b": "c"}')]
    values += [extra('{"a":' * 31 + "1" + "}" * 31).replace('"x"', '"deep"')]
    assert len(fl.load_pool(write(tmp_path, *values), test_fraction=0).train) == len(values)


# --- files -----------------------------------------------------------------------------------------------------------


def test_capitals_in_a_suffix_do_not_matter(tmp_path):
    assert len(fl.load_pool(write(tmp_path, GOOD, name="X.JSONL"), test_fraction=0).train) == 1
    Dataset.from_list([GOOD]).to_parquet(str(tmp_path / "X.Parquet"))
    assert len(fl.load_pool(tmp_path / "X.Parquet", test_fraction=0).train) == 1


def test_parquet_text_that_is_not_utf8_is_refused(tmp_path):
    broken = pa.table({"text": ["a", "b"], "note": pa.array([b"a", b"a\xff"]).view(pa.string())})
    pq.write_table(broken, tmp_path / "my.parquet")
    with pytest.raises(ValueError, match="expected a parquet file, could not read .*my.parquet.*Column 1.*UTF8") as error:
        fl.load_pool(tmp_path / "my.parquet")
    one_line(error)


def test_other_kinds_of_files_are_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="got a JSON array: write each of its rows on its own line, or rename"):
        fl.load_pool(write(tmp_path, "[" * 5000))
    with pytest.raises(ValueError, match="no such file; check the path"):
        fl.load_pool(tmp_path / "absent.csv")
    (tmp_path / "notes").write_text("x")
    with pytest.raises(
        ValueError, match="expected a .jsonl, .json, .csv, .tsv or .parquet file .* got .*notes': convert it"
    ):
        fl.load_pool(tmp_path / "notes")


def test_a_folder_a_pipe_and_what_may_not_be_read(tmp_path, monkeypatch):
    (tmp_path / "folder.jsonl").mkdir()
    os.mkfifo(tmp_path / "pipe.jsonl")
    write(tmp_path, GOOD, name="below")
    for name, message in (
        ("folder.jsonl", "it is a folder; give a file in it"),
        ("pipe.jsonl", "it is a pipe or a device; write it to a file first"),
        ("below/my.jsonl", "no such file; check the path"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            fl.load_pool(tmp_path / name)
        one_line(error)

    def refused(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    path = write(tmp_path, GOOD)
    for method in ("read_bytes", "stat"):  # root, who may run this test, may read anything
        with monkeypatch.context() as patched:
            patched.setattr(Path, method, refused)
            with pytest.raises(
                ValueError, match="expected a file that can be read, got .*Permission denied.: check its perm"
            ):
                fl.load_pool(path)


def test_what_we_set_aside_is_said(tmp_path):
    path = write(tmp_path, *({"text": f"t{i}"} for i in range(3000)))
    assert repr(fl.load_pool(path)) == (
        f"Pool('{path}': 2,700 training and 300 test examples; 300 of 3,000 rows are set aside for the test: "
        "test_fraction=0 keeps all)"
    )
    assert repr(fl.load_pool(path, test_fraction=0)) == f"Pool('{path}': 3,000 training and 0 test examples)"
    rows = Dataset.from_list([{"text": f"t{i}"} for i in range(10)])
    assert "1 of 10 rows are set aside" in repr(fl.load_pool(rows)) and "aside" not in repr(fl.Pool("mine", rows, rows))


def test_the_plays_were_split_by_nobody_here(plays):
    assert repr(plays) == "Pool('shakespeare': 11,869 training and 918 test examples)"
