"""`anmf-lab reproduce lafa`: plans, resuming, short runs kept apart, pictures."""
import argparse
import io
import json
from pathlib import Path

import numpy as np
import pytest

from anmf_lab import reproduce_lafa as rl
from anmf_lab.cli import main
from anmf_lab.lafa import LaFA
from anmf_lab.plans import run_job, run_plan
from anmf_lab.records import read_record

RECORDS = sorted((Path(__file__).resolve().parent.parent / "results" / "lafa").glob("*.json"))
QUIET = dict(say=lambda line: None)


class Stub:
    "Stands in for `LaFA`: remembers what it was asked for, attacks nothing"
    asked: list = []
    said: list = []
    floor = 0.

    def __init__(self, norm, eps, n_seeds=8, **how):
        self.eps, self.n_seeds = eps, n_seeds
        Stub.asked.append(dict(norm=norm, eps=eps, n_seeds=n_seeds, **how))

    def run(self, model, X):
        k = model.n_components
        W, H = np.ones((len(X), k)), np.tile(np.linspace(0, 1, X.shape[1]), (k, 1))
        rows = [dict(eps=e, feature_error=.3, random=.01, floor=Stub.floor) for e in self.eps]
        said = [rl.Flag("note", "only words: not determined, fresh seeds disagree"), *Stub.said]
        return rl.AttackResult(dict(n_seeds=self.n_seeds), rows, said, X, {}, (W, H), {e: (W, 2 * H) for e in self.eps})


@pytest.fixture
def stub(monkeypatch):
    Stub.asked, Stub.floor, Stub.said = [], 0., []
    monkeypatch.setattr(rl, "LaFA", Stub)
    def load(name, data_home=None): return np.random.default_rng(0).uniform(size=(30, 1024 if name == "swimmer" else 361))
    monkeypatch.setattr(rl, "load", load)
    return Stub


def jobs(*words):
    p = argparse.ArgumentParser()
    rl.add_parser(p.add_subparsers())
    return list(rl.jobs(p.parse_args(["lafa", *words])))


def test_published_settings_reach_the_attack(stub, tmp_path):
    run_job(rl.attack_job(rl.plan("face", "linf", "paper")), tmp_path, **QUIET)
    run_job(rl.attack_job(rl.plan("synthetic", "l2", "bp")), tmp_path, **QUIET)
    assert stub.asked[0] == dict(norm="linf", eps=[.001, .004], method="paper", n_iter=2000, terms=100, random_state=0,
                                 n_seeds=8, n_usual=10)
    assert stub.asked[1]["n_iter"] == 200 and stub.asked[1]["method"] == "bp"


def test_resuming_leaves_the_same_plan_alone_and_runs_another(stub, tmp_path):
    plan = jobs("--only", "face", "--norms", "l2", "--methods", "adjoint")
    names = ["face_kullback_l2_adjoint", "face_frobenius_l2_adjoint"]
    assert list(run_plan(plan, tmp_path, **QUIET).written) == names
    n = len(stub.asked)
    assert list(run_plan(plan, tmp_path, **QUIET).on_file) == names and len(stub.asked) == n
    file = tmp_path / "face_kullback_l2_adjoint.json"
    r = json.loads(file.read_text())
    file.write_text(json.dumps(r | {"asked": r["asked"] | {"seed": 1}}))
    assert list(run_plan(plan, tmp_path, **QUIET).written) == names[:1]


def test_a_short_run_never_replaces_a_complete_record(stub, tmp_path):
    words = ["--only", "face", "--norms", "linf", "--methods", "adjoint"]
    short, full = jobs(*words, "--steps", "5", "--seeds", "2"), jobs(*words)
    for plan, fate in ((short, "written"), (full, "written"), (short, "on_file")):
        assert list(getattr(run_plan(plan, tmp_path, **QUIET), fate)) == ["face_kullback_linf_adjoint"]
    assert read_record(tmp_path / "face_kullback_linf_adjoint.json").asked == full[0].asked


