"""Rows as others write them: the shapes that are known by name, and what each says in the columns that we train on.

A row of another shape gets the columns `messages`, or `prompt` and `response` (and `system`), that `fisherlib.text.rows`
asks for. Nothing is guessed: a row that has two shapes, or parts that are no text, is refused with its reason.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fisherlib.text.rows import SOURCE, problem_of

OWN = ("messages", "prompt/response", "text")  # trained on as they are
OTHERS = {  # the columns that a row must have, the most telling first
    "preference": ("chosen", "rejected"),
    "sharegpt": ("conversations",),
    "alpaca": ("instruction", "output"),
    "prompt/completion": ("prompt", "completion"),
    "question/answer": ("question", "answer"),
}
SHAPE_NAMES = (*OWN, *OTHERS)
CANONICAL = ("messages", "system", "prompt", "response", "text")
# What of these each shape leaves where it is.
_KEPT = {"messages": ("messages",), "prompt/response": ("prompt", "response"), "prompt/completion": ("prompt",)}
_ROLES = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "assistant", "model", "bot", "ai"), "assistant"),
    **dict.fromkeys(("tool", "observation", "function_response"), "tool"),
    "system": "system",
}


def shape_of(row: Mapping) -> str | None:
    """The name of a row's shape; None if it has none that is known. Raises `ValueError` if it has two."""
    there = {name for name, value in row.items() if value is not None}
    if "messages" in there:
        return "messages"
    if {"prompt", "response"} <= there:
        return "prompt/response"
    found = [name for name, columns in OTHERS.items() if set(columns) <= there]
    if found and "preference" in found:  # its conversation may stand in `conversations`
        found = ["preference"]
    if "text" in there:
        found.append("text")
    if len(found) > 1:
        raise ValueError(f"expected one shape, got the columns of {' and of '.join(found)}: say which with shape=")
    return found[0] if found else None


def reshaped(row: Mapping, shape: str | Mapping[str, str] | None = None) -> tuple[str, dict, list[str]]:
    """The name of the shape, the columns that are trained on, where they differ from the row's own, and those used up.

    `shape`: a name of `SHAPE_NAMES`, or our columns with the row's name for each ({"prompt": "question", ...}); by default
    what the row looks like. Raises `ValueError` for a row without a shape, or with parts that no text says.
    """
    name, said, used = _reshaped(row, shape)
    if shape is not None:  # what else could be trained on is not meant
        meant = {*said, *_KEPT.get(name, ())}
        said |= {column: None for column in ("messages", "prompt", "response") if column not in meant and row.get(column)}
    return name, said, used


def _reshaped(row: Mapping, shape: str | Mapping[str, str] | None) -> tuple[str, dict, list[str]]:
    if isinstance(shape, Mapping):
        if absent := [name for name in shape.values() if row.get(name) is None]:
            raise ValueError(f"expected the column {absent[0]!r} of columns=, got {_names(row)}: name another")
        said = {ours: row[name] for ours, name in shape.items()}
        if "messages" in said:
            said["messages"] = _turns(said["messages"], "messages")
        return "columns", said, [name for name in shape.values() if name not in CANONICAL]
    name = shape or shape_of(row)
    if name is None:
        return "", {}, []
    if absent := [column for column in OTHERS.get(name, ()) if row.get(column) is None]:
        raise ValueError(f"expected the column {absent[0]!r} of {name}, got {_names(row)}: name another shape")
    if name in OWN:
        parts = any(isinstance(turn, Mapping) and isinstance(turn.get("content"), list) for turn in _list(row, "messages"))
        return name, {"messages": _turns(row["messages"], "messages")} if parts and name == "messages" else {}, []
    said = _SAID[name](row)
    return name, said, [column for column in (*OTHERS[name], "input") if column not in ("rejected", *CANONICAL)]


def _names(row: Mapping) -> list[str]:
    return sorted(str(name) for name in row if name != SOURCE)


def _list(row: Mapping, name: str) -> Sequence:
    value = row.get(name)
    return value if isinstance(value, list) else []


def _preference(row: Mapping) -> dict:
    chosen, prompt = row["chosen"], row.get("prompt")
    if isinstance(chosen, Mapping):
        chosen = [chosen]
    if isinstance(chosen, str):
        if row.get("conversations") is not None:
            return {"messages": [*_opening(row), {"role": "assistant", "content": chosen}]}
        if prompt is None:
            raise ValueError("expected a 'prompt' beside a 'chosen' that is one string, got none: write the two apart")
        if isinstance(prompt, list):
            return {"messages": [*_turns(prompt, "prompt"), {"role": "assistant", "content": chosen}]}
        return {"prompt": prompt, "response": chosen}
    turns = _turns(chosen, "chosen")
    if turns and turns[0]["role"] == "assistant":  # the answer alone
        before = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else _turns(prompt or [], "prompt")
        turns = [*_opening(row), *before, *turns]
    return {"messages": turns, "prompt": None}


def _opening(row: Mapping) -> list[dict]:
    system = [{"role": "system", "content": row["system"]}] if row.get("system") else []
    return [*system, *_turns(row.get("conversations") or [], "conversations")]


