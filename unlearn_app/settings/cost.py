"""What a request to the page costs, estimated from its settings before it is queued, in forward
passes of the denoiser on one picture.

The counts are upper estimates. The command line has no limit.
"""

from collections.abc import Sequence
from dataclasses import replace

from ..common import registry
from ..common.errors import ConfigError
from . import groups
from .attacks import CHECKPOINTS
from .events import TrainingStage
from .groups import AttackConfig
from .run_config import RunConfig, make_attack

LIMIT = 1_000_000
"""Hours on two CPU cores; a run of the preset full that resists is a quarter of it."""
GRADIENT = 3
"""A forward and a backward pass."""
TARGETS = 3
"""Predictions of the frozen model that the loss of a training picture compares with, at most."""
TEXTS = 20
"""Texts that are encoded in the time of a forward pass, at least."""
WATCHED, FIRST_WATCHED = 28, 8
"""Pictures generated while the model unlearns: frames, and those by which a collapse is told. So
many of them come before the first step.
"""
JUDGED = 4
"""Forward passes in whose time a picture is decoded and judged."""
TRAINED = 1.6
"""Forward passes of sampling in whose time one of training runs, whose batches are smaller; chosen
by what `bench page` shows.
"""
OPEN_PANEL = 12
"""Concepts on the panel of a ledger, at most, where the model's concepts are unknown."""


def check_cost(cost: int, command: str) -> None:
    """Refuse what would keep everybody else waiting; `command` does the same on the command line.

    Raises:
        ConfigError: the cost is above `LIMIT`.
    """
    if cost > LIMIT:
        raise ConfigError(
            f"This takes about {cost:,} forward passes of the model, and the page accepts at most"
            f" {LIMIT:,}; lower steps, pictures or batch sizes, or use the command line, which has"
            f" no limit (python -m unlearn_app {command})."
        )


def run_costs(config: RunConfig) -> dict[str, int]:
    """The forward passes of a run by its parts, as `settings.events.SHARES` names them.

    An audit trains nothing, and has a control unless what it would find is recorded.
    """
    compare, attack, picture = config.compare, config.attack, _picture(config)
    resists = config.resist.on and not config.audited
    column = _column(config) * picture
    examples = 0 if _edits(config) else _examples_cost(config)
    costs = {
        "originals": column,
        "retain": examples,
        "unlearn": _unlearning(config, training_steps(config)["unlearn"]),
        "compare": column,
        "attack": 0,
        "controls": 0,
    }
    if attack.steps:
        costs["attack"] = _attacking(config, attack.steps) + column
        looks = _looks(attack.steps)
        control = _relearning(config) + (2 + looks) * compare.forget * picture
        if attack.controls or config.audited or resists:
            costs["controls"] += control
        if resists:
            plain = replace(config, resist=replace(config.resist, on=False))
            costs["controls"] += control + training_cost(plain)
    return {part: cost * _larger(config) for part, cost in costs.items()}


def share_done(config: RunConfig, part: TrainingStage, step: float) -> float:
    """The share of the work of a part that trains which is over when so many of its steps are, in
    [0, 1]: pictures come before its first step, between steps and after the last.
    """
    last, column = training_steps(config)[part], 0
    if part == "unlearn":
        done, whole = (
            _unlearning(config, n)
            + (TRAINED - 1) * _steps_cost(config, round(n))
            + JUDGED * _watched(config, n)
            for n in (step, last)
        )
    else:
        done, whole = (
            _attacking(config, n)
            + (TRAINED - 1) * fine_tuning_cost(replace(config.attack, steps=round(n)))
            + JUDGED * _looked_at(config, n)
            for n in (step, last)
        )
        column = _column(config) * (_picture(config) + JUDGED)
    return min(done / (whole + column), 1.0) if whole + column else 1.0


def _unlearning(config: RunConfig, step: float) -> int:
    """The forward passes until a step of unlearning is over, with those that watch it."""
    # An edit that is trained further has begun to unlearn before it asks for examples.
    examples = _examples_cost(config) if _edits(config) else 0
    watched = round(_watched(config, step) * _picture(config))
    return examples + _steps_cost(config, round(step)) + watched


def _watched(config: RunConfig, step: float) -> float:
    """The pictures that watch unlearning until a step is over."""
    share = step / training_steps(config)["unlearn"]
    return 0 if config.audited else FIRST_WATCHED + (WATCHED - FIRST_WATCHED) * share


