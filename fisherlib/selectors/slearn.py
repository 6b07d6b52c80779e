"""SLearnLLM: keep what the model gets wrong; what it knows already it need not be taught (Liu et al. 2025)."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset
from jaxtyping import Bool, Float

from fisherlib._door import checked
from fisherlib._types import Model, Tokenizer
from fisherlib.features import TokenFeatures
from fisherlib.model import answer_distribution, context_length, is_first_choice, per_token
from fisherlib.selectors._contract import Ranking, selector
from fisherlib.selectors._scored import mean, scores_for
from fisherlib.selectors._text import exchanges, rows_of
from fisherlib.text import encode

# Our own wording and scale: the paper's were not available to us.
GRADING = """Grade a student's answer by the reference answer.

Question:
{question}

Reference answer:
{reference}

Student's answer:
{answer}

First say in one sentence in what the student's answer differs from the reference. Then check yourself. \
The last line of your reply is the grade and nothing else, from 0 (all wrong) to 10 (all right), like this:
Grade: 5"""
GRADING_AT_ONCE = """Grade a student's answer by the reference answer, from 0 (all wrong) to 10 (all right).

Question:
{question}

Reference answer:
{reference}

Student's answer:
{answer}

Reply with the grade and nothing else."""
_GRADE = re.compile(r"(?:Grade:\s*)?(10|\d)(?:\s*/\s*10)?\.?")
_NAMED = re.compile(r"Grade:\s*(\d+)")


@selector("SLearnLLM")
def slearn(
    rows: Dataset | None,
    features: TokenFeatures,
    *,
    model: Model | None = None,
    tokenizer: Tokenizer | None = None,
    seed: int,
    scores: Float[np.ndarray, " N"] | None = None,
    threshold: float | None = None,
    **options,
) -> Ranking:
    """The examples with the lowest scores, lowest index on ties: those that the model knows least.

    `model` and `tokenizer` are needed unless `scores` [N] are given, of `slearn_scores` or `slearn_grades`; `options` are
    those of `slearn_scores`. With a `threshold` all that score below it are wrong alike, as in the paper, and come in
    random order (of `seed`, which is not used otherwise); the rest, which the paper drops, follows lowest first only where
    the budget is larger than what is wrong. An example without a score (NaN) was not graded: nothing says that it is wrong
    or right, so it comes last, and `settings["ungraded"]` counts these. Filling a budget, both orders and the place of the
    ungraded are our choice. Source: Liu et al., arXiv 2505.17470. Raises `ValueError` if no example has a score.
    """
    how = options.get("how", "token accuracy") if scores is None else "scores given"
    scores = scores_for(slearn_scores, rows, features, model, tokenizer, scores, options, gaps=True)
    if threshold is None:
        order = np.argsort(scores, kind="stable")  # NaN last
    else:
        wrong = slearn_kept(scores, threshold)
        dice = np.random.default_rng(seed).random(len(scores))
        order = np.lexsort((np.where(wrong, dice, scores), ~wrong))
    ungraded = int((np.isnan(scores) & (features.lengths.numpy() > 0)).sum())
    used = None if threshold is None else seed
    return Ranking(order, {"seed": used, "how": how, "threshold": threshold, "ungraded": ungraded})


@checked
def slearn_kept(scores: Float[np.ndarray, " N"], threshold: float = 1.0) -> Bool[np.ndarray, " N"]:
    """Which examples the paper keeps: those that score below `threshold`. The others are dropped, the ungraded too.

    Scores are in [0, 1]. The default keeps whatever is not all right (our choice: the paper's threshold and the scale of its
    grades were not available to us). Raises `ValueError` unless 0 < threshold <= 1: a model that is always right keeps none.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"expected a threshold above 0 and at most 1, got {threshold}")
    return scores < threshold


@checked
def slearn_scores(
    rows: Dataset | None,
    model: Model,
    tokenizer: Tokenizer,
    *,
    how: str = "token accuracy",
    tokens_per_batch: int = 1024,
    precision: str = "auto",
    progress: bool | None = None,
) -> Float[np.ndarray, " N"]:
    """How much of each response the model would say itself, in [0, 1]; NaN for an example without response tokens.

    `how`: "token accuracy", the share of the response's tokens that are the model's first choice given all that precedes
    them; or "exact match", 1 if all of them are, else 0. The second is what greedy decoding is graded: it writes the whole
    response, end of text included, if and only if each token is the first choice after the right ones before it. So one
    forward pass does, and nothing is generated. Any row with a response will do, a conversation or a text too.
    Source: extension (the paper has the model grade its own answer: `slearn_grades`). Raises `ValueError` for an unknown
    `how`, or no rows.
    """
    if how not in ("token accuracy", "exact match"):
        raise ValueError(f"expected how to be one of ('token accuracy', 'exact match'), got {how!r}")
    encoded = encode(rows_of(rows), tokenizer, max_tokens=context_length(model))
    settings: dict[str, Any] = {"tokens_per_batch": tokens_per_batch, "precision": precision, "progress": progress}
    accuracy = np.array([mean(right) for right in per_token(model, encoded, is_first_choice, **settings)])
    return accuracy if how == "token accuracy" else np.where(np.isnan(accuracy), accuracy, np.floor(accuracy))


