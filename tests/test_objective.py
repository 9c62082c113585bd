"""One objective, passed everywhere: every model is differentiated through its own, and what cannot be is refused by name."""
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from refs.gradients import CASES, prepare, table
from scipy.sparse import csr_array
from sklearn.decomposition import NMF as SklearnNMF

import anmf_lab as al
from anmf_lab.adapters import Penalised, objective_of
from anmf_lab.core import as_data
from anmf_lab.implicit import solution
from anmf_lab.objective import Entrywise, Objective
from anmf_lab.polish import kkt_residual
from anmf_lab.solve import factorize

pytestmark = pytest.mark.filterwarnings("ignore:.*used all its iterations")   # solved to the end afterwards


# --- the gradient table

@pytest.mark.parametrize("name", CASES)
def test_the_feature_error_of_every_model_is_differentiated_through_its_own_objective(name):
    "Against differences of an independent dense solver; with zeros in the factors, at a solution that this solver certifies"
    case = CASES[name]
    p = prepare(case)
    assert p.solved.kkt <= 1e-9 and not any("not solved" in note for note in p.solved.notes)
    assert p.optimality < 1e-7 and p.certificate.trusted
    assert sum(int((T == 0).sum()) for T in (p.W, p.H)) > 0
    D = np.random.default_rng(2).standard_normal(p.X.shape)
    D = D / np.linalg.norm(D) + p.gradient / np.linalg.norm(p.gradient)
    if case.zeros: D = D * (p.X > 0)       # a zero may only grow
    numeric = p.numeric(D)
    assert abs(numeric) > .1 * np.linalg.norm(p.gradient)
    assert_allclose((p.gradient * D).sum(), numeric, rtol=1e-6)


def test_the_table_can_fail():
    "The same check with the pull of a weight forgotten"
    p = prepare(CASES["NMF, l1 and l2, weights"])
    wrong = p.gradient / p.solved.objective.data.mask.numpy().clip(.2)
    assert abs((wrong * wrong).sum() / p.numeric(wrong) - 1) > .01


ENTRIES = [al.NMF(2, l1=.02), al.NMF(2, loss="kullback-leibler"), al.ATNMF(2), al.HuberNMF(2),
           al.CauchyNMF(2), al.CorrentropyNMF(2), al.CorrentropyNMF(2, by="sample")]
OTHERS = [al.ANMF(2, tol=1e-5), al.ONMF(2), al.ONMF(2, on="components"), al.L21NMF(2, tol=1e-5), al.CappedNMF(2, tol=1e-5)]   # whose own residual has another unit


@pytest.mark.parametrize("model", [*ENTRIES, *OTHERS], ids=str)
def test_the_residual_of_a_fit_is_that_of_the_objective_that_the_model_returns(model):
    X = table()[0]
    obj = model.set_params(random_state=0).fit(X).objective(X)
    W, H = (torch.as_tensor(T) for T in model.factors(X))
    residual = kkt_residual(obj, W, H)
    if model in OTHERS: assert model.kkt_residual_ < 1e-4 and residual < 1e-4
    else: assert_allclose(residual, model.kkt_residual_, rtol=1e-6)
    assert float(obj.at(obj.data).value(W, H)) == float(obj.value(W, H))


def test_orthogonal_codes_with_a_cap_hold_the_assignment():
    X = table()[0]
    model = al.CappedNMF(2, orthogonal=True, random_state=0).fit(X)
    sol = solution(model, X)
    assert sol.kkt < 1e-9 and ((sol.W > 0).sum(1) <= 1).all() and any("held" in note for note in sol.notes)


@pytest.mark.parametrize("model, word", [(al.L21NMF(2), "fitted exactly"), (al.HuberNMF(2), "scale is held"), (al.CauchyNMF(2), "crosses it"),
                                         (al.CappedNMF(2), "theta"), (al.ONMF(2), "is held"), (al.ANMF(2), "do not follow"),
                                         (al.ATNMF(2, norm="linf", eps=.1), "kink")], ids=str)
def test_notes_say_which_derivative_is_used(model, word):
    notes = model.set_params(random_state=0, max_iter=60).objective(table()[0]).notes
    assert any(word in note for note in notes), notes


