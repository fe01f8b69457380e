"""What methods, training and attacks may ask of a model, in small protocols, and the batches they
train on.

A function takes the narrowest protocol that it uses. A model offers all of them; `TokenAccess` is
optional.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol, get_args

import torch
from torch import Tensor

from ..common.errors import ConfigError, ShouldStop, never
from .conditioning import Conditioning
from .parameterization import Parameterization

if TYPE_CHECKING:
    from .replacement import Replacement

Slot = Literal["unlearn", "relearn"]
Params = dict[str, Tensor]
"""Tensors by name: a slot's factors `LAYER.lora_A.SLOT.weight` (rank, in) and
`LAYER.lora_B.SLOT.weight` (out, rank), or weights of the denoiser.
"""


@dataclass(frozen=True)
class NoisyBatch:
    """One noised training batch.

    `x0, noise, x_t` are latents (B, C, H, W) and `t` (B,) the timesteps of the model's
    parameterization; `cond, null, anchor` have B rows: the prompt, the empty prompt, and the prompt
    with the anchor in the concept's place.
    """

    x0: Tensor
    noise: Tensor
    t: Tensor
    x_t: Tensor
    cond: Conditioning
    null: Conditioning
    anchor: Conditioning

    def split(self, size: int | None) -> "Iterator[tuple[float, NoisyBatch]]":
        """The batch in parts of at most `size` rows, each with its share of all rows; whole where
        `size` is None.
        """
        count = len(self.x0)
        for start in range(0, count, size or count):
            rows = slice(start, start + (size or count))
            parts = (self.x0, self.noise, self.t, self.x_t)
            conds = (self.cond, self.null, self.anchor)
            own = NoisyBatch(*(part[rows] for part in parts), *(cond.rows(rows) for cond in conds))
            yield len(own.x0) / count, own


@dataclass(frozen=True)
class MetaBatch:
    """The batches of one simulated attack, and those that the attacked model is measured on.

    `support` are the attack's batches in order. `support` and `forget` show the concept and share
    no picture; `related` and `unrelated` do not show it. `seed` draws the adversary's adapter.
    """

    support: tuple[NoisyBatch, ...]
    forget: NoisyBatch
    related: NoisyBatch
    unrelated: NoisyBatch
    seed: int


@dataclass(frozen=True)
class SamplingOverrides:
    """How sampling differs from plain sampling of a prompt; by default not at all.

    Each step adds `eta` times DDIM's share of fresh noise; None is what the model's own scheduler
    adds. The first noise is multiplied by `noise_scale`. The original model takes the first
    `original_steps`. Sampling starts from `pictures` (B, 3, H, W) in [-1, 1], noised to the share
    `strength` of the way; where `mask` (B, 1, H, W) of the latents is 0 they are kept.
    """

    eta: float | None = None
    noise_scale: float = 1.0
    original_steps: int = 0
    pictures: Tensor | None = None
    strength: float = 1.0
    mask: Tensor | None = None

    def rows(self, rows: slice) -> "SamplingOverrides":
        """The same for some of the pictures."""
        return replace(
            self,
            pictures=None if self.pictures is None else self.pictures[rows],
            mask=None if self.mask is None else self.mask[rows],
        )


NO_OVERRIDES = SamplingOverrides()


class Denoiser(Protocol):
    """A network that predicts at noised latents: all that objectives and the loop ask for."""

    parameterization: Parameterization
    rows_at_once: int | None = None
    """Of how many rows of a batch the gradient is taken at once, to save memory; None is all."""

    def predict(
        self, x_t: Tensor, t: Tensor, cond: Conditioning, params: Params | None = None
    ) -> Tensor:
        """The prediction (B, C, H, W) with the active adapters, in at least float32.

        `params` replaces tensors by name; they may be all the weights, as `weights` returns them,
        while no adapter is active.
        """

    def frozen(self, x_t: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        """The prediction of the original model: adapters off, no gradient."""

    def weights(self, slot: Slot | None = None, params: Params | None = None) -> Params:
        """All weights by name, in at least float32, with the update of `slot` added.

        Differentiable in what the slot holds, of which `params` replaces some by name.
        """

    def active(self, *slots: Slot) -> AbstractContextManager[None]:
        """Use exactly `slots` for prediction and sampling; none is the original model."""


class Adapters(Protocol):
    """Two fixed slots over the weights of a denoiser, each for a LoRA adapter or for weights that
    replace the original ones.
    """

    def reset_adapter(
        self, slot: Slot, rank: int, alpha: float, seed: int, modules: str = "all"
    ) -> Params:
        """Put a fresh adapter into `slot` and return its factors: B is zero, so the model is
        unchanged.

        `modules` are the layers that carry it, as `UnlearnConfig.modules` names them.

        Raises:
            ConfigError: the model has no such layers.
        """

    def reset_weights(self, slot: Slot, modules: str = "all") -> Params:
        """Put copies of weights into `slot`, in at least float32, and return them by name.

        They are all of the denoiser with `modules` "all", all but those of cross-attention with
        "not_cross", and those of the layers that `reset_adapter` adapts otherwise.

        Raises:
            ConfigError: the model has no such layers.
        """

    def drop_adapters(self) -> None:
        """Empty both slots."""

    def adapter_state(self, slot: Slot) -> Params:
        """A CPU copy of the adapter's factors, in diffusers' file naming, with scale 1, or of the
        differences between the slot's weights and the original ones.

        Raises:
            KeyError: the slot is empty.
        """

    def load_adapter(self, slot: Slot, state: Params) -> None:
        """Replace what is in `slot` by an adapter that covers any of the layers, each with a rank
        of its own, by their names here or in files of others (`read_adapter`), or by the weights
        that differ as `state` says.

        Raises:
            ModelError: its factors do not fit this model.
        """

    @property
    def replacement(self) -> "Replacement | None":
        """The other model that is in the slot `unlearn` in the place of an adapter, if one is."""

    @property
    def rereads(self) -> bool:
        """Whether what is in the slot `unlearn` reads prompts otherwise than the original."""

    def load_replacement(self, replacement: "Replacement") -> None:
        """Put another model into the slot `unlearn`: while the slot is active or merged, that model
        predicts, reads prompts and decodes.
        """

    def scaled(self, slot: Slot, factor: float) -> AbstractContextManager[None]:
        """Multiply the update in `slot` by `factor`.

        Raises:
            KeyError: the slot is empty.
        """

    def training(self, slot: Slot) -> AbstractContextManager[Params]:
        """Use `slot` alone, with gradients, and yield its factors or weights."""

    def merged(self, slot: Slot) -> AbstractContextManager[None]:
        """Add the update of `slot` to the base weights; they are restored bit for bit."""

    def trainable_base_weights(self, slot: Slot) -> AbstractContextManager[Params]:
        """All weights with the update of `slot` merged in, as float32 copies to train; the
        originals are restored bit for bit.

        Adapters are off inside.
        """

    def base_weight_grads(self, slot: Slot) -> AbstractContextManager[Params]:
        """Give the original weights under `slot` gradients, by the names of its B factors, or by
        their own where it holds weights.
        """


class TextEncoder(Protocol):
    """What turns prompts into conditioning."""

    def encode_text(self, prompts: Sequence[str]) -> Conditioning:
        """The conditioning of each prompt, without gradients."""


class TokenAccess(Protocol):
    """The tokens behind the text states, and the matrices that read the states.

    Optional: get it by `token_access`.
    """

    device: torch.device
    roundtrip_token_ids: Tensor
    """Ids of the tokens whose text, typed, is read as the same token."""

    def token_ids(self, prompt: str) -> list[int]:
        """Ids of the prompt's tokens with start and end, in the order of its text states."""

    def words(self, ids: Sequence[int]) -> str:
        """The text of tokens, without start and end."""

    def word_vectors(self) -> Tensor:
        """The text encoder's embedding of each token: (V, E), one row per id."""

    def encode_ids(self, ids: Tensor, extra: Tensor | None = None) -> Conditioning:
        """The conditioning of whole rows of ids (B, L), with start, end and padding.

        Ids from V on read the rows of `extra` (K, E) instead of a token's embedding; the states are
        differentiable in them.
        """

    def padded(self, ids: Sequence[int]) -> list[int]:
        """Ids between a start and an end token, cut or padded to the length L of text states."""

    def cross_weights(self) -> Params:
        """The matrices (out, D) that turn text states into keys and values, by layer name."""


