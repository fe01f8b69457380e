"""Where device and dtype are decided."""

import gc
import os
import platform
import re
import shutil
import time
from pathlib import Path

import torch

SMALL = 2**28
"""Bytes of weights on disk up to which they are held in float32 everywhere."""


def choose_device() -> torch.device:
    """The accelerator if there is one, else the CPU; `UNLEARN_DEVICE` overrides."""
    asked = os.environ.get("UNLEARN_DEVICE")
    if asked:
        return torch.device(asked)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def choose_dtype(device: torch.device, size: int | None = None) -> torch.dtype:
    """Base weights of `size` bytes, if that is known; adapters are always float32.

    A GPU that computes in bfloat16 holds them in it, unless they are so few that float32 costs
    nothing. Never float16: gradients of small residuals vanish in it.
    """
    halved = device.type == "cuda" and fits_bfloat16(device)
    small = size is not None and size <= SMALL
    return torch.bfloat16 if halved and not small else torch.float32


def fits_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 autocast trains quicker here than float32; `UNLEARN_PRECISION=float32`
    denies it.
    """
    if os.environ.get("UNLEARN_PRECISION") == "float32":
        return False
    if device.type == "cpu":
        return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def available_memory(device: torch.device) -> int:
    """The bytes that this process may use on a device, those that it holds already included."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device)
    free, own = _kilobytes("meminfo", "MemAvailable"), _kilobytes("self/status", "RssAnon")
    if free:
        return 1024 * (free + own)
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _kilobytes(file: str, name: str) -> int:
    """A number in one of Linux's accounts of memory; 0 where there is none."""
    listed = Path("/proc") / file
    found = re.search(rf"{name}:\s+(\d+) kB", listed.read_text()) if listed.exists() else None
    return int(found[1]) if found else 0


def speed(device: torch.device, dtype: torch.dtype) -> float:
    """Floating point operations per second in a product of matrices, of which a network reaches
    about half.
    """
    side = 2048 if device.type == "cuda" else 512
    a = torch.ones(side, side, device=device, dtype=dtype)
    for _ in range(2):  # the first one also prepares
        wait_for(device)
        started = time.perf_counter()
        a @ a
        wait_for(device)
    return 2 * side**3 / (time.perf_counter() - started)


def wait_for(device: torch.device) -> None:
    """Wait until a device has done what was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def processor() -> str:
    """The CPU's name, the vector instructions that torch uses, and bfloat16 if it has units for
    it.
    """
    listed = Path("/proc/cpuinfo")
    named = re.search(r"model name\s*: (.+)", listed.read_text()) if listed.exists() else None
    name = named[1] if named else platform.processor() or platform.machine()
    units = ["bfloat16"] if fits_bfloat16(torch.device("cpu")) else []
    return ", ".join([name, torch.backends.cpu.get_cpu_capability(), *units])


def can_compile(device: torch.device) -> bool:
    """Whether `torch.compile` works here: on a CPU it needs a C++ compiler."""
    return device.type == "cpu" and shutil.which(os.environ.get("CXX", "g++")) is not None


def machine(device: torch.device) -> list[str]:
    """What decides how numbers are rounded, besides the work itself."""
    kind = torch.backends.cpu.get_cpu_capability()
    if device.type == "cuda":
        kind = torch.cuda.get_device_name(device)
    return [torch.__version__, device.type, kind, str(torch.get_num_threads())]


def free_memory() -> None:
    """Give memory that no tensor uses any more back to the device."""
    gc.collect()
    if give_back := getattr(torch.get_device_module(choose_device()), "empty_cache", None):
        give_back()
