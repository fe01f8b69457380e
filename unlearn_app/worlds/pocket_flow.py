"""The bundled world under another model: a flow transformer in place of the UNet."""

from typing import TYPE_CHECKING, Any

from ..common.errors import ModelError
from ..common.paths import POCKET_FLOW
from ..common.registry import register
from . import World
from .pocket import PocketWorld

if TYPE_CHECKING:
    from ..models.protocols import Model

SAMPLING = {"compare.sampling_steps": 12, "compare.guidance_scale": 3.0}


@register("world", "pocket-flow")
class PocketFlowWorld(PocketWorld):
    """A flow transformer of the bundled world, with the same words and judges."""

    def load_model(self) -> "Model":
        from ..models.diffusers.loading import load_flow
        from ..pocket.texts import load_tower, shared_texts

        folder = POCKET_FLOW / "pipeline"
        if not folder.is_dir():
            raise ModelError(
                f"The model {self.model} is not in {POCKET_FLOW.parent.name}/{POCKET_FLOW.name};"
                " `python -m unlearn_app pocket render` and `pocket train --flow` make it in some"
                " hours, and pocket is accepted meanwhile."
            )
        bundled = self.assets / "pipeline"
        return load_flow(folder, self.model, bundled / "vae", shared_texts(*load_tower(bundled)))

    def model_settings(self) -> dict[str, Any]:
        return dict(SAMPLING)

    def run_settings(self, text: str, objective: str) -> dict[str, Any]:
        return self.model_settings() | super().run_settings(text, objective)

    def regularization_preset(self, objective: str) -> str:
        """None is tuned, and nothing of a joint attention reads text states as they are."""
        return World.regularization_preset(self, objective)
