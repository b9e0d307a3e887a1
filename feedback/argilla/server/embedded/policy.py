"""What every request has to keep to, and what every answer says about itself."""

import base64
import hashlib
import ipaddress
import re
from pathlib import Path
from typing import Any

# Argilla takes at most 500 records at once.
MAX_BODY = 64 * 2**20
INLINE_SCRIPT = re.compile(r"<script(?![^>]*\bsrc=)[^>]*>(.+?)</script>", re.DOTALL)


class Policy:
    """Wraps the server's application.

    Args:
        static: folder of the pages, whose own inline scripts are the only ones that may run.
        local: answer only requests to a loopback name. A page of another site that has its own name resolve to this
            machine (DNS rebinding) would otherwise reach the server through the browser of whoever looks at it.
    """

    def __init__(self, app: Any, static: Path, local: bool) -> None:
        self._app, self._local = app, local
        self._headers = [
            (b"content-security-policy", _content_security_policy(static).encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
            (b"x-frame-options", b"DENY"),
            # Pages of an earlier version, which a browser may keep for days, would come without policy and changes.
            (b"cache-control", b"no-cache"),
        ]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        received, too_long = 0, False

        async def limited() -> Any:
            nonlocal received, too_long
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_BODY:
                too_long = True
                return {"type": "http.disconnect"}
            return message

        async def marked(message: Any) -> None:
            if message["type"] == "http.response.start":
                status = 413 if too_long else message["status"]
                message = {**message, "status": status, "headers": [*message.get("headers", []), *self._headers]}
            await send(message)

        length = headers.get(b"content-length", b"0")
        if self._local and not _is_local(headers.get(b"host", b"").decode("latin-1")):
            await _refuse(marked, 403, "This server answers only to localhost and the loopback addresses.")
        elif length.isdigit() and int(length) > MAX_BODY:
            await _refuse(marked, 413, f"A request may have {MAX_BODY // 2**20} MB; send fewer records at once.")
        else:
            await self._app(scope, limited, marked)


async def _refuse(send: Any, status: int, reason: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": f"{reason}\n".encode()})


def _is_local(host: str) -> bool:
    # The port is not looked at: through a tunnel (ssh -L) it is another one.
    name = re.sub(r":\d+$", "", host)
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return name.lower() == "localhost"


def _content_security_policy(static: Path) -> str:
    """Argilla may show HTML of a field in a frame of the same origin, where its scripts could take the session.

    Such a frame inherits the page's policy: with hashes of the page's own scripts and no 'unsafe-inline' none runs.
    """
    scripts: set[str] = set()
    for page in static.rglob("*.html"):
        scripts.update(INLINE_SCRIPT.findall(page.read_text().replace("@@baseUrl@@", "")))
    hashes = " ".join(sorted(f"'sha256-{_digest(script)}'" for script in scripts))
    return (
        f"default-src 'self'; script-src 'self' {hashes}; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; font-src 'self' data:; media-src 'self' data:; connect-src 'self'; "
        "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
    )


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
