"""False zeros: AT-NMF at several prices, and at a price chosen without the truth, beside the robust losses.

    python benchmarks/study_false_zeros.py [--out benchmarks/false_zeros.json] [--seeds 5] [--data planted,sparse,faces] [--quick]

A share of the positive entries is set to 0, and nothing says which. Every method fits what is left, from the same kind of
random start and with the same limits; none is told which zeros are false. Error: root mean squared, on the lost entries,
over the standard deviation of their true values (1: as good as their mean). "zeros missing" hides every zero, which is right
where no zero is true. A price is chosen by losing another tenth of the positive entries and predicting those: what a user
can do. Records what is there already and goes on.
"""
import argparse
import json
import os
import time
import warnings
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"): os.environ[_name] = "1"

import numpy as np  # noqa: E402
from sklearn.exceptions import ConvergenceWarning  # noqa: E402

import anmf_lab as al  # noqa: E402
from anmf_lab.data import fingerprint  # noqa: E402
from anmf_lab.records import versions  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
SHARES = (.1, .3, .5)
PRICES = (1.02, 1.05, 1.1, 1.2, 1.5)
HOW = dict(init="random", max_iter=200, tol=1e-3)


def planted(seed, zeros=0.):
    "80 x 60 of rank 4 with a tenth of noise; with `zeros`, that share of the factors is 0, and so are entries of the truth"
    rng = np.random.default_rng(seed)
    W, H = rng.gamma(2., size=(80, 4)), rng.gamma(2., size=(4, 60))
    if zeros: W, H = W * (rng.random(W.shape) > zeros), H * (rng.random(H.shape) > zeros)
    T = W @ H
    return np.maximum(T + .1 * T.std() * rng.standard_normal(T.shape) * (T > 0), .01 * T.mean() * (T > 0)), 4


def faces(seed):
    "150 faces of CBCL, drawn by the seed, no pixel of which is 0"
    X = al.load_dataset("cbcl", preprocess="unit").data
    rows = np.random.default_rng(seed).choice(len(X), 150, replace=False)
    return np.maximum(X[rows], 1 / 255), 10


DATA = {"planted": planted, "sparse": lambda seed: planted(seed, zeros=.5), "faces": faces}


def fitted(model, Z, k):
    "The reconstruction"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit_transform(Z) @ model.components_


def as_missing(Z, k, seed):
    "NMF with every zero hidden; rows and columns of zeros are predicted as 0"
    r, c = (Z > 0).any(1), (Z > 0).any(0)
    out, part = np.zeros_like(Z), Z[np.ix_(r, c)]
    out[np.ix_(r, c)] = fitted(al.NMF(k, **HOW, random_state=seed), np.where(part > 0, part, np.nan), k)
    return out


def methods(k, seed):
    how = dict(**HOW, random_state=seed)
    return {"NMF": al.NMF(k, **how), **{f"AT {p:g}": al.ATNMF(k, lam=p, **how) for p in PRICES},
            "Huber": al.HuberNMF(k, **how), "Cauchy": al.CauchyNMF(k, **how), "correntropy": al.CorrentropyNMF(k, **how),
            "L2,1": al.L21NMF(k, **how), "capped": al.CappedNMF(k, **how)}


def cell(name, share, seed):
    "Errors of one draw: {method: error}, what each method says of lost entries that it can know, the price picked, seconds"
    X, k = DATA[name](seed)
    Z, kept = al.false_zeros(X, share, random_state=seed)
    lost = ~kept
    def error(A, B, where): return float(np.sqrt(np.mean((A - B)[where]**2)) / B[where].std())
    P, left = al.false_zeros(Z, .1, random_state=seed + 1000)
    again = ~left
    errors, seen, seconds = {}, {}, {}
    for label, model in methods(k, seed).items():
        t = time.process_time()
        errors[label] = error(fitted(model, Z, k), X, lost)
        seconds[label] = round(time.process_time() - t, 3)
        if label.startswith("AT"): seen[label] = error(fitted(model, P, k), Z, again)
    errors["zeros missing"] = error(as_missing(Z, k, seed), X, lost)
    picked = min(seen, key=seen.get)
    errors["AT, chosen"] = errors[picked]
    def short(d): return {m: float(f"{v:.4g}") for m, v in d.items()}
    return dict(data=name, share=share, seed=seed, picked=picked, errors=short(errors), predicted=short(seen), cpu_s=seconds)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "false_zeros.json")
    ap.add_argument("--seeds", type=int, default=5)
    ap.add_argument("--data", default="planted,sparse,faces")
    ap.add_argument("--quick", action="store_true", help="one seed of the planted data, to see that it runs")
    a = ap.parse_args()
    if a.quick: a.seeds, a.data = 1, "planted"
    record = json.loads(a.out.read_text()) if a.out.exists() else dict(rows=[])
    record |= dict(what=__doc__.splitlines()[0], command="python benchmarks/study_false_zeros.py", versions=versions(),
                   shares=SHARES, prices=PRICES, settings=HOW, measure="RMSE on the lost entries over their standard deviation")
    done = {(r["data"], r["share"], r["seed"]) for r in record["rows"]}
    for seed in range(a.seeds):
        for name in a.data.split(","):
            if (name, SHARES[0], seed) not in done: record.setdefault("sha256", {})[f"{name}, seed {seed}"] = fingerprint(DATA[name](seed)[0])
            for share in [s for s in SHARES if (name, s, seed) not in done]:
                record["rows"].append(cell(name, share, seed))
                a.out.with_suffix(".part").write_text(json.dumps(record, indent=1) + "\n")
                os.replace(a.out.with_suffix(".part"), a.out)
                print(name, share, seed, record["rows"][-1]["picked"], record["rows"][-1]["errors"], flush=True)


if __name__ == "__main__": main()
