"""The better of two selections, improved by exchanges: `select(rule="best")`, for budgets of tokens. (Extension.)

By gain, a greedy choice may spend the whole budget on few long examples; by gain per token, it may leave a rest that nothing
fits into. Either can be arbitrarily bad. The better of the two is not: it has at least (1 - 1/e) / 2 of the most that the
budget can buy (Leskovec et al. 2007, section 3; notebook 02 proves it). Exchanges come on top, and only ever add.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fisherlib.greedy.budget import Budget
from fisherlib.greedy.information import Information

_SIDE = 64  # picks and others that an exchange is looked for among
_OTHERS = 256  # others, of the highest gain at first, that are evaluated anew in each round
_ROUNDS = 32
_WORTH = 1e-4  # of the objective: an exchange that adds less ends the search


def improve(information: Information, picks: list[int], kept: int, budget: Budget) -> list[int]:
    """Exchange one pick for one other example while that adds information and what is left pays for the difference.

    `information` (float64) and `budget` are those after all picks, and follow the exchanges. The first `kept` picks stay.
    At most 32 exchanges, each the best one among the 64 picks that would be missed least and the 64 others that would add
    most: all pairs in a small pool. Returns the picks, new ones last. O(N T d^2 + rounds (n T d^2 + d^3)).
    """
    picks, objective = list(picks), float(torch.linalg.slogdet(information.V)[1])
    affordable = np.flatnonzero(budget.free & (budget.price > 0) & (budget.price <= budget.left + budget.price[picks].max()))
    if len(affordable) > _OTHERS:
        gains = information.exact(affordable)
        affordable = np.sort(affordable[np.argsort(-gains, kind="stable")[:_OTHERS]])
    for _ in range(_ROUNDS):
        others = affordable[budget.free[affordable]]
        if len(picks) == kept or not len(others):
            break
        added, out, into = _best_exchange(information, np.array(picks[kept:]), others, budget)
        if added <= _WORTH * abs(objective):
            break
        information.exchange(out, into)
        budget.give_back(out)
        budget.take(into)
        picks.remove(out)
        picks.append(into)
        objective += added
    return picks


def _best_exchange(
    information: Information, picks: np.ndarray, others: np.ndarray, budget: Budget
) -> tuple[float, int, int]:
    """What the best exchange adds, who goes out and who comes in; minus infinity if none can be paid for.

    With A_i = X_i V^-1/2, taking i out leaves V - X_i^T X_i, whose log-determinant is lower by -log det(I - A_i A_i^T); and
    then j adds log det(I + A_j A_j^T + C (I - A_i A_i^T)^-1 C^T), where C = A_j A_i^T (Woodbury).
    """
    losses = np.zeros(len(picks))
    for part in information.blocks.parts(picks):
        A = _whitened(information, picks[part])
        losses[part] = -_log_det(-A @ A.mT)
    picks = picks[np.argsort(losses, kind="stable")[:_SIDE]]
    others = np.sort(others[np.argsort(-information.exact(others), kind="stable")[:_SIDE]])
    information.evaluations += len(picks) * len(others)
    B = _whitened(information, others)
    G, best = B @ B.mT, (-np.inf, -1, -1)
    for i in picks.tolist():
        A = _whitened(information, np.array([i]))[0]
        factor, failed = torch.linalg.cholesky_ex(torch.eye(len(A), dtype=A.dtype, device=A.device) - A @ A.T)
        if failed:  # nothing else holds its directions: nobody can replace it
            continue
        W = torch.linalg.solve_triangular(factor, (B @ A.T).mT, upper=False)
        added = _log_det(G + W.mT @ W) + 2 * float(factor.diagonal().log().sum())
        added[~budget.may_replace(i, others)] = -np.inf
        if (most := float(added.max())) > best[0]:
            best = (most, i, int(others[added.argmax()]))
    return best


def _whitened(information: Information, examples: np.ndarray) -> Float[Tensor, "B T d"]:
    return information.blocks.padded(examples, torch.float64) @ information.root


def _log_det(G: Float[Tensor, "B T T"]) -> Float[np.ndarray, " B"]:
    """log det(I + G) of each; minus infinity where that is not positive definite."""
    factor, failed = torch.linalg.cholesky_ex(G + torch.eye(G.shape[-1], dtype=G.dtype, device=G.device))
    log_dets = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return torch.where(failed == 0, log_dets, -torch.inf).cpu().numpy()
