"""The commands under `continual`: requests to forget that keep coming, in a ledger."""

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..common import registry
from ..common.errors import (
    Cancelled,
    ConfigError,
    check_known,
    enough_memory,
    raise_if_stopped,
)
from ..common.json_values import to_json
from ..concepts.catalog import preview_concept, request_name
from ..settings import groups
from ..settings.presets import (
    DEFAULT_REGULARIZATION,
    DEFAULT_SEQUENCE_OBJECTIVE,
    REGULARIZATION_PRESETS,
    request_settings,
)
from ..settings.run_config import (
    RunConfig,
    clean_text,
    config_from_dict,
    make_config,
    make_plan,
    with_concept,
)
from .console import (
    Judge,
    Model,
    Objective,
    Preset,
    Seed,
    StageBars,
    assignments,
    interrupt_flag,
    percent,
    screen,
    set_option,
    table,
    whole_number,
)
from .export import FORMATS, Format, Pipeline, check_targets, write_export

if TYPE_CHECKING:
    from ..continual.ledger import Ledger

continual = typer.Typer(
    help="Forget one concept after another, and keep a ledger of it.", invoke_without_command=True
)
LEDGER = Annotated[Path, typer.Argument(help="folder of a ledger", metavar="DIR")]
SEQUENCE = "sequence."


@continual.callback()
def start(
    context: typer.Context,
    concepts: Annotated[
        str,
        typer.Option(help="what to forget, in this order, separated by commas", metavar="A,B,C"),
    ] = "",
    out: Annotated[
        Path | None, typer.Option(help="new folder for the ledger", metavar="DIR")
    ] = None,
    objective: Objective = DEFAULT_SEQUENCE_OBJECTIVE,
    hold: Annotated[
        str,
        typer.Option(
            help=(
                f"what holds the requests back; {DEFAULT_REGULARIZATION} for the bundled model,"
                " else nothing"
            ),
            metavar="|".join(REGULARIZATION_PRESETS),
        ),
    ] = "",
    keep: Annotated[
        str, typer.Option(help="what else to test after every request", metavar="A,B,C")
    ] = "",
    seed: Seed = str(RunConfig.seed),
    preset: Preset = RunConfig.preset,
    model: Model = RunConfig.model,
    judge: Judge = None,
    settings: Annotated[
        list[str] | None, set_option("as of `run`, and sequence.regime, sequence.merge and more")
    ] = None,
) -> None:
    """Begin a ledger: forget concepts one after the other, and test everything after each."""
    if context.invoked_subcommand:
        return
    if not concepts.strip():
        raise ConfigError(
            "There are no --concepts; names separated by commas are needed, or a command.",
            "concepts",
        )
    names = [clean_text(text, "concept") for text in concepts.split(",")]
    if out is None:
        raise ConfigError("There is no --out; a new folder for the ledger is needed.", "out")
    known = {"preset": preset, "objective": objective, "seed": seed, "model": model}
    known["judge"] = ",".join(judge or [])
    given = assignments(settings or [], SEQUENCE)
    of_plan = [name for name in given if name.startswith(SEQUENCE)]
    plan = make_plan(**{name.removeprefix(SEQUENCE): given.pop(name) for name in of_plan})
    config = make_config(names[0], **known, **_regularized(hold, preset, objective, model) | given)
    kept = [clean_text(text, "keep") for text in keep.split(",") if text.strip()]
    _begin(out, config, plan, names, kept)


def _regularized(hold: str, preset: str, objective: str, model: str) -> dict[str, Any]:
    hold = hold or registry.world(model).regularization_preset(objective)
    check_known("hold", hold, tuple(REGULARIZATION_PRESETS))
    return request_settings(hold, preset)


def _begin(
    out: Path, config: RunConfig, plan: "groups.SequenceConfig", names: list[str], kept: list[str]
) -> None:
    from ..continual.sequence import new_ledger

    found = [preview_concept(with_concept(config, name)) for name in names]
    asked = [request_name(concept, config.model) for concept in found]
    folded = [name.casefold() for name in asked]
    for name in asked:
        if folded.count(name.casefold()) > 1:
            raise ConfigError(
                f"--concepts names “{name}” more than once; each is accepted once.", "concepts"
            )
    begun = new_ledger(out, config, plan, [*asked, *kept])
    try:
        _serve(begun, asked)
    except BaseException:
        if not begun.rows:  # so that the same command may be given again
            begun.discard()
        raise


@continual.command()
def add(
    ledger: LEDGER,
    concepts: Annotated[list[str], typer.Argument(help="what to forget next", metavar="CONCEPT")],
    settings: Annotated[
        list[str] | None, set_option("as of `run`, for these requests instead of the ledger's")
    ] = None,
) -> None:
    """Forget more concepts on top of what is there."""
    opened, given = _opened(ledger), assignments(settings or [])
    if fixed := [name for name in given if name.startswith("compare.")]:
        raise ConfigError(
            f"--set {fixed[0]} is not accepted: the pictures of a ledger are all made with the"
            f" {fixed[0]} that it was begun with.",
            "set",
        )
    config = config_from_dict(to_json(opened.config), **given)
    _serve(opened, [clean_text(text, "concept") for text in concepts], config)


