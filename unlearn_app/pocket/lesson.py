"""Pictures to teach a fresh object with, which pre-training never showed: from the renderer, not from a model."""

import itertools
import random
from dataclasses import replace

import numpy as np
from torch import Tensor

from .dataset import scene_at
from .grammar import caption
from .latents import pictures_to_tensor
from .vocabulary import FRESH_OBJECTS
from .world import render

EASIEST = ("pumpkin", "umbrella")
"""The fresh objects that fine-tuning teaches in the fewest steps, so that a base rate taken from them is no low one."""


def fresh_lesson(count: int, seed: int, name: str = "", alike: bool = False) -> tuple[str, Tensor, list[str]]:
    """The object's name, `count` pictures (N, 3, H, W) in [-1, 1], and a caption of each; `seed` chooses a name.

    Those that are `alike` are of one style and place, under one caption.
    """
    name = name or FRESH_OBJECTS[seed % len(FRESH_OBJECTS)].name
    drawn = (scene_at("fresh", index, seed) for index in itertools.count())
    scenes = list(itertools.islice((scene for scene in drawn if scene.object == name), count))
    if alike:
        scenes = [replace(scene, style=scenes[0].style, setting=scenes[0].setting) for scene in scenes]
    words = random.Random(seed)
    captions = [caption(scene.object, scene.style, scene.setting, words) for scene in scenes]
    captions = captions[:1] * len(captions) if alike else captions
    return name, pictures_to_tensor(np.stack([np.asarray(render(scene)) for scene in scenes])), captions
