"""How good the bundled models are: judges, reconstruction, and generated pictures compared with
renderings.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..evaluation.judges import Classifier, Scorer
from ..models.protocols import Model
from .world.dataset import compositions, rendered
from .world.grammar import PLAIN_STYLE, caption
from .world.rendering import PLACEMENTS, Placement, Scene
from .world.vocabulary import NAMES, OBJECTS, SETTINGS, STYLES, Entry

AXES = tuple(NAMES)
CHUNK = 64
FIRST_SEED = 3_000_000
UNSURE = 0.6
"""A picture whose right object has less probability than this counts as unsure."""


def judge_scores(judge: Scorer, pictures: Tensor, shown: Sequence[Scene]) -> dict[str, float]:
    """What the judge says of `pictures` (B, 3, H, W) of the scenes `shown`, as JSON values.

    The share that it classifies right on each axis, their mean alignment with their captions, the
    mean probability of the right object, and the share of pictures where that is below `UNSURE`.
    """
    answers = {axis: right_probabilities(judge, pictures, shown, axis) for axis in AXES}
    prompts = [prompt_of(scene) for scene in shown]
    aligned = (judge(pictures[rows], prompts[rows]).sum().item() for rows in _batches(len(shown)))
    sure, _ = answers["object"]
    return {
        "pictures": len(shown),
        **{axis: right.float().mean().item() for axis, (_, right) in answers.items()},
        "alignment": sum(aligned) / len(shown),
        "sure": sure.mean().item(),
        "unsure": (sure < UNSURE).float().mean().item(),
    }


def right_probabilities(
    judge: Classifier, pictures: Tensor, shown: Sequence[Scene], axis: str
) -> tuple[Tensor, Tensor]:
    """The judge's probability (B,) of what each picture should show on `axis`, and whether it is
    the highest (B,).
    """
    classes = judge.classes(axis)
    wanted = torch.tensor([classes.index(getattr(scene, axis)) for scene in shown])
    table = torch.cat([judge.classify(batch, axis) for batch in pictures.split(CHUNK)])
    return table.gather(1, wanted[:, None])[:, 0], table.argmax(1) == wanted


def _batches(count: int) -> list[slice]:
    return [slice(start, start + CHUNK) for start in range(0, count, CHUNK)]


def psnr(pictures: Tensor, others: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB (B,) between pictures (B, 3, H, W) in [-1, 1]; outliers are
    clamped first.
    """
    error = pictures.clamp(-1, 1) - others.clamp(-1, 1)
    return 10 * torch.log10(4 / error.square().mean((-3, -2, -1)).clamp_min(1e-10))


def gradient_magnitude(pictures: Tensor) -> Tensor:
    """Mean absolute difference (B,) of neighbouring pixels of pictures (B, 3, H, W), a measure of
    sharpness.
    """
    clamped = pictures.clamp(-1, 1)
    down = clamped.diff(dim=-2).abs().mean((-3, -2, -1))
    right = clamped.diff(dim=-1).abs().mean((-3, -2, -1))
    return down + right


@lru_cache(maxsize=1)
def all_renderings(scene: Scene) -> Tensor:
    """`scene` in every placement, (len(PLACEMENTS), 3, H, W) in [-1, 1]."""
    return rendered([replace(scene, placement=placement) for placement in PLACEMENTS])


@dataclass(frozen=True)
class Likeness:
    """A generated picture against the renderings of its prompt in every placement.

    `placement` is that of the closest rendering, `psnr` the ratio to it in dB; `gradient` is the
    picture's mean gradient magnitude and `rendered_gradient` the mean one of the renderings.
    """

    placement: Placement
    psnr: float
    gradient: float
    rendered_gradient: float


def likeness(picture: Tensor, scene: Scene) -> Likeness:
    """How `picture` (3, H, W) compares with the renderings of `scene` in every placement."""
    drawn = all_renderings(scene)
    ratios = psnr(picture[None], drawn)
    best = int(ratios.argmax())
    return Likeness(
        placement=PLACEMENTS[best],
        psnr=ratios[best].item(),
        gradient=gradient_magnitude(picture[None]).item(),
        rendered_gradient=gradient_magnitude(drawn).mean().item(),
    )


def sharpness(found: Sequence[Likeness]) -> float:
    """Mean gradient magnitude over that of the renderings; below 1 is blur, above it is speckle."""
    return sum(one.gradient for one in found) / sum(one.rendered_gradient for one in found)


