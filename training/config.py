"""Recipes: what a run can be told. A key's description here is also its comment in the recipe file."""

import difflib
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from feedback.errors import UserError

RECIPES = Path(__file__).parent / "recipes"
PRESETS = ("attention-minimal", "attention", "all-linear")


class Keys(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Lora(Keys):
    r: int = Field(default=16, ge=1, le=1024, description="rank of the update (LoRA, arXiv 2106.09685)")
    alpha: float = Field(default=32, gt=0, description="the update is scaled by alpha / r")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="dropout on the adapter's input")
    targets: Literal["attention-minimal", "attention", "all-linear"] | list[str] = Field(
        default="all-linear",
        description="attention-minimal (q, v), attention (q, v, o), all-linear (q, k, v, o, gate, up, down), or a list "
        "of module names",
    )


class Recipe(Keys):
    """The keys that all methods share."""

    method: str
    model: str | None = Field(
        default=None, description="base model: a folder or hub name; default: the parent's, else veritune.toml's"
    )
    dataset: str = Field(description="NAME for its latest version, or NAME@vN")
    parent: str | None = Field(default=None, description="a finished run whose adapter this run goes on training")
    seed: int = Field(default=0, ge=0, description="of initialisation, data order and dropout")
    learning_rate: float = Field(gt=0, description="peak learning rate of AdamW")
    weight_decay: float = Field(default=0.01, ge=0, description="AdamW's decoupled weight decay")
    warmup: float = Field(default=0.05, ge=0, lt=1, description="share of steps in which the learning rate rises")
    epochs: float = Field(default=1.0, gt=0, description="passes over the training split")
    max_steps: int | None = Field(
        default=None, ge=1, description="stop after so many optimiser steps, whatever epochs says"
    )
    batch_size: int = Field(default=8, ge=1, description="rows in one forward pass on one device")
    gradient_accumulation: int = Field(default=1, ge=1, description="forward passes in one optimiser step")
    gradient_checkpointing: bool = Field(default=False, description="less memory for about a third more time")
    max_length: int | None = Field(
        default=None, ge=8, description="tokens in one row; default: the model's context, at most 1024"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="of the frozen base; auto: bf16 on a GPU that has it, else fp32; adapters are fp32"
    )
    lora: Lora = Field(default=Lora(), description="the adapter; with a parent it must be the parent's")
    chat_template: str | None = Field(
        default=None,
        description="for a tokenizer without one: plain, chatml, or a Jinja file; default: the tokenizer's",
    )
    pad_token: str | None = Field(default=None, description="an existing token to pad with, other than the EOS")
    eos_token: str | None = Field(default=None, description="the token that ends an answer; default: the tokenizer's")
    checkpoint_every: int = Field(
        default=100, ge=1, description="optimiser steps between checkpoints (the last 2 stay)"
    )
    log_every: int = Field(default=5, ge=1, description="optimiser steps between lines of metrics.jsonl")
    validate_every: int | None = Field(
        default=None, ge=1, description="optimiser steps between losses on the validation split; default: once an epoch"
    )
    tracker: Literal["none", "wandb", "trackio", "tensorboard"] = Field(
        default="none", description="where metrics go besides metrics.jsonl"
    )


class SFTRecipe(Recipe):
    """Supervised fine-tuning on demonstrations (InstructGPT, arXiv 2203.02155, section 3.5), loss on answers only."""

    method: Literal["sft"] = Field(default="sft", description="supervised fine-tuning")
    learning_rate: float = Field(default=2e-4, gt=0, description="peak learning rate of AdamW")
    examples: Literal["demonstrations", "chosen", "both"] = Field(
        default="demonstrations", description="what to imitate: demonstrations, the pairs' chosen answers, or both"
    )


class DPORecipe(Recipe):
    """Direct preference optimisation on pairs (arXiv 2305.18290, equation 7)."""

    method: Literal["dpo"] = Field(default="dpo", description="direct preference optimisation")
    learning_rate: float = Field(default=5e-5, gt=0, description="peak learning rate of AdamW")
    beta: float = Field(default=0.1, gt=0, description="how strongly the policy is held to its reference")
    sft_weight: float = Field(
        default=0.0,
        ge=0,
        description="weight of the chosen answers' SFT loss, which keeps their probability from falling",
    )


