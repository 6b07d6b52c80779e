"""Between 1 and 2, running a language model: load it, run it over rows, read its head, let it write."""

from fisherlib.model.answers import answer_distribution
from fisherlib.model.forward import (
    all_finite,
    at_responses,
    batches,
    check_run,
    context_length,
    evaluating,
    flat,
    is_first_choice,
    nll,
    one_behind,
    pad,
    per_token,
    tokens_at_once,
)
from fisherlib.model.generate import continuation_ids, continuations, prompt_ids
from fisherlib.model.head import head_matrix, head_scale, mixes, output_head, working_precision
from fisherlib.model.load import load_model, load_tokenizer, weights_of
from fisherlib.model.prefix import after_beginning

__all__ = [
    "after_beginning",
    "all_finite",
    "answer_distribution",
    "at_responses",
    "batches",
    "check_run",
    "context_length",
    "continuation_ids",
    "continuations",
    "evaluating",
    "flat",
    "head_matrix",
    "head_scale",
    "is_first_choice",
    "load_model",
    "load_tokenizer",
    "mixes",
    "nll",
    "one_behind",
    "output_head",
    "pad",
    "per_token",
    "prompt_ids",
    "tokens_at_once",
    "weights_of",
    "working_precision",
]
