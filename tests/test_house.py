"""The house rules: layers, clean notebooks, pages in order, documents whose commands work."""
import ast
import importlib
import importlib.util
import io
import json
import re
import shutil
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

import anmf_lab
from anmf_lab.cli import main

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / "nbs"
PAGES = sorted(p for p in NBS.rglob("*.ipynb")
               if not any(part.startswith(("_", ".")) for part in p.relative_to(NBS).parts))
PACKAGE = sorted((ROOT / "anmf_lab").rglob("*.py"))
TEXT = {".py", ".ipynb", ".md", ".ini", ".toml", ".yml", ".cff", ".css", ".json", ".cjs", ".txt", ".html", ""}


def page_id(p):
    return str(p.relative_to(NBS).with_suffix(""))


def cells(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def source(cell):
    return "".join(cell["source"])


def directives(cell):
    return dict(re.findall(r"^#[ ]*\|[ ]*([\w-]+):?[ \t]*(.*)$", source(cell), re.M))


def parsed(text):
    "The statements of a code cell, magics left out"
    return ast.parse(re.sub(r"^\s*[%!].*$", "", text, flags=re.M)).body


# --- layers

def numbers(pages):
    "module name -> number, from `#| default_exp`"
    found = {}
    for p in pages:
        for c in cells(p):
            name = re.search(r"^#\|[ ]*default_exp[ ]+(\S+)", source(c), re.M)
            if name and (number := number_of(p)) is not None:
                found[name[1]] = number
    return found


def number_of(page):
    "32 of 32_reduced.ipynb, 32.01 of 32a_..., which comes after it; None: no page of the library"
    number = re.match(r"(\d\d)([a-z]?)_", page.name)
    return number and int(number[1]) + (ord(number[2]) - 96 if number[2] else 0) / 100


def by_name(node, known):
    "Modules that a string constant names: 'anmf_lab.nmf', or f'anmf_lab.reproduce_{paper}' for all that begin so"
    if isinstance(node, ast.JoinedStr) and node.values and isinstance(node.values[0], ast.Constant):
        start = re.fullmatch(r"anmf_lab\.(\w*)", str(node.values[0].value))
        return [m for m in known if m.startswith(start[1])] if start else []
    name = re.fullmatch(r"anmf_lab\.(\w+)", node.value) if isinstance(node, ast.Constant) and isinstance(node.value, str) else None
    return [name[1]] if name else []


def imported(tree, known=()):
    "The modules of anmf_lab that a syntax tree imports, by a statement or by their names as strings"
    for node in ast.walk(tree):
        yield from by_name(node, known)
        if isinstance(node, ast.ImportFrom):
            if node.level or (node.module or "").split(".")[0] == "anmf_lab":
                module = (node.module or "").removeprefix("anmf_lab").strip(".")
                yield from [module.split(".")[0]] if module else (a.name for a in node.names)
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("anmf_lab."))


def layer_faults(tree, me, number):
    "What the module `me` may not import, by the numbers of the notebooks"
    here = number[me]
    for name in imported(tree, number):
        there = number.get(name)
        if there is None:
            continue
        if there >= here:
            yield f"{me} ({here:g}) imports {name} ({there:g}): only lower numbers"
        elif 30 <= here < 45 and 15 <= there < 30:
            yield f"{me} is an attack and imports the model {name}"


def test_a_notebook_imports_only_lower_numbers():
    number, faults = numbers(PAGES), []
    for p in PAGES:
        here = next((m for m, n in number.items() if n == number_of(p) and p.parent == NBS), None)
        if here is None:
            continue
        for c in cells(p):
            exported = re.search(r"^#\|[ ]*(export|exports|exporti)\b", source(c), re.M)
            if c["cell_type"] == "code" and exported:
                for statement in parsed(source(c)):
                    faults += layer_faults(statement, here, number)
    assert not faults, "\n".join(faults)


