"Rows in several processes: the same answer as one process, and errors that all of them hear"
import argparse
import contextlib
import io
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import scipy.sparse as sp
import torch
import torch.distributed as dist
from tqdm import tqdm

import anmf_lab as al
from anmf_lab.commands import Checkpoint, fit_arguments, fit_run, shard_files, solve_shards
from anmf_lab.core import Data
from anmf_lab.distributed import Split, together
from anmf_lab.loop import Run, Status
from anmf_lab.objective import Entrywise, loss_of

pytestmark = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()), reason="needs torch.distributed with gloo")
CUTS = {2: [slice(0, 70), slice(70, 200)], 3: [slice(0, 70), slice(70, 150), slice(150, 200)]}


def problem(seed=0, n=200, f=40, k=4, shape=1.):
    rng = np.random.default_rng(seed)
    X = rng.gamma(shape, size=(n, k)) @ rng.gamma(shape, size=(k, f)) + .1 * rng.gamma(1, size=(n, f))
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
    assert difference(make, X, n_processes, W, H, **given) < 1e-9      # of rounding: one process has compiled sweeps


@pytest.mark.parametrize("loss", ["frobenius", "kullback-leibler"])
def test_newton_ends_where_one_process_ends(loss):
    X, W, H, _ = problem(shape=.2)      # few large entries: one solution. With shape 1 a continuum has the same loss
    assert difference(lambda: al.NMF(4, loss=loss, init="custom", tol=1e-8), X, 2, W, H) < 1e-5


def test_newton_in_single_precision_ends_where_one_process_ends(monkeypatch):
    monkeypatch.setitem(CUTS, 2, [slice(0, 300), slice(300, 1100)])      # one shard is small, the other is not
    X, W, H, _ = problem(n=1100, f=400, shape=.2)
    assert difference(lambda: al.NMF(4, loss="kullback-leibler", init="custom", tol=1e-8), X, 2, W, H) < 1e-5


def test_joint_updates_are_those_of_one_process(monkeypatch):
    monkeypatch.setitem(CUTS, 2, [slice(0, 300), slice(300, 1100)])
    X, W, H, _ = problem(n=1100, f=400)
    make = lambda: al.NMF(4, loss="kullback-leibler", init="custom", polish=False, max_iter=40, tol=0)
    assert difference(make, X, 2, W, H) < 1e-9
    X[350, 5] = np.nan                                   # in the second shard only: the other update, in both
    assert difference(make, X, 2, W, H) < 1e-9


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


ADVERSARIAL = {
    "ATNMF": lambda: al.ATNMF(4, lam=3., l1=.1, l2=.02, init="custom", max_iter=20, tol=0),
    "ATNMF, weights": lambda: al.ATNMF(4, lam=3., init="custom", max_iter=20, tol=0),
    "ATNMF, sparse": lambda: al.ATNMF(4, lam=3., bound="uniform", init="custom", max_iter=20, tol=0),
    "ATNMF, KL": lambda: al.ATNMF(4, lam=3., loss="kullback-leibler", init="custom", max_iter=20, tol=0),
    "ATNMF, rows": lambda: al.ATNMF(4, eps=3., norm="row", init="custom", max_iter=20, tol=0),
    "ANMF": lambda: al.ANMF(4, init="custom", max_iter=20, tol=0, random_state=0),
    "ANMF, holes": lambda: al.ANMF(4, strength=1., init="custom", max_iter=20, tol=0, random_state=0),
    "ANMF, gamma": lambda: al.ANMF(4, gamma=1e-3, init="custom", max_iter=20, tol=0, random_state=0),
    "ANMF, refit": lambda: al.ANMF(4, scale="components", features="refit", init="custom", max_iter=20, tol=0,
                                   random_state=0),
}


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_adversarial_models_are_those_of_one_process(name):
    X, W, H, rng = problem()
    given = {}
    if "holes" in name: X[rng.uniform(size=X.shape) < .1] = np.nan
    if "weights" in name: given = dict(weights=rng.uniform(.5, 2, size=X.shape))
    if "sparse" in name: X = sp.csr_array(np.where(X > 3, X, 0))
    assert difference(ADVERSARIAL[name], X, 2, W, H, **given) < 1e-10


@pytest.mark.parametrize("model, words", [
    (al.HuberNMF(2), "HuberNMF needs the whole"), (al.ANMF(2, solver="admm"), "solver='admm' needs the whole"),
    (al.ATNMF(2, eps=1.), "a budget a row"), (al.ANMF(2, target="noise"), "drawn for all rows"),
    (al.ATNMF(2, solver="alternating"), "solver='auto'")])
