"""AT-NMF: the adversary, the monotone algorithm, the published scheme, the estimator."""
import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from refs import atnmf_published as published
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import parametrize_with_checks

import anmf_lab as al
from anmf_lab.align import feature_error
from anmf_lab.adversary import (ball_delta, box_delta, box_loss, eps_of_lam, l1_delta, lam_of_eps, robust_loss,
                                robust_slope, worst_delta)
from anmf_lab.atnmf import ATNMF, online_update, opponent
from anmf_lab.bregman import bregman_loss, bregman_reply, kl_quadratic_reply, log_ball_reply, tempered
from anmf_lab.completion import paper_fit
from anmf_lab.core import Data, as_data
from anmf_lab.synthetic import false_zeros, make_atnmf_synthetic
from anmf_lab.divergence import parts
from anmf_lab.implicit import feature_gradient
from anmf_lab.minmax import alternating, approach, worst_data, half_normal, majorizer, minmax_loss, minmax_step
from anmf_lab.opponents import Adversary, Ball, Box, Bregman, LogBall, Price, QuadraticKL
from anmf_lab.polish import kkt_residual, polish
from anmf_lab.worstcase import kinks, worst_codes

LAMS = (1.02, 1.1, 1.5, 2., 3., 5., 10.)
T = lambda A: torch.tensor(np.asarray(A, dtype=float))  # noqa: E731


def rises(losses, rtol=1e-10):
    return int((np.diff(losses) > rtol * np.abs(losses[:-1])).sum())


def draw(rng, n=10, f=13, k=3, hidden=.4, missing="zero"):
    "A low-rank problem with holes, or with zeros in their place, and some true zeros"
    X = rng.gamma(1., size=(n, k)) @ rng.gamma(1., size=(k, f)) * (rng.random((n, f)) > .1)
    seen = (rng.random((n, f)) > hidden).astype(float)
    return Data(T(X * seen), T(seen) if missing == "mask" else None)


def starts(rng, data, k=3):
    return T(rng.random((data.n, k))), T(rng.random((k, data.f)))


# --- the reply and its price

@given(st.integers(0, 10**6), st.sampled_from(LAMS))
@settings(max_examples=40, deadline=None)
def test_no_move_on_a_grid_beats_the_reply(seed, lam):
    rng = np.random.default_rng(seed)
    x, y = rng.random((50, 1)) * 4 * (rng.random((50, 1)) > .2), rng.random((50, 1)) * 8
    grid = np.maximum(np.linspace(-5, 60, 6001)[None], -x)
    pay = ((x + grid - y)**2 - lam * grid**2).max(1, keepdims=True)
    phi = robust_loss(T(x), T(y), lam).numpy()
    assert (pay <= phi + 1e-12 * (1 + np.abs(phi) + y**2 * lam / (lam - 1))).all()
    r = worst_delta(T(x), T(y), lam).numpy()
    assert_allclose((x + r - y)**2 - lam * r**2, phi, rtol=1e-12, atol=1e-12 * lam / (lam - 1) * 64)
    assert (x + r >= 0).all()


def test_phi_is_the_grid_maximum_where_the_best_move_is_a_grid_point():
    for lam, step in ((1.5, 2.), (2., 1.), (3., .5), (5., .25)):  # (x - y) / (lam - 1) in multiples of 1/16
        x, y = np.meshgrid(np.arange(0, 65) / 16, np.arange(0, 129) / 16)
        moves = np.arange(-16 * 64, 16 * 64 + 1) / 16 * step / 1.
        pay = np.max([(x + d - y)**2 - lam * d**2 + np.where(x + d < 0, -np.inf, 0) for d in moves], 0)
        pay = np.maximum(pay, y**2 - lam * x**2)  # the boundary x + d = 0
        assert np.abs(pay - robust_loss(T(x), T(y), lam).numpy()).max() <= 1e-12


@pytest.mark.parametrize("lam", LAMS)
def test_below_the_join_it_is_nmf_up_to_omega(rng, lam):
    X = T(rng.random((9, 8)) + .1)
    W, H = T(rng.random((9, 3))), T(rng.random((3, 8)))
    W = W * (lam * X / (W @ H)).min()  # W H <= lam X everywhere
    N, P = parts(worst_data(Data(X), W, H, lam), W, H, 2.)
    n, p = parts(Data(X), W, H, 2.)
    omega = lam / (lam - 1)
    scale = float((omega * p).abs().max())
    assert float(((P - N) - omega * (p - n)).abs().max()) <= 1e-12 * scale
    assert_allclose(robust_slope(X, W @ H, lam), 2 * omega * (W @ H - X), atol=1e-12 * omega)


def bisect(X, Y, eps):
    lo, hi = 1e-14, 1e12
    for _ in range(300):
        mid = math.sqrt(lo * hi)
        lo, hi = (mid, hi) if float((torch.maximum((X - Y) / mid, -X)**2).sum()) > eps else (lo, mid)
    return 1 + hi


@given(st.integers(0, 10**6), st.floats(-6, 5))
@settings(max_examples=60, deadline=None)
def test_ball_is_solved_exactly(seed, logeps):
    rng = np.random.default_rng(seed)
    X, Y = rng.random((5, 6)) * 3 * (rng.random((5, 6)) > .3), rng.random((5, 6)) * 3
    X[0, 0], Y[0, 0] = 2., 1.  # an entry predicted too low: every budget is reached
    X, Y, eps = T(X), T(Y), 10**logeps
    r = ball_delta(X, Y, eps)
    assert abs(float(r.lam) / bisect(X, Y, eps) - 1) <= 1e-10
    assert abs(float(r.gap)) <= 1e-10 * float(r.value)
    assert float((r.delta**2).sum()) <= eps * (1 + 1e-10) and bool((X + r.delta >= 0).all())
    assert_allclose(float(lam_of_eps(X, Y, float(eps_of_lam(X, Y, 1.7)))), 1.7, rtol=1e-10)
    for _ in range(20):  # no random move within the budget does more
        D = T(rng.normal(size=(5, 6)))
        D = torch.maximum(D * math.sqrt(eps) / D.norm(), -X)
        assert float(((X + D - Y)**2).sum()) <= float(r.value) * (1 + 1e-12)


