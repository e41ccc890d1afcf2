"""Replayed steps are the steps: on a GPU by the graphs themselves, on a CPU by a stand-in that tells which were."""

import pytest
import torch

from normviz.lab import preset, steps
from normviz.lab.replay import Replay, replayable

SMALL = {"depth": 2, "steps": 16, "batch": 32, "warmup": 4, "eval_every": 8, "eval_images": 64, "probe_every": 5}


class Graphs(Replay):
    """Captures nothing: a replay takes the step and puts what it returns where the captured one put it."""

    replayed: list

    def _capture(self, x, y, settings):
        taken = tuple(torch.zeros(()) for _ in range(2))

        class Graph:
            def replay(graph):
                self.replayed.append(self.at())
                for held, value in zip(taken, self.step(x, y, *settings), strict=True):
                    held.copy_(value)

        return Graph(), x, y, taken


def pair(**changes):
    recipe = preset("swiglu", **SMALL | changes)
    run, plain = (steps(recipe, device="cpu") for _ in range(2))

    def take():
        graphs = Graphs(run._step)
        graphs.replayed, graphs.at = replayed, lambda: run.step
        return graphs

    replayed = []
    run._take, forget = take(), run.optimizer.state.clear

    def forgets():
        forget()
        run._take = take()

    run.forget = forgets
    return run, plain, replayed


@pytest.mark.parametrize("changes", [{"arm": "bn"}, {"arm": "ln", "clip": 0.5, "clip_steps": 9}, {"poison": 10.0}])
def test_replayed_and_plain_steps_are_told_apart_and_agree(changes):
    run, plain, replayed = pair(**changes)
    for _ in zip(run, plain, strict=True):
        pass
    assert replayed == [4, 6, 7, 8, 9, 11, 12, 13, 14]  # after three plain ones; 0, 5, 10 and 15 are probed
    assert run.history.loss == plain.history.loss and run.history.grad_norm == plain.history.grad_norm
    assert str(run.history.probes) == str(plain.history.probes) and run.history.evals == plain.history.evals
    assert len(run._take._graphs) == (1 if changes == {"arm": "bn"} else 2)  # one a setting


def test_after_a_forget_the_optimizer_makes_its_state_before_it_is_captured_again():
    run, plain, replayed = pair(reset_at=8)
    for _ in zip(run, plain, strict=True):
        pass
    assert replayed == [4, 6, 7, 12, 13, 14] and run.history.loss == plain.history.loss


def test_what_a_graph_cannot_hold_is_not_replayed():
    def asked(arm="bn", **changes):
        run = steps(preset("swiglu", arm, **SMALL | changes), device="cpu", replay=True)
        for group in run.optimizer.param_groups:  # as on a GPU
            group.setdefault("capturable", False)
            group["capturable"] = group["capturable"] or recipe_has_tensors
        return run, replayable(run.model, run.optimizer, run.scaler)

    recipe_has_tensors = True
    assert asked()[1] and not asked("prepbn")[1] and not asked("rbn")[1] and not asked(precision="fp16")[1]
    assert not asked()[0]._replays  # a CPU has no graphs
    recipe_has_tensors = False
    assert not asked()[1] and not asked(optimizer="sgd", weight_decay=0.0)[1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(
    "changes",
    [{"arm": "bn"}, {"arm": "bn+ffnbn", "clip": 1.0}, {"arm": "ln", "clip": 1.0, "clip_steps": 15}, {"reset_at": 25},
     {"arm": "bn", "ghost_tokens": 256, "batch": 256}, {"arm": "dyt"}, {"arm": "bn+embedln", "precision": "bf16"}],
)  # fmt: skip
def test_on_a_gpu_sixty_replayed_steps_are_bit_identical(changes):
    recipe = preset("heavy", **{"arm": "bn", "seed": 100, "steps": 60, "eval_every": 60, "probe_every": 40} | changes)
    run, plain = steps(recipe, device="cuda", replay=True), steps(recipe, device="cuda")
    for _ in zip(run, plain, strict=True):
        pass
    assert run._take._graphs and run.history.loss == plain.history.loss
