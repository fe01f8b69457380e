"""What a run is asked to do: frozen settings, checked when they are made, the same for the page,
the command line and the library.
"""

import math
import re
import reprlib
import shlex
import unicodedata
from collections.abc import Iterable
from dataclasses import Field, dataclass, field, fields, is_dataclass, replace
from typing import Any

from ..common import registry
from ..common.errors import ConfigError, check_known
from . import groups
from .groups import (
    AttackConfig,
    CompareConfig,
    ResistConfig,
    UnlearnConfig,
    group_class,
    setting,
)
from .judges import places_of
from .presets import FULL_WEIGHTS, PRESET_CHANGES, PRESETS

MAX_TEXT = 200
MAX_PROMPTS = 20_000
FOLDER = "DIR"
"""What stands for a folder in a command; a record does not name folders of this machine."""
OWN_PROMPTS = "prompts.txt"
"""The file of a run folder that holds the user's own prompts."""
PICTURE_FOLDERS = {
    "pictures": "the adversary's pictures",
    "forget_pictures": "the forget pictures",
    "retain_pictures": "the retain pictures",
}
"""The folders of pictures that a user may give, by the setting that holds the hash of each."""
BY_WORDS = "auto"
"""The kind of a concept, where its own words tell it."""
CONCEPT_KINDS = (BY_WORDS, "object", "style")
SETTING_GROUPS = ("unlearn", "regularize", "resist", "attack", "compare")
HASH = re.compile(r"[0-9a-f]{64}")
ANSWERS = {"no": False, "yes": True, "false": False, "true": True}


