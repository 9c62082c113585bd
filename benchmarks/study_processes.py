# ruff: noqa: E402
"""Two processes beside one: wall seconds of the same updates of the same data, and how far the factors differ.

    python benchmarks/study_processes.py [--rows 20000] [--columns 2000] [--rank 20] [--updates 10] [--rounds 5]

Planted float64 data, a common start, `--updates` updates with their checks and no Newton's method, both losses. Two processes
(gloo), one thread each, are started before the clock runs; in turn, round by round, the first one works alone on all
rows, both work on half of them each, and both do the same apart, without a word to each other, which is what the
machine itself allows: medians of wall seconds, since that is what a second process is for. The
clock runs from a common barrier to the last one that is done; the reading of the data and the final codes are left
out. `in_sums`: seconds of each process in the sums, waiting for the other included; `queued`: the largest part of its
time that a process waited for a processor, alone, together, apart: where that is not small, others disturbed. The record is
results/scale/processes.json. Nothing else should run on the machine.
"""
import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import json
import sys
import time
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]
RECORD = ROOT / "results" / "scale" / "processes.json"
LOSSES = {"frobenius": 2., "kullback-leibler": 1.}


def problem(n, f, k, rows=slice(None)):
    "Rows of planted data, and the same rows of the start; each process draws a hundred rows at a time"
    rng = np.random.default_rng(0)
    H, start = rng.gamma(1., size=(k, f)), rng.random((k, f))
    X, W = [], []
    for a in range(*rows.indices(n)[:2], 100):
        rng = np.random.default_rng(a + 1)
        X.append(rng.gamma(1., size=(100, k)) @ H + rng.random((100, f)))
        W.append(rng.random((100, k)))
    return np.concatenate(X), np.concatenate(W), start


def queued():
    "Seconds for which this process was ready and had to wait for a processor (Linux)"
    return int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e9


def measured(me, args):
    "One of two processes: every round's seconds, alone (the first one, all rows), together (half of them each) and apart; the last factors"
    import torch
    import torch.distributed as dist

    from anmf_lab.core import as_data
    from anmf_lab.distributed import Processes, Rows
    from anmf_lab.objective import Entrywise
    from anmf_lab.solve import first_order
    torch.set_num_threads(1)
    sums, rows, ends = [], [], {}
    class Timed(Processes):
        def add(self, numbers):
            begin = time.perf_counter()
            out = super().add(numbers)
            sums.append((time.perf_counter() - begin, numbers.numel()))
            return out
    half = args.rows // 2
    X, W, H = problem(args.rows, args.columns, args.rank, slice(me * half, (me + 1) * half))
    start = torch.from_numpy(W), torch.from_numpy(H)
    sides = {"two": (Rows(X, Timed(len(X))).data(), *start), "apart": (as_data(X), *start)}
    if me == 0:
        X, W, H = problem(args.rows, args.columns, args.rank)
        sides["one"] = as_data(X), torch.from_numpy(W), torch.from_numpy(H)
    for i in range(args.rounds + 1):                   # the first warms up
        for loss in args.loss:
            for side in ("one", "two", "apart"):
                dist.barrier()
                sums.clear()
                begin, cpu, queue = time.perf_counter(), time.process_time(), queued()
                if side in sides:
                    data, W, H = sides[side]
                    ends[loss, side] = first_order(Entrywise(data, LOSSES[loss]), W, H, max_iter=args.updates, tol=0).state[:2]
                cpu = time.process_time() - cpu
                dist.barrier()
                wall = time.perf_counter() - begin
                if i: rows.append(dict(loss=loss, side=side, wall=wall, cpu=cpu, queued=queued() - queue, in_sums=sum(s for s, _ in sums), sums=len(sums),
                                       numbers=sum(m for _, m in sums)))
    return rows, {key: tuple(T.numpy() for T in pair) for key, pair in ends.items()}


def row_of(loss, rounds, ends, updates):
    "What is said about one loss"
    def of(side, key, me=0): return [q[key] for q in rounds[me] if q["loss"] == loss and q["side"] == side]
    one, two, apart = (of(side, "wall") for side in ("one", "two", "apart"))
    ratios = [a / b for a, b in zip(one, two, strict=True)]
    W, H = ends[0][loss, "one"]
    codes = np.concatenate([e[loss, "two"][0] for e in ends])
    differ = max(abs(codes - W).max() / W.max(), max(abs(e[loss, "two"][1] - H).max() for e in ends) / H.max())
    return dict(loss=loss, one=median(one), two=median(two), apart=median(apart), times=median(ratios),
                times_apart=median(a / b for a, b in zip(one, apart, strict=True)), ratios=ratios,
                queued=[max(max(of(side, "queued", me)) / median(of(side, "wall", me)) for me in (0, 1)) for side in ("one", "two", "apart")],
                cpu_one=median(of("one", "cpu")), cpu_two=[median(of("two", "cpu", me)) for me in (0, 1)],
                in_sums=[median(of("two", "in_sums", me)) for me in (0, 1)], sums_per_update=of("two", "sums")[0] / updates,
                numbers_per_update=of("two", "numbers")[0] / updates, largest_relative_difference=float(differ))


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in dict(rows=20_000, columns=2000, rank=20, updates=10, rounds=5).items(): p.add_argument(f"--{name}", type=int, default=value)
    p.add_argument("--loss", nargs="+", default=list(LOSSES), choices=list(LOSSES))
    p.add_argument("--note", default="", help="what else is to be known of the machine")
    p.add_argument("--out", type=Path, default=RECORD)
    args = p.parse_args()
    from anmf_lab.distributed import together
    from anmf_lab.records import plain, versions, write_whole
    before = os.getloadavg()
    rounds, ends = zip(*together(partial(measured, args=args), 2), strict=True)
    record = dict(topic="two processes beside one", command="python benchmarks/study_processes.py " + " ".join(sys.argv[1:]), seed=0,
                  data=dict(rows=args.rows, columns=args.columns, dtype="float64"), rank=args.rank, updates=args.updates,
                  rounds=args.rounds, threads=1, cores=os.cpu_count(), note=args.note, load_before=before, load_after=os.getloadavg(), versions=versions(),
                  losses=[row_of(loss, rounds, ends, args.updates) for loss in args.loss])
    for row in record["losses"]: print(json.dumps(plain(row)), flush=True)
    write_whole(args.out, (json.dumps(plain(record), indent=1) + "\n").encode())


if __name__ == "__main__": main()
