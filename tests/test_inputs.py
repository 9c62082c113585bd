"""What goes in: every kind of input gives an honest answer or an error that names the argument."""
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

import anmf_lab as al
from anmf_lab.adversary import ball_delta, box_delta, check_lam, l1_delta
from anmf_lab.align import balance, feature_error, feature_error_grad, match
from anmf_lab.bounds import samples_needed
from anmf_lab.data import load_dataset
from anmf_lab.metrics import clustering_accuracy, masked_rmse, nmi
from anmf_lab.nmf import NMF
from anmf_lab.selection import SpeckledSearchCV


def draw(*shape, seed=0):
    return np.random.default_rng(seed).random(shape)


def refused(f, *words, kinds=(ValueError, TypeError)):
    "`f()` is refused by an error that says all `words`"
    with pytest.raises(kinds) as e: f()
    for word in words: assert word in str(e.value), f"{word!r} is not in: {e.value}"


# --- the adversary's budgets

@pytest.mark.parametrize("group", ["all", "row", "column"])
@pytest.mark.parametrize("unit", [1e-12, 1., 10., 1e9])
def test_a_budget_is_spent_on_what_is_observed(group, unit):
    g = torch.Generator().manual_seed(0)
    for i in range(40):
        X, Y = (unit * torch.rand(4, 5, generator=g, dtype=torch.float64) for _ in range(2))
        if i % 2: Y = Y + unit                                  # everything is predicted too high
        mask = (torch.rand(4, 5, generator=g) < .6).double()
        eps = unit**2 * 10**(i % 5 - 2)
        r = ball_delta(X, Y, eps, group=group, mask=mask)
        assert not r.delta[mask == 0].any() and (X + r.delta >= 0).all()
        spent = {"all": (r.delta**2).sum()[None], "row": (r.delta**2).sum(1), "column": (r.delta**2).sum(0)}[group]
        assert (spent <= eps * (1 + 1e-9)).all()
        other = ball_delta(torch.where(mask > 0, X, torch.nan), torch.where(mask > 0, Y, torch.inf), eps, group=group, mask=mask)
        torch.testing.assert_close(other.delta, r.delta, rtol=0, atol=0)      # hidden values do not matter
        if group == "row":                                      # the row without its hidden entries
            for x, y, m, d in zip(X, Y, mask > 0, r.delta, strict=True):
                if m.any(): torch.testing.assert_close(ball_delta(x[m][None], y[m][None], eps).delta[0], d[m])


def test_the_hidden_entry_of_the_issue_stays():
    X, Y, mask = (torch.tensor([a]) for a in ([0., 10.], [20., 30.], [1., 0.]))
    r = ball_delta(X, Y, 900., group="row", mask=mask)
    assert r.delta.tolist() == [[0., 0.]]      # it was [[0., 30.]]: the hidden entry paid


@pytest.mark.parametrize("bad", [-1., float("nan"), float("inf")])
def test_budgets_and_prices_that_cannot_be_meant(bad):
    X = torch.ones(2, 2)
    for f in (ball_delta, box_delta, l1_delta): refused(lambda f=f: f(X, X, bad), "eps")
    refused(lambda: check_lam(bad), "lam")
    refused(lambda: check_lam(torch.tensor([2., bad])), "lam")


# --- comparing factors

@pytest.mark.parametrize("bad, words", [
    (lambda W: -W, ("W", "negative")),
    (lambda W: W * 1j, ("W", "real")),
    (lambda W: torch.from_numpy(W) * 1j, ("W", "real")),
    (lambda W: np.full(W.shape, None), ("W", "numbers")),
    (lambda W: np.full(W.shape, "a"), ("W", "numbers")),
    (lambda W: np.ma.masked_less(W, .5), ("W", "masked")),
    (lambda W: W[0], ("W", "matrix")),
])
def test_only_nonnegative_real_factors_are_compared(bad, words):
    W, H = draw(6, 3), draw(3, 5, seed=1)
    for f in (feature_error, match, feature_error_grad):
        refused(lambda f=f: f(bad(W), H, W, H), *words)
        refused(lambda f=f: f(W, H, bad(W), H), *(w.replace("W", "W_ref") for w in words))