@dataclass(frozen=True)
class RunConfig:
    """One whole run: forget a concept, attack the forgetting, judge both.

    Raises:
        ConfigError: a value outside of its range or an unknown name; `field` names it.
    """

    concept: str = field(metadata={"help": "what to forget, in words"})
    anchor: str | None = setting(None, "what to generate instead; chosen by the concept when empty")
    concept_kind: str = setting(
        BY_WORDS,
        "object or style, where the words do not tell",
        choices=CONCEPT_KINDS,
    )
    model: str = setting(
        registry.DEFAULT_MODEL,
        "pocket, pocket-flow, a folder in diffusers format, a .safetensors file, or a Hub id",
    )
    objective: str = setting("esd", "how the concept is unlearned")
    rule: str = setting("restricted", "how forget and retain gradients are combined")
    audited: str | None = setting(
        None,
        "the adapter or model that was audited, instead of unlearning anything",
        later=True,
    )
    prompts: str | None = setting(None, "your own prompts, one a line: “forget: …” or “retain: …”")
    pictures: str | None = setting(
        None, "hash of the pictures of the concept that the adversary holds", later=True
    )
    forget_pictures: str | None = setting(
        None, "hash of pictures of the concept to forget it by", later=True
    )
    retain_pictures: str | None = setting(
        None, "hash of pictures with captions to keep the rest by", later=True
    )
    judge: str | None = setting(
        None,
        "who judges, such as clip=FOLDER or clip=FOLDER,vqa; chosen by the model when empty",
        later=True,
    )
    seed: int = setting(0, "seed of training and pictures", 0, 2**31 - 1)
    preset: str = setting("fast", "fast or full")
    unlearn: UnlearnConfig = field(default_factory=UnlearnConfig)
    regularize: "groups.RegularizeConfig" = field(default_factory=lambda: groups.RegularizeConfig())
    resist: ResistConfig = field(default_factory=ResistConfig)
    attack: AttackConfig = field(default_factory=AttackConfig)
    compare: CompareConfig = field(default_factory=CompareConfig)
    options: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        for name in ("concept", "anchor", "model", "judge", "prompts", "audited"):
            _check_text(getattr(self, name), name)
        object.__setattr__(self, "concept", clean_text(self.concept, "concept"))
        anchor = clean_text(self.anchor, "anchor") if (self.anchor or "").strip() else None
        object.__setattr__(self, "anchor", anchor)
        object.__setattr__(self, "prompts", _lines(self.prompts))
        if self.anchor and self.anchor.casefold() == self.concept.casefold():
            raise ConfigError(
                f"The anchor {self.anchor!r} is the concept itself; choose something else.",
                "anchor",
            )
        object.__setattr__(self, "model", clean_text(self.model, "model", limit=1000))
        judge = (self.judge or "").strip() and clean_text(self.judge, "judge", limit=2000)
        object.__setattr__(self, "judge", judge or None)
        places_of(self.judge)
        if self.audited is not None:
            object.__setattr__(self, "audited", clean_text(self.audited, "audited", limit=1000))
        check_known("objective", self.objective, registry.methods())
        check_known("rule", self.rule, registry.names("rule"))
        check_known("preset", self.preset, PRESETS)
        _check_values(self)
        for part in registry.build_all("regularizer", self.regularize):
            part.check(self.unlearn.modules, self.unlearn.weights)
        if registry.kind_of(self.objective) != "objective" and not self.resist.on:
            _check_edit(self.objective, self.regularize)
        _check_pictures(self)
        _check_resolution(self)
        given, chosen = dict(self.options), self.methods.values()
        options = {  # those of parts that are not chosen are left out
            name: _value(given.get(name, item.default), item, name)
            for name, item in _method_settings().items()
            if name.partition(".")[0] in chosen
        }
        object.__setattr__(self, "options", tuple(options.items()))

    @property
    def methods(self) -> dict[str, str]:
        """The chosen parts that have hyperparameters of their own: name by kind."""
        return {registry.kind_of(self.objective): self.objective, "rule": self.rule}

    def build(self, kind: str) -> Any:
        """The chosen objective, closed form or rule with its hyperparameters.

        Raises:
            KeyError: the config chooses no part of that kind.
        """
        name = self.methods[kind]
        return registry.get(kind, name)(
            **{k.partition(".")[2]: v for k, v in self.options if k.startswith(f"{name}.")}
        )

    def command(self, out: str = "DIR", never_seen: str = "") -> str:
        """The equivalent command line; `never_seen` is what an audit was given as its control."""
        words = ["python", "-m", "unlearn_app", "run", "--concept", self.concept]
        if self.audited:
            words[3:4] = ["audit", "--original", self.model, "--unlearned", self.audited]
        chosen = {name: getattr(self, name) for name in ("preset", "objective", "model")}
        base = make_config(self.concept, **chosen)
        for name in (
            "anchor",
            "concept_kind",
            "objective",
            "rule",
            "prompts",
            "seed",
            "preset",
            "model",
            "judge",
        ):
            value, usual = getattr(self, name), RunConfig if name in chosen else base
            if self.audited and name not in ("concept_kind", "seed", "judge"):
                continue  # an audit trains nothing
            if name == "preset" or value != getattr(usual, name):
                option = f"--{name.replace('_', '-')}"
                words += [option, OWN_PROMPTS if name == "prompts" else str(value)]
        if never_seen:
            words += ["--never-seen", never_seen, "--pictures", FOLDER]
        for name in PICTURE_FOLDERS:
            if getattr(self, name):
                words += [f"--{name.replace('_', '-')}", FOLDER]
        usual = {name: item.default for name, item in _method_settings().items()} | base._dotted()
        if self.unlearn.weights == "full":
            usual |= FULL_WEIGHTS
        for name, value in self._dotted().items():
            if value != usual[name]:
                answer = "yes" if value else "no"
                words += ["--set", f"{name}={answer if isinstance(value, bool) else value}"]
        return shlex.join([*words, "--out", out])

    def _dotted(self) -> dict[str, Any]:
        """The values of all groups and options by dotted name."""
        return {
            f"{group}.{item.name}": getattr(getattr(self, group), item.name)
            for group in SETTING_GROUPS
            for item in fields(getattr(self, group))
        } | dict(self.options)


