"""The model card of a published run."""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open

from ..common.templates import templates
from ..evaluation.finding import Finding
from ..models.diffusers.model_folder import looks_like_hub_id
from .folder import Run
from .report import percent, plain, report_json, span

ADAPTER = "unlearn.safetensors"
TAGS = ("machine-unlearning", "lora", "diffusers", "text-to-image", "concept-erasure")
UIS = ("lora_unet_", "lora_transformer_", "lora_te")
"""How the names of tensors begin in adapters for ComfyUI and A1111."""
OPENS = "\\`*_[]|#"
"""Letters that begin something in Markdown."""


def model_card(run: Run, findings: Sequence[Finding], name: str) -> str:
    """README.md of the run as it is published under `name`: front matter for the Hub, verdict,
    scores with intervals, findings, settings, how to load it, and limits.
    """
    from huggingface_hub import ModelCardData

    report = report_json(run, findings)
    model = report["config"]["model"]
    base = model if looks_like_hub_id(model) else None
    about = ModelCardData(
        base_model=base,
        library_name="diffusers",
        pipeline_tag="text-to-image",
        tags=[*TAGS, f"objective-{report['config']['objective']}"],
        **({"base_model_relation": "adapter"} if base else {}),
    )
    pages = templates(Path(__file__).parent, autoescape=False)
    pages.filters |= {"percent": percent, "span": span, "plain": plain, "text": text}
    return pages.get_template("model_card.md.jinja").render(
        front=about.to_yaml(),
        name=name,
        base=base,
        report=report,
        adapters=[file for file in sorted(report["files"]) if _is_adapter(file)],
        others=[file for file in sorted(report["files"]) if _is_for_uis(run, file)],
        strip="comparison.png" in report["files"],
        settings=list(_settings(report["config"])),
        adapter=ADAPTER,
    )


def text(value: Any) -> str:
    """A text as Markdown shows it, on one line."""
    line = html.escape(" ".join(str(value).split()), quote=False)
    return "".join(f"\\{letter}" if letter in OPENS else letter for letter in line)


def _is_adapter(file: str) -> bool:
    return file.endswith(".safetensors")


def _is_for_uis(run: Run, file: str) -> bool:
    """Whether an adapter names its tensors as ComfyUI and A1111 do."""
    if not _is_adapter(file):
        return False
    with safe_open(run.folder / file, "pt") as opened:
        return any(key.startswith(UIS) for key in opened.keys())  # noqa: SIM118  no mapping


def _settings(config: dict[str, Any]) -> list[tuple[str, Any]]:
    """Every setting of the run by dotted name."""
    rows: list[tuple[str, Any]] = []
    for name, value in config.items():
        if isinstance(value, dict):
            rows += [(f"{name}.{leaf}", own) for leaf, own in value.items()]
        elif name == "options":
            rows += [tuple(pair) for pair in value]
        else:
            rows.append((name, value))
    return rows
