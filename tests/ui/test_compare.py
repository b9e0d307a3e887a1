"""The compare page's parts on a real run: whose answer stands where, what a vote leaves behind, who gets the model."""

import threading
from pathlib import Path

import pytest

from evaluation.generation import Sampling, sample_answers
from evaluation.statistics import wilson
from feedback import workspace as workspaces
from feedback.curation.build import build
from feedback.database import Database
from feedback.errors import UserError
from feedback.schema import Demonstration, grounded_prompt, user_message
from feedback.workspace import Workspace
from training import runs
from ui import votes
from ui.backbone import Backbone
from ui.look import notice
from ui.pages import compare
from ui.pages.compare import Current, converse
from ui.votes import Shown, Tally

GREEDY = Sampling(max_new_tokens=12)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Workspace:
    """Two finished runs, sft-1 and sft-2, whose adapters differ from the base and from each other."""
    from training.launch import train

    workspace = workspaces.create(tmp_path_factory.mktemp("compare"))
    rows = [Demonstration(prompt=user_message(f"{n}?"), completion=f"It is {n}.", provenance="test") for n in range(40)]
    with Database(workspace.database) as database:
        database.add("lessons", demonstrations=rows)
    build(workspace, "lessons")
    for rate in ("5e-2", "2e-2"):
        overrides = ["dataset=lessons", f"model={tiny_model}", "max_steps=2", "warmup=0", f"learning_rate={rate}"]
        train(workspace, "sft", overrides, lambda line: None)
    return workspace


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return Backbone()


def compared(base: str = "Four.", tuned: str = "4", order: tuple[int, int] = (0, 1), question: str = "2+2?") -> Shown:
    return votes.shown(user_message(question), None, ("models/base", "sft-1"), (base, tuned), order, {"seed": 0})


def ask(workspace: Workspace, backbone: Backbone, latest: Current, text: str, context: str = "") -> tuple[str, str]:
    return list(converse(workspace, backbone, latest, "sft-1", text, context, GREEDY))[-1]


def test_answers_stand_where_the_order_says_and_are_kept_base_first(
    trained: Workspace, backbone: Backbone, tiny_model: Path
) -> None:
    prompt = user_message("Who?")
    with backbone.hold(runs.find(trained, "sft-1")) as sides:
        alone = [sample_answers(side, [prompt], 1, GREEDY, 1)[0][0] for side in sides]
    assert alone[0] != alone[1]
    orders = set()
    for _ in range(30):
        latest = Current(blind=True)
        at_a, at_b = ask(trained, backbone, latest, " Who? ")
        assert latest.shown is not None
        assert [at_a, at_b] == [alone[side] for side in latest.shown.order]
        assert [(r.text, r.model) for r in latest.shown.candidate.responses] == [
            (alone[0], tiny_model.name),
            (alone[1], "sft-1"),
        ]
        assert latest.shown.candidate.prompt == prompt
        orders.add(latest.shown.order)
    assert orders == {(0, 1), (1, 0)}
    latest = Current(blind=False)
    assert ask(trained, backbone, latest, "Who?") == tuple(alone)


def test_a_context_is_read_by_the_models_and_kept_apart(trained: Workspace, backbone: Backbone) -> None:
    latest = Current(blind=False)
    said = ask(trained, backbone, latest, "Who?", " Ann did it. ")
    assert latest.shown is not None
    assert latest.shown.candidate.context == "Ann did it."
    assert latest.shown.candidate.prompt == user_message("Who?")
    with backbone.hold(runs.find(trained, "sft-1")) as sides:
        grounded = grounded_prompt(user_message("Who?"), "Ann did it.")
        assert said == tuple(sample_answers(side, [grounded], 1, GREEDY, 1)[0][0] for side in sides)


def test_stopped_answers_can_not_be_voted_on(trained: Workspace, backbone: Backbone) -> None:
    latest = Current(blind=True)
    for _ in converse(trained, backbone, latest, "sft-1", "Who?", "", GREEDY):
        latest.stop.set()
    assert latest.shown is None


@pytest.mark.parametrize(
    ("text", "words"),
    [("  \n", "question is empty"), ("x" * 400, "shorten it"), ("x" * 300_000, "200,000 characters")],
)
def test_questions_that_can_not_be_asked_are_told_in_words(
    trained: Workspace, backbone: Backbone, text: str, words: str
) -> None:
    with pytest.raises(UserError, match=words):
        ask(trained, backbone, Current(blind=True), text)
    assert ask(trained, backbone, Current(blind=True), "Who?"), "the model was not given back"


