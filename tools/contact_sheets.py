"""Every page of the site as a picture: wide and narrow, light and dark, on four sheets.

    make docs && python tools/contact_sheets.py --out results/site       the four sheets
    python tools/contact_sheets.py --out FOLDER --full 40_unrolled audit    full pictures of the pages that are named

Needs a Chromium. A page that is longer than a strip of the sheet goes on in the strips beside it.
"""
import argparse
import base64
import io
import sys
from pathlib import Path

from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from chromium import Browser, find, serve  # noqa: E402

WIDTHS, SCHEMES = (1280, 390), ("light", "dark")
LONGEST = 16_000     # pixels of a page that one picture holds (a limit of the browser)
STRIP = 700          # height of a strip on a sheet
SMALL = {1280: .125, 390: .25}


def pages(site):
    "The pages of the site, front page first"
    found = sorted(p.relative_to(site).with_suffix("").as_posix() for p in site.rglob("*.html"))
    return sorted(found, key=lambda name: (name != "index", "/" in name, name))


def picture(tab, address, width, scheme, scale=1.):
    "The whole page as it is seen at this width"
    tab.scheme(scheme)
    tab.size(width)
    tab.goto(address)
    tab.evaluate("document.fonts.ready.then(() => 1)")
    height = min(int(tab.evaluate("document.documentElement.scrollHeight")), LONGEST)
    clip = dict(x=0, y=0, width=width, height=height, scale=scale)
    shot = tab.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
    return Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")


def strips(image):
    "A long picture cut into strips that stand side by side"
    w, h = image.size
    n = -(-h // STRIP)
    out = Image.new("RGB", (n * (w + 2), STRIP), "white")
    for i in range(n): out.paste(image.crop((0, i * STRIP, w, min((i + 1) * STRIP, h))), (i * (w + 2), 0))
    return out


def sheet(named, wide=4000, label=16):
    "Pictures with their names below, in rows"
    rows, at = [[]], 0
    for name, image in named:
        if rows[-1] and at + image.width > wide: rows, at = [*rows, []], 0
        rows[-1].append((name, image))
        at += image.width + 12
    size = max(sum(i.width + 12 for _, i in row) for row in rows), len(rows) * (STRIP + label + 8)
    out = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(out)
    for r, row in enumerate(rows):
        x, y = 0, r * (STRIP + label + 8)
        for name, image in row:
            out.paste(image, (x, y))
            draw.text((x + 2, y + STRIP + 2), name, fill="black")
            x += image.width + 12
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--site", default=str(ROOT / "_docs"))
    p.add_argument("--out", required=True)
    p.add_argument("--full", nargs="*", help="pages to draw at full size instead")
    a = p.parse_args()
    program, out, site = find(), Path(a.out), Path(a.site)
    if program is None: sys.exit("no Chromium on this machine")
    if not (site / "index.html").exists(): sys.exit(f"{site} holds no site: make docs")
    out.mkdir(parents=True, exist_ok=True)
    with serve(site) as address:
        tab = Browser(program)
        for width in WIDTHS:
            for scheme in SCHEMES if a.full is None else ("light",):
                scale = SMALL[width] if a.full is None else 1.
                shot = ((n, picture(tab, f"{address}{n}.html", width, scheme, scale)) for n in a.full or pages(site))
                if a.full is None: sheet([(n, strips(i)) for n, i in shot]).quantize(64).save(out / f"pages_{width}_{scheme}.png")
                else:
                    for name, image in shot: image.save(out / f"{name.replace('/', '_')}_{width}.png")
        tab.close()


if __name__ == "__main__":
    main()
