"""Named grids of runs, and the files in `results/` that hold every run of them."""

from __future__ import annotations

import json
import math
import os
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from normviz.lab.history import History, decode, encode, write_atomic
from normviz.lab.recipe import Recipe, preset
from normviz.lab.verdicts import KINDS, verdict

DIGITS = 4  # significant digits of the recorded curves: more would triple the files and show nothing


class Study(NamedTuple):
    about: str
    recipes: tuple[Recipe, ...]
    looks: tuple[int, ...] = ()  # steps at which the lengths of all tokens are recorded


_THREE = ("ln", "bn", "bn+ffnbn")
_INTERVENTIONS = ("bn+cap", "ffnbn", "ln+ffnbn", "attn-ln", "ffn-ln", "rms")


def _grid(
    names: Iterable[str], arms: Iterable[str], seeds: int, settings=({},), **fixed
) -> tuple[Recipe, ...]:
    """Every combination; seeds vary slowest, so that a study cut short has whole comparisons."""
    return tuple(
        preset(name, arm, seed, **fixed | setting)
        for seed in range(seeds)
        for setting in settings
        for name in names
        for arm in arms
    )


#: The phase maps are many short runs: half the depth and half the steps of the presets.
_SHORT = {"depth": 8, "steps": 200, "warmup": 20, "eval_every": 100, "probe_every": 20}


def _same_images(batch: int, seen: int = 4800, lr: float = 0.012) -> dict:
    """Settings of a run that sees `seen` images in batches of `batch`; lr is that of 32 images."""
    steps = seen // batch
    return {
        "batch": batch, "steps": steps, "lr": lr * batch / 32, "warmup": steps // 15, "eval_every": steps,
    }  # fmt: skip


STUDIES = MappingProxyType(
    {
        "tame": Study("GELU, standardised digits: does the swap alone hurt?", _grid(["tame"], _THREE, 5)),
        "heavy": Study("GELU, contrast jitter σ = 1", _grid(["heavy"], _THREE, 5)),
        "swiglu": Study("SwiGLU, no jitter", _grid(["swiglu"], _THREE, 5)),
        "swiglu-deep": Study("SwiGLU, depth 24, no jitter", _grid(["swiglu-deep"], _THREE, 5, probe_every=20)),
        "midrun": Study("SwiGLU, jitter switched on at half time", _grid(["midrun"], _THREE, 5)),
        "deep": Study("GELU, depth 32, contrast jitter σ = 1", _grid(["deep"], _THREE, 5, probe_every=20)),
        "interventions": Study(
            "which part of the swap is to blame, in `heavy` and `swiglu`",
            _grid(["heavy", "swiglu"], _INTERVENTIONS, 2),
        ),
        "phase": Study(
            "contrast jitter σ × FFN kind × arm",
            _grid(
                ["tame"], _THREE, 3,
                [{"sigma": s, "ffn": f} for s in (0.0, 0.5, 1.0, 1.5) for f in ("gelu", "swiglu")], **_SHORT,
            ),
        ),
        "phase_batch": Study(
            "batch size at the same number of steps: a larger batch raises the bound √(N-1)",
            _grid(["heavy"], _THREE, 3, [{"batch": b} for b in (16, 64, 256)], **_SHORT),
        ),
        "phase_depth": Study(
            "depth, GELU with contrast jitter σ = 1",
            _grid(["heavy"], _THREE, 3, [{"depth": d} for d in (4, 8, 16, 24)], **_SHORT),
        ),
        "clip": Study(
            "are exploding gradients to blame? Their total norm clipped at 1",
            _grid(["swiglu", "heavy", "midrun"], ("bn", "bn+ffnbn"), 3, clip=1.0),
        ),
        "inside": Study(
            "one run per arm, with the lengths of its tokens at some steps",
            _grid(["heavy", "swiglu"], _THREE, 1),
            looks=(0, 10, 20, 40, 80, 160, 240, 320, 399),
        ),
        "batchnorm_lr": Study(
            "what BatchNorm is good for: a convolutional network of 8 layers with and without it, four learning rates",
            _grid(["conv"], ("none", "bn"), 5, [{"lr": lr} for lr in (1e-3, 4e-3, 3e-2, 1e-1)], depth=8),
        ),
        "small_batch": Study(
            "batches of 32 down to 1 image, the same 4,800 images seen, learning rate in proportion to the batch",
            _grid(["conv"], ("bn", "ln", "gn", "in"), 4, [_same_images(b) for b in (32, 16, 8, 4, 2, 1)]),
        ),
        "cifar10-heavy": Study(
            "CIFAR-10, GELU, contrast jitter", _grid(["cifar10-heavy"], _THREE, 2, eval_every=100)
        ),
        "cifar10-swiglu": Study(
            "CIFAR-10, SwiGLU, no jitter", _grid(["cifar10-swiglu"], _THREE, 2, eval_every=100)
        ),
        "sequences": Study(
            "a GRU over the ink of digits: lengths as in training, and longer than any in training",
            _grid(["gru", "gru-longer"], ("ln", "bn-input", "bn-step", "bn", "none", "bn-padded"), 5),
        ),
    }
)  # fmt: skip


