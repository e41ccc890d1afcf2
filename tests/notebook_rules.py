"""What every notebook keeps to. Each rule takes a notebook and yields what is wrong with it, in words."""

import re
from collections.abc import Iterator
from pathlib import Path

from nbformat import NotebookNode

MOST_LINES = 25
MOST_BYTES = 1_000_000
MACHINE_PATH = re.compile(r"(?<![\w.:/])/(?:home|Users|root|tmp|work|content|mnt)/[\w.]|\b[A-Z]:\\\\?\w")


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def prose(notebook: NotebookNode) -> str:
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def tagged(notebook: NotebookNode, tag: str) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


def executed_in_order(notebook: NotebookNode) -> Iterator[str]:
    counts = [cell.execution_count for cell in code_cells(notebook)]
    if counts != list(range(1, len(counts) + 1)):
        yield f"execution counts are {counts}, not 1, 2, 3, …: run `make notebooks`"


def no_errors(notebook: NotebookNode) -> Iterator[str]:
    for cell in code_cells(notebook):
        for output in cell.outputs:
            if output.output_type == "error":
                yield f"a stored error: {output.ename}: {output.evalue}"


def no_widget_state(notebook: NotebookNode) -> Iterator[str]:
    if "widgets" in notebook.metadata:
        yield "metadata.widgets is stored"


def images_have_alt_text(notebook: NotebookNode) -> Iterator[str]:
    """In Markdown and HTML the usual way; in outputs as metadata["image/png"]["alt"], which nbconvert reads too."""
    for cell in notebook.cells:
        for match in re.finditer(r"!\[([^\]]*)\]\(", cell.source if cell.cell_type == "markdown" else ""):
            if not match[1].strip():
                yield f"a Markdown image without alt text: {cell.source[match.start() :][:60]!r}"
        outputs = cell.get("outputs", [])
        html = [cell.source] if cell.cell_type == "markdown" else []
        html += ["".join(output.data["text/html"]) for output in outputs if "text/html" in output.get("data", {})]
        for text in html:
            for tag in re.findall(r"<img\b[^>]*>", text):
                if not re.search(r"""\balt=(["'])\s*[^"'\s]""", tag):
                    yield f"an <img> without alt text: {tag[:60]!r}"
        for output in outputs:
            for kind in output.get("data", {}):
                if kind.startswith("image/") and not output.metadata.get(kind, {}).get("alt", "").strip():
                    yield f"cell {cell.execution_count}: an {kind} output without alt text in its metadata"


def has_setup_cell(notebook: NotebookNode) -> Iterator[str]:
    cells = tagged(notebook, "setup")
    if [cell.cell_type for cell in cells] != ["code"] or cells[0] is not code_cells(notebook)[0]:
        yield "the first code cell, and no other, is to be tagged 'setup'"


def has_its_sections(notebook: NotebookNode) -> Iterator[str]:
    text = prose(notebook)
    for what, pattern in {
        "objectives ('You will be able to')": r"You will be able to",
        "predictions": r"\*\*Predict",
        "a section 'Check yourself'": r"^#+ .*Check yourself",
        "exercises": r"^#+ .*Exercises",
        "solutions": r"<summary>\s*Solution|solutions/",
        "a section on the claims ('What the article says')": r"^#+ .*What the article says",
    }.items():
        if not re.search(pattern, text, re.MULTILINE):
            yield f"it has no {what}"


def no_machine_paths(notebook: NotebookNode) -> Iterator[str]:
    for cell in notebook.cells:
        texts = [cell.source]
        for output in cell.get("outputs", []):
            texts += [output.get("text", "")]
            texts += ["".join(v) for k, v in output.get("data", {}).items() if k.startswith("text/")]
        for text in texts:
            if match := MACHINE_PATH.search(text):
                yield f"a path of one machine: {text[match.start() :][:50]!r}"


def short_cells(notebook: NotebookNode) -> Iterator[str]:
    for cell in code_cells(notebook):
        if (lines := cell.source.count("\n") + 1) > MOST_LINES:
            yield f"cell {cell.execution_count} has {lines} lines; {MOST_LINES} are allowed"


def no_dead_widget_views(notebook: NotebookNode) -> Iterator[str]:
    """A saved model id is random and dead: it would differ at every execution."""
    for cell in code_cells(notebook):
        for output in cell.outputs:
            if len(kinds := output.get("data", {})) > 1 and "application/vnd.jupyter.widget-view+json" in kinds:
                yield f"cell {cell.execution_count} stores a widget's model id: run `make notebooks`"


RULES = [
    executed_in_order,
    no_errors,
    no_widget_state,
    no_dead_widget_views,
    images_have_alt_text,
    has_setup_cell,
    has_its_sections,
    no_machine_paths,
    short_cells,
]


def file_is_small(path: Path) -> Iterator[str]:
    if (size := path.stat().st_size) >= MOST_BYTES:
        yield f"{size} bytes; fewer than {MOST_BYTES} are allowed"
