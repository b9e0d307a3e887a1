"""People label in a real browser, by the keys that the guidelines name, and pull finds what they did."""

from typing import Any
from urllib.parse import urlsplit

import pytest

from feedback.argilla import order as orders
from feedback.argilla.layout import PAIR_GUIDELINES
from feedback.argilla.project import project_name, sides
from feedback.argilla.pull import pull
from feedback.argilla.push import push
from feedback.database import Database
from feedback.schema import BOTH_BAD, TIE, Candidate, Judgement, Message, Rater, Response, Status, user_message
from feedback.workspace import Workspace
from tests.browser.labelling import RECORD, LabellingPage
from tests.feedback.argilla.people import beside, candidate, store

WORDY = "🔭 launched in 2021 <b>by</b> 1 < 2 people.\r\nNobody knows &amp; nobody 🔭 asked 😀"


@pytest.fixture
def workspace(workspace: Workspace, labelling_server: Workspace) -> Workspace:
    return beside(labelling_server, workspace)


def quiet(line: str) -> None:
    pass


def pushed(workspace: Workspace, *candidates: Candidate) -> str:
    collection = store(workspace, *candidates)
    assert push(workspace, collection, quiet).refused == {}
    return collection


def pulled(workspace: Workspace, collection: str) -> dict[Status, list[Judgement]]:
    pull(workspace, collection, quiet)
    with Database(workspace.database) as database:
        statuses: tuple[Status, ...] = ("submitted", "draft", "discarded")
        return {status: list(database.judgements([collection], status)) for status in statuses}


def test_a_pair_is_labelled_with_the_keyboard_alone(
    page: Any, labelling_server: Workspace, workspace: Workspace
) -> None:
    tab, seen = page
    pairs = [candidate(number) for number in range(6)]
    by_prompt = {pair.prompt[-1].content: pair for pair in pairs}
    collection = pushed(workspace, *pairs)
    ann = LabellingPage(tab, labelling_server).as_rater("ann-of-pairs").open(collection)
    done: list[Candidate] = []

    def next_pair() -> Candidate:
        ann.wait_for_focus("preference")
        done.append(by_prompt[ann.prompt])
        return done[-1]

    # All that the form asks, from the first question to the last.
    full = next_pair()
    ann.press("2", then="hallucinated_a")
    # A key that is pressed twice says nothing more.
    ann.press("2", then="hallucinated_a")
    ann.press("ArrowDown", then="hallucinated_b")
    ann.press("ArrowUp", then="hallucinated_a")
    ann.press("ArrowDown", then="hallucinated_b")
    ann.press("ArrowDown", then="rewrite")
    ann.write("I don't know.\nAsk <b>somebody</b> 4 it.")
    ann.press("ArrowDown", then="rationale")
    ann.write("2 is better & 1 is not")
    ann.press("ArrowDown", then="truthful_a")
    ann.press("1", then="helpful_a")
    ann.press("3", then="truthful_b")
    ann.press("5", then="helpful_b")
    tab.keyboard.press("4")
    ann.leave("Enter")
    # The choice alone, as a hurried rater does it.
    next_pair()
    ann.press("1", then="hallucinated_a")
    ann.leave("Enter")
    next_pair()
    ann.press("3", then="hallucinated_a")
    ann.leave("Enter")
    next_pair()
    ann.press("4", then="hallucinated_a")
    ann.leave("Enter")
    discarded = next_pair()
    ann.leave("Backspace")
    drafted = next_pair()
    ann.press("2", then="hallucinated_a")
    ann.save_draft()
    assert ann.prompt == drafted.prompt[-1].content, "it was left"
    assert len({pair.id for pair in done}) == 6

    said = pulled(workspace, collection)
    assert [j.candidate_id for j in said["discarded"]] == [discarded.id]
    assert [(j.candidate_id, j.preferred) for j in said["draft"]] == [(drafted.id, sides(drafted)[1])]
    judged = {j.candidate_id: j for j in said["submitted"]}
    assert [judged[pair.id].preferred for pair in done[:4]] == [sides(full)[1], sides(done[1])[0], TIE, BOTH_BAD]
    assert {j.rater for j in judged.values()} == {Rater(kind="human", name="ann-of-pairs")}
    a, b = sides(full)
    expected = {f"truthful[{a}]": 1, f"helpful[{a}]": 3, f"truthful[{b}]": 5, f"helpful[{b}]": 4}
    assert judged[full.id].ratings == expected
    assert judged[full.id].rewrite == "I don't know.\nAsk <b>somebody</b> 4 it."
    assert judged[full.id].rationale == "2 is better & 1 is not"
    assert seen.faults == []

    # A mind that is changed: the draft becomes a tie and is sent.
    ann.press("ArrowUp", then="preference")
    ann.press("3", then="hallucinated_a")
    ann.leave("Enter")
    said = pulled(workspace, collection)
    assert said["draft"] == []
    assert {j.candidate_id: j.preferred for j in said["submitted"]}[drafted.id] == TIE


