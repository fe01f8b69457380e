"""The benchmark of paper 2: its development cells, its grid with a declared cut that is small
enough for two cores, and how a cell is measured.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ...attacks import AttackContext
from ...attacks.adaptive import add_noise, warm_up
from ...attacks.relearn import Relearn
from ...attacks.runner import checkpoints
from ...common.json_values import to_json
from ...common.registry import DEFAULT_MODEL
from ...concepts.catalog import preview_concept
from ...concepts.concept import evenly_spaced
from ...concepts.targets import targets_told
from ...evaluation.comparison import generate_images, judged
from ...evaluation.judges import Scorer
from ...models.device import choose_device
from ...models.protocols import Model, Params
from ...pocket.world.split import DEVELOPMENT_FRESH
from ...runs.provenance import peak_memory_gb
from ...settings.events import GROUPS, Group
from ...settings.groups import AttackConfig
from ...settings.run_config import RunConfig
from ...training.latent_dataset import sample_latents
from ...training.unlearning import forget
from ..cells import Experiment, Extent, all_names, settings, short_hash, stored
from ..forwards import CountedModel
from ..known_outcome_models import context_of, load_only
from ..paper1.measure import digest
from ..tables import bits, percent_of
from .arms import (
    ADAPTIVE,
    ADVERSE,
    ALONE,
    ATTACK_SEED,
    ATTACKS,
    BASES,
    DEFENCES,
    DEVELOPED,
    EXPLORED,
    FACTORS,
    FIRST_BASE,
    FRESH,
    FULL_LENGTHS,
    HARMLESS,
    LENGTHS,
    LORA,
    M0,
    META,
    MORE,
    NOISED,
    NONE,
    ORIGINAL,
    RELATED,
    RENDERINGS,
    RESTARTED,
    RESTARTS,
    SMOKE_LENGTHS,
    STRONG,
    TARGETS,
    TUNED_ON,
    UNSEEN,
    WARMED,
    WEIGHTS,
    Attacked,
)
from .choices import (
    Choices,
    base_trials,
    choices_of,
    defence_trials,
    rate_trials,
    reach_trials,
)
from .mechanism import attack_gradients

COUNT = 12
"""Pictures of the concept that are judged at each mark, with as many of relatives and as many of
everything else at the ends.
"""
TEST_SEED, GRADIENT_SEED = 6_100_000, 6_300_000
WARM_UP = 25
"""Steps of a harmless warm-up."""
NOISE = 0.02
"""The norm of the noise on a matrix, as a share of the matrix's own."""
PREPARED = {WARMED: WARM_UP, RESTARTED: RESTARTS, NOISED: NOISE}
"""By name of an adaptive attack the number of its own that it depends on."""
CLEARED = Path("/proc/self/clear_refs")


def declared_cut(choices: Choices, bundled: str = DEFAULT_MODEL) -> list[Attacked]:
    """The declared cut: one seed, and in an order that leaves whole claims to whoever interrupts.

    Another bundled model repeats the main claim alone. Of a model that the user brings nobody knows
    what it was never shown, and nobody draws its world.
    """
    own = targets_told() is not None
    targets = all_names(TARGETS)
    explored = targets if own else EXPLORED
    known = [(target, ORIGINAL, NONE, NONE) for target in targets]
    unseen = () if own else itertools.product(FRESH, [UNSEEN], [NONE], [RENDERINGS, WEIGHTS])
    adverse = tuple(attack for attack in ADVERSE if not own or attack != RENDERINGS)
    by_lora = tuple(attack for attack in adverse if attack != WEIGHTS)
    plan: list[tuple[Any, ...]] = [*known, *unseen]

    def add(targets: Sequence[str], bases: Sequence[str], defences: Any, attacks: Any) -> None:
        plan.extend(itertools.product(targets, bases, defences, attacks))

    add(targets, [FIRST_BASE], (ALONE, META), (*adverse, HARMLESS))
    second = bundled != DEFAULT_MODEL
    add(targets, [FIRST_BASE], (M0,) if second else (M0, STRONG), by_lora)
    if not second:
        for base in list(BASES)[1:]:
            add(targets, [base], (ALONE, META), (LORA,))
        add(explored, [FIRST_BASE], (*RELATED, MORE), (LORA,))
    cells = [choices.cell(target, 0, *arm) for target, *arm in plan]
    if not second:
        for target, defence in itertools.product(explored, (ALONE, META)):
            cells += [choices.cell(target, 0, FIRST_BASE, defence, name) for name in ADAPTIVE]
            cells += [choices.cell(target, 0, FIRST_BASE, defence, LORA, rate) for rate in FACTORS]
    return list(dict.fromkeys(cells))