@dataclass(frozen=True)
class Graded:
    """`scores` [N] in [0, 1], NaN where the reply holds no grade; what the model answered; what the grader wrote.

    Read by expectation, nothing was written.
    """

    scores: Float[np.ndarray, " N"]
    answers: list[str]
    replies: list[str]

    @property
    def ungraded(self) -> int:
        return int(np.isnan(self.scores).sum())

    def __repr__(self) -> str:
        known = self.scores[~np.isnan(self.scores)]
        average = f", mean {known.mean():.2f}" if len(known) else ""
        return f"Graded({len(known):,} of {len(self.scores):,} answers graded{average})"


@checked
def slearn_grades(
    rows: Dataset | None,
    model: Model | None,
    tokenizer: Tokenizer | None,
    *,
    answers: list[str] | None = None,
    grader: Callable[[str, str, str], str] | None = None,
    grading: str | None = None,
    read: str = "reply",
    answer_tokens: int = 40,
    reply_tokens: int = 80,
    tokens_per_batch: int = 4096,
    progress: bool | None = None,
) -> Graded:
    """Have the model answer each prompt (greedily), and then grade its own answer by the reference response.

    `grading` holds `{question}`, `{reference}` and `{answer}` and asks for a grade from 0 to 10. `read`: "reply", the model
    writes a reply (by default: a sentence, then the grade as the last line) and `read_grade` says what counts as a grade. A
    reply without one is counted, never guessed: its score is NaN. Or "expectation": nothing is written; the grades 0 to 10
    are weighted by the chances that the model gives them as its reply, as squared error wants (arXiv 2403.04182), so every
    answer has a score and ties are rare. `answers` [N] that are there already are not generated again.
    `grader(question, reference, answer)` replies in the model's place: a person, another model, or a rule whose grades can
    be trusted. A small model often gives none, and what it gives says little: read some replies.
    The question is the prompt (of `messages`, all that precedes the answer), and all wording is our choice.
    Cost: up to `answer_tokens`, then `reply_tokens`, forward passes over each batch; by expectation two in place of the
    latter. Deterministic.
    Source: Liu et al., arXiv 2505.17470. Raises `ValueError` for rows without a prompt, a grading without its
    fields, another `read`, or a `grader` whose chances nobody knows (`read="expectation"`).
    """
    from fisherlib.model import continuations

    if read not in ("reply", "expectation") or (read == "expectation" and grader is not None):
        raise ValueError(f"expected read 'reply', or 'expectation' without a grader, got {read!r}: change one of them")
    grading = grading or (GRADING if read == "reply" else GRADING_AT_ONCE)
    if missing := [name for name in ("{question}", "{reference}", "{answer}") if name not in grading]:
        raise ValueError(f"expected {missing[0]} in the grading: it marks a place of text")
    asked = exchanges(rows)
    if (model is None or tokenizer is None) and (answers is None or grader is None):
        raise ValueError("expected model and tokenizer, got none: only with answers= and a grader= they are not needed")
    writer: tuple[Any, Any] = (model, tokenizer)
    settings: dict[str, Any] = {"temperature": 0.0, "tokens_per_batch": tokens_per_batch, "progress": progress}
    if answers is None:
        answers = continuations(*writer, rows, max_new_tokens=answer_tokens, **settings)
    if len(answers) != len(asked):
        raise ValueError(f"expected an answer to each of {len(asked):,} prompts, got {len(answers):,}: check answers=")
    triples = [(question, reference, answer) for (question, reference), answer in zip(asked, answers, strict=True)]
    if grader is not None:
        replies = [grader(*triple) for triple in triples]
    else:
        # The response is a stand-in, which says where the grader's turn begins.
        graded = Dataset.from_list([{"prompt": _filled(grading, *triple) + "\n", "response": "0"} for triple in triples])
        if read == "expectation":
            batches: dict[str, Any] = {"tokens_per_batch": tokens_per_batch, "progress": progress}
            p = answer_distribution(*writer, graded, [str(grade) for grade in range(11)], **batches)
            scores = p @ np.arange(11) / 10 / p.sum(1)
            return Graded(scores, list(answers), [""] * len(triples))
        replies = continuations(*writer, graded, max_new_tokens=reply_tokens, **settings)
    return Graded(np.array([read_grade(reply) for reply in replies]), list(answers), replies)


@checked
def read_grade(reply: str) -> float:
    """The grade in [0, 1] if the last line of the reply is one, "Grade: 7", "7" or "7/10"; otherwise NaN.

    A grade must be a whole number from 0 to 10. A reply that names two different ones, "Grade: 3, no.\nGrade: 7", has none.
    """
    lines = [line.strip() for line in reply.strip().splitlines() if line.strip()]
    found = _GRADE.fullmatch(lines[-1]) if lines else None
    return int(found[1]) / 10 if found and set(_NAMED.findall(reply)) <= {found[1]} else float("nan")


def _filled(grading: str, question: str, reference: str, answer: str) -> str:
    """All three at once: a text that holds "{answer}" is only a text."""
    fields = {"{question}": question, "{reference}": reference, "{answer}": answer}
    return re.sub("|".join(map(re.escape, fields)), lambda place: fields[place[0]], grading)