class Sampler(Protocol):
    """Pictures from prompts, and between pictures and latents."""

    latent_shape: tuple[int, int, int]
    enlarged: int
    """Pixels of a picture along each side of a latent."""
    scheduler: str
    """The name of the model's own scheduler, as diffusers calls it."""

    def sample(
        self,
        prompts: Sequence[str] | Conditioning,
        seeds: Sequence[int],
        *,
        steps: int,
        guidance_scale: float,
        should_stop: ShouldStop = never,
        overrides: SamplingOverrides = NO_OVERRIDES,
        size: tuple[int, int] | None = None,
        negative: str = "",
    ) -> Tensor:
        """Latents (B, C, H, W) under the active adapters, one generator per picture.

        `size` is the pictures' width and height in pixels, by default the model's own; guidance
        leads away from `negative`.

        Raises:
            Cancelled: `should_stop` turned true between two denoising steps.
        """

    def of_resolution(self, pixels: int) -> AbstractContextManager[None]:
        """A context in which all pictures and latents have that longer side, in the proportions of
        the model's own; 0 is its own.

        Raises:
            ConfigError: latents do not divide it.
        """

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [-1, 1], float32 on the CPU."""

    def encode_pictures(self, pictures: Tensor) -> Tensor:
        """Latents (B, C, H, W) of pictures (B, 3, H, W) in [-1, 1]."""


class Model(Denoiser, Adapters, TextEncoder, Sampler, Protocol):
    """A text-to-image diffusion model, for code that needs several of its sides."""

    name: str
    base_hash: str
    device: torch.device


def token_access(model: Model, wanted_by: str) -> TokenAccess:
    """`model`, checked to offer `TokenAccess`; errors say that `wanted_by` needs it.

    Raises:
        ConfigError: it does not.
    """
    if not hasattr(model, "encode_ids"):
        raise ConfigError(
            f"{wanted_by} needs single tokens, which the model {model.name} does not offer; a model"
            " whose text encoder reads rows of token ids is accepted.",
            "model",
        )
    return model


@contextmanager
def slots_kept(model: Adapters) -> Iterator[None]:
    """Restore what is in both slots on exit, errors included."""
    before: dict[Slot, Params] = {}
    replacement = model.replacement
    for slot in get_args(Slot):
        with suppress(KeyError):
            before[slot] = model.adapter_state(slot)
    try:
        yield
    finally:
        model.drop_adapters()
        if replacement:
            model.load_replacement(replacement)
        for slot, state in before.items():
            model.load_adapter(slot, state)
