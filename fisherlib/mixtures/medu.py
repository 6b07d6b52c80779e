"""MEDU: utilities from a reader. A model says what would help a task, then grades a sample of each source by that."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Float

from fisherlib._door import checked
from fisherlib._types import Model, Tokenizer
from fisherlib.mixtures.utilities import check_named
from fisherlib.model import context_length, continuations, per_token
from fisherlib.text import Encoded

if TYPE_CHECKING:
    from fisherlib.evaluation.judging import Endpoint, Reply

# All wording, the names of the five levels and the length of a description are our choice: the paper's are unknown to us.
LEVELS = ("1", "2", "3", "4", "5")
DESCRIBE = """Here are examples of what a language model is tested on:

{examples}

In one or two sentences: what texts should it be trained on to do well?"""
GRADE = """A language model is to be trained on: {description}

Here is a text that it could be trained on:

###
{document}
###

How useful is this text for that? 1: not at all, 2: a little, 3: partly, 4: useful, 5: very useful.
Answer with one number from 1 to 5."""


@runtime_checkable
class Reader(Protocol):
    """Who reads. `grade` is from 0 (useless) to 1, and NaN where no grade could be had."""

    def describe(self, examples: Sequence[str]) -> str: ...

    def grade(self, description: str, documents: Sequence[str]) -> Float[np.ndarray, " n"]: ...


@checked
def medu_utilities(
    reader: Reader, sources: Mapping, tasks: Mapping, *, documents: int = 8, examples: int = 4, seed: int = 0
) -> Float[np.ndarray, "K T"]:
    """What a reader makes of each source for each task, in three stages: describe the task, grade documents, mean.

    >>> class Counts:
    ...     def describe(self, examples): return max(examples, key=len)
    ...     def grade(self, description, documents): return np.array([float(description in text) for text in documents])
    >>> fl.mixtures.medu_utilities(Counts(), {"plays": ["to be", "or not"], "code": ["x = 1"]}, {"plays": ["to be"]})
    array([[0.5],
           [0. ]])

    `sources` (K) and `tasks` (T): texts by name. The reader sees the first `examples` of a task, and grades `documents`
    random texts of each source (all, if it has fewer). Examine a reader before you believe it: texts of the task's own kind
    must be graded above the same with shuffled words (notebook 08). A reader that sees no difference gives equal
    utilities, and with these UtiliMax is UniMax. T descriptions and K x T x documents grades.
    Source: MEDU, arXiv 2501.11747; wording, levels and scale are our choice. Raises `ValueError` for no sources or tasks,
    and if none of the grades of a source could be had.
    """
    check_named(sources, tasks)
    if documents < 1 or examples < 1:
        raise ValueError(f"expected at least 1 document and 1 example, got {documents} and {examples}")
    rng = np.random.default_rng(seed)
    samples = {name: [texts[i] for i in rng.permutation(len(texts))[:documents]] for name, texts in sources.items()}
    utilities = np.empty((len(sources), len(tasks)))
    for t, texts in enumerate(tasks.values()):
        description = reader.describe(list(texts)[:examples])
        for k, (name, sample) in enumerate(samples.items()):
            grades = np.asarray(reader.grade(description, sample), dtype=float)
            heard = grades[np.isfinite(grades)]
            if not len(heard) or heard.min() < 0 or heard.max() > 1:
                raise ValueError(f"expected grades of {name!r} from 0 to 1, got {grades.tolist()}: try another reader")
            utilities[k, t] = heard.mean()
    return utilities


@dataclass(frozen=True)
class ModelReader:
    """A language model of ours as reader. Its grade is the expected level, by the probabilities of the five numbers.

    Expectation and not the likeliest number: the best guess by squared error (RAIL, arXiv 2403.04182), and it can tell texts
    apart where the likeliest number is the same for all. `new_tokens`: the longest description.
    """

    model: Model
    tokenizer: Tokenizer
    new_tokens: int = 48
    tokens_per_batch: int = 2048
    precision: str = "auto"

    def describe(self, examples: Sequence[str]) -> str:
        asked = DESCRIBE.format(examples="\n\n".join(examples))
        rows = Dataset.from_list([{"prompt": asked, "response": "Texts"}])  # a response marks where the answer begins
        said = continuations(
            self.model, self.tokenizer, rows, max_new_tokens=self.new_tokens, temperature=0.0, progress=False
        )
        return said[0]

    def grade(self, description: str, documents: Sequence[str]) -> Float[np.ndarray, " n"]:
        """The expected level of each document. One forward pass over all questions.

        Raises `ValueError` for a tokenizer that has no token for each level, or a document too long for the model.
        """
        levels = [self.tokenizer(level, add_special_tokens=False)["input_ids"] for level in LEVELS]
        if any(len(ids) != 1 for ids in levels) or len({ids[0] for ids in levels}) < len(LEVELS):
            raise ValueError(f"expected one token for each of {', '.join(LEVELS)}, got {levels}: choose another model")
        tokens = [ids[0] for ids in levels]
        asked = [self._ids(GRADE.format(description=description, document=document)) for document in documents]
        longest = context_length(self.model)
        if longest is not None and (most := max(map(len, asked))) >= longest:
            raise ValueError(f"expected a question of less than {longest:,} tokens (the model's context), got {most:,}")
        # A last token stands in for the answer: the position before it is the one whose prediction is read.
        encoded = [Encoded([*ids, tokens[0]], [False] * len(ids) + [True]) for ids in asked]
        worth = torch.linspace(0, 1, len(LEVELS))

        def expected(logits: Float[torch.Tensor, "m V"], _labels) -> Float[torch.Tensor, " m"]:
            return logits[:, tokens].softmax(1) @ worth.to(logits.device)

        options: dict[str, Any] = {"tokens_per_batch": self.tokens_per_batch, "precision": self.precision, "progress": False}
        return np.concatenate(per_token(self.model, encoded, expected, **options)).clip(0, 1)

    def _ids(self, text: str) -> list[int]:
        templated = self.tokenizer.chat_template is not None
        if templated:
            turn = [{"role": "user", "content": text}]
            text = self.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        return list(self.tokenizer(text, add_special_tokens=not templated)["input_ids"])


@dataclass(frozen=True)
class EndpointReader:
    """Any OpenAI-compatible endpoint as reader. It says a number; its probabilities are not asked for, so no expectation.

    A reply that holds none of the five numbers, or several, is no grade (NaN). Costs a question for each document and task.
    Raises `JudgeError` if the endpoint cannot be asked, `ValueError` if it describes nothing.
    """

    endpoint: "Endpoint"
    new_tokens: int = 200

    def describe(self, examples: Sequence[str]) -> str:
        reply = self._ask(DESCRIBE.format(examples="\n\n".join(examples)), self.new_tokens)
        if reply.kind != "text":
            raise ValueError(f"expected a description of the task from {self.endpoint!r}, got a reply that is {reply.kind}")
        return reply.text.strip()

    def grade(self, description: str, documents: Sequence[str]) -> Float[np.ndarray, " n"]:
        said = [self._ask(GRADE.format(description=description, document=text), 8).text for text in documents]
        found = [set(re.findall(r"(?<![\d.])[1-5](?![\d])", text)) for text in said]
        return np.array([(int(*one) - 1) / (len(LEVELS) - 1) if len(one) == 1 else np.nan for one in found])

    def _ask(self, text: str, tokens: int) -> "Reply":
        return self.endpoint.ask([{"role": "user", "content": text}], max_tokens=tokens)
