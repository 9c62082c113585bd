"""Every kind of input of tests/kinds.py through every model, the functions of a model, the attack and the command line: counts.

    python benchmarks/study_sweep.py [--out results/reliability]

The tests (tests/test_kinds.py) fail at the first dishonest answer; this counts all answers by the same rules. Refused: an error
that says why. Answered: finite, nonnegative factors of the right shape, the table's own factors where only the container differs; what the
functions of a model answer on a hard table is not judged further. Warned: answered, with a warning, nearly always of a fit that is
cut short on purpose (4 steps). Wrong: anything else, an answer where none can be right or an error about something else.
"""
from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
import warnings
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
import test_kinds as sweep
from kinds import LIKE, ROUND, SAME, WRONG, table

import anmf_lab as al
from anmf_lab.cli import main
from anmf_lab.records import Record, save_record

KINDS = SAME | ROUND | LIKE | WRONG
SAYS = (*sweep.REASONS, "X", "data", "array", "component", "observations")
FATES = ("answered", "warned", "refused", "wrong")


def fate(call, check=lambda got: None, refusable=True, no_table=False):
    "(one of `FATES`, what was wrong)"
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try: got = call()
        except (ValueError, TypeError) as e:
            clear = refusable and any(word in str(e) for word in SAYS)
            return ("refused", "") if clear else ("wrong", f"{type(e).__name__}: {e}")
        except Exception as e: return "wrong", f"{type(e).__name__}: {e}"
    if no_table: return "wrong", "accepted"
    try: check(got)
    except AssertionError as e: return "wrong", str(e)[:200]
    return ("warned" if said else "answered"), ""


def dense_only(kind): return any(word in kind for word in ("csr", "csc", "coo", "lil", "dok", "bsr", "dia", "sparse"))


def fit(make, X):
    model = make()
    W = model.fit_transform(X)
    W, H = (np.asarray(A.detach() if torch.is_tensor(A) else A, dtype=float) for A in (W, model.components_))
    return W, H, model


def through_models():
    "(model, kind, fate, what was wrong)"
    for name, make in sweep.MODELS.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            W, H, _ = fit(make, table())
        for kind, X in KINDS.items():
            def honest(got, kind=kind, want=W @ H):
                sweep.honest(got, kind)
                if kind in SAME or kind in ROUND:
                    rtol = 1e-6 if kind in SAME else 2e-2
                    np.testing.assert_allclose(got[0] @ got[1], want, rtol=0, atol=rtol * want.max())
            easy = kind in SAME or kind in ROUND
            yield name, kind, *fate(lambda make=make, X=X: fit(make, X()), honest, not easy or dense_only(kind), kind in WRONG)


def through_functions():
    "Hard tables with their own model, and what is no table with the model of another one"
    other = al.NMF(2, loss="kullback-leibler", init="random", random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other.fit(table())
    for name, how in sweep.HARD.items():
        for kind in LIKE:
            X, model = sweep.solved(kind)
            if model is not None: yield f"al.{name}", kind, *fate(lambda X=X, m=model, n=name, how=how: getattr(al, n)(m, X, **how))
        for kind, X in WRONG.items():
            yield f"al.{name}", kind, *fate(lambda X=X, n=name: getattr(al, n)(other, X()), no_table=True)


def through_attack():
    def attacked(X):
        return al.LaFA("l2", .05, **sweep.SMALL).run(al.NMF(2, random_state=0, max_iter=100), X)
    def honest(got):
        row = got.records[-1]
        assert all(np.isfinite(row[name]) and row[name] >= 0 for name in ("feature_error", "random", "floor")), row
        assert np.isfinite(np.nan_to_num(got.adversarial[.05])).all()
    for kind, X in KINDS.items():
        easy = kind in SAME or kind in ROUND
        yield "al.LaFA", kind, *fate(lambda X=X: attacked(X()), honest, not easy or dense_only(kind), kind in WRONG)


def through_commands():
    "`anmf-lab fit`: kinds that a file can hold"
    for kind, make in KINDS.items():
        with tempfile.TemporaryDirectory() as home:
            file, out = sweep.stored(make(), Path(home)), Path(home) / "out"
            if file is None: continue
            said = io.StringIO()
            with redirect_stderr(said), redirect_stdout(io.StringIO()), warnings.catch_warnings(record=True) as heard:
                warnings.simplefilter("always")
                code = main(["fit", str(file), "--rank", "2", "--starts", "2", "-q", "--out", str(out)])
            good = code == 0 and (out / "codes.csv").exists() or code == 1 and said.getvalue().strip() and not out.exists()
            fate = "wrong" if not good else "refused" if code else "warned" if heard or said.getvalue().strip() else "answered"
            yield "anmf-lab fit", kind, fate, said.getvalue().strip()


def counted(rows):
    "Counts by who was asked, in all, and the wrong ones by name"
    by, wrong = {}, []
    for who, kind, what, why in rows:
        by.setdefault(who, Counter())[what] += 1
        if what == "wrong": wrong.append(f"{who}, {kind}: {why}")
    full = {who: {f: c[f] for f in FATES} | {"combinations": c.total()} for who, c in by.items()}
    groups = {"models": list(sweep.MODELS), "functions": [f"al.{n}" for n in sweep.HARD], "attack": ["al.LaFA"], "command line": ["anmf-lab fit"]}
    total = {g: {f: sum(full[who][f] for who in names) for f in (*FATES, "combinations")} for g, names in groups.items()}
    return dict(groups=total, each=full, wrong=wrong)


def run():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--out", type=Path, default=Path("results/reliability"))
    args = p.parse_args()
    sweep.fitted(lambda: al.NMF(2, random_state=0), table())
    rows = [row for part in (through_models, through_functions, through_attack, through_commands) for row in part()]
    found = counted(rows)
    print(json.dumps(found["groups"], indent=1), *found["wrong"], sep="\n")
    save_record(Record(
        name="sweep", what="Kinds of input through models, functions, attack and command line: how each was answered",
        data=dict(name=f"{len(KINDS)} kinds of a table of {sweep.N} x {sweep.F}"), asked=dict(kinds=len(KINDS), models=len(sweep.MODELS)),
        parameters=dict(same=len(SAME), rounded=len(ROUND), hard=len(LIKE), no_table=len(WRONG)), seeds=0, claimed=None,
        measured=found, command="python benchmarks/study_sweep.py"), args.out)


if __name__ == "__main__":
    run()
