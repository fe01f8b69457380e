"""The recipe of the bundled models: render pictures, train every model, assemble the assets.

Every stage goes on from its last checkpoint.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ...common.atomic_files import replacement
from ...common.errors import ConfigError
from ...common.folder_lock import only_writer
from ...common.images import to_tensor
from ...common.paths import ASSETS, POCKET_FLOW
from ...models.device import can_compile, choose_device, fits_bfloat16
from ...models.diffusers.loading import load_unet, save_pipeline
from ...models.diffusers.stable_diffusion import use_plain_attention
from ...models.diffusers.stable_diffusion_3 import StableDiffusion3
from ...models.parameterization import parameterization_of
from ..texts import load_tower, shared_texts
from ..world.dataset import JUDGED_FRESH, load_split, render_split, scenes, world_size
from . import autoencoder, denoiser, flow, judge, tower
from .checkpoints import (
    Progress,
    checkpoint_path,
    load,
    new_state,
    record,
    save,
    train_with_checkpoints,
    write_json,
)
from .decoder import freeze_position_and_gates, write_decoder
from .denoiser import Fall, Learner, Phase
from .encoder import write_encoder
from .latents import fit_basis, load_basis
from .parts import LATENT_CHANNELS, new_autoencoder, new_scheduler, new_unet

BASIS = "basis.safetensors"
"""The file of the patch code."""
KIND = "training"
"""What messages call the content of a folder of work."""
TEXT = ("tokenizer", "text_encoder")
"""The parts of the pipeline that the denoisers share."""
LATENTS = "latents.pt"
"""The file of the training pictures' latents."""
WEIGHT_DECAY = 0.01
"""Weight decay of the denoiser."""
BASIS_SHARDS = 4
"""How many shards of pictures the patch code is fitted to."""
ENCODER_PICTURES = 400
"""How many pictures the encoder is fitted to."""
ENCODE_CHUNK = 500
WORTH_COMPILING = 2_000
"""Steps of the denoiser from which a compiled forward, a quarter quicker, repays the two minutes of
compiling on two cores.
"""


@dataclass(frozen=True)
class Recipe:
    """Every size, seed and step count; other constants stand beside the code that uses them."""

    data_seed: int = 0
    pictures: dict[str, int] = field(
        default_factory=lambda: {
            "held_out": 8_000,
            "train": world_size("train"),
            "fresh": JUDGED_FRESH,
        }
    )
    tower_seed: int = 0
    tower_steps: int = 1_500
    autoencoder_seed: int = 2
    autoencoder_steps: int = 7_500
    autoencoder_batch: int = 16
    autoencoder_lr: float = 2e-3
    judge_seed: int = 3
    judge_steps: int = 1_100
    judge_batch: int = 128
    judge_lr: float = 3e-3
    second_seed: int = 5
    second_steps: int = 4_000
    second_batch: int = 128
    second_lr: float = 2e-3
    denoiser_seed: int = 1
    denoiser_phases: tuple[Phase, ...] = (
        Phase(8_000, 32),
        Phase(8_000, 64),
        Phase(7_600, 128),
    )
    denoiser_falls: tuple[Fall, ...] = (Fall(23_600, 6_800),)
    denoiser_lr: float = 1e-3
    flow_seed: int = 7
    flow_phases: tuple[Phase, ...] = (
        Phase(8_000, 32),
        Phase(10_000, 64),
    )
    flow_falls: tuple[Fall, ...] = (Fall(9_000, 2_500), Fall(18_000, 5_000))
    flow_lr: float = 1e-3
    save_every: int = 100


FULL = Recipe()
SMOKE = Recipe(
    pictures={"held_out": 24, "train": 80, "fresh": 16},
    tower_steps=4,
    autoencoder_steps=4,
    autoencoder_batch=2,
    judge_steps=6,
    judge_batch=8,
    second_steps=6,
    second_batch=8,
    denoiser_phases=(Phase(3, 4), Phase(3, 8)),
    denoiser_falls=(Fall(6, 2),),
    flow_phases=(Phase(3, 4), Phase(3, 8)),
    flow_falls=(Fall(6, 2),),
    save_every=3,
)
"""A few steps of everything, to test that the recipe runs."""


