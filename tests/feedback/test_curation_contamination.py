"""Leaked evaluation questions: planted ones are found however they are written, and common words are no leak."""

import json
from pathlib import Path

import pytest

from feedback.curation.build import build
from feedback.curation.contamination import EvaluationFile, Leak, Questions, evaluation_files
from feedback.curation.words import words
from feedback.database import Database
from feedback.errors import UserError
from feedback.schema import Candidate, Demonstration, Judgement, Rater, Response, user_message
from feedback.workspace import SETTINGS_FILE, Workspace

LONG = "Which river flows through the old town of Brindle and turns the seven mills below its bridge?"


def questions(*texts: str) -> Questions:
    return Questions([EvaluationFile("q.jsonl", tuple(enumerate(texts, 1)))])


def name_files(workspace: Workspace, **lists: list[str]) -> None:
    lines = [f"{key} = {json.dumps(names)}" for key, names in lists.items()]
    (workspace.root / SETTINGS_FILE).write_text("\n".join(["[evaluation]", *lines]))


@pytest.mark.parametrize(
    "text",
    [
        LONG,
        f"Please answer. {LONG.upper()} In one word.",
        LONG.replace(" ", "\n ").replace("?", "..."),
        "They say the river FLOWS through the old town of Brindle, and turns the seven mills below; is it so?",
    ],
)
def test_a_long_question_is_found_in_any_writing_and_in_part(text: str) -> None:
    assert questions("Why is that so, in the view of most of those who live there?", LONG).find(text) is not None


def test_fewer_words_in_a_row_than_the_rule_says_are_no_leak() -> None:
    # All questions are long, so that thirteen words in a row are needed; these share twelve.
    asked = questions(LONG)
    assert asked.checked[0].words == 13
    shared = words(LONG)[:13]
    assert asked.find(" ".join(shared)) == Leak("q.jsonl", 1, " ".join(shared))
    assert asked.find(" ".join([*shared[:12], "else", *shared[13:]])) is None


def test_the_number_of_words_follows_the_short_questions_of_a_file() -> None:
    assert questions("Who was it?", *[LONG] * 3).checked[0].words == 8
    ten = "one two three four five six seven eight nine {}"
    assert questions(*(ten.format(number) for number in range(100))).checked[0].words == 10


def test_a_short_question_must_stand_as_a_whole() -> None:
    asked = questions("Who wrote the book of the seven mills?", "What do you do?")
    assert asked.find("tell me: who wrote the book of the seven mills, and when") is not None
    assert asked.find("who wrote the book of the seven bridges") is None
    for leak in ("What do you do?", "what do you do", "Hello. What do you do? Say it.", "Q: What do you do?\nA:"):
        assert asked.find(leak) is not None, leak
    assert asked.find("What do you do all day when it rains?") is None


def test_words_that_many_questions_share_are_boilerplate() -> None:
    frame = "Read the text and give the answer to the question in one word only, please: where is {}?"
    asked = questions(*(frame.format(f"the mill number {number} of the river Garth") for number in range(12)))
    assert asked.checked[0].boilerplate > 0
    assert asked.find(frame.format("my hat")) is None
    assert asked.find("So, in one word only please: where is the mill number 7 of the river Garth?") is not None
    assert questions(*[frame.format("the mill")] * 12).find(frame.format("the mill")) is not None


