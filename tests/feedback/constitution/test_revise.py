"""Critique and revision: the conversation, the steps, what is kept, and where an interrupted job goes on."""

import json
from pathlib import Path
from typing import Any

import pytest

from feedback.constitution.principles import SHIPPED, load
from feedback.constitution.revise import ONLY, Revised, revise
from feedback.constitution.steps import steps_path
from feedback.database import Database
from feedback.errors import UserError
from feedback.schema import Candidate, Message, Response, user_message
from feedback.workspace import Workspace
from tests.feedback.constitution.faulty import FaultyServer, Reaction, completion, refusal, serving
from tests.feedback.constitution.judges import endpoint

PRINCIPLES = load(SHIPPED).principles


def answer_to(question: str, text: str = "first", context: str | None = None) -> Candidate:
    return Candidate(prompt=user_message(question), context=context, responses=(Response(text=text, model="m0"),))


def is_critique(body: dict[str, Any]) -> bool:
    return body["messages"][-1]["content"] in {principle.critique for principle in PRINCIPLES}


def editor(body: dict[str, Any], before: int) -> Reaction:
    """Criticises what it is shown, and adds a word to it when it revises."""
    messages = body["messages"]
    if is_critique(body):
        return Reaction(body=completion(f"critique of {messages[-2]['content']}"))
    return Reaction(body=completion(f"Revision: {messages[-4]['content']}+"))


def run(workspace: Workspace, server: FaultyServer, rounds: int = 1, seed: int = 0, pairs: bool = False) -> Revised:
    model = endpoint(server, workspace.root)
    return revise(workspace, model, "c", rounds, 64, seed, pairs, lambda line: None)


def steps_of(workspace: Workspace) -> list[dict[str, Any]]:
    return [json.loads(line) for line in steps_path(workspace, "c").read_text().splitlines()]


def test_each_round_criticises_and_revises_what_the_last_one_made(workspace: Workspace) -> None:
    with serving(editor) as server, Database(workspace.database) as database:
        database.add("c", [answer_to("q")])
        result = run(workspace, server, rounds=3)
        (demonstration,) = database.demonstrations(["c"])
    assert (result.new, result.demonstrations, result.pairs, result.unchanged) == (1, 1, 0, 0)
    (kept,) = steps_of(workspace)
    assert [(step["critique"], step["revision"]) for step in kept["steps"]] == [
        ("critique of first", "first+"),
        ("critique of first+", "first++"),
        ("critique of first++", "first+++"),
    ]
    assert (kept["response"], kept["model"]) == ("first", "planted")
    assert demonstration.completion == "first+++"
    assert demonstration.prompt == user_message("q")
    assert demonstration.provenance.startswith("revision:")
    assert sum(server.asked.values()) == 6


def test_the_model_sees_its_answer_the_critique_and_what_to_do(workspace: Workspace) -> None:
    system = Message(role="system", content="Be brief.")
    prompt = (system, *user_message("q"))
    asked = Candidate(prompt=prompt, context="The text.", responses=(Response(text="first"),))
    with serving(editor) as server, Database(workspace.database) as database:
        database.add("c", [asked])
        # Until the one with an example is drawn.
        next(seed for seed in range(100) if run(workspace, server, seed=seed) and drawn(workspace) == "abstains")
    (demonstration, *_) = demonstrations(workspace)
    principle = next(p for p in PRINCIPLES if p.id == "abstains")
    (example,) = principle.revision_examples
    assert [(m["role"], m["content"]) for m in server.bodies[-1]["messages"]] == [
        ("system", "Be brief."),
        ("user", example.prompt),
        ("assistant", example.response),
        ("user", principle.critique),
        ("assistant", example.critique),
        ("user", f"{principle.revision} {ONLY}"),
        ("assistant", example.revision),
        ("user", "The text.\n\nq"),
        ("assistant", "first"),
        ("user", principle.critique),
        ("assistant", "critique of first"),
        ("user", f"{principle.revision} {ONLY}"),
    ]
    assert demonstration.prompt[-1].content == "The text.\n\nq"


def drawn(workspace: Workspace) -> str:
    return str(steps_of(workspace)[-1]["steps"][0]["principle"])


def test_each_round_draws_among_the_principles_that_apply(workspace: Workspace) -> None:
    with serving(editor) as server, Database(workspace.database) as database:
        database.add("c", [answer_to(f"q{i}") for i in range(60)])
        run(workspace, server, rounds=2)
    kept = [[step["principle"] for step in revision["steps"]] for revision in steps_of(workspace)]
    assert {p for pair in kept for p in pair} == {p.id for p in PRINCIPLES if not p.needs_context}
    assert any(first != second for first, second in kept)


