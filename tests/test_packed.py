"The half of the curvature that is kept, against the whole of it"
import numpy as np
import pytest
import torch
from memory import Count
from scipy.linalg import lapack
from scipy.sparse.linalg import ArpackError

from anmf_lab import packed, reduced
from anmf_lab.core import as_data
from anmf_lab.packed import Half, Whole, diagonal_of, lean, top
from anmf_lab.polish import polish
from anmf_lab.reduced import Reduced, at_zeros, code_variances, component_variances, entry_gradients, influence, localised

SIZES = (1, 2, 3, 4, 5, 8, 9, 50, 51)


def coupled(n, size=.9, rows=None):
    "A matrix C of n columns whose largest singular value is `size`"
    C = torch.from_numpy(np.random.default_rng(n).standard_normal((rows or 2 * n, n)))
    return size * C / torch.linalg.matrix_norm(C, 2)


def test_only_one_number_is_lean():
    T = torch.ones(4, 3)
    assert lean(T).stride() == (0, 0) and torch.equal(lean(T), T)
    T[2, 1] = 2
    assert torch.equal(lean(T), T)


@pytest.mark.parametrize("sign", (1, -1))
@pytest.mark.parametrize("n", (1, 6, 49, 50, 80))
def test_top_is_a_bound_and_a_close_one(n, sign):
    S = sign * coupled(n).T @ coupled(n)
    largest = max(float(torch.linalg.eigvalsh(S)[-1]), 0.)
    assert largest <= top(S) * (1 + 1e-14) and top(S) <= largest * (1 + 2 * packed.SLACK)
    assert top(torch.zeros(n, n, dtype=torch.float64)) == 0


@pytest.mark.parametrize("failing", (False, True))
def test_top_believes_no_guess(monkeypatch, failing):
    S = coupled(60).T @ coupled(60)
    def guess(*args, **kwargs):
        if failing: raise ArpackError(-9)
        return np.array([.99 * .9**2])
    monkeypatch.setattr(packed, "eigsh", guess)
    np.testing.assert_allclose(top(S), .9**2, rtol=1e-12)


@pytest.mark.parametrize("n", SIZES)
def test_the_diagonal_is_where_lapack_keeps_it(n):
    A = np.tril(np.full((n, n), 2.))
    np.fill_diagonal(A, np.arange(n))
    half, _ = lapack.dtrttf(A, uplo="L")
    np.testing.assert_array_equal(half[diagonal_of(n)], np.arange(n))


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("kind", (Half, Whole))
def test_it_solves_with_one_less_the_gram_matrix(n, kind):
    C, B = coupled(n), torch.ones(n, 3, dtype=torch.float64) + torch.eye(n, 3)
    root = kind(C.split(max(n // 2, 1)), n, C)
    assert root.positive
    M = torch.eye(n, dtype=torch.float64) - C.T @ C
    torch.testing.assert_close(M @ root.up(root.down(B)), B, rtol=1e-10, atol=1e-10)
    L = torch.linalg.cholesky(M)
    torch.testing.assert_close(root.down(B), torch.linalg.solve_triangular(L, B, upper=False), rtol=1e-10, atol=1e-10)
    for a in {0, n // 2, n - 1}:
        some = B[a:a + 2]
        whole = torch.cat([B.new_zeros(a, 3), some, B.new_zeros(n - a - len(some), 3)])
        torch.testing.assert_close(root.down_at(a, some), root.down(whole), rtol=1e-12, atol=1e-12)
    assert not kind(coupled(n, 1.1).split(3), n, C).positive


@pytest.fixture(scope="module")
def at():
    "A solved problem with zeros in both factors"
    rng = np.random.default_rng(0)
    W, H = (rng.gamma(2., 1., s) * (rng.random(s) > .35) for s in ((30, 3), (3, 40)))
    W[W.sum(1) == 0, 0] = 1.
    H[0, H.sum(0) == 0] = 1.
    data = as_data(rng.poisson(50 * W @ H).astype(float))
    W, H = polish(data, torch.from_numpy(50 * W), torch.from_numpy(H), 1., tol=1e-12).state
    return localised(data, W, H, 1.)


def numbers(red):
    j, c = red.at.free[1].nonzero(as_tuple=True)
    gW = torch.ones(*red.at.W.shape, 5, dtype=torch.float64)
    moves = influence(red, gW, entry_gradients(red.at, j[:5], c[:5]))
    return dict(curvature=torch.tensor(red.curvature), components=component_variances(red),
                codes=code_variances(red), zeros=torch.stack(at_zeros(red)), influence=moves)


def test_half_of_the_curvature_and_all_of_it_give_the_same_error_bars(at, monkeypatch):
    whole = Reduced(at)
    monkeypatch.setattr(reduced, "SMALL", 0)
    half = Reduced(at)
    assert isinstance(whole.root, Whole) and isinstance(half.root, Half) and int((~at.free[1]).sum()) > 3
    one, other = numbers(half), numbers(whole)
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-8, atol=1e-12, msg=name)


@pytest.mark.parametrize("small", (0, 1000))
def test_error_bars_do_not_depend_on_how_much_is_made_at_a_time(at, monkeypatch, small):
    monkeypatch.setattr(reduced, "SMALL", small)
    one = numbers(Reduced(at))
    monkeypatch.setattr(reduced, "PART", 500)
    for name, other in numbers(Reduced(at)).items():
        torch.testing.assert_close(one[name], other, rtol=1e-8, atol=1e-12, msg=name)


def test_products_are_those_of_the_matrix_that_is_never_held(at):
    red = Reduced(at)
    C = torch.cat([C for _, _, C in red.coupling()])
    assert C.shape == (len(red.rows), len(red.cols))
    u, a = (torch.from_numpy(np.random.default_rng(0).standard_normal((m, 2))) for m in C.shape[::-1])
    torch.testing.assert_close(red.follow(u), C @ u, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(red.lead(a), C.T @ a, rtol=1e-10, atol=1e-10)
    least = 1 - torch.linalg.matrix_norm(C, 2) ** 2
    assert red.curvature == pytest.approx(float(least), rel=1e-5)


def test_where_there_is_no_minimum_the_curvature_is_negative(at):
    W = at.W + at.W.mean() * (torch.arange(90).view(30, 3) % 4)     # far from solved
    red = Reduced(localised(as_data(at.X.numpy()), W, at.H.flip(0), 1.))
    C = torch.cat([C for _, _, C in red.coupling()])
    assert not red.root.positive and not red.regular
    assert red.curvature == pytest.approx(1 - float(torch.linalg.matrix_norm(C, 2)) ** 2, rel=1e-4)


def test_nothing_else_is_as_large_as_half_of_the_curvature():
    "As large as the faces are: the whole square would be nine arrays of the data's size, and its coupling eleven"
    rng = np.random.default_rng(0)
    n, f, k = 472, 361, 5
    W, H = (torch.from_numpy(rng.gamma(2., 1., s) * (rng.random(s) > .3)) for s in ((n, k), (k, f)))
    data = as_data((W @ H).numpy())
    with Count() as count:
        red = Reduced(localised(data, W, H, 2.))
        component_variances(red)
    free = len(red.cols)
    half = free * (free + 1) / 2
    assert red.root.positive and free**2 > 8 * n * f
    assert half < count.top / 8 < half + 6 * n * f
