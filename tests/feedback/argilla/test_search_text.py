"""What people type into the search box, word by word, against the running server."""

import random

import pytest

from feedback.workspace import Workspace
from tests.feedback.argilla.searching import Given, Project, make_project
from tests.feedback.argilla.serving import call

TEXTS = {
    "cafe": {
        "prompt": [{"role": "user", "content": "Where is the Café?"}, {"role": "assistant", "content": "In Łódź."}],
        "one": "It's state-of-the-art; don't miss it.",
        "two": "The café has closed for good",
    },
    "combining": {"one": "cafe\u0301 au lait"},
    "tokyo": {"one": "東京は日本の首都です。", "two": "Tokyo is the capital of Japan"},
    "kyoto": {"one": "京都は古い都です。"},
    "thai": {"one": "สวัสดีครับ ยินดีต้อนรับ"},
    "korean": {"one": "서울은 한국의 수도이다"},
    "russian": {"one": "Москва — столица России"},
    "arabic": {"one": "القاهرة عاصمة مصر"},
    "wide": {"one": "ＦＵＬＬＷＩＤＴＨ ﬁnd"},
    "sql": {"one": """Robert'); DROP TABLE records; -- "quoted" 100% a_b c++ NOT OR AND NEAR"""},
    "html": {"one": "<script>alert('cafeteria')</script> data: closed", "picture": "https://example.org/tokyo.png"},
    "custom": {"one": "-", "more": {"note": "mountain", "deep": [{"content": "river"}, 42]}},
    "data": {"one": "data:text/plain, which is a text that begins like an address"},
}


@pytest.fixture(scope="module")
def texts(labelling_server: Workspace) -> Project:
    return make_project(labelling_server, [Given(name, fields) for name, fields in TEXTS.items()])


@pytest.mark.parametrize(
    ("query", "field", "found"),
    [
        ("closed", None, "cafe html"),
        ("CLOSED", None, "cafe html"),
        # Words may stand in different fields; with a field named they may not.
        ("where closed", None, "cafe"),
        ("where closed", "two", ""),
        ("closed", "two", "cafe"),
        ("closed", "prompt", ""),
        ("miss", "one", "cafe"),
        ("where", "prompt", "cafe"),
        ("in", "prompt", "cafe"),
        ("mountain", "more", "custom"),
        ("mountain river 42", None, "custom"),
        ("mountain", "one", ""),
        # An image's address is no text.
        ("example", None, ""),
        ("tokyo", None, "tokyo"),
        ("tokyo", "picture", ""),
        ("address", None, "data"),
        # A role is no text either.
        ("assistant", None, ""),
        # Accents and case.
        ("cafe", None, "cafe combining"),
        ("café", None, "cafe combining"),
        ("cafe\u0301", None, "cafe combining"),
        ("CAFÉ", None, "cafe combining"),
        ("москва", None, "russian"),
        ("القاهرة", None, "arabic"),
        ("fullwidth", None, "wide"),
        ("ｆｉｎｄ", None, "wide"),
        ("한국의", None, "korean"),
        ("한국*", None, "korean"),
        # Scripts without spaces: any part of a sentence.
        ("東京", None, "tokyo"),
        ("京都", None, "kyoto"),
        ("都", None, "tokyo kyoto"),
        ("首都です", None, "tokyo"),
        ("京日", None, ""),
        ("東京 capital", None, "tokyo"),
        ("สวัสดี", None, "thai"),
        # Phrases.
        ('"has closed"', None, "cafe"),
        ('"closed has"', None, ""),
        ('"for good" cafe', None, "cafe"),
        ('"café has closed" "the"', None, "cafe"),
        ("state-of-the-art", None, "cafe"),
        ("don't", None, "cafe"),
        ('"don t"', None, "cafe"),
        ('"is the capital"~2', None, "tokyo"),
        # Beginnings.
        ("caf*", None, "cafe combining html"),
        ("cafe*", None, "cafe combining html"),
        ("ca*", None, "cafe combining tokyo html"),
        ("cafet", None, ""),
        ("clos* goo*", None, "cafe"),
        ("state-of-th*", None, "cafe"),
        ('"caf*"', None, ""),
        # Either, both, not, brackets: from left to right.
        ("tokyo | москва", None, "tokyo russian"),
        ("tokyo|москва", None, "tokyo russian"),
        ("closed + good", None, "cafe"),
        ("closed -good", None, "html"),
        ("closed --good", None, "cafe"),
        ("closed - good", None, "cafe"),
        ("-closed -a -data", None, " ".join(sorted(set(TEXTS) - {"cafe", "html", "sql", "data"}))),
        ("tokyo | closed good", None, "cafe"),
        ("tokyo | (closed good)", None, "cafe tokyo"),
        ("(tokyo | closed) good", None, "cafe"),
        ("closed -(good | tokyo)", None, "html"),
        ("closed -(good tokyo)", None, "cafe html"),
        ("tokyo | -closed", None, " ".join(sorted(set(TEXTS) - {"cafe", "html"}))),
        ("-closed", "two", " ".join(sorted(set(TEXTS) - {"cafe"}))),
        ("closd~1", None, ""),
        ("closed~1", None, "cafe html"),
        # Signs that mean something in FTS5, in SQL, or nothing.
        ("drop table records", None, "sql"),
        ("'); DROP TABLE records; --", None, "sql"),
        ("NOT", None, "sql"),
        ("NEAR", None, "sql"),
        ("AND OR", None, "sql"),
        ("f0:closed", None, ""),
        ("one:closed", None, ""),
        ("closed ; : ^ { }", None, "cafe html"),
        ("a\\_b", None, "sql"),
        ("a_b", None, "sql"),
        ('\\"quoted\\"', None, "sql"),
        ('"\\"quoted\\" 100"', None, "sql"),
        ("100%", None, "sql"),
        ("quoted\0table", None, "sql"),
        ("(closed", None, "cafe html"),
        ("closed)", None, "cafe html"),
        ('"closed', None, "cafe html"),
        ("closed |", None, "cafe html"),
        ("| closed", None, "cafe html"),
        ("() closed", None, "cafe html"),
        ('"" closed', None, "cafe html"),
        ("closed\\", None, "cafe html"),
        # Without a word there is nothing to be found.
        ("", None, ""),
        ("!!!", None, ""),
        ("*", None, ""),
        ("( | )", None, ""),
    ],
)
def test_text(texts: Project, query: str, field: str | None, found: str) -> None:
    assert sorted(texts.search(query, field=field)) == sorted(found.split())


