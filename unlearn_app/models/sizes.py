"""Estimates of the size of files before they are written."""

from .protocols import Model

ENLARGED = 8
"""Pixels of a picture along each side of a latent."""
NUMBER = 4
"""Bytes of an adapter's float32."""


def picture_size(model: Model) -> int:
    """The bytes of a picture by `model` that PNG cannot compress."""
    _, height, width = model.latent_shape
    return 3 * (ENLARGED * height) * (ENLARGED * width)


def adapter_size(model: Model, rank: int, modules: str = "all") -> int:
    """The bytes of an adapter of that rank; both slots are empty afterwards."""
    factors = model.reset_adapter("unlearn", rank, rank, 0, modules)
    size = NUMBER * sum(tensor.numel() for tensor in factors.values())
    model.drop_adapters()
    return size
