"""A hundred and forty kinds of input times every model, the functions of a model, the attack and the command line: an honest answer or an error that says why."""
import warnings
from functools import cache

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp
import torch
from kinds import LIKE, ROUND, SAME, WRONG, N, F, put, table
from sklearn.exceptions import ConvergenceWarning

import anmf_lab as al
from anmf_lab.cli import main
from anmf_lab.core import as_data
from anmf_lab.masks import unmasked

KL = "kullback-leibler"
SHORT = dict(init="random", random_state=0, max_iter=4)
MODELS = {
    "NMF": lambda: al.NMF(2, **SHORT),
    "NMF, KL": lambda: al.NMF(2, loss=KL, **SHORT),
    "NMF, 1.5, l1": lambda: al.NMF(2, loss=1.5, solver="mu", l1=.01, **SHORT),
    "NMF, k-means": lambda: al.NMF(2, **SHORT | dict(init="kmeans")),
    "ONMF": lambda: al.ONMF(2, random_state=0, max_iter=4),
    "L21NMF": lambda: al.L21NMF(2, random_state=0, max_iter=4),
    "CappedNMF": lambda: al.CappedNMF(2, random_state=0, max_iter=4),
    "CauchyNMF": lambda: al.CauchyNMF(2, random_state=0, max_iter=4),
    "CorrentropyNMF": lambda: al.CorrentropyNMF(2, random_state=0, max_iter=4),
    "HuberNMF": lambda: al.HuberNMF(2, random_state=0, max_iter=4),
    "ATNMF": lambda: al.ATNMF(2, **SHORT),
    "ATNMF, KL": lambda: al.ATNMF(2, loss=KL, **SHORT),
    "ATNMF, zeros": lambda: al.ATNMF(2, missing="zero", **SHORT),
    "ATNMF, box": lambda: al.ATNMF(2, norm="linf", eps=.1, **SHORT),
    "ANMF": lambda: al.ANMF(2, random_state=0, max_iter=4),
    "ANMF, ADMM": lambda: al.ANMF(2, solver="admm", random_state=0, max_iter=4),
}
REASONS = ("dense", "missing", "NaN", "n_components", "too large", "too small", "Sparse", "sparse", "observed", "all zero",
           "finite", "samples", "positive", "0", "weights", "lam")


def fitted(make, X):
    "(codes, components, model), or the error; any other warning than that of an unfinished fit is an error"
    model = make()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ConvergenceWarning)
        try: W = model.fit_transform(X)
        except (ValueError, TypeError) as e: return e
    W, H = (np.asarray(A.detach() if torch.is_tensor(A) else A, dtype=float) for A in (W, model.components_))
    return W, H, model


def honest(got, what):
    "Finite, nonnegative, of the right size, or refused for a reason"
    if isinstance(got, Exception):
        assert any(word in str(got) for word in REASONS), f"{what}: {got}"
        return
    W, H, model = got
    for A in (W, H):
        assert np.isfinite(A).all() and (A >= 0).all(), what
    assert W.shape[1] == len(H) == model.n_components_, what
    kinked = getattr(model, "norm", None) == "linf"        # no residual where the game has kinks, as its help says
    assert np.isfinite(model.reconstruction_err_) and np.isnan(model.kkt_residual_) == kinked, what


@pytest.mark.parametrize("name", MODELS)
def test_every_container_holds_the_same_table(name):
    make = MODELS[name]
    W, H, _ = fitted(make, table())
    for kind, rtol in ({k: 1e-6 for k in SAME} | {k: 2e-2 for k in ROUND}).items():
        got = fitted(make, (SAME | ROUND)[kind]())
        if isinstance(got, Exception):
            assert any(word in str(got) for word in ("dense", "toarray")) and any(word in kind for word in ("csr", "csc", "coo", "lil", "dok", "bsr", "dia", "sparse")), \
                f"{kind}: {got}"
            continue
        np.testing.assert_allclose(got[0] @ got[1], W @ H, rtol=0, atol=rtol * (W @ H).max(), err_msg=kind)


@pytest.mark.parametrize("name", MODELS)
def test_a_hard_table_is_factorized_or_refused_with_a_reason(name):
    for kind, X in LIKE.items():
        honest(fitted(MODELS[name], X()), kind)


@pytest.mark.parametrize("name", MODELS)
def test_what_is_no_table_is_refused(name):
    for kind, X in WRONG.items():
        got = fitted(MODELS[name], X())
        assert isinstance(got, Exception), f"{kind} was accepted"
        assert any(word in str(got) for word in ("X", "data", "array")), f"{kind}: {got}"


@pytest.mark.parametrize("name", [m for m in MODELS if m not in ("ONMF",)])
def test_missing_means_the_same_in_every_container(name):
    make = MODELS[name]
    hidden = put(np.nan, 1, 1)
    want = fitted(make, hidden)
    same = {"masked array": np.ma.masked_array(put(1e9, 1, 1), mask=np.isnan(hidden)), "torch": torch.tensor(hidden)}
    for kind, X in same.items():
        got = fitted(make, X)
        if isinstance(want, Exception):
            assert isinstance(got, Exception), kind
            continue
        np.testing.assert_allclose(got[0] @ got[1], want[0] @ want[1], rtol=1e-6, err_msg=kind)


# --- functions of a model and data: what is no table is refused before anything is solved

