# ruff: noqa: E402
"""How good are the defaults, and how long does a solved factorization take? The record is benchmarks/solved.json.

    python benchmarks/bench_solved.py defaults [--before CHECKOUT] [--seeds 12] [--sets genomes faces ...]
    python benchmarks/bench_solved.py solved [--limit 60] [--problems genomes faces20 ...]
    python benchmarks/bench_solved.py sparse [--rounds 3]
    python benchmarks/bench_solved.py scaling [--rounds 5]
    python benchmarks/bench_solved.py small [--rounds 3]

`defaults`: eight data sets, both losses, random starts. A fit with everything at its default, CPU seconds, and
its objective over the best of *its own basin*: what Newton's method reaches from the returned factors. With
`--before`, a checkout of an older version is measured in the same run, fit by fit in turn.
`solved`: CPU seconds from a common start to a KKT residual of 1e-6, ours and scikit-learn's coordinate descent or
multiplicative updates, in chunks without a stopping test; the peer gets eight times our time, at least 5 and at
most `--limit` CPU seconds. What takes less than two seconds is done eight times, and the median of the last seven counts.
`sparse`: CPU seconds per iteration on text (737 x 4613, 85,576 counts), to 1.001 or 1.02 of the better end of the two (median
of seven starts, 300 iterations), and of a whole fit of 200 iterations.
`scaling`: CPU seconds of one update, and of one product with the Hessian, as n, f, k or the number of stored entries grow.
`small`: 100 starts of the genomes, and 100 resamples of them at ranks 4, 5 and 6, each solved, as one stack.
One thread; every process is started before the clock runs, and the clock is CPU time.
"""
import os
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"): os.environ[name] = "1"
import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

LOSSES = {"frobenius": 2., "kullback-leibler": 1.}
RECORD = Path(__file__).with_name("solved.json")


def stored(name, scale=1.):
    from anmf_lab.data import load_dataset
    return np.asarray(load_dataset(name).data, float) / scale


def table(name):
    "A table of scikit-learn, every column divided by its mean"
    import sklearn.datasets
    X = getattr(sklearn.datasets, f"load_{name}")().data
    return X / X.mean(0)


def digits():
    from sklearn.datasets import load_digits
    return load_digits().data


def planted(n=100, f=80, k=6, seed=0):
    rng = np.random.default_rng(seed)
    W, H = (rng.gamma(1., size=s) * (rng.random(s) < .6) for s in ((n, k), (k, f)))
    return rng.poisson(20 * W @ H + .5).astype(float)


def dense(n, f, k, seed=0):
    "Sparse gamma factors and 10 % noise, as in bench_nmf.py"
    from bench_nmf import problem
    return problem(n, f, k, seed)[0]


SETS = {  # data, rank
    "genomes": (lambda: stored("wtsi"), 4), "genomes 5": (lambda: stored("wtsi"), 5),
    "wine": (lambda: table("wine"), 3), "cells": (lambda: table("breast_cancer"), 4),
    "digits": (digits, 10), "faces": (lambda: stored("cbcl_test", 255.), 5),
    "yale": (lambda: stored("yale", 255.), 10), "planted": (planted, 6),
}
PROBLEMS = {
    **{name: SETS[name] for name in ("genomes", "cells", "digits", "faces", "planted")},
    "faces20": (lambda: stored("cbcl_test", 255.), 20),
    "i": (lambda: dense(2429, 361, 49), 49), "ii": (lambda: dense(5000, 784, 10), 10),
}


# --- the process that fits: lines of JSON in, lines of JSON out

def start_of(X, k, seed):
    rng, c = np.random.default_rng(seed), 2 * np.sqrt(X.mean() / k)
    return c * rng.random((X.shape[0], k)), c * rng.random((k, X.shape[1]))


def fit_ours(X, k, loss, seed, **how):
    import anmf_lab as al
    model = al.NMF(k, loss=loss, init="random", random_state=seed, **how)
    begin = time.process_time()
    W = model.fit_transform(X)
    return time.process_time() - begin, W, model.components_, str(model.status_)


