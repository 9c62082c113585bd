"""ANMF: iteration speed, bilevel against ADMM at equal CPU time, cost of a gradient, memory on text.

    python benchmarks/bench_anmf.py [--out benchmarks/anmf.json] [--only iteration,equal_cpu,gradient,text,fixed_scale] [--quick]

One thread, CPU time, the contestants of a comparison interleaved, medians. The sections that need ORL, COIL-20 or TDT2
(folder in ANMF_LAB_DATA) are left out, with a note in the record, where those are absent.
"""
import os
import sys

# ruff: noqa: E402, B023, B008 (the contestants of a comparison run inside the loop that makes them)
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"): os.environ[_name] = "1"

import argparse
import json
import platform
import resource
import subprocess
import time
from pathlib import Path

import numpy as np
import scipy
import sklearn
import torch
from sklearn.cluster import KMeans

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from refs import anmf_printed  # noqa: E402

from anmf_lab.anmf import PAPER, Game, Target, game_slope, price_unit, slope_by_residuals, solve_bilevel  # noqa: E402
from anmf_lab.anmf_admm import admm_start, admm_step, solve_admm  # noqa: E402
from anmf_lab.core import as_data  # noqa: E402
from anmf_lab.data import fingerprint, load_dataset  # noqa: E402
from anmf_lab.noise import make_target  # noqa: E402


def cpu(f):
    "CPU seconds of one call"
    t = time.process_time()
    f()
    return time.process_time() - t


def interleaved(contestants, rounds):
    "Median CPU seconds of each contestant, all of them in every round"
    for f in contestants.values(): f()       # warm
    times = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, f in contestants.items(): times[name].append(cpu(f))
    return {name: dict(median=round(float(np.median(t)), 5), all=[round(v, 5) for v in t]) for name, t in times.items()}


def faces(name):
    X = load_dataset(name, preprocess="unit").data
    return X, dict(name=name, shape=list(X.shape), sha256=fingerprint(X))


def iteration(quick):
    "One full iteration, the paper's N x N form against ours, from the same state; f = 1024, k = 40"
    out = []
    for n, rounds in ((300, 3),) if quick else ((2000, 5), (5000, 3)):
        rng = np.random.default_rng(0)
        f, k = 1024, 40
        X, W, H = rng.random((n, f)), rng.random((n, k)), rng.random((k, f))
        Z, T = X + .5, torch.from_numpy
        slow = anmf_printed.start(H.T, W.T)
        fast = admm_start(T(X), T(W), T(H), scaled=False)
        def printed(s=slow): return anmf_printed.iterate(s, X.T, Z.T, PAPER.alpha, PAPER.own, PAPER.gamma, PAPER.lam, 1.)
        def ours(u_step, s=fast, X=T(X), Z=T(Z)): return admm_step(X, Z, s, PAPER, u_step=u_step)
        t = interleaved({"printed": printed, "clip": lambda: ours("clip"), "prox": lambda: ours("prox"),
                         "split": lambda: admm_step(T(X), T(Z), fast._replace(S=fast.U, M6=torch.zeros_like(fast.U)), PAPER, u_step="split")}, rounds)
        a, b = printed(), ours("clip")
        gap = max(float(np.abs(a[p].T - getattr(b, o).numpy()).max() / np.abs(a[p]).max()) for p, o in (("H", "P"), ("A", "H"), ("At", "H_adv"), ("X", "W")))
        gap = max(gap, float(np.abs(a["U"] - b.U.numpy()).max() / np.abs(a["U"]).max()))
        row = dict(n=n, f=f, k=k, cpu_s=t, relative_difference_of_iterates=gap,
                   speedup={u: round(t["printed"]["median"] / t[u]["median"], 1) for u in ("clip", "prox", "split")})
        print(row["n"], row["speedup"], f"difference {gap:.1e}", flush=True)
        out.append(row)
    return out


def until(seconds):
    "A callback that ends a run when its CPU time is up"
    end = time.process_time() + seconds
    return lambda *_: time.process_time() > end


def equal_cpu(quick, seconds=10.):
    "Objective (9), paper's prices, at the nonnegative factors each solver returns after the same CPU time; k-means start"
    X, about = faces("orl")
    data = as_data(X)
    km = KMeans(40, n_init=1, random_state=0).fit(X)
    W, H = torch.from_numpy(np.eye(40)[km.labels_] + .2), torch.from_numpy(km.cluster_centers_)
    scaled = W * float((data.X * (W @ H)).sum() / (W @ H).square().sum())
    forever = dict(max_iter=10**6, tol=0, every=5)
    from anmf_lab.noise import salt_pepper
    targets = {"X + t, t = 3 sigma": make_target(data, "shift", strength=3.), "salt & pepper, 10 %": Target(as_data(salt_pepper(X, .1, random_state=0)))}
    out = []
    for name, target in targets.items():
        contestants = {
            "ADMM, printed": lambda c, z=target: solve_admm(data, z, W, H, PAPER, u_step="clip", ramp=1., scaled=False, callback=c, **forever),
            "ADMM, split, ramp": lambda c, z=target: solve_admm(data, z, W, H, PAPER, u_step="split", callback=c, **forever),
            "ADMM, prox, ramp": lambda c, z=target: solve_admm(data, z, W, H, PAPER, u_step="prox", callback=c, **forever),
            "bilevel": lambda c, z=target: solve_bilevel(data, z, scaled, H, PAPER, scale="free", callback=c, **forever)}
        row = dict(data=about, target=name, cpu_s=seconds, result={})
        for label, solve in contestants.items():
            t = time.process_time()
            run = solve(until(1. if quick else seconds))
            row["result"][label] = dict(objective=round(run.loss, 2), best=round(float(run.losses.min()), 2), iterations=run.n_iter, cpu_s=round(time.process_time() - t, 2))
        ratio = row["result"]["bilevel"]["objective"] / row["result"]["ADMM, printed"]["objective"]
        best = row["result"]["bilevel"]["objective"] / row["result"]["ADMM, printed"]["best"]
        row["bilevel / printed"], row["bilevel / best value printed passed through"] = round(ratio, 5), round(best, 5)
        print(name, {k: v["objective"] for k, v in row["result"].items()}, row["bilevel / printed"], row["bilevel / best value printed passed through"], flush=True)
        out.append(row)
    return out