@continual.command()
def rollback(
    ledger: LEDGER,
    to: Annotated[str, typer.Argument(help="number of the last request to keep", metavar="N")],
) -> None:
    """Take back every request after number N; 0 takes back all."""
    opened = _opened(ledger)
    opened.rollback(whole_number(to, "N", 0, 10_000))
    _print(opened)


@continual.command()
def undo(ledger: LEDGER) -> None:
    """Bring back what was rolled back since the last request was added."""
    opened = _opened(ledger)
    opened.undo_rollback()
    _print(opened)


@continual.command()
def show(ledger: LEDGER) -> None:
    """What a ledger holds, and how the model stood after every request."""
    _print(_opened(ledger))


@continual.command()
def export(
    ledger: LEDGER,
    out: Annotated[
        Path | None, typer.Argument(help="new .safetensors file", metavar="FILE")
    ] = None,
    number: Annotated[
        str, typer.Option(help="up to which request; the last when absent", metavar="N")
    ] = "",
    alone: Annotated[
        bool, typer.Option("--alone", help="that request's own adapter instead of all so far")
    ] = False,
    form: Format = FORMATS[0],
    pipeline: Pipeline = None,
) -> None:
    """Write one adapter, all requests together or one alone, or the model that has it in its
    weights.
    """
    opened = _opened(ledger)
    last = len(opened.requests)
    chosen = whole_number(number, "number", 1, max(last, 1)) if number else last
    check_targets(out, form, pipeline)
    if not last:
        raise ConfigError("The ledger holds no request; there is nothing to export.", "number")
    path = opened.path(chosen, own=alone)
    write_export(path, out, form, pipeline, opened.config.model, opened.check_base)
    if alone and chosen > 1 and opened.plan.regime == "sequential":
        before = ", ".join(row.concept for row in opened.requests[: chosen - 1])
        typer.echo(f"It loads on the model that has forgotten {before}.", err=True)


def _opened(folder: Path) -> "Ledger":
    from ..continual.ledger import Ledger

    return Ledger.open(folder)


def _serve(ledger: "Ledger", concepts: list[str], config: RunConfig | None = None) -> None:
    from ..continual import sequence
    from ..models.catalog import load_for

    with (
        ledger.locked(),
        interrupt_flag() as cancel,
        StageBars(screen()) as bars,
        enough_memory(*sequence.NEEDS_MEMORY),
    ):
        bars.begin(f"Loading the {ledger.config.model} model")
        model = load_for(config or ledger.config)
        known = model, sequence.load_judge(ledger, concepts), cancel.is_set
        raise_if_stopped(cancel.is_set)
        sequence.check_room(ledger, model, len(concepts))
        work = [sequence.add_original(ledger, *known)]
        work += [sequence.append(ledger, name, *known, config=config) for name in concepts]
        try:
            for event in itertools.chain.from_iterable(work):
                bars.show(event)
        except Cancelled as error:
            kept = f"; what was reached before is in {ledger.folder}" if ledger.rows else ""
            raise Cancelled(f"Stopped{kept}.") from error
    _print(ledger)


def _print(ledger: "Ledger") -> None:
    from ..continual.metrics import request_metrics

    rows = [
        (
            str(found.number),
            row.concept,
            *map(percent, (found.ua, found.ra_i, found.ra_c)),
            f"{found.drift:.2f}",
            percent(found.relapse),
            f"{row.seconds:.0f}",
            " ".join(row.notes),
        )
        for row, found in zip(ledger.requests, request_metrics(ledger.rows), strict=True)
    ]
    columns = ("request", "forgot", "UA", "RA-I", "RA-C", "drift", "largest relapse", "seconds", "")
    Console().print(table(f"{ledger.folder} · {ledger.plan.regime}", columns, rows))
    if ledger.requests:
        Console().print(_still_shown(ledger))
    if count := len(ledger.rolled_back):
        words = "request that was" if count == 1 else "requests that were"
        typer.echo(
            f"`undo` brings back {count} {words} rolled back, until the next `add`.", err=True
        )
    if not ledger.hashed:
        typer.echo(
            "An earlier version wrote no hashes of its files; the next change records them.",
            err=True,
        )


def _still_shown(ledger: "Ledger") -> Table:
    """By concept and request, the share of pictures that show what was asked for; dim before it is
    to be erased.
    """
    rows = []
    for number, request in enumerate(ledger.requests, 1):
        seen = [row.panel.get(request.concept) for row in ledger.rows]
        shares = [percent(found.accuracy if found else None) for found in seen]
        dimmed = [Text(text, "dim" * (at < number)) for at, text in enumerate(shares)]
        rows.append((request.concept, *dimmed))
    steps = ("original", *map(str, range(1, len(ledger.rows))))
    return table("Pictures that show it, after every request", ("erased", *steps), rows, steps)
