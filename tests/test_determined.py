"""Determined or not: one answer for the data, whatever unit, order, precision or seed; bands that keep the fit."""
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from numpy.testing import assert_allclose

import anmf_lab as al
from anmf_lab import determined, implicit, null_directions
from anmf_lab.align import balance, match
from anmf_lab.core import as_data
from anmf_lab.implicit import Adjoint, condition, feature_gradient, one_way, solution
from anmf_lab.cones import cone
from anmf_lab.determined import local_verdict, sides
from anmf_lab.objective import Loss, Objective
from anmf_lab.solve import solve_seeds

KL = "kullback-leibler"
W5 = np.array([[1, 1], [2, 1], [1, 2], [0, 1], [.5, 1]])
H5 = np.array([[1., 2, 0, 1], [1, 0, 2, 1]])


def planted(seed, zeros, shape=(20, 15, 3)):
    n, f, k = shape
    rng = np.random.default_rng(seed)
    W, H = rng.uniform(.2, 1, (n, k)), rng.uniform(.2, 1, (k, f))
    if zeros < 0:
        W[:k] = np.eye(k)
        return W, H
    return W * (rng.random(W.shape) > zeros), H * (rng.random(H.shape) > zeros)


@pytest.mark.parametrize("zeros, seed, moves", [(-1, 0, True), (.1, 1, True), (.5, 3, False), (.5, 4, False)])
def test_agrees_with_fresh_exact_fits(zeros, seed, moves):
    W, H = planted(seed, zeros)
    r = al.identifiability(None, W @ H, W=W, H=H, loss="frobenius", n_seeds=6)
    assert (r.verdict in ("flat", "one-sided")) is moves
    assert (r.floor > .01) is moves
    assert "locally" in repr(r)
    assert bool(r.components) is moves and bool(r.directions) is (r.here.count > 0)


def test_five_by_four():
    r = al.identifiability(None, W5 @ H5, W=W5, H=H5, loss="frobenius", n_seeds=4)
    assert r.verdict in ("flat", "one-sided") and r.here.verdict == "one-sided"
    assert r.count == 1 and r.range == (1, 1) and r.components == [0, 1] and r.floor > .05
    A, B = r.directions[0]
    W, H = (T.numpy() for T in balance(torch.from_numpy(W5), torch.from_numpy(H5)))
    np.testing.assert_allclose((W + 1e-4 * A) @ (H + 1e-4 * B), W @ H, atol=1e-6)
    assert (W + 1e-4 * A).min() > -1e-12 and (H + 1e-4 * B).min() > -1e-12
    frame = r.to_frame()
    assert set(frame["verdict"]) <= {"flat", "one-sided"} and len(frame) == r.n_shared + 1


@pytest.mark.parametrize("change", ["unit", "tiny", "single", "order", "frame", "torch"])
def test_the_answer_is_that_of_the_data(change):
    rng = np.random.default_rng(0)
    for W, H in ((W5, H5), planted(3, .5)):
        rows, columns = rng.permutation(len(W)), rng.permutation(H.shape[1])
        X, given = W @ H, dict(W=W, H=H)
        if change == "unit": X, given = 300 * X, dict(W=300 * W, H=H)
        elif change == "tiny": X, given = X / 2**40, dict(W=W / 2**40, H=H)
        elif change == "single": X, given = X.astype(np.float32), {n: T.astype(np.float32) for n, T in given.items()}
        elif change == "order": X, given = X[rows][:, columns], dict(W=W[rows], H=H[:, columns])
        elif change == "frame": X = pd.DataFrame(X)
        else: X = torch.from_numpy(X)
        r = al.identifiability(None, X, loss="frobenius", n_seeds=2, **given)
        assert (r.verdict != "determined") is (W is W5), (change, r)


