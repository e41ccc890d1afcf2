"""The explorers of the chapters without a kernel: which one a cell makes, in which state, and with which data."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import normviz as nv
from normviz.explore import EXPLORERS, Explorer, page
from normviz.files import write_atomic


@cache
def _images():
    return nv.lab.load_images("digits")


@cache
def _looks() -> dict:
    return {recipe.arm: look for recipe, look in nv.lab.load_inside() if recipe.name == "swiglu"}


@cache
def _initial() -> list:
    return nv.lab.load_study("initial")


@cache
def _costs() -> dict:
    return next(record for record in nv.lab.load_costs() if record["environment"]["device"] == "cpu")


#: What the chapters call their data, and where the pages have it from: recorded, never measured while building
NAMES: dict[str, Callable[[], Any]] = {
    "nv": lambda: nv,
    "initial": _initial,
    "looks": _looks,
    "images": _images,
    "here": _costs,
    # Timing anew takes a machine: on a page the button is not there
    "partial": lambda: lambda *arguments, **settings: None,
    "time_layers": lambda: None,
    "device": lambda: "cpu",
}
#: What a reader is told of such data, by name
NOTES = {"here": "These pages have no machine to time: the numbers are those recorded on {name}, one thread."}


#: How many states of each are drawn ahead, those of a cursor not counted: what a chapter's bytes and a minute allow
MOST = {
    "axes": 72, "batches": 168, "outlier": 65, "geometry": 32, "invariance": 54, "groups": 24, "time": 1008,
    "cost": 105, "devices": 32, "scaling": 144, "gradient": 48, "inside": 144, "evaluation": 54,
}  # fmt: skip
_OTHERS = 24
_RESULTS = ("initial.jsonl", "inside.jsonl", "cost-cpu.json")  # what `NAMES` reads


class Shown(NamedTuple):
    """An explorer as a cell shows it; `make()` gives its state, `note` says what is to be known of its data."""

    call: str
    name: str
    make: Callable[[], Explorer]
    note: str

    def markup(self, still: str, cache: Path) -> str:
        """What a page holds of it, `still` being shown until it works.  Drawn once for each version of the package.

        cache: a folder that keeps what was drawn.
        """
        most = MOST.get(self.name, _OTHERS)
        key = hashlib.sha256(f"{_version()} {most} {self.call}".encode()).hexdigest()[:24]
        file = cache / f"{self.name}-{key}.json"
        if not file.exists():
            write_atomic(file, json.dumps(page.data(self.make(), most=most), ensure_ascii=False, default=page._plain))
        return page.markup(json.loads(file.read_text(encoding="utf-8")), still=still)


@cache
def _version() -> str:
    """A digest of all that a picture may depend on."""
    package, digest = Path(nv.__file__).parent, hashlib.sha256()
    files = [file for file in sorted(package.rglob("*")) if file.suffix in (".py", ".npz", ".js", ".css")]
    for file in files + [nv.lab.results_folder() / name for name in _RESULTS]:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def explorer_of(source: str) -> Shown | None:
    """The explorer that a cell shows; None where it shows none, or one that needs more than pages have.

    The cell's last line is `nv.explore.NAME(…)`; its arguments are literals, or made of `NAMES`.
    """
    call = _last(source)
    if not isinstance(call, ast.Call) or (name := _name(call.func)) not in EXPLORERS:
        return None
    names = {node.id for node in ast.walk(call) if isinstance(node, ast.Name)}
    if not names <= NAMES.keys():
        return None
    note = " ".join(NOTES[one].format(name=_costs()["environment"]["name"]) for one in sorted(names & NOTES.keys()))

    def make() -> Explorer:
        values = {one: NAMES[one]() for one in names}
        return eval(compile(ast.Expression(call), "<cell>", "eval"), {"__builtins__": {}}, values)

    return Shown(ast.unparse(call), name, make, note)


def shows_live(source: str) -> bool:
    """Whether a cell shows something that answers a reader: an explorer or a race."""
    return any(
        isinstance(node, ast.Call) and (_name(node.func) in EXPLORERS or _name(node.func) in ("Race", "LiveChart"))
        for node in ast.walk(ast.parse(source))
    )


def _last(source: str) -> ast.expr | None:
    body = ast.parse(source).body
    return body[-1].value if body and isinstance(body[-1], ast.Expr) else None


def _name(function: ast.expr) -> str:
    """NAME of `nv.explore.NAME`, else nothing."""
    match function:
        case ast.Attribute(value=ast.Attribute(value=ast.Name(id="nv"), attr="explore"), attr=name):
            return name
    return ""
