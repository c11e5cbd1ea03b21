"""Scenes: true masks, truthful captions, and what never appears in them."""

import colorsys
from dataclasses import replace

import numpy as np
from PIL import Image, ImageFilter

from disendiff_lite.emoji_world.draw.backgrounds import PHRASES, paint
from disendiff_lite.emoji_world.draw.scenes import (
    ACCESSORY_PHRASES,
    DISTANCE_PREFIXES,
    SIZE_WORDS,
    STYLES,
    Scene,
    Thing,
    random_scene,
    random_thing,
    render,
    stylise,
)
from disendiff_lite.emoji_world.draw.world import (
    COLOURS,
    HELD_OUT_HUES,
    LOOKS,
    SHAPES,
    classes,
    designs,
    designs_of,
    hue_colour,
    is_held_out_hue,
)


def test_masks_are_what_the_objects_changed(scenes):
    for scene in [s for s in scenes if not s.style][:60]:
        first = scene.things[0]
        one = replace(scene, things=(replace(first, colour=(1.0, 0.0, 0.0)),))
        rendering, empty = (render(s, np.random.default_rng(1)) for s in (one, replace(one, things=())))
        changed = np.abs(rendering.picture.astype(int) - empty.picture).sum(axis=2) > 0
        assert (rendering.masks[0] & ~changed).sum() <= 0.05 * rendering.masks[0].sum()
        near = np.asarray(Image.fromarray(rendering.masks[0]).convert("L").filter(ImageFilter.MaxFilter(5))) > 0
        assert (changed & ~near).sum() <= 0.03 * rendering.masks[0].sum()  # but for the soft rim, nothing else changed


def test_masks_of_a_scene_never_overlap_and_hidden_parts_are_not_in_them(scenes):
    assert all(scene.masks.sum(axis=0).max() <= 1 for scene in scenes)
    design = designs_of("house")[0]
    behind = Thing(design, (32, 30), 30)
    before = Thing(design, (32, 34), 40)
    scene = render(Scene((before, behind), "plain", ""), np.random.default_rng(0))
    alone = render(Scene((behind,), "plain", ""), np.random.default_rng(0))
    assert scene.masks[1].sum() < 0.3 * alone.masks[0].sum()


def test_captions_tell_the_truth(scenes):
    for scene in scenes:
        text = f" {scene.caption} "
        for thing in scene.things:
            assert f" {thing.design.class_} " in text.replace(",", " ")
            if "colour" in thing.mentions:
                looks = [
                    thing.design.look if "look" in thing.mentions else "",
                    thing.design.shape if "shape" in thing.mentions else "",
                ]
                assert " ".join(word for word in ("", thing.colour_word, *looks, thing.design.class_) if word) in text
                assert np.abs(np.array(COLOURS[thing.colour_word]) / 255 - thing.colour).max() < 0.15
            if "accessory" in thing.mentions:
                assert f"{thing.design.class_} {ACCESSORY_PHRASES[thing.accessory.class_]}" in text
            if "size" in thing.mentions:
                assert f" {thing.size_word} " in text
        colours = {thing.colour_word for thing in scene.things if "colour" in thing.mentions}
        assert not any(f" {word} " in text for word in set(COLOURS) - colours)
        modifiers = {word for thing in scene.things for word in (thing.design.look, thing.design.shape)}
        assert not any(f" {word} " in text for word in {*LOOKS.values(), *SHAPES} - modifiers)
        assert not any(phrase in text for place, phrase in PHRASES.items() if place != scene.place)
        assert not any(text.startswith(f" {words}") for style, words in STYLES.items() if style != scene.style)


