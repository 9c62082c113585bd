"""Latent-feature attacks: budgets, goals, every model's own objective, honest reporting, bad input."""
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from numpy.testing import assert_allclose
from scipy.optimize import minimize
from sklearn.decomposition import NMF as SklearnNMF

import anmf_lab as al
from anmf_lab import lafa, sampled, starts
from anmf_lab.align import feature_error
from anmf_lab.ascent import Ascent, Climber, Effort, slack_of
from anmf_lab.attack_result import AttackResult, row_flags
from anmf_lab.determined import local_verdict
from anmf_lab.core import Data, as_data
from anmf_lab.goals import distinct as goals_distinct
from anmf_lab.goals import Problem, Verdict, check_goal, goal_of, judge, lead_slope, value_of, victim_of
from anmf_lab.implicit import Adjoint, solution
from anmf_lab.lafa import LaFA
from anmf_lab.objective import Entrywise, Loss, Objective
from anmf_lab.polish import polish
from anmf_lab.solve import solve_seeds
from anmf_lab.starts import Candidate, Look, Plan, belief, borrowed, followed, lender, plan_for, surest, unsolved_error
from anmf_lab.threat import Threat, stream
from anmf_lab.unrolled import published_pgd


def planted(n=15, f=12, k=3, seed=0, noise=.03, zeros=.45):
    rng = np.random.default_rng(seed)
    W, H = (rng.uniform(.2, 1, s) * (rng.random(s) > zeros) for s in ((n, k), (k, f)))
    return np.maximum(W @ H + noise * rng.standard_normal((n, f)), .002)


def victim(k=3, **kw):
    return SklearnNMF(k, init="nndsvda", tol=1e-8, max_iter=5000, **kw)


@pytest.mark.parametrize("model, calls", [(al.NMF(3), [(3, "auto"), (2, "mu")]), (al.NMF(3, loss="kullback-leibler"), [(5, "auto")]),
                                          (al.ATNMF(3), [(3, "auto")])])
def test_fresh_solutions_come_by_two_ways(monkeypatch, model, calls):
    seen = []
    def spy(obj, k, n, *, rng, solver="auto", **how):
        seen.append((n, solver))
        assert how == dict(tol=1e-6, max_iter=50, n_first=200)
        return solve_seeds(obj, k, n, rng=rng, solver=solver, **how)
    monkeypatch.setattr(sampled, "solve_seeds", spy)
    problem = victim_of(model, planted()).problem
    found = problem.fresh(problem.objective.data.X, 5, stream(0, "x"), tol=1e-6, max_iter=50)
    assert seen == calls and len(found) == 5      # without updates of its own: the rest from fits under squared error
    assert [s.loss for s in found] == sorted(s.loss for s in found)


def test_starts_under_squared_error_are_by_both_algorithms():
    obj = victim_of(al.ATNMF(3), planted()).problem.objective
    plain, ends = Entrywise(obj.data), sampled.squared_fits(obj, 3, 4, stream(0, "x"), 3)
    W, H = sampled.start(obj.data, 3, rng=stream(0, "x"), n_init=4)
    for i, solver, (w, h) in zip((0, 2, 1, 3), ("mu", "mu", "hals", "hals"), ends, strict=True):
        a, b = sampled.first_order(plain, W[i], H[i], solver=solver, max_iter=3, tol=1e-8).state[:2]
        assert_allclose(w @ h, a @ b, rtol=1e-10, atol=1e-12)


FEATURES = goal_of("features")
QUICK = dict(steps=8, starts=2, n_noise=2, n_usual=1, n_seeds=4)


# random streams

def test_ten_thousand_keys_have_ten_thousand_streams():
    keys = [(p, e, i) for p in ("noise", "noise-seeds", "noise-", "verify") for e in (.002, .004, .0021, .008, .02) for i in range(500)]
    assert len({stream(0, *k).integers(2**63) for k in keys}) == len(keys) == 10_000
    assert stream(3, "a", 1).random() == stream(3, "a", 1).random() != stream(3, "a", "1").random()


# the feasible set

@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["l2", "linf"]), st.floats(0, 1), st.floats(.01, 100), st.booleans())
def test_projection_meets_budget_and_box_to_the_last_bit(seed, norm, eps, far, spread):
    rng = np.random.default_rng(seed)
    X = torch.from_numpy(rng.random((5, 4)) * (rng.random((5, 4)) > .3) * (10. ** rng.uniform(-6, 6) if spread else 1))
    if not X.any():
        return
    t = Threat.around(X, norm)
    Z = t.project(X + far * t.unit * torch.from_numpy(rng.standard_normal((5, 4))), eps)
    assert t.size(Z) <= t.radius(eps)
    assert float(Z.min()) >= 0 and float(Z.max()) <= float(X.max())
    torch.testing.assert_close(t.project(Z, eps), Z, rtol=1e-12, atol=1e-12 * float(X.max()))
    assert torch.equal(t.project(Z, 0.), X)


def summed_one_by_one(D, order):
    "The norm of `D`, its squares added one after the other in its own precision"
    return np.sqrt(np.cumsum(np.square(D.ravel()[order]))[-1])


@pytest.mark.parametrize("dtype, size", [(np.float64, (40, 25)), (np.float32, (8, 8))])
def test_the_budget_holds_in_every_order_of_summation(dtype, size):
    "One by one, n squares are at most n + 2 roundings off: less than the room that is left, 1e-12 and 1e-5"
    rng = np.random.default_rng(0)
    for _ in range(200):
        X = rng.random(size).astype(dtype)
        t, norm = Threat.around(torch.from_numpy(X).double()), summed_one_by_one(X, slice(None))
        Z = t.project(t.X + torch.from_numpy(rng.standard_normal(size)), .1)
        Z = t.stored(Z, .1, torch.float32).numpy() if dtype == np.float32 else Z.numpy()
        spent = [summed_one_by_one(Z - X, rng.permutation(X.size)) for _ in range(5)]
        assert .0999 * norm < min(spent) and max(spent) <= dtype(.1) * norm


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_what_the_box_made_zero_stays_zero(norm, dtype):
    "An entry one unit in the last place above zero is a wall for a loss that must reconstruct it"
    for seed in range(20):
        rng = np.random.default_rng(seed)
        t = Threat.around(torch.from_numpy(rng.random((20, 10)) * (rng.random((20, 10)) > .3)), norm)
        Z = t.project(t.X + torch.from_numpy(rng.standard_normal((20, 10))), .05)
        Z = t.stored(Z, .05, dtype)
        assert bool((Z == 0).any()) and float(Z[Z > 0].min()) > 1e-9


