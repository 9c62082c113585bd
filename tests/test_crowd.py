"""Many ascents at once: budgets, holes, weights, penalties, both orientations, members that go astray."""
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import anmf_lab as al
from anmf_lab.align import feature_error
from anmf_lab.ascent import Climber, Effort
from anmf_lab.core import as_data
from anmf_lab.crowd import MOST, budget_at, climb, feature_errors, members, path_gradient, places, stack_near, stack_of
from anmf_lab.goals import goal_of, problem_with
from anmf_lab.objective import Entrywise
from anmf_lab.polish import kkt_residual
from anmf_lab.solve import solve_seeds
from anmf_lab.stacked import Stack, inside, interior_step
from anmf_lab.starts import Starts
from anmf_lab.threat import Threat


def planted(n=12, f=10, seed=0):
    r = np.random.default_rng(seed)
    W, H = (r.uniform(.2, 1, s) * (r.random(s) > .45) for s in ((n, 3), (3, f)))
    return np.maximum(W @ H + .03 * r.standard_normal((n, f)), .002)


def crowd(obj, norm="l2", eps=.03, r=5, seed=3, **kw):
    X = obj.data.X
    ref = solve_seeds(obj, 3, 3, rng=np.random.default_rng(0))[0].factors
    seen = None if obj.data.mask is None else obj.data.mask > 0
    t, rng = Threat.around(X, norm, seen=seen), np.random.default_rng(seed)
    Z = torch.stack([t.spend(torch.from_numpy(rng.standard_normal(X.shape)), 2 * eps) for _ in range(r)])
    return t, ref, climb(stack_of(obj), t, eps, ref, Z, lambda W, H: feature_errors(W, H, ref), **kw)


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("beta", [1., 2.])
def test_all_members_end_within_the_budget_and_near_their_solutions(norm, beta):
    obj = Entrywise(as_data(planted()), beta)
    t, ref, (Z, W, H) = crowd(obj, norm, steps=12)
    for z, w, h in zip(Z, W, H, strict=True):
        assert t.size(z) <= t.radius(.03)
        assert float(z.min()) >= 0 and float(w.min()) >= 0 and float(h.min()) >= 0
        random = obj.at(as_data(z)).value(*ref)
        assert float(obj.at(as_data(z)).value(w, h)) < float(random)
    again = crowd(obj, norm, steps=12)[2][0]
    assert torch.equal(Z, again)


def test_tall_and_wide_are_the_same_climb():
    X = planted()
    (_, ref, tall), (_, fer, wide) = (crowd(Entrywise(as_data(A), 2.), r=2, steps=0) for A in (X, X.T.copy()))
    assert tall[0].shape == (2, 12, 10) and wide[0].shape == (2, 10, 12)
    assert feature_error(*ref, fer[1].T, fer[0].T) < 1e-5
    obj = Entrywise(as_data(X), 2.)
    t, Z = Threat.around(obj.data.X), obj.data.X * torch.linspace(.9, 1.1, 12)[:, None]
    turned = Threat.around(obj.data.X.T.contiguous())
    gain, niag = (lambda W, H, p=p: feature_errors(W, H, p) for p in (ref, (ref[1].T, ref[0].T)))
    a = climb(stack_of(obj), t, .03, ref, Z[None], gain, steps=6)
    b = climb(stack_of(Entrywise(as_data(X.T.copy()), 2.)), turned, .03, (ref[1].T, ref[0].T), Z.T[None], niag, steps=6)
    assert_allclose(a[0].numpy(), b[0].mT.numpy(), atol=1e-7)


def test_missing_entries_stay_as_they_are():
    mask = np.random.default_rng(2).random((12, 10)) > .2
    obj = Entrywise(as_data(planted(), mask=mask), 2.)
    _, _, (Z, W, H) = crowd(obj, steps=8)
    hole = torch.from_numpy(~mask)
    assert all(torch.equal(z[hole], obj.data.X[hole]) for z in Z)
    assert bool(W.isfinite().all() and H.isfinite().all())


