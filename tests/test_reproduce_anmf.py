"""The records of the ANMF reproduction and benchmark: complete, consistent with themselves, and above the bars set for them."""
import argparse
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.sparse import csr_array

from anmf_lab.core import as_data
from anmf_lab.clustering import METHODS, left_out, paired, run_seed, summary
from anmf_lab.plans import run_job, run_plan
from anmf_lab.records import read_record
from anmf_lab.reproduce_anmf import (OTHER_DATA, TABLES, add_parser, both_sets, claimed, distances, doubts, figures_job, jobs, rectangles_job, table_job,
                                     turned)
from anmf_lab.noise import make_target

ROOT = Path(__file__).resolve().parent.parent
RECORDS = {p.stem: json.loads(p.read_text(encoding="utf-8")) for p in sorted((ROOT/"results"/"anmf").glob("*.json"))}
BENCH = json.loads((ROOT/"benchmarks"/"anmf.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", RECORDS)
def test_record_is_complete_and_consistent(name):
    r = RECORDS[name]
    assert {"what", "data", "parameters", "seeds", "claimed", "measured", "summary", "tests", "unreliable", "versions", "command"} <= set(r)
    rows = {int(s): v for s, v in r["measured"].items()}
    assert sorted(rows) == r["seeds"] and len(r["data"]["sha256"]) == 64
    gone = set(r.get("left_out", {}))
    assert gone == set(left_out(tuple(r["data"]["shape"])))
    assert all({"K-means", "PCA + k-means", *METHODS} - gone == set(v) for v in rows.values())
    assert r["summary"] == summary(rows)
    assert r["tests"]["ANMF against ANMF, gamma = 0"] == paired(rows, "ANMF", "ANMF, gamma = 0")
    assert r["claimed"] == claimed(r["data"]["name"], r["parameters"]["damage"])
    assert (r["unreliable"] is not None) == (len(rows) < 5 or r["data"]["name"] in OTHER_DATA)
    record = read_record(ROOT/"results"/"anmf"/f"{name}.json")
    assert record.unreliable == r["unreliable"] and record.flags == doubts(r["data"]["name"], len(rows))
    assert table_job(record.asked["dataset"], record.asked["damage"], len(rows)).finished(record)


def test_every_data_set_that_is_there_has_its_records():
    images = [f"{name}_{damage}" for name in ("orl", "yale", "coil20", "usps", "mnist150") for damage in {kind for kind, _ in TABLES.values()}]
    assert set(RECORDS) == {*images, *(f"{name}_clean" for name in ("bbcsport", "bbcnews", "webkb", "reuters10", "tdt2"))}


def test_accuracy_bars():
    acc = {name: {m: v["mean"] for m, v in r["summary"].items()} for name, r in RECORDS.items()}
    assert acc["orl_salt_pepper"]["ANMF (kmeans)"] >= .60
    assert acc["orl_salt_pepper"]["ANMF (kmeans)"] > max(acc["orl_salt_pepper"][f"NMF ({rule})"] for rule in ("argmax", "kmeans"))
    assert acc["orl_clean"]["ANMF (kmeans)"] >= .69
    assert acc["bbcsport_clean"]["ANMF (kmeans)"] >= .95


def test_benchmark_bars():
    speed = {r["n"]: r["speedup"] for r in BENCH["iteration"]}
    assert all(speed[2000][u] >= 5 and speed[5000][u] >= 20 for u in ("clip", "prox", "split"))
    assert all(r["relative_difference_of_iterates"] <= 1e-8 for r in BENCH["iteration"])
    shift, salt = BENCH["equal_cpu"]
    assert shift["bilevel / printed"] <= .1 and salt["bilevel / printed"] <= .9
    assert all(abs(v["cpu_s"] - r["cpu_s"]) < .3*r["cpu_s"] for r in BENCH["equal_cpu"] for v in r["result"].values())
    assert all(r["speedup"] >= 2 and r["relative_difference"] <= 1e-10 for r in BENCH["gradient"])
    assert max(BENCH["text"][p]["cpu_s"] for p in ("exact", "relaxed")) <= 1 and BENCH["text"]["peak_rss_mb"] <= 1000


def text(n=40, f=60, k=3):
    "Three classes of sparse documents"
    rng = np.random.default_rng(0)
    y = rng.integers(k, size=n)
    X = (np.eye(k)[y] @ (rng.random((k, f)) < .3)) * (rng.random((n, f)) < .5) * rng.random((n, f)) + .2*(rng.random((n, f)) < .03)
    return csr_array(X / np.linalg.norm(X, axis=1, keepdims=True)), y


def test_sparse_and_dense_data_give_the_same_codes():
    X, y = text()
    W, H = np.eye(3)[y] + .2, np.stack([X.toarray()[y == c].mean(0) for c in range(3)]) + .01    # no zeros that rounding could free
    sparse, dense = (make_target(as_data(A), "shift", rng=0) for A in (X, X.toarray()))
    for name, codes in METHODS.items():
        a, b = codes(sparse.base, sparse, W, H), codes(dense.base, dense, W, H)
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7, err_msg=name)
    rows = run_seed(X, y, "clean", 0)
    assert set(rows) == {"K-means", "PCA + k-means", *METHODS}


