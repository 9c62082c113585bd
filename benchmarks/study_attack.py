"""The attack against the two released ones, judged by somebody else's solver; and what else is claimed of it.

    python benchmarks/study_attack.py [--out results/attack] [--only series backprop ours ...] [--seconds N]
    python benchmarks/study_attack.py --only released --code FOLDER

series    the paper's generator at 103 x 40 and 200 x 103, fresh seeds, both norms: the released attack with the
          truncated series (T = 2000, K = 200), 40 steps. The judge is scikit-learn's NMF (mu, Kullback-Leibler,
          tol 1e-10, at most 5000 updates, best of ten starts) on clean and on attacked data.
backprop  the same with back-propagation (T = 2000).
released  some of the cells by the authors' own program (github.com/lanl/LaFA, a checkout in FOLDER), series and
          back-propagation at the same settings; the two above are our rewriting of it.
ours      the same cells with our attack in standard strength, and the same judge.
planted   the 12 x 10 problems of the notes, twenty seeds of the attack each.
margin    with and without a required lead of 1e-3: the share of best-of-ten solves that see the damage.
faces     CBCL test, Kullback-Leibler, eps = .002; also from five other seeds of the attack.

One thread, CPU seconds. One record a cell, written whole; what is on file is left alone, so the study can be stopped
and started again. `--seconds` stops before the next cell when that much CPU time is spent.
"""
import os

# ruff: noqa: E402
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import importlib.util
import json
import sys
import time
import warnings
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from sklearn.decomposition import NMF as SklearnNMF

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from anmf_lab.align import feature_error
from anmf_lab.core import as_data
from anmf_lab.data import fingerprint, load_dataset
from anmf_lab.goals import Problem, victim_of
from anmf_lab.lafa import LaFA
from anmf_lab.nmf import NMF
from anmf_lab.objective import Entrywise
from anmf_lab.records import plain, versions, write_whole
from anmf_lab.synthetic import make_lafa_synthetic
from anmf_lab.threat import Threat, stream
from anmf_lab.unrolled import published_pgd

LOSS = "kullback-leibler"
ALONE = dict(n_noise=0, n_usual=0)   # the attack without its controls: its own time
BUDGETS = {"l2": (.01, .02, .05), "linf": (.01, .03)}
SEEDS = [(40, 21), (40, 22), (40, 23), (200, 31), (200, 32), (40, 24), (40, 25), (40, 26),
         (40, 27), (200, 33), (40, 28), (200, 34), (40, 29), (200, 35)]   # samples, seed of the generator
CELLS = [(n, seed, norm, eps) for n, seed in SEEDS for norm, budgets in BUDGETS.items() for eps in budgets]


def synthetic(n: int, seed: int) -> np.ndarray:
    "The paper's generator, scaled to a maximum of 1"
    X = make_lafa_synthetic(n, random_state=seed)[0]
    return X / X.max()


@cache
def best_of_ten(name: str, k: int = 3) -> tuple:
    "scikit-learn's best of ten on the data of that name: \"40 21\", with another ten seeds \"40 21 again\""
    n, seed, *again = name.split()
    return judges(synthetic(int(n), int(seed)), k, first=10 if again else 0)


def judges(A: np.ndarray, k: int = 3, first: int = 0) -> tuple:
    "(W, H): scikit-learn's mu, Kullback-Leibler, tight tolerance, best of ten seeds"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        models = [SklearnNMF(k, beta_loss=LOSS, solver="mu", init="random", random_state=i, tol=1e-10, max_iter=5000)
                  for i in range(first, first + 10)]
        pairs = [(m.fit_transform(A), m.components_, m.reconstruction_err_) for m in models]
    return min(pairs, key=lambda p: p[2])[:2]


def timed(f):
    "(answer, CPU seconds)"
    t = time.process_time()
    return f(), round(time.process_time() - t, 2)


def rewritten(X: np.ndarray, norm: str, eps: float, terms: int) -> tuple:
    "(attacked data, CPU seconds) of a released attack, in our rewriting; terms = 0: back-propagation"
    data = as_data(X)
    reference = Problem(Entrywise(data, LOSS), 3).fresh(data.X, 8, stream(0, "clean"))[0].factors
    t = Threat.around(data.X, norm)
    return timed(lambda: published_pgd(data, reference, 1., t, eps, np.random.RandomState(0),
                                       steps=40, n_iter=2000, terms=terms))


