"""The judge of the bundled world: a small image-text model with a head per axis, trained apart from
what it judges.

A dual encoder as CLIP (2103.00020); it shares neither weights nor tokenizer with the text tower
that conditions the denoiser.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from ...common.errors import ModelError
from ...common.paths import POCKET
from ...common.record_files import sha256_of
from ...common.registry import register
from ...concepts.concept import Concept
from . import Installed, Judge

SIDE = 64
WIDTH = 128
WORD_WIDTH = 96
MAX_WORDS = 20
PADDING, OTHER = 0, 1
WEIGHTS_FILE, CONFIG_FILE = "judge.safetensors", "judge.json"


class Residual(nn.Module):
    """Two 3 x 3 convolutions around a shortcut; `stride` 2 halves the picture."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)
        self.shortcut = (
            nn.Conv2d(inputs, outputs, 1, bias=False) if inputs != outputs else nn.Identity()
        )
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        branch = self.second_norm(self.second(F.relu(self.first_norm(self.first(x)))))
        return F.relu(
            branch + self.shortcut(F.avg_pool2d(x, self.stride) if self.stride > 1 else x)
        )


class JudgeNet(nn.Module):
    """Image tower with classification heads, and a word tower, meeting in one embedding space."""

    def __init__(self, words: Sequence[str], axes: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        self.words = {word: index for index, word in enumerate(words, start=OTHER + 1)}
        self.image = nn.Sequential(
            nn.Conv2d(3, 32, 4, 2, 1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            Residual(32, 32, 1),
            Residual(32, 64, 2),
            Residual(64, 64, 1),
            Residual(64, WIDTH, 2),
            Residual(WIDTH, WIDTH, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.image_out = nn.Linear(WIDTH, WIDTH)
        self.heads = nn.ModuleDict(
            {axis: nn.Linear(WIDTH, len(names)) for axis, names in axes.items()}
        )
        self.embedding = nn.Embedding(len(words) + OTHER + 1, WORD_WIDTH, padding_idx=PADDING)
        self.word_layers = nn.ModuleList(
            nn.Conv1d(WORD_WIDTH, WORD_WIDTH, 3, padding=1) for _ in range(2)
        )
        self.text_out = nn.Sequential(nn.Linear(WORD_WIDTH, 256), nn.ReLU(), nn.Linear(256, WIDTH))
        self.log_scale = nn.Parameter(torch.tensor(2.7))

    def features(self, images: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [-1, 1], of any size, to features (B, WIDTH)."""
        return self.image(F.interpolate(images, (SIDE, SIDE), mode="area"))

    def stages(self, images: Tensor) -> list[Tensor]:
        """What every block of the image tower gives (B, C, h, w) of pictures (B, 3, H, W) in [-1,
        1].
        """
        hidden, seen = F.interpolate(images, (SIDE, SIDE), mode="area"), []
        for layer in self.image:
            hidden = layer(hidden)
            if isinstance(layer, Residual):
                seen.append(hidden)
        return seen

    def embed_images(self, features: Tensor) -> Tensor:
        """Features to unit vectors (B, WIDTH)."""
        return F.normalize(self.image_out(features), dim=1)

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Word numbers (B, MAX_WORDS); a word outside of the vocabulary becomes `OTHER`."""
        tokens = torch.full((len(texts), MAX_WORDS), PADDING)
        for row, text in enumerate(texts):
            numbers = [self.words.get(word, OTHER) for word in split_words(text)][:MAX_WORDS]
            tokens[row, : len(numbers)] = torch.tensor(numbers, dtype=torch.long)
        return tokens

    def embed_texts(self, tokens: Tensor) -> Tensor:
        """Word numbers (B, MAX_WORDS) to unit vectors (B, WIDTH)."""
        present = (tokens != PADDING).unsqueeze(1)
        hidden = self.embedding(tokens).transpose(1, 2)
        for layer in self.word_layers:
            hidden = (hidden + F.relu(layer(hidden))) * present
        pooled = hidden.sum(2) / present.sum(2).clamp_min(1).sqrt()
        return F.normalize(self.text_out(pooled), dim=1)


def split_words(text: str) -> list[str]:
    """Lower-case words of `text`, punctuation dropped."""
    return re.findall(r"[^\W_]+", text.lower())


class BundledJudge:
    """A judge whose files lie beside a bundled model: a network with `features` and a head per
    axis.
    """

    name: ClassVar[str]
    folder: ClassVar[str]
    """Its folder among the world's files."""
    network: ClassVar[type[nn.Module]]
    """Its network, which is made of what the JSON file there holds."""

    def __init__(self, net: nn.Module, axes: Mapping[str, Sequence[str]], version: str) -> None:
        self._net, self._axes, self.version = net.eval().requires_grad_(False), axes, version

    @classmethod
    def for_world(cls, world: Any, concepts: Sequence[Concept]) -> "BundledJudge | None":
        """The judge among the world's own."""
        return cls.load(world.assets / cls.folder) if world.assets else None

    @classmethod
    def asked(cls, world: Any, concepts: Sequence[Concept], place: str | None) -> "BundledJudge":
        """The judge in the folder `place`, or the world's own.

        Raises:
            ModelError: its files are missing or damaged, or the world has none.
        """
        if place is None and world.assets is None:
            raise ModelError(
                f"The judge {cls.name} only knows the bundled world; clip judges {world.model!r}."
            )
        return cls.load(Path(place) if place else world.assets / cls.folder)

    @classmethod
    def installed(cls) -> Installed:
        """Whether its files are beside the bundled model."""
        return Installed((POCKET / cls.folder / WEIGHTS_FILE).is_file(), "ships with it", "")

    @classmethod
    def load(cls, folder: Path) -> "BundledJudge":
        """The judge saved in `folder`.

        Raises:
            ModelError: its files are missing or damaged.
        """
        try:
            config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
            net = cls.network(**config)
            net.load_state_dict(load_file(folder / WEIGHTS_FILE))
        except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
            raise ModelError(
                f"The judge in {str(folder)!r} cannot be loaded: {type(error).__name__}."
            ) from error
        return cls(net, config["axes"], sha256_of(folder / WEIGHTS_FILE)[:12])

    def classes(self, axis: str) -> list[str]:
        """The classes of "object", "style" or "setting", in the order of `classify`'s columns."""
        return list(self._axes[axis])

    @torch.no_grad()
    def classify(self, images: Tensor, axis: str) -> Tensor:
        """Probabilities (B, classes) of pictures (B, 3, H, W) in [-1, 1]."""
        return self._net.heads[axis](self.features(images)).softmax(1)

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """What the heads see (B, D) of pictures (B, 3, H, W) in [-1, 1], for distances of
        distributions.
        """
        return self._net.features(images.float().cpu())


@register("judge", "pocket_judge")
class PocketJudge(BundledJudge):
    """A small image-text model with a head per axis that judges the bundled world."""

    scores: ClassVar[bool] = True
    name = "pocket-judge"
    folder = "judge"
    network = JudgeNet
    others: tuple[Judge, ...] = ()

    @torch.no_grad()
    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Cosine (B,) of each picture (B, 3, H, W) in [-1, 1] with its own prompt."""
        pictures = self._net.embed_images(self.features(images))
        return (pictures * self._net.embed_texts(self._net.tokenize(prompts))).sum(1)

    @torch.no_grad()
    def distance(self, images: Tensor, others: Tensor) -> Tensor:
        """How different (B,) two pictures (B, 3, H, W) in [-1, 1] look, from 0 to about 1.

        LPIPS (1801.03924) without its learned weights, over this network's blocks: channels to unit
        length, half the squared difference, mean over places and blocks.
        """
        pairs = zip(
            *(self._net.stages(side.float().cpu()) for side in (images, others)), strict=True
        )
        apart = [
            0.5 * (F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(1).mean((1, 2))
            for a, b in pairs
        ]
        return torch.stack(apart).mean(0)
