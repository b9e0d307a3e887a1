"""Groundedness and claims: sentence by sentence, marked where they are made up, by judges that the settings name."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from evaluation import checks, detectors
from evaluation.hallucination.entailment import Verdict
from evaluation.hallucination.groundedness import by_classifier, by_entailment, ungrounded
from evaluation.results import read_samples
from evaluation.suites import evaluate
from evaluation.validation import validate
from feedback.errors import UserError
from feedback.versions import DatasetVersion
from feedback.workspace import SETTINGS_FILE, Workspace
from tests.evaluation.test_claims import make_classifier
from training.labels import load_labeller
from training.launch import train
from training.runs import Run, find

CONTEXT = "The mill of Garth burned down in 1882."


def quiet(line: str) -> None:
    pass


def by_years(pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
    """Stands in for a model: a premise entails what names no year but its own."""
    return [Verdict(0.9, 0.1, 0.0) if "1882" in said else Verdict(0.2, 0.5, 0.3) for _, said in pairs]


def test_an_answer_is_as_grounded_as_its_worst_sentence() -> None:
    answer = "It burned in 1882. It was rebuilt in 1900."
    asked = [(CONTEXT, "What of the mill?", text) for text in (answer, "In 1882.", "The text does not say.", "")]
    found = ungrounded(asked, by_entailment(by_years))
    assert [each.score for each in found] == pytest.approx([0.8, 0.1, 0.0, 0.0])
    assert [[answer[start:end] for start, end in each.spans] for each in found] == [
        ["It was rebuilt in 1900."],
        [],
        [],
        [],
    ]
    assert ungrounded([], by_entailment(by_years)) == []


def test_entailment_is_asked_after_the_context_with_the_question_before_the_sentence() -> None:
    seen: list[tuple[str, str]] = []

    def spy(pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        seen.extend(pairs)
        return by_years(pairs)

    ungrounded([(CONTEXT, "When?", "In 1882.")], by_entailment(spy))
    assert seen == [(CONTEXT, "When? In 1882.")]


class Named:
    """A classifier that gives its first label what its text's length says."""

    name = "classifier-1"

    def __init__(self, *labels: str) -> None:
        self.labels = labels

    def __call__(self, prompts: Sequence[Any], answers: Sequence[str]) -> list[dict[str, float]]:
        assert prompts[0][-1]["content"] == f"{CONTEXT}\n\nWhen?"
        rest = len(self.labels) - 1
        return [
            {self.labels[0]: len(a) / 100} | {n: (1 - len(a) / 100) / rest for n in self.labels[1:]} for a in answers
        ]


def test_a_classifier_is_read_at_the_label_that_says_made_up() -> None:
    asked = [(CONTEXT, "When?", "x" * 30)]
    for labels, named in ((("Hallucinated", "right"), None), (("yes", "no"), "yes"), (("rejected", "chosen"), None)):
        (found,) = ungrounded(asked, by_classifier(Named(*labels), named))  # type: ignore[arg-type]
        assert found.score == pytest.approx(0.3)
    for labels, named in ((("yes", "no"), None), (("rejected", "hallucinated"), None), (("yes", "no"), "maybe")):
        with pytest.raises(UserError, match="grounded_label: "):
            by_classifier(Named(*labels), named)  # type: ignore[arg-type]


@pytest.fixture
def nli(tmp_path: Path) -> Path:
    return make_classifier(tmp_path / "nli", ["entailment", "neutral", "contradiction"])


@pytest.fixture
def pairs(workspace: Workspace) -> Path:
    """As HaluEval's, of a world in which a wrong answer always names the year 99."""
    rows = [
        {
            "knowledge": f"Town {n} has {n} mills.",
            "question": f"Mills of {n}?",
            "right_answer": str(n),
            "hallucinated_answer": "99",
        }
        for n in range(40)
    ]
    path = workspace.root / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def classifier(workspace: Workspace, pairs: Path, tiny_model: Path) -> Run:
    rows = [json.loads(line) for line in pairs.read_text().splitlines()]
    lines = [
        {"context": row["knowledge"], "question": row["question"], "answer": row[f"{kind}_answer"], "label": kind}
        for row in rows
        for kind in ("right", "hallucinated")
    ]
    path = workspace.root / "judged.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    keys = [f"dataset={path}", f"model={tiny_model}", "max_steps=12", "learning_rate=1e-2", "batch_size=8"]
    return train(workspace, "classifier", keys, quiet)


def set_up(workspace: Workspace, *lines: str) -> None:
    (workspace.root / SETTINGS_FILE).write_text("\n".join(["[evaluation]", *lines]))
    workspace.__dict__.pop("settings", None)


