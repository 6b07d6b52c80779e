"""The arms of the ablations: FisherSFT with one thing changed, and uniform with one thing that FisherSFT does.

What explains the gap between the two must move it when it is changed alone. All of it is our choice (extension).
"""

from collections.abc import Callable

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Bool, Float

from fisherlib import selectors
from fisherlib.course.study.arms import fisher_per_token
from fisherlib.course.study.related import among
from fisherlib.features import TokenFeatures
from fisherlib.greedy import Selection, select

_RARE = 3  # a target that occurs at most so often in the pool is rare

Arm = Callable[..., Selection]


def target_prior(rows: Dataset, features: TokenFeatures, *, seed: int, **budget) -> Selection:
    """FisherSFT with V0 = s Sigma^-1, Sigma the pool's mean of x x^T and s its mean eigenvalue.

    A direction that the pool seldom needs counts as known, instead of being the most unknown of all.
    """
    X = features.values.double()
    sigma = X.T @ X / len(X)
    scale = sigma.trace() / len(sigma)
    V0 = scale * torch.linalg.inv(sigma + 1e-6 * scale * torch.eye(len(sigma), dtype=sigma.dtype))
    return fisher_per_token(rows, features, seed=seed, prior=(V0 + V0.T) / 2, **budget)


def half_uniform(rows: Dataset, features: TokenFeatures, *, seed: int, tokens: int) -> Selection:
    """Half of the tokens at random; FisherSFT spends the others, knowing the first."""
    start = selectors.uniform(rows, features, seed=seed, tokens=tokens // 2)
    return select(features, tokens=tokens, rule="gain_per_token", start=start)


def inside(
    rows: Dataset,
    features: TokenFeatures,
    *,
    seed: int,
    keep: Callable[[TokenFeatures], Bool[np.ndarray, " N"]],
    then: Arm,
    **budget,
) -> Selection:
    """What `then` chooses from the examples that `keep` keeps."""
    return among(np.flatnonzero(keep(features)), rows, features, then, seed=seed, **budget)


def mean_nll(features: TokenFeatures) -> Float[np.ndarray, " N"]:
    """Loss per token of each example under the model as it is; 0 without tokens."""
    return features.mean(features.column("nll"))


def rare_share(features: TokenFeatures) -> Float[np.ndarray, " N"]:
    """The share of each example's targets that occur at most three times in the pool."""
    _, which, counts = np.unique(features.column("labels").numpy(), return_inverse=True, return_counts=True)
    return features.mean((counts[which] <= _RARE).astype(float))


def not_memorised(features: TokenFeatures) -> Bool[np.ndarray, " N"]:
    nll = mean_nll(features)
    return nll >= np.quantile(nll, 0.25)


def not_extreme(features: TokenFeatures) -> Bool[np.ndarray, " N"]:
    nll = mean_nll(features)
    return (nll >= np.quantile(nll, 0.25)) & (nll <= np.quantile(nll, 0.95))


def common(features: TokenFeatures) -> Bool[np.ndarray, " N"]:
    share = rare_share(features)
    return share <= np.median(share)


def uncommon(features: TokenFeatures) -> Bool[np.ndarray, " N"]:
    return ~common(features)
