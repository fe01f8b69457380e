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


def fresh_lesson(
    count: int, seed: int, name: str = "", alike: bool = False
) -> tuple[str, Tensor, list[str]]:
    """The concept's name, `count` pictures (N, 3, H, W) in [-1, 1], and a caption of each; `seed`
    chooses an object.

    Besides the concept the pictures show only what pre-training knows. Those that are `alike` share
    everything but the placement, and their caption.
    """
    name = name or FRESH_OBJECTS[seed % len(FRESH_OBJECTS)].name
    unseen = {entry.name for entry in (*FRESH_OBJECTS, *FRESH_STYLES)}
    drawn = (scene_at("fresh", index, seed) for index in itertools.count())
    fitting = (scene for scene in drawn if unseen & {scene.object, scene.style} == {name})
    scenes = list(itertools.islice(fitting, count))
    words = random.Random(seed)
    if alike:
        places = itertools.cycle(words.sample(PLACEMENTS, len(PLACEMENTS)))
        scenes = [replace(scenes[0], placement=next(places)) for _ in scenes]
    captions = [caption(scene.object, scene.style, scene.setting, words) for scene in scenes]
    captions = captions[:1] * len(captions) if alike else captions
    return name, rendered(scenes), captions
