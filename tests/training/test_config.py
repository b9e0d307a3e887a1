"""Recipes: all mistakes at once, overrides, and shipped files that say what the code does."""

import pytest

from feedback.errors import UserError
from training.config import RECIPES, load_recipe, recipe_text
from training.recipe import METHODS


def test_three_mistakes_give_three_lines() -> None:
    with pytest.raises(UserError) as caught:
        load_recipe("dpo", ["dataset=x", "lora.r=eight", "learnin_rate=3", "beta=-1"])
    lines = caught.value.lines
    assert len(lines) == 3
    assert any("lora.r" in line and "'eight'" in line for line in lines)
    assert any("learnin_rate" in line and "did you mean learning_rate?" in line for line in lines)
    assert any("beta" in line and "-1" in line for line in lines)


def test_a_missing_dataset_is_named() -> None:
    with pytest.raises(UserError, match="dataset: missing; add dataset="):
        load_recipe("sft", [])


@pytest.mark.parametrize("text", ["1e-4", "0.0001", "1.0e-4"])
def test_overrides_reach_nested_keys_and_read_exponents(text: str) -> None:
    recipe = load_recipe("sft", ["dataset=x", f"learning_rate={text}", "lora.targets=[q_proj, v_proj]", "lora.r=4"])
    assert recipe.learning_rate == 1e-4
    assert recipe.lora.targets == ["q_proj", "v_proj"]
    assert recipe.lora.r == 4


@pytest.mark.parametrize("override", ["learning_rate", "seed.deep=1"])
def test_an_override_that_is_none_is_refused(override: str) -> None:
    with pytest.raises(UserError, match="write key=value"):
        load_recipe("sft", ["dataset=x", override])


def test_an_unknown_recipe_names_those_there_are() -> None:
    there = ", ".join(sorted([*METHODS, "qlora-8b"]))
    with pytest.raises(UserError, match=f"recipe 'dop': neither a file nor one of {there}"):
        load_recipe("dop", [])


@pytest.mark.parametrize("method", METHODS)
def test_the_shipped_recipe_is_what_the_code_documents(method: str) -> None:
    shipped = (RECIPES / f"{method}.yaml").read_text()
    assert shipped == recipe_text(method)
    required = {"dataset": "x"} | ({"reward": "reward-1"} if method in ("ppo", "grpo") else {})
    assert load_recipe(method, [f"{k}={v}" for k, v in required.items()]) == METHODS[method].model_validate(required)


def test_every_other_shipped_recipe_is_an_example_that_differs_from_its_method() -> None:
    examples = sorted({path.stem for path in RECIPES.glob("*.yaml")} - set(METHODS))
    assert examples == ["qlora-8b"]
    for name in examples:
        recipe = load_recipe(name, ["dataset=x"])
        assert recipe != METHODS[recipe.method](dataset="x")


def test_keys_that_contradict_the_loss_are_refused() -> None:
    for overrides, words in (
        (["label_smoothing=0.1"], "0.1 is not allowed (loss=sigmoid has none; it takes each pair's own probability)"),
        (["loss=exo_pair"], "label_smoothing: 0.0 is not allowed (loss=exo_pair needs some, e.g. 1e-3)"),
        (["loss=aot"], "soft_labels: True is not allowed (loss=aot compares batches and not pairs; set soft_labels="),
    ):
        with pytest.raises(UserError) as caught:
            load_recipe("dpo", ["dataset=x", *overrides])
        assert len(caught.value.lines) == 1
        assert words in caught.value.lines[0]
    assert load_recipe("dpo", ["dataset=x", "loss=robust", "label_smoothing=0.1"]).label_smoothing == 0.1
