"""The derivative of a factorization: against finite differences, dense algebra and autograd; certificates; identifiability."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from anmf_lab.align import degauge, feature_error, feature_error_grad, stack
from anmf_lab.core import Data, as_data
from anmf_lab.determined import local_verdict
from anmf_lab.implicit import NULL, Adjoint, Curvature, condition, feature_gradient, ritz_values, smallest
from anmf_lab.objective import Entrywise
from anmf_lab.polish import pcg, polish
from anmf_lab.solvers import mu_step, start
from memory import Count


def planted(n=15, f=12, k=3, seed=0, noise=.03, zeros=.45):
    rng = np.random.default_rng(seed)
    W, H = (rng.uniform(.2, 1, s) * (rng.random(s) > zeros) for s in ((n, k), (k, f)))
    return as_data(np.maximum(W @ H + noise * rng.standard_normal((n, f)), .002))


def solved(data, k=3, beta=1., seed=0, tol=1e-12, **penalties):
    state = tuple(A[0] for A in start(data, k, rng=seed))
    for _ in range(300):
        state = mu_step(data, state, beta, **penalties)
    return polish(data, *state, beta, tol=tol, **penalties).state


def reference(W, H, seed=5):
    rng = np.random.default_rng(seed)
    return tuple(torch.from_numpy(rng.uniform(.2, 1, A.shape)) for A in (W, H))


def first_kink(adj, D):
    "Step along D at which, to first order, the set of zeros changes"
    (A, B), _ = adj.jvp(D, tol=1e-10)
    steps = [float((T[F] / V[F].abs()).min()) for F, T, V in zip(adj.free, (adj.W, adj.H), (A, B), strict=True) if F.any()]
    rates = [m + p for m, p in zip(adj.hess(A, B), adj.objective.push(adj.W, adj.H, D), strict=True)]
    for F, g, r in zip(adj.free, adj.g, rates, strict=True):
        if (~F).any():
            steps.append(float((g[~F] / r[~F].abs()).min()))
    return min(steps)


@pytest.mark.parametrize("beta, penalties, holes", [
    (1., {}, False), (2., {}, False), (1.5, {}, False), (2., {"l2": .05}, False), (1., {"l1": .05, "l2": .02}, False), (1., {}, True), (2., {}, True)])
def test_gradient_against_central_differences(beta, penalties, holes):
    data = planted(seed=1)
    if holes:
        mask = (np.random.default_rng(0).random(data.shape) > .1)
        data = as_data(data.X.numpy(), mask=mask)
    W, H = solved(data, beta=beta, **penalties)
    ref = reference(W, H)
    fe, G, cert = feature_gradient(data, W, H, *ref, beta, tol=1e-12, **penalties)
    assert cert.trusted and cert.kkt < 1e-10 and cert.residual < 1e-10
    adj, rng, done = Adjoint(data, W, H, beta, **penalties), np.random.default_rng(2), 0
    def fe_at(X):
        near = polish(Data(X, data.mask), W, H, beta, tol=1e-13, max_iter=60, **penalties)
        return feature_error(*near.state, *ref) if near.residuals[-1] < 1e-12 else np.nan
    for _ in range(12):
        D = torch.from_numpy(rng.standard_normal(data.shape))
        if data.mask is not None:
            D = D * data.mask
        h = min(1e-6, .2 * first_kink(adj, D))
        if h < 2e-7:
            continue   # a zero is about to move: the function has a kink there
        slope = (fe_at(data.X + h * D) - fe_at(data.X - h * D)) / (2 * h)
        if np.isnan(slope):
            continue   # solved to less than the difference needs
        exact, typical = float((G * D).sum()), float(G.norm() * D.norm()) / D.numel() ** .5
        assert abs(slope - exact) <= 1e-6 * max(abs(exact), typical)
        done += 1
        if done == 3:
            break
    assert done == 3


@pytest.mark.parametrize("beta", [1., 2., 1.5])
def test_what_is_hidden_has_no_gradient(beta):
    "Nobody sees the entry, so moving it moves nothing"
    mask = np.random.default_rng(0).random((15, 12)) > .1
    data = as_data(planted(seed=1).X.numpy(), mask=mask)
    W, H = solved(data, beta=beta)
    _, G, _ = feature_gradient(data, W, H, *reference(W, H), beta)
    assert not G[~torch.from_numpy(mask)].any() and G[torch.from_numpy(mask)].all()


def test_gradient_against_the_papers_equation_6():
    data = planted()
    W, H = solved(data)
    ref = reference(W, H)
    fe, G, cert = feature_gradient(data, W, H, *ref, 1., tol=1e-12)
    n, k = W.shape
    split = lambda v: (v[:n * k].reshape(n, k), v[n * k:].reshape(k, -1))
    join = lambda s: torch.cat([s[0].reshape(-1), s[1].reshape(-1)])
    v = join((W, H))
    J = torch.autograd.functional.jacobian(lambda v: join(mu_step(data, split(v), 1.)), v)
    B = torch.autograd.functional.jacobian(lambda X: join(mu_step(Data(X), (W, H), 1.)), data.X).reshape(len(v), -1)
    g = join(feature_error_grad(W, H, *ref)[1:])
    dense = g @ torch.linalg.pinv(torch.eye(len(v), dtype=v.dtype) - J, rtol=1e-10) @ B
    assert float((dense.reshape(data.shape) - G).norm() / G.norm()) < 1e-4


def test_forward_and_backward_are_transposes():
    data = planted(seed=2)
    adj = Adjoint(data, *solved(data), 1.)
    rng = np.random.default_rng(0)
    D = torch.from_numpy(rng.standard_normal(data.shape))
    g = feature_error_grad(adj.W, adj.H, *reference(adj.W, adj.H))[1:]
    (A, B), _ = adj.jvp(D, tol=1e-12)
    G, _ = adj.vjp(*g, tol=1e-12)
    assert_allclose(float((G * D).sum()), float((g[0] * A).sum() + (g[1] * B).sum()), rtol=1e-8)


def test_the_linear_solver_is_an_argument():
    data = planted()
    W, H = solved(data)
    ref, calls = reference(W, H), []
    def mine(*args, **kw):
        calls.append(1)
        return pcg(*args, **kw)
    adj = Adjoint(data, W, H, 1., solve=mine)
    adj.vjp(*feature_error_grad(adj.W, adj.H, *ref)[1:])
    assert calls


def test_certificate_sees_unsolved_factors_and_unconverged_solves():
    data = planted()
    state = tuple(A[0] for A in start(data, 3, rng=0))
    for _ in range(30):
        state = mu_step(data, state, 1.)
    g = feature_error_grad(*state, *reference(*state))[1:]
    assert Adjoint(data, *state, 1.).vjp(*g)[1].kkt > 1e-4
    W, H = solved(data)
    adj = Adjoint(data, W, H, 1.)
    _, cert = adj.solve(feature_error_grad(adj.W, adj.H, *reference(W, H))[1:], max_iter=3)
    assert not cert.solved and not cert.trusted
    _, cert = adj.solve((adj.W, -adj.H))   # a question about scale has no answer
    assert cert.gauge > .99 and not cert.trusted


@pytest.mark.parametrize("k", [2, 3, 4])
def test_interior_solutions_have_k_squared_minus_k_excess_directions(k):
    data = planted(n=20, f=18, k=k, zeros=0., noise=.01)
    W, H = max((solved(data, k, seed=s) for s in range(4)), key=lambda s: min(float(T.min()) for T in s))
    assert (W > 0).all() and (H > 0).all()
    obj = Entrywise(data, 1.)
    local = local_verdict(obj, W, H)
    assert (local.verdict, local.count, local.both_ways) == ("flat", k * k - k, k * k - k) and (local.share > 1e-3).all()
    Wb, Hb = Adjoint(data, W, H, 1.).W, Adjoint(data, W, H, 1.).H
    for A, B in local.directions:   # the fit stands still
        assert float((A @ Hb + Wb @ B).norm() / (A.norm() * Hb.norm())) < 1e-5
    with pytest.raises(ValueError, match="not identifiable"):
        feature_gradient(data, W, H, *reference(W, H), 1.)
    fe, G, cert = feature_gradient(data, W, H, *reference(W, H), 1., tikhonov=1e-3)
    assert cert.tikhonov == 1e-3 and not cert.trusted and G.isfinite().all()
    assert condition(Adjoint(data, W, H, 1.)).kappa == np.inf


def test_zeros_make_it_identifiable_and_both_eigensolvers_agree(monkeypatch):
    data = planted()
    adj = Adjoint(data, *solved(data), 1.)
    C, rng = Curvature(adj.objective, adj.W, adj.H, adj.free), np.random.default_rng(0)
    w = smallest(C, NULL, rng)[0]
    assert w[0] > NULL and local_verdict(adj.objective, adj.W, adj.H).verdict == "determined"
    monkeypatch.setattr("anmf_lab.implicit.DENSE", 0)
    large, _, sure = smallest(C, NULL, rng)
    assert sure and large[0] > NULL
    assert_allclose(large[:3], w[:3], rtol=1e-4)
    inside = planted(n=20, f=18, zeros=0., noise=.01)
    adj = Adjoint(inside, *solved(inside), 1.)
    w = smallest(Curvature(adj.objective, adj.W, adj.H, adj.free), NULL, rng)[0]
    assert (w < NULL).sum() == 6 and w[-1] > NULL   # Lanczos had to ask for more


@pytest.mark.parametrize("beta", [1., 2.])
def test_condition_number_is_the_largest_singular_value_and_predicts_damage(beta):
    data = planted(seed=1)
    adj = Adjoint(data, *solved(data, beta=beta), beta)
    c = condition(adj, tol=1e-8, solve_tol=1e-10)
    h, cols = 1e-6, []
    for e in torch.eye(data.X.numel(), dtype=torch.float64)[::7]:   # a few columns by differences
        D = e.view(data.shape)
        A, B = (polish(Data(data.X + s * h * D), adj.W, adj.H, beta, tol=1e-13, max_iter=60).state for s in (1, -1))
        (dW, dH), _ = adj.jvp(D, tol=1e-10)
        cols.append((stack(*A) - stack(*B)) / (2 * h))

        P, Q = degauge(adj.W, adj.H, dW, dH)
        torch.testing.assert_close(cols[-1], torch.cat([P, Q.T]), rtol=1e-4, atol=1e-5)
    eps = min(1e-5, c.radius / 3)
    for s in (1, -1):
        Z = data.X + s * eps * data.X.norm() * c.direction
        fe = feature_error(*polish(Data(Z), adj.W, adj.H, beta, tol=1e-12).state, adj.W, adj.H)
        assert_allclose(fe, c.kappa * eps, rtol=.05)
    assert c.kappa > c.random > 0


def test_ritz_values_are_eigenvalues_when_cg_runs_to_the_end():
    rng = np.random.default_rng(0)
    Q = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    A = torch.from_numpy(Q @ np.diag([1., 2, 3, 4, 5, 6]) @ Q.T)
    op = lambda v: ((A @ v[0].reshape(-1)).reshape(v[0].shape), v[1])
    b = torch.from_numpy(rng.standard_normal((6, 1))), torch.zeros(1, 1, dtype=torch.float64)
    _, info = pcg(op, b, lambda r: r, tol=1e-13)
    assert_allclose(ritz_values(info), [1, 2, 3, 4, 5, 6], rtol=1e-8)


def test_memory_is_a_few_arrays_like_the_data():
    n, f, k = 300, 250, 3
    data = planted(n, f, k, noise=.01)
    state = solved(data, k, tol=1e-6)
    ref = reference(*state)
    with Count() as count:
        feature_gradient(data, *state, *ref, 1., tol=1e-6)
    allowed = 8 * n * f * 8 + 12 * (n + f) * k * k * 8 + 20 * (n + f) * k * 8
    assert count.top <= allowed, f"{count.top / (n * f * 8):.1f} arrays of the size of the data"
