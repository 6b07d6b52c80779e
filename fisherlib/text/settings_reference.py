"""A reference work as chunks, and questions about it whose answers are known: the settings of Django and their defaults.

The text is Django's own documentation (BSD-3-Clause). The questions are ours: the paper's are about telecommunication
standards and were not available to us.
"""

import re
import textwrap
from dataclasses import dataclass

import numpy as np

from fisherlib import assets

LETTERS = "ABCD"
_SHORT = 60  # characters of the longest default that is asked for


@dataclass(frozen=True)
class Chunk:
    """A piece of the reference: the setting that its section is about, and its text."""

    setting: str
    text: str


@dataclass(frozen=True)
class Question:
    """A setting, its default, and the number of the chunk that states it."""

    setting: str
    answer: str
    chunk: int

    @property
    def text(self) -> str:
        return f"What is the default of the setting {self.setting}?"


def settings_reference(*, longest: int = 160) -> tuple[list[Chunk], list[Question]]:
    """The reference cut into chunks, and one question for each setting with a short literal default.

    A section is the text about one setting and begins with its name. It is cut between words, into chunks of at most
    `longest` characters. The default stands in the first of them. Raises `AssetError` if the file cannot be fetched.
    """
    text = (assets.fetch("django-settings") / "settings.txt").read_text(encoding="utf-8")
    parts = re.split(r"^\.\. setting:: ([\w-]+)\n", text, flags=re.M)
    chunks: list[Chunk] = []
    questions: list[Question] = []
    for setting, section in zip(parts[1::2], parts[2::2], strict=True):
        name, first = setting.replace("-", "_"), len(chunks)
        section = re.sub(r"``'``:class:`~?([\w.]+)`\\ ``'``", r"``'\1'``", section)  # a text that is also a link
        default = re.search(r"^Default: ``([^`]+)``", section, re.M)
        chunks += [Chunk(name, piece) for piece in textwrap.wrap(f"{name} {_plain(section)}", longest)]
        if default and len(default[1]) <= _SHORT and default[1] in chunks[first].text:
            questions.append(Question(name, default[1], first))
    return chunks, questions


def options(question: Question, questions: list[Question], *, seed: int) -> list[str]:
    """The right default and three wrong ones in random order: each wrong one is the default of another setting.

    A default is drawn as a wrong one as often as it is somebody's right one. If all were drawn alike, a frequent one that is
    shown would mostly be right, and could be told without reading. `seed` and the setting decide; the order of `questions`
    does not. Raises `ValueError` if they have less than four different defaults.
    """
    rng = np.random.default_rng([seed, *question.setting.encode()])
    others = sorted((q.setting, q.answer) for q in questions)
    shown = {question.answer: None}
    for i in rng.permutation(len(others)):
        if len(shown) < len(LETTERS):
            shown.setdefault(others[i][1])
    if len(shown) < len(LETTERS):
        raise ValueError(f"expected questions with {len(LETTERS)} different defaults, got {len(shown)}: give all of them")
    return [list(shown)[i] for i in rng.permutation(len(LETTERS))]


def _plain(section: str) -> str:
    """The text of a section without its heading and without marks of reStructuredText."""
    section = re.sub(r"^``[\w\s]+``\n[-~^]+\n", "", section.lstrip(), count=1)
    section = re.sub(r"^\s*\.\. .*$", "", section, flags=re.M)
    section = re.sub(r":[\w:-]+:`~?([^`<]*?)(?:\s*<[^`]*>)?`", r"\1", section).replace("``", "")
    return " ".join(section.split())
