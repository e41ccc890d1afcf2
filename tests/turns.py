"""States that a reader could reach, and the parts of a picture by name: shared by the explorers' own tests."""

import numpy as np

from normviz.explore import Explorer
from normviz.picture.scene import Scene


def walk(state: Explorer, turns: int, seed: int = 0):
    """The state, and those after one random event after the other."""
    rng = np.random.default_rng(seed)
    for _ in range(turns):
        yield state
        enabled = [control for control in state.controls().values() if control.enabled]
        control = enabled[rng.integers(len(enabled))]
        offered = control.offers()
        state = state.turn(**{control.name: offered[rng.integers(len(offered))]})


def named(scene: Scene, name: str) -> list:
    """The items of that name."""
    return [item for item in scene.drawn if getattr(item, "name", "") == name]
