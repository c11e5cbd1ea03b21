"""Formulas that browsers show without a network: TeX becomes MathML, which every current browser draws by itself."""

from html import escape

from latex2mathml.converter import convert


def to_mathml(tex: str, display: bool = False) -> str:
    """A TeX formula, without its dollar signs, as MathML; one that cannot be converted stays as its TeX source.

    display: on a line of its own.
    """
    try:
        return convert(tex.strip(), display="block" if display else "inline")
    except Exception:  # the converter has no family of errors of its own, and half a formula is worse than its source
        return f"<code>{escape(tex.strip())}</code>"
