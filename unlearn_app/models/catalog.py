"""Models by name."""

from ..common.registry import DEFAULT_MODEL, world
from .protocols import Model


def load_model(model: str = DEFAULT_MODEL) -> Model:
    """A bundled model, a folder in diffusers format, or a Hugging Face id.

    Raises:
        ModelError: it is missing, damaged or of a kind we refuse.
    """
    return world(model).load_model()
