"""A connection to Argilla: the workspace's own labelling server, or one that veritune.toml or the environment names.

Argilla's REST interface is spoken as it is: its SDK leaves out when a response was changed, and takes seconds to
import.
"""

import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from feedback.errors import UserError
from feedback.workspace import SETTINGS_FILE, Workspace

if TYPE_CHECKING:
    import httpx

URL_VARIABLE, KEY_VARIABLE = "ARGILLA_API_URL", "ARGILLA_API_KEY"
OLDEST, NEXT_MAJOR = (2, 8), (3,)
# A batch of long records takes a loaded server a while; whether it is there at all shows at once.
ANSWER_SECONDS, CONNECT_SECONDS = 180, 10


class RefusedError(UserError):
    """Argilla answered that it will not do this.

    Args:
        status: the HTTP status.
        reason: what Argilla said of it, in one line.
    """

    def __init__(self, address: str, status: int, reason: str) -> None:
        super().__init__(f"{address}: Argilla refuses this: {reason} (HTTP {status})")
        self.status, self.reason = status, reason


@dataclass(frozen=True)
class _Place:
    """Where Argilla is, what to look at when it does not answer, and where it says why it failed."""

    address: str
    key: str = field(repr=False)
    remedy: str
    log: str


@dataclass(frozen=True)
class Connection:
    """An Argilla that answers, and the workspace in it that holds our projects. Close it with a `with` block."""

    place: _Place
    http: "httpx.Client"
    username: str
    workspace_id: str
    workspace_name: str

    @property
    def address(self) -> str:
        return self.place.address

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def call(self, method: str, path: str, body: Any = None, **parameters: Any) -> Any:
        """What Argilla answers, from JSON.

        Args:
            path: below /api/v1/.

        Raises:
            RefusedError: the answer is an error of ours or of the request.
            UserError: there is no answer, or the server failed.
        """
        return _call(self.http, self.place, method, path, body, parameters)


def connect(workspace: Workspace, say: Callable[[str], None] = lambda line: None) -> Connection:
    """Connect as an owner, and find the workspace in Argilla (it is made if need be).

    Args:
        say: receives a warning, in one line.

    Raises:
        UserError: nothing answers, or it is no Argilla that fits, or the key is wrong or lacks the rights.
    """
    import httpx

    place = _place(workspace, say)
    http = httpx.Client(
        base_url=f"{place.address}/api/v1/",
        headers={"X-Argilla-Api-Key": place.key},
        timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
        # What is on this machine is not asked for through a proxy.
        trust_env=not is_loopback(place.address),
    )
    try:
        _check_version(place.address, _call(http, place, "GET", "version"))
        try:
            me = _call(http, place, "GET", "me")
        except RefusedError as refused:
            if refused.status != 401:
                raise
            raise UserError(f"{place.address}: Argilla does not know this API key; {place.remedy}") from None
        if me["role"] != "owner":
            raise UserError(
                f"{place.address}: the API key belongs to {me['username']!r}, who is {me['role']} there; an owner's "
                "key is needed, to make projects and to read what every rater said"
            )
        name = workspace.settings.argilla.workspace
        known = {each["name"]: each["id"] for each in _call(http, place, "GET", "me/workspaces")["items"]}
        workspace_id = known.get(name) or _call(http, place, "POST", "workspaces", {"name": name})["id"]
        return Connection(place, http, me["username"], workspace_id, name)
    except BaseException:
        http.close()
        raise


def is_loopback(address: str) -> bool:
    """Whether a web address is of this machine."""
    from feedback.argilla.server.address import is_loopback

    return is_loopback(urlsplit(address).hostname or "")


def named_address(workspace: Workspace) -> str | None:
    """The Argilla that the environment or veritune.toml names in place of the workspace's own server."""
    return os.environ.get(URL_VARIABLE) or workspace.settings.argilla.url


