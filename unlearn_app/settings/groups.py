"""The groups of settings of a run, each value with its meaning and what is accepted.

`RegularizeConfig` and `SequenceConfig` hold the settings of every registered regularizer and merge.
They are made when first asked for, because listing those loads torch.
"""

import sys
from dataclasses import dataclass, field, make_dataclass
from functools import cache
from typing import Any

from ..common import registry

MODULES = (
    "all",
    "cross",
    "keys_values",
    "not_cross",
    "self",
    "attention",
    "convolutions",
    "locon",
)
RETAIN_ARMS = ("diversified", "near", "uniform")
WEIGHTS = ("lora", "full")
OPTIMIZERS = ("adam", "sgd")
EIGHT_BIT = "adam8bit"
"""Adam whose states are held in 8 bits, for an adversary who trains all weights of a large model.
"""
REGIMES = ("sequential", "independent", "simultaneous")


def setting(
    default: Any,
    help_text: str,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    later: bool = False,
) -> Any:
    """A dataclass field with its one-line meaning and what is accepted: an inclusive range, or one
    of `choices`.

    One that came `later` than the first records is left out of records while it has its default, so
    that what was measured before depends on the same settings.
    """
    accepted = (
        {"range": (low, high)} if low is not None else {"choices": choices} if choices else {}
    )
    since = {"later": True} if later else {}
    return field(default=default, metadata={"help": help_text} | accepted | since)


@dataclass(frozen=True)
class UnlearnConfig:
    """Training of the update that forgets."""

    steps: int = setting(30, "optimizer steps", 1, 5000)
    lr: float = setting(2e-3, "learning rate of Adam", 1e-6, 1e-1)
    rank: int = setting(8, "rank of the LoRA adapter", 1, 128)
    alpha: float = setting(8.0, "LoRA scale: the update is alpha / rank * B A", 0.1, 256.0)
    batch_size: int = setting(8, "pictures per term and step", 1, 256)
    retain_weight: float = setting(
        3.0, "weight of the retain gradient against the forget gradient", 1e-3, 1e3
    )
    train_pictures: int = setting(
        32, "retain pictures that the original model generates for training", 4, 2000
    )
    pool: int = setting(
        8,
        "noised batches of each term that are used over and over, so that the original model"
        " predicts on them once; 0 draws a new one at each step",
        0,
        5000,
    )
    modules: str = setting(
        "all",
        "layers that learn: all of attention and feed-forward, cross-attention, its keys and"
        " values, all but cross-attention, self-attention, both attentions, convolutions, or all"
        " with convolutions (LoCon)",
        choices=MODULES,
    )
    weights: str = setting(
        "lora",
        "what is trained there: a LoRA adapter, or the weights themselves (all with modules all),"
        " published as a dense file",
        choices=WEIGHTS,
        later=True,
    )
    retain: str = setting("diversified", "what retain prompts cover", choices=RETAIN_ARMS)
    retain_loss: str = setting(
        "preserve",
        "keep predictions, train on pictures as the paper, or keep nothing",
        choices=("preserve", "diffusion", "none"),
    )


@dataclass(frozen=True)
class ResistConfig:
    """Meta-unlearning (2410.12777): each step simulates an attack on its result and makes it
    fail.
    """

    on: bool = setting(
        False, "each step also simulates an attack and makes it fail (meta-unlearning)"
    )
    steps: int = setting(3, "steps of the simulated attack; 0 is plain ascent, the control", 0, 50)
    lr: float = setting(3e-4, "learning rate of the simulated attack", 1e-6, 10.0)
    weights: str = setting("full", "what the simulated adversary trains", choices=WEIGHTS)
    optimizer: str = setting("adam", "optimizer of the simulated adversary", choices=OPTIMIZERS)
    batch_size: int = setting(8, "pictures per step of the simulated attack", 1, 256)
    goal: str = setting(
        "forget",
        "after the attack: the method's own loss is low, or the concept's high",
        choices=("forget", "lose"),
    )
    weight: float = setting(1.0, "weight of resisting against forgetting", 1e-3, 1e3)
    forget: float = setting(
        1.0, "how much the concept shall stay lost after the attack", 0.0, 100.0
    )
    related: float = setting(0.0, "how much its relatives shall be lost in the attack", 0.0, 100.0)
    unrelated: float = setting(
        0.0, "how much everything else shall be lost in the attack", 0.0, 100.0
    )
    cap: float = setting(1.0, "losses above this are high enough", 1e-3, 1e3)
    order: str = setting(
        "first",
        "gradient through the attack: its result as a constant, or exact",
        choices=("first", "second"),
    )


