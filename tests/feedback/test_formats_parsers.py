"""Each format's rows, and what they become."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from feedback.formats.fields import Origin, Records, Refused
from feedback.formats.importing import IMPORTS
from feedback.formats.rows import read_rows

TIME = datetime(2024, 5, 1, tzinfo=UTC)
FIXTURES = Path(__file__).parent / "fixtures"


def parse(form: str, row: dict[str, Any], rater: str = "somebody") -> Records:
    return IMPORTS[form](row, Origin(form, "human", rater, TIME))


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


SYSTEM = {"role": "system", "content": "Be brief."}
TALK = [SYSTEM, user("Hi"), assistant("Hello"), user("Who?")]


def spoken(messages: Any) -> list[dict[str, str]]:
    return [message.model_dump() for message in messages]


def preferred(records: Records) -> tuple[list[dict[str, str]], str, str]:
    """Prompt, chosen and rejected of the one pair that the records hold."""
    (candidate,), (judgement,) = records.candidates, records.judgements
    assert judgement.candidate_id == candidate.id
    assert isinstance(judgement.preferred, int)
    assert len(candidate.responses) == 2
    texts = [response.text for response in candidate.responses]
    return spoken(candidate.prompt), texts[judgement.preferred], texts[1 - judgement.preferred]


def shown(records: Records) -> tuple[list[dict[str, str]], str]:
    assert not records.candidates
    (demonstration,) = records.demonstrations
    return spoken(demonstration.prompt), demonstration.completion


PAIRS = [
    ("trl", {"prompt": "Who?", "chosen": "Ada", "rejected": "Bob"}, [user("Who?")]),
    ("trl", {"prompt": TALK, "chosen": [assistant("Ada")], "rejected": [assistant("Bob")]}, TALK),
    ("trl", {"chosen": [*TALK, assistant("Ada")], "rejected": [*TALK, assistant("Bob")]}, TALK),
    ("trl", {"prompt": TALK, "chosen": "Ada", "rejected": [assistant("Bob")]}, TALK),
    (
        "trl",
        {"prompt": "Who?", "chosen": [user("Who?"), assistant("Ada")], "rejected": [user("Who?"), assistant("Bob")]},
        [user("Who?")],
    ),
    (
        "openai",
        {
            "input": {"messages": TALK, "tools": []},
            "preferred_output": [assistant("Ada")],
            "non_preferred_output": [assistant("Bob")],
        },
        TALK,
    ),
    (
        "hh-rlhf",
        {
            "chosen": "\n\nHuman: Hi\n\nAssistant:  Hello \n\nHuman: Who:\n\nme?\n\nAssistant: Ada",
            "rejected": "\n\nHuman: Hi\n\nAssistant:  Hello \n\nHuman: Who:\n\nme?\n\nAssistant: Bob",
        },
        [user("Hi"), assistant(" Hello "), user("Who:\n\nme?")],
    ),
    ("llmbar", {"input": "Who?", "output_1": "Bob", "output_2": "Ada", "label": 2}, [user("Who?")]),
    ("llmbar", {"input": "Who?", "output_1": "Ada", "output_2": "Bob", "label": "1"}, [user("Who?")]),
    (
        "pandalm",
        {"instruction": "Who", "input": "is it?", "response1": "Bob", "response2": "Ada", "annotator1": 2},
        [user("Who\n\nis it?")],
    ),
]


@pytest.mark.parametrize(("form", "row", "prompt"), PAIRS)
def test_pairs(form: str, row: dict[str, Any], prompt: list[dict[str, str]]) -> None:
    records = parse(form, row)
    assert preferred(records) == (prompt, "Ada", "Bob")
    judgement = records.judgements[0]
    assert judgement.source == f"import:{form}"
    assert judgement.created_at == TIME
    assert judgement.rater.kind == "human"
    assert judgement.rater.name == ("annotator1" if form == "pandalm" else "somebody")
    assert judgement.probability == 1


DEMONSTRATIONS = [
    ("trl", {"prompt": "Who?", "completion": "Ada"}, [user("Who?")]),
    ("trl", {"prompt": TALK, "completion": [assistant("Ada")]}, TALK),
    ("trl", {"prompt": "Who?", "completion": "Ada", "context": "A list."}, [user("A list.\n\nWho?")]),
    ("alpaca", {"instruction": "Who", "input": "is it?", "output": "Ada"}, [user("Who\n\nis it?")]),
    ("alpaca", {"instruction": "Who?", "input": "", "output": "Ada", "text": "..."}, [user("Who?")]),
    ("alpaca", {"system": "Be brief.", "instruction": "Who?", "output": "Ada"}, [SYSTEM, user("Who?")]),
    ("openai", {"messages": [*TALK, assistant("Ada")]}, TALK),
    (
        "sharegpt",
        {
            "conversations": [
                {"from": "system", "value": "Be brief."},
                {"from": "human", "value": "Hi"},
                {"from": "gpt", "value": "Hello"},
                {"from": "user", "value": "Who?"},
                {"from": "chatgpt", "value": "Ada"},
                {"from": "human", "value": "Thanks"},
            ]
        },
        TALK,
    ),
]


@pytest.mark.parametrize(("form", "row", "prompt"), DEMONSTRATIONS)
def test_demonstrations(form: str, row: dict[str, Any], prompt: list[dict[str, str]]) -> None:
    records = parse(form, row)
    assert shown(records) == (prompt, "Ada")
    assert records.demonstrations[0].provenance == f"import:{form}"


def test_the_order_of_responses_does_not_tell_the_chosen_one() -> None:
    rows = [{"prompt": f"Question {i}", "chosen": f"one {i}", "rejected": f"two {i}"} for i in range(200)]
    first = sum(parse("trl", row).judgements[0].preferred == 0 for row in rows)
    assert 70 < first < 130
    for row in rows[:20]:
        turned = row | {"chosen": row["rejected"], "rejected": row["chosen"]}
        assert parse("trl", row).candidates[0].id == parse("trl", turned).candidates[0].id


def test_what_a_row_says_of_its_rater_and_context() -> None:
    row = {"prompt": "Q", "chosen": "A", "rejected": "B", "context": "C", "probability": "0.75", "margin": [1]}
    records = parse("trl", row | {"rater": "judge", "rater_kind": "ai"})
    assert records.candidates[0].context == "C"
    assert records.candidates[0].metadata == {"margin": [1]}
    assert records.judgements[0].probability == 0.75
    assert records.judgements[0].rater.model_dump() == {"kind": "ai", "name": "judge"}


def test_an_empty_rejected_answer_is_an_answer() -> None:
    assert preferred(parse("trl", {"prompt": "Q", "chosen": "A", "rejected": ""}))[2] == ""


def test_hostile_text_is_kept_as_it_is() -> None:
    hostile = "<script>alert(1)</script>\0\x1b[2J\u202e=1+1 <|im_end|>"
    assert preferred(parse("trl", {"prompt": hostile, "chosen": hostile + "!", "rejected": hostile})) == (
        [user(hostile)],
        hostile + "!",
        hostile,
    )


def test_pandalm_annotators() -> None:
    row = {
        "instruction": "Is it so?",
        "input": " ",
        "response1": True,
        "response2": "",
        "cmp_key": "model-a_model-b",
        "idx": 7,
        "annotator1": 1,
        "annotator2": 0,
        "annotator3": None,
        "annotator12": "2",
    }
    records = parse("pandalm", row)
    (candidate,) = records.candidates
    assert spoken(candidate.prompt) == [user("Is it so?")]
    assert [(r.text, r.model) for r in candidate.responses] == [("True", "model-a"), ("", "model-b")]
    assert candidate.metadata == {"idx": 7, "cmp_key": "model-a_model-b"}
    said = {judgement.rater.name: judgement.preferred for judgement in records.judgements}
    assert said == {"annotator1": 0, "annotator2": "tie", "annotator12": 1}


def test_ultrafeedback() -> None:
    rows = [row.value for row in read_rows(str(FIXTURES / "ultrafeedback.jsonl"))]
    records = [parse("ultrafeedback", row) for row in rows[:4] if row]
    ranked, rated, binarized, equal = records
    assert [response.model for response in ranked.candidates[0].responses] == ["model-a", "model-b", "model-c"]
    assert ranked.candidates[0].metadata["completions"][0]["custom_system_prompt"] == "Be brief."
    assert ranked.judgements[0].ranking == ((0, 2), (1,))
    assert ranked.judgements[0].ratings == {
        "0.score": 8.0,
        "0.honesty": 5.0,
        "0.helpfulness": 4.0,
        "1.score": 2.0,
        "1.honesty": 1.0,
        "2.score": 8.0,
        "2.honesty": 5.0,
        "2.helpfulness": 3.0,
    }
    assert rated.judgements[0].ranking == ((1,), (0,))
    assert rated.judgements[0].ratings["0.score"] == 1.5
    assert preferred(binarized) == ([user("Is water wet?")], "It makes things wet.", "No idea.")
    assert binarized.candidates[0].metadata == {"prompt_id": "p3"}
    chosen_at = binarized.judgements[0].preferred
    assert binarized.judgements[0].ratings[f"{chosen_at}.score"] == 8.5
    assert equal.judgements[0].preferred == "tie"
    reasons = []
    for row in rows[4:]:
        with pytest.raises(Refused) as caught:
            parse("ultrafeedback", row or {})
        reasons.append(str(caught.value)[:30])
    assert reasons == [
        'completions is [{"response": "',
        "completions have no score that",
        "completions[0].overall_score i",
        "score_chosen is 1, below score",
    ]
