"""A small judge of CLIP's shape, trained on renderings of the bundled world in under a minute: what
people load with `--judge clip=FOLDER`, without weights from elsewhere.
"""

import random
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from unlearn_app.common.paths import POCKET
from unlearn_app.evaluation.judges.clip import caption_of
from unlearn_app.pocket.world.dataset import rendered, scenes
from unlearn_app.pocket.world.rendering import Scene

SIDE, PATCH, WIDTH = 64, 16, 128
PICTURES, STEPS, BATCH, RATE = 3000, 400, 128, 2e-3


def small_clip() -> tuple[CLIPModel, CLIPTokenizer]:
    """An untrained network of CLIP's own class, and the tokenizer of the bundled model."""
    tokenizer = CLIPTokenizer.from_pretrained(POCKET / "pipeline" / "tokenizer")
    sizes = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_attention_heads": 4}
    text = sizes | {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": tokenizer.model_max_length,
        "num_hidden_layers": 1,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = sizes | {"image_size": SIDE, "patch_size": PATCH, "num_hidden_layers": 2}
    torch.manual_seed(0)
    return CLIPModel(
        CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH)
    ), tokenizer


def train(folder: Path, shuffled: bool = False) -> Path:
    """Train a small CLIP and save it in `folder`; with `shuffled` captions it can learn nothing."""
    import time

    model, tokenizer = small_clip()
    t0 = time.time()
    shown = scenes("train", PICTURES, seed=0)
    pictures = rendered(shown)
    print("rendered", time.time() - t0)
    t0 = time.time()
    draw = random.Random(0)
    generator = torch.Generator().manual_seed(0)
    named = draw.sample(shown, len(shown)) if shuffled else shown
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, STEPS)
    model.train()
    for step in range(STEPS):
        rows = torch.randint(PICTURES, (BATCH,), generator=generator)
        axis = ("object", "style", "object")[step % 3]
        captions = [caption_of(getattr(named[row], axis), axis) for row in rows.tolist()]
        kinds = list(dict.fromkeys(captions))
        tokens = tokenizer(kinds, padding=True, return_tensors="pt")
        images = model.visual_projection(
            model.vision_model(pixel_values=pictures[rows]).pooler_output
        )
        texts = model.text_projection(model.text_model(**tokens).pooler_output)
        images, texts = (torch.nn.functional.normalize(x, dim=1) for x in (images, texts))
        logits = model.logit_scale.exp() * images @ texts.T
        loss = cross_entropy(logits, torch.tensor([kinds.index(text) for text in captions]))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 < 2:
            print(step, axis, loss.item(), time.time() - t0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
