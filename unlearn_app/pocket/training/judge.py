"""Training of both judges on rendered pictures, with errors like those of generated ones, and on
pictures without an object.
"""

import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F

from ...common.images import to_tensor
from ...evaluation.judges.pocket_judge import CONFIG_FILE, SIDE, WEIGHTS_FILE, JudgeNet, split_words
from ...evaluation.judges.second_judge import PatchNet
from ..world import grammar
from ..world.rendering import Scene, render
from ..world.vocabulary import NAMES
from .checkpoints import draws_of
from .latents import PatchBasis

HEAD_WEIGHTS = {"object": 1.0, "style": 0.7, "setting": 0.4}
UNKNOWN_WORD = "unheardof"
OUTLIER_EVERY = 8
"""A batch has one outlier for this many of its pictures."""
MAX_SHIFT = 3
WARM_UP = 100
MAX_NORM = 5.0

Parts = tuple[str | None, str | None, str | None]
"""Object, style and setting, as far as they are said or can be told."""


def judge_words() -> list[str]:
    """Every word that captions can hold, sorted."""
    words = {word for text in grammar.caption_parts() for word in split_words(text)}
    return sorted(words | {"an"})


NETS = {"judge": lambda: JudgeNet(judge_words(), NAMES), "second": lambda: PatchNet(NAMES)}
"""The untrained networks by the name of their part."""


def disturb(pictures: Tensor, basis: PatchBasis, generator: torch.Generator) -> Tensor:
    """Pictures (B, 3, H, W), shifted or coded with noise, blurred, and with noise and another
    contrast, (B, 3, SIDE, SIDE).
    """
    count = len(pictures)
    side = pictures.shape[-1]
    padded = F.pad(pictures, (MAX_SHIFT,) * 4, mode="replicate")
    offsets = torch.randint(2 * MAX_SHIFT + 1, (count, 2), generator=generator).tolist()
    shifted = torch.stack(
        [padded[i, :, dy : dy + side, dx : dx + side] for i, (dy, dx) in enumerate(offsets)]
    )
    coded = torch.rand(count, generator=generator) < 0.5
    code = basis.encode(pictures[coded])
    strength = 0.3 * torch.rand(len(code), 1, 1, 1, generator=generator)
    shifted[coded] = basis.decode(code + strength * torch.randn(code.shape, generator=generator))
    small = F.interpolate(shifted, (SIDE, SIDE), mode="area")
    amount = torch.rand(count, 1, 1, 1, generator=generator).square()
    blurred = torch.lerp(small, F.avg_pool2d(small, 3, 1, 1, count_include_pad=False), amount)
    level = 0.1 * torch.rand(count, 1, 1, 1, generator=generator)
    contrast = 1 + 0.2 * (torch.rand(count, 1, 1, 1, generator=generator) - 0.5)
    noise = torch.randn(blurred.shape, generator=generator)
    return (blurred * contrast + level * noise).clamp(-1, 1)


def outliers(
    pictures: Tensor, scenes: Sequence[Scene], basis: PatchBasis, generator: torch.Generator
) -> tuple[Tensor, list[Parts]]:
    """Pictures (N, 3, H, W) without an object, one for each of `pictures` of the `scenes`, and the
    parts that can still be told.

    In turn: the scene without its object, its picture with the cells in random order, and noise in
    place of its code. A judge that has only learned from pictures that hold an object is sure of
    one in every picture; these teach it not to be (outlier exposure, 1812.04606).
    """
    made = []
    shown: list[Parts] = []
    for row, (picture, scene) in enumerate(zip(pictures, scenes, strict=True)):
        if row % 3 == 0:
            picture = to_tensor([render(scene, with_object=False)])[0]
        elif row % 3 == 1:
            code = basis.encode(picture[None])
            order = torch.randperm(code[0, 0].numel(), generator=generator)
            picture = basis.decode(code.flatten(2)[:, :, order].view_as(code))[0]
        else:
            code = basis.encode(picture[None])
            picture = basis.decode(torch.randn(code.shape, generator=generator))[0]
        made.append(picture)
        shown.append((None, None, None) if row % 3 == 2 else (None, scene.style, scene.setting))
    return torch.stack(made), shown


