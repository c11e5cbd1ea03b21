"""The scorer: its losses, what it sees, and that it knows individuals, classes and colours."""

import numpy as np
import pytest
import torch
from PIL import Image

from disendiff_lite.emoji_world.draw.scenes import Scene, Thing, random_scene, render
from disendiff_lite.emoji_world.draw.world import COLOURS, designs_of
from disendiff_lite.emoji_world.train import scorer, scorer_losses
from disendiff_lite.evaluate.clip import embed_pictures, embed_texts, load_scorer
from disendiff_lite.support.paths import EMBEDDED_SCORER


def test_kinship_of_hand_made_pictures():
    kinds = torch.tensor([[0, 1], [0, 1], [0, 1], [2, 1]])
    looks = torch.tensor([[0, 10], [0, 10], [5, 10], [20, 10]])
    colours = torch.tensor(
        [[[1.0, 0, 0], [0, 0, 1]], [[1, 0, 0], [0, 0, 1]], [[0, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 0, 1]]]
    )
    present = torch.tensor([[1.0, 1], [1, 0], [1, 0], [1, 0]])
    share = 1 - scorer_losses.PLACE_SHARE
    matrix = scorer_losses.kinship(kinds, looks, colours, present, torch.tensor([0, 1, 2, 3]))
    assert torch.allclose(matrix.diagonal(), torch.ones(4)) and torch.allclose(matrix, matrix.T)
    assert matrix[0, 1].item() == pytest.approx(share / 2**0.5)  # one of two things
    assert matrix[1, 2].item() == pytest.approx(share * 0.30, abs=1e-4)  # the class alone
    assert matrix[1, 3].item() == 0
    assert torch.linalg.eigvalsh(matrix).min() > -1e-5


def test_kinship_loss_is_zero_for_the_target_cosines_and_leaves_out_what_does_not_count():
    embeddings = torch.eye(4)[:3]
    target = torch.eye(3)
    target[0, 1] = target[1, 0] = 0.5
    everything = torch.ones(3, dtype=torch.bool)
    assert scorer_losses.kinship_loss(embeddings, target, everything).item() == pytest.approx(0.5 * 0.25)
    embeddings = torch.tensor([[1.0, 0, 0], [0.5, 0.75**0.5, 0], [0, 0, 1]])
    assert scorer_losses.kinship_loss(embeddings, target, everything).item() == pytest.approx(0, abs=1e-9)


def test_the_whole_window_is_the_picture_and_a_flip_mirrors_it(some_views):
    pictures = some_views.pictures[:2, 0]
    whole = np.tile([0, 0, 64, 64], (2, 1))
    plain = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    assert torch.allclose(scorer.sight(pictures, whole, np.zeros(2, bool)), plain, atol=1e-4)
    assert torch.allclose(scorer.sight(pictures, whole, np.ones(2, bool)), plain.flip(3), atol=1e-4)
    part = scorer.sight(pictures, np.array([[0, 0, 32, 32]] * 2), np.zeros(2, bool))
    assert (part[:, :, 63, 63] - plain[:, :, 31, 31]).abs().max() < 0.3


def test_crop_windows_are_square_around_the_box():
    window = scorer.crop_windows(np.array([[10.0, 20, 30, 24]]), 1.5)
    assert window.tolist() == [[5, 7, 35, 37]]


def test_the_scorer_loads_in_open_clip_and_tells_individuals_apart(some_views):
    open_clip = pytest.importorskip("open_clip")
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{EMBEDDED_SCORER}")
    tokenize = open_clip.get_tokenizer(f"local-dir:{EMBEDDED_SCORER}")
    cosines = scorer.ranking(model.eval().encode_image, some_views)
    assert (cosines["same"] > cosines["same_class"]).mean() > 0.94
    assert (cosines["same_class"] > cosines["other_class"]).mean() > 0.94
    scene = random_scene(np.random.default_rng(2), count=1)
    assert preprocess(Image.fromarray(scene.picture)).shape == (3, 64, 64)
    embedding = model.encode_text(tokenize(["photo of a red cat"]))
    assert embedding.shape == (1, scorer.CONFIG["model_cfg"]["embed_dim"])


def test_the_scorer_knows_classes_and_colours_by_name():
    clip, rng, right = load_scorer("emoji", device="cpu"), np.random.default_rng(21), []
    texts = [f"photo of a {colour} {class_}" for class_ in ("cat", "car", "fish") for colour in ("red", "blue")]
    for index, text in enumerate(texts):
        colour, class_ = text.split()[-2:]
        thing = Thing(designs_of(class_)[2], (32, 36), 34, tuple(np.array(COLOURS[colour]) / 255))
        picture = Image.fromarray(render(Scene((thing,), "room", ""), rng).picture)
        right.append(int((embed_pictures(clip, [picture]) @ embed_texts(clip, texts).T).argmax()) == index)
    assert np.mean(right) >= 5 / 6
