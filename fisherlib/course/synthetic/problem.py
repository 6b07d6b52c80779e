"""A problem with a known answer: a pool, the true head, labels drawn from it; and how far an estimate is from the truth."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fisherlib import fisher
from fisherlib.course.synthetic.fit import fit_mle
from fisherlib.course.synthetic.pools import rng_for, word_vectors
from fisherlib.features import TokenFeatures
from fisherlib.model import load_model
from fisherlib.text import encode, load_pool


@dataclass(frozen=True)
class Problem:
    """A pool, the true head `Theta` [L, d], and a label for every token, drawn from `softmax(Theta x)`.

    `features.trace_weights` are those of the truth, which no method knows in practice; see `with_trace_weights`.
    """

    features: TokenFeatures
    Theta: Float[Tensor, "L d"]

    @classmethod
    def draw(cls, features: TokenFeatures, *, classes: int = 20, scale: float = 1.0, seed: int = 0) -> "Problem":
        """A Gaussian head with standard deviation `scale` and its class mean removed, and labels for the whole pool.

        `scale` is the logit scale: 0 makes all classes equally likely, a large one makes the model certain.
        Raises `ValueError` for fewer than 2 classes or a scale that is negative or not finite. Source: our choice.
        """
        if classes < 2:
            raise ValueError(f"expected at least 2 classes, got {classes}")
        if not 0 <= scale < np.inf:
            raise ValueError(f"expected a finite logit scale >= 0, got {scale}")
        rng = rng_for("truth", seed)
        Theta = torch.from_numpy(scale * rng.standard_normal((classes, features.dim)))
        Theta = Theta - Theta.mean(0)  # a shift of all classes changes no probability, so it cannot be estimated
        features = with_trace_weights(replace(features, values=features.values.double()), Theta)
        cumulative = torch.softmax(features.values @ Theta.T, 1).cumsum(1)
        labels = torch.searchsorted(cumulative, torch.from_numpy(rng.random((len(cumulative), 1))))[:, 0]
        return cls(replace(features, labels=labels.clamp(max=classes - 1)), Theta)


def with_trace_weights(features: TokenFeatures, Theta: Float[Tensor, "L d"]) -> TokenFeatures:
    """The features with the trace weights `1 - ||p||^2` of any head: the true one, or one fitted to a few pilot picks."""
    P = torch.softmax(features.values.double() @ Theta.T, 1)
    return replace(features, trace_weights=fisher.trace_weights(P))


def prediction_errors(Theta: Float[Tensor, "L d"], problem: Problem, *, over: str = "mean") -> Float[np.ndarray, " N"]:
    """The logit error `||(Theta - Theta_true) x||_2` of each sentence: the mean over its tokens, or their `over="sum"`.

    The class means of both heads are removed first, since no label can tell them. Raises `ValueError` for an unknown
    `over`. Source: paper (its maximum and mean over sentences); mean or sum over tokens is our choice.
    """
    if over not in ("mean", "sum"):
        raise ValueError(f"expected over to be one of ('mean', 'sum'), got {over!r}")
    gap = Theta - Theta.mean(0) - (problem.Theta - problem.Theta.mean(0))
    size = (problem.features.values @ gap.T).norm(dim=1)
    return problem.features.mean(size) if over == "mean" else problem.features.sum(size)


def mean_kl(Theta: Float[Tensor, "L d"], problem: Problem) -> float:
    """`KL(p_true || p)` in nats, averaged over all tokens of the pool. Source: our choice."""
    X = problem.features.values
    truth, guess = torch.log_softmax(X @ problem.Theta.T, 1), torch.log_softmax(X @ Theta.T, 1)
    return float((truth.exp() * (truth - guess)).sum(1).mean().clamp(min=0))  # rounding may leave -1e-17


def relabelled_errors(
    problem: Problem, picks: Int[np.ndarray, " n"], *, times: int = 20, ridge: float = 1e-3, seed: int = 0
) -> Float[np.ndarray, " N"]:
    """The `prediction_errors` of heads fitted to the sentences `picks`, averaged over `times` draws of labels."""
    bought = problem.features.subset(picks)
    P = torch.softmax(bought.values @ problem.Theta.T, 1)
    generator, errors = torch.Generator().manual_seed(seed), []
    for _ in range(times):
        labels = torch.multinomial(P, 1, generator=generator)[:, 0]
        guess = fit_mle(replace(bought, labels=labels), classes=len(problem.Theta), ridge=ridge)
        errors.append(prediction_errors(guess, problem))
    return np.mean(errors, axis=0)


def word_problems(
    model: str,
    data: str,
    *,
    sentences: int = 300,
    out_of: int = 2400,
    classes: int = 20,
    dimensions: int = 10,
    seed: int = 0,
) -> Callable[[int], Problem]:
    """A function that draws a problem from a seed: `sentences` of the first `out_of` shuffled ones, as `word_vectors`.

    `model` and `data` are names that `fl.load_model` and `fl.load_pool` know; only response tokens count. Source: that the
    paper has word vectors is known, all else is our choice.
    """
    language_model, tokenizer = load_model(model)
    rows = load_pool(data, seed=seed).train.shuffle(seed=seed).select(range(out_of))
    ids = [[t for t, r in zip(e.input_ids, e.is_response, strict=True) if r] for e in encode(rows, tokenizer)]
    spoken = word_vectors(language_model.get_input_embeddings().weight.detach(), ids, dimensions=dimensions)

    def draw(seed: int) -> Problem:
        order = np.random.default_rng([seed, 4]).permutation(len(spoken))
        return Problem.draw(spoken.subset(order[:sentences]), classes=classes, seed=seed)

    return draw
