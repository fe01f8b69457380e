"""Presets: settings of a run that go together, and the regularization of a sequence."""

from typing import Any

PRESETS = ("fast", "full")
PRESET_CHANGES: dict[str, dict[str, Any]] = {
    "fast": {},
    "full": {
        "unlearn.steps": 200,
        "unlearn.batch_size": 16,
        "unlearn.pool": 0,
        "unlearn.train_pictures": 160,
        "unlearn.retain_weight": 10.0,
        "resist.goal": "lose",
        "resist.cap": 2.0,
        "attack.steps": 200,
        "attack.pictures": 64,
        "attack.controls": True,
        "compare.forget": 48,
        "compare.near": 48,
        "compare.far": 48,
        "compare.sampling_steps": 25,
    },
}

FULL_WEIGHTS: dict[str, Any] = {"unlearn.lr": 3e-4}
"""What training the weights themselves takes instead of an adapter's settings."""

REAL_MODEL: dict[str, Any] = {
    "unlearn.steps": 200,
    "unlearn.lr": 1e-4,
    "unlearn.batch_size": 4,
    "unlearn.pool": 50,
    "unlearn.retain_weight": 3.0,
    "attack.steps": 200,
    "attack.lr": 1e-4,
    "attack.batch_size": 4,
}
"""What a real model is trained with unless its family says otherwise: the steps of ESD's
implementation with diffusers, and of the fine-tuning that ResAlign resists; the learning rate of
diffusers' LoRA trainers; a pool that draws each batch as often as the bundled model's does.
"""
FAMILY_SETTINGS: dict[str, dict[str, Any]] = {
    "StableDiffusionPipeline": REAL_MODEL
    | {"compare.sampling_steps": 50, "compare.guidance_scale": 7.5},
    "StableDiffusionXLPipeline": REAL_MODEL
    | {"compare.sampling_steps": 50, "compare.guidance_scale": 5.0},
    "StableDiffusion3Pipeline": REAL_MODEL
    | {"compare.sampling_steps": 28, "compare.guidance_scale": 7.0},
    # EraseAnything (2412.20413) unlearns with a LoRA of rank 8 at ten times the usual rate.
    "FluxPipeline": REAL_MODEL
    | {"unlearn.lr": 1e-3, "compare.sampling_steps": 28, "compare.guidance_scale": 3.5},
}
"""Settings by family, as diffusers names its pipelines. Denoising steps and guidance are the
defaults of diffusers' pipelines; the resolution is the one that a model was trained for.
"""

USUAL_SIDE = 512
LARGER_SIDES = dict.fromkeys(
    ("StableDiffusionXLPipeline", "StableDiffusion3Pipeline", "FluxPipeline"), 1024
)
"""Pixels along a side of pictures that a family is made for."""

KEYS_VALUES: dict[str, Any] = {"unlearn.modules": "keys_values", "unlearn.lr": 4e-3}
"""What 2511.07970 trains; so few weights take twice the usual learning rate to forget anything in
as many steps.
"""
PROJECTED = KEYS_VALUES | {"regularize.project": "exact", "regularize.energy": 0.95}
"""Keeps keys and values of other sentences; a projection refuses other layers."""
REGULARIZATION_PRESETS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "l1": KEYS_VALUES | {"regularize.l1": 2e-5},
    "l2": KEYS_VALUES | {"unlearn.lr": 1e-2, "regularize.l2": 3.5e-3},
    "selective": KEYS_VALUES | {"regularize.select": 0.3},
    "projection": PROJECTED,
    "projection+l2": PROJECTED
    | {"unlearn.lr": 1e-2, "regularize.l2": 4e-3, "regularize.energy": 0.8},
}
"""Regularizations of the requests of a sequence by name, as settings of each request; tuned on
prompts and seeds that no test uses.
"""
EQUAL_BUDGET = {"unlearn.steps": 30, "unlearn.batch_size": 8, "unlearn.pool": 8}
"""What is trained alike whatever the kind of concept and the method: a request of a sequence in the
preset fast, for which the regularizations are tuned, and every arm where methods are compared.
"""
DEFAULT_SEQUENCE_OBJECTIVE, DEFAULT_REGULARIZATION = "concept_ablation", "projection+l2"
"""The objective and the regularization of a sequence unless the user names others; tuned for
sequences of twelve requests.
"""


def request_settings(regularization: str, preset: str = "fast") -> dict[str, Any]:
    """The settings of each request of a sequence by the name of its regularization.

    Raises:
        KeyError: there is no such regularization.
    """
    return (EQUAL_BUDGET if preset == "fast" else {}) | REGULARIZATION_PRESETS[regularization]


def usual_side(pipeline: str) -> int:
    """Pixels along a side of pictures by the models of a family, as diffusers names its
    pipelines.
    """
    return LARGER_SIDES.get(pipeline, USUAL_SIDE)


def family_settings(pipeline: str) -> dict[str, Any]:
    """The settings of a family by the class of its pipelines; those of Stable Diffusion where it is
    unknown, as that of a model on the Hub is before it is downloaded.
    """
    return dict(FAMILY_SETTINGS.get(pipeline, FAMILY_SETTINGS["StableDiffusionPipeline"]))
