"""Files that other people's trainers read: TRL, LLaMA-Factory and axolotl. Nobody has to patch a trainer."""

import json
from collections.abc import Iterator
from pathlib import Path

from datasets import Dataset

from fisherlib._door import checked
from fisherlib._files import explained, replacing
from fisherlib.text.rows import TEXT, as_stored, columns_of, problem_of

TRAINERS = ("trl", "llama-factory", "axolotl")


@checked
def hand_over(rows: Dataset, folder: str | Path, trainer: str, *, name: str = "subset", chat: bool = True) -> list[Path]:
    """Write `rows` as the files that a trainer reads; returns their paths, the data first. Nothing of the trainer is needed.

    `trainer`: "trl" writes `{name}.trl.jsonl` with `prompt` and `completion` (conversations; or `text`), of which
    `trl.SFTTrainer` learns the completion. A conversation becomes one row for each assistant turn, with all that was said
    before as its prompt: so the tokens that are learned are those that `fl.encode` counts. "llama-factory" writes
    `{name}.llama-factory.jsonl` with `messages` (or `text`) and `dataset_info.json`, which names it; entries of other data
    that stand there already are kept. "axolotl" writes `{name}.axolotl.jsonl` and `{name}.axolotl.yaml`, the `datasets:`
    part of a configuration, which learns the assistant's turns alone. `chat=False`, for a tokenizer without a chat template:
    prompt and response as they stand, for "trl" and "llama-factory". Only what is trained on is written; `write_jsonl` keeps
    the whole lines.

    Raises `ValueError` for no rows, another trainer, rows that mix `text` and conversations, a conversation with
    `chat=False`, or rows that `load_pool` would refuse; `OSError` if a file cannot be written. Time O(characters).
    Source: extension; the formats as these projects document them.
    """
    if trainer not in TRAINERS:
        raise ValueError(f"expected one of {', '.join(TRAINERS)} as the trainer, got {trainer!r}")
    if trainer == "axolotl" and not chat:
        raise ValueError("expected chat=True for axolotl, which needs a chat template, got False: use trl or llama-factory")
    folder, said = Path(folder), list(_said(as_stored(rows), chat))
    if not said:
        raise ValueError("expected rows to hand over, got none: choose some first")
    kinds = {kind for kind, _ in said}
    if len(kinds) > 1:
        raise ValueError(
            f"expected rows of one kind, which is what a trainer reads, got {' and '.join(sorted(kinds))}: "
            "write each kind to a file of its own"
        )
    kind, contents = kinds.pop(), [content for _, content in said]
    data = folder / f"{name}.{trainer}.jsonl"
    if trainer == "trl":
        _write(data, _lines(line for content in contents for line in _for_trl(kind, content)))
        return [data]
    column = {"text": "text", "conversation": "messages"}.get(kind)
    _write(data, _lines({column: content} if column else content for content in contents))
    if trainer == "llama-factory":
        about = folder / "dataset_info.json"
        _write(about, json.dumps(_others(about) | {name: {"file_name": data.name, **_LLAMA_FACTORY[kind]}}, indent=2) + "\n")
    else:
        about = folder / f"{name}.axolotl.yaml"
        # A name in JSON's quotes is a name in YAML's.
        _write(about, f"datasets:\n  - path: {json.dumps(data.name)}\n    ds_type: json\n{_AXOLOTL[kind]}")
    return [data, about]


_LLAMA_FACTORY: dict[str, dict] = {
    "text": {"columns": {"prompt": "text"}},
    "pair": {"columns": {"prompt": "prompt", "response": "response"}},
    "conversation": {
        "formatting": "sharegpt",
        "columns": {"messages": "messages"},
        "tags": {
            "role_tag": "role",
            "content_tag": "content",
            "user_tag": "user",
            "assistant_tag": "assistant",
            "system_tag": "system",
        },
    },
}
_AXOLOTL = {
    "text": "    type: completion\n    field: text\n",
    "conversation": (
        "    type: chat_template\n    field_messages: messages\n"
        "    message_property_mappings:\n      role: role\n      content: content\n"
        '    roles_to_train: ["assistant"]\n    train_on_eos: turn\n'
    ),
}


def _said(rows: Dataset, chat: bool) -> Iterator[tuple[str, str | list | dict]]:
    """Of each row its kind and what is trained on: a text, a list of turns, or a prompt and a response."""
    for number, row in enumerate(columns_of(rows, TEXT)):
        if problem := problem_of(row):
            raise ValueError(f"row {number}: {problem}")
        if row.get("messages") is not None:
            if not chat:
                raise ValueError(f"row {number}: expected no conversation with chat=False, got one: it needs a template")
            yield "conversation", [{"role": turn["role"], "content": turn["content"]} for turn in row["messages"]]
        elif row.get("prompt") is not None and row.get("response") is not None:
            prompt, response = row["prompt"], row["response"]
            if not chat:
                yield "pair", {"prompt": prompt, "response": response}
                continue
            system = [{"role": "system", "content": row["system"]}] if row.get("system") else []
            asked = {"role": "user", "content": prompt}
            yield "conversation", [*system, asked, {"role": "assistant", "content": response}]
        else:
            yield "text", row["text"]


def _for_trl(kind: str, content) -> Iterator[dict]:
    if kind == "text":
        yield {"text": content}
    elif kind == "pair":
        yield {"prompt": content["prompt"], "completion": content["response"]}
    else:
        for k, turn in enumerate(content):
            if turn["role"] == "assistant":
                yield {"prompt": content[:k], "completion": [turn]}


def _others(about: Path) -> dict:
    """What an earlier `dataset_info.json` says of other data."""
    try:
        said = json.loads(about.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(f"expected JSON in {about}, got something else ({error}): move it away") from error
    if not isinstance(said, dict):
        raise ValueError(f"expected names with descriptions in {about}, got {type(said).__name__}: move it away")
    return said


def _lines(rows) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _write(path: Path, text: str) -> None:
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as scratch:
            scratch.write_text(text, encoding="utf-8")
