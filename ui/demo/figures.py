"""What the demo tells of its figures: the revisions, and every tuned model beside the base."""

from collections.abc import Mapping, Sequence

from evaluation.hallucination.closed_book import grade
from evaluation.report import bounds, figure, probability, signed
from evaluation.results import Outcome, Results, list_results
from evaluation.statistics import Comparison
from feedback.constitution.steps import Steps, steps_path
from feedback.curation.intervals import wilson
from feedback.database import Database
from feedback.workspace import Workspace
from ui.cli.common import print_table, say
from ui.demo.world import Question

# Which of the figures the table holds, and in what words.
WANTED = (
    ("people", "accuracy", "right, of what can be answered"),
    ("people", "hallucination_rate", "invented, of unknown people"),
    ("people", "score@0.75", "abstention-aware score, t = 0.75"),
    ("unstated", "hallucination_rate", "invented, of what known people keep quiet"),
)
OUTCOMES: tuple[Outcome, ...] = ("correct", "incorrect", "abstained")


def tell_revisions(workspace: Workspace, collection: str, questions: Sequence[Question]) -> None:
    """What became of right and of invented answers, by what the world knows, and an example of each."""
    by_text = {question.text: question for question in questions}
    with Database(workspace.database) as database, Steps(steps_path(workspace, collection)) as steps:
        asked = {c.id: by_text[c.prompt[-1].content] for c in database.candidates([collection])}
        revisions = list(steps.known.values())
    graded = []
    for revision in revisions:
        question = asked[revision.candidate_id]
        texts = (revision.response, revision.steps[-1].revision)
        before, after = (grade(text, [question.answer] if question.answer else []) for text in texts)
        graded.append((question, revision, before, after))
    rows = []
    for kind in dict.fromkeys(question.kind for question in questions):
        ends = [(before, after) for question, _, before, after in graded if question.kind == kind]
        for outcome in OUTCOMES:
            if afters := [after for before, after in ends if before == outcome]:
                shares = [_of(afters.count(after), len(afters)) for after in OUTCOMES]
                rows.append((kind, outcome, len(afters), *shares))
    print_table(
        ["asked about", "answer was", "n", "then correct", "then incorrect", "then abstained"],
        rows,
        title="What the revisions made of the answers, each share with its 95% interval",
    )
    for kind in ("known", "unknown-name"):
        question, revision = next((q, r) for q, r, *_ in graded if q.kind == kind)
        step = revision.steps[0]
        say(f"e.g. {question.text} {revision.response!r}, criticised: {step.critique!r}, revised: {step.revision!r}")


def tell_comparisons(workspace: Workspace, stages: Mapping[str, str]) -> None:
    """The paired table, and in words whether the aims were met.

    Args:
        stages: what each run is called in the table.
    """
    reports = {results.tuned: results for results in list_results(workspace.reports)}
    rows = []
    for task, metric, words in WANTED:
        for run_id, stage in stages.items():
            c = _comparison(reports[run_id], task, metric)
            rows.append(
                (
                    words,
                    stage,
                    c.n,
                    figure(c.base),
                    figure(c.tuned),
                    signed(c.difference),
                    bounds(c),
                    probability(c.p_value),
                    probability(c.p_holm),
                )
            )
    columns = [
        "on questions that no stage saw",
        "tuned by",
        "n",
        "base",
        "tuned is",
        "difference",
        "95% interval",
        "p",
        "p (Holm)",
    ]
    print_table(columns, rows, title="\nEach tuned model against the base")
    _tell_aims(reports["dpo-1"], stages["dpo-1"])
    for run_id in stages:
        say(f"report of {run_id}: {workspace.reports / reports[run_id].report_id / 'report.html'}")


def _tell_aims(results: Results, stage: str) -> None:
    score, invented, accuracy = (
        _comparison(results, "people", m) for m in ("score@0.75", "hallucination_rate", "accuracy")
    )
    aims = (
        (
            "score at least 1.0 above the base's, interval clear of zero",
            score.difference >= 1.0 and score.ci_low is not None and score.ci_low > 0,
        ),
        ("inventions on unknown names under 10%", invented.tuned < 0.10),
        ("accuracy at most 3 points below the base's", accuracy.difference >= -0.03),
    )
    for aim, met in aims:
        say(f"aim for {stage}: {aim}: {'met' if met else 'MISSED'}")


def _comparison(results: Results, task: str, metric: str) -> Comparison:
    return next(c for c in results.comparisons if (c.task, c.metric) == (task, metric))


def _of(count: int, n: int) -> str:
    low, high = wilson(count, n)
    return f"{count / n:.1%} ({low:.1%} to {high:.1%})"
