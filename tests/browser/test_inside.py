"""Notebook 07 in JupyterLab: its explorers by the keyboard alone, against the record and against torch."""

import re

import numpy as np
import pytest
import torch
from browser.pages import LabPage

from normviz.lab import load_inside, load_study

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NAMES = {"ln": "LN", "bn": "BN", "bn+ffnbn": "BN + FFN-BN"}


@pytest.fixture(scope="module")
def looks():
    return {recipe.arm: found for recipe, found in load_inside() if recipe.name == "swiglu"}


def captions(page: LabPage) -> list[str]:
    return page.page.locator("p[role=status]").all_inner_texts()


def wait_for(page: LabPage, which: int, *parts: str) -> str:
    """The caption of the explorer number `which`, once it holds all the parts; AssertionError if it never does."""
    for _ in range(200):
        said = captions(page)
        if len(said) > which and all(part in said[which] for part in parts):
            return said[which]
        page.page.wait_for_timeout(50)
    raise AssertionError(f"the caption {said[which:]} lacks some of {parts}")


def choose(page: LabPage, text: str, which: int) -> None:
    """The button that reads `text` in the explorer number `which`, by the keyboard."""
    explorer = page.page.locator(".widget-vbox").filter(has=page.page.locator("p[role=status]")).nth(which)
    button = explorer.locator(".widget-toggle-button", has_text=re.compile(rf"^\s*{re.escape(text)}\s*$"))
    button.focus()
    page.page.keyboard.press("Enter")


def check_inside(page: LabPage, looks, arm: str, site: str, block: int, step: int) -> None:
    look = next(look for look in looks[arm] if look["step"] == step)
    here, tokens = look[site][block], 64 * 16
    image, patch, ratio = here["longest"][0]
    said = wait_for(page, 0, f"{NAMES[arm]}, step {step}, block {block},", f"is {here['ratio']:.3g} times")
    assert f"longest of {tokens} tokens" in said and f"patch {patch} of image {image} of" in said
    assert ("bound" in said) == (site != "stream") or "nothing bounds" in said
    svg = page.page.locator("svg", has=page.page.locator(".ratio")).first
    titles = svg.locator(".ratio title").all_text_contents()
    assert titles == [f"block {i}: {block['ratio']:.4g}" for i, block in enumerate(look[site])]
    assert svg.locator(".patch").count() == len(here["longest"])
    assert ratio == here["ratio"]


def grown(kind: str, factor: int, front: str, ffn_bn: bool, evaluation: bool) -> float:
    """Token 0's output over that of factor 1, with torch's own layers; weights as the explorer draws them."""
    g = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)  # noqa: E731
    usual = draw(256, 48)
    first, second = draw(48, 192 * (2 if kind == "swiglu" else 1)) / 48**0.5, draw(192, 48) / 192**0.5

    def norm(x, before):
        source = before if evaluation else x
        return (x - source.mean(0)) / (source.var(0, correction=0) + 1e-5).sqrt()

    def hidden(x):
        if front == "LN":
            x = torch.nn.functional.layer_norm(x, (48,))
        x = (norm(x, usual) if front == "BN" else x) @ first
        silu, gelu = torch.nn.functional.silu, torch.nn.functional.gelu
        return gelu(x) if kind == "gelu" else silu(x[:, :192]) * x[:, 192:]

    def answer(k):
        x = usual.clone()
        x[0] *= k
        h = hidden(x)
        return ((norm(h, hidden(usual)) if ffn_bn else h) @ second)[0].norm().item()

    return answer(factor) / answer(1)


def check_scaling(page: LabPage, factor: int, front: str, ffn_bn: bool, evaluation: bool) -> None:
    gelu, swiglu = (grown(kind, factor, front, ffn_bn, evaluation) for kind in ("gelu", "swiglu"))
    mode = "evaluation" if evaluation else "training"
    inside = "FFN-BN inside" if ffn_bn else "no FFN-BN"
    answer = f"token × {factor} gives output: GELU FFN × {gelu:.3g}, SwiGLU FFN × {swiglu:.3g}."
    wait_for(page, 1, f"{front} in front, {inside}, {mode}", answer)


def check_evaluation(page: LabPage, looks, arm: str, step: int) -> None:
    test = next(look for look in looks[arm] if look["step"] == step)["test"]
    batch, running = (np.array([row[0] for row in test[name]], float) for name in ("batch", "running"))
    said = wait_for(page, 2, f"{NAMES[arm]}, step {step}:", f"has length {batch[-1]:.3g} by each batch's own")
    assert ("no longer finite" in said) == (not np.isfinite(running[-1]))
    last = int(np.flatnonzero(np.isfinite(running))[-1])
    image, patch = test["running"][last][1:]
    assert f"patch {patch} of test image {image}." in said


def test_the_explorers_obey_the_keyboard(open_lab, looks):
    """One run for both themes, as the notebook trains a network."""
    page = open_lab("07_inside_the_vit.ipynb", dark=True)
    page.run_all()
    page.screenshot_notebook("07_inside-dark")

    steps = [look["step"] for look in looks["bn"]]
    check_inside(page, looks, "bn", "norm2", 6, steps[-1])
    page.press("block", "ArrowRight", times=3)
    check_inside(page, looks, "bn", "norm2", 9, steps[-1])
    page.press("step", "Home")
    check_inside(page, looks, "bn", "norm2", 9, steps[0])
    page.press("step", "ArrowRight", times=2)
    choose(page, "stream", 0)
    check_inside(page, looks, "bn", "stream", 9, steps[2])
    choose(page, "LN", 0)
    choose(page, "norm1", 0)
    check_inside(page, looks, "ln", "norm1", 9, steps[2])

    check_scaling(page, 8, "nothing", ffn_bn=False, evaluation=False)
    page.press("k", "End")
    check_scaling(page, 64, "nothing", ffn_bn=False, evaluation=False)
    choose(page, "BN", 1)
    box = page.page.locator(".widget-checkbox input").first
    box.focus()
    page.page.keyboard.press("Space")
    check_scaling(page, 64, "BN", ffn_bn=True, evaluation=False)
    choose(page, "evaluation", 1)
    page.press("k", "ArrowLeft", times=2)
    check_scaling(page, 32, "BN", ffn_bn=True, evaluation=True)

    check_evaluation(page, looks, "bn+ffnbn", steps[-1])
    choose(page, "LN", 2)
    check_evaluation(page, looks, "ln", steps[-1])
    page.page.evaluate("jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Light'})")
    page.page.wait_for_selector("body[data-jp-theme-light='true']", state="attached")
    page.screenshot_notebook("07_inside-light")


def test_the_record_has_a_history_and_looks_for_every_arm(looks):
    arms = [history.recipe.arm for history in load_study("inside") if history.recipe.name == "swiglu"]
    assert sorted(arms) == sorted(looks) == sorted(NAMES)
