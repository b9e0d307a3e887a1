"""Changes to Argilla's pages, in the copy that the server makes of them at each start.

Argilla takes text for HTML: of an answer with tags a rater would see something else than what the model wrote, passages
would be marked at wrong places, and a <style> in it would change the form.
"""

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Change:
    """What is replaced, and how often it stands in the pages of the one Argilla that the requirements lock."""

    files: str
    pattern: str
    replacement: str
    times: int


CHANGES = [
    # Fields with and without marks; badges and tooltips, with users' names; the dataset's name in its settings.
    Change(
        "*.js",
        r"\{innerHTML:(\w)\._s\(\1\.(fieldText|text|settings\.dataset\.name)\)\}",
        r"{textContent:\1._s(\1.\2)}",
        41,
    ),
    # A turn of a conversation.
    Change(
        "*.js",
        r'("MarkdownRenderer",\{attrs:\{markdown:(\w)\}\}\):\w\("span",\{domProps:\{)innerHTML(:\w\._s\(\2\)\}\}\))',
        r"\1textContent\3",
        8,
    ),
    # What looks like HTML would be put into a frame of its own.
    Change("*.js", r"isHTML:function isHTML\(\)\{return/.+?/\.test\(this\.fieldText\)\}", "isHTML:()=>!1", 8),
    # Fonts of another server, which would learn who labels when.
    Change("*.css", r"@import url\(https://fonts\.googleapis\.com/[^)]*\);", "", 2),
]


def show_text_as_it_is(pages: Path) -> None:
    """Change the pages in this folder.

    Raises:
        RuntimeError: they are not the ones that the changes were made for.
    """
    found = dict.fromkeys(CHANGES, 0)
    for path in [*pages.rglob("*.js"), *pages.rglob("*.css")]:
        changed = text = path.read_text(encoding="utf-8")
        for change in CHANGES:
            if path.match(change.files):
                changed, times = re.subn(change.pattern, change.replacement, changed)
                found[change] += times
        if changed != text:
            path.write_text(changed, encoding="utf-8")
    for change, times in found.items():
        if times != change.times:
            raise RuntimeError(f"Argilla's pages have {times} places, not {change.times}, like {change.pattern}")
