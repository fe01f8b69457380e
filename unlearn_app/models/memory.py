"""How much memory a computation takes, counted on tensors that have shapes and no numbers."""

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from torch.utils.weak import WeakIdKeyDictionary


@dataclass(frozen=True)
class Cost:
    """The `peak` bytes of what a computation makes and keeps, and its floating point operations."""

    peak: int
    flops: float


class Counting(TorchDispatchMode):
    """Counts the floating point operations of products within, and the bytes of all storages that
    are made and alive at once.

    What autograd keeps for the backward pass is among them. The storages of the `given` tensors
    are not.
    """

    def __init__(self, given: Iterable[Tensor]) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.flops = 0.0
        self._known: Any = WeakIdKeyDictionary()
        for tensor in given:
            self._known[tensor.untyped_storage()] = None

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        made = function(*args, **(kwargs or {}))
        if flops := flop_registry.get(function.overloadpacket):
            self.flops += flops(*args, **(kwargs or {}), out_val=made)
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        if function.overloadpacket is torch.ops.aten.convolution:
            # Its libraries hold the input once more meanwhile, in the layout they compute in.
            self.peak = max(self.peak, self.live + args[0].untyped_storage().nbytes())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        size = storage.nbytes()
        self._known[storage] = weakref.finalize(storage, self._free, size)
        self.live += size
        self.peak = max(self.peak, self.live)

    def _free(self, size: int) -> None:
        self.live -= size


class _FusedAttention(torch.autograd.Function):
    """What a fused attention product makes and keeps: no matrix of all pairs."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, flops: list[float]) -> Tensor:
        ctx.flops = flops
        flops.append(4.0 * query.numel() * key.shape[-2])
        out = query.new_empty((*query.shape[:-1], value.shape[-1]))
        sums = query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, out, sums)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *_ = ctx.saved_tensors
        ctx.flops.append(10.0 * query.numel() * key.shape[-2])
        return *(torch.empty_like(tensor) for tensor in (query, key, value)), None


@contextmanager
def fused_attention() -> Iterator[list[float]]:
    """Attention as GPUs compute it also on tensors without numbers, which fall back to the plain
    product; a list of the operations of each forward and backward pass.
    """
    flops: list[float] = []

    def attend(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:
        return _FusedAttention.apply(query, key, value, flops)

    with patch.object(functional, "scaled_dot_product_attention", attend):
        yield flops


def cost_of(work: Callable[[], Any], given: Iterable[Tensor]) -> Cost:
    """The cost of `work` on meta tensors, beside what is `given` to it."""
    with fused_attention() as attention, Counting(given) as counted:
        work()
    return Cost(counted.peak, counted.flops + sum(attention))


@dataclass(frozen=True)
class Plan:
    """How a run uses the memory of its device.

    `need` and `available` are bytes; `rows` are those of a batch whose gradient is taken at once,
    None for all, and `chunk` the pictures that are sampled at once. `checkpointed` says that
    activations are computed again; a training step takes about `seconds`.
    """

    need: int
    available: int
    rows: int | None
    chunk: int
    checkpointed: bool
    seconds: float

    def how(self) -> str:
        """What is done to take less, in words; empty for nothing."""
        saved = [
            f"gradients of {self.rows} pictures at a time" if self.rows else "",
            "gradient checkpointing" if self.checkpointed else "",
        ]
        return " and ".join(filter(None, saved))

    def sentence(self) -> str:
        """What is planned, in words."""
        how = self.how()
        return (
            f"It takes about {gib(self.need)} of {gib(self.available)} of memory"
            f"{f', with {how}' if how else ''}, and a step about {self.seconds:.1f} s"
        )


def gib(size: float) -> str:
    """Bytes in words."""
    return f"{size / 2**30:.1f} GiB"