@pytest.mark.parametrize("beta, l2, weighted", [(2., .05, False), (1., 0., True), (1.5, .02, True)])
def test_the_gradient_is_that_of_points_of_the_path(beta, l2, weighted):
    "Path points at X + hD, found by the stack's own interior steps at one mu, with weights and penalties"
    X, k = torch.from_numpy(planted()), 3
    M = torch.from_numpy(np.random.default_rng(5).uniform(.5, 2, X.shape)) if weighted else None
    one = Stack(X[None], beta, 0., l2, None if M is None else M[None])
    W, H = (T[None] for T in solve_seeds(Entrywise(as_data(X), beta), k, 2, rng=np.random.default_rng(0))[0].factors)
    first, D, h = inside(one, W, H, 1e-2), torch.from_numpy(np.random.default_rng(1).standard_normal(X.shape)), 1e-5

    def point(X):
        at, stack = first, replace(one, X=X[None])
        for _ in range(60):   # mu begins anew every time, so that every step aims at four fifths of it
            z = dict(zW=1e-2 * at.cW / at.W, zH=1e-2 * at.cH / at.H)
            at = interior_step(stack, replace(at, **z, last=0 * at.last, damping=0 * at.damping))
        aim = .8 * 1e-2
        return replace(at, zW=aim * at.cW / at.W, zH=aim * at.cH / at.H, damping=0 * at.damping)
    at = point(X)
    ref = at.W[0] * torch.linspace(.7, 1.3, 12)[:, None], at.H[0] + .1 * at.H.mean()
    fe, gW, gH = feature_errors(at.W, at.H, ref)
    slope = float((path_gradient(one, at, gW, gH)[0] * D).sum())
    up, down = (float(feature_errors(*(point(X + d * D).W, point(X + d * D).H), ref)[0]) for d in (h, -h))
    assert_allclose(slope, (up - down) / (2 * h), rtol=1e-4)


def test_the_budget_shrinks_to_what_is_allowed():
    assert budget_at(0., .1) == .2 and budget_at(1., .1) == .1 == budget_at(.7, .1)
    assert budget_at(.45, .1) == pytest.approx(.15)
    assert budget_at(.1, .1, over=1.) == .1


def test_places_are_apart_and_members_that_left_the_numbers_are_none():
    rng = np.random.default_rng(0)
    W, H = (torch.from_numpy(rng.random(s)) for s in ((4, 6, 2), (4, 2, 5)))
    W[1], H[1] = W[0], H[0]
    ref, Z = (W[0] + .3, H[0]), torch.zeros(4, 6, 5, dtype=torch.float64)

    def gain(A, B):
        fe, *grads = feature_errors(A, B, ref)
        fe[3] = torch.nan
        return fe, *grads
    found = places(Z, W, H, gain)
    assert len(found) == 2
    values = [feature_error(w, h, *ref) for _, w, h in found]
    assert values == sorted(values, reverse=True)


def test_what_a_stack_cannot_solve_has_no_crowd():
    X = planted()
    assert stack_of(Entrywise(as_data(X), 0.)) is None and stack_of(Entrywise(as_data(X), 2., l2=.1)).l2 == .1
    assert members(12, 10, 3, 1e9) == MOST and members(5000, 4000, 20, 1e9) == 0 and members(12, 10, 3, 0.) == 0


def test_a_problem_with_more_than_a_loss_has_a_near_one_only():
    X = np.random.default_rng(0).gamma(1., size=(12, 8))
    assert stack_of(al.ONMF(2).objective(X)) is None             # codes that must stay orthogonal
    assert stack_of(al.NMF(2).objective(X)) is not None
    M = np.random.default_rng(1).random(X.shape) > .2
    for obj, beta in ((al.ONMF(2).objective(X), 2.), (al.L21NMF(2).objective(X), 2.),
                      (al.NMF(2, loss="itakura-saito").objective(X), 1.), (Entrywise(as_data(X), 3.), 2.),
                      (al.NMF(2, loss="kullback-leibler", l2=.1).objective(X), 1.)):
        near = stack_near(obj)
        assert near.beta == beta and torch.equal(near.X[0], obj.data.X)
    assert near.l2 > 0                                           # its own, where it has one
    held = stack_near(al.HuberNMF(2).objective(X, mask=M))
    assert held.beta == 2 and torch.equal(held.weights[0] > 0, torch.from_numpy(M))


def test_a_model_without_a_stack_is_attacked_from_where_the_crowd_ends():
    X = planted()
    how = dict(eps=.05, strength="quick", n_noise=0, n_usual=0, n_seeds=4)
    obj = al.HuberNMF(3).objective(X)
    problem, t = problem_with(obj, 3), Threat.around(obj.data.X)
    ref = problem.fresh(obj.data.X, 4, np.random.default_rng(0))[0].factors
    c = Climber(problem, t, goal_of("features"), ref, .05, Effort())
    found = dict(islice(Starts(c, lambda *key: np.random.default_rng(0), [], None, [], None, work=2.), 2))
    assert set(found) == {"crowd"}
    p = found["crowd"]
    assert t.size(p.Z) <= .05 * t.unit * (1 + 1e-9) and kkt_residual(problem.at(p.Z), p.W, p.H) < 3e-3
    assert al.LaFA(**how).run(al.HuberNMF(3, random_state=0), X).records[0]["feature_error"] > .1
