"""Formulas that no other test and no page could see change: found by `make mutants`, each by hand or by another route."""
import math
from itertools import permutations
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.decomposition._nmf import _initialize_nmf
from sklearn.exceptions import ConvergenceWarning

import anmf_lab.audit_problem as audit_problem
import anmf_lab.findings as findings
import anmf_lab.resampling as resampling
import anmf_lab.selection as selection
import anmf_lab.unrolled as unrolled
from anmf_lab.adversary import ball_delta, box_loss
from anmf_lab.align import feature_error
from anmf_lab.anmf import Game
from anmf_lab.anmf_admm import admm_start, admm_step
from anmf_lab.anmf_model import ANMF
from anmf_lab.certificate import _gamma_bound, _obstacle, feature_bound
from anmf_lab.core import Data, as_data
from anmf_lab.determined import local_verdict, mixing_directions
from anmf_lab.error_bars import cosine_law, measured_dispersion, uncertainty
from anmf_lab.feasible import Mixtures, _descent
from anmf_lab.masks import check_mask, check_whole, unhidden, unmasked
from anmf_lab.minmax import _change, _ratio, minmax_loss, minmax_step, prices, worst_data
from anmf_lab.nmf import NMF
from anmf_lab.noise import corrupt_pixels
from anmf_lab.objective import Beta, Entrywise
from anmf_lab.onmf import orthogonal_measure
from anmf_lab.opponents import Ball, Box, Bregman, Price
from anmf_lab.redraws import Resampler
from anmf_lab.ranks import Speckled
from anmf_lab.reduced import Reduced, influence, localised, spread
from anmf_lab.rival_minima import _noisy, gap_sd, gap_slope
from anmf_lab.solve import Solution
from anmf_lab.solvers import mu_exponent, start
from anmf_lab.stacked import Interior, Stack
from anmf_lab.threat import Threat
from anmf_lab.worstcase import _SparseRows, _WorstRows


def draw(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).random(shape))


def test_random_values_of_integers_are_rounded_to_the_nearest():
    X = np.zeros((50, 100), dtype=np.uint8)
    X[:, 0] = 1
    assert .2 < corrupt_pixels(X, 1., random_state=0).mean() < .8     # cut off, all would be 0


@pytest.mark.parametrize("beta, gamma", [(-1., 1/3), (0., .5), (.5, 2/3), (1., 1.), (1.5, 1.), (2., 1.), (3., .5), (5., .25)])
def test_exponents_of_multiplicative_updates(beta, gamma):
    assert_allclose(mu_exponent(beta), gamma, rtol=1e-12)


def test_nndsvd_is_scikit_learns():
    X = np.random.default_rng(0).gamma(.5, size=(12, 9))
    W, H = (T[0].numpy() for T in start(as_data(X), 4, init="nndsvd", rng=np.random.RandomState(0)))
    ours = W[:, :, None] * H[None]
    A, B = _initialize_nmf(X, 4, init="nndsvd", random_state=np.random.RandomState(0))
    assert_allclose(ours, A[:, :, None] * B[None], rtol=1e-6, atol=1e-9)


def test_a_start_fills_holes_with_the_mean_of_what_is_seen():
    X = np.tile([1., 5., 2., 7.], (10, 1))
    X[np.random.default_rng(0).random(X.shape) < .3] = np.nan
    W, H = (T[0].numpy() for T in start(as_data(X), 1, init="nndsvd", rng=0))
    assert_allclose(W @ H, np.tile([1., 5., 2., 7.], (10, 1)), rtol=1e-9)


def test_the_loss_of_onmf_is_half_the_squared_error():
    X, W, H = draw(8, 6), draw(8, 3, seed=1), draw(3, 6, seed=2)
    assert_allclose(orthogonal_measure(Data(X), (W, H))[0], float((X - W @ H).square().sum()) / 2, rtol=1e-12)