def little(name, X, y, image_shape):
    "What `load_dataset` gives, without a file"
    class Bunch(dict):
        pass
    b = Bunch()
    b.name, b.data, b.target, b.image_shape = name, X, y, image_shape
    return b


def run_table(out, name, damage, seeds):
    "The record of a table job"
    assert run_job(table_job(name, damage, seeds), out, say=lambda line: None)[0] in ("written", "on_file")
    return json.loads((out / f"{name}_{damage}.json").read_text())


def test_what_is_too_large_for_admm_is_left_out_and_recorded(tmp_path, monkeypatch):
    import anmf_lab.reproduce_anmf as module
    X, y = text()
    monkeypatch.setattr(module, "load_dataset", lambda name, **k: little(name, X, y, None))
    monkeypatch.setattr(module, "left_out", lambda shape: {"ANMF": "too large"} if shape == X.shape else {})
    monkeypatch.setattr(module, "METHODS", {m: METHODS[m] for m in ("NMF", "ANMF")})
    r = run_table(tmp_path, "bbcsport", "clean", 2)
    assert r["left_out"] == {"ANMF": "too large"} and set(r["measured"]["0"]) == {"K-means", "PCA + k-means", "NMF"}
    assert r["data"]["sparse"] and r["tests"]["ANMF against NMF"] is None
    monkeypatch.setattr(module, "run_seed", None)                      # nothing is missing: not run again
    assert run_table(tmp_path, "bbcsport", "clean", 2)["seeds"] == [0, 1]
    assert left_out((9394, 36771)) and not left_out((4199, 7770))


def test_a_record_goes_on_where_it_stopped(tmp_path, monkeypatch):
    import anmf_lab.reproduce_anmf as module
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 10)
    X = np.abs(np.eye(3)[y] @ rng.random((3, 16)) + .05*rng.random((30, 16)))
    calls, real = [], run_seed
    monkeypatch.setattr(module, "load_dataset", lambda name, **k: little(name, X, y, (4, 4)))
    monkeypatch.setattr(module, "run_seed", lambda *a, **k: calls.append((a[3], k["methods"])) or real(*a, **k))
    few = {m: METHODS[m] for m in ("NMF", "ANMF", "ANMF, gamma = 0")}
    monkeypatch.setattr(module, "METHODS", few)
    first = run_table(tmp_path, "orl", "salt_pepper", 2)
    monkeypatch.setattr(module, "METHODS", few | {"ONMF": METHODS["ONMF"]})
    second = run_table(tmp_path, "orl", "salt_pepper", 3)
    names = list(few)
    assert calls == [(0, names), (1, names), (0, ["ONMF"]), (1, ["ONMF"]), (2, [*names, "ONMF"])]
    assert all(second["measured"][s][m] == first["measured"][s][m] for s in "01" for m in names)
    assert second["seeds"] == [0, 1, 2] and second["unreliable"] == "3 seeds only"
    assert run_table(tmp_path, "orl", "salt_pepper", 3) == second and len(calls) == 5
    monkeypatch.setattr(module, "load_dataset", lambda name, **k: little(name, X + .1, y, (4, 4)))
    fate, why = run_job(table_job("orl", "salt_pepper", 4), tmp_path, say=lambda line: None)
    assert fate == "failed" and "orl_salt_pepper.json was made from other data" in why       # not extended, not stamped anew
    assert json.loads((tmp_path / "orl_salt_pepper.json").read_text()) == second and len(calls) == 5


