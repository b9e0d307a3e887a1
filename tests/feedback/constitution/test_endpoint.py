"""Whatever an endpoint does, nothing is lost, nothing is paid for twice, and what can't be helped is said."""

import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evaluation.local import load
from feedback.constitution.cache import AnswerCache
from feedback.constitution.endpoint import Endpoint, from_workspace
from feedback.constitution.generators import Answer, Request
from feedback.errors import UserError
from feedback.schema import user_message
from feedback.workspace import SETTINGS_FILE, Workspace
from tests.feedback.constitution.conftest import Served
from tests.feedback.constitution.faulty import Reaction, completion, refusal, serving

Make = Callable[..., Endpoint]
SLOW_DOWN = refusal(429, "slow down", code="rate_limit_exceeded")


def quiet(line: str) -> None:
    pass


def question(number: int, **fields: Any) -> Request:
    return Request(user_message(f"question {number}"), max_tokens=5, **fields)


def questions(count: int) -> list[Request]:
    return [question(number) for number in range(count)]


def ask(endpoint: Endpoint, requests: Any, say: Callable[[str], None] = quiet) -> list[Answer]:
    """The answers in the order of the requests, each of which came once."""
    answered = list(endpoint.answer(requests, say))
    found = dict(answered)
    assert len(found) == len(answered)
    assert sorted(found) == list(range(len(found)))
    return [found[place] for place in range(len(found))]


def ask_one(endpoint: Endpoint, request: Request) -> Answer:
    (answer,) = ask(endpoint, [request])
    return answer


def test_as_many_requests_are_in_flight_as_are_allowed(endpoint: Make) -> None:
    def react(body: dict[str, Any], before: int) -> Reaction:
        # The first ones wait for those that may be in flight beside them.
        return Reaction(body=completion(body["messages"][0]["content"]), delay=1.0 if server.asked.total() < 64 else 0)

    with serving(react) as server:
        answers = ask(endpoint(server.url, concurrency=64), (question(n) for n in range(150)))
        assert [answer.texts for answer in answers] == [(f"question {n}",) for n in range(150)]
        assert not any(answer.cached for answer in answers)
        assert server.most_in_flight == 64


def test_faults_of_every_kind_lose_nothing(endpoint: Make) -> None:
    """Half of the first attempts fail: dropped, cut short, broken, malformed, limited or too late."""
    rng = random.Random(0)
    faults = [
        lambda: Reaction(cut=0),
        lambda: Reaction(body=completion("cut"), cut=40),
        lambda: Reaction(body=completion("cut"), cut=130),
        lambda: Reaction(500, {"error": "broken"}),
        lambda: Reaction(503, b"<html>busy</html>"),
        lambda: Reaction(body=b'{"choices": ['),
        lambda: Reaction(body={"choices": []}),
        lambda: Reaction(body={"choices": [{"message": {"content": 3}}]}),
        lambda: Reaction(body=b"\xff\xfe"),
        lambda: Reaction(429, SLOW_DOWN.body, {"Retry-After": "0.05"}),
        lambda: Reaction(429, SLOW_DOWN.body),
        lambda: Reaction(body=completion("late"), delay=30),
    ]
    chosen = {f"question {n}": rng.choice(faults) for n in range(0, 300, 2)}

    def react(body: dict[str, Any], before: int) -> Reaction | None:
        fault = chosen.get(body["messages"][0]["content"])
        return fault() if fault and not before else None

    with serving(react) as server:
        answers = ask(endpoint(server.url, concurrency=64, timeout=3), questions(300))
        assert [answer.texts for answer in answers] == [(f"question {n}",) for n in range(300)]
        assert {server.asked[name] for name in chosen} == {2}
        assert {count for name, count in server.asked.items() if name not in chosen} == {1}


def test_a_rate_limit_is_waited_for(endpoint: Make) -> None:
    asked: list[float] = []

    def react(body: dict[str, Any], before: int) -> Reaction | None:
        asked.append(time.monotonic())
        return Reaction(429, SLOW_DOWN.body, {"Retry-After": "1"}) if len(asked) == 1 else None

    with serving(react) as server:
        assert all(answer.texts for answer in ask(endpoint(server.url, concurrency=1), questions(3)))
    assert len(asked) == 4
    assert asked[1] - asked[0] >= 1


