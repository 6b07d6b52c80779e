"""Scores of examples by a language model: a number for each response token, and the check of what a selector is given."""

from collections.abc import Callable

import numpy as np
from datasets import Dataset
from jaxtyping import Float

from fisherlib._door import numbers
from fisherlib._types import Model, Tokenizer
from fisherlib.features import TokenFeatures


def mean(values: Float[np.ndarray, " T"]) -> float:
    """NaN for an example without response tokens."""
    return float(values.mean()) if len(values) else float("nan")


def scores_for(
    scorer: Callable[..., Float[np.ndarray, " N"]],
    rows: Dataset | None,
    features: TokenFeatures,
    model: Model | None,
    tokenizer: Tokenizer | None,
    scores: Float[np.ndarray, " N"] | None,
    options: dict,
    *,
    gaps: bool = False,
) -> Float[np.ndarray, " N"]:
    """The scores that a selector was given, or those that `scorer` computes with its model.

    Raises `ValueError` if there is neither, if there are options for a scoring that does not take place, or for scores
    that `check_scores` refuses.
    """
    if scores is None:
        if model is None or tokenizer is None:
            raise ValueError(f"expected a model and its tokenizer, or scores= of {scorer.__name__}, got neither")
        scores = scorer(rows, model, tokenizer, **options)
    elif options:
        raise ValueError(f"expected no more options beside scores=, got {sorted(options)}: they were for the scoring")
    return check_scores(features, scores, gaps=gaps)


def check_scores(features: TokenFeatures, scores: object, *, gaps: bool = False) -> Float[np.ndarray, " N"]:
    """The scores as float64. With `gaps`, NaN may stand for no score, but not for all examples with tokens."""
    scores = numbers(scores, "scores")
    if scores.shape != (len(features),):
        got = f"{len(scores):,}" if scores.ndim == 1 else f"an array of shape {scores.shape}"
        raise ValueError(f"expected a score for each of {len(features):,} examples, got {got}: check scores=")
    missing = np.flatnonzero(np.isnan(scores) & (features.lengths.numpy() > 0))
    if len(missing) and not gaps:
        raise ValueError(f"expected a score for each example with tokens, got NaN for example {missing[0]}: check scores=")
    if len(missing) and len(missing) == (features.lengths > 0).sum():
        raise ValueError(
            f"expected a score for some example, got NaN for all {len(missing):,} with tokens: read the replies"
        )
    return scores
