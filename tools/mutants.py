"""Break one formula at a time and see which test notices: tests/mutants.toml, one by one, in a copy.

    python tools/mutants.py                   all, by hand (an hour or two): table to results/mutants.json
    python tools/mutants.py --only align      those whose module, note or text contains the word, also if they were run
    python tools/mutants.py --check           only whether every `old` text is there exactly once

A mutant changes the module and the cell that it comes from; its page runs first, then its test files, each until
the first failure. Before that the same tests run unchanged (the control) and must be green. What was recorded is kept:
a run that was stopped goes on where it was, and --again begins anew. Linux or macOS: the libraries are loaded once,
and every run is a fork. `why` explains a mutant that nothing can notice.
"""
import argparse
import json
import os
import platform
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIST = ROOT / "tests" / "mutants.toml"
COPY = ROOT / ".cache" / "mutants"
OUT = ROOT / "results" / "mutants.json"
LIMIT = 400     # seconds of processor time for one test file or page: a mutant that never ends is caught, too


class Stale(Exception):
    "A mutant whose text is not there"


# --- the list

def read(path=LIST):
    "The mutants, each a dictionary: module, old, new, tests, page, and perhaps note and why"
    if sys.version_info < (3, 11):
        sys.exit("tools/mutants.py needs Python 3.11 or newer (tomllib)")
    import tomllib
    mutants = []
    for name, group in tomllib.loads(path.read_text(encoding="utf-8")).items():
        common = {"module": name, "tests": group["tests"], "page": group.get("page")}
        mutants += [common | m for m in group["mutant"]]
    return mutants


def once(text, m, where):
    "`text` with the mutant in it"
    n = text.count(m["old"])
    if n != 1:
        raise Stale(f"{where}: the old text is there {n} times, not once: {m['old']!r}")
    return text.replace(m["old"], m["new"])


def sources(root, module):
    "The module and the notebook that it is exported from (none for a plain module)"
    file = root / "anmf_lab" / f"{module}.py"
    if not file.exists():
        raise Stale(f"there is no module {module}")
    made = re.search(r"File to edit: \.\./(nbs/\S+\.ipynb)", file.read_text(encoding="utf-8"))
    return file, root / made[1] if made else None


def mutated(root, m):
    "Path -> text with the mutant, for the module and its notebook"
    file, page = sources(root, m["module"])
    out = {file: once(file.read_text(encoding="utf-8"), m, file.name)}
    if page is None:
        return out
    nb = json.loads(page.read_text(encoding="utf-8"))
    exported = [c for c in nb["cells"] if re.search(r"^#\|\s*export", "".join(c["source"]), re.M)]
    hits = [c for c in exported if m["old"] in "".join(c["source"])]
    if len(hits) != 1:
        raise Stale(f"{page.name}: {len(hits)} exported cells hold the old text: {m['old']!r}")
    hits[0]["source"] = once("".join(hits[0]["source"]), m, page.name)
    out[page] = json.dumps(nb)
    return out


# --- one run in a fork

class First:
    "A pytest plugin that remembers the first failure and counts the tests"
    def __init__(self):
        self.failed, self.count = None, 0

    def pytest_runtest_logreport(self, report):
        self.count += report.when == "call"
        if report.failed and self.failed is None:
            self.failed = report.nodeid

    def pytest_collectreport(self, report):
        if report.failed and self.failed is None:
            self.failed = f"{report.nodeid} (import)"


def child(args, out):
    "Run pytest in this process, in the copy"
    import pytest
    os.chdir(COPY)
    sys.path.insert(0, str(COPY))
    log = os.open(COPY / ".log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    first = First()
    code = pytest.main([*args, "-q", "-p", "no:randomly", "-p", "no:cacheprovider", "--hypothesis-seed=0"], plugins=[first])
    out.write_text(json.dumps({"failed": first.failed, "count": first.count, "code": int(code)}))


def pytest_in_fork(args):
    "(first failure or None, number of tests)"
    out = COPY / ".outcome.json"
    out.unlink(missing_ok=True)
    pid = os.fork()
    if pid == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT + 10))
        try:
            child(args, out)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    if not out.exists():
        late = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU
        return ("no end" if late else "crash"), 0
    got = json.loads(out.read_text())
    if got["failed"] is None and got["code"] not in (0, 5):
        return f"pytest ended with {got['code']}", got["count"]
    return got["failed"], got["count"]


def runs_of(m):
    "The pytest arguments of a mutant, one list a run: the page, which is short, and then the tests"
    page = [["tests/test_notebooks.py", "-k", m["page"]]] if m["page"] else []
    return page + [shlex.split(t) for t in m["tests"]]


def caught(m):
    "The test that notices the mutant, or None"
    new = mutated(COPY, m)
    old = {path: path.read_text(encoding="utf-8") for path in new}
    try:
        for path, text in new.items():
            path.write_text(text, encoding="utf-8")
        for args in runs_of(m):
            failed, _ = pytest_in_fork([*args, "-x"])
            if failed:
                return failed
    finally:
        for path, text in old.items():
            path.write_text(text, encoding="utf-8")


