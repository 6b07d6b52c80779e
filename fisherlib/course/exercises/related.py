"""Checkers of the exercises of notebook 07."""

from itertools import combinations

import numpy as np
from scipy.sparse import csr_array

from fisherlib.course.notebook import attempt
from fisherlib.selectors.adaicl import cover
from fisherlib.selectors.sparft import farthest_first
from fisherlib.training import ThompsonCurriculum


def falls_short(my_nets) -> None:
    """A square table of booleans for which two greedy picks cover less than the best two. Raises `AssertionError`."""
    if my_nets is not ...:
        nets = np.asarray(my_nets, dtype=bool)
        if nets.ndim != 2 or nets.shape[0] != nets.shape[1]:
            raise AssertionError(f"expected a square table, one row and one column for each example, got {nets.shape}")
        greedy = cover(csr_array(nets.astype(float)), np.ones(len(nets)), 2)
        covered = {picks: int(nets[list(picks)].any(0).sum()) for picks in combinations(range(len(nets)), 2)}
        mine, best = int(nets[greedy].any(0).sum()), max(covered.values())
        if mine >= best:
            raise AssertionError(f"greedy takes {greedy.tolist()} and covers {mine}, as many as the best two: {best}")
    attempt("greedy falls short", my_nets if my_nets is ... else True, True)


def farthest(my_order) -> None:
    """An order of points, the farthest first, compared with the library's. Raises `AssertionError` that shows both."""
    if my_order is not ...:
        for seed in range(5):
            Z = np.random.default_rng(seed).normal(size=(9, 2))
            mine, expected = list(my_order(Z)), farthest_first(Z).tolist()
            if mine != expected:
                raise AssertionError(f"for the points\n{Z.round(2)}\nthe library's order is {expected}, yours is {mine}")
    attempt("my order is the library's", my_order if my_order is ... else True, True)


def dead_pull(my_chance) -> None:
    """The chance that the next batch comes from a cluster that never brought a reward: 8 tries each, 0 and 0.3, s = 1/2."""
    two = ThompsonCurriculum(2, seed=0)
    for _ in range(8):
        two.update(0, 0.0)
        two.update(1, 0.3)
    drawn = np.mean([two.next() == 0 for _ in range(20_000)])
    attempt("the pull of the dead cluster", my_chance, drawn, atol=0.01)


def overlap_by_chance(my_overlap, examples: int, picked: int) -> None:
    """The mean Jaccard overlap of two arms that take `picked` of `examples` by chance."""
    rng = np.random.default_rng(0)
    drawn = [[set(rng.choice(examples, picked, replace=False).tolist()) for _ in range(2)] for _ in range(2000)]
    attempt("overlap by chance", my_overlap, np.mean([len(a & b) / len(a | b) for a, b in drawn]), atol=0.02)