def make_config(concept: str, *, preset: str = "fast", **changes: Any) -> RunConfig:
    """A checked config from a preset and changes, which may be dotted (`**{"unlearn.steps": 40}`).

    What the chosen method suggests for itself replaces the preset's values, what the model's family
    needs replaces those, in the preset fast also what its world has tuned for the method and the
    kind of concept, what full weights take replaces these, and `changes` replace all.

    Raises:
        ConfigError: an unknown name or a value that is not accepted.
    """
    check_known("preset", preset, PRESETS)
    objective = changes.get("objective", RunConfig.objective)
    merged = PRESET_CHANGES[preset] | registry.suggested(objective)
    world = registry.world(str(changes.get("model", RunConfig.model)).strip())
    tuned = preset == "fast" and isinstance(concept, str)
    merged |= world.run_settings(concept, objective) if tuned else world.model_settings()
    if changes.get("unlearn.weights") == "full":
        merged |= FULL_WEIGHTS
    merged |= changes
    top = {item.name for item in fields(RunConfig)} - {*SETTING_GROUPS, "options"}
    known = setting_names()
    for name in merged:
        if name not in top and name not in known:
            raise ConfigError(
                f"There is no setting {name!r}; settings are {', '.join(known)}.", name
            )
    values = {name: value for name, value in merged.items() if name in top}
    for group in SETTING_GROUPS:
        own = {item.name: f"{group}.{item.name}" for item in fields(group_class(group))}
        given = {leaf: merged[name] for leaf, name in own.items() if name in merged}
        values[group] = group_class(group)(**given)
    options = tuple((name, merged[name]) for name in _method_settings() if name in merged)
    return RunConfig(concept=concept, preset=preset, options=options, **values)


def _method_settings() -> dict[str, Field]:
    """Hyperparameter fields of every way to forget and of every rule, by dotted name."""
    return {
        f"{name}.{item.name}": item
        for kind in (*registry.METHODS, "rule")
        for name in registry.names(kind)
        for item in registry.settings_of(kind, name)
    }


def make_plan(**changes: Any) -> "groups.SequenceConfig":
    """How a sequence of requests is served, checked.

    Where requests are trained apart, what their merge suggests replaces the defaults.

    Raises:
        ConfigError: an unknown name or a value that is not accepted.
    """
    plan = groups.SequenceConfig
    usual = {item.name: item.default for item in fields(plan)} | changes
    if usual["regime"] == "independent" and usual["merge"] in registry.names("merge"):
        changes = registry.get("merge", usual["merge"]).suggested | changes
    return plan(**_checked("sequence", fields(plan), changes))


def make_attack(name: str, **changes: Any) -> Any:
    """An attack of the lab with its hyperparameters, checked.

    Raises:
        ConfigError: an unknown name or a value that is not accepted.
    """
    check_known("attack", name, registry.names("attack"), field="kind")
    return registry.get("attack", name)(
        **_checked(name, registry.settings_of("attack", name), changes)
    )


def _checked(group: str, items: Iterable[Any], changes: dict[str, Any]) -> dict[str, Any]:
    accepted = {item.name: item for item in items}
    for name in changes.keys() - accepted.keys():
        raise ConfigError(
            f"There is no setting '{group}.{name}'; settings are {', '.join(accepted)}.", name
        )
    return {
        name: _value(value, accepted[name], f"{group}.{name}") for name, value in changes.items()
    }


