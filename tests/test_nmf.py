"""NMF and what it stands on: conventions, seeds, input kinds, optimality, missing data, messages."""
import inspect
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import NMF as SkNMF
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import check_estimator

import anmf_lab as al
from anmf_lab.align import feature_error
from anmf_lab.core import Data, as_data
from anmf_lab.divergence import divergence
from anmf_lab.loop import Status, iterate
from anmf_lab.solve import best_scale, factorize, newton_limit
from anmf_lab.nmf import NMF, FactorModel, penalty_weights
from anmf_lab.polish import Objective, kkt_entries, kkt_residual, measure, pcg, polish
from anmf_lab.selection import SpeckledSearchCV, speckles
from anmf_lab.solvers import hals_step, mu_step, mue_step, solve_codes, start

LOSSES = ["frobenius", "kullback-leibler", 1.5]
quiet = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def counts(n=40, f=30, k=4, seed=0, scale=10.):
    rng = np.random.default_rng(seed)
    return rng.poisson(scale*rng.gamma(.5, size=(n, k)) @ rng.gamma(.5, size=(k, f))).astype(float)


def positive(n=40, f=30, k=4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.gamma(1., size=(n, k)) @ rng.gamma(1., size=(k, f)) + .1*rng.random((n, f))


# --- scikit-learn's conventions

@pytest.mark.parametrize("model", [NMF(), NMF(loss="kullback-leibler"), NMF(solver="mu", init="random", n_init=2)],
                         ids=["default", "kl", "restarts"])
def test_check_estimator(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(model, on_fail=None)
    bad = [(r["check_name"], r["exception"]) for r in results if r["status"] == "failed"]
    assert not bad and sum(r["status"] == "passed" for r in results) >= 40


def test_every_argument_is_stored_and_used():
    params = inspect.signature(NMF).parameters
    odd = dict(n_components=3, loss=1.5, solver="mu", init="random", n_init=2, l1=.01, l2=.02, max_iter=7, tol=0., polish=1e-2,
               forget=.5, random_state=5, device="cpu", verbose=False)
    assert set(odd) == set(params)
    m = NMF(**odd)
    assert m.get_params() == odd
    assert clone(m).get_params() == odd
    base = NMF(3, init="random", random_state=0, max_iter=20, tol=0).fit(positive()).components_
    for change in (dict(loss=1.), dict(solver="mu"), dict(init="nndsvd"), dict(n_init=3), dict(l1=.1), dict(l2=.1), dict(max_iter=21),
                   dict(polish=True), dict(random_state=1)):
        other = NMF(3, **{**dict(init="random", random_state=0, max_iter=20, tol=0), **change}).fit(positive()).components_
        assert not np.array_equal(other, base), change


@quiet
@pytest.mark.parametrize("loss", LOSSES)
def test_input_untouched_and_same_bits(loss):
    X = counts()
    W0, H0 = np.random.default_rng(0).random((40, 3)), np.random.default_rng(1).random((3, 30))
    copies = X.copy(), W0.copy(), H0.copy()
    a = NMF(3, loss=loss, init="custom", max_iter=50).fit(X, W=W0, H=H0)
    for given_, before in zip((X, W0, H0), copies, strict=True):
        assert_array_equal(given_, before)
    b = NMF(3, loss=loss, init="custom", max_iter=50).fit(X, W=W0, H=H0)
    assert_array_equal(a.components_, b.components_)
    assert_array_equal(NMF(3, loss=loss, init="random", random_state=3).fit(X).components_, NMF(3, loss=loss, init="random", random_state=3).fit(X).components_)


@quiet
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("missing", [False, True])
def test_fit_transform_is_fit_then_transform(loss, missing):
    X = counts()
    if missing:
        X[np.random.default_rng(0).random(X.shape) < .2] = np.nan
    m = NMF(4, loss=loss, random_state=0)
    W = m.fit_transform(X)
    assert_array_equal(W, m.transform(X))
    assert (W >= 0).all() and (m.components_ >= 0).all()
    assert_allclose(m.transform(X[5:9]), W[5:9], rtol=1e-6, atol=1e-8)


# --- kinds of input

@quiet
@pytest.mark.parametrize("loss", LOSSES)
def test_float32_end_to_end(loss):
    X = positive()
    m = NMF(4, loss=loss, random_state=0, tol=1e-3).fit(X.astype(np.float32))
    assert m.components_.dtype == np.float32 and m.transform(X.astype(np.float32)).dtype == np.float32
    m64 = NMF(4, loss=loss, random_state=0, tol=1e-3).fit(X)
    assert_allclose(m.reconstruction_err_, m64.reconstruction_err_, rtol=2e-3)   # same start; paths part by rounding
    polished = [NMF(4, loss=loss, random_state=0, polish=1e-5).fit(X.astype(t)) for t in (np.float32, np.float64)]
    assert_allclose(polished[0].reconstruction_err_, polished[1].reconstruction_err_, rtol=1e-4)


def test_pandas_names_and_output():
    X = pd.DataFrame(counts(), columns=[f"g{i}" for i in range(30)], index=[f"s{i}" for i in range(40)])
    m = NMF(3, random_state=0).set_output(transform="pandas")
    out = m.fit_transform(X)
    assert list(out.columns) == ["nmf0", "nmf1", "nmf2"] and list(out.index) == list(X.index)
    assert list(m.feature_names_in_) == list(X.columns)
    with pytest.raises(ValueError, match="feature names should match"):
        m.transform(X.rename(columns={"g0": "other"}))


@pytest.mark.parametrize("kind", [sp.csr_matrix, sp.csc_matrix, sp.coo_array, sp.csr_array])
@pytest.mark.parametrize("loss", LOSSES)
def test_sparse_is_dense(kind, loss):
    X = counts() * (np.random.default_rng(0).random((40, 30)) < .4)
    a = NMF(6, loss=loss, init="random", random_state=0, tol=0, max_iter=40).fit(kind(X))   # one sweep of HALS in both
    b = NMF(6, loss=loss, init="random", random_state=0, tol=0, max_iter=40).fit(X)
    assert_allclose(a.components_, b.components_, rtol=1e-6, atol=1e-9)
    assert_allclose(a.transform(kind(X)), b.transform(X), rtol=1e-5, atol=1e-7)
    assert_allclose(a.reconstruction_err_, b.reconstruction_err_, rtol=1e-6)


@quiet
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_large_counts_are_updated_from_one_quotient(dtype):
    "They end solved, where the alternating updates end; a row and a column of zeros are legal; so is nothing but zeros"
    rng = np.random.default_rng(0)
    X = rng.poisson(rng.gamma(.5, size=(600, 4)) @ rng.gamma(.5, size=(4, 500)) * 3).astype(dtype)
    X[3], X[:, 7] = 0, 0
    how = dict(loss="kullback-leibler", init="random", random_state=0)
    a, b = NMF(4, **how).fit(X), NMF(4, solver="mue", **how).fit(X)
    assert a.status_ == b.status_ == "converged" and a.components_.dtype == dtype
    assert_allclose(a.loss_curve_[-1], b.loss_curve_[-1], rtol=1e-6)
    em, mue, auto = (NMF(4, solver=s, polish=False, max_iter=7, tol=0, **how).fit(X).components_ for s in ("em", "mue", "auto"))
    assert (em == auto).all() and not np.allclose(em, mue, rtol=1e-2)
    assert np.isfinite(NMF(2, **how).fit_transform(np.zeros((600, 500), dtype))).all()
    assert np.isfinite(NMF(2, n_init=2, polish=False, max_iter=20, **how).fit_transform(X)).all()       # a stack


def test_one_quotient_needs_kullback_leibler_without_holes_and_penalties():
    X = counts()
    holes = np.where(X > X.max() / 2, np.nan, X)
    for data, kw, words in ((X, dict(loss="frobenius"), "solver='em' minimises"), (sp.csr_array(X), {}, "dense X"),
                            (holes, {}, "without holes"), (X, dict(l2=.1), "knows no penalties")):
        with pytest.raises(ValueError, match=words): NMF(2, **{"loss": "kullback-leibler", "solver": "em", **kw}).fit(data)
    assert NMF(2, loss="kullback-leibler", solver="em", random_state=0).fit(X).status_ == "converged"


def test_sparse_is_never_densified():
    "20,000 x 30,000 would be 4.8 GB"
    rng = np.random.default_rng(0)
    X = sp.csr_array((rng.random(12_000), (rng.integers(20_000, size=12_000), rng.integers(30_000, size=12_000))), shape=(20_000, 30_000))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for loss in ("frobenius", "kullback-leibler"):
            data = as_data(X)
            W, H = (T[0] for T in start(data, 2, rng=0))
            step = hals_step if loss == "frobenius" else mue_step
            state = step(data, (W, H))
            loss_, res = measure(Objective(data, 2. if loss == "frobenius" else 1.), state[0], state[1])
            assert np.isfinite(loss_) and np.isfinite(res)


def test_torch_in_torch_out():
    X = torch.from_numpy(counts())
    W = NMF(3, random_state=0).fit_transform(X)
    assert isinstance(W, torch.Tensor) and W.device == X.device
    assert_allclose(W.numpy(), NMF(3, random_state=0).fit_transform(X.numpy()))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("loss", LOSSES)
def test_cuda_is_cpu(loss):
    X = counts()
    a, b = (NMF(3, loss=loss, init="random", random_state=0, polish=True, device=d).fit(X) for d in ("cpu", "cuda"))
    assert_allclose(a.reconstruction_err_, b.reconstruction_err_, rtol=1e-6)


@quiet
def test_zero_rows_and_columns_are_legal():
    X = counts()
    X[3], X[:, 7] = 0, 0
    for loss in LOSSES:
        m = NMF(3, loss=loss, random_state=0)
        W = m.fit_transform(X)
        assert np.isfinite(W).all() and np.isfinite(m.components_).all()
        assert_allclose(W[3], 0, atol=1e-10)
        assert_allclose(m.components_[:, 7], 0, atol=1e-8)
    assert np.isfinite(NMF(2).fit_transform(np.zeros((5, 4)))).all()


# --- what is computed

@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), beta=st.sampled_from([1., 1.25, 1.5, 2.]), masked=st.booleans(),
       l1=st.sampled_from([0., .1]), l2=st.sampled_from([0., .5]))
