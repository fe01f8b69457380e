"""Where a result comes from: versions, hardware, model and judge."""

import os
import platform
from importlib import metadata
from typing import Any

import torch

from .backend import Backend
from .scorers import Scorer

PACKAGES = ("torch", "diffusers", "transformers", "peft", "gradio")


def environment(backend: Backend | None, scorer: Scorer | None) -> dict[str, Any]:
    """Versions, hardware and judge of a run."""
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": str(backend.device) if backend else None,
        "packages": {name: _version(name) for name in PACKAGES},
        "base_sha256": backend.base_hash if backend else None,
        "judge": f"{scorer.name} {scorer.version}" if scorer else None,
        "judge_note": None if scorer else "No judge is available for this model, so nothing is scored.",
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
