"""The audit: its verdict is its tables, the tables are right, and nothing that should not matter does."""
import json
import re

import numpy as np
import pandas as pd
import pytest

from memory import Count

import anmf_lab as al
from anmf_lab.auditing import unit_of_counts
from anmf_lab.cli import main
from anmf_lab.commands import known_table
from anmf_lab.records import holding
from anmf_lab.report import component_grid, meaning, percent, rank_grid, sections

FEW = ["rivals", "fit", "samples"]   # the quick steps


def planted(seed=0, n=40, f=24, k=3, level=3000, names=True):
    "Counts of components that the data determine"
    g = np.random.default_rng(seed)
    W, H = g.gamma(1., 1., (n, k)) * (g.random((n, k)) > .4), g.dirichlet(np.ones(f) * .3, k)
    W[W.sum(1) == 0, 0] = 1.
    W *= level / W.sum(1, keepdims=True)
    X = g.poisson(W @ H).astype(float)
    if not names:
        return X, H
    return pd.DataFrame(X, index=[f"s{i}" for i in range(n)], columns=[f"f{j}" for j in range(f)]), H


@pytest.fixture(scope="module")
def genomes():
    return al.audit(known_table("wtsi"), ranks=[4, 5], steps=FEW, n_seeds=12)


def test_genomes(genomes):
    "The facts of the science notes: rank 4 is free, rank 5 determined with a rival within noise, one genome matters"
    four, five = genomes.meaning[4], genomes.meaning[5]
    assert four["determined"] == "flat" and five["determined"] == "determined"
    assert (five["firm"], five["soft"], five["rival"]) == (1, 4, True)
    assert "PD4120a" in five["matters"] and five["noise"] == "overdispersed"
    assert genomes.spoken == [4, 5]


def test_the_verdict_has_the_numbers_of_the_tables(genomes):
    found, said = genomes.ranks[5], genomes.verdict
    relative = [e for e in found["errors"]["relative"]]
    firm, soft = min(relative), [e for e in relative if e > .1]
    assert f"1 firm (±{percent(firm)})" in said
    assert f"4 soft (±{percent(min(soft))[:-2]} to {percent(max(soft))})" in said
    top = found["samples"]["rows"][0]
    assert f"{top['name']} with {percent(top['mass'])} of the total" in said and f"move by {percent(top['moved'])}" in said
    assert f"Noise is {found['fit']['dispersion']:.1f} times Poisson" in said
    near = found["rivals"]["nearest"]
    assert f"a rival solution, {percent(near['feature_error'])} away" in said
    cells = [c for row in component_grid(found, genomes.about["features"]).rows for c in row]
    assert all(percent(e) in cells for e in relative)
    assert f"{found['fit']['dispersion']:.2f}" in rank_grid(genomes.ranks).rows[1]


def test_the_rank_table_is_in_the_report(genomes):
    "Every criterion of a rank, and what each would choose, beside `rank_table` on the same data"
    X, _ = planted(8, n=24, f=16, names=False)
    a = al.audit(X, ranks=[2, 3, 4], n_seeds=6, steps=["rivals", "fit", "stability", "prediction"])
    other = al.rank_table(X, (2, 3, 4), n_starts=4, n_resamples=2, n_splits=0)
    for mine, yours in zip(a.rank_table.rows, other.rows, strict=True):
        assert (mine.verdict, mine.null_directions) == (yours.verdict, yours.null_directions)
        for name in ("loss", "dispersion", "median_error", "largest_error"):
            assert getattr(mine, name) == pytest.approx(getattr(yours, name), rel=2e-3, nan_ok=True)
    assert a.rank_table.choices["prediction"] == 3 and a.to_frame().loc[3, "null_directions"] == 0
    text = a.to_json()
    assert al.Audit.from_json(text).rank_table.rows == a.rank_table.rows
    part = sections(a.ranks, a.about)[0]
    grid, choice = part.tables
    assert {"dispersion", "free", "silhouettes", "error bars", "rival: nats, sd", "minima", "hidden"} < set(grid.head)
    assert [row[2] for row in choice.rows][:-1] == [k or "–" for k in a.rank_table.choices.values()]
    assert len(part.figures) == 1 and "Stable and not determined at rank 4" not in " ".join(part.text)
    said = " ".join(sections(genomes.ranks, genomes.about)[0].text)
    assert "Determined and contested at rank 5" in said and not sections(genomes.ranks, genomes.about)[0].figures
    single = al.audit(X, 3, n_seeds=4, steps=["prediction"])
    assert "prediction" not in single.ranks[3]          # one rank has nothing to compare


