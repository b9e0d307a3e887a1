"""The principles that answers are judged by and revised towards: a YAML file, ours or the user's."""

import random
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, Field, ValidationError, model_validator

from feedback.errors import UserError
from feedback.files import content_hash
from feedback.schema import Candidate, Record
from feedback.workspace import SETTINGS_FILE, Workspace

SHIPPED = Path(__file__).with_name("principles.yaml")
# No principle can be called by the name that judgements by all of them bear.
ENSEMBLE = "ensemble"


def _says_something(text: str) -> str:
    if not text.strip():
        raise ValueError("it is empty")
    return text.strip()


Wording = Annotated[str, Field(max_length=20_000), AfterValidator(_says_something)]


class JudgeExample(Record):
    """Two answers and the letter of the better one, as the judge is shown them."""

    prompt: Wording
    context: Wording | None = None
    responses: tuple[Wording, Wording]
    better: Literal["A", "B"]
    reasoning: Wording | None = None


class RevisionExample(Record):
    """An answer, what was wrong with it, and the better one."""

    prompt: Wording
    response: Wording
    critique: Wording
    revision: Wording


class Principle(Record):
    """One thing that an answer is asked to be."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    aspect: Wording
    judge: Wording
    critique: Wording
    revision: Wording
    needs_context: bool = False
    judge_examples: tuple[JudgeExample, ...] = ()
    revision_examples: tuple[RevisionExample, ...] = ()


class Constitution(Record):
    """The principles of one file."""

    version: int = Field(ge=1)
    principles: tuple[Principle, ...]

    @model_validator(mode="after")
    def _named_apart(self) -> Self:
        names = [principle.id for principle in self.principles]
        if not names:
            raise ValueError("principles: there is none in the list")
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two principles have the id {', '.join(map(repr, repeated))}")
        if ENSEMBLE in names:
            raise ValueError(f"the id {ENSEMBLE!r} stands for all principles together; take another")
        return self

    @cached_property
    def name(self) -> str:
        """The version and a hash of all that the file says, as judgements keep it."""
        return f"{self.version}-{content_hash(self.model_dump(mode='json'))[:12]}"

    def applicable(self, candidate: Candidate) -> list[Principle]:
        """The principles that say something of a candidate's answers."""
        return [principle for principle in self.principles if candidate.context or not principle.needs_context]

    def named(self, principle_id: str) -> Principle:
        """One principle.

        Raises:
            UserError: there is none of this id.
        """
        for principle in self.principles:
            if principle.id == principle_id:
                return principle
        raise UserError(f"principle {principle_id!r}: there are {', '.join(p.id for p in self.principles)}")


def draw(principles: Sequence[Principle], *from_what: object) -> Principle:
    """One of the principles by chance (Constitutional AI, arXiv 2212.08073, sections 3.1 and 4.1).

    Args:
        from_what: the seed and what the principle is for; the same always draws the same.
    """
    return random.Random(content_hash([str(part) for part in from_what])).choice(principles)


def for_workspace(workspace: Workspace) -> Constitution:
    """The constitution of the file that veritune.toml names, else ours.

    Raises:
        UserError: the file is missing or has mistakes; one line for each.
    """
    return load(path_of(workspace))


def path_of(workspace: Workspace) -> Path:
    """The file that holds the workspace's constitution.

    Raises:
        UserError: veritune.toml names one that is not there.
    """
    named = workspace.settings.constitution.principles
    if named is None:
        return SHIPPED
    path = workspace.root / named
    if not path.is_file():
        raise UserError(
            f"{workspace.root / SETTINGS_FILE}: constitution.principles: {named!r} is no file; make one with "
            "`veritune feedback principles`, or remove the key to have ours"
        )
    return path


def load(path: Path) -> Constitution:
    """The constitution in a file.

    Raises:
        UserError: it is no YAML, or has mistakes; one line for each, with the line of the file and the key.
    """
    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path}: can't be read as YAML ({' '.join(str(error).split())})") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: holds no `version:` and `principles:`; start from `veritune feedback principles`")
    mistakes = _repeated_keys(root)
    try:
        constitution = Constitution.model_validate(values)
    except ValidationError as error:
        for fault in error.errors():
            key = ".".join(map(str, fault["loc"])) or "the file"
            mistakes.append((_line(root, fault["loc"]), f"{key}: {fault['msg'].removeprefix('Value error, ')}"))
    if mistakes:
        raise UserError(*(f"{path}, line {line}: {mistake}" for line, mistake in sorted(mistakes)))
    return constitution


def _line(node: yaml.Node | None, keys: Sequence[Any]) -> int:
    """The line at which the value of a key stands, or the nearest thing around it that is there."""
    line = 1 if node is None else node.start_mark.line + 1
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            found = [(name, value) for name, value in node.value if name.value == key]
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            found = [(node.value[key], node.value[key])]
        else:
            break
        if not found:
            break
        name, node = found[0]
        line = name.start_mark.line + 1
    return line


def _repeated_keys(node: yaml.Node | None) -> list[tuple[int, str]]:
    """Keys that stand twice in one place: YAML would silently take the last."""
    if isinstance(node, yaml.SequenceNode):
        return [mistake for child in node.value for mistake in _repeated_keys(child)]
    mistakes = []
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for name, value in node.value:
            if name.value in seen:
                mistakes.append((name.start_mark.line + 1, f"{name.value}: it stands here twice"))
            seen.add(str(name.value))
            mistakes += _repeated_keys(value)
    return mistakes