def test_an_unfitted_robust_model_takes_the_scale_that_its_fit_would():
    X = table()[0]
    model = al.HuberNMF(2, random_state=0)
    before = model.objective(X).loss.rho.keywords
    assert model.fit(X).scale_ == before == model.objective(2 * X).loss.rho.keywords


def test_the_target_of_the_game_follows_the_data_where_it_is_made_of_them():
    X = table()[0]
    shift, own = (al.ANMF(2, target=t, strength=None, random_state=0, max_iter=30).fit(X) for t in ("shift", np.ones_like(X)))
    for model, moves in ((shift, True), (own, False)):
        obj = model.objective(X)
        change = obj.at(as_data(X + 1.)).target.Z - obj.target.Z
        assert_allclose(change, torch.full_like(change, float(moves)), atol=1e-12)
    with pytest.raises(ValueError, match="three factors"): al.ANMF(2, gamma=.1).objective(X)
    with pytest.raises(ValueError, match="samples of the fit"): shift.factors(X[:5])


# --- weights

@pytest.mark.parametrize("model", [al.HuberNMF(2), al.L21NMF(2), al.CauchyNMF(2), al.CorrentropyNMF(2), al.ANMF(2)], ids=str)
def test_weights_of_zero_and_one_are_a_mask_and_a_factor_on_all_changes_nothing(model):
    X, weights = table()
    seen = weights > 0
    model.set_params(random_state=0, tol=1e-5)
    a, b, c, d = (model.fit(X, **how).components_.copy() for how in (dict(mask=seen), dict(weights=seen.astype(float)),
                                                                     dict(weights=weights), dict(weights=np.where(seen, weights, 3.))))
    assert_allclose(a, b, rtol=1e-12)
    assert abs(a - c).max() > 1e-3 < abs(c - d).max()          # weights count


@pytest.mark.parametrize("weights, message", [
    (-np.ones((11, 7)), "weights must be finite and >= 0"),
    (np.where(np.arange(11)[:, None] == 3, 0., np.ones((11, 7))), "nothing observed in row 3"),
    (np.where(np.arange(7) == 2, 0., np.ones((11, 7))), "nothing observed in column 2"),
    (np.ones((7, 11)), "weights must have the shape of X"),
    (np.full((11, 7), np.nan), "weights must be finite"),
    ("heavy", "weights must be numbers")])
@pytest.mark.parametrize("take", [al.Objective, lambda X, weights: al.HuberNMF(2).fit(X, weights=weights),
                                  lambda X, weights: al.NMF(2).objective(X, weights=weights),
                                  lambda X, weights: al.ATNMF(2).objective(X, weights=weights)], ids=["Objective", "Huber", "NMF", "ATNMF"])
def test_weights_that_mean_nothing_are_refused(take, weights, message):
    with pytest.raises(ValueError, match=message): take(table()[0], weights=weights)


# --- objectives that cannot be solved, models that do not say

class Own(Objective):
    "Squared error made worse by `spoil`"
    def __init__(self, X, spoil): self.data, self.spoil = as_data(X), spoil
    def value(self, W, H): return self.spoil((self.data.X - W @ H).square().sum())


@pytest.mark.parametrize("spoil, message", [
    (lambda f: f * torch.inf, "is inf at the start"),
    (lambda f: f * torch.nan, "is nan at the start"),
    (lambda f: torch.tensor(float(f.detach())), "its gradient is 0: value.W, H. must be written in torch"),
    (lambda f: (f - f).sqrt() + f, "gradient of the objective Own is not finite")])
def test_an_objective_that_is_no_number_or_has_no_gradient_is_refused_before_anything_is_solved(spoil, message):
    with pytest.raises(ValueError, match=message): al.factorize(Own(table()[0], spoil), 2, rng=0)


def test_a_model_that_says_nothing_is_told_how_to():
    class Silent:
        "Somebody's factorization"
        components_ = np.ones((2, 7))
        def transform(self, X): return np.ones((len(X), 2))
    with pytest.raises(ValueError, match=r"Silent does not say what it minimises: give it a method objective\(X\)"):
        objective_of(Silent(), table()[0])
    assert objective_of(Silent(), table()[0], loss="kullback-leibler")[0].beta == 1


@pytest.mark.parametrize("penalty", [dict(), dict(alpha_W=.02, l1_ratio=1.), dict(alpha_W=.02, alpha_H=.01), dict(alpha_W=.02, alpha_H=.01, l1_ratio=1.),
                                     dict(alpha_W=.02, l1_ratio=.5)])
