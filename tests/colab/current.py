"""Colab's versions of today for the packages that we meet, and the day on which all was seen to work with them.

    python tests/colab/current.py pip-freeze.txt > current.txt      # requirements, as runtime.in has them
    python tests/colab/current.py --seen pip-freeze.txt             # writes SEEN_WORKING.md

pip-freeze.txt is what Google publishes of Colab's runtime (github.com/googlecolab/backend-info).  Needs nothing but
Python.
"""

from __future__ import annotations

import re
import sys
from datetime import date
from pathlib import Path

HERE = Path(__file__).parent
NAMED = ("torch", "ipywidgets", "ipykernel", "anywidget", "numpy", "matplotlib")
# As pip freeze has them: name==version, or name @ address of a wheel
_PIN = re.compile(r"([A-Za-z0-9._-]+)(?:==| @ \S*/[A-Za-z0-9._]+-)([0-9][A-Za-z0-9.]*)")


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def versions(freeze: str) -> dict[str, str]:
    """Version by name, without what a build of its own has after a +, which PyPI does not know."""
    found = (_PIN.match(line) for line in freeze.splitlines())
    return {canonical(match[1]): match[2] for match in found if match}


def requirements(ours: str, freeze: str) -> str:
    """runtime.in with every version that Colab has; a package that Colab has no more is asked for without one."""
    theirs, lines = versions(freeze), []
    for line in ours.splitlines():
        if match := _PIN.match(line):
            version = theirs.get(canonical(match[1]))
            line = f"{match[1]}=={version}" if version else match[1]
        lines.append(line)
    return "\n".join(lines) + "\n"


def seen(freeze: str, day: date) -> str:
    theirs = versions(freeze)
    rows = "".join(f"| {name} | {theirs.get(name, 'none')} |\n" for name in NAMED)
    return (
        f"# Last seen working on Colab's versions: {day.isoformat()}\n\n"
        "Written by the weekly job (`.github/workflows/weekly.yml`), after every notebook and every explorer has run "
        f"with them.\n\n| package | version |\n|---|---|\n{rows}"
    )


def main(arguments: list[str]) -> None:
    freeze = Path(arguments[-1]).read_text(encoding="utf-8")
    if arguments[0] == "--seen":
        (HERE / "SEEN_WORKING.md").write_text(seen(freeze, date.today()), encoding="utf-8")
    else:
        sys.stdout.write(requirements((HERE / "runtime.in").read_text(encoding="utf-8"), freeze))


if __name__ == "__main__":
    main(sys.argv[1:])
