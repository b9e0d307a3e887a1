"""report.html: one file that says what changed between base and tuned model, how sure that is, and where it is from."""

import html
import re
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from evaluation.detectors import Accuracy
from evaluation.plots import forests, outcome_bars, reliability, risk_coverage
from evaluation.results import Calibration, Results, Sample, Spans, count_flips, named_apart, read_samples
from evaluation.statistics import RESAMPLES, Comparison, compare
from feedback.files import write_atomic

REPORT = "report.html"
# Flips of a kind, and items with something marked.
SHOWN = 50
# Of each text of a flip, in characters; samples.parquet has all of it.
TEXT_SHOWN = 1_000
ANSWERABLE = "accuracy on answerable questions"


def write_report(folder: Path, results: Results) -> None:
    """Write report.html from the results and the folder's samples.parquet; nothing in it loads from elsewhere.

    Raises:
        UserError: samples.parquet is missing or damaged.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": figure, "signed": signed, "p": probability, "interval": interval, "clip": clip}
    environment.filters |= {"with_interval": with_interval, "cells": detector_cells, "worth": detector_worth}
    environment.filters["signed_interval"] = partial(with_interval, form=signed)
    samples = named_apart(read_samples(folder))
    page = environment.get_template("report.html.j2").render(
        results=results,
        headline=headlines(results, samples),
        items=len(samples) // len(results.models),
        prompts=len({sample.cluster for sample in samples}),
        forests=forests(results.comparisons),
        bars=outcome_bars(samples),
        curves=risk_coverage(samples),
        reliability=reliability(samples),
        marked=_marked(samples),
        flips_counted=count_flips(samples),
        flips={kind: _flips(samples, kind) for kind in ("lost", "gained")},
        resamples=RESAMPLES,
        shown=SHOWN,
    )
    write_atomic(folder / REPORT, page)


def headlines(results: Results, samples: Sequence[Sample]) -> str:
    """A sentence on each tuned model."""
    return " ".join(
        headline(results.of(model), [sample for sample in samples if sample.model in (model, None)])
        for model in results.models
    )


def headline(results: Results, samples: Sequence[Sample]) -> str:
    """One sentence on the first comparison that is clear of zero after Holm's correction, or on there being none.

    A fall of accuracy on answerable questions stands in the same sentence, whether or not it is clear of zero.
    """
    comparisons = results.comparisons
    if not comparisons:
        return f"Nothing was compared: no metric is defined for both {results.tuned} and {results.base}."
    verdicts = [comparison.verdict for comparison in comparisons]
    better, worse = verdicts.count("better"), verdicts.count("worse")
    if better or worse:
        lead = next(c for c in comparisons if c.verdict != "unclear")
        count = f"{_better_and_worse(better, worse)} of {_count(len(comparisons))}"
        sentence = (
            f"Against {results.base}, {results.tuned} is {count} after Holm's correction: {_change(lead, lead.name)}"
        )
    else:
        lead = comparisons[0]
        start = f"No difference between {results.tuned} and {results.base} is clear of zero after Holm's correction"
        sentence = f"{start} over {_count(len(comparisons))}: {_change(lead, lead.name)}"
        if lead.detectable is not None:
            sentence += f", where a difference of {figure(lead.detectable)} would be found four times in five"
    fell = _answerable_accuracy(samples)
    if fell and fell.difference < 0 and (fell.n, fell.base, fell.tuned) != (lead.n, lead.base, lead.tuned):
        clear = "" if fell.ci_high is not None and fell.ci_high < 0 else ", not clear of zero"
        sentence += f"; {_change(fell, ANSWERABLE)}{clear}"
    return sentence + "."


def _better_and_worse(better: int, worse: int) -> str:
    parts = [f"{word} on {count}" for word, count in (("better", better), ("worse", worse)) if count]
    return " and ".join(parts)


def _count(comparisons: int) -> str:
    return f"{comparisons} comparison" + ("s" if comparisons > 1 else "")


def _change(c: Comparison, name: str) -> str:
    verb = "rose" if c.difference > 0 else "fell"
    moved = f"{verb} from {figure(c.base)} to {figure(c.tuned)}" if c.difference else f"stayed at {figure(c.base)}"
    p = f", Holm p {probability(c.p_holm)}" if c.p_holm is not None else ""
    return f"{name} {moved} ({signed(c.difference)}, {interval(c)}, n = {c.n}{p})"


def _answerable_accuracy(samples: Sequence[Sample]) -> Comparison | None:
    answerable = [sample for sample in samples if sample.reference and sample.graded]
    return compare(
        "",
        ANSWERABLE,
        [float(sample.base_outcome == "correct") for sample in answerable],
        [float(sample.tuned_outcome == "correct") for sample in answerable],
        [sample.cluster for sample in answerable],
        higher_is_better=True,
    )


def markdown_table(comparisons: Sequence[Comparison]) -> str:
    """The comparisons as a Markdown table, for model cards."""
    lines = [
        "| task | metric | n | base | tuned | difference | 95% interval | p | p (Holm) | |",
        "|---|---|--:|--:|--:|--:|---|--:|--:|---|",
    ]
    for c in comparisons:
        metric = f"{c.metric} ({c.slice})" if c.slice else c.metric
        task = f"{c.model}, {c.task}" if c.model else c.task
        cells = [_cell(task), _cell(metric), str(c.n), figure(c.base), figure(c.tuned), signed(c.difference)]
        cells += [interval(c).removeprefix("95% interval "), probability(c.p_value), probability(c.p_holm), c.verdict]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def markdown(results: Results, samples: Sequence[Sample]) -> str:
    """A report for a model card: its sentence, its table, how good its detectors are, and its notes."""
    about = [_cell(line) for line in (*detector_lines(results), *results.notes)]
    parts = [_cell(headlines(results, samples)), markdown_table(results.comparisons).rstrip()]
    return "\n\n".join([*parts, *(["\n".join(f"- {line}" for line in about)] if about else [])]) + "\n"


def _cell(text: str) -> str:
    return html.escape(" ".join(text.split())).replace("|", "\\|")


def figure(value: float) -> str:
    return f"{value:.3f}".replace("-", "\N{MINUS SIGN}")


def signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")


def with_interval(
    value: float | None, bounds: tuple[float, float] | None, form: Callable[[float], str] = figure
) -> str:
    """A figure and its interval of 95%; signed ones are differences."""
    if value is None:
        return "-"
    return form(value) + (f" ({form(bounds[0])} to {form(bounds[1])})" if bounds else "")


def probability(value: float | None) -> str:
    if value is None:
        return "not tested"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def interval(comparison: Comparison) -> str:
    return "no interval" if comparison.ci_low is None else f"95% interval {bounds(comparison)}"


def bounds(comparison: Comparison) -> str:
    """The interval of the difference, in figures alone."""
    if comparison.ci_low is None or comparison.ci_high is None:
        return "-"
    return f"{signed(comparison.ci_low)} to {signed(comparison.ci_high)}"


def clip(text: str) -> str:
    return text if len(text) <= TEXT_SHOWN else text[:TEXT_SHOWN] + " […]"


def _flips(samples: Sequence[Sample], kind: str) -> list[dict[str, Any]]:
    return [_shown(sample) for sample in [s for s in samples if s.flip == kind][:SHOWN]]


def _marked(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Items with something that a check takes for made up."""
    return [_shown(sample) for sample in [s for s in samples if s.base_spans or s.tuned_spans][:SHOWN]]


