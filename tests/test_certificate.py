"""The certificate: nobody crosses it, the constants are bounds, and it says why where there is none."""
import numpy as np
import pytest
import torch

import anmf_lab as al
from anmf_lab.certificate import certify, feature_bound
from anmf_lab.core import Data
from anmf_lab.implicit import Adjoint, condition, solution
from anmf_lab.polish import polish
from anmf_lab.rival_minima import flips

KL = "kullback-leibler"


def table(seed, n=12, f=10, k=3, noise=.03):
    "Planted factors with zeros in both, and noise"
    r = np.random.default_rng(seed)
    W, H = (r.uniform(.2, 1, s) * (r.random(s) > .45) for s in ((n, k), (k, f)))
    return np.maximum(W @ H + noise * r.standard_normal((n, f)), .002)


def best(X, k, **how):
    return al.NMF(k, n_init=12, polish=True, random_state=0, **how).fit(X)


def crossings(c, sol, rng, tries):
    "How often a perturbed solution lies beyond the bound, and the largest part of the bound that was reached"
    obj, most, over = sol.objective, 0., 0
    seen = 1. if obj.data.mask is None else (obj.data.mask > 0).double()
    directions = [condition(Adjoint(obj, *sol.factors)).direction] if tries > 4 else []
    for i in range(tries):
        kind = (np.outer(rng.standard_normal(obj.data.n), rng.standard_normal(obj.data.f)) if i % 2
                else rng.standard_normal(obj.data.shape))
        D = directions[0] * (-1)**i if directions and i < 4 else torch.from_numpy(kind) * seen
        eps = c.eps * (.1, .4, .7, 1.)[i % 4]
        end = polish(obj.at(Data(obj.data.X + eps * obj.data.sq**.5 * D / D.norm(), obj.data.mask)), *sol.factors, tol=1e-11)
        part = al.feature_error(*end.state, *sol.factors) / c.bound(eps)
        most, over = max(most, part), over + (part > 1)
    return over, most


@pytest.mark.parametrize("seed", [0, 3, 5, 8])
def test_nobody_crosses(seed):
    X = table(seed)
    model = best(X, 3)
    c, sol = certify(model, X, n_seeds=0), solution(model, X, tol=1e-11)
    if not c.eps:
        assert "curvature" in c.binds
        return
    over, most = crossings(c, sol, np.random.default_rng(seed), 16)
    assert not over and most > .05
    assert c.bound(c.eps / 2) < c.feature_error and c.bound(2 * c.eps) == np.inf


def test_three_times_the_first_proof():
    "12 x 10, three components: 1.6e-4 was certified with multipliers held one by one"
    X = table(0)
    model = al.NMF(3, n_init=16, polish=True, random_state=0).fit(X)
    assert certify(model, X, n_seeds=0).eps > 4.8e-4


def test_weights_and_penalties():
    X, rng = table(5, 14, 12), np.random.default_rng(0)
    w = rng.uniform(.3, 3, X.shape) * (rng.random(X.shape) > .1)
    for how, given in ((dict(l2=.05), {}), (dict(l1=.02), {}), (dict(), dict(weights=w))):
        model = al.NMF(3, n_init=12, polish=True, random_state=0, **how).fit(X, **given)
        c, sol = certify(model, X, n_seeds=0, **given), solution(model, X, tol=1e-11, **given)
        assert c.eps > 0, c
        assert crossings(c, sol, rng, 8)[0] == 0


def test_counts():
    r = np.random.default_rng(3)
    W, H = (r.uniform(.2, 1, s) for s in ((14, 3), (3, 12)))
    W[np.arange(14), r.integers(0, 3, 14)] = 0
    H[r.integers(0, 3, 12), np.arange(12)] = 0
    X = r.poisson(400 * W @ H).astype(float)
    model = best(X, 3, loss=KL)
    c, sol = certify(model, X, n_seeds=2), solution(model, X, tol=1e-11)
    assert c.eps > 1e-5 and crossings(c, sol, r, 8)[0] == 0
    assert np.isnan(c.eps_to_flip) or c.eps_to_flip == np.inf
    holes = np.kron(np.eye(2), np.ones((5, 4))) * 3
    assert "fitted value is zero" in certify(best(holes, 2, loss=KL), holes, n_seeds=0).binds


