"""The explorer of notebook 05 against loops over single sequences, under random events."""

import random
import re
from html import escape

import numpy as np
import pytest
import torch

import normviz as nv
from normviz.picture.sequences import DRAWS, EPS, FEATURES, SEEDS, State, _noise, digit_sequences, read
from normviz.picture.svg import to_svg
from normviz.samples import digit_images

LONGEST = 42


def whole_sequences(images):
    """Every image's ink pixels as a list of (row, column, ink), by a loop."""
    return [[(r, c, float(image[r, c])) for r, c in np.argwhere(image > 0)] for image in images]


ALL = whole_sequences(digit_images(1797))


def members(sequences, state, step):
    """The values that the state's statistics at a step average, collected one by one."""
    feature = list(FEATURES).index(state.feature)
    longest = max(map(len, sequences))
    found = []
    for sequence in sequences:
        times = [step] if state.per_step else range(longest)
        for t in times:
            if t < len(sequence):
                found.append(sequence[t][feature])
            elif not state.masked and t < longest:
                found.append(0.0)
    return torch.tensor(found, dtype=torch.float64)


def check(explorer):
    state, reading = explorer.state, explorer.reading
    batch = [ALL[i] for i in reading.images]
    assert len(batch) == state.batch_size
    assert [len(s) for s in batch] == sorted(map(len, batch), reverse=True) == reading.lengths.tolist()
    for step in {state.step, 0, 20, LONGEST - 1}:
        values = members(batch, state, step)
        assert reading.alive[step] == sum(len(s) > step for s in batch)
        if not len(values):
            assert np.isnan(reading.mean[step]) and np.isnan(reading.var[step])
            continue
        expected = [float(values.mean()), float(values.var(correction=0))]
        np.testing.assert_allclose([reading.mean[step], reading.var[step]], expected, atol=1e-6)
        everyone = members(ALL, State(feature=state.feature), step)
        expected = [float(everyone.mean()), float(everyone.var(correction=0))]
        np.testing.assert_allclose(reading.population[:, step], expected, atol=1e-5)
    values = members(batch, state, state.step)
    if state.step < len(batch[0]):
        value = batch[0][state.step][list(FEATURES).index(state.feature)]
        expected = (value - values.mean()) / (values.var(correction=0) + EPS).sqrt()
        assert reading.normalized == pytest.approx(float(expected), abs=1e-4)
        said = re.search(r"is normalized to ([+−]?[\d.]+),", reading.caption)[1]
        assert float(said.replace("−", "-")) == pytest.approx(float(expected), abs=6e-3)
    else:
        assert np.isnan(reading.value) and "ended" in reading.caption
    assert f"{reading.alive[state.step]} of {state.batch_size} sequences alive" in reading.caption
    assert escape(reading.caption) in explorer._text.value
    assert to_svg(explorer.scene()) in explorer._picture.value
    assert explorer.twin().alt == reading.caption


@pytest.mark.parametrize("seed", [0, 1])
def test_random_events(seed):
    dice, explorer = random.Random(seed), nv.explore_time()
    check(explorer)
    for _ in range(60):
        control = explorer.controls[dice.choice(list(explorer.controls))]
        if hasattr(control, "options"):
            control.value = dice.choice([o[1] if isinstance(o, tuple) else o for o in control.options])
        else:
            control.value = dice.randint(control.min, control.max)
        check(explorer)


@pytest.mark.parametrize("per_step", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_noise_is_that_of_the_batches_drawn_one_by_one(per_step, masked):
    state = State(batch_size=4, per_step=per_step, masked=masked)
    drawn = np.random.default_rng(1000).integers(0, 1797, (DRAWS, 4))
    low, high, noise = _noise(4, per_step, masked, "ink")
    for step in (10, 33, 38):
        sets = [members([ALL[i] for i in batch], state, step) for batch in drawn]
        means = np.array([float(values.mean()) for values in sets if len(values)])
        np.testing.assert_allclose(noise[step], means.std(ddof=1), atol=1e-5)
        np.testing.assert_allclose([low[step], high[step]], np.quantile(means, (0.05, 0.95)), atol=1e-5)


def test_a_larger_batch_is_less_noisy_and_a_late_step_more():
    steps, lengths = digit_sequences()
    assert steps.shape == (1797, LONGEST, 3) and lengths.max() == LONGEST and lengths.min() == 16
    small, large = (read(State(batch_size=n)).noise for n in (8, 128))
    assert (small[:30] > 2 * large[:30]).all()
    assert large[37] > 3 * large[20]


def test_sizes_nest_and_seeds_differ():
    a, b = (set(read(State(batch_size=n)).images.tolist()) for n in (8, 64))
    assert a < b
    batches = {tuple(read(State(seed=seed)).images.tolist()) for seed in range(SEEDS)}
    assert len(batches) == SEEDS


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"batch_size": 3}, "batch_size=3 is unknown; it takes one of 2, 4, 8"),
        ({"step": 42}, "step=42 must be an integer from 0 to 41"),
        ({"step": 1.5}, "step=1.5 must be an integer"),
        ({"feature": "colour"}, "feature='colour' is unknown; it takes one of row, column, ink"),
        ({"seed": -1}, "seed=-1 must be an integer from 0 to 9"),
    ],
)
def test_refuses(wrong, words):
    for function in (nv.explore_time, nv.draw_time):
        with pytest.raises(ValueError) as error:
            function(**wrong)
        assert words in str(error.value)


def test_static_figures_tell_what_they_show():
    assert nv.draw_time(step=20).alt == nv.explore_time(step=20).twin().alt
    lengths = [len(s) for s in ALL[:4]]
    assert f"sequences of {', '.join(map(str, lengths))} steps" in nv.draw_ink().alt
    assert "BN with padding 0.5" in nv.draw_padding({"bn-padded": [0.0, 0.5], "ln": [0.0, 0.0]}, [0, 8]).alt
    with pytest.raises(ValueError, match="one value per amount of padding"):
        nv.draw_padding({"ln": [0.0]}, [0, 8])
    with pytest.raises(ValueError, match="it takes 1 to 4 images"):
        nv.draw_ink(np.zeros((5, 8, 8)))
