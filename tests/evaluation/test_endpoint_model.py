"""A model behind a server of its own answers as the same model here, and what it can't tell is said."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from lm_eval.api.instance import Instance

from evaluation.endpoint_model import EndpointModel
from evaluation.suites import evaluate
from feedback.constitution import transport
from feedback.constitution.endpoint import Endpoint
from feedback.errors import UserError
from feedback.versions import DatasetVersion
from feedback.workspace import SETTINGS_FILE, EndpointSettings, Workspace
from tests.endpoints import Served, transformers_serve
from training.launch import train


def quiet(line: str) -> None:
    pass


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "FIRST_WAIT", 0.01)


@pytest.fixture(scope="module")
def served(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with transformers_serve(tiny_model, tmp_path_factory.mktemp("served") / "tiny") as found:
        yield found


@pytest.fixture
def asking(workspace: Workspace, served: Served) -> Workspace:
    rows = [{"question": f"{n} + 1?", "answers": [str(n + 1)] if n % 3 else []} for n in range(6)]
    (workspace.root / "held_out.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (workspace.root / SETTINGS_FILE).write_text(
        f'[evaluation]\nquestions = ["held_out.jsonl"]\n[endpoint]\nurl = "{served.url}"\nmax_requests = 6\n'
    )
    return workspace


def test_the_same_model_here_and_behind_a_server_shows_no_difference(
    asking: Workspace, served: Served, tiny_model: Path
) -> None:
    name = f"endpoint:{served.model}"
    for target, against in ((name, str(tiny_model)), (str(tiny_model), name)):
        # What may be spent is spent by the first of both: the second asks nothing anew.
        results = evaluate(asking, target, against, report=quiet)
        assert {results.base, results.tuned} == {"endpoint:tiny", "tiny"}
        assert list(results.tasks) == ["held_out"]
        assert (results.flips.gained, results.flips.lost) == (0, 0)
        assert {(c.difference, c.p_value) for c in results.comparisons} == {(0, 1)}
    lost = EndpointSettings(url="http://127.0.0.1:9/v1")
    asking.settings.endpoint = lost
    with pytest.raises(UserError):
        evaluate(asking, name, str(tiny_model), report=quiet, cached=False)


def test_pairs_are_left_out_and_named(asking: Workspace, small_dataset: DatasetVersion, served: Served) -> None:
    run = train(asking, "sft", ["dataset=sums", f"model={served.model}", "max_steps=2"], quiet)
    results = evaluate(asking, run.id, f"endpoint:{served.model}", report=quiet)
    assert list(results.tasks) == ["held_out"]
    assert "An endpoint's chat tells no probabilities, so not asked: preferences." in results.notes
    with pytest.raises(UserError, match="--check consistency: an endpoint is not asked again"):
        evaluate(asking, run.id, f"endpoint:{served.model}", report=quiet, named_checks=["consistency"])


def test_answers_are_cut_where_the_task_stops_reading(served: Served, tmp_path: Path) -> None:
    model = EndpointModel(Endpoint(str(served.model), EndpointSettings(url=served.url), tmp_path), True, quiet)
    asked = model.apply_chat_template([{"role": "user", "content": "Who?"}])
    (whole,) = model.generate_until([Instance("generate_until", {}, (asked, {"max_gen_toks": 8}), 0)])
    assert len(whole) > 2
    how = {"max_gen_toks": 8, "until": [whole[2]]}
    (cut,) = model.generate_until([Instance("generate_until", {}, (asked, how), 0)])
    assert cut == whole[: whole.index(whole[2])]


def test_an_answer_that_can_not_be_had_is_an_error_and_no_answer(served: Served, tmp_path: Path) -> None:
    model = EndpointModel(Endpoint("other", EndpointSettings(url=served.url), tmp_path), True, quiet)
    asked = model.apply_chat_template([{"role": "user", "content": "Who?"}])
    with pytest.raises(UserError, match="other: "):
        model.generate_until([Instance("generate_until", {}, (asked, {"until": ["\n"]}), 0)])