def gradient(quick):
    "One value and gradient: k x k form against residual form"
    out = []
    for name, k in (("orl", 40), ("coil20", 20)):
        X, about = faces(name)
        data = as_data(X)
        rng = np.random.default_rng(0)
        W, H, A = (torch.from_numpy(rng.random(s)) for s in ((data.n, k), (k, data.f), (k, data.f)))
        target = make_target(data, "shift", strength=3.)
        for problem, game in (("exact", Game(lam=10.)), ("relaxed", Game(lam=10., gamma=1e-3))):
            t = interleaved({"gram": lambda g=game: game_slope(data, target, W, H, g, A), "residuals": lambda g=game: slope_by_residuals(data, target, W, H, g, A)}, 5 if quick else 25)
            a, b = game_slope(data, target, W, H, game, A), slope_by_residuals(data, target, W, H, game, A)
            out.append(dict(data=about, k=k, problem=problem, cpu_s=t, speedup=round(t["residuals"]["median"] / t["gram"]["median"], 2),
                            relative_difference=float((a.W - b.W).norm() / b.W.norm())))
            print(name, problem, out[-1]["speedup"], flush=True)
    return out


def text_child():
    "Value and gradient on TDT2, in a process of its own so that its memory is its own"
    X = load_dataset("tdt2").data
    data = as_data(X)
    rng = np.random.default_rng(0)
    W, H = torch.from_numpy(rng.random((data.n, 30))), torch.from_numpy(rng.random((30, data.f)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    target, out = make_target(data, "shift", strength=1.), dict(shape=list(data.shape), nnz=int(data.values.numel()), k=30, sha256=fingerprint(X))
    for problem, game in (("exact", Game(lam=10 * data.n / 30)), ("relaxed", Game(lam=10 * data.n / 30, gamma=1e-3))):
        game_slope(data, target, W, H, game, H)
        out[problem] = dict(cpu_s=round(float(np.median([cpu(lambda g=game: game_slope(data, target, W, H, g, H)) for _ in range(5)])), 4))
    out["peak_rss_mb"], out["rss_before_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024), round(before)
    print(json.dumps(out))


def text(quick):
    "The same on sparse text: time and peak memory"
    out = json.loads(subprocess.run([sys.executable, __file__, "--text-child"], check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    print(out, flush=True)
    return out


def fixed_scale(quick):
    "Exactly planted 40 x 25 data of rank 4, Z = X + .5, price 1 and gamma .1 in their unit: residual and objective, ADMM and L-BFGS-B from one start"
    out = []
    most, tol = (300, 1e-2) if quick else (20_000, 1e-4)
    ways = {"free": dict(ramp=1.), "codes": {}, "components": dict(rho=3., ramp=1.)}
    for scale, how in ways.items():
        for seed in range(2 if quick else 5):
            rng = np.random.default_rng(seed)
            data = as_data(rng.random((40, 4)) @ rng.random((4, 25)))
            first = [torch.from_numpy(rng.random(s)) for s in ((40, 4), (4, 25))]
            unit, target = price_unit(data, 4, scale), Target(data, .5)
            game = Game(alpha=.6, own=.1, lam=.1, gamma=.1) if scale == "free" else Game(alpha=.6, own=.1, lam=unit, gamma=.1 / unit)
            row = dict(scale=scale, seed=seed, game=dict(alpha=game.alpha, beta=game.own, lam=game.lam, gamma=game.gamma), admm=how, result={})
            solvers = {"ADMM": lambda: solve_admm(data, target, *first, game, scale=scale, tol=tol, max_iter=most, every=20, **how),
                       "bilevel": lambda: solve_bilevel(data, target, *first, game, scale=scale, tol=tol, max_iter=most, every=20)}
            for name, solve in solvers.items():
                t = time.process_time()
                run = solve()
                W = run.state.factors[0] if name == "ADMM" else run.state[0]
                row["result"][name] = dict(objective=float(f"{run.loss:.6g}"), residual=float(f"{run.residuals[-1]:.2g}"), iterations=run.n_iter,
                                           status=str(run.status), norm_of_codes=round(float(W.norm()), 4), cpu_s=round(time.process_time() - t, 3))
            print(scale, seed, row["result"], flush=True)
            out.append(row)
    return out


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "anmf.json")
    ap.add_argument("--only", default="iteration,equal_cpu,gradient,text,fixed_scale")
    ap.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    ap.add_argument("--text-child", action="store_true", help=argparse.SUPPRESS)
    a = ap.parse_args()
    torch.set_num_threads(1)
    if a.text_child: return text_child()
    record = json.loads(a.out.read_text()) if a.out.exists() else {}
    for name in a.only.split(","):
        try: record[name] = globals()[name](a.quick)
        except FileNotFoundError as e: record[name] = dict(left_out=str(e).splitlines()[0])
    record["about"] = dict(command="python benchmarks/bench_anmf.py" + (" --quick" if a.quick else ""), seed=0, threads=1,
                           machine=platform.machine(), python=platform.python_version(), numpy=np.__version__, scipy=scipy.__version__,
                           sklearn=sklearn.__version__, torch=torch.__version__, clock="CPU time of the process, medians of interleaved rounds")
    a.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__": main()
