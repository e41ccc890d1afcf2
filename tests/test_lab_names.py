"""The lab's names: what an editor sees, what Python gives, and that no module stands in a function's way."""

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import jedi
import pytest

import normviz
from normviz import lab

ROOT = Path(normviz.__file__).parent


def test_the_imports_for_the_editor_are_the_names_of_the_table():
    tree = ast.parse((ROOT / "lab" / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: line.module for line in block.body for alias in line.names}
    assert sorted(seen) == sorted(lab.__all__)
    for name, module in seen.items():
        assert getattr(lab, name) is getattr(importlib.import_module(module), name)


def test_tab_completes_every_name():
    found = {name.name for name in jedi.Interpreter("lab.", [{"lab": lab}]).complete()}
    assert set(lab.__all__) <= found
    (signature,) = jedi.Interpreter("lab.preset(", [{"lab": lab}]).get_signatures()
    assert [parameter.name for parameter in signature.params] == ["name", "arm", "seed", "overrides"]


def test_no_module_stands_in_the_way_of_a_name():
    modules = {module.name for module in pkgutil.walk_packages(lab.__path__)}
    assert not modules & set(lab.__all__)
    names = ["verdict", "fold", "steps", "train", "count", "memory", "build", "smooth"]
    imports = "; ".join(f"import normviz.lab.{module}" for module in sorted(modules))
    code = f"{imports}; from normviz import lab; print(*(callable(getattr(lab, name)) for name in {names}))"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120).stdout
    assert set(out.split()) == {"True"}


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"module 'normviz\.lab' has no attribute 'nothing'"):
        lab.nothing  # noqa: B018


def test_the_lab_knows_nothing_of_pictures():
    for file in (ROOT / "lab").rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        assert not any(f"normviz.{name}" in text for name in ("picture", "draw.", "explore.")), file


def test_every_name_says_what_it_is():
    for name in lab.__all__:
        value = getattr(lab, name)
        assert not callable(value) or inspect.getdoc(value), name
