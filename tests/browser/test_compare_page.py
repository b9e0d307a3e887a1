"""The compare page in a real browser: ask, watch both answers grow, vote by key, find the vote in the database."""

from typing import Any
from urllib.parse import urlsplit

from evaluation.statistics import wilson
from feedback.database import Database
from feedback.schema import user_message
from feedback.workspace import Workspace

READY = "#vote-a:not([disabled])"


def opened(page: Any, address: str) -> Any:
    tab, _ = page
    tab.goto(address)
    tab.wait_for_selector("#question textarea", state="visible")
    return tab


def ask(tab: Any, question: str) -> None:
    tab.fill("#question textarea", question)
    tab.click("#ask")


def answers(tab: Any) -> tuple[str, str]:
    return tab.input_value("#answer-a textarea"), tab.input_value("#answer-b textarea")


def standing(workspace: Workspace, question: str) -> list[Any]:
    with Database(workspace.database) as database:
        asked = {c.id: c for c in database.candidates(["compare"]) if c.prompt == user_message(question)}
        return [(asked[j.candidate_id], j) for j in database.judgements(["compare"]) if j.candidate_id in asked]


def test_ask_watch_vote_and_learn_the_names(page: Any, trained: Any, address: str) -> None:
    tab, workspace = opened(page, address), trained.workspace
    tab.evaluate(
        """() => {
            window.lengths = [];
            const boxes = ["a", "b"].map((side) => document.querySelector(`#answer-${side} textarea`));
            setInterval(() => window.lengths.push(boxes.map((box) => box.value.length)), 5);
        }"""
    )
    tab.fill("#question textarea", "who are you, and why")
    assert tab.is_disabled("#vote-a")
    tab.keyboard.press("Shift+Enter")
    tab.wait_for_selector(READY)
    assert set(answers(tab)) == {trained.hostile, trained.tuned}
    assert "tuned" not in tab.inner_text("body").replace("Tuned run", ""), "a name is shown before the vote"
    # Both grew while the other did, a token at a time.
    together = {tuple(lengths) for lengths in tab.evaluate("window.lengths") if 0 < min(lengths) < len(trained.tuned)}
    assert len(together) >= 3

    tab.keyboard.press("b")
    tab.wait_for_selector(".rate")
    tuned_at_b = answers(tab)[1] == trained.tuned
    names = ("base pretender", "tuned sft-1") if tuned_at_b else ("tuned sft-1", "base pretender")
    assert tab.inner_text("#answer-a label span") == f"Answer A · {names[0]}"
    assert tab.inner_text("#answer-b label span") == f"Answer B · {names[1]}"
    low, high = wilson(int(tuned_at_b), 1)
    shown = tab.inner_text("#result")
    assert f"wins {int(tuned_at_b):.0%} of 1 vote against" in shown
    assert f"95% interval {low:.0%} to {high:.0%}" in shown
    ((candidate, judgement),) = standing(workspace, "who are you, and why")
    assert [(r.text, r.model) for r in candidate.responses] == [
        (trained.hostile, trained.base.name),
        (trained.tuned, "sft-1"),
    ]
    assert judgement.preferred == int(tuned_at_b)

    # A changed mind, with a reason and a better answer: still one judgement.
    tab.click("text=Reason, better answer")
    # Typed key by key: in a text field the keys of the votes are letters.
    tab.locator("#reason textarea").press_sequentially("t x a b are letters here", delay=20)
    assert standing(workspace, "who are you, and why") == [(candidate, judgement)]
    tab.fill("#rewrite textarea", "I can't know.")
    tab.click("#vote-tie")
    tab.wait_for_function("document.querySelector('#status').innerText.includes('Tie')")
    ((_, judgement),) = standing(workspace, "who are you, and why")
    assert (judgement.preferred, judgement.rewrite) == ("tie", "I can't know.")
    assert judgement.rationale == "t x a b are letters here"
    assert "wins 50% of 1 vote" in tab.inner_text("#result")


def test_hostile_text_shows_as_text_and_nothing_leaves_the_machine(page: Any, trained: Any, address: str) -> None:
    tab, seen = opened(page, address), page[1]
    ask(tab, trained.questions[0])
    tab.wait_for_selector(READY)
    tab.keyboard.press("x")
    tab.wait_for_selector(".rate")
    assert trained.hostile in answers(tab)
    # An error quotes the question: there too it is text.
    ask(tab, (trained.questions[0] + "{{pwned}}${pwned=1}") * 20)
    tab.wait_for_selector(".notice.problem")
    assert trained.questions[0] in tab.inner_text("#status")
    tab.wait_for_timeout(500)
    assert tab.evaluate("window.pwned") is None
    assert tab.locator("img[src='x']").count() == 0
    assert {urlsplit(url).hostname for url in seen.requests if not url.startswith(("data:", "blob:"))} == {"127.0.0.1"}
    assert seen.faults == []


def test_mistakes_and_stops_are_told_in_words(page: Any, trained: Any, address: str) -> None:
    tab = opened(page, address)
    tab.keyboard.press("a")
    ask(tab, "   ")
    tab.wait_for_selector(".notice.problem")
    assert "question is empty" in tab.inner_text("#status")
    ask(tab, "too long " * 200)
    tab.wait_for_function("document.querySelector('#status').innerText.includes('shorten it')")
    ask(tab, "one more")
    tab.click("#stop:not([disabled])")
    tab.wait_for_function("document.querySelector('#status').innerText.includes('Stopped')")
    assert tab.is_disabled("#vote-a")
    assert len(max(answers(tab), key=len)) < len(trained.hostile)
    ask(tab, "one more")
    tab.wait_for_selector(READY)
    assert set(answers(tab)) == {trained.hostile, trained.tuned}


def test_two_tabs_get_the_answers_to_their_own_questions(page: Any, trained: Any, address: str, chromium: Any) -> None:
    first = opened(page, address)
    context = chromium.new_context()
    try:
        second = opened((context.new_page(), None), address)
        ask(first, "tab one")
        ask(second, "tab two")
        for tab in (first, second):
            tab.wait_for_selector(READY, timeout=60_000)
            assert set(answers(tab)) == {trained.hostile, trained.tuned}
    finally:
        context.close()


def test_an_empty_workspace_says_what_to_do(page: Any, serve: Any, workspace: Workspace) -> None:
    tab, _ = page
    tab.set_viewport_size({"width": 390, "height": 800})
    tab.goto(serve(workspace).address)
    tab.wait_for_selector(".notice")
    assert "veritune train sft dataset=NAME" in tab.inner_text(".notice")
    assert not tab.is_visible("#question")
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
