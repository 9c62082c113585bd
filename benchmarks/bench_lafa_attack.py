"""LaFA: what an attack costs, and whether it carries over to scikit-learn's NMF as it is.

    python benchmarks/bench_lafa_attack.py [--out benchmarks/lafa_attack.json] [--only cost|transfer]

One thread, CPU seconds. Cost: a standard attack at one budget (`ascent`: solving, gradients, looking for other minima), and the
whole run with the reference, floor, noise and verification on eight fresh seeds each; median of three where a run is short. Transfer: one
squared-error attack on the faces at eps = 0.008, then scikit-learn's NMF under several settings, each fitted to clean and to attacked data.
Faces and digits need ANMF_LAB_DATA; what is absent is left out.
"""
import os

# ruff: noqa: E402
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import json
import platform
import statistics
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import sklearn
import torch
from sklearn.decomposition import NMF as SklearnNMF

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from anmf_lab.align import feature_error
from anmf_lab.data import fingerprint
from anmf_lab.lafa import LaFA
from anmf_lab.nmf import NMF
from anmf_lab.reproduce_lafa import SETTINGS, load

COST = {   # name -> (data, loss, eps, repetitions, settings)
    "face, kullback-leibler": ("face", "kullback-leibler", .004, 3, {}),
    "face, frobenius": ("face", "frobenius", .004, 3, {}),
    "mnist, kullback-leibler": ("mnist", "kullback-leibler", .01, 1, dict(n_seeds=2)),
}
VICTIMS = {   # scikit-learn's NMF, unmodified
    "all defaults (200 iterations)": {},
    "default tol, max_iter=2000": dict(max_iter=2000),
    "tol=1e-8": dict(tol=1e-8, max_iter=20000),
    "default tol, max_iter=2000, random start 0": dict(max_iter=2000, init="random", random_state=0),
    "default tol, max_iter=2000, random start 1": dict(max_iter=2000, init="random", random_state=1),
}


def cost(data: str, loss: str, eps: float, n: int, how: dict) -> dict:
    "CPU seconds of a standard attack"
    X, spent = load(data), []
    for _ in range(n):
        t = time.process_time()
        r = LaFA("l2", eps, n_usual=0, **how).run(NMF(SETTINGS[data].rank, loss=loss), X)
        spent.append((r.records[0]["ascent_seconds"], time.process_time() - t))
        print(data, loss, spent[-1], flush=True)
    return dict(data=data, shape=list(X.shape), sha256=fingerprint(X), eps=eps, repetitions=n, n_seeds=r.settings["n_seeds"],
                ascent=round(statistics.median(a for a, _ in spent), 1), whole=round(statistics.median(b for _, b in spent), 1),
                feature_error=r.records[0]["feature_error"], random=r.records[0]["random"], floor=r.records[0]["floor"], flags=[f.text for f in r.flags])


def fitted(X: np.ndarray, how: dict):
    "Factors and number of iterations"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        m = SklearnNMF(5, **how)
        W = m.fit_transform(X)
    return (W, m.components_), m.n_iter_


def transfer(eps: float = .008) -> dict:
    "One attack on each branch, then every victim on clean and attacked data"
    X, rows = load("face"), []
    clean = {name: fitted(X, how) for name, how in VICTIMS.items()}
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(X.shape)
    noisy = np.clip(X + eps * np.linalg.norm(X) / np.linalg.norm(noise) * noise, 0, X.max())
    solved = clean["tol=1e-8"][0]
    for branch in ("best", "victim"):
        r = LaFA("l2", eps, branch=branch, reference="victim").run(SklearnNMF(5, max_iter=2000), X)
        Z, rec = r.adversarial[eps], r.records[0]
        for name, how in VICTIMS.items():
            (own, n), (hit, m) = clean[name], fitted(Z, how)
            rows.append(dict(branch=branch, victim=name, iterations_clean=n, iterations_attacked=m, unconverged=feature_error(*own, *solved),
                             feature_error=feature_error(*hit, *own), noise=feature_error(*fitted(noisy, how)[0], *own),
                             verified=rec["feature_error"], median=rec["median"], claimed=rec["claimed"]))
            print(rows[-1], flush=True)
    return dict(data="face", sha256=fingerprint(X), eps=eps, norm="l2", steps=r.settings["steps"], starts=r.settings["starts"], seed=r.settings["random_state"], rows=rows)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", default=str(ROOT / "benchmarks" / "lafa_attack.json"))
    p.add_argument("--only", choices=("cost", "transfer"))
    p.add_argument("--case", choices=list(COST), help="one case of the cost only")
    a = p.parse_args()
    torch.set_num_threads(1)
    out = Path(a.out)
    record: dict = json.loads(out.read_text()) if out.exists() else {"name": "lafa_attack", "threads": 1, "cost": {}}
    record |= {"command": "python benchmarks/bench_lafa_attack.py",
               "versions": {"python": platform.python_version(), "numpy": np.__version__, "torch": torch.__version__.split("+")[0], "sklearn": sklearn.__version__}}
    for name, case in COST.items() if a.only != "transfer" else ():
        if a.case in (None, name):
            try: record["cost"][name] = cost(*case)
            except FileNotFoundError as e: print("left out:", str(e).splitlines()[0])
            out.write_text(json.dumps(record, indent=1) + "\n")
    if a.only != "cost":
        try: record["transfer"] = transfer()
        except FileNotFoundError as e: print("left out:", str(e).splitlines()[0])
    out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
