"""The project's own papers agree with each other: pyproject, conda, Colab, Makefile, README, badges."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import badges  # noqa: E402  (a script of tools/, not of the package)

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
RUNTIME = [Requirement(text) for text in PROJECT["dependencies"]]
OPTIONAL = PROJECT["optional-dependencies"]
# What `make bench` and `make test-zoo` alone need is nobody's dependency: neither conda nor the pins know it
EXTRAS = [Requirement(text) for name, extra in OPTIONAL.items() if name not in ("bench", "zoo") for text in extra]
CONDA_NAMES = {"pytorch": "torch", "matplotlib-base": "matplotlib"}
IMPORT_NAMES = {"pillow": "PIL", "scikit-learn": "sklearn"}
README = (ROOT / "README.md").read_text(encoding="utf-8")


def bounds(requirements) -> dict[str, str]:
    return {canonicalize_name(r.name): str(r.specifier) for r in requirements}


def test_conda_and_pip_name_the_same_packages_and_bounds():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    names = [line for line in conda if isinstance(line, str)]
    names += next(line["pip"] for line in conda if isinstance(line, dict))
    ours = bounds([Requirement(line) for line in names])
    ours = {CONDA_NAMES.get(name, name): bound for name, bound in ours.items()}
    assert ours.pop("python") == PROJECT["requires-python"]
    ours.pop("pip")
    assert ours == bounds(RUNTIME + EXTRAS)


def colab_versions() -> dict[str, str]:
    """What Colab ships, from the stand-in's list; a comment gives Colab's version where ours has to differ."""
    lines = (ROOT / "tests" / "colab" / "runtime.in").read_text().splitlines()
    pins = [re.match(r"([\w.-]+)==(\S+)(?:\s+# Colab: (\S+))?", line) for line in lines]
    return {canonicalize_name(m[1]): m[3] or m[2] for m in pins if m}


@pytest.mark.parametrize("requirement", RUNTIME, ids=lambda r: r.name)
def test_colab_meets_the_bound(requirement):
    version = colab_versions()[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(version), f"Colab ships {requirement.name} {version}: pip would replace it"


@pytest.mark.parametrize("file", ["constraints.txt", "constraints-colab.txt"])
def test_every_package_we_name_is_pinned_within_its_bound(file):
    lines = (ROOT / file).read_text().splitlines()
    pins: dict[str, list[str]] = {}
    for pin in map(Requirement, filter(lambda line: line and not line.startswith("#"), lines)):
        pins.setdefault(canonicalize_name(pin.name), []).append(str(pin.specifier).removeprefix("=="))
    for requirement in RUNTIME + (EXTRAS if file == "constraints.txt" else []):
        assert all(requirement.specifier.contains(v) for v in pins[canonicalize_name(requirement.name)])


def test_the_package_imports_only_what_it_declares():
    declared = {IMPORT_NAMES.get(r.name, r.name) for r in RUNTIME}
    declared |= {"normviz", "IPython", "traitlets"}  # the last two come with ipywidgets
    server = {r.name.replace("-", "_") for r in EXTRAS}  # serving.py runs in JupyterLab's process, not in a kernel's
    # The doctor goes on without Jupyter; distributed is wanted by those who name a scheduler
    beside = {"serving.py": server, "doctor.py": {"jupyter_core"}, "study.py": {"distributed"}}
    for file in (ROOT / "normviz").rglob("*.py"):
        allowed = declared | beside.get(file.name, set())
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            foreign = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - allowed
            assert not foreign, f"{file.relative_to(ROOT)} imports {foreign}"


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_commands_of_the_readme_exist():
    code = re.findall(r"```(?:sh|powershell)\n(.*?)```", README, re.DOTALL) + re.findall(r"`([^`\n]+)`", README)
    named = {target for text in code for target in re.findall(r"\bmake ([a-z][a-z-]*)", text)}
    assert {"lab", "test"} <= named <= make_targets()


def test_help_lists_every_target():
    text = (ROOT / "Makefile").read_text()
    assert set(re.findall(r"^([a-z][a-z-]*):.*## ", text, re.MULTILINE)) == make_targets()


def test_badges_are_the_generated_ones():
    assert badges.rewrite_links(README) == README, "run `make badges`"
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        assert badges.badge(f"notebooks/{path.name}") in README, f"the README lists no badge of {path.name}"


def test_a_wrong_badge_is_rewritten():
    right = badges.badge("notebooks/01_axes.ipynb")
    wrong = right.replace(badges.repository().removeprefix("https://github.com/"), "someone/fork")
    assert wrong != right and badges.rewrite_links(f"| {wrong} |") == f"| {right} |"


def tracked_files() -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listing.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listing.stdout.decode().split("\0") if name]


def test_no_tracked_file_contains_a_machine_path():
    pattern = re.compile(rb"(?<![\w.:/~$})-])/(?:home|Users|root|tmp|work)/[A-Za-z]")
    for file in tracked_files():
        if file.suffix not in {".png", ".npz"} and file.is_file():
            match = pattern.search(data := file.read_bytes())
            assert not match, f"{file.relative_to(ROOT)}: {data[match.start() : match.start() + 40]!r}"


def test_importing_normviz_is_quick_and_leaves_torch_alone():
    code = (
        "import sys, time; start = time.process_time(); import normviz; print(time.process_time() - start);"
        "assert not {'torch', 'matplotlib', 'numpy'} & set(sys.modules)"
    )
    # Processor time, and the best of three: other work on the machine is not ours
    runs = [
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
        for _ in range(3)
    ]
    assert min(float(run.stdout) for run in runs) < 0.1
