"""The command line: `python -m unlearn_app --help`."""

import errno
import importlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ..common import registry
from ..common.atomic_files import check_space
from ..common.errors import Cancelled, ConfigError, UnlearnError, check_known, enough_memory
from ..common.new_folder import NewFolder
from ..common.signals import FROM_OUTSIDE, on_signal
from ..concepts.own_prompts import read_prompts
from ..settings.events import Done, Event, Scores, Verdict
from ..settings.run_config import SETTING_GROUPS, RunConfig, clean_text, make_config, setting_names
from .audit import audit
from .console import (
    OPTIONS,
    Lasting,
    Model,
    Objective,
    Preset,
    Seed,
    StageBars,
    assignments,
    interrupt_flag,
    interruption,
    named_folder,
    own_settings,
    print_result,
    screen,
    set_option,
    table,
    whole_number,
)
from .continual import continual
from .doctor import MISSING, checks
from .finished_runs import attack, compare, report
from .pocket import pocket

if TYPE_CHECKING:
    from ..experiments.cells import Extent

# Threads that spin while they wait slow other processes on the same cores; torch reads this early.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

USER_ERROR = 2
SIGNALLED = 128
"""The exit code of a command that a signal has ended, less the number of the signal."""
INTERRUPTED = 130
"""What Typer returns of a command that a KeyboardInterrupt has ended."""
BENCHES = {
    "main-job": ("main_job", "MainJob"),
    "calibration": ("calibration", "Calibration"),
    "tradeoff": ("tradeoff", "Tradeoff"),
    "speed": ("speed", "Speed"),
    "judge": ("judge", "JudgeExperiment"),
    "paper1": ("paper1.measure", "Paper1"),
    "paper2": ("paper2.measure", "Paper2"),
    "paper3": ("paper3.measure", "Paper3"),
    "lab": ("lab.measure", "Lab"),
    "soak": ("soak.measure", "Soak"),
}
OF_MODELS = tuple(name for name in BENCHES if name != "soak")
"""The benchmarks that `all` stands for."""
TO_LOWER = "the batch size, the rank or the number of pictures, or choose a smaller model"
REFUSED = {
    errno.ENOSPC: "The disk is full",
    errno.EDQUOT: "The disk is full",
    errno.EACCES: "The file system denies it",
    errno.EPERM: "The file system denies it",
    errno.EROFS: "The file system can only be read",
    errno.ENOTDIR: "A file stands where a folder is wanted",
    errno.EEXIST: "Something else stands there",
    errno.EISDIR: "A folder stands where a file is wanted",
    errno.ENAMETOOLONG: "The name is too long",
}
"""Sentences for errors of the file system that a user can fix; any other OSError is a bug."""
REBUILD = "assets"
"""The name that rebuilds the shipped files which depend on default settings; it measures
nothing.
"""
SETTINGS = ", ".join(
    setting_names(tuple(group for group in SETTING_GROUPS if group != "regularize"))
)
"""The settings that can be named without loading torch."""

app = typer.Typer(
    help=(
        "Make a text-to-image diffusion model forget a concept, attack the forgetting, and judge"
        " both."
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(continual, name="continual")
app.add_typer(pocket, name="pocket")
app.command()(audit)
app.command()(attack)
app.command()(report)
app.command()(compare)


@app.command()
def run(
    concept: Annotated[str, typer.Option(help=OPTIONS["concept"], metavar="TEXT")],
    out: Annotated[Path, typer.Option(help="new folder for the run", metavar="DIR")],
    anchor: Annotated[str | None, typer.Option(help=OPTIONS["anchor"], metavar="TEXT")] = None,
    objective: Objective = RunConfig.objective,
    rule: Annotated[str | None, typer.Option(help=OPTIONS["rule"], metavar="NAME")] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="file of your own forget and retain prompts, JSON or text", metavar="FILE"
        ),
    ] = None,
    seed: Seed = str(RunConfig.seed),
    preset: Preset = RunConfig.preset,
    model: Model = RunConfig.model,
    settings: Annotated[
        list[str] | None,
        set_option(
            f"any of {SETTINGS}, and METHOD.NAME and regularize.NAME of `methods`; may be repeated"
        ),
    ] = None,
) -> None:
    """Forget a concept, attack the forgetting and judge both; writes everything to a new folder."""
    config = make_config(
        concept,
        preset=preset,
        anchor=anchor,
        objective=objective,
        prompts=read_prompts(prompts) if prompts else None,
        seed=seed,
        model=model,
        **({"rule": rule} if rule else {}),
        **assignments(settings or []),
    )
    last = _run(config, out)
    print_result(last[Scores], last[Verdict])
    folder, kinds = last[Done].folder, (".png", ".json", ".safetensors")
    files = sorted(path.name for path in folder.iterdir() if path.suffix in kinds)
    print(f"Written to {folder}{_taken(folder, out)}: {', '.join(files)}, images/")


