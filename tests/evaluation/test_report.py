"""The report's files: what they hold, what the page says, and that hostile text stays text."""

import itertools
import json
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from evaluation import plots, report
from evaluation.confidence import calibrations
from evaluation.detectors import Accuracy
from evaluation.results import (
    Ancestor,
    Flips,
    Results,
    Sample,
    Task,
    count_flips,
    read_results,
    read_samples,
    write_results,
    write_samples,
)
from evaluation.statistics import Comparison, compare, with_holm
from feedback.errors import UserError

HOSTILE = [
    "</script><img src=x onerror=alert(1)>",
    "</div></section><h1 id=owned>owned</h1><iframe src=https://evil.example>",
    '" onmouseover="alert(1)" x="',
    "{{ results.report_id }}{% raw %}<style>*{display:none}</style>",
    "<!-- ]]> &lt;b&gt; \u202e\x00 <a href=javascript:alert(1)>",
]
NUMBERS = itertools.count()


def sample(base: str = "correct", tuned: str = "correct", **fields: Any) -> Sample:
    number = next(NUMBERS)
    given: dict[str, Any] = {
        "task": "closed_book",
        "item": f"item-{number}",
        "cluster": f"prompt-{number}",
        "prompt": "Where is it?",
        "reference": ("Paris",),
        "base_answer": "It is in Paris.",
        "tuned_answer": "It is in Rome.",
        "base_outcome": base,
        "tuned_outcome": tuned,
    }
    return Sample.model_validate(given | fields)


def accuracy(samples: list[Sample], metric: str = "right") -> Comparison:
    comparison = compare(
        "closed_book",
        metric,
        [s.right(s.base_outcome) for s in samples],
        [s.right(s.tuned_outcome) for s in samples],
        [s.cluster for s in samples],
        higher_is_better=True,
    )
    assert comparison is not None
    return comparison


def results(samples: list[Sample], **fields: Any) -> Results:
    given: dict[str, Any] = {
        "report_id": "report-1",
        "base": "the-base",
        "tuned": "the-tuned",
        "comparisons": with_holm([accuracy(samples)]),
        "flips": count_flips(samples),
        "created_at": datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
        "command": "veritune eval the-tuned --against the-base",
        "suite": "quick",
        "limit": None,
        "tasks": {"closed_book": Task(version="1", n=len(samples), source="q.jsonl", samples_hash="0" * 64)},
        "lineage": [Ancestor(kind="run", id="run-7", hash="f" * 64, state="altered: adapter")],
        "notes": ["The tuned model abstains on 31% of answerable questions; the base on 0%."],
        "environment": {"torch": "2.11.0"},
        "hardware": "2 CPU cores",
    }
    return Results.model_validate(given | fields)


def render(folder: Path, samples: list[Sample], **fields: Any) -> str:
    write_samples(folder, samples)
    report.write_report(folder, results(samples, **fields))
    return (folder / report.REPORT).read_text()