def render(work: Path, workers: int = 0, recipe: Recipe = FULL) -> Iterator[Progress]:
    """Render every split below `work`/pictures with `workers` processes (0: one per core); finished
    shards are kept.

    Raises:
        OutputError: another process is at work in `work`.
    """
    work.mkdir(parents=True, exist_ok=True)
    with only_writer(work, KIND):
        for split, count in recipe.pictures.items():
            for done, total in render_split(
                work / "pictures", split, count, recipe.data_seed, workers or None
            ):
                yield Progress("render", done, total, split)


def train(
    work: Path,
    parts: Sequence[str] | None = None,
    device: str | None = None,
    recipe: Recipe = FULL,
    assets: Path = ASSETS,
    from_assets: bool = False,
) -> Iterator[Progress]:
    """Train `parts` (all when None) in order, resuming each; after all of them, assemble the models
    into `assets`.

    With `from_assets` the text encoder and the patch code are the bundled ones, and the denoiser
    starts from the bundled weights instead of at random.

    Raises:
        ConfigError: an unknown part, or pictures or an earlier part that are not there yet.
        OutputError: another process is at work in `work`.
    """
    unknown = set(parts or ()) - set(PARTS)
    if unknown:
        raise ConfigError(
            f"There is no part {sorted(unknown)[0]!r}; {', '.join(PARTS)} are accepted.", "part"
        )
    with _begun(work, recipe):
        if from_assets:
            _copy_bundled(work, (*TEXT, "unet"))
        yield from _trained(work, parts or PARTS, device, recipe)
        if parts is None:
            assemble(work, assets, recipe)
            yield Progress("assemble", 1, 1, str(assets))


def train_flow(
    work: Path, device: str | None = None, recipe: Recipe = FULL, assets: Path = ASSETS
) -> Iterator[Progress]:
    """Train `pocket-flow` on the latents and captions of the bundled text encoder and patch code,
    resuming it, and assemble it into `assets`.

    Raises:
        ConfigError: there are no pictures yet.
        OutputError: another process is at work in `work`.
    """
    with _begun(work, recipe):
        _copy_bundled(work, TEXT)
        yield from _trained(work, FLOW_PARTS, device, recipe)
        assemble_flow(work, assets, recipe)
        yield Progress("assemble", 1, 1, str(assets))


@contextmanager
def _begun(work: Path, recipe: Recipe) -> Iterator[None]:
    """A context in which nobody else trains in `work`."""
    work.mkdir(parents=True, exist_ok=True)
    with only_writer(work, KIND):
        write_json(work / "recipe.json", asdict(recipe))
        yield


def _trained(
    work: Path, parts: Sequence[str], device: str | None, recipe: Recipe
) -> Iterator[Progress]:
    chosen = torch.device(device) if device else choose_device()
    for part, trained in TRAINERS.items():
        if part in parts:
            try:
                yield from trained(work, recipe, chosen)
            except FileNotFoundError as error:
                raise ConfigError(
                    f"{part.capitalize()} needs {error.filename}; run `pocket render` and the"
                    " parts before it first.",
                    "part",
                ) from error


def assemble(work: Path, assets: Path = ASSETS, recipe: Recipe = FULL) -> None:
    """Write the trained models to `assets`/pocket: a StableDiffusionPipeline folder and the
    judges.
    """
    folder = assets / "pocket"
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer, text_model = load_tower(work)
    unet = new_unet()
    unet.load_state_dict(load(checkpoint_path(work, "denoiser"))["ema"])
    with replacement(folder / BASIS) as partial:
        shutil.copyfile(work / BASIS, partial)
    with replacement(folder / "pipeline") as partial:
        save_pipeline(
            partial,
            unet=unet,
            vae=load_autoencoder(work, recipe),
            text_encoder=text_model,
            tokenizer=tokenizer,
            scheduler=new_scheduler(),
        )
    for name, new_net in judge.NETS.items():
        net = new_net()
        net.load_state_dict(load(checkpoint_path(work, name))["model"])
        with replacement(folder / name) as partial:
            judge.save_judge(net, partial)


def assemble_flow(work: Path, assets: Path = ASSETS, recipe: Recipe = FULL) -> None:
    """Write the trained flow transformer to `assets`/pocket-flow: a StableDiffusion3Pipeline folder
    whose autoencoder, tokenizers and first text encoder are those of `assets`/pocket, and therefore
    not written again.
    """
    words = load_tower(work)
    texts = flow.text_parts(*words, recipe.flow_seed)
    transformer = flow.new_transformer()
    transformer.load_state_dict(load(checkpoint_path(work, "flow"))["ema"])
    folder = assets / POCKET_FLOW.name
    folder.mkdir(parents=True, exist_ok=True)
    with replacement(folder / "pipeline") as partial:
        save_pipeline(
            partial,
            StableDiffusion3,
            texts=torch.float16,
            transformer=transformer,
            vae=None,
            scheduler=flow.new_flow_scheduler(),
            **texts | dict.fromkeys(shared_texts(*words)),
        )


