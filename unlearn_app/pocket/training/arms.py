"""Arms: alternative settings of the denoiser's training, compared at equal cost. Each is trained
from the same start for as many steps as a CPU takes in a given time.
"""

import statistics
import tempfile
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...common.errors import ConfigError
from ...common.folder_lock import only_writer
from ...common.json_values import to_json
from ...common.paths import POCKET
from ...evaluation.judges.pocket_judge import PocketJudge
from ...models.device import choose_device, fits_bfloat16
from ...models.diffusers.loading import load_pipeline, save_pipeline
from ...models.diffusers.stable_diffusion import use_plain_attention
from ...models.parameterization import parameterization_of
from ..measures import generate_scenes, held_out_scenes, judge_scores, prompt_of, sample_scenes
from ..texts import load_tower
from ..world.dataset import rendered, scenes
from . import denoiser, tower
from .checkpoints import Progress, TrainingState, hardware, new_state, read_json, write_json
from .denoiser import EVEN, Phase, Weighting
from .latents import PatchBasis, load_basis
from .parts import new_scheduler, new_unet
from .recipe import (
    BASIS,
    FULL,
    KIND,
    LATENTS,
    WEIGHT_DECAY,
    Recipe,
    load_autoencoder,
)

ARMS_FILE, PACES_FILE = "arms.json", "paces.json"
PACED = 9
"""Steps that are timed to know the pace of an arm."""
HELD_OUT_T = (50, 200, 400, 600, 800, 950)
"""The timesteps at which arms are compared."""
HELD_OUT = 600
CHUNK = 100
WARM_UP = 0.02
"""Share of the steps in which the learning rate rises; it falls over the rest."""


@dataclass(frozen=True)
class Arm:
    """The settings of an arm: pictures in a batch, highest learning rate, weighting of timesteps in
    the loss, widths and blocks of the network, and its memory format.
    """

    batch: int = 64
    lr: float = 1e-3
    weighting: Weighting = EVEN
    widths: tuple[int, int] = (128, 192)
    blocks: int = 1
    channels_last: bool = False


ARMS: dict[str, Arm] = {
    "as trained": Arm(),
    "batch 32": Arm(batch=32),
    "batch 128": Arm(batch=128),
    "rate 0.0005": Arm(lr=5e-4),
    "rate 0.002": Arm(lr=2e-3),
    "more noise": Arm(weighting=Weighting(power=0.7)),
    "min-SNR-5 (2303.09556)": Arm(weighting=Weighting(min_snr=5.0)),
    "widths 96, 160": Arm(widths=(96, 160)),
    "widths 160, 224": Arm(widths=(160, 224)),
    "two blocks a level": Arm(blocks=2),
    "channels last": Arm(channels_last=True),
}


def compare_arms(
    work: Path, seconds: float, arms: Mapping[str, Arm] = ARMS, recipe: Recipe = FULL
) -> Iterator[Progress]:
    """Train every arm for as many steps as a CPU takes in `seconds`, and keep what it reached in
    `work`/arms.json; an arm that is kept there with these seconds is not tried again.

    The pace of each arm is measured first, on this CPU in float32, and kept in `work`/paces.json.
    So a GPU may train what is compared at the seconds of a CPU.

    Raises:
        ConfigError: the text encoder or the latents are missing, or there are no seconds.
        OutputError: another process is at work in `work`.
    """
    if not seconds > 0:
        raise ConfigError(f"Arms of {seconds:g} seconds train nothing; more than 0 is accepted.")
    with only_writer(work, KIND):
        paces = yield from _measured_paces(work, arms, recipe)
        path = work / ARMS_FILE
        kept = read_json(path)
        trial = Trial(work, recipe, choose_device())
        for done, (name, arm) in enumerate(arms.items()):
            yield Progress("arms", done, len(arms), name)
            setting = to_json({"seconds": seconds, "pace": paces[name], **asdict(arm)})
            if kept.get(name, {}).get("setting") != setting:
                steps = max(1, round(seconds / paces[name]["seconds"]))
                kept[name] = {"setting": setting, **trial.run(arm, steps)}
                write_json(path, kept)
        yield Progress("arms", len(arms), len(arms))


def _measured_paces(
    work: Path, arms: Mapping[str, Arm], recipe: Recipe
) -> Generator[Progress, None, dict[str, Any]]:
    """The pace of every arm on this CPU, the seconds of a step and the hardware; those in
    `work`/paces.json are kept.
    """
    path = work / PACES_FILE
    kept = read_json(path)
    settings = {name: to_json(asdict(arm)) for name, arm in arms.items()}
    missing = [name for name in arms if kept.get(name, {}).get("setting") != settings[name]]
    cpu = torch.device("cpu")
    trial = Trial(work, recipe, cpu) if missing else None
    for done, name in enumerate(missing):
        yield Progress("paces", done, len(missing), name)
        pace = {"seconds": trial.pace(arms[name]), "hardware": hardware(cpu)}
        kept[name] = {"setting": settings[name], "pace": pace}
        write_json(path, kept)
    return {name: kept[name]["pace"] for name in arms}


