"""How long an audit takes, and how much memory, from the defaults that a user has.

    python benchmarks/bench_audit.py [genomes genome faces text] [--out results/audit]

Every case runs once, in a process of its own; a case that is on file is not run again unless it is named. CPU and wall
time are both kept, since nothing says that the machine was idle. The faces and the text have to be there. Memory is counted
from where the libraries and the buffers of BLAS, whose size depends on the threads only (`blas_mb`), are in memory.
"""
from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

ASKED = dict(genomes=90, genome=30, faces=240, text=300)   # seconds on two cores
ARRAYS = 20                                                # of the data's size, at most
DATA = dict(genomes="wtsi", genome="wtsi", faces="cbcl_test", text="bbcsport")
RANKS = dict(genomes=list(range(2, 9)), genome=[5], faces=[5], text=[10])


def rss() -> float:
    "MB in use now"
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure(case: str) -> dict:
    "One audit in this process"
    import numpy as np
    import torch

    import anmf_lab as al
    from anmf_lab import auditing
    from anmf_lab.audit_problem import free_at_once
    from anmf_lab.commands import known_table
    from anmf_lab.packed import Half
    table, took, step = known_table(DATA[case]), {}, auditing.Course.step

    def timed(self, name, k):
        begin = time.process_time()
        step(self, name, k)
        took[name] = round(took.get(name, 0.) + time.process_time() - begin, 2)
    auditing.Course.step = timed
    al.audit(np.random.default_rng(0).poisson(5., (12, 8)), 2)   # every step once: what stays in memory are libraries
    took.clear()
    libraries = rss()
    Half([torch.ones(50, 1500, dtype=torch.float64) / 100], 1500, torch.ones(1, dtype=torch.float64)).up(torch.ones(1500, 50).double())
    before, cpu, wall = rss(), time.process_time(), time.monotonic()
    free_at_once(*table.shape)      # as the command does, whose process is its own
    found = al.audit(table, ranks=RANKS[case])
    cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before
    n, f = table.shape
    size = len(found.to_json()) / 2**20
    return dict(data=DATA[case], sha256=found.about["sha256"], shape=[n, f], ranks=RANKS[case], asked_seconds=ASKED[case],
                wall_seconds=round(wall, 1), cpu_seconds=round(cpu, 1), peak_mb=round(peak, 1),
                arrays=round(peak / (n * f * 8 / 2**20), 1), blas_mb=round(before - libraries, 1), json_mb=round(size, 2), cpu_seconds_of=took,
                starts={k: v["solved"]["starts"] for k, v in found.ranks.items()}, left_out=found.left_out,
                verdict=found.verdict, threads=torch.get_num_threads())


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("cases", nargs="*", choices=[[], *ASKED], help="default: all that are not on file")
    p.add_argument("--out", type=Path, default=Path("results/audit"))
    p.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.one:
        print(json.dumps(measure(args.cases[0])))
        return
    from anmf_lab.records import Record, save_record, versions
    path = args.out / "timings.json"
    done = json.loads(path.read_text())["measured"] if path.exists() else {}
    for case in args.cases or [case for case in ASKED if case not in done]:
        end = subprocess.run([sys.executable, __file__, case, "--one"], capture_output=True, text=True, check=True)
        done[case] = json.loads(end.stdout.splitlines()[-1]) | dict(versions=versions())
        print(case, {k: done[case][k] for k in ("wall_seconds", "cpu_seconds", "peak_mb", "blas_mb", "arrays", "left_out")}, flush=True)
        save_record(Record(
            name="timings", what="Time and memory of al.audit with its defaults, one run each, on a machine that others used too",
            data={case: dict(name=row["data"], sha256=row["sha256"]) for case, row in done.items()},
            asked=dict(seconds=ASKED, arrays=ARRAYS), parameters=dict(machine=platform.machine(), cores=os.cpu_count()),
            seeds=0, claimed=None, measured=done, command="python benchmarks/bench_audit.py"), args.out)


if __name__ == "__main__":
    main()
