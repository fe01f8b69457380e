"""What must work with every family of models: each is done by the code that commands and page run,
on a small random pipeline of the family's real classes, and compared with what other code makes of
it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from ...attacks.runner import attack_context, attack_of
from ...common.errors import UnlearnError
from ...common.images import open_png
from ...concepts.catalog import preview_concept
from ...continual.ledger import Ledger
from ...continual.sequence import add_original, append
from ...evaluation.finding import Finding
from ...models.catalog import load_model
from ...models.diffusers.adapter_files import adapter_bytes
from ...models.diffusers.comfyui import comfyui_keys
from ...models.diffusers.foreign_adapters import KOHYA, PEFT, trained_elsewhere, write_flux_names
from ...models.diffusers.model_folder import hash_weights
from ...models.diffusers.plain_calls import SIDE, plain_latents, plain_pictures, plain_pipeline
from ...models.diffusers.tiny_pipelines import strong_adapter
from ...models.generate import generate
from ...models.lora import frobenius_norm, layer_factors
from ...models.protocols import Model
from ...models.sizes import picture_shape
from ...runs.attack_run import run_attacks
from ...runs.audit import audit
from ...runs.folder import ADAPTER, Run
from ...runs.workflow import run
from ...settings.attacks import QUICK
from ...settings.events import COLUMNS, Stage
from ...settings.run_config import RunConfig, make_config, make_plan
from ...training.unlearning import forget
from ..cells import SMOKE

PROMPTS, SEEDS = ["a cat", "a red dragon"], [3, 4]
STEPS, GUIDANCE = 4, 3.0
LEARNED = 10
"""Steps that must lower the loss."""
SAME = 1
"""The steps of 255 by which the same picture may differ: sums are rounded in another order."""
TINY = {name: value for name, value in SMOKE.items() if not name.startswith("resist.")}


SMALL_ATTACKS = {
    "inversion.steps": 2,
    "noise.tries": 1,
    "ring_a_bell.generations": 2,
    "ring_a_bell.population": 4,
}


class Differs(UnlearnError):
    """What should be the same, or should work, is not."""


@dataclass
class Material:
    """A family's pipeline in a folder, a judge that `--judge` takes, and a folder for what a check
    writes.
    """

    family: str
    folder: Path
    judge: str
    scratch: Path

    @cached_property
    def model(self) -> Model:
        """The pipeline as the product loads it, in float32 and without stored pictures, so that it
        can be compared to the bit.
        """
        model = load_model(str(self.folder))
        model.mixes, model.store = False, None
        return model

    def plain(self) -> Any:
        """The pipeline as diffusers alone loads it."""
        return plain_pipeline(self.folder).to(self.model.device)

    def config(self, concept: str = "cat", **changes: Any) -> RunConfig:
        """Settings of a run that ends in a second."""
        asked = {"model": str(self.folder), "judge": self.judge}
        return make_config(concept, **asked | TINY | changes)

    def adapter(self, form: str = "diffusers") -> Path:
        """A file with an adapter that changes every picture."""
        strong_adapter(self.model)
        file = self.scratch / f"{form}-strong.safetensors"
        file.write_bytes(adapter_bytes(self.model.adapter_state("unlearn"), {}, form))
        self.model.drop_adapters()
        return file

    def painted(self, *adapters: Path) -> list[Any]:
        """Pictures as the command `generate` makes them."""
        how = {"sampling_steps": STEPS, "guidance_scale": GUIDANCE}
        return generate(self.model, PROMPTS, SEEDS, adapters=adapters, **how)

    def painted_elsewhere(self, pipe: Any) -> list[Any]:
        """The same pictures by a plain call of diffusers."""
        how = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE}
        with torch.no_grad():
            return plain_pictures(pipe, plain_latents(pipe, PROMPTS, SEEDS, **how))


def loads(made: Material) -> str:
    """Every weight is the one that diffusers reads."""
    model, pipe = made.model, made.plain()
    need(picture_shape(model) == (SIDE, SIDE), f"pictures have {picture_shape(model)} pixels")
    need(model.base_hash == hash_weights(made.folder), "the hash is not that of the denoiser")
    for part in model.parts:
        ours, theirs = (getattr(one, part, None) for one in (model.pipe, pipe))
        need((ours is None) == (theirs is None), f"{part} is not where diffusers has it")
        if ours is not None:
            pairs = zip(ours.parameters(), theirs.parameters(), strict=True)
            need(all(map(_equal, *zip(*pairs, strict=True))), f"{part} has other weights")
    return ""


def _equal(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    return torch.equal(ours, theirs)


def generates(made: Material) -> str:
    """Latents and pictures are those of plain diffusers, bit for bit."""
    how, pipe = {"guidance_scale": GUIDANCE}, made.plain()
    ours = made.model.sample(PROMPTS[:1], SEEDS[:1], steps=STEPS, **how)
    with torch.no_grad():
        theirs = plain_latents(pipe, PROMPTS[:1], SEEDS[:1], num_inference_steps=STEPS, **how)
        pictures = plain_pictures(pipe, theirs)
    need(torch.equal(ours, theirs), "latents differ from those of plain diffusers")
    shown = generate(made.model, PROMPTS[:1], SEEDS[:1], sampling_steps=STEPS, **how)
    need(difference(shown, pictures) == 0, "pictures differ from those of plain diffusers")
    return ""


def learns(made: Material) -> str:
    """The loss of forgetting is lower after ten steps."""
    config = made.config(**{"unlearn.steps": LEARNED, "unlearn.pool": 1, "rule": "weighted_sum"})
    steps = forget(made.model, preview_concept(config), config)
    told = [step.losses["forget"] for step in steps]
    need(len(told) == LEARNED, f"{len(told)} steps of {LEARNED} were made")
    need(told[-1] < told[0], f"the loss went from {told[0]:.4g} to {told[-1]:.4g}")
    return ""


def is_attacked(made: Material) -> str:
    """The adversary's loss falls, and what was published stays as it was."""
    strong_adapter(made.model)
    kept = made.model.adapter_state("unlearn")
    config = made.config(**{"attack.steps": 12, "attack.lr": 1e-3})
    context = attack_context(made.model, preview_concept(config), config)
    with made.model.active("unlearn"):
        told = list(attack_of(config, "relearn")(made.model, context))
    change = sum(step.changes["relearn"] for step in told)
    need(change < 0, f"the adversary's loss changed by {change:+.4g}")
    after = made.model.adapter_state("unlearn")
    need(all(torch.equal(after[n], t) for n, t in kept.items()), "the published adapter changed")
    return ""


