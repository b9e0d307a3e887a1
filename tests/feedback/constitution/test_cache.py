"""What was answered is found again by the same request of the same model, and by no other."""

from dataclasses import fields
from pathlib import Path

import pytest

from feedback.cache import FILE
from feedback.constitution.cache import AnswerCache, request_key
from feedback.constitution.generators import Answer, Request
from feedback.errors import UserError
from feedback.schema import Message, user_message

REQUEST = Request(user_message("Who?"), max_tokens=5, temperature=0.5, n=2, seed=1, options=("A", "B"))


def test_every_part_of_a_request_and_the_model_make_the_key() -> None:
    others = {
        "messages": (Message(role="system", content="Who?"), *user_message("Who?")),
        "max_tokens": 6,
        "temperature": 0.6,
        "n": 3,
        "seed": 2,
        "options": ("B", "A"),
    }
    assert {field.name for field in fields(Request)} == set(others)
    keys = [request_key("m", REQUEST), request_key("other", REQUEST)]
    keys += [request_key("m", Request(**{**vars(REQUEST), name: value})) for name, value in others.items()]
    assert len(set(keys)) == len(keys)
    assert request_key("m", Request(**vars(REQUEST))) == keys[0]


def test_answers_come_back_whole_and_marked_as_known(tmp_path: Path) -> None:
    answers = {
        "texts": Answer(("ä\n猫", "", "🐈"), tokens=12),
        "options": Answer(("A",), (-0.1, -2.302585092994046), 7),
    }
    with AnswerCache(tmp_path / "made" / "here") as cache:
        cache.put(answers.items())
        assert cache.get("nothing") is None
    with AnswerCache(tmp_path / "made" / "here") as again:
        for key, answer in answers.items():
            found = again.get(key)
            assert found is not None
            assert (found.texts, found.options, found.tokens) == (answer.texts, answer.options, answer.tokens)
            assert found.cached


def test_an_answer_that_could_not_be_had_is_not_kept(tmp_path: Path) -> None:
    with AnswerCache(tmp_path) as cache:
        cache.put([("bad", Answer(error="no answer")), ("good", Answer(("yes",)))])
        assert cache.get("bad") is None
        assert cache.get("good") is not None


def test_two_jobs_share_it(tmp_path: Path) -> None:
    with AnswerCache(tmp_path) as one, AnswerCache(tmp_path) as other:
        one.put([("a", Answer(("from one",)))])
        other.put([("b", Answer(("from the other",)))])
        assert [cache.get(key) is not None for cache in (one, other) for key in "ab"] == [True] * 4


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("no database " * 1000)
    with pytest.raises(UserError, match=r"answers.sqlite: can't be read.*delete it"):
        AnswerCache(tmp_path)
