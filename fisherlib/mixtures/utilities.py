"""What each source is worth for each task, by training on it or by reading it: the utilities that UtiliMax asks for."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from fisherlib._door import checked
from fisherlib._types import Model, Tokenizer
from fisherlib.evaluation import held_out_nll
from fisherlib.mixtures.unimax import unimax
from fisherlib.model import context_length, nll, per_token
from fisherlib.text import Encoded, encode
from fisherlib.training import fine_tune


@checked
def ablation_utilities(
    model: Model,
    tokenizer: Tokenizer | None,
    sources: Mapping,
    tasks: Mapping,
    *,
    tokens: int,
    steps: int = 4,
    learning_rate: float = 5e-5,
    precision: str = "auto",
    seed: int = 0,
    progress: bool | None = None,
) -> Float[np.ndarray, "K T"]:
    """Fine-tune on each source alone, for `tokens` tokens, and ask how much lower the loss on each task is.

    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> model = LlamaForCausalLM(LlamaConfig(vocab_size=99, hidden_size=16, num_hidden_layers=1, num_attention_heads=2))
    >>> sources = {"odd": [[1, 3, 5, 7]] * 6, "even": [[2, 4, 6, 8]] * 6}
    >>> fl.mixtures.ablation_utilities(model, None, sources, {"odd": [[1, 3, 5]]}, tokens=12, steps=2).shape
    (2, 1)

    `sources` (K) and `tasks` (T) by name: datasets, or lists of token ids with `tokenizer=None`. Tasks are examples to
    develop on; those of the final test must be others. A source with fewer tokens is gone over again. Give the `steps` and
    the `learning_rate` of the training that the mixture is for: at another rate, other sources may look good.
    A utility is the fall of the mean loss, nothing for a rise, divided by the largest fall that a source has for this task:
    so 1 is the best there is, and a task that no source helps has 0 throughout. K trainings and (K + 1) T tests.
    Source: arXiv 2501.11747 trains on single sources at a small scale; how it makes utilities of losses is not known to us,
    so the scale is our choice. Raises `ValueError` as `fine_tune` and `held_out_nll` do, and for no sources or no tasks.
    """
    check_named(sources, tasks)
    options: dict[str, Any] = {"precision": precision, "progress": progress}
    before = np.array([held_out_nll(model, tokenizer, rows, **options).nll for rows in tasks.values()])
    gains = np.empty((len(sources), len(tasks)))
    for k, (name, rows) in enumerate(sources.items()):
        held = sum(sum(example.is_response) for example in encode(rows, tokenizer))
        alone = unimax({name: held}, tokens=tokens, epochs=math.ceil(tokens / held))
        some = alone.draw({name: rows}, tokenizer=tokenizer, seed=seed, show=False)
        if not len(some):
            raise ValueError(f"expected a row of {name!r} within {tokens:,} tokens, got none: raise tokens=")
        tuned = fine_tune(
            model, tokenizer, some, steps_per_epoch=steps, learning_rate=learning_rate, seed=seed, **options
        ).model
        gains[k] = before - [held_out_nll(tuned, tokenizer, rows, **options).nll for rows in tasks.values()]
    return relative(gains)


@checked
def in_context_utilities(
    model: Model,
    tokenizer: Tokenizer | None,
    sources: Mapping,
    tasks: Mapping,
    *,
    documents: int = 8,
    tokens_per_batch: int = 1024,
    precision: str = "auto",
    seed: int = 0,
    progress: bool | None = None,
) -> Float[np.ndarray, "K T"]:
    """How much lower the loss on each task is when a document of the source stands before it: no training at all.

    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> model = LlamaForCausalLM(LlamaConfig(vocab_size=99, hidden_size=16, num_hidden_layers=1, num_attention_heads=2))
    >>> sources = {"odd": [[1, 3, 5, 7]] * 6, "even": [[2, 4, 6, 8]] * 6}
    >>> fl.mixtures.in_context_utilities(model, None, sources, {"odd": [[1, 3, 5]]}, documents=2).shape
    (2, 1)

    NLL(examples of the task) - NLL(examples | document), the mean over `documents` random rows of the source (all, if it has
    fewer), on the scale of `ablation_utilities`. K x documents x T x rows forward passes, each over two texts.
    Source: extension, of the idea of MEDU (arXiv 2501.11747) that a model can tell by reading.
    Raises `ValueError` for no sources, no tasks, no documents, or a document and an example that are together too long.
    """
    check_named(sources, tasks)
    if documents < 1:
        raise ValueError(f"expected at least 1 document of each source, got {documents}")
    asked = {name: encode(rows, tokenizer) for name, rows in tasks.items()}
    rng, longest = np.random.default_rng(seed), context_length(model)
    options: dict[str, Any] = {"tokens_per_batch": tokens_per_batch, "precision": precision, "progress": progress}
    gains = np.empty((len(sources), len(tasks)))
    for t, examples in enumerate(asked.values()):
        gains[:, t] = np.concatenate(per_token(model, examples, nll, **options)).mean()
    for k, (name, rows) in enumerate(sources.items()):
        read = [example for example in encode(rows, tokenizer) if example.input_ids]
        some = [read[i] for i in rng.permutation(len(read))[:documents]]
        for t, examples in enumerate(asked.values()):
            pairs = [_after(document, example) for document in some for example in examples]
            most = max(len(pair.input_ids) for pair in pairs)
            if longest is not None and most > longest:
                raise ValueError(
                    f"expected a document of {name!r} and an example of a task within {longest:,} tokens (the model's "
                    f"context), got {most:,}: give shorter rows"
                )
            gains[k, t] -= np.concatenate(per_token(model, pairs, nll, **options)).mean()
    return relative(gains)


def _after(document: Encoded, example: Encoded) -> Encoded:
    """The example with the document before it; only the example counts."""
    return Encoded([*document.input_ids, *example.input_ids], [*[False] * len(document.input_ids), *example.is_response])


def relative(gains: Float[np.ndarray, "K T"]) -> Float[np.ndarray, "K T"]:
    """Gains as utilities: a loss is 0, the best of each task is 1. What is not finite is refused."""
    if not np.isfinite(gains).all():
        raise ValueError(f"expected finite gains, got {gains.tolist()}: lower the learning rate")
    best = gains.max(0)
    return gains.clip(min=0) / np.where(best > 0, best, 1.0)


def check_named(sources: Mapping, tasks: Mapping) -> None:
    """Raise `ValueError` for no sources, or no tasks, or an empty one."""
    for what, given in (("sources", sources), ("tasks", tasks)):
        if not given or not all(len(rows) for rows in given.values()):
            sizes = {name: len(rows) for name, rows in given.items()}
            raise ValueError(f"expected {what} by name, each with at least one row, got {sizes}")
