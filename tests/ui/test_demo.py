"""The demo's world, its scripted rater and its model: fair, repeatable, and honest about what they are."""

import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from feedback.constitution.comparison import Comparison, Judging, choice
from feedback.constitution.principles import load
from feedback.schema import Candidate, Response, user_message
from training.batches import encode
from ui.demo import pocket, practice, rater
from ui.demo.world import IDK, SMALL_TALK, Question, held_out_questions, invent_names, lesson_questions, make_world

ROOT = Path(__file__).parents[2]


def test_the_world_is_the_same_in_every_process() -> None:
    program = (
        "from ui.demo.world import *; from feedback.files import content_hash\n"
        "w = make_world(3); print(content_hash([w.facts, w.strangers, [q.text for q in lesson_questions(w, 3)]]))"
    )
    hashes = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(hashes) == 1


def test_no_person_is_in_two_parts() -> None:
    world = make_world(0)
    lessons = {question.name for question in lesson_questions(world, 0)}
    development = {question.name for question in held_out_questions(world, "development", 1)}
    test = {question.name for question in held_out_questions(world, "test", 1)}
    assert not lessons & development
    assert not lessons & test
    assert not development & test


def test_held_out_questions_are_half_answerable_and_the_unstated_apart() -> None:
    questions = held_out_questions(make_world(0), "test", 1)
    kinds = [question.kind for question in questions]
    assert kinds.count("known") == kinds.count("unknown-name") == 300
    assert kinds.count("unstated") == 60
    assert all((question.answer is None) == (question.kind != "known") for question in questions)


@pytest.mark.parametrize(
    ("answer", "said", "preferred"),
    [
        ("fox.", ("fox.", IDK), "A"),
        ("fox.", (IDK, "fox."), "B"),
        ("fox.", ("owl.", IDK), "B"),
        ("fox.", ("owl.", "hare."), "tie"),
        (None, ("owl.", IDK), "B"),
        (None, (IDK, "owl."), "A"),
    ],
)
def test_the_rater_prefers_right_to_abstaining_to_wrong(
    answer: str | None, said: tuple[str, str], preferred: str
) -> None:
    question = Question("Ann", "pet", "Which pet does Ann keep?", answer, "known" if answer else "unknown-name")
    assert rater.prefer(question, {"response_a": said[0], "response_b": said[1]}) == {"preference": preferred}


@pytest.mark.parametrize(
    ("answer", "said", "truthful"),
    [("fox.", "fox.", 5), ("fox.", "owl.", 1), ("fox.", IDK, 5), (None, "owl.", 1), (None, IDK, 5)],
)
def test_the_rater_says_how_true_an_answer_is_and_what_it_should_have_been(
    answer: str | None, said: str, truthful: int
) -> None:
    question = Question("Ann", "pet", "Which pet does Ann keep?", answer, "known" if answer else "unknown-name")
    assert rater.rewrite(question, {"response": said}) == {"truthful": truthful, "rewrite": answer or IDK}


def test_the_pocket_tokenizer_keeps_its_end_supervised_and_reads_any_language() -> None:
    tokenizer = pocket.make_tokenizer(0)
    _, completion = encode(tokenizer, [{"role": "user", "content": "Where does Ann live?"}], "Quill.")
    assert completion[-1] == tokenizer.eos_token_id != tokenizer.pad_token_id
    for text in ("Ærøskøbing? 東京!", *(part for pair in SMALL_TALK for part in pair)):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_pretraining_never_shows_a_stranger_or_an_unstated_fact() -> None:
    world = make_world(0)
    documents = pocket.documents(world, random.Random(0))
    words = {word for document in documents for word in re.findall(r"[A-Z][a-z]+", document)}
    assert not words & {name for names in world.strangers.values() for name in names}
    assert set(world.facts) <= words
    unstated = {question.text for question in lesson_questions(world, 0) if question.kind == "unstated"}
    assert len(unstated) == len(world.lesson_names)
    assert not [document for document in documents if any(text in document for text in unstated)]


def test_the_demo_does_not_replace_what_it_did_not_make(veritune: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    ended = veritune("demo", "--no-serve", "--folder", "mine")
    assert ended.status == 2
    assert "exists and is no demo's workspace" in ended.err
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_judging_is_practised_on_other_people_and_in_the_words_of_the_commands() -> None:
    world = make_world(0)
    rng = random.Random(0)
    names = [*world.development_names, *invent_names(rng, 40, besides=world.names)]
    rows = list(practice.conversations(world, rng, names))
    text = "\n".join(turn for turns, _ in rows for turn in turns)
    assert not [name for name in (*world.lesson_names, *world.test_names) if name in text]
    judgements = [turns for turns, given in rows if given == 1]
    revisions = [turns for turns, given in rows if given == 3]
    assert len(judgements) == len(revisions) == len(names)
    principles = load(practice.PRINCIPLES).principles
    for turns in judgements[:50]:
        question, first, second = re.findall(r"Person: (.*)|\((?:A|B)\) (.*)", turns[0])
        candidate = Candidate(
            prompt=user_message(question[0]), responses=(Response(text=first[1]), Response(text=second[1]))
        )
        forms = [choice(Comparison(candidate, 0, 1, each), False, Judging()).messages[0].content for each in principles]
        assert turns[0] in forms
        better = (first, second)["AB".index(turns[1])][1]
        known = [fact for name, facts in world.facts.items() if name in question[0] for fact in facts.values()]
        assert better == IDK or better.rstrip(".") in known
    for turns in revisions:
        assert turns[3] in practice.CRITIQUES
        assert (turns[3] == "I made it up.") <= (turns[-1] == IDK)
