"""The field's default program on the bundled genomes, as a record: results/trust/sigprofiler.json.

In an environment of its own (`pip install SigProfilerExtractor`; it needs no reference genome for a table):

    python benchmarks/run_sigprofiler.py run OUTPUT          # minutes: 20 replicates at ranks 2 to 6
    python benchmarks/run_sigprofiler.py collect OUTPUT      # reads what it wrote, writes the record
"""
import argparse
import hashlib
import json
import platform
import resource
import time
from importlib.metadata import version
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "anmf_lab" / "resources" / "wtsi_brca21.csv"
SETTINGS = dict(reference_genome="GRCh37", minimum_signatures=2, maximum_signatures=6, nmf_replicates=20, cpu=1,
                assignment_cpu=1, gpu=False, seeds="random", make_decomposition_plots=False,
                matrix_normalization="gmm")


def run(out):
    "Write the table as the program reads it (types x samples), run it, note the time"
    from SigProfilerExtractor import sigpro
    out.mkdir(parents=True, exist_ok=True)
    table = pd.read_csv(TABLE, comment="#", index_col=0).T.astype(int)
    table.index.name = "Mutation Types"
    table.to_csv(out / "table.txt", sep="\t")
    clock = time.time()
    sigpro.sigProfilerExtractor("matrix", str(out / "result"), str(out / "table.txt"), **SETTINGS)
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(u.ru_utime + u.ru_stime for u in used)
    (out / "time.json").write_text(json.dumps(dict(wall_seconds=time.time() - clock, cpu_seconds=cpu)))


def matrix(path):
    "A table of the program, one column a signature, as rows"
    T = pd.read_csv(path, sep="\t", index_col=0)
    return {c: [float(f"{v:.3g}") for v in T[c]] for c in T.columns}


def seconds(line):
    h, m, sec = line.split("Execution time:")[1].split(":")
    return 3600 * int(h) + 60 * int(m) + float(sec)


def rank(folder):
    "What the program wrote about one rank"
    stats = pd.read_csv(next(folder.glob("Solution_Stats/*_Signatures_stats.txt")), sep="\t")
    ends = pd.read_csv(next(folder.glob("Solution_Stats/*Convergence_Information.txt")), sep="\t")
    return dict(stability=stats["Stability"].tolist(), replicates=len(ends),
                updates_median=float(ends["Convergence Iterations"].median()),
                signatures=matrix(next(folder.glob("Signatures/*_Signatures.txt"))),
                sem=matrix(next(folder.glob("Signatures/*SEM_Error.txt"))))


def collect(out):
    "The record, also of a run that was stopped: the ranks that are done"
    found = {f.name.split("_")[1]: f for f in (out / "result" / "SBS96" / "All_Solutions").glob("SBS96_*_Signatures")}
    ranks = {k: rank(found[k]) for k in sorted(found, key=int) if list(found[k].glob("Solution_Stats/*_stats.txt"))}
    lines = (out / "result" / "JOB_METADATA.txt").read_text().splitlines()
    took = [seconds(s) for s in lines if s.strip().startswith("Execution time:")]
    done, clock = "".join(s for s in lines if "Normalization" in s).split("] ")[-1], out / "time.json"
    record = dict(
        name="sigprofiler", what="SigProfilerExtractor on its own example table, the bundled 21 genomes",
        command="python benchmarks/run_sigprofiler.py run OUTPUT, then collect OUTPUT", settings=SETTINGS,
        data=dict(name="wtsi", file=TABLE.name, sha256=hashlib.sha256(TABLE.read_bytes()).hexdigest()),
        versions={n: version(n) for n in ("SigProfilerExtractor", "numpy", "torch")} | dict(python=platform.python_version()),
        measured=dict(complete=clock.exists(), normalization=done, wall_seconds_of_each_rank=took,
                      note="one process on a machine that did other work: its times are upper bounds",
                      **(json.loads(clock.read_text()) if clock.exists() else {}), ranks=ranks))
    path = ROOT / "results" / "trust" / "sigprofiler.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(path.name, path.stat().st_size, {k: r["stability"] for k, r in ranks.items()})


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("step", choices=("run", "collect"))
    p.add_argument("output", type=Path)
    a = p.parse_args()
    (run if a.step == "run" else collect)(a.output)
