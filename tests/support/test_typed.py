"""Settings written as text get the type of their key, or are refused by name."""

import pytest

from disendiff_lite.config import config_changes
from disendiff_lite.support.errors import UserError
from disendiff_lite.support.typed import check_kind, typed_settings


def test_settings_get_the_type_of_their_key():
    changes = config_changes(
        ["steps = 30", "learning_rate=1e-4", "suppress=False", "modifiers=<a>,<b>", "template=a {}=b"]
    )
    assert changes == {
        "steps": 30,
        "learning_rate": 1e-4,
        "suppress": False,
        "modifiers": ("<a>", "<b>"),
        "template": "a {}=b",
    }
    kinds = {"numbers": list, "anything": type(None), "text": str}
    settings = ["numbers=[1, 2]", "anything='x'", "text="]
    assert typed_settings(settings, kinds, "parameter") == {"numbers": [1, 2], "anything": "x", "text": ""}


@pytest.mark.parametrize(
    "setting, sentence",
    [
        ("=3", "Cannot read the setting '=3'"),
        ("lambda=3", "There is no setting 'lambda'"),
        ("steps=", "steps must be a whole number, not ''."),
        ("eta=high", "eta must be a number, not 'high'."),
        ("smooth=2", "smooth must be true or false, not '2'."),
    ],
)
def test_what_does_not_fit_is_refused(setting, sentence):
    with pytest.raises(UserError) as error:
        config_changes([setting])
    assert str(error.value).startswith(sentence)


def test_kinds_are_strict_about_bools_and_kind_to_whole_numbers():
    check_kind("rate", 1, float)
    check_kind("rate", [], type(None))
    for value, kind in [(True, int), (True, float), (1.5, int), (1, bool), ((1,), list)]:
        with pytest.raises(UserError, match="x must be"):
            check_kind("x", value, kind)
    with pytest.raises(UserError, match="leave it out, there are none"):
        typed_settings(["a=1"], {}, "parameter")
