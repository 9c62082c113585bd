"""How often do the intervals of `al.uncertainty` hold what they should? Writes results/trust/coverage_CASE.json.

    python benchmarks/study_coverage.py CASE [CASE ...] [--replicates 200] [--seed 0] [--seconds S] [--out results/trust]
    python benchmarks/study_coverage.py --list
    python benchmarks/study_coverage.py ways     other standard errors and intervals beside ours: text, genomes, planted
    python benchmarks/study_coverage.py wide     the bars of whole components, on a text of many terms

Two kinds of case. "fit": new noise around the mean of one fitted factorization, solved again from there;
does the interval hold the generating value? "truth": fresh data from planted factors with zeros in both,
the best of four cold starts; does it hold the planted value? Every replicate measures its own dispersion.
"""
import argparse
import json
import platform
import time
from pathlib import Path

import numpy as np
import torch

import anmf_lab as al
from anmf_lab.align import match
from anmf_lab.core import Data, as_data
from anmf_lab.implicit import Solved
from anmf_lab.objective import Entrywise
from anmf_lab.polish import polish
from anmf_lab.propagated import Propagated
from anmf_lab.reduced import Reduced, code_variances, component_variances, entry_gradients, influence, localised
from anmf_lab.solve import solve_seeds

SOLVED = 1e-6   # KKT residual that every replicate must reach
KL, LS = ("kullback-leibler", 1.), ("frobenius", 2.)


def planted(n, f, k, total, seed, zeros=.35):
    "Factors with zeros in both; rows of H sum to one, samples have `total` counts"
    rng = np.random.default_rng(seed)
    W, H = (rng.gamma(1.5, 1., s) * (rng.random(s) > zeros) for s in ((n, k), (k, f)))
    W[W.sum(1) == 0, 0] = 1.
    H /= H.sum(1, keepdims=True)
    return W * total / W.sum(1, keepdims=True), H


def articles():
    "BBC Sport, counts of terms"
    import os

    import scipy.sparse as sp
    return sp.load_npz(Path(os.environ["ANMF_LAB_DATA"]) / "bbcsport_tf.npz").toarray().astype(float)


def text():
    "The 120 most frequent terms"
    X = articles()
    X = X[:, np.sort(np.argsort(-X.sum(0))[:120])]
    return X[X.sum(1) > 0]


def wide_text():
    "The terms of at least 20 articles"
    X = articles()
    return X[:, (X > 0).sum(0) >= 20]


def faces():
    import os
    return np.load(Path(os.environ["ANMF_LAB_DATA"]) / "cbcl_test_faces.npz")["X"].reshape(472, -1) / 255.


FITS = {   # data, rank, loss, noise
    "genomes": (lambda: np.asarray(al.load_dataset("wtsi").data, float), 5, KL, "poisson"),
    "genomes6": (lambda: np.asarray(al.load_dataset("wtsi").data, float), 6, KL, "poisson"),
    "genomes7": (lambda: np.asarray(al.load_dataset("wtsi").data, float), 7, KL, "poisson"),
    "faces": (faces, 5, LS, "gaussian"),
    "text": (text, 4, KL, "poisson"),
    "text_2": (text, 4, KL, "poisson"),     # the same fit, twice its counts
    "text_4": (text, 4, KL, "poisson"),
    "text_10": (text, 4, KL, "poisson"),
    "wide": (wide_text, 5, KL, "poisson"),
}
TIMES = {"text_2": 2., "text_4": 4., "text_10": 10.}
TRUTHS = {  # shape and rank, total of a sample, loss, noise, its dispersion
    "truth_3000": ((60, 40, 3), 3000., KL, "poisson", 1.),
    "truth_500": ((60, 40, 3), 500., KL, "poisson", 1.),
    "truth_over": ((80, 30, 4), 8000., KL, "poisson", 2.),
    "truth_gauss": ((60, 40, 3), 40., LS, "gaussian", .01),
    "truth_10000": ((40, 60, 4), 10000., KL, "poisson", 1.),
}


def draw(rng, Y, noise, phi):
    if noise == "gaussian":
        return Y + phi**.5 * rng.standard_normal(Y.shape)
    return phi * rng.poisson(Y / phi).astype(float)