@pytest.mark.parametrize("seed", range(3))
def test_projection_is_the_nearest_point(seed):
    rng = np.random.default_rng(seed)
    X = torch.from_numpy(rng.random((3, 3)) * (rng.random((3, 3)) > .3))
    t, V = Threat.around(X), X + torch.from_numpy(rng.standard_normal((3, 3)))
    Z = t.project(V, .3).numpy().ravel()
    x, v, r = X.numpy().ravel(), V.numpy().ravel(), t.radius(.3)
    ball = {"type": "ineq", "fun": lambda z: r**2 - ((z - x)**2).sum(), "jac": lambda z: -2 * (z - x)}
    oracle = minimize(lambda z: ((z - v)**2).sum(), x, jac=lambda z: 2 * (z - v), bounds=[(0, t.high)] * 9,
                      method="SLSQP", tol=1e-14, constraints=ball)
    assert ((Z - v)**2).sum() <= ((oracle.x - v)**2).sum() + 1e-7
    assert_allclose(Z, oracle.x, atol=1e-4)


def test_clean_data_outside_the_box_may_stay():
    X = torch.tensor([[0., .5, 2.]], dtype=torch.float64)
    t = Threat.around(X, "linf", box=(.1, 1.))
    assert torch.equal(t.project(X, 0.), X)
    Z = t.project(X - 1, .1)
    assert float(Z[0, 0]) == 0 and t.size(Z) <= t.radius(.1)


# goals

@pytest.mark.parametrize("goal", ["features", ("hide", 1), ("appear", np.arange(12.)), ("merge", 0, 2)])
def test_goals_have_the_gradient_they_claim_and_ignore_scale(goal):
    rng = np.random.default_rng(1)
    W, H, Wr, Hr = (torch.from_numpy(rng.uniform(.1, 1, s)) for s in ((15, 3), (3, 12)) * 2)
    g = goal_of(goal)
    value, gW, gH = value_of(g, W, H, (Wr, Hr))
    A, B = (torch.from_numpy(rng.standard_normal(M.shape)) for M in (W, H))
    h = 1e-6
    up, down = (value_of(g, W + d * A, H + d * B, (Wr, Hr))[0] for d in (h, -h))
    assert_allclose((up - down) / (2 * h), float((gW * A).sum() + (gH * B).sum()), rtol=1e-5, atol=1e-8)
    t = torch.from_numpy(rng.uniform(.1, 10, 3))
    assert_allclose(value_of(g, W * t, H / t[:, None], (Wr, Hr))[0], value, rtol=1e-10)
    assert ((gW * W).sum(0) - (gH * H).sum(1)).abs().max() < 1e-12


@pytest.mark.parametrize("goal", [("hide", 9), ("merge", 0), "steal", ("appear", [1, 2]), ("appear", -np.ones(12)), None, 3, (),
                                  lambda W, H, reference: W @ W, lambda W, H, reference: (1., W, H.T)])
def test_bad_goals_are_named_before_anything_is_solved(goal):
    with pytest.raises(ValueError, match="goal|pattern"):
        check_goal(goal_of(goal), 15, 12, 3)


def test_a_lost_component_has_a_feature_error_and_no_derivative():
    W, H = torch.rand(5, 2, dtype=torch.float64), torch.rand(2, 4, dtype=torch.float64)
    gone = W * torch.tensor([1., 0.])
    value, gW, gH = value_of(FEATURES, gone, H, (W, H))
    assert value > .1 and not gW.any() and not gH.any()


# who leads

