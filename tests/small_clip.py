"""A small judge of CLIP's own class, which learns the styles of the bundled world from renderings
in seconds: what people load with `--judge clip=FOLDER`, without weights from elsewhere.
"""

import random
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from unlearn_app.common.paths import POCKET
from unlearn_app.evaluation.judges.clip import caption_of
from unlearn_app.pocket.world.rendering import Scene

PICTURES, STEPS, BATCH, RATE = 1000, 120, 64, 3e-3


def small_clip() -> tuple[CLIPModel, CLIPTokenizer]:
    """An untrained network, and the tokenizer of the bundled model."""
    tokenizer = CLIPTokenizer.from_pretrained(POCKET / "pipeline" / "tokenizer")
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4}
    text = sizes | {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 32,
        "num_hidden_layers": 1,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = sizes | {"image_size": 64, "patch_size": 16, "num_hidden_layers": 2}
    torch.manual_seed(0)
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=128)
    return CLIPModel(config), tokenizer


def train(
    folder: Path,
    shown: Sequence[Scene],
    pictures: Tensor,
    steps: int = STEPS,
    shuffled: bool = False,
) -> Path:
    """Train a small CLIP on pictures (N, 3, 64, 64) of the scenes `shown`, and save it in `folder`;
    from `shuffled` captions it can learn nothing.
    """
    (model, tokenizer), chance = small_clip(), torch.Generator().manual_seed(0)
    named = random.Random(0).sample(shown, len(shown)) if shuffled else shown
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps)
    for _ in range(steps):
        rows = torch.randint(len(shown), (BATCH,), generator=chance)
        captions = [caption_of(named[row].style, "style") for row in rows.tolist()]
        kinds = list(dict.fromkeys(captions))  # the same caption twice is no wrong answer
        seen = model.vision_model(pixel_values=pictures[rows]).pooler_output
        read = model.text_model(**tokenizer(kinds, padding=True, return_tensors="pt")).pooler_output
        images = normalize(model.visual_projection(seen), dim=1)
        texts = normalize(model.text_projection(read), dim=1)
        logits = model.logit_scale.exp() * images @ texts.T
        loss = cross_entropy(logits, torch.tensor([kinds.index(text) for text in captions]))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
