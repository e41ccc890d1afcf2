"""Re-execute notebooks in place so that a second run changes nothing but what really changed.

    python tools/run_notebooks.py [NOTEBOOK ...]        (default: all of them, in reading order)

What an execution leaves behind that is not the notebook's own is normalised: no widget state, no widget model ids
(random, and dead without a kernel: a saved notebook shows the PNG beside them), no timings, streams joined, the
kernel named neutrally.
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
TIMEOUT_S = 1800  # of one cell


def notebooks() -> list[Path]:
    """Every notebook of the project, in reading order (solutions after the chapters)."""
    found = (ROOT / "notebooks").glob("**/*.ipynb")
    return sorted((p for p in found if ".ipynb_checkpoints" not in p.parts), key=lambda p: (len(p.parts), p))


def normalise(notebook: nbformat.NotebookNode) -> None:
    """Drop from an executed notebook, in place, everything that differs between two equal runs."""
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNELSPEC, "language_info": {"name": "python"}})
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            if WIDGET_VIEW in output.get("data", {}) and len(output["data"]) > 1:
                del output["data"][WIDGET_VIEW]


def execute(path: Path) -> nbformat.NotebookNode:
    """The notebook at `path`, run from its own folder in a fresh kernel; raises CellExecutionError."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook,
        timeout=TIMEOUT_S,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        store_widget_state=False,
        record_timing=False,
        coalesce_streams=True,
    ).execute()
    normalise(notebook)
    return notebook


def main() -> None:
    for path in [Path(arg) for arg in sys.argv[1:]] or notebooks():
        old = path.read_text(encoding="utf-8")
        new = nbformat.writes(execute(path)) + "\n"
        if new != old:
            path.write_text(new, encoding="utf-8")
        print(f"{'changed  ' if new != old else 'unchanged'} {path.name}", flush=True)


if __name__ == "__main__":
    main()
