"""The command line: `python -m unlearn_app --help`."""

import errno
import importlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ..common import registry
from ..common.errors import Cancelled, ConfigError, UnlearnError, check_known, enough_memory
from ..common.signals import FROM_OUTSIDE, no_interruption_lost, on_signal
from ..concepts.own_pictures import GivenPictures, read_folders, settings_from
from ..concepts.own_prompts import read_prompts
from ..concepts.targets import read_captions, read_targets
from ..settings.events import Done, Event, Scores, Verdict
from ..settings.run_config import SETTING_GROUPS, RunConfig, make_config, setting_names
from .audit import audit
from .console import (
    OPTIONS,
    Anchor,
    Captions,
    ConceptKind,
    ForgetPictures,
    Judge,
    Lasting,
    Model,
    Objective,
    OwnPrompts,
    Pictures,
    Preset,
    RetainPictures,
    Seed,
    StageBars,
    Targets,
    assignments,
    interrupt_flag,
    interruption,
    named_folder,
    own_settings,
    print_result,
    prompt_lines,
    screen,
    set_option,
    table,
    taken,
    whole_number,
)
from .continual import continual
from .doctor import MISSING, checks
from .export import export
from .finished_runs import attack, compare, report
from .generate import generate
from .hub import pull, push
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
    "models": ("models.measure", "Models"),
    "page": ("page.measure", "PageBench"),
    "soak": ("soak.measure", "Soak"),
}
OF_ANY_MODEL = ("paper1", "paper2", "paper3", "lab")
"""The benchmarks that also measure the other bundled model, or one that the user brings."""
BY_NAME = ("page", "soak")
"""The benchmarks that measure no model, and run only when they are named."""
OF_MODELS = tuple(name for name in BENCHES if name not in BY_NAME)
"""The benchmarks that `all` stands for."""
ALL = f"all (but {' and '.join(BY_NAME)})"
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
RECORD = "recordings"
"""The name that records what the page shows recorded and is not there yet."""
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
app.command()(generate)
app.command()(export)
app.command()(audit)
app.command()(attack)
app.command()(report)
app.command()(compare)
app.command()(push)
app.command()(pull)


@app.command()
def run(
    concept: Annotated[str, typer.Option(help=OPTIONS["concept"], metavar="TEXT")],
    out: Annotated[Path, typer.Option(help="new folder for the run", metavar="DIR")],
    anchor: Anchor = None,
    concept_kind: ConceptKind = RunConfig.concept_kind,
    objective: Objective = RunConfig.objective,
    rule: Annotated[str | None, typer.Option(help=OPTIONS["rule"], metavar="NAME")] = None,
    prompts: OwnPrompts = None,
    pictures: Pictures = None,
    forget_pictures: ForgetPictures = None,
    retain_pictures: RetainPictures = None,
    seed: Seed = str(RunConfig.seed),
    preset: Preset = RunConfig.preset,
    model: Model = RunConfig.model,
    judge: Judge = None,
    settings: Annotated[
        list[str] | None,
        set_option(
            f"any of {SETTINGS}, and METHOD.NAME and regularize.NAME of `methods`; may be repeated"
        ),
    ] = None,
) -> None:
    """Forget a concept, attack the forgetting and judge both; writes everything to a new folder."""
    given = read_folders(
        pictures=pictures, forget_pictures=forget_pictures, retain_pictures=retain_pictures
    )
    config = make_config(
        concept,
        preset=preset,
        anchor=anchor,
        concept_kind=concept_kind,
        objective=objective,
        prompts=read_prompts(prompts) if prompts else None,
        seed=seed,
        model=model,
        judge=",".join(judge or []),
        **({"rule": rule} if rule else {}),
        **settings_from(given) | assignments(settings or []),
    )
    last = _run(config, out, given)
    print_result(last[Scores], last[Verdict])
    folder, kinds = last[Done].folder, (".png", ".json", ".safetensors")
    files = sorted(path.name for path in folder.iterdir() if path.suffix in kinds)
    print(f"Written to {folder}{taken(folder, out)}: {', '.join(files)}, images/")


def _run(config: RunConfig, out: Path, given: GivenPictures) -> dict[type, Event]:
    """Run and show it; returns the last event of each kind.

    Raises:
        UnlearnError: it failed or was stopped; the sentence says what is kept.
    """
    from ..runs import workflow

    last: dict[type, Event] = {}
    try:
        with interrupt_flag() as cancel, StageBars(screen()) as bars:
            for event in workflow.run(config, out, cancel=cancel, given=given):
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
    return f"what was reached before is in {folder}{taken(folder, out)}."


