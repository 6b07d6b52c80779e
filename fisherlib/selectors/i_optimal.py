"""I-optimal design: the picks that leave the least variance in the predictions for a target."""

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Float, Int
from torch import Tensor

from fisherlib.features import TokenFeatures
from fisherlib.greedy import Budget
from fisherlib.selectors._contract import Ranking, selector


@selector("I-optimal")
def i_optimal(
    rows: Dataset | None,
    features: TokenFeatures,
    *,
    examples: int | None,
    tokens: float | int | None,
    target: TokenFeatures | None = None,
    rule: str = "gain",
    prior: float | int = 1.0,
) -> Ranking:
    """Greedy minimisation of tr(V^-1 Sigma), where V = prior I + sum of x x^T over the picks and Sigma = mean of x x^T.

    Sigma is that of the tokens of `target`, by default of the pool itself: x^T V^-1 x is the variance of a prediction at x,
    so this is the mean variance over the target. log det V counts all directions alike; this counts them as often as the
    target needs them. `rule` as in `fl.select`: the largest reduction, or the largest reduction per token. `seed` is not
    used; ties (to 1e-9 of the best) go to the lowest index.
    The criterion is not submodular, so old gains bound nothing and each pick evaluates all: float64, O(M d T) time a pick
    for M tokens in the pool and examples of T, and O(M d) memory. The result's gains are those of log det, as for every
    selector.
    Source: extension (V- or I-optimality is classical optimal design). Raises `ValueError` for an unknown rule, a prior
    that is not positive, a target of another width or without tokens, and features that are not finite.
    """
    if rule not in ("gain", "gain_per_token"):
        raise ValueError(f"expected rule to be one of ('gain', 'gain_per_token'), got {rule!r}")
    if not 0 < prior < np.inf:
        raise ValueError(f"expected a positive, finite prior, got {prior}")
    aim = features if target is None else target
    if aim.dim != features.dim or not len(aim.values):
        raise ValueError(f"expected a target with tokens of width {features.dim}, got {len(aim.values)} of width {aim.dim}")
    X, Z = features.values.double(), aim.values.double()
    if not (torch.isfinite(X).all() and torch.isfinite(Z).all()):
        raise ValueError("expected finite features, got NaN or infinity: extract the features again")
    costs = features.lengths.numpy().astype(float)
    budget = Budget(costs, examples, tokens)
    state = _Variance(X, features.offsets, (Z.T @ Z / len(Z)).to(X.device), float(prior))
    divisor = np.where(costs > 0, costs, 1.0) if rule == "gain_per_token" else np.ones(len(features))
    picks: list[int] = []
    while (fits := budget.affordable() & (costs > 0)).any():
        value = np.where(fits, state.reductions() / divisor, -np.inf)
        best = int(np.argmax(value >= value.max() - 1e-9 * abs(value.max())))
        state.add(best)
        picks.append(best)
        budget.take(best)
    return Ranking(picks, {"rule": rule, "prior": prior, "target": "pool" if target is None else "given"})


class _Variance:
    """tr(V^-1 Sigma), and by how much each example would lower it: with W_i = X_i V^-1 and K_i = I + W_i X_i^T,

    tr(V^-1 Sigma) - tr((V + X_i^T X_i)^-1 Sigma) = tr(K_i^-1 W_i Sigma W_i^T)          (Woodbury)
    """

    def __init__(
        self, X: Float[Tensor, "M d"], offsets: Int[Tensor, " N_plus_1"], sigma: Float[Tensor, "d d"], prior: float
    ):
        # Examples of one length lie side by side, so that they are solved as one batch without being copied together first.
        self.lengths = offsets.diff().numpy()
        self.order = np.argsort(self.lengths, kind="stable")
        self.first = np.empty(len(self.order), dtype=np.int64)
        self.first[self.order] = np.cumsum(self.lengths[self.order]) - self.lengths[self.order]
        self.X = torch.cat([X[int(offsets[i]) : int(offsets[i + 1])] for i in self.order])
        self.sigma = sigma
        self.W = self.X / prior
        self.Y = self.W @ sigma

    def reductions(self) -> Float[np.ndarray, " N"]:
        """Of every example; 0 for one without tokens."""
        found = np.zeros(len(self.order))
        for T in np.unique(self.lengths[self.lengths > 0]):
            ids = self.order[self.lengths[self.order] == T]
            begin, end = int(self.first[ids[0]]), int(self.first[ids[-1]] + T)
            X, W, Y = (part[begin:end].view(len(ids), int(T), -1) for part in (self.X, self.W, self.Y))
            K = torch.eye(int(T), dtype=W.dtype, device=W.device) + W @ X.mT
            solved, failed = torch.linalg.solve_ex(K, Y @ W.mT)
            if failed.any() or not torch.isfinite(solved).all():
                raise ValueError("expected features that float64 can hold beside this prior, got larger ones: raise prior=")
            found[ids] = solved.diagonal(dim1=1, dim2=2).sum(1).cpu().numpy()
        return found

    def add(self, i: int) -> None:
        """V grows by X_i^T X_i: V^-1 loses B^T B, B = L^-1 W_i for the Cholesky factor L of K_i."""
        mine = slice(int(self.first[i]), int(self.first[i] + self.lengths[i]))
        K = torch.eye(mine.stop - mine.start, dtype=self.W.dtype, device=self.W.device) + self.W[mine] @ self.X[mine].T
        B = torch.linalg.solve_triangular(torch.linalg.cholesky(K), self.W[mine], upper=False)
        along = self.X @ B.T
        self.W -= along @ B
        self.Y -= along @ (B @ self.sigma)
