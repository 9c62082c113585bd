# ruff: noqa: E402
"""Time to a good fit, against other NMF libraries: same data, same start, one thread, CPU time.

    python benchmarks/bench_nmf.py [--rounds 5] [--out benchmarks/nmf.json]
    python benchmarks/bench_nmf.py --against CHECKOUT     (another version of this repository: see against.py)

Peers are optional; one that is not installed is skipped. They want an environment of their own:

    python -m venv peers && peers/bin/pip install torch==2.13.0
    peers/bin/pip install -e . nimfa torchnmf nmf-torch nn-fac
    peers/bin/python benchmarks/bench_nmf.py

nimfa 1.4 calls `np.mat`, which NumPy 2 no longer has; it gets `np.asmatrix` under that name here.

What is measured. `cost`: CPU ms per iteration, the slope between runs of 2 and of 12 iterations, median over
rounds that go through all methods in turn (the machine may be shared); it contains the checks that a method
makes every 10 iterations. `its`: iterations from the common start to 1.001 (least squares) or 1.02 (KL) times
the best objective that any method found. `ms` is their product. Where a peer runs the textbook multiplicative
update, `its` is taken from one reference trace (to a multiple of 5), and `drift` says how far the peer's own
objective after 12 iterations is from that trace; all others are traced, one iteration at a time, for at most
15 CPU seconds (`not_after`: they had not arrived after so many). Checks that a peer does not need are off.
"""
import os
for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"): os.environ.pop(name, None)
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"): os.environ[name] = "1"
import argparse
import contextlib
import importlib.metadata
import io
import json
import platform
import time
import warnings
from pathlib import Path
import numpy as np
import torch
import anmf_lab
from against import record as against
from anmf_lab.core import as_data
from anmf_lab.divergence import divergence
from anmf_lab.loop import iterate
from anmf_lab.objective import Entrywise
from anmf_lab.polish import measure
from anmf_lab.records import write_whole
from anmf_lab.solve import updates
from anmf_lab.solvers import mu_step

SHAPES = {"i": (2429, 361, 49), "ii": (5000, 784, 10)}
TARGET = {"frobenius": 1.001, "kullback-leibler": 1.02}
BETA = {"frobenius": 2, "kullback-leibler": 1}
SHORT, LONG = 2, 12


def problem(n, f, k, seed=0):
    "Sparse gamma factors, 10 % Gaussian noise, clipped; and a start of the right scale"
    rng = np.random.default_rng(seed)
    W, H = (rng.gamma(1., size=s) * (rng.random(s) < .5) for s in ((n, k), (k, f)))
    X = W @ H
    X = (X + .1 * X.mean() * rng.standard_normal(X.shape)).clip(0)
    scale = np.sqrt(X.mean() / k)
    return X, np.abs(rng.standard_normal((n, k))) * scale, np.abs(rng.standard_normal((k, f))) * scale


# Each maker returns run(n) -> (W, H): n iterations from the start. `None` where the peer has no such method.

def ours(X, W, H, loss):
    obj, start = Entrywise(as_data(X), BETA[loss]), (torch.from_numpy(W), torch.from_numpy(H))
    step = updates(obj, W.shape[1])
    return lambda n: iterate(step, start, lambda s: measure(obj, s[0], s[1]), max_iter=n, tol=0).state[:2]


def sklearn(solver):
    def make(X, W, H, loss):
        from sklearn.decomposition import non_negative_factorization as nnf
        if solver == "cd" and loss != "frobenius": return None
        return lambda n: nnf(X, W.copy(), H.copy(), n_components=W.shape[1], init="custom", solver=solver, beta_loss=loss, tol=0, max_iter=n)[:2]
    return make


def nmf_torch(algo):
    def make(X, W, H, loss):
        from nmf.nmf_models._nmf_batch_hals import NMFBatchHALS
        from nmf.nmf_models._nmf_batch_mu import NMFBatchMU
        if algo != "mu" and loss != "frobenius": return None
        Xt, kind = torch.from_numpy(X), NMFBatchMU if algo == "mu" else NMFBatchHALS
        how = {} if algo == "mu" else dict(hals_tol=.05, hals_max_iter=1 if algo == "hals" else 200)
        def run(n):
            m = kind(W.shape[1], "random", BETA[loss], -1., 0, 0., 0., 0., 0., Xt.dtype, "cpu", 1, max_iter=n, **how)
            def begin(eps=0): m.H, m.W = torch.from_numpy(W.copy()), torch.from_numpy(H.copy())
            m._initialize_H_W = begin
            with contextlib.redirect_stdout(io.StringIO()): m.fit(Xt)
            return m.H, m.W
        return run
    return make


