"""Sparse data stay sparse: what every model holds in memory, and the same numbers as dense input."""
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from numpy.testing import assert_allclose

from anmf_lab.core import as_data
from anmf_lab.data import load_dataset
from anmf_lab.objective import Entrywise
from anmf_lab.solve import factorize, updates

ROOT = Path(__file__).resolve().parent.parent
N, F = 10_000, 24_000            # 1.9 GB, were it dense
FIT = """
import resource, sys, warnings
import numpy as np, scipy.sparse as sp, torch
import anmf_lab as al
torch.set_num_threads(1)
warnings.simplefilter("ignore")
def peak():
    if sys.platform == "darwin": return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with open("/proc/self/status") as f:       # getrusage would begin with the peak of the process that started this one
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmHWM"))
n, f = int(sys.argv[1]), int(sys.argv[2])
rng = np.random.default_rng(0)
rows, topic = np.arange(n).repeat(2), rng.integers(3, size=n).repeat(2)
X = sp.csr_array((1. + rng.poisson(1., size=2 * n), (rows, topic * (f // 3) + rng.integers(f // 3, size=2 * n))), shape=(n, f))
before, how = peak(), dict(random_state=0)
for name, model in {
    "squared": al.NMF(3, init="random", max_iter=103, **how),                           # the last three are Newton's
    "kl": al.NMF(3, loss="kullback-leibler", init="random", max_iter=32, **how),        # the last two
    "kl, nndsvda": al.NMF(3, loss="kullback-leibler", max_iter=5, **how),
    "atnmf": al.ATNMF(3, max_iter=5, **how),                                            # zero-filled
    "anmf": al.ANMF(3, max_iter=5, **how),
}.items():
    W = model.fit_transform(X)
    model.transform(X[:100])
    assert W.shape == (n, 3) and np.isfinite(model.components_).all() and not sp.issparse(W)
    print(name, peak() - before, sep=": ")
np.ones((n // 4, f))                                                                    # a quarter of a dense array
print("dense", peak() - before, sep=": ")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no resource module")
def test_no_dense_array():
    "Fits of data that were 1.9 GB, were they dense, in less than a fifth of that: read from the process that made them"
    out = subprocess.run([sys.executable, "-c", FIT, str(N), str(F)], text=True, capture_output=True, cwd=ROOT,
                         env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert out.returncode == 0, out.stderr
    grown = {name: int(size) for name, size in (line.split(": ") for line in out.stdout.splitlines())}
    notices = grown.pop("dense")
    assert len(grown) == 5 and max(grown.values()) < .35e9, grown
    assert notices > .4e9            # a quarter of a dense array is seen


TEXT = """
import torch
from anmf_lab.core import as_data
from anmf_lab.data import load_dataset
from anmf_lab.objective import Entrywise
from anmf_lab.polish import measure
from anmf_lab.solve import factorize
from anmf_lab.solvers import solve_codes
torch.set_num_threads(1)
def peak():
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmHWM"))
data = as_data(load_dataset("tdt2").data.astype(float))
obj, before = Entrywise(data, 1.), peak()
def say(name): print(name, peak() - before, sep=": ", flush=True)
W, H = factorize(obj, 30, rng=0, max_iter=3, tol=0, polish_tol=None).state
measure(obj, W, H)
say("updates")
hess = obj.hessian(W, H)
hess(W, H)
say("product with the Hessian")
torch.ones(data.n * data.f // 5, dtype=data.dtype)
say("a fifth of a dense array")
hess.blocks()
solve_codes(as_data(load_dataset("tdt2").data[:100].astype(float)), H, 1.)
say("blocks and codes")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
def test_text_of_36771_terms_at_rank_30_makes_no_dense_array():
    "Kullback-Leibler on TDT2, where a dense array is 2.8 GB"
    try: n, f = load_dataset("tdt2").data.shape
    except FileNotFoundError: pytest.skip("TDT2 is not here: set ANMF_LAB_DATA")
    dense = 8 * n * f
    out = subprocess.run([sys.executable, "-c", TEXT], text=True, capture_output=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert out.returncode == 0, out.stderr
    grown = {name: int(size) for name, size in (line.split(": ") for line in out.stdout.splitlines())}
    assert grown["updates"] < .1 * dense and grown["product with the Hessian"] < .15 * dense
    assert grown["a fifth of a dense array"] > .19 * dense         # is noticed
    assert grown["blocks and codes"] < .6 * dense                  # k² numbers for each term


@pytest.mark.parametrize("sweeps", [1, 2])
@pytest.mark.parametrize("loss", ["frobenius", "kullback-leibler"])
def test_updates_of_sparse_are_those_of_dense(loss, sweeps):
    rng = np.random.default_rng(0)
    X = rng.poisson(5 * rng.gamma(.5, size=(40, 3)) @ rng.gamma(.5, size=(3, 30))) * (rng.random((40, 30)) < .4)
    W, H = (torch.from_numpy(rng.random(s)) for s in ((40, 3), (3, 30)))
    ends = [factorize(Entrywise(as_data(A), loss), 3, W=W, H=H, sweeps=sweeps, max_iter=40, tol=0, polish_tol=None).state
            for A in (X.astype(float), sp.csr_array(X.astype(float)))]
    for a, b in zip(*ends, strict=True): assert_allclose(a, b, rtol=1e-6, atol=1e-9)


def test_sweeps_where_they_are_cheap():
    "A second sweep costs (n + f) k² and saves a product; where less than a tenth is stored the shorter factor gets two"
    rng = np.random.default_rng(0)
    dense = rng.random((60, 50))
    at = rng.random(dense.shape)
    half, thin = (sp.csr_array(dense * (at < part)) for part in (.2, .05))
    W, H = torch.from_numpy(rng.random((60, 4))), torch.from_numpy(rng.random((4, 50)))
    for X, sweeps, others in ((dense, 2, (1, 3)), (half, 1, (2, (1, 2))), (thin, (1, 2), (1, (2, 1))), (thin.T.tocsr(), (2, 1), (1, (1, 2)))):
        obj, state = Entrywise(as_data(X), 2.), (W, H) if X.shape[0] == 60 else (H.T, W.T)
        chosen, same, *different = (updates(obj, 4, sweeps=s)(state)[1] for s in (None, sweeps, *others))
        assert_allclose(chosen, same, rtol=1e-12)
        assert all(float((chosen - T).abs().max()) > 1e-6 for T in different)
