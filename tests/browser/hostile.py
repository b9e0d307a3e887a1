"""Text that would like to be more than text, and who watches that it is not."""

from typing import Any
from urllib.parse import urlsplit

OUTSIDE = "http://192.0.2.1"
IMAGE = '<img src=x onerror="top.pwned=1">'
HOSTILE = [
    IMAGE,
    "<script>top.pwned=1</script>",
    f'<script src="{OUTSIDE}/s.js"></script><link rel="stylesheet" href="{OUTSIDE}/s.css">',
    '<svg onload="top.pwned=1"><script>top.pwned=1</script><a href="javascript:top.pwned=1"><text>x</text></a></svg>',
    '<iframe srcdoc="<script>top.pwned=1</script>"></iframe><iframe src="javascript:top.pwned=1"></iframe>',
    f'<iframe src="{OUTSIDE}/f"></iframe><object data="{OUTSIDE}/o"></object><embed src="{OUTSIDE}/e">',
    "<style>form, .questions-form { display: none !important }</style>",
    f'<style>@import url("{OUTSIDE}/i.css"); body {{ background: url("{OUTSIDE}/b.png") }}</style>',
    f'<form action="{OUTSIDE}/p"><input autofocus onfocus="top.pwned=1"><button>Submit</button></form>',
    '<details open ontoggle="top.pwned=1"><summary>x</summary></details><body onload="top.pwned=1">',
    f'<video autoplay src="{OUTSIDE}/v" onerror="top.pwned=1"></video><img srcset="{OUTSIDE}/i 1x">',
    f'<meta http-equiv="refresh" content="0;url={OUTSIDE}/m"><base href="{OUTSIDE}/">',
    f"![](<{OUTSIDE}/p.png>) ![x]({OUTSIDE}/q.png) [y](javascript:top.pwned=1) <{OUTSIDE}/r>",
    "{{constructor.constructor('top.pwned=1')()}} ${top.pwned=1} {{#each record}}{{this}}{{/each}} <%= 1 %>",
    "</textarea></script></style></title></p></span><!-- <![CDATA[ ]]> --!> <plaintext>",
    "<p>code</p> if a <b> then </b> c &lt;i&gt; &amp; &nbsp;<br>",
    "\u202etxt.exe\u202c \u2066x\u2069 \u200b\ufeff a\u0301\u0302 مرحبا <b>x</b>",
    "  two  spaces\n\n\tand a tab\r\nand a line of Windows\rand one of the Macintosh\x00\x0b\x0c\x1b[31m",
    "x" * 20_000,
    "",
]


class Watch:
    """What a tab does that it ought not to do."""

    def __init__(self, tab: Any) -> None:
        self.tab = tab
        self.found: list[str] = []
        tab.on("dialog", lambda dialog: (self.found.append(dialog.message), dialog.dismiss()))
        tab.on("websocket", lambda socket: self.found.append(socket.url))
        tab.on("popup", lambda popup: self.found.append(popup.url))
        tab.on("pageerror", lambda error: self.found.append(str(error)))
        tab.on("request", self._note)
        tab.on("requestfailed", self._forget)

    def _note(self, request: Any) -> None:
        if urlsplit(request.url).hostname != "127.0.0.1" and not request.url.startswith(("data:", "blob:", "about:")):
            self.found.append(request.url)

    def _forget(self, request: Any) -> None:
        # What the page's policy held back did not leave the browser.
        if request.failure == "csp" and request.url in self.found:
            self.found.remove(request.url)

    def assert_quiet(self) -> None:
        assert self.tab.evaluate("window.pwned") is None, "a script ran"
        assert self.found == [], self.found
