"""Makes argilla-server's application, in the order that it needs: all settings before its first import builds it."""

import os
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

DATABASE = "argilla.db"
WORKSPACE = "veritune"
# Prompts with whole documents as context are longer than Argilla's 20,000 characters.
LONGEST_MESSAGE = 1_000_000


def make_app(home: Path, owner: dict[str, str], local: bool) -> tuple[Any, Callable[[], Awaitable[None]]]:
    """The application, and what closes its database when it has ended.

    Args:
        home: the server's folder, which is also the current one.
        owner: username, password and api_key of the user who owns all.
        local: answer only to loopback names.

    Raises:
        sqlite3.Error, sqlalchemy.exc.DBAPIError: the database is damaged or can't be written.
    """
    _check_database(home / DATABASE)
    _configure(home)
    application = _import_server()
    close = _connect()
    _migrate()

    from argilla_server import database

    from . import speed, text_index

    text_index.heal(database.sync_engine)
    _ensure_owner(owner)
    database.sync_engine.dispose()
    speed.apply(application)

    import argilla_server

    from .policy import Policy

    return Policy(application, Path(argilla_server.__file__).parent / "static", local), close


def _check_database(path: Path) -> None:
    with closing(sqlite3.connect(path, timeout=30)) as db:
        (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(" ".join(found.split()))
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master")]
        in_use = "users" in tables and db.execute("SELECT 1 FROM users").fetchone()
    if not in_use:
        # The first start was cut short: its migrations can't be gone on with.
        for suffix in ("", "-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode=WAL")


def _configure(home: Path) -> None:
    os.environ.update(
        ARGILLA_HOME_PATH=str(home),
        # Relative: a path with % or ? in it would not survive the ways that a URL takes.
        ARGILLA_DATABASE_URL=f"sqlite+aiosqlite:///{DATABASE}?check_same_thread=False",
        ARGILLA_DATABASE_SQLITE_TIMEOUT="30",
        ARGILLA_SEARCH_ENGINE="sqlite",
        ARGILLA_AUTH_SECRET_KEY=(home / "secret_key").read_text(),
        ARGILLA_CORS_ORIGINS="[]",
        ARGILLA_MAX_MESSAGE_LENGTH=str(LONGEST_MESSAGE),
        ARGILLA_SHOW_HUGGINGFACE_SPACE_PERSISTENT_STORAGE_WARNING="false",
        HF_HUB_OFFLINE="1",
        HF_HUB_DISABLE_TELEMETRY="1",
        DO_NOT_TRACK="1",
    )
    # Each start copies the pages to a temporary folder and leaves it there: here it is found and removed again.
    temporary = home / "tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    tempfile.tempdir = str(temporary)


def _import_server() -> Any:
    from . import hub, jobs

    sys.modules["argilla_server.jobs.queues"] = jobs
    sys.modules["argilla_server.jobs.hub_jobs"] = hub
    import argilla_server

    from . import engine  # noqa: F401 (it registers itself)
    from .frontend import show_text_as_it_is
    from .marks import count_as_the_page

    count_as_the_page()
    (pages,) = Path(tempfile.gettempdir()).glob("*/statics")
    show_text_as_it_is(pages)
    return argilla_server.app


def _connect() -> Callable[[], Awaitable[None]]:
    """Give requests connections that are kept, and jobs, whose event loop is another one, connections of their own.

    A request may hold one session while it needs a second: with a limit to the connections many at once would wait for
    each other, so there is none.
    """
    from argilla_server.database import AsyncSessionLocal
    from argilla_server.settings import settings
    from sqlalchemy import event
    from sqlalchemy.engine import Engine
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.orm import Session
    from sqlalchemy.pool import NullPool

    from .jobs import runs_here

    @event.listens_for(Engine, "connect")
    def set_pragmas(connection: Any, _: object) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.close()

    def connect(**pool: Any) -> Any:
        # Parameters are what people wrote, and keys: they don't belong into a log.
        return create_async_engine(settings.database_url, hide_parameters=True, **settings.database_engine_args, **pool)

    of_requests, of_jobs = connect(pool_size=5, max_overflow=-1), connect(poolclass=NullPool)

    class RoutedSession(Session):
        def get_bind(self, *_: Any, **__: Any) -> Any:
            return (of_jobs if runs_here() else of_requests).sync_engine

    AsyncSessionLocal.configure(sync_session_class=RoutedSession)
    return of_requests.dispose


def _migrate() -> None:
    from argilla_server.database import ALEMBIC_CONFIG_FILE, TAGGED_REVISIONS

    newest = list(TAGGED_REVISIONS.values())[-1]
    with closing(sqlite3.connect(DATABASE)) as db:
        known = db.execute("SELECT name FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
        if known and db.execute("SELECT version_num FROM alembic_version").fetchone() == (newest,):
            return

    import logging.config

    from alembic import command
    from alembic.config import Config

    # Alembic's configuration file would turn off the loggers that are there.
    configure_from_file = logging.config.fileConfig
    logging.config.fileConfig = lambda *_, **__: None
    try:
        command.upgrade(Config(ALEMBIC_CONFIG_FILE), "head")
    finally:
        logging.config.fileConfig = configure_from_file


def _ensure_owner(owner: dict[str, str]) -> None:
    """Make the owner, or give it the key and password of the credentials, should those have been made anew."""
    from argilla_server.contexts.accounts import hash_password
    from argilla_server.database import sync_engine
    from argilla_server.models import User, UserRole, Workspace
    from sqlalchemy import select
    from sqlalchemy.orm import Session

    name = owner["username"]
    with Session(sync_engine) as session:
        user = session.scalar(select(User).where(User.username == name))
        if user is None:
            workspace = session.scalar(select(Workspace).where(Workspace.name == WORKSPACE)) or Workspace(
                name=WORKSPACE
            )
            user = User(first_name=name, username=name, role=UserRole.owner, workspaces=[workspace])
            session.add(user)
        if user.api_key != owner["api_key"]:
            user.api_key, user.password_hash = owner["api_key"], hash_password(owner["password"])
            session.commit()
