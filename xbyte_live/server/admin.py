"""Wiring: the studio of a server, and the admin token that opens it."""

import asyncio
import os
import secrets
import tempfile
from pathlib import Path

from xbyte_live.catalog.catalog import Catalog
from xbyte_live.catalog.streams import Streams
from xbyte_live.config import Settings
from xbyte_live.errors import ConfigError
from xbyte_live.live.build import pull_source
from xbyte_live.payments.reports.earnings import Earnings
from xbyte_live.payments.reports.export import Export
from xbyte_live.storage.coordination import Logins
from xbyte_live.storage.db.engine import Database
from xbyte_live.web.admin.auth import Guard
from xbyte_live.web.admin.events import Events
from xbyte_live.web.admin.login_tokens import TOKEN_LETTERS, LoginTokens
from xbyte_live.web.admin.management import Management
from xbyte_live.web.admin.reports import Dashboard
from xbyte_live.web.admin.studio import Studio

TOKEN_FILE = "admin-token"  # noqa: S105  its name, in the data folder
_TOKEN_BYTES = 24


def build_studio(settings: Settings, database: Database, catalog: Catalog) -> Studio:
    """The studio of a server; raises ``ConfigError`` if there can be no admin token."""
    earnings = Earnings(database)
    guard = Guard(
        LoginTokens(admin_token(settings)),
        Logins(database),
        public_url=settings.public_url,
        failures=settings.admin_failures,
    )
    leaving = asyncio.Event()
    return Studio(
        guard,
        Dashboard(earnings, Export(database), catalog),
        Management(
            settings,
            catalog,
            Streams(database, catalog),
            check_source=lambda url: pull_source(settings, url),
        ),
        Events(earnings, catalog, subscribers=settings.event_subscribers, leaving=leaving),
        leaving,
        settings.public_url,
    )


def admin_token(settings: Settings) -> str:
    """The admin token of the settings, or else of the data folder, made where there is none.

    Several processes may ask at once: the first to put the file there decides. Raises
    ``ConfigError`` when the file cannot be used.
    """
    if settings.admin_token:
        return settings.admin_token.reveal()
    path = token_file(settings)
    try:
        if not path.exists():
            _make(path)
        token = path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        raise ConfigError(
            f"the file {TOKEN_FILE} in data_dir cannot be used; set XBYTE_ADMIN_TOKEN instead"
        ) from None
    if len(token) < TOKEN_LETTERS:
        raise ConfigError(
            f"the file {TOKEN_FILE} in data_dir holds no token; remove it, and another is made"
        )
    return token


def token_file(settings: Settings) -> Path:
    """The file of the admin token in the data folder, used where the settings have none."""
    return settings.data_dir / TOKEN_FILE


def _make(path: Path) -> None:
    """Write a new token to a file of mode 0600, at once and whole, unless there is one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{TOKEN_FILE}-")  # mode 0600
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(_TOKEN_BYTES) + "\n")
        path.hardlink_to(draft)
    except FileExistsError:
        pass  # another process was quicker
    finally:
        Path(draft).unlink()
