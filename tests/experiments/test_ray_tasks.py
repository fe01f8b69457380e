"""Cells by Ray: the same as by the plain loop, although a worker is killed while it works."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from sums import SlowSums, Sum

from unlearn_app.common.errors import ConfigError
from unlearn_app.experiments import ray_tasks
from unlearn_app.experiments.cells import Extent, run_cells

ROOT = Path(__file__).resolve().parents[2]
WORKER = "ray::_measure"
"""What a worker is called while it measures a cell."""


@pytest.fixture
def local_ray() -> Iterator[None]:
    import ray

    places = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(ROOT)])}
    quiet = {"logging_level": "error", "log_to_driver": False}
    ray.init("local", num_cpus=2, runtime_env={"env_vars": places}, **quiet)
    yield
    ray.shutdown()


@pytest.mark.slow
def test_a_cell_that_grows_and_shares_survives_its_worker(local_ray: None, tmp_path: Path) -> None:
    alone, spread = (SlowSums(Extent(tmp_path / name)) for name in ("alone", "spread"))
    cells = [Sum(4), Sum(5), Sum(2)]
    for one in (alone, spread):
        one.extent.out.mkdir()
    killed: set[int] = set()
    loop = ray_tasks.ray_tasks()

    def killing(experiment, work):
        for cell, found in loop(experiment, work):
            yield cell, found
            if cell == Sum(5) and len(found.values) == 2 and not killed:
                path = next(spread.extent.out.glob("*-5-2"))
                killed.add(int(path.name.partition("-")[0]))
                os.kill(*killed, signal.SIGKILL)

    mine = dict(run_cells(spread, cells, killing))
    assert mine == dict(run_cells(alone, cells))
    counting = {path.name.partition("-")[0] for path in spread.extent.out.glob("*-5-*")}
    assert len(counting) == 2, "the worker was lost at work, and another one took over"
    stored = [json.loads(path.read_text()) for path in (spread.extent.out / "sums").iterdir()]
    assert {len(cell["values"]) for cell in stored} == {4, 5, 2}


def words(out: Path, *more: str) -> list[str]:
    asked = ["bench", "judge", "--smoke", "--out", str(out)]
    return [sys.executable, "-m", "unlearn_app", *asked, *more]


def found(out: Path) -> dict[str, dict]:
    """The stored cells by file name."""
    paths = (out / "judge-smoke").glob("[!.]*.json")
    return {path.name: json.loads(path.read_text()) for path in paths}


def worker_of(process: subprocess.Popen) -> psutil.Process | None:
    """A worker below `process` that measures a cell now; one that ends meanwhile is none."""
    for one in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if WORKER in " ".join(one.cmdline()):
                return one
    return None


@pytest.mark.slow
def test_a_benchmark_by_ray_stores_and_says_what_the_plain_loop_does(tmp_path: Path) -> None:
    """With one thread in both, on whose number sums of floats depend; one of two workers is
    killed.
    """
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    spread, alone = tmp_path / "spread", tmp_path / "alone"
    with subprocess.Popen(
        words(spread, "--ray"), cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        while (worker := worker_of(process)) is None:
            assert process.poll() is None, "ended before a worker could be killed"
            time.sleep(0.05)
        assert len(found(spread)) < 4
        worker.kill()
        printed, _ = process.communicate()
    assert process.returncode == 0
    told = subprocess.run(
        words(alone), cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout
    mine, plain = found(spread), found(alone)
    assert len(mine) == 4
    assert mine.keys() == plain.keys()
    for name, cell in plain.items():
        assert mine[name]["config"] == cell["config"]
        assert mine[name]["values"] == cell["values"]
        known = spread / "environments" / f"{mine[name]['environment']}.json"
        assert json.loads(known.read_text())["threads"] == 1
    assert printed.partition("# ")[2] == told.partition("# ")[2]


def test_what_is_missing_is_named_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_tasks.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="Ray is not installed; `pip install ray` adds it"):
        ray_tasks.ray_tasks()


def test_a_cluster_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"There is no Ray at '127\.0\.0\.1:1'"):
        ray_tasks.ray_tasks("127.0.0.1:1")
