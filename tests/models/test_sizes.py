"""How large files will be, before they are made."""

from pathlib import Path

import pytest

from unlearn_app.common.images import png_bytes
from unlearn_app.models.catalog import load_model
from unlearn_app.models.diffusers.adapter_files import adapter_bytes
from unlearn_app.models.generate import generate
from unlearn_app.models.sizes import adapter_size, picture_size


@pytest.fixture(scope="module")
def model(tiny_pipeline: Path):
    return load_model(str(tiny_pipeline))


@pytest.mark.parametrize("modules", ["all", "keys_values"])
def test_an_adapter_takes_what_was_estimated(model, modules: str) -> None:
    estimated = adapter_size(model, 16, modules)
    model.reset_adapter("unlearn", 16, 16, 0, modules)
    written = len(adapter_bytes(model.adapter_state("unlearn"), {}))
    model.drop_adapters()
    assert estimated <= written <= estimated + 20_000


def test_a_picture_takes_no_more_than_was_estimated(model) -> None:
    (picture,) = generate(model, ["a dog"], [0], sampling_steps=1)
    assert len(png_bytes(picture)) <= picture_size(model) + 1000
