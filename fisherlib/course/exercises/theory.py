"""Checkers of notebook 01. Each takes the reader's answer, or `...`, and what it is about."""

import numpy as np
import torch
from torch import Tensor

from fisherlib import fisher
from fisherlib.course.notebook import attempt


def fisher_information(answer, x: Tensor, p: Tensor) -> None:
    """`answer`: a function of the features x [d] and the probabilities p [L] of one token, giving a matrix [L d, L d]."""
    said = answer if answer is ... else answer(x, p)
    attempt("your sum over labels is the Hessian", said, fisher.hessian(x[None], p[None]), atol=1e-9)


def pseudo_determinant(answer) -> None:
    """`answer`: the pseudo-determinant of A(p) for p = (0.7, 0.2, 0.1)."""
    A = fisher.softmax_covariance(torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64))
    attempt("pdet A(p), by hand", answer, np.exp(fisher.log_pdet(A)), atol=1e-9)


def flat_direction(answer, X: Tensor, P: Tensor) -> None:
    """`answer`: a vector that the Hessian ignores when Theta is stored column after column."""
    said = answer
    if answer is not ...:
        if not float(answer.norm()) > 0:
            raise AssertionError("expected a vector that is not zero: zero is flat for every matrix")
        said = fisher.hessian(X, P, layout="dL") @ answer / answer.norm()
    attempt("the flat direction of the other order", said, np.zeros(X.shape[1] * P.shape[1]), atol=1e-9)


def geometric_weights(answer, P: Tensor) -> None:
    """`answer`: for each row of P the geometric mean of the non-zero eigenvalues of A(p)."""
    values = torch.linalg.eigvalsh(fisher.softmax_covariance(P))[:, 1:]
    attempt("geometric-mean weights", answer, values.log().mean(1).exp(), atol=1e-9)
