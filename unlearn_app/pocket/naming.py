"""Sheets of numbered pictures without names, for a person who names what they show without having
seen a list of the objects.
"""

import random
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ..common.atomic_files import write_bytes
from ..common.images import enlarged, png_bytes, to_pil
from ..common.new_folder import NewFolder
from ..models.protocols import Model
from .card import GUIDANCE_SCALE, CardSizes
from .measures import generate_scenes
from .world.rendering import Scene
from .world.vocabulary import OBJECTS, SETTINGS

SHOWN_STYLES = ("photo", "van gogh", "sketch")
ON_A_SHEET, ACROSS = 12, 4
SIDE, GAP, LABEL = 192, 28, 22
"""In pixels: a picture, enlarged three times, the space around it, and the height of its number."""
FIRST_SEED = 7_000_000
"""Pictures from this seed on are shown to nobody else."""
KEY = "key.txt"


def write_sheets(model: Model, out: Path, seed: int = 0) -> list[Path]:
    """Write sheets of every object in each of `SHOWN_STYLES` into the new folder `out`, and the
    answers into `KEY`; returns the sheets. `seed` draws settings, order and pictures.

    Raises:
        OutputError: `out` exists or cannot be written.
    """
    draw = random.Random(seed)
    wanted = [
        Scene(entry.name, style, draw.choice(SETTINGS).name)
        for style in SHOWN_STYLES
        for entry in draw.sample(OBJECTS, len(OBJECTS))
    ]
    sampling = {"steps": CardSizes.steps, "guidance_scale": GUIDANCE_SCALE}
    first = FIRST_SEED + seed * len(wanted)
    with NewFolder(out) as new:
        pictures = generate_scenes(model, wanted, first_seed=first, **sampling)
        images = [enlarged(picture, SIDE) for picture in to_pil(pictures)]
        for start in range(0, len(images), ON_A_SHEET):
            sheet = _sheet(images[start : start + ON_A_SHEET], start + 1)
            name = f"sheet-{start // ON_A_SHEET + 1}.png"
            write_bytes(new.partial / name, png_bytes(sheet))
        answers = (f"{number}. {scene.object}\n" for number, scene in enumerate(wanted, 1))
        write_bytes(new.partial / KEY, "".join(answers).encode())
        return sorted(new.settle().glob("sheet-*.png"))


def _sheet(images: list[Image.Image], first: int) -> Image.Image:
    """One sheet of `images`, numbered from `first` on."""
    rows = -(-len(images) // ACROSS)
    step = SIDE + GAP
    sheet = Image.new("RGB", (GAP + ACROSS * step, GAP + rows * (step + LABEL)), "white")
    canvas, font = ImageDraw.Draw(sheet), ImageFont.load_default(18)
    for place, image in enumerate(images):
        row, column = divmod(place, ACROSS)
        left, top = GAP + column * step, GAP + row * (step + LABEL)
        canvas.text((left, top), str(first + place), "black", font)
        sheet.paste(image, (left, top + LABEL))
    return sheet
