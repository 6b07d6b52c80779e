"""Is the plain mathematics right? Identities and inequalities, on drawn problems; nothing here is a snapshot."""

import inspect
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fisherlib as fl
from fisherlib import fisher

few = settings(max_examples=60, deadline=None)


@st.composite
def problems(draw, classes=(2, 7), scales=(0.0, 0.1, 1.0, 3.0)):
    """Features [M, d] with M >= d, a head [L, d] at a drawn logit scale, and the probabilities."""
    d, L = draw(st.integers(1, 4)), draw(st.integers(*classes))
    M = draw(st.integers(2 * d, 10))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    X = torch.randn(M, d, generator=generator, dtype=torch.float64)
    Theta = draw(st.sampled_from(scales)) * torch.randn(L, d, generator=generator, dtype=torch.float64)
    return X, Theta, torch.softmax(X @ Theta.T, dim=1)


def log_det(V):
    return float(torch.linalg.slogdet(V).logabsdet)


def null_size(H):
    values = torch.linalg.eigvalsh(H)
    return int((values < 1e-10 * values.max()).sum())


@few
@given(problems(), st.integers(0, 2**31))
def test_hessian_is_autograd_s_in_both_layouts_and_in_no_other(problem, seed):
    X, Theta, P = problem
    L, d = Theta.shape
    labels = torch.from_numpy(np.random.default_rng(seed).integers(0, L, len(X)))

    def nll(flat, layout):
        head = flat.reshape(L, d) if layout == "Ld" else flat.reshape(d, L).T
        return torch.nn.functional.cross_entropy(X @ head.T, labels, reduction="sum")

    for layout, flat in (("Ld", Theta.flatten()), ("dL", Theta.T.flatten())):
        auto = torch.autograd.functional.hessian(lambda theta, layout=layout: nll(theta, layout), flat)
        torch.testing.assert_close(fisher.hessian(X, P, layout=layout), auto, rtol=0, atol=1e-12)
    by_kron = sum(torch.kron(fisher.softmax_covariance(p), torch.outer(x, x)) for p, x in zip(P, X, strict=True))
    torch.testing.assert_close(fisher.hessian(X, P), by_kron, rtol=0, atol=1e-12)


def test_the_wrong_kronecker_order_is_far_off():
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(8, 3, generator=generator, dtype=torch.float64)
    P = torch.softmax(torch.randn(8, 5, generator=generator, dtype=torch.float64), 1)
    one, other = fisher.hessian(X, P), fisher.hessian(X, P, layout="dL")
    assert (one - other).abs().max() > 0.1
    torch.testing.assert_close(torch.linalg.eigvalsh(one), torch.linalg.eigvalsh(other), rtol=0, atol=1e-12)


@few
@given(problems(scales=(0.0, 0.1, 0.5)))
def test_rank_of_the_hessian(problem):
    X, Theta, P = problem
    L, d = Theta.shape
    assert null_size(fisher.hessian(X, P)) == d  # V is invertible
    flat = torch.cat([X[:, :1], 0 * X[:, 1:]], dim=1)  # V of rank 1
    assert null_size(fisher.hessian(flat, P)) == L * d - (L - 1)
    shift = torch.ones(L, 1, dtype=torch.float64) @ X[:1]
    torch.testing.assert_close(fisher.hessian(X, P) @ shift.flatten(), torch.zeros(L * d).double(), rtol=0, atol=1e-11)


@few
@given(problems())
def test_softmax_covariance_by_spanning_trees(problem):
    p = problem[2][0].sort().values  # the likeliest class last: the reference that loses least to rounding
    A = fisher.softmax_covariance(p)
    assert log_det(A[:-1, :-1]) == pytest.approx(float(p.log().sum()), abs=1e-9)
    if p.min() > 1e-6:
        assert fisher.log_pdet(A) == pytest.approx(float(np.log(len(p)) + p.log().sum()), abs=1e-8)
    torch.testing.assert_close(A.sum(-1), torch.zeros(len(p)).double(), rtol=0, atol=1e-15)
    assert float(fisher.trace_weights(p[None])[0]) == pytest.approx(float(A.trace()), abs=1e-14)


