"""The decoder of the autoencoder: the linear patch code inverted by computed convolution weights.

A patch of 8 x 8 pixels is a linear function of its cell, but the network doubles its grid three
times, each time with four equal copies of every cell, and must make different pixels of them. Every
feature map therefore has a ramp per axis, which grows by one per cell and starts at the zero
padding of the middle block. After a doubling its second difference, a convolution, is +1 in the
first copy of a cell and -1 in the second: the parity. Every map holds the numbers of both copies,
and silu(u + K * parity) passes those of the right copy and sets the others to zero.
"""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor, nn

from .encoder import blank, write_taps
from .latents import PATCH, PatchBasis

SIDE = 8
"""Cells along an edge of the latents, the only size that the computed ramp is right for."""
COARSE_GATE, GATE, FINE_GATE = 20.0, 12.0, 8.0
"""Added before silu to pass or to remove a number. Codes reach 10 and pixels 2, and from 8 on silu
is the identity or zero to a thousandth.
"""
ONE = 32.0
"""The value of a flag that is set: silu(32) is 32 and silu(-32) is 0, so that it stays exact."""
ANCHORS = [0, 1]
BALANCE = 2
"""Channels of every map: two large constants, which make the statistics of the normalisation
constant, and one that keeps the mean at zero.
"""


Map = dict[str, list[int]]
"""The channel indices of named groups in one feature map."""


def _map(**sizes: int) -> Map:
    """Groups of channels in this order, after the anchors and the balance."""
    channels = itertools.count(BALANCE + 1)
    return {name: list(itertools.islice(channels, size)) for name, size in sizes.items()}


ENTRY = _map(one=1, ramp=2, code=64, edges=4)
HALVES = _map(one=1, ramp=2, parity=2, left=64, right=64)
QUARTERS = _map(one=1, ramp=2, parity=2, pixels=48)
GATED_QUARTERS = _map(one=1, ramp=2, parity=4, plus=48, minus=48)
PIECES = _map(one=1, ramp=2, parity=4, pixels=12)
GATED_PIECES = _map(parity=6, plus=12, minus=12)
PICTURE = _map(parity=6, plus=3, minus=3)
"""The channels of the feature maps, from the grid of the code to that of the picture; the widths of
the network are the smallest that hold them.
"""


def write_decoder(autoencoder: nn.Module, basis: PatchBasis) -> None:
    """Set the weights of the decoder so that it computes `basis.decode`, without any training.

    Both blocks of the coarsest level and the second blocks of the others, the free blocks, add
    nothing: the last convolution of their branch is zero until they are trained.
    """
    decoder = autoencoder.decoder
    levels = decoder.up_blocks
    with torch.no_grad():
        _hold_norms(decoder)
        _write_entry(autoencoder)
        _write_ramp(decoder.mid_block.resnets)
        _write_halves(levels[0].upsamplers[0].conv)
        _select_quarters(levels[1].resnets[0], _functionals(basis))
        _write_gates(
            levels[1].upsamplers[0].conv,
            levels[2].resnets[0].norm1,
            QUARTERS,
            GATED_QUARTERS,
            2 * SIDE,
        )
        _select(levels[2].resnets[0], GATED_QUARTERS, PIECES)
        _write_gates(
            levels[2].upsamplers[0].conv, levels[3].resnets[0].norm1, PIECES, GATED_PIECES, 4 * SIDE
        )
        _select(levels[3].resnets[0], GATED_PIECES, PICTURE)
        # The picture from its activated channels and their negatives: silu(z) - silu(-z) = z.
        blank(decoder.conv_out)
        _tap(decoder.conv_out, range(3), PICTURE["plus"], 1.0)
        _tap(decoder.conv_out, range(3), PICTURE["minus"], -1.0)


def freeze_position_and_gates(autoencoder: nn.Module) -> None:
    """Freeze what must not change in a decoder that `write_decoder` wrote; call it before training.

    Frozen are position and gates: their numbers are so large that one update of a weight that
    reads or makes them destroys the picture. Free blocks and the selections of pixels are trained,
    and free blocks add to codes and pixels only.
    """
    autoencoder.requires_grad_(False)
    decoder = autoencoder.decoder
    levels = decoder.up_blocks
    for block, targets in _free_blocks(decoder):
        for part in (block.conv1, block.norm2, block.conv2):
            part.requires_grad_(True)
        for parameter in block.conv2.parameters():
            keep = torch.zeros_like(parameter)
            keep[targets] = 1
            parameter.register_hook(lambda gradient, keep=keep: gradient * keep)
    for part in (levels[2].resnets[0].conv1, levels[3].resnets[0].conv1, decoder.conv_out):
        part.requires_grad_(True)


