"""The groups of settings of a run, each value with its meaning and what is accepted."""

from dataclasses import dataclass, field
from typing import Any

MODULES = ("all", "cross", "not_cross")
RETAIN_ARMS = ("diversified", "near", "uniform")
RETAIN_LOSSES = ("preserve", "diffusion")
ANSWERS = {"no": False, "yes": True, "false": False, "true": True}
WEIGHTS = ("lora", "full")
OPTIMIZERS = ("adam", "sgd")
ORDERS = ("first", "second")
ATTACK_DATA = ("paraphrases", "one", "mixed", "benign")


def setting(
    default: Any, help_text: str, low: float | None = None, high: float | None = None, choices: tuple[str, ...] = ()
) -> Any:
    """A dataclass field with its one-line meaning and what is accepted: an inclusive range, or one of `choices`."""
    accepted = {"range": (low, high)} if low is not None else {"choices": choices} if choices else {}
    return field(default=default, metadata={"help": help_text} | accepted)


@dataclass(frozen=True)
class UnlearnConfig:
    """Training of the unlearn adapter."""

    steps: int = setting(30, "optimizer steps", 1, 5000)
    lr: float = setting(2e-3, "learning rate of Adam", 1e-6, 1e-1)
    rank: int = setting(8, "rank of the LoRA adapter", 1, 128)
    alpha: float = setting(8.0, "LoRA scale: the update is alpha / rank * B A", 0.1, 256.0)
    batch_size: int = setting(16, "pictures per term and step", 1, 256)
    retain_weight: float = setting(3.0, "weight of the retain gradient against the forget gradient", 1e-3, 1e3)
    train_pictures: int = setting(32, "retain pictures the original model paints for training", 4, 2000)
    modules: str = setting("all", "layers that carry LoRA: all, only cross-attention, or all but it", choices=MODULES)
    retain: str = setting("diversified", "what retain prompts cover", choices=RETAIN_ARMS)
    retain_loss: str = setting("preserve", "keep predictions, or train on pictures as the paper", choices=RETAIN_LOSSES)


RESIST_SECONDS = 1.2
"""What resisting adds to a step of forgetting with default settings on two CPU cores; `bench paper2` measures it."""


@dataclass(frozen=True)
class ResistConfig:
    """Meta-unlearning (2410.12777): each step looks ahead through a simulated attack, and makes it fail."""

    on: bool = setting(False, "each step also rehearses an attack and makes it fail (meta-unlearning)")
    steps: int = setting(3, "steps of the simulated attack; 0 is plain ascent, the control", 0, 50)
    lr: float = setting(1e-3, "learning rate of the simulated attack", 1e-6, 10.0)
    weights: str = setting("full", "what the simulated adversary trains", choices=WEIGHTS)
    optimizer: str = setting("adam", "optimizer of the simulated adversary", choices=OPTIMIZERS)
    batch_size: int = setting(8, "pictures per step of the simulated attack", 1, 256)
    weight: float = setting(1.0, "weight of resisting against forgetting", 1e-3, 1e3)
    forget: float = setting(1.0, "how much the concept shall stay lost after the attack", 0.0, 100.0)
    related: float = setting(0.0, "how much its relatives shall be lost in the attack", 0.0, 100.0)
    unrelated: float = setting(0.0, "how much everything else shall be lost in the attack", 0.0, 100.0)
    cap: float = setting(1.0, "losses above this are high enough", 1e-3, 1e3)
    order: str = setting("first", "gradient through the attack: its result as a constant, or exact", choices=ORDERS)


@dataclass(frozen=True)
class AttackConfig:
    """The relearning attack on the merged unlearned weights: all of them are trained, or a fresh adapter."""

    steps: int = setting(50, "optimizer steps of the adversary", 0, 5000)
    lr: float = setting(2e-3, "learning rate of the adversary's Adam", 1e-6, 1e-1)
    rank: int = setting(8, "rank of the adversary's LoRA adapter", 1, 128)
    alpha: float = setting(8.0, "LoRA scale of the adversary", 0.1, 256.0)
    batch_size: int = setting(12, "pictures per step of the adversary", 1, 256)
    pictures: int = setting(16, "pictures the adversary holds", 1, 2000)
    weights: str = setting("lora", "what the adversary trains: a LoRA adapter, or all weights", choices=WEIGHTS)
    optimizer: str = setting("adam", "the adversary's optimizer", choices=OPTIMIZERS)
    data: str = setting("paraphrases", "what the adversary's pictures show", choices=ATTACK_DATA)
    controls: bool = setting(False, "run it also without resistance, and on something the model has never seen")


@dataclass(frozen=True)
class CompareConfig:
    """What is painted and judged for the three columns."""

    forget: int = setting(12, "pictures per column that ask for the concept", 1, 500)
    near: int = setting(10, "pictures per column of its closest relatives", 1, 500)
    far: int = setting(10, "pictures per column of everything else", 1, 500)
    sampling_steps: int = setting(10, "denoising steps per picture", 1, 200)
    guidance_scale: float = setting(3.0, "classifier-free guidance; 1 is none", 1.0, 30.0)
