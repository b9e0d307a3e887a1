"""What a recipe is carried out with here: nothing is replaced in silence, and what is named is there or refused."""

import sys
from importlib.util import find_spec as really_find_spec
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from feedback.errors import UserError
from training import means
from training.config import load_recipe

LLAMA: Any = SimpleNamespace(model_type="llama")


def choose(*keys: str, config: Any = LLAMA, method: str = "sft") -> means.Means:
    return means.choose(load_recipe(method, ["dataset=x", *keys]), config, "sft")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes this machine look as if it had, or lacked, a GPU and packages."""

    def make(cuda: bool, *installed: str, lacks: tuple[str, ...] = ()) -> None:
        def find_spec(name: str) -> Any:
            if name in (*means.BACKENDS.values(), *lacks):
                return object() if name in installed else None
            return really_find_spec(name)

        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(means, "find_spec", find_spec)
        patches = ModuleType("liger_kernel.transformers.monkey_patch")
        patches.MODEL_TYPE_TO_APPLY_LIGER_FN = {"llama": print}  # type: ignore[attr-defined]
        for name in ("liger_kernel", "liger_kernel.transformers"):
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
        monkeypatch.setitem(sys.modules, patches.__name__, patches)

    return make


@pytest.mark.parametrize(
    ("asked", "used"), [("adamw", "adamw"), ("paged-adamw", "adamw"), ("paged-adamw-8bit", "adamw-8bit")]
)
def test_pages_need_a_gpu(machine: Any, asked: str, used: str) -> None:
    machine(False)
    found = choose(f"optimizer={asked}")
    assert found.optimizer == used
    assert found.replaced == (
        () if asked == used else (f"optimizer: {asked} needs an NVIDIA GPU; used instead: {used}",)
    )
    machine(True)
    assert choose(f"optimizer={asked}") == means.Means("trl", asked)


def test_every_optimizer_is_one_of_transformers() -> None:
    from transformers.training_args import OptimizerNames

    names = {str(name.value) for name in OptimizerNames}
    assert set(means.OPTIMIZERS.values()) <= names


@pytest.mark.parametrize(
    ("cuda", "installed", "keys", "used"),
    [
        (False, ("liger_kernel", "unsloth"), (), "trl"),
        (True, (), (), "trl"),
        (True, ("liger_kernel", "unsloth"), (), "liger"),
        (True, ("unsloth",), (), "unsloth"),
        (True, ("unsloth",), ("lora.dora=true",), "trl"),
        (True, ("unsloth",), ("tuning=full",), "trl"),
        (True, ("liger_kernel",), ("backend=trl",), "trl"),
    ],
)
def test_auto_takes_what_is_there_and_fits(
    machine: Any, cuda: bool, installed: tuple[str, ...], keys: tuple[str, ...], used: str
) -> None:
    machine(cuda, *installed)
    assert choose(*keys).backend == used


@pytest.mark.parametrize(
    ("cuda", "installed", "keys", "line"),
    [
        (True, (), ("backend=liger",), "backend: liger is not installed; pip install 'veritune[liger]', or set"),
        (True, (), ("backend=unsloth",), "backend: unsloth is not installed; pip install 'veritune[unsloth]', or set"),
        (False, ("unsloth",), ("backend=unsloth",), "backend: unsloth needs an NVIDIA GPU, and torch sees none"),
        (True, ("unsloth",), ("backend=unsloth", "lora.dora=true"), "backend: unsloth trains adapters by sft and dpo"),
        (False, (), ("quantize=nf4", "tuning=full"), "quantize: nf4 weights can't be trained themselves; set tuning"),
    ],
)
def test_what_is_named_and_can_not_be_is_one_line(
    machine: Any, cuda: bool, installed: tuple[str, ...], keys: tuple[str, ...], line: str
) -> None:
    machine(cuda, *installed)
    with pytest.raises(UserError) as caught:
        choose(*keys)
    (found,) = caught.value.lines
    assert found.startswith(f"recipe sft: {line}")


def test_an_architecture_without_kernels_is_told(machine: Any) -> None:
    machine(True, "liger_kernel")
    config: Any = SimpleNamespace(model_type="gpt2")
    with pytest.raises(UserError, match="backend: liger has no kernels for gpt2 models; set backend=trl"):
        choose("backend=liger", config=config)
    assert choose(config=config).backend == "trl"


def test_each_key_that_needs_bitsandbytes_says_so(machine: Any) -> None:
    machine(False, lacks=("bitsandbytes",))
    with pytest.raises(UserError) as caught:
        choose("quantize=nf4", "optimizer=adamw-8bit")
    assert [line.split(" needs")[0] for line in caught.value.lines] == [
        "recipe sft: quantize: nf4",
        "recipe sft: optimizer: adamw-8bit",
    ]