def test_factors_of_any_real_kind_are_compared():
    W, H = draw(6, 3), draw(3, 5, seed=1)
    fe = feature_error(W + .1, H, W, H)
    for kind in (np.asfortranarray, pd.DataFrame, sp.csr_array, torch.from_numpy, np.ndarray.tolist):
        assert abs(feature_error(kind(W + .1), kind(H), W, H) - fe) < 1e-12
    fixed = (W + .1).copy()
    fixed.flags.writeable = False
    assert abs(feature_error(fixed, H, W, H) - fe) < 1e-12
    assert abs(feature_error(torch.from_numpy(W + .1).float(), torch.from_numpy(H).float(), W, H) - fe) < 1e-6


@pytest.mark.parametrize("c", [1e-18, 1e-9, 1., 1e9, 1e18])
def test_balance_in_single_precision_at_any_unit(c):
    W, H = draw(6, 3).astype(np.float32), draw(3, 5, seed=1).astype(np.float32)
    a, b = balance(np.float32(c) * W, H)
    assert a.dtype == np.float32
    np.testing.assert_allclose(a / c**.5, balance(W, H)[0], rtol=1e-5)
    np.testing.assert_allclose(b / c**.5, balance(W, H)[1], rtol=1e-5)


# --- scores

def test_scores_of_labels_that_are_not_labels():
    y = np.array([0, 0, 1, 1])
    refused(lambda: clustering_accuracy(np.ma.array(y, mask=[1, 0, 0, 0]), y), "y_true", "masked")
    refused(lambda: nmi(y, np.array([None, 1, "a", 2], dtype=object)), "y_pred")
    refused(lambda: clustering_accuracy(y, [0, np.nan, 1, 1]), "y_pred")


def test_rmse_counts_what_is_known_and_refuses_the_rest():
    X, Y = draw(4, 3), draw(4, 3, seed=1)
    M = draw(4, 3, seed=2) < .7
    want = masked_rmse(X, Y, M)
    assert masked_rmse(np.ma.array(np.where(M, X, 1e9), mask=~M), Y) == pytest.approx(want, rel=1e-12)
    assert masked_rmse(X, Y, sp.csr_array(M)) == pytest.approx(want, rel=1e-12)
    assert masked_rmse(X, np.where(M, Y, np.nan), M) == pytest.approx(want, rel=1e-12)
    for c in (1e-200, 1e200): assert masked_rmse(c * X, c * Y, M) == pytest.approx(c * want, rel=1e-12)
    refused(lambda: masked_rmse(X, np.where(M, np.nan, Y), M), "Y")
    refused(lambda: masked_rmse(X + np.inf, Y), "X")
    refused(lambda: masked_rmse(X, Y, np.full(X.shape, "yes", dtype=object)), "mask")


# --- numbers about numbers

def test_a_bound_that_no_sample_size_reaches():
    refused(lambda: samples_needed(3, level=1e-200), "level")
    refused(lambda: samples_needed(3, level=float("nan")), "level")


# --- the search for a rank

def test_a_search_without_a_winner_says_so():
    X = draw(12, 8)
    refused(lambda: SpeckledSearchCV(NMF(), []).fit(X), "param_grid")
    refused(lambda: SpeckledSearchCV(NMF(), None).fit(X), "param_grid")
    refused(lambda: SpeckledSearchCV(NMF, {"n_components": [2]}).fit(X), "estimator")


# --- models: what once gave a wrong answer without a word, or an error that named nothing