def _run(config: RunConfig, out: Path) -> dict[type, Event]:
    """Run and show it; returns the last event of each kind.

    Raises:
        UnlearnError: it failed or was stopped; the sentence says what is kept.
    """
    from ..runs import workflow

    last: dict[type, Event] = {}
    try:
        with interrupt_flag() as cancel, StageBars(screen()) as bars:
            for event in workflow.run(config, out, cancel=cancel):
                bars.show(event)
                last[type(event)] = event
    except UnlearnError as error:
        if Done not in last:
            raise
        reached = _reached(last[Done].folder, out)
        raise UnlearnError(f"{str(error).rstrip('.')}; {reached}") from error
    if last[Done].stopped:
        raise Cancelled(f"Stopped; {_reached(last[Done].folder, out)}")
    return last


def _reached(folder: Path, out: Path) -> str:
    return f"what was reached before is in {folder}{_taken(folder, out)}."


def _taken(folder: Path, out: Path) -> str:
    return f" ({out} was taken meanwhile)" if folder != out else ""


@app.command()
def generate(
    prompt: Annotated[
        list[str], typer.Option(help="what to generate; may be repeated", metavar="TEXT")
    ],
    out: Annotated[Path, typer.Option(help="new folder for the pictures", metavar="DIR")],
    seed: Annotated[
        str, typer.Option(help="seed of the first picture; the next ones count up", metavar="N")
    ] = "0",
    adapter: Annotated[
        Path | None, typer.Option(help="unlearn.safetensors of a run", metavar="FILE")
    ] = None,
    model: Model = RunConfig.model,
) -> None:
    """Generate pictures with the original model or with an adapter; writes one PNG per prompt."""
    prompts = [clean_text(text, "prompt") for text in prompt]
    first = whole_number(seed, "seed", 0, 2**31 - len(prompts))
    from ..models import generate as generation
    from ..models.catalog import load_model
    from ..models.diffusers.adapter_files import read_adapter
    from ..models.sizes import picture_size

    names = [f"{row:02d}.png" for row in range(len(prompts))]
    seeds = [first + row for row in range(len(prompts))]
    with NewFolder(out) as new:
        if adapter:
            read_adapter(adapter)
        loaded = load_model(model)
        check_space(out, len(names) * picture_size(loaded))
        with enough_memory("Generating pictures", "their number, or choose a smaller model"):
            pictures = generation.generate(loaded, prompts, seeds, adapter=adapter)
        for name, picture in zip(names, pictures, strict=True):
            picture.save(new.partial / name)
        folder = new.settle()
    if note := _taken(folder, out):
        typer.echo(f"Written to {folder}{note}", err=True)
    print(*(folder / name for name in names), sep="\n")


@app.command()
def concepts(
    model: Model = RunConfig.model,
) -> None:
    """List the concepts a model is known to show, with their synonyms and families."""
    from ..concepts import catalog

    known = catalog.known_concepts(model)
    if not known:
        print(f"{model} has no list of concepts: any words can be typed.")
    rows: dict[str, list[tuple[str, ...]]] = {}
    for entry in known:
        seen = "never shown in training" if entry.fresh else ""
        row = (entry.name, entry.family, ", ".join(entry.synonyms), seen)
        rows.setdefault(entry.kind, []).append(row)
    for kind, listed in rows.items():
        Console().print(table(f"{kind}s", ("name", "family", "also typed as", ""), listed))


@app.command()
def methods() -> None:
    """List all methods, attacks, judges and worlds, with the settings that are their own."""
    for kind in registry.PACKAGES:
        rows = [
            (part, registry.describe(kind, part), own_settings(kind, part))
            for part in registry.names(kind)
        ]
        Console().print(table(kind.replace("_", " "), ("name", "what it does", "settings"), rows))


@app.command()
def doctor() -> None:
    """Check this machine: Python, packages, device, bundled models, disk space, browser for the
    tests.
    """
    found = list(checks())
    Console().print(table("doctor", ("", "check", "found"), found))
    if any(mark == MISSING for mark, *_ in found):
        raise typer.Exit(1)