def test_genomes_by_products_alone(monkeypatch):
    "The matrix-free route says what the dense one says"
    obj = Objective(as_data(np.asarray(al.load_dataset("wtsi").data, float)), 1.)
    for k, count in ((3, 6), (5, 0)):
        near = solve_seeds(obj, k, 3, rng=0, tol=1e-9)[0]
        dense = local_verdict(obj, *near.factors)
        with monkeypatch.context() as m:
            for module in (determined, implicit, null_directions):
                m.setattr(module, "DENSE", 50)
            free = local_verdict(obj, *near.factors)
        assert dense.verdict == free.verdict and dense.count == free.count == count
        np.testing.assert_allclose(free.curvature, dense.curvature, rtol=1e-3)
        np.testing.assert_allclose(free.share, dense.share, atol=1e-3)


def swimmer(limbs=3, positions=3, pixels=2, torso=3):
    "Every limb in every position, and a torso that all parts share: it may wander from limb to limb"
    where = np.indices((positions,) * limbs).reshape(limbs, -1).T + positions * np.arange(limbs)
    W, k = np.eye(limbs * positions)[where].sum(1), limbs * positions
    return W, np.c_[np.kron(np.eye(k), np.ones(pixels)), np.full((k, torso), 1 / limbs)]


@pytest.mark.parametrize("alone", ["dense", "products", "positive entries"])
def test_the_torso_of_a_swimmer(monkeypatch, alone):
    "Codes that depend on one another: hundreds of null directions, of which one vector sees few; (limbs - 1) x torso lines"
    W, H = swimmer()
    obj = Objective(as_data(W @ H), 2.)
    if alone == "products":
        for module in (determined, implicit, null_directions):
            monkeypatch.setattr(module, "DENSE", 50)
    if alone == "positive entries": monkeypatch.setattr(determined, "CROWD", 10)
    tiny = np.where(W == 0, 1e-7, W), np.where(H == 0, 1e-8, H)     # a solver's zeros
    for factors in ((W, H), tiny):
        r = local_verdict(obj, *(torch.from_numpy(T) for T in factors))
        assert (r.verdict, r.both_ways) == ("flat", 6), (alone, r)


@pytest.mark.parametrize("value, multiplier, kind", [
    (0., 1e-4, "pressed"), (1e-9, 1e-4, "pressed"), (3e-6, 2e-6, "free"), (0., 1e-8, "free"),
    (1e-2, 1e-4, "positive"), (3e-5, 1e-2, "pressed"), (1e-2, 0., "positive")])
def test_the_larger_of_value_and_multiplier_decides(value, multiplier, kind):
    class Given:
        def allowed(self, W, H): return None
        def parts(self, W, H):
            pressed = torch.tensor([[0., multiplier]]).double()
            return (0 * W, 0 * W + 1), (1 - pressed, 0 * H + 1)
    s = sides(Given(), torch.ones(1, 1).double(), torch.tensor([[2**.5, 0.]]).double() + value * torch.tensor([[0., 1.]]))
    assert ("positive" if s.both[1][0, 1] else "free" if s.up[1][0, 1] else "pressed") == kind


def exact(zeros, seed):
    "Factors with a share of zeros in both; -1: the codes hold the identity"
    rng = np.random.default_rng([seed, round(10 * zeros) + 10])
    W, H = rng.uniform(.2, 1, (20, 3)), rng.uniform(.2, 1, (3, 15))
    if zeros < 0:
        W[:3] = np.eye(3)
        return W, H
    return W * (rng.random(W.shape) > zeros), H * (rng.random(H.shape) > zeros)


EXACT = [(zeros, seed) for zeros in (-1, .1, .2, .3) for seed in range(3)]


