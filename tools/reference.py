"""What a page says about an exported name, and the index of all names by task.

nbdev puts `show_doc(name)` after the cell that exports it. Here that becomes an entry: signature, parameters,
attributes, errors, methods, and the code of the cell in a fold. Read from the library, so nothing is run.
"""
import dataclasses
import enum
import functools
import html
import inspect
import json
import re
from importlib import import_module

import anmf_lab
from execnb.nbio import mk_cell
from fastcore.docments import docments
from nbdev.doclinks import NbdevLookup
from nbdev.process import Processor
from nbdev.processors import FilterDefaults, exec_show_docs, rm_export

RULE = re.compile(r"^-{3,}$")
SHOW = re.compile(r"^show_doc\(([\w.]+)", re.M)
LISTS = ("Parameters", "Attributes", "Returns", "Yields", "Raises")


def sections(doc):
    "A NumPy docstring as {section: text}; what stands before the first section is under ''"
    lines, found, at = inspect.cleandoc(doc or "").splitlines(), {}, ""
    for line, below in zip(lines, [*lines[1:], ""], strict=False):
        if RULE.match(below) and line and not line.startswith(" "): at = line
        elif not RULE.match(line): found.setdefault(at, []).append(line)
    return {k: "\n".join(v).strip("\n") for k, v in found.items()}


def items(text):
    "The entries of a section as [(name, type, description)]"
    found = []
    for line in text.splitlines():
        if line and not line.startswith(" "): found.append((*(s.strip() for s in (line + " : ").split(" : ")[:2]), []))
        elif found: found[-1][2].append(line.strip())
    return [(n, t, "\n".join(d).strip()) for n, t, d in found]


def plain(x):
    "An annotation or a default as a reader would write it"
    return x if isinstance(x, str) else getattr(x, "__name__", None) or repr(x)


def comments(f):
    "Parameters (and `return`) as the comments beside them say: [(name, type, description)]"
    try: docs = docments(f, full=True)
    except (TypeError, ValueError, OSError, SyntaxError): return []   # built in, or made by a decorator
    rows = []
    for name, d in docs.items():
        kind = plain(d["anno"]) if isinstance(d["anno"], str) or d["default"] is inspect.Parameter.empty else ""
        kind = "" if d["anno"] is inspect.Parameter.empty else kind
        said = re.sub(r"type: ignore(\[[\w-]*\])?", "", d.get("docment") or "").strip(" #")   # that is for mypy
        if name not in ("self", "cls") and said: rows.append((name, kind, said))
    return rows


def documented(obj):
    "Summary and sections of `obj`; for a class with what its `__init__` says"
    is_class = inspect.isclass(obj)
    parts = sections((obj.__doc__ if is_class else inspect.getdoc(obj)) or "")
    if is_class and parts.get("", "").startswith(f"{obj.__name__}("): parts = {}      # what dataclasses write themselves
    if is_class and "__init__" in vars(obj): parts = {**sections(obj.__init__.__doc__ or ""), **parts}
    parts = {k: items(v) if k in LISTS else v for k, v in parts.items()}
    rows = [] if is_class and issubclass(obj, enum.Enum) else comments(obj)
    parts.setdefault("Parameters", [r for r in rows if r[0] != "return"])
    parts.setdefault("Returns", [("", k, d) for n, k, d in rows if n == "return"])
    return parts


def signature(obj, name, width=88):
    "How `name` is called: on one line if it fits, else a parameter a line; no annotations"
    try: sig = inspect.signature(obj)
    except (TypeError, ValueError): return name
    bare = [p.replace(annotation=p.empty) for p in sig.parameters.values() if p.name not in ("self", "cls")]
    bare = [p.replace(default=Named(p.default)) if p.default is not p.empty else p for p in bare]
    args = str(sig.replace(parameters=bare, return_annotation=sig.empty))[1:-1]
    if len(name) + len(args) + 2 <= width: return f"{name}({args})"
    parts = [str(p) for p in bare]
    star = next((i for i, p in enumerate(bare) if p.kind is p.KEYWORD_ONLY), None)
    if star is not None and not any(p.kind is p.VAR_POSITIONAL for p in bare): parts.insert(star, "*")
    return f"{name}(\n    " + ",\n    ".join(parts) + ",\n)"


