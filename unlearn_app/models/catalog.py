"""Models by name."""

from ..common.paths import POCKET
from .protocols import Model


def load_backend(model: str = "pocket") -> Model:
    """The bundled model, a folder in Stable Diffusion 1.x format, or a Hugging Face id.

    Raises:
        ModelError: it is missing, damaged or of a kind we refuse.
    """
    from ..models.diffusers.loading import load_pipeline

    return load_pipeline(POCKET / "pipeline" if model == "pocket" else model, model)
