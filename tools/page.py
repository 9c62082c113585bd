"""Work on one page: export, run and store its outputs, clean, its own tests, and a look at it.

    python tools/page.py 02_align        (make page NB=02_align)

Its tests are tests/test_<module>.py or, where there is none, the test files that import the module. The page is built alone into _docs/
(links to other pages then lead nowhere; `make docs` builds all) and, where there is a Chromium, a picture of it lies
beside it, wide and whole. Where there is a screen, the page is opened.
"""
import argparse
import base64
import os
import re
import subprocess
import sys
import webbrowser
from pathlib import Path

from nbdev.config import get_config

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = str(ROOT / "tests"), str(ROOT / "tools")
from sync import export  # noqa: E402


def notebook(name):
    "The notebook that `name` means: 02_align, align, nbs/02_align.ipynb, tutorials/false_zeros"
    nbs = get_config().nbs_path
    stem = name.removeprefix("nbs/").removesuffix(".ipynb")
    found = [p for p in sorted(nbs.rglob("*.ipynb")) if stem in (str(p.relative_to(nbs).with_suffix("")), re.sub(r"^\d\d[a-z]?_", "", p.stem))]
    if len(found) != 1: sys.exit(f"NB={name}: {len(found) or 'no'} such pages in {nbs.name}/; NB=02_align is how to name one")
    return found[0]


def tests_of(page, folder):
    "The test files of a page's module"
    m = re.search(r"#\| *default_exp (\w+)", page.read_text(encoding="utf-8"))
    if not m: return []
    own = folder / f"test_{m[1]}.py"
    imports = re.compile(rf"anmf_lab\.{m[1]}\b|from anmf_lab import [^\n]*\b{m[1]}\b")
    return [own] if own.exists() else [p for p in sorted(folder.glob("test_*.py")) if imports.search(p.read_text(encoding="utf-8"))]


def picture(html, png):
    "The whole page at 1280 pixels, as a picture"
    import chromium
    if chromium.find() is None: return None
    browser = chromium.Browser(chromium.find())
    try:
        with chromium.serve(ROOT / "_docs") as address:
            browser.size(1280)
            browser.goto(address + str(html.relative_to(ROOT / "_docs")))
            browser.size(1280, min(16000, int(browser.evaluate("document.documentElement.scrollHeight"))))
            png.write_bytes(base64.b64decode(browser.call("Page.captureScreenshot", format="png")["data"]))
    finally: browser.close()
    return png


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("name")
    page = notebook(ap.parse_args().name)

    def step(*command): subprocess.run(command, check=True, cwd=ROOT)
    try:
        export()
        step(sys.executable, "tools/run_notebooks.py", str(page))
        step("nbdev_clean")
        tests = tests_of(page, ROOT / "tests")
        print("tests:", *(p.name for p in tests) or ["none"], flush=True)
        if tests: step(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, tests))
        step(sys.executable, "tools/docs.py", str(page))
    except subprocess.CalledProcessError as e: sys.exit(f"stopped at: {' '.join(map(str, e.cmd))}")
    html = ROOT / "_docs" / page.relative_to(get_config().nbs_path).with_name(re.sub(r"^\d\d[a-z]?_", "", page.stem) + ".html")
    print(html, picture(html, html.with_suffix(".png")) or "(no Chromium: no picture)", sep="\n")
    if os.environ.get("DISPLAY") or sys.platform in ("darwin", "win32"): webbrowser.open(html.as_uri())


if __name__ == "__main__":
    main()
