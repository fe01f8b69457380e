"""The model card of the bundled world: figures measured on the spot, and sample sheets."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from ..common.atomic_files import replacement, write_bytes
from ..common.errors import ConfigError
from ..common.images import to_pil
from ..common.paths import ASSETS
from ..evaluation.judges.pocket_judge import PocketJudge
from ..evaluation.judges.second_judge import SecondJudge
from ..models.diffusers.loading import load_pipeline
from .measures import (
    Sampler,
    held_out_scenes,
    on_one_prompt,
    on_reconstruction,
    on_renderings,
    prompt_of,
    quality,
    sample_scenes,
)
from .training.checkpoints import Progress, write_json
from .training.recipe import FULL, Recipe
from .world.dataset import scenes, unjudged_scenes
from .world.rendering import PLACEMENTS, Scene, render
from .world.vocabulary import FRESH_OBJECTS, FRESH_STYLES, OBJECTS, SETTINGS, STYLES

GUIDANCE_SCALE = 2.0
CELL, MARGIN, HEADER = 64, 76, 30
QUALITY = 80


@dataclass(frozen=True)
class CardSizes:
    """How many pictures the card is measured on, `per_pair` of every object in every style, and
    sampling steps.
    """

    rendered: int = 4_000
    fresh: int = 600
    reconstructed: int = 512
    per_pair: int = 2
    held_out: int = 150
    diverse: int = 200
    steps: int = 12


def write_card(
    work: Path | None = None,
    assets: Path = ASSETS,
    recipe: Recipe = FULL,
    pictures: CardSizes | None = None,
) -> Iterator[Progress]:
    """Measure the models in `assets`/pocket against renderings, and write card and sheets beside
    them.

    What is known of their training comes from `work`, or without it from the card that is there.

    Raises:
        ConfigError: `work` holds no finished training.
        ModelError: the assembled models are missing.
    """
    folder, sizes = assets / "pocket", pictures or CardSizes()
    recipe_used, training = _training_facts(work, folder, recipe)
    backend = load_pipeline(folder / "pipeline", "pocket")
    judge, second = PocketJudge.load(folder / "judge"), SecondJudge.load(folder / "second")
    sampler, scores = Sampler(sizes.steps, GUIDANCE_SCALE), {}
    yield Progress("judge", 0, 2, "unseen renderings")
    held = scenes("held_out", sizes.rendered, recipe.data_seed)
    scores["renderings"] = on_renderings(judge, held)
    yield Progress("judge", 1, 2, "what the denoiser never sees")
    scores["fresh"] = on_renderings(judge, unjudged_scenes(sizes.fresh))
    yield Progress("reconstruction", 0, 1)
    scores["psnr"] = on_reconstruction(backend, held[: sizes.reconstructed])
    wanted, unseen = sample_scenes(sizes.per_pair), held_out_scenes(sizes.held_out)
    yield Progress("generate", 0, 3, "every object in every style")
    painted = sampler(backend, wanted)
    scores["generated"] = quality(judge, second, painted, wanted)
    yield Progress("generate", 1, 3, "held-out compositions")
    scores["held_out"] = quality(judge, second, sampler(backend, unseen), unseen)
    yield Progress("generate", 2, 3, "one prompt many times")
    scores["diversity"] = on_one_prompt(backend, sampler, sizes.diverse)
    yield Progress("card", 0, 1)
    sheet_scenes = wanted[: len(OBJECTS) * len(STYLES)]
    _write_sheet(folder / "renderings.webp", [render(scene) for scene in sheet_scenes])
    _write_sheet(folder / "generated.webp", to_pil(painted[: len(sheet_scenes)]))
    write_json(
        folder / "card.json", {"recipe": recipe_used, "training": training, "scores": scores}
    )
    text = card_text(recipe_used, training, scores, _sizes(backend, folder))
    write_bytes(folder / "README.md", text.encode())
    yield Progress("card", 1, 1, str(folder / "README.md"))


def _training_facts(
    work: Path | None, folder: Path, recipe: Recipe
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The recipe and what is recorded of the training, as JSON."""
    if work is None:
        card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
        return card["recipe"], card["training"]
    try:
        return asdict(recipe), json.loads((work / "train.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(
            f"There is no {error.filename}; run `pocket render` and `pocket train` first."
        ) from error


# ---- sheets ----


def _write_sheet(path: Path, pictures: Sequence[Image.Image]) -> None:
    """Objects down, styles across."""
    sheet = Image.new("RGB", (MARGIN + CELL * len(STYLES), HEADER + CELL * len(OBJECTS)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(9)
    for column, style in enumerate(STYLES):
        text = style.name.replace(" ", "\n")
        draw.text(
            (MARGIN + CELL * (column + 0.5), HEADER / 2),
            text,
            "black",
            font,
            anchor="mm",
            align="center",
        )
    for row, entry in enumerate(OBJECTS):
        draw.text((MARGIN - 6, HEADER + CELL * (row + 0.5)), entry.name, "black", font, anchor="rm")
    for place, picture in enumerate(pictures):
        row, column = divmod(place, len(STYLES))
        sheet.paste(picture, (MARGIN + CELL * column, HEADER + CELL * row))
    with replacement(path) as partial:
        sheet.save(partial, "WEBP", quality=QUALITY, method=6)


# ---- text ----


def _sizes(backend: Any, folder: Path) -> list[tuple[str, str, float, float]]:
    """Part, what it is, millions of parameters, MiB on disk."""
    pipe = backend.pipe
    parts = (
        ("unet", "UNet2DConditionModel, widths 128 and 192, 8 x 8 x 64 latents", pipe.unet),
        ("vae", "AutoencoderKL, 64 px to 8 x 8 x 64", pipe.vae),
        ("text_encoder", "CLIPTextModel, width 128", pipe.text_encoder),
    )
    rows = [
        (
            name,
            what,
            sum(p.numel() for p in model.parameters()) / 1e6,
            _mebibytes(folder / "pipeline" / name),
        )
        for name, what, model in parts
    ]
    judges = {
        "judge": "residual CNN at 64 px and a word tower",
        "second": "vision transformer, 8 x 8 px patches",
    }
    held = {name: _mebibytes(folder / name) for name in judges}
    return [
        *rows,
        *((name, what, held[name] / 2 * 1.048576, held[name]) for name, what in judges.items()),
    ]


def _mebibytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors")) / 2**20


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _score_table(scores: dict[str, Any]) -> str:
    names = {
        "renderings": "renderings of held-out compositions",
        "fresh": "renderings of what the denoiser never sees",
        "generated": "generated pictures, every object in every style",
        "held_out": "generated pictures of held-out compositions",
    }
    rows = []
    for key, text in names.items():
        score = scores[key].get("judge", scores[key])
        shares = [f"{score[axis]:.1%}" for axis in ("object", "style", "setting")]
        rows.append(
            [
                text,
                str(score["pictures"]),
                *shares,
                f"{score['alignment']:.2f}",
                f"{score['sure']:.2f}",
            ]
        )
    return _table(
        ("judge on", "pictures", "object", "style", "setting", "alignment", "right object's p"),
        rows,
    )


def _picture_table(scores: dict[str, Any]) -> str:
    rows = []
    for key, text in (
        ("generated", "every object in every style"),
        ("held_out", "held-out compositions"),
    ):
        found = scores[key]
        ratio, by_style = found["psnr"], found["sharpness_by_style"]
        evenly_spaced = (
            f"{found['sharpness']:.2f} ({min(by_style.values()):.2f} to"
            f" {max(by_style.values()):.2f})"
        )
        seconds = f"{found['second']['object']:.1%} / {found['second']['style']:.1%}"
        rows.append(
            [text, f"{ratio['median']:.1f} / {ratio['worst_tenth']:.1f} dB", evenly_spaced, seconds]
        )
    return _table(
        ("generated", "PSNR, median / worst tenth", "sharpness (by style)", "second judge"), rows
    )


def _training_table(training: dict[str, Any]) -> str:
    rows = []
    for part, facts in training.items():
        log = facts.get("losses", [])
        marks = [log[round(i * (len(log) - 1) / 4)] for i in range(5)] if len(log) > 4 else log
        losses = ", ".join(f"{loss:.3f} at {step:g}" for step, loss in marks)
        minutes = f"{facts['seconds'] / 60:.0f} min"
        batch = str(facts.get("batch", ""))
        rows.append(
            [
                part,
                str(facts["steps"]),
                batch,
                str(facts["seed"]),
                minutes,
                losses,
                facts["hardware"],
            ]
        )
    table = _table(
        ("part", "steps", "batch", "seed", "time", "loss (mean since the mark before)", "on"), rows
    )
    notes = [f"- {part}: {facts['note']}." for part, facts in training.items() if "note" in facts]
    return "\n".join(
        [table, *(["", "Where this run left the recipe:", "", *notes] if notes else [])]
    )


def _weakest(by_name: dict[str, float], count: int = 5) -> str:
    return ", ".join(
        f"{name} {by_name[name]:.0%}" for name in sorted(by_name, key=by_name.get)[:count]
    )


def card_text(
    recipe: dict[str, Any],
    training: dict[str, Any],
    scores: dict[str, Any],
    sizes: Sequence[tuple[str, str, float, float]],
) -> str:
    """The card in Markdown."""
    parts = _table(
        ("part", "what", "parameters", "fp16"),
        [[name, what, f"{count:.2f} M", f"{size:.1f} MiB"] for name, what, count, size in sizes],
    )
    generated, varied = scores["generated"], scores["diversity"]
    values = {
        "objects": f"{len(OBJECTS)} objects, {len(STYLES)} styles, {len(SETTINGS)} settings",
        "fresh": ", ".join(entry.name for entry in FRESH_OBJECTS),
        "fresh_styles": " and ".join(entry.name for entry in FRESH_STYLES),
        "placements": str(len(PLACEMENTS)),
        "prompt": prompt_of(Scene("cat", "van gogh", "beach")),
        "pictures": ", ".join(f"{count} {split}" for split, count in recipe["pictures"].items()),
        "data_seed": str(recipe["data_seed"]),
        "parts": parts,
        "decoder": DECODER_TRAINED if "autoencoder" in training else DECODER_WRITTEN,
        "training": _training_table(training),
        "scores": _score_table(scores),
        "likeness": _picture_table(scores),
        "diversity": ", ".join(f"{name} {share:.2f}" for name, share in varied.items()),
        "psnr": f"{scores['psnr']['mean']:.1f} dB mean, {scores['psnr']['worst']:.1f} dB worst",
        "psnr_pictures": str(scores["psnr"]["pictures"]),
        "sampling": f"{CardSizes.steps} DDIM steps, guidance {GUIDANCE_SCALE}",
        "weak_objects": _weakest(generated["right_by_object"]),
        "weak_styles": _weakest(generated["right_by_style"], 3),
    }
    return TEMPLATE.format(**values)


DECODER_WRITTEN = (
    "Neither is trained yet; `pocket train --part autoencoder` can refine the decoder."
)
DECODER_TRAINED = (
    "The decoder was then trained on codes with noise, so that it repairs codes that are slightly"
    " wrong."
)

TEMPLATE = """# PocketCanvas

A pocket-size world and the models that generate and judge it: {objects}, drawn procedurally as pixel art of 64 x 64
pixels. `pipeline/` is a plain `StableDiffusionPipeline` folder (v-prediction, zero terminal SNR); `judge/` is an
image-text judge that shares neither weights nor tokenizer with it, and `second/` a small vision transformer that checks
the judge. They exist so that concept unlearning, relearning and their measurement run on a laptop, offline. The words
are those of `unlearn_app/pocket/world/vocabulary.py`, no others.

```python
from diffusers import StableDiffusionPipeline

pipe = StableDiffusionPipeline.from_pretrained("assets/pocket/pipeline")
picture = pipe("{prompt}", num_inference_steps=12, guidance_scale=2.0).images[0]
picture.resize((256, 256), 0).save("cat.png")  # 0 keeps the pixels hard
```

Never shown to the denoiser, as controls for "relearned": the objects {fresh}, and the styles {fresh_styles}.

| renderings | generated |
| --- | --- |
| ![renderings](renderings.webp) | ![generated](generated.webp) |

## Scores

{scores}

PSNR is that of a generated picture to the closest rendering of its prompt, among all {placements} placements of object
and background. Sharpness is the mean gradient magnitude of generated pictures over that of the renderings: below 1 is
blur, above 1 is speckle.

{likeness}

How often the rarest value of each offset appears in 200 pictures of one prompt, over its share in the world:
{diversity}.

What the judges confuse, and what they see in pictures that show nothing, is in
[results/judge.md](../results/judge.md). Generated with {sampling}, prompts in canonical wording. Weakest objects:
{weak_objects}. Weakest styles: {weak_styles}.

Reconstruction of {psnr_pictures} renderings of held-out compositions by the autoencoder: {psnr}.

## Parts

{parts}

The autoencoder is the principal-component code of 8 x 8 patches and its inverse, written into convolution weights.
{decoder} The text encoder was taught to state object,
style and setting of captions, and then frozen. The denoiser's weights are an exponential moving average. Of the
compositions of object, style and setting one in twenty is held out of its training.

## Training

{pictures} pictures, data seed {data_seed}.

{training}

Everything is made again, on a CPU or a GPU, by `python -m unlearn_app pocket render`, `train` and `card`; every seed
and size is in `unlearn_app/pocket/training/recipe.py`, every loss in `card.json`. `train --from-assets` goes on from the bundled
denoiser. Renderings are the same on any machine with the same Pillow and NumPy; trained weights agree only
approximately between machines.

## Limits

It knows its own few words and nothing of the real world; results on it say how a method behaves, not how well it does
on Stable Diffusion. The "unsafe" family (knife, sword, bomb) is made of harmless emoji and stands for a protocol.

## Licences

Code and weights: Apache-2.0. The glyph pictures in `glyphs/` are cut from Noto Color Emoji, copyright Google Inc.,
SIL Open Font License 1.1 (`glyphs/LICENSE`). The font itself is not included.
"""