# --- all of them

def copy():
    "The files of the repository, in .cache/mutants"
    shutil.rmtree(COPY, ignore_errors=True)
    names = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, text=True, capture_output=True,
                           check=True).stdout.splitlines()
    for name in names:
        if (ROOT / name).is_file():
            (COPY / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, COPY / name, follow_symlinks=False)


def control(m, done):
    "The runs of a mutant without the mutant, once each; ends the program where one is not green"
    for args in runs_of(m):
        name = shlex.join(args)
        if name in done:
            continue
        failed, count = pytest_in_fork([*args, "-x"])
        if failed:
            end = (COPY / ".log").read_text(errors="replace")[-3000:]
            sys.exit(f"{end}\ncontrol: {name} fails without a mutant: {failed}")
        done[name] = count
        print(f"control: {name}: {count} green", flush=True)


def load():
    "What every run needs, once, before the forks"
    for name, value in {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MPLBACKEND": "agg",
                        "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(COPY)}.items():
        os.environ[name] = value
    sys.dont_write_bytecode = True
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() not in (ROOT, ROOT / "tools")]
    for name in ("torch", "scipy.optimize", "sklearn.utils.estimator_checks", "matplotlib.pyplot", "pandas",
                 "nbdev.test", "pytest"):
        __import__(name)
    import torch
    torch.set_num_threads(1)


def key(m):
    return m["module"], m["old"], m["new"]


def known(again):
    "(what was recorded of each mutant, counts of the control)"
    if again or not OUT.exists():
        return {}, {}
    old = json.loads(OUT.read_text(encoding="utf-8"))
    return {key(m): (m["caught_by"], m.get("commit", old["commit"])) for m in old["mutants"] if "caught_by" in m}, old["control"]


def commit():
    "What the copy was made of"
    asked = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(asked, cwd=ROOT, text=True, capture_output=True).stdout.strip()


def write(mutants, controls):
    "The table: survivors first, then those that were not run or are stale, then the others"
    from importlib.metadata import version
    done = [m for m in mutants if "caught_by" in m]
    alive = [m for m in done if not m["caught_by"]]
    stale = [m for m in mutants if "stale" in m]
    fields = ("module", "old", "new", "note", "caught_by", "commit", "why", "stale")
    row = lambda m: {k: m[k] for k in fields if k in m}
    order = lambda m: (m.get("caught_by", "") is not None) + bool(m.get("caught_by"))
    r = {"what": "formula mutants, one at a time, and the test that noticed each (make mutants)",
         "command": "python tools/mutants.py", "commit": commit(),
         "versions": {"python": platform.python_version()} | {n: version(n) for n in ("numpy", "scipy", "scikit-learn", "torch")},
         "counts": {"mutants": len(mutants), "caught": len(done) - len(alive), "survived": len(alive), "stale": len(stale),
                    "not run": len(mutants) - len(done) - len(stale)},
         "control": controls, "mutants": [row(m) for m in sorted(mutants, key=order)]}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(r, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return r["counts"]


def stale_ones(mutants):
    "Mark the mutants whose text is not there, and say so; the others are returned"
    for m in mutants:
        try:
            mutated(COPY, m)
        except Stale as e:
            m["stale"] = str(e)
            print(f"STALE {m['module']}: {e}")
    live = [m for m in mutants if "stale" not in m]
    print(f"{len(mutants)} mutants, {len(mutants) - len(live)} stale", flush=True)
    return live


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--only", nargs="+", help="mutants whose module, text or note contains one of these")
    p.add_argument("--check", action="store_true", help="find stale mutants and stop")
    p.add_argument("--again", action="store_true", help="forget what was recorded")
    return p.parse_args()


def main():
    a = arguments()
    mutants = read()
    copy()
    live = stale_ones(mutants)
    if a.check:
        sys.exit(len(live) < len(mutants))
    load()
    now = commit()
    caught_by, controls = known(a.again)
    for m in live:
        if key(m) in caught_by:
            m["caught_by"], m["commit"] = caught_by[key(m)]
    text = lambda m: " ".join((m["module"], m["old"], m["new"], m.get("note", "")))
    asked = [m for m in live if any(word in text(m) for word in a.only)] if a.only else [m for m in live if not m.get("caught_by")]
    for i, m in enumerate(asked, 1):
        control(m, controls)
        begin = time.monotonic()
        m["caught_by"], m["commit"] = caught(m), now
        says = m["caught_by"] or "SURVIVES" + (f" ({m['why']})" if "why" in m else "")
        print(f"{i}/{len(asked)} {m['module']}: {m['old']!r} -> {m['new']!r}: {says} [{time.monotonic() - begin:.0f} s]", flush=True)
        write(mutants, controls)
    print(write(mutants, controls))
    sys.exit(any(m.get("caught_by", "") is None and "why" not in m for m in live))


if __name__ == "__main__":
    main()
