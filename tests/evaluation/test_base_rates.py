"""Shipped base rates: used where everything they depend on is the same, and nowhere else."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from unlearn_app.evaluation import base_rates
from unlearn_app.evaluation.base_rates import (
    attack_key,
    of_attack,
    record,
    relearning,
    relearning_key,
    seconds_of,
    taught_curve,
)
from unlearn_app.evaluation.judges.loading import load_scorer
from unlearn_app.models.catalog import load_model
from unlearn_app.pocket.lesson import EASIEST
from unlearn_app.settings.attacks import QUICK, SURE
from unlearn_app.settings.events import GroupScore
from unlearn_app.settings.run_config import make_attack, make_config

CONFIG = make_config("cat")
MODEL = SimpleNamespace(base_hash="abc", scheduler="DDPMScheduler")
NAMES = {"object": "pumpkin", "style": "thermal"}


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    file = tmp_path / "base_rates.json"
    marks = {"10": [12, 120], "50": [100, 120]}
    rate = {"config": relearning_key(CONFIG, MODEL), "marks": marks}
    record("relearning", {kind: rate | {"name": name} for kind, name in NAMES.items()}, file)
    noise = {
        "config": attack_key(make_attack("noise"), CONFIG, MODEL),
        "hits": "0100",
        "seconds": 6.0,
    }
    record(
        "attacks",
        {kind: {"noise": noise | {"name": f"{name}, never seen"}} for kind, name in NAMES.items()},
        file,
    )
    record("pace", 0.5, file)
    return file


def test_the_same_attack_on_the_same_model_has_its_rate(shipped: Path) -> None:
    style = make_config("van gogh", seed=7, objective="uce")
    for config in (CONFIG, style, make_config("cat", **{"compare.near": 3})):
        name = NAMES["style" if config == style else "object"]
        found = relearning(config, MODEL, shipped)
        assert found.name == name
        assert found.marks == {10: (12, 120), 50: (100, 120)}
        assert of_attack("noise", make_attack("noise"), config, MODEL, shipped) == {
            "name": f"{name}, never seen",
            "hits": [False, True, False, False],
        }


@pytest.mark.parametrize(
    "changes",
    [
        {"attack.steps": 51},
        {"attack.rank": 4},
        {"attack.data": "one"},
        {"compare.sampling_steps": 9},
        {"compare.guidance_scale": 4.0},
    ],
)
def test_another_adversary_or_sampler_has_none(shipped: Path, changes: dict) -> None:
    config = make_config("cat", **changes)
    assert relearning(config, MODEL, shipped) is None
    assert of_attack("noise", make_attack("noise"), config, MODEL, shipped) is None


@pytest.mark.parametrize(
    "change", [{"base_hash": "other"}, {"scheduler": "DDIMScheduler"}], ids=["weights", "scheduler"]
)
def test_another_model_has_none(shipped: Path, change: dict[str, str]) -> None:
    other = SimpleNamespace(**vars(MODEL) | change)
    assert relearning(CONFIG, other, shipped) is None


def test_another_attack_has_none(shipped: Path, tmp_path: Path) -> None:
    assert relearning(CONFIG, MODEL, tmp_path / "gone.json") is None
    assert of_attack("noise", make_attack("noise", tries=3), CONFIG, MODEL, shipped) is None
    assert of_attack("prompts", make_attack("prompts"), CONFIG, MODEL, shipped) is None


def test_the_control_itself_is_measured_against_something_else(shipped: Path) -> None:
    config = make_config("pumpkin")
    assert relearning(config, MODEL, shipped) is None
    assert of_attack("noise", make_attack("noise"), config, MODEL, shipped) is None


def test_controls_of_the_run_itself_are_a_curve_too() -> None:
    curve = taught_curve({0: GroupScore(0.0, 0.1, 12), 10: GroupScore(0.25, 0.1, 12)})
    assert curve.marks == {0: (0, 12), 10: (3, 12)}
    assert taught_curve({}) is None
    assert taught_curve({0: GroupScore(None, None, 12)}) is None


def test_the_time_it_takes_follows_the_pace_of_the_run(shipped: Path) -> None:
    """Sixty-four pictures in 64 s are half the recorded pace, so the recorded 6 s become 12."""
    assert seconds_of(["noise"], CONFIG, {"compare_s": 32.0}, shipped) == pytest.approx(12.0)
    assert seconds_of(["noise", "prompts"], CONFIG, {"compare_s": 32.0}, shipped) is None
    assert seconds_of(["noise"], CONFIG, {}, shipped) is None
    assert seconds_of(["noise"], make_config("5"), {"compare_s": 32.0}, shipped) is None
    assert (
        seconds_of(["noise"], make_config("a", model="some/model"), {"compare_s": 1.0}, shipped)
        is None
    )


def test_what_is_shipped_fits_the_default_run_and_the_quick_attacks() -> None:
    """Otherwise a changed default would silently cost every visitor the control's time."""
    model, judge = load_model(), load_scorer("pocket", [])
    for of, config in {"object": CONFIG, "style": make_config("van gogh")}.items():
        curve = relearning(config, model)
        assert curve
        assert max(curve.marks) == config.attack.steps
        assert min(n for _, n in curve.marks.values()) >= 60
        for kind in QUICK:
            control = of_attack(kind, make_attack(kind), config, model)
            assert control
            assert len(control["hits"]) >= 36
            assert control["name"] == f"{EASIEST[of][0]}, never seen"
            known = json.loads(base_rates.FILE.read_text())["attacks"][of][kind]
            assert (known["judge"], known["sure"]) == (f"{judge.name} {judge.version}", SURE)
    assert seconds_of(QUICK, CONFIG, {"compare_s": 3.5}) > 10
    assert base_rates.FILE.stat().st_size < 20_000
