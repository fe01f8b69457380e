"""What of a panel is generated together."""

import itertools

import pytest

from unlearn_app.concepts.catalog import known_concepts
from unlearn_app.concepts.concept import Prompt
from unlearn_app.continual.panel import BATCH, _batches
from unlearn_app.settings.run_config import make_config

CONFIG = make_config("cat")
KNOWN = [entry.name for entry in known_concepts(CONFIG.model) if not entry.fresh]


def panel(names: list[str], pictures: int = 4) -> dict:
    return {name: ((Prompt(f"a {name}", name, "object"), 0),) * pictures for name in names}


@pytest.mark.parametrize("pictures", [1, 3, 4, 7, 40])
def test_every_concept_is_in_one_batch(pictures: int) -> None:
    batches = _batches(CONFIG, panel([*KNOWN, "sea lion"], pictures))
    assert sorted(itertools.chain(*batches)) == sorted([*KNOWN, "sea lion"])


@pytest.mark.parametrize("pictures", [1, 3, 4, 7])
def test_batches_are_full_but_not_larger(pictures: int) -> None:
    sizes = {len(batch) for batch in _batches(CONFIG, panel(KNOWN, pictures))}
    assert max(sizes) == BATCH // pictures
    assert sizes <= {1, BATCH // pictures}


def test_a_concept_keeps_its_batch_when_the_panel_grows() -> None:
    before = _batches(CONFIG, panel(KNOWN))
    after = _batches(CONFIG, panel([*KNOWN, "sea lion", "robot", "kettle", "anvil"]))
    assert set(before) < set(after)


def test_unknown_concepts_are_never_generated_together() -> None:
    config = make_config("cat", model="some/model")
    assert _batches(config, panel(["cat", "dog", "car", "ship"])) == [
        ("cat",),
        ("dog",),
        ("car",),
        ("ship",),
    ]
