"""How far the judges can be trusted: accuracy, calibration and confusion, and what they answer on
pictures without a recognisable object.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import fold, unfold

from ..common.seeds import generator
from ..concepts.catalog import preview_concept
from ..evaluation.judges import Classifier
from ..models.protocols import Model
from ..pocket.measures import AXES, generate_scenes, sample_scenes
from ..pocket.training.judge import OUTLIER_EVERY
from ..pocket.world import grammar
from ..pocket.world.dataset import rendered, scenes, unjudged_scenes
from ..pocket.world.rendering import Scene
from ..pocket.world.vocabulary import SETTINGS, STYLES
from ..settings.attacks import SURE
from ..settings.groups import CompareConfig
from ..settings.run_config import make_config
from .cells import Experiment, Extent, read_cells
from .known_outcome_models import known_outcome_model
from .tables import render, share, write_report

SEED, GENERATED = 78, 5_000_000
"""Of renderings and of generated pictures; never used in training, nor to choose anything."""
SAMPLING = {
    "steps": CompareConfig.sampling_steps,
    "guidance_scale": CompareConfig.guidance_scale,
}
TILE, CHUNK, MOST_CONFUSED = 8, 96, 12
BINS, SHOWN_BINS = 50, 10
KNOWN = {
    "renderings": "renderings no training has seen",
    "generated": "pictures by the original model",
    "never-seen": "renderings of four objects the model was never shown",
}


@dataclass(frozen=True)
class JudgedPictures:
    """Pictures of one kind before the judges."""

    kind: str


class JudgeExperiment(Experiment):
    """Ask both judges. `seeds` is how many pictures of every object in every style the original
    generates; `full` doubles them.
    """

    name = "judge"

    def __init__(self, extent: Extent) -> None:
        super().__init__(extent)
        self.judges = self.judge, self.second
        self._size = 28 if self.smoke else 1400
        self._per_pair = self.seeds * (2 if extent.full and not self.smoke else 1)

    def cells(self) -> list[JudgedPictures]:
        return [JudgedPictures(kind) for kind in (*KNOWN, "strange")]

    def config(self, cell: JudgedPictures) -> dict[str, Any]:
        own = {
            "renderings": {"pictures": self._size, "seed": SEED},
            "never-seen": {"pictures": self._size // 4},
            "generated": {
                "per_pair": self._per_pair,
                **SAMPLING,
                "smoke": self.smoke,
            },
            "strange": {
                "pictures": self._size // 7,
                "seed": SEED,
                "steps": SAMPLING["steps"],
            },
        }
        judges = [f"{one.name} {one.version}" for one in self.judges]
        return {"base": self.model.base_hash, "judges": judges} | own[cell.kind]

    def measure(
        self, cell: JudgedPictures, known: dict[str, Any], shared: None
    ) -> Iterator[dict[str, Any]]:
        if cell.kind == "strange":
            yield on_strange(self.judges, self.model, self._size // 7)
        elif cell.kind == "generated":
            shown = sample_scenes(self._per_pair)[:: 16 if self.smoke else 1]
            pictures = generate_scenes(self.model, shown, **SAMPLING, first_seed=GENERATED)
            yield on_known(self.judges, pictures, shown)
        else:
            shown = (
                scenes("held_out", self._size, SEED)
                if cell.kind == "renderings"
                else unjudged_scenes(self._size // 4)
            )
            yield on_known(self.judges, rendered(shown), shown)

    def line(self, cell: JudgedPictures, values: Mapping[str, Any]) -> str:
        return f"judges on {cell.kind.replace('-', ' ')} pictures"

    def report(self) -> str:
        return write_results(self.folder)


def on_known(
    judges: Sequence[Classifier], pictures: Tensor, shown: Sequence[Scene]
) -> dict[str, Any]:
    """Answers of every judge on pictures (N, 3, H, W) of the scenes `shown`, by axis, and where
    they agree.
    """
    found: dict[str, dict[str, Any]] = {one.name: {} for one in judges}
    alike = {}
    for axis in AXES:
        truth, answers = [getattr(scene, axis) for scene in shown], []
        for one in judges:
            best, sure = answered(one, pictures, axis)
            answers.append(best)
            found[one.name][axis] = _summed(best, sure, truth)
        alike[axis] = sum(a == b for a, b in zip(*answers, strict=True))
    return {"n": len(shown), "judges": found, "alike": alike}


def answered(judge: Classifier, pictures: Tensor, axis: str) -> tuple[list[str], Tensor]:
    """The likeliest class of each picture, and its probability (N,)."""
    found = torch.cat([judge.classify(part, axis) for part in pictures.split(CHUNK)]).max(1)
    classes = judge.classes(axis)
    return [classes[row] for row in found.indices.tolist()], found.values


def _summed(best: Sequence[str], sure: Tensor, truth: Sequence[str]) -> dict[str, Any]:
    """Right answers, the most frequent confusions, and pictures and right ones by bin of
    probability.
    """
    pairs = list(zip(truth, best, strict=True))
    right = torch.tensor([wanted == answer for wanted, answer in pairs])
    mistakes = Counter((wanted, answer) for wanted, answer in pairs if wanted != answer)
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


def on_strange(judges: Sequence[Classifier], model: Model, count: int) -> dict[str, Any]:
    """How sure every judge is of an object in pictures that show none, or none to be recognised."""
    source, pictures = generator(SEED), rendered(scenes("held_out", 2 * count, SEED))
    some, others = pictures[:count], pictures[count:]
    kinds = {
        "noise": torch.randn(some.shape, generator=source).clamp(-1, 1),
        "one colour": (2 * torch.rand(count, 3, 1, 1, generator=source) - 1).expand_as(some),
        "tiles shuffled": torch.stack([_shuffled(picture, source) for picture in some]),
        "two pictures in one": (some + others) / 2,
        "no object asked for": _empty_places(model, count),
        "a destroyed model": _destroyed(model, count),
    }
    found = {
        kind: {one.name: histogram(answered(one, shown, "object")[1]) for one in judges}
        for kind, shown in kinds.items()
    }
    return {"n": count, "bins": found}


def _shuffled(picture: Tensor, source: torch.Generator) -> Tensor:
    tiles = unfold(picture[None], TILE, stride=TILE)
    order = torch.randperm(tiles.shape[-1], generator=source)
    return fold(tiles[:, :, order], picture.shape[-1], TILE, stride=TILE)[0]


def _empty_places(model: Model, count: int) -> Tensor:
    """Pictures by the original of settings and styles; no prompt names an object."""
    prompts = [
        grammar.caption(None, STYLES[i % len(STYLES)].name, SETTINGS[i % len(SETTINGS)].name)
        for i in range(count)
    ]
    with model.active():
        return _generated(model, prompts)


def _destroyed(model: Model, count: int) -> Tensor:
    """What a model with noise in its weights generates of an object."""
    known_outcome_model("destroyed", model, preview_concept(make_config("cat")), SEED)
    asked = sample_scenes(1)[:: max(1, 384 // count)][:count]
    with model.active("unlearn"):
        pictures = _generated(model, [f"a {scene.object}" for scene in asked])
    model.drop_adapters()
    return pictures


def _generated(model: Model, prompts: Sequence[str]) -> Tensor:
    seeds = range(GENERATED + 900_000, GENERATED + 900_000 + len(prompts))
    return model.decode(model.sample(prompts, seeds, **SAMPLING))


def write_results(folder: Path) -> str:
    """Write the report for the cells in `folder`, and return it."""
    found = {kind: values for kind, (_, values) in read_cells(folder).items()}
    text = render(
        "judge.md",
        sure=f"{SURE:.0%}",
        outlier_every=OUTLIER_EVERY,
        known={KNOWN[kind]: found[kind] for kind in KNOWN if kind in found},
        strange=found.get("strange", {}).get("bins", {}),
        generated=found.get("generated", {}).get("judges", {}),
        error=calibration_error,
        bins=coarse,
        refused=refused,
        auroc=auroc,
    )
    return write_report(folder, text)


def refused(bins: Sequence[int]) -> str:
    """The share of pictures in a histogram whose likeliest object has less than `SURE`."""
    return share(sum(bins[: round(SURE * BINS)]), sum(bins))


def calibration_error(stored: Mapping[str, Any]) -> float:
    """Expected calibration error over `SHOWN_BINS` bins: mean distance of probability and share of
    right answers.

    1706.04599, with the middle of each of the finer `BINS` for the probabilities in it.
    """
    total = sum(stored["bins"])
    return sum(n / total * abs(mean - share) for n, mean, share in coarse(stored))


def coarse(stored: Mapping[str, Any]) -> list[tuple[int, float, float]]:
    """Pictures, mean probability and share of right answers by bin of probability; zeros for an
    empty bin.
    """
    bins, right, middles = (
        np.reshape(values, (SHOWN_BINS, -1))
        for values in (stored["bins"], stored["right_bins"], (np.arange(BINS) + 0.5) / BINS)
    )
    n = bins.sum(1)
    means, shares = (bins * middles).sum(1) / n.clip(1), right.sum(1) / n.clip(1)
    return list(zip(n.tolist(), means.tolist(), shares.tolist(), strict=True))


def auroc(known: Sequence[int], strange: Sequence[int]) -> float:
    """Probability that a draw of the histogram `known` lies above one of `strange`, ties as halves
    (Mann-Whitney).
    """
    below, won = 0, 0.0
    for mine, other in zip(known, strange, strict=True):
        won += mine * (below + other / 2)
        below += other
    return won / (sum(known) * sum(strange))