def test_the_layer_rule_can_fail():
    number = {"core": 0, "nmf": 15, "lafa": 44}
    assert [number_of(Path(name)) for name in ("32_reduced.ipynb", "32a_propagated.ipynb", "index.ipynb")] == [32, 32.01, None]
    assert list(layer_faults(ast.parse("from anmf_lab.nmf import NMF"), "core", number))
    assert list(layer_faults(ast.parse("from .nmf import NMF"), "lafa", number))
    assert list(layer_faults(ast.parse("def f():\n    import anmf_lab.nmf"), "lafa", number))
    assert list(layer_faults(ast.parse("import_module('anmf_lab.nmf')"), "core", number))
    assert list(layer_faults(ast.parse("table = {'x': Command('anmf_lab.nmf', 'about')}"), "core", number))
    assert list(layer_faults(ast.parse("import_module(f'anmf_lab.n{rest}')"), "core", number))
    assert not list(layer_faults(ast.parse("from anmf_lab.core import as_data"), "lafa", number))
    assert not list(layer_faults(ast.parse("import_module(f'anmf_lab.c{rest}'); print('see anmf_lab.nmf')"), "lafa", number))


def test_two_notebooks_do_not_share_a_number_or_a_module():
    stems = [number_of(p) for p in PAGES if p.parent == NBS and p.name[:2].isdigit()]
    assert len(stems) == len(set(stems))
    exports = [m[1] for p in PAGES for c in cells(p) if (m := re.search(r"^#\|[ ]*default_exp[ ]+(\S+)", source(c), re.M))]
    assert len(exports) == len(set(exports))


# --- the notebooks

@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_notebook_is_clean(path):
    faults = []
    assert path.stat().st_size <= 500_000, f"{path.stat().st_size // 1000} KB: at most 500"
    for i, c in enumerate(cells(path)):
        if c["cell_type"] != "code":
            continue
        outputs = c.get("outputs", [])
        if (size := len(json.dumps(outputs))) > 150_000:
            faults.append(f"cell {i}: {size // 1000} KB of output, at most 150")
        if c.get("execution_count") is not None:
            faults.append(f"cell {i}: an execution count; run nbdev_clean")
        for o in outputs:
            text = "".join(o.get("text", "")) + "".join(o.get("data", {}).get("text/plain", ""))
            if o["output_type"] == "error":
                faults.append(f"cell {i}: a stored error ({o.get('ename')})")
            if o.get("name") == "stderr" or re.search(r"Warning:|\d+%\|.*\|.*it/s|\d+it \[", text):
                faults.append(f"cell {i}: a warning or a progress bar; store outputs with tools/run_notebooks.py")
            if re.search(r"\bat 0x[0-9a-f]{6,}", text):
                faults.append(f"cell {i}: an address, which changes from run to run")
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_page_is_in_order(path):
    "Imports in cells of their own, since the docs build runs these; headings in cells of their own"
    faults, seen_title = [], False
    for i, c in enumerate(cells(path)):
        lines = [line for line in source(c).splitlines() if line.strip()]
        if c["cell_type"] == "markdown":
            if re.match(r"#{2,}\s", source(c)) and len(lines) > 1:
                faults.append(f"cell {i}: a heading shares its cell with prose")
            seen_title = seen_title or source(c).startswith("# ")
        elif c["cell_type"] == "raw":
            seen_title = seen_title or "title:" in source(c)
        elif not directives(c).keys() & {"hide", "export", "exports"}:
            kinds = {isinstance(s, (ast.Import, ast.ImportFrom)) for s in parsed(source(c))}
            if len(kinds) == 2:
                faults.append(f"cell {i}: imports mixed with code")
    assert seen_title, "no title: begin with '# Title' and a line '> claim'"
    assert not faults, "\n".join(faults)


# --- the package

@pytest.mark.parametrize("name", anmf_lab.__all__)
def test_public_name_resolves(name):
    value = getattr(anmf_lab, name)
    assert name in dir(anmf_lab)
    if callable(value):
        text = (value.__doc__ or "") + (getattr(value.__init__, "__doc__", "") or "" if isinstance(value, type) else "")
        assert text.strip(), f"{name} has no docstring"


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nonsense"):
        _ = anmf_lab.nonsense


def test_import_is_light():
    "`import anmf_lab` alone does not load torch"
    code = "import sys, anmf_lab; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_version_is_the_one_of_settings():
    from nbdev.config import get_config
    assert anmf_lab.__version__ == get_config().version


@pytest.mark.parametrize("path", PACKAGE, ids=lambda p: p.stem)
def test_module_imports(path):
    if path.stem not in ("__init__", "_modidx", "__main__"):
        importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))


# --- sizes

WIDEST = 110
LIMITS = {"lines": 400, "wide": 5., "class": 120, "function": 40}   # wide: percent of lines over 100 characters