def test_leaks_in_prompts_answers_and_demonstrations_are_dropped_and_counted(workspace: Workspace) -> None:
    (workspace.root / "held_out.jsonl").write_text(json.dumps({"question": LONG, "answers": ["the Garth"]}) + "\n")
    (workspace.root / "bench.csv").write_text(
        'id,Question\n1,"How many mills, all in all, stood by the river Garth?"\n'
    )
    name_files(workspace, questions=["held_out.jsonl"], decontaminate=["bench.csv"])
    prompts = [f"A question: {LONG}", "How many mills all in all stood by the river Garth", "Clean?", "Clean too?"]
    candidates = [
        Candidate(prompt=user_message(p), responses=(Response(text="x"), Response(text="y"))) for p in prompts
    ]
    candidates.append(Candidate(prompt=user_message("Go."), responses=(Response(text=LONG), Response(text="z"))))
    judgements = [
        Judgement(candidate_id=c.id, rater=Rater(kind="human", name="ann"), source="test", preferred=0)
        for c in candidates
    ]
    leaked = Demonstration(prompt=user_message("Well?"), completion=f"They ask {LONG}", provenance="test")
    with Database(workspace.database) as database:
        database.add("main", candidates, judgements, [leaked])
    version, _ = build(workspace, "d")
    assert (version.summary["pairs"], version.summary["demonstrations"]) == (2, 0)
    assert version.summary["dropped"] == {"evaluation leak": 4}
    assert ("evaluation leak", -3, -1) in version.manifest["steps"]
    files = {file["file"]: (file["leaked"], file["rows"]) for file in version.manifest["leaks"]["files"]}
    assert files == {"held_out.jsonl": (1, 3), "bench.csv": (1, 1)}
    aside = [json.loads(line) for line in (version.folder / "set_aside.jsonl").read_text().splitlines()]
    assert {row["because"].split(":")[0] for row in aside} == {"held_out.jsonl, line 1", "bench.csv, line 2"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It's a_b, 3.5% (No!)", ["it", "s", "a_b", "3", "5", "no"]),
        ("Ça va, STRASSE straße?", ["ça", "va", "strasse", "strasse"]),
        ("東京はどこ? Tokyo", ["東", "京", "は", "ど", "こ", "tokyo"]),
        ("", []),
    ],
)
def test_words_whatever_the_script(text: str, expected: list[str]) -> None:
    assert words(text) == expected
    # English goes another way to the same end.
    assert words(f"{text} é") == [*expected, "é"]


def test_all_mistakes_of_the_files_are_named_together(workspace: Workspace) -> None:
    (workspace.root / "bad.jsonl").write_text('{"question": "Why?"}\n{not json\n')
    (workspace.root / "mute.csv").write_text("id,note\n1,hello\n")
    name_files(workspace, questions=["bad.jsonl", "absent.jsonl"], decontaminate=["mute.csv"])
    with pytest.raises(UserError) as error:
        evaluation_files(workspace)
    assert len(error.value.lines) == 3
    assert "bad.jsonl: named in veritune.toml under [evaluation], and can't be read" in error.value.lines[0]
    assert "absent.jsonl" in error.value.lines[1]
    assert "mute.csv, line 2: asks nothing; one of its fields must be question" in error.value.lines[2]


@pytest.mark.parametrize(
    "row",
    [
        {"question": LONG},
        {"turns": ["First, then.", LONG]},
        {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": LONG}]},
        {"prompt": [{"role": "user", "content": LONG}], "input": "not this"},
    ],
)
def test_questions_are_found_in_the_fields_of_many_formats(workspace: Workspace, row: dict) -> None:
    (workspace.root / "some.jsonl").write_text(json.dumps(row))
    name_files(workspace, decontaminate=["some.jsonl"])
    (file,) = evaluation_files(workspace)
    assert (1, LONG) in file.questions
    assert all(text != "Be brief." for _, text in file.questions)


def test_real_leaks_are_all_found_and_real_text_is_next_to_free_of_false_ones(
    workspace: Workspace, shared_data: Path
) -> None:
    def asked_in(*names: str) -> Questions:
        name_files(workspace, decontaminate=[str(shared_data / name) for name in names])
        return Questions(evaluation_files(workspace))

    # LLMBar's subset Processed_MT-Bench was made of MT-Bench's questions; a few of other subsets hold one too.
    bench = asked_in("mt-bench/questions.jsonl")
    name_files(workspace, decontaminate=[str(shared_data / "mt-bench" / "questions.jsonl")])
    whole = [" ".join(words(text)) for file in evaluation_files(workspace) for _, text in file.questions]
    rows = [json.loads(line) for line in (shared_data / "llmbar" / "pairs.jsonl").read_text().splitlines()]
    found = missed = false = 0
    for row in rows:
        texts = [row["input"], row["output_1"], row["output_2"]]
        written = [" ".join(words(text)) for text in texts]
        planted = any(question in text for question in whole for text in written)
        flagged = any(bench.find(text) for text in texts)
        found, missed, false = found + (planted and flagged), missed + (planted > flagged), false + (flagged > planted)
    assert (found, missed) == (120, 0)
    # One of 524: "Write a program to find the nth Fibonacci number using ...", which is near enough to ask about.
    assert false == 1

    held_out = asked_in(
        "truthfulqa/TruthfulQA.csv", "nq-open/dev.jsonl", "gsm8k/test.jsonl", "mt-bench/questions.jsonl"
    )
    lines = (shared_data / "hh-rlhf" / "harmless.jsonl").read_text().splitlines()
    dialogues = [json.loads(line)[key] for line in lines for key in ("chosen", "rejected")]
    assert len(dialogues) == 2_600
    assert sum(held_out.find(text) is not None for text in dialogues) == 0
