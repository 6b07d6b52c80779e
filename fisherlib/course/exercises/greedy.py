"""Checkers of notebook 02.

Those of functions return what the lesson goes on with: the reader's own if it is right, else the one here.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from fisherlib import fisher
from fisherlib.course.notebook import attempt, check
from fisherlib.features import TokenFeatures
from fisherlib.greedy import select


def small_pool(count: int, d: int, generator: torch.Generator) -> list[Tensor]:
    """Examples of 1 to 3 random tokens."""
    lengths = torch.randint(1, 4, (count,), generator=generator).tolist()
    return [torch.randn(T, d, generator=generator).double() for T in lengths]


def gain(mine: Callable) -> Callable:
    """`mine(V_inverse, X)`: the gain of an example, from a determinant as small as the example."""
    claim = "the gain from a T x T determinant"
    for T, d in ((1, 3), (2, 5), (4, 4)):
        X, V = _random(T, d, seed=T), _matrix(d)
        got = mine(V.inverse(), X)
        if got is ...:
            attempt(claim, ..., ...)
            return _gain
        if not np.isclose(float(got), fisher.gain(V, X), atol=1e-9):
            raise AssertionError(f"{claim}: it is wrong for an example of {T} tokens and d = {d}. See (3), and its hints.")
    check(claim, True)
    return mine


def misses(pool) -> None:
    """`pool`: three one-token examples in the plane on which greedy with two picks misses the best pair."""
    claim = "greedy misses the optimum"
    if pool is ...:
        return attempt(claim, ..., ...)
    blocks = [torch.as_tensor(X, dtype=torch.float64) for X in pool]
    if [tuple(X.shape) for X in blocks] != [(1, 2)] * 3:
        raise AssertionError(f"{claim}: expected three tensors of shape [1, 2], got {[tuple(X.shape) for X in blocks]}")
    values = {pair: _information(blocks, pair) for pair in ((0, 1), (0, 2), (1, 2))}
    picks = tuple(sorted(select(TokenFeatures.from_list(blocks), examples=2).indices.tolist()))
    if values[picks] > max(values.values()) - 1e-6:
        raise AssertionError(f"{claim}: here it finds the best pair, {picks}. Make the overlap with the first pick larger.")
    check(f"{claim}: it takes {picks} and reaches {values[picks] / max(values.values()):.0%}", True)


def lazy_greedy(mine: Callable) -> Callable:
    """`mine(blocks, n, V0, B, gain)`: greedy's picks, with no call of `gain` that algorithm 2 does without."""
    claim = "algorithm 2"
    blocks, V0 = [_random(1 + i % 4, 6, seed=i) for i in range(30)], torch.eye(6, dtype=torch.float64)
    for B in (1, 7, 30):
        picks = mine(blocks, 8, V0, B, _gain)
        if picks is ...:
            attempt(claim, ..., ...)
            return _algorithm_2
        expected = _algorithm_2(blocks, 8, V0, B, _gain)
        if list(picks) != expected:
            same = next((k for k, (a, b) in enumerate(zip(picks, expected, strict=False)) if a != b), len(picks))
            raise AssertionError(
                f"{claim}: for B = {B}, pick {same + 1} is not greedy's. Does V grow? Is a pick out of the race?"
            )
        ours, most = (int(np.isin(watched(f, blocks, 8, V0, B)[1], (1, 2)).sum()) for f in (mine, _algorithm_2))
        if ours > most:
            raise AssertionError(
                f"{claim}: for B = {B} it computes {ours} gains, {most} will do. Skip old gains up to the best."
            )
    check(claim, True)
    return mine


def watched(algorithm: Callable, blocks: Sequence[Tensor], n: int, V0: Tensor, B: int) -> tuple[list[int], np.ndarray]:
    """The picks of `algorithm`, and what it looked at, [n, N]: 0 skipped, 1 gain evaluated, 2 picked, 3 picked before."""
    number, calls = {id(X): i for i, X in enumerate(blocks)}, []

    def gain(V_inverse, X):
        if id(X) not in number:
            raise AssertionError("algorithm 2: call gain(V_inverse, blocks[i]) with the block itself, not a copy of it")
        calls.append((V_inverse, number[id(X)]))
        return _gain(V_inverse, X)

    picks = [int(i) for i in algorithm(blocks, n, V0, B, gain)]
    looked, k = np.zeros((n, len(blocks)), dtype=int), 0
    for before, (V_inverse, i) in zip([calls[0], *calls], calls, strict=False):
        k += not torch.equal(V_inverse, before[0])  # another matrix: the next pick
        looked[k, i] = 1
    for k, i in enumerate(picks):
        looked[k, i], looked[k + 1 :, i] = 2, 3
    return picks, looked


def gains_after(blocks: Sequence[Tensor], picks: Sequence[int], V0: Tensor) -> np.ndarray:
    """Everybody's gain once the first k of the picks are known, [picks, N]."""
    found, V = [], V0
    for i in picks:
        V_inverse = V.inverse()
        found.append([_gain(V_inverse, X) for X in blocks])
        V = V + blocks[i].T @ blocks[i]
    return np.array(found)


def certificate(mine: Callable) -> None:
    """`mine(blocks, S, V0)`: the bound (11) on what any set of len(S) examples can reach."""
    claim = "the certificate"
    blocks, V0 = [_random(1 + i % 4, 5, seed=i) for i in range(12)], torch.eye(5, dtype=torch.float64)
    for S in ([3, 7, 0], [1, 2], list(range(12))):
        got = mine(blocks, S, V0)
        if got is ...:
            return attempt(claim, ..., ...)
        if not np.isclose(float(got), fisher.certificate(V0, blocks, S), atol=1e-9):
            below = "below" if float(got) < fisher.certificate(V0, blocks, S) else "above"
            raise AssertionError(f"{claim}: for S = {S} it is {below} the right side of (11). All leverages use V_S.")
    check(f"{claim} is the library's", True)


def _gain(V_inverse: Tensor, X: Tensor) -> float:
    return float(torch.logdet(torch.eye(len(X), dtype=X.dtype) + X @ V_inverse @ X.T))


def _algorithm_2(blocks: Sequence[Tensor], n: int, V0: Tensor, B: int, gain: Callable) -> list[int]:
    V, old, S = V0, np.full(len(blocks), np.inf), []
    for _ in range(n):
        V_inverse, best = V.inverse(), 0.0
        for start in range(0, len(blocks), B):
            batch = np.arange(start, min(start + B, len(blocks)))
            for i in batch[old[batch] > best]:
                old[i] = gain(V_inverse, blocks[i])
            best = max(best, old[batch].max())
        S.append(int(old.argmax()))
        old[S[-1]], V = -np.inf, V + blocks[S[-1]].T @ blocks[S[-1]]
    return S


def _information(blocks: Sequence[Tensor], S: Sequence[int]) -> float:
    return float(torch.logdet(torch.eye(blocks[0].shape[1], dtype=torch.float64) + sum(blocks[i].T @ blocks[i] for i in S)))


def _random(T: int, d: int, seed: int) -> Tensor:
    return torch.randn(T, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _matrix(d: int) -> Tensor:
    X = _random(d, d, seed=99)
    return torch.eye(d, dtype=torch.float64) + X.T @ X
