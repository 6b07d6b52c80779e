"""The rivals on token features: greedy log-determinant selection, each written straight from its formula.

They share what is not their idea (padding, one float64 Cholesky factor per pick), so a difference in time is one of method.
A rival is `(features, n, prior) -> Run`. Those too slow to finish are timed at single picks along a known greedy path.
"""

import heapq
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from fisherlib import TokenFeatures

BATCH_ELEMENTS = 2**22  # of one padded batch: 16 MB in float32, which stays in a CPU's last-level cache
STAGES = 20  # picks at which a rival that cannot finish is timed, at most


@dataclass
class Run:
    indices: np.ndarray  # in pick order; of an extrapolated run, the picks it made at `stages`
    seconds: float
    evaluations: int
    stages: list[int] | None = None  # extrapolated from these picks; None: it really ran to the end
    per_pick: list[int] = field(default_factory=list)  # evaluations at each pick
    snapshots: dict[int, np.ndarray] = field(default_factory=dict)  # algorithm 2's cached gains before some picks


Gains = Callable[[np.ndarray], np.ndarray]  # indices -> gains, for one fixed V


# --- the gain, in its two forms --------------------------------------------------------------------------------------


def by_determinant(features: TokenFeatures, V: Tensor) -> Gains:
    """log det(V + X_i^T X_i) - log det V as the paper writes it (algorithm 1): d x d determinants, float64."""
    now = _log_det(V)

    def gains(indices: np.ndarray) -> np.ndarray:
        return (_log_det(torch.stack([V + _gram(features, int(i)) for i in indices])) - now).numpy()

    return gains


def by_lemma(features: TokenFeatures, V: Tensor) -> Gains:
    """The same by the determinant lemma: log det(I + W W^T), W = X_i L^-T, V = L L^T. T x T determinants in float32.

    V and its factor stay float64: it grows without bound, and its rounding errors would reach every gain.
    """
    identity = torch.eye(features.dim, dtype=torch.float64)
    root = torch.linalg.solve_triangular(torch.linalg.cholesky(V), identity, upper=False).T.float()

    def gains(indices: np.ndarray) -> np.ndarray:
        W = projected(features, indices, root)
        gram = W @ W.mT
        gram.diagonal(dim1=1, dim2=2).add_(1.0)
        return _log_det(gram).double().numpy()

    return gains


def _log_det(matrix: Tensor) -> Tensor:
    return 2 * torch.linalg.cholesky_ex(matrix)[0].diagonal(dim1=-2, dim2=-1).log().sum(-1)


def projected(features: TokenFeatures, indices: np.ndarray, root: Tensor) -> Tensor:
    """X_i root of some examples, [B, T, d]. Rows of zeros fill up the shorter ones; they add nothing to a determinant.

    Filled up after the product, which is most of the work: otherwise a mixed batch would multiply as many zeros as tokens.
    """
    indices = torch.as_tensor(indices)
    lengths = features.lengths[indices]
    column = torch.arange(max(int(lengths.max()), 1))
    real = column < lengths[:, None]
    W = root.new_zeros(*real.shape, features.dim)
    W[real] = features.values[(features.offsets[indices][:, None] + column)[real]].to(root.dtype) @ root
    return W


