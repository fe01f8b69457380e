"""Parts of a pipeline that are on the card only while they work, and pictures a piece at a time."""

from typing import Any

import torch
from torch import nn

from ..memory import Plan
from .layer_names import TEXT_PREFIXES


def follow(model: Any, plan: Plan) -> None:
    """Let a model use the memory of its device as planned.

    On a CPU nothing moves, and pictures are the same to the last bit.
    """
    model.rows_at_once = plan.rows
    model.chunk = plan.chunk
    model.planned = model.device.type != "cpu"
    if plan.checkpointed:
        model.network.enable_gradient_checkpointing()
    else:
        model.network.disable_gradient_checkpointing()
    if model.device.type == "cpu":
        return
    model.pipe.vae.enable_slicing()
    for name in TEXT_PREFIXES:
        if encoder := getattr(model.pipe, name, None):
            park(encoder, model.device)


def park(encoder: nn.Module, device: torch.device) -> None:
    """Keep a text encoder in the memory of the host, and on `device` only while it encodes.

    Where gradients are taken through it, as attacks on words do, it stays on the device.
    """
    if getattr(encoder, "parked", False):
        return
    encoder.parked = True
    encoder.to("cpu")
    # Some parameters may be elsewhere than the others: swapped, updated or replaced meanwhile.
    encoder.register_forward_pre_hook(lambda module, _: _move(module, device))
    encoder.register_forward_hook(_back)


def _back(module: nn.Module, arguments: Any, output: Any) -> None:
    if not torch.is_grad_enabled():
        _move(module, torch.device("cpu"))


def _move(module: nn.Module, device: torch.device) -> None:
    module.to(device)
