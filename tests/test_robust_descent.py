"""Robust fits, solved: what each part of the descent hands on, with stubs where a solver would be slow or would depend on rounding."""
from functools import partial

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import anmf_lab.robust_descent as rd
from anmf_lab.core import as_data
from anmf_lab.loop import Run, Status
from anmf_lab.robust_losses import ResidualLoss, capped, huber, l21, observed_squares, reweighted_measure, reweighted_step

rng = np.random.default_rng(0)
X = rng.gamma(1., size=(8, 2)) @ rng.gamma(1., size=(2, 6)) + .1 * rng.random((8, 6))
X[0] = 9.
DATA = as_data(X)
FIRST = tuple(torch.from_numpy(rng.gamma(1., size=size)) for size in ((8, 2), (2, 6)))
NORM = ResidualLoss(partial(l21, floor=1e-2), True, True)
entries = partial(rd.convex_relative, per_sample=False)


def test_the_scale_that_settles_is_that_of_the_factors_returned_in_any_unit():
    end, large = (rd.settle(as_data(c * X), tuple(c**.5 * T for T in FIRST), reweighted_step, entries, 50) for c in (1., 2.**40))
    s = observed_squares(DATA, *end.state[:2], False)
    assert_allclose(end.state[2].rho.keywords["c"], float(s.median())**.5, rtol=1e-12)
    assert end.status is Status.converged and 1 < end.n_iter == large.n_iter < 50      # a power of two: the same bits
    assert_allclose(large.state[2].rho.keywords["c"], 2.**40 * end.state[2].rho.keywords["c"])


def test_no_scale_is_below_rounding_and_samples_have_a_tip():
    zero = torch.zeros(3, dtype=torch.float64)
    assert entries(zero, .5).rho.keywords["c"] == .5 and entries(zero + 9, .5).rho.keywords["c"] == 3.
    loss = rd.convex_relative(zero, .5, True)
    assert loss.tip and loss.per_sample and float(loss.rho(zero)[0][0]) == .5 and not entries(zero, .5).tip


def test_a_trace_of_the_norm_is_a_billionth_of_both():
    s = torch.tensor([0., 16., 1e4], dtype=torch.float64)
    cap = partial(capped, theta=2.)
    values, weights = rd.traced(cap, 3.)(s)
    e = np.sqrt(s.numpy() + 9)
    assert_allclose((values - cap(s)[0]).numpy(), 1e-9 * e, rtol=1e-5)
    assert_allclose(weights[1:].numpy(), 1e-9 / e[1:], rtol=1e-12)      # beyond the cap nothing else is left


def test_samples_that_are_ignored_pull_by_the_trace_of_a_norm_with_a_round_tip():
    obj = rd.smooth_norm(DATA, ResidualLoss(partial(capped, theta=0.), True, True), 2)
    W, H = (T.numpy() for T in FIRST)
    R = W @ H - X
    e = np.sqrt((R**2).sum(1, keepdims=True) + DATA.level**2)
    for got, want in zip(obj.grad(*FIRST), ((R / e) @ H.T, W.T @ (R / e)), strict=True):
        assert_allclose(got.numpy(), 1e-9 * want, rtol=1e-9, atol=1e-20)


def test_newton_is_for_smooth_losses_of_samples_that_are_not_too_many():
    assert rd.smooth_norm(DATA, ResidualLoss(partial(huber, c=1.)), 2) is None
    assert rd.smooth_norm(DATA, NORM, 300) is None and rd.smooth_norm(DATA, NORM, 2) is not None


def ended(state, value, status=Status.max_iter, n_iter=3):
    "A stand-in for `polish` that remembers how it was asked"
    def polish(obj, W, H, **how):
        polish.how = how
        if how.get("callback"): polish.stopped = how["callback"](n_iter, (W, H), value)
        return Run(state, np.array([value, value]), n_iter, status, np.array([1., 1.]))
    return polish


@pytest.mark.parametrize("status", list(Status))
def test_what_newton_returns_is_measured_and_never_worse(monkeypatch, status):
    begin = Run(FIRST, np.array([reweighted_measure(DATA, FIRST, NORM)[0]]), 40, Status.max_iter, np.array([1.]))
    better = reweighted_step(DATA, FIRST, NORM)
    value, residual = reweighted_measure(DATA, better, NORM)
    monkeypatch.setattr(rd, "polish", ended(better, value, status))
    broken = status in (Status.interrupted, Status.stopped)
    for tol, word in ((residual * 1.01, Status.converged), (residual / 1.01, Status.max_iter)):
        end = rd.and_newton(DATA, begin, NORM, None, tol, 50)
        assert end.status is (status if broken else word) and end.n_iter == 43
        assert end.residuals[-1] == residual and end.loss == value and end.state[0] is better[0]
    worse = tuple(9 * T for T in FIRST)
    monkeypatch.setattr(rd, "polish", ended(worse, 0., status))      # says that it is better
    assert rd.and_newton(DATA, begin, NORM, None, 1., 50) is begin


def test_phases_share_the_steps_and_count_them_on(monkeypatch):
    polish = ended(reweighted_step(DATA, FIRST, NORM), 0.)
    monkeypatch.setattr(rd, "polish", polish)
    monkeypatch.setattr(rd, "reweighted_measure", lambda *a: (0., 1.))
    heard = []
    run = rd.reweighted_descent(DATA, FIRST, NORM, 60, tol=0., measure=lambda *a: (1., 1.), callback=lambda n, state, loss: heard.append(n))
    assert (polish.how["max_iter"], run.n_iter) == (20, 60) and 43 in heard
    assert rd.reweighted_descent(DATA, FIRST, NORM, 40, tol=0., measure=lambda *a: (1., 1.)).n_iter == 40
    alone = rd.reweighted_descent(DATA, FIRST, NORM, 7, tol=0., newton=False)
    state = FIRST
    for _ in range(7): state = reweighted_step(DATA, state, NORM)
    assert alone.n_iter == 7 and torch.equal(alone.state[0], state[0])


def sharpened(status=Status.max_iter, max_iter=10):
    "(floors, states, steps left) that `blunt` asks for, when each problem takes three steps and moves the codes by a tenth"
    asked = []
    def solve(data, state, loss, left):
        asked.append((loss.rho.keywords["floor"], state, left))
        return Run((.9 * state[0], state[1]), np.array([1.]), 3, status)
    return asked, rd.blunt(DATA, FIRST, solve, max_iter)


def test_the_tip_begins_at_the_mean_residual_and_each_problem_where_the_last_ended():
    asked, end = sharpened()
    floors, states, left = zip(*asked, strict=True)
    mean = float(observed_squares(DATA, *FIRST, True).sqrt().mean())
    assert_allclose(floors, [mean / 10**i for i in range(len(floors))])
    assert left == (10, 7, 4, 1) and end.n_iter == 12
    assert all(torch.equal(W, .9**i * FIRST[0]) or torch.allclose(W, .9**i * FIRST[0]) for i, (W, _) in enumerate(states))
    assert torch.allclose(end.state[0], .9**4 * FIRST[0])
    asked, end = sharpened(max_iter=1000)          # a ten-thousandth of the mean residual is sharp enough
    assert 4 <= len(asked) <= 5 and asked[-1][0] > rd.tip_of(observed_squares(DATA, *end.state, True), 0.)


@pytest.mark.parametrize("status", [Status.nonfinite, Status.interrupted])
def test_a_run_that_went_wrong_is_not_sharpened(status):
    asked, end = sharpened(status)
    assert len(asked) == 1 and end.status is status
