"""Why evaluation explodes: the longest test token after every block, by two kinds of statistics."""

from copy import copy
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from normviz.arms import BLUE, VERMILION, Style, style_of
from normviz.explore.inside import Recorded
from normviz.picture.chart import Chart, legend, marker
from normviz.picture.color import MUTED
from normviz.picture.scene import Box, Handle, Label, Scene
from normviz.picture.text import number

#: Curves are told apart by what the BatchNorms divide by, not by arm
STATISTICS = {
    "batch": Style("each batch's own statistics", BLUE),
    "running": Style("running statistics, as in evaluation", VERMILION, "square", True),
}
TOPS = (1e3, 1e6, 1e12, 1e24, 1e39)  # ends of the axis; float32 ends at 3.4e38


class Reading(NamedTuple):
    """The longest test token after every block."""

    step: int
    lengths: dict[str, np.ndarray]  # "batch" and "running": (depth,), NaN or infinity where the arithmetic ended
    last: int  # the last block in which the running one is finite, 0 if none is
    token: tuple[int, int]  # (image of the test set, patch) that is longest there
    apart: int | None  # the first block in which the running one is more than twice the other


@lru_cache
def axes(depth: int, top: float) -> Chart:
    """The bare axes: blocks across, lengths up to `top`."""
    return Chart(
        Box(72, 82, 540, 240), (0, max(depth - 1, 1)), (1, top), log_y=True, x_name="block", y_name="length",
        x_ticks={i: str(i) for i in range(0, depth, 1 if depth <= 10 else 3)},
    )  # fmt: skip


@dataclass(frozen=True)
class Evaluation(Recorded):
    """Recorded runs on test images: the longest token after every block, by own and by running statistics."""

    @staticmethod
    def points(record: dict) -> list[list[tuple[int, int]]]:
        blocks = zip(*(record["test"][name] for name in STATISTICS), strict=True)
        return [[(image, patch) for _, image, patch in row] for row in blocks]

    def read(self) -> Reading:
        test = self.record["test"]
        lengths = {name: np.array([row[0] for row in test[name]], float) for name in STATISTICS}
        last = int(np.flatnonzero(np.isfinite(lengths["running"])).max(initial=0))
        wide = np.flatnonzero(~(lengths["running"] <= 2 * lengths["batch"])).tolist()
        token = tuple(map(int, test["running"][last][1:]))
        return Reading(self.record["step"], lengths, last, token, wide[0] if wide else None)

    def say(self, reading: Reading) -> str:
        batch, running = reading.lengths.values()
        end, last = number(running[-1]), running[reading.last]
        if not np.isfinite(running[-1]):
            end = "no longer finite"
            if np.isfinite(last):
                end += f" (the last finite one, in block {reading.last}, is {number(last)})"
        apart = f"They part at block {reading.apart}."
        if reading.apart is None:
            apart = "The two stay within a factor of 2."
        return (
            f"{style_of(self.arm).name}, step {reading.step}: after the last block the longest test token has length "
            f"{number(batch[-1])} by each batch's own statistics; by the running statistics it is {end}. {apart} "
            f"The longest token is patch {reading.token[1]} of test image {reading.token[0]}."
        )

    parts = ((0, 0, 630, 30), (0, 30, 272, 50), (272, 30, 900, 50), (0, 50, 630, 370), (630, 0, 844, 370))

    def draw(self, reading: Reading) -> Scene:
        lengths = reading.lengths
        top = next((top for top in TOPS if all(np.all(row <= top) for row in lengths.values())), TOPS[-1])
        chart, blocks = copy(axes(self.looks.depth, top)), range(self.looks.depth)
        backdrop, chart.items = chart.items, []
        for name, style in STATISTICS.items():
            chart.line(blocks, lengths[name], style, name=name)
            chart.dots(blocks, lengths[name], style, 5.0, name="dots")
        for name in STATISTICS:
            if (lost := np.flatnonzero(~np.isfinite(lengths[name]))).size:
                chart.upright(lost[0], f"not finite from block {lost[0]} on", name="not finite", width=1.0)
        heading = f"Longest of all test tokens after every block ({style_of(self.arm).name}, step {reading.step})"
        picture = Scene(844, 370, [*chart.items, *legend(STATISTICS.values(), 72, 46)], backdrop=backdrop)
        picture.handles.append(Handle("step of the training", ("look",), chart.box, drag={"look": (1 / 40, 0.0)}))
        image, patch = reading.token
        picture.items += [
            Label(72, 22, heading, 13, bold=True), Label(662, 22, "The longest token", 13, bold=True),
            *self.framed_image(662, 66, 150, image, patch),
            Label(662, 240, f"test image {image}, patch {patch}", color=MUTED),
            Label(662, 257, f"at block {reading.last}:", color=MUTED),
        ]  # fmt: skip
        for i, (name, style) in enumerate(STATISTICS.items()):
            y, words = 280 + 19 * i, f"{number(lengths[name][reading.last])} ({name})"
            picture.items += [marker([(667, y - 4)], style, 5.0), Label(680, y, words)]
        return picture
