"""`python -m normviz train`, `study` and `bench`."""

from __future__ import annotations

import argparse
import ast
import sys
from dataclasses import fields
from pathlib import Path

from normviz.lab.recipe import PRESETS, Recipe, preset


def main(argv: list[str] | None = None) -> int:
    """Runs ["train", …], ["study", …] or ["bench", …], the words after `python -m normviz`; returns the exit code."""
    arguments = _parser().parse_args(argv)
    # Only the errors that tell a user what to change; anything else is a bug and keeps its traceback
    from normviz.lab.checkpoint import CheckpointError
    from normviz.lab.data import DataError

    try:
        return arguments.run(arguments)
    except (ValueError, DataError, CheckpointError, FileNotFoundError) as error:
        print(f"normviz {arguments.command}: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m normviz", description="Train a small ViT and see its norms at work."
    )
    commands = parser.add_subparsers(dest="command", required=True)

    train = commands.add_parser("train", help="one training run")
    train.set_defaults(run=_train)
    train.add_argument("--preset", default="swiglu", metavar="NAME", help=f"one of {', '.join(PRESETS)}")
    train.add_argument("--arm", default="ln", help="what sits in the norm slots: ln, bn, bn+ffnbn, rms, …")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="change a field of the recipe")
    train.add_argument("--out", type=Path, metavar="FOLDER", help="where checkpoints and history.json go")
    train.add_argument("--resume", action="store_true", help="go on from the newest sound checkpoint in --out")
    train.add_argument("--checkpoint-every", type=int, default=50, metavar="STEPS")
    train.add_argument("--no-probes", action="store_true", help="record losses and evaluations only")
    train.add_argument("--quiet", action="store_true", help="no progress bar")

    study = commands.add_parser("study", help="a named grid of runs")
    study.set_defaults(run=_study)
    study.add_argument("name", nargs="?", help="without it: the list of studies")
    study.add_argument(
        "--list", action="store_true", help="what each study asks, the rule that decides, and how much is recorded"
    )
    study.add_argument("--results", type=Path, default=Path("results"), metavar="FOLDER")
    study.add_argument("--jobs", type=int, metavar="N", help="runs at a time (default: one per core, one on a GPU)")

    bench = commands.add_parser("bench", help="what norms cost here: layers and whole networks, timed in turn")
    bench.set_defaults(run=_bench)
    bench.add_argument("--device", help="cpu, cuda, … (default: the GPU if there is one)")
    bench.add_argument(
        "--threads", type=int, default=1, metavar="N", help="CPU threads (default: 1, as in the studies)"
    )
    bench.add_argument("--results", type=Path, default=Path("results"), metavar="FOLDER")
    bench.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    bench.add_argument("--quick", action="store_true", help="small sizes, few rounds: to see that it works")

    for command in (train, study):
        command.add_argument("--device", help="cpu, cuda, … (default: the GPU if there is one)")
        command.add_argument("--data-folder", type=Path, help="an unpacked cifar-10-batches-bin")
    return parser


def _train(arguments) -> int:
    recipe = preset(arguments.preset, arguments.arm, arguments.seed, **_overrides(arguments.set))
    from normviz.lab.training import train
    from normviz.lab.verdicts import verdict

    history = train(
        recipe,
        out=arguments.out,
        resume=arguments.resume,
        checkpoint_every=arguments.checkpoint_every,
        data_folder=arguments.data_folder,
        device=arguments.device,
        probes=not arguments.no_probes,
        progress=not arguments.quiet,
    )
    if not history.loss:
        print(f"{recipe.name} {recipe.arm} seed {recipe.seed}: stopped before the first step")
        return 0
    found = verdict(history)
    print(f"{recipe.name} {recipe.arm} seed {recipe.seed}: {found.kind} ({found.why})")
    if history.meta["stopped"] is not None:
        print(f"stopped after {history.meta['stopped']} of {recipe.steps} steps")
    return 0


def _bench(arguments) -> int:
    from functools import partial

    import torch

    from normviz.lab.cost import measure_costs, save_costs

    if arguments.threads < 1:
        raise ValueError(f"--threads {arguments.threads} must be at least 1")
    if not arguments.results.is_dir():
        raise FileNotFoundError(f"--results {arguments.results}: there is no such folder")
    record = measure_costs(
        device=arguments.device or ("cuda" if torch.cuda.is_available() else "cpu"),
        number_of_threads=arguments.threads,
        compiled=not arguments.no_compile,
        quick=arguments.quick,
        tell=partial(print, flush=True),
        save=lambda record: save_costs(record, arguments.results),
    )
    if record["not_compiled"]:
        print(f"not compiled: {record['not_compiled']}")
    print(f"recorded in {save_costs(record, arguments.results)}")
    return 0


def _overrides(settings: list[str]) -> dict:
    """["steps=50", "clip=None"] as keyword arguments for a recipe."""
    known = [field.name for field in fields(Recipe) if field.name not in ("name", "arm", "seed")]
    found = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or name not in known:
            raise ValueError(f"--set {setting}: it takes FIELD=VALUE with a field of {', '.join(known)}")
        try:
            found[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            found[name] = text  # a word, such as ffn=gelu
    return found


def _listed(folder: Path) -> str:
    """Every study with its question, its rule, and how many of its runs are recorded in `folder`."""
    from textwrap import fill

    from normviz.lab.study import STUDIES, progress

    lines = []
    for name, study in STUDIES.items():
        recorded, all_of_them = progress(name, folder)
        lines.append(
            fill(f"{name:16} {recorded} of {all_of_them} runs. {study.about}", 110, subsequent_indent=" " * 17)
        )
        if study.rule:
            lines.append(fill(f"Rule: {study.rule}", 110, initial_indent=" " * 17, subsequent_indent=" " * 17))
    return "\n".join(lines)


def _study(arguments) -> int:
    from normviz.lab.study import load_study, run_study, summary, table

    if arguments.list or arguments.name is None:
        print(_listed(arguments.results))
        return 0
    path = run_study(
        arguments.name,
        arguments.results,
        jobs=arguments.jobs,
        device=arguments.device,
        data_folder=arguments.data_folder,
    )
    histories = load_study(arguments.name, arguments.results)
    recipes = [history.recipe for history in histories]
    # Whatever differs between the runs, apart from the seed, names the rows
    by = [
        f.name
        for f in fields(Recipe)
        if f.name not in ("seed", "arm") and len({getattr(r, f.name) for r in recipes}) > 1
    ]
    print(table(summary(histories, (*by, "arm"))))
    print(f"recorded in {path}")
    return 0