def diversity(found: Sequence[Likeness]) -> dict[str, float]:
    """For mirroring and each offset, how often its rarest value appears, over its share in the
    world.

    1 is as often as in the world, 0 means that a value never appears.
    """
    result = {}
    for item in fields(Placement):
        counts = Counter(getattr(one.placement, item.name) for one in found)
        values = {getattr(placement, item.name) for placement in PLACEMENTS}
        result[item.name] = min(counts[value] for value in values) * len(values) / len(found)
    return result


def sample_scenes(per_pair: int) -> list[Scene]:
    """Every object in every style, `per_pair` times; the settings take turns."""
    return [
        Scene(o.name, s.name, SETTINGS[(i + j + 3 * k) % len(SETTINGS)].name)
        for k in range(per_pair)
        for i, o in enumerate(OBJECTS)
        for j, s in enumerate(STYLES)
    ]


def held_out_scenes(count: int) -> list[Scene]:
    """`count` compositions that training never shows, evenly spaced; all of them if there are
    fewer.
    """
    held = compositions("held_out")
    rows = np.linspace(0, len(held) - 1, min(count, len(held))).astype(int)
    return [Scene(*held[row]) for row in rows]


def prompt_of(scene: Scene) -> str:
    """The canonical caption; the plain style goes unnamed."""
    return caption(scene.object, None if scene.style == PLAIN_STYLE else scene.style, scene.setting)


def generate_scenes(
    model: Model,
    wanted: Sequence[Scene],
    *,
    steps: int,
    guidance_scale: float,
    first_seed: int = FIRST_SEED,
) -> Tensor:
    """Pictures (B, 3, H, W) of `wanted` by the original model; row i has seed `first_seed` + i."""
    prompts = [prompt_of(scene) for scene in wanted]
    seeds = range(first_seed, first_seed + len(wanted))
    with model.active():
        pieces = [
            model.decode(
                model.sample(prompts[rows], seeds[rows], steps=steps, guidance_scale=guidance_scale)
            )
            for rows in _batches(len(wanted))
        ]
    return torch.cat(pieces)


def generation_scores(
    judge: Scorer, second: Classifier, pictures: Tensor, wanted: Sequence[Scene]
) -> dict[str, Any]:
    """Every score of generated `pictures` (B, 3, H, W) of the scenes `wanted`, as JSON values."""
    found = [likeness(picture, scene) for picture, scene in zip(pictures, wanted, strict=True)]
    ratios = torch.tensor([one.psnr for one in found])
    scores = {
        "judge": judge_scores(judge, pictures, wanted),
        "second": {
            axis: right_probabilities(second, pictures, wanted, axis)[1].float().mean().item()
            for axis in ("object", "style")
        },
        "psnr": {"median": ratios.median().item(), "worst_tenth": ratios.quantile(0.1).item()},
        "sharpness": sharpness(found),
        "sharpness_by_style": {
            name: sharpness([found[row] for row in rows])
            for name, rows in _rows_by(wanted, "style", STYLES).items()
        },
    }
    for axis, entries in (("object", OBJECTS), ("style", STYLES)):
        _, right = right_probabilities(judge, pictures, wanted, axis)
        scores[f"right_by_{axis}"] = {
            name: right[rows].float().mean().item()
            for name, rows in _rows_by(wanted, axis, entries).items()
        }
    return scores


def _rows_by(scenes: Sequence[Scene], axis: str, entries: Sequence[Entry]) -> dict[str, list[int]]:
    """The indices of the scenes with each of `entries`, without those that no scene has."""
    rows = {
        entry.name: [row for row, scene in enumerate(scenes) if getattr(scene, axis) == entry.name]
        for entry in entries
    }
    return {name: found for name, found in rows.items() if found}


def on_reconstruction(model: Model, shown: Sequence[Scene]) -> dict[str, float]:
    """PSNR in dB of renderings of `shown`, encoded and decoded: mean, standard deviation, worst."""
    ratios = torch.cat(
        [
            psnr(model.decode(model.encode_pictures(batch)), batch)
            for batch in rendered(shown).split(CHUNK)
        ]
    )
    values = {"mean": ratios.mean(), "sd": ratios.std(), "worst": ratios.min()}
    return {"pictures": len(shown), **{name: value.item() for name, value in values.items()}}


def on_one_prompt(model: Model, count: int, **sampling: Any) -> dict[str, float]:
    """`diversity` of `count` pictures of one prompt; `sampling` is what `generate_scenes` takes."""
    wanted = [Scene("cat", PLAIN_STYLE, "field")] * count
    pictures = generate_scenes(model, wanted, **sampling)
    return diversity([likeness(*pair) for pair in zip(pictures, wanted, strict=True)])
