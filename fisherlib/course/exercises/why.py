"""Checkers of the exercises of notebook 05b."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from fisherlib.course.notebook import attempt
from fisherlib.evaluation import paired_t
from fisherlib.features import TokenFeatures
from fisherlib.greedy import Selection
from fisherlib.selectors import cluster_labels, in_clusters

_OPEN = "○ not answered yet: {}"


def moved(answer, a: Sequence[float] | pd.Series, f: Sequence[float] | pd.Series) -> None:
    """The 95 % interval of what a change moved: [low, high]."""
    found = paired_t(np.subtract(np.asarray(a, dtype=float), np.asarray(f, dtype=float)))
    attempt("what half of the tokens by chance changes", answer, [found.low, found.high], atol=1e-9)


def reduction(answer, X: torch.Tensor) -> None:
    """By how much one example lowers tr(V^-1 Sigma) if Sigma = V = I: `X` [T, d] are its token features."""
    eye = torch.eye(X.shape[1], dtype=torch.float64)
    X = X.double()
    expected = float(torch.trace(eye - torch.linalg.inv(eye + X.T @ X)))
    claim = "a reduction from eigenvalues"
    if answer is not ... and float(answer) > len(X):
        raise AssertionError(f"{claim}: expected at most 1 from each of {len(X)} directions, got {float(answer):g}")
    attempt(claim, answer, expected, atol=1e-6)


def inside(answer, features: TokenFeatures, chosen: Selection, tokens: int, seed: int) -> None:
    """A function of (where, lengths, picks, tokens, seed): FisherSFT's share for each cluster, and chance inside."""
    claim = "your shares and draws are the library's"
    if answer is ...:
        print(_OPEN.format(claim))
        return
    where, lengths = cluster_labels(features, seed=seed), features.lengths.numpy()
    wanted = in_clusters(None, features, tokens=tokens, seed=seed, like=lambda *_, **__: chosen).indices
    got = np.asarray(answer(where, lengths, chosen.indices, tokens, seed))
    if lengths[got].sum() > tokens:
        raise AssertionError(f"{claim}: expected at most {tokens} tokens, got {lengths[got].sum()}: skip who does not fit")
    if len(set(got.tolist())) < len(got):
        raise AssertionError(f"{claim}: expected every example at most once, got some twice: dict.fromkeys keeps the first")
    mine, library = (np.bincount(where[picks], lengths[picks], where.max() + 1).tolist() for picks in (got, wanted))
    if mine != library:
        raise AssertionError(f"{claim}: expected these tokens in each cluster, {library}, got {mine}")
    attempt(claim, got, wanted)


def luck(answer) -> None:
    """By how many standard deviations of a difference the best of ten equal candidates seems better, with five seeds."""
    means = np.random.default_rng(0).normal(size=(200_000, 10)) / np.sqrt(5)
    claim = "the luck of the best of ten"
    if answer is not ... and abs(float(answer) - 1.5388) < 0.02:
        raise AssertionError(
            f"{claim}: expected means of five seeds, got the best of ten single seeds: divide by the root of 5"
        )
    attempt(claim, answer, float(-means.min(1).mean()), atol=0.02)


def break_even(answer, majority: float, rest: float) -> None:
    """The share of the majority in a test at which a gain on the rest is used up."""
    claim = "where the gain is used up"
    if answer is not ... and abs(float(answer) - majority / (majority - rest)) < 1e-9:
        raise AssertionError(f"{claim}: expected the share of the majority, got that of the rest")
    attempt(claim, answer, -rest / (majority - rest), atol=1e-6)
