"""The chapters' longest trainings, which `make test` cuts short; `make test-long` runs them as they are written.

One table, so that the notebooks themselves hold nothing for the tests' sake.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest

#: By notebook the text that is replaced, which stands in it once, and what by
SHORTER = {
    "05_sequences.ipynb": {"seed=seed, steps=200": "seed=seed, steps=20"},
    "07_inside_the_vit.ipynb": {
        "steps=150, eval_every=150": "steps=30, eval_every=30",
        "range(0, 61, 2)": "range(0, 7, 2)",
        "for step in range(61)": "for step in range(7)",
        "seed=2, steps=250, eval_every=250": "seed=2, steps=20, eval_every=20",
        # What 250 steps make of the network
        "assert own < 2  # sound": "assert own < 5",
        "assert not running < 1000  # NaN, infinite or absurd": "assert running",
    },
    "pre_and_post_norm.ipynb": {"steps=80": "steps=8"},
}
#: Cells that print what such a training led to, by a line of theirs: they run, and their output is not compared
NOT_COMPARED = {
    "05_sequences.ipynb": ['print("BN: running statistics cost more than 10 points'],
    "pre_and_post_norm.ipynb": ['verdict("Post-norm fails without warm-up'],
}


def mostly_long(cases: Iterable, short: tuple) -> list:
    """Parameters of a test, of which `make test` runs those in `short`."""
    return [case if case in short else pytest.param(case, marks=pytest.mark.long) for case in cases]


def shorten(notebook: dict, name: str) -> list[dict]:
    """Replaces in the cells of a notebook of this name; returns those whose output is not to be compared."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for old, new in SHORTER.get(name, {}).items():
        (cell,) = [cell for cell in cells if old in "".join(cell["source"])]
        source = "".join(cell["source"])
        assert source.count(old) == 1, f"{name}: {old!r} stands there {source.count(old)} times"
        cell["source"] = source.replace(old, new)
    return [cell for cell in cells if any(line in "".join(cell["source"]) for line in NOT_COMPARED.get(name, ()))]
