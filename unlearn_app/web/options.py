"""The settings in the folded section "Options", generated from the fields of the config."""

import re
from collections.abc import Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any

import gradio as gr

from ..common import registry
from ..common.errors import ConfigError
from ..common.registry import DEFAULT_MODEL
from ..service.pace import Pace
from ..settings.groups import RETAIN_ARMS, ResistConfig, group_class
from ..settings.presets import FULL_WEIGHTS, PRESETS
from ..settings.run_config import (
    BY_WORDS,
    SETTING_GROUPS,
    RunConfig,
    make_config,
    setting_names,
)
from .following import refused
from .html import duration

SWITCH = "resist.on"
"""The one setting that no preset and no method fills in."""
BASIC = ("objective", SWITCH, "unlearn.retain", "preset", "anchor", "seed")
"""The settings outside of the expert panel."""
METHOD_SETTINGS, RULE_SETTINGS = "settings of the method", "settings of the rule"
"""What stands for the hyperparameters of the chosen method and rule among the names of a group."""
EXPERT_SECTIONS: dict[str, tuple[str, ...]] = {
    "Forgetting": (
        "unlearn.steps",
        "unlearn.lr",
        "unlearn.batch_size",
        "unlearn.train_pictures",
        "unlearn.pool",
        "unlearn.modules",
        "unlearn.weights",
        "unlearn.rank",
        "unlearn.alpha",
        METHOD_SETTINGS,
    ),
    "Forgetting against keeping (restricted gradients, arXiv 2412.07808)": (
        "rule",
        RULE_SETTINGS,
        "unlearn.retain_weight",
        "unlearn.retain_loss",
    ),
    "Defence (meta-unlearning, arXiv 2410.12777)": (
        "resist.steps",
        "resist.lr",
        "resist.batch_size",
        "resist.weights",
        "resist.optimizer",
        "resist.order",
        "resist.goal",
        "resist.weight",
        "resist.forget",
        "resist.related",
        "resist.unrelated",
        "resist.cap",
    ),
    "Small changes (continual unlearning, arXiv 2511.07970)": (
        "regularize.l1",
        "regularize.l2",
        "regularize.select",
        "regularize.project",
        "regularize.energy",
        "regularize.protect",
        "regularize.clip",
        "regularize.decay",
        "regularize.reference",
        "regularize.teacher",
    ),
    "The attacker": (
        "attack.steps",
        "attack.lr",
        "attack.batch_size",
        "attack.pictures",
        "attack.data",
        "attack.weights",
        "attack.optimizer",
        "attack.rank",
        "attack.alpha",
        "attack.controls",
    ),
    "Pictures": (
        "compare.forget",
        "compare.near",
        "compare.far",
        "compare.sampling_steps",
        "compare.guidance_scale",
        "compare.resolution",
    ),
}
"""The settings of the expert panel by section; those that no section names stand in the last."""
LABELS = {
    "concept": "What should it forget?",
    "objective": "Method",
    SWITCH: "Defend it against the attack",
    "unlearn.retain": "Protect",
    "preset": "Preset",
    "anchor": "Show instead",
    "seed": "Seed",
    "prompts": "Your own prompts",
    "rule": "How forgetting and keeping are combined",
    "unlearn.steps": "Forgetting steps",
    "unlearn.lr": "Learning rate of forgetting",
    "unlearn.batch_size": "Pictures per forgetting step",
    "unlearn.train_pictures": "Example pictures of what to keep",
    "unlearn.pool": "Batches that are used again",
    "unlearn.modules": "Layers that may change",
    "unlearn.weights": "What forgetting trains",
    "unlearn.rank": "LoRA rank of forgetting",
    "unlearn.alpha": "LoRA scale of forgetting",
    "unlearn.retain_weight": "Weight of keeping",
    "unlearn.retain_loss": "How keeping is measured",
    "resist.steps": "Simulated attack steps",
    "resist.lr": "Learning rate of the simulated attack",
    "resist.batch_size": "Pictures per simulated attack step",
    "resist.weights": "What the simulated attack trains",
    "resist.optimizer": "Optimizer of the simulated attack",
    "resist.order": "Gradient through the simulated attack",
    "resist.goal": "Goal of the defence",
    "resist.weight": "Weight of the defence",
    "resist.forget": "Keep the concept lost, weight",
    "resist.related": "Lose similar things in the attack, weight",
    "resist.unrelated": "Lose other things in the attack, weight",
    "resist.cap": "Loss that is high enough",
    "regularize.l1": "Price of changes, absolute (L1)",
    "regularize.l2": "Price of changes, squared (L2)",
    "regularize.select": "Share of units that may change",
    "regularize.project": "Projection away from other sentences",
    "regularize.energy": "Share that the projection holds",
    "regularize.protect": "What the projection protects",
    "regularize.clip": "Longest gradient",
    "regularize.decay": "Weight decay of forgetting",
    "regularize.reference": "Changes are counted since",
    "regularize.teacher": "Whose predictions teach",
    "attack.steps": "Attack steps",
    "attack.lr": "Learning rate of the attacker",
    "attack.batch_size": "Pictures per attack step",
    "attack.pictures": "Pictures the attacker has",
    "attack.data": "What the attacker's pictures show",
    "attack.weights": "What the attacker trains",
    "attack.optimizer": "Optimizer of the attacker",
    "attack.rank": "LoRA rank of the attacker",
    "attack.alpha": "LoRA scale of the attacker",
    "attack.controls": "Attack something never seen too",
    "compare.forget": "Pictures of the concept",
    "compare.near": "Pictures of similar things",
    "compare.far": "Pictures of everything else",
    "compare.resolution": "Size of pictures, in pixels",
    "compare.sampling_steps": "Denoising steps per picture",
    "compare.guidance_scale": "Guidance scale",
}
"""Names of settings in plain words; a hyperparameter without one is named after its part."""
PROTECT = {
    "diversified": "similar and other things",
    "near": "similar things only",
    "uniform": "other things only",
}
"""What `unlearn.retain` covers, in words."""
BY_KIND = ("unlearn.steps", "unlearn.batch_size", "unlearn.pool", "unlearn.retain_weight")
"""The settings that a world may tune by kind of concept."""
EXAMPLE = "cat"
"""The concept whose settings stand in the fields before one is typed."""
TEXTS = ("anchor", "prompts")
KINDS = {BY_WORDS: "as its words tell", "object": "a thing or a person", "style": "a style"}
SEARCH = (
    '<label>Find a setting <input type="search" id="find-setting" autocomplete="off"'
    ' placeholder="steps, learning rate, LoRA…"></label>'
)
HELP = {item.name: item.metadata.get("help", "") for item in fields(RunConfig)}