def test_context_questions_are_checked_marked_and_shown(
    workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path, classifier: Run, nli: Path
) -> None:
    run = train(workspace, "sft", ["dataset=sums", f"model={tiny_model}", "max_steps=4", "learning_rate=2e-2"], quiet)
    rows = [
        {"question": f"Mills of {n}?", "answers": [str(n)], "context": f"Town {n} has {n} mills."} for n in range(4)
    ] + [{"question": "1 + 1?", "answers": ["2"]}]
    (workspace.root / "held_out.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (workspace.root / "corpus.txt").write_text("Town 1 has 1 mills.\n\nTown 2 has 2 mills.\n")
    named = f'entailment = "{nli}"\ncorpus = "corpus.txt"\ngrounded = "{classifier.id}"'
    set_up(workspace, 'questions = ["held_out.jsonl"]', named)
    results = evaluate(workspace, run.id, report=quiet, named_checks=["grounded", "claims"])
    compared = {c.metric: c for c in results.comparisons if c.task == "held_out"}
    assert {compared[name].n for name in ("ungrounded", "not_entailed")} == {4}
    assert {compared[name].n for name in ("unsupported", "contradicted")} == {5}
    samples = [s for s in read_samples(workspace.reports / results.report_id) if s.task == "held_out"]
    assert [s.context for s in samples] == [row.get("context") for row in rows]
    judge = by_classifier(load_labeller(find(workspace, classifier.id)))
    for s in samples[:4]:
        (expected,) = ungrounded([(s.context or "", s.prompt, s.tuned_answer)], judge)
        assert s.tuned_metrics["ungrounded"] == pytest.approx(expected.score, abs=1e-5)
        assert set(expected.spans) <= set(s.tuned_spans)
    assert samples[4].tuned_metrics["ungrounded"] is None
    page = (workspace.reports / results.report_id / "report.html").read_text()
    assert ("<mark>" in page) == any(s.base_spans or s.tuned_spans for s in samples)
    assert results.detectors["ungrounded"] == ()
    assert any(classifier.id in note for note in results.notes)


def test_a_context_stands_before_the_question_it_belongs_to(
    workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path
) -> None:
    from contextlib import nullcontext

    from evaluation.harness import Side, run_task
    from evaluation.task_sources import TaskSource
    from training import models

    path = workspace.root / "held_out.jsonl"
    rows = [{"question": "When?", "answers": [], "context": CONTEXT}, {"question": "Who?", "answers": []}]
    side = Side("tiny", models.load_base(str(tiny_model)).eval(), models.load_tokenizer(str(tiny_model)), nullcontext)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with_context, without = run_task(side, TaskSource("held_out", "closed_book", path), None, 2)
    assert f"{CONTEXT}\n\nWhen?" in with_context.prompt
    assert "<|user|>Who?" in without.prompt


def test_detectors_of_context_are_validated_on_what_they_were_not_taught(
    workspace: Workspace, pairs: Path, classifier: Run, nli: Path
) -> None:
    set_up(workspace, f'entailment = "{nli}"', f'grounded = "{classifier.id}"')
    said: list[str] = []
    found = {each.detector: each for each in validate(workspace, data={"halueval": pairs}, say=said.append)}
    assert set(found) == {"ungrounded", "not_entailed", "unsupported", "contradicted"}
    taught = find(workspace, classifier.id).manifest["dataset"]
    assert taught["id"].endswith("judged.jsonl")
    assert 0 < found["ungrounded"].n < 40
    assert said == [f"halueval: {80 - found['ungrounded'].n} answers left out, which {classifier.id} was trained on"]
    assert found["not_entailed"].n == 80
    assert (found["ungrounded"].by, found["not_entailed"].by) == ((classifier.id,), ("nli",))
    # Both kinds of answer are of one or two digits: "99" for all wrong ones is learned within a few steps.
    assert found["ungrounded"].auroc is not None
    assert found["ungrounded"].auroc > 0.9


@pytest.mark.parametrize(
    ("lines", "named", "message"),
    [
        ((), "claims", "--check claims: set evaluation.corpus and evaluation.entailment"),
        ((), "grounded", "--check grounded: set evaluation.grounded or evaluation.entailment"),
        (('corpus = "corpus.txt"',), None, "claims are checked by entailment"),
    ],
)
def test_what_a_check_lacks_is_said(
    workspace: Workspace, lines: Sequence[str], named: str | None, message: str
) -> None:
    set_up(workspace, *lines)
    with pytest.raises(UserError, match=message):
        checks.chosen(workspace, "truthful", [named] if named else [])


def test_what_can_not_be_had_is_named_at_once(
    workspace: Workspace, small_dataset: DatasetVersion, tiny_model: Path, veritune: Callable[..., Any]
) -> None:
    run = train(workspace, "sft", ["dataset=sums", f"model={tiny_model}", "max_steps=1", "learning_rate=1e-2"], quiet)
    set_up(workspace, 'entailment = "absent"', 'corpus = "absent.txt"', f'grounded = "{run.id}"')
    made = checks.chosen(workspace, "truthful", [])
    assert made.names == ("claims", "grounded")
    with pytest.raises(UserError) as caught:
        made.load()
    text = "\n".join(caught.value.lines)
    assert "model 'absent'" in text
    assert "absent.txt: can't be read" in text
    assert f"run {run.id}: a sft model, which gives no labels" in text
    assert detectors.load(workspace.detectors) is None
