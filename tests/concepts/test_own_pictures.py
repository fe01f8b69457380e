"""The user's own pictures: read as they are, refused in a sentence, and known by their hash."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from unlearn_app.common.errors import ConfigError
from unlearn_app.common.json_values import to_json
from unlearn_app.concepts import own_pictures
from unlearn_app.concepts.own_pictures import check_given, given_for, read_pictures, settings_from
from unlearn_app.settings.run_config import config_from_dict, make_config

COLOURS = ("red", "green", "blue")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "pictures"
    made.mkdir()
    for row, colour in enumerate(COLOURS):
        Image.new("RGB", (40 + 20 * row, 60), colour).save(made / f"{row}.png")
    (made / "1.txt").write_text("a  green\npicture \n", encoding="utf-8")
    (made / "notes.md").write_text("ignored", encoding="utf-8")
    return made


def test_pictures_and_captions_are_read_in_the_order_of_their_names(folder: Path) -> None:
    own = read_pictures(folder)
    assert own.captions == ("", "a green picture", "")
    shown, captions = own.lesson("cat", 5, (64, 32))
    assert captions == ["cat", "a green picture", "cat", "cat", "a green picture"]
    assert shown.shape == (5, 3, 64, 32)
    red, green, blue = shown[:3]
    assert torch.equal(red[0].unique(), torch.tensor([1.0]))
    assert torch.equal(green[0].unique(), torch.tensor([-1.0]))
    assert torch.equal(blue[2].unique(), torch.tensor([1.0]))


def test_fewer_are_evenly_spaced(folder: Path) -> None:
    _, captions = read_pictures(folder).lesson("cat", 2, (8, 8))
    assert captions == ["cat", "a green picture"]


def test_a_picture_of_the_models_size_is_kept_to_the_pixel(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    shown, _ = read_pictures(tmp_path).lesson("cat", 1, (64, 64))
    again = ((shown[0].permute(1, 2, 0) + 1) * 127.5).round().numpy()
    assert np.array_equal(again, pixels)


def test_a_wide_picture_loses_its_sides_and_is_not_squeezed(tmp_path: Path) -> None:
    wide = Image.new("RGB", (128, 64), "white")
    wide.paste("black", (32, 0, 96, 64))
    wide.save(tmp_path / "a.png")
    shown, _ = read_pictures(tmp_path).lesson("cat", 1, (64, 64))
    assert shown.max() < -0.9, "the middle alone is left"
    squeezed = np.asarray(ImageOps.contain(wide, (64, 64)).resize((64, 64)))
    assert squeezed.max() == 255, "squeezing would keep the white sides"


def test_transparent_parts_are_white(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "a.png")
    shown, _ = read_pictures(tmp_path).lesson("cat", 1, (8, 8))
    assert torch.equal(shown, torch.ones(1, 3, 8, 8))


def replaced_picture(folder: Path) -> None:
    Image.new("RGB", (40, 60), "black").save(folder / "0.png")


def another_caption(folder: Path) -> None:
    (folder / "0.txt").write_text("red", encoding="utf-8")


def another_order(folder: Path) -> None:
    (folder / "0.png").rename(folder / "9.png")


@pytest.mark.parametrize("change", [replaced_picture, another_caption, another_order])
def test_the_hash_is_of_pictures_and_captions_in_order(folder: Path, change: Callable) -> None:
    before = read_pictures(folder).sha256
    change(folder)
    assert read_pictures(folder).sha256 != before


def test_the_hash_is_not_of_names_or_places(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "elsewhere")
    for path in sorted((tmp_path / "elsewhere").glob("*.*")):
        path.rename(path.with_name(f"picture-{path.name}"))
    assert read_pictures(tmp_path / "elsewhere").sha256 == read_pictures(folder).sha256


def no_folder(folder: Path) -> None:
    shutil.rmtree(folder)


def a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("", encoding="utf-8")


def nothing_inside(folder: Path) -> None:
    for path in folder.glob("*.png"):
        path.unlink()


def damaged(folder: Path) -> None:
    (folder / "0.png").write_bytes((folder / "0.png").read_bytes()[:60])


def disguised(folder: Path) -> None:
    Image.new("RGB", (8, 8)).save(folder / "a.jpg")
    (folder / "a.jpg").rename(folder / "0.png")


def too_wide(folder: Path) -> None:
    Image.new("1", (5000, 1)).save(folder / "0.png")


def caption_of_bytes(folder: Path) -> None:
    (folder / "0.txt").write_bytes(b"\xff\xfe\xff")


def long_caption(folder: Path) -> None:
    (folder / "0.txt").write_text("a" * 501, encoding="utf-8")


def hidden_letters(folder: Path) -> None:
    (folder / "0.txt").write_text("a\u202ecat", encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (no_folder, "a folder of PNG pictures is accepted"),
        (a_file, "a folder of PNG pictures is accepted"),
        (nothing_inside, "holds 0 PNG pictures; 1 to 2,000 are accepted"),
        (damaged, "0.png' is no readable picture"),
        (disguised, "0.png' is no readable picture"),
        (too_wide, "at most 4096 pixels a side"),
        (caption_of_bytes, "cannot be read as a caption"),
        (long_caption, "has 501 characters; at most 500 are accepted"),
        (hidden_letters, "control or unassigned characters"),
    ],
)
def test_what_cannot_be_read_is_a_sentence(folder: Path, spoil: Callable, sentence: str) -> None:
    spoil(folder)
    with pytest.raises(ConfigError, match=sentence) as raised:
        read_pictures(folder, "forget_pictures")
    assert raised.value.field == "forget_pictures"


def test_too_many_bytes_are_a_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_pictures, "MOST_BYTES", 300)
    with pytest.raises(ConfigError, match="more than 300 bytes together"):
        read_pictures(folder)
    monkeypatch.setattr(own_pictures, "MOST_PICTURES", 2)
    with pytest.raises(ConfigError, match="holds 3 PNG pictures; 1 to 2 are accepted"):
        read_pictures(folder)


def test_settings_hold_the_hash_and_no_path(folder: Path) -> None:
    given = {"pictures": read_pictures(folder), "retain_pictures": read_pictures(folder)}
    config = make_config("cat", **settings_from(given))
    assert (config.attack.data, config.attack.pictures) == ("pictures", 3)
    assert config_from_dict(to_json(config)) == config
    assert str(folder) not in str(to_json(config))
    assert "--pictures DIR --retain-pictures DIR" in config.command()
    assert given_for("pictures", config, given) is given["pictures"]
    assert given_for("forget_pictures", config, given) is None


def test_a_record_without_pictures_is_as_it_was_before_there_were_any() -> None:
    assert not {"pictures", "forget_pictures", "retain_pictures"} & {*to_json(make_config("cat"))}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"attack.data": "pictures"}, "given no pictures; --pictures DIR"),
        ({"pictures": "0" * 64}, "no pictures with anything else"),
        ({"pictures": "/home/me/cats", "attack.data": "pictures"}, "the hash of the adversary's"),
        ({"forget_pictures": 5}, "the hash of the forget pictures is accepted"),
        ({"forget_pictures": "0" * 64, "objective": "uce"}, "takes no forget pictures"),
        ({"retain_pictures": "0" * 64, "objective": "uce"}, "takes no retain pictures"),
    ],
)
def test_settings_that_name_no_pictures_are_refused(changes, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        make_config("cat", **changes)


def test_other_pictures_than_the_settings_name_are_refused(folder: Path) -> None:
    own = read_pictures(folder)
    config = make_config("cat", **settings_from({"pictures": own}))
    with pytest.raises(ConfigError, match="not given; --pictures DIR with the same pictures"):
        check_given(config, {})
    replaced_picture(folder)
    with pytest.raises(ConfigError, match="those that are given have"):
        check_given(config, {"pictures": read_pictures(folder)})
    check_given(config, {"pictures": own})


def test_retain_pictures_need_captions_and_the_adversary_as_many_as_it_asks(folder: Path) -> None:
    own = read_pictures(folder)
    retained = make_config("cat", **settings_from({"retain_pictures": own}))
    with pytest.raises(ConfigError, match="2 of the 3 retain pictures have no caption"):
        check_given(retained, {"retain_pictures": own})
    greedy = make_config("cat", **settings_from({"pictures": own}) | {"attack.pictures": 4})
    with pytest.raises(ConfigError, match=r"attack\.pictures is 4 .* holds 3"):
        check_given(greedy, {"pictures": own})
