"""Code shown beside what it does: a function's own source, so that a text about it can never fall behind."""

import ast
import inspect
import textwrap
from collections.abc import Callable

from IPython.display import Markdown


def code_listing(*functions: Callable) -> Markdown:
    """The source of functions without their docstrings, as Markdown that notebooks, exports and GitHub show highlighted."""
    return Markdown("```python\n" + "\n\n".join(map(_without_docstring, functions)) + "\n```")


def _without_docstring(function: Callable) -> str:
    source = textwrap.dedent(inspect.getsource(function)).rstrip()
    (definition,) = ast.parse(source).body
    if ast.get_docstring(definition) is None:
        return source
    lines, text = source.split("\n"), definition.body[0]
    return "\n".join(lines[: text.lineno - 1] + lines[text.end_lineno :])
