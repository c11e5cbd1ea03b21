"""Packages whose names are imported from their modules when they are first asked for."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module


def lazy_names(
    package: str, homes: Mapping[str, Sequence[str]], rooms: Sequence[str] = ()
) -> tuple[Callable, Callable]:
    """`__getattr__` and `__dir__` for a package.

    homes: module of the package -> the names that it has. rooms: modules that are offered themselves.
    """
    home = {name: module for module, names in homes.items() for name in names}

    def get(name: str):
        if name in home:
            return getattr(import_module(f"{package}.{home[name]}"), name)
        if name in rooms:
            return import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get, lambda: [*home, *rooms]
