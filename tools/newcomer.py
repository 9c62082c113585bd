"""Do what the front page says, as somebody who has only the wheel: a fresh environment, the commands, an own table.

    python tools/newcomer.py          also as `make newcomer`; by hand, it takes some minutes

Every printed output must be as on the page, and the report must open. What was done, and how long it took, is printed
and goes to results/newcomer.json. The table is made here: counts with names, of which nobody knows the answer.
"""
import ast
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = json.loads((ROOT / "nbs" / "index.ipynb").read_text(encoding="utf-8"))["cells"]
LIMIT = 300   # seconds
TABLE = """
import numpy as np, pandas as pd
rng = np.random.default_rng(7)
W, H = (rng.gamma(2., 1., s) * (rng.random(s) > .4) for s in ((30, 3), (3, 20)))
X = pd.DataFrame(rng.poisson(40 * W @ H + .1), [f"patient {i}" for i in range(30)], [f"gene {c}" for c in range(20)])
X.to_csv("mydata.csv")
"""
RUN = """
import ast, json, sys
space, wrong = {}, []
for code, said in json.load(open("cells.json")):
    tree = ast.parse(code)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "page", "exec"), space)
    got = repr(eval(compile(ast.Expression(last.value), "page", "eval"), space)) if last else ""
    print(code, got, sep="\\n", end="\\n\\n")
    if said and got != said: wrong.append(f"the page says {said}, and here it is {got}")
sys.exit("\\n".join(wrong) or 0)
"""


def source(cell):
    return "".join(cell["source"])


def cells():
    "[(code, what the page prints)] of the cells that a reader sees"
    seen = [c for c in PAGE if c["cell_type"] == "code" and not re.search(r"^#\| *(hide|echo: false)", source(c), re.M)]
    told = lambda c: "".join("".join(o.get("data", {}).get("text/plain", "")) for o in c["outputs"])
    return [(source(c), told(c)) for c in seen]


def blocks(kind):
    "The fenced blocks of the page in one language"
    text = "\n".join(source(c) for c in PAGE if c["cell_type"] == "markdown")
    return re.findall(rf"^``` {kind}\n(.*?)^```", text, re.M | re.S)


def own_commands():
    "What the page tells people to type about their own table"
    return [line.split("#")[0].strip() for b in blocks("sh") for line in b.splitlines() if line.startswith("anmf-lab")]


class Steps:
    "Runs commands in an empty folder, and keeps the time"
    def __init__(self, home):
        self.home, self.done = home, []
        keep = ("LANG", "HOME", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CONFIG_FILE", "SSL_CERT_FILE", "TMPDIR")
        path = os.pathsep.join((str(home / "env" / "bin"), "/usr/bin", "/bin"))
        self.env = {k: os.environ[k] for k in keep if k in os.environ} | {"PATH": path, "MPLBACKEND": "agg"}

    def __call__(self, what, *args):
        print(f"$ {what}", flush=True)
        begin = time.monotonic()
        code = subprocess.run([str(a) for a in args], cwd=self.home, env=self.env).returncode
        self.done.append({"step": what, "seconds": round(time.monotonic() - begin, 1)})
        if code: sys.exit(f"failed: {what}")


def built():
    "The wheel"
    shutil.rmtree(ROOT / "dist", ignore_errors=True)
    subprocess.run([sys.executable, "-m", "build", str(ROOT)], check=True, stdout=subprocess.DEVNULL)
    return next((ROOT / "dist").glob("*.whl"))


def opened(report, home):
    "Does the report open by itself: text, size, no request, and, where there is a browser, as a page?"
    text = report.read_text(encoding="utf-8")
    assert len(text) < 2e6, f"the report has {len(text) / 1e6:.1f} MB"
    assert not re.search(r"""(src|href)=["']?https?://(?!doi)[^"'>]+\.(js|css|woff2?|png)""", text), "it asks the network for a file"
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None: return "no browser here"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", f"--user-data-dir={home / 'browser'}"]
    page = subprocess.run([browser, *flags, "--dump-dom", report.as_uri()], text=True, capture_output=True, timeout=60).stdout
    assert "<h1" in page and "patient" in page, "the browser shows no report"
    return "opened in a browser"


def main():
    wheel, torch = built(), re.search(r"^TORCH +\?= +(\S+)", (ROOT / "Makefile").read_text(), re.M)[1]
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        step = Steps(home)
        python = home / "env" / "bin" / "python"
        step("python -m venv env", sys.executable, "-m", "venv", home / "env")
        step(f"pip install {torch}", python, "-m", "pip", "install", "-q", "--disable-pip-version-check", torch)
        step(f"pip install {wheel.name}", python, "-m", "pip", "install", "-q", "--disable-pip-version-check", wheel)
        (home / "cells.json").write_text(json.dumps(cells()), encoding="utf-8")
        step("the cells of the front page", python, "-c", RUN)
        step("an own table, mydata.csv", python, "-c", TABLE)
        for line in own_commands(): step(line, home / "env" / "bin" / "anmf-lab", *shlex.split(line)[1:])
        says = opened(home / "report.html", home)
        for code in (b for b in blocks("python") if "mydata.csv" in b):
            ast.parse(code)
            (home / "report.html").unlink()
            step("the same in Python", python, "-c", code)
            says = opened(home / "report.html", home)
        total = round(sum(s["seconds"] for s in step.done), 1)
        packages = subprocess.run([python, "-m", "pip", "list", "--format", "json"], text=True, capture_output=True, check=True).stdout
    wanted = ("anmf-lab", "numpy", "scipy", "torch", "scikit-learn", "pandas")
    versions = {p["name"]: p["version"] for p in json.loads(packages) if p["name"].replace("_", "-") in wanted}
    record = {"what": "the front page, followed by somebody who has only the wheel", "command": "python tools/newcomer.py",
              "python": platform.python_version(), "versions": versions, "steps": step.done, "seconds": total, "report": says}
    (ROOT / "results" / "newcomer.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"{total:.0f} s; the report {says}")
    if total > LIMIT: sys.exit(f"more than {LIMIT} s")


if __name__ == "__main__":
    main()
