"""Robust models: the papers' updates literally, descent, scikit-learn's checks, every kind of input, every error's message."""
import math
import re
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from refs import robust as ref
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import check_estimator

import anmf_lab as al
from anmf_lab import onmf as O
from anmf_lab import robust as M
from anmf_lab import robust_losses as R
from anmf_lab.arena import planted
from anmf_lab.core import as_data
from anmf_lab.divergence import parts
from anmf_lab.goals import problem_with
from anmf_lab.loop import iterate
from anmf_lab.solve import solve_seeds
from anmf_lab.solvers import start

SAMPLES = [al.L21NMF, al.CappedNMF, lambda *a, **k: al.CorrentropyNMF(*a, by="sample", **k)]
ENTRIES = [al.HuberNMF, al.CauchyNMF, lambda *a, **k: al.CauchyNMF(*a, cut=None, **k), al.CorrentropyNMF]
ALL = [*SAMPLES, *ENTRIES, al.ONMF, lambda *a, **k: al.ONMF(*a, on="components", **k), lambda *a, **k: al.CappedNMF(*a, orthogonal=True, **k)]
NAMES = ["L21", "capped", "correntropy-samples", "Huber", "truncated-Cauchy", "Cauchy", "correntropy", "ONMF", "ONMF-components", "capped-orthogonal"]
pytestmark = pytest.mark.filterwarnings("ignore:CappedNMF used all its iterations", "ignore:ONMF used all its iterations")   # multiplicative updates of orthogonal codes are slow
every = pytest.mark.parametrize("model", ALL, ids=NAMES)
robust = pytest.mark.parametrize("model", ALL[:7], ids=NAMES[:7])
per_sample = pytest.mark.parametrize("model", SAMPLES, ids=NAMES[:3])
per_entry = pytest.mark.parametrize("model", ENTRIES, ids=NAMES[3:7])


@pytest.fixture
def problem(rng):
    X = rng.gamma(1., size=(30, 3)) @ rng.gamma(1., size=(3, 20)) + .1 * rng.random((30, 20))
    data = as_data(X)
    W, H = (t[0] for t in start(data, 3, rng=0))
    return X, data, W, H


@pytest.fixture
def X(rng):
    return np.maximum(rng.gamma(1., size=(40, 4)) @ rng.gamma(1., size=(4, 25)) + .05 * rng.standard_normal((40, 25)), 0)


# --- the papers, literally

def test_onmf_is_dings(problem):
    X, data, W, H = problem
    F, G = H.T.numpy(), W.numpy()
    for _ in range(6):
        W, H = O.orthogonal_step(data, (W, H))
        G = ref.onmf_G(X.T, F, G)
        F = ref.onmf_F(X.T, F, G)
        assert_allclose(W, G, rtol=1e-10)
        assert_allclose(H, F.T, rtol=1e-10)


def test_l21_is_kongs(problem):
    X, data, W, H = problem
    F, G, loss = H.T.numpy(), W.T.numpy(), R.ResidualLoss(R.l21, True)
    for _ in range(6):
        W, H = R.reweighted_step(data, (W, H), loss, "mu")
        G = ref.l21_G(X.T, F, G)
        F = ref.l21_F(X.T, F, G)
        assert_allclose(W, G.T, rtol=1e-10)
        assert_allclose(H, F.T, rtol=1e-10)
        assert_allclose(R.reweighted_measure(data, (W, H), loss)[0], ref.l21_loss(X.T, F, G), rtol=1e-10)


def test_capped_is_gaos_released_program_while_nobody_is_an_outlier(problem):
    X, data, W, H = problem
    W = W / W.norm(dim=0)
    F, G = H.T.numpy(), W.numpy()
    model = al.CappedNMF(3, orthogonal=True)
    for _ in range(6):
        W, H = model._step(data, (W, H), R.ResidualLoss(lambda s: R.capped(s, 1e9), True))
        D = ref.capped_D(X.T, F, G, 1e9)
        G = ref.capped_G(X.T, F, G, D, eps=0)
        F = ref.capped_F(X.T, F, G, ref.capped_D(X.T, ref_F := F, G, 1e9))
        assert ref_F is not F
        assert_allclose(W, G, rtol=1e-10)
        assert_allclose(H, F.T, rtol=1e-10)