def test_updates_never_raise_the_objective(seed, beta, masked, l1, l2):
    rng = np.random.default_rng(seed)
    X = rng.gamma(.5, size=(12, 9)) * (rng.random((12, 9)) < .8)
    if masked:
        X[rng.random(X.shape) < .3] = np.nan
        X[:, 0] = X[0] = 1.
    data = as_data(X)
    state = tuple(T[0] for T in start(data, 3, rng=seed))
    obj = Objective(data, beta, l1, l2)
    steps = [lambda s: mu_step(data, s, beta, l1=l1, l2=l2)] + ([lambda s: hals_step(data, s, l1=l1, l2=l2)] if beta == 2 else [])
    for step in steps:
        f = iterate(step, state, lambda s: obj.value(*s), max_iter=30, tol=0, every=1).losses
        assert (np.diff(f) <= 1e-10*abs(f[0])).all()
    if l1 or l2:
        W, H = best_scale(*state, l1, l2)
        assert_allclose(W @ H, state[0] @ state[1], rtol=1e-10)
        assert obj.value(W, H) <= obj.value(*state) * (1 + 1e-12)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), beta=st.sampled_from([1., 1.5, 2.]))
def test_transposition_and_scale(seed, beta):
    "NMF of the transpose is the transpose of the NMF; the residual knows neither unit nor gauge"
    rng = np.random.default_rng(seed)
    X = rng.gamma(1., size=(9, 7)) + .01
    data, (W, H) = as_data(X), (T[0] for T in start(as_data(X), 3, rng=seed))
    W1 = mu_step(data, (W, H), beta)[0]
    H1 = mu_step(data.T, (H.T, W.T), beta)[0]
    both = mu_step(data, (W1, H), beta)
    assert_allclose(mu_step(data.T, (H.T, W1.T), beta)[0], mu_step(data, (W, H), beta)[1].T, rtol=1e-9)
    assert H1.shape == H.T.shape and both[0].shape == W.shape
    s = torch.from_numpy(rng.uniform(.01, 100, 3))
    assert_allclose(kkt_residual(data, W*s, H/s[:, None], beta), kkt_residual(data, W, H, beta), rtol=1e-9)


