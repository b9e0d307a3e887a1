"""Recipes as files: read with their overrides, checked with all mistakes at once, written with what each key means."""

import difflib
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from feedback.errors import UserError
from training.recipe import METHODS
from training.recipe_base import PRESETS, Lora, Recipe

RECIPES = Path(__file__).parent / "recipes"


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
    mistakes = [mistake for text in overrides for mistake in override(values, text)]
    if mistakes:
        raise UserError(*mistakes)
    return values, name if name in shipped else str(path)


def override(values: dict[str, Any], text: str) -> list[str]:
    """Put `key=value` or `part.key=value` in its place among a recipe's values; what is wrong with it, if anything."""
    key, equals, value = text.partition("=")
    *parents, last = key.split(".")
    place: Any = values
    for parent in parents:
        place = place.setdefault(parent, {}) if isinstance(place, dict) else None
    if not equals or not isinstance(place, dict):
        return [f"override {text!r}: write key=value, e.g. learning_rate=1e-4 or lora.r=8"]
    place[last] = _number(yaml.safe_load(value)) if value else None
    return []


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
        elif field.default_factory is not None:
            lines.append(f"# {name}: (default: see above)")
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
    reason = details["msg"].removeprefix("Input ").removeprefix("Value error, ")
    return f"recipe {place}: {key}: {value!r} is not allowed ({reason})"