def test_what_is_visible_is_often_left_unsaid(scenes):
    things = [thing for scene in scenes for thing in scene.things]
    coloured = [thing for thing in things if thing.colour_word]
    assert 0.5 < np.mean(["colour" in thing.mentions for thing in coloured]) < 0.9
    assert 0.6 < np.mean(["look" in thing.mentions for thing in things if thing.design.look]) < 0.95
    assert 0.3 < np.mean(["shape" in thing.mentions for thing in things if thing.design.shape]) < 0.7
    assert 0.5 < np.mean([PHRASES[scene.place] in scene.caption for scene in scenes]) < 0.9
    assert np.mean([len(scene.things) == 2 for scene in scenes]) > 0.5


def test_a_class_has_a_typical_look_and_others_and_never_a_held_out_one():
    rng = np.random.default_rng(0)
    looks = [random_thing(rng, (32, 32), 30, "cat").design for _ in range(600)]
    share = np.mean([design.set == "fluent-emoji-flat" for design in looks])
    assert 0.54 < share < 0.69  # 16 of 26
    assert {design.index for design in looks} == {design.index for design in designs_of("cat")}


def test_no_look_or_shape_word_means_anything_else_in_captions():
    modifiers = [*LOOKS.values(), *SHAPES]
    others = [*COLOURS, *SIZE_WORDS, *classes(), *(word for phrase in PHRASES.values() for word in phrase.split())]
    assert len(set(modifiers)) == len(modifiers) and not set(modifiers) & set(others)
    shapes = {design.shape for design in designs() if design.kind == "object"} - {""}
    assert shapes == set(SHAPES) and {design.look for design in designs()} - {""} == set(LOOKS.values())


def test_each_held_out_hue_lies_between_two_named_colours_near_it():
    named = {name: colorsys.rgb_to_hsv(*(np.array(colour) / 255)) for name, colour in COLOURS.items()}
    bright = [360 * hue for name, (hue, saturation, value) in named.items() if saturation > 0.4 and value > 0.6]
    assert not any(is_held_out_hue(hue) for hue in bright)
    for held_out in HELD_OUT_HUES.values():
        away = [(hue - held_out + 180) % 360 - 180 for hue in bright]
        assert max(step for step in away if step < 0) > -45 and min(step for step in away if step > 0) < 45


def test_held_out_designs_and_hues_never_appear_in_pretraining(scenes):
    rng = np.random.default_rng(4)
    things = [thing for scene in scenes for thing in scene.things] + [
        random_thing(rng, (32, 40), 30) for _ in range(2000)
    ]
    forbidden = [
        np.array(hue_colour(hue, s, v)) for hue in HELD_OUT_HUES.values() for s in (0.5, 0.75) for v in (0.6, 0.8)
    ]
    for thing in things:
        assert not thing.design.held_out
        if thing.colour is not None and not thing.colour_word:
            assert min(np.abs(thing.colour - colour).max() for colour in forbidden) > 0.02


def test_word_order_says_nothing_about_left_and_right():
    rng = np.random.default_rng(9)
    pairs = [random_scene(rng, count=2) for _ in range(400)]
    first_is_left = np.mean([scene.things[0].centre[0] < scene.things[1].centre[0] for scene in pairs])
    assert 0.42 < first_is_left < 0.58


def test_a_seed_gives_the_same_scene_and_another_seed_another():
    one, same, other = (random_scene(np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert one.caption == same.caption and (one.picture == same.picture).all() and (one.masks == same.masks).all()
    assert (one.picture != other.picture).any()


def test_styles_leave_no_colour_but_sepia():
    picture = paint("beach", np.random.default_rng(0))
    assert (stylise(picture, "") == picture).all()
    pencil, sepia = stylise(picture, "pencil"), stylise(picture, "sepia")
    assert (pencil[..., 0] == pencil[..., 2]).all()
    assert (sepia[..., 0] > sepia[..., 2]).all()


def test_sizes_far_and_near_follow_their_words(scenes):
    closeness = tuple(word for words in DISTANCE_PREFIXES.values() for word in words)
    for scene in scenes:
        for thing in scene.things:
            if thing.size_word and not scene.caption.startswith(closeness):
                low, high = SIZE_WORDS[thing.size_word]
                assert low <= thing.size <= high
