"""Do the arena's eight starts find the lowest objective of attacked data? AT-NMF on the genomes, one seed.

    python benchmarks/study_arena_starts.py [--out results/arena/starts]

The ensemble attacks AT-NMF (price 5) at a budget of .01 as in `anmf-lab arena --data genomes --strength standard`. Its
data are solved from sixteen starts by the library's solver of the model's own objective, from the arena's eight
shared starts, and from 24 others, through the model's own algorithm and to the end: feature error, and objective
relative to the lowest found by anybody.
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

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from anmf_lab.align import feature_error
from anmf_lab.arena import FIELDS, MODELS, enter, ours, shared_starts
from anmf_lab.data import fingerprint
from anmf_lab.records import plain, versions, write_whole


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, default=ROOT / "results" / "arena" / "starts")
    a = p.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    model, seed, eps, k = "atnmf-5", 1, .01, FIELDS["genomes"].rank
    X = FIELDS["genomes"].load(seed)
    c = enter(MODELS[model], X, k, "l2", seed)
    Z, claimed = ours(c, (eps,), "standard")[eps]
    other = replace(c, begin=shared_starts(X, k, 24, 99, "more"))
    found = dict(solver=c.problem.fresh(Z, 16, np.random.default_rng(5)), shared=c.solve(Z, 8).taken,
                 others=other.solve(Z, 24).taken)
    least = min(s.loss for sols in found.values() for s in sols)
    seen = {how: [dict(feature_error=feature_error(*s.factors, *c.reference), above=s.loss / least - 1,
                       residual=s.residual) for s in sols] for how, sols in found.items()}
    record = dict(name=f"genomes_{model}_{seed}", asked=dict(model=model, seed=seed, eps=eps), claimed=claimed,
                  measured=seen, sha256=fingerprint(X), versions=versions(),
                  command="python benchmarks/study_arena_starts.py")
    write_whole(a.out / f"{record['name']}.json", (json.dumps(plain(record), indent=1) + "\n").encode())
    for how, each in seen.items():
        print(how, [(round(s["above"], 4), round(s["feature_error"], 3)) for s in each])


if __name__ == "__main__":
    main()