@cache
def _anchor(width: int) -> tuple[float, float]:
    """The value of the anchors, and the standard deviation of `width` channels with these anchors.

    Of the values that are exact in bfloat16, it is the one whose deviation float16 rounds least.
    """
    anchors = torch.arange(16384.0, 32768.0, 128.0, dtype=torch.float64)
    deviations = anchors * (2 / width) ** 0.5
    best = ((deviations.half().double() - deviations).abs() / deviations).argmin()
    return anchors[best].item(), deviations[best].half().item()


def _hold_norms(decoder: nn.Module) -> None:
    """Make every normalisation of a map with anchors the identity, except that anchors and balance
    become zero.

    The second normalisation of every free block has no anchors and is left as it is.
    """
    for module in decoder.modules():
        if hasattr(module, "conv_shortcut"):
            blank(module.conv2)
            _hold_norm(module.norm1)
    _hold_norm(decoder.conv_norm_out)
    first, second, third, _ = (level.resnets for level in decoder.up_blocks)
    # The next layers do not use these, and next to numbers this large nothing could be learned.
    for block, places in (
        (first[0], ENTRY),
        (first[1], ENTRY),
        (second[1], QUARTERS),
        (third[0], GATED_QUARTERS),
        (third[1], PIECES),
    ):
        block.norm1.weight[places["one"] + places["ramp"] + places.get("edges", [])] = 0


def _free_blocks(decoder: nn.Module) -> list[tuple[nn.Module, list[int]]]:
    """The free blocks, and the channels to which each may add."""
    first, second, third, fourth = (level.resnets for level in decoder.up_blocks)
    return [
        (first[0], ENTRY["code"]),
        (first[1], ENTRY["code"]),
        (second[1], QUARTERS["pixels"]),
        (third[1], PIECES["pixels"]),
        (fourth[1], PICTURE["plus"] + PICTURE["minus"]),
    ]


def _hold_norm(norm: nn.GroupNorm) -> None:
    nn.init.constant_(norm.weight, _anchor(norm.num_channels)[1])
    nn.init.zeros_(norm.bias)
    norm.weight[[*ANCHORS, BALANCE]] = 0


def _tap(
    conv: nn.Conv2d,
    outputs: list[int],
    inputs: list[int],
    values: Tensor | float,
    at: tuple = (0, 0),
) -> None:
    """Add `values`, a matrix (outputs, inputs) or one number for its diagonal, to the weights for
    the pixel `at` (down, right) of the output's.
    """
    if not isinstance(values, Tensor):
        values = values * torch.eye(len(outputs))
    centre = conv.kernel_size[0] // 2
    rows, columns = (torch.tensor(places, dtype=torch.long) for places in (outputs, inputs))
    conv.weight[rows[:, None], columns, centre + at[0], centre + at[1]] += values


def _set_anchors_and_balance(conv: nn.Conv2d, anchored: bool = True, mean: float = 0.0) -> None:
    """Complete a convolution: set the anchors, and the balance so that all channels have the mean
    `mean`.
    """
    if anchored:
        conv.bias[ANCHORS] = torch.tensor([1.0, -1.0]) * _anchor(conv.out_channels)[0]
    conv.weight[BALANCE] = 0
    conv.weight[BALANCE] = -conv.weight.sum(0)
    conv.bias[BALANCE] = 0
    conv.bias[BALANCE] = mean * len(conv.bias) - conv.bias.sum()


@contextmanager
def _branch(block: nn.Module) -> Iterator[tuple[nn.Conv2d, nn.Conv2d]]:
    """The two convolutions of a residual branch, zero to begin with and completed afterwards."""
    blank(block.conv1)
    _hold_norm(block.norm2)
    blank(block.conv2)
    yield block.conv1, block.conv2
    _set_anchors_and_balance(block.conv1)
    _set_anchors_and_balance(block.conv2, anchored=False)