def residual_of(X, W, H, loss):
    from anmf_lab.core import as_data
    from anmf_lab.polish import kkt_residual
    import torch
    return kkt_residual(as_data(X), *(torch.from_numpy(np.asarray(T, np.float64)) for T in (W, H)), LOSSES[loss])


def fit_sklearn(X, k, loss, seed, limit, goal=1e-6):
    "Chunks of iterations, each from where the last ended, until solved; the check is not on the clock"
    from sklearn.decomposition import non_negative_factorization as nnf
    W, H = start_of(X, k, seed)
    how = dict(n_components=k, init="custom", solver="cd" if loss == "frobenius" else "mu", beta_loss=loss, tol=0)
    spent, chunk, done, r = 0., 20, 0, np.inf
    while spent < limit and r > goal:
        begin = time.process_time()
        W, H, _ = nnf(X, W, H, max_iter=chunk, **how)
        spent, done, chunk = spent + time.process_time() - begin, done + chunk, min(2 * chunk, 2000)
        if loss == "frobenius": r = residual_of(X, W, H, loss)
        else: r = residual_of(X, *(np.where(T < 1e-12 * T.max(), 0, T) for T in (W, H)), loss)
    return spent, W, H, "solved" if r <= goal else f"not after {done} iterations"


def work():
    import torch
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    held = {}
    for line in sys.stdin:
        ask = json.loads(line)
        name, loss, seed = ask["name"], ask["loss"], ask["seed"]
        make, k = {**SETS, **PROBLEMS}[name]
        if name not in held: held = {name: make()}
        X = held[name]
        if ask["who"] == "scikit-learn": out = fit_sklearn(X, k, loss, seed, ask["limit"])
        else: out = fit_ours(X, k, loss, seed, **ask.get("how", {}))
        np.savez(ask["to"], W=out[1], H=out[2])
        print(json.dumps(dict(cpu=out[0], status=out[3])), flush=True)


