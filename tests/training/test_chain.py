"""Chains: all stages are checked before the first trains, and a chain that was killed goes on where it stopped."""

from pathlib import Path
from typing import Any

import pytest

from feedback.errors import UserError
from feedback.versions import DatasetVersion
from feedback.workspace import Workspace
from training import chain, launch, runs
from training.config import parse_recipe

KEYS = ["dataset=sums", "max_steps=2", "lora.r=4", "dpo.beta=0.3"]


def quiet(line: str) -> None:
    pass


@pytest.mark.parametrize("name", chain.names())
def test_every_stage_of_a_shipped_chain_is_a_valid_recipe_and_refers_to_earlier_ones(name: str) -> None:
    earlier: list[str] = []
    for stage, values in chain.read_stages(name, ["dataset=x"]).items():
        recipe = parse_recipe(values, stage)
        assert recipe.parent in [None, *earlier]
        assert getattr(recipe, "reward", None) in [None, *earlier]
        earlier.append(stage)


def test_overrides_reach_all_stages_or_one() -> None:
    stages = chain.read_stages("constitutional", KEYS)
    assert [values["dataset"] for values in stages.values()] == ["sums", "sums"]
    assert [values["lora"] for values in stages.values()] == [{"r": 4}, {"r": 4}]
    assert (stages["dpo"]["beta"], "beta" in stages["sft"]) == (0.3, False)
    with pytest.raises(UserError, match=r"'bata=1': no stage of constitutional \(sft, dpo\) has such a key"):
        chain.read_stages("constitutional", ["bata=1"])


def test_mistakes_of_all_stages_come_before_the_first_trains(workspace: Workspace, tiny_model: Path) -> None:
    overrides = ["dataset=absent", f"model={tiny_model}", "dpo.beta=-1", "sft.learning_rate=fast"]
    with pytest.raises(UserError) as caught:
        chain.train(workspace, "constitutional", overrides, quiet)
    assert any("stage dpo: beta" in line for line in caught.value.lines)
    assert any("stage sft: learning_rate" in line for line in caught.value.lines)
    assert runs.list_runs(workspace) == []


def test_stages_train_one_after_another_and_go_on_where_they_stopped(
    workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_values = launch.train_values

    def killed_at_dpo(workspace: Workspace, values: dict[str, Any], *rest: Any, **more: Any) -> Any:
        if values["method"] == "dpo":
            raise KeyboardInterrupt
        return train_values(workspace, values, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(launch, "train_values", killed_at_dpo)
        with pytest.raises(KeyboardInterrupt):
            chain.train(workspace, "constitutional", [*KEYS, f"model={tiny_model}"], quiet)
    (first,) = runs.list_runs(workspace)
    assert (first.id, first.state, chain.unfinished(first)) == ("sft-1", "finished", True)

    lines: list[str] = []
    last = chain.resume(workspace, first, lines.append)
    assert "constitutional, stage 2 of 2: dpo" in lines
    assert (last.id, last.state, last.recipe.parent) == ("dpo-1", "finished", "sft-1")
    assert last.recipe.dataset == first.recipe.dataset == "sums@v1"
    assert not chain.unfinished(last)
    assert chain.resume(workspace, last, quiet).id == "dpo-1"
