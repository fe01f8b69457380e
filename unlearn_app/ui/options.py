"""The folded-away settings, made from the fields of the config: nothing about them is written twice."""

from dataclasses import dataclass, fields
from typing import Any

import gradio as gr

from .. import registry
from ..config import PRESETS, AttackConfig, CompareConfig, RunConfig, UnlearnConfig, make_config

GROUPS = {
    "unlearn": ("Forgetting", UnlearnConfig),
    "attack": ("Attack", AttackConfig),
    "compare": ("Pictures", CompareConfig),
}
LABELS = {"lr": "Learning rate", "rank": "LoRA rank", "alpha": "LoRA alpha"}
TOP = ("anchor", "objective", "rule", "seed", "preset")


@dataclass(frozen=True)
class Options:
    """The setting components by config name, in the order handlers receive them."""

    components: dict[str, Any]

    def config(self, concept: str, values: tuple, model: str) -> RunConfig:
        """The checked config of what stands in the fields.

        Raises:
            ConfigError: a value that is not accepted; `field` names its component.
        """
        changes = dict(zip(self.components, values, strict=True))
        changes |= {name: "" for name, value in changes.items() if value is None and name != "anchor"}
        return make_config(concept, preset=changes.pop("preset"), model=model, **changes)

    def defaults(self, preset: str) -> list[Any]:
        """What the preset puts into the number fields."""
        config = make_config("cat", preset=preset)
        return [_get(config, name) for name in self.components if "." in name]

    @property
    def numbers(self) -> list[Any]:
        """The components that a preset fills in."""
        return [component for name, component in self.components.items() if "." in name]


def build_options() -> Options:
    """Create the components inside the current layout block."""
    helps = {item.name: item.metadata.get("help", "") for item in fields(RunConfig)}
    base = make_config("cat")
    made: dict[str, Any] = {}
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
        made["seed"] = gr.Number(base.seed, label="Seed", info=_sentence(helps["seed"]), min_width=140)
    for name in ("objective", "rule"):
        made[name] = gr.Dropdown(
            [(f"{part}: {registry.describe(name, part)}", part) for part in registry.names(name)],
            value=getattr(base, name),
            label={"objective": "Objective", "rule": "Gradient rule"}[name],
            info=_sentence(helps[name]),
        )
    for group, (title, kind) in GROUPS.items():
        gr.HTML(f"<h4>{title}</h4>")
        with gr.Row():
            for item in fields(kind):
                low, high = item.metadata["range"]
                made[f"{group}.{item.name}"] = gr.Number(
                    _get(base, f"{group}.{item.name}"),
                    label=LABELS.get(item.name, item.name.replace("_", " ").capitalize()),
                    info=f"{item.metadata['help']} ({low:g} to {high:g})",
                    min_width=170,
                    elem_id=f"{group}-{item.name}".replace("_", "-"),
                )
    ordered = (*TOP, *(name for name in made if "." in name))
    return Options({name: made[name] for name in ordered})


def _get(config: RunConfig, name: str) -> Any:
    group, _, leaf = name.partition(".")
    return getattr(getattr(config, group), leaf)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
