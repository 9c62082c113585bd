"""`anmf-lab demo` from the outside, and its sentences on cases that are known."""
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from anmf_lab.core import as_data
from anmf_lab.demo import CASES, Case, Result, attacked, compare, danger, minima, open_to, table, verdict
from anmf_lab.implicit import Adjoint, identifiability


def demo(*args, **kwargs):
    return subprocess.run([sys.executable, "-m", "anmf_lab", "demo", *args], text=True, capture_output=True, **kwargs)


def test_quick_demo_writes_its_report(tmp_path):
    done = demo("--quick", "--out", str(tmp_path / "deep" / "out"))
    assert done.returncode == 0, done.stderr
    assert "feature error between seeds" in done.stdout and "polished" in done.stdout
    said = " ".join(done.stdout.split())
    assert "condition number is infinite" in said and "Random noise of that size" in said
    out = tmp_path / "deep" / "out"
    assert sorted(p.name for p in out.iterdir()) == ["report.html", "wtsi_agreement.png", "wtsi_attack.png", "wtsi_features.png"]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 3 and "21 breast-cancer genomes" in page and "{" not in page.split("</style>")[1].split("<img")[0]


@pytest.mark.parametrize("args, says", [(("--seeds", "1"), "--seeds must be at least 2"), (("--out", __file__), "test_demo.py")])
def test_bad_arguments(args, says):
    done = demo(*args)
    assert done.returncode == 1 and says in done.stderr and "Traceback" not in done.stderr and not done.stdout


def test_ctrl_c_is_clean(tmp_path):
    code = ("import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "  # a background job starts with it ignored
            f"from anmf_lab.cli import main; sys.exit(main(['demo', '--out', {str(tmp_path)!r}]))")
    p = subprocess.Popen([sys.executable, "-c", code], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert p.stdout.readline().startswith("Would another seed")
    time.sleep(.5)
    p.send_signal(signal.SIGINT)
    _, err = p.communicate(timeout=60)
    assert p.returncode == 130 and "stopped" in err and "Traceback" not in err
    assert not list(tmp_path.iterdir())


def result(pairs, X, k=2):
    stage = compare(as_data(X), pairs, 2.)
    return Result(Case("x", "x", k, "frobenius", {}), X.shape, stage, stage, identifiability(Adjoint(as_data(X), *pairs[0])), 0., None)


@pytest.fixture
def exact():
    g = torch.Generator().manual_seed(0)
    W, H = (torch.rand(*shape, generator=g, dtype=torch.float64) for shape in ((6, 2), (2, 5)))
    return W, H, W @ H


def test_same_features_are_said_to_be_the_same(exact):
    W, H, X = exact
    r = result([(W, H), (3 * W[:, [1, 0]], H[[1, 0]] / 3)], X)
    assert r.polished.between.max() < 1e-12 and "property of the data" in verdict(r)


def test_a_flat_minimum_is_said_to_be_flat(exact):
    W, H, X = exact
    Q = torch.tensor([[1., .05], [.05, 1.]], dtype=torch.float64)
    r = result([(W, H), (W @ Q, torch.linalg.solve(Q, H))], X)
    assert r.unique.excess == 2   # positive exact factors of rank 2: every mixture
    said = verdict(r)
    assert "No attack was run: polished solutions of the unchanged" in open_to(r) and "infinite" in open_to(r)
    assert "in 2 directions" in said and "not a point" in said and "local minima" not in said


def test_unfinished_and_several_minima_are_said(exact):
    W, H, X = exact
    r = result([(W, H), (W + .1, H)], X)
    assert len(minima(r.polished.objectives)) == 2
    assert "several local minima" in verdict(r) and "1 of 2 seeds did not reach" in verdict(r)


def test_table_has_two_rows_a_data_set(exact):
    W, H, X = exact
    assert len(table([result([(W, H), (W, H)], X)] * 2).splitlines()) == 2 + 4


def test_danger_tells_a_gradient_from_none():
    "Planted zeros: a condition number. None: infinite, and the words say what was followed instead"
    rng = np.random.default_rng(0)
    def data(zeros):
        W, H = (rng.uniform(.2, 1, s) * (rng.random(s) > zeros) for s in ((15, 3), (3, 12)))
        return as_data(np.maximum(W @ H + .03 * rng.standard_normal((15, 12)), .002))
    case = Case("x", "x", 3, "frobenius", dict(eps=(.01,), steps=2, seeds=2))
    sharp, loose = (attacked(case, data(z)) for z in (.45, 0.))
    assert danger(sharp).startswith(f"Condition number: {sharp.condition.kappa:.0f}.") and "regularised" not in danger(sharp)
    assert danger(loose).startswith("The condition number is infinite") and "regularised problem" in danger(loose)
    assert f"{loose.records[-1]['feature_error']:.2g} of their size" in danger(loose)


def test_cases_are_bundled():
    from anmf_lab.data import load_dataset
    for case in CASES:
        X = np.asarray(load_dataset(case.name).data)
        assert X.ndim == 2 and (X >= 0).all() and case.rank < min(X.shape)
