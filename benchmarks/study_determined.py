"""Is the verdict of `al.identifiability` right? Writes results/trust/determined.json.

    python benchmarks/study_determined.py [PART ...] [--draws 66] [--seed 0] [--out results/trust]

Exact data from planted factors, where the truth can be had: the largest feature error of fresh exact fits (12 starts of
their own, KKT 1e-9) to the planted factors. Two sets of draws: `notes`, 20 x 15 of rank 3 (the codes hold the identity,
or a share of .1 to .5 of both factors is zero), and `fresh`, other shapes, ranks and shares. Then the genomes, ranks 2
to 6: does the answer depend on the seed, the unit, the precision or the order of the data? Then `fields`: tables of
scikit-learn (digits, wine, tumours, irises), two losses, ranks 2 to 5. There the check is another one: the solution is
pushed by two percent, at random, and solved again, four times; where nothing may move, it comes back. Parts: notes,
fresh, genomes, fields; those not named stay as they are on file.
"""
import argparse
import itertools
import json
import platform
import time
from pathlib import Path

import numpy as np
import torch

import anmf_lab as al
from anmf_lab.align import feature_error
from anmf_lab.objective import Objective
from anmf_lab.core import as_data
from anmf_lab.determined import local_verdict
from anmf_lab.implicit import Adjoint, condition
from anmf_lab.polish import polish
from anmf_lab.solve import solve_seeds

SAME = .01       # fresh exact fits that differ by less agree
EXACT = 1e-14    # of the squares of the data: the loss of an exact fit


def planted(rng, n, f, k, zeros):
    "Factors with a share of zeros in both; `zeros` = -1: the codes hold the identity; None if a row or a column is zero"
    W, H = rng.uniform(.2, 1, (n, k)), rng.uniform(.2, 1, (k, f))
    if zeros < 0:
        W[:k] = np.eye(k)
    else:
        W, H = W * (rng.random(W.shape) > zeros), H * (rng.random(H.shape) > zeros)
    dead = (W.sum(0) == 0).any() or (H.sum(1) == 0).any()
    return None if dead or (W.sum(1) == 0).any() or (H.sum(0) == 0).any() else (W, H)


def truth(X, W, H, seed):
    "(largest feature error of fresh exact fits to the planted factors, how many there were)"
    W, H = torch.from_numpy(W), torch.from_numpy(H)
    runs = solve_seeds(Objective(as_data(X), 2.), len(H), 12, rng=np.random.RandomState(seed), tol=1e-9)
    exact = [r for r in runs if r.loss < EXACT * (X**2).sum()]
    return max((feature_error(r.W, r.H, W, H) for r in exact), default=0.), len(exact)


def ask(X, W, H, seed):
    r = al.identifiability(None, X, W=W, H=H, loss="frobenius", random_state=seed)
    return dict(verdict=r.verdict, count=r.count, range=list(r.range), floor=float(f"{r.floor:.2g}"),
                here=r.here.verdict, solved=r.n_solved)


def variations(X, W, H, seed):
    "The verdict of the same data in another unit, in single precision, and in another order"
    rng = np.random.default_rng(seed)
    rows, columns = rng.permutation(len(X)), rng.permutation(X.shape[1])
    kinds = dict(unit=(X / 7, W / 7, H), single=(X.astype(np.float32), W.astype(np.float32), H.astype(np.float32)),
                 order=(X[rows][:, columns], W[rows], H[:, columns]))
    return {name: al.identifiability(None, *given[:1], W=given[1], H=given[2], loss="frobenius", n_seeds=4,
                                     random_state=seed).verdict for name, given in kinds.items()}


def one(about, W, H, seed, vary):
    X, clock = W @ H, time.process_time()
    found = about | ask(X, W, H, seed)
    found["cpu"] = round(time.process_time() - clock, 2)
    fe, n = truth(X, W, H, 10_000 + seed)
    found |= dict(fresh_exact_fits=n, largest_feature_error=float(f"{fe:.2g}"))
    moves, apart = found["verdict"] in ("flat", "one-sided"), fe > SAME
    found["outcome"] = ("right" if moves == apart else "narrow" if moves else
                        "isolated, and the floor says so" if found["floor"] > SAME else "false")
    if vary:
        found["variations"] = variations(X, W, H, seed)
    return found


def notes(seed=0):
    "The draws of the notes: the stream of random numbers is theirs"
    rng = np.random.default_rng(seed)
    for zeros in (-1, .1, .2, .3, .5):
        for t in range(6):
            drawn = planted(rng, 20, 15, 3, zeros)
            if drawn is not None:
                yield one(dict(zeros=zeros, draw=t), *drawn, t, vary=True)


def fresh(draws, seed):
    rng, made = np.random.default_rng(1000 + seed), 0
    while made < draws:
        n, f, k = int(rng.integers(10, 31)), int(rng.integers(8, 26)), int(rng.integers(2, 5))
        zeros = -1 if rng.random() < .15 else round(float(rng.uniform(0, .55)), 2)
        drawn = planted(rng, n, f, k, zeros)
        if drawn is None:
            continue
        made += 1
        yield one(dict(shape=[n, f], rank=k, zeros=zeros), *drawn, made, vary=made % 4 == 0)