def test_a_limit_that_outlasts_patience_is_the_users_to_solve(endpoint: Make) -> None:
    with serving(lambda body, before: Reaction(429, SLOW_DOWN.body, {"Retry-After": "86400"})) as server:
        with pytest.raises(UserError, match=r"rate limit lets nothing through .*86400 s.*goes on where it was"):
            ask(endpoint(server.url, concurrency=1), questions(5))
        server.react = lambda body, before: refusal(429, "pay first", code="insufficient_quota")
        with pytest.raises(UserError, match="429 pay first"):
            ask(endpoint(server.url, concurrency=1), questions(5))
        assert server.asked.total() == 2


def test_a_refused_key_ends_the_job_and_is_never_shown(
    endpoint: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody-else")
    said: list[str] = []
    with serving(lambda body, before: refusal(401, "Incorrect API key: sk-secret")) as server:
        with pytest.raises(UserError, match=r"401 Incorrect API key: \*\*\*.*VERITUNE_ENDPOINT_KEY") as caught:
            ask(endpoint(server.url, api_key="sk-secret", concurrency=2), questions(50), said.append)
        assert "sk-secret" not in str(caught.value) + "".join(said)
        assert server.asked.total() <= 2
        assert all("authorization: bearer sk-secret\r\n" in head.lower() for head in server.headers)
        with pytest.raises(UserError, match="401"):
            ask(endpoint(server.url, concurrency=1), questions(1))
        assert "sk-of" not in server.headers[-1]
    with serving() as server:
        assert ask_one(endpoint(server.url, api_key="sk-secret"), question(0)).texts
    assert not [path for path in (tmp_path / "cache").iterdir() if b"sk-secret" in path.read_bytes()]


def test_an_unknown_model_and_an_address_where_nobody_listens(endpoint: Make) -> None:
    unknown = r"model 'm': 404 no model m; see the model's name, and url"
    with serving(lambda body, before: refusal(404, "no model m")) as server, pytest.raises(UserError, match=unknown):
        ask(endpoint(server.url), questions(5))
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(UserError, match=r"no answer to 6 attempts.*see that it runs"):
            ask(endpoint(f"http://127.0.0.1:{closed.getsockname()[1]}/v1"), questions(5))


@pytest.mark.parametrize("url", ["127.0.0.1:8000/v1", "file:///etc/hosts", "http://", "https://me:word@host/v1"])
def test_what_is_no_address_is_refused(endpoint: Make, url: str) -> None:
    with pytest.raises(UserError, match="is no address to use") as caught:
        endpoint(url)
    assert "word" not in str(caught.value)


def test_one_bad_request_is_told_apart_from_a_dead_endpoint(endpoint: Make) -> None:
    def react(body: dict[str, Any], before: int) -> Reaction | None:
        number = int(body["messages"][0]["content"].split()[1])
        return {3: Reaction(500, {"error": "poison"}), 5: Reaction(400, {"detail": "too long"})}.get(number)

    said: list[str] = []
    with serving(react) as server:
        answers = ask(endpoint(server.url), questions(20), said.append)
        assert [n for n, answer in enumerate(answers) if answer.error] == [3, 5]
        assert answers[3].error == "no answer to 6 attempts (500 poison)"
        assert answers[5].error == "400 too long"
        assert (
            "18 answers got, 2 not to be had, 0 known before; 25 requests, 5 of them repeated, 126 tokens" in said[-1]
        )
        again = ask(endpoint(server.url), questions(20))
        assert [n for n, answer in enumerate(again) if not answer.cached] == [3, 5]
        server.react = lambda body, before: Reaction(502)
        with pytest.raises(UserError, match=r"no answer to 6 attempts \(502"):
            ask(endpoint(server.url), [question(n) for n in range(20, 60)])


@pytest.mark.parametrize(("name", "most"), [("max_requests", 30), ("max_tokens", 7 * 30)])
def test_a_budget_stops_cleanly_and_a_repeat_goes_on(endpoint: Make, name: str, most: int) -> None:
    with serving() as server:
        got: dict[int, Answer] = {}
        with pytest.raises(UserError, match=rf"endpoint.{name} = {most}: spent.*goes on where it was"):
            got.update(endpoint(server.url, concurrency=1, **{name: most}).answer(questions(50), quiet))
        assert server.asked.total() == 30
        answers = ask(endpoint(server.url, **{name: most}), questions(50))
        assert sum(answer.cached for answer in answers) == 30
        assert server.asked.total() == 50
        assert set(server.asked.values()) == {1}


def test_what_is_in_flight_when_the_budget_is_spent_still_comes(endpoint: Make) -> None:
    with serving(lambda body, before: Reaction(body=completion("yes"), delay=0.1)) as server:
        answers = endpoint(server.url, concurrency=8, max_requests=20).answer(questions(50), quiet)
        got = []
        with pytest.raises(UserError, match="max_requests = 20: spent"):
            got += [next(answers) for _ in range(51)]
        assert server.asked.total() == 20
        assert sum(answer.cached for answer in ask(endpoint(server.url), questions(50))) == 20


JOB = """
import sys
from pathlib import Path
from feedback.constitution.endpoint import Endpoint
from feedback.constitution.generators import Request
from feedback.schema import user_message
from feedback.workspace import EndpointSettings

endpoint = Endpoint("m", EndpointSettings(url=sys.argv[1], concurrency=16), Path(sys.argv[2]))
requests = [Request(user_message(f"question {n}"), max_tokens=5) for n in range(400)]
for _ in endpoint.answer(requests, print):
    pass
"""


def test_a_job_killed_in_full_run_asks_nothing_twice(endpoint: Make, tmp_path: Path) -> None:
    enough = threading.Event()

    def react(body: dict[str, Any], before: int) -> Reaction:
        if server.asked.total() >= 150:
            enough.set()
        return Reaction(body=completion("yes"), delay=0.02)

    with serving(react) as server:
        cache = tmp_path / "cache"
        job = subprocess.Popen([sys.executable, "-c", JOB, server.url, str(cache)], cwd=Path(__file__).parents[3])
        assert enough.wait(120)
        job.send_signal(signal.SIGKILL)
        job.wait()
        kept = ask_known(cache)
        first = server.asked.copy()
        # What the server was asked and the cache does not hold was in flight.
        assert 0 < kept < 400
        assert first.total() - kept <= 16
        answers = ask(endpoint(server.url), questions(400))
        assert all(answer.texts == ("yes",) for answer in answers)
        assert sum(answer.cached for answer in answers) == kept
        assert server.asked.total() - first.total() == 400 - kept


def ask_known(cache: Path) -> int:
    with AnswerCache(cache) as answers:
        return int(answers._connection.execute("SELECT count(*) FROM answers").fetchone()[0])


def test_equal_requests_of_one_job_are_asked_once(endpoint: Make) -> None:
    with serving(lambda body, before: Reaction(body=completion("yes"), delay=0.05)) as server:
        answers = ask(endpoint(server.url), [question(n % 3) for n in range(30)])
        assert [answer.texts for answer in answers] == [("yes",)] * 30
        assert set(server.asked.values()) == {1}


def test_a_job_that_nobody_wants_the_rest_of_ends(endpoint: Make) -> None:
    with serving(lambda body, before: Reaction(body=completion("yes"), delay=0.2)) as server:
        answers = endpoint(server.url, concurrency=4).answer(questions(400), quiet)
        next(answers)
        answers.close()
        assert server.asked.total() < 400
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("endpoint")]


