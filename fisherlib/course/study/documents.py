"""Documents, chunks, search, re-ranker, tuned parts, one merged model: each stage is asked the same questions."""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from datasets import Dataset
from jaxtyping import Bool, Float, Int

from fisherlib._types import Model, Tokenizer
from fisherlib.course.study.ratings import without_template
from fisherlib.evaluation.decisions import answer_distribution
from fisherlib.features import TokenFeatures, extract_features
from fisherlib.greedy import select
from fisherlib.text.settings_reference import Question, options, settings_reference
from fisherlib.training import fine_tune, merge
from fisherlib.training.retrieval import ChunkReranker, question_log_p, retrieve

CONTEXTS = ("none", "TF-IDF", "re-ranker", "right chunk")
STAGES = ("no tuning", "merged", "merged, FisherSFT parts", "all data, as many steps")


@dataclass(frozen=True)
class Plan:
    """Sizes. `questions` are cut into `folds` test sets; of the rest, `parts` x `per_part` questions are trained on."""

    questions: int = 80
    folds: int = 5
    parts: int = 3
    per_part: int = 20
    steps: int = 8
    learning_rate: float = 2e-4
    trained_layers: int = 8  # the last ones; the others stay as they are
    top: int = 5


@dataclass(frozen=True)
class Desk:
    """The questions that are asked, their options, what the search found for each, and what the re-ranker looks at."""

    chunks: list[str]
    questions: list[Question]
    options: list[list[str]]
    right: Int[np.ndarray, " Q"]  # the place of the right option
    found: Int[np.ndarray, "Q K"]
    scores: Float[np.ndarray, "Q K"]
    log_p: Float[np.ndarray, "Q K"] = field(repr=False)

    @property
    def relevant(self) -> Bool[np.ndarray, "Q K"]:
        return self.found == np.array([[q.chunk] for q in self.questions])


@cache
def asked(count: int) -> tuple[list[str], list[Question], list[Question]]:
    """The chunks, `count` questions by chance, and all of them, whose defaults are the options."""
    chunks, questions = settings_reference()
    order = np.random.default_rng(0).permutation(len(questions))[:count]
    return [chunk.text for chunk in chunks], [questions[i] for i in order], questions


def desk(model: Model, tokenizer: Tokenizer, count: int, top: int, log_p: np.ndarray | None = None, **settings) -> Desk:
    """All that is known of `count` questions before anything is tuned; `log_p` [count, top] is not asked for again."""
    chunks, questions, every = asked(count)
    found, scores = retrieve(chunks, [q.text for q in questions], top=top)
    texts = [chunks[i] for i in found.ravel()]
    again = [q.text for q in questions for _ in range(top)]
    if log_p is None:
        log_p = question_log_p(model, without_template(tokenizer), texts, again, **settings).reshape(found.shape)
    shown = [options(q, every, seed=0) for q in questions]
    right = np.array([one.index(q.answer) for one, q in zip(shown, questions, strict=True)])
    return Desk(chunks, questions, shown, right, found, scores, log_p)


def contexts(known: Desk, train: Int[np.ndarray, " n"], test: Int[np.ndarray, " m"]) -> dict[str, list[str]]:
    """What each stage puts before each test question. The re-ranker learns from the training questions only."""
    reranker = ChunkReranker.fit(known.scores[train], known.log_p[train], known.relevant[train])
    best = reranker.chances(known.scores[test], known.log_p[test]).argmax(1)
    return {
        "none": [""] * len(test),
        "TF-IDF": [known.chunks[i] for i in known.found[test, 0]],
        "re-ranker": [known.chunks[i] for i in known.found[test, best]],
        "right chunk": [known.chunks[known.questions[i].chunk] for i in test],
    }


def rows(known: Desk, which: Sequence[int] | Int[np.ndarray, " n"], before: Sequence[str]) -> Dataset:
    """Questions as plain text after their contexts, with the right default as response."""
    return Dataset.from_list(
        [
            {
                "prompt": f"{text}\n\nQuestion: {known.questions[i].text}\nAnswer: ".lstrip(),
                "response": known.questions[i].answer,
            }
            for i, text in zip(which, before, strict=True)
        ]
    )


