"""Peak memory of a fit to data that are read in blocks from a disk.

    python benchmarks/study_memory.py [--gigabytes 4] [--columns 2000] [--rank 10] [--passes 3] [--loss frobenius] [--append]

Writes planted float32 data to a temporary file (a block at a time), fits them in a process of its own, and
records its peak resident set beside the size of the data: results/scale/memory.json. With `--append`, fits to files
of several sizes are put beside what is on record (`sizes`), one after another. Linux only.
"""
import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent.parent / "results" / "scale"


def planted(path, n, f, k, seed=0, rows=4096):
    "Write n x f planted float32 data, one block again and again; returns the hash of the file"
    rng = np.random.default_rng(seed)
    H = rng.gamma(.3, size=(k, f))
    block = np.ascontiguousarray(rng.gamma(.3, size=(rows, k)) @ H + .01, dtype=np.float32)
    seen = hashlib.sha256(block.tobytes())
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, dict(descr="<f4", fortran_order=False, shape=(n, f)))
        for a in range(0, n, rows):
            file.write(block[:n - a].tobytes())
    return seen.hexdigest()


def peak_mb():
    "The largest resident set of this process, from the system (ru_maxrss remembers the parent's)"
    with open("/proc/self/status") as f:
        return int(f.read().split("VmHWM:")[1].split()[0]) / 1024


def fit(path, k, loss, passes):
    "In a process of its own: fit, and say what it took"
    import torch

    import anmf_lab as al
    torch.set_num_threads(1)
    before, clock, cpu = peak_mb(), time.time(), time.process_time()
    model = al.NMF(k, loss=loss, polish=False, max_iter=passes, tol=1e-12, random_state=0)
    import warnings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(al.blocks(path))
    peak = peak_mb()
    print(json.dumps(dict(loss=loss, updates=passes, peak_mb=peak, import_mb=before,
                          error=model.reconstruction_err_, seconds=time.time() - clock,
                          cpu_seconds=time.process_time() - cpu)))


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--gigabytes", type=float, nargs="+", default=[4.])
    p.add_argument("--columns", type=int, default=2000)
    p.add_argument("--rank", type=int, default=10)
    p.add_argument("--passes", type=int, default=3)
    p.add_argument("--loss", nargs="+", default=["frobenius"])
    p.add_argument("--out", default="memory.json")
    p.add_argument("--append", action="store_true")
    p.add_argument("--fit", nargs=2, metavar=("FILE", "LOSS"), help="used by itself")
    args = p.parse_args()
    if args.fit:
        return fit(args.fit[0], args.rank, args.fit[1], args.passes)
    from anmf_lab.records import versions, write_whole
    for gigabytes in args.gigabytes:
        data, rows = fits(args, gigabytes)
        about = dict(versions=versions(), command="python benchmarks/study_memory.py " + " ".join(sys.argv[1:]), data=data, rank=args.rank)
        record = dict(topic="peak memory of a fit to data on a disk", seed=0, **about, fits=rows)
        if args.append:
            record = json.loads((FOLDER / args.out).read_text())
            record["sizes"] = record.get("sizes", []) + [dict(about, **row) for row in rows]
        write_whole(FOLDER / args.out, json.dumps(record, indent=1).encode())


def fits(args, gigabytes):
    "The data, written and fitted under every loss"
    n = round(gigabytes * 1e9 / 4 / args.columns)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.npy"
        digest, rows = planted(path, n, args.columns, args.rank), []
        for loss in args.loss:
            command = [sys.executable, __file__, "--rank", str(args.rank), "--passes", str(args.passes),
                       "--fit", str(path), loss]
            said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            rows.append(json.loads(said.splitlines()[-1]))
            print(rows[-1], flush=True)
        data = dict(rows=n, columns=args.columns, dtype="float32", bytes=path.stat().st_size, sha256_of_the_block=digest)
    return data, rows



if __name__ == "__main__":
    main()