METHODS: dict[str, type[Recipe]] = {"sft": SFTRecipe, "dpo": DPORecipe}


def load_recipe(name: str, overrides: list[str]) -> Recipe:
    """Read a shipped recipe or a file, apply `key=value` overrides, and check every key.

    Raises:
        UserError: with one line for every mistake.
    """
    return parse_recipe(*read_recipe(name, overrides))


def read_recipe(name: str, overrides: list[str]) -> tuple[dict[str, Any], str]:
    """The recipe as written with the overrides in place, and where it stands.

    Raises:
        UserError: no such recipe, no YAML, or an override that is no `key=value`.
    """
    shipped = {path.stem: path for path in sorted(RECIPES.glob("*.yaml"))}
    path = shipped.get(name, Path(name))
    if not path.is_file():
        raise UserError(f"recipe {name!r}: neither a file nor one of {', '.join(shipped)}")
    try:
        values = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"recipe {path}: not valid YAML ({' '.join(str(error).split())})") from None
    if not isinstance(values, dict):
        raise UserError(f"recipe {path}: must be a mapping of keys to values")
    mistakes = []
    for override in overrides:
        key, equals, text = override.partition("=")
        *parents, last = key.split(".")
        place: Any = values
        for parent in parents:
            place = place.setdefault(parent, {}) if isinstance(place, dict) else None
        if not equals or not isinstance(place, dict):
            mistakes.append(f"override {override!r}: write key=value, e.g. learning_rate=1e-4 or lora.r=8")
        else:
            place[last] = _number(yaml.safe_load(text)) if text else None
    if mistakes:
        raise UserError(*mistakes)
    return values, name if name in shipped else str(path)


def parse_recipe(values: dict[str, Any], place: str) -> Recipe:
    """Check every key and value of a recipe.

    Raises:
        UserError: with one line for every mistake.
    """
    method = values.get("method")
    if method not in METHODS:
        raise UserError(f"recipe {place}: method: {method!r} is not one of {', '.join(METHODS)}")
    try:
        return METHODS[method].model_validate(values)
    except ValidationError as error:
        # A union reports each of its members; one line a key is what the user can act on.
        lines = {_key(details): _mistake(details, METHODS[method], place) for details in reversed(error.errors())}
        raise UserError(*reversed(lines.values())) from None


def recipe_text(method: str) -> str:
    """The shipped recipe file of a method: every key with its default, its description above it."""
    kind = METHODS[method]
    lines = [f"# {(kind.__doc__ or '').strip()}", f"# veritune train {method} dataset=NAME [key=value ...]", ""]
    for name, field in kind.model_fields.items():
        lines.append(f"# {field.description}")
        if name == "lora":
            lines.append("lora:")
            for key, part in Lora.model_fields.items():
                lines += [f"  # {part.description}", f"  {key}: {_yaml(part.default)}"]
        elif field.is_required():
            lines.append(f"# {name}: (required)")
        else:
            lines.append(f"{name}: {_yaml(field.default)}")
    return "\n".join(lines) + "\n"


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("\n...\n").strip()


def _number(value: Any) -> Any:
    # YAML 1.1 reads 1e-4 as text, for want of a dot.
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _key(details: ErrorDetails) -> str:
    loc = [str(part) for part in details["loc"]]
    return ".".join(loc[:2] if loc[0] == "lora" else loc[:1])


def _mistake(details: ErrorDetails, kind: type[Recipe], place: str) -> str:
    key, value = _key(details), details["input"]
    if details["type"] == "extra_forbidden":
        known = [*kind.model_fields, *(f"lora.{name}" for name in Lora.model_fields)]
        close = difflib.get_close_matches(key, known, 1)
        return f"recipe {place}: {key}: no such key" + (
            f"; did you mean {close[0]}?" if close else f" of {kind.__name__}"
        )
    if details["type"] == "missing":
        return f"recipe {place}: {key}: missing; add {key}=..."
    if key == "lora.targets":
        return f"recipe {place}: {key}: {value!r} is neither a preset ({', '.join(PRESETS)}) nor a list of module names"
    return f"recipe {place}: {key}: {value!r} is not allowed ({details['msg'].removeprefix('Input ')})"
