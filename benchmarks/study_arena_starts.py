"""Who finds the lowest objective of attacked data? The genomes, one seed: models, algorithms, and another program.

    python benchmarks/study_arena_starts.py [--out results/arena/starts]

The ensemble attacks AT-NMF (price 5) at a budget of .01 as in `anmf-lab arena --data genomes --strength standard`. Its
data are solved: for AT-NMF from the arena's eight shared starts and from 24 others through the model's own algorithm
and to the end, and from sixteen by the library's solver of the model's own objective; for plain NMF (squared error)
from 48 starts by HALS and from the same by multiplicative updates, each to the end, and by scikit-learn's `cd` and
`mu` from 24 starts (tol 1e-8, at most 3000 iterations). Each end with its feature error against the model's clean
solution and its objective relative to the lowest found by anybody.
"""
import os

# ruff: noqa: E402
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import json
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from sklearn.decomposition import NMF as SklearnNMF

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from anmf_lab.arena import FIELDS, MODELS, enter, ours, shared_starts
from anmf_lab.data import fingerprint
from anmf_lab.records import plain, versions, write_whole
from anmf_lab.solve import Solution, solve_seeds

MODEL, SEED, EPS = "atnmf-5", 0, .01


def by_sklearn(c, Z, solver: str, n: int = 24) -> list[Solution]:
    "Where scikit-learn stops"
    out = []
    for i in range(n):
        m = SklearnNMF(c.problem.k, solver=solver, init="random", random_state=i, max_iter=3000, tol=1e-8)
        pair = tuple(map(torch.from_numpy, (m.fit_transform(Z.numpy()), m.components_)))
        out.append(Solution(*pair, float(c.problem.at(Z).value(*pair)), np.nan))
    return out


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, default=ROOT / "results" / "arena" / "starts")
    a = p.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    k = FIELDS["genomes"].rank
    X = FIELDS["genomes"].load(SEED)
    X = X / X.max()
    c, nmf = (enter(MODELS[name], X, k, "l2", SEED) for name in (MODEL, "nmf"))
    Z, claimed = ours(c, (.01, .02), "standard")[EPS]
    other = replace(c, begin=shared_starts(X, k, 24, 99, "more"))
    rng = lambda: np.random.default_rng(5)
    hals, mu = (solve_seeds(nmf.problem.at(Z), k, 48, rng=rng(), n_first=200, solver=s) for s in ("hals", "mu"))
    found = {
        "AT-NMF, own algorithm, shared starts": (c, c.solve(Z, 8).taken),
        "AT-NMF, own algorithm, other starts": (c, other.solve(Z, 24).taken),
        "AT-NMF, solver": (c, c.problem.fresh(Z, 16, rng())),
        "NMF, HALS": (nmf, hals), "NMF, updates": (nmf, mu),
        "NMF, scikit-learn cd": (nmf, by_sklearn(nmf, Z, "cd")),
        "NMF, scikit-learn mu": (nmf, by_sklearn(nmf, Z, "mu")),
    }
    least = {id(m): min(s.loss for at, ends in found.values() if at is m for s in ends) for m in (c, nmf)}
    seen = {how: [dict(feature_error=m.moved(s), above=s.loss / least[id(m)] - 1, residual=s.residual)
                  for s in sorted(ends, key=lambda s: s.loss)] for how, (m, ends) in found.items()}
    record = dict(name=f"genomes_{MODEL}_{SEED}", asked=dict(model=MODEL, seed=SEED, eps=EPS), claimed=claimed,
                  measured=seen, sha256=fingerprint(X), versions=versions(),
                  command="python benchmarks/study_arena_starts.py")
    write_whole(a.out / f"{record['name']}.json", (json.dumps(plain(record), indent=1) + "\n").encode())
    for how, each in seen.items():
        print(how, len(each), [(round(s["above"], 4), round(s["feature_error"], 3)) for s in each[:8]])


if __name__ == "__main__":
    main()
