"""Every page of the built site in a real browser, wide and narrow, light and dark: what a reader would stumble over.

Skipped where there is no Chromium or no built site (`make docs`).
"""
from pathlib import Path
from urllib.parse import unquote

import chromium
import pytest

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "_docs"
pytestmark = pytest.mark.skipif(chromium.find() is None, reason="no Chromium on this machine")

COMMON = r"""
const main = document.querySelector("main"), seen = e => e.offsetParent !== null;
const at = e => e.tagName.toLowerCase() + (e.id ? "#" + e.id : "") + " " + JSON.stringify((e.textContent || e.alt || "").trim().slice(0, 40));
const rgb = c => { const v = (c.match(/[\d.]+/g) || []).map(Number); return c.startsWith("color(srgb") ? [...v.slice(0, 3).map(x => 255 * x), v[3]] : v; };
const light = c => { const [r, g, b] = c.map(v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
const over = (top, under) => { const a = top.length > 3 ? top[3] : 1; return [0, 1, 2].map(i => a * top[i] + (1 - a) * under[i]); };
function behind(e) {
  if (!e) return [255, 255, 255];
  const c = rgb(getComputedStyle(e).backgroundColor);
  return c.length > 3 && c[3] === 0 ? behind(e.parentElement) : c.length > 3 && c[3] < 1 ? over(c, behind(e.parentElement)) : c.slice(0, 3);
}
function contrast(e) {
  const back = behind(e), [a, b] = [light(over(rgb(getComputedStyle(e).color), back)), light(back)];
  return (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
}
const texts = [...document.querySelectorAll("body *")].filter(e => !e.closest(".katex, script, style, svg")
  && [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()));
"""

LAYOUT = "(() => {" + COMMON + r"""
const bad = [];
const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
if (wide > 0) bad.push(`the page scrolls sideways by ${wide}`);
const box = main.getBoundingClientRect();
const boxed = e => { for (let p = e.parentElement; p && p !== main; p = p.parentElement)
  if (/auto|scroll/.test(getComputedStyle(p).overflowX)) return true; return false; };
for (const e of main.querySelectorAll("pre, table, img, p, li, h1, h2, h3, h4, .katex-display, .katex .base, details, input"))
  if (seen(e) && e.getBoundingClientRect().right > box.right + 1 && !boxed(e)) bad.push("sticks out: " + at(e));
for (const e of main.querySelectorAll("pre, .katex-display, .api-sig, td"))
  if (seen(e) && e.scrollWidth > e.clientWidth + 1 && !/auto|scroll/.test(getComputedStyle(e).overflowX) && getComputedStyle(e).overflowX !== "visible")
    bad.push("cut off: " + at(e));
for (const t of main.querySelectorAll(".katex-html > .tag")) {
  const n = t.lastElementChild.getBoundingClientRect();
  for (const b of t.parentElement.querySelectorAll(":scope > .base")) {
    const r = b.getBoundingClientRect();
    if (r.right > n.left + 1 && r.left < n.right && r.bottom > n.top && r.top < n.bottom) bad.push("number over a formula: " + at(t));
  }
}
return bad; })()"""

CONTENT = "(() => {" + COMMON + r"""
const bad = [];
for (const e of document.images) {
  if (!e.complete || !e.naturalWidth) bad.push("no picture: " + e.src.slice(0, 60));
  if (!(e.getAttribute("alt") || "").trim()) bad.push("no alt text: picture in " + (e.closest("[id]") || main).id);
}
for (const e of document.querySelectorAll(".katex-error")) bad.push("formula: " + at(e));
for (const e of document.querySelectorAll(".math")) if (!e.querySelector(".katex")) bad.push("not rendered: " + at(e));
for (const e of texts) if (/\]\(https?:|\[`|\$[^$]*\\[a-z]+[^$]*\$/.test([...e.childNodes].map(n => n.nodeType === 3 ? n.data : "").join("")))
  bad.push("raw Markdown: " + at(e));
for (const e of document.querySelectorAll("a, button, input, summary"))
  if (seen(e) && (e.tabIndex < 0 || e.matches("a:not([href]):not([tabindex])"))) bad.push("out of the keyboard's reach: " + at(e));
const next = document.querySelectorAll(".page-navigation a").length;
if (!next) bad.push("no way to the page before or after");
return bad; })()"""

LINKS = """({ids: [...document.querySelectorAll("[id], [name]")].map(e => e.id || e.getAttribute("name")),
to: [...document.querySelectorAll("a[href]")].map(e => e.href)})"""

CONTRAST = "(() => {" + COMMON + r"""
const found = {};
for (const e of texts) if (seen(e)) {
  const s = getComputedStyle(e), key = s.color + [...e.classList].slice(0, 1) + (e.closest("pre, nav, table, figure, header") || main).tagName;
  if (!(key in found)) { const c = contrast(e); found[key] = c < 4.5 ? `contrast ${c.toFixed(1)}: ${at(e)}` : ""; }
}
return Object.values(found).filter(Boolean); })()"""

SEARCH = "(async () => {" + COMMON + r"""
const input = document.querySelector(".smalldocs-search input, #quarto-search input"), wait = ms => new Promise(r => setTimeout(r, ms));
input.focus(); input.value = "ANMF"; input.dispatchEvent(new Event("input", {bubbles: true}));
for (let i = 0; i < 100 && !document.querySelector(".search-result"); i++) await wait(50);
await wait(250);   // colours change slowly
const hits = [...document.querySelectorAll(".search-result")];
const low = hits.flatMap(h => [h, ...h.querySelectorAll("*")]).filter(e => e.textContent.trim() && contrast(e) < 4.5).map(e => `${contrast(e).toFixed(1)} ${at(e)}`);
return {titles: hits.map(h => h.textContent), low, links: hits.map(h => h.href)}; })()"""


