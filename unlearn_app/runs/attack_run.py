"""Attack what a run has left behind, and keep what is found beside it."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..attacks.runner import attack_context, attack_of, check_judge, find
from ..common import registry
from ..common.atomic_files import check_space
from ..common.errors import ShouldStop, enough_memory, never
from ..concepts.catalog import preview_concept
from ..concepts.own_pictures import NONE_GIVEN, GivenPictures, check_adversary
from ..evaluation.finding import Finding
from ..evaluation.judges.loading import load_scorer
from ..models.catalog import load_for
from ..models.diffusers.adapter_files import read_adapter
from ..models.protocols import Model, slots_kept
from ..models.sizes import picture_size
from ..settings.events import Event, Stage
from ..settings.run_config import FOLDER, config_from_dict
from .findings import judge_again, read_findings, write_finding
from .folder import Run
from .provenance import environment


def run_attacks(
    run: Run,
    kinds: Sequence[str],
    changes: Mapping[str, Any] | None = None,
    *,
    model: Model | None = None,
    should_stop: ShouldStop = never,
    given: GivenPictures = NONE_GIVEN,
) -> Iterator[Event | Finding]:
    """Attack a stored run in several ways, keep what is found beside it, and yield it with what
    happens meanwhile.

    `changes` are settings of the attacks (`inversion.steps`) or of the run (`attack.pictures`,
    `compare.forget`, `judge`, and `model`, the place where its model is now); `given` are pictures
    for the adversary. The last event is the verdict with everything that was ever found.

    Raises:
        UnlearnError: an unknown attack or setting, no judge, a run that holds no adapter or another
            than it recorded, or another model than it was made with.
    """
    changes = dict(changes or {})
    rest = {name: value for name, value in changes.items() if name.partition(".")[0] not in kinds}
    config = config_from_dict(run.record["config"], **{**_own_data(rest), **rest})
    attacks = {kind: attack_of(config, kind, **_own(kind, changes)) for kind in kinds}
    adapter = run.adapter()
    check_adversary(config, given)
    yield Stage("load", f"Loading the {config.model} model", 0.0)
    concept = preview_concept(config)
    scorer = load_scorer(config.model, [concept], config.judge)
    check_judge(scorer, config)  # before the model, which may take minutes and gigabytes
    model = load_for(config, model)
    run.check_base(model.base_hash, model.name)
    state = read_adapter(adapter)
    shown = sum(attack.tries for attack in attacks.values()) * config.compare.forget
    check_space(run.folder, shown * picture_size(model))
    context = attack_context(model, concept, config, should_stop, given=given)
    for kind, attack in attacks.items():
        with slots_kept(model):
            model.drop_adapters()
            model.load_adapter("unlearn", state)
            with enough_memory(f"The attack {kind}", _memory_settings(kind)):
                finding, images = yield from find(model, context, config, attack, scorer)
        command = _command(run, kind, rest, _own(kind, changes))
        finding = replace(finding, command=command, environment=environment(model, scorer))
        yield replace(finding, folder=write_finding(run.folder, finding, images))
    yield judge_again(run, read_findings(run.folder))


def _own_data(changes: Mapping[str, Any]) -> dict[str, Any]:
    """No folder where other data than pictures are asked for of a run whose adversary held one."""
    other = changes.get("attack.data", "pictures") != "pictures"
    return {"pictures": None} if other else {}


def _own(kind: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are an attack's own, without its name."""
    return {
        name.partition(".")[2]: value
        for name, value in changes.items()
        if name.partition(".")[0] == kind
    }


def _memory_settings(kind: str) -> str:
    """What to lower where memory is too small for an attack."""
    own = [item.name for item in registry.settings_of("attack", kind) if "batch" in item.name]
    names = [f"{kind}.{name}" for name in own] or ["attack.batch_size", "attack.rank"]
    return f"{', '.join(names)} or compare.forget"


def _command(run: Run, kind: str, rest: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    words = ["python", "-m", "unlearn_app", "attack", run.folder.name, "--kind", kind]
    words += ["--pictures", FOLDER] if "pictures" in rest else []
    rest = {name: value for name, value in rest.items() if name != "pictures"}
    changes = dict(rest) | {f"{kind}.{name}": value for name, value in own.items()}
    for name, value in changes.items():
        option = name in ("judge", "model")
        words += [f"--{name}", value] if option else ["--set", f"{name}={value}"]
    return shlex.join(words)
