"""Where a result comes from: versions, hardware, model and judge."""

import os
import platform
from importlib import metadata
from typing import Any

import torch

from ..common.registry import world
from ..evaluation.judges import Scorer
from ..models.device import choose_device, processor
from ..models.diffusers.model_folder import public_name
from ..models.protocols import Model

PACKAGES = ("torch", "diffusers", "transformers", "peft", "accelerate", "gradio")


def environment(model: Model | None, scorer: Scorer | None) -> dict[str, Any]:
    """Versions, hardware and judge of a run; without a model the device is the one that a model
    would get.
    """
    others = scorer.others if scorer else ()
    second = [f"{judge.name} {judge.version}" for judge in others if judge.threshold is None]
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": _named(model.device if model else choose_device()),
        "packages": {name: _version(name) for name in PACKAGES},
        "base": public_name(model.name) if model else None,
        "base_sha256": model.base_hash if model else None,
        "judge": f"{scorer.name} {scorer.version}" if scorer else None,
        "second_judge": ", ".join(second) or None,
        "detector": _detector(scorer, model),
        "judge_note": (
            None if scorer else "No judge is available for this model, so nothing is scored."
        ),
    }


def _named(device: torch.device) -> str:
    """The device, and what it is where it has a name of its own."""
    name = getattr(torch.get_device_module(device), "get_device_name", None)
    return f"{device} ({name(device)})" if name else str(device)


def peak_memory_gb(of_ended_child: bool = False) -> float | None:
    """The most memory that this process has held so far, of the accelerator where there is one, or
    that one of its ended child processes has held; None if unknown.
    """
    counted = getattr(torch.get_device_module(choose_device()), "max_memory_allocated", None)
    if counted and not of_ended_child:
        return round(counted() / 1e9, 2)
    try:
        import resource  # absent on Windows
    except ImportError:
        return None
    who = resource.RUSAGE_CHILDREN if of_ended_child else resource.RUSAGE_SELF
    held = resource.getrusage(who).ru_maxrss
    return round(held * (1 if platform.system() == "Darwin" else 1024) / 1e9, 2)


def _detector(scorer: Scorer | None, model: Model | None) -> str | None:
    """The detector with its threshold, or why there is none; None in a world with judges of its
    own.
    """
    detectors = [one for one in scorer.others if one.threshold is not None] if scorer else []
    if detectors:
        return ", ".join(f"{d.name} {d.version}, threshold {d.threshold}" for d in detectors)
    if model is None or world(model.name).assets:
        return None
    if scorer:
        return "NudeNet is not installed (pip install nudenet)"
    version = _version("nudenet")
    return (
        f"NudeNet {version} is installed but unused, since it only works beside a judge"
        if version
        else None
    )


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