def test_better_than_or_level_with_scikit_learn():
    X = load_digits().data
    theirs = SkNMF(10, init="nndsvda", tol=1e-6, max_iter=2000)
    W = theirs.fit_transform(X)
    on = NMF(10, init="custom", tol=1e-5, max_iter=5000).fit(X, W=W, H=theirs.components_)
    assert on.reconstruction_err_ <= theirs.reconstruction_err_ * (1 + 1e-9)      # from there it only goes down
    ours = NMF(10, init="nndsvda", tol=1e-5, max_iter=5000).fit(X)
    assert ours.reconstruction_err_ <= theirs.reconstruction_err_ * 1.05          # from the same start: another minimum, much alike


@pytest.mark.parametrize("loss", [2, 1, 1.5])
def test_codes_are_optimal_on_sparse_digits(loss):
    X = load_digits().data[:300]
    H = NMF(10, loss=loss, random_state=0, max_iter=100, tol=0).fit(X).components_
    data, Ht = as_data(X), torch.from_numpy(H)
    W = solve_codes(data, Ht, loss)
    pW, _ = Objective(data, loss).parts(W, Ht)
    assert kkt_entries(*pW, W, -2).max() < 1e-6


def test_sparse_counts_are_coded_from_their_stored_entries():
    "The same codes as dense, rows without an entry included; 20,000 x 30,000 dense would be 4.8 GB"
    rng = np.random.default_rng(0)
    X = (rng.poisson(2., (60, 50)) + 1.) * (rng.random((60, 50)) < .15) * (np.arange(60) != 7)[:, None]
    H = torch.from_numpy(rng.gamma(.5, size=(4, 50)))
    for l1, l2 in ((0., 0.), (.1, .2)):
        a, b = (solve_codes(as_data(M), H, 1., l1=l1, l2=l2) for M in (sp.csr_array(X), X))
        assert_allclose(a, b, rtol=1e-7, atol=1e-9)
        pW, _ = Objective(as_data(X), 1., l1, l2).parts(a, H)
        assert kkt_entries(*pW, a, -2).max() < 1e-6 and not a[7].any()
    wide = sp.csr_array((rng.random(12_000), (rng.integers(20_000, size=12_000), rng.integers(30_000, size=12_000))), shape=(20_000, 30_000))
    H = torch.from_numpy(rng.random((2, 30_000)))
    assert torch.isfinite(solve_codes(as_data(wide), H, 1.)).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_polish_solves(loss):
    for seed in range(3):
        m = NMF(4, loss=loss, init="random", random_state=seed, polish=True, max_iter=100, tol=1e-3).fit(counts(seed=seed))
        assert m.status_ is Status.converged and m.kkt_residual_ < 1e-7, (seed, m.kkt_residual_)