@app.command()
def concepts(
    text: Annotated[
        str | None,
        typer.Argument(help="what a run would forget; nothing is loaded", metavar="TEXT"),
    ] = None,
    model: Model = RunConfig.model,
    anchor: Anchor = None,
    concept_kind: ConceptKind = RunConfig.concept_kind,
    prompts: OwnPrompts = None,
) -> None:
    """Show how a run would read TEXT and the prompts it would use; without TEXT, list the concepts
    that a model is known to show.
    """
    from ..concepts import catalog

    if text is not None:
        own = {"anchor": anchor, "concept_kind": concept_kind, "model": model}
        own["prompts"] = read_prompts(prompts) if prompts else None
        concept = catalog.preview_concept(make_config(text, **own))
        for line in prompt_lines(concept):
            print(line)
        return
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
        typer.Argument(help=f"{', '.join(BENCHES)}, {ALL}, {REBUILD} or {RECORD}", metavar="NAME"),
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
    model: Model = RunConfig.model,
    judge: Annotated[
        str | None, typer.Option(help="judge of the model's pictures", metavar="NAME")
    ] = None,
    targets: Targets = None,
    captions: Captions = None,
    ray: Annotated[
        bool, typer.Option("--ray", help="measure cells side by side with Ray, here or at ADDRESS")
    ] = False,
    address: Annotated[
        str | None, typer.Argument(help="a Ray cluster, host:port or auto", metavar="ADDRESS")
    ] = None,
) -> None:
    """Measure a table, resuming what is there already, and print it."""
    _check_bench(name, ray, address)
    own = _brought(name, model, judge, targets, captions, ray)
    from ..experiments.cells import Extent

    count = whole_number(seeds, "seeds", 1, 100)
    extent = Extent(out.absolute(), count, smoke, full, **own)
    for line in _bench_lines(name, extent, ray, address):
        print(line, flush=True)


def _brought(
    name: str,
    model: str,
    judge: str | None,
    targets: Path | None,
    captions: Path | None,
    ray: bool,
) -> dict[str, Any]:
    """What the user brings to a benchmark, as fields of its extent.

    Raises:
        ConfigError: another benchmark, something without targets, or unreadable files.
    """
    if targets is None:
        worlds = {*registry.names("world")} - {registry.OPEN_WORLD}
        bundled = name in OF_ANY_MODEL and model in worlds and not ray
        other = model != RunConfig.model and not bundled
        asked = {"model": other, "judge": judge, "captions": captions}
        for option, given in asked.items():
            if given:
                raise ConfigError(
                    f"--{option} is accepted with --targets FILE only: nobody knows what to forget"
                    f" otherwise. Without it, {', '.join(OF_ANY_MODEL)} take the bundled models,"
                    " and no --ray then.",
                    option,
                )
        return {"bundled": model} if bundled else {}
    if name not in OF_ANY_MODEL or ray:
        raise ConfigError(
            f"--targets is not accepted with {name}{' --ray' if ray else ''}; bench"
            f" {', '.join(OF_ANY_MODEL)} without --ray take it.",
            "targets",
        )
    if captions and name != "paper1":
        raise ConfigError("--captions is accepted with paper1 only.", "captions")
    lines = read_captions(captions) if captions else ()
    return {"targets": read_targets(targets, model), "judge": judge, "captions": lines}


def _check_bench(name: str, ray: bool, address: str | None) -> None:
    check_known("benchmark", name, (*BENCHES, REBUILD, RECORD, "all"), field="name")
    if address and not ray:
        raise ConfigError(f"The address {address!r} is accepted with --ray only.", "address")
    if ray and name in (REBUILD, RECORD):
        raise ConfigError(f"--ray is not accepted with {name}, only with benchmarks.", "ray")


def _bench_lines(name: str, extent: "Extent", ray: bool, address: str | None) -> Iterator[str]:
    from ..experiments import cells

    if name == REBUILD:
        from ..experiments.assets import rebuild

        yield from rebuild(extent)
        return
    if name == RECORD:
        from ..experiments.recordings import record_missing

        yield from record_missing(extent)
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
            no_interruption_lost(),
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