def _shown(sample: Sample) -> dict[str, Any]:
    base, tuned = mark_changes(sample.base_answer, sample.tuned_answer)
    return {
        "sample": sample,
        "base": with_spans(base, sample.base_spans),
        "tuned": with_spans(tuned, sample.tuned_spans),
    }


def with_spans(pieces: Sequence[tuple[str, bool]], spans: Spans) -> list[tuple[str, bool, bool]]:
    """The pieces of an answer, cut where spans begin and end, each with whether the other answer lacks it and whether
    it lies in a span.
    """
    found, start = [], 0
    for text, changed in pieces:
        end = start + len(text)
        cuts = sorted({start, end, *(place for span in spans for place in span if start < place < end)})
        for low, high in pairwise(cuts):
            inside = any(begin <= low and high <= stop for begin, stop in spans)
            found.append((text[low - start : high - start], changed, inside))
        start = end
    return found


def mark_changes(base: str, tuned: str) -> tuple[list[tuple[str, bool]], list[tuple[str, bool]]]:
    """Both answers, clipped, as pieces of text, each with whether the other answer lacks it."""
    old, new = (re.findall(r"\S+\s*|\s+", clip(text)) for text in (base, tuned))
    matcher = SequenceMatcher(None, [word.strip() for word in old], [word.strip() for word in new])
    left, right = [], []
    for kind, i, j, k, m in matcher.get_opcodes():
        left += _pieces("".join(old[i:j]), kind != "equal")
        right += _pieces("".join(new[k:m]), kind != "equal")
    return left, right


def _pieces(text: str, changed: bool) -> list[tuple[str, bool]]:
    """The text, and the space after it, which carries no mark."""
    words = text.rstrip()
    return [piece for piece in ((words, changed), (text[len(words) :], False)) if piece[0]]


def detector_cells(accuracy: Accuracy) -> list[str]:
    """A detector's figures for a row of a table: what it asks, on what, and how it compares with length."""
    return [
        accuracy.detector,
        ", ".join(accuracy.by) or "-",
        accuracy.labels,
        str(accuracy.n) + (f" of {accuracy.n + accuracy.unscored}" if accuracy.unscored else ""),
        with_interval(accuracy.auroc, accuracy.auroc_interval),
        with_interval(accuracy.balanced_accuracy, accuracy.balanced_accuracy_interval),
        "-" if accuracy.length_auroc is None else figure(accuracy.length_auroc),
        accuracy.verdict,
    ]


def calibration_cells(c: Calibration) -> list[str]:
    """A figure of both models' confidence for a row of a table."""
    return [
        f"{c.task}: {c.figure}",
        "higher" if c.higher_is_better else "lower",
        f"{c.base_attempted}, {c.tuned_attempted} of {c.n}",
        with_interval(c.base, c.base_interval),
        with_interval(c.tuned, c.tuned_interval),
        with_interval(c.difference, c.difference_interval, signed),
    ]


def detector_worth(results: Results, metric: str) -> str:
    """What a metric is worth as a detector, for beside its figures; nothing where it is none."""
    if metric not in results.detectors:
        return ""
    measured = [each for each in results.detectors[metric] if each.auroc is not None]
    if not measured:
        return "as a detector of wrong answers: not measured"
    figures = [f"{each.verdict} (AUROC {figure(each.auroc or 0)} on {each.labels})" for each in measured]
    return f"as a detector of wrong answers: {'; '.join(figures)}"


def detector_lines(results: Results) -> list[str]:
    """A line for each detector that had a part in a report."""
    return [
        f"{name} ({each.basis}): {each.verdict}"
        + (f", AUROC {with_interval(each.auroc, each.auroc_interval)}, n = {each.n}" if each.auroc is not None else "")
        for name, found in results.detectors.items()
        for each in found
    ] + [
        f"{name}: not measured yet; `veritune validate-detectors --model {results.tuned}` does"
        for name, found in results.detectors.items()
        if not found
    ]
