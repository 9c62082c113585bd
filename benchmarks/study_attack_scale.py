# ruff: noqa: E402
"""What an attack on many rows costs, and where its time goes.

    python benchmarks/study_attack_scale.py [--rows 1000 2000] [--strength quick] [--seeds 2] [--eps 0.01] [--limit 1200]
    python benchmarks/study_attack_scale.py --updates 200 1000 3000 [--rows 1000]

MNIST test images, the first `--rows` of them, Kullback-Leibler, rank 10, without controls (`n_noise=0`, `n_usual=0`). Each
attack runs in a process of its own, on one thread; CPU seconds by stage and by what was computed (each second is
counted once), and the peak resident set. An attack that spent `--limit` CPU seconds is ended, and its record says where
they went until then. One row is added to results/scale/attack.json for each; a row of the same
question is replaced. With `--updates`, one solution of the clean data instead, the unit of which an attack needs many: from a
random start, so many updates, then Newton's method to 1e-8 (`solutions`, likewise). Linux only.
"""
import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import functools
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]
RECORD = ROOT / "results" / "scale" / "attack.json"
STAGES = {"prepare": "clean solutions, reference, floor, condition", "attack": "ascent and choice", "verified": "verification"}


class Clock:
    "CPU seconds of what runs, each counted for the innermost name only, beside the stage"
    def __init__(self):
        self.spent, self.calls, self.at, self.last, self.stage = {}, {}, ["rest"], time.process_time(), "rest"

    def turn(self):
        now, key = time.process_time(), f"{self.stage}: {self.at[-1]}"
        self.spent[key] = self.spent.get(key, 0.) + now - self.last
        self.last = now

    def around(self, holder, name, label, stage=False):
        f = getattr(holder, name)
        @functools.wraps(f)
        def timed(*args, **kwargs):
            self.turn()
            outer = self.stage
            if stage: self.stage = label
            self.at.append("rest" if stage else label)
            key = f"{self.stage}: {self.at[-1]}"
            self.calls[key] = self.calls.get(key, 0) + 1
            try: return f(*args, **kwargs)
            finally:
                self.turn()
                self.at.pop()
                self.stage = outer
        setattr(holder, name, timed)


def found_of(r):
    "What is kept of a result"
    names = "feature_error", "secured", "floor", "size", "residual", "n_solves", "n_fresh", "n_unsolved", "start"
    return dict(found={k: r.records[0][k] for k in names}, steps=r.settings["steps"], starts=r.settings["starts"],
                flags=[f.text for f in r.flags])


def attack(args):
    "In a process of its own"
    import torch
    from study_memory import peak_mb

    from anmf_lab import ascent, goals, lafa, sampled, starts
    from anmf_lab.data import fingerprint, load_dataset
    from anmf_lab.nmf import NMF
    torch.set_num_threads(1)
    X = load_dataset("mnist", preprocess="unit").data[:args.rows[0]]
    Path("/proc/self/clear_refs").write_text("5")     # the peak begins here
    clock, before, began = Clock(), peak_mb(), time.time()
    for stage in STAGES: clock.around(lafa, stage, stage, stage=True)
    clock.around(sampled, "sampled_start", "sampled starts")
    clock.around(sampled, "first_order", "updates of fresh starts")
    clock.around(sampled, "_by_newton", "Newton of fresh starts")
    clock.around(goals, "_by_newton", "Newton of warm starts")
    clock.around(ascent.Climber, "gradient", "adjoint solves")
    clock.around(starts.Starts, "_crowd", "crowd")
    clock.around(lafa, "worst_direction", "worst direction")
    clock.around(lafa, "local_verdict", "is it determined")
    def report(r=None):
        clock.turn()
        peak = peak_mb()
        print(json.dumps(dict(
            rows=len(X), columns=X.shape[1], sha256=fingerprint(X), strength=args.strength, n_seeds=args.seeds, eps=args.eps,
            limit=args.limit, finished=r is not None, cpu_seconds=sum(clock.spent.values()), wall_seconds=time.time() - began,
            peak_mb=peak, with_data_mb=before, arrays=(peak - before) * 2**20 / X.nbytes, seconds=clock.spent, calls=clock.calls,
            **({} if r is None else found_of(r)))), flush=True)
    def enough(*_):
        report()
        os._exit(0)
    signal.signal(signal.SIGPROF, enough)
    signal.setitimer(signal.ITIMER_PROF, args.limit)
    report(lafa.LaFA("l2", args.eps, strength=args.strength, n_seeds=args.seeds, n_noise=0, n_usual=0).run(
        NMF(10, loss="kullback-leibler", random_state=0), X))


