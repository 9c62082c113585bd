"""The structure of two versions of the library, read from their sources: floors, imports, who knows a loss, widths.

    python benchmarks/study_structure.py CHECKOUT [--out results/objective/structure.json]

CHECKOUT is a folder with the other version, e.g. `git worktree add /tmp/before 6f3be0b` (the last commit before
the objective was passed). All but one number is read by `ast`:

* `modules`: floor (the number of the page a module is written on) and imports from lower floors;
* `evaluates`: modules other than the divergence and the objective that put a misfit together themselves, from data and β: they call its
  kernels. `takes`: modules whose functions take an objective, by the name or the annotation of a parameter;
* `widths`: of the library's lines and of the pages' exported cells.

`to_change` is what a new divergence would have to change. It is found by running: a fit with Newton's method, the
adjoint's certificate and an attack, on dense, masked and sparse data and for three β, with a trace. Each function
of the library that ran and computes with β (an operand of arithmetic or of a comparison) decides by β what is
minimised. If a class of one's own, which is no β-divergence, goes the same way, none has to be changed. `models` are the
estimators of the top level, `say` those that have `objective(X)`.
"""
import argparse
import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
KERNELS = {"divergence", "grad", "hessian", "hvp", "parts", "both_parts", "entries", "slope", "curvature", "cross",
           "newton_curvature"}
PLAIN = ("__init__", "__main__", "_modidx")


# --- what the sources say

def sources(root):
    "{module: text}"
    return {p.stem: p.read_text(encoding="utf-8") for p in sorted((root / "anmf_lab").glob("*.py")) if p.stem not in PLAIN}


def pages(root):
    "[(number or None, [exported cells])] of all pages"
    found = []
    for p in sorted((root / "nbs").rglob("*.ipynb")):
        if any(part.startswith((".", "_")) for part in p.relative_to(root).parts): continue
        cells = json.loads(p.read_text(encoding="utf-8"))["cells"]
        texts = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
        found.append((p, texts))
    return found


def imports(tree):
    "Modules of the library that a module imports"
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            name = (node.module or "").removeprefix("anmf_lab").strip(".")
            inside = node.level or (node.module or "").split(".")[0] == "anmf_lab"
            if inside: yield from [name.split(".")[0]] if name else (a.name for a in node.names)


def floor(text, texts, name):
    "Number of the page; a plain module lives on the floor of the first that imports it"
    page = re.search(r"File to edit: \S*?/(\d\d)_\w+\.ipynb", text)
    if page: return int(page[1])
    users = [re.search(r"/(\d\d)_\w+\.ipynb", t) for t in texts.values() if name in imports(ast.parse(t))]
    return min((int(u[1]) for u in users if u), default=99)


def evaluates(tree):
    "Kernels of the divergence that a module imports and calls"
    mine = {a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and (n.module or "").endswith("divergence")
            for a in n.names}
    called = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    return sorted(mine & called & KERNELS)


def takes(tree):
    "Functions that take an objective"
    found = []
    for f in ast.walk(tree):
        if not isinstance(f, ast.FunctionDef): continue
        given = f.args.posonlyargs + f.args.args + f.args.kwonlyargs
        kinds = [ast.unparse(a.annotation) for a in given if a.annotation]
        if {a.arg for a in given} & {"obj", "objective", "problem"} or any("Objective" in k for k in kinds):
            found.append(f.name)
    return found


def structure(root):
    "{module: floor, imports, evaluates, takes}"
    texts = sources(root)
    trees = {m: ast.parse(t) for m, t in texts.items()}
    return {m: dict(floor=floor(texts[m], texts, m), imports=sorted(set(imports(t)) & texts.keys() - {m}),
                    evaluates=[] if m in ("divergence", "objective") else evaluates(t), takes=takes(t))
            for m, t in trees.items()}


# --- widths

def length(node):
    "Lines of a function or class, docstrings left out"
    inner = [n for n in ast.walk(node) if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(n, clean=False)]
    return node.end_lineno - node.lineno + 1 - sum(n.body[0].end_lineno - n.body[0].lineno + 1 for n in inner)


def whole(tree):
    "{class: lines}, each with the private bases that it is cut into"
    classes = {n.name: n for n in tree.body if isinstance(n, ast.ClassDef)}
    def lines(n):
        bases = [b.id for b in n.bases if isinstance(b, ast.Name)]
        return length(n) + sum(lines(classes[b]) for b in bases if b.startswith("_") and b in classes)
    return {name: lines(n) for name, n in classes.items()}


def chained(tree):
    "Tuple assignments of three and more"
    return sum(isinstance(n, ast.Assign) and isinstance(n.targets[0], ast.Tuple) and len(n.targets[0].elts) > 2
               and isinstance(n.value, ast.Tuple) for n in ast.walk(tree))