class Page(HTMLParser):
    """Elements, attributes and text of a page as a browser's parser sees them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


# Headline.

WON = [("incorrect", "correct")] * 40
SAME = [("correct", "correct")] * 60
UNANSWERABLE: dict[str, Any] = {"reference": ()}


def test_headline_of_a_clear_gain() -> None:
    samples = [sample(*pair) for pair in WON + SAME]
    sentence = report.headline(results(samples), samples)
    assert sentence.startswith("Against the-base, the-tuned is better on 1 of 1 comparison after Holm's correction: ")
    assert "closed_book: right rose from 0.600 to 1.000 (+0.400, 95% interval +0.3" in sentence
    assert sentence.endswith("n = 100, Holm p < 0.001).")
    assert "answerable" not in sentence


def test_headline_of_nothing() -> None:
    samples = [sample(*pair) for pair in [("incorrect", "correct")] * 3 + [("correct", "incorrect")] * 2 + SAME]
    sentence = report.headline(results(samples), samples)
    assert sentence.startswith("No difference between the-tuned and the-base is clear of zero after Holm's correction")
    assert "over 1 comparison: closed_book: right rose from 0.954 to 0.969 (+0.015" in sentence
    assert "Holm p 1.000), where a difference of 0.097 would be found four times in five." in sentence


def test_headline_of_a_gain_that_cost_accuracy_says_so_in_the_same_sentence() -> None:
    answerable = [sample("correct", "abstained") for _ in range(12)] + [sample() for _ in range(48)]
    unanswerable = [sample("incorrect", "abstained", **UNANSWERABLE) for _ in range(60)]
    samples = answerable + unanswerable
    sentence = report.headline(results(samples), samples)
    assert "better on 1 of 1 comparison" in sentence
    assert "right rose from 0.500 to 0.900" in sentence
    assert "accuracy on answerable questions fell from 1.000 to 0.800 (\N{MINUS SIGN}0.200" in sentence
    assert "not clear" not in sentence
    assert sentence.count(". ") == 0


def test_headline_names_a_small_fall_as_not_clear() -> None:
    answerable = [sample("correct", "abstained"), *(sample() for _ in range(48))]
    samples = answerable + [sample("incorrect", "abstained", **UNANSWERABLE) for _ in range(60)]
    sentence = report.headline(results(samples), samples)
    assert sentence.endswith("n = 49), not clear of zero.")


def test_headline_of_a_loss_alone_does_not_repeat_it() -> None:
    samples = [sample(tuned, base) for base, tuned in WON + SAME]
    sentence = report.headline(results(samples), samples)
    assert "the-tuned is worse on 1 of 1 comparison" in sentence
    assert sentence.count("fell") == 1


def test_headline_keeps_to_the_order_of_the_suite() -> None:
    samples = [sample(*pair) for pair in WON + SAME]
    unclear = accuracy([sample("incorrect", "correct"), sample()], "unclear")
    strongest = accuracy([sample("incorrect", "correct") for _ in range(300)], "strongest")
    family = with_holm([unclear, accuracy(samples, "first"), strongest])
    sentence = report.headline(results(samples, comparisons=family), samples)
    assert "better on 2 of 3 comparisons after Holm's correction: closed_book: first rose" in sentence


def test_headline_without_comparisons() -> None:
    assert report.headline(results([sample()], comparisons=()), []).startswith("Nothing was compared")


# The page.


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    harmless = [sample("incorrect", "correct"), sample("correct", "incorrect")]
    hostile = [
        sample(
            *pair,
            task=text.replace("\x00", ""),
            item=text,
            slice=text,
            prompt=text,
            reference=(text,),
            base_answer=text,
            tuned_answer=other,
            base_confidence=0.5,
            tuned_confidence=0.5,
        )
        for text, other in zip(HOSTILE, HOSTILE[1:] + HOSTILE[:1], strict=True)
        for pair in (("incorrect", "correct"), ("correct", "incorrect"))
    ]
    worst = HOSTILE[1]
    page = render(
        tmp_path,
        harmless + hostile,
        report_id=worst,
        base=worst,
        tuned=worst,
        command=worst,
        suite=worst,
        notes=HOSTILE,
        hardware=worst,
        environment={worst: worst},
        comparisons=[accuracy(hostile, worst).model_copy(update={"slice": worst, "task": worst})],
        tasks={worst: Task(version=worst, n=1, source=worst, samples_hash=worst)},
        lineage=[Ancestor(kind=worst, id=worst, hash=worst, state=worst)],
    )
    parsed, plain = Page(page), Page(render(tmp_path, harmless))
    assert set(parsed.elements) <= set(plain.elements) | {"polyline", "details", "summary"}
    assert not {"script", "img", "iframe", "a", "link", "object"} & set(parsed.elements)
    assert parsed.elements.count("h1") == parsed.elements.count("style") == 1
    names = {name for name, _ in parsed.attributes}
    assert not {name for name in names if name.startswith("on")} | ({"src", "href", "id"} & names)
    for text in HOSTILE[:4]:
        assert text in parsed.text
    assert "display:none" not in "".join(value or "" for name, value in parsed.attributes if name == "style")


def test_nothing_is_loaded_from_elsewhere(tmp_path: Path) -> None:
    page = render(tmp_path, [sample("incorrect", "correct") for _ in range(5)])
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert ("content", policy) in Page(page).attributes
    assert not re.search(r"https?:|url\(|@import|<script|<link", page)


def test_page_says_what_was_compared(tmp_path: Path) -> None:
    text = " ".join(Page(render(tmp_path, [sample(*pair) for pair in WON + SAME], limit=100)).text.split())
    for expected in (
        "the-tuned against the-base",
        "2026-01-02 03:04 UTC",
        "100 items of 1 task, at most 100 a task",
        "40 gained, 0 lost",
        "The tuned model abstains on 31%",
        "closed_book: right 100 0.600 1.000 +0.400 +0.3",
        "altered: adapter",
        "veritune eval the-tuned --against the-base",
        "torch 2.11.0",
        "10,000 resamples of whole prompts",
        "Lost: 0, only the base was right None.",
        "37 more",
    ):
        assert expected in text


def test_page_shows_the_first_fifty_flips_and_marks_the_words_that_differ(tmp_path: Path) -> None:
    page = render(tmp_path, [sample("incorrect", "correct") for _ in range(60)])
    assert page.count('<article class="flip">') == 50
    assert "47 more (samples.parquet has all 60)" in page
    assert page.count('<div class="text">It is in <del>Paris.</del></div>') == 50
    assert page.count('<div class="text">It is in <ins>Rome.</ins></div>') == 50


def test_page_clips_what_is_too_long(tmp_path: Path) -> None:
    page = render(tmp_path, [sample("incorrect", "correct", tuned_answer="word " * 100_000, prompt="q" * 100_000)])
    assert len(page) < 60_000
    assert page.count("[…]") == 2


def test_page_of_ungraded_items_has_no_empty_plots(tmp_path: Path) -> None:
    ungraded = [sample(base_outcome=None, tuned_outcome=None, reference=None)]
    page = render(tmp_path, ungraded, comparisons=(), lineage=())
    assert "What became of the questions" not in page
    assert "Risk and coverage" not in page
    assert "the model was not trained in this workspace" in page


def test_changes_are_marked_by_word() -> None:
    base, tuned = report.mark_changes("It  is in Paris, I think", "It is in Rome,\nI think so")
    assert base == [("It  is in", False), (" ", False), ("Paris,", True), (" ", False), ("I think", False)]
    assert "".join(piece for piece, _ in tuned) == "It is in Rome,\nI think so"
    assert [piece for piece, changed in tuned if changed] == ["Rome,", "so"]
    assert report.mark_changes("", "") == ([], [])


def test_markdown_table_escapes_what_would_break_it() -> None:
    hostile = accuracy([sample()]).model_copy(update={"task": "a|b\n<img>", "ci_low": None, "p_value": None})
    lines = report.markdown_table([hostile]).splitlines()
    assert len(lines) == 3
    row = "| a\\|b &lt;img&gt; | right | 1 | 1.000 | 1.000 | +0.000 | no interval | not tested | not tested | unclear |"
    assert lines[2] == row


# The files beside it.


def test_results_hold_the_fields_of_the_contract(tmp_path: Path) -> None:
    written = results([sample(*pair) for pair in WON + SAME])
    write_results(tmp_path, written)
    data = json.loads((tmp_path / "results.json").read_text())
    assert {"report_id", "base", "tuned", "comparisons", "flips"} <= data.keys()
    assert data.keys() - {"report_id", "base", "tuned", "comparisons", "flips"} == {
        "also",
        "created_at",
        "command",
        "suite",
        "limit",
        "tasks",
        "calibration",
        "detectors",
        "votes",
        "lineage",
        "notes",
        "environment",
        "hardware",
    }
    assert data["flips"] == {"gained": 40, "lost": 0}
    assert data["tasks"]["closed_book"].keys() == {"version", "n", "source", "samples_hash"}
    assert data["lineage"][0].keys() == {"kind", "id", "hash", "state"}
    assert read_results(tmp_path) == written


def test_samples_come_back_as_they_were(tmp_path: Path) -> None:
    import pandas as pd

    rows = [
        sample(base_metrics={"f1": 0.25, "none": None}, tuned_metrics={"f1": float("nan")}, base_confidence=0.5),
        sample(reference=None, base_outcome=None, tuned_outcome=None, slice="rare", prompt=HOSTILE[0]),
        sample("abstained", **UNANSWERABLE),
        sample(reference=("Zürich", "京都")),
    ]
    write_samples(tmp_path, rows)
    assert read_samples(tmp_path) == rows
    frame = pd.read_parquet(tmp_path / "samples.parquet")
    assert list(frame.columns) == list(Sample.model_fields)
    assert json.loads(frame.base_metrics[0]) == {"f1": 0.25, "none": None}
    assert json.loads(frame.tuned_metrics[0]) == {"f1": None}
    assert [None if pd.isna(value) else json.loads(value) for value in frame.reference] == [
        ["Paris"],
        None,
        [],
        ["Zürich", "京都"],
    ]
    write_samples(tmp_path, [])
    assert read_samples(tmp_path) == []


def test_flips_take_abstaining_as_right_where_there_is_no_answer() -> None:
    rows = [
        sample("incorrect", "correct"),
        sample("abstained", "correct"),
        sample("correct", "abstained"),
        sample("incorrect", "abstained"),
        sample("incorrect", "abstained", **UNANSWERABLE),
        sample("incorrect", "abstained", reference=None),
        sample("correct", base_outcome=None),
    ]
    assert [row.flip for row in rows] == ["gained", "gained", "lost", None, "gained", None, None]
    assert count_flips(rows) == Flips(gained=3, lost=1)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("results.json", None, "no such report"),
        ("results.json", b'{"report_id": 5}', r"results.json: report_id: .*; repeat the evaluation"),
        ("results.json", b"\xff", "repeat the evaluation"),
        ("samples.parquet", None, "missing"),
        ("samples.parquet", b"PAR1", r"damaged \(.*repeat the evaluation"),
    ],
)
def test_missing_and_damaged_files_are_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        (read_results if name == "results.json" else read_samples)(tmp_path)
    assert len(str(caught.value).splitlines()) == 1


# Where the plots' marks stand.


def test_forest_places_zero_and_the_interval_on_round_ticks() -> None:
    fields = {"task": "t", "metric": "m", "n": 9, "p_value": 0.5}
    share = Comparison(**fields, base=0.5, tuned=0.6, difference=0.1, ci_low=-0.1, ci_high=0.3)
    other = Comparison(**fields, base=-5, tuned=-7, difference=-2, ci_low=None, ci_high=None)
    first, second = plots.forests([share, other])
    assert [round(tick.value, 9) for tick in first.ticks] == [-0.1, 0, 0.1, 0.2, 0.3]
    assert [tick.place for tick in first.ticks] == [0, 25, 50, 75, 100]
    row = first.rows[0]
    assert (row.low, row.middle, row.high) == (pytest.approx(0, abs=1e-9), pytest.approx(50), pytest.approx(100))
    assert (second.rows[0].low, second.rows[0].middle, second.rows[0].high) == (None, 0, None)
    assert second.ticks[-1] == plots.Tick(100, 0)


def test_forest_of_a_model_against_itself_has_a_width() -> None:
    (forest,) = plots.forests([accuracy([sample(), sample()])])
    assert [tick.place for tick in forest.ticks] == [0, 50, 100]
    assert forest.rows[0].middle == 50


def test_outcome_bars_part_what_can_be_answered_from_what_cannot() -> None:
    rows = [sample("correct", "abstained") for _ in range(3)] + [sample("incorrect", "correct")]
    first, second = plots.outcome_bars([*rows, sample("incorrect", "abstained", **UNANSWERABLE)])
    assert (first.answerable, first.n, second.answerable, second.n) == (True, 4, False, 1)
    assert [(s.outcome, s.count, s.start, s.share) for s in first.base] == [
        ("correct", 3, 0, 75),
        ("abstained", 0, 75, 0),
        ("incorrect", 1, 75, 25),
    ]
    assert (first.base[0].low, first.base[0].high) == (pytest.approx(30.06, abs=0.01), pytest.approx(95.44, abs=0.01))
    assert [s.count for s in second.tuned] == [0, 1, 0]


def test_risk_coverage_takes_the_surest_first_and_ends_where_the_model_abstains() -> None:
    answers = [(0.9, "correct"), (0.7, "incorrect"), (0.7, "correct"), (0.2, "incorrect"), (None, "abstained")]
    rows = [
        sample(outcome, "correct", base_confidence=sure, tuned_confidence=0.5) for sure, outcome in reversed(answers)
    ]
    (curves,) = plots.risk_coverage([*rows, sample(base_confidence=0.5), sample(task="no confidence")])
    assert curves.n == 5
    # x: share answered; y: 100 less the share of wrong answers among them. The two of equal confidence are one step.
    assert curves.base == (pytest.approx((20, 100)), pytest.approx((60, 100 - 100 / 3)), pytest.approx((80, 50)))
    assert curves.tuned == ((100, 100),)


def test_risk_coverage_thins_long_curves_and_keeps_their_ends() -> None:
    rows = [sample(base_confidence=i / 1000, tuned_confidence=0.5) for i in range(1000)]
    (curves,) = plots.risk_coverage(rows)
    assert len(curves.base) == plots.CURVE_POINTS
    assert (curves.base[0], curves.base[-1]) == (pytest.approx((0.1, 100)), pytest.approx((100, 100)))


def test_what_detectors_are_worth_stands_beside_their_figures(tmp_path: Path) -> None:
    samples = [sample(*pair, base_confidence=0.5, tuned_confidence=0.25) for pair in WON + SAME]
    common: dict[str, Any] = {"data_hash": "0", "n": 40, "positives": 20, "questions": 40, "unscored": 2}
    poor = Accuracy(
        detector="right", labels="ratings", auroc=0.5, length_auroc=0.6, difference_interval=(-0.2, 0.1), **common
    )
    given: dict[str, Any] = {"detectors": {"right": (poor,), "confidence": ()}, "calibration": calibrations(samples)}
    page = Page(render(tmp_path, samples, **given)).text
    assert "as a detector of wrong answers: no better than length alone (AUROC 0.500 on ratings)" in page
    assert "40 of 42" in page
    assert "Not measured yet: confidence." in " ".join(page.split())
    assert "closed_book: Brier score" in page
    written = report.markdown(results(samples, **given), samples)
    assert written.startswith("Against the-base, the-tuned is better on 1 of 1 comparison")
    assert "- right (ratings): no better than length alone, AUROC 0.500, n = 40" in written
    assert "- confidence: not measured yet; `veritune validate-detectors --model the-tuned` does" in written
    name, better, attempted, base, tuned, difference = report.calibration_cells(given["calibration"][0])
    assert (name, better, attempted) == ("closed_book: calibration error (ECE)", "lower", "100, 100 of 100")
    # 100 answers at 0.25, all right, and 100 at 0.5, of which 60 are.
    assert base.startswith("0.100 (")
    assert tuned == "0.750 (0.750 to 0.750)"
    assert difference.startswith("+0.650 (")
