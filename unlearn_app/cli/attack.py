"""`python -m unlearn_app attack`: try to get back what a run has forgotten."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ..common.errors import ConfigError
from ..settings.attacks import kinds_of
from ..settings.events import Verdict
from ..settings.run_config import GROUPS, setting_names
from .console import StageBars, assignments, interrupt_flag, set_option, table, verdict_text


def attack(
    run: Annotated[Path, typer.Argument(help="folder of a finished run", metavar="RUN")],
    kind: Annotated[
        list[str], typer.Option(help="an attack, quick or all; may be repeated", metavar="NAME")
    ],
    settings: Annotated[
        list[str] | None, set_option("ATTACK.NAME as `methods` lists them, attack.* or compare.*")
    ] = None,
) -> None:
    """Try to get the concept back out of a run's model; findings and pictures are kept beside the
    run.
    """
    from ..evaluation.base_rates import seconds_of
    from ..evaluation.finding import Finding
    from ..runs.attack_run import run_attacks
    from ..runs.folder import Run

    opened, found, verdict = Run.open(run), [], None
    kinds = [name for asked in kind for name in kinds_of(asked)]
    changes = assignments(settings or [], also=tuple(f"{name}." for name in kinds))
    for name in changes:
        if not name.startswith((*(f"{kind}." for kind in kinds), "attack.", "compare.")):
            accepted = [
                each for each in setting_names(GROUPS) if each.startswith(("attack.", "compare."))
            ]
            raise ConfigError(
                f"An attack does not change {name!r}; its own settings and"
                f" {', '.join(accepted)} do.",
                name,
            )
    seconds = seconds_of(kinds, opened.config, opened.record.get("timing", {}))
    if seconds:
        Console(stderr=True).print(
            f"This takes about {seconds:.0f} seconds here, and some to load.", highlight=False
        )
    with interrupt_flag() as cancel, StageBars(Console(stderr=True)) as bars:
        for event in run_attacks(opened, kinds, changes, should_stop=cancel.is_set):
            if isinstance(event, Finding):
                found.append(event)
            elif isinstance(event, Verdict):
                verdict = event
            else:
                bars.show(event)
    paper = Console()
    paper.print(finding_table(found))
    paper.print(verdict_text(verdict))
    paper.print(
        f"Written to {run / 'attacks'}: {', '.join(finding.folder.name for finding in found)}",
        markup=False,
    )


def finding_table(findings: list) -> Table:
    """What each attack reached, beside its control."""
    rows = []
    for finding in findings:
        low, high = finding.interval
        right, confirmed = sum(finding.hits), finding.confirmed
        rows.append(
            (
                finding.kind,
                str(finding.tries),
                f"{right} of {len(finding.hits)}",
                f"{low:.0%} to {high:.0%}",
                "–" if confirmed is None else f"{confirmed} of {right}",
                f"{finding.base:.0%} ({finding.control['name']})" if finding.control else "none",
                f"{finding.seconds:.0f}",
            )
        )
    title = "Prompts at which an attack shows the concept, best of its tries"
    headers = ("attack", "tries", "shown", "95 %", "second judge", "control", "seconds")
    return table(title, headers, rows, right=("tries", "seconds"))