def test_pairs_say_that_nobody_compared_them(workspace: Workspace) -> None:
    with serving(editor) as server, Database(workspace.database) as database:
        database.add("c", [answer_to(f"q{i}") for i in range(8)])
        assert run(workspace, server).pairs == 0
        # Asked for later, they are made of what was kept.
        asked = sum(server.asked.values())
        assert run(workspace, server, pairs=True).pairs == 8
        again = run(workspace, server, pairs=True)
        assert (again.new, again.standing, again.pairs, sum(server.asked.values())) == (0, 8, 0, asked)
        found = [(c, j) for _, c, j in database.judged(["c"])]
    assert len(found) == 8
    for candidate, judgement in found:
        texts = [response.text for response in candidate.responses]
        assert isinstance(judgement.preferred, int)
        assert texts[judgement.preferred] == "first+"
        assert (judgement.source, judgement.rater.kind) == ("revision", "ai")
        assert judgement.rater.name == "planted revising"
        assert "nobody has compared" in str(judgement.rationale)
        assert judgement.evidence["revision"] in {d.provenance.split(":")[1] for d in demonstrations(workspace)}


def demonstrations(workspace: Workspace) -> list[Any]:
    with Database(workspace.database) as database:
        return list(database.demonstrations(["c"]))


def test_an_answer_that_stays_as_it_was_is_no_pair(workspace: Workspace) -> None:
    def content(body: dict[str, Any], before: int) -> Reaction:
        return Reaction(body=completion("Fine as it is." if is_critique(body) else "first"))

    with serving(content) as server, Database(workspace.database) as database:
        database.add("c", [answer_to("q")])
        result = run(workspace, server, pairs=True)
    assert (result.new, result.unchanged, result.demonstrations, result.pairs) == (1, 1, 1, 0)


def test_what_fails_is_left_out_and_tried_again(workspace: Workspace) -> None:
    broken = True

    def react(body: dict[str, Any], before: int) -> Reaction:
        question = body["messages"][-2]["content"] if is_critique(body) else body["messages"][-4]["content"]
        if question == "long" and broken:
            return refusal(400, "too long")
        return Reaction(body=completion("")) if question == "mute" else editor(body, before)

    with serving(react) as server, Database(workspace.database) as database:
        database.add("c", [answer_to("q", text) for text in ("first", "long", "mute")])
        result = run(workspace, server, rounds=2)
        assert (result.new, result.unanswered, result.empty) == (1, 1, 1)
        assert ["too long" in reason for reason in result.reasons] == [True]
        broken = False
        result = run(workspace, server, rounds=2)
        assert (result.new, result.standing, result.unanswered, result.empty) == (1, 1, 0, 1)
    assert {d.completion for d in demonstrations(workspace)} == {"first++", "long++"}


def test_a_killed_job_goes_on_and_ends_as_if_it_had_not_been(workspace: Workspace) -> None:
    candidates = [answer_to(f"q{i}", f"answer {i}") for i in range(5)]
    with serving(editor) as server, Database(workspace.database) as database:
        database.add("c", candidates)
        run(workspace, server)
        path = steps_path(workspace, "c")
        whole, asked = path.read_bytes(), sum(server.asked.values())
        # As if it had been killed while it wrote its third line, and with it the database.
        lines = whole.splitlines(keepends=True)
        path.write_bytes(b"".join(lines[:2]) + lines[2][:40])
        result = run(workspace, server)
        assert (result.new, result.standing, result.demonstrations) == (3, 2, 0)
        assert path.read_bytes() == whole
        assert sum(server.asked.values()) == asked
    # The file has all of it: the demonstrations of a database that lost them come back without a question.
    workspace.database.unlink()
    with serving(lambda body, before: refusal(400, "nothing is to be asked")) as server:
        with Database(workspace.database) as database:
            database.add("c", candidates)
        assert run(workspace, server).demonstrations == 5
        assert not server.asked


def test_a_foreign_line_is_said(workspace: Workspace) -> None:
    path = steps_path(workspace, "c")
    path.parent.mkdir()
    path.write_text('{"steps": 1}\n')
    with serving(editor) as server, Database(workspace.database) as database:
        database.add("c", [answer_to("q")])
        with pytest.raises(UserError, match=r"c\.jsonl, line 1: no revision"):
            run(workspace, server)


def test_answers_that_no_principle_speaks_of_are_left_out(workspace: Workspace, tmp_path: Path) -> None:
    only = SHIPPED.read_text().partition("  - id: grounded")
    grounded = only[1] + only[2].partition("  - id: abstains")[0]
    (workspace.root / "own.yaml").write_text(f"version: 1\nprinciples:\n{grounded}")
    settings = workspace.root / "veritune.toml"
    settings.write_text(settings.read_text().replace("[constitution]", '[constitution]\nprinciples = "own.yaml"'))
    with serving(editor) as server, Database(workspace.database) as database:
        database.add("c", [answer_to("q"), answer_to("q", context="The text.")])
        result = run(workspace, server)
    assert (result.new, result.outside) == (1, 1)


def test_a_real_model_revises(workspace: Workspace, tiny_model: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from evaluation.local import load as load_model

    wide = workspace.root / "wide"
    AutoModelForCausalLM.from_pretrained(tiny_model, max_position_embeddings=2048).save_pretrained(wide)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(wide)
    with Database(workspace.database) as database:
        database.add("c", [answer_to(f"q{i}") for i in range(3)])
        result = revise(workspace, load_model(workspace, str(wide)), "c", 1, 8, 0, False, lambda line: None)
    assert result.new + result.empty == 3
    assert result.demonstrations == result.new == len(steps_of(workspace))
