"""`anmf-lab reproduce lafa`: plans, resuming, short runs kept apart, pictures."""
import argparse
import json

import numpy as np
import pytest

from anmf_lab import reproduce_lafa as rl

FAKE = dict(flags=["not identifiable: 2 null directions"], settings={"norm": "l2"})


class Stub:
    "Stands in for `LaFA`: remembers what it was asked for, attacks nothing"
    asked: list = []

    def __init__(self, norm, eps, **how):
        self.eps = eps
        Stub.asked.append(dict(norm=norm, eps=eps, **how))

    def run(self, model, X):
        k = model.n_components
        W, H = np.ones((len(X), k)), np.tile(np.linspace(0, 1, X.shape[1]), (k, 1))
        rows = [dict(eps=e, feature_error=.3, random=.01, floor=0.) for e in self.eps]
        return rl.AttackResult(FAKE["settings"], rows, FAKE["flags"], X, {}, (W, H), {e: (W, 2 * H) for e in self.eps})


@pytest.fixture
def stub(monkeypatch):
    Stub.asked = []
    monkeypatch.setattr(rl, "LaFA", Stub)
    monkeypatch.setattr(rl, "load", lambda name, data_home=None: np.random.default_rng(0).uniform(size=(30, 1024 if name == "swimmer" else 361)))
    return Stub


def test_published_settings_reach_the_attack(stub, tmp_path):
    rl.attack_record(tmp_path, "face", "linf", "paper", say=lambda line: None)
    rl.attack_record(tmp_path, "synthetic", "l2", "bp", say=lambda line: None)
    assert stub.asked[0] == dict(norm="linf", eps=[.001, .004], method="paper", n_iter=2000, terms=100, random_state=0)
    assert stub.asked[1]["n_iter"] == 200 and stub.asked[1]["method"] == "bp"


def test_resuming_leaves_the_same_plan_alone_and_runs_another(stub, tmp_path):
    how = dict(out=tmp_path, names=["face"], norms=["l2"], methods=["adjoint"], say=lambda line: None)
    assert rl.reproduce(**how) == ["face_kullback_l2_adjoint", "face_frobenius_l2_adjoint"]
    n = len(stub.asked)
    assert rl.reproduce(**how) == [] and len(stub.asked) == n
    file = tmp_path / "face_kullback_l2_adjoint.json"
    r = json.loads(file.read_text())
    file.write_text(json.dumps(r | {"asked": r["asked"] | {"seed": 1}}))
    assert rl.reproduce(**how) == ["face_kullback_l2_adjoint"]


def test_a_short_run_never_replaces_a_complete_record(stub, tmp_path):
    how = dict(out=tmp_path, names=["face"], norms=["linf"], methods=["adjoint"], say=lambda line: None)
    short = dict(steps=5, n_seeds=2)
    assert rl.reproduce(**how, **short) == ["face_kullback_linf_adjoint"] == rl.reproduce(**how)
    assert rl.reproduce(**how, **short) == []


def test_quick_run_stays_in_its_own_folder(stub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written = rl.reproduce(quick=True, say=lambda line: None)
    assert written and not list((tmp_path / "results/lafa").glob("*.json"))
    records = [json.loads(p.read_text()) for p in (tmp_path / "results/lafa/quick").glob("*.json")]
    assert len(records) == len(written) and all("shorter than published: 10 of 40 steps" in r["unreliable"] for r in records)


@pytest.mark.parametrize("less", [dict(steps=39), dict(n_iter=1999), dict(terms=99)])
def test_a_short_run_says_so(less):
    assert rl.shortened(rl.plan("face", method="paper")) == ""
    assert f"{next(iter(less.values()))} of " in rl.shortened(rl.plan("face", method="paper", **less))


def test_pictures_show_every_component_and_budget(stub, tmp_path):
    rl.attack_record(tmp_path, "face", "l2", "adjoint", say=lambda line: None)
    png = tmp_path / "face_kullback_l2_adjoint.png"
    assert 1000 < png.stat().st_size < 150_000
    kept = dict(np.load(png.with_suffix(".npz")))
    assert list(kept) == ["clean", "0.002", "0.004", "0.008"] and kept["clean"].shape == (5, 361)
    fig = rl.draw_components(kept, {k: k for k in kept}, (19, 19))
    assert len(fig.axes) == 20 and fig.axes[0].images[0].get_clim() == (0, 1) == fig.axes[5].images[0].get_clim()
    assert len(rl.draw_components(kept, {k: k for k in kept}).axes[5].lines) == 2   # attacked, over the clean one


def test_absent_data_are_skipped_with_a_word(tmp_path):
    said = []
    assert rl.reproduce(out=tmp_path, names=["face"], methods=["adjoint"], data_home=tmp_path, say=said.append) == []
    assert said[0].startswith("skipped: ") and said[-1].startswith("0 records")


def test_a_smaller_run_is_named_in_its_command_and_its_caveat(stub, tmp_path):
    p = argparse.ArgumentParser()
    rl.add_parser(p.add_subparsers())
    words = ["lafa", "--only", "swimmer", "--norms", "l2", "--methods", "adjoint", "--eps", "0.02", "--steps", "10", "--seeds", "2"]
    a = p.parse_args([*words, "--out", str(tmp_path)])
    assert a.run(a) == 0
    r = json.loads((tmp_path / "swimmer_kullback_l2_adjoint.json").read_text())
    assert r["command"] == "anmf-lab reproduce " + " ".join(words) and stub.asked[0]["n_seeds"] == 2
    assert "10 of 40 steps, 2 of 8 seeds, 1 of 2 budgets left out" in r["unreliable"]


def test_command_line(stub, tmp_path):
    p = argparse.ArgumentParser()
    rl.add_parser(p.add_subparsers())
    a = p.parse_args(["lafa", "--only", "wtsi", "--norms", "linf", "--methods", "bp", "paper", "--out", str(tmp_path)])
    assert a.run(a) == 0 and {f.name for f in tmp_path.glob("*.json")} == {"wtsi_kullback_linf_bp.json", "wtsi_kullback_linf_paper.json"}