def test_standard_errors_of_a_search_and_the_rule_that_uses_them(monkeypatch):
    table = {1: (3., 3.2, 3.1), 2: (1.2, .9, 1.05), 3: (1.1, .9, 1.), 4: (1.05, 1., 1.01)}
    count = dict.fromkeys(table, 0)
    def error(model, params, *args):
        k = params["n_components"]
        count[k] += 1
        return table[k][count[k] - 1]
    monkeypatch.setattr(selection, "_one", error)
    how = dict(refit=False, random_state=0)
    for rule, best in (("min", 3), ("1se", 2)):
        count.update(dict.fromkeys(table, 0))
        s = selection.SpeckledSearchCV(NMF(), {"n_components": list(table)}, rule=rule, **how).fit(draw(9, 8).numpy())
        assert s.best_params_ == {"n_components": best}
    errors = np.array(list(table.values()))
    assert_allclose(s.cv_results_["std_error"], errors.std(1, ddof=1) / np.sqrt(3), rtol=1e-12)


@pytest.mark.parametrize("group, dim", [("all", (0, 1)), ("row", 1), ("column", 0)])
def test_the_value_of_a_reply_counts_what_is_seen(group, dim):
    X, Y, mask = draw(5, 6), 2 * draw(5, 6, seed=1), (draw(5, 6, seed=2) > .3).double()
    r = ball_delta(X, Y, .3, group=group, mask=mask)
    assert_allclose(r.value.flatten(), ((X + r.delta - Y).square() * mask).sum(dim).flatten(), rtol=1e-9)


def test_the_better_end_of_a_box_near_zero():
    "Entries below rho, where the two ends are not equally far away"
    rho, X = .5, .5 * draw(400, 1)
    Y = X + .25 * (2 * draw(400, 1, seed=1) - 1)
    ends = torch.stack([(X + rho - Y).square(), (X - torch.minimum(X, torch.tensor(rho)) - Y).square()])
    assert_allclose(box_loss(X, Y, rho), ends.amax(0), rtol=1e-12)


@pytest.mark.parametrize("shape", [(7, 1), (1, 9)])
@pytest.mark.parametrize("update, bound", [("hals", "tight"), ("mu", "tight"), ("hals", "uniform"), ("mu", "uniform")])
def test_prices_of_rows_and_columns_never_raise_the_game(shape, update, bound):
    lam, data = 1.1 + 3 * draw(*shape, seed=3), Data(draw(7, 9))
    state, losses = (draw(7, 2, seed=1), draw(2, 9, seed=2)), []
    for _ in range(20):
        losses.append(float(minmax_loss(data, *state, lam)))
        state = minmax_step(data, state, lam, update=update, bound=bound)
    assert (np.diff(losses) <= 1e-10 * losses[0]).all() and losses[-1] < losses[0]


def test_the_worst_data_have_nothing_where_nothing_is_seen():
    mask = (draw(6, 5) > .4).double()
    worst = worst_data(Data(draw(6, 5, seed=1) * mask, mask), draw(6, 2, seed=2), draw(2, 5, seed=3), 2.)
    assert not worst.X[mask == 0].any() and worst.X[mask > 0].any()


def test_the_papers_change_is_relative_to_the_old():
    two, one = torch.tensor([[2., 0.]]), torch.tensor([[1., 0.]])
    assert (_change(two, one), _change(one, two)) == (.5, 1.)


def test_prices_on_the_way_halve_what_exceeds_one():
    assert_array_equal(prices(1.1), [3., 2., 1.5, 1.25])


def test_the_ratio_of_a_game_is_the_gradients():
    data, W, H, (l1, l2) = as_data(draw(6, 5)), draw(6, 2, seed=1) + .1, draw(2, 5, seed=2) + .1, (.3, .7)
    adv = Bregman(3., 1.)
    at = W.clone().requires_grad_()
    g, = torch.autograd.grad(adv.game(data, at, H, l1, l2), at)
    P = H.sum(1) + l1 + l2 * W                  # KL: the positive half does not know the reply
    assert_allclose(_ratio(adv, data, W, H, l1, l2), 1 - g / P, rtol=1e-9)


def test_a_penalty_of_admm_grows_to_its_cap_and_never_falls():
    X, W, H = draw(6, 5), draw(6, 2, seed=1), draw(2, 5, seed=2)
    step = lambda s: admm_step(X, X, s, Game(1., 1., 1., 1e-3), ramp=3., cap=10.)
    s, seen = admm_start(X, W, H, split=True), []
    for _ in range(4): seen.append((s := step(s)).rho)
    assert seen == [3., 9., 10., 10.] and step(s._replace(rho=20.)).rho == 20.


