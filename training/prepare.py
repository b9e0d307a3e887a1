"""From a recipe as written to everything that it names, found and checked, and the dataset as token ids."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from feedback import versions
from feedback.errors import UserError
from feedback.workspace import Workspace
from training import adapters, labelled, means, memory, models, preflight, rewards, runs
from training.batches import Lengths
from training.config import Recipe, parse_recipe
from training.labelled import Data
from training.means import Means
from training.recipe import ClassifierRecipe, GRPORecipe, PPORecipe
from training.runs import Run

DEFAULT_LENGTH = 1024


@dataclass(frozen=True)
class Rows:
    """The dataset as token ids, and what preflight found on them."""

    train: list[dict[str, list[int]]]
    validation: list[dict[str, list[int]]]
    checks: dict[str, Any]


@dataclass(frozen=True)
class Prepared:
    """A recipe whose every name has been found."""

    recipe: Recipe
    version: Data
    parent: Run | None
    config: Any
    tokenizer: Any
    means: Means
    # What the manifest says of it.
    reward: dict[str, Any] | None

    @property
    def labels(self) -> tuple[str, ...]:
        """What a classifier is to tell apart."""
        return labelled.labels_of(self.version) if self.recipe.head == "labels" else ()

    @property
    def max_length(self) -> int:
        assert self.recipe.max_length is not None
        return self.recipe.max_length

    @property
    def model(self) -> str:
        assert self.recipe.model is not None
        return self.recipe.model


def prepare(workspace: Workspace, values: dict[str, Any], place: str) -> Prepared:
    """Find everything that a recipe names, and fill in what it leaves open.

    Raises:
        UserError: with one line for every mistake, in the recipe's form and in what it names.
    """
    from training.layers import check_layers

    mistakes: list[str] = []
    values = dict(values)
    parent = config = tokenizer = used = reward = None
    version: Data | None = None
    with _collecting(mistakes):
        parent = runs.find(workspace, values["parent"]) if values.get("parent") else None
        if parent is not None:
            parent.verify_weights()
    if parent is not None:
        mistakes += _inherit(values, parent, place)
    if not values.get("model") and workspace.settings.model:
        beside_settings = workspace.root / workspace.settings.model
        values["model"] = str(beside_settings) if beside_settings.is_dir() else workspace.settings.model
    for key in ("model", "chat_template"):
        # The run is looked at from other folders too.
        if isinstance(values.get(key), str) and Path(values[key]).exists():
            values[key] = str(Path(values[key]).resolve())
    if parent is not None and values["model"] != _base_after(parent):
        mistakes.append(
            f"recipe {place}: model: {values['model']!r} is not that of its parent {parent.id}; leave it out"
        )
    recipe = None
    with _collecting(mistakes):
        recipe = parse_recipe(values, place)
    if recipe is not None and parent is not None and recipe.head != parent.head:
        with _collecting(mistakes):
            parent.require_answers()
    if isinstance(recipe, PPORecipe | GRPORecipe):
        with _collecting(mistakes):
            reward = rewards.describe(workspace, recipe.reward)
        if isinstance(recipe, PPORecipe) and recipe.ptx_weight and parent is None:
            mistakes.append(f"recipe {place}: ptx_weight: the demonstrations are those of the parent; set parent=RUN")
    if recipe is not None and recipe.tracker != "none" and find_spec(recipe.tracker) is None:
        name = recipe.tracker
        mistakes.append(f"recipe {place}: tracker: {name} is not installed; pip install 'veritune[{name}]'")
    if isinstance(values.get("dataset"), str):
        with _collecting(mistakes):
            if isinstance(recipe, ClassifierRecipe) and labelled.is_file(recipe.dataset):
                version = labelled.read(Path(recipe.dataset), recipe.columns)
            else:
                version = versions.load(workspace, values["dataset"])
    if recipe is not None and version is not None and parent is not None and recipe.head == parent.head == "labels":
        mistakes += _other_labels(parent, labelled.labels_of(version))
    if not values.get("model"):
        mistakes.append(f"recipe {place}: model: missing; add model=FOLDER_OR_HUB_NAME, or set it in veritune.toml")
    elif isinstance(values["model"], str):
        with _collecting(mistakes):
            config = models.load_config(values["model"])
        if config is not None and recipe is not None:
            with _collecting(mistakes):
                used = means.choose(recipe, config, place)
            with _collecting(mistakes):
                tokenizer = models.load_tokenizer(values["model"], recipe)
                mistakes += models.tokenizer_mistakes(tokenizer, values["model"], recipe.head)
                mistakes += preflight.check_agreement(tokenizer, config, values["model"])
            with _collecting(mistakes):
                model = models.skeleton(config, recipe.head)
                if recipe.tuning == "lora":
                    adapters.freeze_but_targets(model, recipe.lora, recipe.head)
                check_layers(recipe, model)
            context = models.context(config, tokenizer) or DEFAULT_LENGTH
            if recipe.max_length is not None and recipe.max_length > context:
                mistakes.append(
                    f"recipe {place}: max_length: {recipe.max_length} is more than the model's {context} positions"
                )
            recipe = recipe.model_copy(update={"max_length": recipe.max_length or min(context, DEFAULT_LENGTH)})
            if recipe.sampled_tokens >= (recipe.max_length or 0):
                mistakes.append(
                    f"recipe {place}: max_new_tokens: {recipe.sampled_tokens} leaves no room for a prompt in a row's "
                    f"{recipe.max_length} tokens; lower it, or set a larger max_length"
                )
    if mistakes:
        raise UserError(*dict.fromkeys(mistakes))
    assert recipe is not None
    assert version is not None
    assert used is not None
    recipe = recipe.model_copy(update={"dataset": version.id, "quantize": recipe.quantize or "none"})
    return Prepared(recipe, version, parent, config, tokenizer, used, reward)


def _inherit(values: dict[str, Any], parent: Run, place: str) -> Iterator[str]:
    """Fill in what a recipe leaves to its parent, and say where it contradicts it."""
    inherited = parent.manifest["recipe"] | {"model": _base_after(parent)}
    for key in ("model", "chat_template", "pad_token", "eos_token"):
        values[key] = values.get(key) or inherited[key]
    if parent.tuning == "full" or values.get("tuning") == "full":
        return
    values["quantize"] = values.get("quantize") or inherited.get("quantize")
    asked = values.get("lora")
    standard = Recipe.model_fields["lora"].default.model_dump()
    # A recipe may name the keys that matter to it, or, as the shipped ones do, all of them.
    agrees = isinstance(asked, dict) and all(inherited["lora"].get(key) == value for key, value in asked.items())
    if asked in (None, standard) or agrees:
        values["lora"] = inherited["lora"]
    else:
        yield f"recipe {place}: lora: differs from that of its parent {parent.id}, whose adapter it goes on with"


def _other_labels(parent: Run, labels: tuple[str, ...]) -> Iterator[str]:
    if parent.labels != labels:
        yield f"dataset: its labels are {', '.join(labels)}; those of the parent {parent.id} {', '.join(parent.labels)}"


def _base_after(parent: Run) -> str:
    """The base of a run that goes on from this one: an adapter stays on its own, all weights become it."""
    return str(parent.weights.resolve()) if parent.tuning == "full" else str(parent.manifest["recipe"]["model"])


def encode(prepared: Prepared) -> Rows:
    """Turn the dataset into token ids, and check that a run on them can work.

    Raises:
        UserError: nothing to train on, or most answers cut off.
    """
    recipe = prepared.recipe
    method = import_module(f"training.{recipe.method}")
    train, lengths = _encode_split(method, prepared, "train")
    validation, _ = _encode_split(method, prepared, "validation")
    if recipe.early_stopping and not validation:
        raise UserError(
            f"early_stopping: the validation split of dataset {recipe.dataset} has no row for {recipe.method}; leave "
            "it out, or build the dataset with a validation split"
        )
    checks = preflight.check_rows(recipe, prepared.tokenizer, train, lengths, prepared.max_length)
    return Rows(train, validation, checks)


def check_memory(prepared: Prepared, rows: Rows) -> dict[str, Any]:
    """Compare what a step needs with what is free now.

    Raises:
        UserError: more than is free.
    """
    sequences = preflight.sequences_at_once(prepared.recipe, rows.train)
    return memory.check(prepared.recipe, prepared.config, prepared.max_length, sequences)


def _encode_split(method: Any, prepared: Prepared, split: str) -> tuple[list[dict[str, list[int]]], Lengths]:
    selected = method.select_rows(prepared.recipe, prepared.version, split)
    room = prepared.max_length - prepared.recipe.sampled_tokens
    return method.encode_rows(prepared.tokenizer, selected, room)


@contextmanager
def _collecting(mistakes: list[str]) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        mistakes.extend(error.lines)
