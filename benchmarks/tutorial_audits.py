"""The audits that the tutorials show and that take longer than a page may: each a file in results/tutorials.

    python benchmarks/tutorial_audits.py [genomes topics materials faces swimmer]

Names without a file are run. The data are those of `al.load_dataset`; BBC Sport, Moffett and the faces have to be there.
"""
from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment

import anmf_lab as al
from anmf_lab.commands import known_table
from anmf_lab.records import plain
from anmf_lab.tables import Table

OUT = Path("results/tutorials")


def genomes(): return al.audit(known_table("wtsi"), ranks=range(2, 7))


def articles(least: int = 20) -> Table:
    "737 articles by the words that stand in at least `least` of them, sparse"
    d = al.load_dataset("bbcsport")
    often = np.asarray((d.data > 0).sum(0)).ravel() >= least
    words = np.asarray(d.feature_names, dtype=object)[often]
    names = np.array([f"article {i + 1}" for i in range(len(d.target))], dtype=object)
    said = (f"bbcsport: the words that stand in at least {least} articles",)
    return Table(d.data[:, np.flatnonzero(often)], names, words, said, "bbcsport", named=True)


TEXT = dict(n_seeds=6, steps=["rivals", "fit"])


def topics(): return al.audit(articles(), ranks=[4, 5], **TEXT)


def scene(step: int = 2) -> Table:
    "Every second pixel of Moffett in both directions; bands by their number in the instrument"
    d = al.load_dataset("moffett")
    X = d.data.reshape(50, 50, -1, order="F")[::step, ::step].reshape(-1, d.data.shape[1])
    out = {*range(1, 5), *range(104, 116), *range(151, 176), *range(205, 223)}
    bands = np.array([str(b) for b in range(1, 225) if b not in out], dtype=object)
    pixels = np.array([f"row {i + 1}, column {j + 1}" for i in range(0, 50, step) for j in range(0, 50, step)], dtype=object)
    return Table(X, pixels, bands, ("moffett: every second pixel in both directions",), "moffett", named=True)


def materials_all():
    return al.audit(scene(), ranks=[3, 4], loss="frobenius", n_seeds=10, steps=["bands", "rivals", "fit"])


def materials():
    "Without the six bands in which a negative reflectance was set to zero"
    t = scene()
    keep = (t.values > 0).all(0)
    t = replace(t, values=t.values[:, keep], features=t.features[keep])
    return al.audit(t, 3, loss="frobenius", n_seeds=3, steps=["bands", "rivals", "fit"])


def faces():
    return al.audit(known_table("cbcl_test"), ranks=[5], n_seeds=5, steps=["rivals", "fit"])


def swimmer():
    return al.audit(known_table("swimmer"), ranks=[16], loss="frobenius", n_seeds=3, steps=["bands"])


AUDITS = dict(genomes=genomes, topics=topics, materials=materials, materials_all=materials_all, swimmer=swimmer, faces=faces)


def short(value, digits: int = 5):
    "Floats with so many digits that count"
    if isinstance(value, float): return float(f"{value:.{digits}g}") if math.isfinite(value) else value
    if isinstance(value, dict): return {k: short(v, digits) for k, v in value.items()}
    if isinstance(value, list): return [short(v, digits) for v in value]
    return value


def kept(k: int = 5, n_seeds: int = 8):
    "What the other minima of the topics keep of the best: cosines, and the words of the topics that replace lost ones"
    table, found = articles(), al.Audit.from_json(OUT / "topics.json").ranks[k]["components"]
    W, H = (np.array(found[name]) for name in ("codes", "values"))
    X = table.values.toarray()
    r = al.rivals(None, X, "poisson", n_seeds=n_seeds, W=W, H=H, loss="kullback-leibler", random_state=0)
    out = []
    for rival in r.found:
        G = np.asarray(rival.H)
        U, V = (A / np.linalg.norm(A, axis=1, keepdims=True) for A in (H, G))
        rows, columns = linear_sum_assignment(-(U @ V.T))
        words = [[str(w) for w in table.features[np.argsort(-G[j])[:6]]] for j in columns]
        out.append(dict(gap=rival.gap, sd=rival.sd, feature_error=rival.feature_error,
                        cosines=(U @ V.T)[rows, columns].tolist(), words=words))
    return dict(rank=k, n_seeds=n_seeds, rivals=out, command="python benchmarks/tutorial_audits.py topics_kept")


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("names", nargs="*", choices=[[], *AUDITS, "topics_kept"], help="default: all that have no file")
    p.add_argument("--out", type=Path, default=OUT)
    args = p.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.names or [name for name in AUDITS if not (args.out / f"{name}.json").exists()]:
        begin = time.process_time()
        if name == "topics_kept":
            text = json.dumps(short(plain(kept())), indent=1)
            (args.out / f"{name}.json").write_text(text + "\n", encoding="utf-8")
            continue
        found = AUDITS[name]()
        found.about["command"] = f"python benchmarks/tutorial_audits.py {name}"
        d = json.loads(found.to_json())
        (args.out / f"{name}.json").write_text(json.dumps(short(d)) + "\n", encoding="utf-8")
        print(f"{name} ({time.process_time() - begin:.0f} CPU-s): {found.verdict}\n{found.left_out}", flush=True)


if __name__ == "__main__":
    main()
