"""Where it runs: a wheel without a checkout, CI's systems, Colab's versions of the day, the commands for Windows."""

import importlib.util
import os
import re
import subprocess
import sys
import zipfile
from datetime import date
from pathlib import Path

import pytest
import yaml
from readme_commands import blocks, opens_jupyter
from test_project import OPTIONAL, PROJECT, README, ROOT

import normviz

PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
WORKFLOWS = {path.name: yaml.safe_load(path.read_text("utf-8")) for path in (ROOT / ".github/workflows").glob("*.yml")}


# The wheel ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built of what git would hand on, without the network."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(listed, cwd=ROOT, capture_output=True, check=False)
    if listing.returncode:
        pytest.skip("not a git checkout")
    wanted = ("normviz/", "results/", "pyproject.toml", "README.md", "LICENSE")
    for name in listing.stdout.decode().split("\0"):
        if name.startswith(wanted) and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    line = [*PIP, "wheel", "--no-build-isolation", "--no-deps", "-w", str(folder), str(source)]
    subprocess.run(line, check=True, capture_output=True, timeout=300)
    (found,) = folder.glob("*.whl")
    return found


def test_the_wheel_has_every_file_of_the_package(wheel):
    with zipfile.ZipFile(wheel) as archive:
        there = {name for name in archive.namelist() if ".dist-info/" not in name}
    files = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "normviz").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    records = {f"normviz/results/{path.name}" for path in (ROOT / "results").glob("*.json*")}
    assert there == files | records


ABROAD = """
import os, sys
sys.path.insert(0, sys.argv[1])
import normviz as nv
assert nv.__file__.startswith(sys.argv[1]), nv.__file__
from normviz.__main__ import main
assert nv.explore.axes().figure().alt and nv.explore.axes().live().state
assert len(nv.lab.load_study("tame")) == 15
small = ["--depth", "1", "--steps", "4", "--warmup", "1", "--quiet", "--device", "cpu", "--out", "run"]
assert main(["study", "--list"]) == 0 and main(["train", *small]) == 0
print("sound", *sorted(os.listdir(".")))
"""


def test_the_wheel_works_where_there_is_no_checkout(wheel, tmp_path):
    site, here = tmp_path / "site", tmp_path / "here"
    here.mkdir()
    line = [*PIP, "install", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    subprocess.run(line, check=True, capture_output=True, timeout=300)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    line = [sys.executable, "-c", ABROAD, str(site)]
    run = subprocess.run(line, cwd=here, capture_output=True, text=True, timeout=300, env=environment)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "sound run"


# CI -------------------------------------------------------------------------------------------------------------


def test_ci_runs_on_every_system_and_python_that_we_say_we_support():
    jobs = WORKFLOWS["ci.yml"]["jobs"]
    pythons = ["3.10", "3.11", "3.12", "3.13"]
    assert PROJECT["requires-python"] == f">={pythons[0]}"
    for job in ("test", "windows"):
        assert jobs[job]["strategy"]["matrix"]["python"] == pythons
    assert jobs["test"]["strategy"]["matrix"]["os"] == ["ubuntu-latest", "macos-latest"]
    assert {"ubuntu-latest", "macos-latest", "windows-latest"} == set(jobs["wheel"]["strategy"]["matrix"]["os"])


def test_workflows_run_what_there_is():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    jobs = [job for workflow in WORKFLOWS.values() for job in workflow["jobs"].values()]
    text = "\n".join(step.get("run", "") for job in jobs for step in job["steps"])
    for target in re.findall(r"\bmake ([a-z-]+)", text):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for path in re.findall(r"\b((?:tests|tools)/[\w./-]+)", text):
        assert (ROOT / path).exists() or path.endswith("SEEN_WORKING.md"), path
    for module in re.findall(r"python -m ((?:tests|normviz|tools)[\w.]*)", text):
        assert importlib.util.find_spec(module), module


def test_the_commands_for_windows_are_sound():
    """As far as this machine can tell; CI's job `windows` runs them as they stand."""
    (commands,) = blocks("powershell", README)
    assert sum(map(opens_jupyter, commands)) == 1 and opens_jupyter(commands[-1])
    text = "\n".join(commands)
    for name in re.findall(r"\.\[([\w,]+)\]", text):
        assert set(name.split(",")) <= set(OPTIONAL)
    for path in re.findall(r"(?:notebooks|tests)\\[\w.\\]+|constraints\.txt", text):
        assert (ROOT / path.replace("\\", "/")).is_file(), path
    assert "make" not in text.split()


def test_a_block_loses_its_comments_only():
    text = "```sh\nmake lab     # builds\n\nmake test\n```\n```powershell\na -c x\n```"
    assert blocks("sh", text) == [["make lab", "make test"]]
    assert blocks("powershell", text) == [["a -c x"]]


# Colab ----------------------------------------------------------------------------------------------------------


def current():
    spec = importlib.util.spec_from_file_location("current", ROOT / "tests" / "colab" / "current.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FREEZE = """\
ipywidgets==7.7.9
jupyter_client==7.4.9
Pillow==12.0.0
numpy==2.2.0
torch @ https://example.org/whl/cpu/torch-2.99.0%2Bcpu-cp313-cp313-manylinux_2_28_x86_64.whl
"""


def test_the_weekly_job_takes_colabs_versions_of_the_day():
    ours = (
        "# words|ipywidgets==7.7.1|jupyter-client==7.0|pillow==11.3.0|torch==2.13.0  # Colab: 2.11.0|gone==1.0|pytest|"
    )
    expected = "# words|ipywidgets==7.7.9|jupyter-client==7.4.9|pillow==12.0.0|torch==2.99.0|gone|pytest|"
    assert current().requirements(ours.replace("|", "\n"), FREEZE) == expected.replace("|", "\n")


def test_the_day_is_written_with_the_versions():
    text = current().seen(FREEZE, date(2027, 1, 4))
    assert "Last seen working on Colab's versions: 2027-01-04" in text
    assert "| torch | 2.99.0 |" in text and "| anywidget | none |" in text


# Papers ---------------------------------------------------------------------------------------------------------


def test_the_citation_and_the_changelog_know_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == normviz.__version__ and citation["license"] == PROJECT["license"]
    assert citation["repository-code"] == PROJECT["urls"]["Repository"]
    assert f"\n## {normviz.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_pre_commit_runs_the_ruff_that_is_pinned():
    repos = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    (ruff,) = (repo["rev"] for repo in repos if "ruff" in repo["repo"])
    assert f"ruff=={ruff.removeprefix('v')}\n" in (ROOT / "constraints.txt").read_text(encoding="utf-8")
    hooks = {hook["id"]: hook for repo in repos for hook in repo["hooks"]}
    assert {"ruff-check", "ruff-format", "codespell", "notebooks"} <= set(hooks)
    assert (ROOT / "tests/test_notebooks.py").is_file() and "tests/test_notebooks.py" in hooks["notebooks"]["entry"]
