"""What is said is what is returned: status, residual, curve and error of every model speak of the factors in the user's hands."""
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from test_units import IN_UNITS, MODELS, table

import anmf_lab as al
from anmf_lab.polish import kkt_residual

ALL = MODELS | {name: lambda make=make: make(1.) for name, make in IN_UNITS.items()} | {
    "NMF, polish": lambda: al.NMF(2, polish=True), "NMF, loose": lambda: al.NMF(2, tol=1e-2, polish=False), "NMF, mue": lambda: al.NMF(2, solver="mue"),
    "NMF, rank one": lambda: al.NMF(1), "NMF, rank seven": lambda: al.NMF(7, loss="kullback-leibler", random_state=0),
    "ANMF, ADMM": lambda: al.ANMF(2, solver="admm", max_iter=50), "ANMF, relaxed": lambda: al.ANMF(2, gamma=.1, max_iter=100),
    "ANMF, refit": lambda: al.ANMF(2, features="refit"), "ANMF, attacked": lambda: al.ANMF(2, features="attacked"), "ANMF, free": lambda: al.ANMF(2, scale="free"),
    "ATNMF, columns": lambda: al.ATNMF(2, eps=.05, norm="column"), "ATNMF, multiplicative": lambda: al.ATNMF(2, solver="mu"),
    "ATNMF, uniform": lambda: al.ATNMF(2, bound="uniform"), "ATNMF, zeros": lambda: al.ATNMF(2, missing="zero"), "ATNMF, restarts": lambda: al.ATNMF(2, n_init=2),
    "L2,1, multiplicative": lambda: al.L21NMF(2, solver="mu"), "Cauchy, released": lambda: al.CauchyNMF(2, cut="released"), "Huber, restarts": lambda: al.HuberNMF(2, n_init=2),
    "orthogonal, restarts": lambda: al.ONMF(2, n_init=2, max_iter=50)}
KINDS = {"as it is": table, "single": lambda: table().astype(np.float32), "holes": lambda: table(True), "sparse": lambda: sp.csr_array(np.where(table() < .6, 0, table())),
         "cut short": table}
KINKED = ("ATNMF, box", "ATNMF, log-ball", "ATNMF, KL, squares")


def fitted(name, kind):
    "(data, codes, model), or None where this model refuses this kind"
    model, X = ALL[name](), KINDS[kind]()
    if kind == "cut short": model.set_params(max_iter=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try: return X, model.set_params(random_state=0).fit_transform(X), model
        except (TypeError, ValueError) as e:
            assert kind in ("holes", "sparse"), e
            return None


def goal(model):
    return model._goal() or np.inf


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ALL)
def test_what_is_said_is_what_is_returned(name, kind):
    got = fitted(name, kind)
    if got is None: return
    X, W, m = got
    status, residual = m.status_, m.kkt_residual_
    assert (status == "converged") <= (residual <= goal(m) or name in KINKED), (status, residual)
    assert (status != "converged") <= (not residual <= goal(m) or m.tol == 0 or "published" in name), (status, residual)
    assert np.isnan(residual) == (name in KINKED)
    H, W = (np.asarray(A, dtype=float) for A in (m.components_, W))
    if m._beta() == 2 and kind != "sparse":
        R = np.where(np.isnan(X), 0, X - W @ H)
        if "zeros" in name: R = np.where(np.isnan(X), 0, X) - W @ H
        np.testing.assert_allclose(m.reconstruction_err_, np.linalg.norm(R), rtol=1e-4 if kind == "single" else 1e-9)
    curve_and_residual(name, kind, X, m)


def curve_and_residual(name, kind, X, m):
    "Value and residual of the model's own objective at the factors returned"
    W, H = (torch.as_tensor(np.asarray(A, dtype=float)) for A in m.factors(X))
    try:
        obj = m.objective(X if kind == "sparse" else np.asarray(X, dtype=float))
        obj.value(W, H)
    except (ValueError, NotImplementedError): return                 # ADMM, a relaxed game, sparse data without second derivatives
    if name not in ("ANMF, refit", "ANMF, attacked"):
        rtol = 1e-3 if kind == "single" else 1e-6
        np.testing.assert_allclose(m.loss_curve_[-1], float(obj.value(W, H)), rtol=rtol)
    if isinstance(m, al.NMF) or (isinstance(m, al.ATNMF) and m.kkt_residual_ > 0):
        np.testing.assert_allclose(m.kkt_residual_, kkt_residual(obj, W, H), rtol=1e-2, atol=2e-6 if kind == "single" else 1e-10)
