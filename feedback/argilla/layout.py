"""What a rater sees: fields, questions and guidelines of a labelling project, by its number of responses."""

from typing import Any

from feedback.schema import BOTH_BAD, TIE

# Argilla's own limit of a ranking question.
MOST_RESPONSES = 50
RATINGS = {
    "truthful": "how truthful? 1 made up, 5 all true",
    "helpful": "how helpful? 1 useless, 5 all that was asked for",
}
HALLUCINATED = "hallucinated"

_TRUTH = """\
## What counts

1. **Truthful before helpful.** An answer that states something false loses to one that does not, however well it reads.
2. **Not knowing is better than inventing.** "I don't know" beats a made-up fact. It loses to a right answer.
3. Where a context is shown, what it does not say counts as made up.
4. Only then: which one helps more with what was asked. Length and polish are no merit.

Check what you are not sure of. If you can't find out, discard the record.
"""
_FORM = """\
## The form

- **A better answer**: what you would have said, if you like to write it. It becomes training data: true, and short.
- **Why**: a line for whoever disagrees with you.
- **Submit** when you are done. **Discard** what can't be judged. **Save as draft** to come back to it: drafts are \
behind the word *Pending* above the record, as is all that you sent.
"""
# Tried in a browser, key by key (tests/browser/test_labelling.py).
_KEYS = """\
- `↓` next question, `↑` the one before
- `Shift+Enter` write, `Esc` stop writing
- `Enter` submit, `Ctrl+S` save as draft, `Backspace` discard
- `→` next record, `←` the one before
"""
_MARKS = """\
- **What is made up**: press `1` there or click on it, then draw the mouse over those words of the answer, no others.
"""
PAIR_GUIDELINES = f"""\
Which of the two answers would you rather have been given? They stand in random order.

{_TRUTH}
## The choice

- **A** or **B**: the better one. **Tie**: equally good. **Both bad**: neither should ever be given.
- All else is optional.

{_FORM}{_MARKS}
## By keyboard

- `1` A, `2` B, `3` tie, `4` both bad; `1` to `5` a rating
{_KEYS}"""
SINGLE_GUIDELINES = f"""\
How good is this answer? Rate its truth; write a better one if you can.

{_TRUTH}
{_FORM}{_MARKS}
## By keyboard

- `1` to `5` a rating
{_KEYS}"""
RANK_GUIDELINES = f"""\
Put the answers in order, the best first. Answers that are equally good share a place. They stand in random order.

{_TRUTH}
{_FORM}
## By keyboard

- A digit puts the framed answer in that place and goes on to the next; `Tab` leaves one out
{_KEYS}"""


def marks(responses: int) -> tuple[str, ...]:
    """What the answers are called on the page, by position."""
    if responses == 1:
        return ("answer",)
    return ("A", "B") if responses == 2 else tuple(str(place) for place in range(1, responses + 1))


def field_of(mark: str) -> str:
    """The name of the field that holds the answer at this position."""
    return "response" if mark == "answer" else f"response_{mark.lower()}"


def question_of(about: str, mark: str) -> str:
    """The name of the question about the answer at this position, e.g. its truth."""
    return about if mark == "answer" else f"{about}_{mark.lower()}"


def guidelines(responses: int) -> str:
    return {1: SINGLE_GUIDELINES, 2: PAIR_GUIDELINES}.get(responses, RANK_GUIDELINES)


def fields(responses: int) -> list[dict[str, Any]]:
    """The fields, as Argilla's interface takes them. Nothing is read as Markdown: model text stays text."""
    plain = {"type": "text", "use_markdown": False}
    return [
        _named("prompt", "Prompt", {"type": "chat", "use_markdown": False}, required=True),
        _named("context", "Context", plain, required=False),
        *(_named(field_of(mark), _title(mark), plain, required=True) for mark in marks(responses)),
    ]


def questions(responses: int) -> list[dict[str, Any]]:
    """The questions, in the order of the form; the first is required and takes the keyboard.

    A digit answers a question and goes on to the next: ratings stand last, so that a key that is pressed twice rates
    nothing.
    """
    plain = {"type": "text", "use_markdown": False}
    texts = [_named("rewrite", "A better answer", plain, False), _named("rationale", "Why", plain, False)]
    if responses > 2:
        places = {field_of(mark): _title(mark) for mark in marks(responses)}
        return [_named("ranking", "Best first; ties share a place", _labels("ranking", places), True), *texts]
    spans = [
        _named(
            question_of(HALLUCINATED, mark),
            f"{_title(mark)}: what is made up?",
            _labels("span", {HALLUCINATED: "Made up"}) | {"field": field_of(mark)},
            False,
        )
        for mark in marks(responses)
    ]
    scale = {"type": "rating", "options": [{"value": value} for value in range(1, 6)]}
    ratings = [
        _named(question_of(about, mark), f"{_title(mark)}: {meaning}", scale, False)
        for mark in marks(responses)
        for about, meaning in RATINGS.items()
    ]
    if responses == 1:
        # Argilla wants one required question: on a single answer it is the truth.
        first = ratings.pop(0) | {"required": True}
    else:
        choices = {"A": "A is better", "B": "B is better", TIE: "Tie", BOTH_BAD: "Both bad"}
        first = _named("preference", "Which answer is better?", _labels("label_selection", choices), True)
    return [first, *spans, *texts, *ratings]


def _title(mark: str) -> str:
    return "Answer" if mark == "answer" else f"Answer {mark}"


def _labels(kind: str, options: dict[str, str]) -> dict[str, Any]:
    return {"type": kind, "options": [{"value": value, "text": text} for value, text in options.items()]}


def _named(name: str, title: str, settings: dict[str, Any], required: bool) -> dict[str, Any]:
    return {"name": name, "title": title, "required": required, "settings": settings}