def grid(choices: Choices, seeds: int) -> list[Attacked]:
    """Every cell, the declared cut first."""
    cut, own = declared_cut(choices), targets_told() is not None
    adverse = [name for name in ATTACKS if not own or name != RENDERINGS]
    arms = [
        (base, defence)
        for base, defence in itertools.product(BASES, DEFENCES)
        if defence != STRONG or "esd" in BASES[base].values()
    ]
    every = [
        choices.cell(target, seed, *arm, attack)
        for seed, target, arm, attack in itertools.product(
            range(seeds), all_names(TARGETS), arms, adverse
        )
    ]
    again = [replace(cell, seed=seed) for seed in range(1, seeds) for cell in cut]
    return list(dict.fromkeys([*cut, *again, *every]))


@dataclass(frozen=True)
class Defended:
    """A model before any attack: its adapter (empty for the original), which of its pictures are
    right by group, seconds and forward passes of its training, and the most memory that it took.
    """

    adapter: Params
    right: dict[str, str]
    seconds: float
    forwards: int
    peak_gb: float | None


class Paper2(Experiment):
    """Choose rates and settings on development targets, defend a model, attack it with every
    length, and judge it after each. A cell grows by the lengths that it lacks.
    """

    name = "paper2"

    def __init__(
        self, extent: Extent, model: Model | None = None, judge: Scorer | None = None
    ) -> None:
        super().__init__(extent, model, judge)
        self._hashes: dict[str, str] = {}

    def cells(self) -> list[Attacked]:
        if self.extent.targets:
            usual, full = Choices(), self.extent.full
            return self._of_extent(grid(usual, self.seeds) if full else declared_cut(usual))
        second = self.extent.bundled != DEFAULT_MODEL
        bases = (FIRST_BASE,) if second else tuple(BASES)
        controls = (M0,) if second else (M0, STRONG)
        stages: tuple[Callable[[Choices], list[Attacked]], ...] = (
            lambda choices: [*rate_trials(), *base_trials(bases)],
            reach_trials,
            lambda choices: defence_trials(choices, bases, controls),
        )
        trials: list[Attacked] = []
        found: dict[Attacked, dict[str, Any]] = {}
        for stage in stages:
            own = self._of_extent(stage(choices_of(found)))
            trials += own
            if not (known := self._known(own)):
                return trials
            found |= known
        choices = choices_of(found)
        whole = self.extent.full and not second
        every = grid(choices, self.seeds) if whole else declared_cut(choices, self.extent.bundled)
        return [*trials, *self._of_extent(every)]

    def _of_extent(self, cells: Sequence[Attacked]) -> list[Attacked]:
        """All of the cells; in a smoke few of each kind, each attack at one rate."""
        if not self.smoke:
            return [*cells]
        few: dict[Attacked, Attacked] = {}
        for cell in filter(self._small, cells):
            few.setdefault(replace(cell, rate=""), cell)
        return list(few.values())

    def _small(self, cell: Attacked) -> bool:
        targets = (all_names(TARGETS)[0], FRESH[0], TUNED_ON[0], DEVELOPMENT_FRESH[0])
        attacks = (RENDERINGS,) if cell.base == UNSEEN else (LORA, HARMLESS, NONE)
        return (
            cell.target in targets
            and cell.base in (FIRST_BASE, ORIGINAL, UNSEEN)
            and cell.defence in (ALONE, META, M0, NONE)
            and cell.attack in attacks
            and cell.tried < 2
            and cell.chosen == 0
        )

    def _known(self, cells: Sequence[Attacked]) -> dict[Attacked, dict[str, Any]]:
        """The values of all the cells; nothing where any of them is missing."""
        found = {cell: stored(self, cell)[0] for cell in cells}
        return {} if any(self.lacks(cell, values) for cell, values in found.items()) else found

    def config(self, cell: Attacked) -> dict[str, Any]:
        run = cell.config(self.smoke)
        return to_json(cell) | {
            "settings": self._used(cell, run),
            "count": self._count,
            "base_model": self.model.base_hash,
            "judge": f"{self.judge.name} {self.judge.version}",
            "prompts": self._prompts(cell.target),
        }

    def _prompts(self, target: str) -> str:
        """A short hash of the prompts of a target, which are the same for every arm."""
        if target not in self._hashes:
            self._hashes[target] = short_hash(preview_concept(settings(target)))
        return self._hashes[target]

    def _used(self, cell: Attacked, run: RunConfig) -> str:
        """A short hash of the settings that the values depend on, whatever the defaults are."""
        sampling = run.compare.sampling_steps, run.compare.guidance_scale
        attack = to_json(run.attack)
        for name in ("steps", "controls"):  # lengths are cells' own, and controls are other cells
            del attack[name]
        return short_hash(
            [
                run.concept,
                run.seed,
                digest(run) if cell.base in BASES else sampling,
                attack if cell.attack != NONE or self._explained(cell) else None,
                PREPARED.get(cell.attack),
            ]
        )

    def lacks(self, cell: Attacked, known: Mapping[str, Any]) -> bool:
        return not known or bool(self._missing(cell, known))

    def _missing(self, cell: Attacked, known: Mapping[str, Any]) -> list[int]:
        """The lengths of the attack that are not measured."""
        marks = known.get("marks", {})
        return [length for length in self._lengths(cell) if str(length) not in marks]

    def _lengths(self, cell: Attacked) -> tuple[int, ...]:
        if cell.attack == NONE:
            return ()
        if self.smoke:
            return SMOKE_LENGTHS
        if cell.attack in ADAPTIVE or cell.seed >= DEVELOPED:
            return LENGTHS[-1:]
        return FULL_LENGTHS if self.extent.full else LENGTHS

    def shared_by(self, cell: Attacked) -> tuple[Any, ...]:
        return cell.model

    def prepare(self, cell: Attacked) -> Defended:
        config, seconds = cell.config(self.smoke), 0.0
        self.model.drop_adapters()
        _begin_peak()
        if cell.base not in BASES:
            return Defended({}, self._right(config, GROUPS), 0.0, 0, None)
        counted = CountedModel(self.model)
        for step in forget(counted, preview_concept(config), config):
            seconds += step.seconds
        peak = peak_memory_gb()
        with self.model.active("unlearn"):
            right = self._right(config, GROUPS)
        adapter = self.model.adapter_state("unlearn")
        return Defended(adapter, right, seconds, counted.forwards, peak)

    def measure(
        self, cell: Attacked, known: dict[str, Any], shared: Defended
    ) -> Iterator[dict[str, Any]]:
        config = cell.config(self.smoke)
        values = known or self._before(cell, config, shared)
        missing = self._missing(cell, known)
        for length in missing:
            right, spent = self._attacked(cell, config, length, shared.adapter)
            marks = values["marks"] | {str(length): right}
            adversary = values["forwards"]["adversary"] | {str(length): spent}
            forwards = values["forwards"] | {"adversary": adversary}
            values = values | {"marks": marks, "forwards": forwards}
            yield values
        self.model.drop_adapters()
        if not missing:
            yield values

    def line(self, cell: Attacked, values: Mapping[str, Any]) -> str:
        way = " ".join(
            f"{step}:{percent_of(right['forget'])}" for step, right in values["marks"].items()
        )
        trial = f"trial {cell.tried}.{cell.chosen}, " if cell.seed >= DEVELOPED else ""
        attack = f"{cell.attack}{f' x {cell.rate}' * bool(cell.rate)}"
        return (
            f"{cell.target}, {cell.base}, {cell.defence}, {trial}{attack}, seed {cell.seed}: {way}"
        )

    def report(self) -> str:
        from .report import write_results

        return write_results(self.folder)

    @property
    def _count(self) -> int:
        return 3 if self.smoke else COUNT

    def _before(self, cell: Attacked, config: RunConfig, shared: Defended) -> dict[str, Any]:
        """What is known of a cell before its attack."""
        values = {
            "marks": {"0": shared.right},
            "unlearn_s": round(shared.seconds, 2),
            "unlearn_peak_gb": shared.peak_gb,
            "forwards": {"defender": shared.forwards, "adversary": {}},
        }
        if explained := self._explained(cell):
            load_only(self.model, shared.adapter)
        for weights in explained:
            attack = replace(config.attack, weights=weights)
            values.setdefault("gradients", {})[weights] = self._gradients(config, attack)
        return values

    def _explained(self, cell: Attacked) -> list[str]:
        """What an attack trains whose gradients the cell measures."""
        if cell.base == UNSEEN or cell.seed >= DEVELOPED:
            return []
        return {LORA: ["lora"], WEIGHTS: ["full"], NONE: ["lora", "full"]}.get(cell.attack, [])

    def _gradients(self, config: RunConfig, attack: AttackConfig) -> dict[str, float]:
        concept = preview_concept(config)
        near = [prompt.text for prompt in evenly_spaced(concept.near.train, attack.pictures)]
        first = GRADIENT_SEED + 1000 * config.seed
        related = sample_latents(
            self.model,
            near,
            None,
            range(first, first + len(near)),
            sampling_steps=config.compare.sampling_steps,
            guidance_scale=config.compare.guidance_scale,
        )
        sampled = replace(config.attack, data="paraphrases")
        own = self._adversary(self.model, replace(config, attack=sampled)).data
        return attack_gradients(self.model, own, related, attack, config.seed)

    def _adversary(self, model: Model, config: RunConfig) -> AttackContext:
        """The adversary's pictures and seeds."""
        return context_of(model, replace(config, seed=config.seed + ATTACK_SEED))

    def _attacked(
        self, cell: Attacked, config: RunConfig, length: int, adapter: Params
    ) -> tuple[dict[str, str], int]:
        """What is right after an attack of `length` steps, of restarts the one that brings back
        most, and the forward passes of it all.
        """
        counted = CountedModel(self.model)
        context, training = self._adversary(counted, config), replace(config.attack, steps=length)
        groups = GROUPS if length in (self._lengths(cell)[-1], LENGTHS[-1]) else GROUPS[:1]
        found = []
        for restart in range(RESTARTS if cell.attack == RESTARTED else 1):
            load_only(self.model, adapter)
            own = replace(context, seed=context.seed + 1000 * restart)
            if cell.attack == WARMED:
                harmless = replace(config, attack=replace(training, data="benign"))
                pictures = self._adversary(counted, harmless).data
                warm_up(counted, pictures, replace(training, steps=WARM_UP), own.seed)
            if cell.attack == NOISED:
                add_noise(self.model, NOISE, own.seed)
            *_, right = checkpoints(
                counted,
                Relearn(training=training),
                own,
                lambda step: self._right(config, groups),
                steps=(),
            )
            found.append(right)
        return max(found, key=lambda right: right["forget"].count("1")), counted.forwards

    def _right(self, config: RunConfig, groups: Sequence[Group]) -> dict[str, str]:
        """Which pictures by the active model are right, by group; the same prompts and seeds for
        every arm.
        """
        concept, right = preview_concept(config), {}
        for row, group in enumerate(groups):
            split = getattr(concept, group)
            prompts = evenly_spaced(split.test, self._count)
            first = TEST_SEED + 1000 * config.seed + 100 * row
            seeds = range(first, first + len(prompts))
            images = generate_images(self.model, prompts, seeds, config.compare)
            right[group] = bits(said["correct"] for said in judged(images, prompts, self.judge))
        return right


def _begin_peak() -> None:
    """Let the most memory that is counted begin anew, where the system can."""
    device = torch.get_device_module(choose_device())
    if reset := getattr(device, "reset_peak_memory_stats", None):
        reset()
    with suppress(OSError):
        CLEARED.write_text("5")