def test_capped_components_ignore_outliers_as_gaos_do(problem):
    X, data, W, H = problem
    theta = float(R.residual_squares(data, W, H, True).sqrt().quantile(.7))
    D = ref.capped_D(X.T, H.T.numpy(), W.numpy(), theta)
    assert 0 < (np.diag(D) == 0).sum() < 30
    omega = R.capped(R.residual_squares(data, W, H, True), theta)[1]
    assert_allclose(omega[:, 0], 2 * np.diag(D), rtol=1e-10)
    assert_allclose(R.weighted_components_update(data, W, H, omega, "mu").T, ref.capped_F(X.T, H.T.numpy(), W.numpy(), D), rtol=1e-10)
    # the program locks an outlier's code at zero, ours does not
    G = ref.capped_G(X.T, H.T.numpy(), W.numpy(), D)
    outlier = np.diag(D) == 0
    assert (G[outlier] == 0).all() and (G[~outlier] > 0).all()
    ours = O.orthogonal_codes_update(data, W, H).numpy()
    assert (ours[outlier] > 0).all()
    assert_allclose(ours[~outlier], G[~outlier], rtol=1e-10)


@pytest.mark.parametrize("kind", ["Cauchy", "correntropy", "Huber"])
def test_entrywise_updates_are_the_papers(problem, kind):
    X, data, W, H = problem
    F, G = H.T.numpy(), W.T.numpy()
    weights = {"Cauchy": lambda F, G: ref.cauchy_Q(X.T, F, G, .3), "correntropy": lambda F, G: ref.cim_Q(X.T, F, G), "Huber": lambda F, G: ref.huber_Q(X.T, F, G)}[kind]
    def loss(s):
        if kind == "Cauchy": return R.cauchy(s, .3)
        if kind == "correntropy": return R.correntropy(s, math.sqrt(float(s.mean()) / 2))
        return R.huber(s, float(np.median(s.sqrt())))
    for _ in range(4):
        W, H = R.reweighted_step(data, (W, H), R.ResidualLoss(loss), "mu")
        G = ref.entry_G(X.T, F, G, weights(F, G))
        F = ref.entry_F(X.T, F, G, weights(F, G))
        assert_allclose(W, G.T, rtol=1e-10)
        assert_allclose(H, F.T, rtol=1e-10)


def test_nagy_is_nagys(rng):
    E = rng.standard_t(2, 500)
    assert_allclose(R.cauchy_scale(torch.from_numpy(E ** 2)), ref.nagy(E, 1.), rtol=1e-8)


# --- losses

PARAMS = {"squares": lambda c: R.squares, "l21": lambda c: lambda s: R.l21(s, 1e-9), "capped": lambda c: lambda s: R.capped(s, 2 * c, 1e-9), "huber": lambda c: lambda s: R.huber(s, c),
          "cauchy": lambda c: lambda s: R.cauchy(s, c), "truncated": lambda c: lambda s: R.cauchy(s, c, 3 * c), "correntropy": lambda c: lambda s: R.correntropy(s, c)}


@pytest.mark.parametrize("name", PARAMS)
@settings(max_examples=60, deadline=None)
@given(st.floats(0, 50), st.floats(0, 50), st.floats(.05, 5))
def test_tangent_lies_above(name, e, e0, c):
    loss, s, s0 = PARAMS[name](c), torch.tensor(e * e, dtype=torch.float64), torch.tensor(e0 * e0, dtype=torch.float64)
    (v, _), (v0, w0) = loss(s), loss(s0)
    assert v >= 0 and w0 >= 0
    assert v <= v0 + w0 / 2 * (s - s0) + 1e-9 * (1 + abs(float(v0)))


