"""The folded-away settings, made from the fields of the config: nothing about them is written
twice.
"""

from dataclasses import dataclass, fields
from typing import Any

import gradio as gr

from ..common import registry
from ..settings.groups import RESIST_SECONDS, ResistConfig, group_class
from ..settings.presets import PRESETS
from ..settings.run_config import RunConfig, make_config, setting_names

GROUPS = {
    "unlearn": "Forgetting",
    "regularize": "Holding back",
    "resist": "Resisting relearning",
    "attack": "Attack",
    "compare": "Pictures",
}
SWITCH = "resist.on"
"""The one setting that stands in the open."""
LABELS = {
    "on": "Resist relearning",
    "lr": "Learning rate",
    "rank": "LoRA rank",
    "alpha": "LoRA alpha",
}
TOP = ("anchor", "objective", "rule", "prompts", "seed", "preset")


@dataclass(frozen=True)
class Options:
    """The setting components by config name, in the order handlers receive them."""

    components: dict[str, Any]
    rows: dict[str, Any]
    """The row of every part that has hyperparameters of its own; shown while the part is chosen."""

    def config(self, concept: str, values: tuple, model: str) -> RunConfig:
        """The checked config of what stands in the fields.

        Raises:
            ConfigError: a value that is not accepted; `field` names its component.
        """
        changes = dict(zip(self.components, values, strict=True))
        texts = ("anchor", "prompts")
        changes |= {
            name: "" for name, value in changes.items() if value is None and name not in texts
        }
        return make_config(concept, preset=changes.pop("preset"), model=model, **changes)

    def defaults(self, preset: str, objective: str) -> list[Any]:
        """What preset and method put into the fields that are theirs."""
        config = make_config("cat", preset=preset, objective=objective)
        shared, own = setting_names(tuple(GROUPS)), dict(config.options)
        values = {name: _get(config, name) for name in shared}
        values |= {
            name: own.get(name, self.components[name].value)
            for name in setting_names()[len(shared) :]
        }
        values.pop(SWITCH)
        return [config.rule, *values.values()]

    @property
    def suggested_fields(self) -> list[Any]:
        """The components that a preset or a method fills in; the switch is the user's alone."""
        return [self.components[name] for name in ("rule", *setting_names()) if name != SWITCH]

    def reveal(self, objective: str, rule: str) -> list[Any]:
        """Which rows of hyperparameters are on the page."""
        return [gr.Row(visible=name in (objective, rule)) for name in self.rows]


def build_switch() -> gr.Checkbox:
    """The switch for resisting, with what it costs, controls included, and what `bench paper2`
    found it to be worth.
    """
    cost = {
        p: _duration(2 * RESIST_SECONDS * make_config("cat", preset=p).unlearn.steps)
        for p in PRESETS
    }
    worth = {"fast": "where 25 attack steps undo it", "full": "where it slows the first 25"}
    said = "; ".join(f"{cost[preset]} in {preset}, {worth[preset]}" for preset in PRESETS)
    return gr.Checkbox(
        ResistConfig.on,
        label=LABELS["on"],
        info=f"adds about {said}",
        elem_id="resist-on",
        container=False,
    )


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{5 * round(seconds / 5)} s"


def build_options(switch: gr.Checkbox) -> Options:
    """Create the components inside the current layout block; `switch` is there already."""
    helps = {item.name: item.metadata.get("help", "") for item in fields(RunConfig)}
    base = make_config("cat")
    made: dict[str, Any] = {SWITCH: switch}
    with gr.Row():
        made["preset"] = gr.Radio(
            list(PRESETS),
            value=base.preset,
            label="Preset",
            info="fast: under a minute; full: more steps and pictures",
            min_width=220,
        )
        made["anchor"] = gr.Textbox(
            elem_id="anchor",
            label="Anchor",
            info=_sentence(helps["anchor"]),
            placeholder="chosen by itself",
            min_width=220,
        )
        made["seed"] = gr.Number(
            base.seed, label="Seed", info=_sentence(helps["seed"]), min_width=140
        )
    rows: dict[str, Any] = {}
    for name, kinds in (("objective", registry.METHODS), ("rule", ("rule",))):
        parts = [(kind, part) for kind in kinds for part in registry.names(kind)]
        made[name] = gr.Dropdown(
            [
                (f"{part}: {registry.describe(kind, part)}", part)
                for kind, part in sorted(parts, key=lambda p: p[1])
            ],
            value=getattr(base, name),
            label={"objective": "Method", "rule": "Gradient rule"}[name],
            info=_sentence(helps[name]),
            elem_id=name,
        )
        for kind, part in parts:
            if items := registry.settings_of(kind, part):
                with gr.Row(visible=part == getattr(base, name)) as rows[part]:
                    made |= {
                        f"{part}.{item.name}": _field(item, f"{part}.{item.name}", item.default)
                        for item in items
                    }
    made["prompts"] = gr.Textbox(
        elem_id="own-prompts",
        label="Your own prompts",
        info=_sentence(helps["prompts"]),
        placeholder="forget: my cat asleep on a chair\nretain: my dog asleep on a chair",
        lines=2,
        max_lines=8,
    )
    for group, title in GROUPS.items():
        gr.HTML(f"<h4>{title}</h4>")
        with gr.Row():
            for item in fields(group_class(group)):
                dotted = f"{group}.{item.name}"
                if dotted != SWITCH:
                    made[dotted] = _field(item, dotted, _get(base, dotted))
    return Options(
        {name: made[name] for name in (*TOP, *(name for name in made if "." in name))}, rows
    )


def _field(item: Any, dotted: str, value: Any) -> Any:
    """A number within its range, a choice, or a yes."""
    said = {
        "label": LABELS.get(item.name, item.name.replace("_", " ").capitalize()),
        "min_width": 170,
        "elem_id": dotted.replace(".", "-").replace("_", "-"),
    }
    if item.type is bool:
        return gr.Checkbox(value, info=item.metadata["help"], **said)
    if "choices" in item.metadata:
        return gr.Dropdown(
            list(item.metadata["choices"]), value=value, info=item.metadata["help"], **said
        )
    low, high = item.metadata["range"]
    return gr.Number(value, info=f"{item.metadata['help']} ({low:g} to {high:g})", **said)


def _get(config: RunConfig, name: str) -> Any:
    group, _, leaf = name.partition(".")
    return getattr(getattr(config, group), leaf)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
