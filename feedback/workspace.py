"""A workspace: plain folders that hold a project's feedback, datasets, runs and reports."""

import os
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from feedback.errors import UserError
from feedback.files import write_atomic

SETTINGS_FILE = "veritune.toml"
ENVIRONMENT_VARIABLE = "VERITUNE_WORKSPACE"


class EvaluationSettings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    questions: list[str] = Field(
        default=[],
        description="JSONL files of held-out questions: {question, answers, slice}; no answers = unanswerable",
    )
    decontaminate: list[str] = Field(
        default=[],
        description="JSONL or CSV files of further questions that no row of a dataset may give away",
    )
    tasks: list[str] = Field(default=[], description="tasks of lm-eval's that the full suite asks besides its own")
    samples: int | None = Field(
        default=None,
        ge=2,
        le=100,
        description="answers that each model gives again to every question, to see whether it says the same",
    )
    temperature: float = Field(default=1.0, gt=0, le=2, description="at which those are drawn")
    entailment: str | None = Field(
        default=None, description="a model of natural-language inference, a folder or hub name, that checks ask"
    )
    corpus: str | None = Field(
        default=None,
        description="passages that claims are checked against, by entailment: text parted by empty lines, or JSONL of "
        "{text}; seen from the workspace",
    )
    grounded: str | None = Field(
        default=None, description="a classifier run that says whether an answer stands on the context it was given"
    )
    grounded_label: str | None = Field(
        default=None,
        description="its label for an answer that does not; unset: hallucinated, hallucination, ungrounded, "
        "unsupported or rejected",
    )
    data: dict[str, str] = Field(default={}, description="local copies of tasks' data, by task; otherwise the hub's")


class ArgillaSettings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    url: str | None = Field(default=None, description="an Argilla that runs already; unset: the workspace's own server")
    api_key: str | None = Field(default=None, description="an owner's key of that Argilla")
    workspace: str = Field(default="veritune", min_length=1, description="Argilla workspace that holds the projects")
    overlap: int = Field(default=1, ge=1, description="how many people are to label each record")


class EndpointSettings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    url: str | None = Field(default=None, description="an OpenAI-compatible endpoint, up to and with its /v1")
    api_key: str | None = Field(default=None, description="the key that it asks for")
    concurrency: int = Field(default=16, ge=1, le=1024, description="requests in flight at a time")
    timeout: float = Field(default=300, gt=0, description="seconds after which an unanswered request is sent again")
    max_requests: int | None = Field(default=None, ge=1, description="requests that one command may send, retries too")
    max_tokens: int | None = Field(
        default=None, ge=1, description="tokens, as the endpoint counts them, after which a command sends no more"
    )


class ConstitutionSettings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    principles: str | None = Field(
        default=None, description="a YAML file of principles in place of ours, seen from the workspace"
    )


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    model: str | None = Field(default=None, description="base model that recipes use unless they name one")
    rater: str | None = Field(default=None, description="name under which votes of this workspace's app are kept")
    argilla: ArgillaSettings = ArgillaSettings()
    endpoint: EndpointSettings = EndpointSettings()
    constitution: ConstitutionSettings = ConstitutionSettings()
    evaluation: EvaluationSettings = EvaluationSettings()


