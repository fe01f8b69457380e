"""Models by name."""

from ..common.registry import DEFAULT_MODEL, world
from ..settings.run_config import RunConfig
from .memory import Plan
from .protocols import Model


def load_model(model: str = DEFAULT_MODEL) -> Model:
    """A bundled model, a folder in diffusers format, a .safetensors file, or a Hugging Face id.

    Raises:
        ModelError: it is missing, damaged or of a kind we refuse.
    """
    return world(model).load_model()


def plan_memory(config: RunConfig) -> Plan | None:
    """How a run uses the memory of its device; None where its model is small.

    Raises:
        ModelError: the model is missing, damaged or of a kind we refuse.
        OutOfMemory: the run does not fit; the message names what to lower.
    """
    return world(config.model).plan_memory(config)


def load_for(config: RunConfig, model: Model | None = None) -> Model:
    """The model of a run, loaded already or loaded now, which uses memory as `plan_memory` says.

    Raises:
        ModelError, OutOfMemory: as `plan_memory` and `load_model`.
    """
    plan = plan_memory(config)
    model = model or load_model(config.model)
    if plan:
        follow(model, plan)
    return model


def follow(model: Model, plan: Plan) -> None:
    """Let a loaded model use the memory of its device as planned."""
    from .diffusers.offloading import follow

    follow(model, plan)