@pytest.mark.parametrize("zeros, seed", EXACT)
def test_verdict_count_condition_gradient_and_error_bars_say_one_thing(zeros, seed):
    "Exact data: every zero is free. Until one free set served all, seven of these twelve were one-sided, with a gradient, kappa 6 to 30 and green bars"
    W, H = exact(zeros, seed)
    obj, factors = Objective(as_data(W @ H), 2.), (torch.from_numpy(W), torch.from_numpy(H))
    local, adj = local_verdict(obj, *factors), Adjoint(obj, *factors)
    is_determined = local.verdict == "determined"
    assert is_determined == (local.count == 0) == (not one_way(obj, *factors))
    kappa = condition(adj).kappa
    assert np.isfinite(kappa) == is_determined
    other = [T + .1 * torch.from_numpy(np.random.default_rng(1).random(T.shape)) for T in factors]
    try:
        cert, given = feature_gradient(obj, *factors, *other)[2], True
        assert cert.n_loose == sum(int(T.sum()) for T in adj.sides.up) > 0 and not cert.trusted
    except ValueError as e:
        given = False
        assert "al.identifiability" in str(e)
    assert given == is_determined
    bars = al.uncertainty(None, W @ H, "gaussian", W=W, H=H, loss="frobenius", n_seeds=0)   # this solution alone
    assert (bars.light != "red") == is_determined == (not np.isnan(bars.components_stderr).any())
    if not is_determined:
        with pytest.raises(ValueError, match="al.bands"):
            bars.interval()


def test_the_exact_problems_are_of_both_kinds():
    "... so the test above compares something"
    pairs = [exact(zeros, seed) for zeros, seed in EXACT]
    said = [local_verdict(Objective(as_data(W @ H), 2.), *map(torch.from_numpy, (W, H))).verdict for W, H in pairs]
    assert said.count("one-sided") >= 4 and said.count("determined") >= 3, said


def test_sparse_missing_weights_and_models():
    rng = np.random.default_rng(0)
    W, H = planted(3, .5)
    X = W @ H
    assert al.identifiability(None, sp.csr_matrix(X), W=W, H=H, loss="frobenius", n_seeds=2).verdict == "determined"
    weights = rng.uniform(.5, 2, X.shape)
    assert al.identifiability(None, X, W=W, H=H, loss=KL, weights=weights, n_seeds=0).verdict == "determined"
    mask = np.ones(X.shape, bool)
    mask[0] = [True] + [False] * 14        # one observation for the codes of a row
    assert al.identifiability(None, X, W=W, H=H, loss="frobenius", mask=mask, n_seeds=0).verdict == "flat"


class Rough(Loss):
    "Rounded absolute error"
    def value(self, X, Y): return ((X - Y).square() + .01).sqrt()


@pytest.mark.parametrize("model", [al.NMF(3, l2=.05, random_state=0), al.ATNMF(3, lam=1.5, random_state=0), None],
                         ids=["ridge", "ATNMF", "a loss of one's own"])
def test_any_objective(model):
    W, H = planted(3, .5, (14, 10, 3))
    X = W @ H + .02 * np.random.default_rng(0).random((14, 10))
    given = dict(W=W, H=H, loss=Rough()) if model is None else {}
    r = al.identifiability(model, X, n_seeds=0, **given)
    own = solution(model, X, **given)
    at = [T.clone() for T in (balance(*own.factors) if own.objective.scale_free else own.factors)]
    rest, rise = float(own.objective.value(*at)), 0.
    for A, B in r.directions:
        W, H = (T + 1e-3 * torch.from_numpy(D) for T, D in zip(at, (A, B), strict=True))
        rise = max(rise, abs(float(own.objective.value(W, H)) - rest))
        costly = float(own.objective.value(at[0] + 1e-3 * torch.from_numpy(A), at[1])) - rest
        assert abs(costly) > 1e-9 * rest
    assert rise < 1e-8 * rest + 1e-12
    assert (r.verdict == "determined") is (model is not None and bool(model.get_params().get("l2")))


def test_rank_one_is_determined():
    X = np.outer([1., 2, 3], [1., 1, 2, 0])
    r = al.identifiability(None, X, W=X[:, :1], H=X[:1] / X[0, 0], loss="frobenius", n_seeds=2)
    assert r.verdict == "determined" and r.floor < 1e-6


