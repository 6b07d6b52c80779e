"""Between 1 and 2, running a language model: load it, run it over rows, read its head, let it write."""

from fisherlib.model.forward import (
    all_finite,
    at_responses,
    batches,
    check_run,
    context_length,
    evaluating,
    is_first_choice,
    nll,
    pad,
    per_token,
)
from fisherlib.model.generate import continuations, prompt_ids
from fisherlib.model.head import head_matrix, head_scale, mixes, output_head, working_precision
from fisherlib.model.load import load_model

__all__ = [
    "all_finite",
    "at_responses",
    "batches",
    "check_run",
    "context_length",
    "continuations",
    "evaluating",
    "head_matrix",
    "head_scale",
    "is_first_choice",
    "load_model",
    "mixes",
    "nll",
    "output_head",
    "pad",
    "per_token",
    "prompt_ids",
    "working_precision",
]
