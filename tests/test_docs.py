"""The docs build must stumble over what a reader would stumble over: each fault is made once and must be caught."""
import configparser
import importlib
import importlib.util
import re
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


@pytest.fixture(scope="module")
def reference(docs):
    return importlib.import_module("reference")         # beside tools/docs.py


def test_equations_are_numbered_and_found(docs):
    nb = docs.crossrefs(page("See @eq-two.", "$$ a $$ {#eq-one}", "$$ b $$ {#eq-two} and `@eq-nothing`"), "p")
    assert r"b \tag{2}" in text(nb) and '<a href="#eq-two">Equation 2</a>' in text(nb) and "`@eq-nothing`" in text(nb)


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
    for name in ("index", "00_core", "12_solvers", "15_nmf", "25_anmf", "30_implicit", "44_lafa", "60_cli", "tutorials/quickstart",
                 "papers/anmf", "glossary", "_draft"):
        p = tmp_path / f"{name}.ipynb"
        p.parent.mkdir(exist_ok=True)
        p.write_text("{}")
    contents = docs.sidebar(tmp_path)["website"]["sidebar"]["contents"]
    assert contents[0] == "index.ipynb"
    assert [c["section"] for c in contents[1:]] == ["Tutorials", "The papers", "Foundations", "Objective and solvers",
                                                    "NMF and robust NMF", "Adversarial models", "Trust", "Attacks", "Laboratory", "Reference"]
    assert contents[1]["contents"] == ["tutorials/quickstart.ipynb"]


def shout(
    text: str,        # what to say, (n,) words; see `feature_error`
    *,
    times: int = 2,   # how often
) -> str:             # louder
    "Say it | twice, eq. @eq-x"


class Voice:
    "One voice"
    def __init__(self, pitch=1.0):
        """
        Parameters
        ----------
        pitch : float > 0, default=1
            How high.
            In Hz.

        Attributes
        ----------
        spoken_ : (n,) array
            What was said.

        Raises
        ------
        ValueError
            A pitch below 0.
        """

    def say(self, word): "Say `word`"
    def _clear(self): "Not for the page"

    @property
    def loud(self): "How loud"


def test_entry_of_a_function(reference):
    e = reference.entry(shout, "shout")
    assert "### shout {#shout .api-name}" in e and "shout(text, *, times=2)" in e and "Say it | twice, eq. @eq-x" in e
    assert "<td><code>text</code></td><td><em>str</em> · what to say, (n,) words; see <a href=" in e and "align.html#feature_error" in e
    assert "<caption>Returns</caption>" in e and "louder" in e and "](" not in e


def test_entry_of_a_class_has_methods_attributes_and_errors(reference, monkeypatch):
    monkeypatch.setattr(Voice, "__module__", "anmf_lab.voice")
    e = reference.entry(Voice, "Voice", without={"Voice.shown_elsewhere"})
    for part in ("One voice", "Voice(pitch=1.0)", "float &gt; 0, default=1", "How high.<br>In Hz.", "spoken_", "<caption>Raises</caption>",
                 'id="voice.say"', "Voice.say(word)", "<code>Voice.loud</code>"):
        assert part in e, part
    assert "_clear" not in e and 'id="voice.say"' not in reference.entry(Voice, "Voice", without={"Voice.say"})


def test_what_is_for_the_type_checker_is_not_for_readers(reference):
    rows = reference.comments(reference_case)
    assert [r[::2] for r in rows] == [("a", "a number"), ("c", "another")]


def reference_case(
    a: int,        # a number
    b: int = 0,    # type: ignore[override]
    c: int = 0,    # another  # type: ignore
): return a, b, c


def test_a_long_signature_has_a_parameter_a_line(reference):
    def f(first, second=(1, 2), *, a_keyword_with_a_long_name=None, another_keyword_with_a_long_name=print): pass
    assert reference.signature(f, "f") == ("f(\n    first,\n    second=(1, 2),\n    *,\n    a_keyword_with_a_long_name=None,\n"
                                           "    another_keyword_with_a_long_name=print,\n)")


def test_exported_code_is_folded_under_its_entries(reference, tmp_path):
    from execnb.nbio import mk_cell, new_nb, read_nb, write_nb
    cells = [mk_cell("#| default_exp align"), mk_cell("# Title", "markdown"), mk_cell("#| export\nimport numpy"), mk_cell("why", "markdown"),
             mk_cell("#| export\ndef _half(x):\n    return x"), mk_cell("#| export\ndef balance(W, H):\n    return W"), mk_cell("balance(1, 2)")]
    write_nb(new_nb(cells), tmp_path / "a.ipynb")
    nb = read_nb(tmp_path / "a.ipynb")
    reference.Pages()(nb)
    why, entry, code, lesson = nb.cells[-4:]
    assert why.source == "why" and "### balance" in entry.source and lesson.source == "balance(1, 2)"
    assert 'code-summary: "Source: _half, balance"' in code.source and "def _half" in code.source and "import numpy" not in code.source


def test_every_public_name_is_in_the_index_once(reference):
    import anmf_lab
    public, inside = reference.index().split("## Inside")
    for name in anmf_lab.__all__:
        assert public.count(f"- [`al.{name}`](https") == 1, name
    assert "`align`" in inside and "[`balance`](" in inside


def test_every_public_name_says_what_it_takes(reference):
    import inspect

    import anmf_lab
    missing = []
    for name in anmf_lab.__all__:
        obj = getattr(anmf_lab, name)
        parts, takes = reference.documented(obj), inspect.signature(obj).parameters.values()
        said = {n.strip() for row in parts["Parameters"] for n in row[0].split(",")}
        if not parts.get("", "").strip(): missing.append(f"{name}: no summary")
        missing += [f"{name}: {p.name} is not described" for p in takes if p.name not in said and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    assert missing == []


def test_alt_text_is_the_caption_in_words(docs):
    from execnb.nbio import mk_cell
    cell = mk_cell('#| fig-cap: "Error, $\\lVert X\\rVert$, of `NMF`."\nplt.plot()')
    docs.alt_text(cell)
    assert cell.source.startswith('#| fig-alt: "Error, X, of NMF."\n')


def test_paper_cites_what_its_bibliography_holds():
    paper, bib = ((ROOT / "paper" / f).read_text(encoding="utf-8") for f in ("paper.md", "paper.bib"))
    cited, held = set(re.findall(r"@(\w+)", paper)), set(re.findall(r"^@\w+\{(\w+),", bib, re.M))
    assert cited == held


def test_one_version_and_one_list_of_requirements():
    cff, recipe = ((ROOT / f).read_text(encoding="utf-8") for f in ("CITATION.cff", "conda/meta.yaml"))
    ini = configparser.ConfigParser(delimiters=["="])
    ini.read(ROOT / "settings.ini", encoding="utf-8")
    assert f"version: {ini['DEFAULT']['version']}\n" in cff and f'version = "{ini["DEFAULT"]["version"]}"' in recipe
    renamed = {"torch": "pytorch", "matplotlib": "matplotlib-base"}     # conda's names
    wanted = {f"{renamed.get(name, name)} >={least}" for name, least in (r.split(">=") for r in ini["DEFAULT"]["requirements"].split())}
    assert wanted | {"python >=" + ini["DEFAULT"]["min_python"]} == set(re.findall(r"^    - (.+)$", recipe.split("  run:")[1].split("test:")[0], re.M))