def test_polished_point_is_a_minimum_along_random_feasible_directions():
    X = counts()
    data = as_data(X)
    W, H = (T[0] for T in start(data, 4, rng=0))
    for _ in range(100):
        W, H = mu_step(data, (W, H), 1.)
    run = polish(data, W, H, 1.)
    W, H = run.state
    f = float(divergence(data, W, H, 1.))
    rng = np.random.default_rng(0)
    for _ in range(50):
        dW, dH = torch.from_numpy(rng.standard_normal(W.shape)), torch.from_numpy(rng.standard_normal(H.shape))
        for h in (1e-3, 1e-4):
            g = float(divergence(data, (W + h*dW*W.max()).clamp(min=0), (H + h*dH*H.max()).clamp(min=0), 1.))
            assert g >= f * (1 - 1e-12)


@pytest.mark.parametrize("l1, l2", [(.02, 0), (0, .1), (.02, .1)])
@pytest.mark.parametrize("loss", LOSSES)
def test_penalties_do_not_know_unit_or_size(loss, l1, l2):
    "A solution, repeated or rescaled with its data, is a solution under the weights of the larger problem"
    X = positive()
    m = NMF(4, loss=loss, l1=l1, l2=l2, polish=1e-9, max_iter=500)
    W, H = torch.from_numpy(m.fit_transform(X)), torch.from_numpy(m.components_)
    beta = m._beta()
    for Y, W2, H2 in ((np.vstack([X, X, X]), W.repeat(3, 1), H), (np.hstack([X, X]), W, H.repeat(1, 2)), (1e3*X, 1e3*W, H)):
        data = as_data(Y)
        if l1 and l2 and Y.shape != X.shape:
            continue        # each penalty has its own best scale; together they are invariant to the unit only
        weights = penalty_weights(data, beta, l1, l2)
        assert kkt_residual(data, *best_scale(W2, H2, *weights), beta, l1=weights[0], l2=weights[1]) < 1e-6
        raw = penalty_weights(as_data(X), beta, l1, l2)      # the weights of the small problem would not do
        if weights != raw:
            assert kkt_residual(data, *best_scale(W2, H2, *raw), beta, l1=raw[0], l2=raw[1]) > 1e-4


