"""The folded-away settings, made from the fields of the config."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import gradio as gr

from ..common import registry
from ..settings.groups import RESIST_SECONDS, ResistConfig, group_class
from ..settings.presets import PRESETS
from ..settings.run_config import RunConfig, make_config, setting_names

SECTIONS = {
    "unlearn": "Forgetting",
    "regularize": "Protection",
    "resist": "Resisting relearning",
    "attack": "Attack",
    "compare": "Pictures",
}
OWNERS = {"unlearn": "forgetting", "resist": "simulated attack", "compare": "pictures"}
"""What a setting's section is called where another section has one of the same name."""
SWITCH = "resist.on"
"""The one setting that is not folded away."""
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
TOP = ("anchor", "objective", "rule", "prompts", "seed", "preset")
TEXTS = ("anchor", "prompts")
HELP = {item.name: item.metadata.get("help", "") for item in fields(RunConfig)}


@dataclass(frozen=True)
class Options:
    """The setting components by config name, in the order handlers receive them."""

    components: dict[str, Any]
    rows: dict[str, gr.Row]
    """The row of every part that has hyperparameters of its own; shown while the part is chosen."""

    def config(self, concept: str, values: tuple, model: str) -> RunConfig:
        """The checked config of the values in the fields.

        Raises:
            ConfigError: a value that is not accepted; `field` names its component.
        """
        changes = {
            name: "" if value is None and name not in TEXTS else value
            for name, value in zip(self.components, values, strict=True)
        }
        return make_config(concept, preset=changes.pop("preset"), model=model, **changes)

    def defaults(self, preset: str, objective: str) -> list[Any]:
        """The values that preset and method give to `suggested_fields`."""
        config = make_config("cat", preset=preset, objective=objective)
        shared, own = setting_names(tuple(SECTIONS)), dict(config.options)
        values = {name: _value(config, name) for name in shared}
        for name in setting_names()[len(shared) :]:
            values[name] = own.get(name, self.components[name].value)
        del values[SWITCH]
        return [config.rule, *values.values()]

    @property
    def suggested_fields(self) -> list[Any]:
        """The components that a preset or a method fills in; the switch is the user's alone."""
        return [self.components[name] for name in ("rule", *setting_names()) if name != SWITCH]

    def reveal(self, objective: str, rule: str) -> list[gr.Row]:
        """Which rows of hyperparameters are on the page."""
        return [gr.Row(visible=name in (objective, rule)) for name in self.rows]


def build_switch() -> gr.Checkbox:
    """The switch for resisting, with what it costs, controls included, and what `bench paper2`
    found it to be worth.
    """
    worth = {"fast": "where 25 attack steps undo it", "full": "where it slows the first 25"}
    said = []
    for preset in PRESETS:
        seconds = 2 * RESIST_SECONDS * make_config("cat", preset=preset).unlearn.steps
        said.append(f"{_duration(seconds)} in {preset}, {worth[preset]}")
    return gr.Checkbox(
        ResistConfig.on,
        label=LABELS["on"],
        info=f"adds about {'; '.join(said)}",
        elem_id="resist-on",
        container=False,
    )


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{5 * round(seconds / 5)} s"


def build_options(switch: gr.Checkbox) -> Options:
    """Create the components inside the current layout block; `switch` is there already."""
    base = make_config("cat")
    made: dict[str, Any] = {SWITCH: switch}
    rows: dict[str, gr.Row] = {}
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
            info=_capitalized(HELP["anchor"]),
            placeholder="chosen by itself",
            min_width=220,
        )
        made["seed"] = gr.Number(
            base.seed, label="Seed", info=_capitalized(HELP["seed"]), min_width=140
        )
    for name, label, kinds in (
        ("objective", "Method", registry.METHODS),
        ("rule", "Gradient rule", ("rule",)),
    ):
        chosen = getattr(base, name)
        parts = [(kind, part) for kind in kinds for part in registry.names(kind)]
        made[name] = _choice(name, label, parts, chosen)
        for kind, part in parts:
            if items := registry.settings_of(kind, part):
                with gr.Row(visible=part == chosen) as rows[part]:
                    made |= _fields((f"{part}.{item.name}", item, item.default) for item in items)
    made["prompts"] = gr.Textbox(
        elem_id="own-prompts",
        label="Your own prompts",
        info=_capitalized(HELP["prompts"]),
        placeholder="forget: my cat asleep on a chair\nretain: my dog asleep on a chair",
        lines=2,
        max_lines=8,
    )
    for section, title in SECTIONS.items():
        gr.HTML(f"<h4>{title}</h4>")
        names = {f"{section}.{item.name}": item for item in fields(group_class(section))}
        names.pop(SWITCH, None)
        with gr.Row():
            made |= _fields((name, item, _value(base, name)) for name, item in names.items())
    settings = (name for name in made if "." in name)
    return Options({name: made[name] for name in (*TOP, *settings)}, rows)


def _choice(name: str, label: str, parts: list[tuple[str, str]], chosen: str) -> gr.Dropdown:
    """A choice among registered parts, given as kind and name."""
    ordered = sorted(parts, key=lambda part: part[1])
    return gr.Dropdown(
        [(f"{part}: {registry.describe(kind, part)}", part) for kind, part in ordered],
        value=chosen,
        label=label,
        info=_capitalized(HELP[name]),
        elem_id=name,
    )


def _fields(settings: Iterator[tuple[str, Any, Any]]) -> dict[str, Any]:
    """A component for each setting, given by dotted name, dataclass field and value."""
    return {name: _field(name, item, value) for name, item, value in settings}


def _field(name: str, item: Any, value: Any) -> Any:
    """A number within its range, a choice, or a yes."""
    said = {
        "label": _label(name),
        "info": item.metadata["help"],
        "min_width": 170,
        "elem_id": name.replace(".", "-").replace("_", "-"),
    }
    if item.type is bool:
        return gr.Checkbox(value, **said)
    if "choices" in item.metadata:
        return gr.Dropdown(list(item.metadata["choices"]), value=value, **said)
    low, high = item.metadata["range"]
    return gr.Number(value, **said | {"info": f"{said['info']} ({low:g} to {high:g})"})


def _label(name: str) -> str:
    """A label that no other setting has."""
    section, _, leaf = name.partition(".")
    label = LABELS.get(leaf, _capitalized(leaf.replace("_", " ")))
    alone = sum(other.endswith(f".{leaf}") for other in setting_names()) == 1
    return label if alone else f"{label} ({OWNERS.get(section, section)})"


def _value(config: RunConfig, name: str) -> Any:
    section, _, leaf = name.partition(".")
    return getattr(getattr(config, section), leaf)


def _capitalized(text: str) -> str:
    """The text with a capital first letter; the others stay as they are."""
    return text[:1].upper() + text[1:]
