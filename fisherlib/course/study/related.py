"""The arms of notebook 07: the selection methods of related papers, with the defaults of `fisherlib.selectors`.

Some choose by what a model says of each example. These scores take forward passes, so they are computed once for a draw of
a pool and kept beside its features. All settings are our choice.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from datasets import Dataset
from jaxtyping import Float, Int

from fisherlib import selectors
from fisherlib.course.study.arms import ARMS
from fisherlib.features import TokenFeatures
from fisherlib.greedy import Selection, score_selection

Scores = Float[np.ndarray, " N"]


def ifd_then_fisher(rows: Dataset, features: TokenFeatures, *, seed: int, scores: Scores, **budget) -> Selection:
    """FisherSFT among the examples whose prompt helps (IFD of at most 1): a filter of quality, then log-det."""
    return among(np.flatnonzero(scores <= 1), rows, features, ARMS["fisher_per_token"], seed=seed, **budget)


def among(
    kept: Int[np.ndarray, " k"], rows: Dataset, features: TokenFeatures, then: Callable[..., Selection], **call
) -> Selection:
    """What `then` chooses from these examples of the pool, with the gains that it has there."""
    chosen = then(rows.select(kept), features.subset(kept), **call).of_subset(kept, len(features))
    return score_selection(features, chosen.indices, seconds=chosen.seconds)


RELATED: dict[str, Callable[..., Selection]] = {
    "ifd": selectors.ifd,
    "ifd_then_fisher": ifd_then_fisher,
    "slearn": selectors.slearn,
    "adaicl": selectors.adaicl,
    "adaicl_plus": partial(selectors.adaicl, discounted=True),
    "llmaaa_k_means": selectors.llmaaa,
    "llmaaa_entropy": partial(selectors.llmaaa, acquisition="entropy"),
    "sparft": selectors.sparft,
    "isa": selectors.isa,
}


def _ask_llm(rows: Dataset, features: TokenFeatures, model, tokenizer) -> Scores:
    return selectors.ask_llm_scores(rows, model, tokenizer, progress=False)


def _ifd(rows: Dataset, features: TokenFeatures, model, tokenizer) -> Scores:
    return selectors.ifd_scores(rows, model, tokenizer, features=features, progress=False)


def _accuracy(rows: Dataset, features: TokenFeatures, model, tokenizer) -> Scores:
    return selectors.slearn_scores(rows, model, tokenizer, progress=False)


def _entropy(rows: Dataset, features: TokenFeatures, model, tokenizer) -> Scores:
    return selectors.llmaaa_scores(features, selectors.head_matrix(model))


# The file that an arm's scores are kept in, and what computes them.
SCORES: dict[str, tuple[str, Callable[..., Scores]]] = {
    "ask_llm": ("answers", _ask_llm),
    "ifd": ("ifd", _ifd),
    "ifd_then_fisher": ("ifd", _ifd),
    "slearn": ("token_accuracy", _accuracy),
    "llmaaa_entropy": ("entropy", _entropy),
}
