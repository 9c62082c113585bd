"""Does anybody cross the certificate of `al.certify`? Writes results/trust/certificate.json.

    python benchmarks/study_certificate.py [--problems 24] [--tries 360] [--seed 0] [--out results/trust/certificate.json]

Planted problems of several shapes under squared error, six of counts under Kullback-Leibler, and the genomes under
both. Every problem is perturbed `tries` times (the genomes a tenth as often), at sizes up to the certified one: at random,
by rank one, along the worst direction to first order (both signs), and by an attack that follows the gradient
of the feature error from there. Each time the solution is found again from where it was, and its feature error
compared with the bound for that size. `problems` holds a row each; the first three and the genomes are those
of an earlier proof that held every zero by its multiplier (`earlier_eps`).
"""
import argparse
import json
import platform
import time
from pathlib import Path

import numpy as np
import torch

import anmf_lab as al
from anmf_lab.certificate import certify
from anmf_lab.core import Data
from anmf_lab.implicit import Adjoint, condition, feature_gradient, solution
from anmf_lab.polish import polish
from anmf_lab.solve import solve_seeds

LS, KL = "frobenius", "kullback-leibler"
EARLIER = [(12, 10, 3, .03, 0, 1.6e-4), (30, 20, 3, .02, 0, 1.6e-4), (30, 20, 3, .02, 1, 2.3e-4)]
SHAPES = [(12, 10, 3), (14, 9, 2), (10, 8, 2), (12, 9, 2), (15, 10, 3)]


def planted(n, f, k, noise, seed):
    r = np.random.default_rng(seed)
    W, H = (r.uniform(.2, 1, s) * (r.random(s) > .45) for s in ((n, k), (k, f)))
    return np.maximum(W @ H + noise * r.standard_normal((n, f)), .002)


def counts(n, f, k, total, seed):
    "Every fitted value positive, zeros in both factors"
    r = np.random.default_rng(seed)
    W, H = (r.uniform(.2, 1, s) for s in ((n, k), (k, f)))
    W[np.arange(n), r.integers(0, k, n)] = 0
    H[r.integers(0, k, f), np.arange(f)] = 0
    return r.poisson(total * W @ H).astype(float)


def problems(n_small):
    "name, data, rank, loss, certified earlier"
    for n, f, k, noise, seed, eps in EARLIER:
        yield f"{n}x{f} k{k} noise {noise} seed {seed}", planted(n, f, k, noise, seed), k, LS, eps
    for i in range(n_small - len(EARLIER)):
        n, f, k = SHAPES[i % len(SHAPES)]
        yield f"{n}x{f} k{k} noise 0.02 seed {100 + i}", planted(n, f, k, .02, 100 + i), k, LS, None
    for seed in range(1, 7):
        yield f"counts 14x12 k3 seed {seed}", counts(14, 12, 3, 400, seed), 3, KL, None
    X = np.asarray(al.load_dataset("wtsi").data, float)
    yield "genomes k5", X, 5, LS, 1.7e-8
    yield "genomes k5", X, 5, KL, None


def moved(sol, D, eps):
    "The solution of perturbed data, from where it was"
    obj = sol.objective
    data = Data(obj.data.X + eps * obj.data.sq**.5 * D / D.norm())
    return data, polish(obj.at(data), *sol.factors, tol=1e-10, max_iter=60).state


def attacked(sol, c, v, steps=3):
    "Follow the gradient of the feature error on the sphere of the certified size"
    for sign in (1, -1):
        D = sign * v
        for _ in range(steps):
            data, (W, H) = moved(sol, D, c.eps)
            yield "attack", c.eps, al.feature_error(W, H, *sol.factors)
            try:
                D = feature_gradient(sol.objective.at(data), W, H, *sol.factors)[1]
            except ValueError:        # a singular Hessian at the perturbed solution has no gradient
                break