def _copy_bundled(work: Path, parts: Sequence[str]) -> None:
    """Copy the bundled patch code and some `parts` of the pipeline to `work`, where they are not
    there.
    """
    folders = [ASSETS / "pocket" / "pipeline" / part for part in parts]
    for source in (*folders, ASSETS / "pocket" / BASIS):
        if not (work / source.name).exists():
            copy = shutil.copytree if source.is_dir() else shutil.copyfile
            with replacement(work / source.name) as partial:
                copy(source, partial)


def load_autoencoder(work: Path, recipe: Recipe) -> nn.Module:
    """The autoencoder: both halves computed from the basis, and the decoder's training if there
    was one.
    """
    model = new_autoencoder()
    basis = load_basis(work / BASIS)
    write_encoder(model, basis, _pictures(work, "train", recipe)[0][:ENCODER_PICTURES])
    write_decoder(model, basis)
    trained = checkpoint_path(work, "autoencoder")
    if trained.exists():
        autoencoder.decoder_of(model).load_state_dict(load(trained)["model"])
    return model.eval()


# ---- parts ----


def _train_tower(work: Path, recipe: Recipe, device: torch.device) -> Iterator[Progress]:
    """Always on the CPU: it takes a minute."""
    if (work / "text_encoder").is_dir():
        yield Progress("tower", recipe.tower_steps, recipe.tower_steps, "done before")
        return
    started = time.monotonic()
    with replacement(work / "tokenizer") as partial:
        tower.build_tokenizer(partial, recipe.tower_seed)
    tokenizer = tower.CLIPTokenizer.from_pretrained(work / "tokenizer")
    torch.manual_seed(recipe.tower_seed)
    model = tower.new_text_model(tokenizer)
    for step, accuracy in tower.train_tower(
        tokenizer, model, recipe.tower_steps, recipe.tower_seed
    ):
        yield Progress("tower", step, recipe.tower_steps, f"accuracy {accuracy:.2f}")
    with replacement(work / "text_encoder") as partial:
        model.save_pretrained(partial)
    record(
        work,
        "tower",
        {
            "steps": recipe.tower_steps,
            "seed": recipe.tower_seed,
            "seconds": round(time.monotonic() - started),
            "final_accuracy": accuracy,
        },
    )


def _fit_latents(work: Path, recipe: Recipe, device: torch.device) -> Iterator[Progress]:
    shards = _pictures(work, "train", recipe)
    if not (work / BASIS).exists():
        with replacement(work / BASIS) as partial:
            fit_basis(np.concatenate(shards[:BASIS_SHARDS]), LATENT_CHANNELS).save(partial)
    if not (work / LATENTS).exists():
        basis = load_basis(work / BASIS)
        pieces = []
        for done, shard in enumerate(shards, start=1):
            pieces += [
                basis.encode(to_tensor(shard[start : start + ENCODE_CHUNK])).half()
                for start in range(0, len(shard), ENCODE_CHUNK)
            ]
            yield Progress("latents", done, len(shards))
        save(work / LATENTS, torch.cat(pieces))
    yield Progress("latents", len(shards), len(shards))


def _train_autoencoder(work: Path, recipe: Recipe, device: torch.device) -> Iterator[Progress]:
    torch.manual_seed(recipe.autoencoder_seed)
    basis = load_basis(work / BASIS)
    model = new_autoencoder()
    write_decoder(model, basis)
    freeze_position_and_gates(model.to(device))
    # Its narrow convolutions take less time in this order of memory.
    decoder = autoencoder.decoder_of(model).to(memory_format=torch.channels_last)
    steps = recipe.autoencoder_steps
    batch = recipe.autoencoder_batch
    return train_with_checkpoints(
        work,
        "autoencoder",
        new_state(decoder, lr=recipe.autoencoder_lr, weight_decay=0.0),
        partial(
            autoencoder.batch_loss,
            decoder,
            basis,
            _pictures(work, "train", recipe),
            batch_size=batch,
            seed=recipe.autoencoder_seed,
        ),
        partial(autoencoder.learning_rate, steps=steps, peak=recipe.autoencoder_lr),
        steps=steps,
        save_every=recipe.save_every,
        facts={"seed": recipe.autoencoder_seed, "batch": batch},
    )