def test_what_needs_all_rows_says_so(model, words):
    X = problem()[0]
    with pytest.raises(ValueError, match=words): together(lambda me: model.fit(al.shard(X[CUTS[2][me]])), 2)


# --- rows on a disk

def parts(X, folder, n=5):
    files = [folder / f"part-{i}.npy" for i in range(n)]
    for file, part in zip(files, np.array_split(X, n), strict=True): np.save(file, part)
    return files


@pytest.mark.parametrize("loss, solver", [("frobenius", "auto"), ("kullback-leibler", "auto"), ("kullback-leibler", "em"), (1.5, "auto")])
def test_rows_on_a_disk_are_fitted_like_rows_in_memory(loss, solver, tmp_path):
    X, W, H, _ = problem(n=60)
    files = parts(X, tmp_path)
    make = lambda: al.NMF(4, loss=loss, solver=solver, init="custom", polish=False, max_iter=15, tol=0)
    one = make().fit(X, W=W, H=H)
    whole = tmp_path / "whole.npy"
    np.save(whole, X)
    for source in (files, lambda: (X[a:a + 7] for a in range(0, 60, 7)), whole, np.load(whole, mmap_mode="r"), [X]):
        model = make().fit(al.blocks(source), W=W, H=H)
        np.testing.assert_allclose(model.components_, one.components_, rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(model.loss_curve_, one.loss_curve_, rtol=1e-9)


def test_rows_on_request_are_those_asked_for():
    X = np.random.default_rng(0).random((20, 3))
    rows = al.blocks(lambda: (X[a:a + 7] for a in range(0, 20, 7))).rows
    for a, b in ((0, 4), (0, 2), (0, 2), (2, 9), (9, 20), (5, 8)):
        np.testing.assert_array_equal(rows[slice(a, b)].numpy(), X[a:b])


def test_float32_on_a_disk_stays_float32(tmp_path):
    X = problem(n=60)[0].astype(np.float32)
    model = al.NMF(3, max_iter=5, tol=1e-2, random_state=0).fit(al.blocks(parts(X, tmp_path)))
    assert model.components_.dtype == np.float32 and model.transform(al.blocks([X])).dtype == np.float32


def test_blocks_that_cannot_be_fitted(tmp_path):
    X = problem(n=60)[0]
    files = parts(X, tmp_path)
    with pytest.raises(ValueError, match="only once"): al.blocks(iter([X]))
    with pytest.raises(ValueError, match="yield nothing"): al.blocks(lambda: iter([]))
    with pytest.raises(ValueError, match="7 columns"): al.blocks([X, X[:, :7]])
    with pytest.raises(ValueError, match="of float32"): al.blocks([X, X.astype(np.float32)])
    with pytest.raises(ValueError, match="mask"): al.NMF(2).fit(al.blocks(files), mask=X > 0)
    with pytest.raises(ValueError, match="init='random'"): al.NMF(2, init="nndsvd").fit(al.blocks(files))
    with pytest.raises(ValueError, match="beta"): al.NMF(2, loss="itakura-saito").fit(al.blocks(files))
    for model in (al.HuberNMF(2), al.ATNMF(2, lam=3.), al.ANMF(2)):
        with pytest.raises(ValueError, match=f"{type(model).__name__} needs the whole"): model.fit(al.blocks(files))
    with pytest.raises(ValueError, match="this function needs the whole"):
        al.identifiability(al.NMF(2, max_iter=5, tol=1., random_state=0).fit(X), al.blocks(files))
    with pytest.raises(ValueError, match="block 1 must have 2 dimensions"): al.blocks([X, X[0]])
    with pytest.raises(ValueError, match="block 1 holds complex128"): al.blocks([X, X * 1j])


@pytest.mark.parametrize("value", [-1, np.nan, np.inf])
def test_a_wrong_value_is_named_by_file_and_row(value, tmp_path, monkeypatch):
    monkeypatch.setattr("anmf_lab.stored.CHUNK", 5 * 40)      # files are read in several parts
    X = problem(n=60)[0]
    files = parts(X, tmp_path)
    A = np.load(files[3])
    A[8, 3] = value
    np.save(files[3], A)
    with pytest.raises(ValueError, match=rf"part-3\.npy: row 8 has {value:g} in column 3"): al.blocks(files)


def test_files_are_read_in_parts_of_any_size(tmp_path, monkeypatch):
    X = problem(n=60)[0]
    for size, n_parts in ((10**6, 5), (5 * 40, 15)):
        monkeypatch.setattr("anmf_lab.stored.CHUNK", size)
        rows = al.blocks(parts(X, tmp_path)).rows
        assert len(rows.known.marks) == n_parts
        for i in (slice(0, 7), slice(7, 30), slice(7, 30), slice(40, 60), slice(0, 7), slice(3, 5), slice(None)):
            np.testing.assert_array_equal(rows[i].numpy(), X[i])
        assert rows.known.sq == pytest.approx((X**2).sum(), rel=1e-12) and rows.max() == X.max()


@pytest.mark.parametrize("change", ["values", "order", "fewer", "more"])
def test_blocks_that_change_between_passes(change):
    X, n = problem(n=8000)[0], 0     # more than is held in memory
    A, B = X[:4000], X[4000:]
    later = {"values": [A + 1, B], "order": [A[::-1], B], "fewer": [A], "more": [A, B, X[:3]]}[change]
    def source():
        nonlocal n
        n += 1
        return iter([A, B] if n < 4 else later)
    with pytest.raises(ValueError, match="first pass|later pass"):
        al.NMF(2, random_state=0, max_iter=5, tol=1.).fit(al.blocks(source))


MEMORY = """
import resource, sys, warnings, numpy as np, torch
import anmf_lab as al
warnings.simplefilter("ignore")
torch.set_num_threads(1)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)
make = lambda: al.NMF(4, polish=False, max_iter=1, init="random", random_state=0)
make().fit(al.blocks(sys.argv[1]))
before = peak()
make().fit(al.blocks(sys.argv[2]))
print(peak() - before)
"""


def test_a_fit_to_a_file_does_not_hold_it(tmp_path):
    pytest.importorskip("resource", reason="peak memory is read from the process, which this system does not tell")
    files = [tmp_path / "small.npy", tmp_path / "large.npy"]
    rows = np.random.default_rng(0).gamma(1, size=(500, 1000)).astype(np.float32)
    for file, n in zip(files, (4_000, 24_000), strict=True):
        out = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=(n, 1000))
        for a in range(0, n, 500): out[a:a + 500] = rows
        del out
    said = subprocess.run([sys.executable, "-c", MEMORY, *map(str, files)], check=True, capture_output=True, text=True)
    assert float(said.stdout) < 40     # 96 MB of data, which are read as float64 too: 192