def solve(X, k, beta, seeds, near=None):
    "The best of some starts (or from `near`), solved"
    data, runs = Data(torch.from_numpy(X), None, "numpy", None), []
    if near is not None:
        W, H = (torch.from_numpy(T + 1e-6 * T.mean()) for T in near)
        return polish(data, W, H, beta, max_iter=300)
    from anmf_lab.solvers import hals_step, mu_step, start
    Ws, Hs = start(as_data(X.clip(0)), k, init="random", rng=np.random.RandomState(seeds[0]), n_init=len(seeds))
    for _ in range(80):
        Ws, Hs = hals_step(data, (Ws, Hs)) if beta == 2 else mu_step(data, (Ws, Hs), beta)
    for W, H in zip(Ws, Hs, strict=True):
        runs.append(polish(data, W, H, beta, max_iter=60, tol=1e-7))
    best = min(runs, key=lambda r: r.loss)
    return polish(data, *best.state, beta)


def at_value(W, H, noise, phi, beta):
    "Standard errors at the generating value itself, where the data are their mean"
    W, H = torch.from_numpy(W), torch.from_numpy(H)
    red = Reduced(localised(as_data((W @ H).numpy()), W, H, beta))
    return (phi * component_variances(red)).sqrt().numpy(), (phi * code_variances(red)).sqrt().numpy(), red


def one(X, W0, H0, run, loss, noise):
    "Intervals of one replicate, in the order of the generating components"
    W, H = run.state
    order = match(W, H, torch.from_numpy(W0), torch.from_numpy(H0))
    data = Data(torch.from_numpy(X), None, "numpy", None)
    clock = time.process_time()
    solved = Solved(Entrywise(data, loss), W[:, order], H[order], float(run.residuals[-1]), 0.)
    u = al.uncertainty(solved, data, noise=noise, n_seeds=0)
    clock = time.process_time() - clock
    if u.light == "red":
        return dict(light="red", cpu=clock)
    low, high = u.interval()
    naive = u.components + 1.96 * u.components_stderr       # without upper limits at zeros
    return dict(light=u.light, cpu=clock, value=u.components, se=u.components_stderr, hit=(low <= H0 + 1e-12) & (H0 - 1e-12 <= high),
                naive=(low <= H0 + 1e-12) & (H0 - 1e-12 <= naive), codes=u.codes, codes_hit=np.abs(u.codes - W0) <= 1.96 * u.codes_stderr,
                phi=u.dispersion, eigenvalue=u.eigenvalue, kkt=u.kkt)


def groups(H0, se0):
    return {"above 4 SE": H0 > 4 * se0, "2 to 4 SE": (H0 <= 4 * se0) & (H0 > 2 * se0),
            "above 2 SE": H0 > 2 * se0, "below 2 SE": (H0 > 0) & (H0 <= 2 * se0), "zeros": H0 == 0, "all": H0 >= 0}


def summary(rows, W0, H0, se0, codes_se0):
    "Coverage by group, standard error over spread, bias over spread"
    kept = [r for r in rows if r["light"] != "red"]
    take = lambda name: np.array([r[name] for r in kept])
    hit, naive, value, se = take("hit"), take("naive"), take("value"), take("se")
    sd = value.std(0, ddof=1)
    out = dict(replicates=len(rows), lights={c: sum(r["light"] == c for r in rows) for c in ("green", "amber", "red")}, coverage={}, entries={})
    for name, m in groups(H0, se0).items():
        out["entries"][name] = int(m.sum())
        out["coverage"][name] = round(float(hit[:, m].mean()), 4) if m.any() else None
    out["coverage_without_upper_limits"] = round(float(naive.mean()), 4)
    strong = H0 > 2 * se0
    per = hit.reshape(len(kept), -1)[:, strong.reshape(-1)].mean(1)
    out["standard_error_of_above_2_SE"] = round(float(per.std(ddof=1) / len(per)**.5), 4)
    codes = W0 > 2 * codes_se0
    out["coverage"]["codes above 2 SE"] = round(float(take("codes_hit")[:, codes].mean()), 4)
    with np.errstate(all="ignore"):
        ratio, bias = np.sqrt((se**2).mean(0)) / sd, (value.mean(0) - H0) / sd
    quantiles = lambda a: [round(float(q), 3) for q in np.quantile(a, [.05, .5, .95])]
    out["se_over_sd"] = quantiles(ratio[strong])
    out["bias_over_sd"] = quantiles(bias[strong])
    out["rms_bias_over_sd"] = round(float(np.sqrt((bias[strong]**2).mean())), 3)
    # what the same intervals would hold if the estimate had no bias
    shifted = np.abs(value - value.mean(0)) <= 1.96 * se
    out["coverage_of_own_mean_above_2_SE"] = round(float(shifted[:, strong].mean()), 4)
    out["dispersion"] = round(float(take("phi").mean()), 5)
    out["eigenvalue"] = [float(f"{q:.2g}") for q in np.quantile(take("eigenvalue"), [.05, .5, .95])]
    out["largest_kkt"] = float(f"{take('kkt').max():.1e}")
    out["cpu_seconds_error_bars"] = float(f"{np.median([r['cpu'] for r in rows]):.3g}")
    return out


