"""Checkers of the exercises of notebook 06."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from fisherlib import judging
from fisherlib.course.notebook import attempt


def orders_by_chance(my_share) -> None:
    """In what share of questions two orders name the same text, if the judge says A in four of five."""
    says_a = np.random.default_rng(0).random((2, 400_000)) < 4 / 5
    attempt("orders that agree by chance", my_share, (says_a[0] != says_a[1]).mean(), atol=5e-3)


def prompts_needed(my_prompts) -> None:
    """How many prompts a judge needs to see v = 0.6: a judge that is always right, and one that is right at q = 0.75."""
    effects = np.array([(2 * q - 1) * 0.1 for q in (1, 0.75)])
    attempt("what a weaker judge costs", my_prompts, (1.96 / 2 / effects) ** 2, atol=1.0)


def blind_rule(my_rule, speeches: Mapping[str, Sequence[str]]) -> None:
    """A rule of two texts that passes two of the examinations. Raises `AssertionError` that says where it fails."""
    if my_rule is not ...:
        for kind in ("shuffled", "loop"):
            won = [_earned(my_rule, a, b) for a, b in zip(speeches["true"], speeches[kind], strict=True)]
            share = judging.share(range(len(won)), won)
            if share.verdict != "above":
                raise AssertionError(f"{kind}: expected the true text more often than by chance, got {share}")
    attempt("a rule that passes and understands nothing", my_rule if my_rule is ... else True, True)


def bradley_terry(my_fit) -> None:
    """Scores of tables of wins, compared with the library's. Raises `AssertionError` that shows both."""
    if my_fit is not ...:
        rng = np.random.default_rng(0)
        for K in (2, 3, 5):
            games = rng.integers(1, 9, (K, K)) * (1 - np.eye(K))
            mine, expected = np.asarray(my_fit(games)), judging.bradley_terry_scores(games)
            if mine.shape != (K,) or not np.allclose(mine, expected, atol=1e-4):
                raise AssertionError(f"for the wins\n{games}\nthe library's scores are {expected}, yours are {mine}")
    attempt("my fit is the library's", my_fit if my_fit is ... else True, True)


def _earned(rule: Callable[[str, str], str], true: str, other: str) -> float:
    """What the true text earns, both orders averaged."""
    points = {"A": 1.0, "tie": 0.5, "B": 0.0}
    answers = rule(true, other), rule(other, true)
    for answer in answers:
        if answer not in points:
            raise AssertionError(f'expected "A", "B" or "tie" from the rule, got {answer!r}')
    return (points[answers[0]] + 1 - points[answers[1]]) / 2
