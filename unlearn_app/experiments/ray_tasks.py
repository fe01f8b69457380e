"""Cells as Ray tasks, on this machine or on a cluster.

Ray is optional. Every machine of a cluster has this repository at the same path; results come back
to the process that asked, which alone writes cells.
"""

import functools
import importlib.util
import os
import socket
import sys
from collections.abc import Iterator
from typing import Any

from ..common.errors import ConfigError
from .cells import Experiment, Extent, Loop, Measured, Work, measured, one_by_one

LOCAL = "local"
"""The address that starts Ray on this machine."""
SECONDS, RETRIES = 10, 3
"""How long a cluster may take to answer, and how often a cell whose worker is lost is retried."""


def ray_tasks(address: str = LOCAL) -> Loop:
    """A loop that measures cells as tasks of Ray at `address`, and then, in this process and one at
    a time, those that measure time.

    Raises:
        ConfigError: Ray is not installed, or there is none at that address.
    """
    if importlib.util.find_spec("ray") is None:
        raise ConfigError(
            "Ray is not installed; `pip install ray` adds it, and without --ray the cells are"
            " measured one after the other.",
            "ray",
        )
    _connect(address)

    def loop(experiment: Experiment, work: Work) -> Iterator[tuple[Any, Measured]]:
        last = {cell: known for cell, known in work.items() if experiment.alone(cell)}
        first = {cell: known for cell, known in work.items() if cell not in last}
        yield from _spread(experiment, first)
        yield from one_by_one(experiment, last)

    return loop


def processes() -> int:
    """How many processes measure cells at a time."""
    ray = sys.modules.get("ray")
    return int(ray.cluster_resources()["CPU"]) if ray and ray.is_initialized() else 1


def _connect(address: str) -> None:
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if ray.is_initialized():
        return
    host, _, port = address.rpartition("/")[2].rpartition(":")
    try:
        if port.isdigit():  # else Ray itself waits for minutes and then ends the process
            socket.create_connection((host, int(port)), timeout=SECONDS).close()
        ray.init(address, logging_level="error", log_to_driver=False)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"There is no Ray at {address!r}; host:port, ray://host:port and auto are accepted.",
            "address",
        ) from error


def _spread(experiment: Experiment, work: Work) -> Iterator[tuple[Any, Measured]]:
    """Cells in the order in which tasks measure them, as many at a time as there are CPUs.

    A task takes one CPU, and a GPU where the cluster has any. Ray starts it again when its worker
    is lost.
    """
    import ray

    gpus = min(1, ray.cluster_resources().get("GPU", 0))
    remote = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)
    measure, prepare = remote(_measure), remote(_prepare)
    loaded = type(experiment), experiment.extent
    waiting: dict[Any, Any] = {}
    prepared: dict[Any, Any] = {None: None}
    left = list(work.items())
    while left or waiting:
        while left and len(waiting) < processes():
            cell, known = left.pop(0)
            key = experiment.shared_by(cell)
            if key not in prepared:
                prepared[key] = prepare.remote(*loaded, cell)
            waiting[measure.remote(*loaded, cell, known, prepared[key])] = cell
        (ready, *_), _ = ray.wait(list(waiting), fetch_local=False)
        try:
            yield waiting[ready], ray.get(next(ready))
        except StopIteration:
            del waiting[ready]


def _measure(
    kind: type[Experiment], extent: Extent, cell: Any, known: dict[str, Any], shared: Any
) -> Iterator[Measured]:
    yield from measured(_loaded(kind, extent), cell, known, shared)


def _prepare(kind: type[Experiment], extent: Extent, cell: Any) -> Any:
    return _loaded(kind, extent).prepare(cell)


@functools.cache
def _loaded(kind: type[Experiment], extent: Extent) -> Experiment:
    """The experiment with its models, loaded once in each process."""
    return kind(extent)