def test_a_higher_minimum_is_told():
    rng = np.random.default_rng(1)
    X = rng.poisson(rng.gamma(.5, 20., (14, 4)) @ rng.random((4, 12)) ** 3) + 1.
    worst = solve_seeds(Objective(as_data(X), 1.), 4, 8, rng=0, tol=1e-9)[-1]
    r = al.identifiability(None, X, W=worst.W.numpy(), H=worst.H.numpy(), loss=KL, n_seeds=8)
    assert r.excess > 0 and "lower objective" in r.notes[-1] and r.n_shared < r.n_solved


def test_bad_input():
    X = W5 @ H5
    with pytest.raises(ValueError, match="n_seeds"):
        al.identifiability(None, X, W=W5, H=H5, n_seeds=-1)
    with pytest.raises(ValueError, match="components H are needed"):
        al.identifiability(None, X)
    with pytest.raises(ValueError, match="a component is zero"):
        al.identifiability(None, X, W=W5 * [1, 0], H=H5)
    with pytest.raises(ValueError, match="H must be"):
        al.identifiability(None, X, W=W5, H=H5[:, :2])


def test_cone_of_nothing_and_of_everything():
    assert cone(np.zeros((0, 3))).lines.shape[1] == 3
    assert cone(np.zeros((2, 3))).span.shape[1] == 3
    s = sides(Objective(as_data(W5 @ H5), 2.), torch.from_numpy(W5), torch.from_numpy(H5))
    assert int(s.up[0].sum()) == 1 and int(s.up[1].sum()) == 2

# --- bands

def genomes(k, n_seeds=6):
    X = np.asarray(al.load_dataset("wtsi").data, float)
    return X, solve_seeds(Objective(as_data(X), 1.), k, n_seeds, rng=0, tol=1e-9)


def given(s): return dict(W=s.W.numpy(), H=s.H.numpy(), loss=KL)


def test_bands_of_the_genomes():
    X, runs = genomes(4)
    b = al.bands(None, X, **given(runs[0]))
    assert any(abs(low - .094) < .003 and abs(high - .194) < .003 for low, high in b.shares)
    assert b.off < 1e-9 and b.shares.shape == (4, 2) and (b.shares[:, 0] <= b.share).all() and (b.share <= b.shares[:, 1]).all()
    for pair in b.extremes:
        for W, H in pair:
            assert W.min() >= 0 and H.min() >= 0
            np.testing.assert_allclose(W @ H, np.asarray(b.codes) @ np.asarray(b.components), rtol=1e-9, atol=1e-9)
            np.testing.assert_allclose(H.sum(1), 1, rtol=1e-9)
    same = [s for s in runs[1:] if s.loss < runs[0].loss * (1 + 1e-9)]
    assert len(same) > 1
    for s in same:                  # what other starts returned lies inside
        order = match(s.W, s.H, runs[0].W, runs[0].H)
        other = (s.W * s.H.sum(1)).sum(0)[order] / X.sum()
        assert (b.shares[:, 0] - 1e-6 <= other.numpy()).all() and (other.numpy() <= b.shares[:, 1] + 1e-6).all()
    assert len(b.to_frame()) == 4 and "same objective" in repr(b)
    assert len(b.plot().axes) == 3


def test_no_bands_at_rank_five():
    X, runs = genomes(5, 4)
    b = al.bands(None, X, **given(runs[0]))
    assert b.freedom == 0 and (b.shares[:, 0] == b.shares[:, 1]).all() and "no width" in repr(b)
    np.testing.assert_array_equal(b.low, b.high)


def test_entries_hold_what_other_fits_have():
    W, H = planted(1, .1, (12, 8, 2))
    b = al.bands(None, W @ H, W=W, H=H, loss="frobenius")
    assert b.freedom and (b.low <= b.components + 1e-9).all() and (b.components <= b.high + 1e-9).all()
    for s in solve_seeds(Objective(as_data(W @ H), 2.), 2, 8, rng=0, tol=1e-9):
        order = match(s.W, s.H, torch.from_numpy(W), torch.from_numpy(H))
        G = (s.H / s.H.sum(1, keepdim=True))[order].numpy()
        assert (b.low - 1e-5 <= G).all() and (G <= b.high + 1e-5).all()