@few
@given(problems(scales=(0.0, 0.1, 0.5)))
def test_pseudo_determinant_and_reference_class_say_the_same(problem):
    X, Theta, P = problem
    L, d = Theta.shape
    reference = log_det(fisher.reference_hessian(X, P)) + d * np.log(L)
    assert fisher.log_pdet(fisher.hessian(X, P)) == pytest.approx(reference, abs=1e-8)


@few
@given(problems(scales=(0.0,)), st.floats(0.01, 3))
def test_equality_at_theta_zero(problem, ridge):
    X, Theta, P = problem
    L, d = Theta.shape
    V = fisher.information_matrix(X)
    s = fisher.sandwich(X, P)
    assert s.gamma == pytest.approx(1 / L, rel=1e-12)
    assert s.log_pdet == pytest.approx((L - 1) * (log_det(V) - d * np.log(L)), abs=1e-9)
    for bound in (s.lower, s.upper_weighted, s.upper_uniform):
        assert bound == pytest.approx(s.log_pdet, abs=1e-9)
    lower, exact = fisher.ridge_sandwich(X, P, ridge)
    assert lower == pytest.approx(exact, abs=1e-9)
    by_hand = (L - 1) * log_det(V / L + ridge * torch.eye(d).double()) + d * np.log(ridge)
    assert exact == pytest.approx(by_hand, abs=1e-9)


@settings(max_examples=300, deadline=None)
@given(problems(scales=(0.0, 0.01, 0.3, 1.0, 3.0, 5.0)), st.floats(1e-3, 10))
def test_the_whole_chain(problem, ridge):
    X, _, P = problem
    s = fisher.sandwich(X, P)
    chain = [s.lower, s.log_pdet, s.upper_weighted, s.upper_uniform, s.upper_boehning]
    noise = 1e-7 * max(1.0, *map(abs, chain))
    assert all(low <= high + noise for low, high in pairwise(chain))
    lower, exact = fisher.ridge_sandwich(X, P, ridge)
    assert lower <= exact + noise


def test_the_chain_is_strict_away_from_theta_zero():
    """Were the bounds all equal, the chain would hold for a wrong reason."""
    generator = torch.Generator().manual_seed(1)
    X = torch.randn(8, 3, generator=generator, dtype=torch.float64)
    P = torch.softmax(torch.randn(8, 5, generator=generator, dtype=torch.float64), 1)
    s = fisher.sandwich(X, P)
    assert s.lower + 1 < s.log_pdet < s.upper_weighted - 0.01 < s.upper_uniform - 0.1 < s.upper_boehning - 1
    lower, exact = fisher.ridge_sandwich(X, P, 0.1)
    assert lower + 1 < exact == pytest.approx(log_det(fisher.hessian(X, P) + 0.1 * torch.eye(15).double()), abs=1e-9)


@few
@given(problems(classes=(2, 2)))
def test_two_classes_reach_the_weighted_bound(problem):
    X, _, P = problem
    s = fisher.sandwich(X, P)
    assert s.log_pdet == pytest.approx(s.upper_weighted, abs=1e-7 * max(1, abs(s.log_pdet)))


@few
@given(problems())
def test_eigenvalues_of_the_softmax_covariance(problem):
    P = problem[2]
    L = P.shape[1]
    smallest, ordered = fisher.smallest_eigenvalue(P), P.sort(dim=1).values
    values = torch.linalg.eigvalsh(fisher.softmax_covariance(P))
    torch.testing.assert_close(smallest, values[:, 1], rtol=1e-6, atol=1e-13)
    assert (ordered[:, 0] <= smallest * (1 + 1e-9)).all()
    assert (smallest <= torch.minimum(ordered[:, 1], L / (L - 1) * ordered[:, 0]) * (1 + 1e-9)).all()
    assert (values[:, -1] <= 0.5 + 1e-12).all()


