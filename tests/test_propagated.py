"""Error bars from the variance of every count: the same as asking the counts one by one, and used where counts are few."""
import numpy as np
import pytest
import torch
from test_uncertainty import KL, planted, solved

import anmf_lab as al
from anmf_lab.core import as_data
from anmf_lab.error_bars import unit_variance
from anmf_lab.polish import polish
from anmf_lab.propagated import Propagated
from anmf_lab.reduced import Reduced, entry_gradients, influence, localised, sandwich, spread


def counts(seed=0, of=40):
    W, H = planted(counts=of)
    X = np.random.default_rng(seed).poisson(W @ H).astype(float)
    return X, W, H


def one_by_one(red, V, fixed):
    "Variances of components and codes, an adjoint solve for each"
    at, components = red.at, torch.zeros_like(red.at.H)
    j, c = at.free[1].nonzero(as_tuple=True)
    components[j, c] = sandwich(red, V, fixed, j, c)
    i, b = at.free[0].nonzero(as_tuple=True)
    gW, gH = at.W.new_zeros(*at.W.shape, len(i)), at.W.new_zeros(*at.H.T.shape, len(i))
    m = torch.arange(len(i))
    gW[i, b, m] = at.size[b]
    gH[:, b, m] = at.W[i, b]
    codes = torch.zeros_like(at.W)
    codes[i, b] = spread(influence(red, gW, gH), V, fixed)
    return components, codes


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("beta, holes, noise", [(1., 0., "poisson"), (1., .1, "poisson"), (2., 0., "poisson"), (1., 0., "gaussian"), (2., .1, "gaussian")])
def test_the_same_as_asking_every_count(beta, holes, noise, fixed, monkeypatch):
    X, W, H = counts()
    X = np.where(np.random.default_rng(1).random(X.shape) < holes, np.nan, X)
    factors = solved(X, W, H, beta)
    at = localised(as_data(X), torch.from_numpy(factors["W"]), torch.from_numpy(factors["H"]), beta)
    red, V = Reduced(at), unit_variance(noise, at)
    components, codes = one_by_one(red, V, fixed)
    for rows in (500, 7):
        monkeypatch.setattr("anmf_lab.propagated.ROWS", rows)
        ours = Propagated(red, V, fixed)
        torch.testing.assert_close(ours.components(), components, rtol=1e-6, atol=1e-14)
        torch.testing.assert_close(ours.codes(), codes, rtol=1e-6, atol=1e-9)
    G = entry_gradients(at, torch.zeros(4, dtype=torch.long), torch.arange(4)) * at.free[1].T[:, :, None]
    J, some = influence(red, None, G), torch.where(V.isfinite(), V, 0.)
    wanted = (J * some).flatten(1) @ J.flatten(1).T
    if fixed: wanted -= (J * some).sum(2) / some.sum(1) @ (J * some).sum(2).T
    torch.testing.assert_close(ours.covariance(G), wanted, rtol=1e-6, atol=1e-14)


def test_a_penalty_fixes_the_scale():
    "Rows of H do not sum to one then, and the gradient of the normalisation matters"
    X, W, H = counts()
    pair = polish(as_data(X), torch.from_numpy(W + .1), torch.from_numpy(H + .01), 1., tol=1e-11, l2=.5).state
    red = Reduced(localised(as_data(X), *pair, 1., l2=.5))
    assert float((red.at.size - 1).abs().max()) > .1
    components, codes = one_by_one(red, red.at.Y, False)
    ours = Propagated(red, red.at.Y)
    torch.testing.assert_close(ours.components(), components, rtol=1e-6, atol=1e-14)
    torch.testing.assert_close(ours.codes(), codes, rtol=1e-6, atol=1e-9)


def test_few_counts_take_their_bars_from_the_noise(monkeypatch):
    X, W, H = counts()
    factors = solved(X, W, H)
    u = al.uncertainty(None, X, **factors)
    components, codes = one_by_one(u._red, u._red.at.Y, False)
    np.testing.assert_allclose(u.components_stderr, (u.dispersion * components).sqrt(), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(u.codes_stderr, (u.dispersion * codes).sqrt(), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(u.covariance(0).diagonal()**.5, u.components_stderr[0], rtol=1e-6, atol=1e-9)
    assert not any("too small" in note for note in u.notes)
    many = al.uncertainty(None, 20 * X, dispersion=1., **solved(20 * X, 20 * W, H))      # more counts: the curvature
    assert u._noise and not many._noise
    same = al.uncertainty(None, 20 * X, dispersion=20 * u.dispersion, **solved(20 * X, 20 * W, H))      # the same counts in another unit
    np.testing.assert_allclose(same.components_stderr, u.components_stderr, rtol=1e-5, atol=1e-8)
    total = al.uncertainty(None, X, noise="multinomial", **factors)
    np.testing.assert_allclose(total.components_stderr, u.components_stderr, rtol=1e-6, atol=1e-9)
    monkeypatch.setattr("anmf_lab.error_bars.LARGE", 10)
    sketched = al.uncertainty(None, X, **factors)
    assert any("fewer than 50 counts for each code" in note and "too small" in note for note in sketched.notes)


def test_a_hole_where_the_fit_is_zero_has_no_say():
    "0 / 0 is no variance"
    W, H = np.array([[30., 0], [0, 40], [20, 20], [35, 0], [10, 60]]), np.array([[.5, .3, .2, 0], [0, .2, .3, .5]])
    X = np.random.default_rng(0).poisson(W @ H + 1e-9).astype(float)
    X[0, 3] = np.nan
    u = al.uncertainty(None, X, noise="gaussian", loss=KL, W=W, H=H)
    v = al.uncertainty(None, X, noise="poisson", loss="frobenius", W=W, H=H)
    for bars in (u, v):
        assert bars._noise and np.isfinite(bars.components_stderr).all() and np.isfinite(bars.codes_stderr).all()
    assert v._red.at.Y[0, 3] == 0 and v._V[0, 3] == torch.inf