@app.command()
def bench(
    name: Annotated[
        str,
        typer.Argument(help=f"{', '.join(BENCHES)}, all but soak, or {REBUILD}", metavar="NAME"),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="folder for its cells and table; what is there already is kept",
            metavar="DIR",
            parser=named_folder,
        ),
    ] = Path("assets/experiments"),
    seeds: Annotated[str, typer.Option(help="runs per concept", metavar="N")] = "3",
    smoke: Annotated[
        bool, typer.Option("--smoke", help="one small cell of each kind, to see that it works")
    ] = False,
    full: Annotated[
        bool, typer.Option("--full", help="the whole grid where there is a larger one, for a GPU")
    ] = False,
    split: Annotated[
        str,
        typer.Option(
            help="dev: judged by other prompts and seeds, to tune by (paper3)", metavar="test|dev"
        ),
    ] = "test",
    ray: Annotated[
        bool,
        typer.Option("--ray", help="measure cells side by side with Ray, here or at ADDRESS"),
    ] = False,
    address: Annotated[
        str | None, typer.Argument(help="a Ray cluster, host:port or auto", metavar="ADDRESS")
    ] = None,
) -> None:
    """Measure a table, resuming what is there already, and print it."""
    _check_bench(name, split, ray, address)
    from ..experiments.cells import Extent

    count = whole_number(seeds, "seeds", 1, 100)
    extent = Extent(out.absolute(), count, smoke, full, split)
    for line in _bench_lines(name, extent, ray, address):
        print(line, flush=True)


def _check_bench(name: str, split: str, ray: bool, address: str | None) -> None:
    check_known("benchmark", name, (*BENCHES, REBUILD, "all"), field="name")
    if split not in (("test", "dev") if name == "paper3" else ("test",)):
        raise ConfigError(
            f"The split is {split!r}; test is accepted, and dev with paper3.", "split"
        )
    if address and not ray:
        raise ConfigError(f"The address {address!r} is accepted with --ray only.", "address")
    if ray and name == REBUILD:
        raise ConfigError(f"--ray is not accepted with {REBUILD}, only with benchmarks.", "ray")


def _bench_lines(name: str, extent: "Extent", ray: bool, address: str | None) -> Iterator[str]:
    from ..experiments import cells

    if name == REBUILD:
        from ..experiments.assets import rebuild

        yield from rebuild(extent)
        return
    loop = cells.one_by_one
    if ray:
        from ..experiments.ray_tasks import LOCAL, ray_tasks

        loop = ray_tasks(address or LOCAL)
    for each in OF_MODELS if name == "all" else (name,):
        module, kind = BENCHES[each]
        experiment = getattr(importlib.import_module(f"unlearn_app.experiments.{module}"), kind)
        yield from cells.bench(experiment(extent), loop)


def main() -> None:
    """Run the command line; a user's mistake is one sentence and exit code 2, a bug keeps its
    traceback.
    """
    # Notes of transformers on absent extras would hide our sentence.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    interruption.number = signal.SIGINT
    try:
        with (
            on_signal(interruption.interrupt, FROM_OUTSIDE),
            enough_memory("The command", TO_LOWER),
        ):
            code = app(prog_name="python -m unlearn_app", standalone_mode=False)
    except (Cancelled, KeyboardInterrupt) as stop:
        _leave(str(stop) or "Stopped.", SIGNALLED + interruption.number)
    except UnlearnError as error:
        _leave(str(error), USER_ERROR)
    except typer.TyperException as error:
        # Without a subcommand the help has been printed already and the message is empty.
        message = error.format_message().strip().rstrip(".")
        _leave(
            f"{message}; `python -m unlearn_app --help` lists what there is." if message else "",
            USER_ERROR,
        )
    except OSError as error:
        if error.errno not in REFUSED:
            raise
        place = error.filename or "a file"
        _leave(f"{REFUSED[error.errno]}: {place} cannot be read or written.", USER_ERROR)
    if code == INTERRUPTED:
        _leave("Stopped.", SIGNALLED + interruption.number)
    sys.exit(code or 0)


def _leave(sentence: str, code: int) -> None:
    if sentence:
        said = f"error: {sentence}" if code == USER_ERROR else sentence
        print(said, file=Lasting(sys.stderr))
    sys.exit(code)