def test_lead_slope_is_the_envelope_theorem_and_the_same_for_any_objective():
    class Plain(Objective):
        scale_free = True

        def __init__(self, data):
            self.data = data

        def value(self, W, H):
            return (self.data.X - W @ H).square().sum() / 2
    X = planted()
    for beta in (1., 2., 1.5):
        rng, obj = np.random.default_rng(0), Entrywise(as_data(X), beta)
        A = Problem(obj, 3).fresh(obj.data.X, 1, rng, tol=1e-10)[0].factors
        B = A[0] * torch.from_numpy(rng.uniform(.5, 1.5, A[0].shape)), A[1]
        D, h = torch.from_numpy(rng.standard_normal(X.shape)), 1e-7
        moved = [obj.at(Data(obj.data.X + d * D)) for d in (h, -h)]
        up, down = (float(o.value(*B)) - polish(o, *A, tol=1e-12).loss for o in moved)
        assert_allclose((up - down) / (2 * h), float((lead_slope(obj, A, B) * D).sum()), rtol=1e-4)
        if beta == 2:
            torch.testing.assert_close(lead_slope(Plain(obj.data), A, B), lead_slope(obj, A, B), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("beta", [1., 1.5, 2.])
def test_lead_slope_is_finite_where_a_reconstruction_is_zero(beta):
    one = torch.ones(1, 1, dtype=torch.float64)
    A, B = (torch.tensor([row], dtype=torch.float64) for row in ([0., 0., 1., 2.], [0., 1., 0., 2.]))
    s = lead_slope(Entrywise(as_data(np.ones((1, 4))), beta), (one, A), (one, B))
    assert s.isfinite().all() and s[0, 0] == 0 == s[0, 3] and s[0, 1] < 0 < s[0, 2]


# every model through its own objective

def huber(X, W, H, c=.06):
    r = (X - W @ H).abs()
    return torch.where(r <= c, r.square() / 2, c * r - c * c / 2).sum()


class Written(Objective):
    "Any formula as an objective"
    def __init__(self, data, formula):
        self.data, self.formula = data, formula

    def value(self, W, H):
        return self.formula(self.data.X, W, H)


def attacked_game(X, W, H, lam=3., target=.4):
    "ANMF's game with the attacker eliminated: he wants a reconstruction `target` and pays lam for moving the components"
    k, Z = H.shape[0], target * torch.ones_like(X)
    inner = torch.linalg.solve(W.T @ W + lam * torch.eye(k, dtype=X.dtype), W.T @ Z + lam * H)
    return (X - W @ inner).square().sum() / 2 + .05 * (X - W @ H).square().sum() + .01 * (W.square().sum() + H.square().sum())


@pytest.mark.parametrize("formula", [huber, attacked_game])
def test_gradient_through_a_written_objective_is_that_of_dense_refits(formula):
    "Central differences of refits by a dense Newton method, written without the library; the page does it for our models"
    X = planted(10, 9, noise=.05, seed=0)
    obj = Written(as_data(X), formula)
    obj.scale_free = formula is huber
    s = Problem(obj, 2).fresh(obj.data.X, 2, stream(0, "fit"), tol=1e-11)[0]
    rng = np.random.default_rng(4)
    ref = tuple(T * torch.from_numpy(rng.uniform(.5, 1.5, T.shape)) for T in s.factors)
    adj = Adjoint(obj, *s.factors)
    G, cert = adj.vjp(*value_of(FEATURES, adj.W, adj.H, ref)[1:], tol=1e-11)
    free = torch.cat([T.reshape(-1) for T in s.factors]) > 0

    def refit(Z):
        theta = torch.cat([T.reshape(-1) for T in s.factors])
        def f(t): return formula(Z, t[:s.W.numel()].view_as(s.W), t[s.W.numel():].view_as(s.H))
        for _ in range(3):
            g, K = torch.func.grad(f)(theta)[free], torch.func.jacrev(torch.func.grad(f))(theta)[free][:, free]
            theta[free] -= torch.linalg.lstsq(K, g[:, None], rcond=1e-11, driver="gelsd").solution[:, 0]
        return feature_error(theta[:s.W.numel()].view_as(s.W), theta[s.W.numel():].view_as(s.H), *ref)
    D, h = torch.from_numpy(rng.standard_normal(X.shape)), 1e-6
    fd = (refit(obj.data.X + h * D) - refit(obj.data.X - h * D)) / (2 * h)
    assert cert.kkt < 1e-9 and not free.all()
    assert_allclose(float((G * D).sum()), fd, rtol=1e-6)


@pytest.mark.parametrize("model", [al.NMF(3, l1=.02, random_state=0), al.NMF(3, l2=.05, random_state=0), al.ATNMF(3, lam=2., random_state=0)],
                         ids=["l1", "l2", "atnmf"])
def test_a_model_that_is_solved_is_not_told_that_it_is_not(model):
    X = planted()
    model.set_params(polish=True) if "polish" in model.get_params() else None
    m = model.fit(X)
    own = victim_of(m, X)
    kkt = Problem(own.problem.objective, 3)
    s = kkt.warm(torch.from_numpy(X), *(torch.from_numpy(np.asarray(T)) for T in (m.transform(X), m.components_)), tol=1e-9)
    assert s.residual <= 1e-9
    def solved(Z):
        o = own.problem.at(torch.from_numpy(Z))
        return tuple(T.numpy() for T in polish(o, s.W + 1e-3, s.H + 1e-3, tol=1e-9, max_iter=300).state)
    from anmf_lab.attack_result import victim_flags
    said = victim_flags(replace(own, fit=lambda X, seed=0: solved(X)), tuple(torch.from_numpy(T) for T in solved(X)), s.factors)
    assert not [f for f in said if f.code in ("victim_unsolved", "unsolved")]


def test_the_penalty_that_is_attacked_is_the_models_own():
    X = planted()
    for c in (1., 100.):
        obj = victim_of(al.NMF(3, l1=.05), c * X).problem.objective
        assert_allclose(obj.l1, al.NMF(3, l1=.05).objective(c * X).l1, rtol=1e-12)


def test_missing_entries_stay_missing_and_untouched():
    X = planted()
    X[np.random.default_rng(0).random(X.shape) < .1] = np.nan
    r = LaFA("linf", .02, **QUICK).run(al.NMF(3, random_state=0), X)
    Z, seen = r.adversarial[.02], ~np.isnan(X)
    assert np.array_equal(np.isnan(Z), ~seen) and np.abs(Z - X)[seen].max() <= .02 * X[seen].max()


# the attack

@pytest.fixture(scope="module")
def attacked():
    return LaFA("l2", (0, .01, .03), **QUICK).run(victim(), planted())


def test_eps_zero_is_the_clean_data_bit_for_bit(attacked):
    assert np.array_equal(attacked.adversarial[0.], planted())
    assert attacked.records[0]["feature_error"] < 1e-6


def test_budget_monotone_and_recomputable(attacked):
    X = planted()
    fes = [r["feature_error"] for r in attacked.records]
    assert all(b >= a for a, b in zip(fes, fes[1:], strict=False))
    for eps, Z in attacked.adversarial.items():
        assert np.linalg.norm(Z - X) <= eps * np.linalg.norm(X)
        assert Z.min() >= 0 and Z.max() <= X.max()
    rec = attacked.records[-1]
    sols = Problem(Entrywise(as_data(attacked.adversarial[.03])), 3)
    best = sols.fresh(sols.objective.data.X, 8, np.random.RandomState(77))[0]
    again = feature_error(*(A.numpy() for A in best.factors), *attacked.reference)
    assert_allclose(again, rec["feature_error"], rtol=1e-3)
    assert rec["feature_error"] > 3 * rec["random"] and rec["random"] > rec["floor"] and rec["random_max"] >= rec["random"]


def test_result_speaks_and_survives_a_file(attacked, tmp_path):
    df = attacked.to_frame()
    wanted = {"eps", "feature_error", "margin", "eps_to_flip", "share", "expected", "usual", "random", "random_max", "floor", "components"}
    assert wanted <= set(df.columns) and len(df) == 3
    attacked.to_json(tmp_path / "r.json")
    again = AttackResult.from_json(tmp_path / "r.json")
    assert again.to_json() == attacked.to_json() and again.flags == attacked.flags
    assert all(np.array_equal(again.adversarial[e], Z) for e, Z in attacked.adversarial.items())
    assert "<table>" in attacked._repr_html_() and "<img" in attacked._repr_html_()
    assert len(attacked.plot().lines) >= 3 and len(repr(attacked)) < 400 and "worst found" in repr(attacked)
    for name, half in (("r.npz", b"PK\x03\x04"), ("r.json", b"{"), ("r.json", b"[]"), ("r.json", b"{}")):
        (tmp_path / name).write_bytes(half)
        with pytest.raises(ValueError, match=f"{name} is not the result of an attack"): AttackResult.from_json(tmp_path / "r.json")


def test_same_seed_same_attack(attacked):
    again = LaFA("l2", (0, .01, .03), **QUICK).run(victim(), planted())
    assert all(np.array_equal(attacked.adversarial[e], again.adversarial[e]) for e in attacked.adversarial)
    assert [r["feature_error"] for r in again.records] == [r["feature_error"] for r in attacked.records]


def test_linf_and_float32_and_torch():
    X = planted().astype(np.float32)
    r = LaFA("linf", .01, **QUICK | dict(n_usual=0)).run(victim(), torch.from_numpy(X))
    Z = r.adversarial[.01]
    assert isinstance(Z, torch.Tensor) and Z.dtype == torch.float32
    assert float((Z.double() - torch.from_numpy(X).double()).abs().max()) <= .01 * float(X.max())


def test_functions_are_victims_too():
    def fit(X):
        m = victim()
        return m.fit_transform(X), m.components_
    r = LaFA("l2", .02, **QUICK).run(fit, planted())
    assert r.settings["victim"] == "fit" and r.records[0]["victim"] > 0 and r.has("note")


def test_the_victims_branch_is_the_one_that_the_model_goes_to():
    "Two minima: the model starts near the worse one and is attacked there"
    X, asked = planted(noise=.2), []
    obj = Entrywise(as_data(X))
    sols = Problem(obj, 3).fresh(obj.data.X, 12, np.random.RandomState(0))
    worse = next(s for s in sols if feature_error(*s.factors, *sols[0].factors) > .1)

    def model(Z):
        asked.append(Z)
        return tuple(A.numpy() for A in polish(as_data(Z), *worse.factors, 2., tol=1e-4).state)
    how = QUICK | dict(n_seeds=4, n_noise=0)
    r = LaFA("l2", .02, branch="victim", reference="victim", **how).run(model, X)
    rec = r.records[0]
    assert len(asked) >= 4 and rec["n_rivals"] == 0
    assert_allclose(feature_error(*(torch.from_numpy(A) for A in r.reference), *worse.factors), 0, atol=1e-4)
    W, H = (torch.from_numpy(A) for A in model(r.adversarial[.02]))
    end = polish(as_data(r.adversarial[.02]), W, H, 2., tol=1e-8).state
    assert_allclose(feature_error(*end, *r.reference), rec["claimed"], rtol=.02)   # what the model is heading for
    assert rec["claimed"] > .02 and rec["victim"] > .02


@pytest.mark.parametrize("goal", [("hide", 0), ("merge", 0, 1), lambda W, H, reference: H[:, 0].sum() / H.sum()],
                         ids=["hide", "merge", "own"])
def test_targeted_attacks_reach_for_their_goal(goal):
    r = LaFA("l2", (0, .05), goal=goal, **QUICK | dict(steps=12, n_noise=0, n_usual=0)).run(victim(), planted())
    assert r.records[1]["goal"] > r.records[0]["goal"] + .005


@pytest.mark.parametrize("method", ["paper", "bp"])
def test_published_methods_stay_within_the_budget(method):
    X = planted()
    r = LaFA("l2", .02, method=method, **QUICK | dict(steps=3, n_noise=0, n_usual=0), n_iter=30, terms=20).run(victim(), X)
    assert np.linalg.norm(r.adversarial[.02] - X) <= .02 * np.linalg.norm(X) * (1 + 1e-12)


def test_a_rival_is_kept_behind_by_the_lead_that_is_asked_for():
    "Two minima: where half of the lead is gone, the ascent moves to where it is large enough again"
    X = torch.from_numpy(planted(noise=.2))
    problem, t = Problem(Entrywise(as_data(X.numpy())), 3), Threat.around(X)
    sols = problem.fresh(X, 12, np.random.RandomState(0))
    A, B = sols[0], next(s for s in sols if feature_error(*s.factors, *sols[0].factors) > .1)
    g = lead_slope(problem.objective, A.factors, B.factors)
    Z = t.project(X - .5 * (B.loss - A.loss) / float(g.square().sum()) * g, .1)   # half of the lead is gone
    lead = .8 * (B.loss - A.loss) / A.loss
    c = Climber(problem, t, FEATURES, B.factors, .1, Effort(), lead=lead, solve_tol=1e-9)
    c.meet(*B.factors)
    p, ok = c.keep_ahead(c.settle(Z, *A.factors))
    rival = problem.warm(p.Z, *B.factors, tol=1e-9)
    assert ok and rival.loss - p.loss >= lead * p.loss and t.size(p.Z) <= t.radius(.1)
    a = Ascent(c, p, p)
    a.run(3)
    assert a.best.value >= p.value


# flags and bad input

def test_not_determined_is_said():
    X = planted(zeros=0., noise=.01)   # its solutions are a set: 6 = k^2 - k null directions inside
    r = LaFA("l2", .01, **QUICK | dict(n_usual=0)).run(victim(), X)
    assert r.has("not_determined") and r.settings["kappa"] is None and r.condition is None
    assert np.linalg.norm(r.adversarial[.01] - X) <= .01 * np.linalg.norm(X) * (1 + 1e-12)


def test_a_victim_that_stopped_early_is_told_how_far():
    r = LaFA("l2", 0., **QUICK | dict(n_seeds=8)).run(SklearnNMF(3, init="random", random_state=0, max_iter=2), planted())
    assert r.has("victim_unsolved") and r.has("few_solutions") is False


def test_flags_of_a_row_come_from_its_numbers():
    row = dict(eps=.01, margin=np.inf, rival_error=np.nan, feature_error=.3, share=1., residual=1e-9, random_max=.1, size=.01)
    def codes(how=None, weak=False, **changed): return [f.code for f in row_flags(row | changed, how or LaFA(), weak)]
    assert codes() == [] and codes(eps=0., margin=0.) == []
    assert codes(margin=1e-5, rival_error=.1, share=.4) == ["tie"]
    assert codes(LaFA(margin=1e-3), margin=5e-4) == ["margin_missed"]
    assert codes(residual=1e-3) == ["unsolved"] and codes(random_max=.4) == ["noise_as_strong"]
    assert codes(weak=True) == ["weak_ascent"] and codes(feature_error=0., random_max=-1.) == ["unmoved"]
    assert codes(LaFA(method="paper"), size=.005) == ["shrunk"]
    assert [f.code for f in LaFA("l2", 0., **QUICK | dict(n_seeds=2)).run(victim(), planted()).flags if f.code == "few_solutions"]


def test_a_tie_is_judged_by_its_margin():
    X = torch.from_numpy(planted(noise=.2))
    problem, t = Problem(Entrywise(as_data(X.numpy())), 3), Threat.around(X)
    sols = problem.fresh(X, 12, np.random.RandomState(0))
    A, B = sols[0], next(s for s in sols if feature_error(*s.factors, *sols[0].factors) > .1)
    v = judge(problem, t, FEATURES, A.factors, X, 2, stream(0), known=(A.factors, B.factors))
    assert v.feature_error < 1e-6
    low = min((s for s in sols if feature_error(*s.factors, *A.factors) > .01), key=lambda s: s.loss)
    assert v.margin <= (low.loss - A.loss) / A.loss * (1 + 1e-6) or v.rival_error > .01
    g = lead_slope(problem.objective, A.factors, B.factors)
    flip = (B.loss - A.loss) / float(g.norm()) / t.unit
    step = -flip * t.unit * g / g.norm()
    for part, ahead in ((.9, True), (1.1, False)):
        a, b = (problem.warm(X + part * step, *s.factors, tol=1e-9) for s in (A, B))
        assert (a.loss < b.loss) is ahead


def test_lafa_is_a_value():
    assert LaFA("l2", .01) == LaFA("l2", .01) != LaFA("l2", .01, strength="quick")
    assert "strength='quick'" in repr(LaFA(strength="quick")) and LaFA(eps=(.02, .01, .01)).budgets == [.01, .02]
    with pytest.raises(FrozenInstanceError):
        LaFA().norm = "linf"
    assert "Parameters" in LaFA.__init__.__doc__


def test_the_plan_is_the_same_everywhere_and_grows_with_strength():
    for size in (360, 12_360, 851_960, 7_840_000):
        plans = [plan_for(s, size) for s in ("quick", "standard", "thorough")]
        assert plans[0].steps < plans[1].steps < plans[2].steps and plans[0].starts <= plans[1].starts <= plans[2].starts


@pytest.mark.parametrize("call, words", [
    (lambda X: LaFA("l1"), "norm must be one of"),
    (lambda X: LaFA(eps=-.1), "eps must be"),
    (lambda X: LaFA(eps=3), "eps must be"),
    (lambda X: LaFA(eps=()), "eps must be"),
    (lambda X: LaFA(eps="much"), "eps must be"),
    (lambda X: LaFA(method="magic"), "method must be one of"),
    (lambda X: LaFA(strength="max"), "strength must be one of"),
    (lambda X: LaFA(margin=-1.), "margin must be"),
    (lambda X: LaFA(branch="other"), "branch must be"),
    (lambda X: LaFA(goal=None), "goal must be"),
    (lambda X: LaFA(random_state=None), "random_state must be"),
    (lambda X: LaFA().run("nmf", X), "model must be"),
    (lambda X: LaFA().run(victim(40), X), "n_components"),
    (lambda X: LaFA(**QUICK, reference=(np.ones((15, 2)), np.ones((2, 12)))).run(victim(), X), "reference must be"),
    (lambda X: LaFA(box=(2, 1)), "box must be"),
    (lambda X: LaFA(box=3), "box must be"),
    (lambda X: LaFA(goal=("hide", 7), **QUICK).run(victim(), X), "component of goal"),
])
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call(planted())


def test_published_pgd_stays_in_the_box_and_spends_the_budget_at_most():
    data = as_data(planted())
    ref = Problem(Entrywise(data, 1.), 3).fresh(data.X, 1, np.random.RandomState(0), tol=1e-6)[0].factors
    t = Threat.around(data.X, "linf")
    Z = published_pgd(data, ref, 1., t, .02, np.random.RandomState(1), steps=2, n_iter=20, terms=5)
    assert t.size(Z) <= t.radius(.02) and float(Z.min()) >= 0


def test_victims_are_read_without_importing_them():
    v = victim_of(SklearnNMF(4, beta_loss="kullback-leibler", solver="mu", alpha_W=.1, alpha_H=.1), planted())
    assert v.problem.k == 4 and v.problem.objective.beta == 1. and v.problem.objective.l2 > 0


# real data: skipped where they are absent

@pytest.fixture(scope="module")
def faces():
    from anmf_lab.data import load_dataset
    try:
        return load_dataset("cbcl_test", preprocess="lafa", download=False).data
    except FileNotFoundError as e:
        pytest.skip("needs the CBCL test faces: " + str(e).splitlines()[0])


def test_faces_obey_the_first_order_law(faces):
    from anmf_lab.implicit import condition
    obj = Entrywise(as_data(faces), 1.)
    s = Problem(obj, 5).fresh(obj.data.X, 1, np.random.RandomState(0), tol=1e-10)[0]
    adj = Adjoint(obj, *s.factors)
    assert local_verdict(obj, *s.factors).verdict == "determined"
    c = condition(adj)
    assert_allclose(c.kappa, 133, rtol=.01)   # of this data set, found before with another implementation
    for sign in (1, -1):
        Z = (obj.data.X + sign * 1e-5 * obj.data.X.norm() * c.direction).clamp(min=0)
        near = polish(obj.at(Data(Z)), *s.factors, tol=1e-10).state
        assert_allclose(feature_error(*near, *s.factors), c.kappa * 1e-5, rtol=.05)


# --- what runs away, what is no number

def test_a_start_that_ran_away_is_left_out_with_a_flag_and_the_attack_goes_on(monkeypatch):
    from anmf_lab import goals
    fresh = goals.Problem.fresh
    def some_run_away(self, Z, n, rng, **how):
        found = fresh(self, Z, n, rng, **how)
        return [replace(s, W=s.W * 1e6, loss=-1.) if i % 3 == 1 else s for i, s in enumerate(found)]
    monkeypatch.setattr(goals.Problem, "fresh", some_run_away)
    X = np.random.default_rng(0).gamma(1., size=(9, 7))
    r = al.LaFA(eps=.01, steps=2, starts=1, n_seeds=4, n_noise=0, n_usual=0).run(al.NMF(2, random_state=0), X)
    assert r.has("seeds_lost") and r.records[0]["n_lost"] == 1 and r.records[0]["feature_error"] < 1
    monkeypatch.setattr(goals.Problem, "fresh", lambda *_, **__: [])
    r = al.LaFA(eps=.01, steps=2, starts=1, n_seeds=4, n_noise=0, n_usual=0).run(al.NMF(2, random_state=0), X)
    assert r.records[0]["n_lost"] == 4 and r.records[0]["share"] == 0 and 0 < r.records[0]["feature_error"] < 1


def test_an_objective_that_is_no_number_is_named_before_anything_is_solved():
    class Wrong(al.NMF):
        def objective(self, X, **given): return al.Objective(X, loss=NoNumber())
    class NoNumber(Loss):
        def value(self, X, Y): return (X - 2 * X.max()).log() * Y
    X = np.random.default_rng(0).random((9, 7))
    with pytest.raises(ValueError, match=r"the objective Entrywise \(NoNumber\) is nan at positive factors"):
        al.LaFA(eps=.01).run(Wrong(2), X)
    with pytest.raises(ValueError, match="the objective Entrywise is nan at the factors"):
        solution(Wrong(2), X, W=np.ones((9, 2)), H=np.ones((2, 7)))


def test_the_edge_of_a_set_of_solutions_is_called_one_sided():
    W = np.array([[1, 1], [2, 1], [1, 2], [0, 1], [.5, 1]])
    H = np.array([[1., 2, 0, 1], [1, 0, 2, 1]])
    obj, words = Objective(W @ H), {}
    for t in (0., .2):                        # the segment of solutions on the page about identifiability
        V, G = W.copy(), H.copy()
        V[:, 1] -= t * W[:, 0]
        G[0] += t * H[1]
        words[t] = local_verdict(obj, torch.from_numpy(V), torch.from_numpy(G)).verdict
    assert words == {0.: "one-sided", .2: "flat"}
    result = LaFA(eps=.01, reference=(W, H), **QUICK).run(al.NMF(2, random_state=0), W @ H)
    flag, = [f for f in result.flags if f.code == "not_determined"]
    assert "one-sided" in flag.text and result.local.verdict == result.settings["verdict"] == "one-sided"
    assert result.condition is None and result.settings["kappa"] is None   # no law where nothing is determined


def test_a_gradient_that_is_no_number_is_counted_and_flagged(monkeypatch):
    X, real = planted(), Adjoint.vjp

    def broken(self, gW, gH, **how):
        slope, cert = real(self, gW, gH, **how)
        return slope * torch.nan, cert
    monkeypatch.setattr(Adjoint, "vjp", broken)
    r = LaFA("l2", .02, **(QUICK | dict(steps=4))).run(victim(), X)
    assert r.records[0]["n_nan"] > 0 and r.has("nan_gradient")
    assert "not finite" in next(f.text for f in r.flags if f.code == "nan_gradient")
    monkeypatch.undo()
    r = LaFA("l2", .02, **(QUICK | dict(steps=4))).run(victim(), X)
    assert r.records[0]["n_nan"] == 0 and not r.has("nan_gradient")


def test_best_of_ten_is_the_expectation_over_draws():
    from itertools import product
    errors = np.array([.5, .1, .3])   # the lowest objective first
    v = Verdict(None, [], errors, None, .5, .5, 1., .1, 1., .5)
    by_hand = np.mean([errors[min(draw)] for draw in product(range(3), repeat=4)])
    assert_allclose(v.best_of(4), by_hand, rtol=1e-12)
    assert_allclose(v.best_of(1), errors.mean(), rtol=1e-12)


@pytest.mark.parametrize("errors, unsolved, worth", [
    ([.6] * 8, None, .6), ([.6] * 8, .6, .6), ([.6] * 8, .3, .5), ([.6] * 8, .9, .6),
    ([.6] + [.3] * 7, None, .6 - .3 * (7 / 8)**10), ([.6] * 4 + [.3] * 4, .3, .5), ([], None, 0.)])
def test_a_candidate_is_worth_less_where_not_everybody_sees_its_damage(errors, unsolved, worth):
    v = Verdict(None, [], np.array(errors), None, .6, .6, 1., .3, 1., .6, [.6, .6])
    assert_allclose(belief(v, "features", unsolved), worth, atol=1e-12)
    near = replace(v, nearly=[.6, .2])          # a solution within five thousandths says .2
    assert belief(near, "features", .9) == belief(near, "features")     # an unfinished run is no damage
    assert_allclose(belief(near, ("hide", 0), unsolved), .5 * .6 + .25 * .6 + .25 * .2)
    assert_allclose(belief(replace(v, nearly=[.2, .6]), ("hide", 0), unsolved), .5 * .6 + .25 * .2 + .25 * .6)


def test_only_those_are_asked_about_who_could_win():
    def look(secured, unsolved):
        v = Verdict(None, [], np.full(8, secured), None, secured, secured, 1., .3, 1., secured, [secured] * 2)
        def plain():
            asked.append(secured)
            return unsolved
        return Look(v, "features", plain)
    asked = []
    looks = [look(.4, .4), look(.6, .0), look(.5, .5), look(.45, .45)]
    assert surest(looks) is looks[2] and asked == [.6, .5]      # .6 is worth .4 then, .4 and .45 are below .5
    assert surest(looks) is looks[2] and asked == [.6, .5]      # nobody is asked twice
    assert_allclose([a.so_far for a in looks], [.4, .4, .5, .45])
    one = look(.3, .1)
    assert surest([one]) is one and one.so_far < .3 and asked[2:] == [.3]


@pytest.mark.parametrize("loss", ["frobenius", "kullback-leibler"])
def test_those_who_only_make_updates_see_what_their_updates_end_at(loss):
    X = planted()
    problem = Problem(Entrywise(as_data(X), loss), 3)
    ref = problem.fresh(torch.from_numpy(X), 4, np.random.default_rng(0))[0].factors
    Z = torch.from_numpy(np.maximum(X + .1 * np.random.default_rng(1).standard_normal(X.shape), .002))
    many = unsolved_error(problem, ref, Z, np.random.default_rng(2), n=3, max_iter=20_000)
    low = problem.fresh(Z, 8, np.random.default_rng(3))[0]
    assert_allclose(many, feature_error(*low.factors, *ref), atol=5e-3)        # in the end they are solved
    assert abs(unsolved_error(problem, ref, Z, np.random.default_rng(2), n=3, max_iter=5) - many) > .02
    wide = Problem(Entrywise(as_data(np.ones((200, 200))), loss), 3)           # where it takes seconds: not asked
    assert unsolved_error(wide, ref, torch.ones(200, 200, dtype=torch.float64), np.random.default_rng(2)) is None


def test_two_exact_fits_do_not_lead_each_other():
    "Data that two different factorizations fit exactly: neither leads, whatever the last digits of zero say"
    W = np.vstack([np.eye(3), np.ones((5, 3)), np.eye(3)[::-1] + .5])
    X = W @ (np.random.default_rng(0).uniform(.5, 1, (3, 9)))
    problem, t = Problem(Entrywise(as_data(X)), 3), Threat.around(torch.from_numpy(X))
    a, b = (s.factors for s in problem.fresh(t.X, 2, np.random.default_rng(1)))
    slack = slack_of(problem, t, a, .02, np.random.default_rng(0))
    assert_allclose(slack, 1e-3 * t.radius(.02)**2 / 2, rtol=.05)      # squared error: half the square of the size
    v = judge(problem, t, FEATURES, a, t.X, 8, np.random.default_rng(2), known=(b,), slack=slack)
    assert v.secured <= min(v.errors.min(), v.feature_error) + 1e-9


def test_where_a_solution_takes_seconds_the_ascent_is_content_with_less_but_the_verdict_is_not(monkeypatch):
    X, gains, real = planted(), [], Problem.warm

    def warm(self, *args, **how):
        gains.append((how.get("tol"), how.get("gain", 0.)))
        return real(self, *args, **how)
    monkeypatch.setattr(Problem, "warm", warm)
    cheap = LaFA("l2", .02, **(QUICK | dict(steps=4))).run(victim(), X).records[0]
    assert not any(gain for _, gain in gains)
    gains.clear()
    monkeypatch.setattr(Problem, "is_dear", property(lambda self: True))
    dear = LaFA("l2", .02, **(QUICK | dict(steps=4))).run(victim(), X).records[0]
    assert {gain for tol, gain in gains if tol > 1e-6} == {1e-6}        # ascents
    assert max(gain for tol, gain in gains if tol == 1e-8) == 1e-8      # verdicts
    for row in (cheap, dear):
        assert row["size"] <= .02 * (1 + 1e-12) and row["residual"] < 1e-7 and row["feature_error"] > row["floor"]


def test_a_clustering_is_attacked_as_one():
    X, model = planted(), al.ONMF(3, random_state=0)
    r = LaFA(eps=.05, strength="quick", n_noise=1, n_usual=0, n_seeds=4).run(model, X)
    for W in (r.reference[0], r.factors[.05][0]): assert ((np.asarray(W) > 0).sum(1) == 1).all()


# what another loss falls for

def test_the_lender_is_the_same_data_without_penalties_under_another_loss():
    X, M = planted(), (np.random.default_rng(0).random((15, 12)) > .2) * 1.
    assert lender(victim_of(al.NMF(3), X).problem) is None
    for model in (al.NMF(3, l2=.05), al.NMF(3, loss="kullback-leibler"), al.ATNMF(3), al.HuberNMF(3), al.ONMF(3)):
        p = victim_of(model, X).problem
        other = lender(p)
        assert (other.objective.beta, other.k, other.objective.l1, other.objective.l2) == (2, 3, 0, 0)
        assert other.objective.data is p.objective.data
    masked = lender(victim_of(al.NMF(3, loss="kullback-leibler"), X, mask=M).problem)
    assert torch.equal(masked.objective.data.mask, torch.from_numpy(M))


def two_minima():
    "A climber at a table with two minima, 3 % apart; the lower is its reference"
    X = torch.from_numpy(np.random.default_rng(0).gamma(1., size=(9, 7)) + .05)
    p = Problem(Entrywise(Data(X), "kullback-leibler"), 3)
    low, other, *_ = goals_distinct(p.fresh(X, 24, stream(0, "two")))
    assert 1 < other.loss / low.loss < 1.05
    return Climber(p, Threat.around(X), FEATURES, low.factors, .05, Effort(), solve_tol=1e-6), low, other


def test_what_another_loss_sees_is_followed_ahead_of_what_is_lower(monkeypatch):
    c, low, other = two_minima()
    monkeypatch.setattr(Problem, "fresh", lambda *_, **__: [])   # no fresh start finds it
    asked = []
    monkeypatch.setattr(Ascent, "run", lambda self, steps: asked.append(steps))
    key = lambda *k: stream(0, *k)
    first, second, as_it_is = followed(c, c.threat.X, [other.factors], key, 20)
    assert asked == [5] * 8 and {first.kind, second.kind} == {"borrowed"}
    met = first.ascent.climber.rivals
    nearer = lambda pair, one, two: feature_error(*pair, *one.factors) < feature_error(*pair, *two.factors)
    assert len(met) == 1 and nearer(met[0], low, other) and not second.ascent.climber.rivals
    p, rival = first.ascent.at, c.problem.warm(first.ascent.at.Z, *low.factors, tol=1e-6)
    assert nearer(p.factors, other, low) and nearer(rival.factors, low, other)
    assert rival.loss > p.loss and first.ascent.best is p          # its lead was regained, inside the budget
    assert 0 < c.threat.size(p.Z) <= c.threat.radius(.05) and torch.equal(second.ascent.at.Z, c.threat.X)
    given = as_it_is.point      # as they were handed over, at what is lowest there
    assert as_it_is.kind == "handed over" and torch.equal(given.Z, c.threat.X) and nearer(given.factors, low, other)
    assert as_it_is.value == given.value == pytest.approx(feature_error(*given.factors, *c.reference), abs=1e-12)


def test_a_minimum_far_above_the_lowest_is_not_followed(monkeypatch):
    c, low, other = two_minima()
    monkeypatch.setattr(Problem, "fresh", lambda *_, **__: [replace(other, loss=1.06 * low.loss)])
    monkeypatch.setattr(Ascent, "run", lambda self, steps: None)
    found, _ = followed(c, c.threat.X, [], lambda *k: stream(0, *k), 4)
    assert feature_error(*found.ascent.at.factors, *low.factors) < .01
    monkeypatch.setattr(Problem, "fresh", lambda *_, **__: [replace(other, loss=1.04 * low.loss)])
    assert len(followed(c, c.threat.X, [], lambda *k: stream(0, *k), 4)) == 3


@pytest.mark.parametrize("first, calls", [(.5, 1), (.2, 2)])
def test_the_better_of_both_ways_is_followed_and_the_other_if_that_comes_to_little(monkeypatch, first, calls):
    c, _, _ = two_minima()
    ways, values, out = [], {}, iter((first, .3))
    real = Ascent.run
    def run(self, steps):
        real(self, steps)
        if self.climber.problem.objective.beta == 2: values[id(self)] = self
    def fake(climber, Z, known, rng, steps):
        ways.append((Z, len(known)))
        p = replace(climber.settle(Z, *climber.reference), value=next(out))
        return [Candidate("borrowed", Ascent(climber, p, p, sure=p))]
    monkeypatch.setattr(Ascent, "run", run)
    monkeypatch.setattr(starts, "followed", fake)
    found = borrowed(c, lender(c.problem), lambda *k: stream(0, *k), Plan(32, 4))
    lent = sorted(values.values(), key=lambda a: -Candidate("lent", a).value)
    assert len(lent) == 2 and lent[0].height > lent[1].height > 0
    assert [torch.equal(Z, Candidate("lent", a).point.Z) for (Z, _), a in zip(ways, lent[:calls], strict=True)] == [True] * calls
    assert all(n >= 2 for _, n in ways)      # the lender's other minima, too
    assert [a.value for a in found] == sorted([first, .3][:calls], reverse=True)


@pytest.mark.parametrize("how, loss, little, asked", [({}, 1., 9., 2), ({}, 2., 9., 0), ({}, 1., -1., 0), (dict(strength="quick"), 1., 9., 0),
                                                      (dict(branch="victim"), 1., 9., 0)])
def test_another_loss_is_asked_where_little_is_confirmed(monkeypatch, how, loss, little, asked):
    calls, real = [], borrowed
    def spy(c, other, rng, plan):
        calls.append((c.eps, plan.steps))
        return real(c, other, rng, plan)
    monkeypatch.setattr(lafa, "borrowed", spy)
    monkeypatch.setattr(lafa, "LITTLE", little)
    r = LaFA(eps=(.02, .04), **(QUICK | dict(n_noise=0, n_usual=0, n_seeds=2) | how)).run(al.NMF(2, loss=loss), planted(9, 8, 2))
    assert calls == [(.02, 8), (.04, 8)][:asked]
    assert all(m["size"] <= m["eps"] * (1 + 1e-12) for m in r.records)


@pytest.mark.parametrize("weak, asked", [(True, [.04]), (False, [])])
def test_another_loss_is_asked_where_a_budget_does_no_more_than_the_smaller_one(monkeypatch, weak, asked):
    calls, real = [], lafa.halving
    noise = lambda c, p: Candidate("noise", Ascent(c, p, p, sure=p))
    def last(st, plan, rng):
        return [noise(st.climber, next(st.noise()))] if weak and st.climber.eps > .03 else real(st, plan, rng)
    def spy(c, other, rng, plan):
        calls.append(c.eps)
        return [noise(c, c.settle(c.threat.X, *c.reference))]
    for name, value in dict(halving=last, borrowed=spy, LITTLE=-1.).items(): monkeypatch.setattr(lafa, name, value)
    how = QUICK | dict(eps=(.02, .04), n_noise=0, n_usual=0, n_seeds=2)
    LaFA(**how).run(al.NMF(2, loss=1.), planted(9, 8, 2))
    assert calls == asked


def test_another_loss_is_asked_where_solutions_are_cheap():
    sizes = {s: [plan_for(s, n).borrows for n in (99_999, 100_000, 999_999, 10**6)] for s in ("quick", "standard", "thorough")}
    assert sizes == {"quick": [False] * 4, "standard": [True] + [False] * 3, "thorough": [True] * 3 + [False]}


def test_what_was_borrowed_can_win(monkeypatch):
    X, model = planted(9, 8, 2), al.NMF(2, loss=1.)
    how = dict(eps=.05, n_noise=0, n_usual=0, n_seeds=4)
    strong = LaFA(**how, steps=60, starts=4).run(model, X)
    want, factors = strong.records[0]["feature_error"], tuple(map(torch.as_tensor, strong.factors[.05]))
    def lent(c, other, rng, plan):
        p = c.settle(torch.as_tensor(strong.adversarial[.05]), *factors)
        return [Candidate("borrowed", Ascent(c, p, p, sure=p))]
    monkeypatch.setattr(lafa, "borrowed", lent)
    monkeypatch.setattr(lafa, "LITTLE", 9.)
    monkeypatch.setattr(lafa, "halving", lambda st, plan, rng: [Candidate("noise", Ascent(st.climber, p := next(st.noise()), p, sure=p))])
    row, = LaFA(**how, reference=strong.reference).run(model, X).records
    assert row["start"] == "borrowed" and row["feature_error"] > .98 * want > .05