def chances(
    model: Model, tokenizer: Tokenizer, known: Desk, which: Int[np.ndarray, " n"], before: Sequence[str], **settings
) -> Float[np.ndarray, "n 4"]:
    """Of each option, after the question and its context: the text of the default is scored, not a letter; sums are one."""
    asked = rows(known, which, before)
    p = answer_distribution(model, without_template(tokenizer), asked, [known.options[i] for i in which], **settings)
    return p / p.sum(1, keepdims=True)


def parts_of(train: Int[np.ndarray, " n"], plan: Plan, fold: int, features: TokenFeatures | None = None) -> list[np.ndarray]:
    """Disjoint parts of the training questions: by chance, or each chosen by FisherSFT from what the ones before left."""
    if features is None:
        order = np.random.default_rng([1, fold]).permutation(train)
        return [order[k * plan.per_part : (k + 1) * plan.per_part] for k in range(plan.parts)]
    left, found = train, []
    for _ in range(plan.parts):
        picks = select(features.subset(left.tolist()), examples=plan.per_part, progress=False).indices
        found.append(left[picks])
        left = np.delete(left, picks)
    return found


def tuned(model: Model, tokenizer: Tokenizer, known: Desk, part: Int[np.ndarray, " n"], steps: int, plan: Plan, seed: int):
    """The model after `steps` steps on the questions of a part, each with the chunk that states its answer."""
    layers = len(model.model.layers)
    copied = copy.deepcopy(model)
    for name, weight in copied.named_parameters():
        number = name.removeprefix("model.layers.").partition(".")[0]
        weight.requires_grad_(number.isdigit() and int(number) >= layers - plan.trained_layers)
    texts = [known.chunks[known.questions[i].chunk] for i in part]
    return fine_tune(
        copied,
        without_template(tokenizer),
        rows(known, part, texts),
        learning_rate=plan.learning_rate,
        steps_per_epoch=steps,
        seed=seed,
        progress=False,
    ).model


def run(tools: Callable, stage: str, fold: int, plan: Plan) -> dict:
    """One stage of one outer fold: the chances that its arms give the options of the fold's test questions, and the seconds.

    `tools(name)` gives the model and its tokenizer, the `Desk`, or the features. Rows of one fold have the same contexts.
    """
    model, tokenizer = tools("model")
    known = tools("desk")
    test = np.arange(fold, plan.questions, plan.folds)
    train = np.setdiff1d(np.arange(plan.questions), test)
    before = contexts(known, train, test)
    random_parts = parts_of(train, plan, fold)
    arms: dict[str, Model] = {}
    began = time.perf_counter()

    def train_on(parts: Sequence[Int[np.ndarray, " n"]], steps: int) -> list[Model]:
        return [tuned(model, tokenizer, known, part, steps, plan, seed=fold) for part in parts]

    if stage == "no tuning":
        arms[stage] = model
    elif stage == "merged":
        singles = train_on(random_parts, plan.steps)
        arms = {f"part {k}": single for k, single in enumerate(singles, start=1)} | {stage: merge(singles)}
    elif stage == "merged, FisherSFT parts":
        arms[stage] = merge(train_on(parts_of(train, plan, fold, tools("features")), plan.steps))
    else:
        arms[stage] = train_on([np.concatenate(random_parts)], plan.parts * plan.steps)[0]
    training = time.perf_counter() - began
    asked = [
        (name, context) for name in arms for context in (CONTEXTS if name in ("no tuning", "merged") else ["re-ranker"])
    ]
    p = {f"{n} | {c}": chances(arms[n], tokenizer, known, test, before[c], progress=False) for n, c in asked}
    return {
        "test": test.tolist(),
        "right": known.right[test].tolist(),
        "majority": majority(known, train, test),
        "p": {name: found.round(6).tolist() for name, found in p.items()},
        "training_seconds": training,
    }


def majority(known: Desk, train: Int[np.ndarray, " n"], test: Int[np.ndarray, " m"]) -> list[int]:
    """The option that is most often right among the training questions: no model, no text. Ties: the first option."""
    answers = [known.questions[i].answer for i in train]
    return [int(np.argmax([answers.count(option) for option in known.options[i]])) for i in test]


def training_features(model: Model, tokenizer: Tokenizer, known: Desk, folder: Path | None = None) -> TokenFeatures:
    """Features of all questions with their right chunks, kept in a folder: what FisherSFT chooses parts by."""
    texts = [known.chunks[q.chunk] for q in known.questions]
    every = rows(known, range(len(known.questions)), texts)
    return extract_features(model, without_template(tokenizer), every, out_dir=folder, progress=False)