def _write_entry(autoencoder: nn.Module) -> None:
    conv = autoencoder.decoder.conv_in
    channels = range(len(ENTRY["code"]))
    write_taps(autoencoder.post_quant_conv, torch.eye(len(channels)))
    blank(conv)
    _tap(conv, ENTRY["code"], channels, 1.0)
    conv.bias[ENTRY["one"]] = ONE
    _set_anchors_and_balance(conv)


def _write_ramp(resnets: nn.ModuleList) -> None:
    """Make the ramp of each axis, from -3.5 to 3.5, as a sum of flags for rows and columns of
    cells.

    The flag of the outermost cells is the constant channel minus its neighbour, which is zero
    beyond the border; each further convolution moves a flag one cell inwards. Every block adds two
    of the four flags of each side.
    """
    horizontal, vertical = ENTRY["ramp"]
    sides = (
        (horizontal, -1, (0, -1)),
        (horizontal, 1, (0, 1)),
        (vertical, -1, (-1, 0)),
        (vertical, 1, (1, 0)),
    )
    for distance, block in zip((0, 2), resnets, strict=True):
        with _branch(block) as (conv1, conv2):
            for edge, (ramp, sign, outward) in zip(ENTRY["edges"], sides, strict=True):
                if distance == 0:
                    _tap(conv1, [edge], ENTRY["one"], 1.0)
                    _tap(conv1, [edge], ENTRY["one"], -1.0, outward)
                else:
                    _tap(conv1, [edge], [edge], 1.0, outward)
                value = sign * (SIDE / 2 - 0.5 - distance) / ONE
                _tap(conv2, [ramp], [edge], value)
                _tap(conv2, [ramp], [edge], value - sign / ONE, outward)
                _tap(conv2, [edge], [edge], 1.0, outward)


def _add_parity(
    conv: nn.Conv2d, outputs: list[int], source: Map, axis: int, scale: Tensor | float, side: int
) -> None:
    """Add `scale` times the parity along `axis` (0 along rows); `side` is the size of the map
    before the doubling.

    At the border, where the zero padding cuts off the ramp, the constant channel replaces it.
    """
    scales = torch.as_tensor(scale).expand(len(outputs))[:, None]
    ramp = source["ramp"][axis : axis + 1]
    missing = (side / 2 + 0.5) / ONE
    for sign in (-1, 1):
        at = (0, sign) if axis == 0 else (sign, 0)
        _tap(conv, outputs, ramp, -scales, at)
        _tap(conv, outputs, source["one"], sign * missing * scales, at)
    _tap(conv, outputs, ramp, 2 * scales)


def _write_position(conv: nn.Conv2d, source: Map, target: Map, side: int) -> None:
    """Write the constant, the ramps of the doubled map, the parities of before and two new ones."""
    *same, horizontal, vertical = target["parity"]
    _tap(conv, same, source.get("parity", []), 1.0)
    for axis, parity in enumerate((horizontal, vertical)):
        _add_parity(conv, [parity], source, axis, 1.0, side)
        if "ramp" in target:
            _tap(conv, [target["ramp"][axis]], [source["ramp"][axis]], 2.0)
            _add_parity(conv, [target["ramp"][axis]], source, axis, -0.5, side)
    conv.bias[target.get("one", [])] = ONE


def _write_halves(conv: nn.Conv2d) -> None:
    """Two copies of the code, one positive in left and one in right halves only, for
    `_select_quarters`.
    """
    blank(conv)
    _write_position(conv, ENTRY, HALVES, SIDE)
    conv.weight[HALVES["parity"]] *= ONE
    for name, sign in (("left", 1), ("right", -1)):
        _tap(conv, HALVES[name], ENTRY["code"], 1.0)
        _add_parity(conv, HALVES[name], ENTRY, 0, sign * COARSE_GATE, SIDE)
    _set_anchors_and_balance(conv)