def _place(workspace: Workspace, say: Callable[[str], None]) -> _Place:
    settings, file = workspace.settings.argilla, workspace.root / SETTINGS_FILE
    if settings.api_key and file.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
        say(f"warning: {file} holds an API key and others can read it; run `chmod 600 {file}`, or use {KEY_VARIABLE}")
    url = named_address(workspace)
    if not url:
        if settings.api_key:
            raise UserError(f"{file}: argilla.api_key stands without argilla.url; give the address, or take both out")
        from feedback.argilla.server import control

        server = control.status(workspace)
        if not server.running or server.url is None:
            raise UserError(
                "the labelling server of this workspace does not run; start it with `veritune feedback serve`, "
                f"or name another Argilla in {file} ([argilla] url and api_key)"
            )
        log = f"see {server.log}"
        remedy = f"{log}, or restart it with `veritune feedback stop` and `veritune feedback serve`"
        return _Place(server.url, control.credentials(workspace).api_key, remedy, log)
    where = URL_VARIABLE if os.environ.get(URL_VARIABLE) else f"argilla.url in {file}"
    if not _is_web_address(url):
        raise UserError(f"{where}: {url!r} is no web address; write it as http://HOST:PORT or https://HOST")
    key = os.environ.get(KEY_VARIABLE) or settings.api_key
    if not key:
        raise UserError(f"{where}: no API key for {url}; set {KEY_VARIABLE}, or argilla.api_key in {file}")
    if not key.isascii() or not key.isprintable():
        raise UserError(f"{where}: the API key for {url} holds characters that no key has; copy it again")
    key_place = KEY_VARIABLE if os.environ.get(KEY_VARIABLE) else f"argilla.api_key in {file}"
    return _Place(url.rstrip("/"), key, f"check {where} and {key_place}", "see its log")


def _is_web_address(url: str) -> bool:
    import httpx

    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        return False
    return parsed.scheme in ("http", "https") and bool(parsed.host)


def _check_version(address: str, answer: Any) -> None:
    version = answer.get("version") if isinstance(answer, dict) else None
    try:
        parts = tuple(int(part) for part in str(version).split(".")[:2])
    except ValueError:
        raise UserError(f"{address}: something answers there, but it is no Argilla 2; check the address") from None
    if not OLDEST <= parts < NEXT_MAJOR:
        raise UserError(
            f"{address}: this is Argilla {version}; veritune needs 2.8 or a later 2.x: upgrade it, or use the "
            "workspace's own server (`veritune feedback serve`)"
        )


def _call(http: "httpx.Client", place: _Place, method: str, path: str, body: Any = None, parameters: Any = None) -> Any:
    import httpx

    address, remedy = place.address, place.remedy
    try:
        answer = http.request(method, path, json=body, params=parameters or None)
    except httpx.ConnectError as error:
        raise UserError(f"{address}: nothing answers there ({_cause(error)}); {remedy}") from None
    except httpx.TimeoutException:
        raise UserError(f"{address}: no answer in time; {remedy}. What was done so far stays: run this again") from None
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise UserError(
            f"{address}: the connection broke ({_cause(error)}); {remedy}. What was done so far stays: run this again"
        ) from None
    if answer.status_code >= 500:
        raise UserError(f"{address}: the server failed at {path} (HTTP {answer.status_code}); {place.log}")
    if answer.is_redirect:
        # Followed, it would hand the key to whoever is named there.
        raise UserError(f"{address}: it points to {answer.headers.get('location')}; give that address instead")
    try:
        content = answer.json() if answer.content else None
    except ValueError:
        raise UserError(f"{address}: something answers there, but it is no Argilla 2; check the address") from None
    if answer.is_error:
        raise RefusedError(address, answer.status_code, _reason(content))
    return content


def _cause(error: Exception) -> str:
    return str(error).strip() or type(error).__name__


def _reason(content: Any) -> str:
    """What an error says, in one line; never the text that was sent, which its details repeat."""
    detail = content.get("detail") if isinstance(content, dict) else None
    if isinstance(detail, dict):
        parameters = detail.get("params") or {}
        errors = parameters.get("errors") or []
        said = "; ".join(f"{'.'.join(map(str, error.get('loc', [])))}: {error.get('msg')}" for error in errors[:3])
        detail = said or parameters.get("detail") or detail.get("code")
    # A refused text field quotes the text after its reason.
    quoted = re.search(r"'msg': '([^']*)'", str(detail))
    line = " ".join((quoted[1] if quoted else str(detail or "no reason given")).split())
    return line if len(line) <= 300 else f"{line[:300]}…"
