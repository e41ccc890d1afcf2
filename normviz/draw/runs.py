"""Charts of recorded runs: loss, outlier ratio, maps of verdicts, accuracies, sweeps, evaluations, costs.

Runs come as plain data: histories with `.recipe.arm` and `.loss`, or a dict of arm -> curves.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from normviz.arms import BLUE, KINDS, VERMILION, Style, style_of, styles_of
from normviz.costs import device_words
from normviz.draw.common import NOTEBOOK_WIDTH, as_array
from normviz.fields import unknown
from normviz.picture.chart import Chart, legend
from normviz.picture.color import INK, MUTED, PAPER, readable_on
from normviz.picture.scene import Box, Label, Scene, Shapes, Strokes, rects
from normviz.picture.text import fixed, number, plural, seconds, text_width
from normviz.series import last_tenth, smooth

CHANCE = math.log(10)  # the loss of a model that says the same for every image of ten classes


def head(heading: str, entries: Sequence, x: float, width: float, note: str = "") -> tuple[list, float]:
    """A heading, a legend beside or beneath it, a note beneath both; and where the chart may begin."""
    title = Label(x, 28, heading, 13, bold=True)
    items = legend(entries, x + title.width + 26 if heading else x, 28)
    if items and max(item.extent[2] for item in items if isinstance(item, Label)) > x + width:
        items = legend(entries, x, 48, width)
    bottom = max([28, *(item.y for item in items if isinstance(item, Label))])
    if note:
        bottom += 18
        items.append(Label(x, bottom, note, color=MUTED))
    return [title, *items], bottom + 16


def panel_chart(scene: Scene, heading: str, entries: Sequence, x, y, *, left=62.0, note="", **axes) -> Chart:
    """A chart that fills a scene below its heading and legend, both drawn already; what it draws is the scene's."""
    items, top = head(heading, entries, left, scene.width - left - 12, note)
    chart = Chart(Box(left, top, scene.width - left - 20, scene.height - top - 46), x, y, **axes)
    scene.items = chart.items = [*scene.items, *items, *chart.items]
    return chart


# Training --------------------------------------------------------------------------------------------------


def by_arm(runs) -> dict[str, list[np.ndarray]]:
    """Loss curves by arm from histories or from a dict of arm -> one array or several.  Raises ValueError if empty."""
    curves: dict[str, list] = {}
    if isinstance(runs, Mapping):
        curves = {arm: [each] if len(each) and np.ndim(each[0]) == 0 else each for arm, each in runs.items()}
    else:
        for run in runs:
            curves.setdefault(run.recipe.arm, []).append(run.loss)
    curves = {arm: [as_array(curve, "runs") for curve in each] for arm, each in curves.items()}
    if not any(len(c) for each in curves.values() for c in each):
        raise ValueError(f"runs={runs!r} holds no curve; it takes histories, or a dict of arm -> arrays")
    return curves


