"""The card of the bundled models is what the template makes of card.json."""

import json
from pathlib import Path
from typing import Any

import pytest

from unlearn_app.common.errors import ConfigError
from unlearn_app.common.paths import POCKET
from unlearn_app.common.record_files import read_json
from unlearn_app.pocket.card import card_text, part_sizes, write_card, write_flow_card


def rendered_card(pocket: Any, **training: Any) -> str:
    card = json.loads((POCKET / "card.json").read_text(encoding="utf-8"))
    card["training"] |= training
    return card_text(card, part_sizes(pocket, POCKET))


def test_the_shipped_card_is_that_of_the_shipped_record(pocket: Any) -> None:
    assert rendered_card(pocket) == (POCKET / "README.md").read_text(encoding="utf-8")


def test_a_training_has_a_row_and_its_note_a_line(pocket: Any) -> None:
    losses = [[step, step / 10] for step in range(9)]
    part = {"steps": 10, "batch": 2, "seed": 3, "seconds": 90, "losses": losses}
    text = rendered_card(pocket, autoencoder={**part, "hardware": "a GPU", "note": "shorter"})
    curve = "0.000 at 0, 0.200 at 2, 0.400 at 4, 0.600 at 6, 0.800 at 8"
    assert f"| autoencoder | 10 | 2 | 3 | 2 min | {curve} | a GPU |\n" in text
    assert "\n\nWhere this run left the recipe:\n\n- " in text
    assert "\n- autoencoder: shorter.\n" in text
    assert "The decoder was then trained on codes with noise" in text


@pytest.mark.parametrize("write", [write_card, write_flow_card])
@pytest.mark.parametrize("card", [None, "{", "[]", "{}"])
def test_without_a_training_there_must_be_a_card(write: Any, card: Any, tmp_path: Path) -> None:
    for name in ("pocket", "pocket-flow"):
        (tmp_path / name).mkdir()
        if card:
            (tmp_path / name / "card.json").write_text(card)
    with pytest.raises(ConfigError, match=r"card.* --work with a finished training is accepted"):
        next(write(assets=tmp_path))


def test_a_card_is_read_as_it_is() -> None:
    card = POCKET / "card.json"
    assert read_json(card, "card") == json.loads(card.read_text(encoding="utf-8"))


def test_arms_have_a_table(pocket: Any) -> None:
    pace = {"seconds": 1.25, "hardware": "2 CPU threads (AVX2)"}
    arm = {
        "hardware": "a GPU",
        "setting": {"seconds": 900, "pace": pace},
        "steps": 7,
        "pictures": 448,
        "loss": 0.25,
    }
    arm |= {"losses": {"50": 0.2, "950": 0.3}, "judge": {"object": 0.5, "style": 1}}
    card = json.loads((POCKET / "card.json").read_text(encoding="utf-8")) | {"arms": {"wide": arm}}
    text = card_text(card, part_sizes(pocket, POCKET))
    assert "as many steps as 2 CPU threads (AVX2) take in\n15 minutes in float32" in text
    assert "trained on a GPU" in text
    heads = "| setting | s a step | steps | pictures | loss, mean | t = 50 | t = 950 | object |"
    assert f"{heads} style |\n" in text
    assert "\n| wide | 1.25 | 7 | 448 | 0.2500 | 0.200 | 0.300 | 50.0% | 100.0% |\n\n" in text
