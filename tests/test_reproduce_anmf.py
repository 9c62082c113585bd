"""The records of the ANMF reproduction and benchmark: complete, consistent with themselves, and above the bars set for them."""
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array

from anmf_lab.anmf import make_target
from anmf_lab.core import as_data
from anmf_lab.reproduce_anmf import METHODS, TABLES, both_sets, claimed, distances, figures, left_out, paired, rectangles, reproduce, run_seed, summary, turned

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
    assert (r["unreliable"] is not None) == (len(rows) < 5 or r["data"]["name"] == "mnist150")


def test_every_data_set_that_is_there_has_its_records():
    images = [f"{name}_{damage}" for name in ("orl", "yale", "coil20", "usps", "mnist150") for damage in {kind for kind, _ in TABLES.values()}]
    assert set(RECORDS) == {*images, *(f"{name}_clean" for name in ("bbcsport", "bbcnews", "webkb", "tdt2"))}


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


def test_what_is_too_large_for_admm_is_left_out_and_recorded(tmp_path, monkeypatch):
    import anmf_lab.reproduce_anmf as module
    X, y = text()
    class Bunch(dict):
        data, target, image_shape = X, y, None
    monkeypatch.setattr(module, "load_dataset", lambda *a, **k: Bunch())
    monkeypatch.setattr(module, "left_out", lambda shape: {"ANMF": "too large"} if shape == X.shape else {})
    monkeypatch.setattr(module, "METHODS", {m: METHODS[m] for m in ("NMF", "ANMF")})
    how = dict(seeds=2, out=tmp_path, progress=False, say=lambda line: None)
    r = reproduce(["bbcsport"], ["clean"], **how)[0]
    assert r["left_out"] == {"ANMF": "too large"} and set(r["measured"][0]) == {"K-means", "PCA + k-means", "NMF"}
    assert r["data"]["sparse"] and r["tests"]["ANMF against NMF"] is None
    monkeypatch.setattr(module, "run_seed", None)                      # nothing is missing: not run again
    assert reproduce(["bbcsport"], ["clean"], **how)[0]["seeds"] == [0, 1]
    assert left_out((9394, 36771)) and not left_out((4199, 7770))


def test_a_record_goes_on_where_it_stopped(tmp_path, monkeypatch):
    import anmf_lab.reproduce_anmf as module
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 10)
    X = np.abs(np.eye(3)[y] @ rng.random((3, 16)) + .05*rng.random((30, 16)))
    class Bunch(dict):
        data, target, image_shape = X, y, (4, 4)
    calls, real = [], run_seed
    monkeypatch.setattr(module, "load_dataset", lambda *a, **k: Bunch())
    monkeypatch.setattr(module, "run_seed", lambda *a, **k: calls.append((a[3], k["methods"])) or real(*a, **k))
    how = dict(out=tmp_path, progress=False, say=lambda line: None)
    few = {m: METHODS[m] for m in ("NMF", "ANMF", "ANMF, gamma = 0")}
    monkeypatch.setattr(module, "METHODS", few)
    first = reproduce(["orl"], ["salt_pepper"], seeds=2, **how)[0]
    monkeypatch.setattr(module, "METHODS", few | {"ONMF": METHODS["ONMF"]})
    second = reproduce(["orl"], ["salt_pepper"], seeds=3, **how)[0]
    names = list(few)
    assert calls == [(0, names), (1, names), (0, ["ONMF"]), (1, ["ONMF"]), (2, [*names, "ONMF"])]
    assert all(second["measured"][s][m] == first["measured"][s][m] for s in (0, 1) for m in names)
    stored = json.loads((tmp_path/"orl_salt_pepper.json").read_text())
    assert stored["seeds"] == [0, 1, 2] and stored["unreliable"] == "3 seeds only"
    assert reproduce(["orl"], ["salt_pepper"], seeds=3, **how)[0] == stored and len(calls) == 5


@pytest.fixture
def little_faces(monkeypatch):
    "What `load_dataset` gives, without a file"
    import anmf_lab.reproduce_anmf as module
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(5), 8)
    X = (np.eye(5)[y] @ rng.random((5, 30)) + .1*rng.random((40, 30))) / 1.1
    class Bunch(dict):
        data, target, image_shape = X, y, (6, 5)
    monkeypatch.setattr(module, "load_dataset", lambda *a, **k: Bunch())
    return module


