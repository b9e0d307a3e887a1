"""`feedback generate`: answers of a model become candidates, and a repeated command goes on where it was."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from feedback.database import Database
from feedback.schema import Candidate, Response, user_message
from feedback.workspace import SETTINGS_FILE, Workspace
from tests.feedback.constitution.faulty import Reaction, completion, refusal, serving

ROOT = Path(__file__).parents[2]
Run = Callable[..., Any]


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    rows = [
        {"prompt": "Who?"},
        {"prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "When?"}]},
        {"messages": [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "Here."}]},
        {"prompt": "Why?", "context": "Because."},
        {"prompt": "Who?"},
    ]
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def candidates(workspace: Workspace, collection: str = "main") -> list[Candidate]:
    with Database(workspace.database) as database:
        return list(database.candidates([collection]))


def by_seed(*texts: str) -> Callable[[dict[str, Any], int], Reaction]:
    return lambda body, before: Reaction(body=completion(texts[body["seed"] % len(texts)]))


@pytest.fixture
def generate(workspace: Workspace, veritune: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr("feedback.constitution.transport.FIRST_WAIT", 0.01)

    def run(url: str, *arguments: object) -> Any:
        monkeypatch.setenv("VERITUNE_ENDPOINT_URL", url)
        return veritune("--workspace", workspace.root, "feedback", "generate", "endpoint:m", *map(str, arguments))

    return run


def test_each_prompt_gets_its_different_answers_with_the_models_name(
    workspace: Workspace, generate: Run, prompts: Path
) -> None:
    with serving(by_seed("one", "two", "one", " ")) as server:
        made = generate(server.url, prompts, "--k", 4, "--temperature", 0.7, "--json")
        assert made == {
            "prompts": 4,
            "candidates": 4,
            "known": 0,
            "repeated": 8,
            "alike": 0,
            "unanswered": 0,
            "reasons": [],
        }
        assert {body["temperature"] for body in server.bodies} == {0.7}
        found = {candidate.prompt[-1].content: candidate for candidate in candidates(workspace)}
        assert set(found) == {"Who?", "When?", "Where?", "Why?"}
        assert all(
            candidate.responses == (Response(text="one", model="m"), Response(text="two", model="m"))
            for candidate in found.values()
        )
        assert (found["Why?"].context, found["When?"].prompt[0].role) == ("Because.", "system")
        assert server.asked["Because.\n\nWhy?"] == 4
        ended = generate(server.url, prompts, "--k", 4, "--temperature", 0.7)
        assert "4 prompts into 'main': 0 candidates (4 known already)" in ended.err
        assert "8 answers dropped that repeated another one or were empty" in ended.err
        assert server.asked.total() == 16


def test_prompts_of_a_collection_and_answers_that_are_all_the_same(workspace: Workspace, generate: Run) -> None:
    with Database(workspace.database) as database:
        answers = (Response(text="yes"), Response(text="no"))
        other = (Response(text="yes"), Response(text="maybe"))
        known = [Candidate(prompt=user_message("Who?"), context=c, responses=r) for c in "ab" for r in (answers, other)]
        database.add("old", known)
    with serving(by_seed("same")) as server:
        ended = generate(server.url, "collection:old", "--into", "new")
        assert "2 prompts left out, all answers to each being the same" in ended.err
        assert candidates(workspace, "new") == []
        assert generate(server.url, "collection:old", "--into", "new", "--k", 1, "--json")["candidates"] == 2
        assert {c.context for c in candidates(workspace, "new")} == {"a", "b"}


def test_a_prompt_without_an_answer_is_told_and_asked_again(workspace: Workspace, generate: Run, prompts: Path) -> None:
    with serving(lambda body, before: refusal(400, "no such talk") if "When" in str(body) else None) as server:
        ended = generate(server.url, prompts, "--k", 1)
        assert ended.status == 0
        assert "1 prompts without an answer; the same command asks them again" in ended.err
        assert "400 no such talk" in ended.err
        server.react = by_seed("now")
        assert generate(server.url, prompts, "--k", 1, "--json") | {"reasons": []} == {
            "prompts": 4,
            "candidates": 1,
            "known": 3,
            "repeated": 0,
            "alike": 0,
            "unanswered": 0,
            "reasons": [],
        }


def test_mistakes_are_lines_that_name_the_place(
    workspace: Workspace, generate: Run, veritune: Run, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.jsonl"
    rows = ['{"prompt": 3}', "{", '{"messages": [{"role": "assistant", "content": "a"}]}', '{"question": "Who?"}']
    bad.write_text("\n".join([*rows, '{"prompt": " "}', *["no"] * 30]) + "\n")
    ended = generate("http://127.0.0.1:9/v1", bad)
    assert ended.status == 2
    assert [line.partition("bad.jsonl, ")[2][:7] for line in ended.lines[:5]] == [f"line {n}:" for n in range(1, 6)]
    assert "prompt is 3, not text" in ended.lines[0]
    assert "prompt is missing" in ended.lines[3]
    assert "15 more rows like these" in ended.lines[-1]
    bad.write_text('{"prompt": "Who?"}\n')
    for arguments, expected in (
        ((bad, "--temperature", 0), "--temperature 0: the 4 answers to a prompt would be the same one"),
        (("collection:none",), "collection 'none': not here"),
        (("nothing.jsonl",), "nothing.jsonl: no such file"),
    ):
        ended = generate("http://127.0.0.1:9/v1", *arguments)
        assert (ended.status, len(ended.lines)) == (2, 1)
        assert expected in ended.err
    ended = veritune("--workspace", workspace.root, "feedback", "generate", "sft-9", bad)
    assert (ended.status, len(ended.lines)) == (2, 1)
    assert "sft-9" in ended.err


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_an_ended_command_goes_on_and_asks_nothing_twice(
    workspace: Workspace, generate: Run, tmp_path: Path, ending: signal.Signals
) -> None:
    path = tmp_path / "many.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"question {n}"}) + "\n" for n in range(150)))
    enough = threading.Event()

    def react(body: dict[str, Any], before: int) -> Reaction:
        if server.asked.total() >= 120:
            enough.set()
        return Reaction(body=completion(f"answer {body['seed']}"), delay=0.02)

    with serving(react) as server:
        (workspace.root / SETTINGS_FILE).write_text(f'[endpoint]\nurl = "{server.url}"\nconcurrency = 8\n')
        command = [sys.executable, "-m", "ui", "--workspace", str(workspace.root), "feedback", "generate", "endpoint:m"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("VERITUNE_ENDPOINT")}
        job = subprocess.Popen(
            [*command, str(path), "--k", "2"], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
        )
        assert enough.wait(120)
        job.send_signal(ending)
        said = job.communicate()[1]
        if ending == signal.SIGINT:
            assert (job.returncode, "Traceback" in said, "Warning" in said) == (130, False, False)
        assert 120 <= server.asked.total() < 300
        assert generate(server.url, path, "--k", 2, "--json")["prompts"] == 150
        assert all(len(candidate.responses) == 2 for candidate in candidates(workspace))
        assert len(candidates(workspace)) == 150
        # Only what was in flight when the command ended had to be asked again.
        assert 300 <= server.asked.total() <= 308


def test_a_model_on_this_machine(workspace: Workspace, veritune: Run, tiny_model: Path, prompts: Path) -> None:
    arguments = ("feedback", "generate", tiny_model, prompts, "--k", 3, "--max-new-tokens", 6, "--json")
    made = veritune("--workspace", workspace.root, *map(str, arguments))
    assert (made["candidates"], made["unanswered"]) == (4, 0)
    found = candidates(workspace)
    assert {response.model for candidate in found for response in candidate.responses} == {"tiny"}
    assert all(len(candidate.responses) == 3 for candidate in found)
    again = veritune("--workspace", workspace.root, *map(str, arguments))
    assert (again["candidates"], again["known"]) == (0, 4)
