"""Pages and tests again under other arithmetic and other versions; what came of it goes to results/portable.json.

    python tools/portable.py                        all that differs (an hour or two); by hand, never in CI
    python tools/portable.py --list                 the settings
    python tools/portable.py --settings aten-default two-threads --select tests/test_notebooks.py
    python tools/portable.py --settings lowest      pages and tests with the lowest versions that settings.ini allows

An arithmetic setting is a few environment variables, and runs the pages and the tests that compute; those with the
name of one library are parts of `oldest` and `haswell`, and run only if named, to find out which library it was. A set
of versions is an environment of its own, made by pip under .cache/portable/, and runs every test. A setting that was
run with the same selection is replaced in the record, the others stay.
"""
import argparse
import datetime
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import xml.etree.ElementTree as ET
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "portable"
OUT = ROOT / "results" / "portable.json"
TWO = {name: "2" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
ARITHMETIC = {
    "plain": {},
    "aten-default": {"ATEN_CPU_CAPABILITY": "default"},
    "aten-avx2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "mkl-compatible": {"MKL_CBWR": "COMPATIBLE"},
    "openblas-nehalem": {"OPENBLAS_CORETYPE": "Nehalem"},
    "openblas-haswell": {"OPENBLAS_CORETYPE": "Haswell"},
    "two-threads": TWO,
    "haswell": {"ATEN_CPU_CAPABILITY": "avx2", "OPENBLAS_CORETYPE": "Haswell"},
    "oldest": {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE", "OPENBLAS_CORETYPE": "Nehalem"},
}
VERSIONS = ("lowest", "highest")
DEFAULT = ["plain", "two-threads", "haswell", "oldest", *VERSIONS]
STILL = ("house", "docs", "cli", "data", "noise", "reproduce_lafa")   # tests that hardly compute
PACKAGES = ("numpy", "scipy", "scikit-learn", "torch", "matplotlib", "pandas", "joblib", "tqdm")


# --- environments

def wanted(which):
    "What pip is asked for: the lowest version of each requirement, or its newest"
    ini = ConfigParser(delimiters=["="])
    ini.read(ROOT / "settings.ini", encoding="utf-8")
    cfg = ini["DEFAULT"]
    floor = lambda r: r.replace(">=", "==") if which == "lowest" else r.split(">=")[0]
    needed = [floor(r) for r in cfg["requirements"].split()]
    tests = [r if "<" in r or "==" in r else floor(r) if r.startswith("pandas") else r
             for r in (cfg["dev_requirements"] + " " + cfg["docs_requirements"]).split() if not r.startswith(("ruff", "mypy"))]
    return needed, tests


def environment(which):
    "The interpreter of the environment `which`; it is made where it is not there"
    home = CACHE / which
    python = home / "bin" / "python"
    needed, tests = wanted(which)
    asked = json.dumps([needed, tests])
    stamp = home / "asked.json"
    if stamp.exists() and stamp.read_text() == asked:
        return python
    print(f"making {home.relative_to(ROOT)}: {' '.join(needed)}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
    pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, *needed, *tests], check=True)
    subprocess.run([*pip, "--no-deps", "-e", ROOT], check=True)
    stamp.write_text(asked)
    return python


def versions(python):
    "What is installed there"
    code = (f"import importlib.metadata as m, json, platform; names = {PACKAGES!r}; "
            "print(json.dumps({'python': platform.python_version()} | {n: m.version(n) for n in names}))")
    return json.loads(subprocess.run([python, "-c", code], check=True, text=True, capture_output=True).stdout)


# --- runs

def selection(setting, asked):
    "The arguments of pytest"
    if asked:
        return shlex.split(asked)
    if setting in VERSIONS:
        return ["tests"]
    return [str(p.relative_to(ROOT)) for p in sorted((ROOT / "tests").glob("test_*.py"))
            if not any(p.stem == f"test_{name}" for name in STILL)]


def outcome(file):
    "Counts and failures of a junit file"
    cases = list(ET.parse(file).iter("testcase"))
    bad, skipped = [], 0
    for c in cases:
        skipped += c.find("skipped") is not None
        fault = c.find("failure") if c.find("failure") is not None else c.find("error")
        if fault is not None:
            words = [w.strip() for w in re.findall(r"^E +(.*)$", fault.text or "", re.M)] or [fault.get("message", "")]
            name = f"{c.get('classname', '').replace('.', '/')}.py::{c.get('name')}"
            bad.append({"test": name, "says": " ".join(words[-1].split())[:300]})
    counts = {"tests": len(cases), "passed": len(cases) - skipped - len(bad), "skipped": skipped, "failed": len(bad)}
    return counts, sorted(bad, key=lambda f: f["test"])


def run(setting, asked, jobs):
    "One setting: its record"
    python = environment(setting) if setting in VERSIONS else Path(sys.executable)
    extra = ARITHMETIC.get(setting, {})
    one = {name: "1" for name in TWO}
    env = {**os.environ, "MPLBACKEND": "agg", "PYTHONPATH": str(ROOT), **one, **extra}
    env.pop("VIRTUAL_ENV", None)     # IPython would look for it
    env["PATH"] = f"{python.parent}{os.pathsep}{env['PATH']}"
    CACHE.mkdir(parents=True, exist_ok=True)
    file = CACHE / f"{setting}.xml"
    file.unlink(missing_ok=True)
    chosen = selection(setting, asked)
    share = ["-n", str(jobs), "--dist", "worksteal"] if jobs > 1 else []
    if setting in VERSIONS:     # old libraries call what their newer dependencies deprecate
        share += ["-W", "ignore::DeprecationWarning"]
    command = [python, "-m", "pytest", "-q", "--tb=short", *share, "--randomly-seed=0", "--hypothesis-seed=0",
               "-p", "no:cacheprovider", f"--junitxml={file}", *chosen]
    done = subprocess.run(command, cwd=ROOT, env=env)
    if not file.exists():
        sys.exit(f"{setting}: pytest ended with {done.returncode} and no results")
    counts, bad = outcome(file)
    for f in bad:
        print(f"  {setting}: {f['test']}: {f['says']}")
    what = asked or ("all" if setting in VERSIONS else "all that compute")
    return {"setting": setting, "environment": extra, "versions": versions(python), "selection": what, **counts,
            "failures": bad}


def commit():
    "What was run"
    out = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, text=True, capture_output=True)
    return out.stdout.strip()


