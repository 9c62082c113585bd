"""The first-order iterations of two checkouts, beside each other in one process: CPU time, medians.

    python benchmarks/bench_nmf.py --against CHECKOUT [--rounds 150] [--out results/objective/bench.json]

CHECKOUT is a folder with another version of this repository, e.g. `git worktree add /tmp/before COMMIT`. Both
versions are imported into this process, one after the other, and work on the same data from the same start. They
take turns in bursts of some hundredths of a second: first the one, then the other, and in the next round the
other first, so that whatever else the machine does meets both. The ratio is the median over the rounds of
(CPU time there) / (CPU time here): above 1, this version is faster. An iteration is what `iterate` does in a
fit: the update, and at every tenth the objective and its residual.
"""
import importlib
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"): os.environ[name] = "1"

import numpy as np  # noqa: E402
import scipy.sparse as sp  # noqa: E402
import torch  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
SOLVERS = {"hals": 2., "mu": 1., "mue": 1., "mu, beta 1.5": 1.5}      # name -> β
KINDS = ("dense", "masked", "float32", "sparse")
SHAPE = (600, 300, 8)
MODULES = ("core", "loop", "polish", "nmf", "objective", "solve")       # the last two came with the objective


def problem(kind, n, f, k):
    "Counts of planted factors, and a start"
    rng = np.random.default_rng(0)
    scale = .05 if kind == "sparse" else 1.
    X = rng.poisson(scale * rng.gamma(1., size=(n, k)) @ rng.gamma(1., size=(k, f))).astype(float)
    start = np.sqrt(X.mean() / k)
    W, H = (start * (.5 + rng.random(s)) for s in ((n, k), (k, f)))
    if kind == "masked": X[rng.random(X.shape) < .2] = np.nan
    if kind == "sparse": return sp.csr_array(X), W, H
    dtype = np.float32 if kind == "float32" else np.float64
    return X.astype(dtype), W.astype(dtype), H.astype(dtype)


def library(root):
    "The modules of the library in `root`, beside those of another one"
    for name in [m for m in sys.modules if m.split(".")[0] == "anmf_lab"]: del sys.modules[name]
    sys.path.insert(0, str(root))
    try:
        there = [m for m in MODULES if (root / "anmf_lab" / f"{m}.py").exists()]
        found = {m: importlib.import_module(f"anmf_lab.{m}") for m in there}
    finally: sys.path.remove(str(root))
    assert all(Path(m.__file__).is_relative_to(root) for m in found.values())
    return SimpleNamespace(**found)


def iteration(lib, data, k, beta, solver):
    "(update, measure) of a version; what is passed changed with the objective"
    if not hasattr(lib, "objective"):
        model = lib.nmf.NMF(k, loss=beta, solver=solver)
        model._check_params(data)
        step, obj = model._step(data), lib.polish.Objective(data, beta)
    else:
        obj = lib.objective.Entrywise(data, beta)
        step = lib.solve.updates(obj, k, solver, 2 if solver == "hals" else None)
    return step, lambda s: lib.polish.measure(obj, s[0], s[1])


def prepare(lib, solver, kind):
    "run(n): the run of n iterations of one path"
    X, W, H = problem(kind, *SHAPE)
    data, start = lib.core.as_data(X), (torch.from_numpy(W), torch.from_numpy(H))
    step, measure = iteration(lib, data, SHAPE[2], SOLVERS[solver], solver.split(",")[0])
    return lambda n: lib.loop.iterate(step, start, measure, max_iter=n, tol=0)


def cpu(run, n):
    "CPU seconds of n iterations, and the loss they end with"
    begin = time.process_time()
    out = run(n)
    return time.process_time() - begin, float(out.losses[-1])


def compare(there, here, solver, kind, rounds, seconds):
    "One path: the ratio, both costs, and whether the losses agree"
    order = (there, here, here, there)     # twice each: where an array lies in memory is worth some percent
    made = [(lib, prepare(lib, solver, kind)) for lib in order]
    pairs = [[run for lib, run in made if lib is who] for who in (there, here)]
    once = min(cpu(run, 10)[0] for _, run in made * 2)       # the first calls warm up
    n = int(np.clip(10 * round(seconds / once), 10, 1000))
    times, ends = np.empty((rounds, 2)), [0., 0.]
    for i in range(rounds):
        for j in (0, 1) if i % 2 else (1, 0): times[i, j], ends[j] = cpu(pairs[j][i // 2 % 2], n)
    ratios, (a, b) = times[:, 0] / times[:, 1], 1e3 * np.median(times, 0) / n
    same = np.isclose(*ends, rtol=1e-5 if kind == "float32" else 1e-10)
    return dict(solver=solver, kind=kind, iterations=n, ratio=round(float(np.median(ratios)), 3),
                quartiles=[round(float(q), 3) for q in np.quantile(ratios, (.25, .75))],
                ms_there=round(a, 4), ms_here=round(b, 4), same_loss=bool(same))


def commit(root):
    "What a checkout is a checkout of"
    done = subprocess.run(["git", "-C", str(root), "rev-parse", "--short=10", "HEAD"], text=True, capture_output=True)
    return done.stdout.strip() or None


def against(checkout, rounds=150, seconds=.02):
    "Rows of all paths"
    torch.set_num_threads(1)
    there, here = library(Path(checkout).resolve()), library(ROOT)
    rows = []
    for solver in SOLVERS:
        for kind in KINDS:
            rows.append(compare(there, here, solver, kind, rounds, seconds))
            r = rows[-1]
            print(f"{solver:14}{kind:9}{r['ms_there']:9.3f} ms there{r['ms_here']:9.3f} ms here   ratio {r['ratio']:.3f} "
                  f"{r['quartiles']}{'' if r['same_loss'] else '   OTHER LOSS'}", flush=True)
    return rows


def record(checkout, rounds, seconds):
    "What goes on file"
    begin = time.process_time()
    rows = against(checkout, rounds, seconds)
    from anmf_lab.records import versions
    return dict(command=f"python benchmarks/bench_nmf.py --against CHECKOUT --rounds {rounds}", there=commit(checkout),
                here=commit(ROOT), shape=SHAPE, threads=1, rounds=rounds, burst_s=seconds, versions=versions(),
                cpu_seconds=round(time.process_time() - begin), lowest=min(r["ratio"] for r in rows), rows=rows)