def trials(sol, c, tries, rng):
    "kind, size, feature error of every perturbation"
    n, f = sol.objective.data.shape
    v = condition(Adjoint(sol.objective, *sol.factors)).direction
    if v is not None:
        yield from attacked(sol, c, v)
        for share in np.linspace(.1, 1, 8):
            for sign in (1, -1):
                yield "worst direction", share * c.eps, al.feature_error(*moved(sol, sign * v, share * c.eps)[1], *sol.factors)
    for i in range(tries):
        D = rng.standard_normal((n, f)) if i % 3 else np.outer(rng.standard_normal(n), rng.standard_normal(f))
        eps = c.eps * (1. if i % 2 else rng.uniform(.05, 1))
        yield ("random" if i % 3 else "rank one"), eps, al.feature_error(*moved(sol, torch.from_numpy(D), eps)[1], *sol.factors)


def study(name, X, k, loss, earlier, tries, rng):
    clock = time.process_time()
    ends = solve_seeds(al.Objective(X, loss), k, 16, rng=0, tol=1e-11)
    sol = solution(None, X, W=ends[0].W.numpy(), H=ends[0].H.numpy(), loss=loss, tol=1e-11)
    solving, clock = time.process_time() - clock, time.process_time()
    c = certify(None, X, W=sol.W.numpy(), H=sol.H.numpy(), loss=loss, rivals=[e.factors for e in ends])
    row = dict(problem=name, loss=loss, shape=list(X.shape), rank=k, kkt=float(f"{sol.kkt:.1e}"), eps=float(f"{c.eps:.3g}"),
               bound=float(f"{c.feature_error:.3g}"), binds=c.binds, eps_to_flip=c.eps_to_flip if np.isfinite(c.eps_to_flip) else None,
               rivals=len(c.rivals), cpu_seconds=round(time.process_time() - clock, 2), cpu_seconds_16_starts=round(solving, 2))
    if earlier:
        row |= dict(earlier_eps=earlier, times_earlier=round(c.eps / earlier, 2))
    if not c.eps:
        return row
    kappa = condition(Adjoint(sol.objective, *sol.factors)).kappa
    found = list(trials(sol, c, tries, rng))
    kinds = sorted({kind for kind, *_ in found})
    part = {kind: max(fe / c.bound(eps) for name_, eps, fe in found if name_ == kind) for kind in kinds}
    return row | dict(tried=len(found), crossings=sum(fe > c.bound(eps) for _, eps, fe in found),
                      largest=float(f"{max(fe for *_, fe in found):.3g}"), first_order=float(f"{kappa * c.eps:.3g}"),
                      largest_part_of_the_bound={kind: round(p, 3) for kind, p in part.items()})


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--problems", type=int, default=24)
    p.add_argument("--tries", type=int, default=360)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--out", default="results/trust/certificate.json")
    a = p.parse_args(argv)
    torch.set_num_threads(1)
    rng, rows = np.random.default_rng(a.seed), []
    for name, X, k, loss, earlier in problems(a.problems):
        rows.append(study(name, X, k, loss, earlier, a.tries // 10 if name.startswith("genomes") else a.tries, rng))
        print(json.dumps(rows[-1]), flush=True)
        write(rows, a)


def write(rows, a):
    "The record so far"
    certified = [r for r in rows if r["eps"] > 0]
    total = dict(problems=len(rows), certified=len(certified), tried=sum(r["tried"] for r in certified),
                 crossings=sum(r["crossings"] for r in certified),
                 least_times_earlier=min(r["times_earlier"] for r in rows if "times_earlier" in r))
    command = f"python benchmarks/study_certificate.py --problems {a.problems} --tries {a.tries} --seed {a.seed}"
    versions = dict(anmf_lab=al.__version__, numpy=np.__version__, torch=torch.__version__, python=platform.python_version())
    record = dict(name="certificate", command=command, seed=a.seed, versions=versions, measured=total | dict(rows=rows))
    path = Path(a.out)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
