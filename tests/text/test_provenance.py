"""Are the lines of a file written again byte for byte? Are rows in another order, or edited ones, noticed?"""

import datetime
import decimal
import errno
import json
import os

import numpy as np
import pytest
from datasets import Dataset, concatenate_datasets

import fisherlib as fl
from fisherlib.text import SOURCE, check_same_rows, provenance, write_jsonl
from fisherlib.text.provenance import row_hash

pytestmark = pytest.mark.usefixtures("as_a_user")

# What Arrow, or a reader and writer of JSON, would alter on the way.
LINES = [
    b'{"messages": [{"role": "user", "content": "w?"}, {"role": "assistant", "content": "a", "tool_calls": '
    b'[{"name": "weather", "arguments": {"city": "v"}}]}]}',
    b'{"messages": [{"role": "user", "content": "z?"}, {"role": "assistant", "content": "b", "tool_calls": '
    b'[{"name": "zones", "arguments": {"zone": 1, "exact": 1.5}}]}], "weight": 1}',
    b'{"response":"keys in another order","prompt":"p"}',
    b'{"prompt": "a float", "response": "r", "weight": 1.0}',
    b'{"prompt": "an exponent", "response": "r", "weight": 1E2}',
    b'{"prompt": "h", "response": "r", "huge": 9223372036854775807}',
    '{"prompt": "caf\\u00e9, \\ud83d\\ude00", "response": "café 😀 שלום"}'.encode(),
    b'{"prompt": "carriage return", "response": "r"}\r',
    b'  {"prompt" :  "spaces", "response": "r"} \t ',
    b'{"prompt": "twice", "prompt": "again", "response": "r"}',
    '{"prompt": "a\u2028b", "response": "a separator of lines"}'.encode(),
]


def write(tmp_path, *lines, name="my.jsonl"):
    path = tmp_path / name
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines))
    return path


