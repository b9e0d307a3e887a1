"""What filters, orders and texts mean, in plain Python: random ones, and random records to hold them against."""

import random
import uuid
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from tests.feedback.argilla.searching import LABELS, TAGS, Given

WORDS = "red green blue yellow black white reddish greenish".split()
AGENTS = ["gpt-7", "judge: v2", "people"]
PROPERTIES = ("id", "external_id", "status", "inserted_at", "updated_at")

Scope = dict[str, Any]
Meaning = Callable[[list[list[str]]], bool]

RECORD: dict[str, Scope] = {name: {"entity": "record", "property": name} for name in PROPERTIES}
METADATA: dict[str, Scope] = {
    name: {"entity": "metadata", "metadata_property": name} for name in ("source", "length", "margin")
}
STATUS: Scope = {"entity": "response", "property": "status"}


def suggested(question: str, what: str = "value") -> Scope:
    return {"entity": "suggestion", "question": question, "property": what}


def answered(question: str) -> Scope:
    return {"entity": "response", "question": question}


def terms(scope: Scope, *values: Any) -> dict[str, Any]:
    return {"type": "terms", "scope": scope, "values": list(values)}


def between(scope: Scope, low: Any = None, high: Any = None) -> dict[str, Any]:
    bounds = {name: bound for name, bound in (("ge", low), ("le", high)) if bound is not None}
    return {"type": "range", "scope": scope, **bounds}


def some_record(rng: random.Random, number: int) -> Given:
    """A record with most of what a record can have."""

    def maybe(**value: Any) -> dict[str, Any]:
        return {} if rng.random() < 0.3 else value

    record = Given(
        name=f"r-{number:03d}",
        fields={"prompt": [{"role": "user", "content": _words(rng, 4)}], "one": _words(rng, 6)}
        | maybe(two=_words(rng, 3))
        | maybe(more={"note": _words(rng, 2)}),
        metadata=maybe(source=rng.choice(["web", "book", ["web", "book"], """it's "quoted", 100%"""]))
        | maybe(length=rng.randrange(-5, 15))
        | maybe(margin=rng.choice([-0.5, 0.25, 0.3, 1.5, 1e-7, 12345678.9])),
        vector=[round(rng.uniform(-1, 1), 3) for _ in range(3)] if rng.random() < 0.8 else None,
    )
    values = {"choice": rng.choice(LABELS), "tags": rng.sample(TAGS, rng.randint(1, 3)), "quality": rng.randint(1, 5)}
    for question, value in (values | {"why": _words(rng, 2)}).items():
        if rng.random() < 0.6:
            scores = [rng.choice([0.1, 0.5, 1.0]) for _ in listed(value)]
            about = maybe(score=scores if isinstance(value, list) else rng.choice([0, 0.25, 0.5, 1]))
            about |= maybe(agent=rng.choice(AGENTS)) | maybe(type=rng.choice(["model", "human"]))
            record.suggestions[question] = {"value": value, **about}
    for person in ("ann", "bob"):
        if rng.random() < 0.6:
            record.answers[person] = {
                "status": rng.choice(["submitted", "draft", "discarded"]),
                "choice": rng.choice(LABELS),
                **maybe(tags=rng.sample(TAGS, rng.randint(1, 3))),
                **maybe(quality=rng.randint(1, 5)),
                **maybe(rank=[{"value": "one", "rank": 1}, {"value": "two", "rank": 1}]),
            }
    return record


def values_of(record: Given, scope: Scope, person: str | None) -> list[Any]:
    """What a record has in some respect: nothing, one value or several."""
    answers = [answer for name, answer in record.answers.items() if person in (None, name)]
    question = str(scope.get("question"))
    if scope["entity"] == "record":
        submitted = sum(answer["status"] == "submitted" for answer in record.answers.values())
        known = {"status": "completed" if submitted >= 2 else "pending", "external_id": record.name}
        found = known.get(scope["property"]) or getattr(record, scope["property"])
    elif scope["entity"] == "metadata":
        found = record.metadata.get(scope["metadata_property"])
    elif scope["entity"] == "suggestion":
        found = record.suggestions.get(question, {}).get(scope["property"])
    elif scope == STATUS:
        found = [answer["status"] for answer in answers] or ["pending"]
    else:
        found = [value for answer in answers if question in answer for value in listed(answer[question])]
    return [] if found is None else listed(found)


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def passes(record: Given, wanted: dict[str, Any], person: str | None) -> bool:
    """Whether a filter lets a record through, for a person or for all."""
    values = values_of(record, wanted["scope"], person)
    if wanted["type"] == "terms":
        return any(value in wanted["values"] for value in values)
    low, high = wanted.get("ge"), wanted.get("le")
    return any((low is None or value >= low) and (high is None or value <= high) for value in values)


