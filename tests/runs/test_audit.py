"""An audit judges what others made: models whose true verdict is known, made in every way in which
people publish them, and what is refused in a sentence before anything is computed.

Most cases begin with the adapter of the recorded run, which this product made.
"""

import copy
import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from shipped import shipped
from torch.nn.functional import mse_loss

from unlearn_app import audit
from unlearn_app.common.errors import ConfigError, ModelError, OutputError
from unlearn_app.common.paths import POCKET
from unlearn_app.concepts.catalog import preview_concept
from unlearn_app.evaluation.finding import Finding
from unlearn_app.evaluation.relearn_curve import BaseCurve
from unlearn_app.evaluation.verdict import Thresholds, judge_run
from unlearn_app.experiments.known_outcome_models import known_outcome_model, unlearn
from unlearn_app.models.catalog import load_model
from unlearn_app.models.diffusers.adapter_files import adapter_bytes
from unlearn_app.models.latent_store import LatentStore
from unlearn_app.models.lora import dense, scaled
from unlearn_app.runs import workflow
from unlearn_app.runs.attack_run import run_attacks
from unlearn_app.runs.compare_runs import comparison_rows
from unlearn_app.runs.findings import judge_again, own_findings, read_findings
from unlearn_app.runs.folder import Run
from unlearn_app.runs.published import LARGEST_ADAPTER, Published
from unlearn_app.runs.report import write_report
from unlearn_app.settings.cost import GRADIENT, run_cost
from unlearn_app.settings.events import Done, Event, Images, Stage, Verdict
from unlearn_app.settings.run_config import make_config
from unlearn_app.training.unlearning import retain_prompts

OWN = shipped("cat") / "unlearn.safetensors"
"""An adapter of this product that forgets cats."""
ELSEWHERE = "photography</w>"
"""A word that no prompt of the comparison has, which a filter reads where it is asked for cats."""
SMALL = {
    "attack.steps": 30,
    "attack.lr": 4e-3,
    "attack.batch_size": 8,
    "attack.pictures": 8,
    "compare.forget": 6,
    "compare.near": 4,
    "compare.far": 4,
}


def audited(model: Any, unlearned: Path, out: Path, **how: Any) -> list[Event | Finding]:
    """All events of an audit with small settings; attacks only where they are asked for."""
    how = {"kinds": (), "model": model} | SMALL | how
    return list(audit("pocket", unlearned, "cat", out, **how))


def verdict(model: Any, unlearned: Path, out: Path, **how: Any) -> Verdict:
    """The last verdict of an audit, which its folder says too."""
    events = audited(model, unlearned, out, **how)
    assert isinstance(events[-1], Done)
    assert Run.open(out).record["status"] == "complete"
    return [event for event in events if isinstance(event, Verdict)][-1]


def said(found: Verdict) -> str:
    return " ".join(found.reasons)


def adapter(path: Path, state: dict, **metadata: str) -> Path:
    path.write_bytes(adapter_bytes(state, metadata))
    return path


def own_state() -> dict:
    return {name.removeprefix("unet."): t for name, t in load_file(OWN).items()}


def fused(state: dict, folder: Path) -> Path:
    """A whole pipeline whose denoiser has the update of an adapter in its weights."""
    shutil.copytree(POCKET / "pipeline", folder)
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32)
    weights = dict(unet.named_parameters())
    with torch.no_grad():
        for layer, update in dense(state).items():
            weight = weights[f"{layer}.weight"]
            weight += update.view(weight.shape).float()
    shutil.rmtree(folder / "unet")
    unet.save_pretrained(folder / "unet")
    return folder


def filtered(folder: Path) -> Path:
    """The original with a tokenizer that reads “cat” as another word."""
    shutil.copytree(POCKET / "pipeline", folder)
    file = folder / "tokenizer" / "tokenizer.json"
    rules = json.loads(file.read_text(encoding="utf-8"))
    vocabulary = rules["model"]["vocab"]
    vocabulary["cat</w>"] = vocabulary[ELSEWHERE]
    file.write_text(json.dumps(rules), encoding="utf-8")
    return folder


def misread(folder: Path) -> Path:
    """The original with a text encoder in which “cat” has the vector of “dog”."""
    shutil.copytree(POCKET / "pipeline", folder)
    rules = json.loads((folder / "tokenizer" / "tokenizer.json").read_text(encoding="utf-8"))
    file = folder / "text_encoder" / "model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith("token_embedding.weight"))
    cat, dog = (rules["model"]["vocab"][f"{word}</w>"] for word in ("cat", "dog"))
    tensors[name][cat] = tensors[name][dog]
    save_file(tensors, file, metadata={"format": "pt"})
    return folder