class Worker:
    def __init__(self, folder):
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(Path(__file__).parent)])}
        self.p = subprocess.Popen([sys.executable, __file__, "work"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  text=True, env=env, cwd=folder)
        self.to = tempfile.mkstemp(suffix=".npz")[1]

    def __call__(self, **ask):
        self.p.stdin.write(json.dumps({**ask, "to": self.to}) + "\n")
        self.p.stdin.flush()
        answer = json.loads(self.p.stdout.readline())
        with np.load(self.to) as z: return answer, z["W"], z["H"]


# --- what is measured

def judged(X, W, H, loss, excess=True):
    "Objective, KKT residual, and the excess over the best of its basin (None if not asked for)"
    import torch
    from anmf_lab.core import as_data
    from anmf_lab.divergence import divergence
    from anmf_lab.polish import kkt_residual, polish
    data, (W, H) = as_data(X), (torch.from_numpy(T) for T in (W, H))
    f, r = float(divergence(data, W, H, LOSSES[loss])), kkt_residual(data, W, H, LOSSES[loss])
    if r <= 1e-6 or not excess: return f, r, 0. if excess else None
    return f, r, f / float(polish(data, W, H, LOSSES[loss], tol=1e-8, max_iter=300).loss) - 1


def defaults(args):
    here = Path(__file__).parents[1]
    workers = {"now": Worker(here)}
    if args.before: workers["before"] = Worker(args.before.resolve())
    old = json.loads(args.out.read_text()).get("defaults", {}) if args.out.exists() else {}
    rows = [q for q in old.get("rows", []) if q["set"] not in (args.sets or SETS)]
    for name in args.sets or SETS:
        X = SETS[name][0]()
        for loss in LOSSES:
            found = {who: [] for who in workers}
            for seed in range(args.seeds):
                for who, worker in workers.items():
                    answer, W, H = worker(who=who, name=name, loss=loss, seed=seed)
                    found[who].append((answer["cpu"], *judged(X, W, H, loss, who == "now"), answer["status"]))
            for who, runs in found.items():
                cpu, f, r, excess, status = zip(*runs, strict=True)
                rows.append(dict(set=name, shape=X.shape, k=SETS[name][1], loss=loss, who=who, cpu=float(np.sum(cpu)),
                                 median=float(np.median(cpu)), excess_mean=None if who != "now" else float(np.mean(excess)),
                                 excess_worst=None if who != "now" else float(np.max(excess)), residual_worst=float(np.max(r)),
                                 said_converged=sum(s == "converged" for s in status), best=float(np.min(f)), mean=float(np.mean(f))))
                q = rows[-1]
                print(f"{name:10} {loss:17} {who:7} {q['cpu']:7.2f} s  excess {100 * (q['excess_mean'] or 0):7.3f} % "
                      f"(worst {100 * (q['excess_worst'] or 0):6.2f})  KKT {q['residual_worst']:.0e}  converged "
                      f"{q['said_converged']}/{len(runs)}  mean {q['mean']:.6g}", flush=True)
            totals = {who: sum(q["cpu"] for q in rows if q["who"] == who) for who in workers}
            yield dict(seeds=args.seeds, rows=rows, total_cpu=totals)
    print("total CPU", {who: round(t, 2) for who, t in totals.items()})


def solved(args):
    worker = Worker(Path(__file__).parents[1])
    old = json.loads(args.out.read_text()).get("solved", {}) if args.out.exists() else {}
    rows = [q for q in old.get("rows", []) if q["problem"] not in (args.problems or PROBLEMS)]
    for name in args.problems or PROBLEMS:
        X = PROBLEMS[name][0]()
        for loss in LOSSES:
            row = dict(problem=name, shape=X.shape, k=PROBLEMS[name][1], loss=loss)
            limit = args.limit
            for who in ("anmf-lab", "scikit-learn"):
                answer, W, H = worker(who=who, name=name, loss=loss, seed=0, limit=limit)
                again = [worker(who=who, name=name, loss=loss, seed=0, limit=limit)[0]["cpu"] for _ in range(7) if answer["cpu"] < 2]
                if again: answer["cpu"] = float(np.median(again))        # short ones: the median of seven, warm
                if who == "anmf-lab": limit = min(args.limit, max(5., 8 * answer["cpu"]))
                f, r = judged_shortly(X, W, H, loss)
                row[who] = dict(cpu=answer["cpu"], status=answer["status"], objective=f, residual=r)
            rows.append(row)
            a, b = row["anmf-lab"], row["scikit-learn"]
            print(f"{name:8} {loss:17} ours {a['cpu']:7.2f} s {a['status']} {a['objective']:.6g} {a['residual']:.0e}   "
                  f"scikit-learn {b['cpu']:7.2f} s {b['status']} {b['objective']:.6g} {b['residual']:.0e}", flush=True)
            yield dict(limit=args.limit, rows=rows)


def judged_shortly(X, W, H, loss):
    import torch
    from anmf_lab.core import as_data
    from anmf_lab.divergence import divergence
    return (float(divergence(as_data(X), torch.from_numpy(W), torch.from_numpy(H), LOSSES[loss])), residual_of(X, W, H, loss))


STARTS = 7   # random starts of a text, of which the iterations to a target are counted


def traces(X, W, H, loss, most=300):
    "Objective to reach (1.001 or 1.02 times the best of both after `most` iterations), and the iterations that it takes"
    import torch
    from anmf_lab.core import as_data
    from anmf_lab.divergence import divergence
    from anmf_lab.objective import Entrywise
    from anmf_lab.solve import updates
    from sklearn.decomposition import non_negative_factorization as nnf
    data, beta = as_data(X), LOSSES[loss]
    step = updates(Entrywise(data, beta), W.shape[1])
    how = dict(n_components=W.shape[1], init="custom", solver="cd" if beta == 2 else "mu", beta_loss=loss, tol=0, max_iter=1)
    def theirs(state): return tuple(map(torch.from_numpy, nnf(X, *(T.numpy() for T in state), **how)[:2]))
    curves = {}
    for who, f in (("anmf-lab", step), ("scikit-learn", theirs)):
        state, curve = (torch.from_numpy(W.copy()), torch.from_numpy(H.copy())), []
        for _ in range(most):
            state = f(state)
            curve.append(float(divergence(data, state[0], state[1], beta)))
        curves[who] = np.array(curve)
    stop = min(c.min() for c in curves.values()) * (1.001 if beta == 2 else 1.02)
    return stop, {who: int(np.argmax(c <= stop)) + 1 if (c <= stop).any() else None for who, c in curves.items()}


def sparse(args):
    import anmf_lab as al
    from anmf_lab.data import load_dataset
    from sklearn.decomposition import non_negative_factorization as nnf
    X = load_dataset("bbcsport").data.astype(float)
    rows = []
    for k in (5, 20):
        for loss in LOSSES:
            W, H = start_of(X, k, 0)
            how = dict(n_components=k, init="custom", solver="cd" if loss == "frobenius" else "mu", beta_loss=loss, tol=0)
            def peer(n, how=how, W=W, H=H): nnf(X, W.copy(), H.copy(), max_iter=n, **how)
            def ours(n, k=k, loss=loss, W=W, H=H):
                al.NMF(k, loss=loss, init="custom", tol=0, max_iter=n, polish=False).fit_transform(X, W=W, H=H)
            times = {"anmf-lab": [], "scikit-learn": []}
            for _ in range(args.rounds):
                for who, run in (("anmf-lab", ours), ("scikit-learn", peer)):
                    spent = []
                    for n in (20, 200):
                        begin = time.process_time()
                        run(n)
                        spent.append(time.process_time() - begin)
                    times[who].append(((spent[1] - spent[0]) / 180, spent[1]))
            row = dict(k=k, loss=loss, **{who: dict(zip(("per_iteration", "whole"), map(float, np.median(t, 0)), strict=True))
                                          for who, t in times.items()})
            runs = [traces(X, *start_of(X, k, seed), loss) for seed in range(STARTS)]
            row["targets"] = [stop for stop, _ in runs]
            for who in times: row[who]["its"] = [its[who] for _, its in runs]
            a, b = row["anmf-lab"], row["scikit-learn"]
            row["ratio"], row["ratio_whole"] = a["per_iteration"] / b["per_iteration"], a["whole"] / b["whole"]
            fewer = [(x or np.inf) / (y or np.inf) if x or y else 1. for x, y in zip(a["its"], b["its"], strict=True)]
            row["ratio_target"] = float(np.median(fewer)) * row["ratio"]     # the time, in the median of the starts
            print(f"k {k:3} {loss:17} to target {a['its']} against {b['its']} iterations: {row['ratio_target']:.2f};  ms/iteration {1e3 * a['per_iteration']:.2f} against {1e3 * b['per_iteration']:.2f}: "
                  f"{row['ratio']:.2f};  200 iterations and codes {a['whole']:.2f} s against {b['whole']:.2f}: "
                  f"{row['ratio_whole']:.2f}", flush=True)
            rows.append(row)
            yield dict(data="bbcsport", shape=X.shape, stored=int(X.nnz), rows=rows)


GROW = {"n": (500, 1000, 2000, 4000), "f": (500, 1000, 2000, 4000), "k": (8, 16, 32, 64), "stored": (1, 2, 4, 8)}
THEORY = {"squared": dict(n=1, f=1, k=1), "kl": dict(n=1, f=1, k=1), "product": dict(n=1, f=1, k=1),
          "sparse squared": dict(stored=1), "sparse kl": dict(stored=1)}


def grown(what, size):
    "Problem of one size: n, f = 500, k = 16, or 2000 x 2000 with `size` % stored and k = 16"
    import scipy.sparse as sp
    rng = np.random.default_rng(0)
    if what == "stored":
        return sp.random(2000, 2000, size / 100, "csr", random_state=0), 16
    n, f, k = (size if what == name else base for name, base in (("n", 500), ("f", 500), ("k", 16)))
    return rng.gamma(1., size=(n, 4)) @ rng.gamma(1., size=(4, f)) + rng.random((n, f)), k


def scaling(args):
    import torch
    from anmf_lab.core import as_data
    from anmf_lab.objective import Entrywise
    from anmf_lab.solve import updates
    rows = []
    for what, sizes in GROW.items():
        runs = {}
        for size in sizes:
            X, k = grown(what, size)
            data, (W, H) = as_data(X), (torch.from_numpy(T) for T in start_of(X, k, 0))
            for name, beta in (("squared", 2.), ("kl", 1.)):
                step = updates(Entrywise(data, beta), k, sweeps=1)
                state = step((W, H))
                runs[("sparse " if what == "stored" else "") + name, size] = lambda step=step, state=state: step(state)
            if what == "stored": continue
            hess = Entrywise(data, 1.).hessian(W, H)
            runs["product", size] = lambda hess=hess, W=W, H=H: hess(W, H)
        times = {key: [] for key in runs}
        for _ in range(args.rounds):
            for key, run in runs.items():
                begin, count = time.process_time(), 0
                while time.process_time() - begin < .1: count += bool(run() or True)
                times[key].append((time.process_time() - begin) / count)
        for name in dict.fromkeys(name for name, _ in runs):
            cost = [float(np.median(times[name, size])) for size in sizes]
            slope = float(np.polyfit(np.log(sizes), np.log(cost), 1)[0])
            rows.append(dict(what=name, grows=what, sizes=sizes, relative=[c / cost[0] for c in cost], exponent=slope,
                             theory=THEORY[name][what]))
            print(f"{name:15} {what:7} {[round(r, 2) for r in rows[-1]['relative']]} exponent {slope:.2f}", flush=True)
        yield dict(rounds=args.rounds, rows=rows)


def small(args):
    import torch
    from anmf_lab.stacked import Stack, random_starts, solve_stack
    X, rows = stored("wtsi"), []
    rng = np.random.default_rng(0)
    draw = [np.stack([rng.multinomial(int(x.sum()), x / x.sum()) for x in X]) for _ in range(100)]
    table, resamples = torch.from_numpy(X)[None], torch.from_numpy(np.stack(draw).astype(float))
    for what, data, k in (("starts", table, 4), ("resamples", resamples, 4), ("resamples", resamples, 5), ("resamples", resamples, 6)):
        stack, spent = Stack(data, 1.), []
        for seed in range(args.rounds):
            start = random_starts(stack, k, seed, 100)
            begin = time.process_time()
            out = solve_stack(stack, *start)
            spent.append(time.process_time() - begin)
        rows.append(dict(what=what, k=k, cpu=float(np.median(spent)), all=spent, solved=int(out.solved.sum())))
        print(rows[-1], flush=True)
        yield dict(rounds=args.rounds, rows=rows)


def main():
    p = argparse.ArgumentParser(description="Defaults and time to a solved factorization")
    p.add_argument("what", choices=["defaults", "solved", "sparse", "scaling", "small", "work"])
    p.add_argument("--before", type=Path)
    p.add_argument("--seeds", type=int, default=12)
    p.add_argument("--limit", type=float, default=60.)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--sets", nargs="+", choices=list(SETS))
    p.add_argument("--problems", nargs="+", choices=list(PROBLEMS))
    p.add_argument("--out", type=Path, default=RECORD)
    args = p.parse_args()
    if args.what == "work": return work()
    warnings.filterwarnings("ignore")
    import torch
    torch.set_num_threads(1)
    from anmf_lab.records import versions, write_whole
    asked = ["CHECKOUT" if args.before and a == str(args.before) else a for a in sys.argv[1:]]   # no path of this machine
    how = dict(command=" ".join(["python", "benchmarks/bench_solved.py", *asked]), versions=versions(), threads=1)
    for result in {"defaults": defaults, "solved": solved, "sparse": sparse, "scaling": scaling,
                   "small": small}[args.what](args):                       # row by row: none is lost
        record = json.loads(args.out.read_text()) if args.out.exists() else {}
        record[args.what] = {**how, **result}
        write_whole(args.out, (json.dumps(record, indent=1) + "\n").encode())


if __name__ == "__main__": main()
