"""Number the labels of a notebook and resolve the references to them, as Quarto does: @eq-, @fig-, @tbl-, @thm-, @sec- ..."""
import functools
import json
import re

NAMES = {"eq": "Equation", "fig": "Figure", "tbl": "Table", "thm": "Theorem", "lem": "Lemma",
         "cor": "Corollary", "prp": "Proposition", "def": "Definition", "exm": "Example",
         "rem": "Remark", "sec": "Section"}
KIND = "|".join(NAMES)
THEOREMS = ("thm", "lem", "cor", "prp", "def", "exm", "rem")
EQ = re.compile(r"\$\$(?P<tex>(?:(?!\$\$).)+)\$\$[ \t]*\{#(?P<id>eq-[\w-]+)\}", re.S)
THM = re.compile(r"^(?P<fence>:{3,})[ \t]*\{#(?P<id>(?:%s)-[\w-]+)(?P<rest>[^}]*)\}[ \t]*\n+(?:#+[ \t]+(?P<title>.+)\n)?"
                 % "|".join(THEOREMS), re.M)
TBL = re.compile(r"^:[ \t]+(?P<cap>.*?)[ \t]*\{#(?P<id>tbl-[\w-]+)\}[ \t]*$", re.M)
SEC = re.compile(r"^#+[ \t]+(?P<title>.+?)[ \t]*\{#(?P<id>sec-[\w-]+)[^}]*\}[ \t]*$", re.M)
REF = re.compile(r"(?<![\w`\\@])(?:\[(?P<pre>[^\]@]*)@(?P<b>(?:%s)-[\w-]+)\]|@(?P<a>(?:%s)-[\w-]+))" % (KIND, KIND))
OPT = re.compile(r"^#\|[ \t]*(?P<key>[\w-]+):[ \t]*(?P<val>.*)$", re.M)
CAP = re.compile(r"^#\|[ \t]*fig-cap:[ \t]*[\"']?(?P<cap>.*?)[\"']?$", re.M)
CODE = re.compile(r"(^(?P<f>`{3,}|~{3,}).*?^(?P=f)[ \t]*$|`[^`\n]+`)", re.S | re.M)


def caption(n, m):
    "The `fig-cap` line, numbered, with its maths marked as KaTeX's auto-render finds it"
    cap = re.sub(r"\$([^$]+)\$", lambda t: "\\(" + t[1].replace("\\\\", "\\") + "\\)", m["cap"])
    return "#| fig-cap: " + json.dumps(f"{NAMES['fig']} {n}: {cap}")


def outside_code(f, text):
    "Apply `f` to the parts of Markdown `text` that are not code"
    out, at = [], 0
    for m in CODE.finditer(text):
        block = m.group(0)
        out += [f(text[at:m.start()]), f(block) if block.startswith("```{=html}") else block]
        at = m.end()
    return "".join(out + [f(text[at:])])


def crossrefs(nb, where):
    "Number the labels of one notebook and resolve the references to them"
    n, label = {}, {}

    def number(ident, text=None):
        if ident in label: raise SystemExit(f"{where}: label {ident} is used twice")
        kind = ident.split("-")[0]
        n[kind] = n.get(kind, 0) + 1
        label[ident] = text or f"{NAMES[kind]} {n[kind]}"
        return n[kind]

    def eq(m):
        return f'::: {{#{m["id"]}}}\n$$\n{m["tex"].strip()} \\tag{{{number(m["id"])}}}\n$$\n:::\n'

    def thm(m):
        number(m["id"])
        title = f' ({m["title"].strip()})' if m["title"] else ""
        return f'{m["fence"]} {{#{m["id"]} .theorem{m["rest"]}}}\n**{label[m["id"]]}{title}.** '

    def tbl(m):
        return f': {NAMES["tbl"]} {number(m["id"])}: {m["cap"]} {{#{m["id"]}}}'

    def sec(m):
        number(m["id"], m["title"])
        return m.group(0)

    def ref(m):
        ident = m["a"] or m["b"]
        if ident not in label: raise SystemExit(f"{where}: @{ident} has no label on this page")
        return f"""<a href="#{ident}">{m['pre'] or ''}{label[ident]}</a>"""     # holds in Markdown and in a block of HTML

    cells = []
    for c in nb["cells"]:
        src = "".join(c["source"])
        if c["cell_type"] == "markdown":
            src = outside_code(lambda s: TBL.sub(tbl, THM.sub(thm, EQ.sub(eq, s))), src)
            SEC.sub(sec, src)
        elif c["cell_type"] == "code":
            opts = {m["key"]: m["val"].strip().strip("\"'") for m in OPT.finditer(src)}
            ident = opts.get("label", "")
            if ident.startswith("fig-"):
                if not any(k.startswith("image/") for o in c.get("outputs", []) for k in o.get("data", {})):
                    raise SystemExit(f"{where}: {ident} has no stored picture: run tools/run_notebooks.py on it")
                src = CAP.sub(functools.partial(caption, number(ident)), src)
        c["source"] = src.splitlines(True)
        cells.append(c)
    for c in cells:
        if c["cell_type"] == "markdown":
            c["source"] = outside_code(lambda s: REF.sub(ref, s), "".join(c["source"])).splitlines(True)
        for o in c.get("outputs", []):
            md = o.get("data", {}).get("text/markdown")
            if md: o["data"]["text/markdown"] = outside_code(lambda s: REF.sub(ref, s), "".join(md)).splitlines(True)
    nb["cells"] = cells
    return nb
