"""Commands on finished runs: attack one, report on one, compare several."""

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..common.atomic_files import new_file
from ..common.errors import ConfigError
from ..common.record_files import shown
from ..concepts.own_pictures import read_folders, settings_from
from ..settings.attacks import kinds_of
from ..settings.events import Verdict
from ..settings.run_config import SETTING_GROUPS, setting_names
from .console import (
    Judge,
    Pictures,
    StageBars,
    assignments,
    check_new_file,
    interrupt_flag,
    screen,
    set_option,
    table,
    verdict_text,
)

if TYPE_CHECKING:
    from ..attacks.never_seen import NeverSeen

RUN = typer.Argument(help="folder of a finished run", metavar="RUN")
NeverSeenName = Annotated[
    str,
    typer.Option(
        help="something the original has never seen, the control; the bundled model knows some",
        metavar="NAME",
    ),
]


def attack(
    run: Annotated[Path, RUN],
    kind: Annotated[
        list[str], typer.Option(help="an attack, quick or all; may be repeated", metavar="NAME")
    ],
    pictures: Pictures = None,
    never_seen: NeverSeenName = "",
    never_seen_pictures: Annotated[
        Path | None, typer.Option(help="folder of PNG pictures of --never-seen", metavar="DIR")
    ] = None,
    judge: Judge = None,
    model: Annotated[
        str | None,
        typer.Option(help="where the run's model is here, for a run of others", metavar="FOLDER"),
    ] = None,
    settings: Annotated[
        list[str] | None, set_option("ATTACK.NAME as `methods` lists them, attack.* or compare.*")
    ] = None,
) -> None:
    """Try to get the concept back out of a run's model; what is found is kept beside the run."""
    from ..evaluation.base_rates import seconds_of
    from ..evaluation.finding import Finding
    from ..runs.attack_run import run_attacks
    from ..runs.folder import Run

    opened, found, verdict = Run.open(run), [], None
    kinds = [name for asked in kind for name in kinds_of(asked)]
    given = read_folders(pictures=pictures)
    control = read_never_seen(never_seen, never_seen_pictures, "--never-seen-pictures")
    changes = settings_from(given) | _attack_settings(settings or [], kinds)
    named = {"judge": ",".join(judge or []), "model": model}
    changes |= {name: value for name, value in named.items() if value}
    terminal = screen()
    if seconds := seconds_of(kinds, opened.config, opened.record["timing"]):
        said = f"This takes about {seconds:.0f} seconds here, and some to load."
        terminal.print(said, highlight=False)
    try:
        with interrupt_flag() as cancel, StageBars(terminal) as bars:
            asked = {"should_stop": cancel.is_set, "given": given, "never_seen": control}
            for event in run_attacks(opened, kinds, changes, **asked):
                if isinstance(event, Finding):
                    found.append(event)
                elif isinstance(event, Verdict):
                    verdict = event
                else:
                    bars.show(event)
    finally:  # what was found before an attack fails or is stopped is kept
        if found:
            _print_findings(run, found, verdict)


def read_never_seen(name: str, pictures: Path | None, option: str) -> "NeverSeen | None":
    """The caller's own control, whose pictures `option` names.

    Raises:
        ConfigError: it has a name and no pictures, or pictures and no name.
    """
    if bool(name.strip()) != (pictures is not None):
        raise ConfigError(
            f"--never-seen NAME and {option} DIR are accepted together: the control is taught from"
            " pictures as the concept is.",
            "never_seen",
        )
    if pictures is None:
        return None
    from ..attacks.never_seen import NeverSeen
    from ..concepts.own_pictures import read_pictures

    return NeverSeen(name.strip(), read_pictures(pictures))


def _attack_settings(texts: list[str], kinds: list[str]) -> dict[str, str]:
    """What `--set` changes of attacks of these kinds.

    Raises:
        ConfigError: an unknown setting, or one that no attack has.
    """
    own, shared = tuple(f"{name}." for name in kinds), ("attack.", "compare.")
    changes = assignments(texts, also=own)
    for name in changes:
        if not name.startswith((*own, *shared)):
            accepted = [each for each in setting_names(SETTING_GROUPS) if each.startswith(shared)]
            raise ConfigError(
                f"An attack does not change {name!r}; its own settings and"
                f" {', '.join(accepted)} do.",
                name,
            )
    return changes


def _print_findings(run: Path, found: list, verdict: Verdict | None) -> None:
    paper = Console()
    paper.print(finding_table(found))
    if verdict:
        paper.print(verdict_text(verdict))
    names = ", ".join(finding.folder.name for finding in found)
    paper.print(f"Written to {run / 'attacks'}: {names}", markup=False)


def finding_table(findings: list) -> Table:
    """What each attack reached, beside its control."""
    rows = []
    for finding in findings:
        low, high = finding.interval
        right, confirmed = finding.right, finding.confirmed
        rows.append(
            (
                finding.kind,
                str(finding.tries),
                f"{right} of {finding.n}",
                f"{low:.0%} to {high:.0%}",
                "–" if confirmed is None else f"{confirmed} of {right}",
                f"{finding.base:.0%} ({finding.control['name']})" if finding.control else "none",
                "–" if finding.seconds is None else f"{finding.seconds:.0f}",
            )
        )
    return table(
        "Prompts at which an attack shows the concept, best of its tries",
        ("attack", "tries", "shown", "95 %", "second judge", "control", "seconds"),
        rows,
        right=("tries", "seconds"),
    )


def report(run: Annotated[Path, RUN]) -> None:
    """Write report.html and report.json into a run folder and print their paths."""
    from ..runs.report import write_report

    for path in write_report(run):
        typer.echo(path)


def compare(
    runs: Annotated[
        list[Path], typer.Argument(help="folders of two or more finished runs", metavar="RUN...")
    ],
    out: Annotated[
        Path | None, typer.Option(help="new .html file with curves and pictures", metavar="FILE")
    ] = None,
) -> None:
    """Show what differs between runs: settings, scores and attacks; --out adds curves and
    pictures.
    """
    if len(runs) < 2:
        raise ConfigError(
            f"Only {str(runs[0])!r} is given; two or more run folders are accepted.", "runs"
        )
    if out is not None:
        check_new_file(out, ".html")
    from ..runs.compare_runs import comparison_html, comparison_rows
    from ..runs.report import open_run

    opened = [open_run(folder) for folder in runs]
    names = ("", *(shown(run.folder.resolve().name) for run in opened))
    printed = table("Shares with 95 % Wilson intervals", names, ())
    for part, rows in groupby(comparison_rows(opened), key=lambda row: row[0]):
        printed.add_section()
        printed.add_row(Text(part, style="bold"))
        for _, name, cells in rows:
            printed.add_row(Text(f"  {name}"), *map(Text, cells))
    Console().print(printed)
    if out is not None:
        new_file(out, comparison_html(opened).encode())
        typer.echo(out)
