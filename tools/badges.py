"""Write the badge row of every notebook and every Colab link of the README from [project.urls].

A badge row is the cell tagged "badges"; it is generated whole, so that moving the repository is one edit in
pyproject.toml and one `make badges`.
"""

import re
import sys
from pathlib import Path

import nbformat

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
COLAB = "https://colab.research.google.com"
# Any Colab badge, whatever it points to now; the group is the notebook's path in the repository.
BADGE = re.compile(r"\[!\[[^\]]*\]\([^)]*\)\]\(" + re.escape(COLAB) + r"/github/[^)]*?/(notebooks/[^)]+\.ipynb)\)")


def repository() -> str:
    """The repository's address, `https://github.com/owner/name`, from the one place that keeps it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project["urls"]["Repository"].rstrip("/")


def badge(path: str) -> str:
    """The Markdown badge that opens the notebook at `path` (relative to the repository) in Colab."""
    slug = repository().removeprefix("https://github.com/")
    link = f"{COLAB}/github/{slug}/blob/main/{path}"
    return f"[![Open {Path(path).stem} in Colab]({COLAB}/assets/colab-badge.svg)]({link})"


def badge_row(path: str) -> str:
    """The whole source of a notebook's badge cell."""
    return f"{badge(path)} · [Source]({repository()}/blob/main/{path}) · [All notebooks]({repository()}#readme)"


def rewrite_links(text: str) -> str:
    """`text` (the README) with every Colab badge pointing where it should."""
    return BADGE.sub(lambda match: badge(match[1]), text)


def main() -> None:
    for file in sorted(ROOT.glob("notebooks/**/*.ipynb")):
        if ".ipynb_checkpoints" in file.parts:
            continue
        notebook = nbformat.read(file, as_version=4)
        row = badge_row(file.relative_to(ROOT).as_posix())
        for cell in notebook.cells:
            if "badges" in cell.metadata.get("tags", []) and cell.source != row:
                cell.source = row
                nbformat.write(notebook, file)
                print(f"badges: {file.relative_to(ROOT)}")
    readme = ROOT / "README.md"
    old = readme.read_text(encoding="utf-8")
    if (new := rewrite_links(old)) != old:
        readme.write_text(new, encoding="utf-8")
        print("badges: README.md")


if __name__ == "__main__":
    main()