def test_penalty_weights_by_hand():
    data = Data(torch.full((4, 9), 2., dtype=torch.float64))
    assert penalty_weights(data, 2., .5, .25) == (.5 * 2**1.5 * 36/6, .25 * 2 * 36/6)
    assert penalty_weights(data, 1., 0., 1.) == (0., 6.)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kind", [np.float64, np.float32])
def test_default_is_solved_and_says_what_is_returned(loss, kind):
    "Status, residual and loss curve are those of the factors in hand"
    for seed in range(2):
        X = counts(seed=seed).astype(kind)
        m = NMF(4, loss=loss, init="random", random_state=seed)
        W = m.fit_transform(X)
        W64, H64 = (torch.from_numpy(T.astype(float)) for T in (W, m.components_))
        obj = m.objective(X.astype(float))
        assert m.status_ is Status.converged and m.kkt_residual_ <= m.tol
        assert_allclose(kkt_residual(obj, W64, H64), m.kkt_residual_, rtol=1e-6, atol=1e-12)
        assert_allclose(m.loss_curve_[-1], float(obj.value(W64, H64)), rtol=1e-9 if kind is np.float64 else 1e-5)
        assert m.n_iter_ < m.max_iter


def test_updates_and_newton_steps_take_turns():
    "An objective without second derivatives gets updates only; `max_iter` counts both; no stop above the residual"
    obj = Objective(counts(), "kullback-leibler")
    told = []
    run = factorize(obj, 4, rng=0, max_iter=500, tol=1e-8, polish_tol="auto", callback=lambda n, state, loss: told.append(n))
    assert run.status is Status.converged and run.residuals[-1] <= 1e-8 and told == sorted(told) and told[-1] <= run.n_iter
    assert factorize(obj, 4, rng=0, max_iter=35, tol=1e-8, polish_tol="auto").n_iter == 35
    sparse = Objective(sp.csr_array(counts()), 1.5)
    assert "no second derivatives" in newton_limit(sparse, 4) and newton_limit(obj, 4) is None
    assert factorize(sparse, 2, rng=0, max_iter=20, tol=1e-8, polish_tol="auto").status is Status.max_iter
    huge = Objective(Data(torch.ones(1, 1).expand(10**6, 10**5)), 2.)
    assert "400 MB" in newton_limit(huge, 20)


def test_small_and_large_problems_take_the_same_newton_direction(monkeypatch):
    import anmf_lab.elimination as module
    for loss, masked in ((2., False), (1., False), (1.5, True)):
        X = counts() + .5
        data = as_data(np.where(np.random.default_rng(1).random(X.shape) < .8, X, np.nan) if masked else X)
        start_ = factorize(Objective(data, loss), 4, rng=0, max_iter=100, polish_tol=None).state
        ends = []
        for limit in (0., 1e12):
            monkeypatch.setattr(module, "DIRECT", limit)
            ends.append(polish(data, *start_, loss, tol=1e-10))
        assert all(e.status is Status.converged for e in ends) and ends[1].n_hvp < ends[0].n_hvp
        assert feature_error(*ends[0].state, *ends[1].state) < 1e-6


# --- missing entries

@quiet
@pytest.mark.parametrize("loss", LOSSES)
def test_mask_and_nan_agree_and_holes_have_no_influence(loss):
    X = positive()
    M = np.random.default_rng(0).random(X.shape) < .7
    fits = [NMF(4, loss=loss, init="random", random_state=0, tol=0, max_iter=60, solver="auto").fit(Y, **kw)
            for Y, kw in ((np.where(M, X, np.nan), {}), (X, dict(mask=M)), (np.where(M, X, 1e9), dict(mask=M)), (pd.DataFrame(np.where(M, X, np.nan)), {}))]
    for f in fits[1:]:
        assert_array_equal(f.components_, fits[0].components_)


@quiet
def test_few_observations_are_said_aloud():
    X = np.where(np.random.default_rng(0).random((40, 30)) < .2, positive(), np.nan)
    X[0], X[:, 0] = 1., 1.
    seen, free = int(np.isfinite(X).sum()), 5 * (40 + 30 - 5)
    assert seen < free
    with pytest.warns(UserWarning, match=f"{seen} observed entries for {free} parameters"):
        NMF(5, init="random", random_state=0).fit(X)
    NMF(1, init="random", random_state=0).fit(X)      # enough for one component: no warning


