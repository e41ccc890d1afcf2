"""Running studies, and the files in `results/` that hold every run of them."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path

import numpy as np

from normviz.arms import KINDS
from normviz.fields import unknown
from normviz.files import locked, make_writable, write_atomic
from normviz.lab.compare import grouped
from normviz.lab.errors import CheckpointError
from normviz.lab.history import History, decode, encode
from normviz.lab.recipe import Recipe
from normviz.lab.studies import STUDIES, Study
from normviz.lab.verdicts import verdict
from normviz.series import last_tenth

ANSWER_S = 20  # seconds that a scheduler may take to answer
DIGITS = 4  # significant digits of the recorded curves: more would triple the files and show nothing


def results_folder() -> Path:
    """Where the runs recorded by the project are: in the checkout that normviz is imported from, else in the package.

    `pip install` takes them along (see pyproject.toml), so that a reader on Colab has them too.
    """
    package = Path(__file__).resolve().parents[1]
    checkout = package.parent
    return checkout / "results" if (checkout / "pyproject.toml").is_file() else package / "results"


def study_path(name: str, folder=None) -> Path:
    """The file of a study's record; folder: by default the project's own, see `results_folder`."""
    return Path(results_folder() if folder is None else folder) / f"{name}.jsonl"


def load_study(name: str, folder=None) -> list[History]:
    """The recorded runs of a study, in the order of its grid; folder: see `study_path`.

    Raises FileNotFoundError without a record.
    """
    return [History.from_dict(row) for row in _in_order(name, folder)]


def load_inside(name: str = "inside", folder=None) -> list[tuple[Recipe, list[dict]]]:
    """The looks inside of a study's runs (see `looks.Looks`).  Raises FileNotFoundError without a record."""
    rows = _in_order(name, folder)
    return [(Recipe.from_dict(row["recipe"]), decode(row["inside"])) for row in rows if "inside" in row]


def study_recipes(name: str, folder=None) -> tuple[Recipe, ...]:
    """The grid of a study, with what follows from the runs that are recorded in `folder`."""

    def records(other: str) -> list[History]:
        return load_study(other, folder) if study_path(other, folder).is_file() else []

    return (*STUDIES[name].recipes, *STUDIES[name].follow(records))


def fits(recipe: Recipe, fields: Mapping) -> bool:
    """Whether a recipe has these values."""
    return all(getattr(recipe, field) == value for field, value in fields.items())


def progress(name: str, folder=None, **fields) -> tuple[int, int]:
    """How many runs of a study's grid are recorded, without an error, and how many it has.

    fields: of the recipes; runs that have other values are not counted.
    """
    wanted = [recipe for recipe in study_recipes(name, folder) if fits(recipe, fields)]
    sound = _sound(study_path(name, folder))
    return sum(recipe in sound for recipe in wanted), len(wanted)


def _in_order(name: str, folder) -> list[dict]:
    path = study_path(name, folder)
    if not path.is_file():
        raise FileNotFoundError(f"no record of study {name!r} at {path}; make one: python -m normviz study {name}")
    rows = _sound(path)
    order = STUDIES[name].recipes if name in STUDIES else ()  # what followed comes after, as it was run
    return [rows[recipe] for recipe in dict.fromkeys((*order, *rows)) if recipe in rows]


def _sound(path: Path) -> dict[Recipe, dict]:
    """The rows of the runs that did not fail, in the order in which they were first tried."""
    return {recipe: row for recipe, row in _rows(path).items() if "error" not in row}


def _rows(path: Path) -> dict[Recipe, dict]:
    """The rows of a record, if there is one, by recipe: of a run that was tried again the last one counts."""
    rows = {}
    content = path.read_bytes() if path.is_file() else b""
    for number, line in enumerate(content.split(b"\n")[:-1], 1):  # what follows the last newline was cut off
        try:
            row = json.loads(line)
            rows[Recipe.from_dict(row["recipe"])] = row
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"{path}, line {number} is damaged: {error}") from None
    return rows


