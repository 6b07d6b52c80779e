"""Checkers of the exercises of notebook 10."""

import numpy as np
import torch

from fisherlib.course.notebook import attempt
from fisherlib.training.objectives import MATE
from fisherlib.training.self_play import best_response

_OPEN = "○ not answered yet: {}"


def runaway(my_losses) -> None:
    """MATE's loss, c = 0.5, of a model of two answers with log p(z) = -10, -100, -1000. Raises `AssertionError`."""
    claim = "MATE runs away"
    if my_losses is ...:
        print(_OPEN.format(claim))
        return
    bad = [torch.tensor([-float(far)], dtype=torch.float64) for far in (10, 100, 1000)]
    good = [torch.log1p(-z.exp()) for z in bad]  # the two probabilities sum to one
    expected = [float(MATE(c=0.5)(0, [y, z])) for y, z in zip(good, bad, strict=True)]
    mine = np.asarray(my_losses, dtype=float)
    if mine.shape == (3,) and np.allclose(mine, -np.asarray(expected), atol=1e-3):
        raise AssertionError(f"{claim}: MATE subtracts c CE(z); yours has the other sign")
    attempt(claim, mine, expected, atol=1e-3)


def speed(my_beta) -> None:
    """A beta for which two rounds leave a hundredth of log(p / p_data). Raises `AssertionError` that shows what is left."""
    claim = "a hundredth is left after two rounds"
    if my_beta is ...:
        print(_OPEN.format(claim))
        return
    rng = np.random.default_rng(0)
    p_data, p = rng.dirichlet(np.ones(5)), rng.dirichlet(np.ones(5))

    def spread(of: np.ndarray) -> float:
        gap = np.log(of / p_data)
        return float(gap.max() - gap.min())  # a constant in the logarithm does not count

    after = best_response(p_data, best_response(p_data, p, float(my_beta)), float(my_beta))
    attempt(claim, spread(after) / spread(p), 0.01, atol=1e-4)


def odds_ratio(my_orpo) -> None:
    """ORPO's loss of one row, weight 0.1, against its formula on drawn log-probabilities. Raises `AssertionError`."""
    claim = "my objective is ORPO"
    if my_orpo is ...:
        print(_OPEN.format(claim))
        return
    torch.manual_seed(0)
    for _ in range(5):
        parts = [torch.log(torch.rand(k, dtype=torch.float64)).requires_grad_() for k in (4, 7)]
        log_p = [part.mean() for part in parts]
        odds = [one - torch.log1p(-one.exp()) for one in log_p]
        expected = float((-log_p[0] - 0.1 * torch.nn.functional.logsigmoid(odds[0] - odds[1])).detach())
        mine = my_orpo(0, parts)
        if not isinstance(mine, torch.Tensor) or not mine.requires_grad:
            raise AssertionError(f"{claim}: expected a tensor with a gradient, got {mine!r:.60}: stay in torch")
        got = float(mine.detach())
        if not abs(got - expected) <= 1e-6:  # also catches NaN
            raise AssertionError(f"{claim}: expected {expected:.6f}, got {got:.6f}: means, then the odds")
    attempt(claim, True, True)
