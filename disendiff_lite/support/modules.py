"""Modules of torch beneath what wraps them: run uncompiled, named plainly, and watched while others use them."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch

from disendiff_lite.support.errors import UserError

INSIDE = "A compiled function cannot look into the model that it runs: put the `with` block around its call."
_under_way: list[ExitStack] = []  # for each block of `uncompiled`, the one stack that ends them all


@contextmanager
def uncompiled() -> Iterator[None]:
    """While the `with` block runs, everything that torch.compile compiled runs as it was written.

    A compiled graph does not see what is put on a module later, such as a hook, nor that it is gone again. Blocks may
    end in any order; the last one brings the graphs back. Raises UserError inside a compiled function.
    """
    end = _under_way[0] if _under_way else ExitStack()
    if torch.compiler.is_compiling():
        raise UserError(INSIDE)
    try:
        end.enter_context(torch.compiler.set_stance("force_eager"))
    except RuntimeError:  # between two graphs of a compiled function
        raise UserError(INSIDE) from None
    _under_way.append(end)
    try:
        yield
    finally:
        _under_way.pop()
        if not _under_way:
            end.close()


def plain_names(items: Iterable[tuple[str, object]]) -> dict[str, object]:
    """Named modules or parameters by the names that they have without torch.compile, which puts `_orig_mod` in them."""
    return {".".join(part for part in name.split(".") if part != "_orig_mod"): item for name, item in items}


def beneath_adapters(items: Mapping[str, object]) -> dict[str, object]:
    """Parameters by the names that they have without peft's adapters, which put `base_layer` in those that they wrap.

    The adapters' own weights are among them, by names of their own.
    """
    return {name.replace(".base_layer.", "."): item for name, item in items.items()}


class Watched:
    """Stands in for an object where it is used, and keeps in `returned` what some of its members returned last.

    target: the object; everything else is passed through to it. names: of the callable members.
    """

    def __init__(self, target, names: Collection[str]):
        self.target = target
        self.names = names
        self.returned = {}

    def __getattr__(self, name: str):
        member = getattr(self.target, name)
        if name not in self.names:
            return member

        def call(*args, **kwargs):
            self.returned[name] = member(*args, **kwargs)
            return self.returned[name]

        return call