FUNCTIONS = [name for name in ("uncertainty", "rivals", "identifiability", "bands", "certify", "leave_one_out") if name in al.__all__]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_a_model_refuse_what_is_no_table(name):
    model = al.NMF(2, loss=KL, init="random", random_state=0, max_iter=50)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(table())
    for kind, X in WRONG.items():
        with pytest.raises((ValueError, TypeError)) as e:
            getattr(al, name)(model, X())
        assert any(word in str(e.value) for word in ("X", "data", "array", "n_components")), f"{kind}: {e.value}"


HARD = {   # functions of a model, and the least that they can be asked
    "uncertainty": dict(noise="gaussian"), "rivals": dict(n_seeds=3), "identifiability": dict(n_seeds=2),
    "bands": {}, "certify": {}, "leave_one_out": {},
}


@cache
def solved(kind):
    "(data, fitted model), or (data, None) where the fit is refused"
    X = LIKE[kind]()
    got = fitted(lambda: al.NMF(2, init="random", random_state=0, max_iter=200), X)
    return X, None if isinstance(got, Exception) else got[2]


@pytest.mark.parametrize("name", HARD)
def test_functions_of_a_model_answer_on_hard_tables_or_refuse_with_a_reason(name):
    "Any other error, and any warning but that of an unfinished fit, is a failure"
    for kind in LIKE:
        X, model = solved(kind)
        if model is None: continue
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", ConvergenceWarning)
            try: getattr(al, name)(model, X, **HARD[name])
            except (ValueError, TypeError) as e:
                assert any(word in str(e) for word in (*REASONS, "component", "observations")), f"{kind}: {e}"


# --- the attack

SMALL = dict(method="paper", n_iter=10, terms=5, steps=2, n_seeds=2, n_noise=1, n_usual=0)


def attack(X):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ConvergenceWarning)
        try: return al.LaFA("l2", .05, **SMALL).run(al.NMF(2, random_state=0, max_iter=100), X)
        except (ValueError, TypeError) as e: return e


@pytest.mark.parametrize("part", range(3))
def test_a_hard_table_is_attacked_within_its_budget_or_refused_with_a_reason(part):
    for kind in list(LIKE)[part::3]:
        got = attack(LIKE[kind]())
        if isinstance(got, Exception):
            assert any(word in str(got) for word in (*REASONS, "component")), f"{kind}: {got}"
            continue
        data = as_data(LIKE[kind]())
        seen = np.ones(data.shape, bool) if data.mask is None else data.mask.numpy() > 0
        X, Z = data.X.double().numpy()[seen], np.asarray(got.adversarial[.05], dtype=float)[seen]
        rounding = 1e-6 if data.dtype == torch.float32 else 1e-12
        assert np.isfinite(Z).all() and (Z >= 0).all() and Z.max() <= X.max() * (1 + rounding), kind
        size = X.max()
        assert np.linalg.norm((Z - X) / size) <= .05 * np.linalg.norm(X / size) * (1 + rounding) + rounding, kind
        row = got.records[-1]
        assert all(np.isfinite(row[name]) and row[name] >= 0 for name in ("feature_error", "random", "floor")), kind


def test_the_attack_refuses_what_is_no_table():
    for kind, X in WRONG.items():
        got = attack(X())
        assert isinstance(got, Exception) and any(word in str(got) for word in ("X", "data", "array")), f"{kind}: {got}"


# --- the command line

def stored(X, folder):
    "The table as a file that the command line reads, or None where no file holds it"
    try:
        if hasattr(X, "to_csv"):
            X.to_csv(folder / "X.csv", index=False)
            return folder / "X.csv"
        if torch.is_tensor(X):
            X = X.detach().to_dense().float().numpy() if X.dtype in (torch.float16, torch.bfloat16) else X.detach().to_dense().numpy()
        if sp.issparse(X):
            scipy.io.mmwrite(folder / "X.mtx", X)
            return folder / "X.mtx"
        if isinstance(X, np.ma.MaskedArray): X = unmasked(X)
        np.save(folder / "X.npy", np.asarray(X), allow_pickle=False)
        return folder / "X.npy"
    except (TypeError, ValueError, RuntimeError, AttributeError, NotImplementedError): return None


@pytest.mark.parametrize("group", ["SAME", "ROUND", "LIKE", "WRONG"])
def test_the_command_line_fits_a_file_or_says_why_not(group, tmp_path, capsys):
    "Exit status 0 and two files, or 1 and a message, and nothing written"
    kinds, done = dict(SAME=SAME, ROUND=ROUND, LIKE=LIKE, WRONG=WRONG)[group], 0
    for i, (kind, make) in enumerate(kinds.items()):
        folder, out = tmp_path / str(i), tmp_path / f"out{i}"
        folder.mkdir()
        file = stored(make(), folder)
        if file is None: continue
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", ConvergenceWarning)
            code = main(["fit", str(file), "--rank", "2", "--starts", "2", "-q", "--out", str(out)])
        said = capsys.readouterr().err
        assert code == 0 or (code == 1 and said.strip() and not out.exists()), f"{kind}: exit {code}, {said}"
        if code == 0:
            tables = [np.loadtxt(f, delimiter=",", skiprows=1, usecols=range(1, 3), ndmin=2) for f in sorted(out.glob("codes*.csv"))]
            assert len(tables) == 1 and np.isfinite(tables[0]).all() and (tables[0] >= 0).all(), kind
        if group in ("SAME", "ROUND"): assert code == 0, f"{kind}: {said}"
        done += 1
    assert done >= len(kinds) // 2


def test_the_kinds_are_a_hundred():
    assert len(SAME) + len(ROUND) + len(LIKE) + len(WRONG) >= 130
    assert table().shape == (N, F) and (table() > 0).any()
