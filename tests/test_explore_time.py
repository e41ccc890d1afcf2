"""The explorer of time steps against loops over single sequences, under random events."""

import re

import numpy as np
import pytest
import torch
from turns import walk

from normviz.explore.time import DRAWS, EPS, FEATURES, STEPS, Time, digit_sequences, scatter
from normviz.samples import digit_images


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


def check(state):
    reading = state.read()
    caption = state.scene(reading).alt
    batch = [ALL[i] for i in reading.images]
    assert len(batch) == state.batch_size
    assert [len(s) for s in batch] == sorted(map(len, batch), reverse=True) == reading.lengths.tolist()
    for step in {state.step, 0, 20, STEPS - 1}:
        values = members(batch, state, step)
        assert reading.alive[step] == sum(len(s) > step for s in batch)
        if not len(values):
            assert np.isnan(reading.mean[step]) and np.isnan(reading.var[step])
            continue
        expected = [float(values.mean()), float(values.var(correction=0))]
        np.testing.assert_allclose([reading.mean[step], reading.var[step]], expected, atol=1e-6)
        everyone = members(ALL, Time(feature=state.feature), step)
        expected = [float(everyone.mean()), float(everyone.var(correction=0))]
        np.testing.assert_allclose(reading.population[:, step], expected, atol=1e-5)
    values = members(batch, state, state.step)
    if state.step < len(batch[0]):
        value = batch[0][state.step][list(FEATURES).index(state.feature)]
        expected = (value - values.mean()) / (values.var(correction=0) + EPS).sqrt()
        assert reading.normalized == pytest.approx(float(expected), abs=1e-4)
        said = re.search(r"is normalized to ([+−]?[\d.]+),", caption)[1]
        assert float(said.replace("−", "-")) == pytest.approx(float(expected), abs=6e-3)
    else:
        assert np.isnan(reading.value) and "ended" in caption
    assert f"{reading.alive[state.step]} of {state.batch_size} sequences alive" in caption


@pytest.mark.parametrize("seed", [0, 1])
def test_random_events(seed):
    for state in walk(Time(), 60, seed):
        check(state)


@pytest.mark.parametrize("per_step", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_scatter_is_that_of_the_batches_drawn_one_by_one(per_step, masked):
    state = Time(batch_size=4, per_step=per_step, masked=masked)
    drawn = np.random.default_rng(1000).integers(0, 1797, (DRAWS, 4))
    low, high, noise = scatter(4, per_step, masked, "ink")
    for step in (10, 33, 38):
        sets = [members([ALL[i] for i in batch], state, step) for batch in drawn]
        means = np.array([float(values.mean()) for values in sets if len(values)])
        np.testing.assert_allclose(noise[step], means.std(ddof=1), atol=1e-5)
        np.testing.assert_allclose([low[step], high[step]], np.quantile(means, (0.05, 0.95)), atol=1e-5)


def test_where_hardly_a_batch_is_long_enough_nothing_is_said_of_its_scatter():
    assert np.isnan(scatter(2, True, True, "ink")[:, 41]).all() and "Nine in ten" not in Time(2, 41).scene().alt


def test_a_larger_batch_is_less_noisy_and_a_late_step_more():
    steps, lengths = digit_sequences()
    assert steps.shape == (1797, STEPS, 3) and lengths.max() == STEPS and lengths.min() == 16
    small, large = (Time(batch_size=n).read().noise for n in (8, 128))
    assert (small[:30] > 2 * large[:30]).all()
    assert large[37] > 3 * large[20]


def test_sizes_nest_and_seeds_differ():
    a, b = (set(Time(batch_size=n).read().images.tolist()) for n in (8, 64))
    assert a < b
    assert len({tuple(Time(seed=seed).read().images.tolist()) for seed in range(10)}) == 10
