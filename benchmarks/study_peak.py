# ruff: noqa: E402
"""What share of this machine's arithmetic and of its memory an update reaches.

    python benchmarks/study_peak.py [--rounds 5] [--out peak.json]

Dense 5000 x 2000 data in float32 and float64 at ranks 10 and 50, and 10,000 x 20,000 sparse data of which 1 % is stored, float32,
rank 50: CPU seconds of one update under both losses, and of one product with the Hessian. In the same run, round by
round, the yardsticks: a product of two 1500 x 1500 matrices (the peak), the products with the data of the same shapes as
in the update, alone, and a copy of 160 MB. Medians over rounds, one thread. `flops` and `bytes` are counted from the formulas
(`COUNT`): of dense data the least that must come from memory, the data once for each pass (the product: with the arrays that it
keeps); of sparse data, for each stored entry and pass, its value, its column, and the k numbers of a factor that belong
to it, which a cache may save. The record is results/scale/peak.json, and the page nbs/benchmarks.ipynb draws it.
"""
import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import json
import sys
import time
import warnings
from pathlib import Path
from statistics import median

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]
FOLDER = ROOT / "results" / "scale"
COUNT = {   # flops and passes over the data of one update, for s entries (n f, or those stored)
    "squared": (lambda s, n, f, k: 4 * s * k + 6 * (n + f) * k**2, 2),          # two products; Gram matrices, two sweeps
    "kl": (lambda s, n, f, k: 8 * s * k + 3 * s, 2),                            # twice: reconstruct, divide, multiply
    "product": (lambda s, n, f, k: 12 * s * k, 8),     # dY of rank 2k, two products with dY, two with R; dY, D and R, in memory
    "sparse squared": (lambda s, n, f, k: 4 * s * k + 4 * (n + f) * k**2, 2),   # one sweep
    "sparse kl": (lambda s, n, f, k: 8 * s * k + 3 * s, 4),                     # each stored entry fetches k numbers a pass
}


def dense(kind, k, n=5000, f=2000):
    "The runs of one dense problem: name -> function; and of its yardsticks"
    import torch

    from anmf_lab.core import as_data
    from anmf_lab.objective import Entrywise
    from anmf_lab.solve import updates
    rng = np.random.default_rng(0)
    X = (rng.gamma(1., size=(n, 4)) @ rng.gamma(1., size=(4, f)) + rng.random((n, f))).astype(kind)
    data, (W, H) = as_data(X), (torch.from_numpy(rng.random(s).astype(kind)) for s in ((n, k), (k, f)))
    runs = {}
    for name, beta in (("squared", 2.), ("kl", 1.)):
        step = updates(Entrywise(data, beta), k, sweeps=2)
        state = step((W, H))
        runs[name] = lambda step=step, state=state: step(state)
    hess = Entrywise(data, 1.).hessian(W, H)
    runs["product"] = lambda: hess(W, H)
    Ht, Wt = H.T.contiguous(), W.T.contiguous()
    return runs, {"with the data": lambda: (data.X @ Ht, Wt @ data.X), "reconstruct": lambda: W @ H}, (n * f, n, f, k)


def sparse(kind, k, n=10_000, f=20_000, part=.01):
    "The same for sparse data"
    import scipy.sparse as sp
    import torch

    from anmf_lab.core import as_data
    from anmf_lab.objective import Entrywise
    from anmf_lab.solve import updates
    X = sp.random(n, f, part, "csr", dtype=kind, random_state=0)
    rng = np.random.default_rng(0)
    data, (W, H) = as_data(X), (torch.from_numpy(rng.random(s).astype(kind)) for s in ((n, k), (k, f)))
    runs = {}
    for name, beta in (("sparse squared", 2.), ("sparse kl", 1.)):
        step = updates(Entrywise(data, beta), k, sweeps=1)
        state = step((W, H))
        runs[name] = lambda step=step, state=state: step(state)
    Ht = H.T.contiguous()
    return runs, {"with the data": lambda: (data.X @ Ht, data.Xt @ W)}, (X.nnz, n, f, k)


def timed(run):
    "CPU seconds of one call, from at least a tenth of a second of them"
    begin, count = time.process_time(), 0
    while time.process_time() - begin < .1:
        run()
        count += 1
    return (time.process_time() - begin) / count


def yardsticks():
    "name -> (function, flops or bytes)"
    import torch
    out = {}
    for kind in (torch.float32, torch.float64):
        A = torch.rand(1500, 1500, dtype=kind)
        out[f"peak {kind}"] = (lambda A=A: A @ A), 2 * 1500**3
    a = torch.rand(160_000_000 // 4)
    b = torch.empty_like(a)
    out["copy"] = (lambda: b.copy_(a)), 2 * 160_000_000
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--out", default="peak.json")
    args = p.parse_args()
    import torch

    from anmf_lab.records import plain, versions, write_whole
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    marks, rows = yardsticks(), []
    for make, kind, k in [(dense, kind, k) for kind in ("float32", "float64") for k in (10, 50)] + [(sparse, "float32", 50)]:
        runs, same, (s, n, f, _) = make(kind, k)
        own = {"peak": marks[f"peak torch.{kind}"], "copy": marks["copy"]}
        every = {**runs, **same, **{name: run for name, (run, _) in own.items()}}
        times = {name: [] for name in every}
        for _ in range(args.rounds):
            for name, run in every.items(): times[name].append(timed(run))
        t = {name: median(q) for name, q in times.items()}
        peak, copy = own["peak"][1] / t["peak"], own["copy"][1] / t["copy"]
        for name in runs:
            count, passes = COUNT[name]
            size = np.dtype(kind).itemsize * (1 + (k if make is sparse else 0)) + (8 if make is sparse else 0)
            flops, least = count(s, n, f, k), passes * s * size
            alike = t["with the data"] + (2 * t["reconstruct"] if name == "kl" else 0)
            rows.append(dict(what=name, dtype=kind, n=n, f=f, k=k, entries=s, seconds=t[name], flops=flops, bytes=least,
                             gflops=flops / t[name] / 1e9, share_of_peak=flops / t[name] / peak,
                             share_of_copy=least / t[name] / copy, alike=alike if name not in ("product", "sparse kl") else None,
                             peak_gflops=peak / 1e9, copy_gb=copy / 1e9))
            print(f"{name:15} {kind} k {k:3}: {t[name]:.4f} s, {rows[-1]['gflops']:.1f} GFLOP/s, {rows[-1]['share_of_peak']:.2f} of the peak, "
                  f"{rows[-1]['share_of_copy']:.2f} of the copy, alike {alike / t[name]:.2f}", flush=True)
    record = dict(topic="share of the machine's arithmetic and memory", command="python benchmarks/study_peak.py " + " ".join(sys.argv[1:]),
                  seed=0, threads=1, rounds=args.rounds, versions=versions(), rows=rows)
    write_whole(FOLDER / args.out, (json.dumps(plain(record), indent=1) + "\n").encode())


if __name__ == "__main__": main()