def run_study(
    name: str, folder="results", *, recipes=None, jobs: int | None = None, device=None, data_folder=None,
    scheduler: str | None = None, tell=print,
) -> Path:  # fmt: skip
    """Runs what is not yet recorded of a study and returns the path of its record, results/NAME.jsonl.

    The record gets a line after every run: a study may be stopped at any moment and started again.  A run that
    another study in `folder` has recorded is taken from there.  A run that raises is recorded with its error, and
    tried again the next time.
    recipes: the grid, by default that of STUDIES.  jobs: processes at a time, each on one thread; by default
    one per core, and one in all on a GPU.  tell: called with a line of text per run.
    scheduler: address of a Dask scheduler, such as tcp://10.0.0.1:8786, whose workers do the runs; they need normviz,
    and `data_folder` is a path of theirs.  A run whose worker died is done by another one.

    Raises ValueError for an unknown name, a record with runs that are not in the grid, a device that is not there, or
    a scheduler that does not answer; DataError where the images cannot be had; CheckpointError where another process is
    at the same study.
    """
    if recipes is None and name not in STUDIES:
        raise ValueError(unknown("study", name, STUDIES))
    path = study_path(name, folder)
    make_writable(path.parent)
    pool = _Pool(jobs, device, data_folder, scheduler)
    try:
        with locked(path.parent, wait=False, name=f".{name}.lock"):
            done: tuple[Recipe, ...] | None = None
            while done is None or (recipes is None and set(study_recipes(name, folder)) > set(done)):
                done = study_recipes(name, folder) if recipes is None else tuple(recipes)  # what follows from these
                _run_missing(name, path, done, pool, tell)
    except BlockingIOError:
        raise CheckpointError(f"{path} is in use: another process is at study {name!r}; wait for its end") from None
    return path


class _Pool:
    """Where the runs of a study are done: processes of this machine, or the workers of a Dask scheduler."""

    def __init__(self, jobs: int | None, device, data_folder, scheduler: str | None):
        self.device, self.data_folder, self.scheduler = device, data_folder, scheduler
        if scheduler is None:
            from normviz.lab.training import usable_device

            kind = usable_device(device).type
            self.device = device or kind
            jobs = jobs or (os.cpu_count() or 1 if kind == "cpu" else 1)
        self.jobs = jobs or -1  # as many as the workers have threads
        self.words = f"{jobs} at a time" if jobs else "as many at a time as the workers take"
        self.words += f" at {scheduler}" if scheduler else ""

    def __call__(self, recipes: Iterable[Recipe], study: Study) -> Iterator[dict]:
        """The rows of these runs, in whatever order they are done."""
        from joblib import Parallel, delayed, parallel_config

        calls = (delayed(_run)(recipe, self.device, self.data_folder, study.looks, study.keep) for recipe in recipes)
        with self._client() if self.scheduler else nullcontext() as client:
            where = {"backend": "dask", "client": client} if client else {"backend": "loky", "inner_max_num_threads": 1}
            with parallel_config(**where):
                # One run a task: what is done is recorded at once
                parallel = Parallel(n_jobs=self.jobs, return_as="generator_unordered", batch_size=1)
            yield from parallel(calls)

    def _client(self):
        try:
            from distributed import Client
        except ImportError:
            raise ValueError(
                f"scheduler={self.scheduler!r} needs the package distributed: pip install distributed"
            ) from None
        try:
            return Client(self.scheduler, timeout=ANSWER_S, set_as_default=False)
        except (OSError, ValueError) as error:
            raise ValueError(f"scheduler={self.scheduler!r} does not answer: {error}") from None


def _run_missing(name: str, path: Path, recipes: tuple[Recipe, ...], pool: _Pool, tell) -> None:
    study = STUDIES.get(name, Study(""))
    recorded = _recorded(path, recipes)
    if study.shares:
        for recipe, row in _borrowed(name, path.parent, set(recipes) - recorded).items():
            _append(path, row)
            recorded.add(recipe)
    missing = [recipe for recipe in recipes if recipe not in recorded]
    if pool.scheduler is None:  # images that cannot be had are noticed here; others are there for all processes
        from normviz.lab.data import load_images

        for data in {recipe.data for recipe in missing}:
            load_images(data, folder=pool.data_folder)
    tell(f"study {name}: {len(recipes) - len(missing)} of {len(recipes)} runs recorded, {pool.words}")
    began = time.perf_counter()
    for done, row in enumerate(pool(missing, study) if missing else (), 1):
        _append(path, row)
        left = (time.perf_counter() - began) / done * (len(missing) - done)
        end = row.get("error") or f"{KINDS[row['verdict']['kind']].word}, {row['verdict']['why']}"
        title = Recipe.from_dict(row["recipe"]).title
        tell(f"{done}/{len(missing)} {title}: {end} (about {left / 60:.0f} min left)")