@given(st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_budgets_of_rows_columns_entries_and_sums_are_met(seed):
    rng = np.random.default_rng(seed)
    X, Y = T(rng.random((4, 6)) * (rng.random((4, 6)) > .3)), T(rng.random((4, 6)) * 2)
    eps = float(rng.random() + .01)
    mask = T((rng.random((4, 6)) > .2) * 1.)
    for group, dim in (("row", 1), ("column", 0)):
        r = ball_delta(X, Y, eps, group=group, mask=mask)
        assert bool(((r.delta**2).sum(dim) <= eps * (1 + 1e-10)).all()) and bool((X + r.delta >= 0).all())
        assert bool((r.delta[mask == 0] == 0).all()) and bool((r.gap >= -1e-9).all())
    d = box_delta(X, Y, eps)
    assert bool((d.abs() <= eps).all()) and bool((X + d >= 0).all())
    s = l1_delta(X, Y, eps)
    assert float(s.delta.abs().sum()) <= eps * (1 + 1e-12) and bool((X + s.delta >= 0).all())
    assert float(s.gap) >= -1e-9
    assert_allclose(box_loss(X, Y, 0.), (X - Y)**2)
    assert_allclose(ball_delta(X, Y, 0.).delta.abs().max(), 0)


@given(st.integers(0, 10**6), st.floats(1.05, 6), st.sampled_from([-1., 0., .5, 1., 1.3, 2.]))
@settings(max_examples=60, deadline=None)
def test_bregman_reply_beats_every_other_and_kl_is_an_alpha_divergence(seed, lam, beta):
    rng = np.random.default_rng(seed)
    x, y = T(rng.random(40) * 3 + .1), T(rng.random(40) * 3 + .1)
    if beta < 1: y = torch.maximum(y, 1.05 * x * lam**(1 / (beta - 1)))
    from anmf_lab.divergence import entries
    phi, u = bregman_loss(x, y, lam, beta), bregman_reply(x, y, lam, beta)
    other = (u * T(np.exp(rng.normal(size=40)))).clamp_min(1e-9)
    assert bool((entries(other, y, beta) - lam * entries(other, x, beta) <= phi + 1e-9 * (1 + phi.abs())).all())
    a = lam / (lam - 1)
    if beta == 1 and lam >= 1.2:
        alpha = (x**a * y**(1 - a) - a * x + (a - 1) * y) / (a - 1)
        assert bool(((phi - alpha).abs() <= 1e-12 * (alpha.abs() + a * (x + y) + u * lam)).all())


def test_lambert_and_log_ball_by_hand():
    assert float(kl_quadratic_reply(T([2.]), T([1e-9]), 5.)) > 2  # far too low a prediction: pushed up
    assert float(kl_quadratic_reply(T([.1]), T([9.]), 1.)) == 0  # far too high: emptied
    assert_allclose(log_ball_reply(T([2., 2.]), T([.1, 90.]), math.log(2)), [4., 1.])


# --- a step that cannot go up

@given(st.integers(0, 10**6), st.sampled_from(LAMS), st.sampled_from(["tight", "uniform"]))
@settings(max_examples=40, deadline=None)
def test_the_parabola_touches_and_lies_above(seed, lam, bound):
    rng = np.random.default_rng(seed)
    x, y0, y = T(rng.random(2000) * 3 * (rng.random(2000) > .2)), T(rng.random(2000) * 9), T(rng.random(2000) * 12)
    y[:200] = 0  # where the tight one touches again
    a, t = majorizer(x, y0, lam, bound)
    gap = robust_loss(x, y0, lam) + a * ((t - y)**2 - (t - y0)**2) - robust_loss(x, y, lam)
    assert float((gap / (1 + a * (x + y + y0)**2)).min()) >= -1e-13
    assert_allclose(2 * a * (y0 - t), robust_slope(x, y0, lam), rtol=1e-9, atol=1e-9 * lam / (lam - 1))


@pytest.mark.parametrize("l2", [0., .5])
@pytest.mark.parametrize("missing", ["mask", "zero"])
@pytest.mark.parametrize("lam", LAMS)
@given(seed=st.integers(0, 10**6), kind=st.sampled_from([("hals", "tight"), ("hals", "uniform"), ("mu", "tight"), ("mu", "uniform")]))
@settings(max_examples=8, deadline=None)
def test_the_objective_never_rises(lam, missing, l2, seed, kind):
    rng = np.random.default_rng(seed)
    data = draw(rng, missing=missing)
    state, losses = starts(rng, data), []
    for _ in range(40):
        losses.append(float(minmax_loss(data, *state, lam, l2=l2)))
        state = minmax_step(data, state, lam, l2=l2, update=kind[0], bound=kind[1])
    assert rises(np.array(losses)) == 0
    assert bool((state[0] >= 0).all()) and bool((state[1] >= 0).all())


@pytest.mark.parametrize("adv", [Ball(.5), Ball(.1, "row"), Ball(.1, "column"), Box(.2), Bregman(lam=1.3, beta=1.), Bregman(lam=1.3, beta=1.5),
                                 Bregman(lam=2., beta=0.), Bregman(lam=2., beta=.5), QuadraticKL(lam=.7), LogBall(.3)], ids=repr)
@given(seed=st.integers(0, 10**6))
@settings(max_examples=6, deadline=None)
def test_no_adversary_makes_the_game_rise(adv, seed):
    rng = np.random.default_rng(seed)
    X = T(rng.gamma(1., size=(7, 3)) @ rng.gamma(1., size=(3, 9)) + .1)
    state, losses = (T(rng.random((7, 3)) + 5), T(rng.random((3, 9)) + 2)), []
    for _ in range(25):
        losses.append(float(adv.game(Data(X), *state, 0., 0.)))
        state = adv.step(Data(X), state, 0., 0.)
    assert np.isfinite(losses).all() and rises(np.array(losses)) == 0 and losses[-1] < losses[0]


def test_the_tempered_step_is_the_power_mean():
    r = T([.2, 1., 3.])
    assert_allclose(tempered(r, 3., 2.), r * 2 / 3 + 1 / 3)
    assert_allclose(tempered(r, 3., 1.), r**(2 / 3))
    assert_allclose(tempered(r, 3., 1 + 1e-9), r**(2 / 3), rtol=1e-6)


def test_approach_ends_at_the_price(rng):
    data = draw(rng)
    s = starts(rng, data)
    assert approach(data, *s, 2.)[0] is s[0]  # nothing to pass through
    assert approach(data, *s, 1.1)[0] is not s[0]


# --- the published scheme

@pytest.mark.parametrize("lam", [1.5, 2., 5.])
def test_alternating_is_the_published_scheme(lam):
    rng = np.random.RandomState(3)
    V, D = rng.rand(20, 5) @ rng.rand(5, 15), (rng.rand(20, 15) > .4) * 1.
    W, H = published.start(20, 15, 4, np.random.RandomState(1))
    ref_W, ref_H, ref_losses, steps = published.atnmf(V, D, W, H, lam, outer=4, inner=30)
    codes, components = half_normal(15, 20, 4, seed=1)
    run = alternating(Data(T((D * V).T)), codes, components, lam, outer=4, inner=30)
    assert run.n_iter == steps
    assert_allclose(run.losses, ref_losses, rtol=1e-10)
    assert_allclose(run.state[1].T, ref_W, rtol=1e-10, atol=1e-12)
    assert_allclose(run.state[0].T, ref_H, rtol=1e-10, atol=1e-12)


def test_alternating_stops_by_the_published_rule():
    rng = np.random.RandomState(3)
    V, D = rng.rand(12, 2) @ rng.rand(2, 10) + .1, np.ones((12, 10))
    W, H = published.start(12, 10, 2, np.random.RandomState(1))
    ref_W, ref_H, ref_losses, steps = published.atnmf(V, D, W, H, 5., outer=40, inner=300)
    run = alternating(Data(T(V.T)), *half_normal(10, 12, 2, seed=1), 5., outer=40, inner=300)
    assert len(ref_losses) < 41 and steps < 300 * (len(ref_losses) - 1)  # both rules ended a loop
    assert run.n_iter == steps and run.status == "converged"
    assert_allclose(run.losses, ref_losses, rtol=1e-10)


def test_published_nmf_and_stopping_rule():
    rng = np.random.RandomState(3)
    V, D = rng.rand(12, 3) @ rng.rand(3, 10), np.ones((12, 10))
    W, H = published.start(12, 10, 3, np.random.RandomState(1))
    ref_W, ref_H, n = published.nmf(V, D, W, H, most=5000)
    assert n < 5000  # the rule ended it
    codes, components = half_normal(10, 12, 3, seed=1)
    got = paper_fit(V.T, D.T > 0, (codes, components), None, outer=1, inner=5000)
    assert_allclose(got[0] @ got[1], (ref_W @ ref_H).T, rtol=1e-10)


def test_published_scheme_rises_and_ends_higher():
    X = false_zeros(make_atnmf_synthetic(random_state=0)[0], .5, random_state=0)[0]
    theirs = ATNMF(5, lam=2., solver="alternating", max_iter=15, tol=0, random_state=0).fit(X)
    ours = ATNMF(5, lam=2., tol=1e-4, random_state=0).fit(X)
    assert rises(theirs.loss_curve_) > 0 == rises(ours.loss_curve_)
    assert theirs.loss_curve_[-2] >= 1.5 * ours.loss_curve_[-1]      # before the codes are solved once more


# --- the estimator

@parametrize_with_checks([ATNMF(max_iter=20)])
def test_sklearn(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator)


def game_of(m, X, W):
    lam = float(m.lam_)
    return float(robust_loss(T(X), T(W @ m.components_), lam).sum())


@pytest.mark.parametrize("kw", [dict(), dict(lam=1.2), dict(solver="mu"), dict(bound="uniform"), dict(lam=1.1, continuation=True)], ids=str)
def test_loss_curve_is_the_min_max_objective(rng, kw):
    X = rng.gamma(1., size=(30, 3)) @ rng.gamma(1., size=(3, 20)) * (rng.random((30, 20)) > .3)
    m = ATNMF(3, random_state=0, tol=1e-4, max_iter=4000, **kw)
    W = m.fit_transform(X)
    assert rises(m.loss_curve_) == 0
    assert_allclose(game_of(m, X, W), m.loss_curve_[-1], rtol=1e-3)
    assert m.kkt_residual_ < 1e-3


def test_codes_are_optimal_and_each_row_stands_alone(rng):
    X = rng.gamma(1., size=(20, 3)) @ rng.gamma(1., size=(3, 15)) * (rng.random((20, 15)) > .3)
    for kw in (dict(lam=1.3), dict(loss="kullback-leibler"), dict(loss=1.5, lam=1.5), dict(eps=.5), dict(eps=.1, norm="row")):
        m = ATNMF(3, random_state=0, **kw).fit(X)
        W = m.transform(X)
        assert_allclose(m.transform(X[4:9]), W[4:9], rtol=1e-8, atol=1e-10)
        assert_allclose(m.fit_transform(X), W, rtol=1e-12)
        N, P = parts(m.opponent_.attack(as_data(X), T(W), T(m.components_)), T(W), T(m.components_), m._beta())
        assert float(torch.minimum(T(W) / T(W).amax(), 1 - N / P.clamp_min(1e-300)).abs().max()) < (1e-3 if "norm" in kw else 1e-7), kw


def test_price_and_budget_meet(rng):
    X = rng.gamma(1., size=(25, 3)) @ rng.gamma(1., size=(3, 20)) * (rng.random((25, 20)) > .3)
    price = ATNMF(3, lam=2., random_state=0, tol=1e-7, max_iter=20000).fit(X)
    budget = ATNMF(3, eps=price.eps_, random_state=0, tol=1e-7, max_iter=20000).fit(X)
    assert_allclose(budget.lam_, 2., rtol=1e-4)
    assert_allclose(budget.loss_curve_[-1], price.loss_curve_[-1] + 2 * price.eps_, rtol=1e-6)


def test_missing_zero_sparse_and_float32(rng):
    X = rng.gamma(1., size=(30, 3)) @ rng.gamma(1., size=(3, 20)) * (rng.random((30, 20)) > .4)
    holes = np.where(X == 0, np.nan, X)
    fixed = dict(init="random", random_state=0, tol=0, max_iter=30)
    zero = ATNMF(3, missing="zero", **fixed).fit(holes)
    assert_allclose(zero.components_, ATNMF(3, **fixed).fit(X).components_)
    assert_allclose(zero.components_, ATNMF(3, missing="zero", **fixed).fit(np.where(X == 0, 7., X), mask=X > 0).components_)
    sparse = ATNMF(3, **fixed).fit(sp.csr_array(X))
    assert_allclose(sparse.components_, zero.components_, rtol=1e-6, atol=1e-9)
    assert_allclose(sparse.transform(sp.csr_array(X)), zero.transform(X), rtol=1e-5, atol=1e-7)
    for kw in (dict(eps=5.), dict(loss="kullback-leibler"), dict(solver="mu"), dict(bound="uniform", lam=1.5), dict(l2=.05)):
        a, b = (ATNMF(3, **fixed, store_perturbation=True, **kw).fit(A) for A in (X, sp.csr_array(X)))
        assert_allclose(a.components_, b.components_, rtol=1e-6, atol=1e-8, err_msg=str(kw))
    small = ATNMF(3, random_state=0).fit(X.astype(np.float32))
    assert small.components_.dtype == np.float32 and small.transform(X.astype(np.float32)).dtype == np.float32
    masked = ATNMF(3, random_state=0, tol=1e-4, max_iter=5000).fit(holes)
    assert masked.reconstruction_err_ < .1 * zero.reconstruction_err_


def test_sparse_data_are_never_dense(rng):
    n = 20000  # dense, this would be 3.2 GB
    rng, m = np.random.default_rng(0), n * n // 100_000
    X = sp.csr_array((rng.random(m), (rng.integers(n, size=m), rng.integers(n, size=m))), shape=(n, n))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        m = ATNMF(2, init="random", max_iter=2, random_state=0).fit(X)
    assert m.components_.shape == (2, n)


def test_hidden_values_do_not_matter(rng):
    X, seen = rng.gamma(1., size=(15, 3)) @ rng.gamma(1., size=(3, 12)) + .1, rng.random((15, 12)) > .3
    for kw in (dict(), dict(solver="mu", bound="uniform"), dict(bound="uniform"), dict(eps=1.), dict(eps=.1, norm="column"), dict(eps=.05, norm="linf"),
               dict(loss="kullback-leibler"), dict(loss="itakura-saito")):
        a, b = (ATNMF(3, init="random", random_state=0, max_iter=20, tol=0, **kw).fit(np.where(seen, X, v), mask=seen) for v in (.3, 99.))
        assert_allclose(a.components_, b.components_, err_msg=str(kw))


def test_perturbation(rng):
    X = rng.gamma(1., size=(12, 3)) @ rng.gamma(1., size=(3, 9)) * (rng.random((12, 9)) > .3)
    m = ATNMF(3, store_perturbation=True, random_state=0).fit(X)
    assert m.perturbation_.shape == X.shape and (X + m.perturbation_ >= -1e-12).all()
    assert_allclose(m.perturb(X), m.perturbation_)
    assert_allclose((m.perturbation_**2).sum(), m.eps_)
    assert not hasattr(ATNMF(3, random_state=0).fit(X), "perturbation_")
    row = ATNMF(3, eps=.2, norm="row", store_perturbation=True, random_state=0).fit(X)
    assert ((row.perturbation_**2).sum(1) <= .2 * (1 + 1e-9)).all()


def test_zero_rows_and_columns_are_legal(rng):
    X = rng.gamma(1., size=(12, 9))
    X[3], X[:, 4] = 0, 0
    for kw in (dict(), dict(lam=1.05), dict(eps=1.), dict(eps=.1, norm="row"), dict(eps=.1, norm="linf"), dict(loss="kullback-leibler"), dict(solver="mu")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            m = ATNMF(3, random_state=0, max_iter=50, **kw)
            assert np.isfinite(m.fit_transform(X)).all() and np.isfinite(m.components_).all() and np.isfinite(m.loss_curve_).all(), kw


def test_same_seed_same_bits_and_nothing_is_overwritten(rng):
    X = rng.gamma(1., size=(15, 10))
    before = X.copy()
    a, b = (ATNMF(3, lam=1.2, init="random", n_init=2, random_state=4).fit(X) for _ in range(2))
    assert (a.components_ == b.components_).all() and (X == before).all()
    W, H = rng.random((15, 3)), rng.random((3, 10))
    W0, H0 = W.copy(), H.copy()
    ATNMF(3, init="custom").fit(X, W=W, H=H)
    assert (W == W0).all() and (H == H0).all()


def test_online_is_close_to_batch():
    rng = np.random.default_rng(0)
    X = rng.gamma(.5, size=(800, 6)) @ rng.gamma(.5, size=(6, 40)) + .2 * rng.random((800, 40))
    X *= rng.random(X.shape) > .2
    for lam in (1.5, 3.):
        whole = ATNMF(6, lam=lam, random_state=0).fit(X)
        online = ATNMF(6, lam=lam, random_state=0, forget=.9)
        for _ in range(4):
            for batch in np.split(X[rng.permutation(800)], 16): online.partial_fit(batch)
        assert game_of(online, X, online.transform(X)) <= 1.03 * game_of(whole, X, whole.transform(X))
    sparse = ATNMF(6, random_state=0, init="random").partial_fit(sp.csr_array(X[:100]))
    assert_allclose(sparse.components_, ATNMF(6, random_state=0, init="random").partial_fit(X[:100]).components_, rtol=1e-6, atol=1e-9)
    H, (A, B) = online_update(as_data(X[:50]), T(whole.components_), T(whole.transform(X[:50])), None, 3., .9)
    assert A.shape == (6, 6) and B.shape == (6, 40) and bool((H >= 0).all())


@pytest.mark.parametrize("missing", ["nothing", "mask", "sparse"])
def test_the_past_is_forgotten_alike_in_both_statistics(rng, missing):
    "By hand: A is k x k, B is k x f, and both keep the share `forget` of what they were"
    X, W, H, lam = rng.random((6, 5)) + .1, rng.random((6, 2)), rng.random((2, 5)), 2.
    seen = rng.random((6, 5)) > .3 if missing == "mask" else np.ones((6, 5), bool)
    if missing == "sparse": X = X * (rng.random((6, 5)) > .5)
    target = np.where(seen, np.maximum(X, W @ H / lam), W @ H)
    data = as_data(sp.csr_array(X)) if missing == "sparse" else Data(T(X * seen), T(seen) if missing == "mask" else None)
    A0, B0 = rng.random((2, 2)), rng.random((2, 5))
    _, (A, B) = online_update(data, T(H), T(W), (T(A0), T(B0)), lam, .25)
    assert_allclose(A, .25 * A0 + W.T @ W, rtol=1e-12)
    assert_allclose(B, .25 * B0 + W.T @ target, rtol=1e-12)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("lam", [3., 1.5])
def test_where_the_adversary_only_reweighs_a_penalty_does_what_it_does_in_nmf(rng, lam):
    "W H below lam X everywhere: squared error is multiplied with omega, and so must the penalty be"
    X = (rng.random((12, 2)) + .5) @ (rng.random((2, 9)) + .5)
    m = ATNMF(2, lam=lam, l2=.02, tol=1e-8, max_iter=20000, random_state=0)
    plain = al.NMF(2, l2=.02, polish=True, random_state=0)
    ours, theirs = (A.fit_transform(X) @ A.components_ for A in (m, plain))
    assert (ours < lam * X).all()
    assert_allclose(ours, theirs, rtol=1e-5)


def test_dense_gaussian_data_with_false_zeros():
    "The method's use: 30 % of the entries read zero, nobody knows which"
    at, plain = [], []
    for seed in range(2):
        rng = np.random.default_rng(seed)
        truth = rng.gamma(2., size=(100, 5)) @ rng.gamma(2., size=(5, 80))
        X = np.maximum(truth + .05 * truth.mean() * rng.normal(size=truth.shape), 0)
        X = X * (rng.random(X.shape) > .3)
        for model, errors in ((ATNMF(5, lam=1.1, random_state=0), at), (al.NMF(5, random_state=0), plain)):
            W = model.fit_transform(X)
            errors.append(np.sqrt(np.mean((W @ model.components_ - truth)**2)))
    assert np.mean(at) <= .5 * np.mean(plain)


class Thief(Adversary):
    "Takes away, never adds: somebody's own adversary, with nothing but a reply and a cost"
    def __init__(self, lam): self.lam = lam
    def __repr__(self): return f"Thief({self.lam})"    # a test's name may hold no address
    def reply(self, X, Y): return (X + (X - Y) / (self.lam - 1)).clamp(min=0).minimum(X)
    def cost(self, X, Y): return (self.reply(X, Y) - Y)**2 - self.lam * (self.reply(X, Y) - X)**2


# --- the objective, its derivatives, the end of the road

def sparse_parts(rng, n=12, f=10, k=3):
    "Noisy data of sparse factors, so that the solution has zeros"
    W, H = rng.gamma(2., size=(n, k)) * (rng.random((n, k)) < .6), rng.gamma(2., size=(k, f)) * (rng.random((k, f)) < .6)
    W[:k], H[:, :k] = np.eye(k), np.eye(k)
    return np.clip(W @ H + .25 * rng.normal(size=(n, f)), .02, None)


GRADIENTS = {"price": dict(lam=1.5), "price 1.25": dict(lam=1.25), "ball": dict(eps=1.), "rows": dict(eps=.15, norm="row"),
             "columns": dict(eps=.15, norm="column"), "KL": dict(loss="kullback-leibler", lam=1.6), "beta 1.5": dict(loss=1.5, lam=2.),
             "own": dict(adversary="thief")}


@pytest.mark.parametrize("how", [dict(), dict(l1=.02), dict(l2=.02), dict(data="mask"), dict(data="weights")], ids=str)
@pytest.mark.parametrize("name", GRADIENTS)
def test_the_feature_error_has_the_gradient_of_the_resolved_problem(name, how):
    "Adjoint of the min-max objective against central differences with re-solves"
    rng = np.random.default_rng(3)
    X, how, kw = sparse_parts(rng), dict(how), dict(GRADIENTS[name])
    if "adversary" in kw: kw["adversary"] = Thief(2.)
    what = how.pop("data", None)
    given = {"mask": {"mask": rng.random(X.shape) > .15}, "weights": {"weights": .3 + rng.random(X.shape)}}.get(what, {})
    m = ATNMF(3, random_state=0, polish=1e-12, max_iter=300, **kw, **how)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)   # 1e-12 may be below what rounding allows
        W, H = (T(A) for A in m.fit(X, **given).factors(X, **given))
    obj = m.objective(X, **given)
    solve = lambda obj, W, H: polish(obj, W, H, tol=1e-13, max_iter=60).state  # noqa: E731
    W, H = solve(obj, W, H)
    assert kkt_residual(obj, W, H) < 1e-9 and bool((W < 1e-8).any() | (H < 1e-8).any()) and kinks(m._opponent(), obj.data, W, H) == 0
    ref = W + .3 * T(rng.random(W.shape)), H + .3 * T(rng.random(H.shape))
    _, G, certificate = feature_gradient(obj, W, H, *ref, tol=1e-12)
    dX = T(rng.normal(size=X.shape)) * (obj.data.X > 0)
    def difference(h):
        ends = [feature_error(*solve(obj.at(replace(obj.data, X=obj.data.X + s * h * dX)), W, H), *ref) for s in (1, -1)]
        return (ends[0] - ends[1]) / (2 * h)
    slope = float((G * dX).sum())      # a step may cross a kink, or its solve end early: one of five that does not is enough
    close = lambda h: abs(difference(h) - slope) <= 1e-5 * abs(slope) + 1e-9   # noqa: E731
    assert any(map(close, (3e-5, 1e-4, 1e-5, 3e-4, 3e-6))), slope


@pytest.mark.parametrize("kw", [dict(lam=1.3), dict(eps=1.), dict(eps=.15, norm="row"), dict(eps=.15, norm="column"),
                                dict(loss="kullback-leibler", l2=.01), dict(loss=1.5, lam=2.), dict(adversary=Thief(2.))], ids=str)
def test_a_solved_model_is_told_so(rng, kw):
    X = sparse_parts(rng)
    m = ATNMF(3, polish=True, random_state=0, **kw)   # a ConvergenceWarning would be an error
    W = m.fit_transform(X)
    assert m.status_ == "converged" and m.kkt_residual_ <= 1e-8
    obj = m.objective(X)
    assert_allclose(float(obj.value(T(W), T(m.components_))), m.loss_curve_[-1], rtol=1e-8)
    assert kkt_residual(obj, T(W), T(m.components_)) <= 1e-8
    assert rises(m.loss_curve_, rtol=1e-9) == 0


def test_a_start_with_zeros_is_mended():
    "NNDSVD of the identity predicts 0 for ones, which against the adversary on KL costs 1e153"
    m = ATNMF(3, loss="kullback-leibler", init="nndsvd").fit(np.eye(8))
    assert m.loss_curve_[-1] < 100 and np.isfinite(m.components_).all() and m.kkt_residual_ < 1e-2
    with pytest.raises(ValueError, match="start"):
        ATNMF(1, loss="kullback-leibler", init="custom").fit(np.eye(3), W=np.eye(3)[:, :1], H=np.eye(3)[:1])


def test_polish_needs_a_gradient(rng):
    X = sparse_parts(rng)
    for kw in (dict(eps=.1, norm="linf"), dict(loss="kullback-leibler", norm="l2"), dict(loss="itakura-saito", norm="log", eps=.1)):
        with pytest.raises(ValueError, match="kink"): ATNMF(3, polish=True, **kw).fit(X)
        assert "kink" in ATNMF(3, **kw).objective(X).notes[0]
    with pytest.raises(ValueError, match="dense"): ATNMF(3, polish=True).fit(sp.csr_array(X))
    with pytest.raises(ValueError, match="polish"): ATNMF(3, polish=-1.).fit(X)


def test_the_unit_of_the_data_does_not_matter():
    "Prices have no unit; budgets are in squares (or units) of the data, a price on KL in its inverse"
    X = sparse_parts(np.random.default_rng(0), 8, 7, 2)
    few = X[:3]
    for kw, unit in ((dict(lam=1.3, l1=.01, l2=.01), {}), (dict(eps=1.), dict(eps=2)), (dict(eps=.1, norm="row"), dict(eps=2)),
                     (dict(eps=.1, norm="linf"), dict(eps=1)), (dict(loss="kullback-leibler", lam=3., l2=.01), {}),
                     (dict(loss="kullback-leibler", norm="l2", lam=2.), dict(lam=-1)),
                     (dict(loss="itakura-saito", lam=3.), {}), (dict(loss="itakura-saito", norm="log", eps=.1), {})):
        fixed = dict(init="random", random_state=0, max_iter=8, tol=0)
        a = ATNMF(2, **kw, **fixed).fit(X)
        codes, attacked = a.transform(few), a.perturb(few)
        for c in (4.**-50, 4.**50):   # exact, since the path to a kink depends on rounding
            b = ATNMF(2, **{name: v * c**unit[name] if name in unit else v for name, v in kw.items()}, **fixed).fit(c * X)
            assert_allclose(b.components_ / c**.5, a.components_, rtol=1e-6, atol=1e-9, err_msg=f"{kw} {c}")
            assert_allclose(b.transform(c * few) / c**.5, codes, rtol=1e-6, atol=1e-8, err_msg=f"{kw} {c}")
            assert_allclose(b.perturb(c * few) / c, attacked, rtol=1e-5, atol=1e-7, err_msg=f"{kw} {c}")


@pytest.mark.parametrize("c", [4.**-28, 4.**28])
def test_nor_does_it_in_float32(c):
    X = sparse_parts(np.random.default_rng(0), 8, 7, 2)
    for kw, unit in ((dict(lam=1.3), {}), (dict(eps=.1, norm="linf"), dict(eps=1)), (dict(eps=.1, norm="row"), dict(eps=2))):
        fixed = dict(init="random", random_state=0, max_iter=8, tol=0)
        a = ATNMF(2, **kw, **fixed).fit(X.astype(np.float32))
        b = ATNMF(2, **{name: v * c**unit[name] if name in unit else v for name, v in kw.items()}, **fixed)
        b.fit((c * X).astype(np.float32))
        assert_allclose(b.components_ / c**.5, a.components_, rtol=1e-3, atol=1e-3, err_msg=str(kw))


# --- bad input

ONES = np.ones((5, 4))


@pytest.mark.parametrize("kw, word", [
    (dict(lam=1.), "lam"), (dict(lam=.5), "lam"), (dict(lam=-2.), "lam"), (dict(lam=np.nan), "lam"), (dict(lam="2"), "lam"), (dict(lam=2., eps=1.), "not both"),
    (dict(eps=-1.), "eps"), (dict(eps=-1., norm="row"), "eps"), (dict(eps=-1., norm="linf"), "eps"), (dict(norm="linf"), "eps"),
    (dict(norm="linf", lam=2.), "eps"), (dict(norm="l1", eps=1.), "l1_delta"), (dict(norm="l3"), "norm"), (dict(norm="log", eps=.1), "itakura"),
    (dict(norm="row", eps=1., loss="kullback-leibler"), "frobenius"), (dict(eps=1., loss="kullback-leibler"), "lam"), (dict(loss="huber"), "loss"),
    (dict(loss=3.), "beta"), (dict(norm="l2", loss=1.5), "bregman"), (dict(missing="fill"), "missing"), (dict(solver="newton"), "solver"),
    (dict(solver="hals", loss="kullback-leibler"), "solver"), (dict(solver="alternating", eps=1.), "alternating"), (dict(bound="loose"), "bound"),
    (dict(l2=-1.), "l2"), (dict(forget=0.), "forget"), (dict(n_components=0), "n_components"), (dict(n_init=0), "n_init"),
    (dict(norm="l2", loss="kullback-leibler", lam=0.), "lam"), (dict(init="custom"), "custom"),
], ids=str)
def test_bad_parameters_are_named(kw, word):
    with pytest.raises(ValueError, match=word): ATNMF(**({"n_components": 2} | kw)).fit(ONES)


def test_an_adversary_of_ones_own(rng):
    X, seen = rng.gamma(1., size=(14, 3)) @ rng.gamma(1., size=(3, 9)), rng.random((14, 9)) > .2
    m = ATNMF(3, adversary=Thief(2.), init="random", random_state=0, max_iter=3000)
    W = m.fit_transform(X, mask=seen)
    taken = m.perturb(X, mask=seen)
    assert m.status_ == "converged" and rises(m.loss_curve_) == 0
    assert (taken <= 0).all() and (taken < 0).any() and (X + taken >= 0).all() and (taken[~seen] == 0).all()
    assert_allclose(m.transform(X[3:7], mask=seen[3:7]), W[3:7], rtol=1e-7, atol=1e-9)
    total = (Thief(2.).cost(T(X), T(W @ m.components_)).numpy() * seen).sum()
    assert total <= m.loss_curve_[-1] * (1 + 1e-9)
    assert "Thief" in repr(m) and m.lam_ == 2.


def test_words_and_objects_mean_the_same(rng):
    X = rng.gamma(1., size=(14, 3)) @ rng.gamma(1., size=(3, 9)) + .1
    fixed = dict(init="random", random_state=0, max_iter=20, tol=0)
    for words, adv in ((dict(lam=1.5), Price(1.5)), (dict(eps=.5), Ball(.5)), (dict(eps=.1, norm="column"), Ball(.1, "column")),
                       (dict(eps=.1, norm="linf"), Box(.1)), (dict(loss="kullback-leibler", lam=3.), Bregman(3., 1.)),
                       (dict(solver="mu"), Price(2., "mu")), (dict(loss="itakura-saito", norm="log", eps=.1), LogBall(.1))):
        a, b = (ATNMF(3, l2=.01, **kw, **fixed).fit(X) for kw in (words, dict(adversary=adv)))
        assert_allclose(a.components_, b.components_, rtol=1e-12, err_msg=str(words))
        assert a.penalties_ == b.penalties_ and (a.penalties_[1] > 0)


def test_prices_may_differ_between_rows_and_columns(rng):
    X = rng.gamma(1., size=(8, 3)) @ rng.gamma(1., size=(3, 6)) * (rng.random((8, 6)) > .3)
    fixed = dict(init="random", random_state=0, max_iter=20, tol=0)
    same = ATNMF(2, lam=1.7, **fixed).fit(X).components_
    for shape in ((8, 1), (1, 6)):
        m = ATNMF(2, adversary=Price(torch.full(shape, 1.7, dtype=torch.float64)), **fixed).fit(X)
        assert_allclose(m.components_, same, rtol=1e-9)
    with pytest.raises(ValueError, match="one a row"): ATNMF(2, adversary=Price(torch.full((7, 1), 2.))).fit(X)


def test_penalties_weigh_what_they_weigh_without_an_adversary(rng):
    "Where he never reaches the join he multiplies the fit with omega, and the penalties with it: the same problem as NMF"
    X = rng.gamma(2., size=(12, 2)) @ rng.gamma(2., size=(2, 9)) + 2
    for how in (dict(l1=.02), dict(l2=.02)):
        plain = al.NMF(2, random_state=0, tol=1e-9, max_iter=20000, **how).fit(X)
        robust = ATNMF(2, lam=5., random_state=0, tol=1e-9, max_iter=20000, **how).fit(X)
        W = robust.transform(X)
        assert (W @ robust.components_ < 5 * X).all()
        assert_allclose(robust.components_, plain.components_, rtol=1e-4, atol=1e-6)
        l1, l2 = robust.penalties_
        fit, both = game_of(robust, X, W), (W, robust.components_)
        assert_allclose(fit + sum(l1 * A.sum() + l2 / 2 * (A**2).sum() for A in both), robust.loss_curve_[-1], rtol=1e-6)


def test_forgetting_scales_both_statistics():
    H, W, data = T([[1., 2.]]), T([[1.], [2.]]), Data(T([[1., 2.], [3., 1.]]))
    old = (T([[10.]]), T([[4., 6.]]))
    fresh = online_update(data, H, W, None, 2., .5)[1]
    A, B = online_update(data, H, W, old, 2., .5)[1]
    assert_allclose(A, .5 * old[0] + fresh[0], rtol=1e-12)
    assert_allclose(B, .5 * old[1] + fresh[1], rtol=1e-12)


@pytest.mark.parametrize("kw, word", [
    (dict(adversary="price"), "reply"), (dict(adversary=Price), "reply"), (dict(adversary=Price(2.), lam=2.), "replaces"),
    (dict(adversary=Price(2.), eps=2.), "replaces"), (dict(adversary=Price(2.), norm="linf"), "replaces"),
    (dict(adversary=Price(2.), solver="mu"), "replaces"), (dict(adversary=Price(2.), loss="kullback-leibler"), "attacks"),
    (dict(adversary=Adversary()), "reply"),
], ids=lambda v: v if isinstance(v, str) else "-".join(v))
def test_bad_adversaries_are_named(kw, word):
    with pytest.raises((ValueError, NotImplementedError), match=word): ATNMF(2, **kw).fit(ONES)


def test_a_reply_that_is_not_the_costs_is_found_out():
    class Free(Thief):
        def cost(self, X, Y): return (self.reply(X, Y) - Y)**2
    class Negative(Thief):
        def reply(self, X, Y): return X - 2 * Y
    class Scalar(Thief):
        def cost(self, X, Y): return super().cost(X, Y).sum()
    X = np.random.default_rng(0).random((6, 5)) + .1
    for adv, word in ((Free(2.), "belong together"), (Negative(2.), ">= 0"), (Scalar(2.), "entry by entry")):
        with pytest.raises(ValueError, match=word): ATNMF(2, adversary=adv).fit(X)


def test_bad_data_are_named():
    Z = ONES.copy()
    Z[0, 0] = 0
    with pytest.raises(ValueError, match="positive data"): ATNMF(2, loss="itakura-saito").fit(Z)
    with pytest.raises(ValueError, match="positive data"): ATNMF(2, loss="itakura-saito", norm="log", eps=.1).fit(Z)
    with pytest.raises(ValueError, match="barrier"):
        ATNMF(2, loss="itakura-saito", init="custom").fit(ONES, W=np.full((5, 2), .01), H=np.full((2, 4), .01))
    ATNMF(2, loss="itakura-saito", init="custom").fit(ONES, W=np.ones((5, 2)), H=np.full((2, 4), 1.))
    for where in (np.s_[1], np.s_[:, 2]):
        mask = np.ones((5, 4), bool)
        mask[where] = False
        with pytest.raises(ValueError, match="mask|observed"): ATNMF(2).fit(ONES, mask=mask)
    with pytest.raises(ValueError, match="sparse"): ATNMF(2, eps=1., norm="row").fit(sp.csr_array(Z))
    with pytest.raises(ValueError, match="sparse"): ATNMF(2, eps=.1, norm="linf").fit(sp.csr_array(Z))
    assert hasattr(ATNMF(2), "partial_fit") and not hasattr(ATNMF(2, eps=1.), "partial_fit")      # only where it works
    for call in (lambda: worst_delta(T([1.]), T([1.]), 1.), lambda: robust_loss(T([1.]), T([1.]), .9), lambda: ball_delta(T([[1.]]), T([[1.]]), -1.),
                 lambda: ball_delta(T([[1.]]), T([[1.]]), 1., group="block"), lambda: box_delta(T([1.]), T([1.]), -1.), lambda: l1_delta(T([1.]), T([1.]), -1.),
                 lambda: kl_quadratic_reply(T([1.]), T([1.]), 0.), lambda: log_ball_reply(T([1.]), T([1.]), -1.)):
        with pytest.raises(ValueError, match="lam|eps|group"): call()


def test_defaults():
    assert isinstance(opponent("frobenius", "auto", None, None), Price) and opponent("frobenius", "auto", None, None).lam == 2.
    assert isinstance(opponent("frobenius", "auto", None, .5), Ball) and isinstance(opponent("kullback-leibler", "auto", 3., None), Bregman)
    assert al.ATNMF is ATNMF
    al.ATNMF(3, lam=1.2).fit(np.random.default_rng(0).random((8, 6)))
    W = worst_codes(Data(T(ONES)), T(np.ones((1, 4))), Price(2.))
    assert_allclose(W, 1., rtol=1e-9)
