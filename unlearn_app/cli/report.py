"""The commands that show finished runs to others: a report of one, and several side by side."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from ..common.errors import ConfigError, OutputError
from .console import print_path, table

RUN = typer.Argument(help="folder of a finished run", metavar="RUN")


def report(run: Annotated[Path, RUN]) -> None:
    """Write report.html and report.json into a run folder and print their paths."""
    from ..runs.report import write_report

    for path in write_report(run):
        print_path(path)


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
        _check_file(out)
    from ..common.atomic_files import write_bytes
    from ..runs.compare_runs import comparison_html, comparison_rows
    from ..runs.report import open_run

    opened = [open_run(folder) for folder in runs]
    names = ("", *(run.folder.resolve().name for run in opened))
    shown, last = table("Shares with 95 % Wilson intervals", names, ()), None
    for part, name, cells in comparison_rows(opened):
        if part != last:
            shown.add_section()
            shown.add_row(Text(part, style="bold"))
        last = part
        shown.add_row(Text(f"  {name}"), *map(Text, cells))
    Console().print(shown)
    if out is None:
        return
    page = comparison_html(opened).encode()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(out, page)
    except OSError as error:
        raise OutputError(
            f"The output {str(out)!r} cannot be written: {error.strerror or error}."
        ) from error
    print_path(out)


def _check_file(out: Path) -> None:
    if out.suffix != ".html":
        raise ConfigError(f"The output {str(out)!r} is no .html file.", "out")
    if out.exists() or out.is_symlink():
        raise OutputError(f"The output {str(out)!r} exists already; a new .html file is accepted.")
