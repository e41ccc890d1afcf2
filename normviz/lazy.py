"""Names of a package that load their module when they are first used, and are complete for an editor all the same.

    if TYPE_CHECKING:
        from normviz.lab.recipe import Recipe, preset
    __getattr__, __dir__, __all__ = attach(__name__, __file__)

The imports are written once, as an editor reads them; `attach` reads them too.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from importlib import import_module


def attach(package: str, file: str) -> tuple[Callable, Callable, list[str]]:
    """`__getattr__`, `__dir__` and `__all__` for a package's `__init__.py`, from the `if` block in it that imports.

    `from PACKAGE import NAME` stands for a submodule, any other import for a name of its module.
    """
    with open(file, "rb") as source:
        (block,) = (node for node in ast.parse(source.read()).body if isinstance(node, ast.If))
    modules = {alias.name: line.module for line in block.body for alias in line.names}

    def __getattr__(name: str):
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = modules[name]
        value = import_module(f"{package}.{name}") if module == package else getattr(import_module(module), name)
        setattr(sys.modules[package], name, value)
        return value

    def __dir__() -> list[str]:
        return sorted({*vars(sys.modules[package]), *modules})

    return __getattr__, __dir__, list(modules)