def test_its_numbers_are_those_of_an_independent_route(genomes):
    "Error bars by al.uncertainty on another fit; influence and dispersion by hand"
    X = known_table("wtsi").values
    model = al.NMF(5, loss="kullback-leibler", init="random", n_init=10, polish=True, max_iter=300, tol=1e-3, random_state=1).fit(X)
    u = al.uncertainty(model, X)
    found = genomes.ranks[5]
    np.testing.assert_allclose(sorted(found["errors"]["relative"]), sorted(u.relative_error), rtol=1e-3)
    assert found["errors"]["dispersion"] == pytest.approx(u.dispersion, rel=1e-4)
    W, H = (np.array(found["components"][name]) for name in ("codes", "values"))
    Y = W @ H
    assert found["solved"]["loss"] == pytest.approx(float((X * np.log(np.where(X > 0, X, 1) / Y) - X + Y).sum()), rel=1e-8)
    assert found["components"]["shares"] == pytest.approx(W.sum(0) / X.sum(), rel=1e-6)
    row = next(r for r in found["samples"]["rows"] if r["name"] == "PD4120a")
    keep = known_table("wtsi").samples != "PD4120a"
    start = al.NMF(5, loss="kullback-leibler", init="custom", polish=True, tol=1e-5, max_iter=20)
    again = start.fit(X[keep], W=W[keep], H=H).components_
    again = again / again.sum(1, keepdims=True)
    far = np.square(again[:, None] - H[None]).sum(2).min(0)
    assert row["moved"] == pytest.approx((far.sum() / np.square(H).sum()) ** .5, abs=.02)


def test_planted_components_are_found_determined_and_firm():
    X, H = planted()
    a = al.audit(X, 3, n_seeds=8, steps=[*FEW, "stability", "needed"])
    m = a.meaning[3]
    assert a.left_out == [] and m["stable"] and "stable under resampling" in a.verdict
    assert m["determined"] == "determined" and (m["firm"], m["soft"]) == (3, 0) and not m["rival"] and m["needed"]
    low, high = (np.array(a.ranks[3]["errors"][w]) for w in ("low", "high"))
    known = al.audit(X, 3, n_seeds=8, reference=pd.DataFrame(H, index=["A", "B", "C"], columns=X.columns), steps=["reference"])
    names = known.ranks[3]["reference"]["names"]
    truth = H[["ABC".index(name) for name in names]]
    assert sorted(names) == ["A", "B", "C"] and min(known.ranks[3]["reference"]["cosine"]) > .99
    strong = truth > .01
    assert ((low <= truth) & (truth <= high))[strong].mean() > .85


def test_a_component_too_many_is_said():
    X, _ = planted(1)
    a = al.audit(X, 4, n_seeds=8, steps=["needed", "rivals"])
    assert a.meaning[4]["needed"] is False and "3 would do" in a.verdict


@pytest.fixture(scope="module")
def base():
    X, _ = planted(2)
    return X, al.audit(X, ranks=[2, 3], n_seeds=8, steps=[*FEW, "stability"])


CHANGES = dict(
    seed_1=lambda X: (X, dict(random_state=1)), seed_2=lambda X: (X, dict(random_state=2)),
    seed_3=lambda X: (X, dict(random_state=3)), seed_4=lambda X: (X, dict(random_state=4)),
    float32=lambda X: (X.astype("f4"), {}), scaled=lambda X: (X * .37, {}),
    decimals=lambda X: (X * .01, dict(loss="kullback-leibler", noise="poisson")),
    permuted=lambda X: (X.iloc[::-1, np.random.default_rng(0).permutation(X.shape[1])], {}))