def widths(root):
    "What the house limits, and what came of it"
    texts = sources(root)
    trees = {m: ast.parse(t) for m, t in texts.items()}
    lines = [line for t in texts.values() for line in t.splitlines() if line.strip()]
    def share(n): return round(100 * sum(len(line) > n for line in lines) / len(lines), 1)
    def longest(of): return max((length(n), n.name) for t in trees.values() for n in ast.walk(t) if isinstance(n, of))
    exported = [sum(bool(line.strip()) and not line.startswith("#|") for line in text.splitlines())
                for _, texts in pages(root) for text in texts if re.search(r"^#\|\s*exports?\b", text, re.M)]
    code = [line for _, texts in pages(root) for text in texts if "nbdev_export(" not in text
            for line in text.splitlines() if not re.match(r"#\s*\|", line)]
    return {
        "lines over 100 characters, %": share(100),
        "over 110, %": share(110),
        "over 120, %": share(120),
        "longest line": max(map(len, lines)),
        "lines over 110 in the pages' code": sum(len(line) > 110 for line in code),
        "exported cells": len(exported),
        "their median, lines": median(exported),
        "over 25 lines, %": round(100 * sum(n > 25 for n in exported) / len(exported)),
        "longest exported cell": max(exported),
        "longest function": longest(ast.FunctionDef)[0],
        "longest class": longest(ast.ClassDef)[0],
        "longest class with its private bases": max(max(whole(t).values(), default=0) for t in trees.values()),
        "longest module": max(len(t.splitlines()) for t in texts.values()),
        "tuple assignments of three and more, per 1000 lines":
            round(1000 * sum(map(chained, trees.values())) / len(lines), 1),
        "modules": len(texts),
        "lines": len(lines),
    }


# --- what a new divergence has to change: run by the library of `root`, in a process of its own

def by_beta(function):
    "Whether a function computes with β"
    def is_beta(n): return isinstance(n, ast.Name) and n.id == "beta" or isinstance(n, ast.Attribute) and n.attr == "beta"
    return any(isinstance(n, ast.BinOp) and (is_beta(n.left) or is_beta(n.right))
               or isinstance(n, ast.Compare) and any(map(is_beta, (n.left, *n.comparators))) for n in ast.walk(function))


def the_way(losses):
    "Fit, Newton, certificate, attack"
    import warnings
    import numpy as np
    import scipy.sparse as sp
    from anmf_lab.lafa import LaFA
    from anmf_lab.nmf import NMF
    warnings.simplefilter("ignore")
    rng = np.random.default_rng(0)
    X = rng.poisson(20 * rng.gamma(.5, size=(16, 2)) @ rng.gamma(.5, size=(2, 9))) + 1.
    holes = np.where(rng.random(X.shape) < .1, np.nan, X)
    for loss in losses:
        own = not isinstance(loss, (int, float))
        for Z in (X, holes, *(() if own or loss not in (1., 2.) else (sp.csr_array(X),))):
            model = NMF(2, loss=loss, init="random", random_state=0, polish=True).fit(Z)
            if Z is X: LaFA("l2", .01, steps=2, n_seeds=2).run(model, Z)


def own_loss():
    "The walk of the page Extend: negative binomial counts, from their value alone"
    import torch
    from anmf_lab.objective import Loss

    class Overdispersed(Loss):
        exponent, r = 1., 6.
        def value(self, X, Y):
            own = torch.xlogy(X, X) - X * Y.clamp(min=1e-12).log()
            return own - (X + self.r) * torch.log((X + self.r) / (Y + self.r))
        def lost(self, X, Y, level): return (X > 0) & (Y <= 1e-14 * level)
    return Overdispersed()


def trace(root):
    "[[module, function]] of what ran and computes with β; and whether a loss of one's own goes the same way"
    import anmf_lab
    from sklearn.base import TransformerMixin
    home, ran = str(root / "anmf_lab"), set()
    classes = [getattr(anmf_lab, name) for name in anmf_lab.__all__]
    models = [c.__name__ for c in classes if isinstance(c, type) and issubclass(c, TransformerMixin)]
    say = [name for name in models if hasattr(getattr(anmf_lab, name), "objective")]

    def seen(frame, event, arg):
        if event == "call" and frame.f_code.co_filename.startswith(home):
            ran.add((Path(frame.f_code.co_filename).stem, frame.f_code.co_name, frame.f_code.co_firstlineno))
    sys.setprofile(seen)
    try: the_way((2., 1., 1.5))
    finally: sys.setprofile(None)
    found = []
    for m, text in sources(root).items():
        for f in ast.walk(ast.parse(text)):
            first = isinstance(f, ast.FunctionDef) and min([f.lineno, *(d.lineno for d in f.decorator_list)])
            if first and (m, f.name, first) in ran and by_beta(f): found.append([m, f.name])
    try: the_way([own_loss()])
    except Exception as error: own = f"{type(error).__name__}: {str(error).split(', got')[0]}"
    else: own = True
    return dict(functions=found, own=own, models=models, say=say)


def traced(root):
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, __file__, "--trace", str(root)], cwd=root, env=environment, text=True,
                          capture_output=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    if sys.argv[1:2] == ["--trace"]: return print(json.dumps(trace(Path(sys.argv[2]))))
    p = argparse.ArgumentParser(description="the structure of two versions")
    p.add_argument("checkout", type=Path)
    p.add_argument("--out", type=Path, default=ROOT / "results" / "objective" / "structure.json")
    args = p.parse_args()
    from against import commit
    found = {}
    for when, root in (("before", args.checkout.resolve()), ("now", ROOT)):
        found[when] = dict(commit=commit(root), widths=widths(root), modules=structure(root), to_change=traced(root))
        print(when, json.dumps(found[when]["widths"], indent=1), json.dumps(found[when]["to_change"]))
    sys.path.insert(0, str(ROOT))
    from anmf_lab.records import write_whole
    record = dict(command="python benchmarks/study_structure.py CHECKOUT", **found)
    write_whole(args.out, (json.dumps(record, indent=1) + "\n").encode())


if __name__ == "__main__": main()
