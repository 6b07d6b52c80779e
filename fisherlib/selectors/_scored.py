"""Scores of examples by a language model: a number for each response token, and the check of what a selector is given."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fisherlib.data import Encoded
from fisherlib.features import at_responses, batches, progress_bar
from fisherlib.token_features import TokenFeatures

Statistic = Callable[[Float[Tensor, "m V"], Int[Tensor, " m"]], Float[Tensor, " m"]]


def per_token(
    model,
    encoded: Sequence[Encoded],
    statistic: Statistic,
    *,
    tokens_per_batch: int,
    precision: str,
    progress: bool | None,
) -> list[Float[np.ndarray, " T"]]:
    """`statistic(logits, labels)` at the response tokens of each example: float64, in the order of the examples.

    One forward pass over all tokens; memory O(tokens_per_batch x vocabulary). The model is left as it was.
    """
    values: list[np.ndarray] = [np.empty(0)] * len(encoded)
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode(), progress_bar(len(encoded), progress) as bar:
            for indices, batch in batches(encoded, tokens_per_batch, "right", model.device):
                logits, labels = at_responses(model, batch, precision, compute_logits=True)
                found = statistic(logits.float(), labels).cpu().double()  # MPS has no float64
                parts = found.split([sum(encoded[i].is_response) for i in indices])
                for i, part in zip(indices, parts, strict=True):
                    values[i] = part.numpy()
                bar.update(len(indices))
    finally:
        model.train(was_training)
    return values


def nll(logits: Float[Tensor, "m V"], labels: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
    return torch.nn.functional.cross_entropy(logits, labels, reduction="none")


def is_first_choice(logits: Float[Tensor, "m V"], labels: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
    """1 where greedy decoding would say the label, else 0; of equal logits it says the first."""
    return (logits.argmax(1) == labels).float()


def mean(values: Float[np.ndarray, " T"]) -> float:
    """NaN for an example without response tokens."""
    return float(values.mean()) if len(values) else float("nan")


def scores_for(
    scorer: Callable[..., Float[np.ndarray, " N"]],
    pool,
    features: TokenFeatures,
    model,
    tokenizer,
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
        scores = scorer(pool, model, tokenizer, **options)
    elif options:
        raise ValueError(f"expected no more options beside scores=, got {sorted(options)}: they were for the scoring")
    return check_scores(features, scores, gaps=gaps)


def check_scores(features: TokenFeatures, scores, *, gaps: bool = False) -> Float[np.ndarray, " N"]:
    """The scores as float64. With `gaps`, NaN may stand for no score, but not for all examples with tokens."""
    scores = np.asarray(scores, dtype=float)
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