@quiet
@pytest.mark.parametrize("model", [al.NMF(5, loss="kullback-leibler"), al.ATNMF(5), al.ATNMF(5, eps=.1, norm="row"), al.ANMF(5), al.L21NMF(5), al.HuberNMF(5), al.CauchyNMF(5),
                                   al.CorrentropyNMF(5), al.CappedNMF(5)], ids=lambda m: str(m)[:40])
def test_every_model_that_completes_says_what_a_parameter_has(model):
    X = np.where(np.random.default_rng(0).random((40, 30)) < .2, positive(), np.nan)
    X[0], X[:, 0] = 1., 1.
    seen, free = int(np.isfinite(X).sum()), 5 * (40 + 30 - 5)
    with pytest.warns(UserWarning, match=f"{seen} observed entries for {free} parameters, {seen / free:.2f} for each") as said:
        model.set_params(random_state=0, max_iter=5).fit(X)
    assert said[0].filename == __file__                # the line of the call, not of the library
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        if hasattr(model, "l2"): model.set_params(l2=.1).fit(X)      # a penalty decides what is predicted


def test_masked_completion_of_an_exact_matrix():
    rng = np.random.default_rng(0)
    X = rng.gamma(1., size=(60, 4)) @ rng.gamma(1., size=(4, 40))
    M = rng.random(X.shape) < .5
    m = NMF(4, init="random", n_init=3, random_state=0, polish=True)
    R = m.inverse_transform(m.fit_transform(X, mask=M))
    assert np.sqrt(np.mean((R - X)[~M]**2)) < 1e-5 * X.std()


# --- solver loop behaviour

def test_interrupt_keeps_the_best(monkeypatch):
    import anmf_lab.solve as module
    calls = {"n": 0}
    original = module.hals_step

    def impatient(*a, **k):
        calls["n"] += 1
        if calls["n"] > 2:      # a call is ten updates
            raise KeyboardInterrupt
        return original(*a, **k)
    monkeypatch.setattr(module, "hals_step", impatient)
    with pytest.warns(ConvergenceWarning, match="was interrupted and keeps the best factors"):
        m = NMF(3, random_state=0, tol=0).fit(counts())
    assert m.status_ is Status.interrupted and m.n_iter_ == 20 and np.isfinite(m.components_).all()


def test_convergence_warning_says_how_far():
    with pytest.warns(ConvergenceWarning, match=r"max_iter=2\) without reaching tol=1e-06 \(KKT residual"):
        NMF(3, max_iter=2).fit(counts())


def test_sklearn_callbacks_are_called():
    callback = pytest.importorskip("sklearn.callback", reason="callbacks need scikit-learn 1.9")
    seen = []

    class Watch:
        def setup(self, estimator, context): pass
        def teardown(self, estimator, context): pass
        def on_fit_task_begin(self, estimator, context): pass
        def on_fit_task_end(self, estimator, context, *, X=None, fitted_estimator=None): seen.append(fitted_estimator.transform(X).shape)
    assert isinstance(Watch(), callback.FitCallback)
    NMF(3, random_state=0).set_callbacks(Watch()).fit(counts())
    assert len(seen) >= 2 and set(seen) == {(40, 3)}


def test_pickle_and_score():
    X = counts()
    m = NMF(4, random_state=0, tol=1e-3).fit(X)
    again = pickle.loads(pickle.dumps(m))
    assert_array_equal(again.transform(X), m.transform(X))
    assert 0 < m.score(X) < 1
    assert NMF(8, random_state=0, tol=1e-3).fit(X).score(X) > m.score(X)
    with pytest.raises(NotImplementedError, match="FactorModel must define _solve"):
        FactorModel()._solve(None, None, None, None)


# --- bad input