def has_three_columns(made: Material) -> str:
    """The pictures of a run's three columns are those of plain diffusers with its adapters."""
    changes = {"attack.lr": 1e-2, "compare.guidance_scale": 2.0}
    config = made.config("a red dragon", **changes)
    out = made.scratch / "run"
    list(run(config, out, model=made.model))
    stored, pipe, loaded = Run.open(out), made.plain(), []
    for column in COLUMNS:
        if column != "original":
            name = ADAPTER if column == "unlearned" else "relearn.safetensors"
            loaded.append(name.partition(".")[0])
            pipe.load_lora_weights(out, weight_name=name, adapter_name=loaded[-1])
            pipe.set_adapters(loaded)
        shown = [own for own in stored.pictures if own.column == column and own.file.exists()]
        need(bool(shown), f"the column {column} has no pictures")
        how = {"num_inference_steps": config.compare.sampling_steps, "guidance_scale": 2.0}
        with torch.no_grad():
            latents = plain_latents(
                pipe, [own.prompt for own in shown], [own.seed for own in shown], **how
            )
            theirs = plain_pictures(pipe, latents)
        apart = difference([open_png(own.file) for own in shown], theirs)
        need(apart <= SAME, f"the column {column} differs by {apart} of 255 from plain diffusers")
    return ""


def keeps_a_ledger(made: Material) -> str:
    """Two requests are served, and the adapter of both loads."""
    plan = make_plan(pictures=1)
    ledger = Ledger.create(made.scratch / "ledger", made.config(), plan, ("cat", "dog"))
    list(add_original(ledger, made.model, None))
    for concept in ("cat", "dog"):
        list(append(ledger, concept, made.model, None))
    asked = [row.concept for row in ledger.requests]
    need(asked == ["cat", "dog"], f"the ledger holds {asked}")
    both, last = ledger.adapter(2), ledger.adapter(2, own=True)
    need(frobenius_norm(last) > 0, "the second request changed nothing")
    made.model.load_adapter("unlearn", both)
    return ""


def goes_to_diffusers(made: Material) -> str:
    """`load_lora_weights` gives the same pictures."""
    file, pipe = made.adapter(), made.plain()
    pipe.load_lora_weights(file.parent, weight_name=file.name)
    ours = made.painted(file)
    need(difference(ours, made.painted()) > SAME, "the adapter changes no picture")
    apart = difference(ours, made.painted_elsewhere(pipe))
    need(apart <= SAME, f"pictures differ by {apart} of 255 from plain diffusers")
    return ""


