"""Projects that somebody made in the labelling server by other means: every kind of field and question that it knows.

Our own projects show all text as it is. Here Argilla renders Markdown, HTML in frames, templates and images: whatever
it makes of hostile text, nothing of it may run, and nobody else may be asked for anything.
"""

from typing import Any

from feedback.workspace import Workspace
from tests.browser.hostile import HOSTILE, IMAGE, OUTSIDE, Watch
from tests.browser.labelling import RECORD, LabellingPage
from tests.feedback.argilla.serving import call, make_dataset

TEMPLATE = f"<b>{{{{record.fields.custom.said}}}}</b><script>top.pwned=1</script>{IMAGE}<img src='{OUTSIDE}/t.png'>"
FIELDS = {
    "plain": {"type": "text", "use_markdown": False},
    "markdown": {"type": "text", "use_markdown": True},
    "talk": {"type": "chat", "use_markdown": False},
    "markdown_talk": {"type": "chat", "use_markdown": True},
    "custom": {"type": "custom", "template": TEMPLATE, "advanced_mode": False},
    "advanced": {"type": "custom", "template": TEMPLATE.replace("custom.said", "advanced.said"), "advanced_mode": True},
    "picture": {"type": "image"},
}
PICTURES = [
    f"{OUTSIDE}/picture.png",
    "data:image/svg,<svg xmlns='http://www.w3.org/2000/svg' onload='top.pwned=1'><script>top.pwned=1</script></svg>",
    f'data:image/png,"><script>top.pwned=1</script>{IMAGE}',
]


def options() -> list[dict[str, str]]:
    return [{"value": str(number), "text": text[:500]} for number, text in enumerate(HOSTILE) if text.strip("\0")]


QUESTIONS = {
    "label": {"type": "label_selection", "options": options()},
    "labels": {"type": "multi_label_selection", "options": options(), "visible_options": 3},
    "rank": {"type": "ranking", "options": options()},
    "rating": {"type": "rating", "options": [{"value": value} for value in range(1, 6)]},
    "words": {"type": "text", "use_markdown": False},
    "markdown_words": {"type": "text", "use_markdown": True},
    "parts": {"type": "span", "field": "plain", "options": options()},
}


def make_project(server: Workspace) -> tuple[str, int]:
    """A dataset with all of it, and hostile text wherever it takes text; its id and the number of records."""
    dataset = make_dataset(
        server, "every-kind", guidelines="\n\n".join(["Our rules", *HOSTILE])[:10_000], publish=False
    )
    place = f"datasets/{dataset}"
    for name, settings in FIELDS.items():
        call(server, "POST", f"{place}/fields", {"name": name, "title": f"{name} {IMAGE}", "settings": settings})
    questions = {}
    for name, settings in QUESTIONS.items():
        body = {"name": name, "title": f"{name} {IMAGE}", "description": "\n".join(HOSTILE)[:1000]}
        made = call(server, "POST", f"{place}/questions", body | {"required": False, "settings": settings})
        questions[name] = made["id"]
    call(server, "PUT", f"{place}/publish")
    texts = [text for text in HOSTILE if text]
    items = []
    for number, text in enumerate(texts):
        turns = [{"role": role, "content": text} for role in ("user", IMAGE[:20])]
        suggested = {"words": text, "markdown_words": text, "label": "0", "rating": 1}
        items.append(
            {
                "external_id": f"{number} {IMAGE}",
                "fields": {
                    "text": text,
                    "plain": text,
                    "markdown": f"**bold** {text}",
                    "talk": turns,
                    "markdown_talk": turns,
                    "custom": {"said": text},
                    "advanced": {"said": text},
                    "picture": PICTURES[number % len(PICTURES)],
                },
                "suggestions": [
                    {"question_id": questions[name], "value": value, "agent": "somebody"}
                    for name, value in suggested.items()
                ],
            }
        )
    call(server, "POST", f"{place}/records/bulk", {"items": items})
    return dataset, len(items)


def test_whatever_argilla_renders_runs_nothing_and_asks_nobody(page: Any, labelling_server: Workspace) -> None:
    tab, _ = page
    watch = Watch(tab)
    dataset, count = make_project(labelling_server)
    owner = LabellingPage(tab, labelling_server).as_owner()
    address = f"{owner.url}/dataset/{dataset}"
    tab.goto(f"{address}/annotation-mode")
    tab.wait_for_selector(RECORD)
    seen = [owner.prompt]
    for _ in range(count - 1):
        # Not by key: a frame may take the focus, and a style may hide the form.
        tab.get_by_label("Next").click()
        owner.wait_for_another(seen[-1])
        seen.append(owner.prompt)
        # So that it is what Argilla makes of the text that is looked at.
        tab.locator(".markdown-render strong", has_text="bold").first.wait_for()
        assert len(tab.frames) >= 3
        for frame in tab.frames[1:]:
            frame.wait_for_load_state()
    assert len(set(seen)) == count
    tab.get_by_role("button", name="Expand Panel").first.click()
    tab.locator(".markdown-render", has_text="Our rules").wait_for()
    tab.goto(f"{address}/settings")
    tab.get_by_text("Annotation guidelines").first.wait_for()
    for part in ("Fields", "Questions"):
        tab.get_by_text(part, exact=True).first.click()
        tab.get_by_text(IMAGE).first.wait_for()
    watch.assert_quiet()