def _functionals(basis: PatchBasis) -> tuple[Tensor, Tensor]:
    """Weights (2, 2, 48, 64) and means (2, 2, 48) of the pixels of every quarter of a patch.

    Pixels are ordered by quarters of the quarter, then by quarters of these, then by colours.
    """
    # Rounded as in a saved file, so that the offsets match.
    weights = (basis.rows * basis.scale[:, None]).T.half().float()
    split = torch.cat([weights, basis.mean[:, None]], 1).reshape(3, *(2,) * 6, -1)
    ordered = split.permute(1, 4, 2, 5, 3, 6, 0, 7).reshape(2, 2, 3 * PATCH**2 // 4, -1)
    return ordered[..., :-1], ordered[..., -1]


def _select_quarters(block: nn.Module, functionals: tuple[Tensor, Tensor]) -> None:
    """From the two copies of the code to the 48 pixels of this quarter: the first activation
    selects left or right, the second top or bottom.
    """
    weights, means = functionals
    size = len(QUARTERS["pixels"])
    hidden = _map(top=size, bottom=size)
    flag_x, flag_y = ([place] for place in HALVES["parity"])
    with _branch(block) as (conv1, conv2):
        for row, (name, sign) in enumerate((("top", 1), ("bottom", -1))):
            shift = means[row] - COARSE_GATE * weights[row].sum(-1)
            _tap(conv1, hidden[name], HALVES["left"], weights[row, 0])
            _tap(conv1, hidden[name], HALVES["right"], weights[row, 1])
            _tap(conv1, hidden[name], flag_x, (shift[0] - shift[1])[:, None] / ONE)
            _tap(conv1, hidden[name], flag_y, torch.full((size, 1), 2 * sign * GATE / ONE))
            conv1.bias[hidden[name]] = shift[1] - sign * GATE
            _tap(conv2, QUARTERS["pixels"], hidden[name], 1.0)
        conv2.bias[QUARTERS["pixels"]] = -GATE
    _write_shortcut(block.conv_shortcut, HALVES, QUARTERS, 1 / ONE)


def _write_shortcut(conv: nn.Conv2d, source: Map, target: Map, parity: float = 1.0) -> None:
    """Pass on the channels of position only; parities are multiplied by `parity`."""
    blank(conv)
    for name, scale in (("one", 1.0), ("ramp", 1.0), ("parity", parity)):
        if name in target:
            _tap(conv, target[name], source[name], scale)
    _set_anchors_and_balance(conv)


def _write_gates(conv: nn.Conv2d, norm: nn.GroupNorm, source: Map, target: Map, side: int) -> None:
    """The pixels and their negatives, far below zero except for those that belong to this quarter.

    Their mean is far below zero too. A balance of that size would be as large as the anchors, so
    the mean is left as it is, and the bias of `norm` adds what the normalisation subtracts.
    """
    blank(conv)
    _write_position(conv, source, target, side)
    share = len(source["pixels"]) // 4
    rows = torch.tensor([1.0, 1, -1, -1]).repeat_interleave(share)
    columns = torch.tensor([1.0, -1, 1, -1]).repeat_interleave(share)
    for name, sign in (("plus", 1.0), ("minus", -1.0)):
        _tap(conv, target[name], source["pixels"], sign)
        _add_parity(conv, target[name], source, 0, FINE_GATE * columns, side)
        _add_parity(conv, target[name], source, 1, FINE_GATE * rows, side)
        conv.bias[target[name]] = -2 * FINE_GATE
    mean = (conv.bias.sum() / len(conv.bias)).round().item()
    _set_anchors_and_balance(conv, mean=mean)
    norm.bias[BALANCE + 1 :] = mean


def _select(block: nn.Module, gated: Map, target: Map) -> None:
    """Sum the four quarters, of which the first activation passes one; silu(z) - silu(-z) = z
    undoes both activations.
    """
    share = len(gated["plus"]) // 4
    hidden = _map(plus=share, minus=share)
    every = torch.eye(share).repeat(1, 4)
    with _branch(block) as (conv1, conv2):
        for name, sign in (("plus", 1.0), ("minus", -1.0)):
            _tap(conv1, hidden[name], gated["plus"], sign * every)
            _tap(conv1, hidden[name], gated["minus"], -sign * every)
            for output, way in (("pixels", 1.0), ("plus", 1.0), ("minus", -1.0)):
                if output in target:
                    _tap(conv2, target[output], hidden[name], sign * way)
    _write_shortcut(block.conv_shortcut, gated, target)