def every_filter(rng: random.Random, records: Sequence[Given]) -> list[dict[str, Any]]:
    """One filter of each kind, with values drawn from what there is."""

    def some(scope: Scope, nothing: Any) -> list[Any]:
        there = [value for each in records for value in values_of(each, scope, None)]
        return [*rng.sample(there, min(len(there), rng.randint(1, 2))), nothing]

    def bounds(scope: Scope) -> dict[str, Any]:
        there = [value for each in records for value in values_of(each, scope, None)]
        low, high = sorted(rng.choice(there) for _ in range(2))
        return between(scope, *rng.choice([(low, None), (None, high), (low, high)]))

    numbers = [METADATA["length"], METADATA["margin"], answered("quality"), suggested("quality")]
    numbers += [suggested(question, "score") for question in ("choice", "tags", "quality", "why")]
    words = [METADATA["source"], RECORD["external_id"], RECORD["status"], answered("choice"), answered("tags")]
    words += [suggested(name, each) for name in ("choice", "tags", "why") for each in ("value", "agent", "type")]
    return [
        *(terms(scope, *some(scope, 99)) for scope in numbers),
        *(terms(scope, *some(scope, "nothing")) for scope in words),
        *(bounds(scope) for scope in [*numbers, METADATA["source"], RECORD["external_id"]]),
        *(bounds(RECORD[name]) for name in ("inserted_at", "updated_at")),
        terms(RECORD["id"], *some(RECORD["id"], str(uuid.uuid4()))),
        terms(RECORD["inserted_at"], *some(RECORD["inserted_at"], "2020-01-01T00:00:00")),
        terms(STATUS, *rng.sample(["pending", "draft", "submitted", "discarded"], rng.randint(1, 4))),
    ]


def some_text(rng: random.Random, depth: int = 0) -> tuple[str, Meaning]:
    """A query, and what it means for a record, given as the words of its fields."""
    kind = rng.choice(["word", "word", "beginning", "phrase", "not", "group"]) if depth < 3 else "word"
    if kind == "not":
        query, meaning = some_text(rng, depth + 1)
        return f"-{query}", lambda fields: not meaning(fields)
    if kind == "group":
        query, meaning = some_text(rng, depth + 1)
        for _ in range(rng.randint(1, 3)):
            more, other = some_text(rng, depth + 1)
            operator = rng.choice([" ", " + ", " | ", "|"])
            query, meaning = f"{query}{operator}{more}", _joined(meaning, other, either="|" in operator)
        return f"({query})", meaning
    first, second = rng.choice(WORDS), rng.choice(WORDS)
    if kind == "phrase":
        return f'"{first} {second}"', lambda fields: any((first, second) in pairwise(words) for words in fields)
    if kind == "beginning":
        return f"{first[:3]}*", lambda fields: any(word.startswith(first[:3]) for words in fields for word in words)
    return rng.choice([first, first.upper()]), lambda fields: any(first in words for words in fields)


def words_of(record: Given, field: str | None) -> list[list[str]]:
    """The words of a record's fields, or of one."""
    texts = record.fields | {"prompt": record.fields["prompt"][0]["content"]}
    texts["more"] = texts.get("more", {}).get("note", "")
    return [text.split() for name, text in texts.items() if field in (None, name)]


def some_order(rng: random.Random) -> dict[str, Any]:
    scopes = [*RECORD.values(), *METADATA.values(), STATUS]
    scopes += [answered(question) for question in ("choice", "tags", "quality")]
    scopes += [suggested(q, p) for q in ("choice", "tags", "quality") for p in ("value", "score", "agent", "type")]
    return {"scope": rng.choice(scopes), "order": rng.choice(["asc", "desc"])}


def key(record: Given, order: dict[str, Any], person: str | None) -> Any:
    """What a record is put by: the mean of several people's numbers, else the value that the order asks for first."""
    scope = order["scope"]
    values = values_of(record, scope, person)
    if not values or (scope == STATUS and values == ["pending"]):
        return None
    if scope["entity"] == "response" and isinstance(values[0], int):
        return sum(values) / len(values)
    return (min if order["order"] == "asc" else max)(values)


def in_order(keys: Sequence[Sequence[Any]], orders: Sequence[dict[str, Any]]) -> list[Sequence[Any]]:
    """The keys sorted; what is missing comes last in both directions."""
    result = list(keys)
    for i, order in reversed(list(enumerate(orders))):
        there = sorted((k for k in result if k[i] is not None), key=lambda k: k[i], reverse=order["order"] == "desc")
        result = there + [k for k in result if k[i] is None]
    return result


def _joined(one: Meaning, other: Meaning, either: bool) -> Meaning:
    if either:
        return lambda fields: one(fields) or other(fields)
    return lambda fields: one(fields) and other(fields)


def _words(rng: random.Random, n: int) -> str:
    return " ".join(rng.choices(WORDS, k=n))
