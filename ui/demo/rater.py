"""A script that plays the demo's rater: it signs in to the labelling server and answers what an honest person would.

Its account says that it is a script, and so does every judgement that comes of it.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

from evaluation.hallucination.closed_book import grade
from feedback.argilla.layout import field_of, marks
from feedback.schema import TIE
from ui.demo.world import IDK, Question

NAME = "demo"
RANKS = {"correct": 0, "abstained": 1, "incorrect": 2}
PAGE = 100
SECONDS_BETWEEN_LINES = 10

Fields = Mapping[str, Any]
Values = dict[str, Any]


def rewrite(question: Question, fields: Fields) -> Values:
    """How true the answer is, and what should have been said: the truth where it is known, else that it is not."""
    made_up = _grade(question, fields[field_of(marks(1)[0])]) == "incorrect"
    return {"truthful": 1 if made_up else 5, "rewrite": question.answer or IDK}


def prefer(question: Question, fields: Fields) -> Values:
    """The better of the two answers: right before abstaining before wrong."""
    first, second = (RANKS[_grade(question, fields[field_of(mark)])] for mark in marks(2))
    return {"preference": TIE if first == second else marks(2)[second < first]}


def label(
    address: str,
    username: str,
    password: str,
    project: str,
    questions: Mapping[str, Question],
    judge: Callable[[Question, Fields], Values],
    say: Callable[[str], None],
) -> int:
    """Answer every record of a project that waits for this rater, as the page in the browser would.

    Args:
        questions: what the rater knows, by the text of the question.

    Returns:
        How many records were answered.
    """
    import httpx

    with httpx.Client(base_url=f"{address}/api/v1/", timeout=60) as http:

        def call(method: str, path: str, **content: Any) -> Any:
            answer = http.request(method, path, **content)
            answer.raise_for_status()
            return answer.json()

        token = call("POST", "token", data={"username": username, "password": password})["access_token"]
        http.headers["Authorization"] = f"Bearer {token}"
        dataset = next(d["id"] for d in call("GET", "me/datasets")["items"] if d["name"] == project)
        waiting = {"type": "terms", "scope": {"entity": "response", "property": "status"}, "values": ["pending"]}
        done, began = 0, time.monotonic()
        said = began
        while True:
            page = call(
                "POST",
                f"me/datasets/{dataset}/records/search",
                params={"limit": PAGE},
                json={"filters": {"and": [waiting]}},
            )
            for record in (item["record"] for item in page["items"]):
                fields = record["fields"]
                values = judge(questions[fields["prompt"][-1]["content"]], fields)
                answer = {"status": "submitted", "values": {name: {"value": value} for name, value in values.items()}}
                call("POST", f"records/{record['id']}/responses", json=answer)
                done += 1
            if not page["items"]:
                return done
            if (now := time.monotonic()) - said > SECONDS_BETWEEN_LINES:
                said, left = now, page["total"] - len(page["items"])
                say(f"  {done} answered, about {left * (now - began) / done:.0f} s left")


def _grade(question: Question, text: str) -> str:
    return grade(text, [question.answer] if question.answer else [])
