"""Make a text-to-image diffusion model forget a concept, attack the forgetting, and judge it.

The names below load on first use, so that `import unlearn_app` stays instant.
"""

import importlib
from typing import Any

_HOMES = {
    "Concept": "concept",
    "ConfigError": "errors",
    "ModelError": "errors",
    "OutputError": "errors",
    "Run": "runs",
    "RunConfig": "config",
    "UnlearnError": "errors",
    "generate": "workflow",
    "known_concepts": "workflow",
    "load_backend": "workflow",
    "make_config": "config",
    "preview_concept": "workflow",
    "run": "workflow",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
