"""The command `audit`: did an adapter or a model that others have published really forget?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ..common.errors import Cancelled, ConfigError
from ..settings.attacks import kinds_of
from ..settings.events import Done, Event, Scores, Verdict
from ..settings.run_config import RunConfig
from .console import (
    ConceptKind,
    Judge,
    Model,
    Seed,
    StageBars,
    assignments,
    interrupt_flag,
    print_result,
    screen,
    set_option,
    whole_number,
)
from .finished_runs import NeverSeenName, finding_table, read_never_seen

if TYPE_CHECKING:
    from ..evaluation.finding import Finding

SHARED = ("attack.", "compare.")
"""The settings of a run that an audit has too."""


def audit(
    unlearned: Annotated[
        str,
        typer.Option(
            help="what is said to have forgotten: an adapter file, a model folder, or a Hub id",
            metavar="ADAPTER|FOLDER|HUB_ID",
        ),
    ],
    concept: Annotated[str, typer.Option(help="what it should have forgotten", metavar="TEXT")],
    out: Annotated[Path, typer.Option(help="new folder for the audit", metavar="DIR")],
    original: Model = RunConfig.model,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            help="attacks beside the run's own: a name, quick or all; may be repeated",
            metavar="NAME",
        ),
    ] = None,
    concept_kind: ConceptKind = RunConfig.concept_kind,
    judge: Judge = None,
    seed: Seed = str(RunConfig.seed),
    never_seen: NeverSeenName = "",
    pictures: Annotated[
        Path | None, typer.Option(help="folder of PNG pictures of --never-seen", metavar="DIR")
    ] = None,
    settings: Annotated[list[str] | None, set_option("attack.* or compare.*")] = None,
) -> None:
    """Judge whether what others made has forgotten a concept: the same pictures by the original and
    by it, every attack with its control, a verdict and a report.
    """
    asked = {
        "kinds": [name for word in kind or ["quick"] for name in kinds_of(word)],
        "concept_kind": concept_kind,
        "judge": ",".join(judge or []),
        "seed": whole_number(seed, "seed", 0, 2**31 - 1),
        "never_seen": read_never_seen(never_seen, pictures, "--pictures"),
        **_changes(settings or []),
    }
    _audit((original, unlearned, concept, out), asked)


def _audit(what: tuple[str, str, str, Path], asked: dict[str, Any]) -> None:
    """Audit and show it.

    Raises:
        Cancelled: it was stopped; the sentence says what is kept.
    """
    from ..runs import audit as audits

    found: list[Finding] = []
    last: dict[type, Event] = {}
    try:
        with interrupt_flag() as cancel, StageBars(screen()) as bars:
            for event in audits.audit(*what, cancel=cancel, **asked):
                _take(event, found, last, bars)
    finally:
        _print(found, last)
    if last[Done].stopped:
        raise Cancelled(f"Stopped; what was reached before is in {last[Done].folder}.")


def _take(event: "Event | Finding", found: list, last: dict[type, Event], bars: StageBars) -> None:
    from ..evaluation.finding import Finding

    if isinstance(event, Finding):
        found.append(event)
        return
    bars.show(event)
    last[type(event)] = event


def _print(found: "list[Finding]", last: dict[type, Event]) -> None:
    """What was reached, with the report where the audit came to its end."""
    if found:
        Console().print(finding_table(found))
    if Scores in last and Verdict in last:
        print_result(last[Scores], last[Verdict])
    if Done in last and not last[Done].stopped:
        from ..runs.report import write_report

        page, _ = write_report(last[Done].folder)
        Console().print(f"Written to {last[Done].folder}: {page.name}", markup=False)


def _changes(settings: list[str]) -> dict[str, str]:
    changes = assignments(settings)
    for name in changes:
        if not name.startswith(SHARED):
            raise ConfigError(
                f"An audit does not change {name!r}; settings of attack and compare are accepted.",
                name,
            )
    return changes