def _counted(me): return sum(tqdm(range(3), file=io.StringIO()))


def test_a_lock_that_a_thread_of_the_caller_holds_stops_nobody():
    "A fork of the caller would copy it, held for ever"
    held, done = threading.Event(), threading.Event()
    def hold():
        with tqdm.get_lock():
            held.set()
            done.wait()
    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    try: assert together(_counted, 2) == [3, 3]
    finally:
        done.set()
        holder.join()


# --- anmf-lab fit --shards

def shards(folder, *words, n_processes=1):
    "What `anmf-lab fit --shards` of the parts in a folder complains about, in one process or in each of several"
    parser = argparse.ArgumentParser()
    fit_arguments(parser)
    args = parser.parse_args(["--shards", str(folder / "part-*.npy"), "--rank", "3", "--out", str(folder), *words])
    def ask(me=0):
        with pytest.raises(ValueError) as e: fit_run(args)
        return str(e.value)
    said = together(ask, n_processes) if n_processes > 1 else [ask()]
    assert len(set(said)) == 1      # all processes hear the same
    return said[0]


def test_shards_that_are_not_all_there(tmp_path):
    assert "there is no such file" in shards(tmp_path)
    files = parts(problem()[0], tmp_path, 3)
    assert "3 files for 4 processes" in shards(tmp_path, n_processes=4)
    files[1].unlink()
    assert "number 1 is missing" in shards(tmp_path)
    files[1].write_bytes(files[0].read_bytes()[:30])
    assert "part-1.npy is no .npy file" in shards(tmp_path)


def test_shards_of_one_matrix_only(tmp_path):
    X = problem()[0]
    files = parts(X, tmp_path, 4)
    for change, words in ((X[:50, :7], "columns: 40 in process 0, 7 in process 1"),
                          (X[:50].astype(np.float32), "float64 in process 0, torch.float32 in process 1")):
        for file in files[2:]: np.save(file, change)
        assert words in shards(tmp_path, n_processes=2)
    assert "part-2.npy has 40 columns of float32, and" in shards(tmp_path)