def _run(recipe: Recipe, device, data_folder, looks: tuple[int, ...], keep: tuple[str, ...] | None) -> dict:
    """One run, in a process of its own; device: None for the GPU of that process's machine, if it has one."""
    import torch

    from normviz.lab.looks import Looks
    from normviz.lab.training import train

    if device == "cpu" or (device is None and not torch.cuda.is_available()):
        torch.set_num_threads(1)
    inside = Looks(looks) if looks else None
    try:
        history = train(recipe, device=device, data_folder=data_folder, progress=False, on_batch=inside)
    except Exception as error:  # a study of many hours must not die of one run
        return {"recipe": recipe.to_dict(), "error": f"{type(error).__name__}: {error}"}
    if history.meta["stopped"] is not None:  # Ctrl-C ends the study, and a part of a run is no run
        raise KeyboardInterrupt
    if keep is not None:
        history.probes = {name: history.probes[name] for name in ("step", "grad_norm_total", *keep)}
    row = {"verdict": verdict(history)._asdict(), **history.to_dict(DIGITS)}
    return row | ({"inside": encode(inside.looks, DIGITS)} if inside else {})


def _recorded(path: Path, recipes: tuple[Recipe, ...]) -> set[Recipe]:
    """Whose runs need not be tried again; a line that a kill cut off is taken away."""
    rows = _rows(path)
    if strange := set(rows) - set(recipes):
        how_many = "a run that is" if len(strange) == 1 else f"{len(strange)} runs that are"
        raise ValueError(
            f"{path} holds {how_many} not in the study's grid, such as {min(strange, key=str).title}: the grid has "
            "changed; move the record away and run it anew"
        )
    content = path.read_bytes() if path.is_file() else b""
    if content and not content.endswith(b"\n"):
        write_atomic(path, content[: content.rfind(b"\n") + 1])
    return {recipe for recipe, row in rows.items() if "error" not in row}


def _borrowed(name: str, folder: Path, wanted: set[Recipe]) -> dict[Recipe, dict]:
    """Runs of other studies in the same folder: a run is its recipe, whatever it was run for."""
    borrowed = {}
    for other, study in STUDIES.items():
        if other != name and study.shares and wanted & set(study.recipes):
            rows = _sound(study_path(other, folder))
            borrowed |= {recipe: rows[recipe] for recipe in rows if recipe in wanted}
    return borrowed


def _append(path: Path, row: dict) -> None:
    """One run a line, flushed to the disk before the next."""
    line = json.dumps(row, allow_nan=False, separators=(",", ":")) + "\n"
    with open(path, "ab") as file:
        file.write(line.encode())
        file.flush()
        os.fsync(file.fileno())


def summary(histories: Iterable[History], by: Iterable[str] = ("name", "arm")) -> list[dict]:
    """One row per combination of recipe fields `by`, in order of appearance.

    Each has these fields, `runs`, `verdicts` (kind → count), and `loss`, `accuracy` as (mean, standard
    deviation over the runs), the deviation NaN for a single run.  A run whose test loss is not finite counts
    in `bad_evals`; one that ended before an evaluation has no accuracy, which makes the mean NaN.
    """
    by, rows = tuple(by), []
    for values, runs in grouped(histories, *by).items():
        kinds = [verdict(run).kind for run in runs]
        ends = [run.evals[-1] if run.evals else {"accuracy": math.nan, "loss": math.nan} for run in runs]
        rows.append({
            **dict(zip(by, values, strict=True)),
            "runs": len(runs),
            "verdicts": {kind: kinds.count(kind) for kind in KINDS if kind in kinds},
            "loss": _spread([last_tenth(run.loss) for run in runs]),
            "accuracy": _spread([end["accuracy"] for end in ends]),
            "bad_evals": sum(not math.isfinite(end["loss"]) for end in ends),
        })  # fmt: skip
    return rows


def _spread(values: list[float]) -> tuple[float, float]:
    with np.errstate(invalid="ignore"):  # of a run that ended at infinity
        return math.fsum(values) / len(values), float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def table(rows: list[dict]) -> str:
    """`summary` as plain text."""
    lines = []
    for row in rows:
        *names, _, verdicts, (loss, loss_sd), (accuracy, accuracy_sd), lost = row.values()
        kinds = ", ".join(f"{count} {KINDS[kind].word}" for kind, count in verdicts.items())
        bad = f"; {lost} test losses not finite" if lost else ""
        lines.append(
            f"{' '.join(map(str, names)):32} loss {loss:6.3f} ± {loss_sd:5.3f}   "
            f"accuracy {accuracy:.3f} ± {accuracy_sd:.3f}   {kinds}{bad}"
        )
    return "\n".join(lines)
