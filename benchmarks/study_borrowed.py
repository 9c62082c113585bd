"""What another loss falls for: the attack with it and without it, the same seeds.

    python benchmarks/study_borrowed.py [--out results/attack/borrowed]

genomes    21 genomes of `wtsi`, rank 4, eps .01 (l2), Kullback-Leibler and a ridge, five seeds of the attack. Without:
           where the ascents under the own loss end. With: where another loss is asked if these come to little, as the
           library does it.
generator  eleven tables of the paper's generator on which the attack under the own loss (Kullback-Leibler) finds
           least; here the other loss is asked whatever was found.

One row a run: what eight fresh solutions confirm with and without, and the CPU seconds of both, one thread. Written
after every run, whole; what is on file is left alone.
"""
import os

# ruff: noqa: E402
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import json
import sys
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "benchmarks"))
import torch
from study_attack import synthetic

from anmf_lab import lafa
from anmf_lab.arena import FIELDS, MODELS, box_of, enter
from anmf_lab.lafa import LaFA
from anmf_lab.nmf import NMF
from anmf_lab.records import plain, versions, write_whole

TABLES = [(200, 34, .01), (200, 33, .01), (200, 31, .01), (200, 35, .01), (200, 32, .01), (40, 22, .01), (40, 23, .01),
          (40, 28, .01), (40, 23, .02), (40, 26, .01), (40, 29, .01)]   # samples, seed of the generator, eps
GENOMES = [(model, seed) for model in ("nmf-kl", "nmf-ridge") for seed in range(5)]


def pair_of_runs(model, X, little: float, **how) -> dict:
    "One attack, with another loss below `little` and without"
    found = {}
    for name, limit in (("without", -1.), ("with", little)):
        lafa.LITTLE = limit
        row = LaFA(n_noise=0, n_usual=0, **how).run(model, X).records[0]
        found[name] = row["secured"], row["ascent_seconds"], row["start"]
    (before, spent, _), (after, more, start) = found["without"], found["with"]
    return {"without": before, "with": after, "gained": after > before + .01, "start": start, "seconds": spent,
            "extra": more - spent}


def genome(name: str, seed: int) -> dict:
    "One run on the genomes"
    field = FIELDS["genomes"]
    X = field.load(seed)
    c = enter(MODELS[name], X, field.rank, "l2", seed, 8)
    reference = tuple(T.numpy() for T in c.reference)
    how = dict(eps=.01, random_state=seed, reference=reference, box=box_of(c.problem, c.X))
    return dict(data="genomes", model=name, eps=.01, seed=seed) | pair_of_runs(c.model, X, LITTLE, **how)


def table(n: int, seed: int, eps: float) -> dict:
    "One table of the paper's generator"
    model = NMF(3, loss="kullback-leibler", random_state=0)
    row = dict(data="generator", model="nmf-kl", eps=eps, seed=seed, samples=n)
    return row | pair_of_runs(model, synthetic(n, seed), 9., eps=eps)


LITTLE = lafa.LITTLE


def main(argv=None) -> int:
    "All runs that are not on file"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "results/attack/borrowed")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    warnings.simplefilter("ignore")
    path = args.out / "study.json"
    rows = json.loads(path.read_text())["measured"] if path.exists() else []
    done = {(r["data"], r["model"], r["eps"], r["seed"], r.get("samples")) for r in rows}
    jobs = [(("genomes", m, .01, s, None), genome, (m, s)) for m, s in GENOMES]
    jobs += [(("generator", "nmf-kl", e, s, n), table, (n, s, e)) for n, s, e in TABLES]
    for key, run, given in jobs:
        if key in done:
            continue
        rows.append(plain(run(*given)))
        record = dict(name="borrowed", measured=rows, versions=versions(),
                      command="python benchmarks/study_borrowed.py")
        write_whole(path, json.dumps(record, indent=1).encode())
        print(rows[-1], flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
