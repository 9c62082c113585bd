"""What error bars cost beside a parametric bootstrap of 200 warm refits: genomes and faces, in one run, CPU time, medians.

    python benchmarks/bench_error_bars.py [genomes faces wide] [--out results/trust]

A refit starts at the solution of the observed data and ends at a KKT residual of 1e-6, as `stability(start="reference")` has it
and as a loop over `polish` has it; the quicker of the two is what error bars are compared with. `wide`: peak memory of the
matrix-free bars on planted counts at rank 5 (kf of 5000 and 10000), beside arrays like the data and (n + f) k^2 numbers. The
faces have to be there.
"""
from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import anmf_lab as al
from anmf_lab.records import Record, save_record

CASES = dict(genomes=("wtsi", 5, 200, 25), faces=("cbcl_test", 5, 12, 3))   # data, rank, refits that are run, rounds of error bars


def clock(call) -> float:
    begin = time.process_time()
    call()
    return time.process_time() - begin


def cost(name: str) -> dict:
    "Error bars and refits in turn"
    from anmf_lab.core import as_data
    from anmf_lab.implicit import solution
    from anmf_lab.objective import Entrywise
    from anmf_lab.redraws import Resampler, generators
    from anmf_lab.resampling import alone, replicates, stackable
    data, k, n, rounds = CASES[name]
    X = np.asarray(al.load_dataset(data).data, float)
    loss, noise = ("kullback-leibler", "poisson")
    model = al.NMF(k, loss=loss, n_init=4, random_state=0).fit(X)
    sol = solution(model, X)
    given = dict(W=sol.W, H=sol.H, loss=1.)
    def bars(): return al.uncertainty(None, X, noise, **given).components_stderr
    obj = Entrywise(as_data(X), 1.)
    u = al.uncertainty(None, X, noise, **given)
    source = Resampler(obj.data, "parametric", sol.W @ sol.H, noise, u.dispersion)
    near = (sol.W, sol.H)
    def stacked(): return replicates(obj, source, generators(0, n), k, near)
    few = min(n, 12)
    def one_by_one(): return [alone(obj, source.draw(g)[0], k, near, g, 1, 1e-6) for g in generators(0, few)]
    bars()
    seconds = dict(error_bars=[], refits=[])
    each = {"one by one": clock(one_by_one) / few} | ({"stacked": clock(stacked) / n} if stackable(obj, k) else {})
    for i in range(rounds):
        seconds["error_bars"].append(clock(bars))
        if i < 7: seconds["refits"].append(clock(stacked if "stacked" in each else one_by_one) / (n if "stacked" in each else few))
    bar, refit = (statistics.median(v) for v in seconds.values())
    return dict(shape=list(X.shape), rank=k, error_bars_cpu_seconds=bar, refit_cpu_seconds=each | {"median of the quicker": refit},
                refits_run=n, times_cheaper_than_200_quicker=200 * refit / bar,
                times_cheaper_than_200_one_by_one=200 * each["one by one"] / bar,
                sha256=hashlib.sha256(np.ascontiguousarray(X).tobytes()).hexdigest())


FIT = """
import sys, numpy as np, torch
import anmf_lab as al
n, f, k = map(int, sys.argv[1:4])
g = np.random.default_rng(0)
W, H = g.gamma(1., 1., (n, k)) * (g.random((n, k)) > .4), g.dirichlet(np.full(f, .3), k)
W[W.sum(1) == 0, 0] = 1.
X = g.poisson(20 * f * W @ H).astype(float)
run = al.factorize(al.Objective(X, "kullback-leibler"), k, W=torch.from_numpy(W + 1e-3), H=torch.from_numpy(H + 1e-6), tol=1e-8)
np.savez(sys.argv[4], X=X, W=run.state[0], H=run.state[1], kkt=run.residuals[-1])
"""

MEASURE = """
import sys, numpy as np, torch
import anmf_lab as al
from anmf_lab.implicit import Solved
from anmf_lab.objective import Objective
at = np.load(sys.argv[1])
X, W, H = at["X"], torch.from_numpy(at["W"]), torch.from_numpy(at["H"])
def bars(n, f): return al.uncertainty(Solved(Objective(X[:n, :f], "kullback-leibler"), W[:n], H[:, :f], float(at["kkt"]), 0.), X[:n, :f])
bars(60, 50)                                             # everything is imported and warm
peak = lambda: int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])   # ru_maxrss begins with the parent's
before = peak()
u = bars(*X.shape)
print((peak() - before) * 1024, u.light, type(u._red).__name__, float(at["kkt"]))
"""

SIZES = ((500, 1000), (1000, 1000), (1000, 2000))


def wide(k: int = 5) -> dict:
    "Peak memory that error bars add where k f is large, in a process that does nothing else: (n, f) arrays and (n + f) k^2 numbers"
    rows = []
    for n, f in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "fit.npz")
            subprocess.run([sys.executable, "-c", FIT, str(n), str(f), str(k), path], check=True)
            out = subprocess.run([sys.executable, "-c", MEASURE, path], capture_output=True, text=True, check=True).stdout.split()
        peak = int(out[0])
        rows.append(dict(shape=[n, f], light=out[1], route=out[2], kkt=float(out[3]), peak_bytes=peak, peak_in_arrays_of_the_data=round(peak / (8 * n * f), 2),
                         dense_curvature_bytes=8 * (k * f) ** 2, times_less_than_the_dense_curvature=round(8 * (k * f) ** 2 / peak, 1)))
        print(rows[-1], flush=True)
    return dict(shape=rows[-1]["shape"], rank=k, rows=rows)


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("cases", nargs="*", choices=[[], *CASES, "wide"], help="default: all")
    p.add_argument("--out", type=Path, default=Path("results/trust"))
    args = p.parse_args()
    path = args.out / "cost.json"
    done = json.loads(path.read_text())["measured"] if path.exists() else {}
    for name in args.cases or [*CASES, "wide"]:
        done[name] = wide() if name == "wide" else cost(name)
        print(name, done[name], flush=True)
        save_record(Record(
            name="cost", what="CPU time of error bars beside 200 warm refits, measured in one run, and the memory of matrix-free ones",
            data={k: dict(sha256=v.get("sha256", "planted"), shape=v["shape"]) for k, v in done.items()},
            asked=dict(genomes=200, faces=25, unit="times cheaper than 200 warm refits"), parameters=dict(tol=1e-6), seeds=0,
            claimed=None, measured=done, command="python benchmarks/bench_error_bars.py"), args.out)


if __name__ == "__main__":
    main()
