"""Rows, a template and calls that the tests of the command share."""

import json
from pathlib import Path

TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def rows(n=40):
    words = ["the", "king", "shall", "die", "to", "night", "my", "lord", "and", "all", "his", "men", "for", "a", "crown"]
    said = [" ".join(words[(i * k) % len(words)] for k in range(1, 4 + i % 6)) for i in range(n)]
    return [{"id": f"r{i}", "prompt": f"speak {i}", "response": said[i], "kind": "ab"[i % 4 == 0]} for i in range(n)]


def write(path, *given):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in given), encoding="utf-8")
    return path


SELECT = "select my.jsonl -m my-model -t 200 -o subset.jsonl"


def record(path="subset.run.json"):
    return json.loads(Path(path).read_text())
