"""A first state of every explorer, with the data that some of them need: shared by tests and browser tests."""

import json
from functools import cache
from pathlib import Path

import normviz as nv
from normviz.explore import EXPLORERS, Explorer

RESULTS = Path(__file__).parents[1] / "results"


@cache
def looks() -> tuple[dict, object]:
    """The recorded looks inside `swiglu` by arm, and the digits that they point into."""
    records = nv.lab.load_inside("inside", RESULTS)
    return {recipe.arm: looks for recipe, looks in records if recipe.name == "swiglu"}, nv.lab.load_images("digits")


@cache
def initial() -> list:
    return nv.lab.load_study("initial", RESULTS)


@cache
def cost_record() -> dict:
    return json.loads((RESULTS / "cost-cpu.json").read_text())


def start(name: str) -> Explorer:
    """The explorer `name` as it opens."""
    make = EXPLORERS[name]
    if name == "inside":
        records, images = looks()
        return make(records, images.train_x.numpy(), arm="bn")
    if name == "evaluation":
        records, images = looks()
        return make(records, images.test_x.numpy(), arm="bn")
    if name == "gradient":
        return make(initial())
    return make(cost_record()) if name == "cost" else make()
