"""The model card of a published run."""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..common.templates import templates
from ..evaluation.finding import Finding
from ..models.diffusers.model_folder import looks_like_hub_id
from .folder import ADAPTER, FOR_OTHERS, Run
from .report import all_settings, percent, plain, report_json, span

TAGS = ("machine-unlearning", "diffusers", "text-to-image", "concept-erasure")
LORA = "lora"
"""The tag of an adapter; weights that were trained themselves are none."""
OPENS = "\\`*_[]|#"
"""Letters that begin something in Markdown."""


def model_card(run: Run, findings: Sequence[Finding], name: str) -> str:
    """README.md of the run as it is published under `name`: front matter for the Hub, verdict,
    scores with intervals, findings, settings, how to load it, and limits.
    """
    from huggingface_hub import ModelCardData

    report = report_json(run, findings)
    model, dense = report["config"]["model"], run.config.unlearn.weights == "full"
    base = model if looks_like_hub_id(model) else None
    relation = "finetune" if dense else "adapter"
    tags = [*TAGS, *([] if dense else [LORA]), f"objective-{report['config']['objective']}"]
    about = ModelCardData(
        base_model=base,
        library_name="diffusers",
        pipeline_tag="text-to-image",
        tags=tags,
        **({"base_model_relation": relation} if base else {}),
    )
    pages = templates(Path(__file__).parent, autoescape=False)
    pages.filters |= {"percent": percent, "span": span, "plain": plain, "text": text}
    return pages.get_template("model_card.md.jinja").render(
        front=about.to_yaml(),
        name=name,
        base=base,
        report=report,
        dense=dense,
        for_others=FOR_OTHERS if FOR_OTHERS in report["files"] else None,
        strip="comparison.png" in report["files"],
        settings=list(all_settings(run).items()),
        adapter=ADAPTER,
    )


def text(value: Any) -> str:
    """A text as Markdown shows it, on one line."""
    line = html.escape(" ".join(str(value).split()), quote=False)
    return "".join(f"\\{letter}" if letter in OPENS else letter for letter in line)