def genomes():
    "One answer a rank: eight seeds, three units, single precision, another order"
    X = np.asarray(al.load_dataset("wtsi").data, float)
    kl, order = "kullback-leibler", np.random.default_rng(0).permutation(X.shape[1])
    for k in range(2, 7):
        own = solve_seeds(Objective(as_data(X), 1.), k, 8, rng=np.random.RandomState(100), tol=1e-9)
        for s, run in enumerate(own):
            r = al.identifiability(None, X, W=run.W.numpy(), H=run.H.numpy(), loss=kl, n_seeds=3, random_state=s)
            yield dict(rank=k, seed=s, data="X", verdict=r.verdict, count=r.count, range=list(r.range), here=r.here.verdict,
                       both_ways=r.here.both_ways, floor=float(f"{r.floor:.2g}"), shared=r.n_shared,
                       components=r.components, excess=float(f"{r.excess:.1e}"))
        H = own[0].H.numpy()
        kinds = {"X / max": (X / X.max(), H), "1000 X": (1000 * X, H), "float32": (X.astype(np.float32), H),
                 "float32 / max": ((X / X.max()).astype(np.float32), H), "columns permuted": (X[:, order], H[:, order])}
        for name, (Y, G) in kinds.items():
            r = al.identifiability(None, Y, H=G, loss=kl, n_seeds=3)
            yield dict(rank=k, seed=0, data=name, verdict=r.verdict, count=r.count, range=list(r.range), here=r.here.verdict,
                       both_ways=r.here.both_ways, floor=float(f"{r.floor:.2g}"), shared=r.n_shared,
                       components=r.components, excess=float(f"{r.excess:.1e}"))


def tables():
    "scikit-learn's own tables, some with every column in its own unit"
    from sklearn import datasets
    digits = datasets.load_digits().data[:200]
    wine, tumours, irises = (getattr(datasets, f"load_{name}")().data for name in ("wine", "breast_cancer", "iris"))
    yield from dict(digits=digits, wine=wine, wine_scaled=wine / wine.max(0), tumours=tumours[:150] / tumours[:150].max(0), irises=irises).items()


def returns(obj, W, H, loss, seed):
    "Largest feature error of solutions as good that were reached from pushed factors, and how many there were"
    rng, found = np.random.default_rng(seed), []
    for _ in range(4):
        pushed = (T * torch.from_numpy(np.exp(.02 * rng.standard_normal(T.shape)))
                  + .002 * T.square().mean().sqrt() * torch.from_numpy(rng.random(T.shape)) for T in (W, H))
        run = polish(obj, *pushed, tol=1e-10, max_iter=300)
        if run.residuals[-1] < 1e-7 and run.loss <= loss * (1 + 1e-9):
            found.append(feature_error(*run.state, W, H))
    return max(found, default=0.), len(found)


def fields(seed=0):
    "Verdict, light of the error bars and condition number of a solution, beside what pushing it shows"
    for name, X in tables():
        X = np.asarray(X, float)
        for loss, k in itertools.product(("frobenius", "kullback-leibler"), (2, 3, 5)):
            if k >= X.shape[1]:
                continue
            obj = Objective(as_data(X), 2. if loss == "frobenius" else 1.)
            best = solve_seeds(obj, k, 4, rng=np.random.RandomState(seed), tol=1e-10)[0]
            local = local_verdict(obj, best.W, best.H)
            far, n = returns(obj, best.W, best.H, best.loss, seed)
            noise = "gaussian" if loss == "frobenius" else "poisson"
            light = al.uncertainty(None, X, noise, W=best.W.numpy(), H=best.H.numpy(), loss=loss).light
            finite = bool(np.isfinite(condition(Adjoint(obj, best.W, best.H)).kappa))
            moves = local.verdict in ("flat", "one-sided")
            agree = (local.verdict == "determined") == (light != "red") == finite
            yield dict(table=name, loss=loss, rank=k, verdict=local.verdict, count=local.count, light=light, finite_kappa=finite,
                       pushed=n, largest_feature_error=float(f"{far:.1e}"),
                       outcome="right" if moves == (far > 1e-4) and agree and n else "false")


def gathered(name, rows, say):
    out = []
    for row in rows:
        out.append(row)
        if say:
            print(name, json.dumps(row), flush=True)
    return out


def totals(rows):
    out = {o: sum(r["outcome"] == o for r in rows) for o in sorted({r["outcome"] for r in rows})}
    asked = [(v, r["verdict"]) for r in rows for v in r.get("variations", {}).values()]
    moves = ("flat", "one-sided")
    return dict(draws=len(rows), outcomes=out, not_determined=sum(r["verdict"] in moves for r in rows),
                variations=len(asked), variations_that_disagree=sum((a in moves) != (b in moves) for a, b in asked))


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("parts", nargs="*")
    p.add_argument("--draws", type=int, default=66)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--out", default="results/trust")
    p.add_argument("--quiet", action="store_true")
    a = p.parse_args(argv)
    torch.set_num_threads(1)
    path = Path(a.out) / "determined.json"
    found = json.loads(path.read_text())["rows"] if path.exists() else {}
    parts = {"notes": notes, "fresh": lambda: fresh(a.draws, a.seed), "genomes": genomes, "fields": fields}
    for name in a.parts or parts:
        found[name] = gathered(name, parts[name](), not a.quiet)
    record = dict(name="determined", command=f"python benchmarks/study_determined.py --draws {a.draws} --seed {a.seed}", seed=a.seed,
                  versions=dict(anmf_lab=al.__version__, numpy=np.__version__, torch=torch.__version__,
                                python=platform.python_version()),
                  **{name: totals(found[name]) for name in ("notes", "fresh", "fields") if name in found}, rows=found)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=None, separators=(", ", ": ")).replace('{"rank', '\n {"rank')
                    .replace('{"zeros', '\n {"zeros').replace('{"shape', '\n {"shape').replace('{"table', '\n {"table') + "\n")
    print(json.dumps({k: record[k] for k in ("notes", "fresh", "fields") if k in record}), flush=True)


if __name__ == "__main__":
    main()