def torchnmf(X, W, H, loss):
    from torchnmf.nmf import NMF as Peer
    Xt = torch.from_numpy(X)
    def run(n):
        m = Peer(W=torch.from_numpy(H.T.copy()), H=torch.from_numpy(W.copy()))
        m.fit(Xt, beta=BETA[loss], tol=-1., max_iter=n)
        return m.H.detach(), m.W.detach().T
    return run


def nimfa(method):
    def make(X, W, H, loss):
        if not hasattr(np, "mat"): np.mat = np.asmatrix
        import nimfa
        if X.dtype != np.float64 or method == "lsnmf" and loss != "frobenius": return None
        def run(n):
            common = dict(seed=None, W=W.copy(), H=H.copy(), rank=W.shape[1], max_iter=n, test_conv=10)
            kind = "euclidean" if loss == "frobenius" else "divergence"
            m = nimfa.Lsnmf(X, min_residuals=1e-15, **common) if method == "lsnmf" else nimfa.Nmf(X, update=kind, objective="fro" if loss == "frobenius" else "div", **common)
            fit = m()
            return np.asarray(fit.basis()), np.asarray(fit.coef())
        return run
    return make


def nn_fac(rule):
    def make(X, W, H, loss):
        from nn_fac.nmf import nmf as peer
        if X.dtype != np.float64 or rule != "mu" and loss != "frobenius": return None
        def run(n):
            with contextlib.redirect_stdout(io.StringIO()):
                return peer(X, W.shape[1], init="custom", U_0=W.copy(), V_0=H.copy(), n_iter_max=n, tol=0, update_rule=rule, beta=BETA[loss], deterministic=True)[:2]
        return run
    return make


# name: (package, maker, reference trace of its multiplicative updates: which factor goes first)
METHODS = {
    "anmf-lab": ("anmf-lab", ours, None),
    "scikit-learn cd": ("scikit-learn", sklearn("cd"), None),
    "scikit-learn mu": ("scikit-learn", sklearn("mu"), "W"),
    "nmf-torch hals": ("nmf-torch", nmf_torch("hals"), None),
    "nmf-torch halsvar": ("nmf-torch", nmf_torch("halsvar"), None),
    "nmf-torch mu": ("nmf-torch", nmf_torch("mu"), "W"),
    "torchnmf": ("torchnmf", torchnmf, "H"),
    "nimfa lsnmf": ("nimfa", nimfa("lsnmf"), None),
    "nimfa nmf": ("nimfa", nimfa("nmf"), "H"),
    "nn-fac hals_acc": ("nn-fac", nn_fac("hals_acc"), None),
    "nn-fac mu": ("nn-fac", nn_fac("mu"), "W"),
}


def value(data, W, H, beta):
    W, H = (torch.as_tensor(np.asarray(T)).double() for T in (W, H))
    return float(divergence(data, W, H, beta))


def mu_trace(data, W, H, beta, first, most, stop):
    "{iteration: objective} of multiplicative updates, at `LONG` and at every fifth, until it is below `stop`"
    problem, state = (data, (W, H)) if first == "W" else (data.T, (H.T.contiguous(), W.T.contiguous()))
    out = {}
    for n in range(1, most + 1):
        state = mu_step(problem, state, beta)
        if n % 5 and n != LONG: continue
        out[n] = float(divergence(problem, *state, beta))
        if out[n] <= stop: break
    return out


def reach(make, X, W, H, loss, stop, limit=15.):
    "(iterations until the objective is below `stop`, or None; iterations made): one at a time, at most `limit` CPU seconds"
    data, begin, n = as_data(X.astype(np.float64)), time.process_time(), 0
    if make is ours:
        step = updates(Entrywise(as_data(X), BETA[loss]), W.shape[1])
        state = torch.from_numpy(W), torch.from_numpy(H)
    while time.process_time() - begin < limit:
        if make is ours: state = step(state); W, H = state[:2]
        else: W, H = (np.ascontiguousarray(T) for T in make(X, W, H, loss)(1))
        n += 1
        if value(data, W, H, BETA[loss]) <= stop: return n, n
    return None, n


def cpu(f, *args):
    t = time.process_time()
    f(*args)
    return 1e3 * (time.process_time() - t)


