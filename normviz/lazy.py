"""Names of a package that load their module when they are first used, and are complete for an editor all the same.

    if TYPE_CHECKING:
        from normviz.lab.recipe import Recipe, preset
    __getattr__, __dir__, __all__ = attach(__name__, {"Recipe": "recipe", "preset": "recipe", "models": None})

An editor reads the imports, Python the table; a test holds the two to the same names.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module


def by_module(modules: Mapping[str, str]) -> dict[str, str]:
    """The table for `attach` from module → its names in one line: {"recipe": "Recipe preset"}."""
    return {name: module for module, names in modules.items() for name in names.split()}


def attach(package: str, names: Mapping[str, str | None]) -> tuple[Callable, Callable, list[str]]:
    """`__getattr__`, `__dir__` and `__all__` for a package's `__init__.py`.

    names: name → the module that has it, relative to the package ("models.vit") or in full ("normviz.norms"); None: the
    name is a submodule itself.
    """
    root = f"{package.partition('.')[0]}."

    def __getattr__(name: str):
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = names[name] or name
        value = import_module(module if module.startswith(root) else f"{package}.{module}")
        if names[name] is not None:
            value = getattr(value, name)
        setattr(sys.modules[package], name, value)
        return value

    def __dir__() -> list[str]:
        return sorted({*vars(sys.modules[package]), *names})

    return __getattr__, __dir__, list(names)