@robust
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), solver=st.sampled_from(["hals", "mu"]), holes=st.booleans())
def test_loss_never_rises(model, seed, solver, holes):
    rng = np.random.default_rng(seed)
    X = rng.gamma(.5, size=(15, 3)) @ rng.gamma(.5, size=(3, 12)) * rng.choice([1., 1., 1., 20.], (15, 1))
    if holes: X[rng.random(X.shape) < .15] = np.nan
    X[0], X[:, 0] = np.nan_to_num(X[0], nan=1.), np.nan_to_num(X[:, 0], nan=1.)
    m = model(3, solver=solver)
    data = as_data(X, whole_columns=False) if not np.isnan(X).all(1).any() else as_data(np.nan_to_num(X))
    state = tuple(t[0] for t in start(data, 3, rng=seed))
    loss = m._loss(m._scale(R.observed_squares(data, *state, m._per_sample), R.rounding_residual(data, m._per_sample)))
    run = iterate(lambda s: m._step(data, s, loss), state, lambda s: m._measure(data, s, loss), max_iter=30, tol=0, every=1)
    assert len(run.losses) == 31
    assert np.diff(run.losses).max() <= 1e-9 * run.losses[0]


@robust
def test_fitted_curve_falls_and_residual_is_met(model, X):
    m = model(4, random_state=0, tol=1e-3).fit(X)
    assert m.status_ == "converged" and m.kkt_residual_ <= 1e-3
    assert np.diff(m.loss_curve_[:-1]).max(initial=0) <= 1e-10 * m.loss_curve_[0]
    assert m.loss_curve_[-1] <= 1.01 * m.loss_curve_[-2]      # codes of a loss that is not convex may end in another of its minima


@per_entry
def test_the_residual_is_that_of_the_gradient(model, problem):
    "Finite differences of the loss against the parts that the KKT residual is made of"
    X, data, W, H = problem
    m = model(3)
    loss = m._loss(m._scale(R.observed_squares(data, W, H, False), 1e-9))
    value = lambda W: float(loss.at(data, W, H)[0].sum())
    N, P = parts(R.with_weights(data, loss.at(data, W, H)[1]), W, H)
    for i, j in ((0, 0), (7, 2), (29, 1)):
        step = torch.zeros_like(W)
        step[i, j] = 1e-6
        assert_allclose((value(W + step) - value(W - step)) / 2e-6, float((P - N)[i, j]), rtol=1e-4, atol=1e-6)


# --- what they are for

def outlying_samples(rng):
    clean = rng.gamma(1., size=(120, 4)) * (rng.random((120, 4)) < .6) @ (rng.gamma(1., size=(4, 50)) * (rng.random((4, 50)) < .6))
    X, bad = np.maximum(clean + .03 * rng.standard_normal(clean.shape), 0), rng.random(120) < .1
    return np.where(bad[:, None], rng.uniform(0, 3 * clean.mean(), X.shape), X), clean, bad


@per_sample
def test_outlying_samples_lose_their_weight(model):
    X, clean, bad = outlying_samples(np.random.default_rng(0))
    error = lambda m: np.linalg.norm((m.fit_transform(X) @ m.components_ - clean)[~bad]) / np.linalg.norm(clean[~bad])
    m = model(4, random_state=0)
    assert error(m) < .04 < 2 * .04 < error(al.NMF(4))
    assert m.weights_.shape == (120,) and m.weights_[bad].max() <= m.weights_[~bad].min()
    assert m.weights_[bad].max() < .5 * np.median(m.weights_[~bad])


@per_entry
def test_outlying_entries_lose_their_weight(model):
    rng = np.random.default_rng(0)
    clean = rng.gamma(1., size=(120, 4)) * (rng.random((120, 4)) < .6) @ (rng.gamma(1., size=(4, 50)) * (rng.random((4, 50)) < .6))
    hit = rng.random(clean.shape) < .05
    X = np.where(hit, rng.uniform(10, 20, clean.shape), np.maximum(clean + .03 * rng.standard_normal(clean.shape), 0))
    error = lambda m: np.linalg.norm(m.fit_transform(X) @ m.components_ - clean) / np.linalg.norm(clean)
    m = model(4, random_state=0)
    assert error(m) < .05 < 4 * .05 < error(al.NMF(4))
    assert m.weights_.shape == X.shape and 0 <= m.weights_.min() and m.weights_.max() <= 1
    assert np.median(m.weights_[hit]) < .05 < .4 < np.median(m.weights_[~hit])


