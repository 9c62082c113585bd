"""The gradient table: every model's feature error, differentiated through its own objective, beside an independent dense solver.

    python benchmarks/study_gradients.py [--only WORD ...] [--out results/objective/gradients.json]

Every entry of the data is moved, four times (of the bilevel game, every seventh). A case of `tests/refs/gradients.py` is a model, its data and the same problem
written out in NumPy (`tests/refs/dense.py`). The error is that of one entry's derivative, relative to the largest.
"""
import argparse
import json
import sys
import warnings
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from refs.gradients import CASES, bilevel, prepare  # noqa: E402

from anmf_lab.records import versions, write_whole  # noqa: E402


def measured(case):
    "One row of the table"
    p = prepare(case)
    numeric = np.full(p.X.shape, np.nan)
    some = 7 if case.problem is bilevel else 1       # the game is slow: every seventh entry
    for at in list(np.ndindex(p.X.shape))[::some]:
        if case.zeros and p.X[at] == 0: continue     # a zero may only grow
        D = np.zeros_like(p.X)
        D[at] = 1.
        numeric[at] = p.numeric(D)
    seen = np.isfinite(numeric)
    error = np.abs(numeric - p.gradient)[seen].max() / np.abs(p.gradient).max()
    return dict(error=float(error), entries=int(seen.sum()), zeros=sum(int((T == 0).sum()) for T in (p.W, p.H)),
                curvature=float(p.certificate.ritz), kkt=p.solved.kkt, optimality=p.optimality, notes=list(p.solved.notes))


def save(rows, out):
    "The record, whole"
    rows = {name: rows[name] for name in CASES if name in rows}
    record = dict(name="gradients", what=__doc__.splitlines()[0], command="python benchmarks/study_gradients.py",
                  seed={name: CASES[name].seed for name in rows}, claimed={"error": "<= 1e-6"}, measured=rows, versions=versions())
    write_whole(out, json.dumps(record, indent=1, ensure_ascii=False).encode() + b"\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=[""], help="cases whose name begins so; others are kept as they are on file")
    parser.add_argument("--out", type=Path, default=ROOT / "results/objective/gradients.json")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = json.loads(args.out.read_text(encoding="utf-8"))["measured"] if any(args.only) and args.out.exists() else {}
    for name, case in CASES.items():
        if not name.startswith(tuple(args.only)): continue
        rows[name] = measured(case)
        save(rows, args.out)
        print(f"{name:42s} error {rows[name]['error']:.0e}, {rows[name]['entries']} entries", flush=True)


if __name__ == "__main__":
    main()
