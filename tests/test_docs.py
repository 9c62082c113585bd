"""The docs build must stumble over what a reader would stumble over: each fault is made once and must be caught."""
import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
KATEX = ROOT / "node_modules/katex/dist"


@pytest.fixture(scope="module")
def docs():
    spec = importlib.util.spec_from_file_location("anmf_docs", ROOT / "tools/docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def page(*cells):
    "A notebook of Markdown cells (text) and code cells (source, outputs)"
    return {"cells": [{"cell_type": "markdown", "source": [c]} if isinstance(c, str) else
                      {"cell_type": "code", "source": [c[0]], "outputs": c[1]} for c in cells]}


def text(nb):
    return "\n".join("".join(c["source"]) for c in nb["cells"])


def test_equations_are_numbered_and_found(docs):
    nb = docs.crossrefs(page("See @eq-two.", "$$ a $$ {#eq-one}", "$$ b $$ {#eq-two} and `@eq-nothing`"), "p")
    assert r"b \tag{2}" in text(nb) and "[Equation 2](#eq-two)" in text(nb) and "`@eq-nothing`" in text(nb)


@pytest.mark.parametrize("label", ["eq-x", "fig-x", "tbl-x", "thm-x", "sec-x"])
def test_unknown_reference(docs, label):
    with pytest.raises(SystemExit, match=f"@{label} has no label"):
        docs.crossrefs(page(f"See @{label}."), "p")


def test_label_used_twice(docs):
    with pytest.raises(SystemExit, match="used twice"):
        docs.crossrefs(page("$$ a $$ {#eq-x}", "$$ b $$ {#eq-x}"), "p")


def test_figure_without_a_picture(docs):
    source = "#| label: fig-x\n#| fig-cap: A line.\nplt.plot([1])"
    with pytest.raises(SystemExit, match="no stored picture"):
        docs.crossrefs(page((source, [])), "p")
    nb = docs.crossrefs(page((source, [{"data": {"image/png": ""}}])), "p")
    assert "Figure 1: A line." in text(nb)


@pytest.mark.parametrize("link, fault", [("gone.html", "no such file"), ("b.html#gone", "no such place"), ("#gone", "no such place"),
                                         ("b.html#here", None), ("b.html", None), ("#top", None), ("https://example.org/x", None)])
def test_links(docs, tmp_path, link, fault):
    (tmp_path / "a.html").write_text(f'<h1 id="top">a</h1><a href="{link}">b</a>')
    (tmp_path / "b.html").write_text('<h1 id="here">b</h1>')
    found = list(docs.broken(tmp_path))
    assert (found == []) if fault is None else (len(found) == 1 and fault in found[0])


@pytest.mark.skipif(not (shutil.which("node") and KATEX.exists()), reason="formulas are checked with Node and KaTeX")
@pytest.mark.parametrize("tex, good", [(r"\frac{a}{b}", True), (r"\frac{a", False), (r"\nonsense", False)])
def test_formulas(tmp_path, tex, good):
    (tmp_path / "a.html").write_text(rf"<span>\({tex}\)</span>")
    run = subprocess.run(["node", str(ROOT / "tools/texcheck.cjs"), str(KATEX), str(tmp_path)], capture_output=True)
    assert (run.returncode == 0) == good


@pytest.mark.skipif(not (shutil.which("node") and KATEX.exists()), reason="formulas are checked with Node and KaTeX")
def test_code_is_not_a_formula(tmp_path):
    (tmp_path / "a.html").write_text(r"<p>\(x\)</p><pre><code>re.match(r'\(\s*\)')</code></pre>")
    run = subprocess.run(["node", str(ROOT / "tools/texcheck.cjs"), str(KATEX), str(tmp_path)], capture_output=True, text=True)
    assert run.returncode == 0 and run.stdout == "1 formulas, 0 bad\n"


def test_sidebar_has_every_page_in_its_layer(docs, tmp_path):
    for name in ("index", "00_core", "12_solvers", "15_nmf", "25_anmf", "30_implicit", "44_lafa", "59_cli", "tutorials/quickstart",
                 "papers/anmf", "_draft"):
        p = tmp_path / f"{name}.ipynb"
        p.parent.mkdir(exist_ok=True)
        p.write_text("{}")
    contents = docs.sidebar(tmp_path)["website"]["sidebar"]["contents"]
    assert contents[0] == "index.ipynb"
    assert [c["section"] for c in contents[1:]] == ["Tutorials", "The papers", "Foundations", "Objective and solvers",
                                                    "NMF and robust NMF", "Adversarial models", "Trust", "Attacks", "Laboratory"]
    assert contents[1]["contents"] == ["tutorials/quickstart.ipynb"]
