"""What several tests of the emoji world look at: random scenes and views."""

import numpy as np
import pytest

from disendiff_lite.emoji_world.draw import views
from disendiff_lite.emoji_world.draw.scenes import Scene, random_scene


@pytest.fixture(scope="session")
def scenes() -> list[Scene]:
    """Three hundred scenes as pretraining draws them."""
    rng = np.random.default_rng(123)
    return [random_scene(rng) for _ in range(300)]


@pytest.fixture(scope="session")
def some_views() -> views.Views:
    """A hundred and sixty groups in two views."""
    return views.random_views(160, seed=77)
