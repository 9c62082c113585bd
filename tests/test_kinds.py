"""A hundred and forty kinds of input times every model, and every public function of data: an honest answer or an error that says why."""
import warnings

import numpy as np
import pytest
import torch
from kinds import LIKE, ROUND, SAME, WRONG, N, F, put, table
from sklearn.exceptions import ConvergenceWarning

import anmf_lab as al

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


def test_the_kinds_are_a_hundred():
    assert len(SAME) + len(ROUND) + len(LIKE) + len(WRONG) >= 130
    assert table().shape == (N, F) and (table() > 0).any()