@pytest.mark.parametrize("loss", ["frobenius", "kullback-leibler"])
def test_scikit_learns_nmf_is_read_with_its_own_penalties(penalty, loss):
    X = table()[0]
    how = dict(penalty, beta_loss=loss, solver="cd" if loss == "frobenius" else "mu", max_iter=20_000, tol=1e-9 if loss == "frobenius" else 1e-7)
    theirs = SklearnNMF(2, random_state=0, init="random", **how).fit(X)
    sol = solution(theirs, X)
    assert sol.kkt < 1e-9 and sol.moved < (.05 if loss == "frobenius" else .2)     # their multiplicative updates stop early
    assert sol.objective.scale_free != bool(penalty) and bool(sol.notes) == bool(penalty)


def test_a_penalty_of_scikit_learn_on_one_factor_alone_is_refused():
    with pytest.raises(ValueError, match="must both be 0 or both be positive"):
        objective_of(SklearnNMF(2, alpha_W=.1, alpha_H=0.), table()[0])


def test_penalties_that_weigh_the_factors_differently_agree_with_a_class_of_nothing_but_the_value():
    X = table()[0]
    obj, notes = objective_of(SklearnNMF(2, alpha_W=.1, l1_ratio=.3), X)          # 7 alpha on the codes, 11 on the components
    assert isinstance(obj, Penalised) and "alpha_W * n_features = 0.7, alpha_H * n_samples = 1.1" in notes[0]
    class Plain(Objective):
        def __init__(self, data): self.data = data
        def value(self, W, H):
            fit = (self.data.X - W @ H).square().sum() / 2
            return fit + .3 * (.7 * W.sum() + 1.1 * H.sum()) + .35 * (.7 * W.square().sum() + 1.1 * H.square().sum())
    auto, rng = Plain(obj.data), np.random.default_rng(0)
    W, H, A, B = (torch.from_numpy(rng.random(s)) for s in 2 * ((11, 2), (2, 7)))
    assert_allclose(obj.value(W, H), auto.value(W, H), rtol=1e-12)
    for own, other in ((obj.grad(W, H), auto.grad(W, H)), (obj.hessian(W, H)(A, B), auto.hessian(W, H)(A, B)),
                       (obj.push(W, H, W @ B), auto.push(W, H, W @ B)), ([obj.pull(W, H, A, B)], [auto.pull(W, H, A, B)])):
        for a, b in zip(own, other, strict=True): assert_allclose(a, b, rtol=1e-10)
    bW, bH = obj.hessian(W, H).blocks()
    ones = [torch.eye(2).double()[j] for j in range(2)]
    for j, e in enumerate(ones):
        assert_allclose(bW[:, :, j], auto.hessian(W, H)(e.expand(11, 2), 0 * H)[0], rtol=1e-10)
        assert_allclose(bH[:, :, j], auto.hessian(W, H)(0 * W, e[:, None].expand(2, 7))[1].T, rtol=1e-10)


def test_the_negative_binomial_is_poisson_in_the_limit_and_its_update_never_goes_up():
    rng = np.random.default_rng(0)
    X = rng.poisson(5 * rng.gamma(1., size=(20, 2)) @ rng.gamma(1., size=(2, 12))).astype(float)
    X = X[X.sum(1) > 0][:, X.sum(0) > 0]
    near, poisson = (al.factorize(al.Objective(X, loss=loss), 2, rng=0).loss for loss in (al.NegativeBinomial(1e8), "kullback-leibler"))
    assert_allclose(near, poisson, rtol=1e-5)
    obj = al.Objective(X, loss=al.NegativeBinomial(2.))
    W, H = (torch.from_numpy(rng.random(s)) for s in ((len(X), 2), (2, X.shape[1])))
    values = [float(obj.value(W, H))]
    for _ in range(50):
        N, P = obj.parts(W, H)[0]
        W = W * N / P
        N, P = obj.parts(W, H)[1]
        H = H * N / P
        values.append(float(obj.value(W, H)))
    assert (np.diff(values) <= 1e-12 * values[0]).all() and values[-1] < .5 * values[0]


