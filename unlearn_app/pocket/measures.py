"""How good the bundled models are: judges, reconstruction, and generated pictures compared with
renderings.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..common.images import to_tensor
from ..evaluation.judges import Classifier, Scorer
from ..models.protocols import Model
from .world.dataset import is_held_out, rendered
from .world.grammar import PLAIN_STYLE, caption
from .world.rendering import PLACEMENTS, Placement, Scene, apply_style, compose
from .world.vocabulary import OBJECTS, SETTINGS, STYLES, Entry

AXES = ("object", "style", "setting")
CHUNK = 64
FIRST_SEED = 3_000_000
UNSURE = 0.6
"""A picture whose right object has less probability than this counts as unsure."""


@dataclass(frozen=True)
class JudgeScore:
    """What a judge says of pictures: the share that it classifies right on each axis, and their
    mean alignment with their captions.

    `sure` is the mean probability of the right object, `unsure` the share of pictures where it is
    below `UNSURE`.
    """

    pictures: int
    object: float
    style: float
    setting: float
    alignment: float
    sure: float
    unsure: float


Answers = Mapping[str, tuple[Tensor, Tensor]]
"""By axis, the probability (B,) of what each picture should show, and whether it is the highest
(B,).
"""


def judge_pictures(judge: Scorer, pictures: Tensor, shown: Sequence[Scene]) -> JudgeScore:
    """The judge's answers on `pictures` (B, 3, H, W) of the scenes `shown`."""
    return _judge_score(judge, pictures, shown, _answers(judge, pictures, shown))


def _answers(judge: Classifier, pictures: Tensor, shown: Sequence[Scene]) -> Answers:
    return {axis: right_probabilities(judge, pictures, shown, axis) for axis in AXES}


def _judge_score(
    judge: Scorer, pictures: Tensor, shown: Sequence[Scene], answers: Answers
) -> JudgeScore:
    batches = zip(
        pictures.split(CHUNK), _chunks([prompt_of(scene) for scene in shown]), strict=True
    )
    alignment = sum(judge(batch, prompts).sum().item() for batch, prompts in batches) / len(shown)
    named = [answers[axis][1].float().mean().item() for axis in AXES]
    sure = answers["object"][0]
    unsure = (sure < UNSURE).float()
    return JudgeScore(len(shown), *named, alignment, sure.mean().item(), unsure.mean().item())


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


def _chunks(items: Sequence[Any]) -> list[Sequence[Any]]:
    return [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]