class Options:
    """The setting components by config name, in the order in which handlers receive their values,
    created inside the current layout block: six that most visitors need, and a panel with all
    others. `kind`, what a concept is, exists before; `pace` tells how long runs of `model` take.

    `rows` holds the row of every part that has hyperparameters, visible while the part is chosen;
    `filled` the values that were last filled into the fields of `BY_KIND`.
    """

    def __init__(self, kind: gr.Radio, pace: Pace, model: str = DEFAULT_MODEL) -> None:
        self._model, self._pace = model, pace
        base = make_config(EXAMPLE, model=model)
        self.components: dict[str, Any] = {"concept_kind": kind}
        self.rows: dict[str, gr.Row] = {}
        # In the browser, as the fields are, so that a request holds both in the same state.
        self.filled = gr.JSON([attrgetter(name)(base) for name in BY_KIND], visible=False)
        self._add_basics(base)
        with gr.Accordion("Expert settings", open=False, elem_id="expert") as self.expert:
            gr.HTML(SEARCH, elem_id="search")
            placed = {*self.components}.union(*EXPERT_SECTIONS.values())
            rest = [n for n in setting_names(SETTING_GROUPS) if n not in placed]
            for title, names in EXPERT_SECTIONS.items():
                with gr.Group(elem_classes="u-settings"):
                    gr.HTML(f"<h4>{title}</h4>")
                    last = title == [*EXPERT_SECTIONS][-1]
                    self._add_group((*names, *rest) if last else names, base)
            self.components["prompts"] = gr.Textbox(
                elem_id="own-prompts",
                label=LABELS["prompts"],
                info=_capitalized(HELP["prompts"]),
                placeholder="forget: my cat asleep on a chair\nretain: my dog asleep on a chair",
                lines=2,
                max_lines=8,
            )

    def _add_basics(self, base: RunConfig) -> None:
        with gr.Row(elem_id="basics"):
            self._add_choice("objective", registry.METHODS, base.objective)
            self.components["unlearn.retain"] = gr.Dropdown(
                [(PROTECT.get(name, name), name) for name in RETAIN_ARMS],
                value=base.unlearn.retain,
                label=LABELS["unlearn.retain"],
                info="What it practises to keep.",
                elem_id="unlearn-retain",
                min_width=220,
            )
            self.components["preset"] = gr.Radio(
                list(PRESETS),
                value=base.preset,
                label=LABELS["preset"],
                info=preset_says(self._pace, self._model),
                elem_id="preset",
                min_width=220,
            )
        with gr.Row(elem_id="basics-more"):
            self.components["anchor"] = gr.Textbox(
                elem_id="anchor",
                label=LABELS["anchor"],
                info=_capitalized(HELP["anchor"]),
                placeholder="chosen by itself",
                min_width=220,
            )
            self.components["seed"] = gr.Number(
                base.seed,
                label=LABELS["seed"],
                info=_capitalized(HELP["seed"]),
                elem_id="seed",
                min_width=140,
            )
            self.components[SWITCH] = resist_switch(self._pace, self._model)

    def _add_group(self, names: Sequence[str], base: RunConfig) -> None:
        """The fields of one group, as many beside each other as fit."""
        plain = [name for name in names if "." in name]
        for name in names:
            if name == METHOD_SETTINGS:
                self._add_hyperparameters(registry.METHODS, base.objective)
            elif name == RULE_SETTINGS:
                self._add_hyperparameters(("rule",), base.rule)
            elif name == "rule":
                self._add_choice("rule", ("rule",), base.rule)
        with gr.Row():
            for name in plain:
                group, _, leaf = name.partition(".")
                items = {item.name: item for item in fields(group_class(group))}
                self.components[name] = _field(name, items[leaf], attrgetter(name)(base))

    def _add_choice(self, name: str, kinds: tuple[str, ...], chosen: str) -> None:
        """A choice among the registered parts of these kinds."""
        parts = {part: kind for kind in kinds for part in registry.names(kind)}
        self.components[name] = gr.Dropdown(
            [(f"{part}: {registry.describe(parts[part], part)}", part) for part in sorted(parts)],
            value=chosen,
            label=LABELS[name],
            info=_capitalized(HELP[name]),
            elem_id=name,
            min_width=220,
        )

    def _add_hyperparameters(self, kinds: tuple[str, ...], chosen: str) -> None:
        for kind in kinds:
            for part in registry.names(kind):
                if items := registry.settings_of(kind, part):
                    with gr.Row(visible=part == chosen) as self.rows[part]:
                        for item in items:
                            own = f"{part}.{item.name}"
                            self.components[own] = _field(own, item, item.default)

    def config(self, concept: str, values: tuple) -> RunConfig:
        """The checked config of the values in the fields.

        Raises:
            ConfigError: a value is not accepted; `field` names its component.
        """
        changes = {
            name: "" if value is None and name not in TEXTS else value
            for name, value in zip(self.components, values, strict=True)
        }
        return make_config(concept, preset=changes.pop("preset"), model=self._model, **changes)

    @property
    def suggested(self) -> dict[str, Any]:
        """The components that a preset or a method fills in: all but the switch."""
        return {n: self.components[n] for n in ("rule", *setting_names()) if n != SWITCH}

    def defaults(self, concept: str, preset: str, objective: str) -> list[Any]:
        """The values that concept, preset and method give to `filled` and to `suggested`."""
        asked = {"preset": preset, "objective": objective, "model": self._model}
        try:
            config = make_config(EXAMPLE, **asked, **self._tuned(concept, preset, objective))
        except ConfigError as error:  # only a program can send such values
            raise refused(str(error)) from None
        own, shared = dict(config.options), ("rule", *setting_names(SETTING_GROUPS))
        return [
            [attrgetter(name)(config) for name in BY_KIND],
            *(
                attrgetter(name)(config) if name in shared else own.get(name, component.value)
                for name, component in self.suggested.items()
            ),
        ]

    @property
    def by_kind(self) -> list[Any]:
        """The components of `BY_KIND`."""
        return [self.components[name] for name in BY_KIND]

    @property
    def by_weights(self) -> list[Any]:
        """The components that take other values where the weights themselves are trained."""
        return [self.components[name] for name in FULL_WEIGHTS]

    def follow_kind(
        self, concept: str, filled: list[Any], preset: str, objective: str, *values: Any
    ) -> list[Any]:
        """What another kind of concept takes, for `filled` and for the fields of `BY_KIND` that
        the visitor has not changed.
        """
        tuned = self._tuned(concept, preset, objective)
        if not tuned or not isinstance(filled, list) or len(filled) != len(values):
            return [gr.skip()] * (1 + len(values))
        rows = list(zip((tuned[name] for name in BY_KIND), filled, values, strict=True))
        own = [new if value == before else before for new, before, value in rows]
        return [own, *(new if value == before else gr.skip() for new, before, value in rows)]

    def follow_weights(
        self, concept: str, preset: str, objective: str, weights: str, *values: Any
    ) -> dict[Any, Any]:
        """What full weights take, or an adapter again, for the fields of `by_weights` that the
        visitor has not changed.
        """
        lora = dict(zip(self.suggested, self.defaults(concept, preset, objective)[1:], strict=True))
        updates = {}
        for (name, full), value in zip(FULL_WEIGHTS.items(), values, strict=True):
            before, new = (lora[name], full) if weights == "full" else (full, lora[name])
            updates[self.components[name]] = new if value == before else gr.skip()
        return updates

    def _tuned(self, concept: object, preset: str, objective: str) -> dict[str, Any]:
        """The settings tuned for the concept; none for other presets and unknown concepts."""
        if preset != RunConfig.preset:
            return {}
        return registry.world(self._model).run_settings(str(concept or ""), objective)

    def reveal(self, objective: str, rule: str) -> list[gr.Row]:
        """Show the rows of hyperparameters of the chosen method and rule, and hide the others."""
        return [gr.Row(visible=name in (objective, rule)) for name in self.rows]


