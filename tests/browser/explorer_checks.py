"""What the explorer of notebook 01 must do in any frontend; the JupyterLab and the Colab tests share it."""

import re

import numpy as np
from browser.oracle import torch_sets
from browser.pages import NotebookPage
from playwright.sync_api import Locator, expect

import normviz as nv

AXES = "NCHW"


def shown_state(page: NotebookPage) -> tuple[str, tuple[int, ...], tuple[int, ...], int]:
    """What the controls read: method, sizes (N, C, H, W), cursor, groups."""
    name = page.value("method")
    method = next(key for key, row in nv.METHODS.items() if row.name == name)
    sizes = tuple(int(page.value(axis)) for axis in AXES)
    cursor = tuple(int(page.value(f"cursor {axis.lower()}")) for axis in AXES)
    return method, sizes, cursor, int(page.value("groups G"))


def expected_labels(method: str, sizes: tuple[int, ...], groups: int) -> np.ndarray:
    """The labels of every cell, on which the table and torch must agree."""
    labels = nv.partition(method, sizes, groups if nv.METHODS[method].grouped else None)
    np.testing.assert_array_equal(labels, torch_sets(method, sizes, groups))
    return labels


def check_picture(page: NotebookPage, method: str, sizes: tuple[int, ...], groups: int) -> None:
    """Wait until the block drawn is the one that the oracle says, for these settings."""
    labels = expected_labels(method, sizes, groups)

    def is_right(drawn: dict) -> bool:
        in_range = all(
            len(set(axis)) == size for axis, size in zip(zip(*drawn, strict=True), sizes, strict=True)
        )
        return bool(drawn) and in_range and all(labels[cell] == shown for cell, shown in drawn.items())

    page.wait_for_drawn(is_right)
    shown_method, shown_sizes, _, shown_groups = shown_state(page)
    assert (shown_method, shown_sizes) == (method, sizes)
    assert shown_groups == groups or not nv.METHODS[method].grouped


def check_statistics(page: NotebookPage) -> None:
    """The sentence under the picture gives the mean and σ of the cursor's set, to three digits."""
    method, sizes, cursor, groups = shown_state(page)
    labels = expected_labels(method, sizes, groups)
    members = nv.digit_features(*sizes)[labels == labels[cursor]].astype(np.float64)
    sentence = page.page.locator("p[role=status]").first.inner_text()
    mean, sigma = (float(x) for x in re.search(r"μ=([-\d.e]+), σ=([-\d.e]+)[;.]", sentence).groups())
    np.testing.assert_allclose([mean, sigma], [members.mean(), members.std()], rtol=6e-3, atol=1e-6)
    others = int(re.search(r"with (\d+) other", sentence)[1])
    assert others == members.size - 1


def drive_by_keyboard(page: NotebookPage) -> None:
    """From the state in which notebook 01 leaves it, turn the explorer's controls with the keyboard alone."""
    method, sizes, _, groups = shown_state(page)
    assert (method, sizes) == ("layer_token", (4, 8, 4, 4))
    check_picture(page, method, sizes, groups)
    check_statistics(page)

    keys = list(nv.METHODS)
    page.press("method", "Home")
    check_picture(page, "batch", sizes, groups)
    check_statistics(page)

    page.press("method", "ArrowRight", times=keys.index("group"))
    check_picture(page, "group", sizes, groups)  # only now G is enabled and takes the focus
    page.press("groups G", "Home")
    check_picture(page, "group", sizes, 1)
    page.press("groups G", "ArrowRight", times=2)
    check_picture(page, "group", sizes, 4)

    page.press("C", "ArrowLeft", times=2)  # 4 does not divide 6: the groups follow
    check_picture(page, "group", (4, 6, 4, 4), 3)
    page.press("N", "ArrowLeft")
    page.press("W", "ArrowRight")
    check_picture(page, "group", (3, 6, 4, 5), 3)

    before = shown_state(page)[2]
    page.press("cursor c", "ArrowRight")
    page.press("cursor h", "ArrowRight")
    page.page.wait_for_timeout(500)
    after = shown_state(page)[2]
    assert after == (before[0], before[1] + 1, before[2] + 1, before[3])
    check_picture(page, "group", (3, 6, 4, 5), 3)
    check_statistics(page)


def shows(explorer: Locator, caption: str) -> None:
    """The picture and the sentence below it are those of the state that the keys have led to."""
    expect(explorer.locator("p[role=status]")).to_have_text(caption, timeout=10_000)
    assert explorer.locator("svg[role=img]").get_attribute("aria-label") == caption


def press_button(explorer: Locator, name: str) -> None:
    """Press a button of an explorer by keyboard."""
    button = explorer.get_by_role("button", name=name, exact=True)
    button.focus()
    button.press("Enter")
