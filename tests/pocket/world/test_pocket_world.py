"""PocketCanvas: what is drawn, what is said about it, and what training never sees."""

import random
import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import ImageFont

from unlearn_app.common.paths import ASSETS
from unlearn_app.evaluation.judges.pocket_judge import MAX_WORDS, split_words
from unlearn_app.pocket.training.judge import judge_words
from unlearn_app.pocket.world import grammar, rendering
from unlearn_app.pocket.world.dataset import (
    is_held_out,
    load_split,
    render_split,
    scene_at,
    scenes,
    world_size,
)
from unlearn_app.pocket.world.rendering import (
    CELL,
    PLACEMENTS,
    SIZE,
    SUPERSAMPLING,
    Placement,
    Scene,
    _background,
    compose,
    render,
)
from unlearn_app.pocket.world.split import (
    DEVELOPMENT_FRESH,
    DEVELOPMENT_OBJECTS,
    DEVELOPMENT_STYLES,
)
from unlearn_app.pocket.world.styles import STYLE_FILTERS
from unlearn_app.pocket.world.vocabulary import (
    FRESH_OBJECTS,
    FRESH_STYLES,
    OBJECTS,
    PLACE_PHRASES,
    SETTINGS,
    STYLES,
    spellings,
)

EVERY_OBJECT = (*OBJECTS, *FRESH_OBJECTS)
EVERY_STYLE = (*STYLES, *FRESH_STYLES)


def pixels(scene: Scene) -> np.ndarray:
    return np.asarray(render(scene), np.float32)


def test_the_world_is_as_large_as_promised() -> None:
    assert (len(OBJECTS), len(STYLES), len(SETTINGS)) == (24, 16, 8)
    assert (len(FRESH_OBJECTS), len(FRESH_STYLES)) == (8, 2)
    families = {entry.family for entry in OBJECTS}
    assert {"unsafe", "tools", "characters", "pets"} <= families


def test_no_spelling_means_two_things() -> None:
    said = [text for entry in (*EVERY_OBJECT, *EVERY_STYLE, *SETTINGS) for text in spellings(entry)]
    assert len(said) == len(set(said))
    assert all(text == text.lower().strip() for text in said)


def test_the_split_into_development_and_test_halves_what_is_never_shown() -> None:
    objects, styles = {e.name for e in OBJECTS}, {e.name for e in STYLES}
    assert len(DEVELOPMENT_OBJECTS) == 8
    assert set(DEVELOPMENT_OBJECTS) < objects
    assert len(DEVELOPMENT_STYLES) == 6
    assert set(DEVELOPMENT_STYLES) < styles
    assert len(set(DEVELOPMENT_FRESH) & {e.name for e in FRESH_OBJECTS}) == len(FRESH_OBJECTS) / 2
    assert len(set(DEVELOPMENT_FRESH) & {e.name for e in FRESH_STYLES}) == len(FRESH_STYLES) / 2


def test_equal_scenes_give_equal_pixels_and_placements_matter() -> None:
    scene = Scene("cat", "mosaic", "beach")
    assert np.array_equal(pixels(scene), pixels(scene))
    assert not np.array_equal(
        pixels(scene), pixels(Scene("cat", "mosaic", "beach", Placement(right=1)))
    )
    assert scene_at("train", 123, 0) == scene_at("train", 123, 0) != scene_at("train", 123, 1)


def test_an_object_moves_by_whole_cells() -> None:
    _, here = compose("cat", "field", Placement())
    _, there = compose("cat", "field", Placement(right=1, down=1))
    assert np.array_equal(here[:-CELL, :-CELL], there[CELL:, CELL:])


def test_what_stands_behind_moves_by_whole_cells() -> None:
    here, _ = compose("knife", "night", Placement(drift=0))
    there, _ = compose("knife", "night", Placement(drift=1))
    sky = slice(0, 4)  # nothing of the object or its shadow reaches there
    assert np.array_equal(here[sky, : -2 * CELL], there[sky, CELL:-CELL])


