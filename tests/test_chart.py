"""Charts, numbers in words, measured text: what every picture is made of."""

import math
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from normviz.arms import ARMS, KINDS, Style
from normviz.picture import text
from normviz.picture.chart import BINS, Chart, before_after, legend, mean_and_std, shares, ticks
from normviz.picture.color import PAPER, grey_fills, grey_pixels, photo_pixels, rgb, set_fill, value_fills, value_pixels
from normviz.picture.scene import Box, Label, Scene, Shapes, Strokes
from normviz.picture.text import amount, fixed, interval, number, percent, plural, seconds, signed, text_width, vector

finite = st.floats(allow_nan=False, allow_infinity=False)
positive = st.floats(1e-290, 1e290)
STYLE = Style("a curve", "#0072B2", "circle")


def labels(items):
    return [item for item in items if isinstance(item, Label)]


@given(finite)
def test_numbers_in_words_are_the_numbers(value):
    def back(word):
        superscripts = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
        if word.startswith("10") and word[2:] and word[2:] != word[2:].translate(superscripts):
            return float(f"1e{word[2:].translate(superscripts)}")
        return float(word.replace("−", "-").replace(",", ""))

    word = number(value, 6)
    assert "-" not in word
    assert back(word) == pytest.approx(value, rel=1e-5)
    assert (word == "0") == (value == 0)  # nothing is hidden, however small
    assert len(fixed(value)) < 14
    if abs(value) < 1e9:
        assert back(fixed(value)) == pytest.approx(value, abs=0.0051)
    assert fixed(value) != "−0.00"


def test_words_around_numbers():
    assert [number(v) for v in (1e5, 1e6, 1e-5, 1e-4, -0.0, 123456, math.nan)] == [
        "10⁵", "10⁶", "10⁻⁵", "0.0001", "0", "123,000", "nan",
    ]  # fmt: skip
    assert [signed(v) for v in (0.5, -2, 0)] == ["+0.5", "−2", "0"]
    assert [percent(v) for v in (4.3, 0.43, 2e-5, 0, math.nan)] == ["430 %", "43 %", "0.002 %", "0 %", "—"]
    assert [plural(n, "set") for n in (0, 1, 2)] == ["0 sets", "1 set", "2 sets"]
    assert [seconds(v) for v in (2, 0.0123, 3e-5, 7e-9, 0)] == ["2 s", "12.3 ms", "30 µs", "7 ns", "0"]
    assert [amount(1.2e6, "B"), amount(3e4), amount(12, "B")] == ["1.2 MB", "30 k", "12 B"]
    assert vector([1, -0.5, -0.001]) == "(1.00, −0.50, 0.00)" and interval(-1, 2) == "−1.00 to 2.00"


def test_widths_are_those_of_the_font():
    from fontTools.ttLib import TTFont

    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    for bold, name in ((False, "DejaVuSans.ttf"), (True, "DejaVuSans-Bold.ttf")):
        font = TTFont(folder / name)
        names, advances = font.getBestCmap(), font["hmtx"]
        for character, width in text._EM[bold].items():
            assert width == pytest.approx(advances[names[ord(character)]][0] / 2048, abs=0.0051), character
    assert text_width("é") == text_width("e") and text_width("語") > text_width("W") * 0.9


@pytest.mark.parametrize("bold", [False, True])
def test_no_text_is_drawn_wider_than_measured(bold):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(dpi=100)
    FigureCanvasAgg(figure)
    for words in ("σ = 1.05e+06, 37.7 at 1; 11.5 at 32", "LayerNorm (per token): tensor N=4×C=6", "mmm 111 √(N−1)"):
        drawn = figure.text(0, 0, words, size=12 * 0.72, family="DejaVu Sans", weight="bold" if bold else "normal")
        assert drawn.get_window_extent(figure.canvas.get_renderer()).width <= text_width(words, 12, bold) + 2