class Named:
    "A default value that prints as its name, not as its address in memory"
    def __init__(self, value): self.value = value
    def __repr__(self): return str(plain(self.value)) if callable(self.value) else repr(self.value)


@functools.cache
def lookup():
    return NbdevLookup()


def rich(text, here=""):
    "HTML of a description: names in backticks become code, and links where there is a page for them"
    def code(m):
        name = m[1].removesuffix("()")
        to = lookup().doc(name) if name != here and not name.startswith("_") else None
        tag = f"<code>{m[1]}</code>"
        return f'<a href="{to}">{tag}</a>' if to else tag
    return re.sub(r"(?<!`)`{1,2}([^`]+)`{1,2}", code, html.escape(str(text), quote=False)).replace("\n", "<br>")


def table(title, rows, here):
    "Rows (name, type, description) as a definition table"
    def row(n, t, d):
        name = f"<td><code>{html.escape(n)}</code></td><td>" if n else "<td colspan='2'>"
        return f"<tr>{name}{f'<em>{rich(t, here)}</em>' if t else ''}{' · ' if t and d else ''}{rich(d, here)}</td></tr>"
    body = "".join(row(*r) for r in rows)
    return f'<table class="api-table"><caption>{title}</caption><tbody>{body}</tbody></table>' if rows else ""