def test_bands_in_any_form():
    plain = al.bands(None, W5 @ H5, W=W5, H=H5, loss="frobenius")
    for X, factors in ((torch.from_numpy(W5 @ H5), (W5, H5)), (pd.DataFrame(W5 @ H5), (W5, H5)), (7e-9 * W5 @ H5, (7e-9 * W5, H5)),
                       ((W5 @ H5)[::-1, [2, 0, 3, 1]], (W5[::-1], H5[:, [2, 0, 3, 1]]))):
        b = al.bands(None, X, W=factors[0].copy(), H=factors[1].copy(), loss="frobenius")
        np.testing.assert_allclose(b.shares, plain.shares, atol=1e-8)
        assert torch.is_tensor(b.low) is torch.is_tensor(X)
    one = al.bands(None, np.outer([1., 2], [1., 3]), W=[[1.], [2.]], H=[[1., 3.]], loss=KL)
    np.testing.assert_allclose(one.shares, [[1, 1]])
    mask = np.ones((5, 4), bool)
    mask[0, 0] = False
    holes = al.bands(None, W5 @ H5, W=W5, H=H5, loss="frobenius", mask=mask)
    assert "missing" in holes.notes[-1] and holes.off < 1e-9


class Bound(Objective):
    "A loss that sees the size of a component besides the product"
    def __init__(self, X): self.data = as_data(X)
    def value(self, W, H): return (self.data.X - W @ H).square().sum() + (W[:, 0].norm() * H[0].norm() - size(0)).square()


def size(j): return float(np.linalg.norm(W5[:, j]) * np.linalg.norm(H5[j]))


class Model:
    "Anybody's, at the planted factors"
    components_ = H5
    def __init__(self, kind): self.kind = kind
    def objective(self, X, **given): return self.kind(X)
    def factors(self, X, **given): return W5, H5


def test_bands_are_refused_where_mixtures_cost():
    X = W5 @ H5
    with pytest.raises(ValueError, match="penalty"):
        al.bands(al.NMF(2, l2=.1, random_state=0), X)
    with pytest.raises(ValueError, match="function of the product"):
        al.bands(Model(Bound), X)
    own = solution(None, X, W=W5, H=H5, loss="frobenius")
    with pytest.raises(ValueError, match="component is zero once"):
        determined.alive(replace(own, W=own.W * torch.tensor([1., 0.])))
    with pytest.raises(ValueError, match="component must be"):
        al.bands(None, X, W=W5, H=H5, loss="frobenius").plot(7)


def test_a_zero_that_is_pressed_lightly_is_pressed():
    "Where the fit is good all multipliers are small: with a fixed threshold of 1e-6 this minimum was 'not a minimum'"
    X = np.asarray(al.load_dataset("wtsi").data, float)
    X = X / X.max()
    obj = Objective(as_data(X), 2.)
    best = solve_seeds(obj, 4, 3, rng=0, tol=1e-11)[0]   # a residual near the multipliers would leave it undecided
    s = sides(obj, best.W, best.H)
    assert not any(bool(T.any()) for T in s.up) and local_verdict(obj, best.W, best.H).verdict == "determined"


def test_singular_vectors_where_the_fast_routine_does_not_converge(monkeypatch):
    rng = np.random.default_rng(0)
    V = torch.from_numpy(rng.standard_normal((40, 3)) @ rng.standard_normal((3, 6)))   # repeated zeros
    U, s = null_directions.singular(V)

    def fails(*args, **how): raise torch.linalg.LinAlgError("did not converge")
    monkeypatch.setattr(torch.linalg, "svd", fails)
    Q, t = null_directions.singular(V)
    assert_allclose(t, s, atol=1e-12 * float(s[0]))
    assert_allclose(Q[:, :3] @ Q[:, :3].T, U[:, :3] @ U[:, :3].T, atol=1e-12)