@pytest.fixture(scope="module")
def browser():
    browser = chromium.Browser(chromium.find())
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def tab(browser):
    if not (SITE / "index.html").exists(): pytest.skip("the site is not built: make docs")
    with chromium.serve(SITE) as address: yield browser, address


def stumbles(events, address):
    "Yield what went wrong while a page was loaded: errors in the console, requests elsewhere, answers that are no page"
    for e in events:
        p, what = e.get("params", {}), e.get("method")
        if what == "Runtime.exceptionThrown": yield "error: " + p["exceptionDetails"].get("exception", {}).get("description", "?")[:200]
        elif what == "Runtime.consoleAPICalled" and p["type"] in ("error", "warning"): yield f"console: {p['args'][0].get('value')}"
        elif what == "Log.entryAdded" and p["entry"]["level"] == "error" and "favicon" not in p["entry"].get("url", ""):
            yield f"log: {p['entry']['text']} {p['entry'].get('url', '')}"
        elif what == "Network.requestWillBeSent" and not p["request"]["url"].startswith((address, "data:", "about:")):
            yield "asks the network: " + p["request"]["url"]


def findings(tab, address, name):
    "Yield what is wrong with one page"
    tab.scheme("light")
    tab.size(1280)
    yield from stumbles(tab.goto(address + name), address)
    yield from tab.evaluate(CONTENT)
    yield from (f"light: {f}" for f in tab.evaluate(CONTRAST))
    for width in (1280, 390):
        tab.size(width)
        yield from (f"at {width}: {f}" for f in tab.evaluate(LAYOUT))
    tab.scheme("dark")
    tab.evaluate("new Promise(r => setTimeout(r, 120))")     # the theme changes after 50 ms
    yield from (f"dark: {f}" for f in tab.evaluate(CONTRAST))


def nowhere(links, address):
    "Yield the links between pages that lead to no page, or to no place on it; `links` is {page: {ids, to}}"
    for name, page in links.items():
        for to in dict.fromkeys(page["to"]):
            path, _, place = unquote(to.removeprefix(address)).partition("#")
            path = "index.html" if path in ("", "./") else path
            if not to.startswith(address): continue
            if path not in links: yield f"{name}: no page {path}"
            elif place and place not in links[path]["ids"]: yield f"{name}: no place {path}#{place}"


def test_every_page(tab):
    browser, address = tab
    bad, links = [], {}
    for name in sorted(str(p.relative_to(SITE)) for p in SITE.rglob("*.html")):
        bad += [f"{name}: {f}" for f in dict.fromkeys(findings(browser, address, name))]
        links[name] = browser.evaluate(LINKS)
    bad += nowhere(links, address)
    assert not bad, f"{len(bad)} findings:\n" + "\n".join(bad)


def test_link_that_leads_nowhere_is_found():
    to = [f"http://a/{x}" for x in ("", "b.html", "b.html#here", "c.html", "b.html#there", "#there")] + ["https://example.org/"]
    links = {"index.html": {"ids": [], "to": to}, "b.html": {"ids": ["here"], "to": []}}
    assert list(nowhere(links, "http://a/")) == [f"index.html: no {x}" for x in ("page c.html", "place b.html#there", "place index.html#there")]


FAULTS = {
    "<script>nothing.here()</script>": "error",
    "<script>console.error('no')</script>": "console",
    "<link rel='stylesheet' href='http://127.0.0.1:9/a.css'>": "asks the network",
    "<img alt='a' src='gone.png'>": "no picture",
    "<img src='data:image/gif;base64,R0lGODlhAQABAAAAACw='>": "no alt text",
    "<span class='katex-error'>x</span>": "formula",
    "<span class='math'>\\(x\\)</span>": "not rendered",
    "<p>[x](https://example.org)</p>": "raw Markdown",
    "<a onclick='1'>x</a>": "keyboard",
    "<p style='width: 1500px'>x</p>": "scrolls sideways",
    "<div style='overflow: hidden'><p style='width: 1500px'>x</p></div>": "sticks out",
    "<pre style='overflow: hidden'>" + 500 * "x" + "</pre>": "cut off",
    "<p style='color: #999'>x</p>": "contrast",
    "<style>@media (prefers-color-scheme: dark) {body {background: #000}}</style><p>x</p>": "dark: contrast",
    "<div class='katex-html' style='position: relative'><span class='base'>xxxxxxxx</span>"
    "<span class='tag' style='position: absolute; left: 0'><span>(1)</span></span></div>": "number over",
}


@pytest.mark.parametrize("html, fault", FAULTS.items(), ids=[*FAULTS.values()])
def test_fault_is_found(browser, tmp_path, html, fault):
    page = '<!doctype html><body><main id="m" style="width: 300px">{}</main><nav class="page-navigation"><a href="#m">on</a></nav>'
    (tmp_path / "bad.html").write_text(page.format(html))
    (tmp_path / "good.html").write_text(page.format("<p>x</p>"))
    with chromium.serve(tmp_path) as address:
        assert any(fault in f for f in findings(browser, address, "bad.html"))
        assert not any(fault in f for f in findings(browser, address, "good.html"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_search(tab, scheme):
    tab, address = tab
    tab.size(1280)
    tab.scheme(scheme)
    tab.goto(address + "index.html")
    found = tab.evaluate(SEARCH)
    assert any("ANMF" in t for t in found["titles"][:5]) and found["low"] == []
    assert not list(stumbles(tab.goto(found["links"][0]), address))
