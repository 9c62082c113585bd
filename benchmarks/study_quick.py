"""The quick version of every `reproduce` command, with this version of the library and with another: number by number.

    python benchmarks/study_quick.py CHECKOUT [--work DIR] [--out results/objective/quick.json]

CHECKOUT is a folder with the other version, e.g. `git worktree add /tmp/before 6f3be0b` (the last commit before
the objective was passed). Both versions write their records below DIR, from where a second call goes on. Compared
is every number that a record measured: it is the same where all digits on file agree, else the line says digits, and WHY says why.

The attacks draw random numbers, whose streams have changed. So `controlled` runs what they are made of in both
versions from the same generator and the same solution: the released attack (truncated series, and
back-propagation), the adjoint, and the feature error of the same attacked data, solved.
"""
import argparse
import fnmatch
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAPERS = ("anmf", "atnmf", "lafa")
LEFT_OUT = {"versions", "command", "cpu_seconds", "ascent_seconds", "asked", "parameters", "flags", "claimed"}

STREAMS = ("Other random numbers: every purpose has a stream of its own now, seeded by a hash of its name. From the "
           "same generator and solution the released attack gives the same bits (`controlled`).")
FLAT = ("These data do not determine their components (the record's first flag): the reference is one of a flat set, "
        "which one depends on the random starts, and what is measured from it with them.")
ATTACK = ("Another attack: an ensemble of ascents, checked on fresh solutions in between, and another quick plan, "
          "instead of one ascent.")
WHY = [    # (record and number, with * and ?; why they are not the same), the first that fits
    ("lafa/*_paper:*/floor", FLAT),
    ("lafa/*_paper:*", f"{STREAMS} {FLAT}"),
    ("lafa/*:*/floor", FLAT),
    ("lafa/*:*/random", f"{STREAMS} {FLAT}"),
    ("lafa/*:*", f"{ATTACK} {STREAMS} {FLAT}"),
]


def run(root, paper, folder):
    "The quick version of a paper, by the library in `root`"
    environment = os.environ | {"PYTHONPATH": str(root)}
    command = [sys.executable, "-m", "anmf_lab", "reproduce", paper, "--quick", "--out", str(folder)]
    subprocess.run(command, cwd=root, env=environment, check=True, stdout=subprocess.DEVNULL)


def numbers(value, at=()):
    "{place: number} of all that a record measured; nothing for what is not a number"
    if isinstance(value, dict):
        pairs = [(k, v) for k, v in value.items() if k not in LEFT_OUT]
    elif isinstance(value, list): pairs = list(enumerate(value))
    else: return {"/".join(at): value} if isinstance(value, (int, float)) and not isinstance(value, bool) else {}
    return {place: x for k, v in pairs for place, x in numbers(v, (*at, str(k))).items()}


def by_budget(record):
    "Lists of budgets by their eps, so that a place names the budget"
    found = record["measured"]
    if isinstance(found, list) and found and isinstance(found[0], dict) and "eps" in found[0]:
        record = record | {"measured": {f"eps {m['eps']:g}": m for m in found}}
    return record


def digits(a, b):
    "To how many digits two numbers agree: 16 for the same bits"
    if a == b or math.isnan(a) and math.isnan(b): return 16
    return max(0, math.floor(-math.log10(abs(a - b) / max(abs(a), abs(b)))))


def why(name, place):
    return next((words for pattern, words in WHY if fnmatch.fnmatch(f"{name}:{place}", pattern)), None)


def compared(name, old, new):
    "One record"
    a, b = (numbers(by_budget(r)) for r in (old, new))
    both = {p: digits(a[p], b[p]) for p in a if p in b}
    other = {p: d for p, d in both.items() if d < 16}
    rows = [dict(number=p, before=a[p], now=b[p], digits=d, why=why(name, p)) for p, d in other.items()]
    gone = {p: why(name, p) for p in a if p not in b}
    come = {p: why(name, p) for p in b if p not in a}
    same = sum(d == 16 for d in both.values())
    return dict(numbers=len(both), same=same, differ=rows, only_before=gone, only_now=come)


def controlled(old, new):
    "What the attacks are made of, by both versions, from the same generator and the same solution"
    import numpy as np
    import torch
    rng = np.random.default_rng(0)
    W, H = (rng.gamma(1., size=s) * (rng.random(s) < .6) for s in ((30, 3), (3, 12)))
    X = rng.poisson(20 * W @ H).astype(float)
    X = X[X.sum(1) > 0] / X.max()
    model = new.nmf.NMF(3, loss="kullback-leibler", polish=True, random_state=0)
    at, T = tuple(torch.from_numpy(F) for F in (model.fit_transform(X), model.components_)), torch.from_numpy(X)
    found, attacked = {}, {}
    for name, terms in (("released attack, series", 100), ("released attack, back-propagation", 0)):
        for which, lib, home in (("before", old, old.lafa), ("now", new, new.ascent)):
            threat = (old.lafa if lib is old else new.threat).Threat("l2", T, 0., 1., float(T.norm()))
            attacked[which] = home.published_pgd(lib.core.as_data(X), at, 1., threat, .01, np.random.default_rng(5),
                                                 steps=8, n_iter=200, terms=terms)
        found[name] = float((attacked["now"] - attacked["before"]).abs().max() / T.norm())
    direction = tuple(torch.from_numpy(rng.standard_normal(F.shape)) for F in at)
    adjoints = (old.implicit.Adjoint(old.core.as_data(X), *at, 1.),
                new.implicit.Adjoint(new.objective.Entrywise(new.core.as_data(X), 1.), *at))
    a, b = (adj.vjp(*direction)[0] for adj in adjoints)
    found["adjoint"] = float((a - b).norm() / a.norm())
    errors = [lib.align.feature_error(*lib.polish.polish(lib.core.as_data(attacked["now"]), *at, 1.).state, *at)
              for lib in (old, new)]
    found["feature error of the same attacked data"] = float(abs(errors[1] / errors[0] - 1))
    return found


def main():
    p = argparse.ArgumentParser(description="quick versions of the papers' records, by two versions")
    p.add_argument("checkout", type=Path)
    p.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "anmf_lab_quick")
    p.add_argument("--out", type=Path, default=ROOT / "results" / "objective" / "quick.json")
    args = p.parse_args()
    for which, root in (("old", args.checkout.resolve()), ("new", ROOT)):
        for paper in PAPERS: run(root, paper, args.work / which / paper)     # what is on file is not done again
    names = sorted(f.relative_to(args.work / "old") for f in (args.work / "old").rglob("*.json"))
    found = {}
    for f in names:
        old, new = (json.loads((args.work / which / f).read_text(encoding="utf-8")) for which in ("old", "new"))
        found[str(f.with_suffix(""))] = row = compared(str(f.with_suffix("")), old, new)
        unsaid = sum(r["why"] is None for r in row["differ"])
        print(f"{f.with_suffix('')!s:45}{row['same']:5} of {row['numbers']} the same, {len(row['differ'])} differ"
              f"{f', {unsaid} unexplained' if unsaid else ''}")
    import against
    against.MODULES += ("align", "lafa", "ascent", "implicit", "threat")
    same = controlled(against.library(args.checkout.resolve()), against.library(ROOT))
    print(json.dumps(same, indent=1))
    from anmf_lab.records import versions, write_whole
    record = dict(command="python benchmarks/study_quick.py CHECKOUT", before=against.commit(args.checkout),
                  now=against.commit(ROOT), versions=versions(), controlled=same, records=found)
    write_whole(args.out, (json.dumps(record, indent=1) + "\n").encode())


if __name__ == "__main__": main()