def study(case, replicates, seed, seconds):
    rng, began, cpu, rows = np.random.default_rng(seed), time.time(), [], []
    if case in FITS:
        load, k, (loss, beta), noise = FITS[case]
        X = load()
        W0, H0 = (T.numpy() for T in solve_seeds(al.Objective(X, loss), k, 8 if beta == 2 else 16, rng=seed, tol=1e-9)[0].factors)
        W0, H0 = W0 * H0.sum(1), H0 / H0.sum(1, keepdims=True)
        u = al.uncertainty(None, X, noise=noise, W=W0, H=H0, loss=loss, n_seeds=0)
        W0, H0, phi = u.codes * TIMES.get(case, 1.), u.components, u.dispersion if noise == "gaussian" else 1.
        about = dict(kind="fit", shape=list(X.shape), rank=k, light=u.light, eigenvalue=float(f"{u.eigenvalue:.2g}"),
                     fitted_dispersion=round(u.dispersion, 4), misfit=round(u.misfit, 3))
    else:
        (n, f, k), total, (loss, beta), noise, phi = TRUTHS[case]
        W0, H0 = planted(n, f, k, total, seed=11)
        about = dict(kind="truth", shape=[n, f], rank=k, total=total, generating_dispersion=phi)
    Y = W0 @ H0
    se0, codes_se0, red = at_value(W0, H0, noise, phi, beta)
    about |= dict(noise=noise, loss=loss, eigenvalue_at_the_value=float(f"{red.eigenvalue:.2g}"), zeros_of_H=int((H0 == 0).sum()),
                  zeros_of_W=int((W0 == 0).sum()))
    for b in range(replicates):
        if time.time() - began > seconds:
            break
        Z, clock = draw(rng, Y, noise, phi), time.process_time()
        run = solve(Z, k, beta, [seed + b] * 4, near=(W0, H0) if case in FITS else None)
        cpu.append(time.process_time() - clock)
        if not run.residuals[-1] <= SOLVED:
            raise RuntimeError(f"{case}, replicate {b}: not solved, KKT residual {run.residuals[-1]:.1e}")
        rows.append(one(Z, W0, H0, run, loss, noise))
        if b % 20 == 19:
            print(case, b + 1, summary(rows, W0, H0, se0, codes_se0)["coverage"], flush=True)
    solve_name = "cpu_seconds_warm_refit" if case in FITS else "cpu_seconds_four_cold_starts"
    return about | summary(rows, W0, H0, se0, codes_se0) | {solve_name: float(f"{np.median(cpu):.3g}")}


def generating(case, seed=0):
    "(W, H) that data are drawn around, with loss, noise and its dispersion"
    if case in TRUTHS:
        (n, f, k), total, (loss, beta), noise, phi = TRUTHS[case]
        return *planted(n, f, k, total, seed=11), loss, beta, noise, phi
    load, k, (loss, beta), noise = FITS[case]
    X = load()
    W, H = (T.numpy() for T in solve_seeds(al.Objective(X, loss), k, 8 if beta == 2 else 16, rng=seed, tol=1e-9)[0].factors)
    u = al.uncertainty(None, X, noise=noise, W=W * H.sum(1), H=H / H.sum(1, keepdims=True), loss=loss, n_seeds=0)
    return u.codes * TIMES.get(case, 1.), u.components, loss, beta, noise, u.dispersion if noise == "gaussian" else 1.


