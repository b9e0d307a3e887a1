"""How good a detector is: figures against hand-computed cases, and what is kept of them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation import detectors, labelled_answers
from evaluation.calibration import auroc
from evaluation.detectors import Accuracy, measure
from evaluation.labelled_answers import SETS, Labelled, LabelledSet
from evaluation.statistics import cluster_intervals
from evaluation.validation import OWN, validate
from feedback.errors import UserError
from feedback.workspace import SETTINGS_FILE, Workspace


def labelled(*items: Labelled) -> LabelledSet:
    return LabelledSet("made_up", "0" * 64, items)


def item(number: int, positive: bool, length: int = 5) -> Labelled:
    return Labelled(f"question {number}", "a" * length, positive)


def quiet(line: str) -> None:
    pass


def test_a_perfect_detector_is_better_than_length() -> None:
    rng = np.random.default_rng(0)
    items = [item(n, bool(rng.random() < 0.4), int(rng.integers(1, 9))) for n in range(200)]
    found = measure("perfect", (), labelled(*items), [float(each.positive) for each in items])
    assert (found.auroc, found.balanced_accuracy, found.verdict) == (1, 1, "better than length alone")
    assert found.auroc_interval == (1, 1)


def test_figures_are_those_counted_by_hand() -> None:
    # Of the 4 pairs of a positive and a negative, scores order 3 rightly; lengths all 4, the shorter being positive.
    items = [item(0, True, 2), item(1, True, 3), item(2, False, 8), item(3, False, 9)]
    found = measure("by_hand", (), labelled(*items), [0.9, 0.4, 0.5, 0.1])
    assert (found.auroc, found.length_auroc, found.difference) == (0.75, 1.0, -0.25)
    # Questions 0 and 2 choose 0.9, by which 1 and 3 are negative; these choose 0.4, by which 0 and 2 are positive.
    assert found.balanced_accuracy == 0.5
    # By lengths the same halves choose 2 or less, which misses question 1, and 3 or less, which finds question 0.
    assert found.length_balanced_accuracy == 0.75
    assert (found.n, found.positives, found.questions, found.unscored) == (4, 2, 4, 0)


def test_a_detector_that_only_knows_lengths_is_no_better() -> None:
    rng = np.random.default_rng(1)
    items = [item(n, bool(rng.random() < 0.5), int(rng.integers(1, 50))) for n in range(100)]
    found = measure("length", (), labelled(*items), [float(len(each.answer)) for each in items])
    assert found.auroc is not None
    assert found.verdict == "no better than length alone"
    # The detector takes long answers for wrong, the baseline whatever fits better.
    assert found.length_auroc == pytest.approx(max(found.auroc, 1 - found.auroc))


def test_a_detector_worse_than_length_says_so() -> None:
    rng = np.random.default_rng(2)
    items = [item(n, n % 3 == 0, 40 if n % 3 == 0 else int(rng.integers(1, 30))) for n in range(90)]
    found = measure("noise", (), labelled(*items), [float(value) for value in rng.random(90)])
    assert found.verdict == "worse than length alone"


def test_labels_that_are_all_alike_tell_nothing() -> None:
    found = measure("any", ("m",), labelled(item(0, True), item(1, True), item(2, False)), [0.1, 0.2, None])
    assert (found.auroc, found.n, found.unscored) == (None, 2, 1)
    assert found.verdict == "not measurable: all 2 are labelled alike"
    assert measure("any", (), labelled(), []).verdict == "not measurable: nothing was scored"


def test_intervals_resample_questions_and_cover() -> None:
    rng = np.random.default_rng(3)
    held = []
    for _ in range(40):
        # 40 questions with 5 equal answers each: an interval over answers would be less than half as wide.
        labels = np.repeat(rng.random(40) < 0.5, 5)
        values = np.repeat(rng.normal(size=40), 5) + labels
        (interval,) = cluster_intervals(
            lambda places, y=labels, x=values: [auroc(x[places], y[places])],
            np.repeat(np.arange(40), 5).tolist(),
            resamples=100,
        )
        assert interval is not None
        held.append(interval[0] <= 0.7602 <= interval[1])
    # The area of two normal distributions one deviation apart.
    assert np.mean(held) >= 0.85
    assert cluster_intervals(lambda places: [None, 1.0], [0, 0, 1]) == [None, (1.0, 1.0)]
    assert cluster_intervals(lambda places: [1.0], [0, 0]) == [None]


def accuracy(detector: str, auroc: float, by: tuple[str, ...] = ()) -> Accuracy:
    return Accuracy(
        detector=detector,
        by=by,
        labels="made_up",
        data_hash="0",
        n=9,
        positives=4,
        questions=9,
        unscored=0,
        auroc=auroc,
    )


def test_a_new_version_holds_what_was_not_measured_again(tmp_path: Path) -> None:
    folder = tmp_path / "detectors"
    assert detectors.load(folder) is None
    detectors.keep(folder, [accuracy("one", 0.5), accuracy("two", 0.6, ("run",))], "first")
    path = detectors.keep(folder, [accuracy("one", 0.7)], "second")
    kept = detectors.load(folder)
    assert kept is not None
    assert (path.name, kept.version, kept.command) == ("v2.json", 2, "second")
    assert {each.detector: each.auroc for each in kept.accuracies} == {"one": 0.7, "two": 0.6}
    found = detectors.concerning(folder, ["one", "two", "three"], {"other"})
    assert {name: [each.auroc for each in of_name] for name, of_name in found.items()} == {
        "one": [0.7],
        "two": [],
        "three": [],
    }
    assert detectors.concerning(folder, ["two"], {"other", "run"})["two"][0].by == ("run",)
    path.write_text("{}")
    with pytest.raises(UserError, match="damaged"):
        detectors.load(folder)


ROWS: dict[str, list[dict[str, Any]]] = {
    "halueval_human": [
        {"user_query": f"Say {n}.", "chatgpt_response": f"{n}." * (n + 1), "hallucination": "yes" if n % 2 else "no"}
        for n in range(6)
    ],
    "halueval": [
        {
            "knowledge": f"Ada has {n} cats.",
            "question": f"Cats {n}?",
            "right_answer": str(n),
            "hallucinated_answer": "99",
        }
        for n in range(6)
    ],
    "truthfulqa_answers": [
        {"question": f"What is {n // 2}?", "answer": f"It is {n}.", "true": n % 2 == 0} for n in range(8)
    ],
    "efficientqa": [
        {
            "question": f"who is {n}",
            "answer": ["Ada Lovelace"],
            "def_correct_predictions": ["Ada King Lovelace"] if n % 2 else [],
            "def_incorrect_predictions": ["Lord Byron"],
        }
        for n in range(6)
    ],
    "abstentions": [{"text": "I don't know.", "abstains": True}, {"text": "I know: Rome.", "abstains": False}]
    + [{"text": f"Answer {n}.", "abstains": False} for n in range(4)]
    + [{"text": f"I'm not sure about {n}.", "abstains": True} for n in range(4)],
}


@pytest.fixture
def files(workspace: Workspace) -> dict[str, Path]:
    for name, rows in ROWS.items():
        (workspace.root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = "".join(f'{name} = "{name}.jsonl"\n' for name in ROWS)
    (workspace.root / SETTINGS_FILE).write_text(f"[evaluation]\nsamples = 2\n[evaluation.data]\n{lines}")
    return {name: workspace.root / f"{name}.jsonl" for name in ROWS}


def test_sets_are_read_as_they_were_published(files: dict[str, Path]) -> None:
    read = {name: labelled_answers.read(name, path).items for name, path in files.items()}
    assert read["halueval"][:2] == (
        Labelled("Cats 0?", "0", False, "Ada has 0 cats."),
        Labelled("Cats 0?", "99", True, "Ada has 0 cats."),
    )
    assert [each.positive for each in read["halueval_human"]] == [False, True] * 3
    assert [each.positive for each in read["truthfulqa_answers"]] == [False, True] * 4
    assert [each.positive for each in read["efficientqa"]] == [True, False, True] * 3
    assert read["efficientqa"][0].references == ("Ada Lovelace",)
    assert len(labelled_answers.read("abstentions", files["abstentions"], limit=3).items) == 3


def test_bad_rows_are_all_named(files: dict[str, Path]) -> None:
    for name, path in files.items():
        path.write_text('{"question": 1}\nno\n')
        with pytest.raises(UserError) as caught:
            labelled_answers.read(name, path)
        assert [line.split(":")[0] for line in caught.value.lines] == [f"{path}, line {n}" for n in (1, 2)]
    with pytest.raises(UserError, match="can't be read"):
        labelled_answers.read("halueval", path.parent / "absent.jsonl")


def test_every_detector_is_measured_and_kept(
    workspace: Workspace, files: dict[str, Path], tiny_model: Path, veritune: Callable[..., Any]
) -> None:
    command = ("--workspace", workspace.root, "validate-detectors", "--model", tiny_model)
    found = {(each["detector"], each["labels"]): each for each in veritune(*command, "--json")}
    assert set(found) == {
        ("matching", "efficientqa"),
        ("abstention", "abstentions"),
        ("semantic_entropy", OWN),
        *(
            (detector, labels)
            for detector in ("confidence", "inconsistency")
            for labels in ("halueval_human", "truthfulqa_answers", OWN)
        ),
    }
    # 3 of 3 right ones are the accepted name with another between, and no wrong one.
    assert found["matching", "efficientqa"]["auroc"] == 1
    assert found["abstention", "abstentions"]["balanced_accuracy"] == 1
    # The tiny model never names Ada, so that its own answers are all wrong, which is said and not hidden.
    assert found["semantic_entropy", OWN]["verdict"].startswith("not measurable")
    assert found["confidence", "truthfulqa_answers"]["by"] == [tiny_model.name]
    kept = detectors.load(workspace.detectors)
    assert kept is not None
    assert len(kept.accuracies) == len(found)
    shown = veritune(*command[:-2], "--limit", "4")
    assert "better than length alone" in shown.out


def test_confidence_is_the_log_probability_of_the_answer(
    workspace: Workspace, files: dict[str, Path], tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from evaluation import local, validation
    from feedback.schema import user_message
    from training import batches

    seen: dict[tuple[str, str], list[float | None]] = {}

    def spy(detector: str, by: Any, labels: LabelledSet, scores: Any) -> Accuracy:
        seen[detector, labels.name] = list(scores)
        return measure(detector, by, labels, scores)

    monkeypatch.setattr(validation, "measure", spy)
    validate(workspace, [str(tiny_model)], {"truthfulqa_answers": files["truthfulqa_answers"]}, limit=3, say=quiet)
    side = local.load(workspace, str(tiny_model)).side
    for row, doubt in zip(ROWS["truthfulqa_answers"], seen["confidence", "truthfulqa_answers"], strict=False):
        prompt, answer = batches.encode(
            side.tokenizer, [m.model_dump() for m in user_message(row["question"])], row["answer"]
        )
        with torch.no_grad():
            logits = side.model(input_ids=torch.tensor([prompt + answer[:-1]])).logits[0, len(prompt) - 1 : -1]
        logp = logits.log_softmax(-1).gather(-1, torch.tensor(answer[:-1])[:, None]).sum().item()
        assert doubt == pytest.approx(-logp, rel=1e-4)


def test_mistakes_are_named_before_anything_is_asked(
    workspace: Workspace, files: dict[str, Path], veritune: Callable[..., Any]
) -> None:
    command = ("--workspace", workspace.root, "validate-detectors")
    for wrong, said in (("truth=x", "--data truth: not a set"), ("halueval", "write NAME=FILE")):
        ended = veritune(*command, "--data", wrong)
        assert (ended.status, said in ended.err) == (2, True)
    (workspace.root / SETTINGS_FILE).write_text("")
    ended = veritune(*command)
    assert ended.status == 2
    assert all(name in ended.err for name in SETS)


def test_real_labels_give_real_figures(shared_data: Path, workspace: Workspace) -> None:
    found = {
        each.detector: each
        for each in validate(workspace, data={"efficientqa": shared_data / "nq-open" / "efficientqa_rated.jsonl"})
    }
    assert found["matching"].n == 2962
    assert found["matching"].verdict == "better than length alone"