def _alpaca(row: Mapping) -> dict:
    for name in ("instruction", "input", "output"):
        if not isinstance(row.get(name) or "", str):
            raise ValueError(f"expected a string in {name!r}, got {type(row[name]).__name__}: write it as text")
    prompt = "\n".join(filter(None, (row["instruction"], row.get("input"))))
    if not row.get("history"):
        return {"prompt": prompt, "response": row["output"]}
    turns = [{"role": "system", "content": row["system"]}] if row.get("system") else []
    for pair in row["history"]:
        if not (isinstance(pair, list) and len(pair) == 2):
            raise ValueError("expected pairs of a question and an answer in 'history', got others: repair the row")
        turns += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    return {"messages": [*turns, {"role": "user", "content": prompt}, {"role": "assistant", "content": row["output"]}]}


def _completion(row: Mapping) -> dict:
    prompt, completion = row["prompt"], row["completion"]
    if isinstance(prompt, list) and isinstance(completion, list):
        return {"messages": [*_turns(prompt, "prompt"), *_turns(completion, "completion")], "prompt": None}
    return {"response": completion}


_SAID = {
    "preference": _preference,
    "sharegpt": lambda row: {"messages": _opening(row)},
    "alpaca": _alpaca,
    "prompt/completion": _completion,
    "question/answer": lambda row: {"prompt": row["question"], "response": row["answer"]},
}


def _turns(turns: object, column: str) -> list[dict]:
    """Turns as {"role", "content"}: sharegpt's "from" and "value" by our names, and a list of texts as one text."""
    if not isinstance(turns, list) or not all(isinstance(turn, Mapping) for turn in turns):
        raise ValueError(f"expected a list of turns in {column!r}, got another value: repair the row")
    return [_turn(turn, number, column) for number, turn in enumerate(turns)]


def _turn(turn: Mapping, number: int, column: str) -> dict:
    made = dict(turn)
    if made.get("role") is None and isinstance(made.get("from"), str):
        speaker = made.pop("from")
        if speaker.strip().lower() not in _ROLES:
            known = "human, gpt, system or tool"
            raise ValueError(f"expected turns from {known} in {column!r}, got {speaker!r} in turn {number}: rename it")
        made |= {"role": _ROLES[speaker.strip().lower()], "content": made.pop("value", None)}
    if isinstance(made.get("content"), list):
        made["content"] = "".join(_part(part, number, column) for part in made["content"])
    return made


def _part(part: object, number: int, column: str) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type", "text") if isinstance(part, Mapping) else type(part).__name__
    if isinstance(part, Mapping) and kind in ("text", None) and isinstance(part.get("text"), str):
        return part["text"]
    raise ValueError(f"expected parts of text in {column!r}, got one of {kind!r} in turn {number}: drop the row")


# --- what a chat template gets -------------------------------------------------------------------------------------------


def conversation(row: Mapping) -> tuple[list[dict], list | None]:
    """The turns of a row, and its tools, for a chat template: as in the line that the row was, and without nulls.

    Arrow makes one type of all objects in a column: {"city": "v"} becomes {"city": "v", "zone": null}. So calls of tools
    come from the line, where the row has one that says the same. Their arguments are objects, as templates want them; an
    argument list that is written as a string, as OpenAI has it, is read.
    """
    said: Mapping = row
    if row.get("messages") is None:
        system = [{"role": "system", "content": row["system"]}] if row.get("system") else []
        return [*system, {"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["response"]}], None
    source = row.get(SOURCE)
    calls = any(turn.get("tool_calls") for turn in row["messages"]) or row.get("tools")
    if calls and isinstance(source, Mapping) and source.get("text"):
        line = read_again(source)
        if line is not None and _spoken(line) == _spoken(row):
            said = line
    turns = [_without_nulls(turn) | {"content": turn.get("content") or ""} for turn in said["messages"]]
    for turn in turns:
        if isinstance(turn.get("tool_calls"), str):
            turn["tool_calls"] = json.loads(turn["tool_calls"])
        for call in turn.get("tool_calls") or []:
            function = call.get("function", call) if isinstance(call, dict) else {}
            if isinstance(function.get("arguments"), str):
                function["arguments"] = _read(function["arguments"])
    tools = said.get("tools")
    tools = _read(tools) if isinstance(tools, str) else tools
    return turns, _without_nulls(tools) if isinstance(tools, list) and tools else None


def read_again(source: Mapping) -> dict | None:
    """The row that its line says, in our columns; None for a line that says none."""
    try:
        row = json.loads(source["text"])
        _, said, _ = reshaped(row, shape_in(source.get("shape")))
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return None
    made = {**row, **said}
    return made if problem_of(made) is None else None


def shape_in(noted: str | None) -> str | dict | None:
    """The shape as `SOURCE` notes it: a name, or columns as JSON."""
    return json.loads(noted) if noted and noted.startswith("{") else noted or None


def _spoken(row: Mapping) -> list:
    return [(turn["role"], turn.get("content") or "") for turn in row.get("messages") or []]


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_nulls(v) for name, v in value.items() if v is not None}
    return [_without_nulls(v) for v in value] if isinstance(value, list) else value


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