def test_a_tiny_smallest_eigenvalue_is_still_accurate():
    """eigvalsh of A itself drowns it in rounding error; with one rare class it is L / (L - 1) times its probability."""
    p = torch.tensor([0.5 - 1e-25, 0.5, 1e-25], dtype=torch.float64)
    assert float(fisher.smallest_eigenvalue(p)) == pytest.approx(1.5e-25, rel=1e-6)


@st.composite
def updates(draw):
    d, T = draw(st.integers(1, 6)), draw(st.integers(0, 8))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    X = torch.randn(T, d, generator=generator, dtype=torch.float64)
    W = torch.randn(d + 2, d, generator=generator, dtype=torch.float64)
    return fisher.information_matrix(W, prior=draw(st.sampled_from([0.01, 1.0, 100.0]))), X


@few
@given(updates())
def test_gain_and_woodbury_are_the_direct_computation(case):
    V, X = case
    assert fisher.gain(V, X) == pytest.approx(log_det(V + X.T @ X) - log_det(V), abs=1e-10)
    inverse = torch.linalg.inv(V)
    updated = fisher.woodbury_update(inverse, X)
    torch.testing.assert_close(updated, torch.linalg.inv(V + X.T @ X), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(updated, updated.T, rtol=0, atol=0)
    if len(X) == 0:
        assert fisher.gain(V, X) == 0


@few
@given(updates(), st.floats(0.01, 10))
def test_the_dimension_is_all_that_can_be_known(case, sigma2):
    """tr(V^-1 V_S) = d - sigma0^2 tr(V^-1), which is below d."""
    X = case[1]
    d = X.shape[1]
    V = fisher.information_matrix(X, prior=sigma2)
    inverse = torch.linalg.inv(V)
    known = float(torch.trace(inverse @ fisher.information_matrix(X)))
    assert known == pytest.approx(d - sigma2 * float(torch.trace(inverse)), abs=1e-9)
    assert known < d


@few
@given(st.integers(0, 2**31), st.sampled_from([0.01, 0.1, 1.0]), st.integers(1, 4))
def test_the_certificate_bounds_every_set(seed, sigma2, n):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, 5, (7,), generator=generator).tolist()
    blocks = [torch.randn(T, 3, generator=generator, dtype=torch.float64) for T in lengths]
    V0 = sigma2 * torch.eye(3, dtype=torch.float64)

    def f(S):
        return log_det(V0 + sum(blocks[i].T @ blocks[i] for i in S)) - log_det(V0)

    best = max(f(S) for S in combinations(range(7), n))
    for picks in ([0, 1, 2, 3][:n], [6, 4, 5, 0][:n]):
        bound = fisher.certificate(V0, blocks, picks)
        assert bound >= best - 1e-9
    assert fisher.certificate(V0, blocks, list(range(7))) == pytest.approx(f(range(7)), abs=1e-9)


@few
@given(st.integers(0, 2**31))
def test_the_plain_certificate_is_the_library_s(seed):
    generator = torch.Generator().manual_seed(seed)
    blocks = [torch.randn(T, 4, generator=generator, dtype=torch.float64) for T in (3, 1, 5, 2, 4, 6)]
    chosen = fl.select(fl.TokenFeatures.from_list(blocks), examples=3, prior=0.5, device="cpu")
    plain = fisher.certificate(0.5 * torch.eye(4, dtype=torch.float64), blocks, chosen.indices.tolist())
    assert chosen.upper_bound == pytest.approx(plain, abs=1e-6)


def test_information_matrix():
    X = torch.tensor([[1.0, 2.0], [3.0, 0.0]], dtype=torch.float64)
    assert fisher.information_matrix(X).tolist() == [[10, 2], [2, 4]]
    assert fisher.information_matrix(X, weights=torch.tensor([0.5, 0.0]), prior=1).tolist() == [[1.5, 1], [1, 3]]
    V0 = torch.tensor([[2.0, 1.0], [1.0, 2.0]])
    assert fisher.information_matrix(X, prior=V0).tolist() == [[12, 3], [3, 6]]
    assert fisher.information_matrix(X.to(torch.bfloat16)).dtype == torch.float64  # cast before multiplying


