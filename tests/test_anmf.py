"""ANMF: Theorem 1, the loophole, gradients, every ADMM update, the literal algorithm, convergence, bad input."""
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from refs import anmf_printed
from scipy import sparse
from sklearn.utils.estimator_checks import check_estimator

from anmf_lab.anmf import (
    PAPER, Game, Target, attacker_cost, best_response, game_residual, price_unit, relaxed_cost, reply_gap,
    set_scale, game_slope, slope_by_residuals, solve_bilevel,
)
from anmf_lab.anmf_admm import (
    State, admm_start, admm_step, codes_step, components_step, constraints, copies_step, fit_step, free_codes, kkt_15,
    lagrangian, product_step, prox_codes, solve_admm,
)
from anmf_lab.anmf_model import ANMF, game_certificate
from anmf_lab.core import Data, as_data
from anmf_lab.loop import Status
from anmf_lab.noise import make_target

N, F, K = 11, 8, 3
GAME = Game(alpha=.6, own=.2, lam=.3, gamma=.4)


def draw(*shape, seed=0, low=0.):
    return torch.from_numpy(np.random.default_rng(seed).uniform(low, 1, shape))


def numeric(f, A, h=1e-5):
    "Central differences"
    g = []
    for i in range(A.numel()):
        e = torch.zeros(A.numel(), dtype=A.dtype)
        e[i] = h
        g.append(float(f(A + e.reshape(A.shape)) - f(A - e.reshape(A.shape))) / (2*h))
    return torch.tensor(g, dtype=A.dtype).reshape(A.shape)


def planted(n=40, f=30, k=4, seed=0, noise=.1):
    rng = np.random.default_rng(seed)
    X = rng.random((n, k)) @ rng.random((k, f)) + noise*rng.random((n, f))
    return as_data(X), (torch.from_numpy(rng.random((n, k))), torch.from_numpy(rng.random((k, f))))


# --- Theorem 1

@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 7), st.integers(1, 5), st.floats(1e-3, 1e3), st.integers(0, 999))
def test_theorem1_is_the_minimiser(n, f, k, lam, seed):
    Z, W, H = draw(n, f, seed=seed), draw(n, k, seed=seed + 1), draw(k, f, seed=seed + 2)
    A = best_response(Z, W, H, lam)
    assert reply_gap(Z, W, H, A, lam).abs().max() < 1e-9*(1 + lam)
    here = attacker_cost(Z, W, H, A, lam)
    for s in range(3):
        D = draw(k, f, seed=seed + 3 + s, low=-1.)
        assert attacker_cost(Z, W, H, A + .1*D, lam) >= here - 1e-9*here.abs()
    ridge = torch.linalg.lstsq(torch.cat([W, lam**.5*torch.eye(k, dtype=W.dtype)]), torch.cat([Z, lam**.5*H])).solution
    assert_allclose(A, ridge, rtol=1e-7, atol=1e-8)


def test_theorem1_by_finite_differences():
    Z, W, H = draw(N, F), draw(N, K, seed=1), draw(K, F, seed=2)
    for mask in (None, (draw(N, F, seed=3) < .6).double()):
        A = best_response(Z, W, H, .3, mask)
        M = torch.ones_like(Z) if mask is None else mask
        assert numeric(lambda B, M=M: (M*(Z - W @ B)).square().sum() + .3*(B - H).square().sum(), A).abs().max() < 1e-8


def test_masked_reply_ignores_what_is_missing():
    Z, W, H = draw(N, F), draw(N, K, seed=1), draw(K, F, seed=2)
    mask = (draw(N, F, seed=3) < .6).double()
    assert_allclose(best_response(Z, W, H, .3, mask), best_response(Z + 100*(1 - mask), W, H, .3, mask), rtol=1e-12)
    assert_allclose(best_response(Z, W, H, .3, torch.ones_like(Z)), best_response(Z, W, H, .3), rtol=1e-12)


# --- the loophole

@settings(max_examples=40, deadline=None)
@given(st.floats(1e-4, 10), st.floats(1e-3, 10), st.floats(1e-3, 10), st.sampled_from(["shift", "random", "zero"]), st.integers(0, 99))
def test_loophole_excess(c, gamma, lam, kind, seed):
    X, W, H = draw(N, F, seed=seed), draw(N, K, seed=seed + 1), draw(K, F, seed=seed + 2)
    Z = {"shift": X + 1, "random": draw(N, F, seed=seed + 3), "zero": torch.zeros_like(X)}[kind]
    game = Game(.6, .1, lam, gamma)
    excess = relaxed_cost(X, Z, c*W, H/c, H/c, game) - .7*(X - W @ H).square().sum()
    expected = gamma*c**2*(W.T @ (W @ H - Z)).square().sum()
    assert_allclose(excess, expected, rtol=1e-8, atol=1e-12*float((X - W @ H).square().sum()))


@settings(max_examples=40, deadline=None)
@given(st.floats(1e-6, 1e6), st.sampled_from(["codes", "components"]), st.integers(0, 99))
def test_fixed_scale_closes_it(c, scale, seed):
    W, H = draw(N, K, seed=seed), draw(K, F, seed=seed + 1)
    once, again = set_scale(W, H, scale), set_scale(c*W, H/c, scale)
    for A, B in zip(once, again, strict=True): assert_allclose(A, B, rtol=1e-10)
    assert_allclose(once[0] @ once[1], W @ H, rtol=1e-10)