def test_admm_begins_at_the_best_scale_with_consistent_copies():
    X, W, H = draw(6, 5), draw(6, 2, seed=1), draw(2, 5, seed=2)
    s = admm_start(X, W, H)
    assert abs(float(((X - s.Q) * s.Q).sum())) < 1e-12
    for copy in (s.P, s.Q): assert_allclose(copy, s.W @ s.H, rtol=1e-12)


def test_the_attackers_price_has_a_default_for_each_scale():
    X = np.random.default_rng(0).gamma(.3, size=(20, 12))
    with pytest.warns(ConvergenceWarning):
        by_scale = {s: ANMF(3, scale=s, max_iter=1, random_state=0).fit(X).lam_ for s in ("codes", "free")}
    assert by_scale == {"codes": pytest.approx(10 * 20 / 3), "free": pytest.approx(1e-3)}


def test_attacked_features_are_the_attacked_components_cut_at_zero():
    X = np.random.default_rng(0).gamma(.3, size=(20, 12))
    model = ANMF(3, lam=.1, features="attacked", max_iter=60, tol=0, random_state=0).fit(X)
    assert model.adv_components_.min() < -.1      # a cheap attack goes below zero
    assert_allclose(model.components_, np.maximum(model.adv_components_, 0))


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("adv", [Price(2.), Ball(.5, group="row"), Bregman(3., 1.)], ids=str)
def test_derivatives_of_rows_under_attack_are_their_losss(adv, sparse):
    if sparse and adv.group: pytest.skip("a group's codes are those of a price")
    X, H, penalties = draw(4, 9) * (draw(4, 9, seed=3) > .4), draw(2, 9, seed=1) + .1, (.3, .7)
    r, c = X.nonzero().T
    rows = _SparseRows(adv, X[r, c], r, c, len(X), H, *penalties) if sparse else _WorstRows(adv, X, None, H, *penalties)
    w, v, h = draw(4, 2, seed=2) + .1, draw(4, 2, seed=4) - .5, 1e-6
    slope = lambda w: (lambda N, P: P - N)(*rows.parts(w))
    assert_allclose((slope(w) * v).sum(1), (rows.loss(w + h * v) - rows.loss(w - h * v)) / (2 * h), rtol=1e-6)
    assert_allclose(torch.einsum("ijk,ik->ij", rows.hess(w), v), (slope(w + h * v) - slope(w - h * v)) / (2 * h), rtol=1e-5, atol=1e-7)


def test_a_ball_of_rows_is_a_ball_of_columns_of_the_transpose():
    adv, data, W, H = Ball(.2, group="row"), as_data(draw(5, 4)), draw(5, 2, seed=1), draw(2, 4, seed=2)
    assert_allclose(adv.game(data, W, H, 0., 0.), adv.T.game(data.T, H.T, W.T, 0., 0.), rtol=1e-12)
    assert (adv.T.group, adv.T.T.group) == ("column", "row")


def test_what_a_price_spends_is_weighted():
    M, X, W, H = draw(5, 4, seed=3) + .1, draw(5, 4), draw(5, 2, seed=1), draw(2, 4, seed=2)
    moves = torch.maximum((X - W @ H) / (3. - 1), -X)**2
    assert Price(3.).terms(Data(X, M), W, H)[1] == pytest.approx(float((M * moves).sum()), rel=1e-12)


def test_scales_are_no_free_entries():
    X = np.random.default_rng(0).poisson(9., size=(9, 7)).astype(float)
    for l2, scales in ((0., 2), (.05, 0)):      # a penalty fixes the scale
        model = NMF(2, loss="kullback-leibler", l2=l2, polish=True, random_state=0).fit(X)
        W, H = (torch.from_numpy(T) for T in model.factors(X))
        at = localised(model.objective(X), W, H)
        assert at.n_free == int((W > 0).sum() + (H > 0).sum()) - scales


def test_a_cosine_has_its_bias_taken_off():
    rng = np.random.default_rng(0)
    W, H = (rng.random(s) * (rng.random(s) < .6) for s in ((30, 2), (2, 8)))
    X = rng.poisson(99 * W @ H).astype(float)[W.any(1)][:, H.any(0)]
    model = NMF(2, loss="kullback-leibler", polish=True, random_state=0).fit(X)
    bars, other = uncertainty(model, X), rng.random(X.shape[1])
    value, low, high = (v[0] for v in bars.cosine(other))
    c, bias, se = cosine_law(torch.from_numpy(bars.components[0]), torch.from_numpy(other), torch.from_numpy(bars.covariance(0)))
    assert abs(bias) > 1e-6 and low > -1 and high < 1
    assert_allclose((value, low, high), (c, c - bias - 1.959963984540054 * se, c - bias + 1.959963984540054 * se), rtol=1e-9)


