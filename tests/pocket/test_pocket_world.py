"""PocketCanvas: what is drawn, what is said about it, and what training never sees."""

import random
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import ImageFont

from unlearn_app.evaluation.judges.pocket_judge import MAX_WORDS, split_words
from unlearn_app.pocket import grammar, world
from unlearn_app.pocket.dataset import is_held_out, load_split, render_split, scene_at, scenes
from unlearn_app.pocket.judge import judge_words
from unlearn_app.pocket.vocabulary import FRESH_OBJECTS, OBJECTS, PLACE_PHRASES, SETTINGS, STYLES, spellings
from unlearn_app.pocket.world import SIZE, Scene, render

EVERY_OBJECT = (*OBJECTS, *FRESH_OBJECTS)


def pixels(scene: Scene) -> np.ndarray:
    return np.asarray(render(scene), np.float32)


def test_the_world_is_as_large_as_promised() -> None:
    assert (len(OBJECTS), len(STYLES), len(SETTINGS)) >= (20, 14, 8)
    assert len(FRESH_OBJECTS) >= 3
    families = {entry.family for entry in OBJECTS}
    assert {"unsafe", "tools", "characters", "pets"} <= families


def test_no_spelling_means_two_things() -> None:
    said = [text for entry in (*EVERY_OBJECT, *STYLES, *SETTINGS) for text in spellings(entry)]
    assert len(said) == len(set(said))
    assert all(text == text.lower().strip() for text in said)


def test_equal_scenes_give_equal_pixels_and_seeds_matter() -> None:
    scene = Scene("cat", "mosaic", "beach", 5)
    assert np.array_equal(pixels(scene), pixels(scene))
    assert not np.array_equal(pixels(scene), pixels(Scene("cat", "mosaic", "beach", 6)))
    assert scene_at("train", 123, 0) == scene_at("train", 123, 0) != scene_at("train", 123, 1)


@pytest.mark.parametrize("style", [entry.name for entry in STYLES])
def test_every_object_and_setting_renders_in_every_style(style: str) -> None:
    for place, entry in enumerate(EVERY_OBJECT):
        picture = render(Scene(entry.name, style, SETTINGS[place % len(SETTINGS)].name, place))
        assert picture.size == (SIZE, SIZE) and picture.mode == "RGB"
        assert np.asarray(picture).std() > 5, f"{entry.name} in {style} is blank"


def test_styles_and_settings_look_different() -> None:
    by_style = {entry.name: pixels(Scene("dog", entry.name, "field", 9)) for entry in STYLES}
    by_setting = {entry.name: pixels(Scene("dog", "photo", entry.name, 9)) for entry in SETTINGS}
    for group in (by_style, by_setting):
        for one, other in combinations(group, 2):
            assert np.abs(group[one] - group[other]).mean() > 8, f"{one} looks like {other}"


def test_no_font_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a font was opened")

    world._glyph.cache_clear()
    monkeypatch.setattr(ImageFont, "truetype", refuse)
    for entry in EVERY_OBJECT:
        assert all((world.GLYPHS / f"{entry.name}_{index}.png").exists() for index in range(len(entry.glyphs)))
    render(Scene("penguin", "ink", "snow", 1))


def test_training_never_sees_what_is_held_out_or_fresh() -> None:
    fresh = {entry.name for entry in FRESH_OBJECTS}
    train, valid = scenes("train", 2000, 0), scenes("valid", 2000, 0)
    assert not [s for s in train if is_held_out(s.object, s.style, s.setting) or s.object in fresh]
    assert not [s for s in valid if s.object in fresh]
    assert {s.object for s in scenes("fresh", 200, 0)} == fresh
    assert {s.object for s in train} == {entry.name for entry in OBJECTS}
    share = np.mean([is_held_out(s.object, s.style, s.setting) for s in valid])
    assert 0.03 < share < 0.07
    assert not {s.seed for s in train} & {s.seed for s in valid}


def test_captions_are_made_of_known_words() -> None:
    rng, words = random.Random(0), set(judge_words())
    for _ in range(3000):
        parts = [rng.choice(entries).name for entries in (EVERY_OBJECT, STYLES, SETTINGS)]
        text = grammar.training_caption(*parts, rng)
        said = split_words(text)
        assert set(said) <= words, text
        assert len(said) <= MAX_WORDS
        assert "{" not in text and "  " not in text and not text.startswith((" ", ",")), text


def test_captions_say_every_part_once() -> None:
    for entry in EVERY_OBJECT:
        text = grammar.caption(entry.name, "van gogh", "snow")
        assert entry.name in text and "van gogh" in text and PLACE_PHRASES["snow"][0] in text
    assert grammar.caption("apple", None, "beach") == "an apple on the beach"


def test_a_data_set_resumes_and_does_not_depend_on_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unlearn_app.pocket.dataset.SHARD", 3)
    assert list(render_split(tmp_path, "valid", 5, 0, 1))[-1] == (2, 2)
    first, second = load_split(tmp_path, "valid", 5, 0)
    assert len(first) == 3 and len(second) == 2
    assert np.array_equal(second[1], np.asarray(render(scene_at("valid", 4, 0))))
    kept = sorted(tmp_path.glob("*.npy"))[0]
    before = kept.stat().st_mtime_ns
    sorted(tmp_path.glob("*.npy"))[1].unlink()
    assert list(render_split(tmp_path, "valid", 5, 0, 2)) == [(1, 2), (2, 2)]
    assert kept.stat().st_mtime_ns == before
    assert not list(tmp_path.glob("*.partial"))