@pytest.mark.parametrize("change", CHANGES)
def test_the_verdict_is_a_property_of_the_data(change, base):
    X, first = base
    other, how = CHANGES[change](X)
    again = al.audit(other, ranks=[2, 3], n_seeds=8, steps=[*FEW, "stability"], **how)
    assert again.verdict == first.verdict and again.meaning == first.meaning


def test_the_verdict_of_no_counts_has_no_unit():
    X, _ = planted(2, n=20, f=12, k=2, names=False)
    X = np.sqrt(X) + .1 * np.random.default_rng(0).random(X.shape)
    said = {al.audit(c * X, 2, n_seeds=6, steps=FEW, random_state=i).verdict for i, c in enumerate((1, 1e-6 * np.pi, 1e5))}
    assert len(said) == 1


def test_somebody_elses_components_are_audited():
    X, H = planted(3)
    theirs = pd.DataFrame(H, index=["A", "B", "C"], columns=X.columns)[X.columns[::-1]]
    a = al.audit(X, components=theirs, n_seeds=8, steps=["rivals"])
    s = a.ranks[3]["solved"]
    assert 0 < s["moved"] < .2 and s["better"] == 0 and a.meaning[3]["determined"] == "determined"
    text = " ".join(sections(a.ranks, a.about)[0].text)
    assert f"lies {percent(s['moved'])} from this solution" in text
    with pytest.raises(ValueError, match="other features"):
        al.audit(X, components=theirs.set_axis([f"g{j}" for j in range(24)], axis=1))


def test_json_and_report_go_there_and_back(tmp_path):
    X, _ = planted(4, names=False)
    a = al.audit(X, 3, n_seeds=4, steps=["fit"])
    b = al.Audit.from_json(a.to_json(tmp_path / "a.json"))
    assert b.verdict == a.verdict and b.meaning == a.meaning
    assert al.Audit.from_json(tmp_path / "a.json").to_json() == a.to_json()
    assert a.save(tmp_path / "a.html").read_bytes() == b.save(tmp_path / "b.html").read_bytes()
    assert a.to_frame().loc[3, "determined"] == a.meaning[3]["determined"] and a.verdict[:20] in repr(a)
    assert "<table>" in a._repr_html_()
    assert len(a.plot().axes) == 3
    with pytest.raises(ValueError, match="this is no audit"):
        al.Audit.from_json("{}")
    (tmp_path / "half.json").write_bytes(a.to_json().encode()[:300] + b"\xff")
    with pytest.raises(ValueError, match="half.json is no audit"):
        al.Audit.from_json(tmp_path / "half.json")