@dataclass(frozen=True)
class AttackConfig:
    """The relearning attack on the merged unlearned weights: all of them are trained, or a fresh
    adapter.
    """

    steps: int = setting(50, "optimizer steps of the adversary", 0, 5000)
    lr: float = setting(
        2e-3,
        "learning rate of the adversary; SGD takes about 5 with LoRA, 0.1 with all weights",
        1e-6,
        100.0,
    )
    rank: int = setting(8, "rank of the adversary's LoRA adapter", 1, 128)
    alpha: float = setting(8.0, "LoRA scale of the adversary", 0.1, 256.0)
    batch_size: int = setting(12, "pictures per step of the adversary", 1, 256)
    pictures: int = setting(16, "pictures the adversary holds", 1, 2000)
    weights: str = setting(
        "lora", "what the adversary trains: a LoRA adapter, or all weights", choices=WEIGHTS
    )
    optimizer: str = setting(
        "adam",
        "the adversary's optimizer; adam8bit takes less memory and needs bitsandbytes",
        choices=(*OPTIMIZERS, EIGHT_BIT),
    )
    data: str = setting(
        "paraphrases",
        "what the adversary's pictures show; renderings are drawn by the world of a bundled model,"
        " pictures are a folder of yours",
        choices=("paraphrases", "one", "mixed", "benign", "renderings", "pictures"),
    )
    controls: bool = setting(
        False,
        "run it also on something never seen, and without resistance; always done when resisting",
    )


@dataclass(frozen=True)
class CompareConfig:
    """What is generated and judged for the three columns."""

    forget: int = setting(12, "pictures per column that ask for the concept", 1, 500)
    near: int = setting(10, "pictures per column of its closest relatives", 1, 500)
    far: int = setting(10, "pictures per column of everything else", 1, 500)
    sampling_steps: int = setting(8, "denoising steps per picture", 1, 200)
    guidance_scale: float = setting(2.0, "classifier-free guidance; 1 is none", 1.0, 30.0)
    resolution: int = setting(
        0,
        "pixels of the longer side of every picture, also of those that are trained on; 0 is the"
        " model's own",
        0,
        2048,
        later=True,
    )


@cache
def _regularize_config(names: tuple[str, ...]) -> type:
    return _made(
        "RegularizeConfig",
        "What regularizes an update (2511.07970), so that many requests in a row leave the rest of"
        " the model as it is.",
        **registry.shared_settings("regularizer"),
        reference=setting(
            "previous",
            "changes since the previous request, or since the original",
            choices=("previous", "original"),
        ),
        teacher=setting(
            "previous",
            "whose predictions teach a request: the model's that it finds, or the original's",
            choices=("previous", "original"),
            later=True,
        ),
        decay=setting(0.0, "weight decay of what is trained", 0.0, 1.0),
    )


@cache
def _sequence_config(names: tuple[str, ...]) -> type:
    return _made(
        "SequenceConfig",
        "How requests that keep coming are served, and how many pictures are evaluated after each.",
        regime=setting(
            "sequential", "on top of what is there, each alone, or all at once", choices=REGIMES
        ),
        merge=setting("ties", "how adapters that were trained apart become one", choices=names),
        **registry.shared_settings("merge"),
        rank=setting(
            128,
            "rank of the merged adapter; that of the largest layer leaves nothing out",
            1,
            2048,
        ),
        pictures=setting(4, "pictures of each concept after every request", 1, 100),
    )


def _made(name: str, about: str, **items: Any) -> type:
    own = [
        (
            key,
            item.type or type(item.default),
            field(default=item.default, metadata=item.metadata),
        )
        for key, item in items.items()
    ]
    return make_dataclass(
        name, own, namespace={"__module__": __name__, "__doc__": about}, frozen=True
    )


def __getattr__(name: str) -> Any:
    if name == "RegularizeConfig":
        return _regularize_config(registry.names("regularizer"))
    if name == "SequenceConfig":
        return _sequence_config(registry.names("merge"))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def group_class(group: str) -> type:
    """The class of a group of settings, such as "unlearn"."""
    return getattr(sys.modules[__name__], f"{group.capitalize()}Config")
