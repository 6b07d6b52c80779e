"""Pools of sentences whose token vectors are drawn, or are word vectors of real text; and two ways to spoil a pool.

How the paper draws its pools was not available to us: every recipe and default here is *our choice*.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fisherlib.features import TokenFeatures


def isotropic(*, sentences: int = 600, tokens: int = 10, dimensions: int = 10, seed: int = 0) -> TokenFeatures:
    """Sentences of `tokens` vectors each, x ~ N(0, I / d): no direction is rarer than another. Source: our choice."""
    return _gaussian(np.full((sentences, dimensions), dimensions**-0.5), tokens, seed)


def rare_directions(
    *, sentences: int = 600, tokens: int = 10, dimensions: int = 10, rare: float = 0.1, seed: int = 0
) -> TokenFeatures:
    """Most sentences live in the first 3 coordinates (scale 1, the others 0.15); a share `rare` has 0.8 in all of them.

    Raises `ValueError` for a share outside of [0, 1]. Source: our choice.
    """
    scales = np.full((sentences, dimensions), 0.15)
    scales[:, :3] = 1.0
    scales[: _count("rare", rare, sentences)] = 0.8
    return _gaussian(scales, tokens, seed)


def long_outliers(*, sentences: int = 600, tokens: int = 10, dimensions: int = 10, seed: int = 0) -> TokenFeatures:
    """Nine in ten sentences live in the first 3 coordinates (scale 1), one in ten in all the others, twice as long.

    Made against log det: it buys what is long, and few sentences are left for what is common. Source: our choice.
    """
    scales = np.zeros((sentences, dimensions))
    scales[:, :3], outliers = 1.0, sentences // 10
    scales[:outliers] = 2.0 * (np.arange(dimensions) >= 3)
    return _gaussian(scales, tokens, seed)


def saturated_half(*, sentences: int = 400, tokens: int = 10, dimensions: int = 10, seed: int = 0) -> TokenFeatures:
    """Half of the sentences with vectors of scale 1, half of 0.35.

    With a large logit scale the model is certain of the former, so that their labels say little, while their x x^T is
    large. Source: our choice.
    """
    scales = np.full((sentences, dimensions), 0.35)
    scales[: sentences // 2] = 1.0
    return _gaussian(scales, tokens, seed)


def word_vectors(
    embeddings: Float[Tensor, "V D"], sentences: Sequence[Sequence[int]], *, dimensions: int = 10
) -> TokenFeatures:
    """The word vector of each token of real sentences, as principal components; the mean squared length is 1.

    `embeddings` is a language model's table of token embeddings, `sentences` are token ids. Raises `ValueError` for more
    dimensions than the table has. Source: that the paper uses word vectors is known, all else is our choice.
    """
    from sklearn.decomposition import PCA

    if not 1 <= dimensions <= embeddings.shape[1]:
        raise ValueError(f"expected 1 to {embeddings.shape[1]} dimensions, the embeddings' own, got {dimensions}")
    blocks = [embeddings[torch.as_tensor(list(ids), dtype=torch.long)].double() for ids in sentences]
    words = torch.cat(blocks).numpy()
    pca = PCA(dimensions, svd_solver="covariance_eigh").fit(words)
    x = torch.from_numpy(pca.transform(words) / np.sqrt(pca.explained_variance_.sum()))
    return TokenFeatures.from_list(list(x.split([len(block) for block in blocks])))


def redundant(
    features: TokenFeatures, share: float, *, originals: int = 5, noise: float = 0.05, seed: int = 0
) -> TokenFeatures:
    """The pool with a `share` of its sentences replaced by near-copies of `originals` others.

    A near-copy is its original plus Gaussian noise, `noise` times as large as the pool's vectors; all others keep their
    place. Raises `ValueError` for a
    share outside of [0, 1], or one that leaves fewer than `originals` sentences. Source: our choice.
    """
    copies = _count("share", share, len(features))
    if copies and not 1 <= originals <= len(features) - copies:
        raise ValueError(f"expected 1 to {len(features) - copies} originals, the sentences that stay, got {originals}")
    rng = rng_for("copies", seed)
    order = rng.permutation(len(features))
    replaced, indices = order[:copies], np.arange(len(features))
    indices[replaced] = np.resize(order[copies : copies + originals], copies)
    pool = features.subset(indices)
    copied = np.repeat(np.isin(np.arange(len(features)), replaced), pool.lengths.numpy())
    noisy = torch.from_numpy(rng.standard_normal(pool.values.shape) * copied[:, None])
    size = noise * features.values.double().square().mean().sqrt()
    return replace(pool, values=pool.values.double() + size * noisy)


def perturbed(features: TokenFeatures, noise: float, *, seed: int = 0) -> TokenFeatures:
    """The features that a wrong model would give: each vector plus Gaussian noise, `noise` times as large as the vectors.

    A method may choose with these, while the fit sees the true ones. Source: our choice.
    """
    values = features.values.double()
    drawn = torch.from_numpy(rng_for("noise", seed).standard_normal(values.shape))
    return replace(features, values=values + noise * values.square().mean().sqrt() * drawn)


def _gaussian(scales, tokens: int, seed: int) -> TokenFeatures:
    sentences, dimensions = scales.shape
    if min(sentences, tokens, dimensions) < 1:
        raise ValueError(f"expected at least one sentence, token and dimension, got {sentences}, {tokens}, {dimensions}")
    blocks = scales[:, None] * rng_for("pool", seed).standard_normal((sentences, tokens, dimensions))
    return TokenFeatures(torch.from_numpy(blocks.reshape(-1, dimensions)), torch.arange(sentences + 1) * tokens)


def _count(name: str, share: float, of: int) -> int:
    if not 0 <= share <= 1:
        raise ValueError(f"expected {name} to be a share between 0 and 1, got {share}")
    return round(share * of)


def rng_for(purpose: str, seed: int) -> np.random.Generator:
    """One seed gives independent draws for each purpose: a head must not repeat the numbers of its pool."""
    return np.random.default_rng([seed, *purpose.encode()])