@pytest.mark.parametrize("beta", [-1., 0., .5, 1., 1.5, 2., 3., 5.])
def test_a_loss_knows_the_exponent_of_its_update(beta):
    assert Beta(beta).damping == pytest.approx(mu_exponent(beta), rel=1e-12)


@pytest.mark.parametrize("beta", [1., 1.5, 2.])
def test_a_stack_with_weights_is_the_objective_of_each(beta):
    X, M, W, H = draw(3, 6, 5) + .1, draw(3, 6, 5, seed=1), draw(3, 6, 2, seed=2), draw(3, 2, 5, seed=3)
    stack, plain = Stack(X, beta, .3, .7, M), Stack(X, beta)
    value, sides_, (D, R) = stack.value(W, H), stack.parts(W, H), stack.curves(W, H)
    assert_allclose(D, M * plain.curves(W, H)[0], rtol=1e-12)
    for r in range(3):
        obj = Entrywise(Data(X[r], M[r]), Beta(beta), .3, .7)
        assert_allclose(value[r], obj.value(W[r], H[r]), rtol=1e-12)
        for ours, its in zip(sides_, obj.parts(W[r], H[r]), strict=True):
            for half, other in zip(ours, its, strict=True): assert_allclose(half[r], other, rtol=1e-10)
        Y = (W[r] @ H[r]).requires_grad_()
        assert_allclose(R[r], torch.autograd.grad((M[r] * obj.loss.value(X[r], Y)).sum(), Y)[0], rtol=1e-8, atol=1e-12)


def test_the_gap_of_an_interior_point_is_of_both_factors():
    at = lambda v, *shape: torch.full(shape or (1, 1, 1), float(v))
    point = Interior(at(2, 1, 4, 2), at(3, 1, 2, 5), at(1, 1, 4, 2), at(5, 1, 2, 5), at(1), at(3), at(0, 1), at(1, 1))
    assert float(point.gap) == (2 * 1 / 1 + 3 * 5 / 3) / 2


def test_a_held_zero_of_the_codes_stops_a_mixture():
    W, H = torch.tensor([[0., 1.], [1., 0.], [1., 1.]], dtype=torch.float64), draw(2, 5) + .1
    directions = mixing_directions(W, H, (W > 0, H > 0))
    assert len(directions) == 2                   # the two scales; with every entry free there are four
    assert len(mixing_directions(W, H, (W > -1, H > 0))) == 4


def test_an_unsolved_point_has_no_verdict():
    said = local_verdict(Entrywise(as_data(draw(8, 6)), Beta(1.)), draw(8, 2, seed=1) + .1, draw(2, 6, seed=2) + .1)
    assert said.verdict == "undecided" and "not solved" in said.reason


def test_an_end_of_a_band_keeps_the_names_of_its_components():
    mix = Mixtures(draw(6, 2).numpy() + .1, np.array([[.6, .3, .1], [.1, .2, .7]]))
    aim = lambda to: lambda x: (float(((x - to)**2).sum()), 2 * (x - to))
    assert_allclose(_descent(mix, aim(.01), 1, np.zeros(2)), .01, atol=1e-6)
    assert _descent(mix, aim(1.), 1, np.ones(2)) is None       # T exchanges the two components


def test_redrawn_data_have_nothing_where_nothing_is_seen():
    M = (draw(6, 5, seed=1) > .4).double()
    Z, _ = Resampler(Data(draw(6, 5) * M, M), "parametric", draw(6, 5, seed=2) + 5., "gaussian").draw(np.random.default_rng(0))
    assert not Z.X[M == 0].any() and Z.X[M > 0].any()