KL = "kullback-leibler"
X = draw(30, 3) @ draw(3, 12, seed=1)
FACTORS = draw(30, 3, seed=2), draw(3, 12, seed=3)
MODELS = {"NMF": lambda **how: al.NMF(3, init="random", random_state=0, **how), "NMF, KL": lambda **how: al.NMF(3, loss=KL, init="random", random_state=0, **how),
          "ATNMF": lambda **how: al.ATNMF(3, random_state=0, **how), "ANMF": lambda **how: al.ANMF(3, random_state=0, **how),
          "L21NMF": lambda **how: al.L21NMF(3, random_state=0, **how), "HuberNMF": lambda **how: al.HuberNMF(3, random_state=0, **how)}


def components(model, X, **given):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(model.fit(X, **given).components_)


def put(value):
    Y = X.copy()
    Y[1, 1] = value
    return Y


@pytest.mark.parametrize("value", [np.inf, -np.inf, -1., np.nan, 1e300])
@pytest.mark.parametrize("name", MODELS)
def test_what_a_mask_hides_does_not_matter(name, value):
    M = np.ones(X.shape, bool)
    M[1, 1] = False
    want = components(MODELS[name](max_iter=3), X, mask=M)
    for kind in (np.asarray, pd.DataFrame, torch.from_numpy, np.ndarray.tolist):
        np.testing.assert_array_equal(components(MODELS[name](max_iter=3), kind(put(value)), mask=M), want)
    np.testing.assert_array_equal(components(MODELS[name](max_iter=3), np.ma.array(put(value), mask=~M)), want)
    if name != "ANMF": np.testing.assert_array_equal(components(MODELS[name](max_iter=3), put(value), weights=M.astype(float)), want)


@pytest.mark.parametrize("kind", [sp.csr_array, lambda M: M.astype(object), np.ndarray.tolist, pd.DataFrame, torch.from_numpy, lambda M: M.astype(float)])
def test_a_mask_of_any_kind(kind):
    M = draw(30, 12, seed=5) < .9
    np.testing.assert_array_equal(components(al.NMF(3, max_iter=5, random_state=0), X, mask=kind(M)), components(al.NMF(3, max_iter=5, random_state=0), X, mask=M))


@pytest.mark.parametrize("mask", [np.full(X.shape, None), np.full(X.shape, "yes", dtype=object), np.full(X.shape, .5), "all", np.ones((2, 2), bool)])
def test_what_is_no_mask_is_refused(mask):
    refused(lambda: al.NMF(3).fit(X, mask=mask), "mask")


def test_data_of_every_sparse_layout():
    want = components(al.NMF(3, max_iter=5), sp.csr_array(X))
    T = torch.from_numpy(X)
    for S in (T.to_sparse(), T.to_sparse_csr(), T.to_sparse_csc(), T.to_sparse_bsr((2, 2)), T.to_sparse_bsc((2, 2))):
        np.testing.assert_allclose(components(al.NMF(3, max_iter=5), S), want, rtol=1e-9)
        for model in (al.HuberNMF(3), al.ANMF(3, solver="admm")): refused(lambda m=model, S=S: m.fit(S), "X", "dense")
        refused(lambda S=S: al.LaFA(eps=.01).run(al.NMF(3), S), "X", "dense")
    for init in ("kmeans", "nndsvd", "nndsvda"):
        for kind in (sp.csr_array, sp.coo_array, sp.csc_matrix): components(al.NMF(3, init=init, max_iter=5, random_state=0), kind(X))
    for loss in ("frobenius", KL): assert not components(al.NMF(3, loss=loss, polish=True), sp.csr_array((30, 12))).any()


def test_a_start_that_init_contradicts():
    W, H = FACTORS
    for model in (al.NMF(3, init="random"), al.ATNMF(3, init="nndsvd"), al.L21NMF(3), al.ANMF(3, init="kmeans")): refused(lambda m=model: m.fit(X, W=W, H=H), "init", "custom")
    for model in (al.NMF(3), al.NMF(3, init="custom")): components(model.set_params(max_iter=3), X, W=W, H=H)
    refused(lambda: al.NMF(3).fit(X, W=W), "H")