#: The regimes of the crash in words, in the order in which they are told.
REGIMES = MappingProxyType(
    {
        "tame": "GELU, plain digits",
        "heavy": "GELU, contrast jitter",
        "deep": "GELU, jitter, depth 32",
        "swiglu": "SwiGLU",
        "swiglu-deep": "SwiGLU, depth 24",
        "midrun": "SwiGLU, jitter from half time",
    }
)


def results_folder() -> Path:
    """Where the runs recorded by the project are: in the checkout that normviz is imported from, else in the package.

    `pip install` takes them along (see pyproject.toml), so that a reader on Colab has them too.
    """
    package = Path(__file__).resolve().parents[1]
    checkout = package.parent
    return checkout / "results" if (checkout / "pyproject.toml").is_file() else package / "results"


def study_path(name: str, folder=None) -> Path:
    """The file of a study's record; folder: by default the project's own, see `results_folder`."""
    return Path(results_folder() if folder is None else folder) / f"{name}.json"


def load_study(name: str, folder=None) -> list[History]:
    """The recorded runs of a study, in the order of its grid; folder: see `study_path`.

    Raises FileNotFoundError without a record.
    """
    return [History.from_dict(row) for row in _rows(name, folder)]


def load_inside(name: str = "inside", folder=None) -> list[tuple[Recipe, list[dict]]]:
    """The looks inside of a study's runs (see `inside.Inside`).  Raises FileNotFoundError without a record."""
    rows = _rows(name, folder)
    return [(Recipe.from_dict(row["recipe"]), decode(row["inside"])) for row in rows if "inside" in row]


def _rows(name: str, folder) -> list[dict]:
    path = study_path(name, folder)
    if not path.is_file():
        raise FileNotFoundError(
            f"no record of study {name!r} at {path}; make one: python -m normviz study {name}"
        )
    return [row for row in json.loads(path.read_text(encoding="utf-8"))["runs"] if "error" not in row]


def run_study(
    name: str,
    folder="results",
    *,
    recipes=None,
    jobs: int | None = None,
    device=None,
    data_folder=None,
    tell=print,
) -> Path:
    """Runs what is not yet recorded of a study and returns the path of its record, results/NAME.json.

    The record is rewritten, whole, after every run: a study may be stopped at any moment and started again.
    A run that raises is recorded with its error, and tried again the next time.
    recipes: the grid, by default that of STUDIES.  jobs: processes at a time, each on one thread; by default
    one per core, and one in all on a GPU.  tell: called with a line of text per run.

    Raises ValueError for an unknown name, or a record with runs that are not in the grid.
    """
    import torch
    from joblib import Parallel, delayed, parallel_config

    if recipes is None:
        if name not in STUDIES:
            raise ValueError(f"study={name!r} is unknown; it takes one of {', '.join(STUDIES)}")
        recipes = STUDIES[name].recipes
    recipes, path = tuple(recipes), study_path(name, folder)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    jobs = jobs or (os.cpu_count() or 1 if device == "cpu" else 1)

    rows = _recorded(path, recipes)
    missing = [recipe for recipe in recipes if "error" in rows.get(recipe, {"error": ""})]
    tell(f"study {name}: {len(recipes) - len(missing)} of {len(recipes)} runs recorded, {jobs} at a time")
    began = time.perf_counter()
    looks = STUDIES[name].looks if name in STUDIES else ()
    calls = (delayed(_run)(recipe, device, data_folder, looks) for recipe in missing)
    with parallel_config("loky", inner_max_num_threads=1):
        finished = Parallel(n_jobs=jobs, return_as="generator_unordered")(calls)
    for done, row in enumerate(finished, 1):
        recipe = Recipe.from_dict(row["recipe"])
        rows[recipe] = row
        _write(path, name, recipes, rows)
        left = (time.perf_counter() - began) / done * (len(missing) - done)
        said = row.get("error") or f"{row['verdict']['kind']}, {row['verdict']['why']}"
        tell(f"{done}/{len(missing)} {_label(recipe)}: {said} (about {left / 60:.0f} min left)")
    return path


