"""Argilla's labelling page, as a rater uses it in a browser."""

from typing import Any

from feedback.argilla.raters import add_rater
from feedback.argilla.server import control
from feedback.workspace import Workspace

RECORD = ".chat__bubble"
_FOCUSED = "document.activeElement.closest('[aria-label^=\"Question: \"]')?.ariaLabel.slice(10)"
# The words of a field stand in one text node; a line that is wrapped has a box of its own.
_BOXES = """([mark, start, end]) => {
    const field = document.querySelector(`[aria-label="Data entry for Field: Answer ${mark}"] p`);
    field.scrollIntoView({block: "center"});
    const boxAt = (at) => {
        const one = new Range();
        one.setStart(field.firstChild, at);
        one.setEnd(field.firstChild, at + 1);
        return one.getBoundingClientRect();
    };
    const [first, last] = [boxAt(start), boxAt(end - 1)];
    return [first.left + 1, (first.top + first.bottom) / 2, last.right - 1, (last.top + last.bottom) / 2];
}"""


class LabellingPage:
    """A tab in which somebody signs in and labels.

    Args:
        workspace: whose server it is.
    """

    def __init__(self, tab: Any, workspace: Workspace) -> None:
        self.tab, self.workspace = tab, workspace
        self.url = str(control.status(workspace).url)
        tab.set_viewport_size({"width": 1280, "height": 800})

    def sign_in(self, name: str, password: str) -> "LabellingPage":
        """By the form, with the keyboard."""
        self.tab.goto(self.url)
        self.tab.wait_for_selector("input[type=password]")
        self.tab.get_by_label("Username").fill(name)
        self.tab.keyboard.press("Tab")
        self.tab.keyboard.type(password)
        self.tab.keyboard.press("Enter")
        self.tab.get_by_text("Your datasets").wait_for()
        return self

    def as_rater(self, name: str) -> "LabellingPage":
        """With a new account."""
        return self.sign_in(name, str(add_rater(self.workspace, name).password))

    def as_owner(self) -> "LabellingPage":
        known = control.credentials(self.workspace)
        return self.sign_in(known.username, known.password)

    def open(self, project: str) -> "LabellingPage":
        """From the list of the datasets, which one sees after signing in."""
        self.tab.locator(".dataset-card__title").get_by_text(project, exact=True).click()
        self.tab.wait_for_selector(RECORD)
        return self

    @property
    def focused(self) -> str | None:
        """The name of the question that the keyboard answers."""
        return self.tab.evaluate(_FOCUSED)

    def wait_for_focus(self, question: str) -> None:
        self.tab.wait_for_function(f"name => {_FOCUSED} === name", arg=question)

    def press(self, key: str, then: str) -> None:
        """Press a key that brings one to a question."""
        self.tab.keyboard.press(key)
        self.wait_for_focus(then)

    def write(self, text: str) -> None:
        """Into the text question that is focused."""
        self.tab.keyboard.press("Shift+Enter")
        self.tab.wait_for_function("document.activeElement.isContentEditable")
        self.tab.keyboard.type(text)
        self.tab.keyboard.press("Escape")
        self.tab.wait_for_function("!document.activeElement.isContentEditable")

    def mark(self, answer: str, start: int, end: int) -> None:
        """Draw the mouse over characters of an answer, by their offsets in UTF-16 units."""
        left, top, right, bottom = self.tab.evaluate(_BOXES, [answer, start, end])
        self.tab.mouse.move(left, top)
        self.tab.mouse.down()
        self.tab.mouse.move(right, bottom, steps=5)
        self.tab.mouse.up()

    @property
    def prompt(self) -> str:
        """The last turn of the conversation that is shown; nothing when no record is."""
        turns = self.tab.locator(".chat__bubble > span")
        return str(turns.last.text_content()) if turns.count() else ""

    def leave(self, key: str) -> None:
        """Press a key that brings one to another record, or to the end of the queue."""
        before = self.prompt
        self.tab.keyboard.press(key)
        self.wait_for_another(before)

    def wait_for_another(self, before: str) -> None:
        """Until another prompt is shown than this one."""
        last_turn = "[...document.querySelectorAll('.chat__bubble > span')].at(-1)?.textContent"
        self.tab.wait_for_function(f"before => {last_turn} !== before", arg=before)

    def look_at(self, status: str) -> None:
        """Show the records that one has answered with this status, in place of those that wait."""
        self.tab.locator(".selected-option").click()
        self.tab.locator(f"li.option.{status}").click()
        self.tab.wait_for_selector(f".questions-form.--{status}")

    def save_draft(self) -> None:
        self.tab.keyboard.press("Control+s")
        self.tab.wait_for_selector(".questions-form.--draft")