def length(node):
    "Lines of a function or class, docstrings left out"
    inner = [n for n in ast.walk(node) if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(n, clean=False)]
    return node.end_lineno - node.lineno + 1 - sum(n.body[0].end_lineno - n.body[0].lineno + 1 for n in inner)


def sizes(text):
    "What LIMITS limits: name -> measured"
    lines = [line for line in text.splitlines() if line.strip()]
    found = {"lines": len(text.splitlines()), "wide": round(100 * sum(len(line) > 100 for line in lines) / max(len(lines), 1), 1)}
    for node in ast.walk(ast.parse(text)):
        kind = {ast.ClassDef: "class", ast.FunctionDef: "function"}.get(type(node))
        if kind:
            found[f"{kind} {node.name}"] = length(node)
    return {name: size for name, size in found.items() if size > LIMITS[name.split()[0]]}


@pytest.mark.parametrize("path", [p for p in PACKAGE if p.stem != "_modidx"], ids=lambda p: p.stem)
def test_module_is_not_too_large(path):
    faults = [f"{name}: {size}, at most {LIMITS[name.split()[0]]}"
              for name, size in sizes(path.read_text(encoding="utf-8")).items()]
    assert not faults, "\n".join(faults)


def joined(text):
    "How many statements begin behind a semicolon"
    tokens = tokenize.generate_tokens(io.StringIO(re.sub(r"^\s*[%!].*$", "", text, flags=re.M)).readline)
    semicolons = [t for t in tokens if t.type == tokenize.OP and t.string == ";" and t.line[t.end[1]:].strip()]
    return len(semicolons)


def layout(page):
    "Code lines of a page over 110 characters, and statements that share a line; outputs, directives and the last cell do not count"
    code = [source(c) for c in cells(page) if c["cell_type"] == "code" and "nbdev_export(" not in source(c)]
    lines = [line for text in code for line in text.splitlines() if not re.match(r"#\s*\|", line)]
    found = {"wide": sum(len(line) > WIDEST for line in lines), "joined": sum(map(joined, code))}
    return {name: n for name, n in found.items() if n}


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_page_is_one_statement_a_line_and_not_wide(path):
    faults = {name: n for name, n in layout(path).items() if n}
    assert not faults, f"lines over {WIDEST} characters, statements that share a line: {faults}"


def test_the_size_rules_can_fail():
    assert joined("a = 1; b = 2\nplt.show();\nc = 'a; b'  # one; two") == 1
    body = "\n".join(f"    x = {i}" for i in range(41))
    assert sizes(f"def f():\n{body}") == {"function f": 42}
    assert sizes(f'def f():\n    """{body}"""\n    return 1') == {}
    assert "class A" in sizes("class A:\n" + "\n".join(f"    x{i} = 1" for i in range(120)))
    assert sizes("x = 1\n" * 401) == {"lines": 401}
    assert sizes("x = 1\n" * 9 + "y = '" + "x" * 100 + "'") == {"wide": 10.}


def test_long_lines_that_nbdev_writes_are_wrapped():
    spec = importlib.util.spec_from_file_location("sync", ROOT / "tools" / "sync.py")
    sync = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sync)
    names = [f"name_{i}" for i in range(40)]
    text = f'"""{"word " * 40}end"""\n\n__all__ = {names}\n\nx = [\n    1]\n'
    found = sync.narrow(text)
    assert max(map(len, found.splitlines())) <= WIDEST and found.endswith("\n\nx = [\n    1]\n")
    space = {}
    exec(found, space)
    assert space["__all__"] == names and sync.narrow(found) == found
    assert ast.get_docstring(ast.parse(found)).split() == ["word"] * 40 + ["end"]


# --- who writes attributes

IN_FIT = {"__init__", "__post_init__", "__new__", "fit", "partial_fit", "set_params",
          "_fit", "_solve_all", "_end", "_name_results"}     # the last four are what `fit` is made of
STATES = {"Climber": "an ascent's rivals", "Ascent": "where an ascent is", "_Newton": "where Newton's method is"}


def written(text):
    "class.method -> attributes of self that it sets, outside construction and fit"
    found = {}
    for c in ast.walk(ast.parse(text)):
        if not isinstance(c, ast.ClassDef) or c.name in STATES: continue
        for f in c.body:
            if not isinstance(f, ast.FunctionDef) or f.name in IN_FIT: continue
            names = {n.attr for n in ast.walk(f) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)
                     and isinstance(n.value, ast.Name) and n.value.id == "self"}
            if names: found[f"{c.name}.{f.name}"] = sorted(names)
    return found


