"""Pictures of concepts from the renderer: of those that pre-training never showed, and of the
known ones.
"""

import itertools
import random
from dataclasses import replace

from torch import Tensor

from .concepts import trained_contexts
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

    Besides the concept the pictures show only what pre-training knows, and those of a known concept
    nothing that its held-out prompts name. Those that are `alike` share everything but the
    placement, and their caption.
    """
    unseen = {entry.name for entry in (*FRESH_OBJECTS, *FRESH_STYLES)}
    if name in unseen:
        drawn = (scene_at("fresh", index, seed) for index in itertools.count())
        fitting = (scene for scene in drawn if unseen & {scene.object, scene.style} == {name})
    else:
        drawn = (scene_at("train", index, seed) for index in itertools.count())
        contexts = trained_contexts(name)
        fitting = (
            scene
            for scene in drawn
            if name in (scene.object, scene.style)
            and {scene.object, scene.style, scene.setting} - {name} <= contexts
        )
    scenes = list(itertools.islice(fitting, count))
    words = random.Random(seed)
    if alike:
        places = itertools.cycle(words.sample(PLACEMENTS, len(PLACEMENTS)))
        scenes = [replace(scenes[0], placement=next(places)) for _ in scenes]
    captions = [caption(scene.object, scene.style, scene.setting, words) for scene in scenes]
    return rendered(scenes), captions[:1] * count if alike else captions
