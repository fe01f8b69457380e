"""The model cards of the bundled world: measured scores and sheets of pictures."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from safetensors.torch import load_file
from torch import Tensor

from ..common.atomic_files import replacement, write_bytes
from ..common.errors import ConfigError, OutputError
from ..common.images import to_pil
from ..common.paths import ASSETS, POCKET_FLOW
from ..common.record_files import damaged, read_json
from ..common.registry import world
from ..common.templates import templates
from ..evaluation.judges.pocket_judge import PocketJudge
from ..evaluation.judges.second_judge import SecondJudge
from ..models.diffusers.loading import load_flow, load_pipeline
from ..settings.groups import CompareConfig
from .measures import (
    generate_scenes,
    generation_scores,
    held_out_scenes,
    judge_scores,
    on_one_prompt,
    on_reconstruction,
    prompt_of,
    sample_scenes,
)
from .texts import load_tower, shared_texts
from .training.arms import ARMS_FILE
from .training.checkpoints import Progress, write_json
from .training.recipe import FULL
from .world.dataset import rendered, scenes, unjudged_scenes
from .world.rendering import PLACEMENTS, Scene, render
from .world.vocabulary import FRESH_OBJECTS, FRESH_STYLES, OBJECTS, SETTINGS, STYLES

GUIDANCE_SCALE = CompareConfig.guidance_scale
CELL = 64
MARGIN = 76
HEADER = 30
"""Layout of a sample sheet in pixels: the side of a picture, and the space for the names of rows
and columns.
"""
QUALITY = 60
PARTS = {
    "unet": "UNet2DConditionModel, widths 128 and 192, 8 x 8 x 64 latents",
    "vae": "AutoencoderKL, 64 px to 8 x 8 x 64",
    "text_encoder": "CLIPTextModel, width 128",
}
FLOW_PARTS = {
    "transformer": "SD3Transformer2DModel, 4 blocks of width 128, 64 patches of 64 numbers",
    "text_encoder_2": "CLIPTextModelWithProjection of width 8, untrained: the class wants two",
}
JUDGES = {
    "judge": "residual CNN at 64 px and a word tower",
    "second": "vision transformer, 8 x 8 px patches",
}


@dataclass(frozen=True)
class CardSizes:
    """How many pictures each measure of the card takes, and sampling steps.

    `per_pair` is the number of pictures of every object in every style.
    """

    rendered: int = 4_000
    fresh: int = 600
    reconstructed: int = 512
    per_pair: int = 2
    held_out: int = 150
    diverse: int = 200
    steps: int = CompareConfig.sampling_steps


def write_card(
    work: Path | None = None, assets: Path = ASSETS, sizes: CardSizes | None = None
) -> Iterator[Progress]:
    """Measure the models in `assets`/pocket and write card.json, README.md and two sample sheets
    beside them.

    What is known of the training is read from `work`, or without it from the present card.

    Raises:
        ConfigError: `work` holds no finished training.
        ModelError: the assembled models are missing.
    """
    folder = assets / "pocket"
    card = _training_facts(work, folder)
    model = load_pipeline(folder / "pipeline", "pocket")
    card["scores"], samples = yield from _measured(model, folder, sizes or CardSizes())
    yield Progress("card", 0, 1)
    sheet_scenes = sample_scenes(1)
    _write_sheet(folder / "renderings.webp", [render(scene) for scene in sheet_scenes])
    _write_sheet(folder / "generated.webp", to_pil(samples[: len(sheet_scenes)]))
    write_json(folder / "card.json", card)
    write_bytes(folder / "README.md", card_text(card, part_sizes(model, folder)).encode())
    yield Progress("card", 1, 1, str(folder / "README.md"))


def _measured(
    model: Any, folder: Path, sizes: CardSizes
) -> Generator[Progress, None, tuple[dict[str, Any], Tensor]]:
    """All scores of the card as JSON, and the pictures of every object in every style."""
    judge = PocketJudge.load(folder / "judge")
    second = SecondJudge.load(folder / "second")
    sampling = {"steps": sizes.steps, "guidance_scale": GUIDANCE_SCALE}
    scores = {}
    yield Progress("judge", 0, 2, "unseen renderings")
    held_out = scenes("held_out", sizes.rendered, FULL.data_seed)
    scores["renderings"] = judge_scores(judge, rendered(held_out), held_out)
    yield Progress("judge", 1, 2, "what the denoiser never sees")
    fresh = unjudged_scenes(sizes.fresh)
    scores["fresh"] = judge_scores(judge, rendered(fresh), fresh)
    yield Progress("reconstruction", 0, 1)
    scores["psnr"] = on_reconstruction(model, held_out[: sizes.reconstructed])
    painted, samples = yield from _painted(model, judge, second, sizes, sampling)
    return scores | painted, samples


def _painted(
    model: Any, judge: PocketJudge, second: SecondJudge, sizes: CardSizes, sampling: dict[str, Any]
) -> Generator[Progress, None, tuple[dict[str, Any], Tensor]]:
    """The scores of generated pictures, and the pictures of every object in every style."""
    scores = {}
    yield Progress("generate", 0, 3, "every object in every style")
    wanted = sample_scenes(sizes.per_pair)
    samples = generate_scenes(model, wanted, **sampling)
    scores["generated"] = generation_scores(judge, second, samples, wanted)
    yield Progress("generate", 1, 3, "held-out compositions")
    unseen = held_out_scenes(sizes.held_out)
    pictures = generate_scenes(model, unseen, **sampling)
    scores["held_out"] = generation_scores(judge, second, pictures, unseen)
    yield Progress("generate", 2, 3, "one prompt many times")
    scores["diversity"] = on_one_prompt(model, sizes.diverse, **sampling)
    return scores, samples


def write_flow_card(
    work: Path | None = None, assets: Path = ASSETS, sizes: CardSizes | None = None
) -> Iterator[Progress]:
    """Measure `pocket-flow` as `write_card` does the UNet, with the judges in `assets`/pocket.

    Raises:
        ConfigError: `work` holds no finished training.
        ModelError: the model is missing.
    """
    folder, bundled = assets / POCKET_FLOW.name, assets / "pocket"
    facts = _training_facts(work, folder)
    texts = shared_texts(*load_tower(bundled / "pipeline"))
    model = load_flow(folder / "pipeline", folder.name, bundled / "pipeline" / "vae", texts)
    told = world(folder.name).model_settings()
    sampling = {
        "steps": told["compare.sampling_steps"],
        "guidance_scale": told["compare.guidance_scale"],
    }
    judge, second = PocketJudge.load(bundled / "judge"), SecondJudge.load(bundled / "second")
    scores, samples = yield from _painted(model, judge, second, sizes or CardSizes(), sampling)
    card = {
        "recipe": facts["recipe"],
        "training": {"flow": facts["training"]["flow"]},
        "sampling": sampling,
        "scores": scores,
    }
    yield Progress("card", 0, 1)
    _write_sheet(folder / "generated.webp", to_pil(samples[: len(sample_scenes(1))]))
    write_json(folder / "card.json", card)
    sizes_of = network_sizes(model, folder, FLOW_PARTS)
    write_bytes(folder / "README.md", flow_card_text(card, sizes_of).encode())
    yield Progress("card", 1, 1, str(folder / "README.md"))


def flow_card_text(card: dict[str, Any], sizes: Sequence[tuple[str, str, float, float]]) -> str:
    """The card of `pocket-flow` in Markdown, as `card_text` makes that of the UNet."""
    return _filled("flow_card.md.jinja", card, sizes)


def _training_facts(work: Path | None, folder: Path) -> dict[str, Any]:
    """The recipe and what is recorded of the training, from `work` or the present card."""
    if work is None:
        try:
            card = read_json(folder / "card.json", "card")
            if not isinstance(card, dict) or not {"recipe", "training"} <= card.keys():
                raise damaged(folder, "card", "card.json says nothing of a training")
        except OutputError as error:
            sentence = f"{str(error).rstrip('.')}; --work with a finished training is accepted."
            raise ConfigError(sentence) from error
        return {part: card[part] for part in ("recipe", "training", "arms") if part in card}
    arms = work / ARMS_FILE
    try:
        return {
            "recipe": asdict(FULL),
            "training": read_json(work / "train.json", "training"),
            "arms": read_json(arms, "arms") if arms.exists() else {},
        }
    except OutputError as error:
        sentence = f"{str(error).rstrip('.')}; run `pocket render` and `pocket train` first."
        raise ConfigError(sentence) from error


def _write_sheet(path: Path, pictures: Sequence[Image.Image]) -> None:
    """Objects down, styles across."""
    sheet = Image.new("RGB", (MARGIN + CELL * len(STYLES), HEADER + CELL * len(OBJECTS)), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(9)
    for column, style in enumerate(STYLES):
        place = (MARGIN + CELL * (column + 0.5), HEADER / 2)
        text = style.name.replace(" ", "\n")
        draw.text(place, text, "black", font, anchor="mm", align="center")
    for row, entry in enumerate(OBJECTS):
        draw.text((MARGIN - 6, HEADER + CELL * (row + 0.5)), entry.name, "black", font, anchor="rm")
    for index, picture in enumerate(pictures):
        row, column = divmod(index, len(STYLES))
        sheet.paste(picture, (MARGIN + CELL * column, HEADER + CELL * row))
    with replacement(path) as partial:
        sheet.save(partial, "WEBP", quality=QUALITY, method=6)


def part_sizes(model: Any, folder: Path) -> list[tuple[str, str, float, float]]:
    """For each model in `folder`: its name, what it is, millions of parameters, and MiB on disk."""
    rows = network_sizes(model, folder, PARTS)
    for name, what in JUDGES.items():
        rows.append((name, what, _weights(folder / name) / 1e6, _mebibytes(folder / name)))
    return rows


def network_sizes(
    model: Any, folder: Path, parts: Mapping[str, str]
) -> list[tuple[str, str, float, float]]:
    """The rows of `part_sizes` for `parts` of the pipeline in `folder`."""
    rows = []
    for name, what in parts.items():
        count = sum(weights.numel() for weights in getattr(model.pipe, name).parameters())
        rows.append((name, what, count / 1e6, _mebibytes(folder / "pipeline" / name)))
    return rows


def _weights(folder: Path) -> int:
    """How many numbers the .safetensors files of a folder hold."""
    files = map(load_file, folder.rglob("*.safetensors"))
    return sum(tensor.numel() for tensors in files for tensor in tensors.values())


def _mebibytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors")) / 2**20


def card_text(card: dict[str, Any], sizes: Sequence[tuple[str, str, float, float]]) -> str:
    """The card in Markdown: of the content of card.json, and of parts with their `part_sizes`."""
    told = {"steps": CardSizes.steps, "guidance_scale": GUIDANCE_SCALE}
    return _filled("card.md.jinja", card | {"sampling": told}, sizes)


def _filled(name: str, card: dict[str, Any], sizes: Sequence[tuple[str, str, float, float]]) -> str:
    texts = templates(Path(__file__).parent, keep_trailing_newline=True)
    texts.filters |= {"number": format, "lowest": _lowest, "loss_curve": _loss_curve}
    return texts.get_template(name).render(
        **card,
        sizes=sizes,
        objects=OBJECTS,
        styles=STYLES,
        settings=SETTINGS,
        fresh_objects=FRESH_OBJECTS,
        fresh_styles=FRESH_STYLES,
        placements=len(PLACEMENTS),
        prompt=prompt_of(Scene("cat", "van gogh", "beach")),
        **card["sampling"],
    )


def _lowest(shares: dict[str, float], count: int) -> str:
    names = sorted(shares, key=shares.get)[:count]
    return ", ".join(f"{name} {shares[name]:.0%}" for name in names)


def _loss_curve(losses: list[tuple[int, float]]) -> str:
    """At most five entries, (step, loss), evenly spaced over the training."""
    if len(losses) > 4:
        losses = [losses[round(i * (len(losses) - 1) / 4)] for i in range(5)]
    return ", ".join(f"{loss:.3f} at {step:g}" for step, loss in losses)