def test_the_best_start_of_every_replicate_is_kept(monkeypatch):
    ends = [SimpleNamespace(W=torch.full((2, 4, 1), i), H=torch.full((2, 1, 3), i), losses=torch.tensor(losses), residuals=torch.zeros(2))
            for i, losses in ((1., [3., 1.]), (2., [2., 5.]), (3., [math.nan, 4.]))]
    monkeypatch.setattr(resampling, "solve_stack", lambda *a, **kw: ends.pop(0))
    drawn = [as_data(draw(4, 3, seed=s)) for s in (0, 1)]
    fits = resampling._stacked(Entrywise(drawn[0], Beta(1.)), drawn, 1, None, [np.random.default_rng(s) for s in (0, 1)], 3, 1e-6)
    assert fits.losses.tolist() == [2., 1.] and fits.W[:, 0, 0].tolist() == [2., 1.]


def test_the_bound_of_a_cubic_form_holds_where_its_soft_part_is_large():
    gen, n, m = np.random.default_rng(0), 5, 2
    T = gen.standard_normal((n, n, n))
    T = sum(T.transpose(p) for p in permutations(range(3)))
    T[m:, m:, m:] = 0
    T[:m, :m, :m] *= 30
    v = gen.standard_normal((4000, n)) * [9, 9, 1, 1, 1]
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    seen = abs(np.einsum("abc,ra,rb,rc->r", T, v, v, v)).max()
    gamma = _gamma_bound([torch.from_numpy(A) for A in T[:m]], 0., 0.)
    assert seen <= gamma <= 3 * seen


def test_a_feature_bound_holds_for_factors_that_are_not_balanced():
    W, H = torch.tensor([[8., 0.], [0., 8.], [4., 4.]], dtype=torch.float64), torch.tensor([[.5, 0., .1], [0., .5, .1]], dtype=torch.float64)
    gen, r = np.random.default_rng(0), .1
    moves = gen.standard_normal((200, 2, 3))
    moves *= r / np.linalg.norm(moves, axis=(1, 2), keepdims=True)
    worst = max(feature_error(W, H, W, (H + torch.from_numpy(d)).clamp(min=0)) for d in moves)
    s = (H.norm(dim=1) / W.norm(dim=0)).sqrt()
    even = feature_bound(SimpleNamespace(W=W * s, H=H / s[:, None]), r, l1=.1)
    assert even < worst <= feature_bound(SimpleNamespace(W=W, H=H), r, l1=.1)      # the small factor is moved further


def test_what_is_not_solved_has_no_certificate():
    W, H = draw(6, 2), draw(2, 5)
    sol = SimpleNamespace(objective=Entrywise(as_data(draw(6, 5, seed=1)), Beta(2.)), W=W, H=H, kkt=1e-5)
    assert "not solved" in _obstacle(sol)


def test_whole_counts_scatter_at_least_as_counts_do():
    rng = np.random.default_rng(0)
    W, H = (rng.random(s) * (rng.random(s) < .6) + .01 for s in ((30, 2), (2, 8)))
    X = (99 * W @ H).round()
    model = NMF(2, loss="kullback-leibler", polish=True, random_state=0).fit(X)
    at = localised(model.objective(X), *map(torch.from_numpy, model.factors(X)))
    assert measured_dispersion(at, at.Y, "poisson") == 1 > .2 > measured_dispersion(at, at.Y, "gaussian")


@pytest.mark.parametrize("beta", [1., 1.5, 2.])
def test_the_slope_of_a_gap_is_weighted_and_its_spread_a_variance(beta):
    X, M, YA, YB = draw(4, 3).requires_grad_(), draw(4, 3, seed=1), draw(4, 3, seed=2) + .1, draw(4, 3, seed=3) + .1
    obj = Entrywise(Data(X.detach(), M), Beta(beta))
    gap = (M * (obj.loss.value(X, YB) - obj.loss.value(X, YA))).sum()
    J = gap_slope(obj, YA, YB)
    assert_allclose(J, torch.autograd.grad(gap, X)[0], rtol=1e-8)
    bars = SimpleNamespace(_sol=SimpleNamespace(objective=obj), _V=draw(4, 3, seed=4), _fixed=False, dispersion=3.)
    assert gap_sd(bars, YA, YB) == pytest.approx(float(3 * (J**2 * bars._V).sum())**.5, rel=1e-12)


def test_where_totals_are_fixed_a_constant_of_a_row_has_no_spread():
    J, V, row = draw(2, 4, 3), draw(4, 3, seed=1), draw(2, 4, 1, seed=2)
    assert_allclose(spread(J + row, V, True), spread(J, V, True), rtol=1e-9)
    assert (spread(J, V, True) < spread(J, V, False)).all()