@pytest.mark.parametrize("model", [al.NMF(loss="itakura-saito"), al.NMF(loss=-1.), al.ATNMF(eps=.1, norm="row"), al.ATNMF(eps=.1, norm="linf"), al.ATNMF(polish=True),
                                   al.ANMF(solver="admm"), al.HuberNMF(), al.CauchyNMF(), al.NMF(), al.NMF(loss=KL), al.L21NMF(), al.ATNMF(), al.ANMF()], ids=str)
def test_the_tag_says_whether_sparse_data_are_welcome(model):
    tag = model.__sklearn_tags__().input_tags.sparse
    try: components(model.set_params(max_iter=3), sp.csr_array(X))
    except (TypeError, ValueError) as e: assert not tag and ("dense" in str(e) or "toarray" in str(e))
    else: assert tag


def test_kullback_leibler_from_a_start_with_zeros():
    m = al.ATNMF(2, loss=KL, init="nndsvd", random_state=0).fit(np.eye(8))
    W = m.transform(np.eye(8))
    Y = (W @ m.components_)[np.eye(8) > 0]
    assert m.status_ == "converged" and m.loss_curve_[-1] < 20 and (Y > 0).all()      # it was 7e153


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("unit, dtype", [(1e-17, np.float32), (1e30, np.float32), (1e-90, float), (1e90, float)])
def test_small_and_large_units_are_fitted_alike(name, unit, dtype):
    "1e-17 in single precision ended with an error of .116 instead of .002, called converged"
    def error(c):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            m = MODELS[name](max_iter=60)
            W = m.fit_transform((X * c).astype(dtype)).astype(float)
            return np.linalg.norm(X - W @ m.components_.astype(float) / c)
    assert abs(error(unit) - error(1.)) <= 2e-3 * np.linalg.norm(X)


@pytest.mark.parametrize("name", MODELS)
def test_a_number_that_drowns_the_others(name):
    refused(lambda: MODELS[name]().fit(put(1e200)), "X is too large", "Divide")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        m = MODELS[name]().fit(put(1e30).astype(np.float32))
    assert np.isfinite(m.components_).all() and not np.isnan(m.kkt_residual_)
    assert m.status_ == "converged" and m.kkt_residual_ <= m.tol or said


@pytest.mark.parametrize("how, words", [
    (dict(goal=("merge", 0, 0)), ("merge", "two components")), (dict(goal=None), ("goal",)), (dict(goal=("hide", 9)), ("goal", "9")),
    (dict(box=(90., 99.)), ("box", "leaves out")), (dict(box=(0,)), ("box",)), (dict(explore=-5), ("explore",)), (dict(n_iter=-1), ("n_iter",)),
    (dict(reference=3), ("reference",)), (dict(reference=("a", "b")), ("reference",)), (dict(random_state="x"), ("random_state",)), (dict(eps=[]), ("eps",)),
])
def test_an_attack_that_cannot_be_meant(how, words):
    refused(lambda: al.LaFA(**dict(eps=.01) | how).run(al.NMF(2, random_state=0, tol=1e-3), X), *words)


def test_prices_at_which_nothing_is_left():
    for model in (al.ANMF(3, lam=1e300), al.ANMF(3, solver="admm", gamma=1e300)): refused(lambda m=model: m.fit(X), "unit")
    for model in (al.ANMF(3), al.ANMF(3, solver="admm")): refused(lambda m=model: m.fit(X * 1e200), "X is too large")


# --- files

def broken(folder, name):
    "A file that begins like what it should be, and then does not go on"
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    heads = {".npz": b"PK\x03\x04 no zip", ".mat": b"MATLAB 5.0 MAT-file" + bytes(200), ".pgm": b"P5\n19 19\n255\n..", ".mtx": b"%%MatrixMarket\n1",
             ".data": b"0\t1\t3\n", ".zip": b"PK\x03\x04"}
    path.write_bytes(heads[path.suffix])
    return path