def _train_judge(part: str, work: Path, recipe: Recipe, device: torch.device) -> Iterator[Progress]:
    names = ("seed", "steps", "batch", "lr")
    seed, steps, batch, lr = (getattr(recipe, f"{part}_{name}") for name in names)
    torch.manual_seed(seed)
    net = judge.NETS[part]().to(device)
    shards = []
    shown = []
    for split in ("train", "fresh"):
        shards += _pictures(work, split, recipe)
        shown += scenes(split, recipe.pictures[split], recipe.data_seed)
    return train_with_checkpoints(
        work,
        part,
        new_state(net, lr=lr, weight_decay=0.02, fused=None),
        partial(
            judge.batch_loss,
            net,
            load_basis(work / BASIS),
            shards,
            shown,
            batch_size=batch,
            seed=seed,
            autocast=fits_bfloat16(device),
        ),
        partial(judge.learning_rate, steps=steps, peak=lr),
        steps=steps,
        save_every=recipe.save_every,
        facts={"seed": seed, "batch": batch},
        max_norm=judge.MAX_NORM,
    )


def _train_denoiser(work: Path, recipe: Recipe, device: torch.device) -> Iterator[Progress]:
    tokenizer, text_model = load_tower(work)
    torch.manual_seed(recipe.denoiser_seed)
    unet = new_unet().to(device)
    if (work / "unet").is_dir():
        unet.load_state_dict(load_unet(work / "unet").state_dict())
    use_plain_attention(unet, device)

    def learner(network: Callable[..., Any]) -> Learner:
        parameterization = parameterization_of(new_scheduler(), device)
        return denoiser.unet_learner(network, text_model.to(device), tokenizer, parameterization)

    return _train_generator("denoiser", work, recipe, device, unet, learner)


def _train_flow(work: Path, recipe: Recipe, device: torch.device) -> Iterator[Progress]:
    texts = flow.text_parts(*load_tower(work), recipe.flow_seed)
    torch.manual_seed(recipe.flow_seed)
    transformer = flow.new_transformer().to(device)

    def learner(network: Callable[..., Any]) -> Learner:
        return flow.flow_learner(network, transformer, texts, device)

    return _train_generator("flow", work, recipe, device, transformer, learner)


def _train_generator(
    part: str,
    work: Path,
    recipe: Recipe,
    device: torch.device,
    model: nn.Module,
    learner: Callable[[Callable[..., Any]], Learner],
) -> Iterator[Progress]:
    """Train a denoiser on the latents; `learner` is told what to call `model` through."""
    latents = torch.load(work / LATENTS, map_location=device, weights_only=True)
    names = ("seed", "phases", "falls", "lr")
    seed, phases, falls, lr = (getattr(recipe, f"{part}_{name}") for name in names)
    steps = sum(phase.steps for phase in phases)
    compiled = steps >= WORTH_COMPILING and can_compile(device)
    return train_with_checkpoints(
        work,
        part,
        new_state(model, lr=lr, weight_decay=WEIGHT_DECAY, averaged=True),
        partial(
            denoiser.batch_loss,
            learner(torch.compile(model, dynamic=False) if compiled else model),
            latents,
            scenes("train", recipe.pictures["train"], recipe.data_seed),
            phases=phases,
            seed=seed,
            autocast=fits_bfloat16(device),
        ),
        partial(denoiser.learning_rate, falls=falls, peak=lr),
        steps=steps,
        save_every=recipe.save_every,
        facts={
            "seed": seed,
            "batch": ", ".join(f"{phase.batch} for {phase.steps}" for phase in phases),
        },
    )


def _pictures(work: Path, split: str, recipe: Recipe) -> list[np.ndarray]:
    return load_split(work / "pictures", split, recipe.pictures[split], recipe.data_seed)


TRAINERS: dict[str, Callable[[Path, Recipe, torch.device], Iterator[Progress]]] = {
    "tower": _train_tower,
    "latents": _fit_latents,
    "autoencoder": _train_autoencoder,
    "judge": partial(_train_judge, "judge"),
    "second": partial(_train_judge, "second"),
    "denoiser": _train_denoiser,
    "flow": _train_flow,
}
PARTS = tuple(part for part in TRAINERS if part != "flow")
FLOW_PARTS = ("latents", "flow")
