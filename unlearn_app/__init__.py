"""Make a text-to-image diffusion model forget a concept, attack the forgetting, and judge it.

The names below load on first use, so that `import unlearn_app` stays instant.
"""

import importlib
from typing import Any

_HOMES = {
    "NeverSeen": "attacks.never_seen",
    "Concept": "concepts.concept",
    "ConfigError": "common.errors",
    "HubError": "common.errors",
    "ModelError": "common.errors",
    "OutputError": "common.errors",
    "Run": "runs.folder",
    "RunConfig": "settings.run_config",
    "UnlearnError": "common.errors",
    "audit": "runs.audit",
    "generate": "models.generate",
    "known_concepts": "concepts.catalog",
    "load_model": "models.catalog",
    "make_config": "settings.run_config",
    "preview_concept": "concepts.catalog",
    "pull": "runs.hub",
    "push": "runs.hub",
    "read_pictures": "concepts.own_pictures",
    "run": "runs.workflow",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
