"""`feedback judge`, `revise` and `principles` on the command line, against an endpoint on loopback."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from feedback.constitution.endpoint import KEY_VARIABLE, URL_VARIABLE
from feedback.constitution.principles import SHIPPED, load
from feedback.database import Database
from feedback.workspace import Workspace
from tests.feedback.constitution.faulty import FaultyServer, Reaction, serving
from tests.feedback.constitution.judges import candidate, planted

ROOT = Path(__file__).parents[2]
Veritune = Callable[..., Any]
JUDGE = ("feedback", "judge", "--model", "endpoint:planted")


@pytest.fixture
def endpoint(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    with serving(planted(bias=1.0)) as server:
        monkeypatch.setenv(URL_VARIABLE, server.url)
        monkeypatch.delenv(KEY_VARIABLE, raising=False)
        monkeypatch.chdir(workspace.root)
        yield server


def fill(workspace: Workspace, count: int = 4) -> None:
    with Database(workspace.database) as database:
        database.add("main", [candidate(f"q{i}", 0, i % 5 + 0.5) for i in range(count)])


def gold(folder: Path) -> str:
    rows = [(3, 1, 1), (1, 3, 2), (1.25, 1, 1), (5, 1, 2)]
    path = folder / "gold.jsonl"
    path.write_text(
        "".join(
            json.dumps({"input": f"q{i}", "output_1": f"worth {a}", "output_2": f"worth {b}", "label": label}) + "\n"
            for i, (a, b, label) in enumerate(rows)
        )
    )
    return f"llmbar:{path}"


def test_judge_says_what_it_did_with_n_and_interval(
    veritune: Veritune, workspace: Workspace, endpoint: FaultyServer
) -> None:
    fill(workspace)
    ended = veritune(*JUDGE, "main")
    assert ended.status == 0
    assert "'main': 4 new judgements, 0 of them ties" in ended.lines
    assert "flip rate 25.0% (4.6% to 69.9%, n = 4): how often the place decided, not the answer" in ended.lines
    ended = veritune(*JUDGE, "main")
    assert "'main': 0 new judgements, 0 of them ties (4 stood already)" in ended.lines
    assert len(endpoint.bodies) == 8


def test_judge_in_json(veritune: Veritune, workspace: Workspace, endpoint: FaultyServer) -> None:
    fill(workspace)
    said = veritune(*JUDGE, "main", "--ensemble", "--json")
    assert (said["new"], said["tally"]["compared"], said["flip_rate"]["n"]) == (4, 36, 36)


def test_evaluate_prints_all_figures(veritune: Veritune, workspace: Workspace, endpoint: FaultyServer) -> None:
    ended = veritune(*JUDGE, "--evaluate", gold(workspace.root))
    assert ended.status == 0
    rows = [line.split(" all ") for line in ended.out.splitlines() if " all " in line]
    assert {name.strip(): (cells.split()[0], cells.split()[-1]) for name, cells in rows} == {
        "accuracy": ("75.0%", "4"),
        "accuracy as given": ("75.0%", "4"),
        "accuracy, sides swapped": ("50.0%", "4"),
        "flip rate": ("25.0%", "4"),
        "longer is better": ("100.0%", "1"),
    }
    assert "undecided on 0 pairs; no usable answer on 0" in ended.lines
    assert "left out, since people did not decide: 0 ties, 0 without a majority" in ended.lines
    with Database(workspace.database) as database:
        assert not database.collections()


def test_evaluate_in_json(veritune: Veritune, workspace: Workspace, endpoint: FaultyServer) -> None:
    said = veritune(*JUDGE, "--evaluate", gold(workspace.root), "--limit", "3", "--json")
    assert said["qualities"][0]["accuracy"]["n"] == 3
    assert said["model"] == "planted"
    assert said["judging"]["reasoning"] is False


def test_revise_keeps_steps_and_demonstrations(
    veritune: Veritune, workspace: Workspace, endpoint: FaultyServer
) -> None:
    fill(workspace, 2)
    ended = veritune("feedback", "revise", "main", "--model", "endpoint:planted", "--rounds", "2", "--pairs")
    assert ended.status == 0
    path = workspace.root / "revisions" / "main.jsonl"
    assert f"2 new demonstrations, 2 new pairs; every step is in {path}" in ended.lines
    assert len(path.read_text().splitlines()) == 2
    said = veritune("feedback", "revise", "main", "--model", "endpoint:planted", "--rounds", "2", "--json")
    assert (said["new"], said["standing"], said["steps"]) == (0, 2, str(path))


def test_principles_prints_a_file_that_can_be_used(veritune: Veritune, workspace: Workspace) -> None:
    ended = veritune("--workspace", workspace.root, "feedback", "principles")
    assert ended.out == SHIPPED.read_text()
    said = veritune("--workspace", workspace.root, "feedback", "principles", "--json")
    assert (said["name"], said["file"]) == (load(SHIPPED).name, str(SHIPPED))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name a COLLECTION to judge, or --evaluate"),
        (("main", "--evaluate", "llmbar:x.jsonl"), "one of the two"),
        (("main", "--principle", "x", "--ensemble"), "leave one of them out"),
        (("main", "--principle", "x"), "principle 'x': there are helpful, "),
        (("main", "--limit", "3"), "--limit 3: it is for --evaluate"),
        (("nowhere",), "collection 'nowhere': not here; there are main"),
        (("--evaluate", "llmbar:gone.jsonl"), "gone.jsonl: no such file"),
    ],
)
def test_mistakes_are_one_line(
    veritune: Veritune, workspace: Workspace, endpoint: FaultyServer, arguments: tuple[str, ...], said: str
) -> None:
    fill(workspace)
    ended = veritune(*JUDGE, *arguments)
    assert ended.status == 2
    assert len(ended.lines) == 1
    assert said in ended.lines[0]
    assert not endpoint.bodies


def test_a_killed_judge_goes_on_and_is_answered_nothing_twice(workspace: Workspace) -> None:
    def slowly(body: dict[str, Any], before: int) -> Reaction | None:
        reaction = planted()(body, before)
        if reaction is not None:
            reaction.delay = 0.02
        return reaction

    fill(workspace, 60)
    command = [sys.executable, "-m", "ui", *JUDGE, "main"]
    settings = workspace.root / "veritune.toml"
    settings.write_text(settings.read_text().replace("# concurrency = 16", "concurrency = 2"))
    with serving(slowly) as server:
        environment = os.environ | {URL_VARIABLE: server.url, "VERITUNE_WORKSPACE": str(workspace.root)}
        with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL) as process:
            while len(server.bodies) < 30 and process.poll() is None:
                time.sleep(0.01)
            process.kill()
        before = len(server.bodies)
        assert before < 120, "it was over before it could be killed"
        subprocess.run(command, cwd=ROOT, env=environment, check=True, stderr=subprocess.DEVNULL)
        asked = list(server.asked.values())
    assert len(asked) == 120
    # Only what was in flight when it was killed could be asked again.
    assert sum(asked) <= 120 + 2
    with Database(workspace.database) as database:
        assert len(list(database.judgements(["main"]))) == 60