BAD = [
    (dict(n_components=0), {}, "n_components must be a whole number >= 1, got 0"),
    (dict(n_components=2.5), {}, "n_components must be a whole number >= 1, got 2.5"),
    (dict(loss="kl"), {}, "loss must be one of 'frobenius'"),
    (dict(solver="cd"), {}, "solver must be one of 'auto', 'hals', 'mu', 'mue', 'em', got 'cd'"),
    (dict(solver="hals", loss=1), {}, "solver='hals' minimises loss='frobenius' only"),
    (dict(init="svd"), {}, "init must be one of 'random'"),
    (dict(init="nndsvd", n_init=3), {}, "would all be the same"),
    (dict(init="nndsvd", n_components=31), {}, "n_components <= min"),
    (dict(init="kmeans", n_components=41), {}, "n_components <= n_samples = 40"),
    (dict(init="custom"), {}, "init='custom' needs the start"),
    (dict(init="custom"), dict(W=np.ones((40, 2))), "W and H must be given together"),
    (dict(init="custom"), dict(W=np.ones((40, 3)), H=np.ones((2, 30))), r"W must have shape \(40, 2\)"),
    (dict(init="custom"), dict(W=-np.ones((40, 2)), H=np.ones((2, 30))), "Negative values in data passed to W"),
    (dict(l1=-1.), {}, "l1 must be a number >= 0, got -1.0"),
    (dict(l2="big"), {}, "l2 must be a number >= 0, got 'big'"),
    (dict(max_iter=0), {}, "max_iter must be a whole number >= 1"),
    (dict(tol=-1e-3), {}, "tol must be a number >= 0"),
    (dict(polish=-1.), {}, "polish must be a number > 0"),
    (dict(random_state="x"), dict(), "random_state must be None"),
    (dict(device="tpu9"), {}, "device must be 'auto', 'cpu' or 'cuda'"),
    (dict(loss="itakura-saito"), {}, "is infinite where X is 0"),
    ({}, dict(mask=np.ones((3, 3))), "mask must have the shape of X"),
    ({}, dict(mask=np.full((40, 30), .5)), "mask must be boolean"),
    ({}, dict(mask=np.arange(40)[:, None] * np.ones((1, 30)) > 0), "nothing observed in row 0"),
    ({}, dict(mask=np.ones((40, 1)) * np.arange(30) > 0), "nothing observed in column 0"),
]


@pytest.mark.parametrize("params, fit, words", BAD, ids=[b[2][:40] for b in BAD])
def test_bad_arguments(params, fit, words):
    if params.get("random_state") == "x":
        params = {**params, "init": "random"}
    with pytest.raises(ValueError, match=words):
        NMF(**params).fit(counts(), **fit)


@pytest.mark.parametrize("X, words", [
    (counts() - 1, "Negative values in data passed to X"),
    (np.where(counts() > 5, np.inf, 1.), "infinity"),
    (np.empty((0, 3)), "0 sample"),
    (np.empty((3, 0)), "0 feature"),
    (np.ones(5), "2D array"),
    (torch.ones(3, 0), "empty"),
    (torch.ones(5), "2-dimensional"),
    (np.array([["a", "b"]], dtype=object), "could not convert|string"),
    (np.array([[1 + 2j, 3]]), "Complex data not supported"),
    (sp.csr_matrix(np.array([[1., np.nan], [1., 1.]])), "contains NaN"),
    (np.array([[np.nan, np.nan], [1., 2.]]), "nothing observed in row 0"),
], ids=lambda v: v if isinstance(v, str) else "")
def test_bad_data(X, words):
    with pytest.raises(ValueError, match=words):
        NMF(1).fit(X)


def test_bad_transform():
    m = NMF(3, random_state=0).fit(counts())
    with pytest.raises(ValueError, match="expecting 30 features"):
        m.transform(np.ones((2, 7)))
    with pytest.raises(ValueError, match="expecting 30 features"):
        m.transform(torch.ones(2, 7))
    with pytest.raises(ValueError, match=r"X must have 3 columns \(codes\), got 4"):
        m.inverse_transform(np.ones((2, 4)))
    assert_allclose(m.transform(np.where(np.arange(30) == 4, np.nan, counts()[:2]))[:, 0] >= 0, True)   # a new sample may miss a feature


# --- choosing parameters

@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999), st.floats(.05, .9), st.floats(.1, 1.))
def test_speckles_leave_something_everywhere(seed, holdout, observed):
    rng = np.random.default_rng(seed)
    M = rng.random((12, 9)) < observed
    hidden = speckles(M, holdout, seed)
    assert not (hidden & ~M).any()
    for axis in (0, 1):
        assert ((M & ~hidden).any(axis) == M.any(axis)).all()