def loss_scene(
    runs, *, log: bool = False, chance: float = CHANCE, heading: str = "Training loss", steps: int | None = None,
    keyed: bool = True, note: str = "", size: tuple[float, float] = (NOTEBOOK_WIDTH, 330),
) -> Scene:  # fmt: skip
    """Training loss over steps: every seed a thin line, the median of an arm's seeds a thick one, NaN a cross.

    runs: histories, or a dict of arm -> one array of losses or several.  steps: how far the axis reaches; by default to
    the end of the longest run.  keyed: with the names of the arms; several panels need them once only.  note: a line
    beneath the heading.  Curves are smoothed as verdicts are judged by (`normviz.series.smooth`); the numbers in
    the alt text are not.  Raises ValueError where there is no curve.
    """
    arms = by_arm(runs)
    everything = [curve for curves in arms.values() for curve in curves]
    known = max(map(len, everything))
    low = min((float(np.nanmin(c)) for c in everything if np.isfinite(c).any()), default=0.1)
    limits = (max(1e-4, min(low, 0.5)), 2 * chance) if log else (0.0, 1.35 * chance)
    scene, styles = Scene(*size), styles_of(arms)
    chart = panel_chart(
        scene, heading, [*styles.values()] if keyed else [], (0, max(steps or known, 2)), limits, note=note,
        x_name="step", y_name="training loss", log_y=log,
    )  # fmt: skip
    words, crosses = [], []
    for arm, curves in arms.items():
        style = styles[arm]
        even = np.full((len(curves), known), np.nan)
        for row, curve in zip(even, curves, strict=True):
            row[: len(curve)] = smooth(curve)
            chart.line(np.arange(known), row, style._replace(dashed=False), 0.7)
            crosses += np.flatnonzero(~np.isfinite(curve))[:1].tolist()
        even[~np.isfinite(even)] = np.nan
        at = np.flatnonzero(np.isfinite(even).any(axis=0))
        middle = np.nanmedian(even[:, at], axis=0)
        chart.line(at, middle, style, 2.6, f"median-{arm}")
        places = np.linspace(len(at) * 0.06, len(at) - 1, 9).astype(int)[: len(at)]
        chart.dots(at[places], middle[places], style, name=f"mark-{arm}")
        words.append(_loss_words(style.name, curves))
    crosses.sort()
    for k, step in enumerate(crosses):
        near = sum(other >= step - 0.06 * chart.x[1] for other in crosses[:k])  # those go one below the other
        chart.write(step, limits[1], "× NaN", dx=4, dy=12 + 14 * near, bold=True)
    chart.across(chance, f"chance {chance:.2f}", color=MUTED, name="chance", width=1.2)
    scene.alt = f"Training loss over {plural(known, 'step')}. {' '.join(words)} Chance is {chance:.2f}."
    return scene


def _loss_words(name: str, curves: Sequence[np.ndarray]) -> str:
    ends = np.array([last_tenth(c) for c in curves if len(c)])
    finite = ends[np.isfinite(ends)]
    if not finite.size:
        return f"{name}: loss not finite in {ends.size} of {plural(ends.size, 'run')}."
    lost = f", {ends.size - finite.size} not finite" if finite.size < ends.size else ""
    span = f", from {fixed(finite.min())} to {fixed(finite.max())}" if finite.size > 1 else ""
    return f"{name} ({plural(ends.size, 'run')}): mean loss of the last tenth {fixed(np.median(finite))}{span}{lost}."