def test_quick_run_stays_in_its_own_folder(stub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", "lafa", "--quick"]) == 0
    assert not list((tmp_path / "results/lafa").glob("*.json"))
    records = [read_record(p) for p in (tmp_path / "results/lafa/quick").glob("*.json")]
    assert len(records) == 4 and all("shorter than published: 10 of 40 steps" in r.unreliable for r in records)


@pytest.mark.parametrize("less", [dict(steps=39), dict(n_iter=1999), dict(terms=99)])
def test_a_short_run_says_so(less):
    assert rl.shortened(rl.plan("face", method="paper")) == ""
    assert f"{next(iter(less.values()))} of " in rl.shortened(rl.plan("face", method="paper", **less))


def test_doubts_come_from_codes_and_not_from_sentences(stub, tmp_path):
    def doubtful(*said, **less):
        p = rl.plan("face", **less)
        stub.said = [rl.Flag(code, "a text") for code in said]
        run_job(rl.attack_job(p), tmp_path, **QUIET)
        r = read_record(tmp_path / "face_kullback_l2_adjoint.json")
        (tmp_path / "face_kullback_l2_adjoint.json").unlink()
        return [f.code for f in r.flags], r.unreliable
    assert doubtful() == (["note"], None)
    assert doubtful("weak_ascent") == (["note", "weak_ascent"], None)
    assert doubtful("tie", "not_determined") == (["note", "tie", "not_determined"], "a text; a text")
    assert doubtful(n_seeds=2)[0] == ["note", "short"]


def test_the_settings_of_a_plan_are_those_of_the_attack():
    for p in (rl.plan("face"), rl.plan("synthetic", method="bp"), *rl.quick_plans(("wtsi",), rl.METHODS, {})):
        assert LaFA(**rl.settings_for(p)).method in ("ensemble", "paper", "bp")
    assert LaFA(**rl.settings_for(rl.plan("face"))).strength == "standard"


def test_pictures_show_every_component_and_budget(stub, tmp_path):
    p = rl.plan("face")
    run_job(rl.attack_job(p), tmp_path, **QUIET)
    png = tmp_path / "face_kullback_l2_adjoint.png"
    assert 1000 < png.stat().st_size < 150_000
    kept = dict(np.load(png.with_suffix(".npz")))
    assert list(kept) == ["clean", "0.002", "0.004", "0.008"] and kept["clean"].shape == (5, 361)
    fig = rl.draw_components(kept, {k: k for k in kept}, (19, 19))
    assert len(fig.axes) == 20 and fig.axes[0].images[0].get_clim() == (0, 1) == fig.axes[5].images[0].get_clim()
    assert len(rl.draw_components(kept, {k: k for k in kept}).axes[5].lines) == 2   # attacked, over the clean one
    files = rl.beside(rl.plan("face", "linf"), rl.attack(rl.load("face"), rl.plan("face", "linf")))
    assert list(files) == ["face_kullback_linf_adjoint.npz"] and np.load(io.BytesIO(*files.values()))["clean"].shape == (5, 361)


@pytest.mark.parametrize("words, says", [(["--data", "EMPTY"], "'cbcl_test' is not here"), (["--data", "EMPTY/none"], "none is not a folder")])
def test_only_data_that_are_absent_is_exit_status_1(words, says, tmp_path, capsys):
    words = [w.replace("EMPTY", str(tmp_path)) for w in words]
    assert main(["reproduce", "lafa", "--only", "face", "--methods", "adjoint", "--out", str(tmp_path / "out"), *words]) == 1
    err = capsys.readouterr().err.strip().splitlines()
    assert len(err) == 1 and says in err[0]


def test_a_smaller_run_is_named_in_its_command_and_its_caveat(stub, tmp_path):
    words = ["lafa", "--only", "swimmer", "--norms", "l2", "--methods", "adjoint", "--eps", "0.02", "--steps", "10", "--seeds", "2"]
    assert main(["reproduce", *words, "--out", str(tmp_path)]) == 0
    r = read_record(tmp_path / "swimmer_kullback_l2_adjoint.json")
    assert r.command == "anmf-lab reproduce " + " ".join(words) and stub.asked[0]["n_seeds"] == 2
    assert "10 of 40 steps, 2 of 8 seeds, 1 of 2 budgets left out" in r.unreliable and r.has("short")


def test_command_line(stub, tmp_path):
    assert main(["reproduce", "lafa", "--only", "wtsi", "--norms", "linf", "--methods", "bp", "paper", "--out", str(tmp_path)]) == 0
    assert {f.name for f in tmp_path.glob("*.json")} == {"wtsi_kullback_linf_bp.json", "wtsi_kullback_linf_paper.json"}


@pytest.mark.parametrize("path", RECORDS, ids=lambda p: p.stem)
def test_committed_records_are_those_of_their_command(path):
    r = read_record(path)
    assert json.loads(path.read_text())["unreliable"] == r.unreliable
    job, = (j for j in jobs(*r.command.split()[3:]) if j.name == r.name)
    assert job.finished(r) and job.asked == r.asked