def other_errors(at, red):
    "Huber's sandwich from the residuals: every entry alone, and the entries of a sample together"
    j, c = at.free[1].nonzero(as_tuple=True)
    alone, together, r = torch.zeros_like(at.H), torch.zeros_like(at.H), at.X - at.Y
    step = max(1, 20_000_000 // at.X.numel())
    for a, b in zip(j.split(step), c.split(step), strict=True):
        J = influence(red, None, entry_gradients(at, a, b)) * r
        alone[a, b], together[a, b] = J.square().sum((1, 2)), J.sum(2).square().sum(1)
    N, n = at.X.numel(), len(at.X)
    freedom = N / (N - at.n_free)
    return (freedom * alone).sqrt().numpy(), (freedom * n / (n - 1) * together).sqrt().numpy()


def ways_of(case, replicates, seed):
    "Coverage above two standard errors: curvature, noise, residuals, samples; on the plain and on the square-root scale"
    W0, H0, loss, beta, noise, phi = generating(case, seed)
    se0 = at_value(W0, H0, noise, phi, beta)[0]
    strong, rng, hits, ratio, values = H0 > 2 * se0, np.random.default_rng(seed), {}, {}, []
    for b in range(replicates):
        Z = draw(rng, W0 @ H0, noise, phi)
        W, H = solve(Z, len(H0), beta, [seed + b] * 4, near=(W0, H0) if case in FITS else None).state
        order = match(W, H, torch.from_numpy(W0), torch.from_numpy(H0))
        solved = Solved(Entrywise(as_data(Z), loss), W[:, order], H[order], 0., 0.)
        u = al.uncertainty(solved, Z, noise, n_seeds=0)
        if u.light == "red":
            continue
        values.append(u.components)
        alone, together = other_errors(u._red.at, u._red)
        curvature, propagated = component_variances(u._red), Propagated(u._red, u._V).components()
        ours = {n: (u.dispersion * v).sqrt().numpy() for n, v in dict(curvature=curvature, propagated=propagated).items()}
        for name, se in (ours | dict(residuals=alone, samples=together)).items():
            ratio.setdefault(name, []).append(se[strong]**2)
            root = np.sqrt(u.components[strong])
            with np.errstate(all="ignore"):
                half = np.where(root > 0, 1.96 * se[strong] / 2 / root, 0.)
            low, high = np.maximum(root - half, 0)**2, (root + half)**2
            hits.setdefault(name, []).append((np.abs(u.components - H0) <= 1.96 * se)[strong].mean())
            hits.setdefault(name + ", square root", []).append(((low <= H0[strong]) & (H0[strong] <= high)).mean())
        if b % 20 == 19:
            print(case, b + 1, {n: round(float(np.mean(h)), 4) for n, h in hits.items()}, flush=True)
    sd = np.std(values, axis=0, ddof=1)[strong]
    return dict(samples=len(W0), replicates=len(values), coverage={n: round(float(np.mean(h)), 4) for n, h in hits.items()},
                standard_error={n: round(float(np.std(h, ddof=1) / len(h)**.5), 4) for n, h in hits.items()},
                se_over_sd={n: round(float(np.median(np.sqrt(np.mean(v, 0)) / sd)), 3) for n, v in ratio.items()})


def wide(replicates, seed):
    "A text of many terms: coverage above two standard errors, and a component's whole bar over its whole error, by both kinds of bar"
    W0, H0, loss, beta, noise, phi = generating("wide", seed)
    strong, rng = H0 > 2 * at_value(W0, H0, noise, phi, beta)[0], np.random.default_rng(seed)
    hits, bars, errors = {}, {}, []
    for b in range(replicates):
        Z = draw(rng, W0 @ H0, noise, phi)
        W, H = solve(Z, len(H0), beta, [], near=(W0, H0)).state
        order = match(W, H, torch.from_numpy(W0), torch.from_numpy(H0))
        red = Reduced(localised(as_data(Z), W[:, order], H[order], beta))
        error = (red.at.H / red.at.size[:, None]).numpy() - H0
        errors.append(np.linalg.norm(error, axis=1))
        for name, v in dict(curvature=component_variances(red), propagated=Propagated(red, red.at.Y).components()).items():
            hits.setdefault(name, []).append((np.abs(error) <= 1.96 * v.sqrt().numpy())[strong].mean())
            bars.setdefault(name, []).append(np.linalg.norm(v.sqrt(), axis=1))
        print("wide", b + 1, {n: round(float(np.mean(h)), 4) for n, h in hits.items()}, flush=True)
    rms = lambda rows: np.sqrt(np.mean(np.square(rows), 0))
    return dict(kind="wide", shape=[len(W0), H0.shape[1]], rank=len(H0), replicates=replicates,
                counts_for_a_code=round(float(W0.sum() / (W0 > 0).sum()), 1), coverage={n: round(float(np.mean(h)), 4) for n, h in hits.items()},
                bar_over_error={n: [round(float(q), 2) for q in rms(b) / rms(errors)] for n, b in bars.items()})


def light_study(problems, replicates, seed, seconds):
    "Many planted problems with few zeros, of every curvature: coverage by decade of the smallest eigenvalue"
    rng, began, rows, refused = np.random.default_rng(seed), time.time(), [], 0
    for p in range(problems):
        if time.time() - began > seconds:
            break
        W0, H0 = planted(40, 20, 3, 10. ** rng.uniform(3, 5), seed=1000 + p, zeros=rng.uniform(.05, .2))
        se0, _, at_truth = at_value(W0, H0, "poisson", 1., 1.)
        if at_truth.eigenvalue < 1e-8:      # exactly flat: nothing to cover
            refused += 1
            continue
        for _ in range(replicates):
            Z = draw(rng, W0 @ H0, "poisson", 1.)
            r = one(Z, W0, H0, solve(Z, 3, 1., [0], near=(W0, H0)), "kullback-leibler", "poisson")
            strong = H0 > 2 * se0
            if r["light"] == "red" or not strong.any():
                rows.append((r.get("eigenvalue", 0.), at_truth.eigenvalue, np.nan, p))
            else:
                rows.append((r["eigenvalue"], at_truth.eigenvalue, r["hit"][strong].mean(), p))
    table = np.array(rows)
    out = []
    for low, high in ((1e-6, 1e-5), (1e-5, 1e-4), (1e-4, 3e-4), (3e-4, 1e-3), (1e-3, 3e-3), (3e-3, 1e-2), (1e-2, 1e-1), (1e-1, 1.)):
        m = (table[:, 0] >= low) & (table[:, 0] < high) & ~np.isnan(table[:, 2])
        if m.any():
            out.append(dict(eigenvalue=[low, high], problems=len(set(table[m, 3])), replicates=int(m.sum()),
                            coverage=round(float(table[m, 2].mean()), 4)))
    return dict(kind="light", by_eigenvalue_of_the_estimate=out, exactly_flat_problems=refused,
                refused_replicates=int(np.isnan(table[:, 2]).sum()), shape=[40, 20], rank=3)


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("cases", nargs="*")
    p.add_argument("--list", action="store_true")
    p.add_argument("--replicates", type=int, default=200)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--seconds", type=float, default=1e9)
    p.add_argument("--out", default="results/trust")
    a = p.parse_args(argv)
    if a.list:
        print(*FITS, *TRUTHS, "light", "ways")
        return
    torch.set_num_threads(1)
    for case in a.cases or [*FITS, *TRUTHS, "light", "ways"]:
        if case == "light":
            found = light_study(600, a.replicates, a.seed, a.seconds)
        elif case == "wide":
            found = wide(a.replicates, a.seed)
        elif case == "ways":
            found = dict(kind="ways") | {c: ways_of(c, a.replicates, a.seed) for c in ("genomes", "truth_500", "text", "text_2")}
        else:
            found = study(case, a.replicates, a.seed, a.seconds)
        command = f"python benchmarks/study_coverage.py {case} --replicates {a.replicates} --seed {a.seed}"
        record = dict(name=f"coverage_{case}", command=command, seed=a.seed,
                      versions=dict(anmf_lab=al.__version__, numpy=np.__version__, torch=torch.__version__, python=platform.python_version()),
                      nominal=.95, measured=found)
        path = Path(a.out) / f"coverage_{case}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record, indent=1) + "\n")
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
