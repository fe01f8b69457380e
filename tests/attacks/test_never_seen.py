"""The caller's own control: pictures of something the model has never seen, and a higher bar where
there is none.
"""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from made_findings import made_finding
from PIL import Image

from unlearn_app.attacks import runner
from unlearn_app.attacks.never_seen import NeverSeen
from unlearn_app.attacks.runner import easiest_unseen, unseen_context
from unlearn_app.concepts.catalog import preview_concept
from unlearn_app.concepts.own_pictures import read_pictures
from unlearn_app.evaluation.finding import RAISED, AttackCurve, Finding
from unlearn_app.evaluation.verdict import judge_run
from unlearn_app.settings.events import GroupScore
from unlearn_app.settings.run_config import make_config

MODEL = SimpleNamespace(latent_shape=(4, 8, 8), enlarged=8, replacement=None)
CONFIG = make_config("red dragon", model="elsewhere/model", **{"attack.pictures": 5})


@pytest.fixture
def florp(tmp_path: Path) -> NeverSeen:
    """Two pictures, a wide one with a red middle and a small green one with a caption."""
    wide = Image.new("RGB", (300, 100), "blue")
    wide.paste("red", (100, 0, 200, 100))
    wide.save(tmp_path / "a.png")
    Image.new("RGB", (10, 10), "lime").save(tmp_path / "b.PNG")
    (tmp_path / "b.txt").write_text("a green florp")
    return NeverSeen("a florp", read_pictures(tmp_path))


def test_its_pictures_are_cut_to_the_models_size_and_named(florp: NeverSeen) -> None:
    concept = easiest_unseen(preview_concept(CONFIG), CONFIG, florp)
    pictures, captions = florp.lesson(MODEL, concept, 5)
    assert pictures.shape == (5, 3, 64, 64)
    middle = pictures[0].mean((1, 2)).numpy()
    assert np.allclose(middle, (1, -1, -1), atol=0.1)
    assert pictures[1].mean((1, 2)).tolist() == [-1.0, 1.0, -1.0]
    assert (pictures[2] == pictures[0]).all()
    assert all("florp" in caption for caption in captions)
    assert captions[1::2] == ["a green florp", "a green florp"]


def test_the_world_knows_none_but_the_callers_is_taken(florp: NeverSeen, monkeypatch) -> None:
    dragon = preview_concept(CONFIG)
    assert easiest_unseen(dragon, CONFIG) is None
    taken = []
    monkeypatch.setattr(runner, "attack_context", lambda *asked: taken.append(asked))
    unseen = easiest_unseen(dragon, CONFIG, florp)
    unseen_context(MODEL, unseen, CONFIG, never_seen=florp)
    assert "florp" in unseen.name
    pictures, _ = taken[0][-1]
    assert len(pictures) == CONFIG.attack.pictures


def label(*found: Finding) -> tuple[str, str]:
    """The verdict where everything was forgotten, and its reasons."""
    gone = {"forget": GroupScore(0.0, 0.1, 12)}
    kept = {group: GroupScore(1.0, 0.3, 12) for group in ("forget", "near", "far")}
    columns = {"original": kept, "unlearned": kept | gone, "relearned": kept}
    verdict = judge_run(columns, found)
    return verdict.label, " ".join(verdict.reasons)


@pytest.mark.parametrize("hits", [6, 9])
def test_without_a_control_the_bar_is_higher_and_the_verdict_says_so(hits: int) -> None:
    high = hits / 12 > 0.3 * RAISED
    assert label(made_finding(hits=hits))[0] == "concealed"
    alone, said = label(made_finding(hits=hits, base=None))
    assert alone == ("concealed" if high else "removed")
    assert "so only more than 60% counts" in said
    curve = AttackCurve(50, 0.0)
    assert label(made_finding(hits=hits, base=None, curve=curve))[0] == "concealed"
    audited, said = label(made_finding(hits=hits, base=None, curve=replace(curve, alone=True)))
    assert audited == ("concealed" if high else "removed")
    assert "the bar is higher: only a recovery of more than 60 points counts" in said
