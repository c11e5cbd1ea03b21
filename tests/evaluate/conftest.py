"""Who says what is in a picture, and how alike two are."""

import pytest

from disendiff_lite.evaluate.clip import load_scorer
from disendiff_lite.evaluate.judge import load_judge


@pytest.fixture(scope="session")
def judge():
    return load_judge()


@pytest.fixture(scope="session")
def scorer():
    return load_scorer("emoji", "cpu")