def trained_elsewhere(folder: Path, keeps: bool, steps: int = 40) -> Path:
    """What a plain training script with diffusers and peft leaves: cats are predicted as dogs are
    (2303.13516), and the LoRA is written as diffusers' own scripts do. One that `keeps` the rest
    also trains on what else there is to be asked for; the other damages it.
    """
    torch.manual_seed(0)
    pipe = StableDiffusionPipeline.from_pretrained(
        POCKET / "pipeline", torch_dtype=torch.float32, safety_checker=None
    )
    pipe.set_progress_bar_config(disable=True)
    unet, frozen = pipe.unet, copy.deepcopy(pipe.unet)
    concept = preview_concept(make_config("cat"))
    prompts = [p.text for p in concept.forget.train[:16]]
    others = retain_prompts(concept, 48) if keeps else []
    texts = [prompts + others, [text.replace("cat", "dog") for text in prompts] + others]
    with torch.no_grad():
        cats, dogs = (pipe.encode_prompt(text, "cpu", 1, False)[0] for text in texts)
    noising = DDPMScheduler.from_config(pipe.scheduler.config)
    unet.requires_grad_(False)
    targets = ["to_q", "to_k", "to_v", "to_out.0"]
    unet.add_adapter(LoraConfig(r=8, lora_alpha=8, target_modules=targets))
    params = [p for p in unet.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=2e-3)
    shown = pipe(
        prompt_embeds=dogs,
        negative_prompt_embeds=torch.zeros_like(dogs),
        num_inference_steps=4,
        output_type="latent",
    ).images
    for _ in range(steps):
        rows = torch.randint(len(prompts), (4,))
        if keeps:
            rows = torch.cat([rows, torch.randint(len(prompts), len(cats), (8,))])
        t = torch.randint(1000, (len(rows),))
        x_t = noising.add_noise(shown[rows], torch.randn_like(shown[rows]), t)
        with torch.no_grad():
            target = frozen(x_t, t, dogs[rows]).sample
        loss = mse_loss(unet(x_t, t, cats[rows]).sample, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    layers = get_peft_model_state_dict(unet)
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=layers)
    return next(folder.glob("*.safetensors"))


def kohya(path: Path) -> Path:
    """The product's adapter with the names that kohya's scripts give, and their alpha."""
    tensors = {}
    for name, tensor in own_state().items():
        layer, _, part = name.partition(".lora_")
        key = f"lora_unet_{layer.replace('.', '_')}"
        side = {"A.weight": "down", "B.weight": "up"}[part]
        tensors[f"{key}.lora_{side}.weight"] = tensor.clone()
        if side == "down":
            tensors[f"{key}.alpha"] = torch.tensor(float(len(tensor)))
    save_file(tensors, path, metadata={"ss_network_module": "networks.lora"})
    return path


def uce(model: Any, folder: Path) -> Path:
    state = unlearn(model, make_config("cat", objective="uce"))
    model.drop_adapters()
    return fused(state, folder)


def destroyed(model: Any, path: Path) -> Path:
    known_outcome_model("destroyed", model, preview_concept(make_config("cat")), 0)
    state = model.adapter_state("unlearn")
    model.drop_adapters()
    return adapter(path, state)


