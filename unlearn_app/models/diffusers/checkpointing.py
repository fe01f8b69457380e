"""Gradient checkpointing: activations are computed again for the backward pass instead of kept."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def not_checkpointed(network: Any) -> Iterator[None]:
    """Keep all activations of what is computed within.

    A forward pass with replaced weights must: the backward pass comes when the network has its own
    again, and would compute other activations, without an error.
    """
    on = getattr(network, "is_gradient_checkpointing", False)
    if on:
        network.disable_gradient_checkpointing()
    try:
        yield
    finally:
        if on:
            network.enable_gradient_checkpointing()
