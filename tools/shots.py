"""`python -m tools.shots [PAGES …] [--site site] [--out FOLDER]`: pictures of the built pages, to look at.

Every page in whole, at three widths, light and dark, once all its explorers work: `01_axes-390-dark.png`.  Needs the
`test` extra and a Chromium; `python -m tools.site` builds the pages.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from browser.chromium import find_chromium, launch  # noqa: E402 (the tests are no package)

PIECE = 8_000  # px
WIDTHS, THEMES = (390, 1366, 1600), ("light", "dark")

# From top to bottom: explorers begin to work, and pictures are fetched, where they come near the window
WALK = """async () => {
    const arrived = () => [...document.querySelectorAll('[data-explorer]')].every(one => one.dataset.ready)
        && [...document.images].every(one => one.complete);
    do {
        for (let y = 0; y < document.body.scrollHeight; y += 600) {
            scrollTo({top: y, behavior: 'instant'});
            await new Promise(done => setTimeout(done, 25));
        }
    } while (!arrived());
}"""


def whole(tab, width: int) -> Image.Image:
    """The page from top to bottom, piece by piece: of what is beyond 16,384 px Chromium may leave nothing."""
    height = tab.evaluate("document.documentElement.scrollHeight")
    picture = Image.new("RGB", (width, height))
    for y in range(0, height, PIECE):
        clip = {"x": 0, "y": y, "width": width, "height": min(PIECE, height - y)}
        picture.paste(Image.open(io.BytesIO(tab.screenshot(full_page=True, clip=clip))), (0, y))
    return picture


def take(pages: list[Path], out: Path, widths=WIDTHS, themes=THEMES, tell=print) -> list[Path]:
    """Writes the pictures of HTML files into a folder, which is made; gives their paths."""
    out.mkdir(parents=True, exist_ok=True)
    taken = []
    with launch(find_chromium()) as browser:
        for theme in themes:
            for width in widths:
                context = browser.new_context(
                    viewport={"width": width, "height": 900}, color_scheme=theme, reduced_motion="reduce"
                )
                tab = context.new_page()
                for page in pages:
                    tab.goto(page.resolve().as_uri())
                    tab.evaluate(WALK)
                    tab.evaluate("scrollTo(0, 0)")
                    taken.append(out / f"{page.stem}-{width}-{theme}.png")
                    whole(tab, width).save(taken[-1])
                context.close()
                tell(f"{width} px, {theme}: {len(pages)} pages")
    return taken


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.shots", description=__doc__.splitlines()[0])
    parser.add_argument("pages", nargs="*", help="names of pages, as 01_axes; all without")
    parser.add_argument("--site", type=Path, default=ROOT / "site", help="folder of the built pages (default: site)")
    parser.add_argument("--out", type=Path, default=ROOT / "test-artifacts" / "shots", help="folder of the pictures")
    chosen = parser.parse_args(arguments)
    every = {file.stem: file for file in sorted(chosen.site.rglob("*.html"))}
    if unknown := [name for name in chosen.pages if name not in every]:
        parser.error(f"unknown page {unknown[0]}; {chosen.site} has {', '.join(every) or 'none: build it first'}")
    taken = take([every[name] for name in chosen.pages or every], chosen.out)
    print(f"{len(taken)} pictures in {chosen.out}")


if __name__ == "__main__":
    main()
