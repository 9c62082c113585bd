"""Is the verdict on the genomes a property of the data? Five seeds, float32, other units, permuted rows and columns.

    python benchmarks/study_invariance.py [--out results/audit]

Ranks 4 and 5, every step that has a word in the verdict with its defaults, but the attack (a minute each). A change that is
on file is not run again.
"""
from __future__ import annotations

import argparse
import hashlib
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

import anmf_lab as al
from anmf_lab.commands import known_table
from anmf_lab.records import Record, save_record

STEPS = ["bands", "rivals", "fit", "stability", "needed", "samples"]
KL = dict(loss="kullback-leibler", noise="poisson")


def scaled(t, c): return replace(t, values=c * t.values)


def permuted(t):
    g = np.random.default_rng(0)
    rows, columns = (g.permutation(n) for n in t.shape)
    return replace(t, values=t.values[np.ix_(rows, columns)], samples=t.samples[rows], features=t.features[columns])


CHANGES = {f"seed {i}": lambda t, i=i: (t, dict(random_state=i)) for i in range(5)} | {
    "float32": lambda t: (t.to_frame().astype("f4"), {}), "X * 0.37": lambda t: (scaled(t, .37), {}),
    "X * 0.01": lambda t: (scaled(t, .01), KL), "X * 1e6": lambda t: (scaled(t, 1e6), KL),
    "rows and columns permuted": lambda t: (permuted(t), {})}


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--out", type=Path, default=Path("results/audit"))
    args = p.parse_args()
    path, table = args.out / "invariance.json", known_table("wtsi")
    done = json.loads(path.read_text())["measured"]["changes"] if path.exists() else {}
    for name, change in CHANGES.items():
        if name in done: continue
        X, how = change(table)
        begin = time.process_time()
        a = al.audit(X, ranks=[4, 5], steps=STEPS, **how)
        done[name] = dict(verdict=a.verdict, meaning=a.meaning, left_out=a.left_out,
                          silhouettes={k: [r["stability"]["mean"], r["stability"]["least"]] for k, r in a.ranks.items()},
                          cpu_seconds=round(time.process_time() - begin, 1))
        print(name, a.verdict, flush=True)
        first = done["seed 0"]["verdict"]
        measured = dict(same=[k for k, v in done.items() if v["verdict"] == first],
                        other=[k for k, v in done.items() if v["verdict"] != first], changes=done)
        save_record(Record(
            name="invariance", what="The verdict on the genomes under changes that should not matter",
            data=dict(name="wtsi", sha256=hashlib.sha256(np.ascontiguousarray(table.values).tobytes()).hexdigest()),
            asked=dict(changes=list(CHANGES), ranks=[4, 5]), parameters=dict(steps=STEPS), seeds=list(range(5)),
            claimed=None, measured=measured, command="python benchmarks/study_invariance.py"), args.out)


if __name__ == "__main__":
    main()