def test_gaussian_noise_has_the_variance_of_the_error_bars():
    u = SimpleNamespace(dispersion=4., _V=torch.full((3, 2), .25), noise="gaussian")
    Z = torch.stack(list(_noisy(torch.full((3, 2), 100.), u, 400, np.random.default_rng(0))))
    assert .9 < Z.std() < 1.1


def test_how_a_fitted_value_follows_the_data_is_what_refits_say():
    rng = np.random.default_rng(0)
    W0, H0 = (rng.random(s) * (rng.random(s) < .6) for s in ((12, 2), (2, 7)))
    X = rng.poisson(50 * W0 @ H0).astype(float)
    X = X[X.any(1)][:, X.any(0)]
    how = dict(loss="kullback-leibler", polish=1e-10, max_iter=5000)
    W, H = (model := NMF(2, random_state=0, **how).fit(X)).factors(X)
    assert (W == 0).any() and (H == 0).any()
    at = localised(model.objective(X), *map(torch.from_numpy, (W, H)))
    i, j, h = *np.argwhere(X > 5)[3], 1e-3
    gW, gH = torch.zeros(*W.shape, 1).double(), torch.zeros(*H.T.shape, 1).double()
    gW[i, :, 0], gH[j, :, 0] = at.H[:, j], at.W[i]
    J = influence(Reduced(at), gW, gH)[0]
    for a, b in ((i, j), (i, (j + 1) % X.shape[1]), ((i + 1) % len(X), j)):
        move = h * (np.indices(X.shape) == np.array([a, b])[:, None, None]).all(0) * (X > 0)
        fits = [NMF(2, init="custom", **how).fit(Z, W=W, H=H).factors(Z) for Z in (X + move, X - move)]
        if move.any(): assert_allclose(J[a, b], np.subtract(*((P @ Q)[i, j] for P, Q in fits)) / (2 * h), rtol=1e-4, atol=1e-6)


def test_a_step_out_of_the_box_is_not_taken():
    threat = Threat.around(torch.tensor([[0., 1., .5, .5]]), box=(0., 1.))
    step = threat.steepest(torch.tensor([[-1., 1., 3., -4.]]), threat.X)
    assert_allclose(step, [[0., 0., .6, -.8]], rtol=1e-6)


def test_every_row_and_column_keeps_a_value_when_entries_are_hidden():
    drawn = [Speckled(as_data(draw(5, 4)), .8).hidden(np.random.default_rng(s)) for s in range(30)]
    assert all((~out).any(0).all() and (~out).any(1).all() and out.any() for out in drawn)


@pytest.mark.parametrize("terms, used", [(0, "unrolled_gradient"), (3, "neumann_gradient")])
def test_no_terms_of_the_series_means_back_propagation(monkeypatch, terms, used):
    X, calls = draw(6, 5), []
    for name in ("unrolled_gradient", "neumann_gradient"):
        def spy(data, *args, name=name, **kw):
            calls.append(name)
            return (0., torch.ones_like(data.X), None)[:3 if name[0] == "u" else 2]
        monkeypatch.setattr(unrolled, name, spy)
    unrolled.published_pgd(as_data(X), (draw(6, 2), draw(2, 5)), 1., Threat.around(X), .01, np.random.RandomState(0), steps=2, n_iter=3, terms=terms)
    assert calls == [used] * 2


def test_the_audit_reports_the_freest_of_equal_solutions_and_the_best_start(monkeypatch):
    W, H = draw(5, 2).numpy() + .1, draw(2, 4).numpy() + .1
    runs = [SimpleNamespace(W=W, H=H, loss=loss, residual=0.) for loss in (1., 1., 3.)]
    s = SimpleNamespace(runs=runs, W=W, H=H, loss=1., kkt=0., starts=3, moved=0.)
    p = SimpleNamespace(data=SimpleNamespace(shape=(5, 4)), repeatable=lambda k: True, whole=1., objective=None, single=False, unit=1.,
                        near=lambda a, b: abs(a - b) < 1e-9)
    verdicts = iter([SimpleNamespace(verdict=v, count=n, reason="", curvature=1.) for v, n in (("determined", 0), ("flat", 2), ("one-sided", 1))])
    monkeypatch.setattr(findings, "state_of", lambda p, k: s)
    monkeypatch.setattr(findings, "local_verdict", lambda *a, **kw: next(verdicts))
    said = findings.determined(p, 2, {"errors": {"light": "green"}})
    assert (said["verdict"], said["count"], said["range"]) == ("flat", 2, [0, 2])
    said = findings.solved(p, 2, {})
    assert (said["share"], said["minima"], said["better"]) == (2 / 3, 2, 0.)


