"""How far the judges can be trusted: accuracy, calibration and confusion, and what they make of
what is no picture.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..common.seeds import generator
from ..concepts.catalog import preview_concept
from ..evaluation.judges import Classifier
from ..evaluation.judges.loading import load_scorer
from ..models.catalog import load_backend
from ..models.protocols import Backend
from ..pocket.measures import AXES, generate_scenes, sample_scenes
from ..pocket.world import grammar
from ..pocket.world.dataset import rendered, scenes, unjudged_scenes
from ..pocket.world.rendering import Scene
from ..pocket.world.vocabulary import SETTINGS, STYLES
from ..settings.groups import CompareConfig
from ..settings.run_config import make_config
from .cells import cell, own_share
from .judge_tables import BINS, STRANGE, write_results
from .known_outcome_models import KNOWN_OUTCOME_MODELS

SEED = 78
"""Of renderings; like `PAINTED` never used in training, nor to choose anything."""
PAINTED = 5_000_000
STEPS, GUIDANCE_SCALE = CompareConfig.sampling_steps, CompareConfig.guidance_scale
TILE = 8
CHUNK = 96
MOST_CONFUSED = 12


def run_bench(out: Path, seeds: int = 3, smoke: bool = False, full: bool = False) -> Iterator[str]:
    """Measure or resume the cells under `out/judge`, write the report beside them, and yield lines
    to print.

    `seeds` is how many pictures of every object in every style the original paints; `full` doubles
    them.
    """
    folder, size = out / ("judge-smoke" if smoke else "judge"), 28 if smoke else 1400
    per_pair = 1 if smoke else seeds * (2 if full else 1)
    backend, judge = load_backend(), load_scorer("pocket", [])
    judges = (judge, *judge.others)

    def on_renderings(shown: Sequence[Scene]) -> dict[str, Any]:
        return on_known(judges, rendered(shown), shown)

    shared = {"base": backend.base_hash, "judges": [f"{one.name} {one.version}" for one in judges]}
    measures = {
        "renderings": (
            {"pictures": size, "seed": SEED},
            lambda: on_renderings(scenes("held_out", size, SEED)),
        ),
        "never-seen": ({"pictures": size // 4}, lambda: on_renderings(unjudged_scenes(size // 4))),
        "generated": (
            {
                "per_pair": per_pair,
                "steps": STEPS,
                "guidance_scale": GUIDANCE_SCALE,
                "smoke": smoke,
            },
            lambda: on_known(judges, *_painted(backend, per_pair, smoke)),
        ),
        "strange": (
            {"pictures": size // 7, "seed": SEED, "steps": STEPS},
            lambda: on_strange(judges, backend, size // 7),
        ),
    }
    for name in own_share(list(measures), lambda name: name):
        asked, measure = measures[name]
        cell(folder, name, shared | asked, measure)
        yield f"judges on {name.replace('-', ' ')} pictures"
    yield write_results(folder)


def _painted(backend: Backend, per_pair: int, smoke: bool) -> tuple[Tensor, list[Scene]]:
    wanted = sample_scenes(per_pair)[:: 16 if smoke else 1]
    with backend.active():
        return generate_scenes(backend, wanted, STEPS, GUIDANCE_SCALE, PAINTED), wanted


def on_known(
    judges: Sequence[Classifier], pictures: Tensor, shown: Sequence[Scene]
) -> dict[str, Any]:
    """Answers of every judge on pictures (N, 3, H, W) of the scenes `shown`, by axis, and where
    they agree.
    """
    values: dict[str, Any] = {
        "n": len(shown),
        "judges": {one.name: {} for one in judges},
        "alike": {},
    }
    for axis in AXES:
        answers = []
        for one in judges:
            best, sure = answered(one, pictures, axis)
            answers.append(best)
            values["judges"][one.name][axis] = _summed(
                best, sure, [getattr(scene, axis) for scene in shown]
            )
        values["alike"][axis] = sum(a == b for a, b in zip(*answers, strict=True))
    return values


def answered(judge: Classifier, pictures: Tensor, axis: str) -> tuple[list[str], Tensor]:
    """The likeliest class of each picture, and its probability (N,)."""
    found = torch.cat([judge.classify(part, axis) for part in pictures.split(CHUNK)]).max(1)
    classes = judge.classes(axis)
    return [classes[row] for row in found.indices.tolist()], found.values


def _summed(best: Sequence[str], sure: Tensor, truth: Sequence[str]) -> dict[str, Any]:
    """Right answers, the most frequent confusions, and pictures and right ones by bin of
    probability.
    """
    right = torch.tensor([a == b for a, b in zip(best, truth, strict=True)])
    mistakes: dict[tuple[str, str], int] = {}
    for answer, wanted in zip(best, truth, strict=True):
        if answer != wanted:
            mistakes[wanted, answer] = mistakes.get((wanted, answer), 0) + 1
    worst = sorted(mistakes.items(), key=lambda item: (-item[1], item[0]))[:MOST_CONFUSED]
    return {
        "right": int(right.sum()),
        "confused": [[wanted, answer, count] for (wanted, answer), count in worst],
        "bins": histogram(sure),
        "right_bins": histogram(sure[right]),
        "sum": round(float(sure.sum()), 4),
    }


def histogram(probabilities: Tensor) -> list[int]:
    """How many of `probabilities` (N,) lie in each of `BINS` equal parts of [0, 1]."""
    places = (probabilities * BINS).long().clamp(0, BINS - 1)
    return torch.bincount(places, minlength=BINS).tolist()


def on_strange(judges: Sequence[Classifier], backend: Backend, count: int) -> dict[str, Any]:
    """How sure every judge is of an object in pictures that hold none, or none that can be told."""
    source, pictures = generator(SEED), rendered(scenes("held_out", 2 * count, SEED))
    kinds = {
        "noise": torch.randn(pictures[:count].shape, generator=source).clamp(-1, 1),
        "one colour": (2 * torch.rand(count, 3, 1, 1, generator=source) - 1).expand_as(
            pictures[:count]
        ),
        "tiles shuffled": torch.stack([_shuffled(picture, source) for picture in pictures[:count]]),
        "two pictures in one": (pictures[:count] + pictures[count:]) / 2,
        "no object asked for": _empty_places(backend, count),
        "a destroyed model": _wrecked(backend, count),
    }
    assert tuple(kinds) == STRANGE
    found = {
        kind: {one.name: histogram(answered(one, kinds[kind], "object")[1]) for one in judges}
        for kind in kinds
    }
    return {"n": count, "bins": found}


def _shuffled(picture: Tensor, source: torch.Generator) -> Tensor:
    side = picture.shape[-1]
    tiles = torch.nn.functional.unfold(picture[None], TILE, stride=TILE)
    order = torch.randperm(tiles.shape[-1], generator=source)
    return torch.nn.functional.fold(tiles[:, :, order], side, TILE, stride=TILE)[0]


def _empty_places(backend: Backend, count: int) -> Tensor:
    """Pictures by the original of settings and styles, without a word of an object."""
    pairs = [(STYLES[i % len(STYLES)].name, SETTINGS[i % len(SETTINGS)].name) for i in range(count)]
    prompts = [grammar.caption(None, style, setting) for style, setting in pairs]
    with backend.active():
        return _by(backend, prompts)


def _wrecked(backend: Backend, count: int) -> Tensor:
    """What a model with noise in its weights paints of an object."""
    KNOWN_OUTCOME_MODELS["destroyed"](backend, preview_concept(make_config("cat")), SEED)
    try:
        with backend.active("unlearn"):
            return _by(
                backend,
                [
                    f"a {scene.object}"
                    for scene in sample_scenes(1)[:: max(1, 384 // count)][:count]
                ],
            )
    finally:
        backend.drop_adapters()


def _by(backend: Backend, prompts: Sequence[str]) -> Tensor:
    seeds = [PAINTED + 900_000 + row for row in range(len(prompts))]
    return backend.decode(
        backend.sample(prompts, seeds, steps=STEPS, guidance_scale=GUIDANCE_SCALE)
    )