@pytest.mark.parametrize("k", range(len(LINES)))
def test_a_line_is_written_byte_for_byte(tmp_path, k):
    rows = fl.load_pool(write(tmp_path, *LINES), test_fraction=0).train
    write_jsonl(rows.select([k]), tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == LINES[k] + b"\n"


def test_lines_are_written_in_the_order_of_the_rows_and_can_be_read_again(tmp_path):
    rows = fl.load_pool(write(tmp_path, b"\xef\xbb\xbf" + LINES[0], b"", *LINES[1:], b""), test_fraction=0).train
    assert [row["line"] for row in rows[SOURCE]] == [1, *range(3, len(LINES) + 2)]  # the blank one is a line of the file
    assert {row["file"] for row in rows[SOURCE]} == {str(tmp_path / "my.jsonl")}
    order = list(range(len(LINES)))[::-1]
    write_jsonl(rows.select(order), tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == b"".join(LINES[k] + b"\n" for k in order)
    again = fl.load_pool(tmp_path / "out.jsonl", test_fraction=0).train
    assert provenance(again)["hash"][:] == provenance(rows.select(order))["hash"][:]


def test_the_other_columns_stay_as_they_were(tmp_path):
    given = [{"prompt": f"p{i}", "response": "r", "extra": {"n": i}} for i in range(5)]
    rows = fl.load_pool(write(tmp_path, *given), test_fraction=0).train
    assert rows.column_names == ["prompt", "response", "extra", SOURCE]
    assert rows.remove_columns(SOURCE).to_list() == given
    assert rows.remove_columns(SOURCE).features == Dataset.from_list(given).features


def test_rows_of_parquet_know_their_number_and_are_written_as_json(tmp_path):
    given = [{"text": f"é{i}", "score": float("nan") if i else 1.5} for i in range(3)]
    Dataset.from_list(given).to_parquet(str(tmp_path / "my.parquet"))
    rows = fl.load_pool(tmp_path / "my.parquet", test_fraction=0).train
    assert rows[SOURCE][:] == [{"file": str(tmp_path / "my.parquet"), "line": i, "text": None} for i in (1, 2, 3)]
    write_jsonl(rows, tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text("utf-8").splitlines() == [
        '{"text": "é0", "score": 1.5}',
        '{"text": "é1", "score": null}',  # what JSON has no word for
        '{"text": "é2", "score": null}',
    ]
    both = concatenate_datasets([rows, fl.load_pool(write(tmp_path, *({"text": t} for t in "ab")), test_fraction=0).train])
    assert provenance(both)["line"][:] == [1, 2, 3, 1, 2]


def test_datasets_get_no_such_column_and_their_rows_are_written_as_json(tmp_path):
    rows = fl.load_pool(Dataset.from_list([{"text": f"a\n{i}"} for i in range(3)]), test_fraction=0).train
    assert rows.column_names == ["text"]
    write_jsonl(rows, tmp_path / "new" / "out.jsonl")
    assert [json.loads(line) for line in (tmp_path / "new" / "out.jsonl").open()] == rows.to_list()


def test_a_column_of_this_name_that_is_not_ours_is_never_taken(tmp_path):
    theirs = [{"text": "a", SOURCE: "web"}, {"text": "b", SOURCE: "book"}]
    with pytest.raises(ValueError, match="my.jsonl line 1: expected no column '_source' of your own, got str: rename it"):
        fl.load_pool(write(tmp_path, *theirs))
    Dataset.from_list(theirs).to_parquet(str(tmp_path / "my.parquet"))
    with pytest.raises(ValueError, match="my.parquet: expected no column '_source' of your own"):
        fl.load_pool(tmp_path / "my.parquet")
    rows = fl.load_pool(Dataset.from_list(theirs), test_fraction=0).train  # a dataset keeps all that it has
    assert provenance(rows)["file"][:] == [None, None]
    write_jsonl(rows, tmp_path / "out.jsonl")
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").open()] == theirs


def test_rows_that_were_saved_with_their_source_get_the_new_one(tmp_path):
    rows = fl.load_pool(write(tmp_path, {"text": "a"}, {"text": "b"}), test_fraction=0).train
    rows.to_json(str(tmp_path / "saved.jsonl"))
    rows.to_parquet(str(tmp_path / "saved.parquet"))
    for name in ("saved.jsonl", "saved.parquet"):
        again = fl.load_pool(tmp_path / name, test_fraction=0).train
        assert [(row["file"], row["line"]) for row in again[SOURCE]] == [(str(tmp_path / name), n) for n in (1, 2)]
    pool = fl.load_pool(rows)  # and rows that were never saved keep theirs
    assert pool.train[0][SOURCE]["file"] == str(tmp_path / "my.jsonl")


def test_the_source_is_no_part_of_what_a_row_says(tmp_path):
    from transformers import AutoTokenizer

    rows = fl.load_pool(write(tmp_path, *({"text": f"t{i % 2}"} for i in range(8))))
    assert set(rows.train["text"]).isdisjoint(rows.test["text"])  # copies stay on one side, whatever their lines
    bare = rows.train.remove_columns(SOURCE)
    assert provenance(bare)["hash"][:] == provenance(rows.train)["hash"][:]
    tokenizer = AutoTokenizer.from_pretrained(fl.assets.fetch("smollm2-135m"))
    assert fl.encode(rows.train, tokenizer) == fl.encode(bare, tokenizer)


def test_edited_rows_are_not_written_as_the_lines_they_were(tmp_path):
    rows = fl.load_pool(write(tmp_path, *LINES), test_fraction=0).train
    write_jsonl(rows.add_column("score", [0.5] * len(rows)), tmp_path / "out.jsonl")  # a score does not alter the text
    edited = rows.map(lambda row: {"response": row["response"] and row["response"] + "!"})
    with pytest.raises(ValueError, match=r"row 2: expected the text of its line in the file, line 3 of .*remove_columns"):
        write_jsonl(edited, tmp_path / "out.jsonl")
    write_jsonl(edited.remove_columns(SOURCE), tmp_path / "out.jsonl")
    assert json.loads((tmp_path / "out.jsonl").read_text().splitlines()[2])["response"].endswith("!")


TWO_LINES = '{"prompt": "p1",\n"response": "r"}'
EDITS = [
    "",
    "no JSON",
    "null",
    "[1]",
    "5",
    '{"prompt": "p1"}',
    '{"messages": 5}',
    '{"messages": [{"role": "user"}]}',
    "[" * 5000,
]


@pytest.mark.parametrize("text", [*EDITS, '{"prompt": "p1", "response": "r", "n": ' + "9" * 5000 + "}", TWO_LINES])
def test_a_line_that_somebody_edited_is_not_written(tmp_path, text):
    rows = fl.load_pool(write(tmp_path, *({"prompt": f"p{i}", "response": "r"} for i in range(3))), test_fraction=0).train
    sources = [row if i != 1 else {**row, "text": text} for i, row in enumerate(rows[SOURCE])]
    edited = rows.remove_columns(SOURCE).add_column(SOURCE, sources)
    with pytest.raises(ValueError, match="row 1: expected the text of its line .*rows.remove_columns"):
        write_jsonl(edited, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_turns_that_were_edited_to_be_none_are_not_written(tmp_path):
    rows = fl.load_pool(write(tmp_path, *LINES), test_fraction=0).train
    with pytest.raises(ValueError, match="row 0: expected the text of its line"):
        write_jsonl(rows.map(lambda row: {"messages": [{"role": "user"}]}), tmp_path / "out.jsonl")


def test_rows_joined_with_those_of_a_file_are_written_without_their_empty_source(tmp_path):
    read = fl.load_pool(write(tmp_path, {"text": "a"}), test_fraction=0).train
    for both in ([read, Dataset.from_list([{"text": "b"}])], [Dataset.from_list([{"text": "b"}]), read]):
        write_jsonl(concatenate_datasets(both), tmp_path / "out.jsonl")
        assert sorted((tmp_path / "out.jsonl").read_text().splitlines()) == ['{"text": "a"}', '{"text": "b"}']


def test_whatever_is_written_is_json_that_loads_again(tmp_path):
    moment = datetime.datetime(2020, 1, 2, 3, 4, 5)
    given = {"text": "é 😀 \u2028 \0", "x": {"y": None, "z": [None, float("-inf"), 1.5]}, "n": np.arange(4).reshape(2, 2)}
    given |= {"f": np.float32(0.5), "at": moment, "day": moment.date(), "time": moment.time(), "for": moment - moment}
    rows = Dataset.from_list([given | {"цена": decimal.Decimal("1.50")}])
    write_jsonl(rows, tmp_path / "out.jsonl")
    said = json.loads((tmp_path / "out.jsonl").read_text("utf-8"), parse_constant=pytest.fail)
    assert said == {
        **{"text": given["text"], "x": {"y": None, "z": [None, None, 1.5]}, "n": [[0, 1], [2, 3]], "f": 0.5},
        **{"at": "2020-01-02 03:04:05", "day": "2020-01-02", "time": "03:04:05", "for": "0:00:00", "цена": "1.50"},
    }
    assert fl.load_pool(tmp_path / "out.jsonl", test_fraction=0).train.remove_columns(SOURCE).to_list() == [said]


def test_bytes_are_refused_with_their_row_and_column_and_files_that_are_no_lines_by_name(tmp_path):
    for bad in (b"\xff", {"a": [None, b"x"]}):
        rows = Dataset.from_list([{"text": "a", "raw": None}, {"text": "b", "raw": bad}])
        with pytest.raises(ValueError, match="row 1, 'raw': expected what JSON can hold, got bytes: write it as text, or"):
            write_jsonl(rows, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()
    for path in ("", ".", "/"):
        with pytest.raises(ValueError, match="expected a file to write to, got .*: name one in it"):
            write_jsonl(Dataset.from_list([{"text": "a"}]), path)
    for name in ("subset.parquet", "subset.jsonl.gz", "subset.CSV"):
        with pytest.raises(ValueError, match=f"expected a .jsonl file to write to, got .*{name}.*: rename it"):
            write_jsonl(Dataset.from_list([{"text": "a"}]), tmp_path / name)


def test_what_cannot_be_written_is_said_and_nothing_is_lost(tmp_path):
    path = write(tmp_path, *LINES)
    rows = fl.load_pool(path, test_fraction=0).train
    before = path.read_bytes()
    os.link(path, tmp_path / "also.jsonl")
    for same in (path, tmp_path / "also.jsonl"):
        with pytest.raises(ValueError, match="another file than the one the rows are from"):
            write_jsonl(rows.select([0]), same)
    (tmp_path / "folder").mkdir()
    for wrong in (tmp_path / "folder", path / "below.jsonl"):
        with pytest.raises(OSError, match="could not write .*: free some space or choose a file in a writable folder"):
            write_jsonl(rows, wrong)
    with pytest.raises(ValueError, match="expected rows, a datasets.Dataset, got a Pool: give pool.train"):
        write_jsonl(fl.load_pool(path), tmp_path / "out.jsonl")
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["also.jsonl", "folder", "my.jsonl"]


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "out.jsonl").write_text("old")
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="could not write .*out.jsonl .No space left on device.: free some space") as error:
        write_jsonl(Dataset.from_list([{"text": "new"}]), tmp_path / "out.jsonl")
    assert error.value.errno == errno.ENOSPC and (tmp_path / "out.jsonl").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out.jsonl"]


# --- which rows these are --------------------------------------------------------------------------------------------


def test_the_hash_is_of_the_text_whatever_arrow_fills_in():
    call = {"role": "assistant", "content": "c", "tool_calls": [{"arguments": {"n": 1}}]}
    other = {"role": "assistant", "content": "c", "tool_calls": [{"arguments": {"n": 1.5, "city": "v"}}]}
    first = {"messages": [{"role": "user", "content": "u"}, call]}
    rows = Dataset.from_list([first, {"messages": [{"role": "user", "content": "u"}, other]}])
    assert rows[0] != first  # the city is there, as null, and 1 is 1.0
    assert row_hash(rows[0]) == row_hash(first) != row_hash(rows[1])
    assert row_hash({"prompt": "a", "response": "bc"}) != row_hash({"prompt": "ab", "response": "c"})
    assert row_hash({"text": "a", "score": 1, "prompt": None}) == row_hash({"text": "a"})
    assert row_hash({"text": "é"}) != row_hash({"text": "e\u0301"})  # another text, though it looks the same


def test_another_order_another_number_and_another_text_are_noticed():
    rows = Dataset.from_list([{"prompt": None if i % 3 else "p", "response": f"r{i % 50}"} for i in range(200)])
    of = provenance(rows)
    check_same_rows(rows, of)
    check_same_rows(rows, None)
    check_same_rows(rows.add_column("score", [1.0] * 200).select_columns(["score", "response", "prompt"]), of)
    picks = [7, 3, 199]
    check_same_rows(rows, of.select(picks), picks)
    edited = rows.map(lambda row, i: {"response": row["response"] + "!" * (i == 150)}, with_indices=True)
    for wrong, indices, message in (
        (rows.shuffle(seed=3), None, "got the same rows in another order, first row"),
        (edited, None, "got another row 150"),
        (rows.select(range(199)), None, "expected the 200 rows .* got 199"),
        (concatenate_datasets([rows, rows]), None, "expected the 200 rows .* got 400"),
        (rows.remove_columns("response"), None, "another row 0"),
        (rows.rename_columns({"response": "x", "prompt": "y"}), None, "another row 0"),
        (rows, [7, 3, 198], "another row 198"),
        (rows, [3, 7, 199], "the same rows in another order, first row 3"),
        (rows.select(range(199)), picks, "got 199"),
    ):
        with pytest.raises(ValueError, match=message):
            check_same_rows(wrong, of if indices is None else of.select(picks), indices)
    # rows with equal text are the same example
    check_same_rows(rows.select([101, *range(1, 200)]), provenance(rows.select([1, *range(1, 200)])))


def test_a_format_of_the_dataset_alters_nothing():
    rows = Dataset.from_list([{"text": f"t{i}", "id": i} for i in range(5)])
    of = provenance(rows)
    check_same_rows(rows.with_format("torch"), of)
    for kind in ("pandas", "numpy", "arrow"):
        check_same_rows(rows, of.with_format(kind))
    assert provenance(rows.with_format("numpy")).to_list() == of.to_list() and of["id"][:] == ["0", "1", "2", "3", "4"]


def test_the_file_is_known_from_another_folder_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "my.jsonl").write_text('{"prompt": "a", "response": "b"}\n' * 3)
    rows = fl.load_pool("my.jsonl", test_fraction=0).train.select([0])
    monkeypatch.chdir(tmp_path / "sub")
    with pytest.raises(ValueError, match="expected another file than the one the rows are from"):
        write_jsonl(rows, "../my.jsonl")
    assert len((tmp_path / "my.jsonl").read_text().splitlines()) == 3