def bench(shape, loss, rounds, seed):
    "Records of every method and precision on one problem"
    X, W, H = problem(*SHAPES[shape], seed)
    beta, data = BETA[loss], as_data(X)
    low = [T.astype(np.float32) for T in (X, W, H)]
    best = value(data, *ours(*low, loss)(400 if beta == 2 else 1000), beta)
    stop, runs, rows = best * TARGET[loss], {}, []
    for name, (_, make, _) in METHODS.items():
        for dtype in (np.float32, np.float64):
            try: run = make(X.astype(dtype), W.astype(dtype), H.astype(dtype), loss)
            except ImportError: print(f"{name}: not installed, skipped (see the top of this file)"); break
            if run is not None: runs[name, dtype.__name__] = run
    times = {key: [] for key in runs}
    for _ in range(rounds):
        for key, run in runs.items(): times[key].append((cpu(run, LONG) - cpu(run, SHORT)) / (LONG - SHORT))
    orders = {METHODS[name][2] for name, _ in runs} - {None}
    single = as_data(low[0]), torch.from_numpy(low[1]), torch.from_numpy(low[2])
    traces = {o: mu_trace(*single, beta, o, 1200 if beta == 1 else 200, stop) for o in orders}
    for (name, dtype), run in runs.items():
        row, (_, make, first) = dict(method=name, dtype=dtype, cost=float(np.median(times[name, dtype])), costs=np.round(times[name, dtype], 2).tolist()), METHODS[name]
        if first is None: row["its"], made = reach(make, *(T.astype(dtype) for T in (X, W, H)), loss, stop)
        else:
            curve, made = traces[first], max(traces[first])
            row["its"] = made if curve[made] <= stop else None
            row["drift"] = float(abs(value(data, *run(LONG), beta) / curve[LONG] - 1))
        row["not_after"] = None if row["its"] else made
        row["ms"] = row["its"] and row["cost"] * row["its"]
        rows.append(row)
        print(f"{shape:3}{loss:18}{name:18}{dtype:9}{row['cost']:8.2f} ms/it {row['its'] or '-':>5} its {row['ms'] or float('nan'):9.0f} ms", flush=True)
    return dict(problem=shape, shape=SHAPES[shape], loss=loss, seed=seed, best=best, target=TARGET[loss], rows=rows)


def ratios(record):
    "Ours over the fastest peer: in the same precision, and over all"
    out = {}
    for r in record["results"]:
        done = [row for row in r["rows"] if row["ms"]]
        ours = {row["dtype"]: row["ms"] for row in done if row["method"] == "anmf-lab"}
        for kind in ("float32", "float64", "any"):
            peers = [row for row in done if row["method"] != "anmf-lab" and kind in (row["dtype"], "any")]
            mine = min(ours.values()) if kind == "any" else ours.get(kind)
            if peers and mine:
                top = min(peers, key=lambda row: row["ms"])
                out[f"{r['problem']} {r['loss']} {kind}"] = dict(ratio=round(mine / top["ms"], 3), ours_ms=round(mine), peer_ms=round(top["ms"]), peer=f"{top['method']} {top['dtype']}")
    return out


def version(package):
    if package == "anmf-lab": return anmf_lab.__version__
    try: return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError: return None


def main():
    p = argparse.ArgumentParser(description="NMF speed against other libraries")
    p.add_argument("--against", type=Path, metavar="CHECKOUT", help="compare with another version instead")
    p.add_argument("--rounds", type=int, help="default: 5, and 150 short ones with --against")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--problems", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    p.add_argument("--out", type=Path, help="default: nmf.json here, or results/objective/bench.json")
    args = p.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    here = Path(__file__).resolve().parent
    if args.against:
        found = against(args.against, args.rounds or 150, .02)
        out = args.out or here.parent / "results" / "objective" / "bench.json"
        write_whole(out, (json.dumps(found, indent=1) + "\n").encode())
        print(f"lowest ratio {found['lowest']}, {found['cpu_seconds']} CPU seconds")
        return
    args.rounds, args.out = args.rounds or 5, args.out or here / "nmf.json"
    packages = sorted({m[0] for m in METHODS.values()} | {"numpy", "torch"})
    record = dict(command=f"python benchmarks/bench_nmf.py --rounds {args.rounds} --seed {args.seed} --problems {' '.join(args.problems)}", python=platform.python_version(), machine=platform.machine(),
                  threads=1, rounds=args.rounds, versions={q: version(q) for q in packages},
                  results=[bench(s, loss, args.rounds, args.seed) for loss in BETA for s in args.problems])
    record["ratios"] = ratios(record)
    args.out.write_text(json.dumps(record, indent=1) + "\n")
    for name, r in record["ratios"].items(): print(f"{name:32} {r['ratio']:6.2f}   ({r['ours_ms']} ms against {r['peer_ms']} ms, {r['peer']})")


if __name__ == "__main__": main()