def test_onmf_finds_groups(rng):
    y = rng.integers(0, 4, 90)
    X = rng.random((4, 30))[y] * rng.uniform(.5, 2, (90, 1)) + .05 * rng.random((90, 30))
    for finish in (True, False):
        W = al.ONMF(4, random_state=0, finish=finish, max_iter=3000).fit_transform(X)
        assert ((W > 0).sum(1) == 1).all()
        assert al.clustering_accuracy(y, W.argmax(1)) == 1
    H = al.ONMF(4, on="components", random_state=0).fit(X.T).components_
    assert ((H > 0).sum(0) == 1).all()
    assert al.clustering_accuracy(y, H.argmax(0)) == 1


ORTHOGONAL = {"codes": lambda: al.ONMF(3), "components": lambda: al.ONMF(3, on="components"),
              "capped": lambda: al.CappedNMF(3, orthogonal=True)}


@pytest.mark.parametrize("kind", ORTHOGONAL)
def test_a_solution_has_one_component_a_sample_wherever_it_began(kind, rng):
    X = rng.gamma(.5, size=(14, 11)) + .01
    obj = ORTHOGONAL[kind]().objective(X)
    p, dense = problem_with(obj, 3), tuple(torch.as_tensor(rng.random(s)) + .1 for s in ((14, 3), (3, 11)))
    found = solve_seeds(obj, 3, 5, rng=0) + p.fresh(obj.data.X, 4, 0) + [p.warm(obj.data.X, *dense, tol=1e-9, max_iter=100)]
    for s in found:
        codes = s.H.T if kind == "components" else s.W
        assert ((codes > 0).sum(1) == 1).all() and s.residual < 1e-6
        if kind == "codes": assert_allclose(O.single_codes(obj.data, s.H), s.W, atol=1e-6)
        if kind == "components": assert_allclose(O.single_codes(obj.data.T, s.W.T).T, s.H, atol=1e-6)
    run = al.factorize(obj, 3, rng=0)
    codes = run.state[1].T if kind == "components" else run.state[0]
    assert ((codes > 0).sum(1) == 1).all() and run.residuals[-1] < 1e-6
    stack = tuple(torch.stack([T, T + .1]) for T in dense)
    for i, pair in enumerate(zip(*obj.admit(*stack), strict=True)):
        for T, one in zip(pair, obj.admit(*(S[i] for S in stack)), strict=True): assert_array_equal(T, one)


def test_starts_end_in_groups_that_are_there(rng):
    X = np.kron(np.eye(3), np.ones((6, 4))) + .05 * rng.random((18, 12))
    obj = al.ONMF(3).objective(X)
    found = solve_seeds(obj, 3, 8, rng=0)
    labels = found[0].W.argmax(1).numpy()
    assert len({*labels[:6]}) == len({*labels[6:12]}) == len({*labels[12:]}) == 1 and len({*labels}) == 3
    assert sum(s.loss < 1.001 * found[0].loss for s in found) >= 3


def test_a_start_sweeps_before_it_assigns():
    obj = al.ONMF(3).objective(planted(0))
    starts = list(zip(*start(obj.data, 3, rng=np.random.default_rng(0), n_init=20), strict=True))
    swept, bare = (np.median([float(obj.value(*f(W, H))) for W, H in starts])
                   for f in (obj.admit, lambda W, H: O.exact_run(obj.data, (W, H)).state))
    assert swept < .8 * bare        # without, a component takes most samples


def test_a_sample_that_changes_sides_is_assigned_anew():
    X = np.kron(np.eye(2), np.ones((4, 3))) + .1
    p = problem_with(al.ONMF(2).objective(X), 2)
    clean, Z = p.fresh(p.objective.data.X, 4, 0)[0], torch.as_tensor(X[[0, 1, 2, 4, 3, 5, 6, 7]])
    moved = p.warm(Z, *clean.factors, tol=1e-9)
    before, after = (s.W.argmax(1).tolist() for s in (clean, moved))
    assert after == [before[i] for i in (0, 1, 2, 4, 3, 5, 6, 7)] and moved.loss == pytest.approx(clean.loss, abs=1e-12)


