"""The text tower: a byte-level BPE tokenizer and a small CLIP text model, trained on captions."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from ..world import grammar
from ..world.vocabulary import NAMES

MAX_TOKENS = 24
WIDTH = 128
BATCH = 128


def build_tokenizer(folder: Path, seed: int) -> None:
    """Train the tokenizer on sample captions and save it to `folder` in CLIP's own format."""
    rng = random.Random(seed)
    corpus = [
        grammar.training_caption(*(rng.choice(names) for names in NAMES.values()), rng)
        for _ in range(40_000)
    ]
    bpe = Tokenizer(models.BPE(unk_token="<|endoftext|>", end_of_word_suffix="</w>"))
    bpe.normalizer = normalizers.Lowercase()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(" ", "removed"),
            pre_tokenizers.Punctuation(),
            pre_tokenizers.ByteLevel(False, use_regex=False),
        ]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        corpus,
        trainers.BpeTrainer(
            vocab_size=4000, min_frequency=2, initial_alphabet=alphabet, end_of_word_suffix="</w>"
        ),
    )
    merges = [tuple(pair) for pair in json.loads(bpe.to_str())["model"]["merges"]]
    symbols = sorted(alphabet)
    tokens = dict.fromkeys(
        [
            *symbols,
            *(f"{symbol}</w>" for symbol in symbols),
            *("".join(pair) for pair in merges),
            "<|startoftext|>",
            "<|endoftext|>",
        ]
    )
    tokenizer = CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=merges,
        model_max_length=MAX_TOKENS,
    )
    tokenizer.save_pretrained(folder)


def tokenize(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    """Token ids (B, MAX_TOKENS), padded and truncated as `StableDiffusionPipeline` does it."""
    return tokenizer(
        texts, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
    ).input_ids


def new_text_model(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """An untrained text tower for `tokenizer`."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        projection_dim=WIDTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def _drawn_parts(rng: random.Random) -> tuple[str | None, str | None, str | None]:
    draw = rng.random()
    return (
        None if draw < 0.06 else rng.choice(NAMES["object"]),
        None if 0.06 <= draw < 0.2 else rng.choice(NAMES["style"]),
        None if draw > 0.9 else rng.choice(NAMES["setting"]),
    )


def train_tower(
    tokenizer: CLIPTokenizer, model: CLIPTextModel, steps: int, seed: int
) -> Iterator[tuple[int, float]]:
    """Train `model` to classify object, style and setting of a caption by its pooled output; yields
    (step, accuracy).

    The captions name fresh objects and styles too, so that the tower tells them apart although the
    denoiser never sees them.
    """
    rng = random.Random(seed)
    torch.manual_seed(seed)
    heads = nn.ModuleDict({a: nn.Linear(WIDTH, len(names) + 1) for a, names in NAMES.items()})
    optimizer = torch.optim.AdamW(
        [*model.parameters(), *heads.parameters()], lr=1e-3, weight_decay=1e-3
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    model.train()
    for step in range(1, steps + 1):
        parts = [_drawn_parts(rng) for _ in range(BATCH)]
        ids = tokenize(tokenizer, [grammar.caption(*p, rng) for p in parts])
        pooled = model(ids).pooler_output
        loss = pooled.new_zeros(())
        right = torch.ones(BATCH, dtype=torch.bool)
        for (axis, names), column in zip(NAMES.items(), zip(*parts, strict=True), strict=True):
            target = torch.tensor([names.index(name) if name else len(names) for name in column])
            logits = heads[axis](pooled)
            loss = loss + nn.functional.cross_entropy(logits, target)
            right &= logits.argmax(1) == target
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        yield step, right.float().mean().item()
    model.eval().requires_grad_(False)
