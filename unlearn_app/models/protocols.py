"""The contract between the methods and a model: what every backend offers, and the batches they
train on.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import torch
from torch import Tensor

Slot = Literal["unlearn", "relearn"]
SLOTS: tuple[Slot, ...] = ("unlearn", "relearn")
Params = dict[str, Tensor]
"""Trainable tensors of one adapter slot by name."""


@dataclass(frozen=True)
class NoisyBatch:
    """One noised training batch.

    `x0, noise, x_t` are latents (B, C, H, W); `t` (B,) counts from 0; `cond, null, anchor` are text
    states (B, L, D) of the prompt, of the empty prompt and of the prompt with the anchor in the
    concept's place.
    """

    x0: Tensor
    noise: Tensor
    t: Tensor
    x_t: Tensor
    cond: Tensor
    null: Tensor
    anchor: Tensor


@dataclass(frozen=True)
class MetaBatch:
    """What one look ahead needs: an attack's batches in order, and what is asked of the attacked
    model.

    `support` and `forget` are pictures of the concept and share none; `related` and `unrelated` are
    harmless. `seed` draws the simulated adversary's fresh factors.
    """

    support: tuple[NoisyBatch, ...]
    forget: NoisyBatch
    related: NoisyBatch
    unrelated: NoisyBatch
    seed: int


@dataclass(frozen=True)
class SamplingOverrides:
    """How sampling departs from the plain DDIM of a prompt; by default not at all.

    `eta` times DDIM's own share of fresh noise is added in each step, and the first noise is
    scaled. The first `original_steps` are the original model's. `pictures` (B, 3, H, W) in [-1, 1]
    are noised as far as `strength` (of 1, the whole way) and painted on from there; where `mask`
    (B, 1, H, W) of the latents is 0 they stay.
    """

    eta: float = 0.0
    noise_scale: float = 1.0
    original_steps: int = 0
    pictures: Tensor | None = None
    strength: float = 1.0
    mask: Tensor | None = None

    def rows(self, rows: slice) -> "SamplingOverrides":
        """The same for some of the pictures."""
        pictures = None if self.pictures is None else self.pictures[rows]
        return replace(self, pictures=pictures, mask=None if self.mask is None else self.mask[rows])


NO_OVERRIDES = SamplingOverrides()


class Backend(Protocol):
    """A text-to-image diffusion model with two fixed adapter slots."""

    name: str
    base_hash: str
    device: torch.device
    timesteps: int
    latent_shape: tuple[int, int, int]
    roundtrip_token_ids: Tensor
    """Ids of the tokens that are read again when their text is typed; bytes that are no letter are
    not.
    """

    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """Text states (B, L, D)."""

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """`x_t` (B, C, H, W) of the model's forward process."""

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the model is trained to predict at `x_t`, in its own parameterization (epsilon or
        v).
        """

    def predict(self, x_t: Tensor, t: Tensor, cond: Tensor, params: Params | None = None) -> Tensor:
        """The prediction with the active adapters, in at least float32; `params` replaces tensors
        by name.

        Under `active()` they may be all the weights, as `weights` returns them.
        """

    def frozen(self, x_t: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """The prediction of the original model: adapters off, no gradient."""

    def token_ids(self, prompt: str) -> list[int]:
        """Ids of the prompt's tokens with start and end, as they stand in the rows of its text
        state.
        """

    def words(self, ids: Sequence[int]) -> str:
        """The text of tokens, without start and end."""

    def word_vectors(self) -> Tensor:
        """What the text encoder reads of each token: (V, E), one row per id."""

    def encode_ids(self, ids: Tensor, extra: Tensor | None = None) -> Tensor:
        """Text states (B, L, D) of whole rows of ids (B, L), with start, end and padding, by the
        encoder itself.

        Ids from V on read the rows of `extra` (K, E) instead of a token's, and the states are
        differentiable in them.
        """

    def padded(self, ids: Sequence[int]) -> list[int]:
        """Ids between a start and an end token, cut or padded to the length that the text encoder
        reads.
        """

    def reset_adapter(
        self, slot: Slot, rank: int, alpha: float, seed: int, modules: str = "all"
    ) -> Params:
        """Put a fresh adapter into `slot` and return its tensors: B is zero, so the model is
        unchanged.

        `modules` are the layers that carry it, as `UnlearnConfig.modules` names them.
        """

    def cross_weights(self) -> Params:
        """The matrices (out, in) that turn text states into keys and values, by layer name."""

    def base_weight_grads(self, slot: Slot) -> AbstractContextManager[Params]:
        """Give the dense weights under the layers of `slot` gradients, by the names of the slot's B
        factors.
        """

    def drop_adapters(self) -> None:
        """Empty both slots."""

    def adapter_state(self, slot: Slot) -> Params:
        """A CPU copy of the adapter's tensors, in diffusers' file naming.

        Raises:
            KeyError: the slot is empty.
        """

    def load_adapter(self, slot: Slot, state: Params) -> None:
        """Replace the adapter in `slot` by one that covers any of the layers, with one rank."""

    def training(self, slot: Slot) -> AbstractContextManager[Params]:
        """Activate `slot` alone with gradients, yielding its tensors."""

    def active(self, *slots: Slot) -> AbstractContextManager[None]:
        """Activate exactly `slots` for prediction and sampling; none is the original model."""

    def weights(self, slot: Slot | None = None, params: Params | None = None) -> Params:
        """All weights of the denoiser by name, in at least float32, with the update of `slot`
        added.

        Differentiable in the slot's factors, of which `params` replaces some by name.
        """

    def trainable_base_weights(self, slot: Slot | None = None) -> AbstractContextManager[Params]:
        """All weights with the update of `slot` merged in, float32 copies to train; restored bit
        for bit afterwards.

        Adapters are off inside.
        """

    def merged(self, slot: Slot) -> AbstractContextManager[None]:
        """Add the update of `slot` into the base weights, and restore them bit for bit
        afterwards.
        """

    def sample(
        self,
        prompts: Sequence[str] | Tensor,
        seeds: Sequence[int],
        *,
        steps: int,
        guidance_scale: float,
        should_stop: Callable[[], bool] = lambda: False,
        overrides: SamplingOverrides = NO_OVERRIDES,
    ) -> Tensor:
        """Latents (B, C, H, W) under the active adapters, one generator per picture.

        `prompts` may be text states (B, L, D).

        Raises:
            Cancelled: `should_stop` turned true between two denoising steps.
        """

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [-1, 1], float32 on the CPU."""

    def encode_pictures(self, pictures: Tensor) -> Tensor:
        """Latents (B, C, H, W) of pictures (B, 3, H, W) in [-1, 1]."""


@contextmanager
def slots_kept(backend: Backend) -> Iterator[None]:
    """Whatever happens inside, the adapter slots hold afterwards what they held before."""
    before: dict[Slot, Params] = {}
    for slot in SLOTS:
        with suppress(KeyError):
            before[slot] = backend.adapter_state(slot)
    try:
        yield
    finally:
        backend.drop_adapters()
        for slot, state in before.items():
            backend.load_adapter(slot, state)


def in_chunks(count: int, size: int) -> Iterator[slice]:
    """Slices that cover `count` rows in pieces of `size`."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