@pytest.mark.parametrize("data, file", [
    ("moffett", "clean_Moffet.mat"), ("moffett", "moffett_hyperspectral.npz"), ("madonna", "madonna.npz"), ("cbcl", "cbcl/train/face/face01.pgm"),
    ("bbcsport", "bbcsport/bbcsport.mtx"), ("movielens", "ml-100k/u.data"), ("movielens", "ml-100k.zip"), ("tdt2", "TDT2.mat"),
])
def test_a_broken_file_is_named(data, file, tmp_path):
    path = broken(tmp_path, file)
    for verify in (True, False):
        refused(lambda v=verify: load_dataset(data, data_home=tmp_path, download=False, verify=v), path.name, kinds=ValueError)


@pytest.mark.parametrize("line", ["0\t1\t3", "1\t0\t3", "944\t1\t3", "1\t1683\t3", "-1\t1\t3", "1\tx\t3"])
def test_a_film_that_is_not_there_is_not_the_last_one(line, tmp_path):
    (tmp_path / "ml-100k").mkdir()
    (tmp_path / "ml-100k" / "u.data").write_text(line + "\n")
    refused(lambda: load_dataset("movielens", data_home=tmp_path, download=False), "u.data")


def test_a_price_of_any_size_is_a_price():
    "Beyond single precision, too: an adversary that pays so much does nothing"
    fits = [al.ATNMF(2, lam=lam, random_state=0).fit(X).components_ for lam in (1e30, 1e39, 1e300)]
    assert np.array_equal(fits[0], fits[1]) and np.array_equal(fits[0], fits[2])


@pytest.mark.parametrize("polish_tol", [1e-9, "auto"])
def test_factorize_starts_from_arrays_of_any_kind(polish_tol):
    "NumPy, lists, pandas and tensors are one start; it is not written to; a stack is several; float32 data stay float32"
    rng = np.random.default_rng(0)
    X, W, H = rng.gamma(1., size=(12, 9)), rng.random((12, 3)) + .1, rng.random((3, 9)) + .1
    obj, before = al.Objective(X, "kullback-leibler"), (W.copy(), H.copy())
    how = dict(rng=0, polish_tol=polish_tol, max_iter=300)
    want = al.factorize(obj, 3, W=torch.from_numpy(W.copy()), H=torch.from_numpy(H.copy()), **how).state
    for kind in (np.asarray, np.ndarray.tolist, pd.DataFrame, np.asfortranarray):
        for a, b in zip(al.factorize(obj, 3, W=kind(W), H=kind(H), **how).state, want, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)
    np.testing.assert_array_equal(np.r_[W.ravel(), H.ravel()], np.r_[before[0].ravel(), before[1].ravel()])
    run = al.factorize(obj, 3, W=np.stack([W, W[:, ::-1]]), H=np.stack([H, H]), **how)
    assert run.state[0].shape == (12, 3) and run.loss <= float(obj.value(*want)) * (1 + 1e-9)
    single = al.Objective(X.astype(np.float32), "kullback-leibler")
    assert al.factorize(single, 3, W=W, H=H, max_iter=5, polish_tol=None).state[0].dtype == torch.float32


def test_factorize_refuses_a_start_that_does_not_fit():
    obj, W, H = al.Objective(np.ones((5, 4)) + np.eye(5, 4)), np.ones((5, 2)), np.ones((2, 4))
    for bad, says in ((dict(W=W), "together"), (dict(H=H), "together"), (dict(W=W.T, H=H), "W must have shape"), (dict(W=W, H=H.T), "H must have shape"),
                      (dict(W=-W, H=H), "W"), (dict(W=W, H=H * np.nan), "H"), (dict(W=W[None], H=np.stack([H, H])), "as many starts")):
        with pytest.raises(ValueError, match=says):
            al.factorize(obj, 2, **bad)
