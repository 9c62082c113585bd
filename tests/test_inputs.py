"""What goes in: every kind of input gives an honest answer or an error that names the argument."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

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