def test_a_fault_of_the_requests_themselves_is_not_swallowed(endpoint: Make) -> None:
    def broken() -> Any:
        yield question(0)
        raise RuntimeError("no more questions")

    with serving() as server, pytest.raises(RuntimeError, match="no more questions"):
        ask(endpoint(server.url), broken())


def test_several_texts_differ_by_their_seeds(endpoint: Make) -> None:
    def react(body: dict[str, Any], before: int) -> Reaction:
        return Reaction(body=completion(f"{body['temperature']} {body['seed']}"))

    with serving(react) as server:
        answer = ask_one(endpoint(server.url), question(0, n=3, temperature=0.7, seed=5))
        assert (answer.texts, answer.tokens) == (("0.7 5", "0.7 6", "0.7 7"), 21)
        assert not any("n" in body for body in server.bodies)
        # One more text costs one more request.
        assert len(ask_one(endpoint(server.url), question(0, n=4, temperature=0.7, seed=5)).texts) == 4
        assert server.asked.total() == 4


def test_options_by_the_first_tokens_probabilities(endpoint: Make) -> None:
    tops = {
        0: {"A": -0.5, " A": -2.0, "a": -3.0, " B": -1.5, "The": -4.0},
        1: {"B": -0.1, "The": -3.0, "Well": -6.0},
        2: {"The": -0.1, "As": -3.0},
        3: {"(": -0.1, "A": -4.0, "B": -5.0},
    }

    def react(body: dict[str, Any], before: int) -> Reaction:
        assert (body["logprobs"], body["max_tokens"]) == (True, 1)
        tokens = tops[int(body["messages"][0]["content"].split()[1])]
        return Reaction(body=completion(next(iter(tokens)), tokens))

    with serving(react) as server:
        model = endpoint(server.url)
        sums, missing, none = (ask_one(model, question(n, options=("A", "B"))) for n in range(3))
        assert sums.options == pytest.approx((-0.2336, -1.5), abs=1e-3)
        # The least of the listed ones is the most that the missing one can have.
        assert missing.options == (-6.0, -0.1)
        assert (none.options, none.texts) == (None, ("The",))
        # "(" begins both and speaks for neither.
        assert ask_one(model, question(3, options=("(A)", "(B)"))).options is None
        assert server.asked.total() == 4