def test_a_passage_is_marked_where_the_mouse_went(page: Any, labelling_server: Workspace, workspace: Workspace) -> None:
    tab, _ = page
    pair = Candidate(prompt=user_message("When?"), responses=(Response(text=WORDY), Response(text="In <i>2031</i>.")))
    collection = pushed(workspace, pair)
    ann = LabellingPage(tab, labelling_server).as_rater("ann-of-marks").open(collection)
    ann.wait_for_focus("preference")
    ann.press("3", then="hallucinated_a")
    for mark in "ab":
        tab.get_by_label(f"Question: hallucinated_{mark}").get_by_text("Made up", exact=True).click()
    for response, words in ((0, "<b>by</b> 1"), (0, "asked 😀"), (1, "2031")):
        mark = "AB"[sides(pair).index(response)]
        # A page counts in UTF-16 units.
        before, _, _ = pair.responses[response].text.partition(words)
        start = len(before.encode("utf-16-le")) // 2
        ann.mark(mark, start, start + len(words.encode("utf-16-le")) // 2)
    ann.leave("Enter")
    (judgement,) = pulled(workspace, collection)["submitted"]
    marked = [(span.response, pair.responses[span.response].text[span.start : span.end]) for span in judgement.spans]
    assert marked == [(0, "<b>by</b> 1"), (0, "asked 😀"), (1, "2031")]


def test_three_answers_are_ranked_with_a_tie_and_one_alone_is_rated(
    page: Any, labelling_server: Workspace, workspace: Workspace
) -> None:
    tab, _ = page
    three, alone = candidate(0, responses=3), candidate(0, responses=1)
    collection = pushed(workspace, three, alone)
    ann = LabellingPage(tab, labelling_server).as_rater("ann-of-ranks").open(project_name(collection, 3))
    ann.wait_for_focus("ranking")
    for answer, key in (("Answer 1", "2"), ("Answer 2", "Tab"), ("Answer 3", "2"), ("Answer 2", "1")):
        tab.wait_for_function("name => document.activeElement.innerText.trim() === name", arg=answer)
        tab.keyboard.press(key)
    ann.leave("Enter")

    tab.get_by_text("Home", exact=True).click()
    ann.open(project_name(collection, 1))
    ann.wait_for_focus("truthful")
    ann.press("2", then="hallucinated")
    ann.leave("Enter")

    judged = {judgement.candidate_id: judgement for judgement in pulled(workspace, collection)["submitted"]}
    first, second, third = sides(three)
    assert judged[three.id].ranking == ((second,), tuple(sorted((first, third))))
    assert judged[alone.id].ratings == {"truthful[0]": 2}


def test_what_is_searched_and_filtered_for_is_found(
    page: Any, labelling_server: Workspace, workspace: Workspace
) -> None:
    tab, _ = page
    pairs = [candidate(number, topic=f"topic {number % 2}", difficulty=number) for number in range(4)]
    rare = Candidate(prompt=user_message("and this?"), responses=(Response(text="an axolotl"), Response(text="no")))
    collection = pushed(workspace, *pairs, rare)
    owner = LabellingPage(tab, labelling_server).as_owner().open(collection)
    tab.locator(".search-area__icon").first.click()
    tab.keyboard.type("axolotl")
    tab.keyboard.press("Enter")
    tab.get_by_text("1 of 1").wait_for()
    assert owner.prompt == "and this?"

    tab.locator(".search-area__icon.--close").click()
    tab.get_by_text("1 of 5").wait_for()
    tab.get_by_text("Filters", exact=True).click()
    tab.get_by_text("Metadata", exact=True).click()
    tab.get_by_text("topic", exact=True).click()
    tab.get_by_text("topic 1", exact=True).click()
    tab.get_by_text("1 of 2").wait_for()
    assert owner.prompt in {"question 1?", "question 3?"}


def test_a_rater_is_told_nothing_of_where_an_answer_comes_from(
    page: Any, labelling_server: Workspace, workspace: Workspace
) -> None:
    tab, _ = page
    answers: list[str] = []
    collection = pushed(workspace, candidate(0, model_pair="secret-model-0 and secret-model-1"))
    ann = LabellingPage(tab, labelling_server).as_rater("ann-of-secrets")

    def keep(response: Any) -> None:
        if "/api/v1/" in response.url and response.status == 200:
            answers.append(response.text())

    tab.on("response", keep)
    ann.open(collection)
    tab.get_by_text("Filters", exact=True).click()
    tab.get_by_text("Responses", exact=True).wait_for()
    assert tab.get_by_text("Metadata", exact=True).count() == 0
    tab.locator(".record-menu__header").click()
    tab.get_by_text("View metadata").click()
    tab.get_by_text("Record info").wait_for()
    assert any("answer 0 to 0" in answer for answer in answers)
    shown = "".join(answers) + tab.content()
    assert "secret-model" not in shown
    assert "sides" not in shown


def test_the_choice_stands_on_the_first_screen_and_the_guidelines_are_at_hand(
    page: Any, labelling_server: Workspace, workspace: Workspace
) -> None:
    tab, _ = page
    long = Candidate(
        prompt=(Message(role="system", content="Be brief."), *user_message("long? " * 500)),
        context="a context " * 500,
        responses=(Response(text="long " * 2000), Response(text="longer " * 2000)),
    )
    collection = pushed(workspace, long)
    ann = LabellingPage(tab, labelling_server).as_rater("ann-of-screens").open(collection)
    ann.wait_for_focus("preference")
    for title in ("A is better", "B is better", "Tie", "Both bad", "Submit", "Discard", "Save as draft"):
        box = tab.locator("form").get_by_text(title, exact=True).bounding_box()
        assert 0 < box["y"] < box["y"] + box["height"] < 800, title
    tab.get_by_role("button", name="Expand Panel").first.click()
    panel = tab.locator(".markdown-render")
    panel.get_by_text("Truthful before helpful.").wait_for()
    wanted = [line.strip("- ").split("**")[0] for line in PAIR_GUIDELINES.splitlines() if line.startswith("- `")]
    assert [line.replace("`", "") for line in wanted if line.replace("`", "") not in panel.inner_text()] == []


def test_every_page_is_whole_and_asks_nobody_else(page: Any, labelling_server: Workspace, workspace: Workspace) -> None:
    tab, seen = page
    complaints: list[str] = []
    tab.on("console", lambda line: complaints.append(line.text) if line.type in ("error", "warning") else None)
    tab.on("response", lambda answer: complaints.append(answer.url) if answer.status >= 400 else None)
    collection = pushed(workspace, candidate(0, topic="any"))
    owner = LabellingPage(tab, labelling_server).as_owner().open(collection)
    dataset = tab.url.split("/annotation-mode")[0]
    for address, text in (
        (owner.url, "Your datasets"),
        (f"{owner.url}/user-settings", "My settings"),
        (f"{dataset}/settings", "Annotation guidelines"),
        (f"{dataset}/annotation-mode", "Which answer is better?"),
    ):
        tab.goto(address)
        tab.get_by_text(text).first.wait_for()
        tab.wait_for_load_state("networkidle")
        assert tab.evaluate("[...document.fonts].filter((font) => font.status === 'error').length") == 0
        assert tab.evaluate("[...document.images].filter((image) => !image.naturalWidth).length") == 0
    assert complaints == []
    assert seen.faults == []
    assert {urlsplit(url).netloc for url in seen.requests if not url.startswith(("data:", "blob:"))} == {
        urlsplit(owner.url).netloc
    }


def test_what_judges_doubt_is_shown_first_and_elsewhere_by_a_link(
    page: Any, labelling_server: Workspace, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    tab, seen = page
    pairs = [candidate(number) for number in range(5)]
    collection = store(workspace, *pairs)
    judgements = [
        Judgement(
            candidate_id=pair.id,
            rater=Rater(kind="ai", name="judge"),
            source="constitution",
            preferred=0,
            probability=probability,
        )
        for pair, probability in zip(pairs, (0.9, 0.6, 1.0, 0.5, 0.8), strict=True)
    ]
    with Database(workspace.database) as database:
        database.add(collection, judgements=judgements)
    monkeypatch.setattr(orders, "OURS", "another engine")
    (link,) = push(workspace, collection, quiet, order="uncertain").links.values()
    ann = LabellingPage(tab, labelling_server).as_rater("ann-of-doubts").open(collection)
    shown = []
    for _ in pairs:
        ann.wait_for_focus("preference")
        shown.append(ann.prompt)
        ann.press("1", then="hallucinated_a")
        ann.leave("Enter")
    assert shown == [pairs[number].prompt[-1].content for number in (3, 1, 4, 0, 2)]

    # What the page's address says about the order counts, here and where nothing else does: the other way round.
    tab.goto(link.replace("desc", "asc") + "&status=submitted")
    tab.wait_for_selector(RECORD)
    assert ann.prompt == shown[-1]
    tab.goto(f"{link}&status=submitted")
    tab.wait_for_selector(RECORD)
    assert ann.prompt == shown[0]
    assert seen.faults == []
