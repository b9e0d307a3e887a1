"""`python -m embedded HOME HOST PORT`: serve the database in HOME until it is told to stop (SIGTERM)."""

import asyncio
import errno
import ipaddress
import json
import logging
import os
import signal
import socket
import sqlite3
import sys
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

LOG_BYTES, OLD_LOGS, LONGEST_ENTRY = 5 * 2**20, 3, 20_000
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def main() -> None:
    home, host, port = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    os.umask(0o077)
    os.chdir(home)
    # An end in good order, also while it is still starting: what is open gets closed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        _keep_log(home / "server.log")
        listener = _listen(host, port)
        owner = json.loads((home / "credentials.json").read_text())
        from . import boot

        application, close = boot.make_app(home, owner, ipaddress.ip_address(listener.getsockname()[0]).is_loopback)
    except Exception as error:
        if (reason := _reason(error, home)) is None:
            raise
        sys.exit(f"cannot start: {reason}")
    _serve(application, listener, close)


def _keep_log(path: Path) -> None:
    handler = RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=OLD_LOGS)
    handler.setFormatter(ShortFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.addFilter(_may_be_kept)
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.captureWarnings(True)


class ShortFormatter(logging.Formatter):
    """An error may quote a whole request."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if len(text) <= LONGEST_ENTRY else f"{text[:LONGEST_ENTRY]} […]"


def _may_be_kept(record: logging.LogRecord) -> bool:
    # With a request that it refuses Argilla logs all that stands in it, such as a password that is too short.
    error = record.exc_info[1] if record.exc_info else None
    return type(error).__name__ != "RequestValidationError"


def _listen(host: str, port: int) -> socket.socket:
    # From here on the port is ours; who connects meanwhile waits until it answers.
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    return socket.create_server(address[:2], family=family, backlog=1024)


def _serve(application: Any, listener: socket.socket, close: Any) -> None:
    import uvicorn

    config = uvicorn.Config(
        application,
        log_config=None,
        log_level="info",
        access_log=False,
        ws="none",
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=5,
    )
    config.setup_event_loop()

    async def run() -> None:
        try:
            await uvicorn.Server(config).serve(sockets=[listener])
        finally:
            await close()

    asyncio.run(run())


def _reason(error: BaseException, home: Path) -> str | None:
    """The line for what the user can put right; None for a fault of ours."""
    database = home / "argilla.db"
    error = getattr(error, "orig", None) or error
    full = f"{home}: no space left on this disk; free some and start again"
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            return full
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return (
                f"{database}: damaged ({error}); move argilla.db, argilla.db-wal and argilla.db-shm out of the folder, "
                "start again, and bring the labels back with `veritune feedback restore`"
            )
        if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_BUSY):
            return f"{database}: can't be read and written ({error}); see to the disk and the file's permissions"
    if isinstance(error, OSError):
        # shutil.Error is a list of what went wrong, without a number of its own.
        if error.errno in FULL or any(f"[Errno {number}]" in str(error) for number in FULL):
            return full
        return f"{error.filename or 'the labelling server'}: {error.strerror or error}"
    return None


if __name__ == "__main__":
    main()
