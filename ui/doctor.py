"""`veritune doctor`: what is installed, what the machine has, and what that means for training."""

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("veritune", "torch", "transformers", "trl", "peft", "datasets", "lm-eval", "gradio")
OPTIONAL = {
    "wandb": "metrics to Weights & Biases (tracker=wandb)",
    "trackio": "metrics to Trackio (tracker=trackio)",
    "tensorboard": "metrics to TensorBoard (tracker=tensorboard)",
    "liger_kernel": "faster layers on an NVIDIA GPU (backend=liger)",
    "unsloth": "a faster loader of bases for an NVIDIA GPU (backend=unsloth)",
    "vllm": "a faster server on an NVIDIA GPU (veritune serve RUN --server vllm)",
}
EXTRAS = {"liger_kernel": "liger"}
GIB = 2**30
# Of what is free: the rest is for activations, the adapter with its optimiser, and Python itself.
FOR_WEIGHTS = 0.5
LITTLE_DISK = 20 * GIB


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at, and what it means for the user."""

    name: str
    value: str
    means: str


def examine() -> list[Finding]:
    """Look at this installation and machine; nothing is changed and nothing downloaded."""
    return [*_software(), *_processor(), *_memory(), *_accelerators(), _four_bits(), *_places(), *_optional()]


def _software() -> Iterator[Finding]:
    yield Finding("Python", platform.python_version(), f"at {sys.executable}")
    found = [f"{name} {_version(name) or 'missing'}" for name in PACKAGES]
    missing = [name for name in PACKAGES if _version(name) is None]
    means = f"missing: {', '.join(missing)}; install veritune again" if missing else "all that veritune needs is there"
    yield Finding("packages", ", ".join(found), means)


def _processor() -> Iterator[Finding]:
    import torch

    cores, flags = os.cpu_count(), _processor_flags()
    yield Finding(
        "CPU", f"{cores} cores ({platform.machine()})", f"torch computes on {torch.get_num_threads()} of them"
    )
    bf16 = [name for name, flag in (("AVX512-BF16", "avx512_bf16"), ("AMX-BF16", "amx_bf16")) if flag in flags]
    means = (
        "bf16 runs in hardware: precision=bf16 halves a model's memory and is often faster"
        if bf16
        else "bf16 is emulated here: leave precision=fp32 on the CPU"
    )
    yield Finding("bf16 on the CPU", ", ".join(bf16) or "no", means)


def _memory() -> Iterator[Finding]:
    import psutil

    memory = psutil.virtual_memory()
    value = f"{_gib(memory.available)} free of {_gib(memory.total)}"
    sizes = f"{_parameters(memory.available, 4)} in fp32, {_parameters(memory.available, 2)} in bf16"
    yield Finding("memory", value, f"LoRA on the CPU fits models up to about {sizes} (half of it for weights)")


def _accelerators() -> Iterator[Finding]:
    import torch

    if not torch.cuda.is_available():
        build = "this torch has no CUDA" if torch.version.cuda is None else "none that torch can use"
        yield Finding("GPU", f"none ({build})", "training runs on the CPU: small models, short runs")
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        bf16 = torch.cuda.get_device_capability(index)[0] >= 8
        yield Finding(
            f"GPU {index}",
            f"{torch.cuda.get_device_name(index)}, {_gib(free)} free of {_gib(total)}, bf16 {'yes' if bf16 else 'no'}",
            f"LoRA fits models up to about {_parameters(free, 2 if bf16 else 4)} in {'bf16' if bf16 else 'fp32'}",
        )


def _four_bits() -> Finding:
    """A layer is really quantised and used: that the package is there says little."""
    name = "4-bit weights"
    try:
        import bitsandbytes
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        layer = bitsandbytes.nn.Linear4bit(64, 64, quant_type="nf4", compute_dtype=torch.float32).to(device)
        with torch.no_grad():
            usable = bool(torch.isfinite(layer(torch.ones(1, 64, device=device))).all())
    except Exception as error:
        return Finding(name, "no", f"bitsandbytes does not work here: {' '.join(str(error).split())[:150]}")
    if not usable:
        return Finding(name, "no", "bitsandbytes computes wrong numbers here: reinstall it")
    speed = "" if device == "cuda" else ", slowly"
    means = f"NF4 works here{speed}: quantize=nf4, optimizer=adamw-8bit"
    return Finding(name, f"bitsandbytes {_version('bitsandbytes')} on {device}", means)


def _places() -> Iterator[Finding]:
    from feedback import workspace
    from feedback.errors import UserError

    try:
        place = workspace.find(None).root
        yield Finding("workspace", str(place), "commands here work on it")
    except UserError as error:
        place = Path.cwd()
        yield Finding("workspace", "none", error.lines[0])
    free = shutil.disk_usage(place).free
    enough = "room for checkpoints" if free >= LITTLE_DISK else "little: checkpoints of larger models fill it quickly"
    yield Finding("disk", f"{_gib(free)} free at {place}", enough)
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    yield Finding(
        "model hub",
        "offline (HF_HUB_OFFLINE)" if offline else "asked when a name is no folder",
        "models come from folders and the cache only" if offline else "set HF_HUB_OFFLINE=1 to stay offline",
    )


def _optional() -> Iterator[Finding]:
    for module, use in OPTIONAL.items():
        if find_spec(module):
            yield Finding(module, _version(module) or "there", use)
        else:
            extra = EXTRAS.get(module, module)
            yield Finding(module, "not installed", f"optional: {use}; pip install 'veritune[{extra}]'")


def _parameters(memory: float, width: int) -> str:
    """How many weights of so many bytes fit into the part of the memory that is meant for them."""
    count = memory * FOR_WEIGHTS / width
    return f"{count / 1e9:.1f}B" if count >= 1e9 else f"{count / 1e6:.0f}M"


def _gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor_flags() -> set[str]:
    """What Linux says that the processor can do; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return set(next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), []))