def test_capped_groups_are_means_without_those_beyond_the_cap():
    X = np.array([[1., 0], [1, 0], [1, 0], [4, 8], [0, 1], [0, 1], [0, 1], [0, 1]]) + .01
    obj = al.CappedNMF(2, orthogonal=True, theta=2.).objective(X)
    H = torch.tensor([[1., .01], [.01, 1]], dtype=torch.float64)
    groups = [torch.nn.functional.normalize(o.admit(torch.ones(8, 2).double() * 0, H)[1], dim=1) for o in (obj, al.ONMF(2).objective(X))]
    assert float(groups[0][1, 0]) < .012 < .05 < float(groups[1][1, 0])      # the outlier pulls Ding's group, not Gao's


def test_rivals_of_orthogonal_codes_are_orthogonal(rng):
    X = rng.gamma(.5, size=(14, 11)) + .01
    model = al.ONMF(3, n_init=10, random_state=0).fit(X)
    own, plain = model.loss_curve_[-1], solve_seeds(al.NMF(3).objective(X), 3, 4, rng=0)[0].loss
    assert .95 * own <= al.rivals(model, X, random_state=0).best <= own * (1 + 1e-9) and plain < .9 * own


def test_single_codes_are_the_best(rng):
    data, H = as_data(rng.random((6, 5))), torch.from_numpy(rng.random((3, 5)))
    W = O.single_codes(data, H)
    for i in range(6):
        errors = [(data.X[i] - max(float(data.X[i] @ h / (h @ h)), 0) * h).square().sum() for h in H]
        assert_allclose((data.X[i] - W[i] @ H).square().sum(), min(errors), rtol=1e-12)


@per_entry
def test_codes_are_a_minimum(model, X):
    "No small move of a code lowers the model's own loss"
    m = model(4, random_state=0).fit(X)
    H, W = torch.from_numpy(m.components_), torch.from_numpy(m.transform(X))
    loss = lambda W: m._loss(m.scale_).at(as_data(X), W, H)[0].sum(1)
    best = loss(W)
    for j in range(4):
        for d in (-1e-3, 1e-3):
            other = W.clone()
            other[:, j] = (other[:, j] + d).clamp(min=0)
            assert (loss(other) >= best - 1e-7).all()


# --- scikit-learn, and every kind of input

@pytest.mark.parametrize("model", [al.L21NMF, al.CappedNMF, al.CauchyNMF, al.CorrentropyNMF, al.HuberNMF, al.ONMF])
def test_check_estimator(model):
    "All of scikit-learn's checks, with every parameter but the number of iterations at its default"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        check_estimator(model(max_iter=30), on_skip=None)


@every
def test_fit_transform_is_fit_then_transform(model, X):
    m = model(4, random_state=0)
    W = m.fit_transform(X)
    assert_array_equal(W, m.transform(X))
    assert_allclose(m.transform(X[:7]), W[:7], rtol=1e-5, atol=1e-6 * W.max())
    assert_array_equal(clone(m).fit_transform(X), W)                    # same seed, same bits
    assert (W >= 0).all() and (m.components_ >= 0).all()


@every
def test_parameters_are_stored_and_forwarded(model):
    m = model(3, max_iter=7, tol=.5, random_state=4, device="cpu", verbose=False, n_init=2, init="kmeans")
    assert clone(m).get_params() == m.get_params()
    assert (m.max_iter, m.tol, m.random_state, m.n_init, m.init) == (7, .5, 4, 2, "kmeans")


@every
def test_input_is_not_touched_and_dtype_kept(model, X):
    before = X.copy()
    model(3, random_state=0).fit(X)
    assert_array_equal(X, before)
    m = model(3, random_state=0)
    assert m.fit_transform(X.astype(np.float32)).dtype == np.float32 and m.components_.dtype == np.float32
    assert_allclose(m.reconstruction_err_, model(3, random_state=0).fit(X).reconstruction_err_, rtol=.05)