@pytest.fixture
def little_faces(monkeypatch):
    "What `load_dataset` gives, without a file"
    import anmf_lab.reproduce_anmf as module
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(5), 8)
    X = (np.eye(5)[y] @ rng.random((5, 30)) + .1*rng.random((40, 30))) / 1.1
    monkeypatch.setattr(module, "load_dataset", lambda name, **k: little(name, X, y, (6, 5)))
    return little("orl", X, y, (6, 5))


def test_distance_of_components_is_that_of_directions(rng):
    H, A = rng.random((4, 9)), rng.random((4, 9))
    angle = [np.arccos(h @ a / np.linalg.norm(h) / np.linalg.norm(a)) for h, a in zip(H, A, strict=True)]
    np.testing.assert_allclose(turned(H, 7*A), np.sin(angle), rtol=1e-12)
    np.testing.assert_allclose(turned(np.vstack([H, np.zeros(9)]), np.vstack([3*H, A[0]]))[:4], 0, atol=1e-15)


def test_figure_sets_are_those_of_the_tables(little_faces):
    s = both_sets(little_faces, "salt_pepper")
    assert s["seen"].shape == s["Z"].shape == s["clean"].shape and s["H"].shape == s["H_adv"].shape == s["H_free"].shape == (5, 30)
    assert (s["seen"] != s["clean"]).any() and (s["Z"] != s["seen"]).any()       # each stage damages the one before
    d = distances(s)
    assert d["attacked from components"] > 0 and d["components from their k-means start"] < 1e-3
    np.testing.assert_allclose(d["attacked from those with gamma = 0"], turned(s["H_adv"], s["H_free"]).mean(), atol=1e-4)


def test_figures_are_drawn_with_their_numbers(little_faces, tmp_path):
    assert run_plan([figures_job(steps=5)], tmp_path, say=lambda line: None).ok
    paths = sorted((tmp_path/"figures").glob("*.png"))
    assert [p.stem for p in paths] == ["convergence", "faces", "tsne"] and all(1000 < p.stat().st_size < 150_000 for p in paths)
    rec = read_record(tmp_path/"figures"/"measured.json")
    for curves in (v for k, v in rec.measured["convergence"].items() if k != "about"):
        assert set(curves) == {"ADMM, printed", "ADMM, corrected", "L-BFGS-B"}
        assert all(c["iterations"] == [5] and len(c["objective"]) == len(c["residual"]) == 1 for c in curves.values())


def test_rectangles_are_compared_with_undamaged_images(little_faces, tmp_path):
    job = rectangles_job(["orl"], shares=(.9, .1), seeds=2)
    assert run_plan([job], tmp_path, say=lambda line: None).ok
    r = read_record(tmp_path/"protocols"/"rectangles.json")
    acc = r.measured["orl"]
    assert len(acc) == 7 and acc["undamaged"] > .9 > acc["90% noise"] and acc["10% noise"] > acc["90% noise"]
    assert r.claimed["orl"] == claimed("orl", "regular_patch")["acc"]["K-means"]


def plan(*words):
    p = argparse.ArgumentParser()
    add_parser(p.add_subparsers())
    args = p.parse_args(["anmf", *words])
    return args, {j.name: j.command for j in jobs(args)}


