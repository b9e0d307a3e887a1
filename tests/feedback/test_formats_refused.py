"""Rows that are refused, each with the reason that names its field."""

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from feedback.formats.fields import Origin, Refused
from feedback.formats.importing import IMPORTS, reason_of


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


SYSTEM = {"role": "system", "content": "Be brief."}
TALK = [SYSTEM, user("Hi"), assistant("Hello"), user("Who?")]
HH = "\n\nHuman: Who?\n\nAssistant: {}"
GPT = {"from": "gpt", "value": "Ada"}
REFUSED = [
    ("trl", {"prompt": "Q", "chosen": "A", "rejected": "A"}, "chosen and rejected are the same text"),
    ("trl", {"prompt": "Q", "chosen": " \n", "rejected": "A"}, "chosen is empty"),
    ("trl", {"prompt": " ", "chosen": "B", "rejected": "A"}, "prompt is empty"),
    ("trl", {"prompt": "Q", "chosen": "A"}, "rejected is missing"),
    ("trl", {"prompt": "Q", "rejected": "A"}, "chosen is missing"),
    ("trl", {"prompt": "Q", "chosen": "A", "rejected": "B", "probability": True}, "probability is true, not a number"),
    ("trl", {"prompt": "Q", "chosen": 5, "rejected": "A"}, "chosen is 5, not text"),
    ("trl", {"prompt": "Q", "chosen": {"a": 1}, "rejected": "A"}, 'chosen is {"a": 1}, not text'),
    ("trl", {"prompt": ["Q"], "chosen": "B", "rejected": "A"}, 'prompt[0] is "Q", not a message'),
    ("trl", {"prompt": [], "chosen": "B", "rejected": "A"}, "prompt is [], not a list of messages"),
    ("trl", {"chosen": "B", "rejected": "A"}, "prompt is missing; plain chosen and rejected texts need one"),
    ("trl", {"chosen": [assistant("B")], "rejected": [assistant("A")]}, "prompt is missing"),
    ("trl", {"prompt": "Q", "completion": "A", "label": True}, "unpaired preference (a label on one answer); a pair"),
    ("trl", {"prompt": "Q"}, "neither chosen and rejected nor completion"),
    ("trl", {"prompt": "Q", "completion": " "}, "completion is empty"),
    ("trl", {"completion": "A"}, "prompt is missing"),
    ("trl", {"prompt": "Q", "completion": [user("A")]}, "completion[0] is a user turn that is not the prompt's"),
    ("trl", {"prompt": "Q", "chosen": "x" * 1_000_001, "rejected": ""}, "chosen is 1,000,001 characters long; at most"),
    (
        "trl",
        {"prompt": "y" * 600_000, "context": "x" * 600_000, "completion": "A"},
        "content: String should have at most 1000000 characters",
    ),
    (
        "trl",
        {"prompt": "y" * 600_000, "context": "x" * 600_000, "chosen": "A", "rejected": "B"},
        "content: String should have at most 1000000 characters",
    ),
    (
        "trl",
        {"chosen": [user("Q"), assistant("A")], "rejected": [user("Z"), assistant("B")]},
        "the prompts differ (at turn 1)",
    ),
    ("trl", {"chosen": [user("Q"), user("A")], "rejected": "B"}, "chosen ends with the turn of the user, not with"),
    (
        "trl",
        {"prompt": [user("Q"), assistant("A")], "chosen": [assistant("B")], "rejected": [assistant("C")]},
        "the prompt must end with a user message, not with 'assistant'",
    ),
    (
        "trl",
        {"prompt": "Q", "chosen": [user("Other"), assistant("A")], "rejected": "B"},
        "chosen[0] is a user turn that is not the prompt's",
    ),
    ("trl", {"prompt": "Q", "chosen": "A", "rejected": "B", "probability": 0.2}, "probability is 0.2, not between"),
    ("trl", {"prompt": "Q", "chosen": "A", "rejected": "B", "probability": "x"}, 'probability is "x", not a number'),
    ("trl", {"prompt": "Q", "chosen": "A", "rejected": "B", "rater_kind": "dog"}, 'rater_kind is "dog", not human'),
    ("trl", {"prompt": "Q", "chosen": "A", "rejected": "B", "rater": "x" * 201}, "rater is 201 characters long"),
    ("hh-rlhf", {"chosen": HH.format("A"), "rejected": HH.format("B") * 2}, "the prompts differ (1 turns before one"),
    (
        "hh-rlhf",
        {"chosen": HH.format("A"), "rejected": "\n\nHuman: Q\n\nAssistant: B"},
        "the prompts differ (at turn 1)",
    ),
    ("hh-rlhf", {"chosen": HH.format("A"), "rejected": "Who?\n\nAssistant: B"}, "rejected doesn't begin with Human:"),
    ("hh-rlhf", {"chosen": HH.format(""), "rejected": HH.format("B")}, "chosen is empty"),
    ("hh-rlhf", {"chosen": "\n\nHuman: Who?", "rejected": HH.format("B")}, "chosen ends with the turn of the user"),
    ("hh-rlhf", {"chosen": None, "rejected": HH.format("B")}, "chosen is missing"),
    ("llmbar", {"input": "Q", "output_1": "A", "output_2": "B", "label": 0}, "label is 0, not 1 or 2"),
    ("llmbar", {"input": "Q", "output_1": "A", "output_2": "B", "label": True}, "label is true, not 1 or 2"),
    ("llmbar", {"input": "Q", "output_1": "A", "output_2": "A", "label": 1}, "output_1 and output_2 are the same text"),
    ("llmbar", {"input": "", "output_1": "A", "output_2": "B", "label": 1}, "prompt is empty"),
    ("pandalm", {"instruction": "Q", "response1": "A", "response2": "B"}, "no field annotator1"),
    (
        "pandalm",
        {"instruction": "Q", "response1": "A", "response2": "B", "annotator1": 1, "annotator2": 3},
        "annotator2 is 3, not 0, 1 or 2",
    ),
    ("pandalm", {"instruction": " ", "response1": "A", "response2": "B", "annotator1": 1}, "instruction is empty"),
    ("pandalm", {"instruction": "Q", "response1": 4, "response2": "B", "annotator1": 1}, "response1 is 4, not text"),
    ("alpaca", {"instruction": "Q", "output": ""}, "output is empty"),
    ("alpaca", {"instruction": "Q", "output": "A", "history": [["a", "b"]]}, 'history is [["a", "b"]]'),
    ("openai", {"messages": [user("Q")]}, "messages ends with the turn of the user"),
    ("openai", {"messages": [assistant("A")]}, "prompt is missing"),
    ("openai", {"messages": "Q"}, 'messages is "Q", not a list of messages'),
    ("openai", {"messages": [user("Q"), {"role": "tool", "content": ""}]}, 'messages[1].role is "tool", not one of'),
    ("openai", {"messages": [user("Q"), {"role": ["x"], "content": ""}]}, 'messages[1].role is ["x"], not one of'),
    ("openai", {"messages": [user("Q"), {"role": "assistant"}]}, "messages[1].content is missing"),
    ("openai", {"messages": [user("Q"), assistant("A") | {"tool_calls": [{}]}]}, "messages[1] calls a tool"),
    ("openai", {"messages": [user("Q"), SYSTEM, assistant("A")]}, 'messages[1].role is "system"; only the first'),
    ("openai", {"prompt": "Q"}, "neither messages nor input.messages"),
    ("openai", {"input": {"messages": TALK}, "preferred_output": []}, "preferred_output is [], not a list of messages"),
    ("sharegpt", {"conversations": [{"from": "human", "value": "Q"}]}, "conversations hold no turn of gpt"),
    ("sharegpt", {"conversations": [GPT]}, "prompt is missing"),
    ("sharegpt", {"conversations": [{"from": "dog", "value": "Q"}, GPT]}, 'conversations[0].from is "dog", not one of'),
    ("ultrafeedback", {"instruction": "Q", "completions": [1, 2]}, "completions[0] is 1, not an object"),
    ("ultrafeedback", {"instruction": "Q", "completions": [{}, {}]}, "completions[0].response is missing"),
    ("ultrafeedback", {}, "chosen is null, not a list of messages"),
]


@pytest.mark.parametrize(("form", "row", "reason"), REFUSED)
def test_refused(form: str, row: dict[str, Any], reason: str) -> None:
    with pytest.raises((Refused, ValidationError)) as caught:
        IMPORTS[form](row, Origin(form, "human", "somebody", datetime.now(UTC)))
    assert reason_of(caught.value).startswith(reason)
    assert len(reason_of(caught.value)) < 120