def kind_choice() -> gr.Radio:
    """The kind of the concept, hidden until its words do not tell it."""
    return gr.Radio(
        [(text, name) for name, text in KINDS.items()],
        value=BY_WORDS,
        label="What kind of concept is it?",
        elem_id="concept-kind",
        visible=False,
    )


def preset_says(pace: Pace, model: str = DEFAULT_MODEL) -> str:
    """What a run of each preset takes, as far as anybody knows, and why one takes longer."""
    took = {name: pace.total(make_config(EXAMPLE, preset=name, model=model)) for name in PRESETS}
    why = {"full": ["more steps and pictures"]}
    said = {
        name: ", ".join([*why.get(name, []), *([] if seconds is None else [duration(seconds)])])
        for name, seconds in took.items()
    }
    return "; ".join(f"{name}: {text}" for name, text in said.items() if text)


def resist_switch(pace: Pace, model: str = DEFAULT_MODEL) -> gr.Checkbox:
    """The switch for resisting, with the time that it adds, controls included; of a model that
    nobody knows, how much longer a run takes.
    """
    known, costs = pace.knows(model), []
    for preset in PRESETS:
        plain, resists = (
            sum(pace.seconds(make_config(EXAMPLE, preset=preset, model=model, **on)).values())
            for on in ({SWITCH: False}, {SWITCH: True})
        )
        more = duration(resists - plain) if known else f"{resists / plain:.1f} times as long"
        costs.append(f"{more} in {preset}")
    return gr.Checkbox(
        ResistConfig.on,
        label=LABELS[SWITCH],
        info=f"adds {'; '.join(costs)}" if known else f"takes about {', '.join(costs)}",
        elem_id="resist-on",
        min_width=320,
    )