def test_a_shard_with_a_negative_names_file_and_row(tmp_path):
    files = parts(problem()[0], tmp_path, 4)
    A = np.load(files[3])
    A[2, 5] = -1
    np.save(files[3], A)
    said = shards(tmp_path, n_processes=2)
    assert said.startswith("process 1: file ") and "part-3.npy: row 2 has -1 in column 5" in said
    assert shards(tmp_path).startswith("file ") and "part-3.npy: row 2" in shards(tmp_path, "--stream")


def test_a_checkpoint_of_another_question_is_refused(tmp_path):
    parts(problem()[0], tmp_path, 2)
    np.savez(tmp_path / "checkpoint.npz", about="{}")
    assert "is of other data or another question" in shards(tmp_path)


def test_shards_come_in_the_order_of_their_numbers(tmp_path):
    parts(problem()[0], tmp_path, 11)
    names = [os.path.basename(f) for f in shard_files(str(tmp_path / "part-*.npy"))]
    assert names == [f"part-{i}.npy" for i in range(11)]


def test_a_fit_of_shards_goes_on_where_its_checkpoint_is(tmp_path, monkeypatch):
    X, W, H, _ = (T if i == 3 else torch.from_numpy(T) for i, T in enumerate(problem()))
    file = Checkpoint(tmp_path / "checkpoint.npz", Split([200]), {})
    args = argparse.Namespace(rank=4, starts=2, seed=0, every=1e9)
    begun = []
    def solve(obj, k, *, W, H, **how):
        begun.append(W)
        return Run((W, H), np.ones(1), 0, Status.converged)
    monkeypatch.setattr("anmf_lab.commands.factorize", solve)
    for loss, best in ((.5, 2 * W), (2., None)):      # better, and worse, than what comes
        begun.clear()
        file.write(1, W, H, (loss, 2 * W, H))
        found = solve_shards(Entrywise(Data(X), loss_of("frobenius")), args, file)
        assert len(begun) == 1 and torch.equal(begun[0], W)
        assert found[0] == min(loss, 1.) and torch.equal(found[1], W if best is None else best)


DYING = """
import os, sys
from anmf_lab import commands
from anmf_lab.cli import main
class Dying(commands.Checkpoint):
    def read(self):
        kept = super().read()
        if kept is not None and self.split.first: print("goes on", flush=True)
        return kept
    def write(self, *at):
        super().write(*at)
        if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0" and self.split.me == 1: os._exit(7)
commands.Checkpoint = Dying
sys.exit(main(sys.argv[1:]))
"""


def test_a_job_goes_on_after_a_worker_died(tmp_path):
    X = problem()[0]
    parts(X, tmp_path, 2)
    (tmp_path / "job.py").write_text(DYING)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    fit = ["fit", "--shards", str(tmp_path / "part-*.npy"), "--rank", "3", "--every", "0", "--out", str(tmp_path)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    job = subprocess.Popen([*torchrun, str(tmp_path / "job.py"), *fit], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                           env=env, start_new_session=True)
    try: out, err = job.communicate(timeout=200)
    finally:
        with contextlib.suppress(ProcessLookupError): os.killpg(job.pid, signal.SIGKILL)     # its workers hold the pipes, too
    assert job.returncode == 0, err
    assert "goes on" in out and "200 rows in 2 processes" in out
    assert "exitcode: " in err                 # torchrun says who died, or who noticed it first
    assert not (tmp_path / "checkpoint.npz").exists()
    assert len((tmp_path / "codes.csv").read_text().splitlines()) == 201


ENDING = """
import atexit
import torch.distributed as dist
atexit.register(lambda: print("connected:", dist.is_initialized()))      # runs after what is registered later
import anmf_lab as al
al.shard([[1., 2.]])
print("connected:", dist.is_initialized())
"""


def test_what_shard_connected_parts_before_python_ends(tmp_path):
    "A thread of gloo that outlives Python's own objects aborts a finished process, now and then"
    meet = dist.TCPStore("localhost", 0, is_master=True)
    env = {**os.environ, "RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": str(meet.port),
           "TORCHELASTIC_USE_AGENT_STORE": "True"}
    said = subprocess.run([sys.executable, "-c", ENDING], capture_output=True, text=True, env=env, timeout=200)
    assert said.stdout.split("\n")[:2] == ["connected: True", "connected: False"], said.stderr


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