@pytest.mark.parametrize("scale", ["codes", "components"])
def test_the_unit_of_the_price_is_what_moving_a_component_costs_in_fit(scale):
    "lam |dH|^2 against |W dH|^2: the squared length of a column of codes, where the components are orthonormal and equally strong"
    W = torch.linalg.qr(draw(12, 3, seed=3))[0].abs()
    W = W / W.norm(dim=0)
    H = 7 * torch.eye(3, 8, dtype=W.dtype)
    lengths = set_scale(W, H, scale)[0].square().sum(0)
    assert_allclose(lengths, price_unit(as_data(W @ H), 3, scale), rtol=1e-12)


@pytest.mark.parametrize("density", [.05, .5, .95])
def test_zeros_of_sparse_data_count_once_in_the_standard_deviation(density):
    X = sparse.random(20, 15, density, format="csr", random_state=0)
    assert_allclose(make_target(as_data(X), "shift", strength=1.).shift, X.toarray().std(), rtol=1e-12)
    hidden = draw(20, 15, seed=1).numpy() < .3
    holes = as_data(np.where(hidden, np.nan, X.toarray() + 1))
    assert_allclose(make_target(holes, "shift", strength=1.).shift, (X.toarray() + 1)[~hidden].std(), rtol=1e-12)


def test_empty_component_keeps_its_scale():
    W, H = draw(N, K), draw(K, F)
    W[:, 0], H[1] = 0, 0
    for scale in ("codes", "components"):
        assert all(torch.isfinite(T).all() for T in set_scale(W, H, scale))


# --- gradients

@pytest.mark.parametrize("gamma", [None, .1])
@pytest.mark.parametrize("masked", [False, True])
def test_slopes_by_finite_differences(gamma, masked):
    X, W, H, A = draw(N, F), draw(N, K, seed=1), draw(K, F, seed=2), draw(K, F, seed=3)
    M = (draw(N, F, seed=4) < .7).double() if masked else torch.ones_like(X)
    data = as_data(torch.where(M > 0, X, torch.nan)) if masked else as_data(X)
    target, game = Target(data, .8), Game(.6, .1, .3, gamma)

    def cost(W, H, A):
        Z = data.X + .8
        if gamma is None: A = best_response(Z, W, H, .3, M)
        c = .6*(M*(X - W @ A)).square().sum() + .1*(M*(X - W @ H)).square().sum()
        return c if gamma is None else c + gamma*reply_gap(Z, W, H, A, .3, M).square().sum()

    for route in (game_slope, slope_by_residuals):
        s = route(data, target, W, H, game, A)
        assert_allclose(s.loss, cost(W, H, A), rtol=1e-12)
        assert_allclose(s.W, numeric(lambda B: cost(B, H, A), W), rtol=1e-6, atol=1e-7)
        assert_allclose(s.H, numeric(lambda B: cost(W, B, A), H), rtol=1e-6, atol=1e-7)
        if gamma: assert_allclose(s.H_adv, numeric(lambda B: cost(W, H, B), A), rtol=1e-6, atol=1e-7)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 20), st.integers(1, 15), st.integers(1, 5), st.floats(.01, 10), st.floats(0, 3), st.booleans(), st.booleans(), st.integers(0, 99))
def test_gram_form_is_the_residual_form(n, f, k, lam, t, relaxed, own, seed):
    X = sparse.random(n, f, .5, format="csr", random_state=seed)
    dense, thin = as_data(X.toarray()), as_data(X)
    W, H, A = draw(n, k, seed=seed), draw(k, f, seed=seed + 1), draw(k, f, seed=seed + 2)
    game = Game(.6, .1, lam, .1 if relaxed else None)
    other = None if own else as_data(draw(n, f, seed=seed + 3).numpy())
    slow = slope_by_residuals(dense, Target(other or dense, t), W, H, game, A)
    for data in (dense, thin):
        fast = game_slope(data, Target(other or data, t), W, H, game, A)
        assert_allclose(fast.loss, slow.loss, rtol=1e-10, atol=1e-10*dense.sq)
        for name in ("W", "H", "reply") + (("H_adv",) if relaxed else ()):
            a, b = getattr(fast, name), getattr(slow, name)
            assert_allclose(a, b, rtol=1e-10, atol=1e-10*(1 + float(b.abs().max())))


def test_residual_is_zero_at_a_solution_and_has_no_unit():
    data, start = planted()
    game = Game(lam=10*price_unit(data, 4, "codes"))
    target = Target(data, .5)
    run = solve_bilevel(data, target, *start, game, tol=1e-7, max_iter=5000)
    assert run.status is Status.converged and run.residuals[-1] <= 1e-7 < run.residuals[0]
    W, H, A = run.state
    big = as_data(1000*data.X)
    # in other units the same point, with the components in those units, is as good
    assert game_residual(big, Target(big, 500.), W, 1000*H, game, scale="codes") == pytest.approx(run.residuals[-1], rel=1e-2)
    assert game_residual(data, target, W + .1, H, game, scale="codes") > 1e-2


