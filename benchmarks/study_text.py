# ruff: noqa: E402
"""A factorization of sparse text at rank 30, end to end: CPU seconds, peak memory, KKT residual, status.

    python benchmarks/study_text.py [--loss frobenius kullback-leibler] [--most 2000] [--polish auto]

TDT2 (9394 documents, 36,771 terms, 1,224,135 stored counts; needs ANMF_LAB_DATA), a random start, everything else at its
default but `--most` iterations and, with `--polish none`, no Newton's method. Each fit runs in a process of its own, on
one thread; CPU seconds by what was computed (each second is counted once), and the peak resident set beside that of the
libraries and of a dense array. A fit replaces the one of the same question in results/scale/tdt2.json. Linux only.
"""
import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import json
import subprocess
import sys
import time
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]
RECORD = ROOT / "results" / "scale" / "tdt2.json"


def fit(args):
    "In a process of its own"
    import torch
    from study_attack_scale import Clock
    from study_memory import peak_mb

    from anmf_lab import nmf, solve
    from anmf_lab.data import fingerprint, load_dataset
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    X = load_dataset("tdt2").data.astype(float)
    Path("/proc/self/clear_refs").write_text("5")     # the peak begins here
    before, clock, wall = peak_mb(), Clock(), time.time()
    for holder, name, label in ((solve, "first_order", "updates"), (solve, "polish", "Newton"), (nmf, "solve_codes", "codes")):
        clock.around(holder, name, label)
    model = nmf.NMF(30, loss=args.loss[0], init="random", random_state=0, max_iter=args.most, polish="auto" if args.polish == "auto" else False)
    model.fit_transform(X)
    clock.turn()
    seconds = {name.removeprefix("rest: "): s for name, s in clock.spent.items()}
    print(json.dumps(dict(
        loss=args.loss[0], most=args.most, polish=args.polish, cpu_seconds=sum(seconds.values()), wall_seconds=time.time() - wall,
        seconds=seconds, n_iter=model.n_iter_, status=str(model.status_), kkt_residual=model.kkt_residual_,
        error=model.reconstruction_err_, peak_mb=peak_mb(), with_data_mb=before, dense_mb=X.shape[0] * X.shape[1] * 8 / 2**20,
        shape=X.shape, stored=int(X.nnz), sha256=fingerprint(X))))


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--loss", nargs="+", default=["frobenius", "kullback-leibler"])
    p.add_argument("--most", type=int, default=2000)
    p.add_argument("--polish", choices=["auto", "none"], default="auto")
    p.add_argument("--one", action="store_true", help="used by itself")
    args = p.parse_args()
    if args.one: return fit(args)
    from anmf_lab.records import plain, versions, write_whole
    for loss in args.loss:
        command = [sys.executable, __file__, "--one", "--loss", loss, "--most", str(args.most), "--polish", args.polish]
        row = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])
        row["command"] = "python benchmarks/study_text.py " + " ".join(command[3:])
        print(json.dumps(row), flush=True)
        record = json.loads(RECORD.read_text()) if RECORD.exists() else dict(topic="sparse text at rank 30, end to end", fits=[])
        asked = ("loss", "most", "polish")
        record["fits"] = [q for q in record["fits"] if any(q[a] != row[a] for a in asked)] + [row]
        record |= dict(data="TDT2", rank=30, seed=0, threads=1, versions=versions())
        write_whole(RECORD, (json.dumps(plain(record), indent=1) + "\n").encode())


if __name__ == "__main__": main()
