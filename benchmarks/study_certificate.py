"""Does anybody cross the certificate of `al.certify`? Writes results/trust/certificate.json.

    python benchmarks/study_certificate.py [--problems 24] [--tries 420] [--seed 0] [--again] [--out results/trust/certificate.json]

Planted problems of several shapes under squared error, six of counts under Kullback-Leibler, and the genomes under
both. Every problem is perturbed `tries` times (the genomes a tenth as often), at sizes up to the certified one: at random,
by rank one, along the worst direction to first order (both signs), and by an attack that follows the gradient
of the feature error from there, from ten random directions too. Each time the solution is found again from where
it was, and its feature error compared with the bound for that size; a solution found beyond it is followed once more
in 64 small steps of the data, since the certificate speaks of the path from the clean solution. `problems` holds a row each; the first three and the genomes are those
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
from anmf_lab.objective import Entrywise
from anmf_lab.polish import polish
from anmf_lab.solve import solve_seeds
from anmf_lab.stacked import Stack, balanced, residuals

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


def newton(stack, W, H, most=25, tol=1e-11):
    "Projected Newton steps of many problems at once; their Hessians by automatic differentiation of the loss"
    (r, n, k), f = W.shape, H.shape[-1]
    rule = Entrywise(Data(stack.X[0]), stack.beta).loss
    cut, loss = n * k, lambda t, X: rule.value(X, t[:cut].view(n, k) @ t[cut:].view(k, f)).sum()
    derivatives = torch.func.vmap(torch.func.hessian(loss)), torch.func.vmap(torch.func.grad(loss))
    for _ in range(most):
        W, H = balanced(W, H)
        if not bool((residuals(stack, W, H) > tol).any()):
            break
        t = torch.cat([W.reshape(r, -1), H.reshape(r, -1)], 1)
        A, g = (d(t, stack.X) for d in derivatives)
        along = torch.stack([torch.cat([(W * e).reshape(r, -1), (-H * e[:, None]).reshape(r, -1)], 1) for e in torch.eye(k)], 2)
        A += along @ along.mT * (A.diagonal(dim1=1, dim2=2).mean(1) / along.square().sum((1, 2)))[:, None, None]
        free = (~((t <= 0) & (g > 0))).double()
        A = A * free[:, :, None] * free[:, None] + torch.diag_embed(1 - free)
        t = (t - free * torch.linalg.solve_ex(A, free * g)[0]).clamp(min=0)    # singular: not a number, left to `polish`
        W, H = t[:, :cut].view(r, n, k), t[:, cut:].view(r, k, f)
    return W, H


def moved(sol, D, eps):
    "(W, H) of every perturbed problem, from where the solution was; D (r, n, f), eps (r,)"
    obj, r = sol.objective, len(D)
    X = obj.data.X + (eps * obj.data.sq**.5 / D.norm(dim=(1, 2)))[:, None, None] * D
    near = [T.expand(r, *T.shape).clone() for T in sol.factors]
    if sum(T.numel() for T in sol.factors) > 200:    # one by one, by conjugate gradients
        ends = [polish(obj.at(Data(x)), *sol.factors, tol=1e-10, max_iter=60).state for x in X]
        return X, *(torch.stack(T) for T in zip(*ends, strict=True))
    stack = Stack(X, float(obj.beta))
    W, H = newton(stack, *near)
    for i in (~(residuals(stack, W, H) <= 1e-10)).nonzero().flatten().tolist():
        W[i], H[i] = polish(obj.at(Data(X[i])), *sol.factors, tol=1e-10, max_iter=100).state
    return X, W, H


def followed(sol, X, steps=64):
    "The solution of X by small steps of the data, each solved by descent from the one before"
    obj, state = sol.objective, sol.factors
    for t in range(1, steps + 1):
        state = polish(obj.at(Data(obj.data.X + t / steps * (X - obj.data.X))), *state, tol=1e-10, max_iter=100).state
    return state


def errors(sol, c, D, eps):
    "Feature error and KKT residual of every perturbed problem, and how many were followed: those found beyond the bound at first"
    X, W, H = moved(sol, D, eps)
    fe = [al.feature_error(w, h, *sol.factors) for w, h in zip(W, H, strict=True)]
    far = [i for i, e in enumerate(eps) if not fe[i] <= c.bound(float(e))]
    for i in far:                     # one leap of Newton's method may end at another minimum
        W[i], H[i] = followed(sol, X[i])
        fe[i] = al.feature_error(W[i], H[i], *sol.factors)
    return fe, residuals(Stack(X, float(sol.objective.beta)), W, H).tolist(), [i in far for i in range(len(fe))]


def attacked(sol, c, D, steps=4):
    "Follow the gradient of the feature error on the sphere of the certified size, from every one of D"
    for _ in range(steps):
        eps = torch.full((len(D),), c.eps, dtype=D.dtype)
        X, W, H = moved(sol, D, eps)
        yield D, eps
        ahead = D.clone()
        for i in range(len(D)):
            try:
                ahead[i] = feature_gradient(sol.objective.at(Data(X[i])), W[i], H[i], *sol.factors)[1]
            except ValueError:        # a singular Hessian at the perturbed solution has no gradient
                continue
        D = ahead


def drawn(rng, kind, r, shape):
    "Directions of perturbations, (r, n, f)"
    if kind == "random":
        return torch.from_numpy(rng.standard_normal((r, *shape)))
    return torch.from_numpy(rng.standard_normal((r, shape[0], 1)) * rng.standard_normal((r, 1, shape[1])))


def trials(sol, c, tries, rng):
    "kind, sizes, feature errors, residuals of every perturbation, and whether it was followed"
    shape, big = sol.objective.data.shape, sum(T.numel() for T in sol.factors) > 200
    v = condition(Adjoint(sol.objective, *sol.factors)).direction
    starts = drawn(rng, "random", 2 if big else 10, shape)
    if v is not None:
        ends = torch.stack([v, -v])
        starts = torch.cat([starts, ends])
        eps = c.eps * torch.linspace(.1, 1, 8, dtype=v.dtype).repeat(2)
        yield "worst direction", eps, *errors(sol, c, ends.repeat_interleave(8, 0), eps)
    for D, eps in attacked(sol, c, starts):
        yield "attack", eps, *errors(sol, c, D, eps)
    for kind, r in (("random", tries - tries // 3), ("rank one", tries // 3)):
        eps = c.eps * torch.from_numpy(np.where(np.arange(r) % 2, 1., rng.uniform(.05, 1, r)))
        yield kind, eps, *errors(sol, c, drawn(rng, kind, r, shape), eps)


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
    clock = time.process_time()
    found = [(kind, float(e), *rest) for kind, sizes, *parts in trials(sol, c, tries, rng) for e, *rest in zip(sizes, *parts, strict=True)]
    kinds = sorted({kind for kind, *_ in found})
    bounds = [c.bound(eps) for _, eps, *_ in found]
    part = {kind: max(fe / b for (own, _, fe, *_), b in zip(found, bounds, strict=True) if own == kind) for kind in kinds}
    return row | dict(tried=len(found), crossings=sum(fe > b for (_, _, fe, *_), b in zip(found, bounds, strict=True)), followed=sum(f[4] for f in found),
                      by_kind={kind: sum(f[0] == kind for f in found) for kind in kinds},
                      largest_kkt=float(f"{max(f[3] for f in found):.1e}"), cpu_seconds_perturbations=round(time.process_time() - clock, 1),
                      largest=float(f"{max(f[2] for f in found):.3g}"), first_order=float(f"{kappa * c.eps:.3g}"),
                      largest_part_of_the_bound={kind: round(p, 3) for kind, p in part.items()})


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--problems", type=int, default=24)
    p.add_argument("--tries", type=int, default=420)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--out", default="results/trust/certificate.json")
    p.add_argument("--again", action="store_true", help="begin anew; otherwise problems on file are kept, unless one was crossed")
    a = p.parse_args(argv)
    torch.set_num_threads(1)
    rows = json.loads(Path(a.out).read_text())["measured"]["rows"] if Path(a.out).exists() and not a.again else []
    for i, (name, X, k, loss, earlier) in enumerate(problems(a.problems)):
        if i < len(rows) and not rows[i].get("crossings"):
            continue
        rng = np.random.default_rng([a.seed, i])
        rows[i:i + 1] = [study(name, X, k, loss, earlier, a.tries // 10 if name.startswith("genomes") else a.tries, rng)]
        print(json.dumps(rows[i]), flush=True)
        write(rows, a)


def write(rows, a):
    "The record so far"
    certified = [r for r in rows if r["eps"] > 0]
    total = dict(problems=len(rows), certified=len(certified), tried=sum(r["tried"] for r in certified),
                 crossings=sum(r["crossings"] for r in certified), followed=sum(r.get("followed", 0) for r in certified),
                 least_times_earlier=min(r["times_earlier"] for r in rows if "times_earlier" in r))
    command = f"python benchmarks/study_certificate.py --problems {a.problems} --tries {a.tries} --seed {a.seed}"
    versions = dict(anmf_lab=al.__version__, numpy=np.__version__, torch=torch.__version__, python=platform.python_version())
    record = dict(name="certificate", command=command, seed=a.seed, versions=versions, measured=total | dict(rows=rows))
    path = Path(a.out)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