def write(record, out):
    "Put the record of one setting among the others"
    old = json.loads(out.read_text(encoding="utf-8"))["runs"] if out.exists() else []
    same = lambda r: (r["setting"], r["selection"]) == (record["setting"], record["selection"])
    runs = [r for r in old if not same(r)] + [record]
    names = [*ARITHMETIC, *VERSIONS]
    runs.sort(key=lambda r: (names.index(r["setting"]), r["selection"]))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"what": "pages and tests under other arithmetic and other versions (make test-portable)",
                               "runs": runs}, indent=1) + "\n", encoding="utf-8")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--settings", nargs="+", choices=[*ARITHMETIC, *VERSIONS], default=DEFAULT)
    p.add_argument("--select", help="arguments for pytest, in quotes: which tests (default: all that compute)")
    p.add_argument("--jobs", type=int, default=1, help="processes that share the tests (default 1)")
    p.add_argument("--out", type=Path, default=OUT)
    p.add_argument("--list", action="store_true", help="show the settings and stop")
    a = p.parse_args()
    if a.list:
        for name, extra in ARITHMETIC.items():
            print(f"{name:17} {' '.join(f'{k}={v}' for k, v in extra.items())}")
        for name in VERSIONS:
            print(f"{name:17} {' '.join(wanted(name)[0])}")
        return
    failed = 0
    for setting in a.settings:
        print(f"== {setting}", flush=True)
        record = run(setting, a.select, a.jobs) | {"commit": commit(), "date": datetime.date.today().isoformat(),
                                                   "machine": f"{platform.machine()}, {os.cpu_count()} cores"}
        write(record, a.out)
        failed += record["failed"]
        print({k: record[k] for k in ("tests", "passed", "skipped", "failed")}, flush=True)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