def test_distance_of_components_is_that_of_directions(rng):
    H, A = rng.random((4, 9)), rng.random((4, 9))
    angle = [np.arccos(h @ a / np.linalg.norm(h) / np.linalg.norm(a)) for h, a in zip(H, A, strict=True)]
    np.testing.assert_allclose(turned(H, 7*A), np.sin(angle), rtol=1e-12, strict=True)
    np.testing.assert_allclose(turned(np.vstack([H, np.zeros(9)]), np.vstack([3*H, A[0]]))[:4], 0, atol=1e-15)


def test_figure_sets_are_those_of_the_tables(little_faces):
    s = both_sets("orl", "salt_pepper")
    assert s["seen"].shape == s["Z"].shape == s["clean"].shape and s["H"].shape == s["H_adv"].shape == s["H_free"].shape == (5, 30)
    assert (s["seen"] != s["clean"]).any() and (s["Z"] != s["seen"]).any()       # each stage damages the one before
    d = distances(s)
    assert d["attacked from components"] > 0 and d["components from their k-means start"] < 1e-3
    np.testing.assert_allclose(d["attacked from those with gamma = 0"], turned(s["H_adv"], s["H_free"]).mean(), atol=1e-4)


def test_figures_are_drawn_with_their_numbers(little_faces, tmp_path, capsys):
    paths = figures(out=tmp_path, say=lambda line: None, steps=5)
    assert [p.stem for p in paths] == ["faces", "tsne", "convergence"] and all(1000 < p.stat().st_size < 150_000 for p in paths)
    rec = json.loads((tmp_path/"figures"/"measured.json").read_text())
    for curves in (v for k, v in rec["convergence"].items() if k != "about"):
        assert set(curves) == {"ADMM, printed", "ADMM, corrected", "L-BFGS-B"}
        assert all(c["iterations"] == [5] and len(c["objective"]) == len(c["residual"]) == 1 for c in curves.values())


def test_rectangles_are_compared_with_undamaged_images(little_faces, tmp_path):
    rec = rectangles(["orl"], shares=(.9, .1), seeds=2, out=tmp_path, say=lambda line: None)
    acc = rec["measured"]["orl"]
    assert len(acc) == 7 and acc["undamaged"] > .9 > acc["90% noise"] and acc["10% noise"] > acc["90% noise"]
    assert rec["claimed"]["orl"] == claimed("orl", "regular_patch")["acc"]["K-means"]
    assert json.loads((tmp_path/"protocols"/"rectangles.json").read_text())["measured"]["orl"] == acc


def test_shell_draws_figures_only_when_no_table_is_asked(monkeypatch, tmp_path):
    import anmf_lab.reproduce_anmf as module
    from anmf_lab.cli import main
    calls = []
    def figures(**k): calls.append("figures"); return [tmp_path]
    monkeypatch.setattr(module, "figures", figures)
    monkeypatch.setattr(module, "reproduce", lambda sets, damages, **k: calls.append((sets, damages, k["command"])) or [])
    assert main(["reproduce", "anmf", "--figures"]) == 0 and calls == ["figures"]
    main(["reproduce", "anmf"])
    main(["reproduce", "anmf", "--tables", "3", "--datasets", "orl", "--figures"])
    assert calls[1] == (["orl", "yale", "bbcsport"], ["clean", "salt_pepper"], "anmf-lab reproduce anmf --tables 2,4 --datasets orl,yale,bbcsport --seeds 5")
    assert calls[2] == "figures" and calls[3][:2] == (["orl"], ["irregular_patch"])


def test_committed_figures_are_small_and_have_their_numbers():
    folder = ROOT/"results"/"anmf"/"figures"
    rec = json.loads((folder/"measured.json").read_text(encoding="utf-8"))
    assert all((folder/f"{name}.png").stat().st_size < 150_000 for name in ("faces", "tsne", "convergence"))
    for r in (*rec["faces"], *rec["tsne"]):
        assert r["components from their k-means start"] < .01 < .4 < r["attacked from components"]      # what the pages say
        assert abs(r["attacked from components"] - r["the same with gamma = 0"]) < .05
