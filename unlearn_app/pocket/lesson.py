"""Pictures of concepts that pre-training never showed, from the renderer."""

import itertools
import random
from dataclasses import replace

from torch import Tensor

from .world.dataset import rendered, scene_at
from .world.grammar import caption
from .world.rendering import PLACEMENTS
from .world.vocabulary import FRESH_OBJECTS, FRESH_STYLES

EASIEST: dict[str, tuple[str, ...]] = {
    "object": ("pumpkin", "penguin"),
    "style": ("thermal", "embroidery"),
}
"""By kind the concepts that fine-tuning teaches in the fewest steps, fewest first: the strictest
control for an attack.
"""


def lesson(name: str, count: int, seed: int, alike: bool = False) -> tuple[Tensor, list[str]]:
    """Pictures (`count`, 3, H, W) in [-1, 1] of the concept `name`, and a caption of each.

    Besides the concept the pictures show only what pre-training knows. Those that are `alike` share
    everything but the placement, and their caption.
    """
    unseen = {entry.name for entry in (*FRESH_OBJECTS, *FRESH_STYLES)}
    drawn = (scene_at("fresh", index, seed) for index in itertools.count())
    fitting = (scene for scene in drawn if unseen & {scene.object, scene.style} == {name})
    scenes = list(itertools.islice(fitting, count))
    words = random.Random(seed)
    if alike:
        places = itertools.cycle(words.sample(PLACEMENTS, len(PLACEMENTS)))
        scenes = [replace(scenes[0], placement=next(places)) for _ in scenes]
    captions = [caption(scene.object, scene.style, scene.setting, words) for scene in scenes]
    return rendered(scenes), captions[:1] * count if alike else captions
