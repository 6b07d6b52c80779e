"""The key of the quiz: where the answer of each question stands, and the words that it is made of."""

import re
from urllib.parse import unquote

import nbformat
import pytest

from fisherlib.course.notebook import NOTEBOOKS

QUIZ = (NOTEBOOKS / "QUIZ.md").read_text()
QUESTIONS = dict(re.findall(r"^\*\*(\d+)\.\*\* (.*?)(?=^\*\*\d+\.\*\*|\Z)", QUIZ, re.M | re.S))

# For each place that the hint of a question links to, in that order: words of the sentences that answer it.
KEY = {
    1: [("The state at position $t$ predicts token $t+1$", "the state *before* it")],
    2: [(r"$Ld \times Ld$ numbers, far too many",)],
    3: [("Add the same number to all scores", "These are the only flat ones")],
    4: [("Between which two expressions", "All of them are equal", "only there")],
    5: [("the probability of the rarest token", "says nothing")],
    6: [("**trace weights**", "of which the model is already sure")],
    7: [(r"\det(I+PQ)=\det(I+QP)", "**determinant lemma**")],
    8: [("Why can a gain never grow", "What is known cannot be learned again", "Inversion turns this round")],
    9: [("*upper bound* on today's", "what is skipped could not have won")],
    10: [
        ("How much could the best", "its tangent at $S$ lies above it", r"$n$ largest leverages"),
        ("taken *in part*", "it stays an upper bound"),
    ],
    11: [("a gain nearly counts tokens", "Three remedies", "**Use gain per token.**")],
    12: [("Gain per token alone guarantees nothing", r"\ge\tfrac12(1-\tfrac1e)")],
    13: [(r"a second copy gains at most $\log 2$ a token",)],
    14: [("without one wrong pick", "four standard errors", "is ruled out", "float64 decides among the few that are left")],
    15: [("Left of the corner", "*memory-bound*", "*compute-bound*", "Batching moves a step to the right")],
    16: [("`fl.compress`", "Only the first keeps the picks")],
    17: [("wins where some directions are rare",), ("few labels are left for the common",)],
    18: [("Noise averages out like one over the root",), ("the rate is not *confirmed* at these sizes",)],
    19: [("makes $V_S$ invertible", "Gains stop shrinking"), ("matters where it is not small",)],
    20: [("the bars show only the luck of the *test examples*", "A bar that holds zero is a tie", "believe the study")],
}


def sections(path):
    """The text of a notebook by heading, as Jupyter names it; a section ends at the next heading of any level."""
    found, head = {}, ""
    for cell in nbformat.read(path, as_version=4).cells:
        for line in cell.source.splitlines() if cell.cell_type == "markdown" else ():
            if match := re.match(r"#{1,6} +(.+?) *$", line):
                head = match[1].replace(" ", "-")
            found[head] = found.get(head, "") + line + "\n"
    return found


def test_there_are_twenty_questions_each_with_a_folded_hint():
    assert list(map(int, QUESTIONS)) == list(KEY) == list(range(1, 21))
    for text in QUESTIONS.values():
        question, hint = re.fullmatch(
            r"(.+?)\n\n<details><summary>Hint</summary>\n\n(.+?)\n\n</details>\s*", text, re.S
        ).groups()
        assert question.rstrip().endswith("?") and "](" not in question and "](" in hint


@pytest.mark.parametrize("number", KEY)
def test_the_answer_stands_where_the_hint_says(number):
    places = re.findall(r"\]\((\w+\.ipynb)#([^)]+)\)", QUESTIONS[str(number)])
    assert len(places) == len(KEY[number])
    for (file, anchor), words in zip(places, KEY[number], strict=True):
        there = sections(NOTEBOOKS / file)
        assert unquote(anchor) in there, f"{file} has no heading {unquote(anchor)}"
        for part in words:
            assert part.lower() in there[unquote(anchor)].lower(), f"{part!r} is not in {file}, {unquote(anchor)}"
