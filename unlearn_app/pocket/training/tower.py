"""The text tower: a byte-level BPE tokenizer and a small CLIP text model, trained on captions."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from ..world import grammar
from ..world.vocabulary import FRESH_OBJECTS, FRESH_STYLES, OBJECTS, SETTINGS, STYLES

MAX_TOKENS = 24
WIDTH = 128
ALL_OBJECTS = tuple(entry.name for entry in (*OBJECTS, *FRESH_OBJECTS))
ALL_STYLES = tuple(entry.name for entry in (*STYLES, *FRESH_STYLES))
ALL_SETTINGS = tuple(entry.name for entry in SETTINGS)


def build_tokenizer(folder: Path, seed: int = 0) -> CLIPTokenizer:
    """Train the tokenizer on sample captions and save it to `folder` in CLIP's own format."""
    rng = random.Random(seed)
    corpus = [
        grammar.training_caption(
            rng.choice(ALL_OBJECTS), rng.choice(ALL_STYLES), rng.choice(ALL_SETTINGS), rng
        )
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
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        corpus,
        trainers.BpeTrainer(
            vocab_size=4000, min_frequency=2, initial_alphabet=alphabet, end_of_word_suffix="</w>"
        ),
    )
    learned = json.loads(bpe.to_str())["model"]
    merges = [tuple(pair) for pair in learned["merges"]]
    symbols = sorted(alphabet)
    vocabulary = [
        *symbols,
        *(f"{symbol}</w>" for symbol in symbols),
        *("".join(pair) for pair in merges),
    ]
    vocabulary = [*dict.fromkeys(vocabulary), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(
        vocab={token: index for index, token in enumerate(vocabulary)},
        merges=merges,
        model_max_length=MAX_TOKENS,
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


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
        None if draw < 0.06 else rng.choice(ALL_OBJECTS),
        None if 0.06 <= draw < 0.2 else rng.choice(ALL_STYLES),
        None if draw > 0.9 else rng.choice(ALL_SETTINGS),
    )


def train_tower(
    tokenizer: CLIPTokenizer, model: CLIPTextModel, steps: int, seed: int, batch_size: int = 128
) -> Iterator[tuple[int, float]]:
    """Train `model` to classify object, style and setting of a caption by its pooled output; yields
    (step, accuracy).

    The captions name fresh objects and styles too, so that the tower tells them apart although the
    denoiser never sees them.
    """
    rng = random.Random(seed)
    torch.manual_seed(seed)
    vocabularies = (ALL_OBJECTS, ALL_STYLES, ALL_SETTINGS)
    heads = nn.ModuleList(nn.Linear(WIDTH, len(names) + 1) for names in vocabularies)
    optimizer = torch.optim.AdamW(
        [*model.parameters(), *heads.parameters()], lr=1e-3, weight_decay=1e-3
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    model.train()
    for step in range(1, steps + 1):
        parts = [_drawn_parts(rng) for _ in range(batch_size)]
        ids = tokenize(tokenizer, [grammar.caption(*p, rng) for p in parts])
        pooled = model(ids).pooler_output
        loss = pooled.new_zeros(())
        right = torch.ones(batch_size, dtype=torch.bool)
        for names, head, column in zip(vocabularies, heads, zip(*parts, strict=True), strict=True):
            target = torch.tensor([names.index(name) if name else len(names) for name in column])
            logits = head(pooled)
            loss = loss + nn.functional.cross_entropy(logits, target)
            right &= logits.argmax(1) == target
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        yield step, right.float().mean().item()
    model.eval().requires_grad_(False)