@every
def test_pandas_and_torch(model, X):
    frame = pd.DataFrame(X, columns=[f"g{j}" for j in range(25)])
    m = model(3, random_state=0)
    assert list(m.set_output(transform="pandas").fit_transform(frame).columns) == list(m.get_feature_names_out())
    W = model(3, random_state=0).fit_transform(torch.from_numpy(X))
    assert isinstance(W, torch.Tensor)
    assert_allclose(W, model(3, random_state=0).fit_transform(X), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("model", [*SAMPLES, *ALL[7:]], ids=[*NAMES[:3], *NAMES[7:]])
def test_sparse_is_dense(model, X):
    S = sp.csr_array(np.where(X < np.median(X), 0, X))
    a, b = (model(3, random_state=0, max_iter=60, tol=0).fit(M) for M in (S, S.toarray()))
    assert_allclose(a.components_, b.components_, rtol=1e-4, atol=1e-6)
    assert_allclose(a.loss_curve_, b.loss_curve_, rtol=1e-6)


@per_entry
def test_sparse_is_refused_where_entries_have_weights(model, X):
    with pytest.raises((TypeError, ValueError), match="dense"):
        model(2).fit(sp.csr_array(X))
    with pytest.raises(ValueError, match="weighs single entries and needs a dense X: pass X.toarray"):
        model(2).fit(torch.from_numpy(X).to_sparse_csr())


@robust
def test_missing_entries_do_not_matter(model, X):
    rng = np.random.default_rng(3)
    M = rng.random(X.shape) > .2
    a = model(3, random_state=0).fit(np.where(M, X, np.nan))
    b = model(3, random_state=0).fit(np.where(M, X, 1e6), mask=M)
    assert_array_equal(a.components_, b.components_)
    assert_array_equal(a.weights_, b.weights_)
    if a.weights_.ndim == 2: assert (a.weights_[~M] == 0).all()
    truth = np.linalg.norm((model(4, random_state=0).fit_transform(np.where(M, X, np.nan)) @ model(4, random_state=0).fit(np.where(M, X, np.nan)).components_ - X)[~M])
    assert truth < .5 * np.linalg.norm(X[~M])


@pytest.mark.parametrize("model", ALL[7:], ids=NAMES[7:])
def test_missing_entries_are_refused_by_orthogonal_codes(model, X):
    with pytest.raises(ValueError, match="NaN"):
        model(2).fit(np.where(X > np.median(X), np.nan, X))
    with pytest.raises(ValueError, match="mask is not supported here"):
        model(2).fit(X, mask=np.ones(X.shape, bool))


@every
def test_unit_of_the_data_does_not_matter(model, X):
    a, b = model(3, random_state=0).fit(X), model(3, random_state=0).fit(1024 * X)      # a power of two: the same path
    assert_allclose(b.components_, a.components_ * 32, rtol=1e-6, atol=1e-6 * b.components_.max())
    assert a.status_ == b.status_


@every
def test_all_zero_rows_columns_and_data(model, X):
    X = X.copy()
    X[3], X[:, 5] = 0, 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ConvergenceWarning)
        for M in (X, np.zeros((6, 5)), np.ones((6, 5))):
            m = model(2, random_state=0)
            W = m.fit_transform(M)
            assert np.isfinite(W).all() and np.isfinite(m.components_).all() and np.isfinite(m.loss_curve_).all()
            assert np.isfinite(m.kkt_residual_)


@every
def test_starts(model, X):
    W, H = np.random.default_rng(0).random((40, 3)), np.random.default_rng(1).random((3, 25))
    before = W.copy(), H.copy()
    assert np.isfinite(model(3, init="custom", max_iter=20, tol=0).fit(X, W=W, H=H).components_).all()
    assert_array_equal(W, before[0])
    assert_array_equal(H, before[1])
    for init in ("kmeans", "nndsvda", "random"):
        model(3, init=init, random_state=0, max_iter=20, tol=0).fit(X)
    many = model(3, init="random", n_init=4, random_state=0, max_iter=60, tol=0).fit(X)
    Ws, Hs = start(as_data(X), 3, rng=0, n_init=4)
    first = model(3, init="custom", max_iter=60, tol=0).fit(X, W=Ws[0], H=Hs[0])
    assert many.loss_curve_[-2] <= first.loss_curve_[-2] * (1 + 1e-9)      # at the last check, where the best is chosen


@robust
def test_interrupted_keeps_the_best(model, X, monkeypatch):
    calls = []
    step = M.reweighted_step
    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) == 6: raise KeyboardInterrupt
        return step(*args, **kwargs)
    monkeypatch.setattr(M, "reweighted_step", interrupted)
    with pytest.warns(ConvergenceWarning, match="was interrupted and keeps the best factors so far"):
        m = model(3, random_state=0, tol=0, max_iter=40).fit(X)
    assert m.status_ == "interrupted" and np.isfinite(m.components_).all()


