"Rows in several processes: the same answer as one process, and errors that all of them hear"
import multiprocessing

import numpy as np
import pytest
import scipy.sparse as sp
import torch.distributed as dist

import anmf_lab as al
from anmf_lab.distributed import Split, together

pytestmark = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available() and "fork" in multiprocessing.get_all_start_methods()),
    reason="needs torch.distributed with gloo, and fork")
CUTS = {2: [slice(0, 70), slice(70, 200)], 3: [slice(0, 70), slice(70, 150), slice(150, 200)]}


def problem(seed=0, n=200, f=40, k=4):
    rng = np.random.default_rng(seed)
    X = rng.gamma(1, size=(n, k)) @ rng.gamma(1, size=(k, f)) + .1 * rng.gamma(1, size=(n, f))
    return X, rng.uniform(size=(n, k)), rng.uniform(size=(k, f)), rng


def difference(make, X, n_processes, W, H, **given):
    "Largest difference of the components and codes of one process and several, relative"
    def work(me):
        i, model = CUTS[n_processes][me], make()
        own = {name: T[i] for name, T in given.items()}
        codes = model.fit_transform(al.shard(X[i]), W=W[i], H=H, **own)
        return codes, model.components_, model.loss_curve_[-1], model.reconstruction_err_
    one = make()
    codes = one.fit_transform(X, W=W, H=H, **given)
    parts = together(work, n_processes)
    assert all((p[1] == parts[0][1]).all() for p in parts)
    assert np.allclose([p[2] for p in parts], one.loss_curve_[-1], rtol=1e-7)
    assert np.allclose([p[3] for p in parts], one.reconstruction_err_, rtol=1e-7)
    found = np.concatenate([p[0] for p in parts])
    return max(abs(found - codes).max() / codes.max(),
               abs(parts[0][1] - one.components_).max() / one.components_.max())


@pytest.mark.parametrize("kind", ["plain", "holes", "weights", "sparse", "penalties"])
@pytest.mark.parametrize("loss, n_processes", [("frobenius", 2), ("kullback-leibler", 3)])
def test_nmf_updates_are_those_of_one_process(kind, loss, n_processes):
    X, W, H, rng = problem()
    given, more = {}, {}
    if kind == "holes": X[rng.uniform(size=X.shape) < .1] = np.nan
    if kind == "weights": given = dict(weights=rng.uniform(.5, 2, size=X.shape))
    if kind == "sparse": X = sp.csr_array(np.where(X > 3, X, 0))
    if kind == "penalties": more = dict(l1=.1, l2=.05)
    make = lambda: al.NMF(4, loss=loss, init="custom", polish=False, max_iter=40, tol=0, **more)
    assert difference(make, X, n_processes, W, H, **given) < 1e-10


@pytest.mark.parametrize("loss", ["frobenius", "kullback-leibler"])
def test_newton_ends_where_one_process_ends(loss):
    X, W, H, _ = problem()
    assert difference(lambda: al.NMF(4, loss=loss, init="custom", tol=1e-8), X, 2, W, H) < 1e-5


def test_a_hole_in_one_shard_only():
    X, W, H, _ = problem()
    X[3, 5] = np.nan
    make = lambda: al.NMF(4, init="custom", polish=False, max_iter=20, tol=0)
    assert difference(make, X, 2, W, H) < 1e-10


def test_a_random_start_is_the_one_of_one_process():
    X = problem()[0]
    fit = lambda A: al.NMF(4, init="random", polish=False, max_iter=20, tol=0, random_state=3).fit(A).components_
    parts = together(lambda me: fit(al.shard(X[CUTS[2][me]])), 2)
    assert abs(parts[0] - fit(X)).max() < 1e-10 * parts[0].max()


def test_all_processes_hear_of_an_error_in_one():
    X = problem()[0]
    def fit(change):
        def work(me):
            A = X[CUTS[2][me]].copy()
            return al.NMF(2).fit(al.shard(change(A) if me == 1 else A))
        return together(work, 2)
    def negative(A):
        A[3, 5] = -1
        return A
    with pytest.raises(ValueError, match="process 1: Negative values"): fit(negative)
    with pytest.raises(ValueError, match="columns: 40 in process 0, 7 in process 1"): fit(lambda A: A[:, :7])
    with pytest.raises(ValueError, match="float64 in process 0, torch.float32 in process 1"):
        fit(lambda A: A.astype(np.float32))


def test_a_start_that_needs_all_rows_is_refused():
    X = problem()[0]
    with pytest.raises(ValueError, match="init='random'"):
        together(lambda me: al.NMF(2, init="nndsvd").fit(al.shard(X[CUTS[2][me]])), 2)


def test_a_worker_that_dies_ends_the_others():
    X = problem()[0]
    def work(me):
        import os
        if me == 1: os._exit(3)
        return al.NMF(2).fit(al.shard(X[CUTS[2][me]]))
    with pytest.raises(RuntimeError, match="has ended|died"): together(work, 2)


def test_without_other_processes_there_is_a_way():
    with pytest.raises(ValueError, match="torchrun"): al.shard(np.ones((3, 2)))
    assert Split([2, 3], 1).rows == slice(2, 5)


def _asked(me):
    "Messages of a model and of a function that need all rows"
    X = np.random.default_rng(me).random((8, 5)) + .1
    shard, said = al.shard(X), []
    for ask in (lambda: al.L21NMF(2, random_state=0).fit(shard),
                lambda: al.identifiability(al.NMF(2, random_state=0), shard)):
        try: ask()
        except ValueError as e: said.append(str(e))
    return said


def test_what_needs_all_rows_refuses_a_shard():
    for said in together(_asked, 2):
        assert len(said) == 2 and "L21NMF needs the whole matrix" in said[0] and "this function needs" in said[1]
