"""What a run costs: counted from its settings, far below the limit for what the page offers."""

import pytest

from unlearn_app.common import registry
from unlearn_app.common.errors import ConfigError
from unlearn_app.settings.attacks import kinds_of
from unlearn_app.settings.cost import (
    LIMIT,
    attacks_cost,
    check_cost,
    request_cost,
    run_cost,
    run_costs,
    share_done,
    training_steps,
)
from unlearn_app.settings.groups import REGIMES
from unlearn_app.settings.presets import PRESETS, REGULARIZATION_PRESETS
from unlearn_app.settings.run_config import make_config, make_plan


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("method", registry.methods())
def test_what_the_page_offers_stays_far_below_the_limit(preset: str, method: str) -> None:
    resisting = make_config("cat", preset=preset, objective=method, **{"resist.on": True})
    assert run_cost(resisting) < LIMIT / 2
    assert attacks_cost(resisting, kinds_of("all")) < LIMIT / 2


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("hold", REGULARIZATION_PRESETS)
def test_every_concept_of_the_bundled_world_may_be_requested(regime: str, hold: str) -> None:
    config = make_config("cat", **REGULARIZATION_PRESETS[hold])
    assert request_cost(config, make_plan(regime=regime), earlier=40) < LIMIT / 2


@pytest.mark.parametrize(
    "changes",
    [
        {"unlearn.steps": 5000, "unlearn.batch_size": 256},
        {"unlearn.train_pictures": 2000, "compare.sampling_steps": 200},
        {"resist.on": True, "resist.steps": 50, "resist.batch_size": 256, "unlearn.steps": 100},
        {"resist.on": True, "resist.order": "second", "unlearn.steps": 5000},
        {"attack.steps": 5000, "attack.batch_size": 256},
        {"attack.pictures": 2000, "compare.sampling_steps": 200, "attack.controls": True},
        {"compare.forget": 500, "compare.near": 500, "compare.far": 500}
        | {"compare.sampling_steps": 100},
        {"compare.forget": 500, "attack.steps": 5000, "attack.controls": True}
        | {"compare.sampling_steps": 60, "compare.near": 1, "compare.far": 1},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_every_part_of_a_run_can_be_too_much(changes: dict) -> None:
    assert run_cost(make_config("cat", **changes)) > LIMIT


def test_the_work_that_is_asked_for_is_counted() -> None:
    config = make_config("cat", **{"attack.steps": 0})
    longer = make_config("cat", **{"attack.steps": 0, "unlearn.steps": config.unlearn.steps + 1})
    step = run_cost(longer) - run_cost(config)
    assert step >= 2 * 3 * config.unlearn.batch_size


def test_an_audit_trains_nothing_and_has_a_control() -> None:
    own, audit = (make_config("cat", audited=name) for name in (None, "theirs.safetensors"))
    assert run_costs(audit)["retain"] == run_costs(audit)["unlearn"] == 0
    assert run_costs(audit)["controls"] >= run_costs(audit)["attack"] / 2
    assert run_costs(own)["controls"] == 0
    spent = {"unlearn.steps": 5000, "unlearn.train_pictures": 2000, "resist.on": True}
    assert run_cost(make_config("cat", audited="theirs", **spent)) == run_cost(audit)


def test_no_attack_costs_nothing() -> None:
    config = make_config("cat", **{"attack.steps": 0, "attack.controls": True})
    assert run_costs(config)["attack"] == run_costs(config)["controls"] == 0


def test_a_pool_spares_predictions_of_the_original() -> None:
    pooled, drawn = (make_config("cat", **{"unlearn.pool": pool}) for pool in (2, 0))
    assert run_cost(pooled) < run_cost(drawn)


def test_a_picture_without_guidance_takes_half() -> None:
    guided = make_config("cat", objective="uce", **{"attack.steps": 0})
    alone = make_config("cat", objective="uce", **{"attack.steps": 0, "compare.guidance_scale": 1})
    assert run_cost(guided) == 2 * run_cost(alone)


def test_attacks_on_many_prompts_can_be_too_much() -> None:
    config = make_config("cat", **{"compare.forget": 500, "compare.sampling_steps": 100})
    assert attacks_cost(config, kinds_of("quick")) > LIMIT


def test_an_attack_with_fields_of_its_own_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    attack, config = registry.get("attack", "noise"), make_config("cat")
    plain = attacks_cost(config, ["noise"])
    monkeypatch.setattr(attack, "forwards", lambda *_: LIMIT)
    assert attacks_cost(config, ["noise"]) > plain + LIMIT


def test_requests_all_at_once_grow_with_their_number() -> None:
    config, plan = make_config("cat"), make_plan(regime="simultaneous")
    assert request_cost(config, plan, earlier=400) > LIMIT


def test_the_refusal_names_estimate_limit_and_command_line() -> None:
    check_cost(LIMIT, "run")
    with pytest.raises(ConfigError, match=r"1,000,001 .* 1,000,000; .*python -m unlearn_app run"):
        check_cost(LIMIT + 1, "run")


@pytest.mark.parametrize("changes", [{}, {"resist.on": True}, {"objective": "uce"}])
@pytest.mark.parametrize("part", ["unlearn", "attack"])
def test_the_share_of_a_part_grows_with_its_steps(part: str, changes: dict) -> None:
    """Unlearning ends with its last step, and the attack with pictures after it."""
    config = make_config("cat", **changes)
    steps = training_steps(config)[part]
    shares = [share_done(config, part, step) for step in range(steps + 1)]
    assert shares == sorted(set(shares))
    assert shares[0] > 0
    assert shares[-1] == 1 if part == "unlearn" else 0.7 < shares[-1] < 0.9


def test_the_share_of_an_attack_counts_its_pictures() -> None:
    """By hand: 2 pictures to train on, 20 steps of 3 x 4 passes that take 1.6 times as long, a look
    at 3 + 2 pictures after 10 steps, and a column of 5; a picture takes 2 x 5 passes, and 4 more
    where it is judged.
    """
    asked = {"attack.pictures": 2, "attack.steps": 20, "attack.batch_size": 4}
    asked |= {"compare.forget": 3, "compare.near": 1, "compare.far": 1}
    config = make_config("cat", **asked, **{"compare.sampling_steps": 5})
    whole = 2 * 10 + 20 * 19.2 + 5 * 14 + 5 * 14
    assert share_done(config, "attack", 10) == pytest.approx((20 + 192) / whole)
    assert share_done(config, "attack", 11) == pytest.approx((20 + 211.2 + 70) / whole)
    assert share_done(config, "attack", 20) == pytest.approx((whole - 70) / whole)
