"""The commands under `pocket`: rendering, training and measuring the bundled world."""

from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from ..common.bundled_hashes import record_hashes
from ..common.errors import Cancelled, ConfigError
from ..common.paths import POCKET_FLOW
from .console import StageBars, interrupt_flag, named_folder, screen, whole_number

pocket = typer.Typer(
    help="Re-make the bundled PocketCanvas world and models.", no_args_is_help=True
)
WORK = Annotated[
    Path,
    typer.Option(
        help="folder for renderings and checkpoints; resumed if it is there",
        metavar="DIR",
        parser=named_folder,
    ),
]


@pocket.command()
def render(
    work: WORK = Path("work"),
    workers: Annotated[str, typer.Option(help="processes; 0 is one per core", metavar="N")] = "0",
) -> None:
    """Render the training pictures from the bundled glyphs."""
    from ..pocket.training import recipe

    _show_progress(recipe.render(work, whole_number(workers, "workers", 0, 1024)))


@pocket.command()
def train(
    work: WORK = Path("work"),
    part: Annotated[
        list[str] | None,
        typer.Option(help="only this model; may be repeated; all when absent", metavar="NAME"),
    ] = None,
    from_assets: Annotated[
        bool,
        typer.Option(
            "--from-assets",
            help="go on from the bundled denoiser, with its text encoder and latents",
        ),
    ] = False,
    flow: Annotated[
        bool,
        typer.Option(
            "--flow", help="train pocket-flow, a flow transformer over the bundled latents, instead"
        ),
    ] = False,
) -> None:
    """Train text encoder, autoencoder, judges and denoiser, or pocket-flow, resuming from
    checkpoints.
    """
    from ..pocket.training import recipe

    if flow:
        if part or from_assets:
            other = "--part" if part else "--from-assets"
            raise ConfigError(f"--flow and {other} are given; one of them is accepted.", "flow")
        _show_progress(recipe.train_flow(work))
        record_hashes(POCKET_FLOW)
        return
    _show_progress(recipe.train(work, part, from_assets=from_assets))
    if not part:
        record_hashes()


@pocket.command()
def arms(
    work: WORK = Path("work"),
    minutes: Annotated[
        str, typer.Option(help="what the training of each arm takes on this CPU", metavar="N")
    ] = "15",
) -> None:
    """Train the denoiser with other settings, equally long, and compare them for the card."""
    from ..pocket.training.arms import compare_arms

    _show_progress(compare_arms(work, 60 * whole_number(minutes, "minutes", 1, 1440)))


@pocket.command()
def card(
    work: Annotated[
        Path | None,
        typer.Option(
            help="folder of the training; without it the card keeps what it tells of that",
            metavar="DIR",
            parser=named_folder,
        ),
    ] = None,
    flow: Annotated[bool, typer.Option("--flow", help="the card of pocket-flow instead")] = False,
) -> None:
    """Measure the bundled models and write their card and sample sheets."""
    from ..pocket.card import write_card, write_flow_card

    _show_progress(write_flow_card(work) if flow else write_card(work))
    record_hashes(POCKET_FLOW if flow else None)


@pocket.command()
def naming(
    out: Annotated[Path, typer.Option(help="new folder for the sheets", metavar="DIR")],
    seed: Annotated[str, typer.Option(help="seed of pictures and order", metavar="N")] = "0",
) -> None:
    """Write numbered pictures without names, for somebody who says what they show, and a key."""
    from ..models.catalog import load_model
    from ..pocket.naming import write_sheets

    for path in write_sheets(load_model(), out, whole_number(seed, "seed", 0, 10_000)):
        typer.echo(path)


def _show_progress(events: Generator[Any, None, None]) -> None:
    """Show the events; a signal ends the work after one of them, and what it closes is kept."""
    stage = None
    with interrupt_flag() as cancel, StageBars(screen()) as bars, closing(events):
        for event in events:
            if event.stage != stage:
                stage = event.stage
                bars.begin(stage)
            bars.move(event.done, event.total, event.detail)
            if cancel.is_set():
                raise Cancelled("Stopped; the same command goes on from here.")
