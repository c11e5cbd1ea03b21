"""The sheets by which the embedded model is judged."""

import numpy as np
from PIL import Image

from disendiff_lite.config import Config
from disendiff_lite.emoji_world.check import sheets
from disendiff_lite.emoji_world.draw.world import COLOURS, classes
from disendiff_lite.support.paths import EMBEDDED_MODEL


def test_the_prompt_sheet_goes_through_the_world():
    prompts = sheets.sheet_prompts()
    assert len(prompts) == len(set(prompts)) == sheets.COLUMNS**2
    words = {word for prompt in prompts for word in prompt.split()}
    assert words >= {*classes(), *COLOURS, "hat", "sunglasses", "pencil"}


def test_the_training_figure_is_drawn_from_the_shipped_log(tmp_path):
    path = tmp_path / "training.png"
    sheets.draw_training(EMBEDDED_MODEL / "training.csv", path)
    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
    coloured = np.ptp(picture, axis=2) > 60
    assert picture.shape[1] > 900 and coloured.sum() > 500  # the curves


def test_a_personalised_row_shows_the_reference_and_nine_pictures(tiny_pipe, tmp_path, monkeypatch):
    sizes = []
    monkeypatch.setattr(sheets, "load_pipeline", lambda model: tiny_pipe)
    short = {"steps": 1, "batch_size": 1, "prior_images": 1, "inference_steps": 2, "gradient_accumulation": 1}
    monkeypatch.setattr(sheets, "emoji", lambda: Config(preset="emoji", resolution=64, **short))
    monkeypatch.setattr(sheets, "_draw", lambda panel, picture, *rest: sizes.append(picture.size))
    sheets.draw_personalised("tiny", ["cat_dog"], tmp_path / "sheet.png")
    assert sizes == [(64, 64)] * 10 and (tmp_path / "sheet.png").is_file()
