"""The settings in the folded section "Options", generated from the fields of the config."""

from dataclasses import fields
from operator import attrgetter
from typing import Any

import gradio as gr

from ..common import registry
from ..common.errors import ConfigError
from ..common.registry import DEFAULT_MODEL
from ..settings.groups import RESIST_SECONDS, ResistConfig, group_class
from ..settings.presets import PRESETS
from ..settings.run_config import BY_WORDS, RunConfig, make_config, setting_names
from .following import refused

SECTIONS = {
    "unlearn": "Forgetting",
    "regularize": "Protection",
    "resist": "Resisting relearning",
    "attack": "Attack",
    "compare": "Pictures",
}
OWNERS = {"unlearn": "forgetting", "resist": "simulated attack", "compare": "pictures"}
"""How a section is named in the label of a setting that another section has too."""
SWITCH = "resist.on"
"""The setting of a group that is outside of the folded section."""
LABELS = {
    "on": "Resist relearning",
    "lr": "Learning rate",
    "rank": "LoRA rank",
    "alpha": "LoRA alpha",
    "retain": "Retain prompts",
    "select": "Share of rows trained",
    "project": "Projection",
    "energy": "Energy of the projection",
    "goal": "Goal of resisting",
    "cap": "Largest loss that counts",
    "order": "Order of derivatives",
}
BY_KIND = ("unlearn.steps", "unlearn.batch_size", "unlearn.pool", "unlearn.retain_weight")
"""The settings that a world may tune by kind of concept."""
EXAMPLE = "cat"
"""The concept whose settings stand in the fields before one is typed."""
TEXTS = ("anchor", "prompts")
KINDS = {BY_WORDS: "as its words tell", "object": "a thing or a person", "style": "a style"}
HELP = {item.name: item.metadata.get("help", "") for item in fields(RunConfig)}


class Options:
    """The setting components by config name, in the order in which handlers receive their values,
    created inside the current layout block; `switch` and `kind`, the settings outside of it, exist
    before.

    `rows` holds the row of every part that has hyperparameters, visible while the part is chosen;
    `filled` the values that were last filled into the fields of `BY_KIND`.
    """

    def __init__(self, switch: gr.Checkbox, kind: gr.Radio, model: str = DEFAULT_MODEL) -> None:
        self._model = model
        base = make_config(EXAMPLE, model=model)
        self.components: dict[str, Any] = {SWITCH: switch, "concept_kind": kind}
        self.rows: dict[str, gr.Row] = {}
        # In the browser, as the fields are, so that a request holds both in the same state.
        self.filled = gr.JSON([attrgetter(name)(base) for name in BY_KIND], visible=False)
        self._add_basics(base)
        self._add_choice("objective", "Method", registry.METHODS, base.objective)
        self._add_choice("rule", "Gradient rule", ("rule",), base.rule)
        self.components["prompts"] = gr.Textbox(
            elem_id="own-prompts",
            label="Your own prompts",
            info=_capitalized(HELP["prompts"]),
            placeholder="forget: my cat asleep on a chair\nretain: my dog asleep on a chair",
            lines=2,
            max_lines=8,
        )
        for section, title in SECTIONS.items():
            gr.HTML(f"<h4>{title}</h4>")
            with gr.Row():
                for item in fields(group_class(section)):
                    name = f"{section}.{item.name}"
                    if name != SWITCH:
                        self.components[name] = _field(name, item, attrgetter(name)(base))

    def _add_basics(self, base: RunConfig) -> None:
        with gr.Row():
            self.components["preset"] = gr.Radio(
                list(PRESETS),
                value=base.preset,
                label="Preset",
                info="fast: about a minute; full: more steps and pictures",
                min_width=220,
            )
            self.components["anchor"] = gr.Textbox(
                elem_id="anchor",
                label="Anchor",
                info=_capitalized(HELP["anchor"]),
                placeholder="chosen by itself",
                min_width=220,
            )
            self.components["seed"] = gr.Number(
                base.seed, label="Seed", info=_capitalized(HELP["seed"]), min_width=140
            )

    def _add_choice(self, name: str, label: str, kinds: tuple[str, ...], chosen: str) -> None:
        """A choice among the registered parts of these kinds, and their hyperparameters."""
        parts = {part: kind for kind in kinds for part in registry.names(kind)}
        self.components[name] = gr.Dropdown(
            [(f"{part}: {registry.describe(parts[part], part)}", part) for part in sorted(parts)],
            value=chosen,
            label=label,
            info=_capitalized(HELP[name]),
            elem_id=name,
        )
        for part, kind in parts.items():
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
        own, shared = dict(config.options), ("rule", *setting_names(tuple(SECTIONS)))
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


def resist_switch(model: str = DEFAULT_MODEL) -> gr.Checkbox:
    """The switch for resisting, with the time that it adds, controls included, and its effect as
    measured by `bench paper2`.
    """
    worth = {"fast": "where 25 attack steps undo it", "full": "where it slows the first 25"}
    costs = []
    for preset in PRESETS:
        steps = make_config(EXAMPLE, preset=preset, model=model).unlearn.steps
        seconds = 2 * RESIST_SECONDS * steps
        time = f"{seconds / 60:.0f} min" if seconds >= 120 else f"{5 * round(seconds / 5)} s"
        costs.append(f"{time} in {preset}, {worth[preset]}")
    return gr.Checkbox(
        ResistConfig.on,
        label=LABELS["on"],
        info=f"adds about {'; '.join(costs)}",
        elem_id="resist-on",
        container=False,
    )


def _field(name: str, item: Any, value: Any) -> Any:
    common = {
        "label": _label(name),
        "info": item.metadata["help"],
        "min_width": 170,
        "elem_id": name.replace(".", "-").replace("_", "-"),
    }
    if item.type is bool:
        return gr.Checkbox(value, **common)
    if "choices" in item.metadata:
        return gr.Dropdown(list(item.metadata["choices"]), value=value, **common)
    low, high = item.metadata["range"]
    return gr.Number(value, **common | {"info": f"{common['info']} ({low:g} to {high:g})"})


def _label(name: str) -> str:
    section, _, leaf = name.partition(".")
    label = LABELS.get(leaf, _capitalized(leaf.replace("_", " ")))
    alone = sum(other.endswith(f".{leaf}") for other in setting_names()) == 1
    return label if alone else f"{label} ({OWNERS.get(section, section)})"


def _capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]