def soft_targets(names: Sequence[str], shown: Sequence[str | None]) -> Tensor:
    """Probabilities (B, len(names)): 1 for the name that is shown; all alike where none is."""
    table = torch.full((len(shown), len(names)), 1 / len(names))
    for row, name in enumerate(shown):
        if name is not None:
            table[row] = 0
            table[row, names.index(name)] = 1
    return table


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Warm-up, and a linear fall from `peak` over the whole training."""
    return peak * min(1.0, (step + 1) / WARM_UP) * max(0.01, 1 - step / steps)


def batch_loss(
    net: JudgeNet | PatchNet,
    basis: PatchBasis,
    shards: Sequence[np.ndarray],
    scenes: Sequence[Scene],
    *,
    batch_size: int,
    seed: int,
    autocast: bool,
    step: int,
) -> Tensor:
    """The loss on the batch of `step`; `scenes` are those of the pictures in `shards`, in order.

    It is the cross-entropy of the heads, on outliers too, and for a judge with a word tower also a
    contrastive loss, in which every caption that is true of a picture is a positive one. The draws
    depend on `seed` and `step` alone.
    """
    rng, generator = draws_of(seed, step)
    starts = np.cumsum([0, *map(len, shards)])
    rows = torch.randint(int(starts[-1]), (batch_size,), generator=generator).sort().values.numpy()
    places = np.searchsorted(starts, rows, side="right") - 1
    raw = [shards[place][row - starts[place]] for place, row in zip(places, rows, strict=True)]
    device = next(net.parameters()).device
    pictures = to_tensor(raw)
    shown = [scenes[row] for row in rows]
    chosen = torch.randperm(batch_size, generator=generator)[: batch_size // OUTLIER_EVERY]
    added, added_parts = outliers(
        pictures[chosen], [shown[row] for row in chosen], basis, generator
    )
    disturbed = disturb(torch.cat([pictures, added]), basis, generator).to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
        features = net.features(disturbed).float()
    loss = features.new_zeros(())
    if isinstance(net, JudgeNet):
        loss = _contrastive_loss(net, features[:batch_size], shown, rng)
    labels = [*((scene.object, scene.style, scene.setting) for scene in shown), *added_parts]
    for (axis, names), seen in zip(NAMES.items(), zip(*labels, strict=True), strict=True):
        logits = net.heads[axis](features)
        target = soft_targets(names, seen).to(device)
        loss = loss + HEAD_WEIGHTS[axis] * F.cross_entropy(logits, target)
    return loss


def _contrastive_loss(
    net: JudgeNet, features: Tensor, scenes: Sequence[Scene], rng: random.Random
) -> Tensor:
    parts = [_drawn_parts(scene, rng) for scene in scenes]
    texts = net.embed_texts(net.tokenize([_caption(p, rng) for p in parts]).to(features.device))
    logits = net.log_scale.clamp(max=3.5).exp() * net.embed_images(features) @ texts.T
    positive = compatible(scenes, parts).to(features.device)
    loss = -0.5 * (positive * logits.log_softmax(1)).sum(1).div(positive.sum(1)).mean()
    return loss - 0.5 * (positive * logits.log_softmax(0)).sum(0).div(positive.sum(0)).mean()


def _drawn_parts(scene: Scene, rng: random.Random) -> Parts:
    """The parts of `scene` that a caption names: mostly all; the plain style often goes unnamed."""
    draw = rng.random()
    if draw < 0.05:
        return None, scene.style, scene.setting
    style = None if scene.style == grammar.PLAIN_STYLE and rng.random() < 0.5 else scene.style
    return scene.object, style, None if 0.05 < draw < 0.15 and style is not None else scene.setting


def _caption(parts: Parts, rng: random.Random) -> str:
    """A sentence for `parts`; a missing object is sometimes replaced by an unknown word."""
    text = grammar.caption(*parts, rng)
    if parts[0] is None and rng.random() < 0.5:
        return f"{rng.choice(('a', 'an'))} {UNKNOWN_WORD}, {text}"
    return text


def compatible(scenes: Sequence[Scene], parts: Sequence[Parts]) -> Tensor:
    """A matrix (B, B) with ones where the caption of a column is true of the scene of a row."""
    said = [(name, style or grammar.PLAIN_STYLE, setting) for name, style, setting in parts]
    table = torch.ones(len(scenes), len(parts))
    for place, axis in enumerate(NAMES):
        shown = np.array([getattr(scene, axis) for scene in scenes])[:, None]
        named = np.array([column[place] or "" for column in said])
        table *= torch.from_numpy((named == "") | (shown == named))
    return table


def save_judge(net: JudgeNet | PatchNet, folder: Path) -> None:
    """Write weights (half precision) and configuration for `load` of the judge's class."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: (value.half() if value.is_floating_point() else value).contiguous().cpu()
        for name, value in net.state_dict().items()
    }
    (folder / WEIGHTS_FILE).write_bytes(save(weights))
    config = ({"words": judge_words()} if isinstance(net, JudgeNet) else {}) | {"axes": NAMES}
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
