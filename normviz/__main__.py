"""`python -m normviz images | train | study | bench | claims | doctor`: what the notebooks do, from a shell."""

from __future__ import annotations

import argparse
import sys
from importlib import metadata
from pathlib import Path

PACKAGES = (
    "numpy", "torch", "matplotlib", "ipywidgets", "scikit-learn", "pooch", "tqdm", "safetensors", "joblib",
    "jupyterlab", "ipykernel", "nbval",
)  # fmt: skip


def images(arguments: list[str]) -> int:
    """Draw the pictures of images/ anew."""
    from normviz.gallery import IMAGES, write_image

    parser = argparse.ArgumentParser(prog="python -m normviz images", description=images.__doc__)
    parser.add_argument("names", nargs="*", help=f"some of {', '.join(IMAGES)}; all without")
    parser.add_argument("--out", type=Path, default=Path("images"), help="folder (default: images)")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in IMAGES]
    if unknown:
        parser.error(f"unknown image {', '.join(unknown)}; it takes {', '.join(IMAGES)}")
    for name in options.names or IMAGES:
        print(write_image(name, options.out))
    return 0


def lab(command: str):
    def run(arguments: list[str]) -> int:
        from normviz.lab.cli import main

        return main([command, *arguments])

    run.__doc__ = {
        "train": "Train one recipe, with checkpoints.",
        "study": "Run a named study, resumable.",
        "bench": "Time what norm layers cost on this machine.",
    }[command]
    return run


def claims(arguments: list[str]) -> int:
    """Print the claims ledger, or write it into a file that holds its two markers."""
    from normviz.lab.claims import insert, markdown

    parser = argparse.ArgumentParser(prog="python -m normviz claims", description=claims.__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder (default: results)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="bring the table in FILE up to date")
    options = parser.parse_args(arguments)
    if options.write is None:
        print(markdown(options.results))
        return 0
    try:
        text = insert(options.write.read_text(encoding="utf-8"), options.results)
    except (OSError, ValueError) as error:
        parser.error(f"--write {options.write}: {error}")
    options.write.write_text(text, encoding="utf-8")
    return 0


def doctor(arguments: list[str]) -> int:
    """Say what this environment has, and what it lacks."""
    argparse.ArgumentParser(prog="python -m normviz doctor", description=doctor.__doc__).parse_args(arguments)
    print(f"Python {sys.version.split()[0]}")
    for name in PACKAGES:
        try:
            print(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            print(f"{name} is missing")
    import torch

    device = (
        torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"CPU, {torch.get_num_threads()} threads"
    )
    print(f"device: {device}")
    return 0


COMMANDS = {
    "images": images,
    "train": lab("train"),
    "study": lab("study"),
    "bench": lab("bench"),
    "claims": claims,
    "doctor": doctor,
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m normviz",
        description="See what normalization layers do.",
        epilog="\n".join(f"{name:8} {run.__doc__}" for name, run in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS)
    first, rest = (sys.argv[1:] if arguments is None else arguments), []
    first, rest = first[:1], first[1:]
    return COMMANDS[parser.parse_args(first).command](rest)


if __name__ == "__main__":
    sys.exit(main())
