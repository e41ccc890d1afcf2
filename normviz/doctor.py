"""What this environment has and what it lacks, in plain words: `python -m normviz doctor`.

Nothing is fetched, and nothing is left behind.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from normviz import __version__
from normviz.files import make_writable

ROOM = 2 * 10**9  # bytes: CIFAR-10 packed and unpacked, and checkpoints
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: What the extras of pyproject.toml are for
EXTRAS = {"notebooks": "`make lab`", "test": "`make test`"}
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^]]*])?\s*([^;]*)(?:;(.*))?")


class Finding(NamedTuple):
    """One thing that was looked at; state: "ok", "note" (one can do without) or "lacks" (something will fail)."""

    state: str
    name: str
    words: str

    def __str__(self) -> str:
        return f"{self.state:5}  {self.name}: {self.words}"


def examine() -> Iterator[Finding]:
    """Everything that is looked at, one after the other."""
    yield _python()
    yield from _packages()
    yield _device()
    yield from _front_end()
    yield _loopback()
    yield _browser()
    yield _digits()
    yield _cifar10()
    yield _records()
    yield from _disk()


def verdict(findings: list[Finding]) -> str:
    """The last line: what to do, if anything."""
    lacking = [finding.name for finding in findings if finding.state == "lacks"]
    if not lacking:
        return "Everything that the notebooks need is here."
    return f"To be mended: {', '.join(lacking)}."


def _python() -> Finding:
    words = f"{platform.python_version()} on {platform.system()} {platform.machine()}, normviz {__version__}"
    return Finding("ok", "Python", words)


def _packages() -> Iterator[Finding]:
    try:
        requirements = metadata.requires("normviz") or []
    except metadata.PackageNotFoundError:
        yield Finding("note", "normviz", "not installed, only on the path: pip install -e . says what it needs")
        return
    sound = []
    for line in requirements:
        name, bounds, condition = _REQUIREMENT.fullmatch(line).groups()
        extra = re.search(r"""extra == ["'](\w+)["']""", condition or "")
        if "python_version" in (condition or "") or (extra and extra[1] not in EXTRAS):
            continue
        state, use = ("note", f" ({EXTRAS[extra[1]]} needs it)") if extra else ("lacks", "")
        advice = f'pip install "{name}{bounds.strip()}"{use}'
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Finding(state, name, f"missing; {advice}")
            continue
        if _meets(version, bounds):
            sound.append(f"{name} {version}")
        else:
            yield Finding(state, name, f"{version} does not do; {advice}")
    yield Finding("ok", "packages", ", ".join(sound))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.match(r"\d+(?:\.\d+)*", version)[0].split("."))


def _meets(version: str, bounds: str) -> bool:
    """Whether a version is within bounds such as ">=7.7.1,<9"."""
    for sign, bound in re.findall(r"(>=|<)\s*([\d.]+)", bounds):
        # (8,) and (8, 0) are the same version
        ours, theirs = zip(*zip_longest(_numbers(version), _numbers(bound), fillvalue=0), strict=True)
        if (ours >= theirs) != (sign == ">="):
            return False
    return True


def _device() -> Finding:
    try:
        import torch

        if torch.cuda.is_available():
            memory = torch.cuda.get_device_properties(0).total_memory / 2**30
            torch.ones(8, 8, device="cuda").mm(torch.ones(8, 8, device="cuda")).sum().item()
            count = torch.cuda.device_count()
            others = f", and {count - 1} more" if count > 1 else ""
            return Finding("ok", "device", f"{torch.cuda.get_device_name()}, {memory:.0f} GiB{others}")
        torch.ones(8, 8).mm(torch.ones(8, 8))
        threads = torch.get_num_threads()
        words = f"CPU, {threads} thread{'s' * (threads > 1)}; no GPU, which the notebooks do not need"
        return Finding("ok", "device", words)
    except Exception as error:  # a torch that does not load has many ways to say so
        return Finding("lacks", "device", f"torch does not work: {' '.join(str(error).split())[:200]}")