@given(positive, positive)
def test_a_log_axis_has_three_labels_at_least(low, high):
    low, high = sorted((low, high))
    assume(high > 1.001 * low)
    marked = ticks((low, high), True)
    assert 3 <= len(marked) <= 12 and len(set(marked.values())) == len(marked)
    assert all(low * (1 - 1e-6) <= value <= high * (1 + 1e-6) for value in marked)


@given(finite, finite)
def test_any_two_ends_make_an_axis(low, high):
    low, high = sorted((low, high))
    assume(high - low > 1e-9 * max(abs(low), abs(high)) and high - low > 1e-300)
    marked = list(ticks((low, high), False))
    assert 3 <= len(marked) <= 11 and np.isfinite(marked).all()
    chart = Chart(Box(60, 40, 400, 200), (low, high), (low, high))
    points = chart([low, high, math.nan], [low, high, 0])
    np.testing.assert_allclose(points[:2], [(60, 240), (460, 40)])
    assert np.isnan(points[2]).any()
    inside = chart(np.array([-1e308, 1e308, math.inf]), np.array([1e308, -1e308, -math.inf]))
    assert (inside >= (60, 40)).all() and (inside <= (460, 240)).all()


def test_a_wanted_axis_is_as_wanted():
    assert ticks((0, 1), True, {1.0: "one"}) == {1.0: "one"} and ticks((0, 1), False, False) == {}
    chart = Chart(Box(60, 40, 400, 200), (0, 99), (0, 1), x_ticks={float(i): f"block {i}" for i in range(100)})
    assert not Scene(520, 300, chart.items).overlaps()  # those that would collide are left out


def test_gaps_and_missing_values():
    chart = Chart(Box(60, 40, 400, 200), (0, 5), (0, 10), x_ticks=False, y_ticks=False)
    y = np.array([1, 2, np.nan, 4, 5, np.inf])
    assert len(chart.line(range(6), y, STYLE).points) == 2
    dots = chart.dots(range(6), y, STYLE, hollow=[True] + [False] * 5)
    assert dots.fills == [PAPER] + [STYLE.color] * 3
    np.testing.assert_allclose(dots.points.mean(axis=1), chart([0, 1, 3, 4], [1, 2, 4, 5]), atol=1e-6)
    bars = chart.bars(range(6), y, 0.8, "#123456", titles=list("abcdef"))
    assert bars.fills == ["#123456"] * 4 and bars.titles == list("abde")
    assert bars.points[1].tolist() == [*map(list, chart([0.6, 1.4, 1.4, 0.6], [2, 2, 0, 0]))]
    band = chart.band(range(6), y - 1, y, "#000000")
    assert band.points.shape == (1, 8, 2)
    assert chart.items[-4:] == [chart.items[1], dots, bars, band]


@given(st.lists(st.floats(0, 10), min_size=5, max_size=5), st.floats(0.5, 9.5))
def test_a_reference_line_has_its_text_where_there_is_room(values, at):
    chart = Chart(Box(60, 40, 400, 200), (0, 4), (0, 10), heading="Heading", x_name="x", y_name="y")
    chart.line(range(5), values, STYLE)
    chart.across(at, "a bound", name="bound")
    chart.upright(at / 2.5, "from here on")
    scene = Scene(500, 300, chart.items)
    assert not scene.labels_outside()
    line = next(item for item in chart.items if getattr(item, "name", "") == "bound")
    label = next(label for label in labels(chart.items) if label.text == "a bound")
    assert abs(label.y - line.points[0, 0, 1]) < 16
    if values == [0.0] * 5 and 2 < at < 8:
        assert not scene.overlaps()


def test_a_reference_line_evades_a_curve():
    def label(values):
        chart = Chart(Box(60, 40, 400, 200), (0, 4), (0, 10))
        chart.line(np.linspace(0, 4, 50), values, STYLE)
        chart.across(5, "a bound")
        return next(label for label in labels(chart.items) if label.text == "a bound")

    assert label(np.zeros(50)).anchor == "end"
    assert label(np.linspace(0, 5.3, 50)).anchor == "start"


