"""Conditions under which a comparison fails, for use in CI: `--fail-if "score@0.75<0"`."""

import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evaluation.statistics import Comparison
from feedback.errors import UserError

SIGNS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_FORM = re.compile(r"(?:(?P<task>[\w.-]+):)?(?P<metric>[\w@.-]+)\s*(?P<sign><=|>=|<|>)\s*(?P<bound>[-+]?\d*\.?\d+)")


@dataclass(frozen=True)
class Condition:
    """A bound on the difference, tuned minus base, of a metric in one task, or in each that has it."""

    text: str
    task: str | None
    metric: str
    sign: str
    bound: float

    def concerns(self, task: str, metric: str) -> bool:
        return metric == self.metric and self.task in (None, task)


def parse_conditions(texts: Sequence[str]) -> list[Condition]:
    """Conditions as the command line takes them.

    Raises:
        UserError: one is none; a line for each.
    """
    found, mistakes = [], []
    for text in texts:
        if form := _FORM.fullmatch(text.strip()):
            found.append(Condition(text, form["task"], form["metric"], form["sign"], float(form["bound"])))
        else:
            mistakes.append(f'--fail-if {text!r}: write [TASK:]METRIC<NUMBER on tuned minus base, e.g. "score@0.75<0"')
    if mistakes:
        raise UserError(*mistakes)
    return found


def require_metrics(conditions: Sequence[Condition], metrics: Mapping[str, Sequence[str]]) -> None:
    """Make sure that each condition speaks of something that is measured.

    Args:
        metrics: names by task.

    Raises:
        UserError: one does not; a line for each.
    """
    unknown = [c for c in conditions if not any(c.concerns(task, m) for task, names in metrics.items() for m in names)]
    if unknown:
        there = ", ".join(f"{task}:{name}" for task, names in metrics.items() for name in names)
        raise UserError(*(f"--fail-if {c.text!r}: not measured here; there are {there}" for c in unknown))


def failures(conditions: Sequence[Condition], comparisons: Sequence[Comparison]) -> list[str]:
    """A line for each comparison that a condition holds of."""
    return [
        f"--fail-if {condition.text!r} holds: {c.name} {c.difference:+.4f} ("
        + ("" if c.ci_low is None or c.ci_high is None else f"95% {c.ci_low:+.4f} to {c.ci_high:+.4f}, ")
        + f"n = {c.n})"
        for condition in conditions
        for c in comparisons
        if condition.concerns(c.task, c.metric) and SIGNS[condition.sign](c.difference, condition.bound)
    ]