def _run(recipe: Recipe, device: str, data_folder, looks: tuple[int, ...]) -> dict:
    """One run, in a process of its own."""
    import torch

    from normviz.lab.inside import Inside
    from normviz.lab.training import train

    if device == "cpu":
        torch.set_num_threads(1)
    inside = Inside(looks) if looks else None
    try:
        history = train(recipe, device=device, data_folder=data_folder, progress=False, on_batch=inside)
    except Exception as error:  # a study of many hours must not die of one run
        return {"recipe": recipe.to_dict(), "error": f"{type(error).__name__}: {error}"}
    row = {"verdict": verdict(history)._asdict(), **history.to_dict(DIGITS)}
    return row | ({"inside": encode(inside.looks, DIGITS)} if inside else {})


def _recorded(path: Path, recipes: tuple[Recipe, ...]) -> dict[Recipe, dict]:
    if not path.exists():
        return {}
    runs = json.loads(path.read_text(encoding="utf-8"))["runs"]
    rows = {Recipe.from_dict(row["recipe"]): row for row in runs}
    if strange := set(rows) - set(recipes):
        raise ValueError(
            f"{path} holds {len(strange)} runs that are not in the study's grid, such as "
            f"{_label(min(strange, key=str))}: the grid has changed; move the record away and run it anew"
        )
    return rows


def _write(path: Path, name: str, recipes: tuple[Recipe, ...], rows: dict[Recipe, dict]) -> None:
    """One run a line: a diff shows which runs came."""
    about = STUDIES[name].about if name in STUDIES else ""
    done = [rows[recipe] for recipe in recipes if recipe in rows]
    lines = [json.dumps(row, allow_nan=False, separators=(",", ":")) for row in done]
    head = f'{{"study": {json.dumps(name)}, "about": {json.dumps(about, ensure_ascii=False)}, "runs": [\n'
    write_atomic(path, (head + ",\n".join(lines) + "\n]}\n").encode())


def _label(recipe: Recipe) -> str:
    return f"{recipe.name} {recipe.arm} seed {recipe.seed}"


def final_loss(history: History) -> float:
    """Mean training loss over the last tenth of the steps."""
    tail = history.loss[-max(1, len(history.loss) // 10) :]
    return sum(tail) / len(tail)


def summary(histories: Iterable[History], by: Iterable[str] = ("name", "arm")) -> list[dict]:
    """One row per combination of recipe fields `by`, in order of appearance.

    Each has these fields, `runs`, `verdicts` (kind → count), and `loss`, `accuracy` as (mean, standard
    deviation over the runs), the deviation NaN for a single run.  A run whose test loss is not finite counts
    in `bad_evals`.
    """
    by, cells = tuple(by), {}
    for history in histories:
        cells.setdefault(tuple(getattr(history.recipe, field) for field in by), []).append(history)
    rows = []
    for key, group in cells.items():
        kinds = [verdict(history).kind for history in group]
        rows.append(
            dict(zip(by, key, strict=True))
            | {
                "runs": len(group),
                "verdicts": {kind: kinds.count(kind) for kind in KINDS if kind in kinds},
                "loss": _spread([final_loss(history) for history in group]),
                "accuracy": _spread([history.evals[-1]["accuracy"] for history in group]),
                "bad_evals": sum(not math.isfinite(history.evals[-1]["loss"]) for history in group),
            }
        )
    return rows


def _spread(values: list[float]) -> tuple[float, float]:
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else math.nan


def table(rows: list[dict]) -> str:
    """`summary` as plain text."""
    lines = []
    for row in rows:
        fields = " ".join(f"{v}" for k, v in row.items() if k not in _COLUMNS)
        kinds = ", ".join(f"{count} {kind}" for kind, count in row["verdicts"].items())
        (loss, loss_sd), (accuracy, accuracy_sd) = row["loss"], row["accuracy"]
        bad = f"; {row['bad_evals']} test losses not finite" if row["bad_evals"] else ""
        lines.append(
            f"{fields:32} loss {loss:6.3f} ± {loss_sd:5.3f}   "
            f"accuracy {accuracy:.3f} ± {accuracy_sd:.3f}   {kinds}{bad}"
        )
    return "\n".join(lines)


_COLUMNS = ("runs", "verdicts", "loss", "accuracy", "bad_evals")
