"""What every test shares: an offline environment, fixed seeds and a small Stable Diffusion 1.x
folder.
"""

import os

os.environ.update(
    GRADIO_ANALYTICS_ENABLED="False",
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    TRANSFORMERS_OFFLINE="1",
    DO_NOT_TRACK="1",
    # Equality with diffusers and between adapter and merged weights is stated for float32.
    UNLEARN_PRECISION="float32",
    TOKENIZERS_PARALLELISM="false",
    # No test finds what another one has sampled.
    UNLEARN_STORE="off",
    # Threads that spin for long make two test runs on one machine crawl.
    GOMP_SPINCOUNT="2000",
    NO_PROXY="localhost,127.0.0.1",
    no_proxy="localhost,127.0.0.1",
    # Tables printed in tests have neither the colours nor the width of the caller's terminal.
    NO_COLOR="1",
    COLUMNS="120",
)
os.environ.pop("FORCE_COLOR", None)
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // int(workers), 1)))

import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

for name, default in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
    # Whoever runs the tests in the background may ignore them, and processes inherit that.
    if hasattr(signal, name):
        signal.signal(getattr(signal, name), default)

LONGEST = ("experiments", "web")
SLOW_FIXTURES = {"browser", "pocket", "recordings", "tiny_pipeline"}
"""What uses one of these is marked as slow; other slow tests are marked where they stand."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need a browser or train the bundled model, and begin with the files that
    take longest and end with those that take seconds, so that no process is left alone with a long
    one.
    """
    for item in items:
        if SLOW_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker("slow")
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path not in slow, item.path.parent.name not in LONGEST))


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    """Give every test the same random numbers whatever ran before it."""
    import torch

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def pocket() -> Iterator[Any]:
    """The bundled model, without adapters again after the module."""
    from unlearn_app.models.catalog import load_model

    model = load_model()
    yield model
    model.drop_adapters()


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Real runs with small settings, made when they are asked for, once for all processes."""
    from recordings import Recordings

    base = tmp_path_factory.getbasetemp()
    return Recordings((base.parent if workers else base) / "recordings")


@pytest.fixture(scope="session")
def repo() -> Path:
    """The top folder of the repository."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def tiny_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A randomly initialised `StableDiffusionPipeline` folder in SD 1.x format: 64 px pictures,
    epsilon prediction.
    """
    from unlearn_app.models.diffusers.tiny_pipelines import save, sd1

    return save(tmp_path_factory.mktemp("tiny") / "pipeline", sd1)


@pytest.fixture(scope="module")
def tiny_model(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """That pipeline as a model, which samples only once what it is asked for before it forgets."""
    from unlearn_app.models.catalog import load_model
    from unlearn_app.models.latent_store import LatentStore

    model = load_model(str(tiny_pipeline))
    model.store = LatentStore(tmp_path_factory.mktemp("store") / "latents.sqlite")
    return model