class Trial:
    """Trains arms; holds what they share: the data, the text encoder, the autoencoder, and the
    noise they are compared on.
    """

    def __init__(self, work: Path, recipe: Recipe, device: torch.device) -> None:
        self._recipe = recipe
        self._device = device
        try:
            self._tokenizer, self._text_model = load_tower(work)
            self._latents = torch.load(work / LATENTS, map_location=device, weights_only=True)
        except FileNotFoundError as error:
            raise ConfigError(
                f"Arms need {error.filename}; run `pocket render` and `pocket train --part latents`"
                " first.",
                "work",
            ) from error
        self._text_model.to(device)
        self._autoencoder = load_autoencoder(work, recipe)
        self._scenes = scenes("train", recipe.pictures["train"], recipe.data_seed)
        self._parameterization = parameterization_of(new_scheduler(), device)
        self._held_out = self._held_out_batches(load_basis(work / BASIS))

    def pace(self, arm: Arm) -> float:
        """The median of the seconds of a step in float32."""
        state = self._begun(arm)
        spent = []
        for _ in range(PACED):
            started = time.perf_counter()
            self._step(arm, state, arm.lr, autocast=False)
            spent.append(time.perf_counter() - started)
        return statistics.median(spent)

    def run(self, arm: Arm, steps: int) -> dict[str, Any]:
        """Train `arm` for `steps`: its entry of arms.json without the setting, with the pictures it
        saw, its held-out losses and the judge's scores.
        """
        state = self._begun(arm)
        for step in range(steps):
            lr = arm.lr * min((step + 1) / (WARM_UP * steps), 1 - step / steps, 1.0)
            self._step(arm, state, lr, autocast=fits_bfloat16(self._device))
        unet = state.model
        unet.load_state_dict(state.ema)
        losses = self._losses(unet.eval())
        return {
            "hardware": hardware(self._device),
            "steps": state.step,
            "pictures": state.step * arm.batch,
            "losses": losses,
            "loss": statistics.mean(losses.values()),
            "judge": self._judged(unet),
        }

    def _begun(self, arm: Arm) -> TrainingState:
        torch.manual_seed(self._recipe.denoiser_seed)
        unet = new_unet(arm.widths, arm.blocks).to(self._device)
        use_plain_attention(unet, self._device)
        if arm.channels_last:
            unet.to(memory_format=torch.channels_last)
        return new_state(unet.train(), lr=arm.lr, weight_decay=WEIGHT_DECAY, averaged=True)

    def _step(self, arm: Arm, state: TrainingState, lr: float, autocast: bool) -> None:
        loss = denoiser.batch_loss(
            denoiser.unet_learner(
                state.model, self._text_model, self._tokenizer, self._parameterization
            ),
            self._latents,
            self._scenes,
            phases=[Phase(1, arm.batch)],
            seed=self._recipe.denoiser_seed,
            autocast=autocast,
            step=state.step,
            weighting=arm.weighting,
        )
        state.update(loss, lr, max_norm=1.0)

    def _held_out_batches(self, basis: PatchBasis) -> list[tuple[Tensor, ...]]:
        """Latents, noise and text states of held-out compositions, each in batches."""
        shown = held_out_scenes(HELD_OUT)
        x0 = basis.encode(rendered(shown))
        noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
        tokens = tower.tokenize(self._tokenizer, [prompt_of(scene) for scene in shown])
        with torch.no_grad():
            cond = self._text_model(tokens.to(self._device)).last_hidden_state
        return [part.to(self._device).split(CHUNK) for part in (x0, noise, cond)]

    @torch.no_grad()
    def _losses(self, unet: nn.Module) -> dict[int, float]:
        """Mean squared error of v on held-out compositions, by timestep, without weights."""
        found = {}
        for timestep in HELD_OUT_T:
            errors = []
            for x0, noise, cond in zip(*self._held_out, strict=True):
                t = torch.full((len(x0),), timestep, device=self._device)
                x_t = self._parameterization.add_noise(x0, noise, t)
                error = unet(x_t, t, cond).sample - self._parameterization.target(x0, noise, t)
                errors.append(error.square().mean((1, 2, 3)))
            found[timestep] = torch.cat(errors).mean().item()
        return found

    def _judged(self, unet: nn.Module) -> dict[str, float]:
        """The bundled judge's scores of one generated picture of every object in every style."""
        with tempfile.TemporaryDirectory() as folder:
            save_pipeline(
                folder,
                unet=unet,
                vae=self._autoencoder,
                text_encoder=self._text_model,
                tokenizer=self._tokenizer,
                scheduler=new_scheduler(),
            )
            model = load_pipeline(folder, "pocket")
            wanted = sample_scenes(1)
            pictures = generate_scenes(model, wanted, steps=12, guidance_scale=2.0)
        return judge_scores(PocketJudge.load(POCKET / "judge"), pictures, wanted)