def test_the_legend_breaks_its_lines():
    entries = [*ARMS.values()][:9]
    entries += [("#123456", "a swatch"), ("", "words alone"), *((k.color, k.word, k.letter) for k in KINDS.values())]
    items = legend(entries, 20, 30, 300)
    scene = Scene(325, 400, items)
    assert not scene.overlaps() and not scene.labels_outside()
    words = [label.text for label in labels(items) if label.anchor == "start"]
    assert words == [getattr(entry, "name", None) or entry[1] for entry in entries]
    assert len({label.y for label in labels(items)}) > 3
    in_line = labels(legend(entries[:2], 0, 0))
    assert in_line[0].extent[2] + 32 < in_line[1].x and in_line[0].y == in_line[1].y


@given(st.lists(st.floats(width=32) | st.sampled_from([1e300, -1e300, 5e-324]), min_size=1, max_size=60))
def test_shares_are_counts_of_the_finite_values(values):
    values = np.array(values)
    for limit in (1.0, 1e300, 1e-300):
        each = shares(values, limit)
        count = np.isfinite(values).sum()
        assert each.shape == (BINS,) and (each >= 0).all()
        assert each.sum() == pytest.approx(1.0 if count else 0.0)
        below = np.isfinite(values) & (values < 0)
        assert each[: BINS // 2].sum() * count == pytest.approx(
            below.sum(), abs=1e-6 + (abs(values) < limit / 1e15).sum()
        )


@given(st.lists(finite.filter(lambda v: v == 0 or abs(v) > 1e-290), min_size=1, max_size=30))
def test_mean_and_std_of_any_magnitude(values):
    mean, std = mean_and_std(np.array(values))
    scale = max(map(abs, values)) or 1.0
    exact = np.array([v / scale for v in values])
    assert mean / scale == pytest.approx(exact.mean(), abs=1.1e-6) and std / scale == pytest.approx(
        exact.std(), abs=1e-9
    )


@pytest.mark.parametrize("scale", [1.0, 1e-7, 1e12, 1e300, 1e-308])
def test_histograms_of_any_magnitude(scale):
    x = scale * np.random.default_rng(0).normal(size=(4, 6))
    inside = np.zeros(x.shape, bool)
    inside[:, 2] = True
    items = before_after(
        Box(10, 10, 420, 180), ("before", "after"), (x, x / 2), inside, limit=3 * scale, fill="#0072B2"
    )
    scene = Scene(440, 200, items)
    assert not scene.labels_outside() and not scene.overlaps()
    for item in items:
        if isinstance(item, (Shapes, Strokes)):
            assert np.isfinite(item.points).all()
            assert (item.points >= 0).all() and (item.points <= (440, 200)).all()
    bars = [item for item in items if getattr(item, "name", "") == "histogram-set"]
    for item, values in zip(bars, (x, x / 2), strict=True):
        assert len(item.points) == (shares(values[inside], 3 * scale) > 0).sum()


def test_pixels_and_fills_agree():
    values = np.array([[0.0, 1.0], [-2.0, np.nan]])
    fills, marks = value_fills(values.ravel(), 1.0)
    np.testing.assert_array_equal(value_pixels(values, 1.0).reshape(-1, 3), [rgb(fill) for fill in fills])
    assert marks == ["", "", "low", "nan"]
    image = np.array([[0.0, 0.5], [1.0, 0.25]])
    np.testing.assert_array_equal(grey_pixels(image).reshape(-1, 3), [rgb(fill) for fill in grey_fills(image)])
    assert grey_pixels(image)[1, 0, 0] < grey_pixels(image)[0, 1, 0] < grey_pixels(image)[0, 0, 0] == 255
    assert photo_pixels(np.full((3, 1, 2), 2.0)).tolist() == [[[255] * 3] * 2]
    assert set_fill(9) == set_fill(2) != set_fill(2, faded=True)
