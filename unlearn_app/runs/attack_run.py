"""Attack what a run has left behind, and keep what is found beside it."""

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from ..attacks import Attack
from ..attacks.never_seen import NeverSeen
from ..attacks.runner import attack_context, attack_of, check_judge, find, told_apart
from ..common import registry
from ..common.atomic_files import check_space
from ..common.errors import ConfigError, ShouldStop, enough_memory, never
from ..concepts.catalog import preview_concept
from ..concepts.own_pictures import NONE_GIVEN, GivenPictures, check_adversary
from ..evaluation.finding import Finding
from ..evaluation.judges.loading import load_scorer
from ..models.catalog import load_for
from ..models.protocols import Model, slots_kept
from ..models.sizes import picture_size
from ..settings.events import Event, Stage
from ..settings.run_config import FOLDER, RunConfig, config_from_dict
from .findings import judge_again, read_findings, write_finding
from .folder import Run
from .provenance import environment
from .published import check_unlearned, load_unlearned


def run_attacks(
    run: Run,
    kinds: Sequence[str],
    changes: Mapping[str, Any] | None = None,
    *,
    model: Model | None = None,
    should_stop: ShouldStop = never,
    given: GivenPictures = NONE_GIVEN,
    never_seen: NeverSeen | None = None,
    skip: bool = False,
) -> Iterator[Event | Finding]:
    """Attack a stored run in several ways, and keep and yield what is found, with all events.

    `changes` are settings of the attacks (`inversion.steps`) or of the run (`attack.pictures`,
    `compare.forget`, `judge`, and `model`, the place where its model is now); `given` are pictures
    for the adversary, `never_seen` the control where the model's world names none. Attacks that do
    not apply are refused, or with `skip` left out. The last event is the verdict with all findings.

    Raises:
        UnlearnError: an unknown attack or setting, no judge, another model than that of the run, or
            a run that holds no adapter or not the one it recorded, or findings that cannot be read.
    """
    read_findings(run.folder)  # refuses what the new ones could not stand beside
    changes = dict(changes or {})
    rest = {name: value for name, value in changes.items() if name.partition(".")[0] not in kinds}
    config = config_from_dict(run.record["config"], **{**_own_data(rest), **rest})
    attacks = {kind: attack_of(config, kind, **_own(kind, changes)) for kind in kinds}
    check_unlearned(run)
    check_adversary(config, given)
    yield Stage("load", f"Loading the {config.model} model", 0.0)
    concept = preview_concept(config)
    scorer = load_scorer(config.model, told_apart(concept, config, never_seen), config.judge)
    check_judge(scorer, config)  # before the model, which may take minutes and gigabytes
    model = load_for(config, model)
    run.check_base(model.base_hash, model.name)
    unlearned = partial(_unlearned, model, load_unlearned(run, model), config.compare.resolution)
    with unlearned():
        _check_room(run, config, attacks.values(), model)
        context = attack_context(model, concept, config, should_stop, given=given)
    for kind, attack in attacks.items():
        try:
            with unlearned(), enough_memory(f"The attack {kind}", _lowered(kind)):
                found, images = yield from find(model, context, config, attack, scorer, never_seen)
        except ConfigError as error:
            yield _left_out(kind, error, skip)
            continue
        command = _command(run, kind, rest, _own(kind, changes), never_seen)
        found = replace(found, command=command, environment=environment(model, scorer))
        yield replace(found, folder=write_finding(run.folder, found, images))
    yield judge_again(run, read_findings(run.folder))


def _check_room(run: Run, config: RunConfig, attacks: Iterable[Attack], model: Model) -> None:
    """Refuse attacks whose pictures do not fit beside the run."""
    shown = sum(attack.tries for attack in attacks) * config.compare.forget
    check_space(run.folder, shown * picture_size(model))


def _left_out(kind: str, error: ConfigError, skip: bool) -> Stage:
    """What to say of an attack that needs what the model does not offer, where these are to be left
    out.

    Raises:
        ConfigError: any other error, or they are refused.
    """
    if not skip or error.field != "model":
        raise error
    return Stage("attack", f"The attack {kind} does not apply: {error}", 0.0)


def _own_data(changes: Mapping[str, Any]) -> dict[str, Any]:
    """No folder where other data than pictures are asked for of a run whose adversary held one."""
    other = changes.get("attack.data", "pictures") != "pictures"
    return {"pictures": None} if other else {}


@contextmanager
def _unlearned(model: Model, load: Callable[[], None], resolution: int) -> Iterator[None]:
    """The unlearned model of a run, which `load` puts into the slot, in `model` for a while, with
    pictures of the run's resolution.
    """
    with slots_kept(model), model.of_resolution(resolution):
        model.drop_adapters()
        load()
        yield


def _own(kind: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are an attack's own, without its name."""
    return {
        name.partition(".")[2]: value
        for name, value in changes.items()
        if name.partition(".")[0] == kind
    }


def _lowered(kind: str) -> str:
    """What to lower where memory is too small for an attack."""
    own = [item.name for item in registry.settings_of("attack", kind) if "batch" in item.name]
    names = [f"{kind}.{name}" for name in own] or ["attack.batch_size", "attack.rank"]
    return f"{', '.join(names)} or compare.forget"


def _command(
    run: Run,
    kind: str,
    rest: Mapping[str, Any],
    own: Mapping[str, Any],
    never_seen: NeverSeen | None,
) -> str:
    words = ["python", "-m", "unlearn_app", "attack", run.folder.name, "--kind", kind]
    words += ["--pictures", FOLDER] if "pictures" in rest else []
    if never_seen:
        words += ["--never-seen", never_seen.name, "--never-seen-pictures", FOLDER]
    rest = {name: value for name, value in rest.items() if name != "pictures"}
    changes = dict(rest) | {f"{kind}.{name}": value for name, value in own.items()}
    for name, value in changes.items():
        option = name in ("judge", "model")
        words += [f"--{name}", value] if option else ["--set", f"{name}={value}"]
    return shlex.join(words)
