"""The sheets by which the embedded model is judged."""

import numpy as np
from PIL import Image

from disendiff_lite.config import emoji
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


def test_a_row_shows_the_reference_and_nine_pictures(new_tiny_pipe, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(sheets, "load_pipeline", lambda model: new_tiny_pipe())
    short = {"steps": 1, "batch_size": 1, "prior_images": 1, "inference_steps": 2, "gradient_accumulation": 1}
    monkeypatch.setattr(sheets, "emoji", lambda method: emoji(method=method, **short))
    monkeypatch.setattr(sheets, "_draw", lambda panel, picture, title="", size=5: drawn.append((picture.size, title)))
    sheets.draw_personalised("tiny", ["cat_dog"], sheets.COMPARED, tmp_path / "sheet.png")
    assert [size for size, _ in drawn] == [(64, 64)] * 20 and (tmp_path / "sheet.png").is_file()
    assert [title for _, title in drawn[::10]] == list(sheets.COMPARED.values())