def test_nmf_takes_a_loss_as_an_object():
    rng = np.random.default_rng(0)
    X = rng.poisson(5 * rng.gamma(1., size=(20, 2)) @ rng.gamma(1., size=(2, 12))).astype(float)
    loss = al.NegativeBinomial(3.)
    model = al.NMF(2, loss=loss, polish=True, random_state=0).fit(X)
    assert model.kkt_residual_ <= 1e-9 and 0 < model.score(X) <= 1
    value = float(al.Objective(X, loss=loss).value(*(torch.as_tensor(T) for T in model.factors(X))))
    assert_allclose(model.reconstruction_err_, np.sqrt(2 * value), rtol=1e-12)
    with pytest.raises(ValueError, match="needs solver='auto'"): al.NMF(2, loss=loss, solver="mu").fit(X)
    with pytest.raises(ValueError, match="pass X.toarray"): al.NMF(2, loss=loss).fit(csr_array(X))


# --- what was to stay as it was before the objective was passed: the records, which benchmarks/ makes

def on_file(name):
    path = Path(__file__).resolve().parent.parent / "results" / "objective" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_papers_numbers_have_stayed_or_it_is_said_why():
    record = on_file("quick")
    kept = {name: r for name, r in record["records"].items() if not name.startswith("lafa/")}
    assert len(kept) >= 6 and all(r["same"] == r["numbers"] > 0 for r in kept.values())
    assert all(row["why"] for r in record["records"].values() for row in r["differ"])
    assert max(record["controlled"].values()) <= 1e-6


def test_an_iteration_costs_no_more():
    record = on_file("bench")
    assert {r["kind"] for r in record["rows"]} == {"dense", "masked", "float32", "sparse"}
    assert min(r["ratio"] for r in record["rows"]) >= .95 and all(r["same_loss"] for r in record["rows"])


def test_a_new_divergence_changes_nothing():
    before, now = (on_file("structure")[when]["to_change"] for when in ("before", "now"))
    assert now["own"] is True and now["say"] == now["models"] and len(before["functions"]) > 20


# --- entries that rounding would drown

def tails(n=30, f=60):
    "Three bumps whose tails are positive and next to nothing"
    grid = np.linspace(-4, 4, f)
    bumps = np.exp(-40 * (grid - np.array([[-2.], [0.], [2.]]))**2)
    return np.random.default_rng(0).random((n, 3)) @ bumps + .01 * np.random.default_rng(1).random((n, 1)) * bumps.sum(0)


@pytest.mark.parametrize("beta", [1., 1.5])
def test_tails_of_a_formula_count_as_zeros(beta):
    X = tails()
    zeros = np.where(X > 1e-13 * X.mean(), X, 0.)
    assert .2 < ((X > 0) & (zeros == 0)).mean()
    for kind in (np.asarray, csr_array):
        a, b = (Entrywise(as_data(kind(T)), beta).data for T in (X, zeros))
        assert_array_equal(*(d.X.to_dense().numpy() for d in (a, b)))
        assert_array_equal(*(d.T.X.to_dense().numpy() for d in (a, b)))
    weighted = Entrywise(as_data(X, weights=np.full(X.shape, 2.)), beta).data
    assert_array_equal(weighted.X.numpy(), zeros)


def test_where_zeros_are_no_data_nothing_is_cut():
    X = tails() + 1e-300
    for beta in (0., -1., 2.): assert_array_equal(Entrywise(as_data(X), beta).data.X.numpy(), X)


def with_tails():
    "A noisy table with zeros, and with 1e-100 in their place"
    X = np.maximum(tails() + .03 * np.random.default_rng(2).standard_normal((30, 60)), 0)
    return X, np.where(X == 0, 1e-100, X)


def test_a_table_with_tails_is_solved():
    "From every start: before, Newton's method ended in front of the wall at an entry of 1e-100"
    for A in with_tails():
        ends = [factorize(Entrywise(as_data(A), 1.), 3, rng=np.random.default_rng(i), tol=1e-8, polish_tol="auto") for i in range(4)]
        assert max(float(e.residuals[-1]) for e in ends) <= 1e-6


def test_so_is_one_of_counts_that_scatter():
    for A in with_tails():
        for seed in range(3):
            assert al.NMF(3, loss=al.NegativeBinomial(6.), init="random", polish=True, random_state=seed).fit(A).kkt_residual_ <= 1e-6
