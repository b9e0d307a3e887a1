"""Schedules against their formulas."""

import math

import pytest
import torch
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

from training import schedules
from training.config import load_recipe


@pytest.mark.parametrize(("total", "cut_frac", "ratio"), [(100, 0.1, 32), (40, 0.25, 10), (1000, 0.02, 2)])
def test_slanted_triangular_is_equation_3(total: int, cut_frac: float, ratio: float) -> None:
    recipe = load_recipe("sft", ["dataset=x", "schedule=slanted-triangular", f"cut_frac={cut_frac}", f"ratio={ratio}"])
    factor = schedules.factor(recipe, total)
    cut = math.floor(total * cut_frac)
    for t in range(total):
        p = t / cut if t < cut else 1 - (t - cut) / (cut * (1 / cut_frac - 1))
        assert factor(t) == pytest.approx((1 + p * (ratio - 1)) / ratio, abs=1e-12)
    assert factor(0) == pytest.approx(1 / ratio)
    assert factor(cut) == 1
    assert max(range(total), key=factor) == cut


@pytest.mark.parametrize("total", [1, 5, 9, 105, 333])
def test_slanted_triangular_stays_between_its_lowest_rate_and_the_peak(total: int) -> None:
    """Where the cut is no whole number the equation itself would run below zero."""
    factors = [schedules.slanted_triangular(step, total, 0.1, 32) for step in range(total + 1)]
    assert min(factors) >= 1 / 32 - 1e-12
    assert max(factors) <= 1


@pytest.mark.parametrize(
    ("name", "reference"), [("linear", get_linear_schedule_with_warmup), ("cosine", get_cosine_schedule_with_warmup)]
)
def test_the_fall_is_that_of_transformers(name: str, reference: object) -> None:
    """Its warm-up begins at zero, ours one step on; the fall is the same."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = reference(optimizer, num_warmup_steps=10, num_training_steps=50).lr_lambdas[0]  # type: ignore[operator]
    ours = schedules.factor(load_recipe("sft", ["dataset=x", f"schedule={name}", "warmup=0.2"]), 50)
    for step in range(10, 51):
        assert ours(step) == pytest.approx(theirs(step), abs=1e-12)
    rising = [ours(step) for step in range(11)]
    assert rising == pytest.approx([(step + 1) / 11 for step in range(11)])


def test_constant_stays_after_its_warmup() -> None:
    ours = schedules.factor(load_recipe("sft", ["dataset=x", "schedule=constant", "warmup=0.1"]), 20)
    assert [ours(step) for step in range(20)] == pytest.approx([1 / 3, 2 / 3, *[1] * 18])
