"""What resampling and solving afresh does to every component, beside what the audit predicts from one solution.

    python benchmarks/study_total_variation.py [CASE ...] [--replicates 100] [--starts 20]
    python benchmarks/study_total_variation.py --list

For every case: cold refits (best of 20 random starts, each solved) of 100 resamples, parametric (the measured
dispersion) and multinomial. A component is kept in a replicate if its cosine to the observed one is at least .9.
The audit calls a component firm if no flat direction moves it, no rival within three standard deviations of noise
has another one in its place (cosine below .95), and its error bar is at most 10 %. A firm component that is kept in
fewer than 95 % of the replicates is a miss. One file, results/trust/total_variation.json; cases that are on it
already are not run again.
"""
import argparse
import json
import platform
import time
from pathlib import Path

import numpy as np
import torch

import anmf_lab as al
from anmf_lab.core import as_data
from anmf_lab.objective import Entrywise
from anmf_lab.redraws import Resampler, cosines, generators, in_order, matched, profiles
from anmf_lab.resampling import replicates

KL = "kullback-leibler"
KEPT, FIRM_BAR, AWAY, SAME, EQUAL = .9, .1, 3., .95, 1e-3


def genomes():
    return np.asarray(al.load_dataset("wtsi").data, dtype=float)


def planted(n, f, k, counts, seed, zeros=.35):
    "Poisson counts of planted factors with zeros in both"
    rng = np.random.default_rng(seed)
    W, H = (rng.gamma(2., 1., s) * (rng.random(s) > zeros) for s in ((n, k), (k, f)))
    W[W.sum(1) == 0, 0] = 1.
    return rng.poisson(W @ H / (W @ H).sum(1, keepdims=True) * counts).astype(float)


CASES = {f"genomes, rank {k}": (genomes, k) for k in (2, 3, 4, 5, 6)} | {
    "planted 40 x 30, 3 components, 3000 counts a sample": (lambda: planted(40, 30, 3, 3000, 3), 3),
    "planted 40 x 30, 4 components, 200 counts a sample": (lambda: planted(40, 30, 4, 200, 4), 4),
    "planted 40 x 30, 3 components, fitted with 4": (lambda: planted(40, 30, 3, 3000, 5), 4),
}


def predicted(X, k, at):
    "What one solution says about every component"
    local = al.identifiability(None, X, n_seeds=0, **at)
    u = al.uncertainty(None, X, **at)
    near = al.rivals(None, X, n_seeds=30, **at)
    own = profiles(at["H"])
    rivals = []
    for r in near.found:
        P = profiles(r.H.numpy())[None]
        P = in_order(P, matched(P, own, 1))[0]
        rivals.append(dict(gap=round(r.gap, 3), distance=round(r.distance, 2), share_of_starts=round(r.share, 3),
                           cosine=np.round(np.diag(cosines(P, own)), 3).tolist()))
    shares = np.round(np.asarray(al.bands(None, X, **at).shares), 4) if local.count else None
    return dict(dispersion=round(u.dispersion, 3), light=u.light, improved=round(near.improved, 4), rivals_light=near.light,
                verdict=local.verdict, null_directions=local.count, flat=[j in local.components for j in range(k)],
                bars=[None if np.isnan(e) else round(float(e), 4) for e in u.relative_error], rivals=rivals,
                bands_of_shares=None if shares is None else shares.tolist())


def verdicts(p, k):
    "Per component: firm, or why not"
    others = [r for r in p["rivals"] if r["gap"] > EQUAL or not any(p["flat"])]   # the rest are the same flat set
    contested = [any(r["distance"] < AWAY and r["cosine"][j] < SAME for r in others) for j in range(k)]
    wide = [not any(p["flat"]) if b is None else b > FIRM_BAR for b in p["bars"]]
    return [[why for why, true in (("flat", p["flat"][j]), ("rival", contested[j]), ("bar", wide[j])) if true]
            or (["no bar"] if p["bars"][j] is None else []) for j in range(k)]


def refits(X, at, kind, n, starts):
    "Cold refits of n resamples, matched to the observed components"
    began = time.process_time()
    s = al.stability(None, X, resample=kind, n_resamples=n, n_init=starts, random_state=1, **at)
    return dict(kept=np.round((s.cosine >= KEPT).mean(0), 3).tolist(), replicates_with_a_loss=round(s.below(KEPT), 3),
                median_cosine=np.round(np.median(s.cosine, 0), 4).tolist(),
                tenth_percentile=np.round(np.quantile(s.cosine, .1, 0), 4).tolist(),
                relative_error=np.round(s.relative_error, 4).tolist(), silhouette=np.round(s.silhouette, 3).tolist(),
                replicates=s.n_resamples, starts=starts, largest_kkt=float(f"{s.residuals.max():.1e}"),
                cpu_seconds=round(time.process_time() - began, 1))


def study(case, kinds, n, starts, found, again):
    "One case; refits that `found` holds are kept"
    load, k = CASES[case]
    X = load()
    obj = Entrywise(as_data(X), KL)
    top = replicates(obj, Resampler(obj.data, "seeds"), generators(0, 1), k, n_init=60)
    at = dict(W=top.W[0], H=top.H[0], loss=KL)
    if not found or again:
        old = found or dict(cold={})
        found = dict(case=case, shape=list(X.shape), rank=k, **predicted(X, k, at), cold=old["cold"])
    for kind in kinds:
        if kind not in found["cold"]:
            found["cold"][kind] = refits(X, at, kind, n, starts)
    return found


def judged(found):
    "A case with the audit's word on every component beside what happened"
    k = found["rank"]
    why = verdicts(found, k)
    kept = [min(c["kept"][j] for c in found["cold"].values()) for j in range(k)]
    return found | dict(components=[dict(firm=not w, why=w, kept=q, miss=not w and q < .95)
                                    for w, q in zip(why, kept, strict=True)])


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("cases", nargs="*", metavar="CASE")
    p.add_argument("--list", action="store_true")
    p.add_argument("--replicates", type=int, default=100)
    p.add_argument("--starts", type=int, default=20)
    p.add_argument("--again", action="store_true", help="predict again for the cases on file; refits are kept")
    p.add_argument("--kinds", nargs="+", default=["parametric", "multinomial"])
    p.add_argument("--out", type=Path, default=Path("results/trust/total_variation.json"))
    a = p.parse_args(argv)
    if a.list:
        print(*CASES, sep="\n")
        return
    torch.set_num_threads(1)
    done = {d["case"]: d for d in json.loads(a.out.read_text())["measured"]} if a.out.exists() else {}
    for case in a.cases or CASES:
        if not a.again and set(a.kinds) <= set(done.get(case, {}).get("cold", {})):
            continue
        done[case] = study(case, a.kinds, a.replicates, a.starts, done.get(case), a.again)
        print(json.dumps(judged(done[case])), flush=True)
        save(a, done)
    save(a, done)


def save(a, done):
    "The record, every case judged again"
    record = dict(name="total_variation", what=__doc__.strip().split("\n")[0], seed=1,
                  command=f"python benchmarks/study_total_variation.py --replicates {a.replicates} --starts {a.starts}",
                  versions=dict(anmf_lab=al.__version__, numpy=np.__version__, torch=torch.__version__,
                                python=platform.python_version()),
                  rules=dict(kept_at_cosine=KEPT, firm_bar=FIRM_BAR, rival_within_sd=AWAY, same_component=SAME),
                  replicates=a.replicates, starts=a.starts, measured=[judged(done[c]) for c in CASES if c in done])
    a.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