def solution(n_rows, first):
    "One solution of the clean data after `first` updates"
    import torch

    from anmf_lab.core import as_data
    from anmf_lab.data import load_dataset
    from anmf_lab.loop import start
    from anmf_lab.objective import Entrywise
    from anmf_lab.polish import polish
    from anmf_lab.solve import first_order
    torch.set_num_threads(1)
    obj = Entrywise(as_data(load_dataset("mnist", preprocess="unit").data[:n_rows]), 1.)
    W, H = start(obj.data, 10, rng=np.random.RandomState(0), n_init=1)
    begin = time.process_time()
    run = first_order(obj, W[0], H[0], max_iter=first, tol=1e-8)
    half = time.process_time()
    end = polish(obj, *run.state[:2], tol=1e-8, max_iter=200)
    return dict(rows=n_rows, updates=first, seconds_updates=half - begin, seconds_newton=time.process_time() - half, residual_between=run.residuals[-1],
                steps=end.n_iter, products=end.n_hvp, residual=end.residuals[-1], status=str(end.status), loss=end.loss)


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--rows", type=int, nargs="+", default=[1000, 2000])
    p.add_argument("--strength", default="quick")
    p.add_argument("--seeds", type=int, default=2)
    p.add_argument("--eps", type=float, default=.01)
    p.add_argument("--updates", type=int, nargs="+", help="one solution instead")
    p.add_argument("--limit", type=float, default=1200.)
    p.add_argument("--one", action="store_true", help="used by itself")
    args = p.parse_args()
    if args.one: return attack(args)
    from anmf_lab.records import plain, versions, write_whole
    if args.updates:
        found = [dict(solution(args.rows[0], first), command=f"python benchmarks/study_attack_scale.py --updates {first} --rows {args.rows[0]}")
                 for first in args.updates]
        for row in found: print(row, flush=True)
        record, new = json.loads(RECORD.read_text()), {(row["rows"], row["updates"]) for row in found}
        kept = [row for row in record.get("solutions", []) if (row["rows"], row["updates"]) not in new]
        record["solutions"] = sorted([*kept, *found], key=lambda row: (row["rows"], row["updates"]))
        return write_whole(RECORD, (json.dumps(plain(record), indent=1) + "\n").encode())
    for n in args.rows:
        command = [sys.executable, __file__, "--one", "--rows", str(n), "--strength", args.strength, "--seeds", str(args.seeds),
                   "--eps", str(args.eps), "--limit", str(args.limit)]
        row = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])
        row["command"] = "python benchmarks/study_attack_scale.py " + " ".join(map(str, command[3:]))
        print(json.dumps(row, indent=1), flush=True)
        record = json.loads(RECORD.read_text()) if RECORD.exists() else dict(topic="an attack on many rows", attacks=[])
        asked = ("rows", "strength", "n_seeds", "eps")
        record["attacks"] = [q for q in record["attacks"] if any(q[a] != row[a] for a in asked)] + [row]
        record |= dict(data="MNIST test images / 255", loss="kullback-leibler", rank=10, seed=0, threads=1, stages=STAGES,
                       versions=versions())
        write_whole(RECORD, (json.dumps(plain(record), indent=1) + "\n").encode())


if __name__ == "__main__": main()