def test_the_page_escapes_names_and_asks_for_nothing(tmp_path):
    X, _ = planted(5)
    X.index = [f"<img src=x onerror=alert({i})>" for i in range(len(X))]
    X.columns = [f"$\\frac{{<b>{j}" for j in range(X.shape[1])]
    page = al.audit(X, 3, n_seeds=4, steps=["fit"]).save(tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<img src=x" not in page and "<b>" not in page and "&lt;img src=x" in page
    assert not re.search(r"(src|href|url)\s*[=(]\s*[\"']?(https?:)?//", page) and len(page) < 2_000_000


def test_time_is_kept_and_what_is_left_out_is_said():
    X, _ = planted(6)
    a = al.audit(X, ranks=range(2, 6), n_seeds=4, budget=1e-3)
    assert len(a.ranks) < 4 and any("no time left" in line for line in a.left_out)


def test_a_step_that_would_not_end_in_time_is_not_begun(monkeypatch):
    "The attack is nine hundred solutions: with a solution of half a second it is left out, and said so"
    import anmf_lab.findings as findings
    asked = []
    monkeypatch.setitem(findings.DEEP, "attack", lambda p, k, found: asked.append(k))

    def slow(p, k, found, step=findings.solved):
        return step(p, k, found) | dict(starts=1e-3)      # each start as long as a thousand
    monkeypatch.setitem(findings.BASE, "solved", slow)
    X, _ = planted(6)
    a = al.audit(X, 3, n_seeds=4, steps=["attack"], budget=60)
    assert asked == [] and a.left_out[-1].startswith("rank 3: attack (no time left: it would take about")
    al.audit(X, 3, n_seeds=4, steps=["attack"])
    assert asked == [3]


def test_large_problems_start_as_often_as_their_work_allows(monkeypatch):
    "At least twice, the rest is said; the budget ends a start that is under way"
    import anmf_lab.audit_problem as audit_problem
    monkeypatch.setattr(audit_problem.Problem, "stackable", lambda self, k: False)
    X, _ = planted(2, n=16, f=12, names=False)
    every = al.audit(X, 3, n_seeds=3, steps=["rivals"])
    assert every.ranks[3]["solved"]["starts"] == 3 and every.left_out == []
    monkeypatch.setattr(audit_problem, "WORK", 1.)
    few = al.audit(X, 3, n_seeds=9, steps=["rivals"])
    assert few.ranks[3]["solved"]["starts"] == 2 and few.left_out[0].startswith("rank 3: 7 of 9 starts (each takes")
    monkeypatch.setattr(audit_problem, "STEPS", 10)
    short = al.audit(X, 3, n_seeds=2, steps=["rivals"])
    found = short.ranks[3]
    assert found["solved"]["solved"] == 0 and found["determined"]["verdict"] == "undecided" and "errors" not in found
    assert "3 components: not decided (not solved, KKT residual" in short.verdict
    assert "not solved" in short._repr_html_() and short.to_frame().shape[0] == 1


def test_the_budget_ends_a_start_that_is_under_way(monkeypatch):
    import anmf_lab.audit_problem as audit_problem
    steps, left, factorize = [], [60.], audit_problem.factorize

    def watched(*args, **how):
        left[0] -= 50.
        run = factorize(*args, **how)
        steps.append(run.n_iter)
        return run
    monkeypatch.setattr(audit_problem, "factorize", watched)
    monkeypatch.setattr(audit_problem.Problem, "stackable", lambda self, k: False)
    monkeypatch.setattr(audit_problem.Problem, "left", lambda self: left[0])
    X, _ = planted(2, n=16, f=12, names=False)
    a = al.audit(X, 3, n_seeds=9, budget=60)      # time passes in starts only: 50 s in each
    assert len(steps) == 2 and steps[0] > 20 >= 10 >= steps[1] and not a.ranks
    assert any("no time left" in line for line in a.left_out) and any("7 of 9 starts" in line for line in a.left_out)


def test_wild_cells_do_not_make_others_look_wild():
    "Two cells of one column, far above the rest: they are named first, and told from a fit that has not seen them"
    X, _ = planted(11, n=30, f=20, names=False)
    clean = al.audit(X, 3, n_seeds=4, steps=["fit"]).ranks[3]["fit"]
    X[4, 7] += 900
    X[9, 7] += 1200
    found = al.audit(X, 3, n_seeds=4, steps=["fit"]).ranks[3]["fit"]
    at = {(c["sample"], c["feature"]): c for c in found["cells"][:2]}
    assert clean["noise"] == "as said" and found["noise"] == "outliers" and set(at) == {("5", "8"), ("10", "8")}
    assert at["10", "8"]["value"] - at["10", "8"]["expected"] > 1000 and abs(found["typical"] / clean["typical"] - 1) < .2


def test_large_problems_are_solved_one_by_one():
    from anmf_lab.core import as_data
    from anmf_lab.objective import Entrywise
    from anmf_lab.resampling import stackable
    wide = Entrywise(as_data(np.ones((165, 625))), 1.)
    assert not stackable(wide, 5) and stackable(Entrywise(as_data(np.ones((21, 96))), 1.), 8)


def test_the_last_component_is_judged_alike_together_and_one_by_one(monkeypatch):
    import anmf_lab.resampling as resampling
    X, _ = planted(1, n=24, f=16, names=False)
    both = []
    for pays in (1e8, 0.):
        monkeypatch.setattr(resampling, "PAYS", pays)
        both.append(al.audit(X, 3, n_seeds=4, steps=["needed"]).ranks[3]["needed"])
    assert both[0]["needed"] and both[1]["needed"]
    assert both[0]["gain"] == pytest.approx(both[1]["gain"], rel=1e-3) and both[0]["mean"] == pytest.approx(both[1]["mean"], rel=.1)


def test_ctrl_c_leaves_what_is_there(monkeypatch):
    import anmf_lab.findings as findings

    def stop(p, k, found): raise KeyboardInterrupt
    monkeypatch.setitem(findings.BASE, "fit", stop)
    X, _ = planted(6)
    a = al.audit(X, ranks=[2, 3], n_seeds=4)
    assert list(a.ranks) == [2] and a.left_out == ["everything after an interruption (Ctrl-C)"]


def test_an_interrupted_audit_goes_on(tmp_path, monkeypatch):
    import anmf_lab.findings as findings
    X, _ = planted(6)
    whole = al.audit(X, ranks=[2, 3], n_seeds=4, steps=["fit"])
    keep = tmp_path / "keep.json"
    (tmp_path / ".keep.json.7.part").write_text("half: what a kill has left")
    al.audit(X, ranks=[2], n_seeds=4, steps=["fit"], resume=keep)
    assert [p.name for p in tmp_path.iterdir()] == ["keep.json"]
    asked = []
    errors = findings.errors
    monkeypatch.setitem(findings.BASE, "errors", lambda p, k, found: (asked.append(k), errors(p, k, found))[1])
    again = al.audit(X, ranks=[2, 3], n_seeds=4, steps=["fit"], resume=keep)
    assert asked == [3] and again.ranks == whole.ranks
    with pytest.raises(ValueError, match="belongs to another audit"):
        al.audit(X * 2 + 1, ranks=[2], n_seeds=4, resume=keep)
    with holding(keep), pytest.raises(ValueError, match="keep.json is in use by another process"):
        al.audit(X, ranks=[2], n_seeds=4, resume=keep)


def test_counts_in_any_unit():
    g = np.random.default_rng(0)
    X = g.poisson(5., (6, 7)).astype(float)
    for c in (1., .37, 1e-9, 1e9):
        assert unit_of_counts(X * c) == pytest.approx(c * unit_of_counts(X), rel=1e-9)
    assert unit_of_counts(g.random((6, 7))) is None and unit_of_counts(np.zeros((2, 2))) is None


def test_decimals_are_no_counts_and_known_errors_are_the_noise():
    g = np.random.default_rng(3)
    W, H = (g.gamma(1., 1., size) * (g.random(size) > .4) for size in ((60, 2), (2, 9)))
    T = W @ H + .01
    X = np.round(np.maximum(T + .1 * np.sqrt(T) * g.standard_normal(T.shape), 0), 2)
    a = al.audit(X, 2, n_seeds=3, steps=["fit"])
    b = al.audit(X, 2, n_seeds=3, steps=["fit"], weights=1 / (.01 * T))
    assert a.about["loss"] == "frobenius" and a.about["noise"] == "gaussian"
    assert b.about["noise"] == "weights" and b.ranks[2]["fit"]["dispersion"] == pytest.approx(1, abs=.3)
    assert al.audit(100 * X, 2, n_seeds=3, steps=[]).about["loss"] == "kullback-leibler"


@pytest.mark.parametrize("how, says", [
    (dict(), "how many components"), (dict(n_components=99), "n_components must be"), (dict(ranks=[]), "ranks is empty"),
    (dict(n_components=2, noise="cauchy"), "noise"), (dict(n_components=2, steps=["magic"]), "steps must be"),
    (dict(n_components=2, budget=0), "budget"), (dict(n_components=2, weights=np.ones((2, 2))), "weights must have"),
    (dict(n_components=2, image_shape=(5, 5)), "image_shape"), (dict(n_components=2, components=np.ones((3, 24))), "components has 3 rows")])
def test_mistakes_are_named(how, says):
    with pytest.raises(ValueError, match=says):
        al.audit(planted(0, names=False)[0], **how)


# --- pictures

def intervals(fig): return sum(len(c.get_segments()) for ax in fig.axes for c in ax.collections)


@pytest.mark.parametrize("name", ["NMF", "ONMF", "L21NMF", "CappedNMF", "CauchyNMF", "CorrentropyNMF", "HuberNMF", "ATNMF", "ANMF"])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_every_model_draws_its_components_under_their_names(name):
    "With intervals from the data, or the reason why there are none"
    X = pd.DataFrame(np.random.default_rng(0).poisson(9., size=(20, 6)).astype(float), columns=list("abcdef"))
    model = getattr(al, name)(1, max_iter=50, random_state=0).fit(X)
    fig = model.plot()
    assert [t.get_text() for t in fig.axes[-1].get_xticklabels()] == list("abcdef") and intervals(fig) == 0
    if name in ("L21NMF", "CappedNMF", "ANMF"):
        with pytest.raises(ValueError, match="couples the entries"):
            model.plot(X)
    else:
        assert intervals(model.plot(X)) == 6
    with pytest.raises(ValueError, match="features must hold 6 names, got 2"):
        model.plot(features=["a", "b"])


def test_there_are_no_intervals_where_nothing_is_determined():
    g = np.random.default_rng(0)
    X = g.uniform(1, 2, (20, 3)) @ g.uniform(1, 2, (3, 12)) * 100
    model = al.NMF(3, loss="kullback-leibler", random_state=0).fit(g.poisson(X).astype(float))
    with pytest.raises(ValueError, match="do not determine the components"):
        model.plot(g.poisson(X).astype(float))


# --- the command

def anmf(*args):
    return main([str(a) for a in args])


def test_from_a_csv_to_its_report(tmp_path, capsys):
    X, _ = planted(7)
    X.to_csv(tmp_path / "x.csv")
    assert anmf("audit", tmp_path / "x.csv", "--rank", 3, "--starts", 4, "--out", tmp_path / "r.html",
                "--json", tmp_path / "r.json", "--verbose") == 0
    said = capsys.readouterr().out
    assert "40 samples x 24 features" in said and "3 components:" in said and "determined, 3 firm" in said
    assert "Methods, to paste" in said and "The samples that fit worst" in said and "heaviest features" in said
    with pytest.raises(SystemExit) as both:
        anmf("audit", tmp_path / "x.csv", "--rank", 3, "--quiet", "--verbose")
    assert both.value.code == 2 and "not allowed with" in capsys.readouterr().err
    assert (tmp_path / "r.html").stat().st_size < 2_000_000
    found = al.Audit.from_json(tmp_path / "r.json")
    assert meaning(found.ranks[3])["determined"] == "determined" and json.loads((tmp_path / "r.json").read_text())["about"]["sha256"]


GOOD = "sample,a,b,c\ns1,1,2,3\ns2,4,5,7\ns3,7,8,2\ns4,0,1,9\n"
BAD = [   # the file, more arguments, what is said
    ("sample,a,a\ns1,1,2\ns2,4,5\n", [], "two columns are called 'a' (numbers 1 and 2)"),
    ("sample,a,b\ns1,1,2\ns1,4,5\n", [], "two rows are called 's1'"),
    ("sample,a,,c\ns1,1,2,3\ns2,4,5,6\n", [], "column 2 has no name"),
    ("sample;a;b\ns1;1,234;2,345\ns2;4,567;1,111\n", [], "more than a thousand or a decimal fraction"),
    ("sample;a;b\ns1;1,23,4;2\ns2;4;5\n", [], "row 's1' (line 2), column 'a': '1,23,4' is not a number"),
    ("sample,a,b\ns1,,\ns2,4,5\n", [], "sample 's1' holds no number"),
    ("sample,a,b\ns1,1,\ns2,4,\n", [], "feature 'b' holds no number"),
    ("sample,a,b\ns1,1,-2\ns2,4,5\n", [], "row 's1', column 'b' is negative: -2"),
    ("sample,a,b\nr,1,2\ns,3,many\n", [], "row 's' (line 3), column 'b': 'many'"),
    ("sample,a,b\ns1,1,inf\ns2,4,5\n", [], "row 's1', column 'b' is infinite"),
    ("sample,a,b\ns1,1\ns2,4,5\ns3,1,2\n", [], "line 2 has 2 cells and the others 3"),
    ("sample,a,b\ns1,0,0\ns2,0,0\n", [], "every number of X is zero"),
    (GOOD.encode("utf-16-le"), [], "it is not a text file"), (b"", [], "is empty"),
    (GOOD, ["--rank", 5], "must be a whole number >= 1 and <= 3, got 5"), (GOOD, ["--rank", 0], "got 0"),
    (GOOD, ["--ranks", "8:2"], "is empty"), (GOOD, ["--ranks", "two"], "must be like 2:8"), (GOOD, None, "say how many components"),
    (GOOD, ["--rank", 2, "--budget", -1], "budget must be"), (GOOD, ["--rank", 2, "--starts", 0], "n_seeds must be"),
    (GOOD, ["--rank", 2, "--loss", "kulback"], "loss must be one of"), (GOOD, ["--rank", 1, "--out", "FOLDER"], "is a folder: name a file"),
    (GOOD, ["--rank", 1, "--json", "FOLDER"], "is a folder: name a file"), (GOOD, ["--rank", 1, "--out", "OTHER/r.html"], "is a file, so"),
    (GOOD, ["--components", "OTHER"], "components has other features than the data: 'q'"), (GOOD, ["--components", "LESS"], "components lacks the feature 'c'"),
    (GOOD, ["--rank", 2, "--weights", "OTHER"], "weights has other features"), (GOOD, ["--rank", 2, "--reference", "no.csv"], "no.csv is not there"),
    (GOOD, ["--rank", 1, "--resume", "OTHER"], "other.csv is no audit")]


@pytest.mark.parametrize("content, more, says", BAD, ids=[says[:40] for _, _, says in BAD])
def test_a_bad_input_is_a_clear_message_exit_code_1_and_nothing_written(tmp_path, capsys, content, more, says):
    (tmp_path / "x.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    (tmp_path / "folder").mkdir()
    (tmp_path / "other.csv").write_text("what,q,r\np1,1,2\np2,3,4\n")
    (tmp_path / "less.csv").write_text("what,a,b\np1,1,2\np2,3,4\n")
    there = {"FOLDER": tmp_path / "folder", "OTHER": tmp_path / "other.csv", "LESS": tmp_path / "less.csv", "OTHER/r.html": tmp_path / "other.csv/r.html"}
    more = [] if more is None else [there.get(a, a) for a in more or ["--rank", 1]]
    before = sorted(tmp_path.rglob("*"))
    out = [] if "--out" in more else ["--out", tmp_path / "r.html"]
    assert anmf("audit", tmp_path / "x.csv", *more, *out) == 1
    said = capsys.readouterr().err
    assert says in said and said.startswith("anmf-lab audit: ") and "Traceback" not in said
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_a_missing_and_an_unreadable_file_are_named(tmp_path, capsys, monkeypatch):
    (tmp_path / "x.csv").write_text(GOOD)
    for path, says in ((tmp_path, "is a folder"), (tmp_path / "y.csv", "did you mean x.csv?")):
        assert anmf("audit", path, "--rank", 1, "--out", tmp_path / "r.html") == 1
        assert says in capsys.readouterr().err
    monkeypatch.setattr("anmf_lab.tables.HUGE", 5)
    assert anmf("audit", tmp_path / "x.csv", "--rank", 1, "--out", tmp_path / "r.html") == 1
    assert "too much for text" in capsys.readouterr().err and not (tmp_path / "r.html").exists()


def test_memory_of_an_audit_is_that_of_three_matrices(monkeypatch):
    "Of large data: the coupling of codes and components, the curvature and its factor; all else goes in parts"
    import anmf_lab.audit_problem as audit_problem
    import anmf_lab.reduced as reduced
    X, _ = planted(3, n=60, f=40, names=False)
    n, f, k = *X.shape, 3
    monkeypatch.setattr(audit_problem.Problem, "stackable", lambda self, k: False)
    monkeypatch.setattr(reduced, "PART", n * f)
    monkeypatch.setattr("anmf_lab.findings.SIZE", 0)   # as if too large for the exact test
    with Count() as held:
        a = al.audit(X, k, n_seeds=2, steps=["rivals", "fit"])
    assert a.meaning[k]["firm"] + a.meaning[k]["soft"] == k
    assert held.top / 8 <= n * k * f * k + 2 * (f * k)**2 + 30 * n * f
