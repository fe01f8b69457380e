"""How good the bundled models are: judge on renderings, reconstruction, judge on generated pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..evaluation.judges import Scorer
from ..models.protocols import Backend
from .dataset import is_held_out
from .grammar import PLAIN_STYLE, caption
from .vocabulary import OBJECTS, SETTINGS, STYLES
from .world import Scene

AXES = ("object", "style", "setting")
CHUNK = 64
FIRST_SEED = 3_000_000


@dataclass(frozen=True)
class JudgeScore:
    """Share of pictures whose class the judge names right, per axis, and mean alignment with their captions."""

    pictures: int
    object: float
    style: float
    setting: float
    alignment: float


def judge_pictures(judge: Scorer, pictures: Tensor, shown: Sequence[Scene]) -> JudgeScore:
    """The judge's answers on `pictures` (B, 3, H, W) of the scenes `shown`."""
    right = dict.fromkeys(AXES, 0)
    alignment = 0.0
    for start in range(0, len(shown), CHUNK):
        batch, wanted = pictures[start : start + CHUNK], shown[start : start + CHUNK]
        alignment += judge(batch, [prompt_of(scene) for scene in wanted]).sum().item()
        for axis in AXES:
            classes = judge.classes(axis)
            answers = judge.classify(batch, axis).argmax(1).tolist()
            right[axis] += sum(classes[a] == getattr(s, axis) for a, s in zip(answers, wanted, strict=True))
    count = len(shown)
    return JudgeScore(count, *(right[axis] / count for axis in AXES), alignment / count)


def reconstruction_psnr(backend: Backend, pictures: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each picture (B, 3, H, W), encoded and decoded."""
    pieces = []
    for batch in pictures.split(CHUNK):
        error = backend.decode(backend.encode_pictures(batch)) - batch
        pieces.append(10 * torch.log10(4 / error.square().mean((1, 2, 3))))
    return torch.cat(pieces)


def sample_scenes(per_pair: int, first_seed: int = FIRST_SEED) -> list[Scene]:
    """Every object in every style, `per_pair` times, settings going round; the seed of row i is that of its picture."""
    return [
        Scene(o.name, s.name, SETTINGS[(i + j + 3 * k) % len(SETTINGS)].name, first_seed + 10_000 * k + 100 * i + j)
        for k in range(per_pair)
        for i, o in enumerate(OBJECTS)
        for j, s in enumerate(STYLES)
    ]


def prompt_of(scene: Scene) -> str:
    """The canonical caption; the plain style goes unnamed."""
    return caption(scene.object, None if scene.style == PLAIN_STYLE else scene.style, scene.setting)


def paint_scenes(backend: Backend, wanted: Sequence[Scene], steps: int, guidance_scale: float) -> Tensor:
    """Pictures (B, 3, H, W) of `wanted` by the model."""
    latents = backend.sample(
        [prompt_of(scene) for scene in wanted],
        [scene.seed for scene in wanted],
        steps=steps,
        guidance_scale=guidance_scale,
    )
    return backend.decode(latents)


def held_out_rows(wanted: Sequence[Scene]) -> list[int]:
    """Rows whose composition of object, style and setting training never showed."""
    return [row for row, s in enumerate(wanted) if is_held_out(s.object, s.style, s.setting)]
