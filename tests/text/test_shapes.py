"""Is a file read as it comes, in any usual shape and packing, and are its lines written again as they were?"""

import copy
import csv
import gzip
import json

import pytest
from datasets import Dataset

import fisherlib as fl
from fisherlib.text import SOURCE, audit_rows, write_jsonl

pytestmark = pytest.mark.usefixtures("as_a_user")

PAIR = {"prompt": "Who?\nYou", "response": "Nobody"}
TURNS = [
    {"role": "system", "content": "s"},
    {"role": "user", "content": "Who?"},
    {"role": "assistant", "content": "Nobody"},
]
SHAREGPT = [{"from": "system", "value": "s"}, {"from": "human", "value": "Who?"}, {"from": "gpt", "value": "Nobody"}]
SHAPES = {  # a row as it comes, and what is trained on
    "alpaca": ({"instruction": "Who?", "input": "You", "output": "Nobody", "id": 7}, PAIR),
    "alpaca without input": ({"instruction": "Who?", "input": "", "output": "Nobody"}, PAIR | {"prompt": "Who?"}),
    "alpaca with history": (
        {"instruction": "Who?", "output": "Nobody", "history": [["a", "b"]], "system": "s"},
        {"messages": [TURNS[0], {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, *TURNS[1:]]},
    ),
    "sharegpt": ({"conversations": SHAREGPT, "id": "x"}, {"messages": TURNS}),
    "sharegpt with a system": ({"conversations": SHAREGPT[1:], "system": "s"}, {"messages": TURNS}),
    "sharegpt in our names": ({"conversations": TURNS}, {"messages": TURNS}),
    "question/answer": ({"question": "Who?\nYou", "answer": "Nobody"}, PAIR),
    "prompt/completion": ({"prompt": "Who?\nYou", "completion": "Nobody"}, PAIR),
    "prompt/completion of turns": ({"prompt": TURNS[:2], "completion": TURNS[2:]}, {"messages": TURNS}),
    "preference": ({"prompt": "Who?\nYou", "chosen": "Nobody", "rejected": "No"}, PAIR),
    "preference of turns": ({"chosen": TURNS, "rejected": TURNS[:2]}, {"messages": TURNS}),
    "preference of answers": (
        {"prompt": "Who?", "chosen": TURNS[2:], "rejected": TURNS[2:], "system": "s"},
        {"messages": TURNS},
    ),
    "preference of sharegpt": (
        {"conversations": SHAREGPT[:2], "chosen": SHAREGPT[2], "rejected": SHAREGPT[2]},
        {"messages": TURNS},
    ),
    "parts of text": (
        {"messages": [{**turn, "content": [{"type": "text", "text": text} for text in turn["content"]]} for turn in TURNS]},
        {"messages": TURNS},
    ),
}


def said(row):
    columns = ("messages", "system", "prompt", "response", "text")
    found = {name: row[name] for name in columns if row.get(name) is not None}
    if "messages" in found:
        found = {"messages": [{"role": turn["role"], "content": turn["content"]} for turn in found["messages"]]}
    return found


def write(tmp_path, *rows, name="my.jsonl"):
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(("row", "meant"), SHAPES.values(), ids=SHAPES)
def test_a_shape_says_the_same_in_a_file_and_in_a_dataset_and_its_line_stays(tmp_path, row, meant):
    other = {"messages": TURNS, "note": 1}
    rows = fl.load_pool(write(tmp_path, row, other), test_fraction=0).train
    assert said(rows[0]) == meant and said(rows[1]) == {"messages": TURNS}
    write_jsonl(rows, tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "my.jsonl").read_bytes()
    assert said(fl.load_pool(Dataset.from_list([row]), test_fraction=0).train[0]) == meant
    Dataset.from_list([row]).to_parquet(str(tmp_path / "my.parquet"))
    (again,) = fl.load_pool(tmp_path / "my.parquet", test_fraction=0).train
    assert said(again) == meant
    if again[SOURCE]["text"] is not None:
        assert set(json.loads(again[SOURCE]["text"])) == set(row)  # what is written is what came


def test_an_edited_row_of_another_shape_is_noticed(tmp_path):
    rows = fl.load_pool(write(tmp_path, SHAPES["alpaca"][0]), test_fraction=0).train
    assert rows[0]["id"] == 7 and rows[0][SOURCE]["shape"] == "alpaca"
    with pytest.raises(ValueError, match="expected the text of its line"):
        write_jsonl(rows.map(lambda row: {"response": "another"}), tmp_path / "out.jsonl")


def test_columns_and_shapes_by_name(tmp_path):
    path = write(tmp_path, {"q": "Who?", "a": "Nobody", "text": "of another kind", "who": "s"})
    columns = {"prompt": "q", "response": "a", "system": "who"}
    pool = fl.load_pool(path, test_fraction=0, columns=columns)
    assert said(pool.train[0]) == {"prompt": "Who?", "response": "Nobody", "system": "s", "text": "of another kind"}
    write_jsonl(pool.train, tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == path.read_bytes()
    both = write(tmp_path, {"instruction": "Who?", "output": "Nobody", "text": "t"})
    with pytest.raises(ValueError, match="line 1: expected one shape, got the columns of alpaca and of text: say which"):
        fl.load_pool(both)
    assert said(fl.load_pool(both, test_fraction=0, shape="alpaca").train[0])["response"] == "Nobody"
    for options, message in (
        ({"shape": "alpaca", "columns": columns}, "expected one of shape= and columns=, got both"),
        ({"shape": "llama"}, "expected a shape of .* got 'llama'"),
        ({"columns": {"question": "q"}}, "expected columns= to say some of"),
        ({"columns": {"prompt": "x", "response": "a"}}, "line 1: expected the column 'x' of columns="),
        ({"bad_rows": "maybe"}, "expected bad_rows 'error' or 'skip'"),
    ):
        with pytest.raises(ValueError, match=message):
            fl.load_pool(path, **options)


REFUSED = {
    "a picture": (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
        "one of 'image_url'",
    ),
    "a speaker": ({"conversations": [{"from": "oracle", "value": "x"}]}, "got 'oracle' in turn 0"),
    "chosen alone": ({"chosen": "a", "rejected": "b"}, "expected a 'prompt' beside a 'chosen'"),
    "no turns": ({"conversations": "x"}, "expected a list of turns in 'conversations'"),
    "a number": ({"question": "x", "answer": 5}, "expected strings in 'prompt' and 'response'"),
    "an empty answer": ({"instruction": "x", "output": " "}, "expected a non-empty 'response'"),
}


@pytest.mark.parametrize(("row", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_text_is_refused_by_line_or_skipped_with_its_reason(tmp_path, row, message):
    path = write(tmp_path, PAIR, row | {"id": "r"}, PAIR)
    with pytest.raises(ValueError, match=f"my.jsonl line 2: .*{message}"):
        fl.load_pool(path)
    pool = fl.load_pool(path, test_fraction=0, bad_rows="skip")
    assert len(pool.train) == 2 and repr(pool).endswith("; 1 skipped)")
    (skipped,) = pool.skipped
    assert (skipped["file"], skipped["line"], skipped["id"]) == (str(path), 2, "r") and skipped["reason"]
    pool = fl.load_pool(Dataset.from_list([PAIR, {**PAIR, "response": ""}]), test_fraction=0, bad_rows="skip")
    assert [one["line"] for one in pool.skipped] == [1] and len(pool.train) == 1
    with pytest.raises(ValueError, match="expected a row that can be used, got none: "):
        fl.load_pool(write(tmp_path, row), bad_rows="skip")


def test_packings_tables_arrays_and_folders_give_the_same_rows(tmp_path):
    rows = [{"prompt": f'a, "b" é{i}\nc', "response": str(i), "id": f"x{i}"} for i in range(3)]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jsonl").write_bytes(b"\xef\xbb\xbf" + lines.replace("\n", "\r\n").encode())
    (tmp_path / "a" / "2.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "a" / "3.json").write_text(json.dumps(rows, indent=1))
    for name, comma in (("4.csv", ","), ("5.tsv", "\t"), ("6.csv", ";")):
        with (tmp_path / "a" / name).open("w", newline="", encoding="utf-8-sig") as file:
            table = csv.DictWriter(file, list(rows[0]), delimiter=comma)
            table.writeheader()
            table.writerows(rows)
    Dataset.from_list(rows).to_parquet(str(tmp_path / "a" / "7.parquet"))
    (tmp_path / "a" / "notes.md").write_text("not read")
    names = sorted(str(path) for path in (tmp_path / "a").glob("[1-7]*"))
    for source in (str(tmp_path / "a"), tmp_path / "a", names):
        pool = fl.load_pool(source, test_fraction=0)
        assert pool.train.remove_columns(SOURCE).to_list() == rows * 7
        assert [row["file"] for row in pool.train[SOURCE]] == [name for name in names for _ in rows]
    write_jsonl(pool.train.select(range(3, 21)), tmp_path / "out.jsonl")
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").open()] == rows * 6
    assert pool.train[SOURCE][3]["line"] == 1 and pool.train[SOURCE][9]["line"] == 3  # of a table, where its row ends
    assert fl.load_pool(names[0], test_fraction=0).train[0][SOURCE]["text"].endswith("\r")


BROKEN = {
    "cut.jsonl.gz": (gzip.compress(b'{"text": "a"}\n' * 99)[:-9], "expected a whole .gz file"),
    "a.csv": (b"prompt,response\na\n", "line 2: expected 2 values, as the first line has, got 1"),
    "b.csv": (b'prompt,response\n"a,b\n', "expected a table"),
    "c.csv": (b"prompt,prompt\na,b\n", "expected columns of different names"),
    "d.csv": ("prompt,response\né,b\n".encode("latin-1"), "expected UTF-8 text"),
    "e.csv": (b"prompt,response\n", "got an empty file"),
    "a.json": (b"[1]", "row 1: expected a JSON object, got int"),
    "b.json": (b'[{"text": "a"}', "expected a JSON array"),
    "c.json": (b"[" * 5000, "expected an(?: array of objects as JSON has them| JSON array)"),
    "d.json": (b'[{"text": NaN}]', "got NaN"),
    "e.json": (b"[\xff]", "expected UTF-8 text"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_of_any_kind_says_so_in_one_line(tmp_path, name):
    content, message = BROKEN[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}.*{message}|{message}.*{name}") as error:
        fl.load_pool(tmp_path / name)
    assert "\n" not in str(error.value)


# --- what a chat template does ---------------------------------------------------------------------------------------

CALLING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<call>{{ c.function.arguments | tojson }}</call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
THINKING = (  # as Qwen 3's: the last answer gets an empty thought, earlier ones do not
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ENDING = (  # as Phi 3's: an end of text, unless an answer is asked for
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% else %}<|endoftext|>{% endif %}"
)
TWO = [("user", "Who?"), ("assistant", "Nobody"), ("user", "No?"), ("assistant", "Yes")]
TWO = {"messages": [{"role": role, "content": content} for role, content in TWO]}


@pytest.fixture(scope="module")
def with_template(real):
    tokenizer = copy.deepcopy(real[1])

    def make(template):
        tokenizer.chat_template = template
        return tokenizer

    return make


def counted(row, tokenizer, **options):
    (example,) = fl.encode([row], tokenizer, **options)
    return tokenizer.decode([i for i, counts in zip(example.input_ids, example.is_response, strict=True) if counts])


def test_a_template_that_rewrites_the_last_answer_is_repaired_and_no_header_counts(with_template):
    assert counted(TWO, with_template(THINKING)) == "Nobody<|im_end|><think>\n\n</think>\n\nYes<|im_end|>"
    assert counted(TWO, with_template(ENDING)) == "Nobody<|im_end|>Yes<|im_end|>\n<|endoftext|>"
    stripping = THINKING.replace("{{ m.content }}", "{{ m.content if loop.last else m.content | upper }}")
    with pytest.raises(ValueError, match="rewrites what it wrote before turn 1"):
        counted(TWO, with_template(stripping))


def test_the_last_turn_only_and_turns_of_no_weight(with_template, real):
    tokenizer = real[1]
    assert counted(TWO, tokenizer, turns="last") == "Yes<|im_end|>"
    weighted = copy.deepcopy(TWO)
    weighted["messages"][3]["weight"] = 0
    assert counted(weighted, tokenizer) == "Nobody<|im_end|>"
    with pytest.raises(ValueError, match="expected turns 'all' or 'last', got 'first'"):
        counted(TWO, tokenizer, turns="first")


def test_calls_of_tools_are_rendered_from_the_line_or_refused(tmp_path, with_template, real):
    def calling(arguments):
        call = {"type": "function", "function": {"name": "f", "arguments": arguments}}
        turns = [{"role": "user", "content": "u"}, {"role": "assistant", "content": None, "tool_calls": [call]}]
        return {"messages": turns}

    written = [calling({"city": "v"}), calling({"zone": 1}), calling('{"zone": "x"}'), TWO]
    rows = fl.load_pool(write(tmp_path, *written), test_fraction=0).train
    tokenizer = with_template(CALLING)
    assert [counted(row, tokenizer) for row in rows][:3] == [
        '<call>{"city": "v"}</call><|im_end|>',  # Arrow holds a "zone" of null here
        '<call>{"zone": 1}</call><|im_end|>',
        '<call>{"zone": "x"}</call><|im_end|>',
    ]
    write_jsonl(rows, tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "my.jsonl").read_bytes()
    audit = audit_rows(rows, real[1])  # its template knows no tools
    assert audit.usable == [3] and audit.counts == {"chat template": 3}
    assert "leaves out those of turn 1" in audit.reasons[0]["reason"] and audit.reasons[1]["line"] == 2


# --- too long, and all rows at once ----------------------------------------------------------------------------------


def test_what_becomes_of_a_row_that_is_too_long(real):
    tokenizer = real[1]
    rows = [PAIR, {"prompt": "p", "response": "word " * 60}, PAIR, {"prompt": "word " * 60, "response": "r"}]
    whole = fl.encode(rows, tokenizer)
    for rule, left in (("drop", 0), ("truncate", 50)):
        found = fl.encode(rows, tokenizer, max_tokens=50, too_long=rule)
        assert found[0] == whole[0] and len(found[1].input_ids) == left == len(found[3].input_ids)
        assert [example.cut_from for example in found] == [0, len(whole[1].input_ids), 0, len(whole[3].input_ids)]
    with pytest.raises(ValueError, match="row 1: expected at most 50 tokens .*too_long='drop' or 'truncate'"):
        fl.encode(rows, tokenizer, max_tokens=50)
    with pytest.raises(ValueError, match="expected too_long 'error', 'drop' or 'truncate', got 'cut'"):
        fl.encode(rows, tokenizer, too_long="cut")
    rows = Dataset.from_list([row | {"id": i} for i, row in enumerate(rows)])
    assert audit_rows(rows, tokenizer, max_tokens=50).counts == {"too long": 2}
    audit = audit_rows(rows, tokenizer, max_tokens=50, too_long="truncate")
    assert audit.counts == {"truncated": 1, "no response tokens": 1} and audit.usable == [0, 1, 2]
    assert [reason["id"] for reason in audit.reasons] == ["1", "3"]
    assert audit.lengths == [len(whole[0].input_ids), 50, len(whole[0].input_ids), 50]
    assert audit.responses[3] == 0 < audit.responses[1] < sum(whole[1].is_response)


def test_features_note_the_rows_that_were_cut(tiny):
    rows = [[1, 2, 3], list(range(1, 90)), [4, 5]]
    features = fl.extract_features(tiny, None, rows, too_long="drop")
    assert features.lengths.tolist() == [2, 0, 1] and features.info["cut"] == {"rule": "drop", "rows": [[1, 89]]}
    features = fl.extract_features(tiny, None, rows, too_long="truncate")
    assert features.lengths.tolist() == [2, 63, 1] and features.info["cut"]["rule"] == "truncate"
    assert "cut" not in fl.extract_features(tiny, None, rows[:1]).info
