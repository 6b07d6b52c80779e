"""Checkers of the exercises of notebook 12."""

from itertools import product

import numpy as np

from fisherlib.course.notebook import attempt
from fisherlib.evaluation.decisions import decide

P, DIGITS = np.array([0.1, 0.1, 0.1, 0.3, 0.4]), np.arange(1.0, 6)


def samples_needed(my_k) -> None:
    """From how many samples on the mean of samples has a smaller expected squared error than the mode, for chances `P`."""
    mode = float(decide(P[None], DIGITS, "exact")[0])
    of_mode, k = float(P @ (DIGITS - mode) ** 2), 1
    while _risk_of_mean(k) >= of_mode:
        k += 1
    attempt("from here on samples beat the mode", my_k, k)


def _risk_of_mean(k: int) -> float:
    """By enumeration of all samples."""
    risks = (
        np.prod(P[list(s)]) * float(P @ (DIGITS - DIGITS[list(s)].mean()) ** 2) for s in product(range(len(P)), repeat=k)
    )
    return float(sum(risks))


def lopsided(my_p) -> None:
    """Chances of 1 to 5 whose median is 1 while their mean is at least 2.5. Raises `AssertionError` with what they are."""
    if my_p is not ...:
        p = np.asarray(my_p, dtype=float)
        if p.shape != (5,) or (p < 0).any() or abs(p.sum() - 1) > 1e-9:
            raise AssertionError(f"expected five chances of at least 0 that sum to 1, got {my_p}")
        mean, median = (float(decide(p[None], DIGITS, metric)[0]) for metric in ("squared", "absolute"))
        if median != 1 or mean < 2.5:
            raise AssertionError(f"the median of these is {median:g} and the mean {mean:g}: wanted 1, and at least 2.5")
    attempt("the median stays, the mean moves", my_p if my_p is ... else True, True)


def factors(my_A, my_B) -> None:
    """Two pairs of factors with one product that is not zero; the product of their means is. Raises `AssertionError`."""
    is_open = my_A is ... or my_B is ...
    if not is_open:
        A, B = [np.asarray(a, dtype=float) for a in my_A], [np.asarray(b, dtype=float) for b in my_B]
        if len(A) != 2 or len(B) != 2 or any(m.ndim != 2 for m in (*A, *B)) or A[0].shape[0] != B[0].shape[1]:
            raise AssertionError("expected two matrices A and two matrices B whose products B @ A exist")
        first, second = B[0] @ A[0], B[1] @ A[1]
        if not np.allclose(first, second) or not np.abs(first).max() > 1e-6:
            raise AssertionError(f"expected two equal updates that are not zero, got\n{first}\nand\n{second}")
        merged = (B[0] + B[1]) @ (A[0] + A[1]) / 4
        if not np.allclose(merged, 0):
            raise AssertionError(f"expected nothing left of the averaged factors, their product is\n{merged}")
    attempt("averaged factors lose the update", ... if is_open else True, True)
