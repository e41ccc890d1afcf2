# ruff: noqa: F401
"""The lab: small networks whose norm slots can be filled anew, and what each filling does to training.

    from normviz.lab import ViT, preset, train, verdict
    history = train(preset("swiglu", arm="bn", seed=0))
    print(verdict(history))

Names load when they are first used; recipes and studies need no torch.  Nothing here knows of pictures or widgets.
"""

from typing import TYPE_CHECKING

from normviz.lazy import attach

if TYPE_CHECKING:
    from normviz.arms import ARMS, KINDS, PHOTOGRAPHS, REGIMES, arms_of
    from normviz.costs import LAYERS
    from normviz.lab.cifar10 import read_cifar10
    from normviz.lab.claims import CLAIMS, ledger, markdown
    from normviz.lab.compare import accuracies, difference, fates, spread, trained, trained_of
    from normviz.lab.conclusions import Runs, conclude, memory
    from normviz.lab.data import Images, load_images
    from normviz.lab.errors import CheckpointError, DataError
    from normviz.lab.folding import fold, fold_into
    from normviz.lab.history import History
    from normviz.lab.looks import Looks
    from normviz.lab.models import build
    from normviz.lab.models.conv import ConvNet
    from normviz.lab.models.gru import InkGRU
    from normviz.lab.models.vit import FFN, Attention, PatchEmbedding, ViT
    from normviz.lab.parallel import synchronized
    from normviz.lab.probe import Probe, token_norms
    from normviz.lab.recipe import PRESETS, Recipe, preset
    from normviz.lab.studies import SLOTS, STUDIES
    from normviz.lab.study import load_inside, load_study, progress, results_folder, run_study, study_recipes, summary
    from normviz.lab.timing import (
        calibrate,
        compile_problem,
        count,
        load_costs,
        measure_layers,
        paired,
        run_layer,
        time_layers,
    )
    from normviz.lab.training import Training, evaluate, steps, train
    from normviz.lab.verdicts import Verdict, verdict
    from normviz.norms.dependence import computed_sets, moved_by_neighbours
    from normviz.series import smooth

# No module bears the name of a function: `normviz.lab.train` must mean the same, whatever was imported first
__getattr__, __dir__, __all__ = attach(__name__, __file__)