def methods(cls, without=()):
    "The public methods of a class that are ours: {name: function}"
    ours = [c for c in cls.__mro__ if c.__module__.startswith("anmf_lab")]
    names = dict.fromkeys(n for c in reversed(ours) for n in vars(c) if not n.startswith("_"))
    fields = {f.name for f in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set(getattr(cls, "_fields", ()))
    found = {n: inspect.getattr_static(cls, n) for n in names if n not in fields and f"{cls.__name__}.{n}" not in without}
    return {n: f for n, f in found.items() if callable(f) or isinstance(f, (property, functools.cached_property, classmethod, staticmethod))}


def method(cls, name, f):
    "One method or property: signature, what it does, parameters"
    inner = getattr(f, "__func__", None) or getattr(f, "fget", None) or getattr(f, "func", None) or f
    is_value = isinstance(f, (property, functools.cached_property))
    parts = documented(inner)
    head = f"{cls.__name__}.{name}" if is_value else signature(inner, f"{cls.__name__}.{name}", 10 ** 6)
    body = "".join(table(t, parts.get(t) or [], name) for t in LISTS if not (is_value and t == "Parameters"))
    ident = f"{cls.__name__}.{name}".lower()
    return (f'<div class="api-method" id="{ident}"><p class="api-sig"><code>{html.escape(head)}</code></p>'
            f"<p>{rich(parts.get('', ''), name)}</p>{body}</div>")


def entry(obj, name, level=3, without=()):
    "Markdown of the entry of `obj`: heading, signature, and a block of HTML"
    parts = documented(obj)
    is_type = inspect.isclass(obj) and (issubclass(obj, enum.Enum) or obj.__module__.startswith("typing"))
    out = [f"{'#' * level} {name} {{#{name.lower()} .api-name}}"]
    if callable(obj) and not is_type: out.append(f"```python\n{signature(obj, name)}\n```")
    block = f"<p class='api-doc'>{rich(parts.get('', ''), name)}</p>" + "".join(table(t, parts.get(t) or [], name) for t in LISTS)
    block += "".join(f"<p class='api-doc'><b>{t}</b><br>{rich(parts[t], name)}</p>" for t in ("Notes", "References") if parts.get(t))
    if inspect.isclass(obj) and not is_type:
        block += "".join(method(obj, n, f) for n, f in methods(obj, without).items())
    out.append("```{=html}\n<div class='api-block'>" + block + "</div>\n```")
    if parts.get("Examples"): out.append(f"```python\n{parts['Examples']}\n```")
    return "::: {.api-entry}\n" + "\n\n".join(out) + "\n:::\n"


def fold(sources):
    "The code of export cells, closed; its line names what is in it"
    names = re.findall(r"^(?:def|class|async def) (\w+)|^([A-Z]\w*)\b[^=\n]*=", "\n".join(sources), re.M)
    title = "Source: " + ", ".join(dict.fromkeys(a or b for a, b in names)) if names else "Source"
    return mk_cell(f"#| code-fold: true\n#| code-summary: {json.dumps(title)}\n" + "\n\n\n".join(s.strip() for s in sources))


def has_code(source):
    "More than imports?"
    return any(line and not line.startswith(("import ", "from ", " ", ")", "#")) for line in source.splitlines())


class Entries(Processor):
    "Entries for `show_doc` cells and, under those of exported cells, their code"
    def begin(self):
        module = next((c.directives_["default_exp"][0] for c in self.nb.cells if "default_exp" in directives(c)), None)
        shown = {m[1] for c in self.nb.cells if c.cell_type == "code" for m in SHOW.finditer(c.source)}
        cells, code, entered = [], [], False
        for c in self.nb.cells:
            is_entry = module and c.cell_type == "code" and bool(SHOW.search(c.source))
            is_export = c.cell_type == "code" and bool({"export", "exports"} & directives(c).keys())
            if code and not is_entry and (entered or not is_export):
                cells, code, entered = [*cells, fold(code)], [], False
            if is_entry: cells.append(self.show(c, import_module(f"anmf_lab.{module}"), shown))
            elif not is_export: cells.append(c)
            elif has_code(c.source): code.append(c.source)
            entered = entered or bool(is_entry and code)
        self.nb.cells = cells + ([fold(code)] if code else [])

    def show(self, cell, module, shown):
        name = SHOW.search(cell.source)[1]
        obj = functools.reduce(getattr, name.split("."), module)
        level = 3 if name in anmf_lab.__all__ else 4
        return mk_cell(entry(obj, name, level, shown - {name}), "markdown")

    def cell(self, cell): pass


def directives(cell):
    return getattr(cell, "directives_", None) or {}


class Pages(FilterDefaults):
    "nbdev's processors; entries come from the library, and exported code stays on the page"
    def base_procs(self):
        return [Entries if p is exec_show_docs else p for p in super().base_procs() if p is not rm_export] + [rm_export]


TASKS = {   # what one wants to do, and the modules that do it; a name of another module goes under its page's title
    "Factorize": ("nmf", "onmf", "robust", "solve", "objective"),
    "Train against an adversary": ("atnmf", "anmf_model"),
    "Choose the rank": ("selection", "rank_table", "ranks"),
    "Is it determined, and how precisely?": ("determined", "feasible", "error_bars", "rival_minima", "stability", "resampling"),
    "How far can it be moved?": ("certificate", "certify", "lafa"),
    "Audit and report": ("audit", "report", "tables", "pictures", "arena"),
    "Compare and score": ("align", "metrics"),
    "Data and noise": ("data", "synthetic", "noise", "completion", "clustering"),
}


def index(library="anmf_lab"):
    "The page of all names: the public ones by task, then every module's"
    lib = import_module(library)
    where = {n: getattr(lib, n).__module__.rpartition(".")[2] for n in lib.__all__}
    tasks = {t: [n for n in lib.__all__ if where[n] in m] for t, m in TASKS.items()}
    tasks["Other"] = [n for n in lib.__all__ if not any(n in names for names in tasks.values())]
    out = ["---\ntitle: All names\ndescription: What `import anmf_lab as al` offers, by task; below it, what each page exports\n---\n"]
    for task, names in tasks.items():
        if names: out.append(f"## {task}\n\n" + "\n".join(row(lib, n, "al.") for n in names))
    out.append("## Inside: every export, by page\n\nFor those who build on a part. These names may change between versions.\n")
    for module, names in sorted(modules().items()):
        out.append(f"**`{module}`** " + ", ".join(f"[`{n}`]({lookup().doc(f'{module}.{n}')})" for n in sorted(names)) + "\n")
    return "\n\n".join(out)


def row(lib, name, prefix):
    "One line of the index"
    text = documented(getattr(lib, name)).get("", "").splitlines()
    return f"- [`{prefix}{name}`]({lookup().doc(f'{getattr(lib, name).__module__}.{name}')}): {text[0].strip() if text else ''}"


def modules():
    "What each page exports, without methods: {module: [names]}"
    found = {}
    for library in lookup().entries.values():
        for module, syms in library["syms"].items():
            names = [s.removeprefix(module + ".") for s in syms]
            found[module] = [n for n in names if "." not in n and not n.startswith("_")]
    return {m: n for m, n in found.items() if n}
