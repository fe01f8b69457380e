"""The command `export`: what a run or a ledger has made, for other programs."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from ..common.atomic_files import check_output, new_file
from ..common.errors import ConfigError, check_known, enough_memory
from ..models.diffusers.adapter_files import FORMATS, converted, read_adapter
from .console import check_new_file, taken

Format = Annotated[
    str,
    typer.Option(
        "--format",
        help=(
            "of FILE: diffusers; kohya, which ComfyUI and A1111 read as well; or dense, the whole"
            " updates for these two"
        ),
        metavar="|".join(FORMATS),
    ),
]
Pipeline = Annotated[
    Path | None,
    typer.Option(help="new folder for the whole model with the adapter in it", metavar="DIR"),
]
CheckBase = Callable[[str, str], None]
"""Refuses a model by the hash of its weights and its name."""


def export(
    source: Annotated[Path, typer.Argument(help="folder of a run or a ledger", metavar="FOLDER")],
    out: Annotated[
        Path | None, typer.Argument(help="new .safetensors file", metavar="FILE")
    ] = None,
    form: Format = FORMATS[0],
    pipeline: Pipeline = None,
) -> None:
    """Write a run's or a ledger's adapter for other programs, or the model with it as a diffusers
    folder.
    """
    check_targets(out, form, pipeline)
    if (source / "ledger.json").is_file():
        from .continual import export as of_ledger

        of_ledger(source, out, "", False, form, pipeline)
        return
    from ..runs.folder import Run

    run = Run.open(source)
    write_export(run.adapter(), out, form, pipeline, run.config.model, run.check_base)


def check_targets(out: Path | None, form: str, pipeline: Path | None) -> None:
    """Refuse what cannot be written, before any work is done.

    Raises:
        ConfigError: neither a file nor a folder is named, or the format is unknown.
        OutputError: one of them exists.
    """
    check_known("format", form, FORMATS)
    if out is None and pipeline is None:
        raise ConfigError("Nothing is named to write; FILE or --pipeline DIR is accepted.", "out")
    if out is not None:
        check_new_file(out, ".safetensors")
    if pipeline is not None:
        check_output(pipeline)


def write_export(
    path: Path,
    out: Path | None,
    form: str,
    pipeline: Path | None,
    model: str,
    check_base: CheckBase,
) -> None:
    """Write the adapter file `path` in another format to `out`, and to the folder `pipeline` the
    model of that name with the adapter in its weights.

    Raises:
        UnlearnError: the adapter or the model cannot be read, or something cannot be written.
    """
    if pipeline is not None:
        from ..models.catalog import load_model
        from ..models.diffusers.fused_pipeline import export_pipeline

        state = read_adapter(path)
        with enough_memory("Writing the model", "what else is in memory"):
            loaded = load_model(model)
            check_base(loaded.base_hash, loaded.name)
            folder = export_pipeline(loaded, state, pipeline)
        typer.echo(f"{folder}{taken(folder, pipeline)}")
    if out is not None:
        new_file(out, converted(path, form))
        typer.echo(out)