def test_the_unit_and_the_order_do_not_matter():
    X = table(0)
    sol = solution(best(X, 3), X, tol=1e-11)
    W, H = (T.numpy() for T in sol.factors)
    one = certify(None, X, W=W, H=H, n_seeds=0)
    for c in (1e-4, 1e5):
        other = certify(None, X * c, W=W * c, H=H, n_seeds=0)
        assert other.eps == pytest.approx(one.eps, rel=.2)
    turned = certify(None, X[::-1].copy(), W=W[::-1].copy(), H=H, n_seeds=0)
    assert turned.eps == pytest.approx(one.eps, rel=1e-3)
    assert certify(None, X.T.copy(), W=H.T.copy(), H=W.T.copy(), n_seeds=0).eps == pytest.approx(one.eps, rel=1e-3)


def test_the_bound_on_the_feature_error():
    "Factors moved by r, in the slice or not, never differ by more"
    from anmf_lab.certificate import expand
    X, rng = table(0), np.random.default_rng(0)
    sol = solution(best(X, 3), X, tol=1e-11)
    at = expand(sol.objective, *sol.factors)
    for r in (.01, .1, .3):
        bound = feature_bound(at, r)
        for _ in range(20):
            u = at.basis @ (at.basis.T @ torch.from_numpy(rng.standard_normal(len(at.A))))
            P, Q = at.pair(r * u / u.norm())
            W, H = at.W + P, at.H + Q
            assert float((at.W + P - at.W).square().sum() + Q.square().sum()) <= r * r * (1 + 1e-9)
            fe = al.feature_error(W.clamp(min=0), H.clamp(min=0), at.W, at.H)
            assert fe <= bound * (1 + 1e-9) or bound == np.inf


def test_reasons_instead_of_exceptions():
    rng = np.random.default_rng(0)
    W, H = rng.uniform(.3, 1, (12, 2)), rng.uniform(.3, 1, (2, 9))
    flat = certify(None, W @ H, W=W, H=H, n_seeds=0)
    assert flat.eps == 0 and flat.feature_error == 0 and "not determined" in flat.binds and "nothing" in repr(flat)
    assert flat.bound(1e-9) == np.inf
    with pytest.raises(ValueError, match="nothing is certified"):
        flat.plot()
    X = table(0)
    assert "squared error or Kullback-Leibler" in certify(None, X, W=W, H=rng.random((2, 10)) + .1, loss="itakura-saito", n_seeds=0).binds
    assert "dense matrices" in certify(None, rng.random((800, 100)), W=rng.random((800, 2)), H=rng.random((2, 100)), n_seeds=0).binds
    with pytest.raises(ValueError, match="W must be"):
        certify(None, X, W=W[:, :1], H=rng.random((2, 10)))
    with pytest.raises(ValueError, match="n_seeds must be"):
        certify(None, X, W=W, H=rng.random((2, 10)), n_seeds=-1)


def test_rivals_flip_only_beyond():
    X = np.random.default_rng(3).gamma(.5, 1., (12, 10))
    model = best(X, 4)
    c = certify(model, X, n_seeds=8)
    assert c.rivals and c.eps_to_flip == min(r.eps_to_flip for r in c.rivals)
    sol, size = solution(model, X, tol=1e-11), np.linalg.norm(X)
    for r in c.rivals:        # both residuals change by at most |Delta|: half their difference, at least
        lead = (2 * r.objective)**.5 - np.linalg.norm(X - sol.W.numpy() @ sol.H.numpy())
        np.testing.assert_allclose(r.eps_to_flip, lead / 2 / size, rtol=1e-5)
    again = certify(model, X, rivals=[(sol.W * 1.2, sol.H)], n_seeds=0)
    assert again.rivals == () and again.eps_to_flip == np.inf
    assert flips(sol, [sol.factors]) == []