def test_no_text_is_too_strange(texts: Project) -> None:
    rng = random.Random(0)
    signs = """ ()"'*+-|~\\:^{}[]<>,.;%_#@!?=&/\t\n\0\u0301\u200d\u202e👩🦊東a1é𝕏ﷺ"""
    strange = ["".join(rng.choices(signs, k=rng.randint(1, 30))) for _ in range(150)]
    strange += ["(" * 5000, '"' * 4999, "-" * 5000, "\\" * 4999, "a|" * 2000, "a -b " * 800, "x*" * 2000]
    strange += ["(a " * 15 + ")" * 15, "a" * 9999, " ".join(map(str, range(1800)))]
    for text in strange:
        found = texts.search(text)
        assert set(texts.search(text, field="one")) <= set(found) or "-" in text
    assert texts.search("closed good") == ["cafe"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [("word " * 5000, "characters"), ("(" * 50 + "a" + ")" * 50, "brackets"), ("a|b c|d " * 50, "brackets")],
)
def test_a_text_without_measure_is_refused(texts: Project, text: str, reason: str) -> None:
    with pytest.raises(AssertionError, match=reason):
        texts.search(text)


def test_the_index_follows_each_change(labelling_server: Workspace) -> None:
    project = make_project(labelling_server, [Given("one", {"one": "apple"}), Given("two", {"one": "banana"})])
    assert project.search("apple") == ["one"]
    first, second = project.records["one"].id, project.records["two"].id
    call(labelling_server, "PATCH", f"records/{first}", {"fields": {"one": "cherry"}})
    assert (project.search("apple"), project.search("cherry")) == ([], ["one"])
    again = {
        "items": [
            {"external_id": "two", "fields": {"one": "damson"}},
            {"external_id": "three", "fields": {"one": "elder"}},
        ]
    }
    call(labelling_server, "PUT", f"datasets/{project.id}/records/bulk", again)
    assert (project.search("banana"), project.search("damson | elder")) == ([], ["two", "three"])
    call(labelling_server, "DELETE", f"datasets/{project.id}/records?ids={second}")
    assert project.search("damson | elder | cherry") == ["one", "three"]
    call(labelling_server, "DELETE", f"records/{first}")
    assert project.search("damson | elder | cherry") == ["three"]
    call(labelling_server, "DELETE", f"datasets/{project.id}")
    other = make_project(labelling_server, [Given("one", {"one": "damson"})])
    assert other.search("damson | elder | cherry") == ["one"]