def test_every_job_has_the_command_that_repeats_it():
    args, commands = plan("--tables", "3,4,5", "--datasets", "orl,yale", "--figures")
    assert args.only == ["figures"]
    assert list(commands) == ["orl_irregular_patch", "orl_salt_pepper", "yale_irregular_patch", "yale_salt_pepper",
                              "figures/measured", "protocols/rectangles"]
    assert commands["yale_salt_pepper"] == "anmf-lab reproduce anmf --tables 4 --datasets yale --seeds 5"
    assert commands["figures/measured"] == "anmf-lab reproduce anmf --only figures"
    again = plan(*commands["yale_salt_pepper"].split()[3:])[1]
    assert again["yale_salt_pepper"] == commands["yale_salt_pepper"]
    assert list(plan("--quick")[1])[:2] == ["yale_clean", "yale_salt_pepper"]


def test_shell_draws_figures_only_when_no_table_is_asked(little_faces, monkeypatch, tmp_path, capsys):
    import anmf_lab.reproduce_anmf as module
    from anmf_lab.cli import main
    monkeypatch.setattr(module, "METHODS", {m: METHODS[m] for m in ("NMF",)})
    out = ["--out", str(tmp_path)]
    assert main(["reproduce", "anmf", "--rectangles", *out]) == 0
    assert [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.json")] == ["protocols/rectangles.json"]
    assert main(["reproduce", "anmf", "--tables", "3", "--datasets", "orl", "--seeds", "1", "--rectangles", *out]) == 0
    assert {p.stem for p in tmp_path.rglob("*.json")} == {"rectangles", "orl_irregular_patch"}
    said = capsys.readouterr().out
    assert "1 on file" in said and "orl, irregular_patch, 1 seeds (1 seed only)" in said and "paper: ACC 0.325" in said


@pytest.mark.parametrize("words, says", [
    (["--tables", "x"], "--tables must be numbers with commas"), (["--tables", "1"], "--tables must be one of 2, 3"),
    (["--seeds", "0"], "--seeds must be a whole number >= 1"), (["--datasets", "nothing"], "--datasets must be one of"),
    (["--data", "no/such/folder"], "--data: no/such/folder is not a folder"),
    (["--tables", "4", "--datasets", "bbcsport"], "bbcsport is text")])
def test_bad_requests_are_exit_status_1(words, says, tmp_path, capsys):
    from anmf_lab.cli import main
    assert main(["reproduce", "anmf", "--out", str(tmp_path / "out"), *words]) == 1
    err = capsys.readouterr().err.strip().splitlines()
    assert says in err[-1] and len(err) == 1 and not (tmp_path / "out").exists()


def test_committed_figures_are_small_and_have_their_numbers():
    folder = ROOT/"results"/"anmf"/"figures"
    rec = json.loads((folder/"measured.json").read_text(encoding="utf-8"))
    assert all((folder/f"{name}.png").stat().st_size < 150_000 for name in ("faces", "tsne", "convergence"))
    for r in (*rec["measured"]["faces"], *rec["measured"]["tsne"]):
        assert r["components from their k-means start"] < .01 < .4 < r["attacked from components"]      # what the pages say
        assert abs(r["attacked from components"] - r["the same with gamma = 0"]) < .05


def test_figures_go_on_where_they_were(monkeypatch):
    for name, made in dict(convergence="curves", draw_convergence="a picture", small_png=b"png").items():
        monkeypatch.setattr(f"anmf_lab.reproduce_anmf.{name}", lambda *a, made=made, **kw: made)
    old = SimpleNamespace(measured={"faces": 1, "tsne": 2})
    found, = figures_job().run(dict(orl=None), old)
    assert found["measured"] == {"faces": 1, "tsne": 2, "convergence": "curves"} and not found["flags"]
    assert found["beside"] == {"convergence.png": b"png"} and old.measured == {"faces": 1, "tsne": 2}
