"""The command `generate`: pictures with a model and adapters, without a run."""

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from ..common.atomic_files import check_space
from ..common.errors import ConfigError, enough_memory
from ..common.new_folder import NewFolder
from ..common.registry import world
from ..settings.groups import CompareConfig
from ..settings.run_config import RunConfig, clean_text
from .console import Model, real_number, taken, whole_number

LARGEST_SEED = 2**31 - 1
MOST_PICTURES = 10_000
MOST_WEIGHT = 10
LESS = "their number or size, or choose a smaller model"
RANGES = {item.name: item.metadata["range"] for item in fields(CompareConfig)}


Prompts = Annotated[
    list[str], typer.Option(help="what to generate; may be repeated", metavar="TEXT")
]
FirstSeed = Annotated[
    str | None,
    typer.Option(help="seed of the first picture, 0 if absent; the next count up", metavar="N"),
]
Seeds = Annotated[
    list[str] | None,
    typer.Option(help="seeds of every prompt, such as 1,2,5-8; may be repeated", metavar="LIST"),
]
Adapters = Annotated[
    list[str] | None,
    typer.Option(
        help=(
            "adapter of a run, of diffusers, peft or kohya, and the weight of its update; may be"
            " repeated"
        ),
        metavar="FILE[:WEIGHT]",
    ),
]
Steps = Annotated[
    str, typer.Option(help="denoising steps; as in a run with the model if absent", metavar="N")
]
Guidance = Annotated[
    str,
    typer.Option(
        help="classifier-free guidance, 1 is none; as in a run with the model if absent",
        metavar="X",
    ),
]
Size = Annotated[str, typer.Option(help="pixels; the model's own if absent", metavar="N|WxH")]
Negative = Annotated[str, typer.Option(help="what guidance leads away from", metavar="TEXT")]
Asked = list[tuple[str, str, int]]
"""The file name, prompt and seed of every picture."""


def generate(
    prompt: Prompts,
    out: Annotated[Path, typer.Option(help="new folder for the pictures", metavar="DIR")],
    seed: FirstSeed = None,
    seeds: Seeds = None,
    adapter: Adapters = None,
    steps: Steps = "",
    guidance: Guidance = "",
    size: Size = "",
    negative: Negative = "",
    model: Model = RunConfig.model,
) -> None:
    """Generate pictures with the original model or with adapters; writes one PNG per prompt, or per
    prompt and seed of --seeds.
    """
    texts = [clean_text(text, "prompt") for text in prompt]
    asked = _pictures(texts, seed, seeds)
    own = world(model).model_settings()
    how = {
        "sampling_steps": whole_number(
            steps or _usual(own, "sampling_steps"), "steps", *RANGES["sampling_steps"]
        ),
        "guidance_scale": real_number(
            guidance or _usual(own, "guidance_scale"), "guidance", *RANGES["guidance_scale"]
        ),
        "size": _size(size) if size else None,
        "negative": clean_text(negative, "negative prompt") if negative.strip() else "",
        "adapters": [weighted(text) for text in adapter or []],
    }
    folder = _write(model, out, asked, how)
    if note := taken(folder, out):
        typer.echo(f"Written to {folder}{note}", err=True)
    for name, _, _ in asked:
        typer.echo(folder / name)


def _usual(own: dict[str, Any], name: str) -> str:
    """A setting of the comparison in a run with a model that has its `own` settings."""
    return str(own.get(f"compare.{name}", getattr(CompareConfig, name)))


def _write(model: str, out: Path, asked: Asked, how: dict[str, Any]) -> Path:
    """Write the pictures to the new folder `out`; returns the folder."""
    from ..models import generate as generation
    from ..models.catalog import load_model
    from ..models.diffusers.adapter_files import read_adapter
    from ..models.sizes import check_size, picture_size

    if how["size"]:
        check_size(how["size"])
    with NewFolder(out) as new:
        for path, _ in how["adapters"]:  # before a model is loaded, which takes long
            read_adapter(path)
        loaded = load_model(model)
        check_space(out, len(asked) * picture_size(loaded, how["size"]))
        with enough_memory("Generating pictures", LESS):
            texts, seeds = [text for _, text, _ in asked], [number for _, _, number in asked]
            pictures = generation.generate(loaded, texts, seeds, **how)
        for (name, _, _), picture in zip(asked, pictures, strict=True):
            picture.save(new.partial / name)
        return new.settle()


def _pictures(prompts: list[str], seed: str | None, seeds: list[str] | None) -> Asked:
    if seeds is None:
        first = whole_number(seed or "0", "seed", 0, LARGEST_SEED + 1 - len(prompts))
        return [(f"{row:02d}.png", text, first + row) for row, text in enumerate(prompts)]
    if seed is not None:
        raise ConfigError("--seed and --seeds are both given; one of them is accepted.", "seeds")
    numbers = seed_list(seeds, MOST_PICTURES // len(prompts))
    return [
        (f"{row:02d}-{number}.png", text, number)
        for row, text in enumerate(prompts)
        for number in numbers
    ]


def seed_list(texts: list[str], most: int) -> list[int]:
    """The seeds in lists such as 1,2,5-8, each once.

    Raises:
        ConfigError: one is no number, a range runs backwards, or there are more than `most`.
    """
    found: dict[int, None] = {}
    for item in (item.strip() for text in texts for item in text.split(",")):
        first, dash, last = item.partition("-")
        low = whole_number(first.strip(), "seeds", 0, LARGEST_SEED)
        high = whole_number(last.strip(), "seeds", low, LARGEST_SEED) if dash else low
        if high - low >= most or len(found) > most:
            raise ConfigError(f"The seeds {item!r} are too many; {most} are accepted.", "seeds")
        found |= dict.fromkeys(range(low, high + 1))
    if len(found) > most:
        raise ConfigError(f"There are {len(found)} seeds; {most} are accepted.", "seeds")
    return list(found)


def weighted(text: str) -> tuple[Path, float]:
    """The file and the weight in FILE[:WEIGHT]; a name may hold a colon itself.

    Raises:
        ConfigError: the weight is out of range.
    """
    path, colon, weight = text.rpartition(":")
    if not colon or Path(text).exists():
        return Path(text), 1.0
    try:
        float(weight)
    except ValueError:
        return Path(text), 1.0
    return Path(path), real_number(weight, "weight of an adapter", -MOST_WEIGHT, MOST_WEIGHT)


def _size(text: str) -> tuple[int, int]:
    sides = text.casefold().split("x")
    if len(sides) > 2 or not all(side.strip().isdecimal() for side in sides):
        raise ConfigError(
            f"The size is {text!r}; one number of pixels or WIDTHxHEIGHT is accepted.", "size"
        )
    width, height = int(sides[0]), int(sides[-1])
    return width, height
