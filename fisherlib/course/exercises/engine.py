"""Checkers of notebook 03: of exercises, and of its small engine against the library's."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from fisherlib.course.notebook import attempt, check
from fisherlib.features import TokenFeatures
from fisherlib.greedy.information import Information, inverse_root
from fisherlib.greedy.screen import Screen

GAINS = np.array([40.0, 39.8, 39.1, 38.0, 40.3, 12.0])
ERRORS = np.array([0.2, 0.5, 0.8, 0.5, 0.6, 27.0])


def against(before: float, after: float) -> str:
    """How a time compares with another, as words: those within a tenth are a tie."""
    times = max(before, after) / min(before, after)
    return "a tie with" if times < 1.1 else f"{times:,.1f} times {'faster' if after < before else 'slower'} than"


def margins(screen: Callable, features: TokenFeatures, matrices: dict[str, Tensor], dtype: str) -> dict[str, np.ndarray]:
    """Estimates and true errors of every gain after each matrix V, {stage: [2, N]}: those of the library's own screen.

    `screen(blocks, R, dtype)`: the lesson's, as gains and estimates. Raises `AssertionError` for a gain outside the margin
    of either, or where the library is less cautious than the lesson.
    """
    found, every = {}, np.arange(len(features))
    low = getattr(torch, dtype)
    for stage, V in matrices.items():
        state = Information(features, V, "none", "cpu")
        gains, estimates = (x.numpy() for x in Screen(state, low).gains(every))
        true = state.exact(every)
        found[stage] = np.array([estimates, np.abs(gains - true)])
        ours = np.array(screen([features[i].double() for i in every], inverse_root(state.V), low))
        if (np.abs(ours[0] - true) > ours[1]).any():
            raise AssertionError(f"a gain of the small screen in {dtype} lies outside its margin, {stage}")
        if (found[stage][1] > found[stage][0]).any():
            raise AssertionError(
                f"no gain in {dtype} lies outside its margin: expected that of the library's screen, {stage}"
            )
        if (estimates < 0.9 * ours[1]).any():
            raise AssertionError(f"the library's estimates in {dtype} are those of the formula or larger: not so {stage}")
    check(f"no gain in {dtype} lies outside its margin, in {len(matrices)} stages of the selection", True)
    return found


def root(update: Callable, features: TokenFeatures, picks: Sequence[int], prior: float) -> None:
    """`update(R, X)` against the library's own update of its root, over these picks, and against a fresh inverse."""
    state = Information(features, prior, "none", "cpu")
    R = state.root.clone()
    for i in picks:
        R = update(R, features[i].double())
        state.add(i)
    truth = prior * state.V.inverse()
    check(f"(4) after {len(picks)} updates without a fresh start", prior * R @ R.T, truth, atol=1e-6)
    check("the library's root", prior * state.root @ state.root.T, truth, atol=1e-6)


def finalists(mine) -> None:
    """`mine`: who of GAINS +- ERRORS may still win, as a list of indices."""
    claim = "who may still win"
    if mine is ...:
        return attempt(claim, ..., ...)
    mine, floor = sorted(int(i) for i in mine), (GAINS - ERRORS).max()
    expected = np.flatnonzero(floor <= GAINS + ERRORS).tolist()
    if missing := sorted(set(expected) - set(mine)):
        raise AssertionError(
            f"{claim}: example {missing[0]} may have {GAINS[missing[0]] + ERRORS[missing[0]]:g}. Is that too low?"
        )
    if extra := sorted(set(mine) - set(expected)):
        raise AssertionError(f"{claim}: example {extra[0]} is out. Which gain is certainly reached by someone?")
    check(claim, True)


def one_token_update(mine: Callable) -> None:
    """`mine(R, x)`: the root after one token, for x [1, d]."""
    claim = "the root's update for one token"
    for d in (1, 4):
        draw = torch.Generator().manual_seed(d)
        A, x = (torch.randn(rows, d, generator=draw).double() for rows in (d, 1))
        V = torch.eye(d).double() + A.T @ A
        got = mine(inverse_root(V), x)
        if got is ...:
            return attempt(claim, ..., ...)
        if got.shape != (d, d):
            raise AssertionError(
                f"{claim}: expected a matrix [{d}, {d}], got {tuple(got.shape)}. Is w^T w an outer product?"
            )
        if not torch.allclose(got @ got.T, (V + x.T @ x).inverse(), atol=1e-9):
            raise AssertionError(
                f"{claim}: R R^T is not the new inverse, for d = {d}. With d = 1 it is a number: try that first."
            )
    check(claim, True)


def corner(mine) -> None:
    """`mine`: the smallest batch that is limited by arithmetic, on the GPU of the exercise."""
    claim = "the roof's corner"
    if mine is ...:
        return attempt(claim, ..., ...)
    T, d = 50, 576
    before, here = (2 * T * d**2 / (2 * (T * d + d**2 / B)) if B else 0.0 for B in (int(mine) - 1, int(mine)))
    if here < 1000 / 3:
        raise AssertionError(f"{claim}: {mine} gains at once are still limited by memory. Try more.")
    if before >= 1000 / 3:
        raise AssertionError(f"{claim}: {int(mine) - 1} gains at once are limited by arithmetic already. Try fewer.")
    check(claim, True)


def removal(mine: Callable) -> None:
    """`mine(R, X)`: the root once X is taken out again."""
    claim = "taking an example out"
    draw = torch.Generator().manual_seed(0)
    A, X = (torch.randn(rows, 6, generator=draw).double() for rows in (9, 3))
    V = torch.eye(6).double() + A.T @ A
    got = mine(inverse_root(V + X.T @ X), X)
    if got is ...:
        return attempt(claim, ..., ...)
    if not torch.allclose(got @ got.T, V.inverse(), atol=1e-9):
        raise AssertionError(f"{claim}: R R^T is not the inverse of V without X. Which signs of (4) change?")
    check(claim, True)