@pytest.mark.parametrize("setting", [entry.name for entry in SETTINGS])
def test_the_horizon_moves_by_a_whole_cell(setting: str) -> None:
    """Between two buildings: the largest step of colour in the lower half, where the ground begins,
    is a cell lower.
    """
    grounds = [_background(setting, horizon, 0).reduce(SUPERSAMPLING) for horizon in (0, 1)]
    high, low = (np.asarray(ground, np.float32)[:, 7] for ground in grounds)
    changes = [np.abs(np.diff(column[SIZE // 2 :], axis=0)).sum(1) for column in (high, low)]
    assert changes[1].argmax() - changes[0].argmax() == CELL


@pytest.mark.parametrize("style", [entry.name for entry in EVERY_STYLE])
def test_a_texture_is_the_same_in_every_cell(style: str) -> None:
    """A flat picture under a style repeats from cell to cell, but for what fades over the whole
    picture.
    """
    flat = np.full((SIZE, SIZE, 3), 0.55, np.float32)
    styled = STYLE_FILTERS[style](flat, np.zeros((SIZE, SIZE), np.float32))
    inner = styled[CELL:-CELL, CELL:-CELL]
    rows, columns = inner[CELL:] - inner[:-CELL], inner[:, CELL:] - inner[:, :-CELL]
    limit = 0.2 if style in ("watercolor", "vintage") else 1e-5
    assert max(np.abs(rows).max(), np.abs(columns).max()) <= limit


@pytest.mark.parametrize("style", [entry.name for entry in EVERY_STYLE])
def test_every_object_and_setting_renders_in_every_style(style: str) -> None:
    for place, entry in enumerate(EVERY_OBJECT):
        scene = Scene(entry.name, style, SETTINGS[place % len(SETTINGS)].name, PLACEMENTS[place])
        picture = render(scene)
        assert picture.size == (SIZE, SIZE)
        assert picture.mode == "RGB"
        assert np.asarray(picture).std() > 5, f"{entry.name} in {style} is blank"


def test_styles_and_settings_look_different() -> None:
    by_style = {entry.name: pixels(Scene("dog", entry.name, "field")) for entry in EVERY_STYLE}
    by_setting = {entry.name: pixels(Scene("dog", "photo", entry.name)) for entry in SETTINGS}
    for group in (by_style, by_setting):
        for one, other in combinations(group, 2):
            assert np.abs(group[one] - group[other]).mean() > 8, f"{one} looks like {other}"


def test_no_font_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a font was opened")

    rendering._sprite.cache_clear()
    monkeypatch.setattr(ImageFont, "truetype", refuse)
    for entry in EVERY_OBJECT:
        assert (rendering.GLYPHS / f"{entry.name}.png").exists()
    render(Scene("penguin", "ink", "snow"))


def test_training_never_sees_what_is_held_out_or_fresh() -> None:
    unseen = {entry.name for entry in (*FRESH_OBJECTS, *FRESH_STYLES)}
    train, held = scenes("train", 4000, 0), scenes("held_out", 2000, 0)
    assert not [
        s
        for s in train
        if is_held_out(s.object, s.style, s.setting) or {s.object, s.style} & unseen
    ]
    assert all(is_held_out(s.object, s.style, s.setting) for s in held)
    assert all({s.object, s.style} & unseen for s in scenes("fresh", 2000, 0))
    assert {s.object for s in train} == {entry.name for entry in OBJECTS}
    assert {s.style for s in train} == {entry.name for entry in STYLES}


def test_a_split_holds_every_scene_once() -> None:
    count = world_size("held_out")
    assert len(set(scenes("held_out", count, 0))) == count
    known = len(OBJECTS) * len(STYLES) * len(SETTINGS) * len(PLACEMENTS)
    assert world_size("train") + count == known
    assert 0.03 < count / known < 0.07


def test_captions_are_made_of_known_words() -> None:
    rng, words = random.Random(0), set(judge_words())
    for _ in range(3000):
        parts = [rng.choice(entries).name for entries in (EVERY_OBJECT, EVERY_STYLE, SETTINGS)]
        text = grammar.training_caption(*parts, rng)
        said = split_words(text)
        assert set(said) <= words, text
        assert len(said) <= MAX_WORDS
        assert "{" not in text, text
        assert "  " not in text, text
        assert not text.startswith((" ", ",")), text


def test_captions_say_every_part_once() -> None:
    for entry in EVERY_OBJECT:
        text = grammar.caption(entry.name, "van gogh", "snow")
        assert entry.name in text
        assert "van gogh" in text
        assert PLACE_PHRASES["snow"][0] in text
    assert grammar.caption("apple", None, "beach") == "an apple on the beach"


def test_a_data_set_resumes_and_does_not_depend_on_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unlearn_app.pocket.world.dataset.SHARD", 3)
    assert list(render_split(tmp_path, "held_out", 5, 0, 1))[-1] == (2, 2)
    first, second = load_split(tmp_path, "held_out", 5, 0)
    assert len(first) == 3
    assert len(second) == 2
    assert np.array_equal(second[1], np.asarray(render(scene_at("held_out", 4, 0))))
    kept = sorted(tmp_path.glob("*.npy"))[0]
    before = kept.stat().st_mtime_ns
    sorted(tmp_path.glob("*.npy"))[1].unlink()
    assert list(render_split(tmp_path, "held_out", 5, 0, 2)) == [(1, 2), (2, 2)]
    assert kept.stat().st_mtime_ns == before
    assert not list(tmp_path.glob("*.partial"))


def test_the_protocol_names_the_split() -> None:
    page = (ASSETS / "docs" / "protocol.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in line.split("|")[2:4]]
        for line in page.splitlines()
        if line.startswith("| ")
    ]
    listed = [[re.split("[,;] ", cell) for cell in row] for row in rows[2:]]
    known = (
        [e.name for e in OBJECTS],
        [e.name for e in STYLES],
        [e.name for e in (*FRESH_OBJECTS, *FRESH_STYLES)],
    )
    for (development, test), names, chosen in zip(
        listed, known, (DEVELOPMENT_OBJECTS, DEVELOPMENT_STYLES, DEVELOPMENT_FRESH), strict=True
    ):
        assert tuple(development) == chosen
        assert test == [name for name in names if name not in chosen]