@pytest.mark.parametrize("path", [p for p in PACKAGE if p.stem != "_modidx"], ids=lambda p: p.stem)
def test_no_attribute_is_set_outside_construction_and_fit(path):
    assert not written(path.read_text(encoding="utf-8"))


def test_the_rule_on_attributes_can_fail():
    assert written("class A:\n    def check(self): self.x = 1") == {"A.check": ["x"]}
    assert not written("class A:\n    def fit(self): self.x = 1")


# --- what help() prints

@pytest.mark.parametrize("path", [p for p in PACKAGE if p.stem != "_modidx"], ids=lambda p: p.stem)
def test_help_prints_no_reference_that_only_the_site_can_follow(path):
    docs = [ast.get_docstring(n) or "" for n in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(n, (ast.Module, ast.ClassDef, ast.FunctionDef))]
    assert not [d for d in docs if re.search(r"@(eq|fig|tbl|sec|thm)-", d)]


# --- the repository

def tracked():
    "The files of the repository; all that are not ignored where there is no git"
    if shutil.which("git") and (ROOT / ".git").exists():
        out = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, text=True, capture_output=True, check=True)
        return [p for line in out.stdout.splitlines() if (p := ROOT / line).is_file()]
    return [p for p in ROOT.rglob("*") if p.is_file() and not {".venv", "node_modules", ".git"} & set(p.parts)]


MACHINE = re.compile(r"(?<![\w.~])/(?:home|root|Users|work|mnt|opt)/[\w.-]+|file:///\w|[A-Z]:\\Users")


def test_no_path_of_a_machine_is_tracked():
    assert MACHINE.search("see /home/" + "someone/x")
    faults = [f"{p.relative_to(ROOT)}:{n}: {m[0]}" for p in tracked() if p.suffix in TEXT
              for n, line in enumerate(p.read_text(encoding="utf-8", errors="ignore").splitlines(), 1)
              if len(line) < 20_000 and (m := MACHINE.search(line)) and "MACHINE = " not in line]
    assert not faults, "\n".join(faults)


def test_no_large_file_is_tracked():
    faults = [f"{p.relative_to(ROOT)}: {p.stat().st_size // 1000} KB" for p in tracked() if p.stat().st_size > 1_000_000]
    assert not faults, "\n".join(faults)


def test_readme_is_what_the_index_gives():
    done = subprocess.run([sys.executable, "tools/readme.py", "--check"], cwd=ROOT, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr


DOCUMENTS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_to_files_exist(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", text)
    missing = [link for link in links if not (ROOT / link).exists()]
    assert not missing, f"{name} links to what is not there: {missing}"


def commands(name):
    "The shell lines of a document"
    text = (ROOT / name).read_text(encoding="utf-8")
    blocks = re.findall(r"^``` ?(?:sh|bash|shell)\n(.*?)^```", text, re.S | re.M)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [re.sub(r"\s+#.*", "", line).strip() for line in lines if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize("line", sorted({c for d in DOCUMENTS for c in commands(d)}))
def test_documented_command_is_there(line):
    "make targets by a dry run, our tools by their files, the rest by its name; quick ones run"
    words = [w for w in line.split() if not re.fullmatch(r"[A-Z_]+=.*", w)]
    if words[0] == "make":
        done = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, text=True, capture_output=True)
        assert done.returncode == 0, done.stderr
    elif words[0] in ("git", "pip", "cd", "source", "."):
        assert "clone" in words or "install" in words or words[0] in ("cd", "source", ".") or shutil.which(words[0])
    elif words[0] in ("python", "pytest"):
        files = [w for w in words[1:] if w.endswith((".py", ".ipynb")) or w.startswith("tests/")]
        assert all((ROOT / f.split("::")[0]).exists() for f in files), line
        assert files or words[0] == "pytest" or words[1] == "-m", line
    elif words[0] == "anmf-lab":
        with pytest.raises(SystemExit) as done:
            main([*[w for w in words[1:2] if not w.startswith("-")], "--help"])
        assert done.value.code == 0
    else:
        assert shutil.which(words[0], path=f"{Path(sys.executable).parent}:{__import__('os').environ['PATH']}"), line


def test_contributing_has_commands():
    assert len(commands("CONTRIBUTING.md")) >= 5