@quiet
def test_search_over_two_parameters_and_parallel():
    X = positive(k=3)
    grid = {"n_components": [1, 3], "l2": [0., .01]}
    a = SpeckledSearchCV(NMF(random_state=0, tol=1e-3), grid, n_splits=2, random_state=0).fit(X)
    b = SpeckledSearchCV(NMF(random_state=0, tol=1e-3), grid, n_splits=2, random_state=0, n_jobs=2).fit(X)
    assert a.best_params_["n_components"] == 3 and a.cv_results_["split_errors"].shape == (4, 2)
    assert_allclose(a.cv_results_["split_errors"], b.cv_results_["split_errors"], rtol=1e-9)
    assert_array_equal(a.transform(X), a.best_estimator_.transform(X))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("beta", [1., 1.5])
def test_polish_goes_below_the_rounding_of_the_objective(beta):
    "Data of exactly low rank end at an objective of zero; the residual must not stall there"
    rng = np.random.default_rng(0)
    data = as_data(rng.gamma(.3, size=(80, 4)) @ rng.gamma(.3, size=(4, 60)))
    for seed in range(3):
        m = NMF(4, loss=beta, init="random", random_state=seed, max_iter=300, tol=1e-3)
        W = m.fit_transform(data.X)
        run = polish(data, W, m.components_, beta, tol=1e-11)
        assert run.status == "converged" and run.residuals[-1] <= 1e-11


@pytest.mark.parametrize("c", [1e-40, 1e-12, 1e12, 1e40])
def test_a_solution_does_not_know_its_unit(c):
    rng = np.random.default_rng(0)
    W, H = (rng.gamma(2., size=shape) * (rng.random(shape) < .7) for shape in ((12, 3), (3, 9)))
    X = W @ H + .05 * rng.random((12, 9))
    one, other = (NMF(3, init="random", random_state=0, polish=True).fit(s * X) for s in (1., c))
    assert one.status_ == other.status_ == Status.converged
    assert_allclose(other.inverse_transform(other.transform(c * X)) / c, one.inverse_transform(one.transform(X)), rtol=1e-6, atol=1e-8)


def test_pcg_stops_where_the_preconditioner_sees_nothing():
    "A right-hand side that the preconditioner maps to zero is no division by zero"
    b = torch.ones(3, 2), torch.ones(2, 3)
    x, info = pcg(lambda v: v, b, lambda r: (0*r[0], 0*r[1]))
    assert not x[0].any() and info.n_iter == 0 and info.residual == 1


# --- real data, where it is

def test_faces_have_one_solution():
    "Kullback-Leibler, rank 5, CBCL test faces: seeds agree after polishing, and not before"
    from anmf_lab.data import load_dataset
    try:
        X = load_dataset("cbcl_test").data / 255.
    except (OSError, ValueError) as e:
        pytest.skip(f"the CBCL test faces are not here: {e}")
    fits = [NMF(5, loss="kullback-leibler", init="random", random_state=s, polish=True, max_iter=500, tol=1e-3) for s in range(3)]
    solutions = [(m.fit_transform(X), m.components_) for m in fits]
    assert max(feature_error(*a, *b) for a in solutions for b in solutions) <= 1e-6


def test_masked_completion_of_the_published_matrix():
    "AT-NMF's noise-free synthetic matrix, half of it hidden: the fit predicts it, where a column mean is off by 3.8"
    from anmf_lab.data import load_dataset
    try:
        d = load_dataset("atnmf")
    except (OSError, ValueError) as e:
        pytest.skip(f"the published masks are not here: {e}")
    X, mask = np.asarray(d.data), d.masks["synthetic"][2]
    error = []
    for seed in range(3):
        search = SpeckledSearchCV(NMF(5, init="random", random_state=seed, polish=1e-6, max_iter=500), {"l2": [0., 1e-3]}, n_splits=1,
                                  random_state=seed).fit(X, mask=mask)
        R = search.best_estimator_.inverse_transform(search.transform(X, mask=mask))
        error.append(np.sqrt(np.mean((R - X)[~mask]**2)))
    assert np.median(error) <= .02


@pytest.mark.parametrize("unit", [1e-9, 1e9])
def test_cubes_in_single_precision(unit):
    "A loss of cubes leaves the range of float32 earlier than squares do"
    X = np.random.default_rng(0).gamma(1, size=(30, 20)).astype(np.float32)
    plain, other = (NMF(3, loss=3., random_state=0).fit(Z) for Z in (X, X * np.float32(unit)))
    assert np.isfinite(other.kkt_residual_) and other.kkt_residual_ <= other.tol
    shares = [m.components_ / m.components_.sum() for m in (plain, other)]
    np.testing.assert_allclose(*shares, atol=1e-3)