@pytest.mark.parametrize("call, message", [
    (lambda X: al.L21NMF(0).fit(X), "n_components must be a whole number >= 1, got 0"),
    (lambda X: al.L21NMF(2, solver="cd").fit(X), "solver must be one of 'hals', 'mu', got 'cd'"),
    (lambda X: al.CappedNMF(2, theta=0).fit(X), "theta must be a number > 0, got 0"),
    (lambda X: al.CappedNMF(2, ratio=1.5).fit(X), "ratio must be a number > 0 and <= 1, got 1.5"),
    (lambda X: al.CauchyNMF(2, gamma=-1).fit(X), "gamma must be a number > 0, got -1"),
    (lambda X: al.CauchyNMF(2, cut=0).fit(X), "cut must be a number > 0, got 0. Or '3-sigma', 'released', None."),
    (lambda X: al.CauchyNMF(2, cut="2-sigma").fit(X), "cut must be a number > 0, got '2-sigma'"),
    (lambda X: al.CorrentropyNMF(2, by="row").fit(X), "by must be one of 'entry', 'sample', got 'row'"),
    (lambda X: al.CorrentropyNMF(2, sigma=0).fit(X), "sigma must be a number > 0, got 0"),
    (lambda X: al.HuberNMF(2, c=float("nan")).fit(X), "c must be a number > 0, got nan"),
    (lambda X: al.ONMF(2, on="rows").fit(X), "on must be one of 'codes', 'components', got 'rows'"),
    (lambda X: al.HuberNMF(2).fit(-X), "Negative values in data passed to X"),
    (lambda X: al.HuberNMF(2).fit(np.where(X > 3, np.inf, X)), "infinity"),
    (lambda X: al.L21NMF(50, init="kmeans").fit(X), "init='kmeans' needs n_components <= n_samples = 40, got 50"),
    (lambda X: al.L21NMF(2, init="svd").fit(X), "init must be one of"),
])
def test_bad_input(X, call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call(X)


def test_given_scales_are_used(X):
    for m, want in [(al.HuberNMF(3, c=.2), {"c": .2}), (al.CauchyNMF(3, gamma=.1, cut=.5), {"gamma": .1, "cut": .5}),
                    (al.CorrentropyNMF(3, sigma=.3), {"sigma": .3}), (al.CauchyNMF(3, gamma=.1, cut=None), {"gamma": .1, "cut": math.inf})]:
        assert m.set_params(random_state=0).fit(X).scale_ == want
    capped = al.CappedNMF(3, theta=.4, random_state=0).fit(X)
    assert capped.scale_["theta"] == .4
    kept = al.CappedNMF(3, ratio=.75, random_state=0).fit(X)
    assert abs((kept.weights_ > 0).mean() - .75) <= .1


def test_the_residual_of_unfinished_orthogonal_codes_is_that_of_the_start_that_is_kept(X):
    "Not that of the start that was tried last"
    many = al.ONMF(4, finish=False, n_init=3, init="random", max_iter=30, tol=0, random_state=0).fit(X)
    Ws, Hs = start(as_data(X), 4, rng=0, n_init=3)
    each = [al.ONMF(4, finish=False, init="custom", max_iter=30, tol=0).fit(X, W=W, H=H) for W, H in zip(Ws, Hs, strict=True)]
    best = min(each, key=lambda m: m.loss_curve_[-2])      # after the last update; the end of the curve is what is returned
    assert best is not each[-1]
    assert_allclose(many.kkt_residual_, best.kkt_residual_, rtol=1e-9)


@every
def test_a_fit_sets_no_attribute_but_results(model, X):
    "Parameters stay what was asked for; what a fit adds ends with an underscore"
    m = model(3, random_state=0, max_iter=20, tol=0)
    before = dict(m.get_params())
    m.fit(X)
    assert m.get_params() == before
    ours = {name for name in vars(m) if not name.endswith("_") and name not in before}
    assert ours <= {"_kind", "_sklearn_output_config"}