def test_what_hides_an_entry_hides_it():
    assert_array_equal(unmasked(np.ma.array([[1, 2]], mask=[[False, True]])), [[1., np.nan]])
    assert_array_equal(unhidden(np.array([[1., -1, np.inf]]), weights=np.array([[1., 0, 0]])), [[1., np.nan, np.nan]])
    assert_array_equal(unhidden(np.array([[-1., -1]]), mask=[[True, False]]), [[-1., np.nan]])       # an observed one is refused later
    for bad in ([[0, 2]], [[.5, 1]]):
        with pytest.raises(ValueError, match="mask must be boolean"): check_mask(bad, torch.zeros(1, 2), "X")
    with pytest.raises(ValueError, match="mask must have the shape of X"): check_mask([[1], [0]], torch.zeros(1, 2), "X")
    whole, some, read = (SimpleNamespace(split=s, is_stored=r) for s, r in ((None, False), ((0, 3), False), (None, True)))
    check_whole(whole, "this function")
    for data, way, said in ((some, "split", "a shard"), (read, "stored", "in blocks")):
        check_whole(data, "this function", **{way: True})
        with pytest.raises(ValueError, match=f"{said}.*this function needs the whole"): check_whole(data, "this function")


def audited(monkeypatch, runs, mask=None):
    "The problem of an audit whose starts end as given"
    X = draw(4, 2) @ draw(2, 3)
    monkeypatch.setattr(audit_problem, "stackable", lambda obj, k: True)
    monkeypatch.setattr(audit_problem, "stacked_starts", lambda p, k: runs)
    return audit_problem.Problem(None, Entrywise(as_data(X.numpy(), mask=mask), 2.), "frobenius", "gaussian", 1., 0, 4)


def test_an_audit_keeps_the_solved_starts_and_of_equal_ones_the_one_with_fewest_zeros(monkeypatch):
    W, H = draw(4, 2) + .1, draw(2, 3) + .1
    cut = W.clone()
    cut[0, 0] = 0.
    runs = [Solution(W, H, 3., 1e-9), Solution(cut, H, 1., 1e-9), Solution(W, 2 * H, 1 + 1e-8, 1e-8), Solution(W, H, .5, 1.)]
    mask = np.arange(12).reshape(4, 3) != 5
    p = audited(monkeypatch, runs, mask)
    s = audit_problem.state_of(p, 2)
    assert [r.loss for r in s.runs] == [1., 1 + 1e-8, 3.] and (s.starts, s.loss, s.kkt) == (4, 1 + 1e-8, 1e-8)
    assert_allclose(s.H.sum(1), 1.)
    assert_allclose(s.W @ s.H, 2 * W @ H)
    assert s.W[:, 0].sum() > s.W[:, 1].sum()
    assert_array_equal(p.factors(2)["weights"], mask)


def test_two_objectives_are_one_up_to_what_a_solver_leaves_open(monkeypatch):
    p = audited(monkeypatch, [])
    X, level = p.data.X, p.data.level
    assert_allclose(p.whole, float((X - level).square().sum()) / 2)
    assert p.near(5., 5 * (1 + 9e-7)) and not p.near(5., 5 * (1 + 2e-6))
    assert p.near(0., 9e-11 * p.whole) and not p.near(0., 2e-10 * p.whole)       # exact fits, whose objective is rounding


def test_the_parabola_of_a_box_has_the_slope_of_its_cost(monkeypatch):
    "Also where an entry is smaller than the budget, so that its box is cut at zero"
    monkeypatch.setattr("anmf_lab.opponents.weighted_codes", lambda data, W, H, Y, weights, target, **how: (weights * (Y - target), Y))
    X, box = draw(4, 3), Box(.4)
    slope, Y = box.half(as_data(X.numpy()), draw(4, 2, seed=1), draw(2, 3, seed=2), 0., 0.)
    assert bool((X < .4).any()) and bool((X > .4).any())
    assert_allclose(slope.numpy(), (Y - box.reply(X, Y)).numpy(), rtol=1e-9)
