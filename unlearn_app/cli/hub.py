"""Commands that publish a run on the Hugging Face Hub, and fetch one."""

from pathlib import Path
from typing import Annotated

import typer

from .finished_runs import RUN

NAME = typer.Argument(help="a repository on the Hugging Face Hub", metavar="OWNER/NAME")


def push(
    run: Annotated[Path, RUN],
    name: Annotated[str, NAME],
    private: Annotated[
        bool, typer.Option("--private", help="make the repository one that only you can see")
    ] = False,
    own_prompts: Annotated[
        bool, typer.Option("--own-prompts", help="publish the prompts of --prompts as well")
    ] = False,
    dry_run: Annotated[
        Path | None,
        typer.Option(help="write what would be uploaded to this new folder", metavar="DIR"),
    ] = None,
) -> None:
    """Publish a run with a model card; local paths and the adversary's adapter are left out."""
    from ..runs import hub, publication

    if dry_run is not None:
        hub.check_repository(name)
        typer.echo(publication.write_publication(run, dry_run, name, own_prompts))
        return
    typer.echo(hub.push(run, name, private=private, own_prompts=own_prompts))


def pull(
    name: Annotated[str, NAME],
    out: Annotated[Path, typer.Argument(help="new folder for the run", metavar="DIR")],
) -> None:
    """Fetch a published run; every file is checked, and none is a pickle."""
    from ..runs.folder import Run
    from ..runs.hub import pull

    folder = pull(name, out)
    typer.echo(f"{folder}: {Run.open(folder).verdict.label}")
