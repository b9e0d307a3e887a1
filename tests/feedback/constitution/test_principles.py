"""The constitution's file: ours is valid, a user's own is checked whole."""

from pathlib import Path

import pytest

from feedback.constitution.principles import SHIPPED, draw, for_workspace, load
from feedback.errors import UserError
from feedback.workspace import Workspace

OWN = """\
version: 3
principles:
  - id: short
    aspect: style
    judge: Which response is shorter?
    critique: Say what could go.
    revision: Make it shorter.
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def name_it(workspace: Workspace, name: str) -> None:
    settings = workspace.root / "veritune.toml"
    settings.write_text(settings.read_text().replace("[constitution]", f'[constitution]\nprinciples = "{name}"'))


def test_ours_covers_what_it_is_for(workspace: Workspace) -> None:
    constitution = for_workspace(workspace)
    assert constitution == load(SHIPPED)
    aspects = {principle.aspect for principle in constitution.principles}
    assert aspects >= {"helpful", "honest", "harmless", "groundedness", "abstention", "sources"}
    assert [p.id for p in constitution.principles if p.needs_context] == ["grounded"]
    letters = [example.better for p in constitution.principles for example in p.judge_examples]
    assert letters.count("A") == letters.count("B") > 0


def test_a_users_own_takes_its_place(workspace: Workspace) -> None:
    write(workspace.root / "own.yaml", OWN)
    name_it(workspace, "own.yaml")
    constitution = for_workspace(workspace)
    assert [principle.id for principle in constitution.principles] == ["short"]
    assert constitution.name.startswith("3-")


def test_a_missing_one_is_said(workspace: Workspace) -> None:
    name_it(workspace, "gone.yaml")
    with pytest.raises(UserError, match=r"constitution\.principles: 'gone\.yaml' is no file"):
        for_workspace(workspace)


def test_the_name_follows_what_is_said_and_not_how_it_is_laid_out(tmp_path: Path) -> None:
    name = load(write(tmp_path / "a.yaml", OWN)).name
    assert load(write(tmp_path / "b.yaml", "# mine\n" + OWN.replace("shorter?", "shorter?  # much"))).name == name
    assert load(write(tmp_path / "c.yaml", OWN.replace("could go", "can go"))).name != name


def test_all_mistakes_are_said_together_with_their_lines(tmp_path: Path) -> None:
    path = write(
        tmp_path / "bad.yaml",
        "version: 0\n"
        "principles:\n"
        "  - id: Bad Id\n"
        "    aspect: style\n"
        "    aspect: form\n"
        "    judge: '  '\n"
        "    critique: Say it.\n"
        "    revision: [x]\n"
        "    extra: 1\n"
        "  - id: other\n"
        "    aspect: a\n"
        "    judge: b\n"
        "    revision: d\n"
        "    judge_examples:\n"
        "      - prompt: p\n"
        "        responses: [x, y]\n"
        "        better: C\n",
    )
    with pytest.raises(UserError) as caught:
        load(path)
    places = [line.removeprefix(f"{path}, line ").split(": ")[:2] for line in caught.value.lines]
    assert places == [
        ["1", "version"],
        ["3", "principles.0.id"],
        ["5", "aspect"],
        ["6", "principles.0.judge"],
        ["8", "principles.0.revision"],
        ["9", "principles.0.extra"],
        ["10", "principles.1.critique"],
        ["17", "principles.1.judge_examples.0.better"],
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no `version:` and `principles:`"),
        ("- a\n", "holds no `version:` and `principles:`"),
        ("principles: [", "can't be read as YAML"),
        ("version: 1\nprinciples: []\n", "there is none in the list"),
        (OWN + OWN.partition("principles:\n")[2], "two principles have the id 'short'"),
        (OWN.replace("id: short", "id: ensemble"), "stands for all principles together"),
    ],
)
def test_what_is_no_constitution_is_said(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        load(write(tmp_path / "bad.yaml", text))


def test_an_unknown_principle_is_said_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="principle 'long': there are short"):
        load(write(tmp_path / "a.yaml", OWN)).named("long")


def test_draws_evenly_and_always_the_same() -> None:
    principles = load(SHIPPED).principles
    drawn = [draw(principles, 0, f"candidate {i}") for i in range(2000)]
    assert drawn == [draw(principles, 0, f"candidate {i}") for i in range(2000)]
    # 200 are expected of each of ten; 60 is more than four standard deviations.
    assert all(abs(drawn.count(principle) - 200) < 60 for principle in principles)