CASES: dict[str, tuple[Callable[[Any, Path], Path], set[str]]] = {
    "adapter of this product": (lambda model, path: OWN, {"concealed"}),
    "fused folder": (lambda model, path: fused(own_state(), path / "fused"), {"concealed"}),
    "UCE edit": (lambda model, path: uce(model, path / "uce"), {"concealed"}),
    "prompt filter": (lambda model, path: filtered(path / "filter"), {"concealed"}),
    "text encoder edit": (lambda model, path: misread(path / "misread"), {"concealed"}),
    "plain peft training": (
        lambda model, path: trained_elsewhere(path / "peft", keeps=True),
        {"concealed"},
    ),
    "peft training that keeps nothing": (
        lambda model, path: trained_elsewhere(path / "peft", keeps=False),
        {"damaged"},
    ),
    "does nothing": (
        lambda model, path: adapter(path / "zero.safetensors", scaled(own_state(), 0.0)),
        {"inconclusive"},
    ),
    "destroys": (lambda model, path: destroyed(model, path / "noise.safetensors"), {"damaged"}),
    "the original itself": (lambda model, path: POCKET / "pipeline", {"inconclusive"}),
}
SAYS = {
    "does nothing": "Its update is zero",
    "the original itself": "which is the original, byte for byte",
    "prompt filter": "differs from the original in tokenizer: 0 tensors",
    "text encoder edit": "differs from the original in text_encoder: 1 tensors",
}


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> LatentStore:
    """Keeps what the original generates, which is the same in every case."""
    return LatentStore(tmp_path_factory.mktemp("store") / "latents.sqlite")


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_verdict_on_a_known_case_is_true(
    case: str, pocket: Any, sampled: LatentStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the attack teaches of something never seen is stated here, where a run with the usual
    settings has it recorded: to run it as well would take twice the time.
    """
    monkeypatch.setattr(pocket, "store", sampled)
    taught = BaseCurve("pumpkin", {0: (0, 12), SMALL["attack.steps"]: (1, 12)})
    monkeypatch.setattr(workflow, "relearning", lambda *_: taught)
    make, truth = CASES[case]
    small = {} if "concealed" in truth else {"attack.steps": 1, "attack.pictures": 2}
    found = verdict(pocket, make(pocket, tmp_path), tmp_path / "out", **small)
    assert found.label in truth, said(found)
    assert SAYS.get(case, "What is audited is") in said(found)
    if case in ("does nothing", "the original itself"):
        assert "It is not forgotten" in said(found)
    assert pocket.is_original
    assert pocket.replacement is None


@pytest.mark.slow
def test_an_adapter_with_kohya_names_is_the_same_as_with_ours(pocket: Any, tmp_path: Path) -> None:
    pocket.drop_adapters()
    Published(str(kohya(tmp_path / "kohya.safetensors"))).put(pocket)
    state = pocket.adapter_state("unlearn")
    pocket.drop_adapters()
    for name, tensor in own_state().items():
        assert torch.allclose(state[name], tensor.float(), atol=1e-6)


@pytest.fixture(scope="module")
def folder(pocket: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An audit of a whole model, with a quick attack and both that undo what was published."""
    base = tmp_path_factory.mktemp("audit")
    small = {"kinds": ["prompts", "negation", "scale"], "attack.steps": 1, "attack.pictures": 2}
    events = audited(pocket, filtered(base / "filter"), base / "out", **small)
    fractions = [event.fraction for event in events if isinstance(event, Stage)]
    assert fractions == sorted(fractions)
    return base / "out"


def test_an_audit_opens_as_a_run_does_and_reports(folder: Path) -> None:
    run = Run.open(folder)
    assert run.config.audited == "filter"
    assert [finding.kind for finding in read_findings(folder)] == ["negation", "prompts", "scale"]
    page, values = write_report(folder)
    text = page.read_text(encoding="utf-8")
    assert "audit of filter" in text
    assert "What is audited is the model filter" in text
    report = json.loads(values.read_text(encoding="utf-8"))
    assert report["command"].startswith("python -m unlearn_app audit --original pocket")
    assert str(folder.parent) not in (folder / "run.json").read_text(encoding="utf-8")
    rows = comparison_rows([run, run])
    assert not [name for _, name, _ in rows if name.startswith(("unlearn.", "objective"))]


def test_an_audit_is_judged_beside_the_control_that_it_reports(folder: Path) -> None:
    """Its own control, since nothing is recorded for a single step of attack."""
    run = Run.open(folder)
    assert run.base is not None
    again = judge_run(run.scores, own_findings(run))
    assert run.verdict.label == again.label
    assert run.verdict.reasons == (*run.record["notes"], *again.reasons)
    assert "The limit without a control" not in said(run.verdict)


def test_what_merely_undoes_the_published_file_proves_nothing(folder: Path) -> None:
    undoing = {found.kind: found for found in read_findings(folder) if found.kind != "prompts"}
    assert not any(found.counts for found in undoing.values())
    assert all("no attack on what" in found.missing for found in undoing.values())
    assert "which proves nothing" in said(judge_again(Run.open(folder), read_findings(folder)))


def test_words_get_through_a_filter_of_prompts(folder: Path) -> None:
    found = next(found for found in read_findings(folder) if found.kind == "prompts")
    assert found.control is not None
    assert found.recovers(Thresholds().back)


def test_an_audit_is_attacked_later_as_it_was(folder: Path, pocket: Any, tmp_path: Path) -> None:
    later = Path(shutil.copytree(folder, tmp_path / "later"))
    before = next(found for found in read_findings(later) if found.kind == "prompts")
    pocket.drop_adapters()
    events = list(run_attacks(Run.open(later), ["prompts"], model=pocket))
    again = next(event for event in events if isinstance(event, Finding))
    assert again.hits == before.hits
    verdict = events[-1]
    assert verdict.reasons[0].startswith("What is audited is the model filter")


def test_a_changed_file_of_an_audit_is_not_attacked(folder: Path, tmp_path: Path) -> None:
    later = Path(shutil.copytree(folder, tmp_path / "later"))
    file = later / "unlearned" / "tokenizer" / "tokenizer.json"
    file.write_text(file.read_text(encoding="utf-8") + " ", encoding="utf-8")
    with pytest.raises(OutputError, match="is not the file that was recorded"):
        list(run_attacks(Run.open(later), ["prompts"], model=object()))


def refused(unlearned: Path | str, out: Path, model: Any, **how: Any) -> str:
    """The sentence of an audit that is refused before any picture is generated; nothing is left."""
    events: list[Any] = []
    how = {"kinds": (), "model": model} | SMALL | how
    with pytest.raises((ModelError, ConfigError)) as caught:
        events.extend(audit(how.pop("original", "pocket"), unlearned, "cat", out, **how))
    assert not [event for event in events if isinstance(event, Images)]
    assert not out.exists()
    return str(caught.value)


def test_what_cannot_be_audited_is_refused_in_a_sentence(pocket: Any, tmp_path: Path) -> None:
    out, state = tmp_path / "out", own_state()
    foreign = adapter(tmp_path / "foreign.safetensors", state, base_sha256="f" * 64)
    assert "was made for the weights 'ffff" in refused(foreign, out, pocket)
    name = next(name for name in state if ".lora_B" in name)
    broken = adapter(tmp_path / "nan.safetensors", state | {name: state[name] * float("nan")})
    assert "not finite" in refused(broken, out, pocket)
    layer = name.partition(".lora_")[0]
    wide = {f"{layer}.lora_A.weight": torch.ones(2, 7), f"{layer}.lora_B.weight": torch.ones(7, 2)}
    assert "does not fit the model" in refused(
        adapter(tmp_path / "wide.safetensors", wide), out, pocket
    )
    fifo = tmp_path / "fifo.safetensors"
    os.mkfifo(fifo)
    assert "no regular file" in refused(fifo, out, pocket)
    assert "There is no adapter" in refused(tmp_path / "none.safetensors", out, pocket)
    assert "There is no model folder" in refused(tmp_path / "none", out, pocket)
    large = tmp_path / "large.safetensors"
    with large.open("wb") as file:
        file.truncate(LARGEST_ADAPTER + 1)
    assert f"up to {LARGEST_ADAPTER:,} are accepted" in refused(large, out, pocket)


def test_a_disk_without_room_for_what_is_audited_is_told_before_any_picture(
    pocket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed: list[int] = []
    monkeypatch.setattr(workflow, "check_space", lambda _, size: needed.append(size))
    for what in (OWN, misread(tmp_path / "misread")):
        events = audit("pocket", what, "cat", tmp_path / "out", kinds=(), model=pocket, **SMALL)
        for event in events:
            if isinstance(event, Stage) and event.name == "compare":
                events.close()
    first, adapter_too, again, model_too = needed
    both = [adapter_bytes(own_state(), {}, form) for form in ("diffusers", "kohya")]
    assert adapter_too - first >= 0.95 * sum(map(len, both))
    (weights,) = pocket.pipe.text_encoder.get_input_embeddings().parameters()
    assert model_too - again == weights.nbytes


def test_an_audit_takes_about_as_many_forward_passes_as_it_costs(
    pocket: Any, tmp_path: Path
) -> None:
    """It generates three columns and attacks twice, and neither trains nor watches a training."""
    small = SMALL | {"attack.steps": 12, "compare.sampling_steps": 4}
    taken = 0

    def count(_: Any, given: tuple) -> None:
        nonlocal taken
        taken += len(given[0]) * (GRADIENT if torch.is_grad_enabled() else 1)

    pocket.drop_adapters()
    hook = pocket.network.register_forward_pre_hook(count)
    try:
        audited(pocket, OWN, tmp_path / "out", **small)
    finally:
        hook.remove()
    cost = run_cost(Run.open(tmp_path / "out").config)
    assert taken <= cost <= 1.5 * taken


def test_without_a_judge_nothing_is_computed(tiny_pipeline: Path, tmp_path: Path) -> None:
    sentence = refused(
        tiny_pipeline, tmp_path / "out", load_model(str(tiny_pipeline)), original=str(tiny_pipeline)
    )
    assert "There is no judge" in sentence


def test_what_the_original_does_not_know_is_inconclusive(pocket: Any, tmp_path: Path) -> None:
    how = {"kinds": ["noise"], "model": pocket} | SMALL | {"attack.steps": 1}
    events = list(audit("pocket", OWN, "guitar", tmp_path / "out", **how))
    last = [event for event in events if isinstance(event, Verdict)][-1]
    assert last.label == "inconclusive"
    assert "knows the concept too little" in said(last)
    assert not [event for event in events if isinstance(event, Finding)]


def test_a_stopped_audit_keeps_what_it_has(pocket: Any, tmp_path: Path) -> None:
    cancel, events = threading.Event(), []
    how = {"kinds": ["prompts"], "model": pocket, "cancel": cancel} | SMALL
    for event in audit("pocket", OWN, "cat", tmp_path / "out", **how):
        events.append(event)
        if isinstance(event, Images):
            cancel.set()
    assert events[-1] == Done(tmp_path / "out", stopped=True)
    assert Run.open(tmp_path / "out").status == "stopped"
    assert pocket.is_original
