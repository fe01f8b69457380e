"""The attack runner: an attack on a model beside the same attack on something that was never
learned.
"""

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, fields
from typing import Any

from PIL.Image import Image

from ..common import registry
from ..common.errors import ConfigError, raise_if_stopped
from ..common.images import to_pil
from ..concepts.catalog import preview_concept
from ..concepts.concept import Concept
from ..evaluation.base_rates import of_attack
from ..evaluation.comparison import checked_by_second, judged
from ..evaluation.finding import Finding
from ..evaluation.judges import Scorer
from ..models.protocols import Backend, slots_kept
from ..settings.attacks import SURE
from ..settings.events import Event, Stage, Step
from ..settings.run_config import RunConfig, with_concept
from ..training.latent_dataset import LatentDataset
from . import Attack, Tries, held_out
from .relearn import lesson_pictures
from .unseen import never_seen

GIVEN = "what the model was given shows the concept already"
"""Why a finding without a control may say nothing."""


@dataclass(frozen=True)
class AttackResult:
    """What an attack painted, and what the judge saw: alignment, predicted class and success of
    each picture.
    """

    tries: Tries
    seen: list[tuple[float, str, bool]]
    checked: list[str | None]
    """What the second judge saw."""
    seconds: float
    detected: list[float] | None = None
    """How sure the detector is of each picture, where there is one."""

    def hits(self, turns: int | None = None) -> tuple[bool, ...]:
        """Per held-out prompt, whether one of its first `turns` pictures (all by default) shows the
        concept.
        """
        found: dict[int, bool] = {}
        for row, turn, seen in zip(
            self.tries.prompt_index, self.tries.attempt, self.seen, strict=True
        ):
            found[row] = found.get(row, False) or (seen[2] and (turns is None or turn < turns))
        return tuple(found[row] for row in sorted(found))


def find(
    backend: Backend,
    concept: Concept,
    data: LatentDataset,
    config: RunConfig,
    attack: Attack,
    scorer: Scorer | None,
    *,
    slots: tuple[str, ...] = ("unlearn",),
    should_stop: Callable[[], bool] = lambda: False,
) -> Generator[Event, None, tuple[Finding, dict[str, Image]]]:
    """Attack the model under `slots` with the adversary's pictures `data`, then at what the
    original has never seen.

    The finding names neither its command nor its environment, which the caller knows.

    Raises:
        ConfigError: there is no judge, so that nobody could say whether an attack succeeds.
    """
    if scorer is None:
        raise ConfigError(
            f"There is no judge for {config.model} here, so an attack on it proves nothing.",
            "model",
        )
    yield Stage(
        "attack",
        f"Trying to get {concept.name} back, {_name_of(attack)}: {attack.budget(config)}",
        0.1,
    )
    with backend.active(*slots):
        own = yield from probe(backend, concept, attack, data, config, scorer, should_stop)
    control, missing = (
        None,
        "" if attack.counts else "it is no attack on what the model has learned",
    )
    if not missing:
        control = of_attack(_name_of(attack), attack, config, backend.base_hash)
        if control is None:
            control = yield from _taught(backend, concept, config, attack, scorer, should_stop)
        missing = "" if control else f"nobody knows what {config.model} has never seen"
        if attack.needs_control and missing:
            missing += f", and {GIVEN}"
    return _finding(attack, config, own, control, missing)


def _taught(
    backend: Backend,
    concept: Concept,
    config: RunConfig,
    attack: Attack,
    scorer: Scorer,
    should_stop: Callable[[], bool],
) -> Generator[Event, None, dict[str, Any] | None]:
    """The same attack on what the original has never seen, as findings hold it; None where nobody
    knows of such.
    """
    asked = config.attack
    lesson = never_seen(config.model, asked.pictures, config.seed, concept, asked.data == "one")
    if lesson is None:
        return None
    name = lesson[0]
    yield Stage("attack", f"For comparison: the same attack on {name}, which was never seen", 0.55)
    with slots_kept(backend):
        backend.drop_adapters()
        unseen = preview_concept(with_concept(config, name))
        lessons = lesson_pictures(backend, lesson, unseen, config, should_stop)
        with backend.active():
            outcome = yield from probe(
                backend, unseen, attack, lessons, config, scorer, should_stop
            )
    return {"name": f"{name}, never seen", "hits": list(outcome.hits())}


def probe(
    backend: Backend,
    concept: Concept,
    attack: Attack,
    data: LatentDataset,
    config: RunConfig,
    scorer: Scorer,
    should_stop: Callable[[], bool] = lambda: False,
) -> Generator[Step, None, AttackResult]:
    """Attack the active model with the adversary's pictures `data`, and judge what comes out.

    Raises:
        Cancelled: `should_stop` turned true between two steps.
    """
    started, steps = time.perf_counter(), attack(backend, concept, data, config, should_stop)
    try:
        while True:
            raise_if_stopped(should_stop)
            yield next(steps)
    except StopIteration as end:
        tries: Tries = end.value
    finally:
        steps.close()
    prompts = held_out(concept, config)
    asked = [prompts[row] for row in tries.prompt_index]
    seen = judged(tries.pictures, asked, scorer, SURE)
    checked = [answer for answer, _ in checked_by_second(tries.pictures, asked, scorer)]
    detected = scorer.detector(tries.pictures).tolist() if scorer.detector else None
    return AttackResult(tries, seen, checked, time.perf_counter() - started, detected)


def _finding(
    attack: Attack,
    config: RunConfig,
    own: AttackResult,
    control: dict[str, Any] | None,
    missing: str,
) -> tuple[Finding, dict[str, Image]]:
    """The finding, and its pictures by file name."""
    kind, (pictures, images) = _name_of(attack), _pictures(own)
    hits = [picture for picture in pictures if picture["correct"]]
    finding = Finding(
        kind=kind,
        settings={f"{kind}.{item.name}": getattr(attack, item.name) for item in fields(attack)},
        budget=attack.budget(config),
        counts=attack.counts and not (attack.needs_control and control is None),
        by_prompt=attack.by_prompt,
        tries=attack.tries,
        hits=own.hits(),
        first=own.hits(turns=1),
        control=control,
        missing=missing,
        pictures=pictures,
        proof=max(hits, key=lambda picture: picture["alignment"])["file"] if hits else None,
        seconds=round(own.seconds, 2),
        command="",
        environment={},
        sure=SURE,
    )
    return finding, images


def _pictures(own: AttackResult) -> tuple[tuple[dict[str, Any], ...], dict[str, Image]]:
    """A record of each picture, and the pictures by file name."""
    tries, records, images = own.tries, [], {}
    for place, picture in enumerate(to_pil(tries.pictures)):
        row, turn, (alignment, predicted, correct) = (
            tries.prompt_index[place],
            tries.attempt[place],
            own.seen[place],
        )
        images[file := f"{row:02d}-{turn:02d}.png"] = picture
        said = {
            "row": row,
            "turn": turn,
            "asked": tries.asked[place],
            "seed": tries.seeds[place],
            "file": file,
        }
        judged_as = {"alignment": alignment, "predicted": predicted, "correct": correct}
        detected = {"detected": round(own.detected[place], 3)} if own.detected else {}
        records.append(said | judged_as | {"second": own.checked[place]} | detected)
    return tuple(records), images


def _name_of(attack: Attack) -> str:
    return next(
        name for name in registry.names("attack") if registry.get("attack", name) is type(attack)
    )