def plain(message: str) -> str:
    """An error message with the names of settings as their fields are labelled."""
    return re.sub(r"^[a-z_0-9]+(\.[a-z_0-9]+)?(?= is )", _quoted_label, message)


def _quoted_label(found: re.Match) -> str:
    name = found[0]
    return f"“{label_of(name)}”" if name in LABELS or "." in name else name


def _field(name: str, item: Any, value: Any) -> Any:
    common = {
        "label": label_of(name),
        "info": _capitalized(item.metadata["help"]),
        "min_width": 230,
        "elem_id": elem_id_of(name),
    }
    if item.type is bool:
        return gr.Checkbox(value, **common)
    if "choices" in item.metadata:
        return gr.Dropdown(list(item.metadata["choices"]), value=value, **common)
    low, high = item.metadata["range"]
    return gr.Number(value, **common | {"info": f"{common['info']} ({low:g} to {high:g})"})


def label_of(name: str) -> str:
    """What the field of a setting is called on the page."""
    part, _, leaf = name.partition(".")
    return LABELS.get(name) or f"{_capitalized(leaf.replace('_', ' '))} ({part.replace('_', ' ')})"


def elem_id_of(name: str) -> str:
    """The id of the field of a setting."""
    return "own-prompts" if name == "prompts" else name.replace(".", "-").replace("_", "-")


def _capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]