def psnr(pictures: Tensor, others: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB (B,) between pictures (B, 3, H, W) in [-1, 1]; outliers are
    clamped first.
    """
    error = pictures.clamp(-1, 1) - others.clamp(-1, 1)
    return 10 * torch.log10(4 / error.square().mean((-3, -2, -1)).clamp_min(1e-10))


def reconstruction_psnr(model: Model, pictures: Tensor) -> Tensor:
    """PSNR in dB of each picture (B, 3, H, W), encoded and decoded."""
    return torch.cat(
        [psnr(model.decode(model.encode_pictures(batch)), batch) for batch in pictures.split(CHUNK)]
    )


def gradient_magnitude(pictures: Tensor) -> Tensor:
    """Mean absolute difference (B,) of neighbouring pixels of pictures (B, 3, H, W), a measure of
    sharpness.
    """
    clamped = pictures.clamp(-1, 1)
    down = clamped.diff(dim=-2).abs().mean((-3, -2, -1))
    right = clamped.diff(dim=-1).abs().mean((-3, -2, -1))
    return down + right


@cache
def _composed(object_name: str, setting: str) -> list[tuple[np.ndarray, np.ndarray]]:
    return [compose(object_name, setting, placement) for placement in PLACEMENTS]


def all_renderings(scene: Scene) -> Tensor:
    """`scene` in every placement, (len(PLACEMENTS), 3, H, W) in [-1, 1]."""
    drawn = [
        apply_style(scene.style, rgb, mask) for rgb, mask in _composed(scene.object, scene.setting)
    ]
    return to_tensor(np.stack(drawn))


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


def diversity(found: Sequence[Likeness]) -> Mapping[str, float]:
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
    known = [Scene(o.name, s.name, p.name) for o in OBJECTS for s in STYLES for p in SETTINGS]
    held = [scene for scene in known if is_held_out(scene.object, scene.style, scene.setting)]
    return [held[row] for row in np.linspace(0, len(held) - 1, min(count, len(held))).astype(int)]


def prompt_of(scene: Scene) -> str:
    """The canonical caption; the plain style goes unnamed."""
    return caption(scene.object, None if scene.style == PLAIN_STYLE else scene.style, scene.setting)


def generate_scenes(
    model: Model,
    wanted: Sequence[Scene],
    steps: int,
    guidance_scale: float,
    first_seed: int = FIRST_SEED,
) -> Tensor:
    """Pictures (B, 3, H, W) of `wanted` by the model; row i has seed `first_seed` + i."""
    pieces = []
    for start in range(0, len(wanted), CHUNK):
        batch = wanted[start : start + CHUNK]
        latents = model.sample(
            [prompt_of(scene) for scene in batch],
            [first_seed + start + row for row in range(len(batch))],
            steps=steps,
            guidance_scale=guidance_scale,
        )
        pieces.append(model.decode(latents))
    return torch.cat(pieces)


def generation_scores(
    judge: Scorer, second: Classifier, pictures: Tensor, wanted: Sequence[Scene]
) -> dict[str, Any]:
    """Every score of generated `pictures` (B, 3, H, W) of the scenes `wanted`, as JSON values."""
    found = [likeness(picture, scene) for picture, scene in zip(pictures, wanted, strict=True)]
    ratios = torch.tensor([one.psnr for one in found])
    answers = _answers(judge, pictures, wanted)
    second_right = {
        axis: right_probabilities(second, pictures, wanted, axis)[1].float().mean().item()
        for axis in ("object", "style")
    }
    objects = _rows_by(wanted, "object", OBJECTS)
    styles = _rows_by(wanted, "style", STYLES)
    return {
        "judge": asdict(_judge_score(judge, pictures, wanted, answers)),
        "second": second_right,
        "psnr": {"median": ratios.median().item(), "worst_tenth": ratios.quantile(0.1).item()},
        "sharpness": sharpness(found),
        "sharpness_by_style": {
            name: sharpness([found[row] for row in rows]) for name, rows in styles.items()
        },
        "right_by_object": _shares(answers["object"][1], objects),
        "right_by_style": _shares(answers["style"][1], styles),
    }


def _rows_by(scenes: Sequence[Scene], axis: str, entries: Sequence[Entry]) -> dict[str, list[int]]:
    """The indices of the scenes with each of `entries`, without those that no scene has."""
    rows = {
        entry.name: [row for row, scene in enumerate(scenes) if getattr(scene, axis) == entry.name]
        for entry in entries
    }
    return {name: found for name, found in rows.items() if found}


def _shares(right: Tensor, rows: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """The share of `right` (B,) in each group of rows."""
    return {name: right[group].float().mean().item() for name, group in rows.items()}


@dataclass(frozen=True)
class SceneSampler:
    """How pictures are sampled for a measure; picture i has seed `first_seed` + i."""

    steps: int
    guidance_scale: float
    first_seed: int = FIRST_SEED

    def __call__(self, model: Model, wanted: Sequence[Scene]) -> Tensor:
        """Pictures (B, 3, H, W) of `wanted` by the original model."""
        with model.active():
            return generate_scenes(model, wanted, self.steps, self.guidance_scale, self.first_seed)


def on_renderings(judge: Scorer, shown: Sequence[Scene]) -> dict[str, Any]:
    """The judge's answers on renderings of the scenes `shown`, ready for JSON."""
    return asdict(judge_pictures(judge, rendered(shown), shown))


def on_reconstruction(model: Model, shown: Sequence[Scene]) -> dict[str, float]:
    """PSNR in dB of renderings of `shown`, encoded and decoded: mean, standard deviation, worst."""
    ratios = reconstruction_psnr(model, rendered(shown))
    values = {"mean": ratios.mean(), "sd": ratios.std(), "worst": ratios.min()}
    return {"pictures": len(shown), **{name: value.item() for name, value in values.items()}}


def on_one_prompt(model: Model, sampler: SceneSampler, count: int) -> dict[str, float]:
    """`diversity` of `count` pictures of one prompt."""
    wanted = [Scene("cat", PLAIN_STYLE, "field")] * count
    pictures = sampler(model, wanted)
    return dict(diversity([likeness(*pair) for pair in zip(pictures, wanted, strict=True)]))