def by_length(features: TokenFeatures, indices: np.ndarray, at_most: int | None = None) -> Iterator[np.ndarray]:
    """Batches of similar length, so that little is padded, and of bounded memory."""
    lengths = features.lengths.numpy()
    left = indices[np.argsort(-lengths[indices], kind="stable")]
    while len(left):
        size = max(BATCH_ELEMENTS // (max(int(lengths[left[0]]), 1) * features.dim), 1)
        size = min(size, at_most or size)
        yield left[:size]
        left = left[size:]


def information(features: TokenFeatures, indices, prior: float) -> Tensor:
    """V = prior I + sum of X_i^T X_i over the indices, float64."""
    V = prior * torch.eye(features.dim, dtype=torch.float64)
    for i in indices:
        V += _gram(features, int(i))
    return V


def objective(features: TokenFeatures, indices, prior: float) -> float:
    """log det V - log det V0 in float64: the one yardstick for every method's picks."""
    return float(_log_det(information(features, indices, prior))) - features.dim * float(np.log(prior))


def _gram(features: TokenFeatures, i: int) -> Tensor:
    X = features[i].double()
    return X.T @ X


# --- the algorithms --------------------------------------------------------------------------------------------------


def naive_pick(features: TokenFeatures, gains: Gains, available: np.ndarray, at_most: int | None = None) -> int:
    """One pick of algorithm 1: evaluate every candidate, take the best, the first on ties."""
    value = np.full(len(features), -np.inf)
    for part in by_length(features, np.flatnonzero(available), at_most):
        value[part] = gains(part)
    return int(value.argmax())


def naive(features: TokenFeatures, n: int, prior: float, gains_at=by_determinant) -> Run:
    """The paper's algorithm 1: every remaining candidate at every pick."""
    began = time.perf_counter()
    V = information(features, [], prior)
    available = np.ones(len(features), dtype=bool)
    picks, evaluations = [], 0
    for _ in range(n):
        evaluations += int(available.sum())
        picks.append(naive_pick(features, gains_at(features, V), available, at_most=_at_most(gains_at)))
        available[picks[-1]] = False
        V += _gram(features, picks[-1])
    return Run(np.array(picks), time.perf_counter() - began, evaluations)


def naive_extrapolated(features: TokenFeatures, path: np.ndarray, prior: float, gains_at, limit: float) -> Run:
    """What `naive` would take for the picks of `path`: single picks along it are made in full, spread over the run.

    Each is timed per evaluation; the total uses the true number of candidates left at each pick. `limit`: seconds to spend.
    """

    def pick(t: int) -> tuple[int, float, int]:
        available = np.ones(len(features), dtype=bool)
        available[path[:t]] = False
        V = information(features, path[:t], prior)
        began = time.perf_counter()  # naive keeps V: building it anew here is not its cost
        best = naive_pick(features, gains_at(features, V), available, at_most=_at_most(gains_at))
        return best, time.perf_counter() - began, int(available.sum())

    return _extrapolate(pick, [len(features) - t for t in range(len(path))], stages(len(path)), limit)


def _at_most(gains_at) -> int | None:
    return 32 if gains_at is by_determinant else None  # its batch holds d x d matrices, not T x d


def algorithm_2_pick(gains: Gains, cached: np.ndarray, available: np.ndarray, batch: int = 32) -> tuple[int, int]:
    """One pick of algorithm 2: batches in index order, only gains that can still win. Updates `cached` in place."""
    highest, evaluations = 0.0, 0
    for begin in range(0, len(cached), batch):
        part = np.arange(begin, min(begin + batch, len(cached)))
        part = part[available[part] & (cached[part] > highest)]
        if len(part):
            cached[part] = gains(part)
            highest = max(highest, cached[part].max())
            evaluations += len(part)
    return int(np.where(available, cached, -np.inf).argmax()), evaluations


def algorithm_2(features: TokenFeatures, n: int, prior: float, gains_at=by_lemma, batch: int = 32) -> Run:
    """The paper's algorithm 2: cached gains, evaluated again only where the old one exceeds the best so far."""
    began = time.perf_counter()
    V = information(features, [], prior)
    cached, available = np.full(len(features), np.inf), np.ones(len(features), dtype=bool)
    picks, per_pick, snapshots, watched = [], [], {}, set(stages(n))
    for t in range(n):
        if t in watched:
            snapshots[t] = cached.copy()
        best, evaluations = algorithm_2_pick(gains_at(features, V), cached, available, batch)
        picks.append(best)
        per_pick.append(evaluations)
        available[best] = False
        V += _gram(features, best)
    return Run(np.array(picks), time.perf_counter() - began, sum(per_pick), per_pick=per_pick, snapshots=snapshots)


def algorithm_2_extrapolated(features: TokenFeatures, whole: Run, prior: float, gains_at, limit: float) -> Run:
    """What `algorithm_2` would take with another form of the gain, from single picks along a `whole` run of it.

    The gains are the same numbers, so the evaluations at each pick are those of the whole run.
    """

    def pick(t: int) -> tuple[int, float, int]:
        available = np.ones(len(features), dtype=bool)
        available[whole.indices[:t]] = False
        V, cached = information(features, whole.indices[:t], prior), whole.snapshots[t].copy()
        began = time.perf_counter()
        best, evaluations = algorithm_2_pick(gains_at(features, V), cached, available)
        return best, time.perf_counter() - began, evaluations

    return _extrapolate(pick, whole.per_pick, sorted(whole.snapshots), limit)


def heap_lazy(features: TokenFeatures, n: int, prior: float, batch: int = 1) -> Run:
    """Minoux's lazy greedy with a heap: re-evaluate the top `batch` stale gains until a fresh one is on top.

    The first pass, over everything, is batched by length also when `batch` is 1: to its favour.
    """
    began = time.perf_counter()
    V = information(features, [], prior)
    gains, evaluations = by_lemma(features, V), len(features)
    heap = [
        (-gain, int(i))
        for part in by_length(features, np.arange(len(features)))
        for i, gain in zip(part, gains(part), strict=True)
    ]
    heapq.heapify(heap)  # of (-gain, index): the lowest index wins a tie
    fresh, picks = np.zeros(len(features), dtype=int), []  # fresh[i]: the pick for which gain i was computed
    for t in range(n):
        while fresh[heap[0][1]] != t:
            stale = []
            while heap and len(stale) < batch and fresh[heap[0][1]] != t:
                stale.append(heapq.heappop(heap)[1])
            for i, gain in zip(stale, gains(np.array(stale)), strict=True):
                heapq.heappush(heap, (-gain, i))
            fresh[stale] = t
            evaluations += len(stale)
        picks.append(heapq.heappop(heap)[1])
        V += _gram(features, picks[-1])
        gains = by_lemma(features, V)
    return Run(np.array(picks), time.perf_counter() - began, evaluations)


# --- extrapolation ---------------------------------------------------------------------------------------------------


def stages(n: int) -> list[int]:
    """Up to `STAGES` picks spread evenly over a run of n."""
    return sorted({int(t) for t in np.linspace(0, n - 1, min(n, STAGES)).round()})


def _extrapolate(pick, evaluations: list[int], at: list[int], limit: float) -> Run:
    """Time `pick(t) -> (best, seconds, evaluations)` at as many of the stages `at` as fit into `limit` seconds.

    Seconds per evaluation are interpolated between the stages and multiplied by the evaluations at each pick.
    """
    first = pick(at[0])
    fit = int(np.clip(limit / max(first[1], 1e-9), 2, len(at))) if len(at) > 1 else 1
    chosen = sorted({at[int(k)] for k in np.linspace(0, len(at) - 1, fit).round()})
    timed = {at[0]: first} | {t: pick(t) for t in chosen[1:]}
    rate = np.interp(np.arange(len(evaluations)), chosen, [timed[t][1] / max(timed[t][2], 1) for t in chosen])
    seconds = float((rate * np.array(evaluations)).sum())
    return Run(np.array([timed[t][0] for t in chosen]), seconds, int(np.sum(evaluations)), stages=chosen)