def _attacking(config: RunConfig, step: float) -> int:
    """The forward passes until a step of the attack is over, with its pictures and the looks on the
    way.
    """
    taken = replace(config.attack, steps=round(step))
    looked_at = _looked_at(config, step) * _picture(config)
    return _relearning(replace(config, attack=taken)) + looked_at


def _looked_at(config: RunConfig, step: float) -> int:
    """The pictures of the attacked model that are looked at before a step is over."""
    return _looks(step) * (config.compare.forget + 2)


def _looks(step: float) -> int:
    return sum(mark < step for mark in CHECKPOINTS)


def _column(config: RunConfig) -> int:
    """The pictures of a column of the comparison."""
    return config.compare.forget + config.compare.near + config.compare.far


def run_cost(config: RunConfig) -> int:
    """The forward passes of a run: training, attack, controls and comparison."""
    return sum(run_costs(config).values())


def attacks_cost(config: RunConfig, kinds: Sequence[str]) -> int:
    """The forward passes of attacks with their usual settings on a run, each beside its control."""
    held, picture = config.attack, _picture(config)
    cost = 0
    for kind in kinds:
        attack = make_attack(kind)
        cost += held.pictures * picture
        cost += attack.forwards(held, config.compare.forget, picture)
    return 2 * cost * _larger(config)


def request_cost(config: RunConfig, plan: "groups.SequenceConfig", earlier: int) -> int:
    """The forward passes of one more request to a ledger that holds `earlier` ones."""
    known = len(registry.world(config.model).known_concepts()) or OPEN_PANEL
    trained = earlier + 1 if plan.regime == "simultaneous" else 1
    panel = (2 * (known + earlier + 1) + earlier) * plan.pictures
    passes = panel * _picture(config) + trained * training_cost(config)
    return passes * _larger(config)


def _larger(config: RunConfig) -> int:
    """How many times as much a pass costs for pictures larger than those of the model's family."""
    usual = registry.world(config.model).usual_side()
    return max(1, -(-(config.compare.resolution**2) // usual**2))


def _picture(config: RunConfig) -> int:
    guided = config.compare.guidance_scale != 1
    return config.compare.sampling_steps * (2 if guided else 1)


def training_cost(config: RunConfig) -> int:
    """Unlearning with the pictures that it trains on; an edit in closed form costs nothing, nor
    does what others have made.
    """
    return _examples_cost(config) + _steps_cost(config, config.unlearn.steps)


def _steps_cost(config: RunConfig, steps: int) -> int:
    """The first so many steps of unlearning."""
    unlearn, resist = config.unlearn, config.resist
    if not _trains(config):
        return 0
    step = 2 * unlearn.batch_size * (GRADIENT + 1)  # a target may move with the model
    taught = min(steps, unlearn.pool or steps)
    if resist.on:
        attacked = resist.batch_size * (resist.steps * GRADIENT + 3 * (GRADIENT + TARGETS))
        step += attacked * (GRADIENT if resist.order == "second" else 1)
    targets = taught * 2 * unlearn.batch_size * TARGETS
    return targets + steps * step


def training_steps(config: RunConfig) -> dict[TrainingStage, int]:
    """The steps that unlearning and the attack take; an edit in closed form is one."""
    return {
        "unlearn": config.unlearn.steps if _trains(config) else 1,
        "attack": config.attack.steps,
    }


def _edits(config: RunConfig) -> bool:
    return registry.kind_of(config.objective) != "objective"


def _trains(config: RunConfig) -> bool:
    return not config.audited and (config.resist.on or not _edits(config))


def _examples_cost(config: RunConfig) -> int:
    """The pictures that unlearning trains on."""
    pictures = (3 if config.resist.on else 2) * config.unlearn.train_pictures
    return pictures * _picture(config) if _trains(config) else 0


def _relearning(config: RunConfig) -> int:
    """The adversary's pictures and its fine-tuning."""
    attack = config.attack
    return attack.pictures * _picture(config) + fine_tuning_cost(attack)


def fine_tuning_cost(attack: AttackConfig) -> int:
    """The forward passes of an adversary's fine-tuning."""
    return attack.steps * attack.batch_size * GRADIENT
