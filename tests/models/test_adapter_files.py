"""Adapters of others are read as far as they can be one; nonsense is a sentence, and the model goes
on.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from shipped import shipped
from torch import Tensor

from unlearn_app.common.errors import ModelError
from unlearn_app.models.catalog import load_model
from unlearn_app.models.diffusers.adapter_files import origin, read_adapter

GOOD = shipped("cat") / "unlearn.safetensors"
State = dict[str, Tensor]


def of_all(change: Callable[[Tensor], Tensor]) -> Callable[[State], State]:
    return lambda state: {name: change(tensor) for name, tensor in state.items()}


def of_first(change: Callable[[Tensor], Tensor]) -> Callable[[State], State]:
    return lambda state: state | {name: change(state[name]) for name in [next(iter(state))]}


def of_a_huge_rank(state: State) -> State:
    return {
        name: torch.ones((16_385, 4) if ".lora_A." in name else (4, 16_385))
        for name in list(state)[:2]
    }


def of_rank_0(state: State) -> State:
    return {
        name: (tensor[:0] if ".lora_A." in name else tensor[:, :0]).contiguous()
        for name, tensor in state.items()
    }


NONSENSE: dict[str, tuple[Callable[[State], State], str]] = {
    "rank 0": (of_rank_0, "rank of 1 or more"),
    "a huge rank": (of_a_huge_rank, "rank 16,385"),
    "no axes": (of_first(lambda tensor: torch.tensor(1.0)), "rank of 1 or more"),
    "another shape": (of_first(lambda tensor: tensor[None]), "shapes"),
    "NaN": (of_first(lambda tensor: tensor * float("nan")), "not finite"),
    "infinite": (of_first(lambda tensor: tensor / 0), "not finite"),
    "huge": (of_all(lambda tensor: tensor * 1e20), "too large"),
    "whole numbers": (of_all(torch.Tensor.int), "int32"),
    "one of whole numbers": (of_first(torch.Tensor.int), "int32"),
    "bits": (of_all(lambda tensor: tensor > 0), "bool"),
    "complex": (of_all(lambda tensor: tensor.to(torch.complex64)), "complex64"),
    "no partner": (lambda state: dict(list(state.items())[1:]), "alone"),
    "other layers": (lambda state: {f"x{n}": t for n, t in state.items()}, "other layers"),
    "nothing": (lambda state: {}, "one LoRA rank"),
}


@pytest.fixture(scope="module")
def model():
    return load_model()


@pytest.fixture(scope="module")
def good() -> State:
    return read_adapter(GOOD)


@pytest.mark.parametrize("kind", NONSENSE)
def test_nonsense_is_a_sentence_and_a_good_adapter_loads_after_it(model, good, kind: str) -> None:
    change, sentence = NONSENSE[kind]
    with pytest.raises(ModelError, match=sentence):
        model.load_adapter("unlearn", change(good))
    model.load_adapter("unlearn", good)
    assert all(torch.equal(t, good[name]) for name, t in model.adapter_state("unlearn").items())


@pytest.mark.parametrize("kind", [*NONSENSE][:-2])
def test_nonsense_in_a_file_is_a_sentence_before_any_model(good, tmp_path, kind: str) -> None:
    change, sentence = NONSENSE[kind]
    path = tmp_path / "a.safetensors"
    save_file({f"unet.{name}": tensor for name, tensor in change(good).items()}, path)
    with pytest.raises(ModelError, match=sentence):
        read_adapter(path)


def header(text: str) -> bytes:
    return len(text).to_bytes(8, "little") + text.encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 64,
        header("{"),
        header("{}"),
        header("[]"),
        header('{"__metadata__": 5}'),
        header('{"__metadata__": {"loads_on": 5}}'),
        header(json.dumps({"unet.a.lora_A.weight": {"dtype": "F32", "shape": [2, 2]}})),
        header(
            json.dumps({"a": {"dtype": "F7", "shape": [1], "data_offsets": [0, 4]}}),
        )
        + b"0000",
        header(
            json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}),
        ),
        header('{"__metadata__": {"loads_on": "\u202eanother"}}'),
        header(json.dumps({"a": {"dtype": "\x1b[31m", "shape": [1], "data_offsets": [0, 4]}})),
        header(json.dumps({"a": {"dtype": "\u202eF7", "shape": [1], "data_offsets": [0, 4]}})),
    ],
)
def test_a_header_of_nonsense_is_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError) as raised:
        read_adapter(path)
    assert str(raised.value).isprintable()


def test_a_pipe_or_a_folder_is_no_adapter(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    for name in ("pipe", "folder", "absent"):
        with pytest.raises(ModelError, match="cannot be read"):
            read_adapter(tmp_path / f"{name}.safetensors")


@pytest.mark.parametrize(
    ("model", "named"),
    [
        ("pocket", "pocket"),
        ("owner/name", "owner/name"),
        ("owner/folder", "folder"),
        ("/home/me/my-model/", "my-model"),
        ("~/my-model", "my-model"),
        (".", "here"),
    ],
)
def test_a_local_folder_is_named_without_the_way_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, named: str
) -> None:
    (tmp_path / "here" / "owner" / "folder").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    assert origin(model, "0123") == {"base": named, "base_sha256": "0123"}
