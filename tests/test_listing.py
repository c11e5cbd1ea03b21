"""Listings show the code that runs, without its docstring."""

from disendiff_lite import losses
from disendiff_lite.listing import code_listing


def bare(a):
    # a comment stays
    return a


def test_docstrings_are_left_out_and_the_code_stays():
    text = code_listing(losses.bind_loss, losses.suppress).data
    assert text.startswith("```python\ndef bind_loss(") and text.endswith("```") and '"""' not in text
    assert "    return (1 - soft_iou(class_maps.detach(), modifier_maps)).sum()\n" in text
    assert text.count("\ndef ") == 2 and "\n\n\n" not in text


def test_a_function_without_one_is_shown_whole():
    assert code_listing(bare).data == "```python\ndef bare(a):\n    # a comment stays\n    return a\n```"
