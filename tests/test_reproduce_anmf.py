"""The records of the ANMF reproduction and benchmark: complete, consistent with themselves, and above the bars set for them."""
import json
from pathlib import Path

import numpy as np
import pytest

from anmf_lab.reproduce_anmf import METHODS, claimed, paired, reproduce, run_seed, summary

ROOT = Path(__file__).resolve().parent.parent
RECORDS = {p.stem: json.loads(p.read_text(encoding="utf-8")) for p in sorted((ROOT/"results"/"anmf").glob("*.json"))}
BENCH = json.loads((ROOT/"benchmarks"/"anmf.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", RECORDS)
def test_record_is_complete_and_consistent(name):
    r = RECORDS[name]
    assert {"what", "data", "parameters", "seeds", "claimed", "measured", "summary", "tests", "unreliable", "versions", "command"} <= set(r)
    rows = {int(s): v for s, v in r["measured"].items()}
    assert sorted(rows) == r["seeds"] and len(r["data"]["sha256"]) == 64
    assert all(set(METHODS) <= set(v) for v in rows.values())
    assert r["summary"] == summary(rows)
    assert r["tests"]["ANMF against ANMF, gamma = 0"] == paired(rows, "ANMF", "ANMF, gamma = 0")
    assert r["claimed"] == claimed(r["data"]["name"], r["parameters"]["damage"])
    assert (r["unreliable"] is not None) == (len(rows) < 5 or r["data"]["name"] == "mnist150")


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
