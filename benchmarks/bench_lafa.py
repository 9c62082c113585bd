"""LaFA: cost of one feature-error gradient on every route, CPU time and peak extra memory.

    python benchmarks/bench_lafa.py [--out benchmarks/lafa.json] [--quick]

One thread; each route runs in a fresh process, given the same solved factors; times are CPU seconds, medians of interleaved
repetitions; memory is the growth of the peak resident set (reset just before) during the gradient. The explicit published scheme is
timed on Synthetic in full; on Face its dense Jacobians need tens of GB and are left out. Face needs ANMF_LAB_DATA.
"""
import os

# ruff: noqa: E402
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from anmf_lab.core import as_data
from anmf_lab.data import fingerprint
from anmf_lab.implicit import feature_gradient
from anmf_lab.objective import Entrywise
from anmf_lab.reproduce_lafa import SETTINGS, load
from anmf_lab.solve import solve_seeds
from anmf_lab.unrolled import explicit_gradient, neumann_gradient, unrolled_gradient

ROUTES = {   # name -> (function of (data, W, H, W_ref, H_ref), repetitions)
    "adjoint, tol 1e-4": (lambda *a: feature_gradient(*a, 1., tol=1e-4, tikhonov=TIKHONOV), 9),
    "series, 100 terms, matrix-free": (lambda *a: neumann_gradient(*a, terms=100), 3),
    "explicit, dense Jacobians": (lambda *a: explicit_gradient(*a, terms=100), 1),
    "back-propagation, T=2000": (lambda *a: unrolled_gradient(*a, n_iter=2000), 1),
    "back-propagation, T=2000, checkpointed": (lambda *a: unrolled_gradient(*a, n_iter=2000, checkpoint_every=45), 1),
}
TIKHONOV = 0.


def peak() -> int:
    "Largest resident set of this process since the last reset, in KB (Linux)"
    return int(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")).split()[1])


def one(route: str, file: str) -> dict:
    "Run one route in this process: CPU seconds and growth of the peak"
    global TIKHONOV
    torch.set_num_threads(1)
    z = np.load(file)
    TIKHONOV = float(z["tikhonov"])
    args = as_data(z["X"]), *(torch.from_numpy(z[k]) for k in ("W", "H", "Wr", "Hr"))
    f, n = ROUTES[route]
    tiny = as_data(z["X"][:12, :10]), *(torch.from_numpy(a).abs() + .1 for a in (z["W"][:12], z["H"][:, :10], z["Wr"][:12], z["Hr"][:, :10]))
    if route.startswith("adj"):
        TIKHONOV, keep = 1., TIKHONOV
        f(*tiny)
        TIKHONOV = keep
    else:
        neumann_gradient(*tiny, terms=3)   # autograd's own start-up is not the route's
    Path("/proc/self/clear_refs").write_text("5")   # forget the peak that importing left behind
    before = peak()
    times = []
    for _ in range(n):
        t = time.process_time()
        f(*args)
        times.append(time.process_time() - t)
    return {"cpu_seconds": statistics.median(times), "peak_mb": (peak() - before) / 1024}


def prepare(name: str, file: str) -> dict:
    "Clean and slightly moved data, solved; written for the routes"
    s, X = SETTINGS[name], load(name)
    rng = np.random.RandomState(0)
    clean = solve_seeds(Entrywise(as_data(X), 1.), s.rank, 2, rng=rng)[0]
    noise = rng.standard_normal(X.shape)
    Z = np.maximum(X + .01 * np.linalg.norm(X) * noise / np.linalg.norm(noise), 0)
    moved = solve_seeds(Entrywise(as_data(Z), 1.), s.rank, 2, rng=rng, tol=1e-10)[0]
    _, _, cert = feature_gradient(as_data(Z), *moved.factors, *clean.factors, 1., tikhonov=1e-6)
    tikhonov = 0. if cert.ritz > 1e-6 else 1e-3
    np.savez(file, X=Z, W=moved.W.numpy(), H=moved.H.numpy(), Wr=clean.W.numpy(), Hr=clean.H.numpy(), tikhonov=tikhonov)
    return {"shape": list(X.shape), "rank": s.rank, "sha256": fingerprint(X), "tikhonov": tikhonov, "ritz": cert.ritz}


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", default=str(ROOT / "benchmarks" / "lafa.json"))
    p.add_argument("--quick", action="store_true", help="Synthetic only, one round")
    p.add_argument("--route", help=argparse.SUPPRESS)
    p.add_argument("--file", help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.route:
        print(json.dumps(one(a.route, a.file)))
        return
    record: dict = {"name": "lafa_gradient_cost", "command": "python benchmarks/bench_lafa.py" + (" --quick" if a.quick else ""), "threads": 1,
                    "versions": {"python": platform.python_version(), "numpy": np.__version__, "torch": torch.__version__.split("+")[0]}, "sets": {}}
    for name in ("synthetic",) if a.quick else ("synthetic", "wtsi", "face"):
        with tempfile.TemporaryDirectory() as tmp:
            file = str(Path(tmp) / "problem.npz")
            try:
                about = prepare(name, file)
            except FileNotFoundError as e:
                record["sets"][name] = {"skipped": str(e).splitlines()[0]}
                continue
            skip = {"explicit, dense Jacobians"} if name == "face" else set()
            runs: dict = {r: [] for r in ROUTES if r not in skip}
            for _ in range(1 if a.quick else 3 if name != "face" else 1):
                for route in runs:
                    out = subprocess.run([sys.executable, __file__, "--route", route, "--file", file], capture_output=True, text=True, check=True)
                    runs[route].append(json.loads(out.stdout))
                    print(name, route, runs[route][-1], flush=True)
            table = {r: {k: statistics.median(x[k] for x in v) for k in v[0]} for r, v in runs.items()}
            ours = table["adjoint, tol 1e-4"]
            ratio = {r: {k: round(v[k] / max(ours[k], .1 if k == "peak_mb" else 1e-4), 1) for k in v} for r, v in table.items()}
            record["sets"][name] = about | {"routes": table, "times_ours": ratio}
    Path(a.out).write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