def ours(n: int, seed: int, norm: str, eps: float) -> dict:
    "One cell with the attack as a user gets it, without controls; its CPU time, the series' just before, the judge"
    X, clean = synthetic(n, seed), best_of_ten(f"{n} {seed}")
    *_, beside = rewritten(X, norm, eps, 200)
    result, spent = timed(lambda: LaFA(norm, eps, **ALONE).run(NMF(3, loss=LOSS, random_state=0), X))
    judged = feature_error(*judges(result.adversarial[eps]), *clean)
    return dict(cpu_seconds=spent, series_seconds=beside, judged=judged, own=result.records[0],
                flags=[f.code for f in result.flags], sha256=fingerprint(X))


def theirs(n: int, seed: int, norm: str, eps: float, terms: int) -> dict:
    "The same cell with a released attack, and what the judge says with nothing attacked"
    X, clean = synthetic(n, seed), best_of_ten(f"{n} {seed}")
    Z, spent = rewritten(X, norm, eps, terms)
    return dict(cpu_seconds=spent, judged=feature_error(*judges(Z.numpy()), *clean),
                floor=feature_error(*best_of_ten(f"{n} {seed} again"), *clean), sha256=fingerprint(X))


@cache
def authors(code: str):
    "The module of the authors' program that attacks; the package around it wants more than is needed"
    spec = importlib.util.spec_from_file_location("authors", Path(code) / "LaFA" / "utils" / "grad_attacks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def as_released(code: str, n: int, seed: int, norm: str, eps: float, terms: int) -> dict:
    "The same cell by the authors' own program: single precision, dense Jacobians, its own reference"
    X, clean = synthetic(n, seed), best_of_ten(f"{n} {seed}")
    np.random.seed(0)
    how = dict(nmf_rank=3, base_nmf_iters=2000, use_cuda=False, implicit_func=terms > 0, taylor=terms or 1,
               norm=dict(l2="L2", linf="Linf")[norm])
    def run():
        attacker = authors(code).Gradient_based_attack(torch.from_numpy(X.T.copy()).float(), **how)
        return attacker.pgd_attack(eps=eps, alpha=.01, iters=40)
    Z, spent = timed(run)
    t = Threat.around(as_data(X).X, norm)
    Z = t.project(Z.detach().T.double().contiguous(), eps)   # only rounding is left to mend
    return dict(cpu_seconds=spent, judged=feature_error(*judges(Z.numpy()), *clean), sha256=fingerprint(X))


def planted(s: int) -> np.ndarray:
    "The 12 x 10 problems"
    r = np.random.default_rng(s)
    W, H = (r.uniform(.2, 1, shape) * (r.random(shape) > .45) for shape in ((12, 3), (3, 10)))
    return np.maximum(W @ H + .03 * r.standard_normal((12, 10)), .002)


def small(s: int, seed: int) -> dict:
    "One seed of the attack on a planted problem"
    X = planted(s)
    result, spent = timed(lambda: LaFA("l2", .05, random_state=seed, **ALONE).run(NMF(3, random_state=0), X))
    return dict(cpu_seconds=spent, own=result.records[0], sha256=fingerprint(X))


def seen(X: np.ndarray, result, model, groups: int = 10) -> float:
    "Share of best-of-ten solves of the attacked data, solved to the end, that see 90 % of the damage"
    (eps, Z), = result.adversarial.items()
    problem = victim_of(model, X).problem
    ref, fe = tuple(torch.from_numpy(T) for T in result.reference), result.records[0]["feature_error"]
    bests = [problem.fresh(torch.from_numpy(Z), 10, stream(77, "best of ten", i))[0] for i in range(groups)]
    return float(np.mean([feature_error(*b.factors, *ref) >= .9 * fe for b in bests]))


def margin(s: int, lead: float) -> dict:
    "A planted problem with a required lead"
    X, model = planted(s), NMF(3, random_state=0)
    result, spent = timed(lambda: LaFA("l2", .05, margin=lead, **ALONE).run(model, X))
    return dict(cpu_seconds=spent, own=result.records[0], seen=seen(X, result, model), sha256=fingerprint(X))


def users(X: np.ndarray, Z: np.ndarray, reference, k: int, n: int = 6) -> dict:
    "What a user of scikit-learn's mu sees after 1000 updates: the same seed on clean and on attacked data"
    def fit(A, i):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            m = SklearnNMF(k, beta_loss=LOSS, solver="mu", init="random", random_state=i, tol=0, max_iter=1000)
            return m.fit_transform(A), m.components_
    pairs = [(fit(X, i), fit(Z, i)) for i in range(n)]
    return dict(before_after=[feature_error(*z, *x) for x, z in pairs],
                clean_to_solved=[feature_error(*x, *reference) for x, _ in pairs])


def faces(lead: float, seed: int = 0) -> dict:
    "The faces, with and without a required lead: 24 fresh seeds, and users who do not solve"
    X, model = load_dataset("cbcl_test", preprocess="lafa").data, NMF(5, loss=LOSS, random_state=0)
    result, spent = timed(lambda: LaFA("l2", .002, margin=lead, **ALONE | dict(random_state=seed)).run(model, X))
    problem, Z = victim_of(model, X).problem, result.adversarial[.002]
    ref = tuple(torch.from_numpy(T) for T in result.reference)
    fresh = problem.fresh(torch.from_numpy(Z), 24, stream(77, "fresh"))
    seen = [dict(feature_error=feature_error(*s.factors, *ref), above=s.loss / fresh[0].loss - 1) for s in fresh]
    return dict(cpu_seconds=spent, own=result.records[0], fresh=seen, users=users(X, Z, result.reference, 5),
                flags=[f.code for f in result.flags], sha256=fingerprint(X))


def cells(only, code=None):
    "(name, function, arguments) of all that is to be measured, the cheap ones first"
    if "faces" in only: yield from ((f"faces_{lead:g}", faces, (lead,)) for lead in (0., 1e-3))
    if "faces" in only: yield from ((f"faces_0_seed{seed}", faces, (0., seed)) for seed in range(1, 6))
    if "margin" in only: yield from ((f"margin_s{s}_{lead:g}", margin, (s, lead)) for s in (0, 1) for lead in (0., 1e-3))
    if "planted" in only: yield from ((f"planted_s{s}_{i:02d}", small, (s, i)) for i in range(20) for s in (1, 0))
    for n, seed, norm, eps in CELLS:
        cell = f"{n}_{seed}_{norm}_{eps:g}"
        if "series" in only: yield f"series_{cell}", theirs, (n, seed, norm, eps, 200)
        if "ours" in only: yield f"ours_{cell}", ours, (n, seed, norm, eps)
        if "released" in only and (n, seed) in ((40, 21), (200, 31)):
            run = partial(as_released, code)
            yield f"released_series_{cell}", run, (n, seed, norm, eps, 200)
            yield f"released_backprop_{cell}", run, (n, seed, norm, eps, 0)
        if "backprop" in only: yield f"backprop_{cell}", theirs, (n, seed, norm, eps, 0)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, default=ROOT / "results" / "attack")
    p.add_argument("--only", nargs="+", default=["faces", "margin", "planted", "series", "backprop", "ours"])
    p.add_argument("--seconds", type=float, default=np.inf)
    p.add_argument("--code", help="a checkout of the authors' program")
    a = p.parse_args()
    if "released" in a.only and not a.code: p.error("--only released needs --code FOLDER")
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)   # multiplicative updates drive entries to zero through denormal numbers
    for name, measure, args in cells(a.only, a.code):
        file = a.out / f"{name}.json"
        if file.exists(): continue
        if time.process_time() > a.seconds: break
        found = measure(*args)
        kind = name.split("_")[0]
        code = " --code FOLDER" if kind == "released" else ""
        record = dict(name=name, asked=list(args), measured=found, versions=versions(),
                      command=f"python benchmarks/study_attack.py --only {kind}{code}")
        write_whole(file, (json.dumps(plain(record), indent=1) + "\n").encode())
        print(name, {k: (v.get("judged") if isinstance(v, dict) and "judged" in v else None) for k, v in found.items()},
              found.get("own", {}).get("feature_error"), flush=True)


if __name__ == "__main__":
    main()