def setting_names(chosen: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Dotted setting names of the `chosen` groups; by default every one, those of methods
    included.
    """
    own = [
        f"{group}.{item.name}"
        for group in chosen or SETTING_GROUPS
        for item in fields(group_class(group))
    ]
    return (*own, *(() if chosen else _method_settings()))


def config_from_dict(values: dict[str, Any], **changes: Any) -> RunConfig:
    """Rebuild a config from its JSON form, with `changes` as in `make_config`; unknown keys are
    errors.
    """
    flat = dict(values.get("options", []))
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{leaf}": own for leaf, own in value.items()}
        elif name != "options":
            flat[name] = value
    return make_config(**{"concept": ""} | flat | changes)


def with_concept(config: RunConfig, concept: str) -> RunConfig:
    """The same settings for another concept, whose words tell its kind."""
    return replace(config, concept=concept, anchor=None, concept_kind=BY_WORDS)


def _lines(text: str | None) -> str | None:
    """The user's own prompts without empty lines; None if no line is left."""
    if text and len(text) > MAX_PROMPTS:
        raise ConfigError(
            f"Your own prompts have {len(text):,} characters;"
            f" at most {MAX_PROMPTS:,} are accepted.",
            "prompts",
        )
    return "\n".join(line.strip() for line in (text or "").splitlines() if line.strip()) or None


def _check_text(value: Any, name: str) -> None:
    if not isinstance(value, str | None):
        raise ConfigError(f"{name} is {reprlib.repr(value)}; a text is accepted.", name)


def clean_text(text: str | None, name: str, limit: int = MAX_TEXT) -> str:
    """The text without surrounding blanks.

    Raises:
        ConfigError: it is no text, empty, too long, or holds control characters.
    """
    _check_text(text, name)
    stripped = (text or "").strip()
    if not stripped:
        raise ConfigError(
            f"The {name} is empty; type a few words such as “cat” or “Van Gogh style”.", name
        )
    if len(stripped) > limit:
        raise ConfigError(
            f"The {name} has {len(stripped):,} characters; at most {limit} are accepted.", name
        )
    if any(unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Co", "Cn") for letter in stripped):
        raise ConfigError(
            f"The {name} holds control or unassigned characters; plain words are accepted.", name
        )
    return " ".join(stripped.split())


def _check_resolution(config: RunConfig) -> None:
    """Refuse pictures of another size where the world has judges of its own, made for one."""
    if config.compare.resolution and registry.world(config.model).assets:
        raise ConfigError(
            f"compare.resolution is {config.compare.resolution}, and the judges of {config.model}"
            " know pictures of one size; 0, the model's own, is accepted.",
            "compare.resolution",
        )


def _check_pictures(config: RunConfig) -> None:
    """Refuse pictures that are no hash of a folder, and those that nothing would use."""
    for name, what in PICTURE_FOLDERS.items():
        value = getattr(config, name)
        if value is not None and not HASH.fullmatch(value if isinstance(value, str) else ""):
            raise ConfigError(
                f"{name} is {reprlib.repr(value)}; the hash of {what} is accepted, which"
                f" --{name.replace('_', '-')} DIR of the command line makes.",
                name,
            )
    if (config.attack.data == "pictures") != (config.pictures is not None):
        raise ConfigError(
            f"attack.data is {config.attack.data!r} and the adversary is given"
            f" {'pictures' if config.pictures else 'no pictures'}; --pictures DIR of the command"
            " line is accepted with attack.data=pictures, and no pictures with anything else.",
            "attack.data",
        )
    trained = registry.kind_of(config.objective) == "objective"
    if config.forget_pictures and not trained:
        raise ConfigError(
            f"{config.objective} writes its edit at once and takes no forget pictures; a method"
            " that trains is accepted with them.",
            "forget_pictures",
        )
    if config.retain_pictures and not (trained or config.resist.on):
        raise ConfigError(
            f"{config.objective} writes its edit at once and takes no retain pictures; a method"
            " that trains is accepted with them.",
            "retain_pictures",
        )


def _check_edit(objective: str, regularize: Any) -> None:
    """Refuse to regularize a method that writes its edit in closed form."""
    for item in fields(regularize):
        value = getattr(regularize, item.name)
        if value != item.default:
            raise ConfigError(
                f"regularize.{item.name} is {value!r}, but {objective} writes its edit at once and"
                f" is not regularized; {item.default!r} is accepted.",
                f"regularize.{item.name}",
            )


def checked_group(group: Any) -> Any:
    """A group of settings whose values are what its fields accept.

    Raises:
        ConfigError: one of them is not.
    """
    _check_values(group)
    return group


def _check_values(config: Any, prefix: str = "") -> None:
    for item in fields(config):
        value = getattr(config, item.name)
        if is_dataclass(value):
            _check_values(value, f"{item.name}.")
        else:
            object.__setattr__(config, item.name, _value(value, item, prefix + item.name))


def _value(value: Any, item: Any, name: str) -> Any:
    """`value` as the field `item` accepts it."""
    if "range" in item.metadata:
        return _number(value, item, name)
    if item.type is bool:
        answer = value if isinstance(value, bool) else ANSWERS.get(str(value).strip().casefold())
        if answer is None:
            raise ConfigError(f"{name} is {value!r}; yes or no is accepted.", name)
        return answer
    choices = item.metadata.get("choices")
    if choices and value not in choices:
        raise ConfigError(f"{name} is {value!r}; one of {', '.join(choices)} is accepted.", name)
    return value


def _number(value: Any, item: Any, name: str) -> float | int:
    low, high = item.metadata["range"]
    kind = int if item.type in (int, "int") else float
    try:
        number = float(value)
        if (
            isinstance(value, bool)
            or not math.isfinite(number)
            or (kind is int and number != int(number))
        ):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        wanted = "a whole number" if kind is int else "a number"
        raise ConfigError(
            f"{name} is {value!r}; {wanted} from {low} to {high} is accepted.", name
        ) from None
    if not low <= number <= high:
        raise ConfigError(f"{name} is {value}; {low} to {high} is accepted.", name)
    return kind(number)