def _front_end() -> Iterator[Finding]:
    """Widgets have a half in the browser, whose version has to go with that in Python."""
    if "COLAB_RELEASE_TAG" in os.environ:
        yield Finding("ok", "widgets in the browser", "Colab's own")
        return
    for need, folder in (("ipywidgets", "@jupyter-widgets/jupyterlab-manager"), ("anywidget", "anywidget")):
        name, found = f"{need} in the browser", _extension(folder)
        if found is None:
            yield Finding(
                "note", name, "no JupyterLab extension in this environment; fine in VS Code or the classic notebook, "
                f"else: pip install --force-reinstall {need}",
            )  # fmt: skip
            continue
        try:
            ours = metadata.version(need)
        except metadata.PackageNotFoundError:
            continue  # said among the packages
        major, theirs = _numbers(ours)[0], _numbers(found)
        # npm counts by itself: the manager 5 goes with ipywidgets 8, 3 with 7
        if theirs[0] == {8: 5, 7: 3}.get(major) if need == "ipywidgets" else theirs[:2] == _numbers(ours)[:2]:
            yield Finding("ok", name, found)
        else:
            words = f"{found}, which does not go with {need} {ours}; pip install --force-reinstall {need}, and reload"
            yield Finding("lacks", name, words)


def _extension(name: str) -> str | None:
    """The version of a JupyterLab extension, None where there is none."""
    try:
        from jupyter_core.paths import jupyter_path

        places = jupyter_path()
    except ImportError:
        places = [Path(sys.prefix) / "share" / "jupyter"]
    for place in places:
        with suppress(OSError, ValueError, KeyError):
            return json.loads(Path(place, "labextensions", name, "package.json").read_text(encoding="utf-8"))["version"]
    return None


def _loopback() -> Finding:
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=5).close()
    except OSError as error:
        return Finding("lacks", "loopback", f"kernels cannot be reached on 127.0.0.1: {error}")
    return Finding("ok", "loopback", "kernels can be reached")


def _browser() -> Finding:
    if os.environ.get("NORMVIZ_CHROMIUM") or any(map(shutil.which, CHROMIUMS)):
        return Finding("ok", "Chromium", "there, for the browser tests")
    return Finding("note", "Chromium", f"none of {', '.join(CHROMIUMS)}; the browser tests are skipped")


def _digits() -> Finding:
    try:
        from normviz.samples import digits

        images, _ = digits()
    except Exception as error:  # whatever a damaged file makes numpy say
        return Finding("lacks", "digits", f"cannot be read ({error}); reinstall normviz")
    return Finding("ok", "digits", f"{len(images):,} images, in the package")


def _cifar10() -> Finding:
    from normviz.lab.cifar10 import FOLDER, VARIABLE, cache_folder, is_whole

    place = os.environ.get(VARIABLE)
    name = "CIFAR-10"
    if place is not None:
        if (Path(place).expanduser() / "test_batch.bin").is_file():
            return Finding("ok", name, f"in {VARIABLE}={place!r}")
        return Finding("lacks", name, f"{VARIABLE}={place!r} holds none; unset it, or name a {FOLDER}")
    cache = cache_folder()
    if is_whole(cache / FOLDER):
        return Finding("ok", name, f"in {cache}")
    words = f"not here yet; the studies that want it fetch 170 MB into {cache}, or see --data-folder"
    return Finding("note", name, words)


def _records() -> Finding:
    from normviz.lab.study import results_folder

    count = sum(len(path.read_bytes().splitlines()) for path in results_folder().glob("*.jsonl"))
    words = f"none in {results_folder()}; notebook 08 shows them: reinstall normviz"
    return Finding("ok", "recorded runs", f"{count:,}") if count else Finding("lacks", "recorded runs", words)


def _disk() -> Iterator[Finding]:
    from normviz.lab.cifar10 import cache_folder

    for name, folder in (("disk here", Path.cwd()), ("disk of the cache", cache_folder())):
        there = next(place for place in (folder, *folder.parents) if place.is_dir())
        try:
            make_writable(there)
        except OSError as error:
            words = f"nothing can be written to {there} ({error.strerror}); name --out or --results"
            yield Finding("note", name, words)
            continue
        free = shutil.disk_usage(there).free
        words, more = f"{free / 1e9:,.1f} GB free in {there}", f"; {ROOM / 1e9:.0f} GB are more sure"
        yield Finding("ok", name, words) if free > ROOM else Finding("note", name, words + more)
