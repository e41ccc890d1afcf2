"""The explorers of notebook 02: batches of a population, and one extreme sample among others."""

from __future__ import annotations

import ipywidgets as w

from normviz.picture import batches as view
from normviz.picture import outlier
from normviz.picture.batches_scene import scene
from normviz.picture.widgets import SceneExplorer, buttons, int_slider

_WIDE = w.Layout(width="270px")


class BatchesExplorer(SceneExplorer):
    """Made by `explore_batches`.  `state` and `reading` are what is shown; `controls` are the widgets by name:
    batch_size, draws, momentum, evaluation, channel, scope, image, seed."""

    def __init__(self, population: view.Population, start: view.State):
        self.population = population
        channels = [(name, c) for c, name in enumerate(population.names)]
        if len(channels) == 1:  # a slider needs two ends
            channels.append((f"{channels[0][0]} ", 0))
        modes, scopes = [("training", False), ("evaluation", True)], [("map", "map"), ("one cell", "cell")]

        def pick(name, options, value):
            return w.SelectionSlider(options=options, value=value, description=name, layout=_WIDE)

        first = {
            "batch_size": pick("batch size", [(str(n), n) for n in view.SIZES], start.batch_size),
            "draws": int_slider("batches", start.draws, 1, view.DRAWS, layout=_WIDE),
            "momentum": pick("momentum", list(view.MOMENTA), start.momentum),
        }
        second = {
            "channel": pick("channel", channels, start.channel),
            "image": int_slider("image", start.image, 0, len(population.maps) - 1, layout=_WIDE),
            "seed": int_slider("seed", start.seed, 0, view.SEEDS - 1, layout=_WIDE),
        }
        third = {
            "evaluation": buttons("mode", modes, start.evaluation, "90px"),
            "scope": buttons("average over", scopes, start.scope, "80px"),
        }
        super().__init__(first, second, third)

    def scene(self, with_text: bool = False):
        self.state = view.State(**{name: control.value for name, control in self.controls.items()})
        self.reading = view.read(self.population, self.state)
        return scene(self.population, self.state, self.reading, with_text=with_text)


def explore_batches(
    x=None,
    *,
    batch_size: int = 8,
    draws: int = 20,
    momentum: float | None = 0.1,
    channel: int | None = None,
    scope: str = "map",
    image: int = 0,
    seed: int = 0,
    evaluation: bool = False,
) -> BatchesExplorer:
    """An explorer of BatchNorm's statistics: batches drawn from a population, the running estimate, one image's fate.

    x: the population, tensor or array (n, C, H, W); None for 1797 handwritten digits through eight filters.
    batch_size: of `batches.SIZES`; draws: 1 to 40 batches; momentum: one of `batches.MOMENTA`'s values.
    channel: index of the channel shown; scope: "map" averages over all positions, as BatchNorm2d does, "cell" takes
        one cell of each map, as BatchNorm1d has one number a sample.
    image: index of the image that is put into every batch; seed: 0 to 9; evaluation: start in evaluation mode.

    Raises TypeError if x is not numeric; ValueError, naming the argument, for anything outside of these.
    """
    population = view.population_of(x)
    choices = {} if channel is None else {"channel": channel}
    state = view.make_state(
        population, batch_size=batch_size, draws=draws, momentum=momentum, scope=scope, image=image, seed=seed,
        evaluation=evaluation, **choices,
    )  # fmt: skip
    return BatchesExplorer(population, state)


class OutlierExplorer(SceneExplorer):
    """Made by `explore_outlier`.  `state` and `reading` are what is shown; controls: size, factor."""

    def __init__(self, start: outlier.State):
        def pick(name, options, value):
            return w.SelectionSlider(
                options=[(str(o), o) for o in options], value=value, description=name, layout=_WIDE
            )

        super().__init__({
            "size": pick("samples N", outlier.SIZES, start.size),
            "factor": pick("factor k", outlier.FACTORS, start.factor),
        })  # fmt: skip

    def scene(self, with_text: bool = False):
        self.state = outlier.State(**{name: control.value for name, control in self.controls.items()})
        self.reading = outlier.read(self.state)
        return outlier.scene(self.state, self.reading, with_text=with_text)


def explore_outlier(size: int = 16, factor: int = 1) -> OutlierExplorer:
    """An explorer of one sample that is multiplied, and what BatchNorm and LayerNorm make of it and of the others.

    Raises ValueError, naming the argument, for a size outside of `outlier.SIZES` or a factor outside of its FACTORS.
    """
    return OutlierExplorer(outlier.make_state(size, factor))