TEMPLATE = """\
# What is set once for this workspace; a recipe's own key wins.

# The base model: a folder or a hub name, e.g. "HuggingFaceTB/SmolLM2-135M-Instruct".
# model = ""

# The name under which votes from the app are kept (default: your login name).
# rater = ""

[argilla]
# How many people are to label each record.
# overlap = 1
# An Argilla that runs already (2.8 or later), with an owner's key, in place of `veritune feedback serve`.
# The environment variables ARGILLA_API_URL and ARGILLA_API_KEY win, and keep the key out of this file.
# url = ""
# api_key = ""

[endpoint]
# Where `endpoint:MODEL` is found: any OpenAI-compatible server (vLLM, Ollama, `transformers serve`, a vendor).
# The environment variables VERITUNE_ENDPOINT_URL and VERITUNE_ENDPOINT_KEY win, and keep the key out of this file.
# url = "http://127.0.0.1:8000/v1"
# api_key = ""
# Requests in flight at a time, and what one command may spend; a command that is repeated goes on where it stopped.
# concurrency = 16
# max_requests = 10000
# max_tokens = 5000000

[constitution]
# Principles of your own, e.g. `veritune feedback principles > principles.yaml`, edited.
# principles = "principles.yaml"

[evaluation]
# JSONL files of held-out questions, one {"question": ..., "answers": [...], "slice": ...} a line.
# An empty list of answers marks a question that can't be answered: the right reply is to say so.
questions = []
# Further questions, JSONL or CSV, that no row of a dataset may give away, e.g. those of a benchmark.
# decontaminate = []
# What `veritune eval --suite full` asks besides its own tasks: any of lm-eval's, by name.
# tasks = ["hellaswag"]
# Does a model say the same when it is asked again? So many more answers to each question, for `--suite truthful`
# and `full`, and for `--check consistency` or `--check semantic_entropy`.
# samples = 5
# A model of natural-language inference, which tells contradiction from other words for the same.
# entailment = "cross-encoder/nli-deberta-v3-small"
# Passages that you trust: with `entailment`, each sentence of an answer is checked against them.
# corpus = "corpus.txt"
# A classifier run that tells whether an answer stands on its context (questions may have one: "context").
# grounded = "classifier-1"

[evaluation.data]
# Local copies of what the suites `truthful` and `full` ask; what is not named here comes from the hub.
# truthfulqa = "TruthfulQA.csv"
# halueval = "qa_data.jsonl"
# nq_open = "NQ-open.dev.jsonl"
# gsm8k = "gsm8k"    # a folder with train.jsonl and test.jsonl
# Answers that people labelled, for `veritune validate-detectors`.
# truthfulqa_answers = "answers_labelled_true.jsonl"
"""


@dataclass(frozen=True)
class Workspace:
    """Paths of one workspace, and its settings."""

    root: Path

    @property
    def database(self) -> Path:
        return self.root / "feedback.sqlite"

    @property
    def datasets(self) -> Path:
        return self.root / "datasets"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def detectors(self) -> Path:
        """How good the evaluation's detectors are, a file a version."""
        return self.root / "detectors"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def log(self) -> Path:
        return self.root / "veritune.log"

    @cached_property
    def settings(self) -> Settings:
        """What veritune.toml says.

        Raises:
            UserError: the file is no TOML, or holds an unknown key or a value of the wrong kind.
        """
        path = self.root / SETTINGS_FILE
        try:
            return Settings.model_validate(tomllib.loads(path.read_text()))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: not valid TOML ({error})") from None
        except ValidationError as error:
            raise UserError(*(f"{path}: {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())) from None


def create(root: Path) -> Workspace:
    """Make a workspace; what is there already stays.

    Raises:
        UserError: the folder can't be made or written.
    """
    workspace = Workspace(root.resolve())
    try:
        for folder in (workspace.datasets, workspace.runs, workspace.reports, workspace.cache):
            folder.mkdir(parents=True, exist_ok=True)
        if not (workspace.root / SETTINGS_FILE).exists():
            write_atomic(workspace.root / SETTINGS_FILE, TEMPLATE)
    except OSError as error:
        raise UserError(f"{root}: a workspace can't be made here ({error.strerror})") from None
    return workspace


def find(given: Path | None) -> Workspace:
    """The workspace that was named, else VERITUNE_WORKSPACE's, else the nearest parent folder that is one.

    Raises:
        UserError: there is none.
    """
    named = given or (Path(os.environ[ENVIRONMENT_VARIABLE]) if os.environ.get(ENVIRONMENT_VARIABLE) else None)
    if named is not None:
        if (named / SETTINGS_FILE).is_file():
            return Workspace(named.resolve())
        raise UserError(f"{named}: no workspace (it holds no {SETTINGS_FILE}); make one with `veritune init {named}`")
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / SETTINGS_FILE).is_file():
            return Workspace(folder)
    raise UserError(f"{here}: no workspace here or above; make one with `veritune init`, or name one with --workspace")
