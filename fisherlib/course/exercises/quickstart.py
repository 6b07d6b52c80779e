"""Checkers of notebook 00. Each takes the reader's answer, or `...`, and what it is about."""

import numpy as np
from datasets import Dataset

from fisherlib import fisher
from fisherlib.course.notebook import attempt
from fisherlib.features import TokenFeatures
from fisherlib.greedy import select
from fisherlib.selectors import near_duplicates


def second_copy(answer, V: np.ndarray, x: np.ndarray) -> None:
    """`answer`: the gain of x, given the information V."""
    import torch

    expected = fisher.gain(torch.from_numpy(V), torch.from_numpy(np.atleast_2d(x)))
    attempt("the gain of a second copy", answer, expected, atol=1e-3)


def length_of_picks(answer, features: TokenFeatures, picks: int, prior: float) -> None:
    """`answer`: the mean number of tokens of so many picks by absolute gain."""
    lengths = select(features, examples=picks, prior=prior).costs if answer is not ... else [0.0]
    attempt("the mean length of the picks by absolute gain", answer, np.mean(lengths), atol=1e-6)


def share_of_copies(answer, rows: Dataset, threshold: float) -> None:
    """`answer`: the share of rows that are near-copies of an earlier row."""
    groups = near_duplicates(rows, threshold=threshold)
    attempt("the share of near-copies", answer, np.mean(groups != np.arange(len(groups))), atol=1e-9)
