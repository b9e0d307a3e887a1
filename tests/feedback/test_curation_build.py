"""`data build` with all its steps: what each option does, what the card says of it, and that order plays no part."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from feedback.curation.build import build
from feedback.curation.options import Options
from feedback.database import Database
from feedback.errors import UserError
from feedback.formats import import_file
from feedback.schema import REVISION, Candidate, Demonstration, Judgement, Rater, Response, user_message
from feedback.versions import load
from feedback.workspace import SETTINGS_FILE, Workspace

WORDS = "amber birch cedar dune ember fjord grove heath islet jetty knoll ledge marsh north otter plume quartz".split()


def candidate(prompt: str, *answers: str) -> Candidate:
    return Candidate(prompt=user_message(prompt), responses=tuple(Response(text=answer) for answer in answers))


def vote(of: Candidate, rater: str, preferred: int | str, kind: str = "human", **more: Any) -> Judgement:
    return Judgement(candidate_id=of.id, rater=Rater(kind=kind, name=rater), source="test", preferred=preferred, **more)


def text(rng: random.Random, length: int) -> str:
    return " ".join(rng.choice(WORDS) + str(rng.randrange(50)) for _ in range(length))


def full(seed: int = 0) -> tuple[list[Candidate], list[Judgement], list[Demonstration]]:
    """300 pairs with three people and a judge on them, near-duplicates, a leak, and demonstrations."""
    rng = random.Random(seed)
    candidates, judgements = [], []
    for number in range(300):
        # The better one is mostly the longer one.
        better, worse = (text(rng, rng.randint(*ends)) for ends in ((10, 40), (10, 25)))
        candidates.append(candidate(f"{text(rng, 12)} {number}?", better, worse))
        for name, right in (("ann", 0.95), ("bob", 0.8), ("cid", 0.65)):
            judgements.append(vote(candidates[-1], name, 0 if rng.random() < right else 1))
        judgements.append(vote(candidates[-1], "m", 0, "ai", probability=0.75, principle="honest"))
    first = candidates[0]
    twin = candidate(first.prompt[0].content.upper(), *(response.text for response in first.responses))
    near = candidate(first.prompt[0].content, *(f"{response.text} indeed" for response in first.responses))
    leaky = candidate("Tell me: where in the hills of Garth does the last miller of Brindle live?", "A.", "B.")
    for extra in (twin, near, leaky):
        candidates.append(extra)
        judgements.append(vote(extra, "ann", 0))
    demonstrations = [
        Demonstration(prompt=user_message("Say yes."), completion=completion, provenance="test")
        for completion in ("Yes.", "yes.", "No.")
    ]
    return candidates, judgements, demonstrations


def prepared(workspace: Workspace) -> Workspace:
    (workspace.root / "q.jsonl").write_text(
        '{"question": "Where in the hills of Garth does the last miller of Brindle live?", "answers": []}\n'
    )
    (workspace.root / SETTINGS_FILE).write_text('[evaluation]\nquestions = ["q.jsonl"]\n')
    return workspace


ALL = Options(aggregation="dawid-skene", conflicts="soft", near_duplicates=0.8, balance_length=True)


def test_every_step_is_in_the_table_and_the_sum_comes_out(workspace: Workspace) -> None:
    with Database(prepared(workspace).database) as database:
        database.add("main", *full())
    version, new = build(workspace, "d", options=ALL)
    assert new
    steps = {step: (pairs, demonstrations) for step, pairs, demonstrations in version.manifest["steps"]}
    assert steps["rows in"] == (303, 3)
    assert steps["evaluation leak"] == (-1, 0)
    assert steps["exact duplicate"] == (-1, -1)
    assert steps["near duplicate"] == (-1, 0)
    assert -200 < steps["length balance"][0] < -50
    assert steps["rows out"] == (version.summary["pairs"], version.summary["demonstrations"])
    for column in (0, 1):
        assert 2 * steps["rows out"][column] == sum(counts[column] for counts in steps.values())
    aside = [json.loads(line) for line in (version.folder / "set_aside.jsonl").read_text().splitlines()]
    assert len(aside) == sum(version.summary["dropped"].values())
    assert {row["reason"] for row in aside} == {*steps} - {"rows in", "rows out"}
    assert version.judgement_ids


def test_the_card_tells_it_all_and_its_plots_are_pictures(workspace: Workspace) -> None:
    with Database(prepared(workspace).database) as database:
        database.add("main", *full())
    version, _ = build(workspace, "d", options=ALL)
    card = (version.folder / "CARD.md").read_text()
    for heading in ("What became of the rows", "How reliable the raters are", "How far the raters agree"):
        assert f"## {heading}" in card
    for heading in ("AI judges against people", "Leaked evaluation", "Near duplicates", "Does length give"):
        assert f"## {heading}" in card
    accuracies = {rater["rater"]: rater for rater in version.manifest["aggregation"]["raters"]}
    assert [accuracies[f"{name} (human)"]["accuracy"] for name in ("ann", "bob", "cid")] == pytest.approx(
        (0.95, 0.8, 0.65), abs=0.1
    )
    low, high = accuracies["bob (human)"]["interval"]
    assert low < 0.8 < high
    assert f"| bob (human) | 300 | {accuracies['bob (human)']['accuracy']:.1%} | {low:.3f} to {high:.3f} |" in card
    assert "m (ai), n = 300: agreed on" in card
    people = version.manifest["agreement"]["people"]
    assert people["raters"] == 3
    assert f"People alone: alpha {people['alpha']:.3f}" in card
    for name, bars in (("probabilities", 1), ("lengths", 3), ("agreement", 6)):
        assert f"![{name}](plots/{name}.svg)" in card
        picture = ElementTree.parse(version.folder / "plots" / f"{name}.svg")
        assert len(picture.findall(".//{http://www.w3.org/2000/svg}rect")) >= bars
    # They speak of the version and are no part of it.
    (version.folder / "plots" / "lengths.svg").unlink()
    assert load(workspace, "d").id == "d@v1"


def test_the_same_feedback_in_another_order_makes_the_same_version(workspace: Workspace, tmp_path: Path) -> None:
    from feedback import workspace as workspaces

    candidates, judgements, demonstrations = full()
    with Database(prepared(workspace).database) as database:
        database.add("main", candidates, judgements, demonstrations)
    other = prepared(workspaces.create(tmp_path / "other"))
    rng = random.Random(9)
    with Database(other.database) as database:
        for records in (candidates, judgements, demonstrations):
            rng.shuffle(records)
        database.add("elsewhere", candidates, judgements[:500])
        database.add("more", candidates, judgements[500:], demonstrations)
    assert build(workspace, "d", options=ALL)[0].fingerprint == build(other, "d", options=ALL)[0].fingerprint
    assert not build(workspace, "d", options=ALL)[1]
    assert [folder.name for folder in workspace.cache.iterdir()] == []


def test_rows_are_written_in_batches_that_readers_do_not_see(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Database(workspace.database) as database:
        database.add("main", *full())
    whole, _ = build(workspace, "whole")
    monkeypatch.setattr("feedback.versions.ROWS_A_BATCH", 7)
    batched, _ = build(workspace, "batched")
    for split in ("train", "validation", "test"):
        assert list(batched.pairs(split)) == list(whole.pairs(split))
        assert list(batched.demonstrations(split)) == list(whole.demonstrations(split))
    assert len(batched.pairs("train").data.table.column(0).chunks) == -(-len(whole.pairs("train")) // 7)


def test_opposed_votes_are_dropped_kept_at_one_half_or_sent_to_adjudication(workspace: Workspace) -> None:
    opposed, clear = candidate("Which?", "a", "b"), candidate("What?", "c", "d")
    other_way = candidate("Which?", "b", "a")
    votes = [vote(opposed, "ann", 0), vote(other_way, "bob", 0), vote(clear, "ann", 0)]
    with Database(workspace.database) as database:
        database.add("main", [opposed, other_way, clear], votes)
    assert build(workspace, "dropped", ["main"])[0].summary["dropped"] == {"conflict": 1}

    soft, _ = build(workspace, "soft", ["main"], (1, 0, 0), Options(conflicts="soft"))
    probabilities = {row["chosen"]: row["probability"] for row in soft.pairs("train")}
    assert probabilities == {"a": 0.5, "c": 1.0}

    lines: list[str] = []
    sent, _ = build(workspace, "sent", ["main"], (1, 0, 0), Options(conflicts="adjudicate"), lines.append)
    assert sent.summary["dropped"] == {"conflict": 1}
    assert lines == [
        "2 candidates with opposed votes are in 'sent-conflicts' (2 new); "
        "`veritune feedback push sent-conflicts` brings them to the labelling server"
    ]
    with Database(workspace.database) as database:
        assert {c.id for c in database.candidates(["sent-conflicts"])} == {opposed.id, other_way.id}
        database.add("sent-conflicts", judgements=[vote(opposed, "dan", 1)])
    settled, _ = build(workspace, "settled", ["main", "sent-conflicts"], (1, 0, 0))
    assert {row["chosen"]: row["probability"] for row in settled.pairs("train")} == {
        "b": pytest.approx(2 / 3),
        "c": 1.0,
    }


def test_raters_without_overlap_can_not_be_weighed(workspace: Workspace) -> None:
    of = candidate("Which?", "a", "b")
    with Database(workspace.database) as database:
        database.add("main", [of], [vote(of, "ann", 0), vote(of, "bob", 0)])
    with pytest.raises(UserError, match="dawid-skene: no pair was judged by 3 raters or more; label with more overlap"):
        build(workspace, "d", options=Options(aggregation="dawid-skene"))


@pytest.mark.parametrize(
    ("raters", "chosen", "probability", "completions"),
    [
        ("all", "good", (1 + 1 + 0.1) / 3, {"Yes.", "So.", "No."}),
        ("people", "good", 1.0, {"Yes.", "No."}),
        ("ai", "bad", 0.9, {"So."}),
    ],
)
def test_a_version_can_hold_peoples_word_alone_or_the_models(
    workspace: Workspace, raters: str, chosen: str, probability: float, completions: set[str]
) -> None:
    of = candidate("Which?", "good", "bad")
    judgements = [
        vote(of, "ann", 0, rewrite="Yes."),
        vote(of, "stand-in", 0, "script"),
        vote(of, "m", 1, "ai", probability=0.9),
    ]
    demonstrations = [
        Demonstration(prompt=user_message("What?"), completion="So.", provenance=f"{REVISION}:1"),
        Demonstration(prompt=user_message("What?"), completion="No.", provenance="import:x"),
    ]
    with Database(workspace.database) as database:
        database.add("main", [of], judgements, demonstrations)
    version, _ = build(workspace, "d", (), (1.0, 0.0, 0.0), Options(raters=raters))
    (pair,) = version.pairs("train")
    assert (pair["chosen"], pair["probability"]) == (chosen, pytest.approx(probability))
    assert set(version.demonstrations("train")["completion"]) == completions
    kinds = {kind for _, kind, _ in version.manifest["raters"]}
    assert kinds == {"all": {"human", "script", "ai"}, "people": {"human", "script"}, "ai": {"ai"}}[raters]


def test_all_bad_options_are_named_together() -> None:
    with pytest.raises(UserError) as error:
        Options(aggregation="best", conflicts="keep", near_duplicates=0.2, raters="ann")
    assert [line.split(":")[0] for line in error.value.lines] == [
        "--aggregate best",
        "--conflicts keep",
        "--near-duplicates 0.2",
        "--raters ann",
    ]


def test_a_name_that_is_no_folder_is_refused_before_any_work(workspace: Workspace) -> None:
    with pytest.raises(UserError, match="dataset name"):
        build(workspace, "../x", options=ALL)


def test_nothing_left_says_what_took_it(workspace: Workspace) -> None:
    with Database(prepared(workspace).database) as database:
        candidates, judgements, _ = full()
        database.add("main", candidates[-1:], judgements[-1:])
    with pytest.raises(
        UserError, match=r"nothing to build from \(1 judgements, 1 set aside: evaluation leak 1, in main"
    ):
        build(workspace, "d")


def test_the_command_prints_the_table(veritune: Callable[..., Any], workspace: Workspace) -> None:
    with Database(prepared(workspace).database) as database:
        database.add("main", *full())
    run = ("--workspace", str(workspace.root), "data", "build", "d")
    options = ("--aggregate", "dawid-skene", "--conflicts", "soft", "--near-duplicates", "0.8", "--balance-length")
    ended = veritune(*run, *options)
    assert ended.status == 0
    table = [line.split() for line in ended.out.splitlines()]
    assert ["rows", "in", "303", "3"] in table
    assert ["exact", "duplicate", "-1", "-1"] in table
    assert "CARD.md" in ended.err
    shown = veritune(*run, *options, "--json")
    assert shown["steps"][0] == ["rows in", 303, 3]
    assert shown["options"]["aggregation"] == "dawid-skene"
    refused = veritune(*run, "--aggregate", "best", "--near-duplicates", "3")
    assert refused.status == 2
    assert len(refused.lines) == 2


def test_real_annotators_weighed(workspace: Workspace, shared_data: Path) -> None:
    import_file(workspace, "pandalm", shared_data / "pandalm" / "human_pairs.jsonl")
    majority, _ = build(workspace, "majority")
    weighed, _ = build(workspace, "weighed", options=Options(aggregation="dawid-skene", near_duplicates=0.8))
    assert weighed.manifest["aggregation"]["converged"]
    assert (
        weighed.manifest["aggregation"]["pairs"] == weighed.manifest["steps"][0][1] == majority.manifest["steps"][0][1]
    )
    accuracies = [rater["accuracy"] for rater in weighed.manifest["aggregation"]["raters"]]
    assert accuracies == pytest.approx([0.953, 0.961, 0.970], abs=0.01)
    chosen = [
        {(row["prompt"][0]["content"], frozenset((row["chosen"], row["rejected"]))): row["chosen"] for row in rows}
        for rows in (majority.pairs("train"), weighed.pairs("train"))
    ]
    both = chosen[0].keys() & chosen[1].keys()
    assert len(both) > 350
    assert sum(chosen[0][pair] == chosen[1][pair] for pair in both) / len(both) > 0.97