def goes_to_comfyui(made: Material) -> str:
    """ComfyUI's key map has every layer of the file, and every factor of it is found."""
    strong_adapter(made.model)
    layers = layer_factors(made.model.adapter_state("unlearn")).keys()
    keys = comfyui_keys(made.model.network)
    with safe_open(made.adapter("kohya"), "pt") as file:
        names = set(file.keys())
    endings = (".lora_down.weight", ".lora_up.weight", ".alpha")
    read = {key for key in keys if all(key + ending in names for ending in endings)}
    found = {keys[key] for key in read}
    need(found == layers, f"{len(found)} of {len(layers)} layers are found")
    need(len(names) == len(endings) * len(read), "the file holds names that are not read")
    return f"{len(found)} of {len(layers)} layers"


def takes_foreign_adapters(made: Material) -> str:
    """Adapters of others make the pictures that their own code makes."""
    pipe = made.plain()
    trained_elsewhere(pipe, made.scratch)
    theirs = made.painted_elsewhere(pipe)
    need(difference(made.painted(), theirs) > SAME, "the foreign adapter changes no picture")
    for name in (PEFT, KOHYA):
        apart = difference(made.painted(made.scratch / name), theirs)
        need(apart <= SAME, f"pictures of {name} differ by {apart} of 255")
    if made.family.startswith("flux"):
        file, pipe = made.scratch / "names.safetensors", made.plain()
        write_flux_names(file, pipe.transformer.inner_dim)
        pipe.load_lora_weights(file.parent, weight_name=file.name)
        apart = difference(made.painted(file), made.painted_elsewhere(pipe))
        need(apart <= SAME, f"pictures with FLUX's own names differ by {apart} of 255")
    return ""


def is_audited(made: Material) -> str:
    """An adapter of unknown making gets columns and a verdict, and then every attack of `quick`.

    The verdict is that a random original does not know the concept, after which an audit makes no
    attack by itself.
    """
    out, model = made.scratch / "audit", made.model
    asked = {"judge": made.judge, "kinds": (), **TINY}
    list(audit(str(made.folder), made.adapter(), "cat", out, model=model, **asked))
    stored = Run.open(out)
    columns = {picture.column for picture in stored.pictures}
    need(columns == set(COLUMNS), f"the audit shows {sorted(columns)}")
    need(stored.verdict.label == "inconclusive", f"the verdict is {stored.verdict.label}")
    events = list(run_attacks(stored, QUICK, SMALL_ATTACKS, model=model, skip=True))
    found = [event.kind for event in events if isinstance(event, Finding)]
    texts = [event.text for event in events if isinstance(event, Stage)]
    left_out = [kind for kind in QUICK if any(f"attack {kind} does not" in text for text in texts)]
    need(sorted(found + left_out) == sorted(QUICK), f"of {QUICK} only {found} were made")
    return f"{', '.join(left_out)} need single tokens" if left_out else ""


CHECKS: dict[str, tuple[str, Callable[[Material], str]]] = {
    "load": ("loads, with every weight that diffusers reads", loads),
    "generate": ("pictures equal plain diffusers, bit for bit", generates),
    "learn": ("ten training steps lower the loss", learns),
    "attack": ("the relearning attack lowers its loss", is_attacked),
    "columns": ("three columns equal plain calls of diffusers", has_three_columns),
    "ledger": ("a ledger of two requests", keeps_a_ledger),
    "to-diffusers": ("adapter out: `load_lora_weights` gives the same pictures", goes_to_diffusers),
    "to-comfyui": ("adapter out: ComfyUI's key map has all of it", goes_to_comfyui),
    "from-others": (
        "adapter in: diffusers' with its alpha, kohya's keys (of SD 3 OneTrainer's)",
        takes_foreign_adapters,
    ),
    "audit": ("audit of an adapter", is_audited),
}
"""By name what a check shows, in words, and the check: it returns a note, and raises where it
fails.
"""


def need(holds: bool, otherwise: str) -> None:
    """Fail with a sentence where something does not hold.

    Raises:
        Differs: it does not.
    """
    if not holds:
        raise Differs(otherwise)


def difference(one: Sequence[Any], other: Sequence[Any]) -> int:
    """The largest difference of two lists of pictures, in steps of 255."""
    pairs = zip(one, other, strict=True)
    return max(int(np.abs(np.asarray(a, int) - np.asarray(b, int)).max()) for a, b in pairs)
