"""The lab: a small ViT whose norm slots can be swapped, and what each choice does to training.

    from normviz.lab import ViT, preset, train, verdict
    history = train(preset("swiglu", arm="bn", seed=0))
    print(verdict(history))

Names load when first used; nothing here knows of pictures or widgets.
"""

from importlib import import_module

# No module bears the name of a function: `normviz.lab.train` must mean the same, whatever was imported first
_LAZY = {
    "ARMS": "vit",
    "CIFAR10_SOURCES": "data",
    "CheckpointError": "checkpoint",
    "DataError": "data",
    "History": "history",
    "PRESETS": "recipe",
    "Probe": "probe",
    "Recipe": "recipe",
    "STUDIES": "studies",
    "Verdict": "verdicts",
    "ViT": "vit",
    "computed_sets": "dependence",
    "calibrate": "cost",
    "compile_problem": "bench",
    "count": "counter",
    "evaluate": "training",
    "fold": "folding",
    "fold_into": "folding",
    "Inside": "inside",
    "load_costs": "cost",
    "load_images": "data",
    "load_inside": "study",
    "load_study": "study",
    "study_recipes": "study",
    "moved_by_company": "dependence",
    "measure_layers": "cost",
    "paired": "bench",
    "preset": "recipe",
    "run_layer": "cost",
    "time_layers": "cost",
    "run_study": "study",
    "steps": "training",
    "train": "training",
    "summary": "study",
    "token_norms": "probe",
    "verdict": "verdicts",
}

__all__ = list(_LAZY)


def __getattr__(name: str):
    if name not in _LAZY:
        raise AttributeError(f"module 'normviz.lab' has no attribute {name!r}")
    value = getattr(import_module(f"normviz.lab.{_LAZY[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted(set(globals()) | set(_LAZY))
