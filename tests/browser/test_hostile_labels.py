"""Text of models and of people on the labelling page: it is shown as it is, does nothing and fetches nothing."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from feedback.argilla.connection import connect
from feedback.argilla.project import project_name, sides
from feedback.argilla.pull import pull
from feedback.argilla.push import push
from feedback.argilla.server import control
from feedback.argilla.server.embedded.frontend import show_text_as_it_is
from feedback.database import Database
from feedback.schema import Candidate, Message, Response, user_message
from feedback.workspace import Workspace
from tests.browser.hostile import HOSTILE, IMAGE, Watch
from tests.browser.labelling import LabellingPage
from tests.feedback.argilla.people import beside, candidate, store

# An empty text is shown as a space: the page would leave its field out.
SHOWN = [text or " " for text in HOSTILE]


@pytest.fixture
def workspace(workspace: Workspace, labelling_server: Workspace) -> Workspace:
    return beside(labelling_server, workspace)


def quiet(line: str) -> None:
    pass


def texts(fields: Any) -> list[str]:
    """What fields show; each is one node of text, or something was made of it."""
    script = "all => all.map((field) => [field.childNodes.length, field.firstChild?.nodeType, field.textContent])"
    found = fields.evaluate_all(script)
    assert {(count, kind) for count, kind, _ in found} <= {(1, 3)}
    return [text for _, _, text in found]


def test_a_rater_sees_the_text_that_a_model_wrote(page: Any, labelling_server: Workspace, workspace: Workspace) -> None:
    tab, _ = page
    watch = Watch(tab)
    half = len(HOSTILE) // 2
    roles = ("system", "user", "assistant")
    talk = tuple(Message(role=roles[n % 3], content=text) for n, text in enumerate(HOSTILE) if text)
    pairs = [
        Candidate(
            prompt=user_message(f"{n}"),
            context=HOSTILE[n - half],
            responses=(Response(text=HOSTILE[n]), Response(text=HOSTILE[n + half])),
        )
        for n in range(half)
    ]
    many = Candidate(prompt=(*talk, *user_message("all")), responses=tuple(Response(text=text) for text in HOSTILE))
    collection = store(workspace, *pairs, many)
    assert push(workspace, collection, quiet).refused == {}
    ann = LabellingPage(tab, labelling_server).as_rater("ann-of-hostile").open(collection)
    seen: set[int] = set()
    for _ in pairs:
        if seen:
            ann.leave("ArrowRight")
        n = int(ann.prompt)
        seen.add(n)
        shown = [SHOWN[n], SHOWN[n + half]]
        answers = [shown[index] for index in sides(pairs[n])]
        context = [HOSTILE[n - half]] if HOSTILE[n - half] else []
        assert texts(tab.locator(".content-area > div, .text_field_component__area > p")) == context + answers
        ann.wait_for_focus("preference")
        assert tab.get_by_text("Submit", exact=True).is_visible()
        assert tab.evaluate("document.documentElement.scrollWidth") <= 1280
    assert seen == set(range(half))

    tab.goto(ann.url)
    ann.open(project_name(collection, len(HOSTILE)))
    assert texts(tab.locator(".chat__bubble > span")) == [*(turn.content for turn in talk), "all"]
    assert texts(tab.locator(".content-area > div")) == [SHOWN[index] for index in sides(many)]
    assert len(tab.frames) == 1
    watch.assert_quiet()


def test_names_metadata_and_rewrites_are_text_too(page: Any, labelling_server: Workspace, workspace: Workspace) -> None:
    tab, _ = page
    watch = Watch(tab)
    rewrite = f"{IMAGE}<style>form {{ display: none }}</style> &amp; {{{{1}}}}"
    with Database(workspace.database) as database:
        database.add(IMAGE, [candidate(0, **{IMAGE: f"{IMAGE} as a value"})])
    assert push(workspace, IMAGE, quiet).refused == {}
    with connect(workspace) as argilla:
        name = {"username": IMAGE, "first_name": IMAGE, "last_name": IMAGE}
        account = argilla.call("POST", "users", {**name, "password": "correct horse", "role": "annotator"})
        argilla.call("POST", f"workspaces/{argilla.workspace_id}/users", {"user_id": account["id"]})

    rater = LabellingPage(tab, labelling_server).sign_in(IMAGE, "correct horse").open(IMAGE)
    rater.wait_for_focus("preference")
    for _ in range(3):
        tab.keyboard.press("ArrowDown")
    rater.wait_for_focus("rewrite")
    rater.write(rewrite)
    rater.save_draft()
    tab.reload()
    rater.look_at("draft")
    tab.wait_for_function("text => document.body.textContent.includes(text)", arg=rewrite)
    assert texts(tab.get_by_label("Question: rewrite").locator("[contenteditable]")) == [rewrite]
    pull(workspace, IMAGE, quiet)
    with Database(workspace.database) as database:
        (draft,) = database.judgements([IMAGE], "draft")
    assert (draft.rewrite, draft.rater.name) == (rewrite, IMAGE)
    tab.goto(f"{rater.url}/user-settings")
    tab.get_by_text("My settings").first.wait_for()
    tab.context.clear_cookies()
    tab.evaluate("localStorage.clear()")

    owner = LabellingPage(tab, labelling_server).as_owner()
    tab.locator(".dataset-users__item").first.hover()
    owner.open(IMAGE)
    dataset = tab.url.split("/annotation-mode")[0]
    tab.locator(".record-menu__header").click()
    tab.get_by_text("View metadata").click()
    tab.get_by_text(f"{IMAGE} as a value").wait_for()
    tab.reload()
    tab.get_by_text("Filters", exact=True).click()
    tab.get_by_text("Metadata", exact=True).click()
    tab.locator("[class*=metadata]").get_by_text(IMAGE, exact=True).first.click()
    tab.get_by_text(f"{IMAGE} as a value").first.click()
    tab.get_by_text("1 of 1").wait_for()
    tab.goto(f"{dataset}/settings")
    tab.get_by_text("Annotation guidelines").first.wait_for()
    assert tab.evaluate("document.images.length") == 0
    tab.get_by_text("Danger zone", exact=True).click()
    tab.get_by_text("Delete dataset").first.wait_for()
    watch.assert_quiet()


def test_even_html_that_a_page_shows_runs_nothing_and_reaches_nobody(page: Any, labelling_server: Workspace) -> None:
    """The second line: were there a place where text is still taken for HTML."""
    tab, _ = page
    watch = Watch(tab)
    owner = LabellingPage(tab, labelling_server).as_owner()
    # Only a page that is left can be sent elsewhere by one that shows it.
    inserted = [text for text in HOSTILE if "refresh" not in text]
    tab.evaluate(
        """async inserted => {
            for (const text of inserted) {
                document.body.appendChild(document.createElement("div")).innerHTML = text;
                const frame = document.createElement("iframe");
                frame.srcdoc = text;
                const loaded = new Promise((resolve) => frame.addEventListener("load", resolve));
                document.body.appendChild(frame);
                await loaded;
            }
            // An image of our own that fails as theirs do, after them.
            const image = new Image();
            const failed = new Promise((resolve) => image.addEventListener("error", resolve));
            image.src = "x";
            await failed;
            document.querySelectorAll("[href^=javascript]").forEach((link) =>
                link.dispatchEvent(new MouseEvent("click", {bubbles: true, cancelable: true})));
            await new Promise((resolve) => setTimeout(resolve));
        }""",
        inserted,
    )
    assert len(tab.frames) > len(inserted)
    assert tab.url.startswith(owner.url)
    watch.assert_quiet()


@pytest.fixture
def unguarded(labelling_server: Workspace) -> Iterator[str]:
    """The labelling server behind a proxy that takes the page's policy away."""
    target = control.status(labelling_server).url

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0)) or None
            sent = {name: self.headers[name] for name in ("x-argilla-api-key", "content-type") if self.headers[name]}
            with urlopen(Request(f"{target}{self.path}", body, sent, method=self.command)) as answer:
                content = answer.read()
                self.send_response(answer.status)
                self.send_header("content-type", answer.headers["content-type"] or "text/plain")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        do_POST = do_PUT = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_push_warns_of_an_argilla_whose_page_has_no_policy(
    workspace: Workspace, labelling_server: Workspace, unguarded: str
) -> None:
    collection = store(workspace, candidate(0))
    said: list[str] = []
    push(workspace, collection, said.append)
    assert said == []
    push(beside(labelling_server, workspace, url=unguarded), collection, said.append)
    (warning,) = said
    assert warning.startswith(f"warning: {unguarded}: its page comes without a content-security-policy")


def test_pages_of_another_argilla_are_not_served_half_changed(tmp_path: Path) -> None:
    (tmp_path / "page.js").write_text("domProps:{innerHTML:t._s(t.fieldText)}")
    with pytest.raises(RuntimeError, match="1 places, not 41"):
        show_text_as_it_is(tmp_path)
