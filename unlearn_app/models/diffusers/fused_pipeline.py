"""A model with an adapter in its weights, as a pipeline folder of diffusers."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...common.atomic_files import check_space, write_bytes
from ...common.json_values import json_text
from ...common.new_folder import NewFolder
from ...common.record_files import read_json
from ..protocols import Params, slots_kept
from .loading import with_text_prefix
from .pipeline import PipelineModel
from .plain_weights import without_adapter

PATHS = ("_name_or_path", "name_or_path", "special_tokens_map_file")
"""What the libraries write of the folders that a part was loaded from."""


def export_pipeline(model: PipelineModel, state: Params, out: Path) -> Path:
    """Write the model with the adapter `state` in its weights, in the precision in which they are
    here, to the new folder `out`, which diffusers and `--model` load; returns the folder.

    The model keeps the adapters that it had.

    Raises:
        ModelError: the adapter was made for another model.
        OutputError: the folder exists or cannot be written.
    """
    parts = [part for part in model.pipe.components.values() if isinstance(part, nn.Module)]
    with NewFolder(out) as new, slots_kept(model):
        check_space(out, sum(_size(part) for part in parts))
        model.load_adapter("unlearn", state)
        with model.merged("unlearn"):
            _save(model, new.partial)
        return new.settle()


def _size(part: nn.Module) -> int:
    return sum(weight.numel() * weight.element_size() for weight in part.state_dict().values())


def _save(model: PipelineModel, folder: Path) -> None:
    """Write the pipeline with the weights that the model has now, without adapters."""
    parts = model.pipe.components
    name = next(name for name, part in parts.items() if part is model.network)
    with torch.device("meta"):
        network = type(model.network).from_config(model.network.config)
    network.load_state_dict(plain_state(model.network), assign=True)
    pipe = type(model.pipe)(**parts | model.unused | {name: network})
    pipe.save_pretrained(str(folder), safe_serialization=True)
    with_text_prefix(folder)
    for path in folder.rglob("*.json"):
        _forget_paths(path)


def plain_state(network: nn.Module) -> dict[str, Tensor]:
    """The weights of a network by the names that they have without adapters."""
    return {
        without_adapter(name): tensor
        for name, tensor in network.state_dict().items()
        if ".lora_" not in name
    }


def _forget_paths(path: Path) -> None:
    """Remove from a configuration where its part was loaded from: pipelines are shared."""
    values: Any = read_json(path, "model", largest=math.inf)
    if isinstance(values, Mapping) and any(name in values for name in PATHS):
        kept = {name: value for name, value in values.items() if name not in PATHS}
        write_bytes(path, json_text(kept, indent=2).encode())
