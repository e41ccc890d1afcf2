"""`python -m normviz images | train | study | bench | claims | inspect | doctor`: what the notebooks do, from a shell.

A command is a function of the parsed options that returns the exit code; its docstring is its help, `COMMANDS` lists
it, and `parser` gives it its flags.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import fields
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from textwrap import fill
from types import SimpleNamespace

from normviz import __version__
from normviz.clinic import door
from normviz.fields import parse, unknown
from normviz.files import make_writable, write_atomic
from normviz.lab.errors import CheckpointError, DataError
from normviz.lab.recipe import PRESETS, Recipe, preset

FIELDS = {field.name: field for field in fields(Recipe) if field.name != "name"}
STOPPED = 130  # the exit code of what Ctrl-C ended


def images(options) -> int:
    """Draw the pictures of images/ anew."""
    from normviz.draw.gallery import IMAGES, write_image

    if strange := [name for name in options.names if name not in IMAGES]:
        raise ValueError(unknown("image", strange[0], IMAGES))
    make_writable(options.out)
    for name in options.names or IMAGES:
        print(write_image(name, options.out))
    return 0


def train(options) -> int:
    """Train one recipe, with checkpoints."""
    recipe = preset(options.preset, **_overrides(options))
    from normviz.arms import KINDS
    from normviz.lab import train as run
    from normviz.lab import verdict
    from normviz.lab.checkpoint import checkpoints
    from normviz.lab.parallel import joined, place

    with joined(options.device) as device:
        first = place()[0] == 0  # of the processes that torchrun started, one speaks
        if first and options.resume and options.out and not checkpoints(options.out):
            print(f"{options.out} holds no checkpoint yet: starting at step 0")
        history = run(
            recipe, out=options.out, resume=options.resume, checkpoint_every=options.checkpoint_every,
            data_folder=options.data_folder, device=device, probes=not options.no_probes,
            progress=not options.quiet, sync_batchnorm=options.sync_batchnorm,
        )  # fmt: skip
    stopped = history.meta["stopped"]
    if first and stopped is not None:
        again = "the same command with --resume goes on" if options.out else "with --out it could be resumed"
        print(f"{recipe.title}: stopped after {stopped} of {recipe.steps} steps; {again}")
    elif first:
        judged = verdict(history)
        print(f"{recipe.title}: {KINDS[judged.kind].word} ({judged.why})")
    return 0 if stopped is None else STOPPED


def _overrides(options) -> dict:
    """The fields of the recipe that the command line sets: --lr 1e-3, or --set lr=1e-3."""
    words = {name: value for name in FIELDS if (value := getattr(options, name)) is not None}
    for setting in options.set:
        name, equals, word = setting.partition("=")
        if not equals or name not in FIELDS:
            raise ValueError(f"--set {setting}: it takes FIELD=VALUE; {unknown('FIELD', name, FIELDS)}")
        words[name] = word
    return {name: parse(FIELDS[name], word) if isinstance(word, str) else word for name, word in words.items()}


def study(options) -> int:
    """Run a named study, resumable; without a name: list the studies."""
    from normviz.lab import STUDIES, load_study, run_study, summary
    from normviz.lab.study import progress, table

    if options.list or options.name is None:
        for name, row in STUDIES.items():
            recorded, grid = progress(name, options.results)
            print(fill(f"{name:16} {recorded} of {grid} runs. {row.about}", 110, subsequent_indent=" " * 17))
            if row.rule:
                print(fill(f"Rule: {row.rule}", 110, initial_indent=" " * 17, subsequent_indent=" " * 17))
        return 0
    path = run_study(
        options.name, options.results, jobs=options.jobs, device=options.device, data_folder=options.data_folder,
        scheduler=options.scheduler,
    )  # fmt: skip
    runs = load_study(options.name, options.results)
    # Whatever differs between the runs, apart from the seed, names the rows
    by = [name for name in FIELDS if name not in ("seed", "arm") and len({getattr(r.recipe, name) for r in runs}) > 1]
    names = ["name"] if len({run.recipe.name for run in runs}) > 1 else []
    if runs:
        print(table(summary(runs, (*names, *by, "arm"))))
    print(f"recorded in {path}")
    recorded, grid = progress(options.name, options.results)
    if recorded < grid:
        words = f"{grid - recorded} of {grid} runs failed; the same command tries them again"
        print(f"normviz study: {words}", file=sys.stderr)
    return int(recorded < grid)


def bench(options) -> int:
    """Time what norm layers cost on this machine."""
    import torch

    from normviz.lab.timing import cost_path, measure_costs, save_costs

    if not options.results.is_dir():
        raise FileNotFoundError(f"--results {options.results}: there is no such folder")
    make_writable(options.results)
    prefix = "quick-" if options.quick else ""
    record = measure_costs(
        device=options.device or ("cuda" if torch.cuda.is_available() else "cpu"), number_of_threads=options.threads,
        compiled=not options.no_compile, quick=options.quick, tell=partial(print, flush=True),
        save=lambda record: save_costs(record, options.results, f"partial-{prefix}"),
    )  # fmt: skip
    path = save_costs(record, options.results, prefix)
    cost_path(record, options.results, f"partial-{prefix}").unlink(missing_ok=True)
    if record["not_compiled"]:
        print(f"not compiled: {record['not_compiled']}")
    print(f"recorded in {path}")
    return 0


def claims(options) -> int:
    """Print the claims ledger, or write it into a file that holds its two markers."""
    from normviz.lab.claims import insert, markdown

    if not options.results.is_dir():
        raise FileNotFoundError(
            f"--results {options.results}: there is no such folder; it takes that of the recorded runs"
        )
    if options.write is None:
        print(markdown(options.results))
        return 0
    try:
        write_atomic(options.write, insert(options.write.read_text(encoding="utf-8"), options.results))
    except (OSError, ValueError) as error:
        raise ValueError(f"--write {options.write}: {error}") from None
    return 0


def doctor(options) -> int:
    """Say in plain words what this environment has, and what it lacks (exit status 1)."""
    from normviz.doctor import examine, verdict

    findings = []
    for finding in examine():
        print(finding, flush=True)
        findings.append(finding)
    print(verdict(findings))
    return int(any(finding.state == "lacks" for finding in findings))


COMMANDS = {command.__name__: command for command in (images, train, study, bench, claims, door.inspect, doctor)}
#: What is said of a command that Ctrl-C ended
GO_ON = {
    "study": "the same command goes on with the runs that are missing",
    "bench": "what was measured so far is in partial-cost-….json",
}


def _positive(word: str) -> int:
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word!r} must be an integer >= 1")
    return int(word)


def _folder(word: str) -> Path:
    if not word:
        raise argparse.ArgumentTypeError("'' is no folder; '.' is the one that you are in")
    return Path(word)


class _Parser(argparse.ArgumentParser):
    """Names the nearest command or flag where one is mistyped."""

    def error(self, message: str):
        if word := re.match(r"argument command: invalid choice: '(.*?)'", message):
            message = unknown("command", word[1], COMMANDS)
        elif words := re.match(r"unrecognized arguments: (\S+)", message):
            flags = re.findall(r"--[a-z-]+", self.format_usage())
            near = get_close_matches(words[1].partition("=")[0], flags, 1)
            message += f". Did you mean {near[0]!r}?" if near else ""
        super().error(message)


def parser() -> argparse.ArgumentParser:
    main = _Parser(prog="python -m normviz", description="See what normalization layers do.")
    main.add_argument("--version", action="version", version=f"normviz {__version__}")
    commands = main.add_subparsers(dest="command", required=True)
    add = SimpleNamespace()  # command → `add_argument` of its parser
    for name, run in COMMANDS.items():
        command = commands.add_parser(name, help=run.__doc__, description=run.__doc__)
        command.set_defaults(parser=command)
        setattr(add, name, command.add_argument)

    door.add_arguments(add.inspect)

    add.images("names", nargs="*", help="some of the pictures, such as ln.png; all without")
    add.images("--out", type=_folder, default=Path("images"), metavar="FOLDER", help="default: images")

    add.train("--preset", default="swiglu", metavar="NAME", help=f"one of {', '.join(PRESETS)} (default: swiglu)")
    for name, field in FIELDS.items():
        about, flag = field.metadata, f"--{name.replace('_', '-')}"
        if about["kind"] == "flag":
            add.train(flag, dest=name, action=argparse.BooleanOptionalAction, help=about["help"])
        else:
            takes = f"; {about['takes']}" if about["kind"] != "text" else ""
            add.train(flag, metavar=about["kind"].upper(), help=f"{about['help']}{takes}".replace("%", "%%"))
    add.train("--set", action="append", default=[], metavar="FIELD=VALUE", help="the same in another way")
    add.train("--out", type=_folder, metavar="FOLDER", help="where checkpoints and history.json go")
    add.train("--resume", action="store_true", help="go on from the newest sound checkpoint in --out")
    add.train("--checkpoint-every", type=_positive, default=50, metavar="STEPS", help="default: 50")
    add.train("--no-probes", action="store_true", help="record losses and evaluations only")
    add.train(
        "--sync-batchnorm", action="store_true", help="under torchrun: BatchNorm over the batches of all processes"
    )
    add.train("--quiet", action="store_true", help="no progress bar")

    add.study("name", nargs="?", help="without it: the list of studies")
    add.study("--list", action="store_true", help="what each asks, the rule that decides, how much is recorded")
    add.study("--jobs", type=_positive, metavar="N", help="runs at a time (default: one per core, one on a GPU)")
    add.study("--scheduler", metavar="ADDRESS", help="of a Dask scheduler whose workers do the runs")
    for adds in (add.train, add.study):
        adds("--data-folder", type=_folder, metavar="FOLDER", help="an unpacked cifar-10-batches-bin")

    add.bench("--threads", type=_positive, default=1, metavar="N", help="CPU threads (default: 1, as in the studies)")
    add.bench("--no-compile", action="store_true", help="leave torch.compile out")
    add.bench("--quick", action="store_true", help="small sizes, few rounds, a record of its own: to see that it works")
    for adds in (add.train, add.study, add.bench):
        adds("--device", help="cpu, cuda, … (default: the GPU if there is one)")

    add.claims("--write", type=Path, metavar="FILE", help="bring the table in FILE up to date")
    for adds in (add.study, add.bench, add.claims):
        adds("--results", type=_folder, default=Path("results"), metavar="FOLDER", help="default: results")
    return main


def main(arguments: list[str] | None = None) -> int:
    """Runs the words after `python -m normviz` and returns the exit code: 0, 1 (runs failed), 2 (a mistake), or 130."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a letter that the terminal does not have is no reason to stop
            stream.reconfigure(errors="replace")
    options, strange = parser().parse_known_args(arguments)
    if strange:  # said with the usage of the command, where argparse shows that of all
        options.parser.error(f"unrecognized arguments: {' '.join(strange)}")
    try:
        return COMMANDS[options.command](options)
    except KeyboardInterrupt:
        code, words = STOPPED, f"stopped; {GO_ON.get(options.command, 'nothing was written')}"
    except ModuleNotFoundError as error:
        code, words = 2, f"{error}; `python -m normviz doctor` says what is missing"
    except (ValueError, OSError, DataError, CheckpointError) as error:
        code, words = 2, str(error)
    print(f"normviz {options.command}: {words}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
