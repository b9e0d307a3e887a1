"""The app: its pages on one Gradio server that keeps to this machine unless it is told otherwise."""

import secrets
from collections.abc import Callable
from threading import Event
from typing import TYPE_CHECKING

from feedback.argilla.server.address import is_loopback, require_free
from feedback.workspace import Workspace
from ui import look
from ui.cli.common import say
from ui.pages import compare

if TYPE_CHECKING:
    import gradio as gr

USER = "veritune"
# Requests that may wait for the model; one more is told that the app is busy.
QUEUE = 32


def make_app(workspace: Workspace) -> "gr.Blocks":
    """All pages over one workspace; a further page is `with app.route("Name") as page: name.build(page, ...)`."""
    import gradio as gr

    with gr.Blocks(title="veritune", analytics_enabled=False) as app:
        compare.build(app, workspace)
    return app.queue(max_size=QUEUE, api_open=False)


def start(workspace: Workspace, host: str, port: int, password: str | None) -> "gr.Blocks":
    """Serve the app from threads of this process; it answers when this returns.

    Args:
        password: of the user `veritune`; None asks nobody.

    Raises:
        UserError: the port is taken, or the address can't be listened on.
    """
    require_free(host, port)
    app = make_app(workspace)
    app.launch(
        server_name=f"[{host}]" if ":" in host else host,
        server_port=port,
        auth=_login(password) if password else None,
        theme=look.theme(),
        css=look.CSS,
        head=look.HEAD,
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        inline=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        max_file_size="1mb",
    )
    return app


def serve(workspace: Workspace, host: str, port: int) -> None:
    """Serve the app until it is interrupted; beyond loopback it asks for a password made for this start.

    Raises:
        UserError: the port is taken, or the address can't be listened on.
    """
    password = None if is_loopback(host) else secrets.token_urlsafe(16)
    app = start(workspace, host, port, password)
    try:
        say(f"veritune: {app.local_url} (Ctrl+C ends it)")
        if password:
            say(f"user {USER}, password {password} (of this start only; use it over a network that you trust)")
        Event().wait()
    finally:
        app.close(verbose=False)


def _login(password: str) -> Callable[[str, str], bool]:
    def right(user: str, given: str) -> bool:
        # Both compared in full: how long it takes tells nothing of either.
        same_user = secrets.compare_digest(user.encode(), USER.encode())
        return secrets.compare_digest(given.encode(), password.encode()) and same_user

    return right