def test_log_pdet_of_edges():
    assert fisher.log_pdet(torch.zeros(3, 3)) == 0
    assert fisher.log_pdet(torch.diag(torch.tensor([0.0, 2.0, 3.0]))) == pytest.approx(np.log(6))
    assert fisher.log_pdet(torch.diag(torch.tensor([1e-12, 2.0]))) == pytest.approx(np.log(2))
    assert fisher.log_pdet(torch.diag(torch.tensor([1e-12, 2.0])), rtol=1e-13) == pytest.approx(np.log(2e-12), rel=1e-5)


X, P, V = torch.arange(12.0).reshape(4, 3).sin().double(), torch.full((4, 5), 0.2).double(), torch.eye(3).double()
BAD = [
    ("softmax_covariance", (torch.tensor([0.5, 0.6]),), {}, "expected probabilities: .* sum to 1"),
    ("softmax_covariance", (torch.tensor([1.5, -0.5]),), {}, "numbers >= 0"),
    ("softmax_covariance", (torch.tensor([1.0]),), {}, "at least 2 numbers"),
    ("softmax_covariance", (torch.tensor([np.nan, 1.0]),), {}, "expected probabilities"),
    ("smallest_eigenvalue", (torch.tensor([1.0, 0.0]),), {}, "expected every probability to be > 0"),
    ("hessian", (X, P[:3]), {}, "the same M, got \\(4, 3\\) and \\(3, 5\\)"),
    ("hessian", (X[0], P), {}, "expected X to be a matrix .* got shape \\(3,\\)"),
    ("hessian", (X * np.nan, P), {}, "expected X to be a matrix of finite numbers"),
    ("hessian", (X, P), {"layout": "LD"}, "expected layout 'Ld' .* got 'LD'"),
    ("reference_hessian", (X, 2 * P), {}, "expected probabilities"),
    ("trace_weights", (2 * P,), {}, "expected probabilities"),
    ("log_pdet", (torch.diag(torch.tensor([1.0, -1.0])),), {}, "positive semi-definite H, got the eigenvalue -1"),
    ("log_pdet", (torch.ones(2, 3),), {}, "square and symmetric, got shape \\(2, 3\\)"),
    ("log_pdet", (torch.tensor([[1.0, 1.0], [0.0, 1.0]]),), {}, "square and symmetric"),
    ("information_matrix", (X,), {"weights": torch.ones(3)}, "one weight >= 0 for each of the 4 rows"),
    ("information_matrix", (X,), {"weights": -torch.ones(4)}, "one weight >= 0"),
    ("information_matrix", (X,), {"prior": -1.0}, "expected a prior >= 0"),
    ("information_matrix", (X,), {"prior": torch.eye(2)}, "a matrix \\[3, 3\\]"),
    ("sandwich", (X[:2], P[:2]), {}, "V = sum x x\\^T to be positive definite"),
    ("ridge_sandwich", (X, P, 0.0), {}, "expected a ridge > 0, got 0.0"),
    ("gain", (V, X[:, :2]), {}, "expected features of width 3"),
    ("gain", (0 * V, X), {}, "expected V to be positive definite"),
    ("woodbury_update", (V, X[:, :2]), {}, "expected features of width 3"),
    ("certificate", (V, [X, X], [0, 0]), {}, "expected distinct picks from 0 to 1, got \\[0, 0\\]"),
    ("certificate", (V, [X, X], [2]), {}, "expected distinct picks"),
    ("certificate", (V, [X, X[:, :2]], [0]), {}, "expected features of width 3"),
]


@pytest.mark.parametrize(("name", "arguments", "options", "message"), BAD, ids=lambda value: str(value)[:20])
def test_bad_input_says_what_was_expected(name, arguments, options, message):
    function = inspect.unwrap(getattr(fisher, name))  # without the shape checker that the tests install
    with pytest.raises(ValueError, match=message) as error:
        function(*arguments, **options)
    assert str(error.value).startswith("expected") and "got" in str(error.value)
