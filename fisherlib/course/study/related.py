"""The arms of notebook 07: the selection methods of related papers, with the defaults of `fisherlib.selectors`.

Some choose by what a model says of each example. These scores take forward passes, so they are computed once for a draw of
a pool and kept beside its features. All settings are our choice.
"""

from collections.abc import Callable

import numpy as np
from datasets import Dataset
from jaxtyping import Float, Int

from fisherlib import selectors
from fisherlib._types import Model, Tokenizer
from fisherlib.course.study.arms import fisher_per_token
from fisherlib.features import TokenFeatures
from fisherlib.greedy import Selection, score_selection

Scores = Float[np.ndarray, " N"]


def ifd_then_fisher(rows: Dataset, features: TokenFeatures, *, seed: int, scores: Scores, **budget) -> Selection:
    """FisherSFT among the examples whose prompt helps (IFD of at most 1): a filter of quality, then log-det."""
    return among(np.flatnonzero(scores <= 1), rows, features, fisher_per_token, seed=seed, **budget)


def among(
    kept: Int[np.ndarray, " k"], rows: Dataset, features: TokenFeatures, then: Callable[..., Selection], **call
) -> Selection:
    """What `then` chooses from these examples of the pool, with the gains that it has there."""
    chosen = then(rows.select(kept), features.subset(kept), **call).of_subset(kept, len(features))
    return score_selection(features, chosen.indices, seconds=chosen.seconds)


def asked(rows: Dataset, features: TokenFeatures, model: Model, tokenizer: Tokenizer, precision: str) -> Scores:
    """P(yes) of Ask-LLM."""
    return selectors.ask_llm_scores(rows, model, tokenizer, precision=precision, progress=False)


def helped(rows: Dataset, features: TokenFeatures, model: Model, tokenizer: Tokenizer, precision: str) -> Scores:
    """How much of its loss a response keeps after its prompt."""
    return selectors.ifd_scores(rows, model, tokenizer, features=features, precision=precision, progress=False)


def known(rows: Dataset, features: TokenFeatures, model: Model, tokenizer: Tokenizer, precision: str) -> Scores:
    """The share of a response that the model would say itself."""
    return selectors.slearn_scores(rows, model, tokenizer, precision=precision, progress=False)


def unsure(rows: Dataset, features: TokenFeatures, model: Model, tokenizer: Tokenizer, precision: str) -> Scores:
    """The mean entropy of the model over the response."""
    return selectors.llmaaa_scores(features, selectors.head_matrix(model))