def outlier_ratios(runs, probe: str = "norm2_outlier") -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Steps and outlier ratios by arm, each the largest over the blocks: what `ratios` draws.

    runs: histories with probes; one without is left out.  A step whose ratios are all NaN gives NaN.
    """
    pairs: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for run in runs:
        if run.probes.get("step"):
            largest = np.fmax.reduce(np.asarray(run.probes[probe], float), axis=1)
            pairs.setdefault(run.recipe.arm, []).append((np.asarray(run.probes["step"], float), largest))
    return pairs


def ratios_scene(
    runs: Mapping[str, Sequence], bound: float, *, heading: str = "Longest token over root-mean-square length",
    steps: int | None = None, size: tuple[float, float] = (NOTEBOOK_WIDTH, 330),
) -> Scene:  # fmt: skip
    """Outlier ratio over steps beside its bound √(N−1), on a logarithmic axis.

    runs: arm -> (steps, ratios), or a list of such pairs, one a seed; `outlier_ratios` makes them of histories.
    steps: how far the axis reaches; by default to the last one recorded.  Raises ValueError where there is none.
    """
    if not runs or not all(len(each) for each in runs.values()):
        raise ValueError(
            f"runs={runs!r} holds no ratios, or an arm without any; `outlier_ratios` makes them of probed runs"
        )
    pairs = {arm: [each] if np.ndim(each[0][0]) == 0 else list(each) for arm, each in runs.items()}
    last = max(float(np.max(at)) for each in pairs.values() for at, _ in each)
    scene = Scene(*size)
    chart = panel_chart(
        scene, heading, [style_of(arm) for arm in pairs], (0, max(steps or last, 1)), (0.9, 1.6 * bound),
        x_name="step", y_name="outlier ratio", log_y=True,
    )  # fmt: skip
    words = []
    for arm, each in pairs.items():
        style, peaks = style_of(arm), []
        for at, values in each:
            at, values = as_array(at, "runs"), as_array(values, "runs")
            chart.line(at, values, style, 2.0, f"ratio-{arm}")
            some = np.arange(0, len(at), max(1, len(at) // 9))
            chart.dots(at[some], values[some], style, name=f"mark-{arm}")
            peaks += values[np.isfinite(values)].tolist()
        words.append(f"{style.name} reaches {number(max(peaks, default=math.nan))}")
    chart.across(bound, f"bound √(N−1) = {bound:.4g}", name="bound")
    scene.alt = f"Outlier ratio over {plural(round(last), 'step')}: {', '.join(words)}; the bound is {bound:.4g}."
    return scene


# Studies ---------------------------------------------------------------------------------------------------


def phase_map_scene(
    verdicts: Mapping[str, Mapping[tuple, Sequence[str]]], *, x_name: str, y_name: str, heading: str = ""
) -> Scene:
    """Verdicts over two settings, one panel an arm, one square a run: colour and letter say its kind.

    verdicts: arm -> {(x, y): kinds of the runs there}; kinds are keys of `normviz.arms.KINDS`.
    Raises ValueError, naming the argument, for an unknown kind, or where there is no run.
    """
    runs = [run for cells in verdicts.values() for run in cells.items()]  # ((x, y), kinds)
    most = max((len(kinds) for _, kinds in runs), default=0)
    if not most:
        raise ValueError(f"verdicts={verdicts!r} holds no run; it takes arm -> {{(x, y): kinds}}")
    if strange := [kind for _, kinds in runs for kind in kinds if kind not in KINDS]:
        raise ValueError(unknown("verdicts: kind", strange[0], KINDS))
    xs, ys = (list(dict.fromkeys(at[i] for at, _ in runs)) for i in (0, 1))
    margin = max(84.0, 24 + text_width(y_name), *(20 + text_width(str(y)) for y in ys))
    panel = (NOTEBOOK_WIDTH - margin - 6) / len(verdicts)
    cell, high = (panel - 24) / len(xs), 44.0
    side = min(28.0, (cell - 6) / most)
    bottom = (top := 70.0 if heading else 44.0) + high * len(ys)
    scene = Scene(NOTEBOOK_WIDTH, bottom + 78, [Label(12, 20, heading, 14, bold=True)])
    words = []
    for p, (arm, cells) in enumerate(verdicts.items()):
        left, name, counts = margin + p * panel, style_of(arm).name, dict.fromkeys(KINDS, 0)
        scene.items.append(Label(left + (panel - 24) / 2, top - 12, name, 13, "middle", bold=True))
        for (x, y), kinds in cells.items():
            corner = left + (xs.index(x) + 0.5) * cell - side * len(kinds) / 2
            middle = top + (ys.index(y) + 0.5) * high
            for i, kind in enumerate(kinds):
                look, at = KINDS[kind], corner + i * side
                counts[kind] += 1
                title = [f"{name}, {x_name}={x}, {y_name}={y}: {look.word}"]
                square = rects(at, middle - side / 2, at + side, middle + side / 2)
                scene.items += [
                    Shapes(square, [look.color], title, stroke=PAPER, width=1.5, name="verdict"),
                    Label(at + side / 2, middle + 4, look.letter, 12, "middle", readable_on(look.color), bold=True),
                ]
        for i, x in enumerate(xs):
            scene.items.append(Label(left + (i + 0.5) * cell, bottom + 16, str(x), anchor="middle", color=MUTED))
        scene.items.append(Label(left + (panel - 24) / 2, bottom + 34, x_name, anchor="middle"))
        words.append(f"{name}: {', '.join(f'{n} {KINDS[kind].word}' for kind, n in counts.items() if n)}")
    for i, y in enumerate(ys):
        scene.items.append(Label(margin - 8, top + (i + 0.5) * high + 4, str(y), anchor="end", color=MUTED))
    scene.items.append(Label(12, top - 12, y_name))
    scene.items += legend([(k.color, k.word, k.letter) for k in KINDS.values()], margin, scene.height - 12)
    scene.alt = f"Verdicts over {x_name} ({', '.join(map(str, xs))}) and {y_name}. {'; '.join(words)}."
    return scene


def accuracies_scene(
    accuracies: Mapping[str, Mapping[str, Iterable[float]]], *, heading: str = "Test accuracy"
) -> Scene:
    """One dot a seed, a bar at the mean: regime -> arm -> accuracies from 0 to 1.  Raises ValueError where is none."""
    table = {name: {a: as_array(list(v), "accuracies") for a, v in arms.items()} for name, arms in accuracies.items()}
    if not table or not all(arms and all(values.size for values in arms.values()) for arms in table.values()):
        raise ValueError(f"accuracies={accuracies!r} has an empty place; it takes regime -> arm -> accuracies")
    names = [style_of(arm).name for arms in table.values() for arm in arms]
    # The vertical axis is a list of names: its unit is the pixel, downwards
    right = 12 + max(text_width(regime, bold=True) for regime in table)
    left = max(250.0, right + 20 + max(map(text_width, names)))
    box = Box(left, 40, NOTEBOOK_WIDTH - left - 180, 10 + 24 * len(names) + 14 * len(table))
    chart = Chart(box, (0, 1), (box.height, 0), x_name="test accuracy", heading=heading, y_ticks=False)
    words, y = [], 12.0
    for regime, arms in table.items():
        chart.add(Label(12, box.y + y + 6, regime, bold=True))
        for arm, values in arms.items():
            style, mean = style_of(arm), statistics.mean(values.tolist())  # exact, so that ties round alike everywhere
            text = f"{100 * mean:.1f}" + (f" ± {100 * values.std(ddof=1):.1f}" if values.size > 1 else "") + " %"
            chart.add(Label(left - 8, box.y + y + 6, style.name, anchor="end"))
            chart.add(Strokes(chart(mean, [y - 7, y + 11])[None], INK, 2.4, name="mean"))
            chart.dots(values, np.full(values.shape, y + 2), style, name=f"mark-{arm}")
            chart.add(Label(NOTEBOOK_WIDTH - 12, box.y + y + 6, f"{text} (n={values.size})", anchor="end"))
            words.append(f"{regime}, {style.name}: {text}")
            y += 24
        y += 14
    alt = f"Test accuracy, mean ± standard deviation over seeds. {'; '.join(words)}."
    return Scene(NOTEBOOK_WIDTH, box.height + 90, chart.items, alt)


def sweep_scene(
    values: Mapping[str, Mapping[float, Iterable[float]]], x_name: str, y_name: str, *, heading: str = "",
    percent: bool = False,
) -> Scene:  # fmt: skip
    """A measure over a positive setting, both axes logarithmic: arm -> {setting: one value a seed}.

    The line joins the means of the seeds; every seed is a small mark; the band reaches from the least to the greatest.
    percent: the values are shares, shown as percentages.  A value of zero is drawn at the lower rim.

    Raises ValueError, naming the argument, for no values, a setting not above 0, or a value that is not finite.
    """
    unit = 100 if percent else 1
    table = {
        arm: {float(x): unit * as_array(list(seeds), "values") for x, seeds in sorted(cells.items())}
        for arm, cells in values.items()
    }
    settings = sorted({x for cells in table.values() for x in cells})
    groups = [seeds for cells in table.values() for seeds in cells.values()]
    counts = {seeds.size for seeds in groups}
    if not settings or 0 in counts:
        raise ValueError(f"values={values!r} has an empty place; it takes arm -> setting -> one value a seed")
    if settings[0] <= 0:
        raise ValueError(f"values has the setting {settings[0]:g}; a logarithmic axis takes positive ones")
    everything = np.concatenate(groups)
    if not np.isfinite(everything).all():
        raise ValueError("values holds a value that is not finite; leave such runs out and say so")
    positive = everything[everything > 0] if (everything > 0).any() else np.array([0.1, 1.0])
    limits = 0.8 * float(positive.min()), 1.25 * float(positive.max())
    scene, room = Scene(NOTEBOOK_WIDTH, 360), (settings[-1] / settings[0] if len(settings) > 1 else 2.0) ** 0.04
    chart = panel_chart(
        scene, heading, [style_of(arm) for arm in table], (settings[0] / room, settings[-1] * room), limits,
        left=66, x_name=x_name, y_name=y_name, log_x=True, log_y=True, x_ticks={x: f"{x:g}" for x in settings},
    )  # fmt: skip
    words = []
    for arm, cells in table.items():  # all bands before all lines
        ends = ([*map(end, cells.values())] for end in (np.min, np.max))
        chart.band(list(cells), *ends, style_of(arm).color, name=f"band-{arm}")
    for arm, cells in table.items():
        style, xs, mean = style_of(arm), np.array(list(cells)), np.array([seeds.mean() for seeds in cells.values()])
        chart.line(xs, mean, style, 2.6, f"mean-{arm}")
        each = np.repeat(xs, [seeds.size for seeds in cells.values()])
        chart.dots(each, np.concatenate(list(cells.values())), style, 3.4, name=f"mark-{arm}")
        numbers = ", ".join(f"{m:.3g} at {x:g}" for x, m in zip(xs[::-1], mean[::-1], strict=True))
        words.append(f"{style.name}: {numbers}")
    many = f"{min(counts)} to {max(counts)} seeds" if len(counts) > 1 else plural(max(counts), "seed")
    scene.alt = f"{y_name[:1].upper()}{y_name[1:]} over {x_name}, means of {many}. {'; '.join(words)}."
    return scene


LOSSES = {
    "train_loss": Style("training loss", INK, "triangle"),
    "batch_loss": Style("test loss, each batch's own statistics", BLUE, "circle"),
    "loss": Style("test loss, running statistics", VERMILION, "square", dashed=True),
}


def evaluation_scene(histories: Iterable) -> Scene:
    """Training loss beside the test loss by both kinds of statistics, a panel an arm, every run a line.

    histories: of `lab.train` or `lab.load_study`, with `.recipe.arm` and `.evals`.  A loss that is not finite is a
    cross at the upper edge.  Raises ValueError if no history has an evaluation.
    """
    arms: dict[str, list] = {}
    for history in histories:
        if history.evals:
            arms.setdefault(history.recipe.arm, []).append(history.evals)
    if not arms:
        raise ValueError("histories holds no evaluation; it takes the histories of lab.train or lab.load_study")
    values = np.array([row[name] for runs in arms.values() for run in runs for row in run for name in LOSSES], float)
    finite = values[np.isfinite(values) & (values > 0)]
    crosses = [] if np.isfinite(values).all() else [("", "× not finite")]
    top = 30 * float(finite.max(initial=10.0)) if crosses else 2 * float(finite.max(initial=1.0))
    limits = (min(0.1, float(finite.min(initial=1.0))), top)
    items, top = head("", [*LOSSES.values(), *crosses], 66, NOTEBOOK_WIDTH - 80)
    scene, pitch, words = Scene(NOTEBOOK_WIDTH, 356, items), (NOTEBOOK_WIDTH - 6) / len(arms), []
    for i, (arm, runs) in enumerate(arms.items()):
        last, lost, name = max(row["step"] for run in runs for row in run), 0, style_of(arm).name
        chart = Chart(
            Box(66 + i * pitch, top + 18, pitch - 84, 292 - top), (0, last), limits, x_name="step",
            y_name="" if i else "loss", heading=f"{name} ({len(runs)} runs)" if len(runs) > 1 else name, log_y=True,
        )  # fmt: skip
        for run in runs:
            steps = np.array([row["step"] for row in run], float)
            for kind, style in LOSSES.items():
                losses = np.array([row[kind] for row in run], float)
                chart.line(steps, losses, style, 1.6, kind)
                chart.dots(steps, losses, style, 3.6, name="dots")
                for step in steps[~np.isfinite(losses)]:
                    chart.write(step, limits[1], "×", dy=10, size=15, anchor="middle", color=style.color, bold=True)
                lost += int((~np.isfinite(losses)).sum()) if kind == "loss" else 0
        scene.items += chart.items
        ends = {kind: np.median([run[-1][kind] for run in runs]) for kind in ("train_loss", "batch_loss")}
        worst = max((row["loss"] for run in runs for row in run if np.isfinite(row["loss"])), default=np.nan)
        words.append(
            f"{name}: training loss {ends['train_loss']:.2g} at the end, test loss {ends['batch_loss']:.2g} by each "
            f"batch's own statistics; by the running ones up to {worst:.3g}, not finite in {lost} of "
            f"{sum(map(len, runs))} evaluations"
        )
    scene.alt = f"Losses over steps, logarithmic. {'; '.join(words)}."
    return scene


# Costs -----------------------------------------------------------------------------------------------------

TIMED = ("bn", "bn+ffnbn", "folded")
NETWORK_NAMES = {"ours": "our ViT", "deit-s": "DeiT-S"}
GUIDES = {1.0: ("as LN", False), 1 / 1.2: ("20 % faster", True)}  # that many more images a second


def cost_ratios_scene(records: Iterable[Mapping]) -> Scene:
    """Inference time of whole networks over that of the LayerNorm network: median and quartiles over paired rounds.

    records: as `lab.load_costs` gives them, one a device.  What lies beyond 0.6 and 1.5 is drawn at the rim.
    Raises ValueError where no record holds a network.
    """
    records = [record for record in records if record["networks"]]
    if not records:
        raise ValueError("records holds no timed network; make one: python -m normviz bench")
    high, top, styles = 58.0, 70.0, {arm: style_of(arm) for arm in TIMED}
    tall = 14 + high * sum(len(record["networks"]) for record in records) + 26 * len(records)
    scene = Scene(840, top + tall + 54)
    title = Label(12, 22, "Time of a network over that of its LayerNorm twin", 14, bold=True)
    scene.items += [title, *legend(styles.values(), 12, 48)]
    tenths = {k / 10: f"{k / 10}" for k in range(6, 16)}
    name = "time / time of LN (left is faster)"
    chart = Chart(Box(226, top, 374, tall), (0.6, 1.5), (tall, 0), x_ticks=tenths, y_ticks=False, x_name=name)
    y, words = 14.0, []  # from the top of the chart, in pixels
    for record in records:
        chart.add(Label(12, top + y, device_words(record["environment"]), bold=True))
        y += 26
        for row in record["networks"]:
            title = f"{NETWORK_NAMES.get(row['network'], row['network'])}, batch {row['batch']}, {row['mode']}"
            chart.add(Label(24, top + y + 22, title))
            chart.add(Label(24, top + y + 38, f"LN: {seconds(row['seconds']['ln'])}", color=MUTED))
            for i, (arm, style) in enumerate(styles.items()):
                ratio, at = row["ratio_to_ln"][arm], y + 8 + 15 * i
                chart.line([ratio["low"], ratio["high"]], at, style._replace(dashed=False), 3.0, f"spread-{arm}")
                chart.dots([ratio["median"]], [at], style, 5, name=f"mark-{arm}")
                chart.add(Label(614, top + at + 4, "{median:.3f} ({low:.3f}–{high:.3f})".format(**ratio)))
                chart.add(Label(746, top + at + 4, style.name, color=MUTED))
            medians = (f"{style.name} {row['ratio_to_ln'][arm]['median']:.2f}" for arm, style in styles.items())
            words.append(f"{title}: {', '.join(medians)}")
            y += high
    for ratio, (text, dashed) in GUIDES.items():
        chart.upright(ratio, dashed=dashed, name="guide", width=1.3)
        chart.write(ratio, 0, text, dy=-4, anchor="middle")
    scene.items += chart.items
    scene.alt = f"Inference time over that of the LayerNorm network. {'; '.join(words)}."
    return scene