@pytest.mark.parametrize("scale", ["codes", "components", "free"])
@pytest.mark.parametrize("gamma", [None, 1e-2])
def test_bilevel_solver(scale, gamma):
    data, start = planted()
    kept = [T.clone() for T in start]
    game = Game(lam=10*price_unit(data, 4, scale), gamma=gamma)
    run = solve_bilevel(data, Target(data, .5), *start, game, scale=scale, max_iter=300, tol=0)
    W, H, A = run.state
    assert min(W.min(), H.min()) >= 0
    assert (np.diff(run.losses) <= 1e-12*run.losses[0]).all() and run.losses[-1] < .9*run.losses[0]
    if scale == "codes": assert_allclose(W.square().sum(0), 10.)
    if scale == "components": assert_allclose(H.norm(dim=1), 1.)
    if gamma is None: assert_allclose(A, best_response(data.X + .5, W, H, game.lam), rtol=1e-9, atol=1e-9)
    else: assert A.min() >= 0 and run.loss == pytest.approx(float(relaxed_cost(data.X, data.X + .5, W, H, A, game)))
    assert all(torch.equal(a, b) for a, b in zip(start, kept, strict=True))


def test_bilevel_solver_on_sparse_masked_and_single_precision():
    data, start = planted(noise=0.)
    thin = as_data(sparse.csr_array(data.X.numpy()))
    game = Game(lam=100.)
    runs = [solve_bilevel(d, Target(d, .5), *start, game, max_iter=20, tol=0) for d in (data, thin)]
    assert_allclose(runs[0].state[1], runs[1].state[1], rtol=1e-6, atol=1e-8)
    single = as_data(data.X.float())
    run = solve_bilevel(single, Target(single, .5), *(T.float() for T in start), game, max_iter=20, tol=0)
    assert all(T.dtype == torch.float32 for T in run.state) and run.loss == pytest.approx(runs[0].loss, rel=1e-2)
    X = data.X.clone()
    X[draw(40, 30, seed=5) < .3] = torch.nan
    holes = as_data(X)
    spoilt = as_data(torch.where(torch.isnan(X), 1e6, X), mask=~torch.isnan(X).numpy())
    a, b = (solve_bilevel(d, Target(d, .5), *start, game, max_iter=20, tol=0) for d in (holes, spoilt))
    assert torch.equal(a.state[0], b.state[0])


def test_solvers_stop_for_every_reason():
    data, start = planted()
    game = Game(lam=100.)
    assert solve_bilevel(data, Target(data), *start, game, max_iter=5).status is Status.max_iter
    assert solve_bilevel(data, Target(data), *start, game, callback=lambda n, s, loss: n >= 20).n_iter == 20

    def ctrl_c(n, s, loss):
        if n >= 20: raise KeyboardInterrupt
    cut = solve_bilevel(data, Target(data), *start, game, callback=ctrl_c, tol=0)
    assert cut.status is Status.interrupted and cut.loss < cut.losses[0]


# --- ADMM: every update against the augmented Lagrangian

SHAPES = dict(W=(N, K), H=(K, F), H_adv=(K, F), P=(N, F), Q=(N, F), U=(N, K), B=(K, F), B_adv=(K, F),
              M1=(K, F), M2=(K, F), M3=(N, F), M4=(N, F), M5=(N, K))
X0 = draw(N, F, seed=50)
Z0 = X0 + draw(N, F, seed=51)


def state(rho, seed=0):
    return State(**{name: draw(*shape, seed=seed + i, low=-1. if name[0] == "M" else 0.) for i, (name, shape) in enumerate(SHAPES.items())}, rho=rho)


def gradient(s, block):
    return numeric(lambda A: lagrangian(X0, Z0, s._replace(**{block: A}), GAME), getattr(s, block))


@pytest.mark.parametrize("rho", [1., 2.7])
@pytest.mark.parametrize("seed", [0, 100])
def test_every_block_is_a_minimiser(rho, seed):
    s = state(rho, seed)
    H, H_adv = components_step(Z0, s, GAME)
    updates = {"P": s._replace(P=product_step(X0, Z0, s, GAME)), "Q": s._replace(Q=fit_step(X0, s, GAME)),
               "U": s._replace(U=free_codes(Z0, s, GAME)), "H": s._replace(H=H), "H_adv": s._replace(H=H, H_adv=H_adv),
               "W": s._replace(W=codes_step(s))}
    for block, after in updates.items():
        assert gradient(s, block).abs().max() > .1, f"{block} was solved already"
        assert gradient(after, block).abs().max() <= 1e-7, block
    B, B_adv = copies_step(s)
    bounded = {"B": s._replace(B=B), "B_adv": s._replace(B_adv=B_adv), "U": s._replace(U=prox_codes(Z0, s, GAME, inner=2000))}
    for block, after in bounded.items():
        A, g = getattr(after, block), gradient(after, block)
        assert A.min() >= 0 and (A - (A - g).clamp_min(0)).abs().max() <= 1e-7, block
    split = s._replace(S=draw(N, K, seed=7), M6=draw(N, K, seed=8, low=-1.))
    assert gradient(split._replace(W=codes_step(split)), "W").abs().max() <= 1e-7