def test_one_tab_at_a_time_has_the_model_and_one_run_is_loaded(trained: Workspace, backbone: Backbone) -> None:
    questions = [("sft-1", "Who?"), ("sft-2", "Who?"), ("sft-1", "What?"), ("sft-2", "When?"), ("sft-1", "Why?")]

    def said(run: str, text: str, of: Backbone) -> tuple[str, str]:
        return list(converse(trained, of, Current(blind=False), run, text, "", GREEDY))[-1]

    expected = [said(*question, backbone) for question in questions]
    assert len(set(expected)) == len(expected)
    shared, found = Backbone(), [("", "")] * len(questions)

    def work(index: int) -> None:
        found[index] = said(*questions[index], shared)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(questions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected


def test_a_closed_tab_gives_the_model_back(trained: Workspace, backbone: Backbone) -> None:
    abandoned = converse(trained, backbone, Current(blind=True), "sft-1", "Who?", "", GREEDY)
    next(abandoned)
    abandoned.close()
    taken = threading.Event()

    def take() -> None:
        with backbone.hold(runs.find(trained, "sft-1")):
            taken.set()

    threading.Thread(target=take, daemon=True).start()
    assert taken.wait(30)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_vote_is_kept_for_the_model_whichever_side_it_stood_on(workspace: Workspace, order: tuple[int, int]) -> None:
    comparison = compared(order=order)
    votes.record(workspace, comparison, "B", " terse ", "")
    with Database(workspace.database) as database:
        (candidate,), (judgement,) = database.candidates(["compare"]), database.judgements(["compare"])
    assert candidate == comparison.candidate
    assert judgement.candidate_id == candidate.id
    assert judgement.preferred == order[1]
    assert (judgement.rater.kind, judgement.source) == ("human", "compare-app")
    assert (judgement.rationale, judgement.rewrite) == ("terse", None)


def test_the_rater_is_the_one_of_the_settings(workspace: Workspace) -> None:
    (workspace.root / workspaces.SETTINGS_FILE).write_text('rater = "ann"\n')
    votes.record(workspace, compared(), "tie", "", "")
    with Database(workspace.database) as database:
        assert [judgement.rater.name for judgement in database.judgements(["compare"])] == ["ann"]


def test_a_second_vote_takes_the_firsts_place_and_makes_no_second_pair(workspace: Workspace) -> None:
    votes.record(workspace, compared(), "A", "", "")
    # The same question again, the sides the other way round: the same answers, so the same candidate.
    votes.record(workspace, compared(order=(1, 0)), "A", "", "2 + 2 is 4.")
    votes.record(workspace, compared(order=(1, 0)), "A", "", "2 + 2 is 4.")
    with Database(workspace.database) as database:
        assert len(list(database.candidates(["compare"]))) == 1
        (judgement,) = database.judgements(["compare"])
    assert (judgement.preferred, judgement.rewrite) == (1, "2 + 2 is 4.")
    version, _ = build(workspace, "votes")
    assert (version.manifest["pairs"], version.manifest["demonstrations"]) == (1, 1)
    (pair,) = (row for split in ("train", "validation", "test") for row in version.pairs(split))
    assert (pair["chosen"], pair["rejected"]) == ("4", "Four.")


def test_the_tally_counts_standing_votes_on_these_two_models_only(workspace: Workspace) -> None:
    for number, choice in enumerate(["A", "A", "A", "B", "tie", "both bad"]):
        votes.record(workspace, compared(order=(1, 0), question=f"{number}?"), choice, "", "")  # type: ignore[arg-type]
    votes.record(workspace, compared(base="4", question="same?"), "A", "", "")
    stranger = votes.shown(user_message("0?"), None, ("models/base", "sft-2"), ("a", "b"), (0, 1), {})
    votes.record(workspace, stranger, "A", "", "")
    assert votes.tally(workspace, "models/base", "sft-1") == Tally(tuned=3, base=1, ties=2)
    votes.record(workspace, compared(question="0?"), "A", "", "")
    assert votes.tally(workspace, "models/base", "sft-1") == Tally(tuned=2, base=2, ties=2)


def test_a_tie_counts_half_and_never_narrows_the_interval() -> None:
    assert Tally(tuned=3, base=1, ties=2).rate == pytest.approx(4 / 6)
    assert Tally(tuned=3, base=1, ties=2).interval == wilson(4, 6)
    assert Tally(tuned=3, base=1, ties=1).rate == pytest.approx(3.5 / 5)
    assert Tally(tuned=3, base=1, ties=1).interval == (wilson(3, 5)[0], wilson(4, 5)[1])


def test_the_outcome_names_the_sides_as_text() -> None:
    comparison = votes.shown(user_message("?"), None, ("x/<b>base", "sft-1"), ("a", "b"), (1, 0), {})
    shown = compare.outcome(comparison, "A", Tally(tuned=3, base=1, ties=1))
    assert "A was the <strong>tuned sft-1</strong>, B the <strong>base &lt;b&gt;base</strong>" in shown
    assert "You preferred the tuned sft-1." in shown
    assert "wins 70% of 5 votes" in shown
    assert "1 tied or both bad, which count half" in shown
    alike = compare.outcome(compared(base="4"), "A", Tally(tuned=0, base=0, ties=0))
    assert "makes no pair" in alike
    assert "wins" not in alike


def test_notices_show_markup_and_template_fields_as_text() -> None:
    assert "<img" not in notice("<img src=x>")
    assert not {"{", "$"} & set(notice("{{x}} ${y}"))
    assert "<code>a &lt; b</code>" in notice("`a < b`")
