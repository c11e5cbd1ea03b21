"""Settings written as text, "steps=50" on a command line, become typed values; what does not fit is refused by name."""

import ast
from collections.abc import Mapping, Sequence

from disendiff_lite.support.errors import UserError, check_name

KINDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    tuple: "words with commas between",
}
TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def typed_settings(settings: Sequence[str], kinds: Mapping[str, type], what: str) -> dict:
    """Settings "key=value" as a dict of values, each of its key's type.

    kinds: the type of each key. what: what an error calls a key. Raises UserError if a key does not exist (the nearest
    one is named), comes twice, or its value is of another type.
    """
    values = {}
    for setting in settings:
        name, sign, text = setting.partition("=")
        name = name.strip()
        if not sign or not name:
            raise UserError(f"Cannot read the {what} {setting!r}: write it as name=value, for example steps=50.")
        check_name(name, kinds, what)
        if name in values:
            raise UserError(f"The {what} {name} is given twice: give it once.")
        values[name] = parse_value(name, text.strip(), kinds[name])
    return values


def parse_value(name: str, text: str, kind: type):
    """`text` as a value of a type; raises UserError, which calls it by `name`, if it is none."""
    try:
        if kind is bool:
            return TRUTHS[text.lower()]
        if kind in (int, float, str):
            return kind(text)
        if kind is tuple:
            return tuple(word.strip() for word in text.split(","))
        value = ast.literal_eval(text)
    except (ValueError, KeyError, SyntaxError):
        raise UserError(f"{name} must be {kind_name(kind)}, not {text!r}.") from None
    check_kind(name, value, kind)
    return value


def check_kind(name: str, value, kind: type) -> None:
    """Raise UserError unless `value` is of the type; a whole number passes as a number, a bool never does."""
    allowed = {float: (int, float), type(None): (object,)}.get(kind, (kind,))
    if not isinstance(value, allowed) or (isinstance(value, bool) and kind in (int, float)):
        raise UserError(f"{name} must be {kind_name(kind)}, not {value!r}.")


def kind_name(kind: type) -> str:
    return KINDS.get(kind, f"a {kind.__name__}")
