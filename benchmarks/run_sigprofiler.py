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
    return {c: [round(float(v), 6) for v in T[c]] for c in T.columns}


def collect(out):
    "The record"
    base = out / "result" / "SBS96"
    stat = pd.read_csv(next(base.glob("All_solutions_stat.csv")), index_col=0)
    ranks = {}
    for folder in sorted(base.glob("All_Solutions/SBS96_*_Signatures")):
        k = folder.name.split("_")[1]
        ranks[k] = dict(signatures=matrix(next(folder.glob("Signatures/*Signatures*.txt"))),
                        sem=matrix(next(folder.glob("**/*SEM_Error*.txt"))))
    lines = (out / "result" / "JOB_METADATA.txt").read_text().splitlines()
    record = dict(
        name="sigprofiler", what="SigProfilerExtractor on its own example table, the bundled 21 genomes",
        command="python benchmarks/run_sigprofiler.py run OUTPUT, then collect OUTPUT", settings=SETTINGS,
        data=dict(name="wtsi", file=TABLE.name, sha256=hashlib.sha256(TABLE.read_bytes()).hexdigest()),
        versions={n: version(n) for n in ("SigProfilerExtractor", "numpy", "torch")} | dict(python=platform.python_version()),
        measured=dict(solutions=json.loads(stat.reset_index().to_json(orient="records")),
                      times=[s.strip() for s in lines if "Time taken" in s or "seconds" in s],
                      **json.loads((out / "time.json").read_text()), ranks=ranks))
    path = ROOT / "results" / "trust" / "sigprofiler.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(path, path.stat().st_size)


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("step", choices=("run", "collect"))
    p.add_argument("output", type=Path)
    a = p.parse_args()
    (run if a.step == "run" else collect)(a.output)