def test_wide_and_tall_codes_agree_with_the_normal_equations():
    for n in (4, 20):
        s = State(**{name: draw(*(n if d == N else d for d in shape), seed=i) for i, (name, shape) in enumerate(SHAPES.items())}, rho=1.3)
        Z = draw(n, F, seed=77) + 1
        D, E, V = s.P - Z, GAME.lam*(s.H - s.H_adv), s.W + s.M5/s.rho
        expected = torch.linalg.solve(2*GAME.gamma*D @ D.T + s.rho*torch.eye(n, dtype=D.dtype), s.rho*V + 2*GAME.gamma*D @ E.T)
        assert_allclose(free_codes(Z, s, GAME), expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("rho", [1., 2.7])
def test_prox_never_raises_the_lagrangian(rho):
    s = state(rho)
    values = [float(lagrangian(X0, Z0, s._replace(U=prox_codes(Z0, s, GAME, inner=i)), GAME)) for i in range(12)]
    assert (np.diff(values) <= 1e-12*abs(values[0])).all() and values[-1] < values[0]
    still = s._replace(P=Z0.clone())   # D = 0: the minimiser is V, clipped
    assert_allclose(prox_codes(Z0, still, GAME), (s.W + s.M5/rho).clamp_min(0), rtol=1e-12)


def test_admm_step_does_not_touch_its_state():
    s = state(1.)
    kept = {name: getattr(s, name).clone() for name in SHAPES}
    for u_step in ("prox", "split", "clip"):
        split = s._replace(S=s.U.clone(), M6=torch.zeros_like(s.U)) if u_step == "split" else s
        assert min(float(A.min()) for A in admm_step(X0, Z0, split, GAME, u_step=u_step).factors) >= 0
    assert all(torch.equal(getattr(s, name), T) for name, T in kept.items())


# --- the literal algorithm

LETTERS = dict(H="P", J="Q", U="U", X="W", A="H", At="H_adv", B="B", Bt="B_adv", M1="M1", M2="M2", M3="M3", M4="M4", M5="M5")


@pytest.mark.parametrize("rho", [1., 2.7])
@pytest.mark.parametrize("shape", [(12, 9, 3), (7, 15, 2)])
def test_fast_iterates_are_the_printed_ones(rho, shape):
    n, f, k = shape
    rng = np.random.default_rng(0)
    X, W, H = rng.random((n, f)), rng.random((n, k)), rng.random((k, f))
    Z, game = X + .5, Game(.6, .1, .2, .3)
    slow = anmf_printed.start(H.T, W.T)
    fast = admm_start(torch.from_numpy(X), torch.from_numpy(W), torch.from_numpy(H), rho=rho, scaled=False)
    for _ in range(6):
        slow = anmf_printed.iterate(slow, X.T, Z.T, game.alpha, game.own, game.gamma, game.lam, rho)
        fast = admm_step(torch.from_numpy(X), torch.from_numpy(Z), fast, game, u_step="clip")
    for theirs, ours in LETTERS.items():
        expected = slow[theirs] if theirs in ("U", "M5") else slow[theirs].T
        assert_allclose(getattr(fast, ours), expected, rtol=1e-8, atol=1e-8*np.abs(expected).max(), err_msg=theirs)


def test_printed_order_of_multipliers_cannot_run():
    X = np.random.default_rng(0).random((9, 12))
    s = anmf_printed.start(np.ones((9, 3)), np.ones((3, 12)))
    with pytest.raises(ValueError, match="operands could not be broadcast|matmul"):
        for _ in range(2): s = anmf_printed.iterate(s, X, X, .6, .1, .1, .1, 1., correct={"R2", "B", "mu"})


def test_each_misprint_changes_the_iterates():
    rng = np.random.default_rng(0)
    X, A, C = rng.random((9, 12)), rng.random((9, 3)), rng.random((3, 12))
    def run(correct, mu=2.7):
        s = anmf_printed.start(A, C)
        for _ in range(3): s = anmf_printed.iterate(s, X, X + .5, .6, .1, .1, .1, mu, correct)
        return s
    right = run(anmf_printed.ALL)
    for name in ("R2", "B", "mu"):
        assert np.abs(run(anmf_printed.ALL - {name})["A"] - right["A"]).max() > 1e-3, name
    assert_allclose(run(anmf_printed.ALL - {"mu"}, mu=1.)["A"], run(anmf_printed.ALL, mu=1.)["A"])   # invisible at mu = 1


def test_the_literal_algorithm_does_not_converge():
    data, (W, H) = planted()
    X = data.X.numpy().T
    def gap(correct):
        s = anmf_printed.start(H.numpy().T, W.numpy().T)
        for _ in range(1000): s = anmf_printed.iterate(s, X, X + .5, .6, .1, .1, .1, 1., correct)
        return anmf_printed.primal(s)
    assert gap(anmf_printed.ALL) < .1 < 1 < gap({"M"})


# --- convergence, as the issue asks

TENTH = Game(alpha=.6, own=.1, lam=.1, gamma=.1)


@pytest.mark.parametrize("u_step", ["prox", "split"])
def test_exact_admm_solves_the_small_problem(u_step):
    data, start = planted(40, 30, 4)
    s = solve_admm(data, Target(data), *start, TENTH, u_step=u_step, rho=1., ramp=1., tol=0, max_iter=1000).state
    r = kkt_15(data.X, data.X, s, TENTH)
    assert r.primal <= 1e-4 and r.dual <= 5e-3
    assert game_residual(data, Target(data), s.factors[0], s.factors[1], TENTH, s.factors[2]) < 5e-3


def test_the_certificate_of_a_relaxed_game_asks_its_own_reply():
    data, (W, H) = planted(40, 30, 4)
    H_adv = .5 * H
    for game, reply in ((TENTH, (H_adv,)), (replace(TENTH, gamma=None), ())):
        by_hand = game_residual(data, Target(data), W, H, game, *reply, scale="codes")
        assert game_certificate(data, Target(data), (W, H, H_adv), game, "codes") == pytest.approx(by_hand, rel=1e-6)
    assert game_residual(data, Target(data), W, H, TENTH, H, scale="codes") != pytest.approx(
        game_residual(data, Target(data), W, H, TENTH, H_adv, scale="codes"), rel=.01)


def test_clipping_stalls():
    data, start = planted(40, 30, 4)
    target = Target(data, .5)
    seen = []
    solve_admm(data, target, *start, TENTH, u_step="clip", rho=1., ramp=1., tol=0, max_iter=3000, every=500,
               callback=lambda i, s, loss: seen.append(kkt_15(data.X, target.Z, s, TENTH)))
    assert all(r.blocks["U"] >= .5 for r in seen)
    assert seen[-1].primal < 1e-2, "it is at rest, and not at a solution"


def test_kkt_15_notices_every_block():
    data, start = planted()
    s = solve_admm(data, Target(data), *start, TENTH, u_step="split", rho=1., ramp=1., tol=0, max_iter=1500).state
    base = kkt_15(data.X, data.X, s, TENTH)
    for name in ("W", "H", "H_adv", "P", "Q", "U", "B", "B_adv", "M1", "M2", "M3", "M4", "M5", "S", "M6"):
        r = kkt_15(data.X, data.X, s._replace(**{name: getattr(s, name) + .3}), TENTH)
        assert max(r.primal, r.dual) > 100*max(base.primal, base.dual), name
    assert len(constraints(s)) == 6


def test_admm_stops_on_its_residual():
    data, start = planted()
    run = solve_admm(data, Target(data), *start, TENTH, ramp=1., tol=1e-3, max_iter=3000)
    assert run.status is Status.converged and run.residuals[-1] <= 1e-3 < run.residuals[-2]


# --- targets

def test_targets_are_what_remark_1_says():
    data, _ = planted()
    X = data.X
    t = make_target(data, "shift", strength=2.)
    assert t.shift == pytest.approx(2*float(X.std(unbiased=False)))
    drawn = [make_target(data, rng=s).shift/float(X.std(unbiased=False)) for s in range(200)]
    assert 0 <= min(drawn) < .3 and 4.7 < max(drawn) <= 5
    assert make_target(data, rng=3).shift == make_target(data, rng=3).shift
    salt = make_target(data, "noise", strength=.2, rng=0).Z
    hit = salt != X
    assert .1 < hit.double().mean() < .3 and set(salt[hit].unique().tolist()) <= {0., float(X.max())}
    occluded = make_target(data, "occlusion", strength=.5, rng=0).Z
    assert ((occluded == 0).sum(1) == 15).all()
    lit = make_target(data, "illumination", strength=.5, rng=0).Z/X
    assert lit.min() >= .5 and lit.max() <= 1.5
    own = make_target(data, lambda X, rng: 2*X)
    assert torch.equal(own.Z, 2*X) and torch.equal(make_target(data, 2*X).Z, 2*X)


@pytest.mark.parametrize("kind", ["shift", "noise", "occlusion", "illumination"])
def test_targets_leave_the_data_alone(kind):
    data, _ = planted()
    kept = data.X.clone()
    make_target(data, kind, rng=0)

    def vandal(X, rng):
        X[:] = 7.
        return X
    make_target(data, vandal)
    assert torch.equal(data.X, kept)


def test_callable_gets_what_its_owner_handed_in():
    got = []
    X = sparse.random(6, 5, .5, format="csr", random_state=0)
    make_target(as_data(X), lambda A, rng: got.append(A) or A)
    make_target(as_data(X.toarray()), lambda A, rng: got.append(A) or A)
    make_target(as_data(torch.ones(2, 3)), lambda A, rng: got.append(A) or A)
    assert sparse.issparse(got[0]) and isinstance(got[1], np.ndarray) and isinstance(got[2], torch.Tensor)
    assert_allclose(got[0].toarray(), X.toarray())


@pytest.mark.parametrize("target, strength, message", [
    (np.ones((3, 3)), None, "target must have the shape of X"), (-np.ones((40, 30)), None, "Negative values"),
    (np.full((40, 30), np.nan), None, "NaN"), (np.full((40, 30), np.inf), None, "infinity"),
    (lambda X, rng: None, None, "target is not usable"), (lambda X, rng: X[0], None, "target"),
    ("blur", None, "target must be one of"), ("noise", 1.5, "strength"), ("shift", -1, "strength"), (3, None, "target"),
])
def test_bad_targets(target, strength, message):
    with pytest.raises(ValueError, match=message): make_target(planted()[0], target, strength=strength)


def test_other_bad_input():
    data, start = planted()
    with pytest.raises(ValueError, match="X is constant"): make_target(as_data(np.full((4, 3), 2.)))
    with pytest.raises(ValueError, match="lam must be a number > 0"): best_response(data.X, *start, 0.)
    with pytest.raises(ValueError, match="pass H_adv"): game_slope(data, Target(data), *start, PAPER)
    with pytest.raises(ValueError, match="scale must be one of"): set_scale(*start, "unit")
    with pytest.raises(ValueError, match="use solver='bilevel'"): solve_admm(as_data(sparse.csr_array(data.X.numpy())), Target(data), *start, PAPER)
    with pytest.raises(ValueError, match="gamma is needed"): solve_admm(data, Target(data), *start, replace(PAPER, gamma=None))
    with pytest.raises(ValueError, match="ramp must be a number >= 1"): solve_admm(data, Target(data), *start, PAPER, ramp=.5)
    with pytest.raises(ValueError, match="rho must be a number > 0"): solve_admm(data, Target(data), *start, PAPER, rho=0)


@pytest.mark.parametrize("block", ["P", "Q", "W", "H", "H_adv", "U", "B", "B_adv", "S"])
def test_kkt_15_is_the_gradient_of_the_lagrangian(block):
    s = state(0., 20)
    if block == "S": s = s._replace(S=draw(N, K, seed=7), M6=draw(N, K, seed=8, low=-1.))
    A, g = getattr(s, block), gradient(s, block)
    expected = (A - (A - g).clamp_min(0) if block in ("U", "B", "B_adv", "S") else g).norm()
    assert kkt_15(X0, Z0, s, GAME).blocks[block] == pytest.approx(float(expected), abs=1e-7)


# --- the estimator

@pytest.mark.parametrize("model", [ANMF(), ANMF(solver="admm", max_iter=20), ANMF(gamma=1e-3, scale="components", features="refit", max_iter=15)],
                         ids=["default", "admm", "relaxed"])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning", "ignore::sklearn.exceptions.SkipTestWarning")
def test_conforms_to_scikit_learn(model):
    check_estimator(model)


@pytest.mark.parametrize("param, value, message", [
    ("n_components", 0, "n_components"), ("alpha", 0, "alpha must be a number > 0"), ("own", -1, "own must be a number > 0"),
    ("lam", 0, "lam must be a number > 0"), ("gamma", 0, "gamma must be a number > 0"), ("gamma", "auto", "gamma must be"),
    ("solver", "mu", "solver must be one of"), ("features", "both", "features must be one of"), ("scale", "unit", "scale must be one of"),
    ("u_step", "nnls", "u_step must be one of"), ("target", "blur", "target must be one of"), ("target", -np.ones((9, 7)), "Negative values"),
    ("target", np.ones((7, 9)), "target must have the shape of X"), ("target", lambda X, rng: "nonsense", "target is not usable"),
    ("strength", -1, "strength"), ("tol", -1, "tol"), ("max_iter", 0, "max_iter"),
])
def test_bad_parameters(param, value, message):
    with pytest.raises(ValueError, match=message): ANMF(**{param: value}).fit(np.random.default_rng(0).random((9, 7)))


@pytest.mark.parametrize("scale, u_step", [("codes", "split"), ("components", "split"), ("components", "prox")])
def test_admm_keeps_a_scale_and_ends_at_a_solution(scale, u_step):
    rng = np.random.default_rng(0)
    data = as_data(rng.random((30, 3)) @ rng.random((3, 20)))
    first = [torch.from_numpy(rng.random(s)) for s in ((30, 3), (3, 20))]
    unit, target = price_unit(data, 3, scale), Target(data, .5)
    game = Game(.6, .1, unit, .1 / unit)
    how = dict(rho=3., ramp=1.) if scale == "components" else {}
    run = solve_admm(data, target, *first, game, scale=scale, u_step=u_step, tol=1e-5, max_iter=30_000, **how)
    W, H, H_adv = run.state.factors
    assert run.status == "converged" and min(float(A.min()) for A in (W, H, H_adv)) >= 0
    lengths, want = (W.norm(dim=0), 10**.5) if scale == "codes" else (H.norm(dim=1), 1.)
    assert_allclose(lengths, want, rtol=1e-12)
    assert game_residual(data, target, W, H, game, H_adv, scale=scale) <= 1e-5
    r = kkt_15(data.X, target.Z, run.state, game, scale)          # two certificates, and neither is that of a free scale
    free = kkt_15(data.X, target.Z, run.state, game)
    assert r.primal < 1e-3 and r.dual < 1e-2 < 1 < free.dual
    on = solve_bilevel(data, target, W, H, game, H_adv=H_adv, scale=scale, tol=1e-7, max_iter=3000)
    assert on.loss == pytest.approx(run.loss, rel=1e-4)            # from there the other solver goes nowhere


def test_bad_data():
    X = np.random.default_rng(0).random((9, 7))
    for bad, message in ((np.ones((9, 7)), "X is constant"), (-X, "Negative values"), (np.full((9, 7), np.inf), "infinity")):
        with pytest.raises(ValueError, match=message): ANMF().fit(bad)
    with pytest.raises(ValueError, match="needs u_step='split'"): ANMF(solver="admm", scale="codes", u_step="clip").fit(X)
    with pytest.raises(ValueError, match="NaN"): ANMF(solver="admm").fit(np.where(X < .2, np.nan, X))
    with pytest.raises(TypeError, match="dense"): ANMF(solver="admm").fit(sparse.csr_array(X))


def test_every_argument_arrives(monkeypatch):
    import anmf_lab.anmf_model as module
    seen = {}
    def spy(name):
        real = getattr(module, name)
        def wrapped(*args, **kwargs):
            seen[name] = (args, kwargs)
            return real(*args, **kwargs)
        monkeypatch.setattr(module, name, wrapped)
    for name in ("make_target", "solve_bilevel", "solve_admm"): spy(name)
    X = np.random.default_rng(0).random((12, 8))
    ANMF(3, target="noise", strength=.3, alpha=.5, own=.4, lam=2., gamma=.01, scale="components", max_iter=7, tol=0, random_state=1).fit(X)
    assert seen["make_target"][0][1] == "noise" and seen["make_target"][1]["strength"] == .3
    args, kwargs = seen["solve_bilevel"]
    assert args[4] == Game(.5, .4, 2*price_unit(as_data(X), 3, "components"), .01)
    assert (kwargs["scale"], kwargs["max_iter"], kwargs["tol"]) == ("components", 7, 0)
    ANMF(3, solver="admm", u_step="prox", lam=2., max_iter=7, tol=0, random_state=1).fit(X)
    args, kwargs = seen["solve_admm"]
    assert kwargs["u_step"] == "prox" and (args[4].alpha, args[4].own) == (.6, .1)
    assert_allclose((args[4].lam, args[4].gamma), (2. / X.mean(), 1e-3 * X.mean()))     # ADMM plays in units of the mean


@pytest.mark.parametrize("solver", ["bilevel", "admm"])
def test_fitted_model(solver):
    X = planted()[0].X.numpy()
    m = ANMF(4, solver=solver, strength=1., max_iter=60, tol=0, random_state=0)
    kept = X.copy()
    codes = m.fit_transform(X)
    assert np.array_equal(X, kept)
    assert codes.dtype == m.transform(X).dtype and codes.shape == (40, 4)
    assert_allclose(codes, m.transform(X))
    assert min(codes.min(), m.components_.min(), m.codes_.min(), m.learner_components_.min()) >= 0
    assert m.adv_components_.shape == m.components_.shape == (4, 30) and m.codes_.shape == (40, 4)
    assert m.target_.shift == pytest.approx(X.std()) and len(m.loss_curve_) == 7
    assert_allclose(m.reconstruction_err_, np.linalg.norm(X - codes @ m.components_), rtol=1e-9)
    again = ANMF(4, solver=solver, strength=1., max_iter=60, tol=0, random_state=0).fit(X)
    assert np.array_equal(again.components_, m.components_) and np.array_equal(again.adv_components_, m.adv_components_)
    # the recorded loss is the objective at what is returned
    W, H, A = (torch.from_numpy(T) for T in (m.codes_, m.learner_components_, m.adv_components_))
    loss = .6*(planted()[0].X - W @ A).square().sum() + .1*(planted()[0].X - W @ H).square().sum()
    if solver == "admm": loss = loss + 1e-3*reply_gap(m.target_.Z, W, H, A, m.lam_).square().sum()
    assert m.loss_curve_[-1] == pytest.approx(float(loss), rel=1e-8)
    if solver == "bilevel": assert_allclose(A, best_response(m.target_.Z, W, H, m.lam_), rtol=1e-8, atol=1e-9)


def test_features_choose_the_components():
    X = planted()[0].X.numpy()
    made = {f: ANMF(4, strength=1., features=f, max_iter=60, tol=0, random_state=0).fit(X) for f in ("learner", "attacked", "refit")}
    assert np.array_equal(made["learner"].components_, made["learner"].learner_components_)
    assert np.array_equal(made["attacked"].components_, made["attacked"].adv_components_.clip(0))
    refit = made["refit"]
    W = refit.codes_
    better = np.linalg.norm(X - W @ refit.components_)
    assert better <= min(np.linalg.norm(X - W @ H) for H in (refit.learner_components_, refit.adv_components_.clip(0))) + 1e-9


def test_units_and_permutations():
    X = planted()[0].X.numpy()
    how = dict(n_components=4, strength=1., max_iter=200, tol=1e-6, init="nndsvda")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        a, b = ANMF(**how).fit(X), ANMF(**how).fit(1000*X)
        c = ANMF(**{**how, "init": "custom"}).fit(X[::-1].copy(), W=a.codes_[::-1].copy(), H=a.learner_components_)
    # L-BFGS multiplies rounding errors: 50 iterations are the same path, 200 end in the same valley
    assert_allclose(b.loss_curve_[:6], 1e6*a.loss_curve_[:6], rtol=1e-6)
    assert_allclose(b.loss_curve_[-1], 1e6*a.loss_curve_[-1], rtol=.05)
    assert_allclose(c.loss_curve_[0], a.loss_curve_[-1], rtol=1e-9)


def test_the_best_of_several_starts_is_kept(monkeypatch):
    import anmf_lab.anmf_model as module
    runs, real = [], module.solve_bilevel
    monkeypatch.setattr(module, "solve_bilevel", lambda *args, **how: runs.append(real(*args, **how)) or runs[-1])
    X = planted(noise=.5)[0].X.numpy()
    m = ANMF(4, strength=1., init="random", n_init=4, max_iter=30, tol=0, random_state=0).fit(X)
    losses = [r.loss for r in runs]
    assert len(set(losses)) == 4 and m.loss_curve_[-1] == min(losses)
    assert np.array_equal(m.codes_, runs[int(np.argmin(losses))].state[0].numpy())


def test_torch_in_torch_out():
    X = planted()[0].X
    m = ANMF(3, strength=1., max_iter=20, tol=0, random_state=0)
    codes = m.fit_transform(X.float())
    assert isinstance(codes, torch.Tensor) and codes.dtype == torch.float32 and isinstance(m.adv_components_, torch.Tensor)
    assert_allclose(m.components_.double(), ANMF(3, strength=1., max_iter=20, tol=0, random_state=0).fit(X.numpy()).components_, rtol=.05, atol=.05)


def test_zero_rows_and_columns_are_legal():
    X = planted()[0].X.numpy().copy()
    X[3], X[:, 5] = 0, 0
    for model in (ANMF(4, max_iter=50, tol=0, random_state=0), ANMF(4, solver="admm", max_iter=50, tol=0, random_state=0)):
        assert np.isfinite(model.fit_transform(X)).all() and np.isfinite(model.components_).all()


# --- the bounds

def test_bounds_by_brute_formula():
    from anmf_lab.bounds import samples_needed, theorem2, theorem3
    n, f, k, d = 400, 644, 40, .05
    first = 14*k*k**.5/n**.5 + (k**2*np.log(16*n*k)/(4*n))**.5 + (np.log(2/d)/(2*n))**.5
    second = 2/n + ((f*k*np.log(4*(1 + k)*(f*k)**.5*n) - np.log(d/2))/(2*n))**.5
    assert_allclose(theorem2(n, f, k, d), (first, second), rtol=1e-12)
    assert_allclose(theorem3(n, k, d), 6*k*(np.pi/n)**.5 + (np.log(2/d)/(2*n))**.5, rtol=1e-12)
    m = samples_needed(k)
    assert theorem3(m, k) < 1 <= theorem3(m - 1, k)



# --- units, names, ends

@pytest.mark.parametrize("how, price", [
    (dict(), 0), (dict(scale="components"), 0), (dict(scale="components", gamma=.3), 2), (dict(gamma=.1), 0),
    (dict(scale="free", lam=.2), 1), (dict(scale="free", lam=.2, gamma=.1), 1), (dict(solver="admm", lam=.2, gamma=.1), 1),
    (dict(solver="admm", scale="codes", gamma=.1), 0), (dict(solver="admm", scale="components", gamma=.1), 2),
    (dict(target="noise"), 0), (dict(features="refit"), 0), (dict(features="attacked"), 0),
])
@pytest.mark.parametrize("dtype, units", [(np.float64, (1e-30, 1e-7, 1e30)), (np.float32, (4.**-30, 4.**-12, 4.**30))])
def test_any_unit(how, price, dtype, units):
    X = (planted()[0].X.numpy()).astype(dtype)
    def fit(c):
        relative = how.get("scale", "free" if how.get("solver") == "admm" else "codes") != "free"
        here = {**how, **({"lam": how["lam"] * c} if "lam" in how and not relative else {})}
        if "gamma" in how: here["gamma"] = how["gamma"] / c**price
        return ANMF(3, strength=1., random_state=0, max_iter=40, tol=0, **here).fit(X * dtype(c))
    one = fit(1.)
    rtol = 1e-6      # in single precision, where forty steps are not a solution, by powers of 4: not a bit may change
    if dtype == np.float32 and how.get("solver") == "admm": rtol = 1e-3       # ... but ADMM divides by the mean
    WH = one.codes_.astype(float) @ one.learner_components_
    for c in units:
        m = fit(c)
        assert_allclose((m.codes_.astype(float) @ m.learner_components_) / c, WH, rtol=rtol, atol=rtol)
        assert_allclose(m.transform(X * dtype(c)).astype(float) @ m.components_ / c,
                        one.transform(X).astype(float) @ one.components_, rtol=rtol, atol=rtol)
        assert_allclose(m.loss_curve_[-1] / c**2, one.loss_curve_[-1], rtol=max(rtol, 1e-6))
        assert_allclose(m.kkt_residual_, one.kkt_residual_, rtol=.1, atol=1e-4)


def test_beta_is_the_former_name_of_own():
    X = planted()[0].X.numpy()
    with pytest.warns(FutureWarning, match="own"): old = Game(beta=.3)
    assert old == Game(own=.3) and replace(old, lam=2.) == Game(own=.3, lam=2.)
    with pytest.warns(FutureWarning, match="own"): assert old.beta == .3
    how = dict(strength=1., max_iter=20, tol=0, random_state=0)
    with pytest.warns(FutureWarning, match="own"): a = ANMF(3, beta=.3, **how).fit(X)
    assert_allclose(a.components_, ANMF(3, own=.3, **how).fit(X).components_)
    with pytest.warns(FutureWarning), pytest.raises(ValueError, match="own must be"): ANMF(3, beta=-1).fit(X)


def test_weights_in_the_mask_are_repeated_rows():
    data, (W, H) = planted(n=6, f=5, k=2)
    double = torch.tensor([1., 2., 1., 1., 3., 1.], dtype=torch.float64)
    rows = torch.repeat_interleave(torch.arange(6), double.long())
    weighted = Data(data.X, double[:, None].expand(6, 5).contiguous())
    for gamma in (None, .2):
        game = Game(.6, .2, .3, gamma)
        s = slope_by_residuals(weighted, Target(weighted, .7), W, H, game, H + .1)
        r = slope_by_residuals(Data(data.X[rows]), Target(Data(data.X[rows]), .7), W[rows], H, game, H + .1)
        assert_allclose(s.loss, r.loss, rtol=1e-12)
        assert_allclose(s.H, r.H, rtol=1e-10, atol=1e-10)
        assert_allclose(s.W, torch.zeros_like(W).index_add(0, rows, r.W), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("solver", ["bilevel", "admm"])
def test_a_game_that_rounding_spoils_ends_and_says_so(solver):
    data, (W, H) = planted()
    game = Game(lam=1e-300, gamma=1e-3 if solver == "admm" else None)
    dead = torch.zeros_like(W)                                     # nothing to invert but the price
    run = (solve_bilevel if solver == "bilevel" else solve_admm)(data, Target(data, 1.), dead, H, game, max_iter=30, **({"scale": "free"} if solver == "bilevel" else {}))
    assert len(run.losses) >= 1 and all(torch.isfinite(T).all() for T in run.state if isinstance(T, torch.Tensor))


@pytest.mark.parametrize("name, value", [("lam", 1e300), ("gamma", 1e300), ("alpha", float("inf")), ("own", "x"), ("strength", 1e300), ("target", 5), ("target", None)])
def test_prices_out_of_this_world(name, value):
    with pytest.raises(ValueError, match=name): ANMF(2, **{name: value}).fit(planted()[0].X.numpy())