@pytest.mark.parametrize("how", ["ignored", 400, 403, 422])
def test_votes_where_there_are_no_probabilities(endpoint: Make, how: str | int) -> None:
    def react(body: dict[str, Any], before: int) -> Reaction | None:
        if "question 0" in body["messages"][0]["content"]:
            return refusal(400, "too long")
        if body.get("logprobs") and how != "ignored":
            return refusal(int(how), "no logprobs here")
        return Reaction(body=completion("AB"[body["seed"] % 2]))

    said: list[str] = []
    with serving(react) as server:
        model = endpoint(server.url, concurrency=1)
        answers = ask(model, [question(n, options=("A", "B"), n=5) for n in range(4)], said.append)
        assert answers[0].error == "400 too long"
        assert all((a.options, a.texts) == (None, ("A", "B", "A", "B", "A")) for a in answers[1:])
        # The first was refused for reasons of its own; the second told.
        assert [server.asked[f"question {n}"] for n in range(4)] == [2, 6, 5, 5]
        assert {body["temperature"] for body in server.bodies if "logprobs" not in body} == {1.0}
        assert sum("no log-probabilities" in line for line in said) == 1


def test_parameters_that_newer_models_refuse_are_done_without(endpoint: Make) -> None:
    def react(body: dict[str, Any], before: int) -> Reaction | None:
        if "max_tokens" in body:
            return refusal(400, "use another", code="unsupported_parameter", param="max_tokens")
        if body.get("temperature") != 1:
            return (
                refusal(400, "only 1", code="unsupported_value", param="temperature") if "temperature" in body else None
            )
        return None

    with serving(react) as server:
        answers = ask(endpoint(server.url, concurrency=1), questions(3))
        assert [answer.texts for answer in answers] == [(f"question {n}",) for n in range(3)]
        assert server.asked.total() == 5
        assert server.bodies[-1].keys() == {"model", "messages", "max_completion_tokens", "seed"}


def test_progress_is_told_with_rate_and_estimate(endpoint: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("feedback.argilla.progress.SECONDS_BETWEEN_LINES", 0)
    said: list[str] = []
    with serving() as server:
        ask(endpoint(server.url, concurrency=1), questions(3), said.append)
    assert said[0].startswith("m: 1 of 3 (")
    assert said[0].endswith("s to go)")


def test_the_environment_wins_over_the_file(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="endpoint:m: no address is set"):
        from_workspace(workspace, "m")
    (workspace.root / SETTINGS_FILE).write_text('[endpoint]\nurl = "http://a/v1"\napi_key = "k"\nconcurrency = 64\n')
    workspace = Workspace(workspace.root)
    settings = from_workspace(workspace, "m").settings
    assert (settings.url, settings.api_key, settings.concurrency) == ("http://a/v1", "k", 64)
    monkeypatch.setenv("VERITUNE_ENDPOINT_URL", "http://b/v1")
    monkeypatch.setenv("VERITUNE_ENDPOINT_KEY", "other")
    settings = from_workspace(workspace, "m").settings
    assert (settings.url, settings.api_key, settings.concurrency) == ("http://b/v1", "other", 64)


def test_transformers_serve_says_what_the_model_says_here(
    transformers_server: Served, workspace: Workspace, endpoint: Make
) -> None:
    served = endpoint(transformers_server.url, model=str(transformers_server.model))
    here = load(workspace, str(transformers_server.model))
    requests = [Request(user_message(text), max_tokens=12) for text in ("a", "Who was it?", "?", "ä猫")]
    assert [a.texts for a in ask(served, requests)] == [a.texts for a in ask(here, requests)]
    assert all(answer.tokens > 12 for answer in ask(served, requests))


def test_transformers_serve_votes_since_it_tells_no_probabilities(transformers_server: Served, endpoint: Make) -> None:
    served = endpoint(transformers_server.url, model=str(transformers_server.model))
    answer = ask_one(served, Request(user_message("A or B?"), max_tokens=2, n=6, options=("A", "B")))
    assert answer.options is None
    assert len(answer.texts) == 6
    assert len(set(answer.texts)) > 1
    wrong = endpoint(transformers_server.url, model="other")
    assert "Server is pinned to" in str(ask_one(wrong, question(0)).error)
