"""The mathematics of FisherSFT, plainly: small sizes, float64, to be read next to notebooks 01 and 02.

A language model's last layer is a softmax regression. With the features of one token `x` [d], the head `Theta` [L, d] and
`p = softmax(Theta x)` [L], the negative log-likelihood (NLL) of one token has the Hessian `A(p) kron x x^T` with
`A(p) = diag(p) - p p^T`. The Hessian of M tokens, with features `X` [M, d] and probabilities `P` [M, L], is the sum.

Nothing here is fast or needs to be: the selection itself is in `fisherlib.greedy`. "Derived here" marks what follows from
the definitions by a proof in the notebooks; the constants of the paper's own lemma were not available to us.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

# --- one token -------------------------------------------------------------------------------------------------------


def softmax_covariance(p: Float[Tensor, "*batch L"]) -> Float[Tensor, "*batch L L"]:
    """`A(p) = diag(p) - p p^T`, the covariance of a one-hot draw from `p`; a batch gives a batch.

    Symmetric, positive semi-definite, and singular: its rows sum to zero. Raises `ValueError` if `p` is no probability
    vector. Source: textbook (multinomial logistic regression).
    """
    p = _probabilities(p)
    return torch.diag_embed(p) - p[..., :, None] * p[..., None, :]


def smallest_eigenvalue(p: Float[Tensor, "*batch L"]) -> Float[Tensor, "*batch"]:
    """The smallest non-zero eigenvalue of `A(p)`, on the complement of its null vector 1; needs every `p > 0`.

    It is 1 over the largest eigenvalue of the pseudo-inverse, which is `C diag(1/p) C` with the centring matrix
    `C = I - 1 1^T / L`: accurate even where the eigenvalue is far below rounding error. Source: derived here.
    """
    p = _positive(_probabilities(p))
    L = p.shape[-1]
    centring = torch.eye(L, dtype=torch.float64) - 1 / L
    return 1 / torch.linalg.eigvalsh(centring @ torch.diag_embed(1 / p) @ centring)[..., -1]


def trace_weights(P: Float[Tensor, "M L"]) -> Float[Tensor, " M"]:
    """`tr A(p) = 1 - ||p||^2` of each token: near 1 where the model is unsure, 0 where it is certain.

    Raises `ValueError` if a row is no probability vector. Source: extension (the weights of `weighting="trace"`).
    """
    return 1 - _probabilities(P).square().sum(-1)


# --- many tokens -----------------------------------------------------------------------------------------------------


def hessian(
    X: Float[Tensor, "M d"], P: Float[Tensor, "M L"], *, layout: Literal["Ld", "dL"] = "Ld"
) -> Float[Tensor, "Ld Ld"]:
    """The exact Hessian of the summed NLL in the flattened `Theta`; it does not depend on the labels.

    `layout` says how Theta is flattened (row-major), and with it the order of the Kronecker product:
    "Ld" for `Theta` [L, d] gives `sum_t A_t kron x_t x_t^T`, "dL" for `Theta` [d, L] gives `sum_t x_t x_t^T kron A_t`.
    Memory O(M L^2 + (L d)^2). Raises `ValueError` for shapes that do not fit, rows of P that are no probabilities, or an
    unknown layout. Source: the full Hessian of the paper; the two orders are derived here.
    """
    X, P = _tokens(X, P)
    return _summed_products(X, softmax_covariance(P), layout)


def reference_hessian(X: Float[Tensor, "M d"], P: Float[Tensor, "M L"]) -> Float[Tensor, "Rd Rd"]:
    """The Hessian with the last class as the reference (its row of Theta fixed at 0): R = L - 1 classes, layout "Ld".

    It is invertible when `sum x x^T` is and every p > 0, and `log pdet hessian = log det reference_hessian + d log L`.
    Raises `ValueError` as `hessian` does. Source: derived here.
    """
    X, P = _tokens(X, P)
    return _summed_products(X, softmax_covariance(P)[:, :-1, :-1], "Ld")


def _summed_products(X, A, layout):
    if layout not in ("Ld", "dL"):
        raise ValueError(f"expected layout 'Ld' (Theta stored [L, d]) or 'dL' (Theta stored [d, L]), got {layout!r}")
    axes = "tkl,ti,tj->kilj" if layout == "Ld" else "tkl,ti,tj->ikjl"
    size = A.shape[-1] * X.shape[-1]
    return torch.einsum(axes, A, X, X).reshape(size, size)


def log_pdet(H: Float[Tensor, "n n"], *, rtol: float = 1e-10) -> float:
    """The log pseudo-determinant: the sum of the logs of the non-zero eigenvalues of a symmetric PSD matrix.

    An eigenvalue counts as zero up to `rtol` times the largest; the zero matrix has none, and log pdet 0. Raises
    `ValueError` for a matrix that is not square, symmetric and positive semi-definite. Source: textbook.
    """
    values = torch.linalg.eigvalsh(_symmetric("H", H))
    threshold = rtol * float(values.abs().max()) if len(values) else 0.0
    if len(values) and float(values[0]) < -threshold:
        raise ValueError(f"expected a positive semi-definite H, got the eigenvalue {float(values[0]):.3g}")
    return float(values[values > threshold].log().sum())


def information_matrix(
    X: Float[Tensor, "M d"],
    *,
    weights: Float[Tensor, " M"] | None = None,
    prior: float | int | Float[Tensor, "d d"] = 0.0,
) -> Float[Tensor, "d d"]:
    """`V = prior I + sum_t w_t x_t x_t^T`; weights are 1 by default, and `prior` is sigma0^2 or a matrix V0 [d, d].

    Raises `ValueError` for weights of another length or below zero, or a prior below zero. Source: paper (unweighted).
    """
    X = _matrix("X", X)
    w = torch.ones(len(X), dtype=torch.float64) if weights is None else weights.double()
    if w.shape != (len(X),) or bool((w < 0).any()):
        raise ValueError(f"expected one weight >= 0 for each of the {len(X)} rows of X, got shape {tuple(w.shape)}: {w}")
    return (X * w[:, None]).T @ X + _prior(prior, X.shape[1])


# --- the sandwich ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sandwich:
    """`lower <= log_pdet <= upper_weighted <= upper_uniform <= upper_boehning`; `gamma` is the constant of `lower`."""

    lower: float
    log_pdet: float
    upper_weighted: float
    upper_uniform: float
    upper_boehning: float
    gamma: float


def sandwich(X: Float[Tensor, "M d"], P: Float[Tensor, "M L"]) -> Sandwich:
    """The log pseudo-determinant of the exact Hessian H between bounds that need only d x d matrices.

    With `V = sum x x^T`, `V_w = sum (1 - ||p||^2) x x^T` and gamma the smallest of `smallest_eigenvalue(p_t)`:

        (L-1) (log det V + d log gamma) <= log pdet H <= (L-1) (log det V_w - d log(L-1))
                                                      <= (L-1) (log det V - d log L) <= (L-1) (log det V - d log 2)

    log pdet H is computed as `log det reference_hessian + d log L`, which needs no threshold for zero. Raises `ValueError`
    if V is singular (then no bound holds), or as `hessian` does. Source: derived here; the paper states a lower bound of
    this kind, whose constants were not available to us.
    """
    X, P = _tokens(X, _positive(_probabilities(P)))
    P = P[:, P.mean(0).argsort()]  # the likeliest class as the reference: it loses least to rounding
    d, L = X.shape[1], P.shape[1]
    log_det_V = _log_det(_invertible("V = sum x x^T", information_matrix(X)))
    log_det_Vw = _log_det(information_matrix(X, weights=trace_weights(P)))
    gamma = float(smallest_eigenvalue(P).min())
    return Sandwich(
        lower=(L - 1) * (log_det_V + d * math.log(gamma)),
        log_pdet=_log_det(reference_hessian(X, P)) + d * math.log(L),
        upper_weighted=(L - 1) * (log_det_Vw - d * math.log(L - 1)),
        upper_uniform=(L - 1) * (log_det_V - d * math.log(L)),
        upper_boehning=(L - 1) * (log_det_V - d * math.log(2)),
        gamma=gamma,
    )


def ridge_sandwich(X: Float[Tensor, "M d"], P: Float[Tensor, "M L"], ridge: float) -> tuple[float, float]:
    """`(lower, exact)` of the Hessian plus a ridge s, where V may be singular:

        (L-1) log det(gamma V + s I_d) + d log s  <=  log det(H + s I_Ld)

    The term d log s is the ridge alone, on the d directions in which H is zero. Equality at Theta = 0. Raises `ValueError`
    for a ridge that is not positive, or as `hessian` does. Source: derived here.
    """
    if not ridge > 0:
        raise ValueError(f"expected a ridge > 0, got {ridge}")
    X, P = _tokens(X, P)
    d, L = X.shape[1], P.shape[1]
    gamma = float(smallest_eigenvalue(P).min())
    small = gamma * information_matrix(X) + ridge * torch.eye(d, dtype=torch.float64)
    full = hessian(X, P) + ridge * torch.eye(L * d, dtype=torch.float64)
    return (L - 1) * _log_det(small) + d * math.log(ridge), _log_det(full)


# --- the gain of an example ------------------------------------------------------------------------------------------


def gain(V: Float[Tensor, "d d"], X: Float[Tensor, "T d"]) -> float:
    """`log det(V + X^T X) - log det V = log det(I_T + X V^-1 X^T)`, by the determinant lemma on the T x T side.

    An example without tokens gains 0. Raises `ValueError` if V is not positive definite or the widths differ.
    Source: paper (the gain); the lemma is textbook.
    """
    V, X = _invertible("V", V), _matrix("X", X)
    _same_width(V, X)
    return _log_det(torch.eye(len(X), dtype=torch.float64) + X @ torch.linalg.solve(V, X.T))


def woodbury_update(V_inverse: Float[Tensor, "d d"], X: Float[Tensor, "T d"]) -> Float[Tensor, "d d"]:
    """`(V + X^T X)^-1` from `V^-1`, at the price of one T x T solve: O(T d^2 + T^3) instead of O(d^3).

    Raises `ValueError` if `V_inverse` is not positive definite or the widths differ. Source: textbook (Woodbury).
    """
    V_inverse, X = _invertible("V_inverse", V_inverse), _matrix("X", X)
    _same_width(V_inverse, X)
    U = X @ V_inverse  # [T, d]
    updated = V_inverse - U.T @ torch.linalg.solve(torch.eye(len(X), dtype=torch.float64) + U @ X.T, U)
    return (updated + updated.T) / 2


def certificate(V0: Float[Tensor, "d d"], blocks: Sequence[Float[Tensor, "_ d"]], picks: Sequence[int]) -> float:
    """An upper bound on `f(S) = log det V - log det V0` for *every* set S of `len(picks)` examples, made from one of them.

    `blocks[i]` is `X_i` [T_i, d]. With `V = V0 + sum_{i in picks} X_i^T X_i` and `t_i = tr(X_i V^-1 X_i^T)`, concavity of
    log det gives  f(any) <= f(picks) + (sum of the n largest t) - (sum of t over picks).
    Raises `ValueError` for a prior that is not positive definite, widths that differ, or picks that repeat or do not
    exist. Source: derived here, an extension.
    """
    V0 = _invertible("V0", V0)
    blocks = [_matrix(f"blocks[{i}]", X) for i, X in enumerate(blocks)]
    for X in blocks:
        _same_width(V0, X)
    if len(set(picks)) != len(picks) or not set(picks) <= set(range(len(blocks))):
        raise ValueError(f"expected distinct picks from 0 to {len(blocks) - 1}, got {list(picks)}")
    V = V0 + sum(blocks[i].T @ blocks[i] for i in picks)
    t = torch.stack([torch.trace(X @ torch.linalg.solve(V, X.T)) for X in blocks])
    slack = t.sort(descending=True).values[: len(picks)].sum() - t[list(picks)].sum()
    return _log_det(V) - _log_det(V0) + float(slack)


# --- what may come in ------------------------------------------------------------------------------------------------


def _probabilities(p: Tensor) -> Tensor:
    p = p.double()
    if p.ndim == 0 or p.shape[-1] < 2 or bool((p < 0).any()) or not bool(((p.sum(-1) - 1).abs() < 1e-5).all()):
        raise ValueError(f"expected probabilities: at least 2 numbers >= 0 that sum to 1 along the last axis, got {p}")
    return p


def _positive(p: Tensor) -> Tensor:
    if not bool((p > 0).all()):
        raise ValueError("expected every probability to be > 0, got a zero: leave out tokens that cannot occur")
    return p


def _matrix(name: str, X: Tensor) -> Tensor:
    if X.ndim != 2 or not bool(X.isfinite().all()):
        raise ValueError(f"expected {name} to be a matrix of finite numbers, one row per token, got shape {tuple(X.shape)}")
    return X.double()


def _tokens(X: Tensor, P: Tensor) -> tuple[Tensor, Tensor]:
    X, P = _matrix("X", X), _matrix("P", P)
    if len(X) != len(P):
        raise ValueError(f"expected X [M, d] and P [M, L] with the same M, got {tuple(X.shape)} and {tuple(P.shape)}")
    return X, P


def _same_width(V: Tensor, X: Tensor) -> None:
    if X.shape[1] != V.shape[0]:
        raise ValueError(f"expected features of width {V.shape[0]}, as the matrix, got shape {tuple(X.shape)}")


def _symmetric(name: str, H: Tensor) -> Tensor:
    H = _matrix(name, H)
    if H.shape[0] != H.shape[1] or not torch.allclose(
        H, H.T, rtol=1e-8, atol=1e-8 * float(H.abs().max() if H.numel() else 0)
    ):
        raise ValueError(f"expected {name} to be square and symmetric, got shape {tuple(H.shape)}: use (H + H.T) / 2")
    return H


def _invertible(name: str, V: Tensor) -> Tensor:
    V = _symmetric(name, V)
    values = torch.linalg.eigvalsh(V)
    if not float(values[0]) > 1e-13 * float(values[-1]):
        raise ValueError(f"expected {name} to be positive definite, got the eigenvalue {float(values[0]):.3g}: add a prior")
    return V


def _prior(prior: float | int | Tensor, d: int) -> Tensor:
    V0 = torch.as_tensor(prior, dtype=torch.float64)
    V0 = V0 * torch.eye(d, dtype=torch.float64) if V0.ndim == 0 else V0
    if V0.shape != (d, d) or not bool((torch.diagonal(V0) >= 0).all()):
        raise ValueError(f"expected a prior >= 0, or a matrix [{d}, {d}], got {prior}")
    return V0


def _log_det(V: Tensor) -> float:
    return float(torch.linalg.slogdet(V).logabsdet)
